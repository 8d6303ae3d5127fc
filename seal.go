package clientcredentials

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// A Keyring has the keys with which shared tokens are encrypted. It is immutable, and
// safe for concurrent use. Printed, it shows only how many keys it has.
type Keyring struct {
	keys []sealingKey // the first one encrypts, each of them decrypts
}

// minKeySize is the minimum length of a key, in bytes: that of AES-256.
const minKeySize = 32

// NewKeyring returns a keyring of keys with 32 random bytes or more, such as
// `openssl rand 32` makes. The first key encrypts, and all of them decrypt. To replace a
// key, deploy the new key in second place, then in first place, then alone. Replicas that
// have no key in common don't share tokens, and don't disturb each other.
func NewKeyring(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("oauth2: a Keyring needs a key; make one of 32 random bytes, the same for all replicas")
	}
	ring := new(Keyring)
	for i, key := range keys {
		if len(key) < minKeySize {
			return nil, fmt.Errorf("oauth2: key %d of the Keyring has %d bytes; it needs %d random ones or more", i+1, len(key), minKeySize)
		}
		if bytes.Count(key, key[:1]) == len(key) {
			return nil, fmt.Errorf("oauth2: key %d of the Keyring is the same byte over and over; make one of random bytes", i+1)
		}
		sealing, err := newSealingKey(key)
		if err != nil {
			return nil, err
		}
		ring.keys = append(ring.keys, sealing)
	}
	return ring, nil
}

// String returns a description of k without its keys.
func (k Keyring) String() string {
	return fmt.Sprintf("clientcredentials.Keyring(%d keys)", len(k.keys))
}

// Format prints what String returns, whatever the verb.
func (k Keyring) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue returns what String does, for log/slog.
func (k Keyring) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns what String does, for encodings.
func (k Keyring) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// sealFormat is the first byte of a sealed text, and says which format the rest has.
// Texts in other formats are left alone.
const sealFormat = 1

// keyIDSize is how many bytes name the key that a text was sealed with.
const keyIDSize = 8

// A sealed text consists of the format, the key's id, a random nonce, and the ciphertext
// with its tag (AES-256-GCM). Its place in the store is authenticated with it, so that
// nobody can move it to another place.
type sealingKey struct {
	id [keyIDSize]byte
	// aead returns the cipher for one key of a store. Each key of the store has its own
	// subkey, so that the number of messages that random nonces allow (2^32, NIST SP
	// 800-38D, Section 8.3) applies to each token separately. aead is a function because
	// nobody can print what a function holds.
	aead func(storeKey string) (cipher.AEAD, error)
}

func newSealingKey(key []byte) (sealingKey, error) {
	var k sealingKey
	id, err := hkdf.Key(sha256.New, key, nil, "clientcredentials key id", keyIDSize)
	if err != nil {
		return k, fmt.Errorf("oauth2: the key can't be used: %w", err)
	}
	copy(k.id[:], id)
	secret, err := hkdf.Key(sha256.New, key, nil, "clientcredentials sealing", minKeySize)
	if err != nil {
		return k, fmt.Errorf("oauth2: the key can't be used: %w", err)
	}
	k.aead = func(storeKey string) (cipher.AEAD, error) {
		subkey, err := hkdf.Key(sha256.New, secret, nil, "clientcredentials store key "+storeKey, minKeySize)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(subkey)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCMWithRandomNonce(block)
	}
	return k, nil
}

// place returns the associated data of what is kept under a store key. version is that of
// the record, or empty for a note.
func place(storeKey, version string) []byte {
	return fmt.Appendf(nil, "%d\x00%s\x00%s", sealFormat, storeKey, version)
}

// errNotOpened is the error for a text that none of the keys decrypts. A replica that
// can't read a record leaves it alone, because other replicas may be able to.
const errNotOpened = constantError("oauth2: the shared token can't be decrypted: it is damaged, or sealed with a key or in a format that this replica doesn't have")

func (k *Keyring) encrypt(storeKey, version string, text []byte) ([]byte, error) {
	key := k.keys[0]
	aead, err := key.aead(storeKey)
	if err != nil {
		return nil, fmt.Errorf("oauth2: the shared token can't be encrypted: %w", err)
	}
	sealed := append([]byte{sealFormat}, key.id[:]...)
	return aead.Seal(sealed, nil, text, place(storeKey, version)), nil
}

func (k *Keyring) decrypt(storeKey, version string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+keyIDSize || sealed[0] != sealFormat {
		return nil, errNotOpened
	}
	for _, key := range k.keys {
		if !bytes.Equal(key.id[:], sealed[1:1+keyIDSize]) {
			continue
		}
		aead, err := key.aead(storeKey)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNotOpened, err)
		}
		if text, err := aead.Open(nil, nil, sealed[1+keyIDSize:], place(storeKey, version)); err == nil {
			return text, nil
		}
	}
	return nil, errNotOpened
}

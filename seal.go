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

// A Keyring has the keys that shared tokens are encrypted with (sealed). It is
// immutable, and safe for concurrent use. Printed, it shows how many keys it has.
type Keyring struct {
	keys []sealingKey // the first seals, each opens
}

// minKeySize is the least length of a key, in bytes: that of AES-256.
const minKeySize = 32

// NewKeyring returns a keyring of keys of 32 random bytes or more, such as
// `openssl rand 32` makes. The first encrypts, and all decrypt: to replace a key,
// deploy its successor in second place, then in first, then alone. Replicas that
// have no key in common don't share tokens, and do each other no harm.
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
			return nil, fmt.Errorf("oauth2: key %d of the Keyring is one byte again and again; make one of random bytes", i+1)
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

// sealFormat is the first byte of what is sealed: the format of the rest. Others
// are left alone.
const sealFormat = 1

// keyIDSize is how many bytes name the key that something was sealed with.
const keyIDSize = 8

// A sealed text is: the format, the key's id, a random nonce, the ciphertext with
// its tag (AES-256-GCM). Authenticated with it is where it belongs, so that nothing
// can be moved.
type sealingKey struct {
	id [keyIDSize]byte
	// aead returns the cipher for one key of a store. Each has a subkey, so that the
	// number of messages that random nonces allow (2^32, NIST SP 800-38D, Section
	// 8.3) is one of the messages for one token. It is a function, because what a
	// function holds can't be printed.
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

// place returns the associated data of what is kept under a store key. version is
// the record's, or empty for a note.
func place(storeKey, version string) []byte {
	return fmt.Appendf(nil, "%d\x00%s\x00%s", sealFormat, storeKey, version)
}

// errNotOpened is the error for what none of the keys opens. Who can't read a record
// leaves it alone: others may.
var errNotOpened = errors.New("oauth2: the shared token can't be decrypted: it is damaged, or sealed with a key, or in a format, that this replica doesn't have")

func (k *Keyring) seal(storeKey, version string, text []byte) ([]byte, error) {
	key := k.keys[0]
	aead, err := key.aead(storeKey)
	if err != nil {
		return nil, fmt.Errorf("oauth2: the shared token can't be encrypted: %w", err)
	}
	sealed := append([]byte{sealFormat}, key.id[:]...)
	return aead.Seal(sealed, nil, text, place(storeKey, version)), nil
}

func (k *Keyring) open(storeKey, version string, sealed []byte) ([]byte, error) {
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

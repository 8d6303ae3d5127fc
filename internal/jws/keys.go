package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

const (
	maxKeyData = 64 << 10 // room for a private key and a chain of certificates
	maxKeyDER  = 8 << 10  // for the private key alone; RSA with 8192 bits needs 4.7 KiB
	maxRSABits = 8192     // as in crypto/tls; with many more, signing takes seconds
)

// Parsed is a private key from a file. Neither fmt nor encoding/json shows the key.
type Parsed struct {
	Signer    crypto.Signer `json:"-"` // of crypto/rsa, crypto/ecdsa or crypto/ed25519; or an RSA key for RSASSA-PSS only
	KeyID     string        // kid of a JWK; may be empty
	Algorithm string        // alg of a JWK; may be empty
}

// Format prints "[private key]", whatever the verb.
func (p Parsed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private key]") }

// ParsePrivateKey reads the only private key in a file: RSA, ECDSA or Ed25519, not
// encrypted, in one of the formats of package keyfile. NewKey succeeds with the result. The
// file may also contain certificates, public keys and the like.
//
// It is an error if the file is larger than 64 KiB or contains a second private key, or if
// the public part of the key doesn't belong to the private part.
func ParsePrivateKey(data []byte) (Parsed, error) {
	keys, err := privateKeys(data)
	if err != nil {
		return Parsed{}, err
	}
	if len(keys) > 1 {
		return Parsed{}, errors.New("there is more than one private key; keep the one to sign with")
	}
	parsed, err := parse(keys[0])
	if err != nil {
		return Parsed{}, err
	}
	if _, err := NewKey(parsed.Signer, parsed.Algorithm); err != nil {
		return Parsed{}, err
	}
	return parsed, nil
}

// ParseSigners reads the private keys in a file, for the caller to choose one. It skips keys
// that can't be used, unless there are no others. NewKey may refuse them, because crypto/tls
// uses more kinds of keys.
func ParseSigners(data []byte) (signers []crypto.Signer, err error) {
	keys, err := privateKeys(data)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if parsed, failure := parse(key); failure == nil {
			signers = append(signers, parsed.Signer)
		} else if err == nil {
			err = failure
		}
	}
	if signers != nil {
		err = nil
	}
	return signers, err
}

// privateKeys returns the private keys in a file, at least one.
func privateKeys(data []byte) ([]keyfile.Part, error) {
	if len(data) > maxKeyData {
		return nil, errors.New("the data is larger than 64 KiB; keep only the private key in it")
	}
	contents, err := keyfile.Read(data)
	if err == nil && contents.Keys == nil {
		err = keyfile.ErrNoKey
	}
	return contents.Keys, err
}

// parse returns the private key in a part of a file.
func parse(key keyfile.Part) (parsed Parsed, err error) {
	switch {
	case key.Err != nil:
		return parsed, key.Err
	case bytes.HasPrefix(key.Data, []byte("{")):
		return parseJWK(key.Data)
	case len(key.Data) > maxKeyDER:
		return parsed, errors.New("the private key is too large; use a smaller one")
	}
	parsed.Signer, err = parseDER(key.Data)
	return parsed, err
}

// A jwk holds the members of a JSON Web Key, RFC 7517, Section 4. None is null.
type jwk map[string]json.RawMessage

// parseJWK returns the key in the JSON Web Key in data.
func parseJWK(data []byte) (Parsed, error) {
	object, err := strictjson.Object(data)
	if err != nil {
		return Parsed{}, fmt.Errorf("the JWK can't be read: %w", err)
	}
	strictjson.DropNull(object)
	members := jwk(object)
	if err := members.checkUse(); err != nil {
		return Parsed{}, err
	}
	kty, err := members.text("kty")
	if err != nil {
		return Parsed{}, err
	}
	parse := map[string]func() (crypto.Signer, error){"RSA": members.rsa, "EC": members.ecdsa, "OKP": members.ed25519}[kty]
	switch {
	case kty == "oct":
		return Parsed{}, errors.New("the JWK is a shared secret (kty is oct); use a private key, with kty RSA, EC or OKP")
	case parse == nil:
		return Parsed{}, errors.New("the JWK's kty must be RSA, EC or OKP")
	case members["d"] == nil:
		return Parsed{}, errors.New("the JWK is a public key; use the private one")
	}
	var parsed Parsed
	if parsed.KeyID, err = members.text("kid"); err != nil {
		return Parsed{}, err
	}
	if parsed.Algorithm, err = members.text("alg"); err != nil {
		return Parsed{}, err
	}
	parsed.Signer, err = parse()
	return parsed, err
}

// checkUse returns an error if the key isn't for signing, RFC 7517, Sections 4.2 and
// 4.3.
func (m jwk) checkUse() error {
	use, err := m.text("use")
	if err != nil {
		return err
	}
	var operations []string
	if raw := m["key_ops"]; raw != nil && json.Unmarshal(raw, &operations) != nil {
		return errors.New("the JWK's key_ops isn't an array of strings")
	}
	if use != "" && use != "sig" || len(operations) > 0 && !slices.Contains(operations, "sign") {
		return errors.New("the JWK isn't for signing: see its use and key_ops; use another key")
	}
	return nil
}

// text returns a member that is a string. It is empty if the member is missing.
func (m jwk) text(name string) (string, error) {
	var text string
	if raw := m[name]; raw != nil && json.Unmarshal(raw, &text) != nil {
		return "", fmt.Errorf("the JWK's %s isn't a string", name)
	}
	return text, nil
}

// octets returns the bytes of a member that is in base64url, RFC 7518, Section 2.
func (m jwk) octets(name string) ([]byte, error) {
	text, err := m.text(name)
	if err != nil {
		return nil, err
	}
	octets, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(octets) == 0 || strings.ContainsAny(text, "\r\n") { // The decoder skips line breaks.
		return nil, fmt.Errorf("the JWK's %s is missing, or isn't base64url without padding", name)
	}
	return octets, nil
}

// sized returns the octets of a member that must have size bytes by RFC 8037, Section 2.
func (m jwk) sized(name string, size int) ([]byte, error) {
	octets, err := m.octets(name)
	if err == nil && len(octets) != size {
		return nil, fmt.Errorf("the JWK's %s has %d bytes; its curve needs %d", name, len(octets), size)
	}
	return octets, err
}

// number returns a member that is a number of size bytes, RFC 7518, Section 6.2. Some
// programs leave out zeros at its beginning, or add some. The caller checks that the public
// key fits, so that they don't matter.
func (m jwk) number(name string, size int) ([]byte, error) {
	octets, err := m.octets(name)
	if err != nil {
		return nil, err
	}
	number := new(big.Int).SetBytes(octets)
	if number.BitLen() > 8*size {
		return nil, fmt.Errorf("the JWK's %s has %d bytes; its curve needs %d", name, len(octets), size)
	}
	return number.FillBytes(make([]byte, size)), nil
}

var errMismatch = errors.New("the JWK's public part doesn't belong to its private part")

// rsa returns the key of RFC 7518, Section 6.3. It computes dp, dq and qi. Without p
// and q it can't validate the key; NewKey then checks that the key signs.
func (m jwk) rsa() (crypto.Signer, error) {
	if m["oth"] != nil {
		return nil, errors.New("the JWK has more than two primes; use another key")
	}
	names := []string{"n", "e", "d"}
	if m["p"] != nil || m["q"] != nil {
		names = append(names, "p", "q")
	}
	numbers := make([]*big.Int, len(names))
	for i, name := range names {
		octets, err := m.octets(name)
		if err != nil {
			return nil, err
		}
		numbers[i] = new(big.Int).SetBytes(octets)
		if numbers[i].BitLen() > maxRSABits {
			return nil, errors.New("the JWK has a number that is too large; use a smaller key")
		}
	}
	n, e, d := numbers[0], numbers[1], numbers[2]
	if e.BitLen() > 31 {
		return nil, errors.New("the JWK's e is too large; use another key")
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())}, D: d, Primes: numbers[3:]}
	key.Precompute()
	if len(key.Primes) > 0 && key.Validate() != nil {
		return nil, errMismatch
	}
	return key, nil
}

// ecdsa returns the key of RFC 7518, Section 6.2.
func (m jwk) ecdsa() (crypto.Signer, error) {
	crv, err := m.text("crv")
	if err != nil {
		return nil, err
	}
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[crv]
	if curve == nil {
		return nil, errors.New("the JWK's crv must be P-256, P-384 or P-521")
	}
	var octets [3][]byte
	for i, name := range []string{"x", "y", "d"} {
		if octets[i], err = m.number(name, coordinateSize(curve)); err != nil {
			return nil, err
		}
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, octets[2])
	if err != nil {
		return nil, errors.New("the JWK's d is out of range")
	}
	point, err := key.PublicKey.Bytes()
	if err != nil || !bytes.Equal(point[1:], slices.Concat(octets[0], octets[1])) {
		return nil, errMismatch
	}
	return key, nil
}

// ed25519 returns the key of RFC 8037, Section 2.
func (m jwk) ed25519() (crypto.Signer, error) {
	crv, err := m.text("crv")
	if err != nil {
		return nil, err
	}
	if crv != "Ed25519" {
		return nil, errors.New("the JWK's crv must be Ed25519, the only curve of OKP that is supported")
	}
	seed, err := m.sized("d", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	x, err := m.sized("x", ed25519.PublicKeySize)
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	if !bytes.Equal(x, key.Public().(ed25519.PublicKey)) {
		return nil, errMismatch
	}
	return key, nil
}

// generatedRSABits is the size of new RSA keys: as strong as the smallest ones of the other
// kinds, 128 bits (NIST SP 800-57 Part 1, Section 5.6.1).
const generatedRSABits = 3072

// GenerateKey returns a new private key for an algorithm.
func GenerateKey(name string) (crypto.Signer, error) {
	i := slices.IndexFunc(algorithms, func(a algorithm) bool { return a.name == name && a.kind != secretKey })
	if i < 0 {
		isShared := func(a algorithm) bool { return a.kind == secretKey }
		return nil, fmt.Errorf("there are no keys for that algorithm; use one of %s", names(slices.DeleteFunc(slices.Clone(algorithms), isShared)))
	}
	switch algorithms[i].kind {
	case p256Key:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case p384Key:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case p521Key:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case ed25519Key:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	default:
		return rsa.GenerateKey(rand.Reader, generatedRSABits)
	}
}

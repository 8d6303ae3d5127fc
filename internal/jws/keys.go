package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

const (
	maxKeyData = 64 << 10 // room for a private key and a chain of certificates
	maxKeyDER  = 8 << 10  // for the private key alone; RSA with 8192 bits needs 4.7 KiB
	maxRSABits = 8192     // as in crypto/tls; with many more, signing takes seconds
)

// ErrEncrypted is the error of ParsePrivateKey for a private key that is encrypted.
var ErrEncrypted = errors.New("the private key is encrypted; decrypt it first, for example with openssl pkey")

// Parsed is the result of ParsePrivateKey. Neither fmt nor encoding/json shows the
// key.
type Parsed struct {
	Signer    crypto.Signer `json:"-"` // *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	KeyID     string        // kid of a JWK; may be empty
	Algorithm string        // alg of a JWK; may be empty
}

// Format prints "[private key]", whatever the verb.
func (p Parsed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private key]") }

// ParsePrivateKey reads one private key of RSA, ECDSA or Ed25519 that isn't
// encrypted. NewKey succeeds with the result. The data may be
//
//   - PEM: PKCS #8, PKCS #1 or SEC 1. It may also contain certificates, public keys
//     and EC parameters.
//   - a JWK (RFC 7517).
//
// It is an error if the data is larger than 64 KiB, contains a second key or anything
// else, or if the public part of the key doesn't belong to the private part.
func ParsePrivateKey(data []byte) (Parsed, error) {
	if len(data) > maxKeyData {
		return Parsed{}, errors.New("the data is larger than 64 KiB; keep only the private key in it")
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff")))
	var parsed Parsed
	var err error
	switch {
	case len(text) == 0:
		err = errors.New("the data is empty; it must be a private key in PEM or a JWK")
	case text[0] == '{':
		parsed, err = parseJWK(text)
	case bytes.Contains(text, []byte("-----BEGIN ")):
		parsed.Signer, err = parsePEM(text)
	case !utf8.Valid(text):
		err = errors.New("the data is binary and thus neither PEM nor a JWK; convert DER with openssl pkey -inform DER, and PKCS #12 with openssl pkcs12 -nodes")
	default:
		err = errors.New("the data is neither PEM nor a JWK; it must be a private key in one of these formats")
	}
	if err != nil {
		return Parsed{}, err
	}
	if _, err := NewKey(parsed.Signer, parsed.Algorithm); err != nil {
		return Parsed{}, err
	}
	return parsed, nil
}

// parsePEM returns the only private key among the blocks of data.
func parsePEM(data []byte) (crypto.Signer, error) {
	// pem.Decode skips damaged blocks without an error. Counting the beginnings
	// shows that there was one, so that the error is about that block.
	begun := bytes.Count(data, []byte("-----BEGIN "))
	var private *pem.Block
	rest := data
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		begun--
		switch block.Type {
		case "CERTIFICATE", "TRUSTED CERTIFICATE", "EC PARAMETERS", "PUBLIC KEY", "RSA PUBLIC KEY":
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, ErrEncrypted
		}
		if private != nil {
			return nil, errors.New("there is more than one private key; keep the one to sign with")
		}
		private = block
	}
	switch {
	case begun > 0 && bytes.Contains(data, []byte(`\n`)):
		return nil, errors.New(`the PEM contains \n as text where its lines should end; put line breaks there`)
	case begun > 0:
		return nil, errors.New("the PEM is damaged; check that its line breaks are still there, and that no line is indented")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("something follows the PEM; remove it")
	case private == nil:
		return nil, errors.New("there is a certificate or a public key, but no private key")
	}

	if len(private.Bytes) > maxKeyDER {
		return nil, errors.New("the private key is too large; use a smaller one")
	}
	var key any
	var err error
	switch private.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(private.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(private.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(private.Bytes)
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("the private key is in the format of OpenSSH; convert it with ssh-keygen -p -m PKCS8")
	default:
		return nil, errors.New("the PEM block must be a PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY")
	}
	if err != nil {
		return nil, fmt.Errorf("the private key can't be read; openssl pkey -check may say more: %w", err)
	}
	var whole asn1.RawValue // crypto/x509 ignores what follows the key.
	if tail, err := asn1.Unmarshal(private.Bytes, &whole); err != nil || len(tail) > 0 {
		return nil, errors.New("something follows the private key inside its PEM block; remove it")
	}
	signer, ok := key.(crypto.Signer)
	if !ok { // X25519
		return nil, errors.New("the private key can't sign; use RSA, ECDSA or Ed25519")
	}
	return signer, nil
}

// A jwk holds the members of a JSON Web Key, RFC 7517, Section 4.
type jwk map[string]json.RawMessage

// parseJWK returns the key in the JSON Web Key in data.
func parseJWK(data []byte) (Parsed, error) {
	object, err := strictjson.Object(data)
	if err != nil {
		return Parsed{}, fmt.Errorf("the JWK can't be read: %w", err)
	}
	members := jwk(object)
	if members["keys"] != nil {
		return Parsed{}, errors.New("the data is a JWK set; keep only the key to sign with")
	}
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
	operations := []string{"sign"}
	if raw := m["key_ops"]; raw != nil {
		if json.Unmarshal(raw, &operations) != nil {
			return errors.New("the JWK's key_ops isn't an array of strings")
		}
	}
	if use != "" && use != "sig" || !slices.Contains(operations, "sign") {
		return errors.New("the JWK isn't for signing: see its use and key_ops; use another key")
	}
	return nil
}

// text returns a member that is a string. It is empty if the member is missing.
func (m jwk) text(name string) (string, error) {
	var text string
	if raw := m[name]; raw != nil && (json.Unmarshal(raw, &text) != nil || raw[0] != '"') {
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

// sized returns the octets of a member that must have size bytes by RFC 7518,
// Section 6.2, or RFC 8037, Section 2.
func (m jwk) sized(name string, size int) ([]byte, error) {
	octets, err := m.octets(name)
	if err == nil && len(octets) != size {
		return nil, fmt.Errorf("the JWK's %s has %d bytes; its curve needs %d", name, len(octets), size)
	}
	return octets, err
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
		if octets[i], err = m.sized(name, coordinateSize(curve)); err != nil {
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

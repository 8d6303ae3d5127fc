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
)

const (
	maxKeyData = 64 << 10 // a private key, and a chain of certificates around it
	maxKeyDER  = 8 << 10  // of the private key alone; RSA with 8192 bits needs 4.7 KiB
	maxRSABits = 8192     // as in crypto/tls; signing with many more takes seconds
)

// Parsed is what ParsePrivateKey has found. Neither fmt nor encoding/json shows
// the key.
type Parsed struct {
	Signer    crypto.Signer `json:"-"` // *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	KeyID     string        // a JWK's kid, may be empty
	Algorithm string        // a JWK's alg, may be empty
}

// Format implements fmt.Formatter.
func (p Parsed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private key]") }

// ParsePrivateKey reads one private key of RSA, ECDSA or Ed25519, with which NewKey
// succeeds: PEM of PKCS #8, PKCS #1 or SEC 1, where certificates, public keys and EC
// parameters may stand beside the key, or a JWK (RFC 7517). It must not be encrypted.
//
// The data may have 64 KiB. Something that isn't part of the key, or a second one,
// is an error, and so is a public part that doesn't belong to the private one.
func ParsePrivateKey(data []byte) (Parsed, error) {
	if len(data) > maxKeyData {
		return Parsed{}, errors.New("the data is larger than 64 KiB; give it the private key only")
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff")))
	var parsed Parsed
	var err error
	switch {
	case len(text) == 0:
		err = errors.New("the data is empty; give it a private key in PEM or as a JWK")
	case text[0] == '{':
		parsed, err = parseJWK(text)
	case bytes.Contains(text, []byte("-----BEGIN ")):
		parsed.Signer, err = parsePEM(text)
	case !utf8.Valid(text):
		err = errors.New("the data is binary, neither PEM nor a JWK; convert DER with openssl pkey -inform DER, and PKCS #12 with openssl pkcs12 -nodes")
	default:
		err = errors.New("the data is neither PEM nor a JWK")
	}
	if err != nil {
		return Parsed{}, err
	}
	if _, err := NewKey(parsed.Signer, parsed.Algorithm); err != nil {
		return Parsed{}, err
	}
	return parsed, nil
}

func parsePEM(data []byte) (crypto.Signer, error) {
	// pem.Decode passes over what it can't read. Nobody should look for the
	// error in a key that is fine while the other one is damaged.
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
			return nil, errors.New("the private key is encrypted; decrypt it first, for example with openssl pkey")
		}
		if private != nil {
			return nil, errors.New("there is more than one private key; keep the one to sign with")
		}
		private = block
	}
	switch {
	case begun > 0 && bytes.Contains(data, []byte(`\n`)):
		return nil, errors.New(`the PEM has \n in its text where its lines should end`)
	case begun > 0:
		return nil, errors.New("the PEM is damaged; each line must be one of its own, without indentation")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("something follows the PEM; remove it")
	case private == nil:
		return nil, errors.New("there is a certificate or a public key, but no private key")
	}

	if len(private.Bytes) > maxKeyDER {
		return nil, errors.New("the private key is too large to be used")
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
		return nil, errors.New("the PEM block is none of PRIVATE KEY, RSA PRIVATE KEY and EC PRIVATE KEY")
	}
	if err != nil {
		return nil, fmt.Errorf("the private key can't be read; see what openssl pkey -check says of it: %w", err)
	}
	var whole asn1.RawValue // crypto/x509 looks at the beginning.
	if tail, err := asn1.Unmarshal(private.Bytes, &whole); err != nil || len(tail) > 0 {
		return nil, errors.New("something follows the private key inside of its PEM block")
	}
	signer, ok := key.(crypto.Signer)
	if !ok { // X25519
		return nil, errors.New("the private key can't sign; use RSA, ECDSA or Ed25519")
	}
	return signer, nil
}

// A jwk is the members of a JSON Web Key, RFC 7517, Section 4.
type jwk map[string]json.RawMessage

func parseJWK(data []byte) (Parsed, error) {
	members, err := parseObject(data)
	if err != nil {
		return Parsed{}, err
	}
	if members["keys"] != nil {
		return Parsed{}, errors.New("the data is a JWK set; take the key to sign with out of it")
	}
	if err := members.mustSign(); err != nil {
		return Parsed{}, err
	}
	kty, err := members.text("kty")
	if err != nil {
		return Parsed{}, err
	}
	parse := map[string]func() (crypto.Signer, error){"RSA": members.rsa, "EC": members.ecdsa, "OKP": members.ed25519}[kty]
	switch {
	case kty == "oct":
		return Parsed{}, errors.New("the JWK is a shared secret (kty is oct); use a private key, of RSA, EC or OKP")
	case parse == nil:
		return Parsed{}, errors.New("the JWK's kty is none of RSA, EC and OKP")
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

// parseObject is stricter than encoding/json, which takes the last of two members
// of a name.
func parseObject(data []byte) (jwk, error) {
	broken := errors.New("the JWK isn't valid JSON")
	if !utf8.Valid(data) {
		return nil, broken
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil { // The brace.
		return nil, broken
	}
	members := make(jwk)
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, broken
		}
		if _, ok := members[name]; ok {
			return nil, errors.New("the JWK has a member twice")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, broken
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, broken
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JWK; remove it")
	}
	return members, nil
}

// mustSign returns an error if the key is for something else, RFC 7517, Sections
// 4.2 and 4.3.
func (m jwk) mustSign() error {
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
		return errors.New("the JWK isn't for signing, as its use or key_ops says; take one that is")
	}
	return nil
}

// text returns a member that is a string; one that is missing is empty.
func (m jwk) text(name string) (string, error) {
	var text string
	if raw := m[name]; raw != nil && (json.Unmarshal(raw, &text) != nil || raw[0] != '"') {
		return "", fmt.Errorf("the JWK's %s isn't a string", name)
	}
	return text, nil
}

// octets returns a member that is the base64url encoding of bytes, RFC 7518,
// Section 2.
func (m jwk) octets(name string) ([]byte, error) {
	text, err := m.text(name)
	if err != nil {
		return nil, err
	}
	octets, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(octets) == 0 || strings.ContainsAny(text, "\r\n") { // The decoder passes over line ends.
		return nil, fmt.Errorf("the JWK's %s is missing, or isn't base64url without padding", name)
	}
	return octets, nil
}

// sized returns octets of a certain number, as RFC 7518, Section 6.2, and RFC 8037,
// Section 2, want them.
func (m jwk) sized(name string, size int) ([]byte, error) {
	octets, err := m.octets(name)
	if err == nil && len(octets) != size {
		return nil, fmt.Errorf("the JWK's %s has %d bytes where its curve has %d", name, len(octets), size)
	}
	return octets, err
}

var errMismatch = errors.New("the JWK's public part isn't that of its private part")

// rsa reads RFC 7518, Section 6.3. Of a key without p and q only that it signs can
// be checked, which NewKey does. dp, dq and qi are computed.
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
			return nil, errors.New("the JWK has a number that is too large to be used")
		}
	}
	n, e, d := numbers[0], numbers[1], numbers[2]
	if e.BitLen() > 31 {
		return nil, errors.New("the JWK's e is too large to be used")
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())}, D: d, Primes: numbers[3:]}
	key.Precompute()
	if len(key.Primes) > 0 && key.Validate() != nil {
		return nil, errMismatch
	}
	return key, nil
}

// ecdsa reads RFC 7518, Section 6.2.
func (m jwk) ecdsa() (crypto.Signer, error) {
	crv, err := m.text("crv")
	if err != nil {
		return nil, err
	}
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[crv]
	if curve == nil {
		return nil, errors.New("the JWK's crv is none of P-256, P-384 and P-521")
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

// ed25519 reads RFC 8037, Section 2.
func (m jwk) ed25519() (crypto.Signer, error) {
	crv, err := m.text("crv")
	if err != nil {
		return nil, err
	}
	if crv != "Ed25519" {
		return nil, errors.New("the JWK's crv isn't Ed25519, the only one of OKP that is supported")
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

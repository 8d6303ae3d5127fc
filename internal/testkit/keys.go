package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
)

// NewKey returns a new private key for a JWS algorithm (RFC 7518, Section 3.1, and RFC
// 8037): an RSA key of 2048 bits, an ECDSA key on the curve of the algorithm, or an Ed25519
// key for EdDSA and Ed25519.
func NewKey(algorithm string) crypto.Signer {
	switch algorithm {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return must(rsa.GenerateKey(rand.Reader, 2048))
	case "ES256":
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case "ES384":
		return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case "ES512":
		return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	case "EdDSA", "Ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	}
	panic("testkit: no key for the algorithm " + algorithm)
}

// NewKeys returns a new private key for each of the algorithms. The RSA algorithms share
// one key, because making it takes long.
func NewKeys(algorithms ...string) map[string]crypto.Signer {
	keys := make(map[string]crypto.Signer)
	var shared crypto.Signer
	for _, algorithm := range algorithms {
		if strings.HasPrefix(algorithm, "E") {
			keys[algorithm] = NewKey(algorithm)
			continue
		}
		if shared == nil {
			shared = NewKey(algorithm)
		}
		keys[algorithm] = shared
	}
	return keys
}

// KeyPEM returns a private key as PEM (PKCS #8).
func KeyPEM(key crypto.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
}

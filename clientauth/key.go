package clientauth

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// A SigningKey is a private key, and what a server knows it by. Neither fmt nor
// encoding/json shows it.
type SigningKey struct {
	// Signer signs: a key of RSA with 2048 bits or more, of ECDSA on P-256, P-384
	// or P-521, or of Ed25519. It may be in another process or machine. Required.
	Signer crypto.Signer

	// KeyID and Algorithm count when PrivateKeyJWT doesn't have them.
	KeyID, Algorithm string

	// Certificate, of the same key, puts its thumbprint (x5t#S256, RFC 7515,
	// Section 4.1.8) into the assertion's header. Nil: none.
	Certificate *x509.Certificate
}

// A Key returns the key to sign with. It is called for each attempt at a token, with
// the context of that, which a signer elsewhere can obey. It must be safe for
// concurrent use, and so must the signer.
type KeySource func(ctx context.Context) (*SigningKey, error)

// Signer returns a Key with that signer, such as an *ecdsa.PrivateKey or one in a
// hardware module.
func SignerKey(signer crypto.Signer) KeySource {
	return func(context.Context) (*SigningKey, error) { return &SigningKey{Signer: signer}, nil }
}

// KeyBytes returns a Key from PEM (PKCS #8, PKCS #1 or SEC 1) or a JWK (RFC 7517),
// not encrypted. What is wrong with it is the error of each call.
func KeyBytes(data []byte) KeySource {
	key, err := parseKey(data)
	return func(context.Context) (*SigningKey, error) { return key, err }
}

// KeyFile returns a Key that reads the file at each call, as KeyBytes does: a new
// key counts from the next token request on. To read and check a key takes a
// millisecond or three, and token requests are rare.
func KeyFile(path string) KeySource {
	return func(context.Context) (*SigningKey, error) {
		data, err := readFile(path)
		if err != nil {
			return nil, err
		}
		key, err := parseKey(data)
		if err != nil {
			return nil, fmt.Errorf("the file %s: %w", path, err)
		}
		return key, nil
	}
}

// CertificateKey returns the key of a certificate, whose thumbprint goes into the
// assertion's header, for servers that know the client by its certificate.
func CertificateKey(certificate CertificateSource) KeySource {
	return func(ctx context.Context) (*SigningKey, error) {
		pair, err := usable(ctx, certificate)
		if err != nil {
			return nil, err
		}
		signer, ok := pair.PrivateKey.(crypto.Signer)
		if !ok {
			return nil, errors.New("the certificate's private key is not a crypto.Signer")
		}
		return &SigningKey{Signer: signer, Certificate: pair.Leaf}, nil
	}
}

func parseKey(data []byte) (*SigningKey, error) {
	parsed, err := jws.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	return &SigningKey{Signer: parsed.Signer, KeyID: parsed.KeyID, Algorithm: parsed.Algorithm}, nil
}

package clientauth

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// A SigningKey is a private key, together with the names by which a server knows it.
// Neither fmt nor encoding/json shows it.
type SigningKey struct {
	// Signer has an RSA key of 2048 bits or more, an ECDSA key on P-256, P-384 or
	// P-521, or an Ed25519 key. It may sign in another process or on another
	// machine. An RSA-PSS key from a file signs with PS256, PS384 and PS512 only. Required.
	Signer crypto.Signer

	// KeyID and Algorithm are used where those of PrivateKeyJWT are empty.
	KeyID, Algorithm string

	// Certificate is a certificate of the key. CertificateHeader of PrivateKeyJWT says
	// what the assertion's header contains of it. Nil: none.
	Certificate *x509.Certificate

	// Chain has the certificates that follow Certificate in x5c, in DER, each followed by
	// the one that certifies it (RFC 7515, Section 4.1.6). It may end before the root.
	Chain [][]byte
}

// A KeySource returns the key to sign with. It is called for each attempt at a token.
// The context is that of the attempt: a signer on another machine can obey it if the
// source returns a new signer for it.
//
// It must be safe for concurrent use, and so must the signer.
type KeySource func(ctx context.Context) (*SigningKey, error)

// SignerKey returns a source of a key that signs with signer, such as an
// *ecdsa.PrivateKey or a key in a hardware module.
func SignerKey(signer crypto.Signer) KeySource {
	return func(context.Context) (*SigningKey, error) { return &SigningKey{Signer: signer}, nil }
}

// KeyBytes returns a source of the private key in data, which isn't encrypted. The data may
// be
//
//   - PEM of PKCS #8, PKCS #1 or SEC 1, also if its line breaks were lost, or became the two
//     characters \n,
//   - DER of these,
//   - a JWK (RFC 7517) or a set with one private key,
//   - other JSON with one private key in it, such as the key file of a provider or the value of
//     a secret manager, also if the key is in a string,
//   - base64 of one of these.
//
// What the data contains decides how it is read. The label of a PEM block doesn't matter,
// nor do a byte order mark, text around the key, and certificates. If there isn't exactly
// one private key, or if the key can't be used, each call returns the error.
func KeyBytes(data []byte) KeySource {
	key, err := parseKey(data)
	return func(context.Context) (*SigningKey, error) { return key, err }
}

// KeyFile returns a source that reads the file at each call, in the formats of
// KeyBytes. A new key is used from the next token request on. Reading and checking a
// key takes one to three milliseconds, and token requests are rare.
func KeyFile(path string) KeySource {
	return func(context.Context) (*SigningKey, error) { return parseFile(path, parseKey) }
}

// CertificateKey returns a source of the key of a certificate, for servers that know
// the client by its certificate. The certificate's thumbprint goes into the
// assertion's header, or what CertificateHeader of PrivateKeyJWT says.
//
// The other certificates of the source, in any order, make up the chain for x5c. Leave out
// those that the server shouldn't get, such as the root. Those that don't belong to the chain
// are left out.
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
		return &SigningKey{Signer: signer, Certificate: pair.Leaf, Chain: issuers(pair)}, nil
	}
}

// ThumbprintKeyID returns a source of the same key, whose KeyID is the thumbprint of its public
// key (RFC 7638) unless it has one. So each key of a rotation has a kid of its own, and
// PrivateKeyJWT and JWKS call it the same:
//
//	key := clientauth.ThumbprintKeyID(clientauth.KeyFile("/etc/reports/key.pem"))
func ThumbprintKeyID(source KeySource) KeySource {
	return func(ctx context.Context) (*SigningKey, error) {
		key, err := signingKey(ctx, source)
		if err != nil || key.KeyID != "" {
			return key, err
		}
		named := *key
		named.KeyID, err = jws.Thumbprint(key.Signer)
		return &named, err
	}
}

// signingKey returns the key of source.
func signingKey(ctx context.Context, source KeySource) (*SigningKey, error) {
	if source == nil {
		return nil, errors.New("there is no source of a key; use KeyFile or another KeySource")
	}
	key, err := source(ctx)
	if err == nil && (key == nil || key.Signer == nil) {
		err = errors.New("the source of a key returned no key")
	}
	return key, err
}

// parseKey returns the private key in data, in the formats of KeyBytes.
func parseKey(data []byte) (*SigningKey, error) {
	parsed, err := jws.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	return &SigningKey{Signer: parsed.Signer, KeyID: parsed.KeyID, Algorithm: parsed.Algorithm}, nil
}

package assertion

import (
	"crypto"
	"crypto/sha1" //nolint:gosec // for x5t
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// ErrOtherCertificate is the error for a certificate that isn't that of the key.
var ErrOtherCertificate = errors.New("the private key belongs to another certificate; give the certificate and the key that belong together")

// KeyHeader returns the parameters of a header that depend on the key, and what identifies the
// key: it changes with the key, its kid, and its certificate, because a renewed certificate
// may have the same key. keyID may be empty.
func KeyHeader(key *jws.Key, keyID string, signer crypto.Signer, certificate *x509.Certificate, chain [][]byte, names []string) (header map[string]any, id string, err error) {
	header, err = CertificateHeader(signer, certificate, chain, names)
	if err != nil {
		return nil, "", err
	}
	id = key.Thumbprint()
	if keyID != "" {
		header["kid"] = keyID
		id += " " + keyID
	}
	if certificate != nil {
		id += " " + jws.Digest(certificate.Raw)
	}
	return header, id, nil
}

// CertificateHeader returns those parameters of a header that have these names and describe
// the certificate of a key. A JWK has the same ones. Without names, it returns x5t#S256 if
// there is a certificate. chain is what follows the certificate in x5c.
func CertificateHeader(signer crypto.Signer, certificate *x509.Certificate, chain [][]byte, names []string) (map[string]any, error) {
	header := map[string]any{}
	if certificate == nil {
		if len(names) > 0 {
			return nil, errors.New("CertificateHeader is set, but the key has no certificate; use CertificateKey for Key")
		}
		return header, nil
	}
	// RFC 7515, Sections 4.1.6 to 4.1.8: it must be the certificate of the key.
	if public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(signer.Public()) {
		return nil, ErrOtherCertificate
	}
	if len(names) == 0 {
		names = []string{"x5t#S256"}
	}
	for _, name := range names {
		switch name {
		case "x5t#S256":
			header[name] = jws.Digest(certificate.Raw)
		case "x5t":
			thumbprint, err := sha1Thumbprint(certificate.Raw)
			if err != nil {
				return nil, err
			}
			header[name] = thumbprint
		case "x5c":
			header[name] = append([][]byte{certificate.Raw}, chain...) // encoding/json writes base64, not base64url.
		default:
			return nil, fmt.Errorf("CertificateHeader lists %s; it may list x5c, x5t and x5t#S256", redact.Quote(name, maxName))
		}
	}
	return header, nil
}

// sha1Thumbprint returns the x5t of a certificate, RFC 7515, Section 4.1.7.
func sha1Thumbprint(der []byte) (thumbprint string, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("x5t needs SHA-1, which GODEBUG=fips140=only forbids; list x5t#S256 or x5c in CertificateHeader instead")
		}
	}()
	sum := sha1.Sum(der) //nolint:gosec // RFC 7515 defines it so. It names the certificate; the server compares more than that.
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A pki is a certification authority, and the certificate that it issued to the servers.
type pki struct{ ca, server *tls.Certificate }

// identityPEM is what a program needs to serve by https: a certificate, its key, and the
// authority of its clients' certificates.
type identityPEM struct {
	Key  string `json:"key"`
	Cert string `json:"cert"`
	CA   string `json:"ca"`
}

// testPKI returns the certification authority of all tests.
var testPKI = sync.OnceValue(func() pki {
	ca := testkit.CA("conformance tests")
	return pki{ca, testkit.NewCertificate(x509.Certificate{
		Subject:     pkix.Name{CommonName: "authorization server"},
		NotAfter:    time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, nil)}
})

func (p pki) serverPEM() *identityPEM {
	return &identityPEM{testkit.KeyPEM(p.server.PrivateKey), testkit.CertificatePEM(p.server), testkit.CertificatePEM(p.ca)}
}

// config returns the TLS configuration of a client that trusts p's servers and presents
// a certificate, if any.
func (p pki) config(presented ...tls.Certificate) *tls.Config {
	config := &tls.Config{RootCAs: testkit.Roots(p.ca)}
	if len(presented) > 0 {
		// Not through Certificates: of those, crypto/tls presents only one that was
		// issued by an authority which the server names, so never a self-signed one.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &presented[0], nil
		}
	}
	return config
}

// clientCertificate returns a certificate for a client. If issuer is nil, it is
// self-signed.
func clientCertificate(issuer *tls.Certificate, template x509.Certificate) tls.Certificate {
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return *testkit.NewCertificate(template, issuer, nil)
}

// certificateKey returns a certificate in the form that a client registers for
// self_signed_tls_client_auth: as x5c.
func certificateKey(c tls.Certificate) jose.JSONWebKey {
	return jose.JSONWebKey{Key: c.Leaf.PublicKey, Certificates: []*x509.Certificate{c.Leaf}, Use: "sig"}
}

// writeFiles writes files into a directory.
func writeFiles(dir string, contents map[string]string) error {
	for name, content := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

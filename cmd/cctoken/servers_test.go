package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A testServer is an authorization server for tests.
type testServer struct{ *clientcredentialstest.Server }

// startServer starts one. Without clients it knows one that has canarySecret.
func startServer(t *testing.T, clients ...clientcredentialstest.Client) testServer {
	t.Helper()
	if clients == nil {
		clients = []clientcredentialstest.Client{{ID: canaryID, Secret: canarySecret, Scopes: []string{"read", "write"}}}
	}
	srv := clientcredentialstest.NewServer(clients...)
	t.Cleanup(srv.Close)
	return testServer{srv}
}

func startTLSServer(t *testing.T, clients ...clientcredentialstest.Client) testServer {
	t.Helper()
	srv := clientcredentialstest.NewTLSServer(clients...)
	t.Cleanup(srv.Close)
	return testServer{srv}
}

// env returns the environment for the client.
func (s testServer) env() environment { return clientOf(s.TokenURL) }

// clientOf returns the environment for a client with canarySecret.
func clientOf(tokenURL string) environment {
	return environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": tokenURL}
}

// authority returns a file with the certificate of the authority that issued the
// certificate of a TLS server.
func (s testServer) authority(t *testing.T) string {
	t.Helper()
	resp, err := s.Client().Get(s.APIURL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	chain := resp.TLS.PeerCertificates
	return authorityFile(t, chain[len(chain)-1])
}

// withMetadata starts an issuer whose metadata names the token endpoint of s.
func (s testServer) withMetadata(t *testing.T, edit func(*clientcredentials.ServerMetadata)) string {
	t.Helper()
	var issuer *httptest.Server
	issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/openid-configuration" {
			http.NotFound(w, r)
			return
		}
		m := clientcredentials.ServerMetadata{Issuer: issuer.URL, TokenEndpoint: s.TokenURL}
		edit(&m)
		_ = writeJSON(w, m)
	}))
	t.Cleanup(issuer.Close)
	return issuer.URL
}

// startCertificateServer starts a server that requires a client certificate of
// everybody. It returns the settings for it.
func startCertificateServer(t *testing.T, handler http.Handler) environment {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return clientOf(srv.URL+"/token").with("CA_FILE", authorityFile(t, srv.Certificate()))
}

// authorityFile returns a file with the certificate.
func authorityFile(t *testing.T, c *x509.Certificate) string {
	t.Helper()
	return writeFile(t, "ca.pem", testkit.CertificatePEM(&tls.Certificate{Certificate: [][]byte{c.Raw}}))
}

// writeFile writes a file into a new directory.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// newKeyFile returns a new key and a file with it.
func newKeyFile(t *testing.T) (crypto.Signer, string) {
	t.Helper()
	key := testkit.NewKey("ES256")
	return key, writeFile(t, "key.pem", testkit.KeyPEM(key))
}

// A certificate is a client certificate with its key, and files with both.
type certificate struct {
	*tls.Certificate
	certFile, keyFile string
}

// newCertificate returns a certificate that is issued by another, or by itself if by is
// nil.
func newCertificate(t *testing.T, by *certificate, life time.Duration) *certificate {
	t.Helper()
	template, issuer := x509.Certificate{Subject: pkix.Name{CommonName: "reports"}, NotAfter: time.Now().Add(life)}, (*tls.Certificate)(nil)
	if by != nil {
		template.Subject.CommonName += " by an authority"
		issuer = by.Certificate
	}
	c := testkit.NewCertificate(template, issuer, nil)
	return &certificate{c, writeFile(t, "cert.pem", testkit.CertificatePEM(c)), writeFile(t, "key.pem", testkit.KeyPEM(c.PrivateKey))}
}

// flags returns the flags for the files.
func (c *certificate) flags(more ...string) []string {
	return append([]string{"-cert-file", c.certFile, "-key-file", c.keyFile}, more...)
}

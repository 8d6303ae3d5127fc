package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
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
	defer resp.Body.Close()
	s.Client().CloseIdleConnections()
	chain := resp.TLS.PeerCertificates
	return writePEM(t, "CERTIFICATE", chain[len(chain)-1].Raw)
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
	return clientOf(srv.URL+"/token").with("CA_FILE", writePEM(t, "CERTIFICATE", srv.Certificate().Raw))
}

// writeFile writes a file into a new directory.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func writePEM(t *testing.T, typ string, der []byte) string {
	t.Helper()
	return writeFile(t, "file.pem", string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})))
}

// newKeyFile returns a new key and a file with it.
func newKeyFile(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return key, writePEM(t, "PRIVATE KEY", der)
}

// A certificate is a client certificate with its key, and files with both.
type certificate struct {
	*x509.Certificate
	key               crypto.Signer
	certFile, keyFile string
}

// newCertificate returns a certificate that is issued by another, or by itself if by is
// nil.
func newCertificate(t *testing.T, by *certificate, life time.Duration) *certificate {
	t.Helper()
	key, keyFile := newKeyFile(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "reports"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), IsCA: true, BasicConstraintsValid: true,
	}
	if by == nil {
		by = &certificate{Certificate: template, key: key}
	} else {
		template.Subject.CommonName += " by an authority"
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &certificate{parsed, key, writePEM(t, "CERTIFICATE", der), keyFile}
}

// flags returns the flags for the files.
func (c *certificate) flags(more ...string) []string {
	return append([]string{"-cert-file", c.certFile, "-key-file", c.keyFile}, more...)
}

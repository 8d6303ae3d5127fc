package clientauth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const longSecret = "0123456789abcdef0123456789abcdef"

// must returns v, for what a test needs before it begins.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// newKey returns a private key, and the same key in PEM.
func newKey() (*ecdsa.PrivateKey, string) {
	key := testkit.NewKey("ES256").(*ecdsa.PrivateKey)
	return key, testkit.KeyPEM(key)
}

// secret returns a source of a secret that never changes.
func secret(s string) SecretSource {
	return func(context.Context) (string, error) { return s, nil }
}

// certificate returns a source of a certificate that never changes.
func certificate(c *tls.Certificate) CertificateSource {
	return func(context.Context) (*tls.Certificate, error) { return c, nil }
}

// A pair is a certificate with its key, and both in PEM.
type pair struct {
	*tls.Certificate
	cert, key string
}

// newPair returns a self-signed certificate that is valid between two times.
func newPair(from, to time.Time) pair {
	c := testkit.NewCertificate(x509.Certificate{NotBefore: from, NotAfter: to}, nil, nil)
	return pair{c, testkit.CertificatePEM(c), testkit.KeyPEM(c.PrivateKey)}
}

func newValidPair() pair { return newPair(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)) }

// write writes a file and returns its path.
func write(t *testing.T, path, content string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// file writes a new file and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "file"), content)
}

// config returns a Config for srv without a secret and without retries.
func config(srv *cct.Server, auth clientcredentials.ClientAuth) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:   "id",
		TokenURL:   srv.TokenURL,
		ClientAuth: auth,
		HTTPClient: srv.Client(),
		Retry:      clientcredentials.RetryPolicy{MaxAttempts: 1},
	}
}

// token requests a token from a new server that knows client. It returns the request as
// the server received it.
func token(t *testing.T, client cct.Client, auth clientcredentials.ClientAuth, secret string) cct.Request {
	t.Helper()
	srv := cct.Start(t, client)
	conf := config(srv, auth)
	conf.ClientID, conf.ClientSecret = client.ID, secret
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	request := srv.Auth.Requests()[0]
	require.Equal(t, auth.Method(), request.AuthMethod)
	return request
}

// attempt returns an attempt as a Config makes it for its ClientAuth.
func attempt() *clientcredentials.Attempt {
	return &clientcredentials.Attempt{TokenURL: "https://auth.example/token", ClientID: "id", Header: map[string][]string{}, Form: map[string][]string{}}
}

// decode returns the header and the claims of a JWT.
func decode(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	for i, part := range []*map[string]any{&header, &claims} {
		require.NoError(t, json.Unmarshal(must(base64.RawURLEncoding.DecodeString(parts[i])), part))
	}
	return header, claims
}

var verbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"}

// surfaces returns v in every form in which it could be printed.
func surfaces(v any) string {
	var b bytes.Buffer
	for _, verb := range verbs {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	encoded, err := json.Marshal(v)
	fmt.Fprintf(&b, "%s %v\n", encoded, err)
	slog.New(slog.NewTextHandler(&b, nil)).Info("text", "value", v)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("json", "value", v)
	if stringer, ok := v.(fmt.Stringer); ok {
		b.WriteString(stringer.String())
	}
	if err, ok := v.(error); ok {
		if inner := errors.Unwrap(err); inner != nil {
			b.WriteString(surfaces(inner))
		}
	}
	return b.String()
}

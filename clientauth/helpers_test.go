package clientauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

const longSecret = "0123456789abcdef0123456789abcdef"

// newKey returns a private key, and the same in PEM.
func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key, keyPEM(t, key)
}

func keyPEM(t *testing.T, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// A pair is a certificate and its key, in PEM too.
type pair struct {
	*tls.Certificate
	cert, key string
}

// newPair returns a self-signed certificate that is valid in that time.
func newPair(t *testing.T, from, to time.Time) pair {
	t.Helper()
	key, keyPEM := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: rand.Text()},
		NotBefore:    from,
		NotAfter:     to,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return pair{
		Certificate: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		cert:        string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:         keyPEM,
	}
}

func newValidPair(t *testing.T) pair {
	t.Helper()
	return newPair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

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

// attempt returns what a ClientAuth gets of a Config.
func attempt() *clientcredentials.Attempt {
	return &clientcredentials.Attempt{
		TokenURL: "https://auth.example/token",
		ClientID: "id",
		Header:   map[string][]string{},
		Form:     map[string][]string{},
	}
}

// decode returns header and claims of a JWT.
func decode(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	for i, part := range []*map[string]any{&header, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, part))
	}
	return header, claims
}

var verbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"}

// surfaces returns all that can be made to be seen of v.
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

package testkit

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestKeys(t *testing.T) {
	keys := NewKeys("RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
	require.Len(t, keys, 7)
	require.Equal(t, 2048, keys["RS256"].(*rsa.PrivateKey).N.BitLen())
	require.Same(t, keys["RS256"], keys["PS512"])
	for algorithm, bits := range map[string]int{"ES256": 256, "ES384": 384, "ES512": 521} {
		require.Equal(t, bits, keys[algorithm].(*ecdsa.PrivateKey).Params().BitSize)
	}
	require.IsType(t, ed25519.PrivateKey{}, keys["EdDSA"])
	require.NotEqual(t, keys["EdDSA"], keys["Ed25519"])
	require.Panics(t, func() { NewKey("HS256") })
}

// TestCertificates has a server and a client verify each other, with each kind of key.
func TestCertificates(t *testing.T) {
	ca := CA("authority")
	for algorithm, key := range NewKeys("RS256", "ES384", "EdDSA") {
		for name, client := range map[string]*tls.Certificate{
			"issued":      NewCertificate(x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, key),
			"self-signed": ClientCertificate("name"),
		} {
			t.Run(algorithm+" "+name, func(t *testing.T) {
				server := ServerCertificate()
				api := httptest.NewUnstartedServer(http.NotFoundHandler())
				api.TLS = &tls.Config{
					Certificates: []tls.Certificate{*server},
					ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: Roots(ca, client),
				}
				api.StartTLS()
				t.Cleanup(api.Close)
				pair, err := tls.X509KeyPair([]byte(CertificatePEM(client)), []byte(KeyPEM(client.PrivateKey)))
				require.NoError(t, err)
				transport := &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: Roots(server)}}
				t.Cleanup(transport.CloseIdleConnections)
				resp, err := (&http.Client{Transport: transport}).Get(api.URL)
				require.NoError(t, err)
				resp.Body.Close()
			})
		}
	}
	require.Equal(t, "CN=name", ClientCertificate("name").Leaf.Subject.String())
	a, b := ServerCertificate(), ServerCertificate()
	require.NotEqual(t, a.Leaf.SerialNumber, b.Leaf.SerialNumber)
}

func TestWorld(t *testing.T) {
	start := time.Now()
	World(t, func(*testing.T) time.Time { return time.Now() }, func(_ *testing.T, began time.Time) {
		time.Sleep(time.Hour)
		require.Equal(t, time.Hour, time.Since(began))
	})
	require.Less(t, time.Since(start), time.Hour)
}

func TestBubbleEnds(t *testing.T) {
	if os.Getenv("TESTKIT_CHILD") != "" {
		bubble(t, time.Hour, func(*testing.T) {
			for { // Nothing that this loop waits for will ever come.
				time.Sleep(time.Minute)
			}
		})
	}
	if fips140.Enabled() {
		t.Skip("Synctest would skip the test in the other process")
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBubbleEnds$")
	child.Env = append(os.Environ(), "TESTKIT_CHILD=1")
	output, err := child.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(output), "TestBubbleEnds still runs after 1h0m0s by the clock of its bubble")
}

package clientauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// pairFiles are the two files of a certificate.
type pairFiles struct {
	t *testing.T
	*certificateFiles
}

// newPairFiles returns files that contain p.
func newPairFiles(t *testing.T, p pair) pairFiles {
	return pairFiles{t, newCertificateFiles(file(t, p.cert), file(t, p.key))}
}

func (f pairFiles) write(cert, key string) {
	f.t.Helper()
	write(f.t, f.cert, cert)
	write(f.t, f.key, key)
}

func (f pairFiles) at(now time.Time) (*tls.Certificate, error) { return f.get(f.t.Context(), now) }

// require fails the test if the files don't contain want at that time.
func (f pairFiles) require(now time.Time, want pair, msg string) *tls.Certificate {
	f.t.Helper()
	got, err := f.at(now)
	require.NoError(f.t, err, msg)
	require.Equal(f.t, want.Leaf.Raw, got.Leaf.Raw, msg)
	return got
}

func TestCertificateFilesReload(t *testing.T) {
	t.Parallel()
	start := time.Now().Truncate(time.Second)
	old := newPair(start.Add(-time.Hour), start.Add(time.Hour))
	next := newPair(start.Add(-time.Hour), start.Add(3*time.Hour))
	files := newPairFiles(t, old)
	files.require(start, old, "first")
	for _, step := range []struct {
		name       string
		at         time.Duration // since the start
		cert, key  string        // "-": no such file
		want       pair
		err        string
		sameAsLast bool
	}{
		{name: "unchanged", at: 10 * time.Second, cert: old.cert, key: old.key, want: old, sameAsLast: true},
		{name: "just read", at: 10*time.Second + 999*time.Millisecond, cert: next.cert, key: next.key, want: old, sameAsLast: true},
		{name: "replaced", at: 11 * time.Second, cert: next.cert, key: next.key, want: next},
		{name: "and back", at: 12 * time.Second, cert: old.cert, key: old.key, want: old},
		{name: "only the certificate", at: 13 * time.Second, cert: next.cert, key: old.key, want: old, sameAsLast: true},
		{name: "just read, without success", at: 13*time.Second + 999*time.Millisecond, cert: next.cert, key: next.key, want: old, sameAsLast: true},
		{name: "removed", at: 17 * time.Second, cert: "-", key: "-", want: old, sameAsLast: true},
		{name: "until it expires", at: time.Hour, cert: next.cert, key: old.key, want: old, sameAsLast: true},
		{name: "expired, though just read", at: time.Hour + time.Millisecond, cert: next.cert, key: old.key, err: "does not match"},
		{name: "expired, unchanged", at: 61*time.Minute + 2, cert: old.cert, key: old.key, err: "expired at " + old.Leaf.NotAfter.Format(time.RFC3339)},
		{name: "expired, replaced", at: 61*time.Minute + 3, cert: next.cert, key: next.key, want: next},
		{name: "replaced by an expired one", at: 65 * time.Minute, cert: old.cert, key: old.key, want: next, sameAsLast: true},
	} {
		last := files.current.Load()
		files.write(step.cert, step.key)
		if step.cert == "-" {
			require.NoError(t, os.Remove(files.cert))
			require.NoError(t, os.Remove(files.key))
		}
		if step.err != "" {
			_, err := files.at(start.Add(step.at))
			require.ErrorContains(t, err, step.err, step.name)
			continue
		}
		got := files.require(start.Add(step.at), step.want, step.name)
		require.Equal(t, step.sameAsLast, got == last.pair, "%s: the pointer", step.name)
	}
}

func TestCertificateFilesMistakes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good, other := newValidPair(), newValidPair()
	past := newPair(now.Add(-2*time.Hour), now.Add(-time.Hour))
	future := newPair(now.Add(time.Hour), now.Add(2*time.Hour))
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))
	for name, test := range map[string]struct{ cert, key, err string }{
		"another key":   {good.cert, other.key, "private key does not match"},
		"expired":       {past.cert, past.key, "expired at " + past.Leaf.NotAfter.Format(time.RFC3339)},
		"not yet valid": {future.cert, future.key, "not valid before " + future.Leaf.NotBefore.Format(time.RFC3339)},
		"encrypted":     {good.cert, encrypted, "the private key is encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := newPairFiles(t, pair{cert: test.cert, key: test.key})
			_, err := CertificateFiles(files.cert, files.key)(t.Context())
			require.ErrorContains(t, err, test.err)
			require.ErrorContains(t, err, files.cert)
			require.ErrorContains(t, err, files.key)
			files.write(good.cert, good.key)
			files.require(now, good, "the next call must read the files again")
		})
	}
}

// Callers don't wait for the one that reads the files, if they have a certificate.
func TestCertificateFilesDontBlock(t *testing.T) {
	t.Parallel()
	now, good := time.Now(), newValidPair()
	files := newPairFiles(t, good)
	files.turn <- struct{}{} // As if another goroutine read the files.
	ctx, cancel := context.WithCancelCause(t.Context())
	impatient := errors.New("impatient")
	cancel(impatient)
	_, err := files.get(ctx, now)
	require.ErrorIs(t, err, impatient, "there is no certificate to use until then")

	<-files.turn
	first := files.require(now, good, "first")
	files.turn <- struct{}{}
	require.Same(t, first, files.require(now.Add(time.Minute), good, "while another goroutine reads"))
}

func TestCertificatesOnTheWire(t *testing.T) {
	t.Parallel()
	own := newValidPair()
	files := newPairFiles(t, own)
	source := CertificateFiles(files.cert, files.key)
	unparsed := *own.Certificate
	unparsed.Leaf = nil
	for name, test := range map[string]struct {
		auth   clientcredentials.CertificateAuth
		method string
	}{
		"tls":              {&TLSClientAuth{Source: source}, "tls_client_auth"},
		"self-signed":      {&SelfSignedTLSClientAuth{Source: source}, "self_signed_tls_client_auth"},
		"without its Leaf": {&TLSClientAuth{Source: certificate(&unparsed)}, "tls_client_auth"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cct.NewTLSServer(cct.Client{ID: "id", Certificates: []*x509.Certificate{own.Leaf}})
			t.Cleanup(srv.Close)
			conf := config(srv, test.auth)
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, srv.Client())
			resp, err := conf.Client(ctx).Get(srv.APIURL)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode)
			request := srv.Auth.Requests()[0]
			require.Equal(t, own.Leaf.Raw, request.Certificate.Raw)
			require.Equal(t, own.Leaf.Raw, srv.API.Requests()[0].Certificate.Raw, "the API must see it too, for tokens that are bound to it")
			require.Equal(t, "client_id=id&grant_type=client_credentials", request.Body)
			require.Equal(t, test.method, test.auth.Method())

			attempt := attempt()
			require.NoError(t, test.auth.Authenticate(t.Context(), attempt))
			require.Equal(t, jws.Digest(own.Leaf.Raw), attempt.CredentialID)
		})
	}
}

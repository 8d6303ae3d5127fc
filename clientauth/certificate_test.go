package clientauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// pairFiles are the two files of a certificate in a directory.
type pairFiles struct {
	t   *testing.T
	dir string
	*certificateFiles
}

// newPairFiles returns files that contain p, or that don't exist if p is empty.
func newPairFiles(t *testing.T, p pair) pairFiles {
	dir := t.TempDir()
	files := pairFiles{t, dir, newCertificateFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))}
	if p != (pair{}) {
		files.write(p.cert, p.key)
	}
	return files
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
	start := time.Now()
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
		{name: "only the key", at: 15 * time.Second, cert: old.cert, key: next.key, want: old, sameAsLast: true},
		{name: "half written", at: 16 * time.Second, cert: next.cert[:100], key: next.key, want: old, sameAsLast: true},
		{name: "removed", at: 17 * time.Second, cert: "-", key: "-", want: old, sameAsLast: true},
		{name: "until it expires", at: 59 * time.Minute, cert: next.cert, key: old.key, want: old, sameAsLast: true},
		{name: "expired, only one replaced", at: 61 * time.Minute, cert: next.cert, key: old.key, err: "does not match"},
		{name: "expired, removed", at: 61*time.Minute + 1, cert: "-", key: "-", err: "no such file"},
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

// Kubernetes replaces the files of a secret by changing the target of a symbolic link.
func TestCertificateFilesBehindSymlink(t *testing.T) {
	t.Parallel()
	files := newPairFiles(t, pair{})
	data := filepath.Join(files.dir, "..data")
	var pairs [2]pair
	for i, name := range []string{"..1", "..2"} {
		pairs[i] = newValidPair()
		version := filepath.Join(files.dir, name)
		require.NoError(t, os.Mkdir(version, 0o700))
		write(t, filepath.Join(version, "tls.crt"), pairs[i].cert)
		write(t, filepath.Join(version, "tls.key"), pairs[i].key)
	}
	require.NoError(t, os.Symlink("..1", data))
	require.NoError(t, os.Symlink("..data/tls.crt", files.cert))
	require.NoError(t, os.Symlink("..data/tls.key", files.key))
	now := time.Now()
	files.require(now, pairs[0], "first")
	require.NoError(t, os.Symlink("..2", data+"_tmp"))
	require.NoError(t, os.Rename(data+"_tmp", data))
	files.require(now.Add(time.Second), pairs[1], "after the change of the link")
}

func TestCertificateFilesMistakes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good, other := newValidPair(), newValidPair()
	past := newPair(now.Add(-2*time.Hour), now.Add(-time.Hour))
	future := newPair(now.Add(time.Hour), now.Add(2*time.Hour))
	legacy := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")}))
	encrypted := encodePEM("ENCRYPTED PRIVATE KEY", []byte("x"))
	for name, test := range map[string]struct{ cert, key, err string }{
		"another key":          {good.cert, other.key, "private key does not match"},
		"expired":              {past.cert, past.key, "expired at " + past.Leaf.NotAfter.Format(time.RFC3339)},
		"not yet valid":        {future.cert, future.key, "not valid before " + future.Leaf.NotBefore.Format(time.RFC3339)},
		"encrypted":            {good.cert, encrypted, "the private key is encrypted"},
		"encrypted, older way": {good.cert, legacy, "the private key is encrypted"},
		"empty certificate":    {"", good.key, "failed to find any PEM data in certificate"},
		"empty key":            {good.cert, "", "failed to find any PEM data in key"},
		"swapped":              {good.key, good.cert, "tls: "},
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

// A certificate isn't used after it has expired, even if the files were just read.
func TestCertificateFilesExpireBetweenReads(t *testing.T) {
	t.Parallel()
	end := time.Now().Truncate(time.Second).Add(time.Hour)
	good := newPair(end.Add(-2*time.Hour), end)
	files := newPairFiles(t, good)
	files.require(end, good, "at its end")
	_, err := files.at(end.Add(time.Millisecond))
	require.ErrorContains(t, err, "expired at")
}

// Concurrent first callers get the same pointer.
func TestCertificateFilesShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := newValidPair()
		files := newPairFiles(t, good)
		files.turn <- struct{}{}
		var got [8]*tls.Certificate
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() { got[i], _ = files.at(time.Now()) }) // A failure leaves nil.
		}
		synctest.Wait()
		<-files.turn
		wg.Wait()
		for i := range got {
			require.NotNil(t, got[i])
			require.Same(t, got[0], got[i])
		}
	})
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
		"by callback":      {&TLSClientAuth{Source: certificate(own.Certificate)}, "tls_client_auth"},
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
			require.Equal(t, thumbprint(own.Leaf.Raw), attempt.CredentialID)
		})
	}
}

func TestGetClientCertificate(t *testing.T) {
	t.Parallel()
	own, broken := newValidPair(), errors.New("broken")
	srv := cct.NewTLSServer()
	t.Cleanup(srv.Close)
	client := srv.Client()
	config := client.Transport.(*http.Transport).TLSClientConfig
	config.GetClientCertificate = CertificateSource(func(context.Context) (*tls.Certificate, error) { return nil, broken }).GetClientCertificate
	_, err := client.Get(srv.APIURL)
	require.ErrorIs(t, err, broken)

	config.GetClientCertificate = certificate(own.Certificate).GetClientCertificate
	resp, err := client.Get(srv.APIURL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, own.Leaf.Raw, srv.API.Requests()[0].Certificate.Raw)
}

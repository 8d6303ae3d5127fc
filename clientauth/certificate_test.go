package clientauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
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
		{name: "expired, though just read", at: time.Hour + time.Millisecond, cert: next.cert, key: old.key, err: "the private key belongs to another certificate"},
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
	for name, test := range map[string]struct{ cert, key, err string }{
		"another key":   {good.cert, other.key, "the private key belongs to another certificate"},
		"expired":       {past.cert, past.key, "expired at " + past.Leaf.NotAfter.Format(time.RFC3339)},
		"not yet valid": {future.cert, future.key, "not valid before " + future.Leaf.NotBefore.Format(time.RFC3339)},
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

// The files of a certificate are read by their content, and nothing in them is dropped
// silently.
func TestK3_CertificateFiles(t *testing.T) {
	t.Parallel()
	authority := testkit.CA("authority")
	leaf := testkit.NewCertificate(x509.Certificate{}, authority, nil)
	other, _ := newKey()
	certPEM, authorityPEM, keyPEM := testkit.CertificatePEM(leaf), testkit.CertificatePEM(authority), testkit.KeyPEM(leaf.PrivateKey)
	keyDER := must(x509.MarshalPKCS8PrivateKey(leaf.PrivateKey))
	block := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	asn1Of := func(v any) []byte { return must(asn1.Marshal(v)) }
	signedData := asn1Of(struct{ Type asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}})
	pfx := asn1Of(struct {
		Version int
		Content struct{ Type asn1.ObjectIdentifier }
	}{3, struct{ Type asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}})
	ofUnknownKind := bytes.Replace(leaf.Leaf.Raw, []byte("\x2a\x86\x48\xce\x3d\x02\x01"), []byte("\x2a\x86\x48\xce\x3d\x02\x02"), 1)
	vault := string(must(json.Marshal(map[string]any{"data": map[string]any{"ca_chain": []string{authorityPEM}, "certificate": certPEM, "issuing_ca": authorityPEM, "private_key": keyPEM}})))
	truncated := strings.Split(authorityPEM, "-----END")[0]

	for name, test := range map[string]struct {
		cert, key string
		chain     int // certificates
		err       string
	}{
		"PEM":                       {certPEM, keyPEM, 1, ""},
		"chain":                     {certPEM + authorityPEM, keyPEM, 2, ""},
		"chain in the other order":  {authorityPEM + certPEM, keyPEM, 2, ""},
		"DER":                       {string(leaf.Leaf.Raw), string(keyDER), 1, ""},
		"chain in DER":              {string(leaf.Leaf.Raw) + string(authority.Leaf.Raw) + "\n", keyPEM, 2, ""},
		"byte order mark":           {"\ufeff" + certPEM, "\ufeff" + keyPEM, 1, ""},
		"two files joined":          {"\ufeff" + certPEM + "\ufeff" + authorityPEM, keyPEM, 2, ""},
		"one line":                  {strings.ReplaceAll(certPEM+authorityPEM, "\n", `\n`), strings.ReplaceAll(keyPEM, "\n", " "), 2, ""},
		"base64":                    {base64.StdEncoding.EncodeToString([]byte(certPEM + authorityPEM)), base64.StdEncoding.EncodeToString([]byte(keyPEM)), 2, ""},
		"other labels":              {strings.ReplaceAll(certPEM, "CERTIFICATE", "X509 CERTIFICATE"), strings.ReplaceAll(keyPEM, "PRIVATE KEY", "RSA PRIVATE KEY"), 1, ""},
		"trusted":                   {block("TRUSTED CERTIFICATE", slices.Concat(leaf.Leaf.Raw, asn1Of([]int{1}))), keyPEM, 1, ""},
		"both in one file":          {certPEM + keyPEM + authorityPEM, certPEM + keyPEM + authorityPEM, 2, ""},
		"JSON":                      {vault, vault, 2, ""},
		"base64 in JSON":            {`["` + base64.StdEncoding.EncodeToString(leaf.Leaf.Raw) + `"]`, `{"key":"` + base64.StdEncoding.EncodeToString(keyDER) + `"}`, 1, ""},
		"two keys":                  {certPEM, testkit.KeyPEM(other) + keyPEM, 1, ""},
		"a key that isn't used":     {certPEM, block("ENCRYPTED PRIVATE KEY", []byte("x")) + keyPEM, 1, ""},
		"chain that isn't parsed":   {certPEM + block("CERTIFICATE", []byte("\x30\x03\x02\x01\x05")), keyPEM, 2, ""},
		"a request beside":          {certPEM + block("CERTIFICATE REQUEST", must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, leaf.PrivateKey))), keyPEM, 1, ""},
		"only a request":            {block("CERTIFICATE REQUEST", must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, leaf.PrivateKey))), keyPEM, 0, "there is no certificate; check that this is the right file"},
		"only a key":                {keyPEM, keyPEM, 0, "there is no certificate; check that this is the right file"},
		"certificate as key":        {certPEM, certPEM, 0, "there is a certificate or a public key, but no private key"},
		"PKCS #12":                  {string(pfx), keyPEM, 0, "openssl pkcs12 -in FILE -nokeys -out cert.pem"},
		"PKCS #12 as key":           {certPEM, string(pfx), 0, "openssl pkcs12 -in FILE -nodes -nocerts -out key.pem"},
		"PKCS #7":                   {block("PKCS7", signedData), keyPEM, 0, "openssl pkcs7 -in FILE -print_certs -out cert.pem"},
		"PKCS #7 in DER":            {string(signedData), keyPEM, 0, "add -inform DER if the file is binary"},
		"PKCS #7 beside":            {certPEM + block("PKCS7", signedData), keyPEM, 0, "openssl pkcs7 -in FILE -print_certs -out cert.pem"},
		"the chain is cut off":      {certPEM + truncated, keyPEM, 0, "the PEM is damaged"},
		"the chain has a typo":      {certPEM + strings.Replace(authorityPEM, "MII", "M@I", 1), keyPEM, 0, "the PEM is damaged"},
		"something in a block":      {block("CERTIFICATE", append(bytes.Clone(leaf.Leaf.Raw), 0)), keyPEM, 0, "something follows the key or the certificate inside its block"},
		"not a certificate":         {block("CERTIFICATE", []byte("\x30\x03\x02\x01\x05")), keyPEM, 0, "certificate 1 of the file can't be read; openssl x509 -in FILE -text may say more: x509: "},
		"a key that TLS can't use":  {block("CERTIFICATE", ofUnknownKind), keyPEM, 0, "the public key in certificate 1 of the file is of a kind that crypto/tls can't use"},
		"text":                      {"s3cr3t", keyPEM, 0, "neither PEM nor a JWK"},
		"empty":                     {"", keyPEM, 0, "the data is empty"},
		"encrypted":                 {certPEM, block("ENCRYPTED PRIVATE KEY", []byte("x")), 0, "the private key is encrypted"},
		"certificate of another":    {authorityPEM, keyPEM, 0, "the private key belongs to another certificate"},
		"JWK without a certificate": {`{"kty":"OKP"}`, keyPEM, 0, "there is no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := newPairFiles(t, pair{cert: test.cert, key: test.key})
			got, err := files.at(time.Now())
			if test.err == "" {
				require.NoError(t, err)
				require.Equal(t, leaf.Leaf.Raw, got.Certificate[0])
				require.Equal(t, leaf.PrivateKey, got.PrivateKey)
				require.Len(t, got.Certificate, test.chain)
				return
			}
			require.ErrorContains(t, err, test.err)
			require.Condition(t, func() bool {
				return strings.Contains(err.Error(), files.cert) || strings.Contains(err.Error(), files.key)
			}, "the error names the file: %v", err)
			require.NotContains(t, err.Error(), "s3cr3t")
		})
	}
}

// A renewed certificate may be appended to the file of the old one.
func TestK3_AppendedCertificates(t *testing.T) {
	t.Parallel()
	now, key, authority := time.Now().Truncate(time.Second), testkit.NewKey("ES256"), testkit.CA("authority")
	valid := func(key crypto.Signer, from, to time.Duration) pair {
		c := testkit.NewCertificate(x509.Certificate{NotBefore: now.Add(from), NotAfter: now.Add(to)}, authority, key)
		return pair{c, testkit.CertificatePEM(c), testkit.KeyPEM(c.PrivateKey)}
	}
	old, current, next := valid(key, -2*time.Hour, -time.Hour), valid(key, -time.Hour, time.Hour), valid(key, -time.Hour, 2*time.Hour)
	future, ofAnotherKey, root := valid(key, time.Hour, 3*time.Hour), valid(nil, -time.Hour, 4*time.Hour), pair{authority, testkit.CertificatePEM(authority), ""}
	for name, test := range map[string]struct {
		file []pair
		at   time.Duration
		want pair
		err  string
	}{
		"the old one first":            {file: []pair{old, root, current}, want: current},
		"the old one last":             {file: []pair{current, root, old}, want: current},
		"the old one is still valid":   {file: []pair{current, next, root}, want: next},
		"the new one first":            {file: []pair{next, current, root}, want: next},
		"the new one isn't valid yet":  {file: []pair{current, future, root}, want: current},
		"and is valid later":           {file: []pair{current, future, root}, at: 2 * time.Hour, want: future},
		"none is valid":                {file: []pair{old, future, root}, err: "not valid before " + future.Leaf.NotBefore.Format(time.RFC3339)},
		"with another key":             {file: []pair{old, ofAnotherKey, root}, want: ofAnotherKey},
		"the key of the authority too": {file: []pair{current, {root.Certificate, root.cert, testkit.KeyPEM(root.PrivateKey)}}, want: current},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var joined pair
			for _, p := range test.file {
				joined.cert, joined.key = joined.cert+p.cert, joined.key+p.key
			}
			files := newPairFiles(t, joined)
			if test.at > 0 {
				files.require(now, current, "first")
			}
			if test.err != "" {
				_, err := files.at(now)
				require.ErrorContains(t, err, test.err)
				return
			}
			got := files.require(now.Add(test.at), test.want, "the pair")
			require.True(t, test.want.PrivateKey.(*ecdsa.PrivateKey).Equal(got.PrivateKey))
			require.Equal(t, root.Leaf.Raw, got.Certificate[len(got.Certificate)-1])
			if name != "with another key" {
				require.Len(t, got.Certificate, 2, "the others of this key don't belong to the chain")
			}
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

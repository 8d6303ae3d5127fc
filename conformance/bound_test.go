package conformance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// TestNonces: a server that answers with a nonce gets proofs with it, over HTTP/1.1 and
// HTTP/2. One of the servers here always demands a nonce. The clock of the other is an
// hour fast, so every proof is too old for it until the proof contains one of its nonces
// (RFC 9449, Section 11.1).
func TestNonces(t *testing.T) {
	const body = "a body of some length"
	for _, s := range []struct {
		name, proto string
		start       starter
	}{
		{"demanded", "HTTP/1.1", oidcProviderNonce.start},
		{"for_a_wrong_clock", "HTTP/2.0", oidcProviderAhead.start},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := secretClient("nonces", secretBasic, dpopBound())
			at := s.start(t, c)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{
				ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, AuthStyle: oauth2.AuthStyleInHeader,
				DPoP: testKeys()["ES256"],
			}
			client := conf.Client(w.context(t))
			send := func() call { return post(t, client, at.api, strings.NewReader(body)) }
			first := send()
			assert.Equal(t, http.StatusOK, first.status)
			assert.Equal(t, s.proto, first.proto)
			assert.Equal(t, 2, first.hops, "it is sent again with the nonce")
			assert.Equal(t, len(body), first.answer.Length, "with the whole body")
			assert.Equal(t, []int{http.StatusBadRequest, http.StatusOK}, statuses(w.tokenRequests()))

			// Nonces live for a second or two, so one of these calls is in time.
			inTime := false
			for i := 0; i < 10 && !inTime; i++ {
				inTime = send().hops == 1
			}
			assert.True(t, inTime, "each call asked for a nonce first")

			// The client gets a new token with the nonce of the token endpoint that it has.
			at.revoke(t, requireOK(t, client, at.api).token)
			again := send()
			assert.Equal(t, http.StatusOK, again.status)
			assert.Equal(t, len(body), again.answer.Length)
			assert.Equal(t, []int{http.StatusOK}, statuses(w.tokenRequests()))
		})
	}
}

// TestRenewedCertificate: when certificates in files are replaced, the connections and
// the tokens that are bound to them are replaced, too. That works over HTTP/2 and with a
// *tls.Config of the program.
func TestRenewedCertificate(t *testing.T) {
	subject := pkix.Name{CommonName: "renewed"}
	old := clientCertificate(testPKI().ca, x509.Certificate{Subject: subject})
	renewed := clientCertificate(testPKI().ca, x509.Certificate{Subject: subject})
	c := registration{id: "renewed", method: tlsAuth, ttl: time.Hour, metadata: map[string]any{
		"tls_client_auth_subject_dn":                 old.Leaf.Subject.String(),
		"tls_client_certificate_bound_access_tokens": true,
	}}
	at := oidcProviderTLS.start(t, c)[0]
	dir := t.TempDir()
	writeCertificate(t, dir, old)
	w := newWire(t, at.token)
	conf := &clientcredentials.Config{
		ClientID: c.id, TokenURL: at.token,
		HTTPClient: &http.Client{Transport: w.base},
		ClientAuth: &clientauth.TLSClientAuth{Source: clientauth.CertificateFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))},
	}
	source := conf.Source(t.Context())
	client := &http.Client{Transport: &clientcredentials.Transport{Source: source, Base: w.base}}
	call := func() *oauth2.Token {
		used := post(t, client, at.api, strings.NewReader("body"))
		require.Equal(t, http.StatusOK, used.status)
		require.Equal(t, "HTTP/2.0", used.proto)
		require.Equal(t, 4, used.answer.Length)
		token, err := source.TokenContext(t.Context())
		require.NoError(t, err)
		return token
	}
	before := call()
	require.Equal(t, http.StatusOK, send(t, plainCall(t, at, "Bearer", before.AccessToken), old).status)
	require.Equal(t, http.StatusUnauthorized, send(t, plainCall(t, at, "Bearer", before.AccessToken), renewed).status)

	// The library checks the files once a second.
	writeCertificate(t, dir, renewed)
	after := before
	end := time.Now().Add(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); after.AccessToken == before.AccessToken; <-tick {
		require.True(t, time.Now().Before(end), "the token is still bound to the old certificate")
		after = call()
	}
	require.Equal(t, http.StatusUnauthorized, send(t, plainCall(t, at, "Bearer", after.AccessToken), old).status)
	require.Equal(t, http.StatusOK, send(t, plainCall(t, at, "Bearer", after.AccessToken), renewed).status)
}

// post makes a call with a body.
func post(t *testing.T, client *http.Client, api string, body io.Reader) call {
	t.Helper()
	c := do(t.Context(), client, api, body)
	require.NoError(t, c.err)
	return c
}

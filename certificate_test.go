package clientcredentials

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
)

// newCertificate returns a self-signed certificate for a client of that name.
func newCertificate(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// A certificateAuth is a CertificateAuth whose certificate the test replaces.
type certificateAuth struct {
	mu          sync.Mutex // protects what follows
	certificate *tls.Certificate
	err         error
}

func (a *certificateAuth) Method() string { return "self_signed_tls_client_auth" }

func (a *certificateAuth) Authenticate(_ context.Context, attempt *Attempt) error {
	attempt.Form.Set("client_id", attempt.ClientID)
	return nil
}

func (a *certificateAuth) Certificate(context.Context) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.certificate, a.err
}

func (a *certificateAuth) replace(certificate *tls.Certificate, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.certificate, a.err = certificate, err
}

// A tlsWorld is an authorization server that binds tokens to certificates, and an
// API that wants them (RFC 8705, Section 3).
type tlsWorld struct {
	auth, api, other *httptest.Server
	conf             *Config
	ctx              context.Context
	certificates     *certificateAuth

	mu       sync.Mutex // protects what follows
	refusals int        // how many token requests to refuse yet
	onRefuse func()
	tokens   []string // "name of the certificate that the token was issued to"
	calls    []string // of the API: name of the certificate that was presented
	strays   []string // of the other API
}

func newTLSWorld(t *testing.T, http2 bool) *tlsWorld {
	t.Helper()
	w := &tlsWorld{certificates: &certificateAuth{certificate: newCertificate(t, "first")}}
	presented := func(req *http.Request) string {
		if req.TLS == nil || len(req.TLS.PeerCertificates) == 0 {
			return "none"
		}
		return req.TLS.PeerCertificates[0].Subject.CommonName
	}
	serve := func(handler http.HandlerFunc) *httptest.Server {
		server := httptest.NewUnstartedServer(handler)
		server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	w.auth = serve(func(rw http.ResponseWriter, req *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		name := presented(req)
		w.tokens = append(w.tokens, name)
		rw.Header().Set("Content-Type", "application/json")
		if w.refusals > 0 {
			w.refusals--
			if w.onRefuse != nil {
				w.onRefuse()
			}
			rw.WriteHeader(http.StatusUnauthorized)
			_, _ = rw.Write([]byte(`{"error":"invalid_client"}`))
			return
		}
		_, _ = rw.Write([]byte(`{"access_token":"` + name + "." + strconv.Itoa(len(w.tokens)) + `","token_type":"Bearer","expires_in":3600}`))
	})
	w.other = serve(func(rw http.ResponseWriter, req *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.strays = append(w.strays, presented(req)+req.Header.Get("Authorization"))
	})
	w.api = serve(func(rw http.ResponseWriter, req *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		name := presented(req)
		w.calls = append(w.calls, name)
		if req.URL.Path == "/away" {
			http.Redirect(rw, req, w.other.URL, http.StatusFound)
			return
		}
		want := "Bearer " + name + "."
		if got := req.Header.Get("Authorization"); len(got) <= len(want) || got[:len(want)] != want {
			rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			rw.WriteHeader(http.StatusUnauthorized)
		}
	})
	transport := w.auth.Client().Transport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2 = http2
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	for _, server := range []*httptest.Server{w.auth, w.api, w.other} {
		transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	}
	transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	client := &http.Client{Transport: transport}
	t.Cleanup(client.CloseIdleConnections)
	w.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, client)
	w.conf = &Config{ClientID: "client", TokenURL: w.auth.URL + "/token", ClientAuth: w.certificates}
	return w
}

func (w *tlsWorld) take() (tokens, calls, strays []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tokens, calls, strays = w.tokens, w.calls, w.strays
	w.tokens, w.calls, w.strays = nil, nil, nil
	return tokens, calls, strays
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, kind := range []string{"Client", "Transport"} {
			t.Run(kind+map[bool]string{true: " HTTP/2"}[http2], func(t *testing.T) {
				t.Parallel()
				w := newTLSWorld(t, http2)
				var client *http.Client
				var source *Source
				if kind == "Client" {
					client = w.conf.Client(w.ctx)
					source = client.Transport.(*oauth2.Transport).Source.(*clientSource).Source
				} else {
					transport := w.conf.Transport(w.ctx)
					client, source = &http.Client{Transport: transport}, transport.Source.(*Source)
				}
				t.Cleanup(func() { closeClones(source) })
				call := func(path string) {
					t.Helper()
					resp, err := client.Get(w.api.URL + path)
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, http.StatusOK, resp.StatusCode)
					if http2 && path == "" {
						require.Equal(t, 2, resp.ProtoMajor)
					}
				}

				call("")
				call("")
				tokens, calls, _ := w.take()
				require.Equal(t, []string{"first"}, tokens)
				require.Equal(t, []string{"first", "first"}, calls)

				call("/away")
				_, _, strays := w.take()
				require.Equal(t, []string{"none"}, strays, "neither token nor certificate leave the origin")

				w.certificates.replace(nil, errors.New("half of a rotation"))
				call("")
				w.certificates.replace(newCertificate(t, "second"), nil)
				call("")
				call("")
				tokens, calls, _ = w.take()
				require.Equal(t, []string{"second"}, tokens, "a new certificate needs a new token")
				require.Equal(t, []string{"first", "second", "second"}, calls)
			})
		}
	}
}

// closeClones closes the connections that present a certificate.
func closeClones(s *Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, clone := range s.rarely().certified.clones {
		clone.CloseIdleConnections()
	}
}

func TestCertificateObserved(t *testing.T) {
	w := newTLSWorld(t, false)
	var dropped []event.Invalidated
	w.conf.Observer = &Observer{Invalidated: func(info event.Invalidated) { dropped = append(dropped, info) }}
	s := w.conf.Source(w.ctx)
	first, err := s.Token()
	require.NoError(t, err)
	same := *w.certificates.certificate
	w.certificates.replace(&same, nil)
	again, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, first, again, "the same certificate, read again")
	w.certificates.replace(newCertificate(t, "second"), nil)
	_, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, []event.Invalidated{{Reason: event.CertificateReplaced}}, dropped)

	// A method without a certificate says nothing about the one that is in use.
	w.conf.ClientAuth = &scriptedAuth{}
	_, err = s.Token()
	require.NoError(t, err)
	require.Len(t, dropped, 1)
}

func TestCertificateReplacedWhileItIsRefused(t *testing.T) {
	w := newTLSWorld(t, false)
	w.refusals = 1
	w.onRefuse = func() { w.certificates.replace(newCertificate(t, "second"), nil) }
	_, err := w.conf.Token(w.ctx)
	require.NoError(t, err)
	tokens, _, _ := w.take()
	require.Equal(t, []string{"first", "second"}, tokens)

	w.refusals = 1
	w.onRefuse = nil
	_, err = w.conf.Token(w.ctx)
	require.ErrorContains(t, err, "invalid_client")
	tokens, _, _ = w.take()
	require.Equal(t, []string{"second"}, tokens, "the same certificate isn't tried again")
}

func TestCertificateMissing(t *testing.T) {
	for name, test := range map[string]struct {
		certificate *tls.Certificate
		err         error
		want        string
	}{
		"error": {nil, errors.New("client.pem is gone"), "oauth2: cannot fetch token: self_signed_tls_client_auth: client.pem is gone"},
		"nil":   {nil, nil, "oauth2: cannot fetch token: self_signed_tls_client_auth: there is no certificate"},
		"empty": {new(tls.Certificate), nil, "oauth2: cannot fetch token: self_signed_tls_client_auth: there is no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTLSWorld(t, false)
			w.certificates.replace(test.certificate, test.err)
			_, err := w.conf.Token(w.ctx)
			require.EqualError(t, err, test.want)
			tokens, _, _ := w.take()
			require.Empty(t, tokens, "nothing is sent")
		})
	}
}

// What isn't an *http.Transport presents a certificate by itself, or none.
func TestCertificateOfAnotherRoundTripper(t *testing.T) {
	w := newTLSWorld(t, false)
	inner := w.ctx.Value(oauth2.HTTPClient).(*http.Client).Transport
	var requests atomic.Int32
	wrapped := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		requests.Add(1)
		return inner.RoundTrip(req)
	})}
	client := w.conf.Client(context.WithValue(w.ctx, oauth2.HTTPClient, wrapped))
	resp, err := client.Get(w.api.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, int32(2), requests.Load())
	tokens, calls, _ := w.take()
	require.Equal(t, []string{"none"}, tokens)
	require.Equal(t, []string{"none"}, calls)
}

func TestCertifiedTransportsAreBounded(t *testing.T) {
	s := new(Source)
	c := &cachedToken{bound: binding{certificate: newCertificate(t, "client")}}
	base := new(http.Transport)
	certified := func(base http.RoundTripper) http.RoundTripper {
		clone, err := s.certified(base, c)
		require.NoError(t, err)
		return clone
	}
	clone := certified(base)
	require.NotSame(t, base, clone)
	require.Same(t, clone, certified(base))
	for range 3 * maxCertifiedTransports {
		require.NotNil(t, certified(new(http.Transport)))
		require.LessOrEqual(t, len(s.rarely().certified.clones), maxCertifiedTransports)
	}
	require.NotSame(t, clone, certified(base))
	require.NotSame(t, http.DefaultTransport, certified(nil))
	unbound, err := s.certified(nil, new(cachedToken))
	require.NoError(t, err)
	require.Nil(t, unbound)
}

func TestCloneSpeaksWhatItOffers(t *testing.T) {
	// Without settings of its own a Transport has net/http's HTTP/2, which its clone
	// goes on to offer.
	used := new(http.Transport)
	_ = used.Clone() // Sets it up, as the first request does.
	clone := cloneTransport(used)
	require.Contains(t, clone.TLSClientConfig.NextProtos, "h2")
	require.True(t, clone.ForceAttemptHTTP2)

	own := &http.Transport{
		TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{"h2": func(string, *tls.Conn) http.RoundTripper { return nil }},
		TLSClientConfig: &tls.Config{NextProtos: []string{"h2", "http/1.1"}},
	}
	clone = cloneTransport(own)
	require.Nil(t, clone.TLSNextProto)
	require.False(t, clone.Protocols.HTTP2())
	require.True(t, clone.Protocols.HTTP1())
	require.Equal(t, []string{"http/1.1"}, clone.TLSClientConfig.NextProtos)
	require.Equal(t, []string{"h2", "http/1.1"}, own.TLSClientConfig.NextProtos, "the program's Transport is left alone")
}

// F34: such connections would not present the certificate.
func TestF34_TransportThatDialsTLSItself(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }
	for name, transport := range map[string]*http.Transport{
		"DialTLSContext": {DialTLSContext: dial},
		"DialTLS":        {DialTLS: func(string, string) (net.Conn, error) { return nil, io.EOF }},
	} {
		conf := &Config{
			ClientID: "id", TokenURL: "https://auth.example/token", HTTPClient: &http.Client{Transport: transport},
			ClientAuth: &certificateAuth{certificate: newCertificate(t, "client")},
		}
		_, err := conf.Token(t.Context())
		require.ErrorContains(t, err, "the http.Transport has a "+name+",")
		require.False(t, IsTemporary(err))
	}
	base := &http.Transport{DialTLSContext: dial}
	c := &cachedToken{bound: binding{certificate: newCertificate(t, "client")}, authorization: "Bearer t"}
	_, err := new(Source).send(base, httptest.NewRequest(http.MethodGet, "https://api.example", http.NoBody), c)
	require.ErrorContains(t, err, "DialTLSContext")
}

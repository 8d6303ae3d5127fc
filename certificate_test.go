package clientcredentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// certificateNamed returns a certificate for a client with this name.
func certificateNamed(name string) *tls.Certificate {
	return testkit.NewCertificate(x509.Certificate{Subject: pkix.Name{CommonName: name}}, nil, nil)
}

// A certificateAuth is a CertificateAuth whose certificate a test can replace.
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

// serveTLS starts servers that ask for a client certificate. It returns a client that trusts
// them, and their URLs.
func serveTLS(t *testing.T, http2 bool, handlers ...http.Handler) (*http.Client, []string) {
	t.Helper()
	var transport *http.Transport
	var urls []string
	for _, handler := range handlers {
		server := httptest.NewUnstartedServer(handler)
		server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		urls = append(urls, server.URL)
		transport = server.Client().Transport.(*http.Transport).Clone() // All have the same certificate.
	}
	transport.ForceAttemptHTTP2 = http2
	transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, urls
}

// A tlsWorld is an authorization server that binds tokens to certificates, and an API that
// checks this (RFC 8705, Section 3). At /away the API redirects to another origin. The test
// fails if a request breaks RFC 8705.
type tlsWorld struct {
	auth         *clientcredentialstest.AuthorizationServer
	api          *clientcredentialstest.ResourceServer
	apiURL       string
	conf         *Config
	ctx          context.Context
	certificates *certificateAuth
	onToken      func()   // is called at each token request
	strays       []string // the credentials that the other origin received
}

func newTLSWorld(t *testing.T, http2 bool) *tlsWorld {
	t.Helper()
	auth := &clientcredentialstest.AuthorizationServer{
		Clients: []clientcredentialstest.Client{{ID: "client", CertificateBound: true}},
	}
	w := &tlsWorld{
		auth:         auth,
		api:          &clientcredentialstest.ResourceServer{Issuer: auth},
		certificates: &certificateAuth{certificate: certificateNamed("first")},
		onToken:      func() {},
	}
	client, urls := serveTLS(t, http2,
		http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			w.onToken()
			auth.ServeHTTP(rw, req)
		}),
		w.api,
		http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			w.strays = append(w.strays, fmt.Sprint(len(req.TLS.PeerCertificates), " certificates, ", len(req.Header["Authorization"]), " tokens"))
		}))
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/away", http.RedirectHandler(urls[2], http.StatusFound))
	w.api.Handler = mux
	t.Cleanup(func() { require.Empty(t, append(auth.Violations(), w.api.Violations()...)) })
	w.apiURL = urls[1]
	w.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, client)
	w.conf = &Config{ClientID: "client", TokenURL: urls[0] + "/token", ClientAuth: w.certificates}
	return w
}

// presented returns the names of the certificates that came with the requests.
func presented(requests []clientcredentialstest.Request) []string {
	var names []string
	for _, req := range requests {
		name := "none"
		if req.Certificate != nil {
			name = req.Certificate.Subject.CommonName
		}
		names = append(names, name)
	}
	return names
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, kind := range kinds {
			t.Run(kind+map[bool]string{true: " HTTP/2"}[http2], func(t *testing.T) {
				t.Parallel()
				w := newTLSWorld(t, http2)
				client := w.conf.Client(w.ctx)
				source := client.Transport.(*oauth2.Transport).Source.(*clientSource).Source
				if kind == "Transport" {
					transport := w.conf.Transport(w.ctx)
					client, source = &http.Client{Transport: transport}, transport.Source.(*Source)
				}
				t.Cleanup(func() { closeClones(source) })
				call := func(path string) {
					t.Helper()
					resp, err := client.Get(w.apiURL + path)
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, http.StatusOK, resp.StatusCode)
					if http2 && path == "" {
						require.Equal(t, 2, resp.ProtoMajor)
					}
				}

				call("")
				call("")
				require.Equal(t, []string{"first"}, presented(w.auth.Requests()))
				require.Equal(t, []string{"first", "first"}, presented(w.api.Requests()))

				call("/away")
				require.Equal(t, []string{"0 certificates, 0 tokens"}, w.strays)

				w.certificates.replace(nil, errors.New("the rotation is half done"))
				call("")
				w.certificates.replace(certificateNamed("second"), nil)
				call("")
				call("")
				require.Equal(t, []string{"first", "second"}, presented(w.auth.Requests()), "a new certificate needs a new token")
				require.Equal(t, []string{"first", "first", "first", "first", "second", "second"}, presented(w.api.Requests()))
			})
		}
	}
}

// closeClones closes the connections on which s presents a certificate.
func closeClones(s *Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, clone := range s.rarely().certified.clones {
		clone.CloseIdleConnections()
	}
}

func TestCertificateObserved(t *testing.T) {
	w := newTLSWorld(t, false)
	dropped := make(chan event.Invalidated, 10) // On a busy machine nobody waits for the Observer.
	w.conf.Observer = &Observer{Invalidated: func(info event.Invalidated) { dropped <- info }}
	s := w.conf.Source(w.ctx)
	first, err := s.Token()
	require.NoError(t, err)
	same := *w.certificates.certificate
	w.certificates.replace(&same, nil)
	again, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, first, again, "the certificate was read again but is the same")
	w.certificates.replace(certificateNamed("second"), nil)
	_, err = s.Token()
	require.NoError(t, err)
	require.Equal(t, event.Invalidated{Reason: event.CertificateReplaced}, <-dropped)

	// A method that has no certificate doesn't replace the one in use.
	w.conf.ClientAuth = &scriptedAuth{}
	_, err = s.Token()
	require.NoError(t, err)
	require.Empty(t, dropped)
}

func TestCertificateReplacedWhileItIsRefused(t *testing.T) {
	w := newTLSWorld(t, false)
	second := certificateNamed("second")
	w.onToken = func() { w.certificates.replace(second, nil) }
	w.auth.Script(clientcredentialstest.InvalidClient())
	_, err := w.conf.Token(w.ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"first", "second"}, presented(w.auth.Requests()))

	w.auth.Script(clientcredentialstest.InvalidClient())
	_, err = w.conf.Token(w.ctx)
	require.ErrorContains(t, err, "invalid_client")
	require.Equal(t, []string{"first", "second", "second"}, presented(w.auth.Requests()), "the same certificate isn't tried again")
}

func TestCertificateMissing(t *testing.T) {
	w := newTLSWorld(t, false)
	refused := func(certificate *tls.Certificate, err error, want string) {
		w.certificates.replace(certificate, err)
		_, err = w.conf.Token(w.ctx)
		require.EqualError(t, err, "oauth2: cannot fetch token: self_signed_tls_client_auth: "+want)
	}
	refused(nil, errors.New("client.pem is gone"), "client.pem is gone")
	refused(nil, nil, "there is no certificate")
	refused(new(tls.Certificate), nil, "there is no certificate")
	require.Empty(t, w.auth.Requests(), "nothing is sent")
}

// A RoundTripper that isn't an *http.Transport is used as it is.
func TestCertificateOfAnotherRoundTripper(t *testing.T) {
	w := newTLSWorld(t, false)
	w.auth.Register(clientcredentialstest.Client{ID: "client"}) // Its tokens aren't bound.
	inner := w.ctx.Value(oauth2.HTTPClient).(*http.Client).Transport
	var requests atomic.Int32
	wrapped := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		requests.Add(1)
		return inner.RoundTrip(req)
	})}
	client := w.conf.Client(context.WithValue(w.ctx, oauth2.HTTPClient, wrapped))
	resp, err := client.Get(w.apiURL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, int32(2), requests.Load())
	require.Equal(t, []string{"none"}, presented(w.auth.Requests()))
	require.Equal(t, []string{"none"}, presented(w.api.Requests()))
}

func TestCertifiedTransportsAreBounded(t *testing.T) {
	s := new(Source)
	c := &cachedToken{receivedToken: receivedToken{particulars: &particulars{bound: binding{certificate: certificateNamed("client")}}}}
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
	s.closeCertified()
	new(Source).closeCertified()
	unbound, err := s.certified(nil, &cachedToken{receivedToken: receivedToken{particulars: &nothingParticular}})
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
			ClientAuth: &certificateAuth{certificate: certificateNamed("client")},
		}
		_, err := conf.Token(t.Context())
		require.ErrorContains(t, err, "the http.Transport has a "+name+",")
		require.False(t, IsTemporary(err))
	}
	base := &http.Transport{DialTLSContext: dial}
	c := &cachedToken{receivedToken: receivedToken{particulars: &particulars{bound: binding{certificate: certificateNamed("client")}}, authorization: "Bearer t"}}
	_, err := new(Source).sendOnce(base, httptest.NewRequest(http.MethodGet, "https://api.example", http.NoBody), c)
	require.ErrorContains(t, err, "DialTLSContext")
}

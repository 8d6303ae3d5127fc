package conformance

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// A wire is the RoundTripper below the library: it sees what the servers see. It records
// each token request, and each hop of a call whose context is from withCall.
type wire struct {
	base     *http.Transport
	tokenURL string
	hold     time.Duration // how long token requests are delayed

	under atomic.Pointer[func()] // called once, during the next token request

	mu       sync.Mutex // protects requests
	requests []tokenRequest
}

// A tokenRequest is one request to the token endpoint.
type tokenRequest struct {
	begun, answered time.Time
	method          string // the client's; tlsAuth stands for both with a certificate
	named           bool   // whether it has a client_id
	assertion       string // the client_assertion, if any
	proof           string // the DPoP proof, if any
	status          int    // 0 if there was no answer, or if the wire can't see it
}

// A call is a call of the API. Only the goroutine that makes it uses it.
type call struct {
	begun   time.Time // before http.Client.Do
	reached time.Time // when the wire saw its first hop
	token   string    // the token of the first hop
	hops    int       // how often the wire saw it
	proof   string    // the DPoP proof of the last hop, if any
	proto   string    // of the answer, for example "HTTP/2.0"
	status  int
	answer  answer
	err     error
}

// An answer is what the API answers to a good call.
type answer struct {
	ClientID string   `json:"client_id"`
	Scope    string   `json:"scope"`
	Subject  string   `json:"sub"`    // of the token, if another grant has asked for it; oidc-provider and Ory Hydra
	Length   int      `json:"length"` // of the body that the API received; oidc-provider only
	Audience []string `json:"aud"`    // of the token; Ory Hydra only
}

type callKey struct{}

// withCall returns a context that makes a wire record the request in c.
func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func newWire(t *testing.T, tokenURL string) *wire {
	t.Helper()
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = 32
	base.TLSClientConfig = testPKI().config()
	t.Cleanup(base.CloseIdleConnections)
	return &wire{base: base, tokenURL: tokenURL}
}

// context returns a context that makes the library use w.
func (w *wire) context(t *testing.T) context.Context {
	t.Helper()
	return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: w})
}

// certified is context for a client with a certificate. The library can make only an
// *http.Transport present a certificate. So w is not a RoundTripper here: it sees the
// requests through the transport's Proxy function, and no answers. HTTP/2 is off, because
// its transport would call Proxy for the first request only.
func (w *wire) certified(t *testing.T) context.Context {
	t.Helper()
	w.base.ForceAttemptHTTP2 = false
	transport := w.base.Clone()
	transport.Proxy = func(r *http.Request) (*url.URL, error) {
		if r.URL.String() == w.tokenURL {
			w.interrupt()
			w.note(tokenRequest{method: tlsAuth})
		} else {
			noteCall(r)
		}
		return nil, nil
	}
	t.Cleanup(transport.CloseIdleConnections)
	return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: transport})
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.String() == w.tokenURL {
		return w.tokenRequest(r)
	}
	noteCall(r)
	return w.base.RoundTrip(r)
}

// noteCall records a hop of a call.
func noteCall(r *http.Request) {
	c, ok := r.Context().Value(callKey{}).(*call)
	if !ok {
		return
	}
	if c.hops++; c.hops == 1 {
		c.reached = time.Now()
		_, c.token, _ = strings.Cut(r.Header.Get("Authorization"), " ")
	}
	c.proof = r.Header.Get("DPoP")
}

func (w *wire) tokenRequest(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	seen := tokenRequest{begun: time.Now(), method: tlsAuth, proof: r.Header.Get("DPoP")}
	form, _ := url.ParseQuery(string(body))
	seen.named, seen.assertion = form.Has("client_id"), form.Get("client_assertion")
	switch {
	case r.Header.Get("Authorization") != "":
		seen.method = secretBasic
	case form.Has("client_secret"):
		seen.method = secretPost
	case strings.HasPrefix(jwsHeader(seen.assertion).Algorithm, "HS"):
		seen.method = secretJWT
	case seen.assertion != "":
		seen.method = privateKeyJWT
	}
	if w.hold > 0 {
		time.Sleep(w.hold)
	}

	resp, err := w.base.RoundTrip(r)
	w.interrupt()
	if err == nil {
		seen.status = resp.StatusCode
	}
	seen.answered = time.Now()
	w.note(seen)
	return resp, err
}

// note records a token request.
func (w *wire) note(seen tokenRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, seen)
}

// during calls f during the next token request.
func (w *wire) during(f func()) { w.under.Store(&f) }

func (w *wire) interrupt() {
	if f := w.under.Swap(nil); f != nil {
		(*f)()
	}
}

// tokenRequests returns the token requests since its last call.
func (w *wire) tokenRequests() []tokenRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

// methods returns the client authentication methods of the requests, in order.
func methods(requests []tokenRequest) []string {
	var names []string
	for _, r := range requests {
		names = append(names, r.method)
	}
	return names
}

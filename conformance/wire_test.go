package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// A wire is the RoundTripper under the library: what it sees is what the
// servers see. It writes down each token request, and each hop of the calls it
// finds in a request's context (withCall).
type wire struct {
	base     *http.Transport
	tokenURL string
	// hold is for how long a token request is kept from the server.
	hold time.Duration

	mu       sync.Mutex // protects the rest
	requests []tokenRequest
	// under is called once, while a token request is under way.
	under func()
	// lose has the next token request's answer lost: an error is all that comes.
	lose bool
}

// A tokenRequest is one request to the token endpoint.
type tokenRequest struct {
	begun, answered time.Time
	method          string // as a client is registered; tlsAuth for both with a certificate
	assertion       string // the client_assertion, if any
	proof           string // the DPoP proof, if any
	status          int    // 0 if no answer came, or if the wire can't see it
	token           string // the access token of the answer, if any
}

// A call is one call of the API. It belongs to the goroutine that makes it.
type call struct {
	begun   time.Time // before http.Client.Do
	reached time.Time // when the wire first saw it
	ended   time.Time // when all of the answer was there
	token   string    // the token it then carried
	hops    int       // how often the wire saw it
	proof   string    // the DPoP proof that it carried last, if any
	proto   string    // of the answer: "HTTP/2.0"
	status  int
	err     error
}

type callKey struct{}

// withCall returns a context whose request is written down in c.
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

// context returns the context in which the library uses w.
func (w *wire) context(t *testing.T) context.Context {
	t.Helper()
	return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: w})
}

// certified does the same where the library makes the connections present a
// certificate: it can do so with an *http.Transport only. So w sees the requests,
// about each of which a transport asks for a proxy, and not the answers. (With
// HTTP/2 it asks about the first only.)
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

// noteCall writes down one hop of a call.
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
	seen.assertion = form.Get("client_assertion")
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
		var body []byte
		if body, err = io.ReadAll(resp.Body); err == nil {
			var answer struct {
				AccessToken string `json:"access_token"`
			}
			_ = json.Unmarshal(body, &answer) // not every answer is a token
			seen.token = answer.AccessToken
		}
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}

	seen.answered = time.Now()
	if w.note(seen) {
		return nil, errLost
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

var errLost = errors.New("the answer was lost")

// note writes down a token request, and reports whether its answer is to be lost.
func (w *wire) note(seen tokenRequest) (lose bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, seen)
	lose, w.lose = w.lose, false
	return lose
}

// loseAnswer has the next token request's answer lost.
func (w *wire) loseAnswer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = true
}

// during has f called while the next token request is under way.
func (w *wire) during(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.under = f
}

func (w *wire) interrupt() {
	w.mu.Lock()
	f := w.under
	w.under = nil
	w.mu.Unlock()
	if f != nil {
		f()
	}
}

// tokenRequests returns the token requests that were answered since the last call of it.
func (w *wire) tokenRequests() []tokenRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

// methods returns the client authentication methods of the requests, in their order.
func methods(requests []tokenRequest) []string {
	var names []string
	for _, r := range requests {
		names = append(names, r.method)
	}
	return names
}

// statuses returns those of the answers to the requests, in their order.
func statuses(requests []tokenRequest) []int {
	var all []int
	for _, r := range requests {
		all = append(all, r.status)
	}
	return all
}

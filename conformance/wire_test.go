package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
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

	mu       sync.Mutex // protects requests
	requests []tokenRequest
}

// A tokenRequest is one request to the token endpoint.
type tokenRequest struct {
	begun, answered time.Time
	method          string // secretBasic or secretPost
	status          int    // 0 if no answer came
	token           string // the access token of the answer, if any
}

// A call is one call of the API. It belongs to the goroutine that makes it.
type call struct {
	begun   time.Time // before http.Client.Do
	reached time.Time // when the wire first saw it
	ended   time.Time // when all of the answer was there
	token   string    // the token it then carried
	hops    int       // how often the wire saw it
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
	t.Cleanup(base.CloseIdleConnections)
	return &wire{base: base, tokenURL: tokenURL}
}

// context returns the context in which the library uses w.
func (w *wire) context(t *testing.T) context.Context {
	t.Helper()
	return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: w})
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.String() == w.tokenURL {
		return w.tokenRequest(r)
	}
	if c, ok := r.Context().Value(callKey{}).(*call); ok {
		if c.hops++; c.hops == 1 {
			c.reached = time.Now()
			c.token = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		}
	}
	return w.base.RoundTrip(r)
}

func (w *wire) tokenRequest(r *http.Request) (*http.Response, error) {
	seen := tokenRequest{begun: time.Now(), method: secretPost}
	if r.Header.Get("Authorization") != "" {
		seen.method = secretBasic
	}
	if w.hold > 0 {
		time.Sleep(w.hold)
	}

	resp, err := w.base.RoundTrip(r)
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

	w.mu.Lock()
	defer w.mu.Unlock()
	seen.answered = time.Now()
	w.requests = append(w.requests, seen)
	if err != nil {
		return nil, err
	}
	return resp, nil
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

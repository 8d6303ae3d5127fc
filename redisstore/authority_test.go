package redisstore_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// An authority is an authorization server that can hold back its answers.
type authority struct {
	*clientcredentialstest.AuthorizationServer
	url  string           // of the token endpoint
	held chan *heldAnswer // that next hasn't returned yet

	mu       sync.Mutex // protects arrivals and holding
	arrivals []time.Time
	holding  int // how many of the next answers are held back
}

// A heldAnswer is the answer to a request that has arrived.
type heldAnswer struct {
	release func()        // sends the answer
	left    chan struct{} // closed when the client has left
}

func startAuthority(t *testing.T, clients ...clientcredentialstest.Client) *authority {
	t.Helper()
	a := &authority{
		AuthorizationServer: &clientcredentialstest.AuthorizationServer{Clients: clients},
		held:                make(chan *heldAnswer, 1000),
	}
	server := httptest.NewServer(a)
	a.url = server.URL + "/token"
	t.Cleanup(func() {
		server.CloseClientConnections() // Ends requests whose answer is still held back.
		server.Close()
		for _, err := range a.Violations() {
			t.Error(err)
		}
	})
	return a
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // Before that, net/http doesn't notice a client that leaves.
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	a.mu.Lock()
	a.arrivals = append(a.arrivals, time.Now())
	hold := a.holding > 0
	if hold {
		a.holding--
	}
	a.mu.Unlock()
	if hold {
		released := make(chan struct{})
		answer := &heldAnswer{release: sync.OnceFunc(func() { close(released) }), left: make(chan struct{})}
		a.held <- answer
		select {
		case <-released:
		case <-r.Context().Done():
			close(answer.left)
			panic(http.ErrAbortHandler)
		}
	}
	a.AuthorizationServer.ServeHTTP(w, r)
}

// hold holds back the answers to the next n requests.
func (a *authority) hold(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holding = n
}

// next waits for the next request whose answer is held back.
func (a *authority) next(t *testing.T) *heldAnswer {
	t.Helper()
	select {
	case answer := <-a.held:
		return answer
	case <-time.After(patience):
		require.FailNow(t, "no replica requests a token")
		return nil
	}
}

// requests returns when each token request arrived.
func (a *authority) requests() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.arrivals)
}

// requireRequests checks how many token requests there were.
func (a *authority) requireRequests(t *testing.T, want int) {
	t.Helper()
	require.Len(t, a.requests(), want, "token requests")
}

package redisstore_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// An authority is an authorization server that holds back its answers until it is told
// to give them.
type authority struct {
	*clientcredentialstest.AuthorizationServer
	url  string           // of the token endpoint
	held chan *heldAnswer // those that nobody has asked for yet

	mu       sync.Mutex // protects all below
	arrivals []time.Time
	holding  int // how many of the next requests are held
}

// A heldAnswer is that to a request which has arrived.
type heldAnswer struct {
	release func()        // lets it go
	left    chan struct{} // closed when the client has left
}

func startAuthority(t *testing.T, clients ...clientcredentialstest.Client) *authority {
	t.Helper()
	a := &authority{
		AuthorizationServer: &clientcredentialstest.AuthorizationServer{Clients: clients},
		held:                make(chan *heldAnswer, 1000),
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // It ends after the test's.
	server := httptest.NewUnstartedServer(a)
	server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	server.Start()
	a.url = server.URL + "/token"
	t.Cleanup(func() {
		cancel()
		server.Close()
		for _, err := range a.Violations() {
			t.Error(err)
		}
	})
	return a
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // Only then does net/http notice a client that leaves.
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

// next waits for the next request whose answer is held.
func (a *authority) next(t *testing.T) *heldAnswer {
	t.Helper()
	select {
	case answer := <-a.held:
		return answer
	case <-time.After(patience):
		require.FailNow(t, "nobody requests a token")
		return nil
	}
}

// requests returns when requests have arrived.
func (a *authority) requests() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]time.Time(nil), a.arrivals...)
}

// requireRequests checks how many requests there were.
func (a *authority) requireRequests(t *testing.T, want int) {
	t.Helper()
	require.Len(t, a.requests(), want, "token requests")
}

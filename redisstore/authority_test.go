package redisstore_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// An authority is an authorization server that can hold back its answers.
type authority struct {
	*clientcredentialstest.AuthorizationServer
	url      string       // of the token endpoint
	held     chan func()  // releases an answer that next hasn't returned yet
	arrivals atomic.Int32 // token requests
	holding  atomic.Int32 // how many of the next answers are held back, if positive
}

func startAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{AuthorizationServer: new(clientcredentialstest.AuthorizationServer), held: make(chan func(), 100)}
	a.Register(clientcredentialstest.Client{ID: clientID, Secret: clientSecret})
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
	a.arrivals.Add(1)
	if a.holding.Add(-1) >= 0 {
		released := make(chan struct{})
		a.held <- sync.OnceFunc(func() { close(released) })
		select {
		case <-released:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	a.AuthorizationServer.ServeHTTP(w, r)
}

// holdNext holds back the answer to the next request.
func (a *authority) holdNext() { a.holding.Store(1) }

// next waits for the next request whose answer is held back. It returns a function that
// sends the answer.
func (a *authority) next(t testing.TB) (release func()) {
	t.Helper()
	select {
	case release = <-a.held:
	case <-time.After(patience):
		require.FailNow(t, "no replica requests a token")
	}
	return release
}

// requireRequests checks how many token requests there were.
func (a *authority) requireRequests(t testing.TB, want int) {
	t.Helper()
	require.Equal(t, want, int(a.arrivals.Load()), "token requests")
}

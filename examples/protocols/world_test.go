package protocols

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A world has an authorization server whose tokens live for an hour, and a service that
// needs them. It is in a bubble of testing/synctest.
type world struct {
	auth   *cct.AuthorizationServer
	api    *cct.ResourceServer // for services over HTTP, at https://api.example
	client *http.Client        // of both servers, without tokens
	source *clientcredentials.Source
	pipes  *pipes // for services that don't speak HTTP

	mu      sync.Mutex
	arrived []string // the tokens of services that don't speak HTTP, oldest first
}

// bubble runs a test in a bubble.
func bubble(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	testkit.Bubble(t, func(t *testing.T) {
		w := &world{
			auth:  &cct.AuthorizationServer{Clients: []cct.Client{{ID: cct.ClientID, Secret: cct.ClientSecret}}},
			pipes: &pipes{conns: make(chan net.Conn), closed: make(chan struct{})},
		}
		w.api = &cct.ResourceServer{Issuer: w.auth}
		mux := http.NewServeMux()
		mux.Handle("auth.example/", w.auth)
		mux.Handle("api.example/", w.api)
		w.client = &http.Client{Transport: cct.HandlerTransport(mux)}
		w.source = (&clientcredentials.Config{
			ClientID:     cct.ClientID,
			ClientSecret: cct.ClientSecret,
			TokenURL:     "https://auth.example/token",
			HTTPClient:   w.client,
		}).Source(t.Context())
		test(t, w)
		require.Empty(t, w.auth.Violations())
		require.Empty(t, w.api.Violations())
	})
}

// arrives records a token that has arrived at a service, and returns how long it is still good
// for. Zero: the service must refuse it.
func (w *world) arrives(token string) time.Duration {
	info, active := w.auth.Introspect(token)
	if !active {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arrived = append(w.arrived, token)
	return time.Until(info.Expiry)
}

// tokens returns the tokens that have arrived, each one once.
func (w *world) tokens() []string {
	w.mu.Lock()
	all := w.arrived
	w.mu.Unlock()
	for _, r := range w.api.Requests() {
		all = append(all, r.AccessToken)
	}
	var tokens []string
	seen := make(map[string]bool)
	for _, token := range all {
		if !seen[token] {
			seen[token] = true
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// requireRefresh uses a service once a minute for three hours. Each use must succeed, and
// none but the first may wait for a token, although the authorization server is slow.
func (w *world) requireRefresh(t *testing.T, slow time.Duration, use func(context.Context) error) {
	t.Helper()
	require.NoError(t, use(t.Context()))
	require.Len(t, w.tokens(), 1)
	w.auth.SetFault(&cct.Fault{Delay: slow})
	for range 180 {
		time.Sleep(time.Minute)
		start := time.Now()
		require.NoError(t, use(t.Context()))
		require.Zero(t, time.Since(start))
	}
	require.Zero(t, w.api.Rejected())
	require.Len(t, w.tokens(), 4)
	require.Equal(t, 4, w.auth.TokenRequests())
	require.Equal(t, 4, w.auth.TokensIssued())
}

// requireWait uses a service while the authorization server doesn't answer. The error must come
// when the context ends, and wrap that of the context.
func (w *world) requireWait(t *testing.T, use func(context.Context) error) {
	t.Helper()
	w.auth.Script(cct.Fault{Delay: 5 * time.Second})
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, use(ctx), context.DeadlineExceeded)
	require.Equal(t, time.Second, time.Since(start))
	require.Empty(t, w.tokens())
	require.NoError(t, use(t.Context()), "the token request goes on")
	require.Equal(t, 1, w.auth.TokenRequests())
}

// requireRefusal uses a service while the authorization server refuses the client. The error must
// say so, and the service must not be called without a token.
func (w *world) requireRefusal(t *testing.T, use func(context.Context) error) {
	t.Helper()
	w.auth.SetFault(new(cct.InvalidClient()))
	require.ErrorContains(t, use(t.Context()), "invalid_client")
	require.Empty(t, w.tokens())
}

// get calls the API.
func (w *world) get(ctx context.Context, do func(*http.Request) (*http.Response, error)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// pipes is a network in memory with one server.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Dial is DialContext for libraries without a context.
func (p *pipes) Dial(network, address string) (net.Conn, error) {
	return p.DialContext(context.Background(), network, address)
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9092} }

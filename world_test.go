package clientcredentials

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A world is an authorization server and an API in memory, and a Config for them. It is used
// in a bubble of testing/synctest.
type world struct {
	auth *clientcredentialstest.AuthorizationServer
	api  *clientcredentialstest.ResourceServer
	ctx  context.Context // has the HTTP client that reaches both
	conf *Config
}

const (
	worldID  = "id"
	worldAPI = "https://api.example/"
)

func newWorld(t *testing.T, lifetime time.Duration) *world {
	auth := &clientcredentialstest.AuthorizationServer{
		Clients:       []clientcredentialstest.Client{{ID: worldID, Secret: "secret"}},
		TokenLifetime: lifetime,
	}
	w := &world{auth: auth, api: &clientcredentialstest.ResourceServer{Issuer: auth}}
	mux := http.NewServeMux()
	mux.Handle("auth.example/", auth)
	mux.Handle("api.example/", w.api)
	mux.Handle("other.example/", w.api)
	client := &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}
	w.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, client)
	w.conf = &Config{ClientID: worldID, ClientSecret: "secret", TokenURL: "https://auth.example/token", AuthStyle: oauth2.AuthStyleInHeader}
	t.Cleanup(func() {
		require.Empty(t, auth.Violations())
		require.Empty(t, w.api.Violations())
	})
	return w
}

// bubble runs a test with a world under synctest. The tokens have the given lifetime. The
// test fails if a goroutine is left at its end.
func bubble(t *testing.T, lifetime time.Duration, test func(t *testing.T, w *world)) {
	testkit.Synctest(t, func(t *testing.T) { test(t, newWorld(t, lifetime)) })
}

// clients returns the client of Config.Client, and one with Config.Transport.
func (w *world) clients() map[string]*http.Client {
	return map[string]*http.Client{
		"Client":    w.conf.Client(w.ctx),
		"Transport": {Transport: w.conf.Transport(w.ctx)},
	}
}

func (w *world) get(t *testing.T, client *http.Client) (*http.Response, error) {
	t.Helper()
	resp, err := client.Get(worldAPI)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

// promptly returns the token of s. The test fails if the call has to wait for it.
func promptly(t *testing.T, s *Source) *oauth2.Token {
	t.Helper()
	start := time.Now()
	token, err := s.Token()
	require.NoError(t, err)
	require.Zero(t, time.Since(start), "waited")
	return token
}

package clientcredentials

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

// A wrapper hides everything of a RoundTripper but RoundTrip, as instrumentation does.
type wrapper struct{ base http.RoundTripper }

func (w wrapper) RoundTrip(req *http.Request) (*http.Response, error) { return w.base.RoundTrip(req) }

// Connections in the pool whose packets get lost are not used again, whatever they speak and
// however the transport is wrapped. Real time and real sockets, but nothing is measured: the
// attempts only have to end.
func TestF25_BlackHoledConnections(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, wrapped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, wrapped=%v", protocol, wrapped), func(t *testing.T) {
				t.Parallel()
				var protocols sync.Map
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					protocols.Store(req.Proto, true)
					w.Header().Set("Content-Type", "application/json")
					fmt.Fprint(w, `{"access_token":"t","expires_in":3600}`)
				}))
				server.EnableHTTP2 = protocol == "HTTP/2.0"
				server.StartTLS()
				t.Cleanup(server.Close)
				proxy := hostile.NewBlackHole(t, server.Listener.Addr().String())

				client := server.Client()
				if wrapped {
					client = &http.Client{Transport: wrapper{client.Transport}}
				}
				conf := &Config{TokenURL: "https://" + proxy.Addr + "/token", HTTPClient: client}
				var wg sync.WaitGroup
				for range 2 { // As many connections as net/http keeps for a host.
					wg.Go(func() {
						_, err := conf.Token(t.Context())
						require.NoError(t, err)
					})
				}
				wg.Wait()
				_, ok := protocols.Load(protocol)
				require.True(t, ok)
				before := proxy.Accepted()

				proxy.Swallow()
				conf.Retry.AttemptTimeout = time.Second
				_, err := conf.Token(t.Context())
				require.NoError(t, err)
				require.Greater(t, proxy.Accepted(), before, "a new connection")
				_, err = conf.Token(t.Context())
				require.NoError(t, err, "the dead connection has left the pool")
			})
		}
	}
}

// A retry goes through the program's own RoundTripper, and what is registered with it.
func TestF25_RetryUsesTheProgramsTransport(t *testing.T) {
	calls := 0
	transport := &http.Transport{}
	transport.RegisterProtocol("custom", roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if calls++; calls == 1 {
			return nil, io.ErrUnexpectedEOF
		}
		require.True(t, req.Close)
		return reply{body: `{"access_token":"t"}`}.response(req), nil
	}))
	conf := &Config{TokenURL: "custom://auth.example/token", HTTPClient: &http.Client{Transport: transport}}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, calls)
}

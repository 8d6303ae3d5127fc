package otelclientcredentials

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/codes"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

// A peer is an authorization server and an API behind a TCP proxy, over TLS.
type peer struct {
	protocol string // that it speaks
	server   *httptest.Server
	proxy    *hostile.BlackHole
	proto    atomic.Value // of the last request
}

// eachProtocol runs test with a peer of each protocol.
func eachProtocol(t *testing.T, test func(t *testing.T, tel *telemetry, p *peer)) {
	t.Helper()
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			test(t, newTelemetry(), newPeer(t, protocol))
		})
	}
}

func newPeer(t *testing.T, protocol string) *peer {
	t.Helper()
	p := &peer{protocol: protocol}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.proto.Store(r.Proto)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	}))
	p.server.EnableHTTP2 = protocol == "HTTP/2.0"
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	p.proxy = hostile.NewBlackHole(t, p.server.Listener.Addr().String())
	return p
}

// config returns a Config whose token requests go through otelhttp.
func (p *peer) config(tel *telemetry) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:     "client",
		ClientSecret: "secret",
		TokenURL:     "https://" + p.proxy.Addr + "/token",
		HTTPClient:   &http.Client{Transport: otelhttp.NewTransport(p.server.Client().Transport, otelhttp.WithTracerProvider(tel.traces))},
	}
}

// Connections in the pool whose packets get lost are not used again, although otelhttp hides
// the transport's CloseIdleConnections. Each attempt has a span, because it goes through the
// program's own transport.
func TestF25_BlackHoledConnectionsUnderOtelhttp(t *testing.T) {
	eachProtocol(t, func(t *testing.T, tel *telemetry, p *peer) {
		conf := p.config(tel)
		defer p.server.Client().CloseIdleConnections()
		_, err := conf.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, p.protocol, p.proto.Load())
		require.Equal(t, 1, p.proxy.Accepted())
		require.Len(t, tel.spans.Ended(), 1)

		p.proxy.Swallow()
		conf.Retry.AttemptTimeout = time.Second
		_, err = conf.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, p.proxy.Accepted(), "one new connection")
		spans := tel.spans.Ended()
		require.GreaterOrEqual(t, len(spans), 3)
		for _, span := range spans[1 : len(spans)-1] {
			require.Equal(t, codes.Error, span.Status().Code)
		}
		require.Equal(t, codes.Unset, spans[len(spans)-1].Status().Code)

		_, err = conf.Token(t.Context())
		require.NoError(t, err, "the dead connection must have left the pool")
		require.Len(t, tel.spans.Ended(), len(spans)+1)
	})
}

// CloseIdleConnections of an http.Client reaches the transport below ours.
func TestF35_CloseIdleConnections(t *testing.T) {
	eachProtocol(t, func(t *testing.T, tel *telemetry, p *peer) {
		tokens := p.config(tel)
		api := p.server.Client().Transport.(*http.Transport).Clone()
		api.ForceAttemptHTTP2 = p.server.EnableHTTP2
		client := &http.Client{Transport: tokens.Transport(context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: api}))}
		defer p.server.Client().CloseIdleConnections()
		for want := range 3 {
			resp, err := client.Get("https://" + p.proxy.Addr)
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, resp.Body)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, p.protocol, p.proto.Load())
			require.Equal(t, 2+want, p.proxy.Accepted(), "one for the token, and a new one each time")
			client.CloseIdleConnections()
		}
	})
}

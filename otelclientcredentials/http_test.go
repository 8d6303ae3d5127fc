package otelclientcredentials

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/codes"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// A peer is an authorization server and an API behind a TCP proxy, over TLS.
type peer struct {
	server *httptest.Server
	proxy  *blackHole
	proto  atomic.Value // of the last request
}

func newPeer(t *testing.T, http2 bool) *peer {
	t.Helper()
	p := new(peer)
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.proto.Store(r.Proto)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	}))
	p.server.EnableHTTP2 = http2
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	p.proxy = newBlackHole(t, p.server.Listener.Addr().String())
	return p
}

// config returns a Config whose token requests go through otelhttp.
func (p *peer) config(tel *telemetry) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:     "client",
		ClientSecret: "secret",
		TokenURL:     "https://" + p.proxy.listener.Addr().String() + "/token",
		HTTPClient:   &http.Client{Transport: otelhttp.NewTransport(p.server.Client().Transport, otelhttp.WithTracerProvider(tel.traces))},
	}
}

// Connections in the pool whose packets get lost are not used again, although otelhttp hides
// the transport's CloseIdleConnections. Each attempt has a span, because it goes through the
// program's own transport.
func TestF25_BlackHoledConnectionsUnderOtelhttp(t *testing.T) {
	t.Parallel()
	for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			tel := newTelemetry()
			p := newPeer(t, http2)
			conf := p.config(tel)
			defer p.server.Client().CloseIdleConnections()
			_, err := conf.Token(t.Context())
			require.NoError(t, err)
			require.Equal(t, protocol, p.proto.Load())
			require.EqualValues(t, 1, p.proxy.accepted.Load())
			require.Len(t, tel.spans.Ended(), 1)

			p.proxy.swallow()
			conf.Retry.AttemptTimeout = time.Second
			_, err = conf.Token(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 2, p.proxy.accepted.Load(), "one new connection")
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
}

// CloseIdleConnections of an http.Client reaches the transport below ours.
func TestF35_CloseIdleConnections(t *testing.T) {
	t.Parallel()
	for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			tel := newTelemetry()
			p := newPeer(t, http2)
			tokens := p.config(tel)
			api := p.server.Client().Transport.(*http.Transport).Clone()
			api.ForceAttemptHTTP2 = http2
			client := &http.Client{Transport: tokens.Transport(context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: api}))}
			defer p.server.Client().CloseIdleConnections()
			for want := range 3 {
				resp, err := client.Get("https://" + p.proxy.listener.Addr().String())
				require.NoError(t, err)
				_, _ = io.Copy(io.Discard, resp.Body)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, protocol, p.proto.Load())
				require.EqualValues(t, 2+want, p.proxy.accepted.Load(), "one for the token, and a new one each time")
				client.CloseIdleConnections()
			}
		})
	}
}

// A blackHole is a TCP proxy whose connections can be made to swallow what they get.
type blackHole struct {
	listener net.Listener
	accepted atomic.Int32

	mu    sync.Mutex // protects holes
	holes []*atomic.Bool
}

func newBlackHole(t *testing.T, target string) *blackHole {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &blackHole{listener: listener}
	var connections sync.WaitGroup
	t.Cleanup(func() { // The test's context is done by then.
		_ = listener.Close()
		connections.Wait()
	})
	ctx := t.Context()
	connections.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(ctx, "tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			hole := new(atomic.Bool)
			b.accepted.Add(1)
			b.mu.Lock()
			b.holes = append(b.holes, hole)
			b.mu.Unlock()
			context.AfterFunc(ctx, func() {
				_ = in.Close()
				_ = out.Close()
			})
			connections.Go(func() { forward(out, in, hole) })
			connections.Go(func() { forward(in, out, hole) })
		}
	})
	return b
}

// forward copies until an end is closed. Into a hole it copies nothing.
func forward(to io.WriteCloser, from io.Reader, hole *atomic.Bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err == nil && !hole.Load() {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			if !hole.Load() {
				_ = to.Close()
			}
			return
		}
	}
}

// swallow makes the connections that exist now swallow everything.
func (b *blackHole) swallow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, hole := range b.holes {
		hole.Store(true)
	}
}

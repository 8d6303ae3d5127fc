package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// BenchmarkProxy compares ccproxy with a ReverseProxy that does nothing else. Both have the
// same transport, and so many idle connections as there are callers. The module benchmarks/
// runs it for docs/performance.md, and reads its names.
func BenchmarkProxy(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"ok":true}`)
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	require.NoError(b, err)

	base := newTransport(nil)
	defer base.CloseIdleConnections()
	plain := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:    func(pr *httputil.ProxyRequest) { pr.SetURL(target) },
		Transport:  base,
		BufferPool: new(buffers),
	})
	defer plain.Close()

	auth := clientcredentialstest.NewServer()
	defer auth.Close()
	s := &settings{
		clients: map[string]map[string]string{"test": {"client_id": "client", "secret_file": filepath.Join(b.TempDir(), "s"), "token_url": auth.TokenURL}},
		routes:  []routeSettings{{prefix: "/", upstream: target.JoinPath("/"), client: "test"}},
	}
	writeSecret(b, s.clients["test"]["secret_file"])
	meters, _, err := newMeters()
	require.NoError(b, err)
	d := &daemon{logger: newLogger(io.Discard, false), meters: meters}
	d.proxy = newProxy(d.logger, 1000)
	r, err := newRouting(b.Context(), s, nil, d.logger, d.meters)
	require.NoError(b, err)
	d.proxy.routing.Store(r)
	defer r.retire(nil)
	listener, err := listen(b.Context(), "127.0.0.1:0", false)
	require.NoError(b, err)
	server := d.newServer(listener, d.proxy)
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	// The two proxies take turns, so that a ratio is one of times close to each other.
	for _, body := range []struct{ name, text string }{{"GET", ""}, {"POST", strings.Repeat("x", 1000)}} {
		for _, tt := range []struct{ name, address string }{{"plain", plain.URL}, {"ccproxy", addressOf(listener)}} {
			b.Run(tt.name+"/"+body.name, func(b *testing.B) {
				client := &http.Transport{MaxIdleConnsPerHost: 1000}
				defer client.CloseIdleConnections()
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						req, _ := http.NewRequestWithContext(b.Context(), body.name, tt.address+"/x", strings.NewReader(body.text))
						resp, err := client.RoundTrip(req)
						if err != nil {
							b.Error(err)
							return
						}
						if resp.StatusCode != http.StatusOK {
							b.Error(resp.Status)
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				})
			})
		}
	}
}

func writeSecret(tb testing.TB, path string) {
	tb.Helper()
	require.NoError(tb, os.WriteFile(path, []byte(clientcredentialstest.ClientSecret), 0o600))
}

package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// TestX10_Listeners checks where the proxy listens, and where it doesn't.
func TestX10_Listeners(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	require.NoError(t, os.WriteFile(file, []byte("kept"), 0o600))
	link := filepath.Join(folder, "link")
	require.NoError(t, os.Symlink(file, link))
	for address, want := range map[string]string{
		"0.0.0.0:0": "others on the network", ":0": "others on the network", "[::]:0": "others on the network",
		"192.0.2.1:0": "others on the network", "example.com:0": "others on the network", "[::ffff:10.0.0.1]:0": "others on the network",
		"127.0.0.1": "write it like", "8080": "write it like", "unix:": "the path of a socket", "unix:@ccproxy": "the path of a socket",
		"unix:" + file: "is not a socket", "unix:" + link: "is not a socket", "unix:" + folder: "is not a socket",
	} {
		_, err := listen(t.Context(), address, false)
		require.ErrorContains(t, err, want, address)
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "kept", string(text))

	path := filepath.Join(folder, "socket")
	for range 2 { // The second time, the socket is a stale one.
		listener, err := listen(t.Context(), "unix:"+path, false)
		require.NoError(t, err)
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600)|os.ModeSocket, info.Mode())
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		_, err = listen(t.Context(), "unix:"+path, false)
		require.ErrorContains(t, err, "another program listens on")
		entries, err := os.ReadDir(folder)
		require.NoError(t, err)
		assert.Len(t, entries, 3)
		require.NoError(t, listener.(*unixListener).Listener.Close()) // The socket stays.
	}
	listener, err := listen(t.Context(), "unix:"+path, false)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	assert.NoFileExists(t, path)

	for _, replace := range []func() error{
		func() error {
			other, err := listen(t.Context(), "unix:"+path, false)
			t.Cleanup(func() { _ = other.Close() })
			return err
		},
		func() error { return os.WriteFile(path, nil, 0o600) },
	} {
		listener, err = listen(t.Context(), "unix:"+path, false)
		require.NoError(t, err)
		require.NoError(t, os.Remove(path))
		require.NoError(t, replace())
		require.NoError(t, listener.Close())
		assert.FileExists(t, path, "it is somebody else's")
		require.NoError(t, os.Remove(path))
	}

	listener, err = listen(t.Context(), "0.0.0.0:0", true)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
}

// TestX10_Socket checks requests through a unix socket.
func TestX10_Socket(t *testing.T) {
	var path string
	w := newWorld(t, nil, func(w *world, s dict) {
		path = filepath.Join(w.dir, "socket")
		s["listen"] = []string{"127.0.0.1:0", "unix:" + path}
	})
	w.log.await(t, `address=unix:(\S+)`)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	for host, status := range map[string]int{"localhost": 200, "evil.example": 421, "127.0.0.1": 421} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/api/", nil)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, status, resp.StatusCode, host)
	}
}

// TestX10_Taken checks the exit status if an address is taken, or can't be used at all.
func TestX10_Taken(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	w := newWorld(t, nil, func(_ *world, s dict) { s["listen"] = []string{"127.0.0.1:0", "unix:" + socket} })
	w.log.await(t, `address=unix:(\S+)`)
	for _, tt := range []struct {
		address string
		status  int
		text    string
	}{
		{strings.TrimPrefix(w.proxy, "http://"), statusTemporary, "choose another address"},
		{"unix:" + socket, statusTemporary, "another program listens on"},
		{"127.0.0.1:99999", statusUsage, "invalid port"},
		{"127.0.0.1:none", statusUsage, "unknown port"},
		{"unix:" + filepath.Join(w.dir, "none", "socket"), statusUsage, "no such file"},
	} {
		settings := w.settings()
		settings["listen"] = tt.address
		w.writeSettings(settings)
		var log syncBuffer
		assert.Equal(t, tt.status, run(t.Context(), []string{"-config", filepath.Join(w.dir, "ccproxy.json")}, io.Discard, &log), tt.address)
		assert.Contains(t, log.String(), tt.text)
		assert.Equal(t, tt.text == "choose another address", strings.Contains(log.String(), "choose another address"))
	}
}

// TestX12_EndBeforeListening checks that a signal ends the program while it waits for the
// metadata of an issuer. The settings that -check looks at haven't proved to be fine then.
func TestX12_EndBeforeListening(t *testing.T) {
	reached := make(chan struct{}, 10)
	issuer := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		<-r.Context().Done()
	}))
	defer issuer.Close()
	w := &world{t: t, Server: newServer(t, nil), dir: t.TempDir()}
	w.write("secret.txt", canarySecret)
	s := w.settings()
	s["clients"] = dict{"test": dict{"client_id": "client", "secret_file": "secret.txt", "issuer": issuer.URL}}
	w.writeSettings(s)
	for _, tt := range []struct {
		check  []string
		status int
	}{{nil, statusOK}, {[]string{"-check"}, statusUsage}} {
		ctx, cancel := context.WithCancel(t.Context())
		status := make(chan int, 1)
		go func() {
			status <- run(ctx, append(tt.check, "-config", filepath.Join(w.dir, "ccproxy.json")), io.Discard, io.Discard)
		}()
		<-reached
		cancel()
		assert.Equal(t, tt.status, <-status)
	}
}

// health returns what /healthz answers.
func (w *world) health() (status int, h health) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "GET", w.admin+"/healthz", nil)
	require.NoError(w.t, err)
	a := w.do(req)
	require.NoError(w.t, json.Unmarshal([]byte(a.body), &h))
	assert.NotContains(w.t, a.body, "Canary")
	return a.StatusCode, h
}

// TestX11_Health checks /healthz and /metrics.
func TestX11_Health(t *testing.T) {
	w := newWorld(t, nil, func(_ *world, s dict) { s["admin"] = "127.0.0.1:0" })
	status, h := w.health()
	assert.Equal(t, 200, status)
	assert.Equal(t, health{Status: "ok", Routes: []routeHealth{{Route: "/api/", Client: "test", State: "expired"}}}, h)

	w.Auth.SetFault(&clientcredentialstest.Fault{Status: 400, Body: `{"error":"SecretCanary"}`})
	assert.Equal(t, 502, w.get("/api/").StatusCode)
	status, h = w.health()
	assert.Equal(t, 503, status)
	assert.Equal(t, health{Status: "failing", Routes: []routeHealth{{"/api/", "test", "failed", "the authorization server refuses to issue a token (see the log)"}}}, h)

	w.Auth.SetFault(nil)
	assert.Equal(t, 200, w.get("/api/").StatusCode)
	status, h = w.health()
	assert.Equal(t, 200, status)
	assert.Equal(t, "fresh", h.Routes[0].State)
	for _, path := range []string{"/healthz", "/metrics"} {
		assert.Equal(t, 404, w.get(path).StatusCode, "it isn't at the address for programs")
	}
	w.proxy = w.admin
	metrics := w.get("/metrics").body
	assert.Contains(t, metrics, `clientcredentials_token_gets_total{clientcredentials_name="test"`)
	assert.Contains(t, metrics, `clientcredentials_token_remaining_seconds{ccproxy_route="/api/",clientcredentials_name="test"`)
	assert.NotContains(t, metrics, "Canary")
	req := w.request("GET", "/healthz", "")
	req.Host = "evil.example"
	assert.Equal(t, 421, w.do(req).StatusCode)
	assert.Equal(t, 404, w.get("/api/").StatusCode)
}

// reload writes settings and has them put in force. It returns what the log says about it.
func reload(t *testing.T, d *daemon, s dict, w *world) error {
	t.Helper()
	w.writeSettings(s)
	return d.reload(t.Context())
}

// newDaemon returns a daemon that serves nothing, with the settings s.
func newDaemon(t *testing.T, w *world, s dict) *daemon {
	t.Helper()
	w.writeSettings(s)
	meters, _, err := newMeters()
	require.NoError(t, err)
	d := &daemon{flags: flags{config: filepath.Join(w.dir, "ccproxy.json")}, logger: newLogger(new(syncBuffer), false), meters: meters}
	d.proxy = newProxy(d.logger, 10)
	read, err := readSettings(d.flags.config)
	require.NoError(t, err)
	first, err := newRouting(t.Context(), read, nil, d.logger, d.meters)
	require.NoError(t, err)
	d.proxy.routing.Store(first)
	return d
}

// TestX8_Reload checks what a reload keeps, and that mistakes change nothing.
func TestX8_Reload(t *testing.T) {
	w := &world{t: t, Server: newServer(t, nil), dir: t.TempDir()}
	w.write("secret.txt", canarySecret)
	s := w.settings()
	d := newDaemon(t, w, s)
	defer func() { d.proxy.routing.Load().retire(nil) }()
	first := d.proxy.routing.Load()
	_, err := first.routes[0].source.TokenContext(t.Context())
	require.NoError(t, err)

	// A new route of the same client keeps the token, and needs no server.
	w.Stop()
	s["routes"] = []dict{w.route("/api/"), w.route("/b/")}
	require.NoError(t, reload(t, d, s, w))
	assert.Same(t, first.routes[0].source, d.proxy.routing.Load().routes[1].source)

	// What needs a new token is tried before.
	second := d.proxy.routing.Load()
	scoped := w.route("/api/")
	scoped["scopes"] = "other"
	refused := w.settings()
	refused["routes"] = []dict{scoped}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	w.writeSettings(refused)
	require.ErrorContains(t, d.reload(ctx), "there is no token for the route /api/")
	cancel()
	assert.Same(t, second, d.proxy.routing.Load())
	require.NoError(t, w.Restart())

	wrong := w.settings()
	wrong["clients"].(dict)["test"].(dict)["client_id"] = "unknown"
	require.ErrorContains(t, reload(t, d, wrong, w), "there is no token for the route /api/")
	moved := w.settings()
	moved["listen"] = "127.0.0.1:1"
	require.ErrorContains(t, reload(t, d, moved, w), "restart it")
	w.write("ccproxy.json", "{")
	require.ErrorContains(t, d.reload(t.Context()), "isn't valid JSON")
	require.NoError(t, os.Remove(d.flags.config))
	require.Error(t, d.reload(t.Context()))
	assert.Same(t, second, d.proxy.routing.Load())

	// A client that has changed gets a new token, and a secret is read again without a reload.
	changed := w.settings()
	changed["clients"].(dict)["test"].(dict)["scopes"] = "changed"
	require.NoError(t, reload(t, d, changed, w))
	assert.NotSame(t, first.routes[0].source, d.proxy.routing.Load().routes[0].source)
	w.Auth.Register(clientcredentialstest.Client{ID: "client", Secret: "rotated"})
	w.write("secret.txt", "rotated")
	last := d.proxy.routing.Load().routes[0].source
	token, err := last.TokenContext(t.Context())
	require.NoError(t, err)
	last.Invalidate(token)
	_, err = last.TokenContext(t.Context())
	require.NoError(t, err)
}

// TestX8_Retry checks that new settings are tried again if the authorization server isn't
// there, or a file that they name, but not all the time.
func TestX8_Retry(t *testing.T) {
	for _, tt := range []struct {
		name, first, later string // the last two are in the log
		appears            string // a file that isn't there in the first hour
		least, most        int    // how often the settings are tried in that hour
	}{
		{"no server", "there is no token for the route", "there is no token for the route", "", 60, 120},
		{"no secret", "secret.txt: no such file", "there is no token for the route", "secret.txt", 6, 9},
		{"no settings", "ccproxy.json: no such file", "there is no token for the route", "ccproxy.json", 6, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, dir: t.TempDir(), Server: &clientcredentialstest.Server{TokenURL: "http://127.0.0.1:1/token", APIURL: "http://127.0.0.1:1/"}}
			w.write("secret.txt", canarySecret)
			w.writeSettings(w.settings())
			missing := filepath.Join(w.dir, tt.appears)
			if tt.appears != "" {
				require.NoError(t, os.Rename(missing, missing+"~"))
			}
			meters, _, err := newMeters()
			require.NoError(t, err)
			testkit.Bubble(t, func(t *testing.T) {
				log := new(syncBuffer)
				d := &daemon{flags: flags{config: filepath.Join(w.dir, "ccproxy.json"), watch: 5 * time.Second}, logger: newLogger(log, false), meters: meters, seen: []byte("other settings")}
				d.proxy = newProxy(d.logger, 10)
				d.proxy.routing.Store(&routing{settings: &settings{listen: []string{"127.0.0.1:0"}}})
				ctx, cancel := context.WithTimeout(t.Context(), 80*time.Minute)
				defer cancel()
				time.AfterFunc(time.Hour, func() {
					tried := strings.Count(log.String(), tt.first)
					assert.GreaterOrEqual(t, tried, tt.least)
					assert.LessOrEqual(t, tried, tt.most)
					_ = os.Rename(missing+"~", missing)
				})
				d.watch(ctx, nil)
				assert.Contains(t, d.problem.Load(), tt.later)
				time.Sleep(time.Minute) // For what remains of the last try.
			})
		})
	}
}

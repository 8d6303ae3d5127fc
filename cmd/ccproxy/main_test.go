package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

// The test program behaves as ccproxy if that is its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ccproxy" {
		main()
	}
	logging.Disable() // As main does.
	leakcheck.Main(m)
}

const canarySecret = "SecretCanary-8fJq2.Vd_Lw4Rt6Yp0Zx3Nb7"

// A dict is a JSON object.
type dict = map[string]any

// A world is an authorization server with an API, and a proxy in front of the API.
type world struct {
	t *testing.T
	*clientcredentialstest.Server
	dir   string // of the settings
	proxy string // the address of the proxy
	admin string
	log   *syncBuffer
	done  chan int
	stop  context.CancelFunc
}

// newServer starts an authorization server that knows one client, and an API.
func newServer(t *testing.T, handler http.HandlerFunc) *clientcredentialstest.Server {
	t.Helper()
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "client", Secret: canarySecret})
	if handler != nil {
		srv.API.Handler = handler
	}
	t.Cleanup(srv.Close)
	return srv
}

// newWorld starts a world. edit may change the settings before. The proxy has one route.
func newWorld(t *testing.T, handler http.HandlerFunc, edit func(w *world, settings dict), args ...string) *world {
	t.Helper()
	w := &world{t: t, Server: newServer(t, handler), dir: t.TempDir()}
	settings := w.settings()
	if edit != nil {
		edit(w, settings)
	}
	w.write("secret.txt", canarySecret)
	w.writeSettings(settings)
	w.start(settings["admin"] != nil, args...)
	return w
}

// start starts a proxy with the settings of w.
func (w *world) start(hasAdmin bool, args ...string) {
	t := w.t
	t.Helper()
	w.log, w.done = new(syncBuffer), make(chan int, 1)
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	args = append([]string{"-config", filepath.Join(w.dir, "ccproxy.json"), "-watch", "0", "-v"}, args...)
	go func() { w.done <- run(ctx, args, io.Discard, w.log) }()
	t.Cleanup(func() {
		w.stop()
		select {
		case status := <-w.done:
			assert.Zero(t, status, w.log)
		case <-time.After(time.Minute):
			t.Error("the proxy doesn't end")
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		assert.Empty(t, hostile.Find(w.log.String(), canarySecret), "a secret in the log")
		for _, token := range w.tokens() {
			assert.Empty(t, hostile.Find(w.log.String(), token), "a token in the log")
		}
	})
	w.proxy = w.log.await(t, `for=routes address=(http\S+)`)
	if hasAdmin {
		w.admin = w.log.await(t, `for=admin address=(http\S+)`)
	}
}

// settings returns the usual settings.
func (w *world) settings() dict {
	return dict{
		"listen": "127.0.0.1:0",
		"clients": dict{"test": dict{
			"client_id": "client", "secret_file": "secret.txt", "token_url": w.TokenURL,
		}},
		"routes": []dict{w.route("/api/")},
	}
}

func (w *world) route(path string) dict {
	return dict{"path": path, "upstream": w.api() + "/v1/", "client": "test"}
}

func (w *world) write(name, text string) {
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600))
}

func (w *world) writeSettings(settings dict) {
	text, err := json.Marshal(settings)
	require.NoError(w.t, err)
	w.write("ccproxy.json", string(text))
}

// tokens returns the tokens that the API has received.
func (w *world) tokens() (tokens []string) {
	for _, r := range w.API.Requests() {
		if _, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// An answer is an answer of the proxy.
type answer struct {
	*http.Response
	body string
}

// request returns a request to the proxy.
func (w *world) request(method, path, body string) *http.Request {
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.proxy+path, strings.NewReader(body))
	require.NoError(w.t, err)
	return req
}

func (w *world) do(req *http.Request) answer {
	w.t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return answer{resp, string(body)}
}

func (w *world) get(path string) answer { w.t.Helper(); return w.do(w.request("GET", path, "")) }

// raw sends bytes to the proxy, and returns the first answer and all that follows it. If part
// of the request is missing, cut makes the proxy notice.
func (w *world) raw(text string, cut ...bool) string {
	w.t.Helper()
	conn, err := new(net.Dialer).DialContext(w.t.Context(), "tcp", strings.TrimPrefix(w.proxy, "http://"))
	require.NoError(w.t, err)
	defer conn.Close()
	require.NoError(w.t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, _ = io.WriteString(conn, strings.ReplaceAll(text, "HOST", strings.TrimPrefix(w.proxy, "http://")))
	var reply bytes.Buffer
	reader := bufio.NewReader(io.TeeReader(conn, &reply))
	if len(cut) == 0 {
		if resp, err := http.ReadResponse(reader, nil); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // A client that leaves earlier ends its request.
			resp.Body.Close()
		}
	}
	require.NoError(w.t, conn.(*net.TCPConn).CloseWrite())
	_, _ = io.Copy(io.Discard, reader)
	return reply.String()
}

// A syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu     sync.Mutex // protects buffer
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// await waits for text that matches, and returns the first group.
func (b *syncBuffer) await(t *testing.T, pattern string) (found string) {
	t.Helper()
	require.Eventually(t, func() bool {
		match := regexp.MustCompile(pattern).FindStringSubmatch(b.String())
		if match != nil {
			found = match[len(match)-1]
		}
		return match != nil
	}, time.Minute, 2*time.Millisecond, "%s isn't in the log:\n%s", pattern, b)
	return found
}

// api returns the origin of the API.
func (w *world) api() string { return strings.TrimSuffix(w.APIURL, "/") }

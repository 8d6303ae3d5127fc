//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startProcess starts a process of ccproxy with the settings of w, and no environment.
func startProcess(t *testing.T, w *world, args ...string) (cmd *exec.Cmd) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(w.dir, "ccproxy")
	require.NoError(t, os.Symlink(program, path))
	cmd = exec.CommandContext(t.Context(), path, append([]string{"-config", filepath.Join(w.dir, "ccproxy.json")}, args...)...)
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0", "GOCOVERDIR=" + t.TempDir(), "GOGC=10"}
	w.log = new(syncBuffer)
	cmd.Stderr = w.log
	require.NoError(t, cmd.Start())
	w.proxy = w.log.await(t, `for=routes address=(http\S+)`)
	w.admin = w.log.await(t, `for=admin address=(http\S+)`)
	return cmd
}

// TestX8_Process checks reloads and the end of a real process, while requests are made.
func TestX8_Process(t *testing.T) {
	w := &world{t: t, Server: newServer(t, nil), dir: t.TempDir()}
	w.write("secret.txt", canarySecret)
	s := w.settings()
	s["admin"] = "127.0.0.1:0"
	w.writeSettings(s)
	cmd := startProcess(t, w, "-watch", "20ms")

	var failed, made atomic.Int64
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if w.get("/api/").StatusCode != 200 {
					failed.Add(1)
				}
				made.Add(1)
			}
		})
	}
	w.write("ccproxy.json", "{") // Noticed without a signal.
	w.log.await(t, "the new settings can't be used, so the old ones stay in force.*isn't valid JSON")
	_, h := w.health()
	assert.Contains(t, h.Settings, "line 1: it isn't valid JSON")
	assert.Equal(t, "ok", h.Status)

	s["routes"] = []dict{w.route("/api/"), w.route("/more/")}
	w.writeSettings(s)
	w.log.await(t, `msg="the settings have been read again"`)
	assert.Equal(t, 200, w.get("/more/").StatusCode)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	w.log.await(t, `(?s)have been read again.*have been read again`)
	_, h = w.health()
	assert.Empty(t, h.Settings)

	close(stop)
	callers.Wait()
	assert.Zero(t, failed.Load())
	assert.Positive(t, made.Load())
	assert.Equal(t, 1, w.Auth.TokenRequests())
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), w.log)
	assert.NotContains(t, w.log.String(), "Canary")
}

// TestX9_ManyStreams checks that streams leave nothing behind. CCPROXY_STREAMS sets how many.
func TestX9_ManyStreams(t *testing.T) {
	streams := 200
	if text := os.Getenv("CCPROXY_STREAMS"); text != "" {
		_, err := fmt.Sscan(text, &streams)
		require.NoError(t, err)
	}
	release := make(chan struct{})
	w := &world{t: t, dir: t.TempDir(), Server: newServer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/short" {
			return
		}
		fmt.Fprint(rw, "data: 1\n\n")
		_ = http.NewResponseController(rw).Flush()
		<-release
		fmt.Fprint(rw, "data: 2\n\n")
	})}
	w.write("secret.txt", canarySecret)
	s := w.settings()
	s["admin"] = "127.0.0.1:0"
	w.writeSettings(s)
	cmd := startProcess(t, w, "-max-requests", fmt.Sprint(streams))
	w.get("/api/short")
	before := w.usage()

	// Streams of HTTP/2 share connections, so the test needs fewer files.
	client := &http.Transport{Protocols: new(http.Protocols)}
	client.Protocols.SetUnencryptedHTTP2(true)
	var opened, ended sync.WaitGroup
	var complete atomic.Int64
	slots := make(chan struct{}, 100) // The backlog of a listener is limited.
	for range streams {
		opened.Add(1)
		ended.Go(func() {
			slots <- struct{}{}
			resp, err := client.RoundTrip(w.request("GET", "/api/", ""))
			<-slots
			if err != nil { // Then a stream is missing below.
				opened.Done()
				return
			}
			defer resp.Body.Close()
			first := make([]byte, 9)
			_, _ = io.ReadFull(resp.Body, first)
			opened.Done()
			rest, _ := io.ReadAll(resp.Body)
			if string(first)+string(rest) == "data: 1\n\ndata: 2\n\n" {
				complete.Add(1)
			}
		})
	}
	opened.Wait()
	during := w.usage()
	refused := w.get("/api/short")
	assert.Equal(t, http.StatusServiceUnavailable, refused.StatusCode)
	assert.Equal(t, "1", refused.Header.Get("Retry-After"))
	close(release)
	ended.Wait()
	assert.EqualValues(t, streams, complete.Load())
	client.CloseIdleConnections()
	w.Close() // This ends the idle connections to the upstream.
	var after map[string]float64
	// The Go runtime keeps a descriptor of 440 bytes for each goroutine that there was, and uses it
	// again. There are three for each stream.
	most := before[heap] + 4<<20 + 2<<10*float64(streams)
	require.Eventually(t, func() bool { // To ask makes garbage, so that the process collects it.
		after = w.usage()
		return after["go_goroutines"] <= before["go_goroutines"]+5 && after[heap] <= most
	}, time.Minute, time.Millisecond)
	for name, value := range after {
		t.Logf("%s: before %.0f, with %d streams %.0f, after %.0f", name, before[name], streams, during[name], value)
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), w.log)
}

const heap = "go_memstats_heap_alloc_bytes"

// usage returns what the process of the proxy uses.
func (w *world) usage() map[string]float64 {
	req, err := http.NewRequestWithContext(w.t.Context(), "GET", w.admin+"/metrics", nil)
	require.NoError(w.t, err)
	text := w.do(req).body
	used := make(map[string]float64)
	for _, name := range []string{"go_goroutines", heap, "process_open_fds"} {
		match := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
		if match != nil {
			used[name], err = strconv.ParseFloat(match[1], 64)
			require.NoError(w.t, err)
		}
	}
	return used
}

//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

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
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0", "GOCOVERDIR=" + t.TempDir()}
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

//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// installed returns a directory with cctoken in it, which is a link to the test program.
func installed(t *testing.T) string {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(program, filepath.Join(dir, "cctoken")))
	return dir
}

// processOf returns a process of cctoken that has only env in its environment.
func processOf(t *testing.T, env environment, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(installed(t), "cctoken"), args...)
	cmd.Env = surroundings(t)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// surroundings returns what the test program needs in its environment. Without it, a
// program with the race detector takes a second to exit.
func surroundings(t *testing.T) []string {
	return []string{"GORACE=atexit_sleep_ms=0", "GOCOVERDIR=" + t.TempDir()}
}

// TestSignalWhileAPipeOpens checks that a signal ends inspect while nobody writes to its pipe.
func TestSignalWhileAPipeOpens(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"inspect", pipe}, environment(nil).get, nil, io.Discard, io.Discard)
	}()
	select {
	case got := <-status:
		assert.Equal(t, statusInterrupted, got)
	case <-time.After(time.Minute):
		t.Error("cctoken inspect hangs")
	}
	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // Ends the goroutine that opens the pipe.
	require.NoError(t, err)
	require.NoError(t, writer.Close())
}

// TestSignals checks that a signal ends token while it waits, and serve without an error.
func TestSignals(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			srv := startServer(t)
			srv.Auth.Latency = time.Hour
			token := processOf(t, srv.env(), "token", "-timeout", "1h")
			var stderr bytes.Buffer
			token.Stderr = &stderr
			require.NoError(t, token.Start())
			require.Eventually(t, func() bool { return srv.Auth.TokenRequests() > 0 }, time.Minute, 10*time.Millisecond)
			require.NoError(t, token.Process.Signal(signal))
			require.Error(t, token.Wait())
			assert.Equal(t, statusInterrupted, token.ProcessState.ExitCode())
			assert.Equal(t, "cctoken token: interrupted\n", stderr.String())

			serve := processOf(t, nil, "serve")
			stdout, err := serve.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, serve.Start())
			_, err = io.ReadAll(stdout)
			require.NoError(t, err)
			require.NoError(t, serve.Process.Signal(signal))
			require.NoError(t, serve.Wait())
		})
	}
}

// TestIgnoredInterrupt checks that serve goes on if the shell ignores interrupts for it.
func TestIgnoredInterrupt(t *testing.T) {
	out, err := shell(t, `trap '' INT
		cctoken serve >env &
		until grep -q PID env; do sleep 0.05; done
		. ./env
		kill -INT $CCTOKEN_SERVE_PID
		cctoken token
		kill -TERM $CCTOKEN_SERVE_PID
		wait $!`)
	require.NoError(t, err, out)
}

// TestC9_Processes checks that processes which need a token at the same time make one token
// request. A process that waits 250 milliseconds for a file makes a request of its own, so a
// slow machine gets more than one chance.
func TestC9_Processes(t *testing.T) {
	const processes = 8
	srv := startServer(t)
	srv.Auth.Latency = 200 * time.Millisecond
	for range 5 {
		before := srv.Auth.TokenRequests()
		folder := filepath.Join(t.TempDir(), "cache")
		var running []*exec.Cmd
		outputs := make([]bytes.Buffer, processes)
		for i := range outputs {
			cmd := processOf(t, srv.env(), "token", "-cache", "-cache-dir", folder)
			cmd.Stdout = &outputs[i]
			require.NoError(t, cmd.Start())
			running = append(running, cmd)
		}
		tokens := make(map[string]bool)
		for i, cmd := range running {
			require.NoError(t, cmd.Wait())
			tokens[outputs[i].String()] = true
		}
		if srv.Auth.TokenRequests() == before+1 {
			assert.Len(t, tokens, 1)
			return
		}
	}
	t.Error("more than one process has requested a token, each time")
}

// TestC9_EndedProcesses checks that a process that has ended keeps nobody waiting for longer
// than its lease lasts, and one that was interrupted not at all.
func TestC9_EndedProcesses(t *testing.T) {
	for _, tt := range []struct {
		signal os.Signal
		most   time.Duration // the lease lasts for 5 seconds
	}{
		{syscall.SIGKILL, time.Minute},
		{os.Interrupt, 4 * time.Second},
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			srv := startServer(t)
			srv.Auth.Script(clientcredentialstest.Fault{Delay: time.Hour})
			folder := filepath.Join(t.TempDir(), "cache")
			ended := processOf(t, srv.env(), "token", "-cache", "-cache-dir", folder, "-timeout", "1h")
			require.NoError(t, ended.Start())
			require.Eventually(t, func() bool { return srv.Auth.TokenRequests() > 0 }, time.Minute, 10*time.Millisecond)
			require.NoError(t, ended.Process.Signal(tt.signal))
			require.Error(t, ended.Wait())

			start := time.Now()
			r := cachedToken(t, srv.env(), folder)
			assert.Empty(t, r.stderr)
			assert.Less(t, time.Since(start), tt.most)
			assert.Equal(t, r, cachedToken(t, srv.env(), folder))
			assert.Equal(t, 2, srv.Auth.TokenRequests())
		})
	}
}

// TestC10_Umask checks that no umask opens the cache, and that another user's programs can't
// read it.
func TestC10_Umask(t *testing.T) {
	out, err := shell(t, `umask 0
		eval "$(cctoken serve &)"
		cctoken token -cache -cache-dir new/cache
		test -z "$(find new -perm /077)"
		test -n "$(find new -type f -perm 600 -size +0)"`)
	require.NoError(t, err, out)
}

// shell runs a script in an empty directory, with cctoken in its path. It always ends
// the last server that the script started.
func shell(t *testing.T, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-eu")
	cmd.Stdin = strings.NewReader("trap 'kill \"${CCTOKEN_SERVE_PID:-}\" 2>/dev/null || :' EXIT\n" + script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(surroundings(t), "PATH="+installed(t)+":/usr/local/bin:/usr/bin:/bin", "HOME="+cmd.Dir)
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestC8_Process checks that no umask opens the file with the key, and that other programs
// understand it.
func TestC8_Process(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl isn't installed")
	}
	out, err := shell(t, `umask 0
		for algorithm in ES256 EdDSA PS256; do
			cctoken key -algorithm $algorithm -out $algorithm.pem >$algorithm.json
			ls -l $algorithm.pem | grep -q '^-rw------- '
			openssl pkey -in $algorithm.pem -noout
			cctoken key -algorithm $algorithm -out - | openssl pkey -pubout
			if cctoken key -out $algorithm.pem; then exit 1; fi
		done
		test -e /dev/full || exit 0
		status=0
		cctoken key -out full.pem >/dev/full || status=$?
		test $status = 5
		cctoken key -from full.pem -jwk`)
	require.NoError(t, err, out)
}

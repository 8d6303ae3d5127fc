//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

// TestDocument runs all commands in docs/cctoken.md, in one shell.
func TestDocument(t *testing.T) {
	for _, tool := range []string{"curl", "jq", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the document uses %s, which isn't installed", tool)
		}
	}
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?\n)```\n").FindAllStringSubmatch(readDocument(t), -1) {
		script.WriteString(block[1])
	}
	require.NotEmpty(t, script.String())
	script.WriteString("echo reached the end\n")
	out, err := shell(t, script.String())
	require.NoError(t, err, out)
	assert.Contains(t, out, "reached the end")
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

package workload

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

func TestW10_KubernetesToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	source := KubernetesToken(path)
	_, err := source(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "mount a projected volume with a serviceAccountToken there")
	require.ErrorContains(t, err, path)
	for content, want := range map[string]string{
		"\n":                         "the secret is empty",
		requestSecret:                "has no Kubernetes token: it is not a JWT",
		lasting(time.Hour) + "\n\n":  "the secret contains a line break",
		"<html>" + requestSecret:     "has no Kubernetes token: it is not a JWT",
		strings.Repeat("e30.", 9000): "has no Kubernetes token: it is not a JWT",
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := source(t.Context())
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
		require.Empty(t, hostile.Find(surfaces(err), requestSecret))
	}
	for _, life := range []time.Duration{time.Hour, 2 * time.Hour} { // The kubelet replaces it.
		token := lasting(life)
		require.NoError(t, os.WriteFile(path, []byte(token+"\n"), 0o600))
		got, err := source(t.Context())
		require.NoError(t, err)
		require.Equal(t, token, got)
	}
}

// self is Command with the test program.
func self(t *testing.T, args ...string) clientauth.SecretSource {
	t.Helper()
	t.Setenv(asCommand, "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // The race detector would have each end a second late.
	return Command(os.Args[0], args...)
}

func TestW11_Command(t *testing.T) {
	for literal, want := range map[string]string{
		`"secret"`:               "secret",
		`"secret\n"`:             "secret",
		`"secret\r\n"`:           "secret",
		`" two words \n"`:        " two words ",
		`"\xef\xbb\xbfsecret"`:   "secret",
		`"a$HOME;b|c > d 'e' *"`: "a$HOME;b|c > d 'e' *", // There is no shell.
	} {
		got, err := self(t, "print", literal)(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	t.Setenv("WORKLOAD_TEST_VARIABLE", "inherited")
	got, err := self(t, "variable", "WORKLOAD_TEST_VARIABLE")(t.Context())
	require.NoError(t, err)
	require.Equal(t, "inherited", got)
	got, err = self(t, "stdin")(t.Context())
	require.NoError(t, err)
	require.Equal(t, "stdin 0 <nil>", got)

	// A JWT is kept, and nothing else.
	for name, isKept := range map[string]bool{"jwt": true, "pid": false} {
		source := self(t, name)
		first, err := source(t.Context())
		require.NoError(t, err)
		second, err := source(t.Context())
		require.NoError(t, err)
		require.Equal(t, isKept, first == second, name)
	}
}

func TestW11_CommandThatFails(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, test := range []struct {
		source clientauth.SecretSource
		err    string
	}{
		{Command(missing, requestSecret), missing},
		{Command("no-such-program-of-this-test"), "executable file not found"},
		{Command(""), "cannot get a token from the command"},
		{self(t, "fail", requestSecret), "it failed, and what it wrote to standard error is not shown; run it by hand: exit status 3"},
		{self(t, "print", `""`), "what it wrote cannot be used: the secret is empty"},
		{self(t, "print", `"\n"`), "what it wrote cannot be used: the secret is empty"},
		{self(t, "print", `"`+requestSecret+`\n\n"`), "what it wrote cannot be used: the secret contains a line break"},
		{self(t, "print", `"`+requestSecret+`\x00"`), "what it wrote cannot be used: the secret contains a NUL"},
		{self(t, "print", `"`+requestSecret+`\x1b[0m"`), "what it wrote cannot be used: the secret contains a control character"},
		{self(t, "endless"), "it writes more than 64 KiB"},
	} {
		token, err := test.source(t.Context())
		require.ErrorContains(t, err, test.err)
		require.Empty(t, token)
		require.Empty(t, hostile.Find(surfaces(err), requestSecret))
		require.Empty(t, hostile.Find(surfaces(test.source), requestSecret))
	}
}

// When nobody waits for a command any more, it is killed with all that it has started. So is
// what a command leaves behind with its output.
func TestW11_CommandIsKilledWithItsChildren(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	addr := listener.Addr().String()
	for _, test := range []struct {
		name string
		err  error
	}{
		{"hang", errGone},
		{"parent", errGone},
		{"leave", exec.ErrWaitDelay},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			failed := make(chan error)
			source := self(t, test.name, addr)
			go func() {
				_, err := source(ctx)
				failed <- err
			}()
			conn, err := listener.Accept() // The last process of the command is running.
			require.NoError(t, err)
			defer conn.Close()
			if test.err == errGone { //nolint:errorlint // It is the same.
				cancel(errGone)
			}
			require.ErrorIs(t, <-failed, test.err)
			_, err = conn.Read(make([]byte, 1))
			require.Error(t, err, "the process has ended, and its connection with it")
		})
	}
}

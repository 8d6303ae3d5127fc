package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A lockedBuffer is a bytes.Buffer that is safe for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex // protects b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startServe runs cctoken serve until the test ends, and returns the variables that it
// exports.
func startServe(t *testing.T, stderr io.Writer, args ...string) environment {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"serve"}, args...), environment(nil).get, strings.NewReader(""), writer, stderr)
		_ = writer.Close()
	}()
	t.Cleanup(func() {
		cancel()
		assert.Zero(t, <-status)
	})
	text, err := io.ReadAll(reader) // A shell reads to the end, too.
	require.NoError(t, err)
	env := environment{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "export "), "=")
		require.True(t, ok, line)
		env[name] = strings.ReplaceAll(strings.Trim(value, "'"), `'\''`, "'")
	}
	return env
}

func TestServe(t *testing.T) {
	var log lockedBuffer
	env := startServe(t, &log, "-client-id", "it's me", "-scopes", "a b", "-lifetime", "90s", "-v")
	require.Equal(t, "it's me", env["CLIENT_ID"])
	another := startServe(t, io.Discard)
	assert.NotEqual(t, another["CLIENT_SECRET"], env["CLIENT_SECRET"])
	assert.GreaterOrEqual(t, len(env["CLIENT_SECRET"]), 32)

	r := cctoken(t, env, "", "token", "-json", "-scopes", "a")
	require.Zero(t, r.status, r.stderr)
	assert.Contains(t, r.stdout, `"expires_in": 90,`)
	assert.Equal(t, statusRefused, cctoken(t, env, "", "token", "-scopes", "c").status)

	metadata, err := clientcredentials.Discover(t.Context(), env["ISSUER"])
	require.NoError(t, err)
	assert.Equal(t, env["TOKEN_URL"], metadata.TokenEndpoint)
	assert.Equal(t, []string{"a", "b"}, metadata.ScopesSupported)
	r = cctoken(t, env, "", "doctor")
	assert.Zero(t, r.status, r.stderr)
	assert.Regexp(t, lines(`ok    client_secret_jwt   works with the issuer as audience$`, `ok    client_secret_basic works$`, `ok    encoding`, `ok    client_secret_post  works$`, `ok    dpop`), r.stdout)

	token := strings.TrimSpace(cctoken(t, env, "", "token").stdout)
	get := func(authorization string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env["API_URL"]+"reports", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", authorization)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	assert.Equal(t, http.StatusOK, get("Bearer "+token))
	assert.Equal(t, http.StatusUnauthorized, get("Bearer another"))
	assert.Equal(t, http.StatusBadRequest, get("Bearer a token"))
	assert.Contains(t, log.String(), "POST /token 200\n")
	assert.Contains(t, log.String(), "GET /api/reports 401\n")
	assert.Contains(t, log.String(), "the client broke a rule: API request 3: RFC 6750, Section 2.1: the token breaks the grammar\n")
	assert.Equal(t, 1, strings.Count(log.String(), "breaks the grammar"))
	assert.NotContains(t, log.String(), token)
	assert.NotContains(t, log.String(), env["CLIENT_SECRET"])
}

func TestServeFaults(t *testing.T) {
	var log lockedBuffer
	env := startServe(t, &log, "-faults", "ok, 401,reset,html,1ms", "-v")
	post := func() int {
		resp, err := http.PostForm(env["TOKEN_URL"], map[string][]string{
			"grant_type": {"client_credentials"}, "client_id": {env["CLIENT_ID"]}, "client_secret": {env["CLIENT_SECRET"]},
		})
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		if !strings.Contains(resp.Header.Get("Content-Type"), "json") {
			return -resp.StatusCode
		}
		return resp.StatusCode
	}
	for range 2 {
		for _, want := range []int{200, 401, 0, -200, 200} {
			assert.Equal(t, want, post())
		}
	}
	assert.Contains(t, log.String(), "POST /token connection broken\n")
}

func TestParseFaults(t *testing.T) {
	faults, ok := parseFaults("429,503,2s")
	assert.True(t, ok)
	assert.Equal(t, []clientcredentialstest.Fault{
		clientcredentialstest.TooManyRequests(time.Second), {Status: 503}, {Delay: 2 * time.Second},
	}, faults)
	for _, text := range []string{"", "ok,", "399", "600", "-1s", "0s", "slow"} {
		_, ok := parseFaults(text)
		assert.False(t, ok, text)
	}
}

func TestServeTakenPort(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	r := cctoken(t, nil, "", "serve", "-port", port)
	assert.Equal(t, statusTemporary, r.status)
	assert.Contains(t, r.stderr, "choose another -port")
	assert.Empty(t, r.stdout)
}

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
)

// startServe runs cctoken serve until the test ends. It returns the variables that serve
// exports, and a function that returns its standard error so far.
func startServe(t *testing.T, args ...string) (env environment, log func() string) {
	t.Helper()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
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
		_ = stderr.Close()
	})
	text, err := io.ReadAll(reader) // A shell reads to the end, too.
	require.NoError(t, err)
	env = environment{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "export "), "=")
		require.True(t, ok, line)
		env[name] = strings.ReplaceAll(strings.Trim(value, "'"), `'\''`, "'")
	}
	return env, func() string {
		text, err := os.ReadFile(stderr.Name())
		require.NoError(t, err)
		return string(text)
	}
}

// callAPI returns the status of the answer of an API.
func callAPI(t *testing.T, address, authorization string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", authorization)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestServe(t *testing.T) {
	env, log := startServe(t, "-client-id", "it's me", "-scopes", "a b", "-lifetime", "90s", "-v")
	require.Equal(t, "it's me", env["CLIENT_ID"])
	another, _ := startServe(t)
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
	doctored(t, env, nil, 0, lines(`ok    client_secret_jwt   works$`, `ok    client_secret_basic works$`, `ok    encoding`, `ok    client_secret_post  works$`, `ok    dpop`))

	token := strings.TrimSpace(cctoken(t, env, "", "token").stdout)
	assert.Equal(t, http.StatusOK, callAPI(t, env["API_URL"]+"reports", "Bearer "+token))
	assert.Equal(t, http.StatusUnauthorized, callAPI(t, env["API_URL"]+"reports", "Bearer another"))
	assert.Equal(t, http.StatusBadRequest, callAPI(t, env["API_URL"]+"reports", "Bearer a token"))
	assert.Equal(t, http.StatusNotFound, callAPI(t, env["ISSUER"]+"/x%0d%0aPOST%20/token%20200", ""))
	assert.Contains(t, log(), "GET /x; POST /token 200 404\n")
	assert.Contains(t, log(), "\nPOST /token 200\n")
	assert.Contains(t, log(), "GET /api/reports 401\n")
	assert.Contains(t, log(), "the client broke a rule: API request 3: RFC 6750, Section 2.1: the token breaks the grammar\n")
	assert.Equal(t, 1, strings.Count(log(), "breaks the grammar"))
	assert.NotContains(t, log(), token)
	assert.NotContains(t, log(), env["CLIENT_SECRET"])
}

func TestServeFaults(t *testing.T) {
	env, log := startServe(t, "-faults", "ok, 429,401,reset,html,1ms", "-v")
	post := func() string {
		resp, err := http.PostForm(env["TOKEN_URL"], map[string][]string{
			"grant_type": {"client_credentials"}, "client_id": {env["CLIENT_ID"]}, "client_secret": {env["CLIENT_SECRET"]},
		})
		if err != nil {
			return "reset"
		}
		defer resp.Body.Close()
		return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Content-Type")[:9])
	}
	for range 2 {
		for _, want := range []string{"200 applicati", "429 applicati", "401 applicati", "reset", "200 text/html", "200 applicati"} {
			assert.Equal(t, want, post())
		}
	}
	assert.Contains(t, log(), "POST /token connection broken\n")
}

func TestParseFaults(t *testing.T) {
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

package main

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

// cachedToken runs token with the cache in a folder.
func cachedToken(t *testing.T, env environment, folder string, args ...string) result {
	t.Helper()
	r := cctoken(t, env, "", append([]string{"token", "-cache", "-cache-dir", folder}, args...)...)
	require.Zero(t, r.status, r.stderr)
	return r
}

// TestC9_Cache checks that later calls print the same token, whatever the form, and that
// calls for other tokens don't.
func TestC9_Cache(t *testing.T) {
	srv := startServer(t)
	folder := filepath.Join(t.TempDir(), "cache")
	first := cachedToken(t, srv.env(), folder)
	token := strings.TrimSpace(first.stdout)
	assert.Equal(t, first, cachedToken(t, srv.env(), folder))
	assert.Equal(t, "Authorization: Bearer "+token+"\n", cachedToken(t, srv.env(), folder, "-header").stdout)
	var response tokenJSON
	require.NoError(t, json.Unmarshal([]byte(cachedToken(t, srv.env(), folder, "-json").stdout), &response))
	assert.Equal(t, token, response.AccessToken)
	assert.Less(t, response.ExpiresIn, int64(3600), "it has lived for a while")
	assert.Greater(t, response.ExpiresIn, int64(3000))
	assert.Equal(t, 1, srv.Auth.TokenRequests())
	assert.Equal(t, token, strings.TrimSpace(cachedToken(t, srv.env().with("CLIENT_SECRET", "wrong"), folder).stdout), "the token is the client's, whatever its secret is now")

	for i, args := range [][]string{
		{"-scopes", "read"},
		{"-scopes", "write"},
		{"-params", "audience=x"},
		{"-cache-dir", filepath.Join(t.TempDir(), "other")},
		{"-cache-key-file", writeFile(t, "key", rand.Text()+rand.Text())},
		{"-cache-key-file", writeFile(t, "key", rand.Text()+rand.Text())},
	} {
		for range 2 {
			other := cachedToken(t, srv.env(), folder, args...)
			assert.NotEqual(t, first, other)
			assert.Equal(t, i+2, srv.Auth.TokenRequests(), args)
		}
	}
	r := cctoken(t, srv.env(), "", "token")
	assert.NotEqual(t, first, r, "without -cache the token is new")
	assert.Equal(t, first, cachedToken(t, srv.env(), folder))
}

// TestC9_CacheSeal checks what is in the files: a token only without a key, and never the
// secret.
func TestC9_CacheSeal(t *testing.T) {
	srv := startServer(t)
	for _, sealed := range []bool{false, true} {
		folder := filepath.Join(t.TempDir(), "cache")
		var args []string
		if sealed {
			args = []string{"-cache-key-file", writeFile(t, "key", rand.Text()+rand.Text())}
		}
		token := strings.TrimSpace(cachedToken(t, srv.env(), folder, args...).stdout)
		content, err := os.ReadFile(cachedFile(t, folder))
		require.NoError(t, err)
		_, text, _ := strings.Cut(string(content), "\n")
		var kept struct{ Record struct{ Data []byte } }
		require.NoError(t, json.Unmarshal([]byte(text), &kept))
		var response struct{ Body []byte }
		assert.Equal(t, sealed, json.Unmarshal(kept.Record.Data, &response) != nil)
		assert.Equal(t, sealed, !strings.Contains(string(response.Body), token))
		for _, text := range []string{string(content), string(kept.Record.Data), string(response.Body)} {
			assert.Empty(t, hostile.Find(text, canarySecret))
		}
	}
}

// TestC9_CacheMasks checks that a secret which the server repeats is masked, also if the
// answer comes from the cache.
func TestC9_CacheMasks(t *testing.T) {
	scope, err := json.Marshal("read " + plainSecret)
	require.NoError(t, err)
	s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"Bearer","scope":`+string(scope)+`}`))
	env := clientOf(s.URL+"/token").with("CLIENT_SECRET", plainSecret, "AUTH_METHOD", secretPost)
	folder := filepath.Join(t.TempDir(), "cache")
	for range 2 {
		r := cachedToken(t, env, folder, "-json")
		assert.Contains(t, r.stdout, `"scope": "read [redacted]"`)
		assert.Empty(t, hostile.Find(r.stdout, plainSecret))
	}
	assert.Len(t, s.Requests(), 1)
}

// cachedFile returns the file of the only token in the cache.
func cachedFile(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, strings.Repeat("[0-9a-f]", 64)))
	require.NoError(t, err)
	require.Len(t, files, 1)
	return files[0]
}

// TestC9_CacheIsNotUsed checks that a token is printed whatever the state of the cache is,
// with a warning.
func TestC9_CacheIsNotUsed(t *testing.T) {
	srv := startServer(t)
	file := func(folder string) string {
		cachedToken(t, srv.env(), folder)
		return cachedFile(t, folder)
	}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, folder string)
		warning string
		heals   bool // the next call uses the cache again
	}{
		{"a folder that others can use", func(t *testing.T, folder string) {
			require.NoError(t, os.Mkdir(folder, 0o700))
			require.NoError(t, os.Chmod(folder, 0o755))
		}, "make it private with chmod 700; -cache-dir names another folder", false},
		{"a folder that can't be created", func(t *testing.T, folder string) {
			require.NoError(t, os.WriteFile(folder, nil, 0o600))
		}, "the folder of the cache can't be created", false},
		{"a file that can't be written", func(t *testing.T, folder string) {
			path := file(folder)
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.MkdirAll(filepath.Join(path+".new", "full"), 0o700))
		}, "the token can't be cached", false},
		{"a file that was cut off", func(t *testing.T, folder string) {
			require.NoError(t, os.Truncate(file(folder), 100))
		}, "is ignored and replaced: it is damaged", true},
		{"a file that others can read", func(t *testing.T, folder string) {
			require.NoError(t, os.Chmod(file(folder), 0o644))
		}, "is ignored and replaced: it can be read by others", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "cache")
			tt.prepare(t, folder)
			before := srv.Auth.TokenRequests()
			r := cachedToken(t, srv.env(), folder)
			assert.NotEmpty(t, r.stdout)
			assert.Equal(t, 1, strings.Count(r.stderr, "\n"), r.stderr)
			assert.Contains(t, r.stderr, "cctoken token: warning: the ")
			assert.Contains(t, r.stderr, tt.warning)
			assert.Equal(t, before+1, srv.Auth.TokenRequests())
			if tt.heals {
				again := cachedToken(t, srv.env(), folder)
				assert.Equal(t, result{stdout: r.stdout}, again)
			}
		})
	}
}

// TestC9_CacheFolder checks where the cache is without -cache-dir.
func TestC9_CacheFolder(t *testing.T) {
	srv := startServer(t)
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "LocalAppData"} {
		t.Setenv(name, home)
	}
	parent, err := os.UserCacheDir()
	require.NoError(t, err)
	require.Contains(t, parent, home)
	for range 2 {
		require.Empty(t, cctoken(t, srv.env(), "", "token", "-cache").stderr)
	}
	assert.Equal(t, 1, srv.Auth.TokenRequests())
	assert.DirExists(t, filepath.Join(parent, "cctoken"))
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "LocalAppData"} {
		t.Setenv(name, "")
	}
	r := cctoken(t, srv.env(), "", "token", "-cache")
	assert.Zero(t, r.status)
	assert.NotEmpty(t, r.stdout)
	assert.Contains(t, r.stderr, "so the token isn't cached")
	assert.Contains(t, r.stderr, "give -cache-dir")
}

// TestC9_Renew checks that -renew drops the token in the cache, once in a while.
func TestC9_Renew(t *testing.T) {
	srv := startServer(t)
	folder := filepath.Join(t.TempDir(), "cache")
	first := cachedToken(t, srv.env(), folder, "-renew")
	assert.Equal(t, 1, srv.Auth.TokenRequests(), "there was none to drop")
	second := cachedToken(t, srv.env(), folder, "-renew")
	assert.NotEqual(t, first, second)
	assert.Empty(t, second.stderr)
	assert.Equal(t, second, cachedToken(t, srv.env(), folder))
	third := cachedToken(t, srv.env(), folder, "-renew")
	assert.Equal(t, second.stdout, third.stdout)
	assert.Equal(t, "cctoken token: warning: the token was renewed less than 30 seconds ago, so it isn't renewed again; if the API rejects this one, too, ask its operator why\n", third.stderr)
	assert.Equal(t, 2, srv.Auth.TokenRequests())
}

// TestC9_ShortLife checks that a token isn't printed again when it is about to expire.
func TestC9_ShortLife(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"Bearer","expires_in":2}`))
	env := clientOf(s.URL+"/token").with("AUTH_METHOD", secretBasic)
	require.Eventually(t, func() bool {
		cachedToken(t, env, folder)
		return len(s.Requests()) == 2
	}, time.Minute, 50*time.Millisecond)
}

// TestC9_Refused checks that a refusal which asks for a pause holds for the next call, too,
// and that another one doesn't keep the next call waiting.
func TestC9_Refused(t *testing.T) {
	for _, tt := range []struct {
		name     string
		answer   http.Handler
		status   int
		requests int // of two calls
	}{
		{"a pause", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Retry-After", "60")
			hostile.JSON(429, `{}`).ServeHTTP(w, req)
		}), statusTemporary, 1},
		{"wrong credentials", hostile.JSON(401, `{"error":"invalid_client"}`), statusRefused, 2},
		{"a web page", hostile.Text(200, "text/html", "<h1>Log in"), statusUnusable, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := hostile.Start(t, tt.answer)
			folder := filepath.Join(t.TempDir(), "cache")
			start := time.Now()
			for range 2 {
				r := cctoken(t, clientOf(s.URL+"/token"), "", "token", "-auth-method", secretPost, "-cache", "-cache-dir", folder)
				assert.Equal(t, tt.status, r.status, r.stderr)
				assert.Empty(t, r.stdout)
			}
			assert.Len(t, s.Requests(), tt.requests)
			assert.Less(t, time.Since(start), 4*time.Second, "the second call has waited for the end of a lease")
		})
	}
}

// TestC9_CacheAndSettings checks what can't be cached, and that nothing is sent then.
func TestC9_CacheAndSettings(t *testing.T) {
	configured := clientOf("http://127.0.0.1:1/token")
	for _, tt := range []struct {
		env  environment
		args string
		want string
	}{
		{configured, "-renew", "give -cache, too"},
		{configured, "-cache-dir x", "give -cache, too"},
		{configured, "-cache-key-file x", "give -cache, too"},
		{configured, "-cache -cache-key-file missing", "-cache-key-file: open missing"},
		{configured, "-cache -cache-key-file " + writeFile(t, "key", "too short"), "must have 32 random bytes or more"},
		{configured, "-cache -cache-key-file " + writeFile(t, "key", strings.Repeat("a", 32)), "must have 32 random bytes or more"},
		{environment{"TOKEN_URL": "http://127.0.0.1:1", "ASSERTION_FILE": writeFile(t, "a", "x")}, "-cache", "give -client-id"},
		{configured, "-cache -params pass=x", "-params contains a parameter with the name of a secret"},
	} {
		r := cctoken(t, tt.env, "", append([]string{"token"}, strings.Fields(tt.args)...)...)
		assert.Equal(t, statusUsage, r.status, tt.args)
		assert.Contains(t, r.stderr, tt.want)
	}
}

// TestC9_BoundTokens checks that tokens for other keys aren't printed.
func TestC9_BoundTokens(t *testing.T) {
	srv := startServer(t, clientcredentialstest.Client{ID: canaryID, Secret: canarySecret})
	folder := filepath.Join(t.TempDir(), "cache")
	_, one := newKeyFile(t)
	_, two := newKeyFile(t)
	tokens := make(map[string]bool)
	for _, args := range [][]string{nil, {"-dpop-key-file", one}, {"-dpop-key-file", two}} {
		for range 2 {
			tokens[cachedToken(t, srv.env(), folder, args...).stdout] = true
		}
	}
	assert.Len(t, tokens, 3)
	assert.Equal(t, 3, srv.Auth.TokenRequests())
}

package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

// TestL12_GrantedScope has a server write into the scope whatever it likes.
func TestL12_GrantedScope(t *testing.T) {
	t.Parallel()
	_, keyFile := newKeyFile(t)
	for _, tt := range []struct {
		name    string
		scope   func(req *http.Request) string
		args    []string
		absent  string
		present string
	}{
		{"the secret", func(*http.Request) string { return "read " + canarySecret }, nil, canarySecret, "[redacted]"},
		{"the request", hostile.Dump, []string{"-auth-method", secretPost}, canarySecret, "[redacted]"},
		{"the header", func(req *http.Request) string { return strings.TrimRight(req.Header.Get("Authorization"), "=") }, nil, canarySecret, "Basic"},
		{"an assertion", hostile.Dump, []string{"-auth-method", privateKeyJWT, "-key-file", keyFile}, "client_assertion=ey", "[redacted]"},
		{"the token", func(*http.Request) string { return "read " + canaryToken }, nil, "scope\": \"read " + canaryToken, "[redacted]"},
		{"control characters", func(*http.Request) string { return "re\x1b[2Jad\u202e\x07" }, nil, "\x1b", "ad"},
		{"a line end", func(*http.Request) string { return "read\nok    fake" }, nil, "\nok    fake", "read"},
		{"70 kB", func(*http.Request) string { return strings.Repeat("scope ", 12_000) }, nil, strings.Repeat("scope ", 700), "scope"},
		{"a requested scope that is the secret", func(*http.Request) string { return "read write" }, []string{"-scopes", "read write"}, "[redacted]", "read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				text, err := json.Marshal(map[string]any{"access_token": canaryToken, "token_type": "Bearer", "expires_in": 3600, "scope": tt.scope(req)})
				assert.NoError(t, err)
				if req.Header.Get("Authorization") == "" && !strings.Contains(hostile.Dump(req), "client_") {
					hostile.JSON(401, `{"error":"invalid_client"}`).ServeHTTP(w, req)
					return
				}
				hostile.JSON(200, string(text)).ServeHTTP(w, req)
			}))
			env := clientOf(s.URL + "/token")
			if tt.absent == "[redacted]" {
				env = env.with("CLIENT_SECRET", "read")
			}
			r := cctoken(t, env, "", append([]string{"token", "-json"}, tt.args...)...)
			require.Equal(t, 0, r.status, r.stderr)
			var printed tokenJSON
			require.NoError(t, json.Unmarshal([]byte(r.stdout), &printed))
			assert.Empty(t, hostile.Find(r.stdout, canarySecret))
			assert.Contains(t, printed.Scope, tt.present)
			assert.NotContains(t, r.stdout, tt.absent)
			assert.NotContains(t, printed.Scope, tt.absent)
			assert.LessOrEqual(t, len(printed.Scope), maxSaid)

			r = cctoken(t, env, "", append([]string{"doctor"}, tt.args...)...)
			assert.Regexp(t, lines(`(note|ok|warn)  +scope +`), r.stdout)
			assert.Contains(t, r.stdout, tt.present)
			assert.NotContains(t, r.stdout, tt.absent)
			for line := range strings.Lines(r.stdout) {
				assert.LessOrEqual(t, len(line), maxListed+200)
			}
		})
	}
}

// TestL12_Claims has a server write into the claims of the token whatever it likes.
func TestL12_Claims(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("A", maxListed-10)
	for _, claims := range []string{
		`{"aud":"SECRET"}`,
		`{"aud":"` + long + `SECRET"}`,
		`{"cnf":{"jkt":"SECRET` + long + long + `"}}`,
		`{"cnf":{"jkt":["` + long + `SECRET"]}}`,
		`{"cnf":{"x5t#S256":"SECRET\nok    fake"}}`,
		`{"cnf":{"SECRET":1,"` + long + long + `":2}}`,
	} {
		body := `{"access_token":"` + unsigned(`{"alg":"RS256"}`, strings.ReplaceAll(claims, "SECRET", plainSecret)) + `","token_type":"Bearer"}`
		s := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") == "" {
				hostile.JSON(401, `{"error":"invalid_client"}`).ServeHTTP(w, req)
				return
			}
			hostile.JSON(200, body).ServeHTTP(w, req)
		}))
		r := cctoken(t, clientOf(s.URL+"/token").with("CLIENT_SECRET", plainSecret), "", "doctor")
		assert.Contains(t, r.stdout, "; binding: ")
		assert.NotContains(t, r.stdout, canarySecret[:8], claims)
		assert.NotContains(t, r.stdout, "\nok    fake")
		for line := range strings.Lines(r.stdout) {
			assert.LessOrEqual(t, len(line), 2*maxListed+200)
		}
	}
}

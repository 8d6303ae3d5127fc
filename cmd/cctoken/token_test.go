package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

func TestToken(t *testing.T) {
	srv := startServer(t)
	r := cctoken(t, srv.env(), "", "token")
	require.Zero(t, r.status, r.stderr)
	assert.Empty(t, r.stderr)
	accessToken := strings.TrimSuffix(r.stdout, "\n")
	got, valid := srv.Auth.Introspect(accessToken)
	assert.True(t, valid)
	assert.Equal(t, canaryID, got.ClientID)

	t.Run("header", func(t *testing.T) {
		r := cctoken(t, srv.env(), "", "token", "-header")
		name, value, _ := strings.Cut(strings.TrimSuffix(r.stdout, "\n"), ": ")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.APIURL, nil)
		require.NoError(t, err)
		req.Header.Set(name, value)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_ = resp.Body.Close()
		assert.Equal(t, http.StatusOK, resp.StatusCode)
	})
	t.Run("json", func(t *testing.T) {
		r := cctoken(t, srv.env(), "", "token", "-json", "-scopes", "read", "-params", "audience=https://api.example&resource=urn:x")
		var response struct {
			AccessToken string    `json:"access_token"`
			TokenType   string    `json:"token_type"`
			ExpiresIn   int       `json:"expires_in"`
			Expiry      time.Time `json:"expiry"`
			Scope       string    `json:"scope"`
		}
		decoder := json.NewDecoder(strings.NewReader(r.stdout))
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(&response))
		got, _ := srv.Auth.Introspect(response.AccessToken)
		assert.Equal(t, []string{"urn:x", "https://api.example"}, got.Audience)
		assert.Equal(t, "Bearer", response.TokenType)
		assert.Equal(t, 3600, response.ExpiresIn)
		assert.WithinDuration(t, got.Expiry, response.Expiry, time.Minute)
		assert.Equal(t, "read", response.Scope)
	})
	t.Run("a scope that the server doesn't repeat", func(t *testing.T) {
		s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"bearer"}`))
		env := srv.env()
		env["TOKEN_URL"] = s.URL + "/token"
		r := cctoken(t, env, "", "token", "-json", "-scopes", " a  b ")
		assert.JSONEq(t, `{"access_token":"x","token_type":"Bearer","scope":"a b"}`, r.stdout)
	})
}

// TestTokenStatus: what the server does, and the exit status.
func TestTokenStatus(t *testing.T) {
	t.Parallel()
	refusal := hostile.JSON
	tests := []struct {
		name   string
		answer http.Handler
		status int
		want   string
	}{
		{"invalid_client", refusal(401, `{"error":"invalid_client","error_description":"Bad\u001b[2J client"}`), statusRefused, `refused with invalid_client (status 401), saying "Bad`},
		{"invalid_scope", refusal(400, `{"error":"invalid_scope"}`), statusRefused, "check -scopes"},
		{"invalid_target", refusal(400, `{"error":"invalid_target"}`), statusRefused, "check resource and audience in -params"},
		{"unauthorized_client", refusal(400, `{"error":"unauthorized_client"}`), statusRefused, "client_credentials grant"},
		{"no OAuth error", hostile.Text(403, "text/html", "<h1>Forbidden"), statusRefused, "answered 403 and no OAuth error"},
		{"not found", hostile.Text(404, "text/html", "<h1>Where?"), statusRefused, "check that the token URL is that of a token endpoint"},
		{"too many requests", refusal(429, `{}`), statusTemporary, "the server asks for it"},
		{"unavailable", refusal(503, `{"error":"temporarily_unavailable"}`), statusTemporary, "try again later"},
		{"reset", hostile.Reset(), statusTemporary, "/token"},
		{"no HTTP", hostile.Raw(func(*http.Request) string { return "SSH-2.0\r\n\r\n" }), statusTemporary, "malformed HTTP"},
		{"a page", hostile.Text(200, "text/html", "<h1>Log in"), statusUnusable, "the body looks like HTML"},
		{"a redirect", hostile.Redirect(307, "https://elsewhere.example/token"), statusUnusable, "the token endpoint answered 307, a redirect to https://elsewhere.example:443, which is not followed; set TokenURL to the endpoint's final address\n"},
		{"no token", refusal(200, `{}`), statusUnusable, "missing access_token"},
		{"a page that repeats the request", hostile.Echo(400), statusRefused, "answered 400"},
		{"a description that does", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			description, _ := json.Marshal(hostile.Dump(req))
			refusal(400, `{"error":"invalid_client","error_description":`+string(description)+`}`).ServeHTTP(w, req)
		}), statusRefused, "[redacted]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := hostile.Start(t, tt.answer)
			env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": s.URL + "/token"}
			r := cctoken(t, env, "", "token", "-auth-method", secretPost)
			assert.Equal(t, tt.status, r.status, r.stderr)
			assert.Contains(t, r.stderr, tt.want)
			assert.NotContains(t, r.stderr, "\x1b")
			assert.Empty(t, r.stdout)
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		// No test can get hold of this port.
		env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": "http://127.0.0.1:1/token"}
		r := cctoken(t, env, "", "token")
		assert.Equal(t, statusTemporary, r.status)
		assert.Contains(t, r.stderr, "check host and port of the address")
	})
	t.Run("no answer in time", func(t *testing.T) {
		srv := startServer(t)
		srv.Auth.Latency = time.Hour
		r := cctoken(t, srv.env(), "", "token", "-timeout", "50ms")
		assert.Equal(t, statusTemporary, r.status)
		assert.Contains(t, r.stderr, "it took longer than -timeout 50ms")
	})
	t.Run("a certificate of nobody known", func(t *testing.T) {
		srv := clientcredentialstest.NewTLSServer()
		defer srv.Close()
		env := environment{"CLIENT_ID": "client", "CLIENT_SECRET": "secret", "TOKEN_URL": srv.TokenURL}
		r := cctoken(t, env, "", "token")
		assert.Equal(t, statusUnusable, r.status)
		assert.Contains(t, r.stderr, "-ca-file")
		assert.Zero(t, srv.Auth.TokenRequests())

		r = cctoken(t, env, "", "token", "-ca-file", writeAuthority(t, srv))
		assert.Zero(t, r.status, r.stderr)
	})
	t.Run("no certificate", func(t *testing.T) {
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
		srv.StartTLS()
		defer srv.Close()
		authority := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
		env := environment{"CLIENT_ID": "client", "CLIENT_SECRET": "secret", "TOKEN_URL": srv.URL + "/token", "CA_FILE": authority}
		r := cctoken(t, env, "", "token")
		assert.Equal(t, statusUnusable, r.status)
		assert.Contains(t, r.stderr, "the server may want a client certificate")
	})
	t.Run("http where https is spoken", func(t *testing.T) {
		srv := startServer(t)
		env := srv.env()
		env["TOKEN_URL"] = strings.Replace(srv.TokenURL, "http:", "https:", 1)
		r := cctoken(t, env, "", "token")
		assert.Equal(t, statusUnusable, r.status)
		assert.Contains(t, r.stderr, "server gave HTTP response to HTTPS client; check scheme and port of the address")
	})
}

func TestTokenInCleartext(t *testing.T) {
	var stderr bytes.Buffer
	env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": "http://token.invalid/token"}
	status := run(t.Context(), []string{"token", "-timeout", "1ms"}, env.get, strings.NewReader(""), new(bytes.Buffer), &stderr)
	assert.Equal(t, statusTemporary, status)
	assert.Contains(t, stderr.String(), "cctoken token: warning: the token URL is http")
}

// TestTokenFromIssuer: the token endpoint, and the form of the secret, are in the
// metadata.
func TestTokenFromIssuer(t *testing.T) {
	metadata := func(methods string) (*httptest.Server, testServer) {
		srv := startServer(t)
		var issuer *httptest.Server
		issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			hostile.JSON(200, `{"issuer":"`+issuer.URL+`","token_endpoint":"`+srv.TokenURL+`","token_endpoint_auth_methods_supported":`+methods+`}`).ServeHTTP(w, nil)
		}))
		t.Cleanup(issuer.Close)
		return issuer, srv
	}
	for _, tt := range []struct{ name, methods, asked, used string }{
		{"header", `["client_secret_post","client_secret_basic"]`, "", secretBasic},
		{"body", `["client_secret_post"]`, "", secretPost},
		{"asked for", `["client_secret_post"]`, secretBasic, secretBasic},
	} {
		t.Run(tt.name, func(t *testing.T) {
			issuer, srv := metadata(tt.methods)
			env := srv.env()
			delete(env, "TOKEN_URL")
			r := cctoken(t, env, "", "token", "-issuer", issuer.URL, "-auth-method", tt.asked)
			require.Zero(t, r.status, r.stderr)
			requests := srv.Auth.Requests()
			require.Len(t, requests, 1)
			assert.Equal(t, tt.used, requests[0].AuthMethod)
		})
	}
	t.Run("neither", func(t *testing.T) {
		issuer, srv := metadata(`["private_key_jwt"]`)
		env := srv.env()
		delete(env, "TOKEN_URL")
		r := cctoken(t, env, "", "token", "-issuer", issuer.URL)
		assert.Equal(t, statusUnusable, r.status)
		assert.Contains(t, r.stderr, "clients authenticate to the server by")
		assert.Zero(t, srv.Auth.TokenRequests())
	})
	t.Run("no metadata", func(t *testing.T) {
		for status, want := range map[int]int{404: statusUnusable, 503: statusTemporary} {
			s := hostile.Start(t, hostile.Text(status, "text/plain", "no"))
			env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "ISSUER": s.URL}
			r := cctoken(t, env, "", "token")
			assert.Equal(t, want, r.status, r.stderr)
			assert.Empty(t, s.Find(canarySecret))
		}
	})
}

// TestPrecedence: a flag comes before the environment, and that before the file.
func TestPrecedence(t *testing.T) {
	srv := startServer(t,
		clientcredentialstest.Client{ID: "of the file", Secret: "secret of the file"},
		clientcredentialstest.Client{ID: "of the environment", Secret: canarySecret},
		clientcredentialstest.Client{ID: "of the flags", Secret: "secret of the flags"},
	)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	write("secret", "secret of the file\n")
	flagSecret := write("flag-secret", "secret of the flags\n")
	file := write("cctoken.json", `{"token_url":"`+srv.TokenURL+`","client_id":"of the file","secret_file":"secret","scopes":"file","auth_method":"client_secret_post"}`)

	tests := []struct {
		name          string
		env           environment
		args          []string
		client, scope string
		method        string
	}{
		{name: "file", client: "of the file", scope: "file", method: secretPost},
		{name: "environment", env: environment{"CLIENT_ID": "of the environment", "CLIENT_SECRET": canarySecret, "SCOPES": "environment"}, client: "of the environment", scope: "environment", method: secretPost},
		{name: "an empty variable", env: environment{"SCOPES": ""}, client: "of the file", scope: "file", method: secretPost},
		{name: "flags", env: environment{"CLIENT_ID": "of the environment", "CLIENT_SECRET": canarySecret, "SCOPES": "environment"}, args: []string{"-client-id", "of the flags", "-secret-file", flagSecret, "-scopes", "flag", "-auth-method", secretBasic}, client: "of the flags", scope: "flag", method: secretBasic},
		{name: "an empty flag", args: []string{"-scopes", "", "-auth-method="}, client: "of the file", method: secretBasic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := cctoken(t, tt.env, "", append([]string{"token", "-config", file}, tt.args...)...)
			require.Zero(t, r.status, r.stderr)
			token, _ := srv.Auth.Introspect(strings.TrimSpace(r.stdout))
			assert.Equal(t, tt.client, token.ClientID)
			assert.Equal(t, tt.scope, strings.Join(token.Scopes, " "))
			requests := srv.Auth.Requests()
			assert.Equal(t, tt.method, requests[len(requests)-1].AuthMethod)
		})
	}
}

// TestTokenByMethod: each sort of credential gets a token, by the method that goes with
// it.
func TestTokenByMethod(t *testing.T) {
	key, keyFile := newKeyFile(t)
	selfSigned, _, selfSignedFile, selfSignedKeyFile := newCertificate(t, nil, nil, time.Hour)
	authority, authorityKey, _, _ := newCertificate(t, nil, nil, time.Hour)
	issued, _, issuedFile, issuedKeyFile := newCertificate(t, authority, authorityKey, time.Hour)
	srv := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
		ID: canaryID, Secret: canarySecret, PublicKeys: []crypto.PublicKey{key.Public()}, Certificates: []*x509.Certificate{selfSigned, issued},
	})
	defer srv.Close()
	base := environment{"CLIENT_ID": canaryID, "TOKEN_URL": srv.TokenURL, "CA_FILE": writeAuthority(t, srv)}

	tests := []struct {
		name string
		env  environment
		used string
	}{
		{"a secret", environment{"CLIENT_SECRET": canarySecret}, secretBasic},
		{"a secret, in the body", environment{"CLIENT_SECRET": canarySecret, "AUTH_METHOD": secretPost}, secretPost},
		{"a secret, signing", environment{"CLIENT_SECRET": canarySecret, "AUTH_METHOD": secretJWT}, secretJWT},
		{"a key", environment{"KEY_FILE": keyFile}, privateKeyJWT},
		{"a key for another audience", environment{"KEY_FILE": keyFile, "ISSUER": "https://login.example", "ASSERTION_AUDIENCE": srv.TokenURL}, privateKeyJWT},
		{"a certificate", environment{"CERT_FILE": issuedFile, "KEY_FILE": issuedKeyFile}, tlsAuth},
		{"a certificate of one's own", environment{"CERT_FILE": selfSignedFile, "KEY_FILE": selfSignedKeyFile}, selfSignedTLS},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := maps.Clone(base)
			maps.Copy(env, tt.env)
			r := cctoken(t, env, "", "token")
			require.Zero(t, r.status, r.stderr)
			requests := srv.Auth.Requests()
			assert.Equal(t, tt.used, requests[len(requests)-1].AuthMethod)
		})
	}
	t.Run("DPoP", func(t *testing.T) {
		env := maps.Clone(base)
		maps.Copy(env, environment{"CLIENT_SECRET": canarySecret, "DPOP_KEY_FILE": keyFile})
		r := cctoken(t, env, "", "token", "-json")
		require.Zero(t, r.status, r.stderr)
		assert.Contains(t, r.stdout, `"token_type": "DPoP"`)
	})
	assertion := unsigned(`{"alg":"ES256"}`, `{"sub":"workload"}`)
	for method, typ := range map[string]string{"": clientauth.TypeJWTBearer, spiffeJWT: clientauth.TypeJWTSPIFFE} {
		t.Run("an assertion "+method, func(t *testing.T) {
			s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"Bearer"}`))
			env := environment{"TOKEN_URL": s.URL, "ASSERTION_FILE": writeFile(t, "assertion", assertion+"\n"), "AUTH_METHOD": method}
			r := cctoken(t, env, "", "token")
			require.Zero(t, r.status, r.stderr)
			form, err := url.ParseQuery(s.Requests()[0].Body)
			require.NoError(t, err)
			assert.Equal(t, assertion, form.Get("client_assertion"))
			assert.Equal(t, typ, form.Get("client_assertion_type"))
			assert.False(t, form.Has("client_id"))
		})
	}
}

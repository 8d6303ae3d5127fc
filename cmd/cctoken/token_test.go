package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

func TestToken(t *testing.T) {
	srv := startServer(t)
	r := cctoken(t, srv.env(), "", "token")
	require.Zero(t, r.status, r.stderr)
	assert.Empty(t, r.stderr)
	got, valid := srv.Auth.Introspect(strings.TrimSuffix(r.stdout, "\n"))
	assert.True(t, valid)
	assert.Equal(t, canaryID, got.ClientID)

	t.Run("header", func(t *testing.T) {
		r := cctoken(t, srv.env(), "", "token", "-header")
		authorization, found := strings.CutPrefix(strings.TrimSuffix(r.stdout, "\n"), "Authorization: ")
		assert.True(t, found)
		assert.Equal(t, http.StatusOK, callAPI(t, srv.APIURL, authorization))
	})
	t.Run("json", func(t *testing.T) {
		r := cctoken(t, srv.env(), "", "token", "-json", "-scopes", "read", "-params", "audience=https://api.example&resource=urn:x")
		var response tokenJSON
		decoder := json.NewDecoder(strings.NewReader(r.stdout))
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(&response))
		got, _ := srv.Auth.Introspect(response.AccessToken)
		assert.Equal(t, []string{"urn:x", "https://api.example"}, got.Audience)
		assert.WithinDuration(t, got.Expiry, *response.Expiry, time.Minute)
		for _, member := range []string{`"access_token": "`, `"token_type": "Bearer"`, `"expires_in": 3600`, `"expiry": "20`, `"scope": "read"`} {
			assert.Contains(t, r.stdout, member)
		}
	})
	t.Run("a scope that the server leaves out", func(t *testing.T) {
		s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"bearer"}`))
		r := cctoken(t, clientOf(s.URL+"/token"), "", "token", "-json", "-scopes", " a  b ")
		assert.JSONEq(t, `{"access_token":"x","token_type":"Bearer","scope":"a b"}`, r.stdout)
	})
}

func TestTokenStatus(t *testing.T) {
	t.Parallel()
	refusal := hostile.JSON
	for _, tt := range []struct {
		name   string
		answer http.Handler
		status int
		want   string
	}{
		{"invalid_client", refusal(401, `{"error":"invalid_client","error_description":"Bad\u001b[2J client"}`), statusRefused, `refused with invalid_client (status 401), saying "Bad`},
		{"invalid_scope", refusal(400, `{"error":"invalid_scope"}`), statusRefused, "give -scopes"},
		{"invalid_target", refusal(400, `{"error":"invalid_target"}`), statusRefused, "as in -params audience="},
		{"unauthorized_client", refusal(400, `{"error":"unauthorized_client"}`), statusRefused, "client_credentials grant"},
		{"not found", hostile.Text(404, "text/html", "<h1>Where?"), statusUnusable, "change -token-url: it isn't the address of a token endpoint"},
		{"unavailable", refusal(503, `{"error":"temporarily_unavailable"}`), statusTemporary, "try again later"},
		{"too many requests", refusal(429, `{}`), statusTemporary, "the server asks for it"},
		{"reset", hostile.Reset(), statusTemporary, "/token"},
		{"a page", hostile.Text(200, "text/html", "<h1>Log in"), statusUnusable, "the body looks like HTML"},
		{"a redirect", hostile.Redirect(307, "https://elsewhere.example/token"), statusUnusable, "the token endpoint answered 307, a redirect to https://elsewhere.example:443, which is not followed; set TokenURL to the endpoint's final address\n"},
		{"no token", refusal(200, `{}`), statusUnusable, "missing access_token"},
		{"a description that repeats the request", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			description, _ := json.Marshal(hostile.Dump(req))
			refusal(400, `{"error":"invalid_client","error_description":`+string(description)+`}`).ServeHTTP(w, req)
		}), statusRefused, "[redacted]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := hostile.Start(t, tt.answer)
			r := cctoken(t, clientOf(s.URL+"/token"), "", "token", "-auth-method", secretPost)
			assert.Equal(t, tt.status, r.status, r.stderr)
			assert.Contains(t, r.stderr, tt.want)
			assert.NotContains(t, r.stderr, "\x1b")
			assert.Empty(t, r.stdout)
		})
	}
}

// TestNoAnswer checks what token and doctor say if there is no answer.
func TestNoAnswer(t *testing.T) {
	slow, secure := startServer(t), startTLSServer(t)
	slow.Auth.Latency = time.Hour
	upgrade := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusSwitchingProtocols)
		assert.NoError(t, http.NewResponseController(w).Flush())
		<-t.Context().Done() // After 101 what follows isn't HTTP, and may never come.
	}))
	tests := []struct {
		name   string
		env    environment
		args   []string
		status int
		want   string
	}{
		{"nobody listens", clientOf("http://127.0.0.1:1/token"), nil, statusTemporary, "check the host and the port of the address"}, // No test can get this port.
		{"timeout", slow.env(), []string{"-timeout", "50ms"}, statusTemporary, "it took longer than -timeout 50ms"},
		{"101 and then nothing", clientOf(upgrade.URL + "/token"), []string{"-timeout", "30s"}, statusRefused, "101 without an OAuth error"},
		{"an unknown authority", secure.env(), nil, statusUnusable, "-ca-file"},
		{"no client certificate", startCertificateServer(t, http.NotFoundHandler()), nil, statusUnusable, "the server may require a client certificate"},
		{"https to a server for http", clientOf(strings.Replace(slow.TokenURL, "http:", "https:", 1)), nil, statusUnusable, "server gave HTTP response to HTTPS client; check the scheme and the port of the address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, command := range []string{"token", "doctor"} {
				r := cctoken(t, tt.env, "", append([]string{command}, tt.args...)...)
				assert.Equal(t, tt.status, r.status, command)
				assert.Contains(t, r.stdout+r.stderr, tt.want)
			}
		})
	}
	assert.Zero(t, secure.Auth.TokenRequests())
}

func TestTokenInCleartext(t *testing.T) {
	var stderr bytes.Buffer
	run(t.Context(), []string{"token", "-timeout", "1ms"}, clientOf("http://token.invalid/token").get, nil, io.Discard, &stderr)
	assert.Contains(t, stderr.String(), "cctoken token: warning: the token URL is http")
}

// TestD6_TokenFromIssuer checks that the metadata decides on the token endpoint and on how
// the secret is sent, unless it lists neither way or the user asks for one.
func TestD6_TokenFromIssuer(t *testing.T) {
	srv := startServer(t)
	request := func(wanted string, methods ...string) result {
		issuer := srv.withMetadata(t, func(m *clientcredentials.ServerMetadata) { m.TokenEndpointAuthMethodsSupported = methods })
		return cctoken(t, srv.env().with("TOKEN_URL", ""), "", "token", "-issuer", issuer, "-auth-method", wanted)
	}
	for _, tt := range []struct{ wanted, listed, used string }{
		{"", secretPost, secretPost},
		{"", privateKeyJWT, secretBasic},
		{"", "none", secretBasic},
		{secretBasic, secretPost, secretBasic},
	} {
		r := request(tt.wanted, tt.listed)
		assert.Zero(t, r.status, r.stderr)
		requests := srv.Auth.Requests()
		assert.Equal(t, tt.used, requests[len(requests)-1].AuthMethod, tt.listed)
	}

	for status, want := range map[int]int{404: statusUnusable, 503: statusTemporary} {
		s := hostile.Start(t, hostile.Text(status, "text/plain", "no"))
		r := cctoken(t, clientOf("").with("ISSUER", s.URL), "", "token")
		assert.Equal(t, want, r.status, r.stderr)
		assert.Regexp(t, `cannot discover .*/openid-configuration answered \d+; .*, or set TokenURL instead$`, strings.TrimSpace(r.stderr))
		assert.Empty(t, s.Find(canarySecret))
	}
}

// TestPrecedence checks that a flag wins over the environment, and the environment over
// the file.
func TestPrecedence(t *testing.T) {
	srv := startServer(t,
		clientcredentialstest.Client{ID: "of the file", Secret: "secret of the file"},
		clientcredentialstest.Client{ID: "of the environment", Secret: canarySecret},
		clientcredentialstest.Client{ID: "of the flags", Secret: "secret of the flags"},
	)
	file := writeFile(t, "cctoken.json", `{"token_url":"`+srv.TokenURL+`","client_id":"of the file","secret_file":"secret","scopes":"file","auth_method":"client_secret_post"}`)
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "secret"), []byte("secret of the file\n"), 0o600))
	ofEnvironment := environment{"CLIENT_ID": "of the environment", "CLIENT_SECRET": canarySecret, "SCOPES": "environment"}
	tests := []struct {
		name                  string
		env                   environment
		args                  []string
		client, scope, method string
	}{
		{"file", nil, nil, "of the file", "file", secretPost},
		{"environment", ofEnvironment, nil, "of the environment", "environment", secretPost},
		{"flags", ofEnvironment, []string{"-client-id", "of the flags", "-secret-file", writeFile(t, "secret", "secret of the flags\n"), "-scopes", "flag", "-auth-method", secretBasic}, "of the flags", "flag", secretBasic},
		{"an empty flag", nil, []string{"-scopes", "", "-auth-method="}, "of the file", "", secretBasic},
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

// TestTokenByMethod gets a token with each kind of credential, by the method that goes
// with it.
func TestTokenByMethod(t *testing.T) {
	key, keyFile := newKeyFile(t)
	selfSigned := newCertificate(t, nil, time.Hour)
	issued := newCertificate(t, selfSigned, time.Hour)
	srv := startTLSServer(t, clientcredentialstest.Client{
		ID: canaryID, Secret: canarySecret, PublicKeys: []crypto.PublicKey{key.Public()}, Certificates: []*x509.Certificate{selfSigned.Leaf, issued.Leaf},
	})
	base := environment{"CLIENT_ID": canaryID, "TOKEN_URL": srv.TokenURL, "CA_FILE": srv.authority(t)}
	tests := []struct {
		name      string
		variables []string
		used      string
	}{
		{"a secret that signs", []string{"CLIENT_SECRET", canarySecret, "AUTH_METHOD", secretJWT}, secretJWT},
		{"a key", []string{"KEY_FILE", keyFile}, privateKeyJWT},
		{"a key for another audience", []string{"KEY_FILE", keyFile, "ISSUER", "https://login.example", "ASSERTION_AUDIENCE", srv.TokenURL}, privateKeyJWT},
		{"a certificate", []string{"CERT_FILE", issued.certFile, "KEY_FILE", issued.keyFile}, tlsAuth},
		{"a self-signed certificate", []string{"CERT_FILE", selfSigned.certFile, "KEY_FILE", selfSigned.keyFile}, selfSignedTLS},
		{"a DPoP key", []string{"CLIENT_SECRET", canarySecret, "DPOP_KEY_FILE", keyFile}, secretBasic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := base.with(tt.variables...)
			r := cctoken(t, env, "", "token", "-json")
			require.Zero(t, r.status, r.stderr)
			requests := srv.Auth.Requests()
			assert.Equal(t, tt.used, requests[len(requests)-1].AuthMethod)
			assert.Equal(t, env["DPOP_KEY_FILE"] != "", strings.Contains(r.stdout, `"token_type": "DPoP"`))
		})
	}
	assertion := unsigned(`{"alg":"ES256"}`, `{"sub":"workload"}`)
	for method, typ := range map[string]string{"": clientauth.TypeJWTBearer, spiffeJWT: clientauth.TypeJWTSPIFFE} {
		s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"Bearer"}`))
		env := environment{"TOKEN_URL": s.URL, "ASSERTION_FILE": writeFile(t, "assertion", assertion+"\n"), "AUTH_METHOD": method}
		r := cctoken(t, env, "", "token")
		require.Zero(t, r.status, r.stderr)
		form, err := url.ParseQuery(s.Requests()[0].Body)
		require.NoError(t, err)
		form.Del("grant_type")
		assert.Equal(t, url.Values{"client_assertion": {assertion}, "client_assertion_type": {typ}}, form)
	}
}

// TestScheme checks that the header, and what kubectl sends, have the scheme that the library
// sends.
func TestScheme(t *testing.T) {
	for typ, want := range map[string]string{
		"": "Bearer", "bearer": "Bearer", "bearer ": "Bearer", "Bearer Token": "Bearer",
		"urn:ietf:params:oauth:token-type:access_token": "Bearer",
		"mac": "MAC", "access_token": "access_token", plainSecret: "Bearer",
	} {
		s := hostile.Start(t, hostile.JSON(200, fmt.Sprintf(`{"access_token":"xyz","token_type":%q}`, typ)))
		env := clientOf(s.URL+"/token").with("CLIENT_SECRET", plainSecret)
		r := cctoken(t, env, "", "token", "-header")
		assert.Equal(t, "Authorization: "+want+" xyz\n", r.stdout, typ)
		r = cctoken(t, env, "", "exec-credential", "-cache=false")
		assert.Equal(t, want == "Bearer", r.status == 0, r.stderr)
	}
}

package main

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

func TestC11_Credential(t *testing.T) {
	srv := startServer(t)
	folder := filepath.Join(t.TempDir(), "cache")
	var first string
	for i, version := range []string{"v1", "v1beta1", ""} {
		env := srv.env()
		if version != "" {
			env = env.with("KUBERNETES_EXEC_INFO", `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/`+version+`","spec":{"cluster":{"server":"https://kubernetes.example"},"interactive":true}}`)
		} else {
			version = "v1"
		}
		r := cctoken(t, env, "", "exec-credential", "-cache-dir", folder)
		require.Zero(t, r.status, r.stderr)
		assert.Empty(t, r.stderr)
		var c struct {
			Kind, APIVersion string
			Status           map[string]string
		}
		require.NoError(t, json.Unmarshal([]byte(r.stdout), &c))
		assert.Equal(t, "ExecCredential", c.Kind)
		assert.Equal(t, "client.authentication.k8s.io/"+version, c.APIVersion)
		token, valid := srv.Auth.Introspect(c.Status["token"])
		assert.True(t, valid)
		expiry, err := time.Parse(time.RFC3339, c.Status["expirationTimestamp"])
		require.NoError(t, err)
		assert.True(t, expiry.Before(token.Expiry.Add(-9*time.Second)), "kubectl would use a token that has just expired")
		assert.WithinDuration(t, token.Expiry, expiry, time.Minute)
		assert.Len(t, c.Status, 2)
		if i == 0 {
			first = c.Status["token"]
		}
		assert.Equal(t, first, c.Status["token"], "it comes from the cache")
	}
	r := cctoken(t, srv.env(), "", "exec-credential", "-cache=false")
	assert.Zero(t, r.status, r.stderr)
	assert.Equal(t, 2, srv.Auth.TokenRequests())
	assert.NotContains(t, r.stdout, first)
	r = cctoken(t, srv.env(), "", "exec-credential", "-cache-dir", folder, "-renew")
	assert.Zero(t, r.status, r.stderr)
	assert.Equal(t, 3, srv.Auth.TokenRequests())
	assert.NotContains(t, r.stdout, first)
}

func TestC11_CredentialExpiry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, tt := range []struct{ left, early time.Duration }{
		{time.Hour, 10 * time.Second},
		{100 * time.Second, 10 * time.Second},
		{50 * time.Second, 5 * time.Second},
		{-time.Minute, 0},
	} {
		token := &oauth2.Token{Expiry: now.Add(tt.left).Local()}
		expiry := credentialExpiry(token, now)
		assert.Equal(t, now.Add(tt.left-tt.early).Truncate(time.Second), *expiry)
	}
	assert.Nil(t, credentialExpiry(new(oauth2.Token), now))
}

// TestC11_NoCredential checks what kubectl gets no credential for.
func TestC11_NoCredential(t *testing.T) {
	_, keyFile := newKeyFile(t)
	answer := func(token string) string {
		s := hostile.Start(t, hostile.JSON(200, `{"access_token":"`+token+`","token_type":"Bearer","expires_in":3600}`))
		return s.URL + "/token"
	}
	bound := func(cnf string) string { return answer(unsigned(`{"alg":"ES256"}`, `{"cnf":`+cnf+`}`)) }
	const info = `{"apiVersion":"client.authentication.k8s.io/v1"}`
	for _, tt := range []struct {
		name, tokenURL, info string
		args                 []string
		status               int
		want                 string
	}{
		{"a DPoP key", answer("x"), info, []string{"-dpop-key-file", keyFile}, statusUsage, "leave out -dpop-key-file"},
		{"bound to a certificate", bound(`{"x5t#S256":"x"}`), info, nil, statusUnusable, "bound to a key or a certificate"},
		{"bound to a key", bound(`{"jkt":"x"}`), info, nil, statusUnusable, "bound to a key or a certificate"},
		{"bound in another way", bound(`{"kid":"x"}`), info, nil, statusUnusable, "bound to a key or a certificate"},
		{"not JSON", answer("x"), "v1", nil, statusUsage, "KUBERNETES_EXEC_INFO isn't JSON"},
		{"without a version", answer("x"), `{}`, nil, statusUsage, "write apiVersion: client.authentication.k8s.io/v1 below exec"},
		{"an old version", answer("x"), `{"apiVersion":"client.authentication.k8s.io/v1alpha1"}`, nil, statusUsage, "write apiVersion: "},
		{"a future version", answer("x"), `{"apiVersion":"client.authentication.k8s.io/v2"}`, nil, statusUsage, "write apiVersion: "},
		{"no cache for -renew", answer("x"), info, []string{"-cache=false", "-renew"}, statusUsage, "give -cache, too"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := clientOf(tt.tokenURL).with("KUBERNETES_EXEC_INFO", tt.info)
			args := []string{"exec-credential", "-auth-method", secretPost}
			if tt.args == nil {
				args = append(args, "-cache-dir", filepath.Join(t.TempDir(), "cache"))
			}
			r := cctoken(t, env, "", append(args, tt.args...)...)
			assert.Equal(t, tt.status, r.status, r.stderr)
			assert.Contains(t, r.stderr, tt.want)
			assert.Empty(t, r.stdout)
		})
	}

	s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"mac","expires_in":3600}`))
	r := cctoken(t, clientOf(s.URL+"/token"), "", "exec-credential", "-auth-method", secretPost, "-cache=false")
	assert.Equal(t, statusUnusable, r.status)
	assert.Contains(t, r.stderr, "kubectl can use Bearer only")
}

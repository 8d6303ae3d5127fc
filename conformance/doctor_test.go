package conformance

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A mistake is one in the settings of a client or in its registration, at one server.
type mistake struct {
	server string
	start  starter
	client registration // as the server knows it
	// flags are those of cctoken. In them, DIR is the directory with the files of
	// writeKeys, ISSUER the issuer, and TOKEN the token endpoint. The client id and the
	// secret are in the environment.
	flags string
	last  string // a pattern for the last line of the report
}

// mistakes has ten kinds of mistakes. To add a server, add a line to each kind that makes
// sense there.
func mistakes() map[string][]mistake {
	with := func(method string, change func(*registration)) registration {
		c := registration{secret: "plain-0123456789", method: method, ttl: time.Hour, metadata: map[string]any{}}
		if method == secretJWT {
			c.secret = assertionSecret
		}
		if change != nil {
			change(&c)
		}
		return c
	}
	member := func(name string, value any) func(*registration) {
		return func(c *registration) { c.metadata[name] = value }
	}
	keyed := func(alg string) registration {
		return with(privateKeyJWT, func(c *registration) {
			c.secret, c.alg, c.keys = "", alg, []jose.JSONWebKey{publicKey(alg, first)}
		})
	}
	post := with(secretPost, nil)
	basic := with(secretBasic, nil)
	const (
		byIssuer   = "-issuer ISSUER "
		byToken    = "-token-url TOKEN "
		
	)
	return map[string][]mistake{
		"scope": {
			{"oidc-provider", oidcProvider.start, post, byIssuer + "-scopes admin", ""},
			{"go-oauth2", startGoOAuth2, basic, byToken + "-scopes admin", ""},
			{"authlib", authlib.start, post, byToken + "-scopes admin", ""},
			{"django", django.start, basic, byToken + "-scopes admin", ""},
		},
		"audience": {
			{"oidc-provider", oidcProvider.start, post, byIssuer + "-params resource=https://wrong.example", ""},
			{"oidc-provider", oidcProvider.start, keyed("ES256"), byIssuer + "-key-file DIR/ES256.jwk -assertion-audience https://wrong.example", ""},
			{"authlib", authlib.start, keyed("ES256"), byToken + "-key-file DIR/ES256.jwk -assertion-audience https://wrong.example", ""},
		},
		"grant": {
			{"oidc-provider", oidcProvider.start, with(secretPost, member("grant_types", []string{})), byIssuer, ""},
			{"oidc-provider", oidcProvider.start, post, byIssuer + "-params grant_type=password", ""},
			{"go-oauth2", startGoOAuth2, basic, byToken + "-params grant_type=password", ""},
			{"authlib", authlib.start, post, byToken + "-params grant_type=password", ""},
			{"django", django.start, basic, byToken + "-params grant_type=password", ""},
		},
		"key id": {
			{"authlib", authlib.start, keyed("ES256"), byToken + "-key-file DIR/ES256.pem", ""},
		},
		"algorithm": {
			{"oidc-provider", oidcProvider.start, keyed("PS256"), byIssuer + "-key-file DIR/PS256.pem -key-id PS256", ""},
			{"oidc-provider", oidcProvider.start, with(secretJWT, func(c *registration) { c.alg = "HS256" }), byIssuer + "-auth-method client_secret_jwt -algorithm HS512", ""},
			{"authlib", authlib.start, keyed("PS256"), byToken + "-key-file DIR/PS256.pem -key-id PS256", ""},
		},
		"dpop": {
			{"oidc-provider", oidcProvider.start, with(secretPost, member("dpop_bound_access_tokens", true)), byIssuer, ""},
			{"oidc-provider", oidcProvider.start, with(secretPost, member("dpop_bound_access_tokens", true)), byToken, ""},
			{"oidc-provider, nonces", oidcProviderNonce.start, with(secretPost, member("dpop_bound_access_tokens", true)), byIssuer, ""},
			{"oidc-provider, https", oidcProviderTLS.start, with(secretPost, member("dpop_bound_access_tokens", true)), byIssuer + "-ca-file DIR/ca.pem", ""},
		},
		"certificate": {
			{"oidc-provider, https", oidcProviderTLS.start, with(secretPost, member("tls_client_certificate_bound_access_tokens", true)), byIssuer + "-ca-file DIR/ca.pem", ""},
			{"oidc-provider, https", oidcProviderTLS.start, with(secretPost, member("tls_client_certificate_bound_access_tokens", true)), byToken + "-ca-file DIR/ca.pem", ""},
		},
		"expired secret": {
			{"oidc-provider", oidcProvider.start, with(secretPost, member("client_secret_expires_at", 1)), byIssuer, ""},
			{"oidc-provider", oidcProvider.start, with(secretJWT, member("client_secret_expires_at", 1)), byIssuer + "-auth-method client_secret_jwt", ""},
		},
		"path": {
			{"oidc-provider", oidcProvider.start, post, byToken + "-token-url TOKEN/wrong", ""},
			{"oidc-provider", oidcProvider.start, post, byIssuer + "-token-url TOKEN/wrong", ""},
			{"go-oauth2", startGoOAuth2, basic, "-token-url TOKEN/wrong", ""},
			{"authlib", authlib.start, post, "-token-url TOKEN/wrong", ""},
			{"django", django.start, basic, "-token-url TOKEN/wrong", ""},
		},
		"clock": {
			{"oidc-provider, ahead", oidcProviderAhead.start, keyed("ES256"), byIssuer + "-key-file DIR/ES256.jwk -ca-file DIR/ca.pem", ""},
			{"oidc-provider, ahead", oidcProviderAhead.start, with(secretJWT, nil), byIssuer + "-auth-method client_secret_jwt -ca-file DIR/ca.pem", ""},
		},
	}
}

// TestC2_DoctorNamesTheCause checks that the last line of the report names the mistake.
func TestC2_DoctorNamesTheCause(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"ca.pem": testPKI().serverPEM().CA}
	for _, alg := range []string{"ES256", "PS256"} {
		files[alg+".pem"], files[alg+".jwk"] = testkit.KeyPEM(signer(alg, first)), privateJWK(alg, first)
	}
	require.NoError(t, writeFiles(dir, files))
	bin, err := cctokenDir()
	require.NoError(t, err)
	for kind, all := range mistakes() {
		for i, m := range all {
			t.Run(slug(kind+" "+m.server), func(t *testing.T) {
				m.client.id = "doctor-" + slug(kind+m.server) + string(rune('a'+i))
				at := m.start(t, m.client)[0]
				flags := strings.NewReplacer("DIR", dir, "ISSUER", at.issuer, "TOKEN", at.token).Replace(m.flags)
				cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "cctoken"), append([]string{"doctor"}, strings.Fields(flags)...)...)
				cmd.Env = append(os.Environ(), "CLIENT_ID="+m.client.id, "CLIENT_SECRET="+m.client.secret)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				report, err := cmd.Output()
				var exit *exec.ExitError
				require.True(t, errors.As(err, &exit), "doctor found nothing wrong:\n%s", report)
				lines := strings.Split(strings.TrimSpace(string(report)), "\n")
				t.Logf("%s\n%s", report, &stderr)
				assert.Regexp(t, m.last, lines[len(lines)-1])
			})
		}
	}
}

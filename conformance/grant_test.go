package conformance

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/grant"
)

// A grantClient is a client of a server that may use assertions and token exchange.
type grantClient struct {
	at   endpoints
	wire *wire
	conf *clientcredentials.Config
}

// newGrantClient registers a client with a secret.
func newGrantClient(t *testing.T, server *program) grantClient {
	t.Helper()
	grants := []string{"client_credentials", grant.TypeJWTBearer}
	if server == oidcProvider {
		grants = append(grants, grant.TypeTokenExchange)
	}
	id := "client-of-" + slug(t.Name())
	at := server.start(t, secretClient(id, secretBasic, map[string]any{"grant_types": grants}))[0]
	wire := newWire(t, at.token)
	return grantClient{at, wire, &clientcredentials.Config{
		ClientID: id, ClientSecret: "secret", TokenURL: at.token, Scopes: []string{scopeRead},
		HTTPClient: &http.Client{Transport: wire},
	}}
}

// fixedSecret returns a source of a text that never changes.
func fixedSecret(text string) clientauth.SecretSource {
	return func(context.Context) (string, error) { return text, nil }
}

// trust makes the server trust an issuer for one subject.
func (c grantClient) trust(t *testing.T, issuer, subject string, key jose.JSONWebKey) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"issuer": issuer, "subject": subject, "jwk": key, "scope": []string{scopeRead}})
	require.NoError(t, err)
	c.at.administer(t, "/trust", string(body))
}

// signed returns assertions by a trusted issuer whose key is new.
func (c grantClient) signed(t *testing.T) grant.SignedJWT {
	t.Helper()
	key := testKeys()["ES256"]
	issuer := "https://issuer.example/" + slug(t.Name())
	c.trust(t, issuer, "robot", jose.JSONWebKey{Key: key.Public(), KeyID: "key", Algorithm: "ES256", Use: "sig"})
	return grant.SignedJWT{Key: clientauth.SignerKey(key), KeyID: "key", Issuer: issuer, Subject: "robot", Audience: c.at.token}
}

// TestJWTBearer: RFC 7523, Section 2.1, with servers that verify the assertion, and accept it
// once.
func TestJWTBearer(t *testing.T) {
	for name, server := range map[string]*program{"oidc-provider": oidcProvider, "Ory Hydra": hydra} {
		t.Run(slug(name), func(t *testing.T) {
			c := newGrantClient(t, server)
			signed := c.signed(t)
			c.conf.Grant = &grant.JWTBearer{Assertion: signed.Source()}
			client := c.conf.Client(t.Context())
			for range 2 {
				got := do(t.Context(), client, c.at.api, nil)
				require.NoError(t, got.err)
				require.Equal(t, http.StatusOK, got.status)
				require.Equal(t, "robot", got.answer.Subject)
			}
			require.Len(t, c.wire.tokenRequests(), 1)
			_, err := c.conf.Token(t.Context())
			require.NoError(t, err, "a new assertion for each token request")

			for refused, change := range map[string]func(a *grant.SignedJWT){
				"another server": func(a *grant.SignedJWT) { a.Audience = "https://other.example" },
				"a strange key":  func(a *grant.SignedJWT) { a.Key = clientauth.SignerKey(strangersKeys()["ES256"]) },
			} {
				assertion := signed
				change(&assertion)
				c.conf.Grant = &grant.JWTBearer{Assertion: assertion.Source()}
				c.wire.tokenRequests()
				_, err := c.conf.Token(t.Context())
				require.ErrorContains(t, err, `the server has refused the assertion of subject "robot" from issuer`, refused)
				require.Len(t, c.wire.tokenRequests(), 1, refused)
			}

			once, err := signed.Source()(t.Context())
			require.NoError(t, err)
			c.conf.Grant = &grant.JWTBearer{Assertion: fixedSecret(once)}
			_, err = c.conf.Token(t.Context())
			require.NoError(t, err)
			_, err = c.conf.Token(t.Context())
			require.Error(t, err, "a replay")
			require.NotContains(t, err.Error(), once)
		})
	}
}

// TestTokenExchange: RFC 8693. The provider leaves this grant to the program that uses it.
func TestTokenExchange(t *testing.T) {
	c := newGrantClient(t, oidcProvider)
	own := *c.conf
	signed := c.signed(t)
	signed.Lifetime = time.Minute
	for name, test := range map[string]struct {
		exchange grant.TokenExchange
		subject  string
	}{
		"access token": {grant.TokenExchange{Subject: own.Source(t.Context()).AccessToken}, own.ClientID},
		"JWT":          {grant.TokenExchange{Subject: signed.Source(), SubjectTokenType: grant.TypeJWT}, "robot"},
		"with an actor": {grant.TokenExchange{
			Subject: signed.Source(), SubjectTokenType: grant.TypeJWT, Actor: own.Source(t.Context()).AccessToken, RequestedTokenType: grant.TypeAccessToken,
		}, "robot by " + own.ClientID},
	} {
		c.conf.Grant = &test.exchange
		got := do(t.Context(), c.conf.Client(t.Context()), c.at.api, nil)
		require.NoError(t, got.err, name)
		require.Equal(t, test.subject, got.answer.Subject, name)
	}
	c.conf.Grant = &grant.TokenExchange{Subject: fixedSecret("unknown")}
	_, err := c.conf.Token(t.Context())
	requireRefusal(t, err, "invalid_request")
}

// TestChaining: a token of oidc-provider is exchanged for an assertion, with which Ory Hydra
// issues a token (draft-ietf-oauth-identity-chaining).
func TestChaining(t *testing.T) {
	home, away := newGrantClient(t, oidcProvider), newGrantClient(t, hydra)
	resp, err := http.Get(home.at.issuer + "/jwks")
	require.NoError(t, err)
	defer resp.Body.Close()
	var keys jose.JSONWebKeySet
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&keys))
	away.trust(t, home.at.issuer, home.conf.ClientID, keys.Keys[0])

	exchange := *home.conf
	exchange.EndpointParams = url.Values{"audience": {away.at.token}}
	exchange.Grant = &grant.TokenExchange{Subject: home.conf.Source(t.Context()).AccessToken, RequestedTokenType: grant.TypeJWT}
	away.conf.Grant = &grant.JWTBearer{Assertion: exchange.Source(t.Context()).AccessToken}
	got := do(t.Context(), away.conf.Client(t.Context()), away.at.api, nil)
	require.NoError(t, got.err)
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, home.conf.ClientID, got.answer.Subject)
}

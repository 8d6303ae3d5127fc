package conformance

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// TestAudience: with Ory Hydra, a parameter says which APIs the token is for. The client must
// be allowed to have each of them. Hydra's error for another one is invalid_request, as for a
// key that it doesn't know, but the request isn't repeated with the same credential.
func TestAudience(t *testing.T) {
	allowed := []string{"https://one.example", "https://two.example"}
	server := matrixServer{authServer: authServer{start: hydra.start}, metadata: map[string]any{"audience": allowed}}
	for _, m := range slices.Concat(basicMethods[:2], hydraAssertionMethods()[:1]) {
		t.Run(slug(m.name), func(t *testing.T) {
			for _, tt := range []struct {
				name     string
				audience []string
				ok       bool
			}{
				{"none", nil, true},
				{"one", allowed[:1], true},
				{"both", allowed, true},
				{"another", []string{"https://three.example"}, false},
			} {
				t.Run(tt.name, func(t *testing.T) {
					c := newClient(t, server, m, time.Hour)
					c.conf.EndpointParams = url.Values{"audience": tt.audience}
					if !tt.ok {
						_, err := c.conf.Token(c.ctx)
						requireRefusal(t, err, "invalid_request")
						assert.Len(t, c.wire.tokenRequests(), 1)
						return
					}
					got := do(t.Context(), c.conf.Client(c.ctx), c.at.api, nil)
					require.NoError(t, got.err)
					assert.Equal(t, http.StatusOK, got.status)
					assert.ElementsMatch(t, tt.audience, got.answer.Audience)
				})
			}
		})
	}
}

// TestA4_ClockAhead: Hydra tolerates no difference between the clocks, but accepts assertions of
// the library from a machine whose clock is ahead by some seconds.
func TestA4_ClockAhead(t *testing.T) {
	c := registration{id: "ahead", method: privateKeyJWT, alg: "ES256", ttl: time.Hour, keys: []jose.JSONWebKey{publicKey("ES256", first)}}
	at := hydraBehind.start(t, c)[0]
	auth := &clientauth.PrivateKeyJWT{Key: clientauth.SignerKey(signer("ES256", first)), KeyID: "ES256"}
	conf := &clientcredentials.Config{ClientID: c.id, TokenURL: at.token, ClientAuth: auth, Retry: clientcredentials.RetryPolicy{MaxAttempts: 1}}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)

	auth.Claims = func(context.Context) (map[string]any, error) { return map[string]any{"iat": time.Now().Unix()}, nil }
	auth.Replace = []string{"iat"}
	_, err = conf.Token(t.Context())
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, http.StatusInternalServerError, refusal.Response.StatusCode, "without backdating")
}

package conformance

import (
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

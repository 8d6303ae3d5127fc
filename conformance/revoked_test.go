package conformance

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// TestRevoked: the server forgets a token long before its end. The API's 401
// says so, in the server's own words, and the call is made again with a new one.
func TestRevoked(t *testing.T) {
	t.Parallel()
	for _, s := range authServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c := registration{id: "revoked", secret: "secret-of-revoked", method: secretBasic, ttl: time.Hour}
			at := s.start(t, c)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{
				ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, AuthStyle: oauth2.AuthStyleInHeader,
			}
			client := conf.Client(w.context(t))

			first := do(t.Context(), client, at.api)
			require.NoError(t, first.err)
			require.Equal(t, http.StatusOK, first.status)
			at.revoke(t, first.token)

			second := do(t.Context(), client, at.api)
			require.NoError(t, second.err)
			assert.Equal(t, http.StatusOK, second.status)
			assert.Equal(t, first.token, second.token, "the token was revoked, nobody told the client")
			assert.Equal(t, 2, second.hops)
			assert.Len(t, w.tokenRequests(), 2)

			third := do(t.Context(), client, at.api)
			require.NoError(t, third.err)
			assert.NotEqual(t, first.token, third.token)
			assert.Equal(t, 1, third.hops)
		})
	}
}

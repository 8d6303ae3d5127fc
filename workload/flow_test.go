package workload

import (
	"crypto"
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// Each source provides assertions that an authorization server accepts. It is a strict one,
// which accepts no jti twice.
func TestW12_TokensFromAssertions(t *testing.T) {
	key := testkit.NewKey("ES256")
	signer, err := jws.NewKey(key, "ES256")
	require.NoError(t, err)
	for _, p := range platforms {
		t.Run(p.name, func(t *testing.T) {
			auth := cct.Start(t, cct.Client{ID: "workload", PublicKeys: []crypto.PublicKey{key.Public()}})
			server := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assertion, err := signer.Sign(map[string]any{"typ": "JWT"}, map[string]any{
					"iss": "workload", "sub": "workload", "aud": auth.TokenURL, "jti": rand.Text(),
					"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
				})
				if err != nil {
					panic(err)
				}
				p.good(assertion).ServeHTTP(w, r)
			}))
			setenv(t, p.env(server.URL))
			conf := &clientcredentials.Config{
				ClientID: "workload", TokenURL: auth.TokenURL,
				ClientAuth: &clientauth.Assertion{Source: p.source(network{})},
			}
			for range 3 {
				_, err := conf.Token(t.Context())
				require.NoError(t, err)
			}
			require.Equal(t, "private_key_jwt", auth.Auth.Requests()[0].AuthMethod)
			require.Len(t, server.Requests(), 3)
		})
	}
}

// A refused assertion is sent again only if the platform may issue another one. No error
// shows an assertion, even if the server repeats it.
func TestW12_RefusedAssertions(t *testing.T) {
	for _, test := range []struct {
		claims   map[string]any
		requests int
	}{
		{map[string]any{"exp": time.Now().Add(time.Hour).Unix()}, 1},
		{map[string]any{"exp": time.Now().Add(time.Hour).Unix(), "jti": "1"}, 2},
	} {
		for _, p := range platforms {
			var issued []string
			server := hostile.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				test.claims["sub"] = rand.Text()
				issued = append(issued, jwt(test.claims))
				p.good(issued[len(issued)-1]).ServeHTTP(w, r)
			}))
			auth := hostile.Start(t, hostile.Echo(401))
			setenv(t, p.env(server.URL))
			conf := &clientcredentials.Config{
				TokenURL:   auth.URL,
				ClientAuth: &clientauth.Assertion{Source: p.source(network{})},
			}
			_, err := conf.Token(t.Context())
			require.Error(t, err)
			require.Len(t, auth.Requests(), test.requests)
			require.Len(t, issued, test.requests)
			for _, assertion := range issued {
				require.NotEmpty(t, auth.Find(assertion))
				require.Empty(t, hostile.Find(surfaces(err)+surfaces(conf), assertion))
			}
		}
	}
}

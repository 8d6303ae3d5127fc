package conformance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// TestDiscover: a server's metadata lead to a token that its API accepts, with the
// strongest of the client's methods.
func TestDiscover(t *testing.T) {
	secret := clientMethod{registered: secretBasic, auth: func(w *wallet) clientcredentials.ClientAuth {
		return &clientauth.ClientSecretBasic{Secret: w.secret}
	}}
	key := clientMethod{registered: privateKeyJWT, alg: "PS256", auth: keyFileAuth}
	for _, tt := range []struct {
		name      string
		start     starter
		strongest clientMethod
		path      string // of the token endpoint that is for all methods
		// algs and proofs are the algorithms that the metadata names for assertions and for
		// DPoP proofs.
		algs, proofs []string
		bound        bool // whether tokens can be bound to certificates
		// forTokenURL: the server wants assertions for its token endpoint. Metadata has no
		// member that says so.
		forTokenURL bool
	}{
		{"oidc-provider", oidcProvider.start, key, "/token", signatureAlgs, signatureAlgs, false, false},
		{"oidc-provider, nonces", oidcProviderNonce.start, dpopMethods[1], "/token", signatureAlgs, signatureAlgs, false, false},
		{"oidc-provider, https", oidcProviderTLS.start, certificateMethods[0], "/token", signatureAlgs, signatureAlgs, true, false},
		{"Ory Hydra", hydra.start, key, "/oauth2/token", nil, nil, false, true},
		{"zitadel", startZitadel, secret, "/oauth/token", nil, nil, false, false},
	} {
		t.Run(slug(tt.name+" "+tt.strongest.registered), func(t *testing.T) {
			c := newClient(t, matrixServer{authServer: authServer{start: tt.start}}, tt.strongest, time.Hour)
			metadata, err := clientcredentials.Discover(c.ctx, c.at.issuer)
			require.NoError(t, err)
			assert.Equal(t, c.at.issuer, metadata.Issuer)
			assert.Equal(t, c.at.issuer+tt.path, metadata.TokenEndpoint)
			assert.Contains(t, metadata.GrantTypesSupported, "client_credentials")
			assert.Subset(t, metadata.ScopesSupported, []string{scopeRead, scopeAdmin})
			assert.Subset(t, metadata.TokenEndpointAuthSigningAlgValuesSupported, tt.algs)
			assert.ElementsMatch(t, tt.proofs, metadata.DPoPSigningAlgValuesSupported)
			assert.Equal(t, tt.bound, metadata.TLSClientCertificateBoundAccessTokens)

			conf, err := metadata.Config(c.known.id, secret.auth(c.wallet), tt.strongest.auth(c.wallet))
			require.NoError(t, err)
			assert.Equal(t, tt.strongest.registered, conf.ClientAuth.Method())
			assert.Equal(t, c.at.token, conf.TokenURL)
			assert.Equal(t, tt.strongest.registered == tlsAuth, conf.TokenURL != metadata.TokenEndpoint, "the token endpoint for certificates")
			conf.Scopes, conf.DPoP = []string{scopeRead}, c.conf.DPoP
			if tt.forTokenURL {
				_, err := conf.Token(c.ctx)
				requireRefusal(t, err, "invalid_client")
				conf.Issuer = ""
			}
			c.requireGood(t, conf.Client(c.ctx))
		})
	}
}

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
		program   *program
		strongest clientMethod
	}{
		{oidcProvider, key},
		{oidcProviderNonce, dpopMethods[1]},
		{oidcProviderTLS, certificateMethods[0]},
	} {
		t.Run(slug(tt.program.name+" "+tt.strongest.registered), func(t *testing.T) {
			c := newClient(t, matrixServer{authServer: authServer{start: tt.program.start}}, tt.strongest, time.Hour)
			metadata, err := clientcredentials.Discover(c.ctx, c.at.issuer)
			require.NoError(t, err)
			assert.Equal(t, c.at.issuer, metadata.Issuer)
			assert.Equal(t, c.at.issuer+"/token", metadata.TokenEndpoint)
			assert.Contains(t, metadata.GrantTypesSupported, "client_credentials")
			assert.Subset(t, metadata.ScopesSupported, []string{scopeRead, scopeAdmin})
			assert.Subset(t, metadata.TokenEndpointAuthSigningAlgValuesSupported, signatureAlgs)
			assert.ElementsMatch(t, signatureAlgs, metadata.DPoPSigningAlgValuesSupported)
			assert.Equal(t, tt.program == oidcProviderTLS, metadata.TLSClientCertificateBoundAccessTokens)

			conf, err := metadata.Config(c.known.id, secret.auth(c.wallet), tt.strongest.auth(c.wallet))
			require.NoError(t, err)
			assert.Equal(t, tt.strongest.registered, conf.ClientAuth.Method())
			assert.Equal(t, c.at.token, conf.TokenURL)
			assert.Equal(t, tt.strongest.registered == tlsAuth, conf.TokenURL != metadata.TokenEndpoint, "the token endpoint for certificates")
			conf.Scopes, conf.DPoP = []string{scopeRead}, c.conf.DPoP
			c.requireGood(t, conf.Client(c.ctx))
		})
	}
}

package conformance

import (
	"net/http"
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
	offers := []clientMethod{
		{registered: secretPost, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.ClientSecretPost{Secret: w.secret}
		}},
		{registered: secretBasic, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.ClientSecretBasic{Secret: w.secret}
		}},
		{registered: secretJWT, alg: "HS256", auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.ClientSecretJWT{Secret: w.secret}
		}},
		{registered: privateKeyJWT, alg: "PS256", auth: keyFileAuth},
	}
	certificate := clientMethod{registered: tlsAuth, auth: func(w *wallet) clientcredentials.ClientAuth {
		return &clientauth.TLSClientAuth{Source: w.certificate}
	}}
	servers := []struct {
		program *program
		offers  []clientMethod // the strongest is the last
		dpop    bool
	}{
		{oidcProvider, offers[:1], false},
		{oidcProvider, offers[:2], false},
		{oidcProvider, offers[:3], false},
		{oidcProvider, offers, false},
		{oidcProviderNonce, offers, true},
		{oidcProviderTLS, offers, false},
		{oidcProviderTLS, append(offers[:3:3], certificate), false},
	}
	for _, tt := range servers {
		strongest := tt.offers[len(tt.offers)-1]
		strongest.dpop = tt.dpop
		t.Run(slug(tt.program.name+" "+strongest.registered), func(t *testing.T) {
			c := newClient(t, matrixServer{authServer: authServer{start: tt.program.start}}, strongest, time.Hour)
			metadata, err := clientcredentials.Discover(c.ctx, c.at.issuer)
			require.NoError(t, err)
			assert.Equal(t, c.at.issuer, metadata.Issuer)
			assert.Equal(t, c.at.issuer+"/token", metadata.TokenEndpoint)
			assert.Contains(t, metadata.GrantTypesSupported, "client_credentials")
			assert.Subset(t, metadata.ScopesSupported, []string{scopeRead, scopeAdmin})
			assert.Contains(t, metadata.TokenEndpointAuthSigningAlgValuesSupported, "PS256")
			assert.Contains(t, metadata.DPoPSigningAlgValuesSupported, "ES256")
			assert.Equal(t, tt.program == oidcProviderTLS, metadata.TLSClientCertificateBoundAccessTokens)

			var methods []clientcredentials.ClientAuth
			for _, offer := range tt.offers {
				methods = append(methods, offer.auth(c.wallet))
			}
			conf, err := metadata.Config(c.known.id, methods...)
			require.NoError(t, err)
			assert.Equal(t, strongest.registered, conf.ClientAuth.Method())
			assert.Equal(t, c.at.issuer, conf.Issuer)
			if strongest.registered == tlsAuth {
				assert.Equal(t, c.at.token, conf.TokenURL, "the token endpoint for certificates")
				assert.NotEqual(t, metadata.TokenEndpoint, conf.TokenURL)
			} else {
				assert.Equal(t, metadata.TokenEndpoint, conf.TokenURL)
			}
			conf.Scopes = []string{scopeRead}
			conf.DPoP = c.conf.DPoP
			c.requireGood(t, conf.Client(c.ctx))
		})
	}

	t.Run("without_methods", func(t *testing.T) {
		c := newClient(t, matrixServer{authServer: authServer{start: oidcProvider.start}}, basicMethods[0], time.Hour)
		metadata, err := clientcredentials.Discover(c.ctx, c.at.issuer)
		require.NoError(t, err)
		conf, err := metadata.Config(c.known.id)
		require.NoError(t, err)
		conf.ClientSecret, conf.Scopes = c.known.secret, []string{scopeRead}
		c.requireGood(t, conf.Client(c.ctx))
	})
	t.Run("no_common_method", func(t *testing.T) {
		oidcProvider.start(t)
		metadata, err := clientcredentials.Discover(t.Context(), oidcProvider.at.issuer)
		require.NoError(t, err)
		_, err = metadata.Config("anybody", certificate.auth(&wallet{}))
		require.ErrorContains(t, err, "tls_client_auth")
	})
	t.Run("of_no_metadata", func(t *testing.T) {
		authlib.start(t)
		_, err := clientcredentials.Discover(t.Context(), authlib.at.issuer)
		require.ErrorContains(t, err, "oauth-authorization-server answered 404")
	})
	t.Run("of_another_issuer", func(t *testing.T) {
		oidcProvider.start(t)
		_, err := clientcredentials.Discover(t.Context(), oidcProvider.at.issuer+"/")
		require.ErrorContains(t, err, "that of the issuer")
	})
	t.Run("untrusted", func(t *testing.T) {
		oidcProviderTLS.start(t)
		_, err := clientcredentials.Discover(t.Context(), oidcProviderTLS.at.issuer)
		require.ErrorContains(t, err, "certificate")
	})
	http.DefaultClient.CloseIdleConnections()
}

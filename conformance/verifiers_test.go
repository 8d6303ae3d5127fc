package conformance

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	jose_jwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// requireVerified requires that other implementations verify a JWT of the library, and
// returns its claims: go-jose and golang-jwt.
func requireVerified(t *testing.T, token, alg string, key any) jwt.MapClaims {
	t.Helper()
	parsed, err := jose_jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	require.NoError(t, err)
	byJose := map[string]any{}
	require.NoError(t, parsed.Claims(key, &byJose))

	claims := jwt.MapClaims{}
	_, err = jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuedAt()).
		ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key, nil })
	require.NoError(t, err)
	assert.Equal(t, byJose, map[string]any(claims))
	return claims
}

// TestVerifiers: other implementations verify the library's assertions, as servers
// receive them.
func TestVerifiers(t *testing.T) {
	for _, alg := range slices.Concat(hmacAlgs, signatureAlgs) {
		t.Run(alg, func(t *testing.T) {
			c := registration{id: "verified-" + alg, secret: assertionSecret, method: secretJWT, ttl: time.Hour, alg: alg}
			if !strings.HasPrefix(alg, "HS") {
				c.secret, c.method, c.keys = "", privateKeyJWT, []jose.JSONWebKey{publicKey(alg, first)}
			}
			at := oidcProvider.start(t, c)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{ClientID: c.id, TokenURL: at.token, Issuer: at.issuer}
			var key any = []byte(c.secret)
			if c.method == secretJWT {
				conf.ClientSecret = c.secret
				conf.ClientAuth = &clientauth.ClientSecretJWT{Algorithm: c.alg}
			} else {
				key = testKeys()[c.alg].Public()
				conf.ClientAuth = &clientauth.PrivateKeyJWT{Key: clientauth.SignerKey(testKeys()[alg]), Algorithm: alg, KeyID: alg}
			}
			_, err := conf.Token(w.context(t))
			require.NoError(t, err)
			seen := w.tokenRequests()
			require.Equal(t, []string{c.method}, methods(seen))

			requireVerified(t, seen[0].assertion, c.alg, key)
			header := jwsHeader(seen[0].assertion)
			assert.Equal(t, "JWT", header.Type)
			assert.Equal(t, map[bool]string{true: alg}[c.method == privateKeyJWT], header.KeyID)
		})
	}
}

// TestDPoPVerifiers: a server accepts the library's proofs with each kind of key, and other
// implementations verify them.
func TestDPoPVerifiers(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			c := secretClient("proven-"+alg, secretBasic, dpopBound())
			at := oidcProvider.start(t, c)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{
				ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, AuthStyle: oauth2.AuthStyleInHeader,
				DPoP: testKeys()[alg],
			}
			used := requireOK(t, conf.Client(w.context(t)), at.api+"?a=query#and-more")
			check := func(proof, method, url string, bound bool) {
				header := jwsHeader(proof)
				assert.Equal(t, "dpop+jwt", header.Type)
				assert.True(t, header.JWK.IsPublic())
				assert.Equal(t, testKeys()[alg].Public(), header.JWK.Key)
				claims := requireVerified(t, proof, alg, header.JWK.Key)
				assert.Equal(t, []any{method, url, bound}, []any{claims["htm"], claims["htu"], claims["ath"] != nil})
			}
			requests := w.tokenRequests()
			require.Len(t, requests, 1)
			check(requests[0].proof, http.MethodPost, at.token, false)
			check(used.proof, http.MethodGet, at.api, true)
		})
	}
}

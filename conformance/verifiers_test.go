package conformance

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
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
// returns its claims. They are go-jose, golang-jwt, and for PS256, PS384 and PS512 one
// that accepts only a salt as long as the hash (RFC 7518, Section 3.5).
func requireVerified(t *testing.T, token, alg string, key any) jwt.MapClaims {
	t.Helper()
	parsed, err := jose_jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	require.NoError(t, err)
	byJose := map[string]any{}
	require.NoError(t, parsed.Claims(key, &byJose))

	claims := jwt.MapClaims{}
	checked, err := jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuedAt()).
		ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key, nil })
	require.NoError(t, err)
	assert.Equal(t, byJose, map[string]any(claims))

	if strings.HasPrefix(alg, "PS") {
		signed := strings.TrimSuffix(token, "."+token[strings.LastIndexByte(token, '.')+1:])
		require.NoError(t, strictPSS(alg).Verify(signed, checked.Signature, key))
	}
	return claims
}

// strictPSS returns a method that accepts only a salt as long as the hash.
func strictPSS(alg string) *jwt.SigningMethodRSAPSS {
	method := *jwt.GetSigningMethod(alg).(*jwt.SigningMethodRSAPSS)
	method.Options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: method.Hash}
	method.VerifyOptions = method.Options
	return &method
}

// TestStrictPSS: strictPSS refuses a salt of another length.
func TestStrictPSS(t *testing.T) {
	for _, alg := range []string{"PS256", "PS384", "PS512"} {
		method := strictPSS(alg)
		digest := method.Hash.New()
		digest.Write([]byte("signed"))
		signature, err := testKeys()[alg].Sign(rand.Reader, digest.Sum(nil),
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: method.Hash})
		require.NoError(t, err)
		assert.Error(t, method.Verify("signed", signature, testKeys()[alg].Public()))
	}
}

// TestVerifiers: other implementations verify the library's assertions, as servers
// receive them.
func TestVerifiers(t *testing.T) {
	for _, c := range jwtClients("verified-") {
		t.Run(c.alg, func(t *testing.T) {
			at := oidcProvider.start(t, c)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{ClientID: c.id, TokenURL: at.token, Issuer: at.issuer}
			var key any = []byte(c.secret)
			if c.method == secretJWT {
				conf.ClientSecret = c.secret
				conf.ClientAuth = &clientauth.ClientSecretJWT{Algorithm: c.alg}
			} else {
				key = testKeys()[c.alg].Public()
				conf.ClientAuth = &clientauth.PrivateKeyJWT{
					Key: clientauth.SignerKey(testKeys()[c.alg]), Algorithm: c.alg, KeyID: c.alg,
				}
			}
			_, err := conf.Token(w.context(t))
			require.NoError(t, err)
			seen := w.tokenRequests()
			require.Equal(t, []string{c.method}, methods(seen))

			claims := requireVerified(t, seen[0].assertion, c.alg, key)
			assert.Equal(t, c.id, claims["iss"])
			assert.Equal(t, c.id, claims["sub"])
			assert.Equal(t, at.issuer, claims["aud"])
			assert.NotEmpty(t, claims["jti"])
			issued, err := claims.GetIssuedAt()
			require.NoError(t, err)
			expires, err := claims.GetExpirationTime()
			require.NoError(t, err)
			assert.LessOrEqual(t, expires.Sub(issued.Time), 61*time.Second)
			header := jwsHeader(seen[0].assertion)
			assert.Equal(t, "JWT", header.Type)
			if c.method == privateKeyJWT {
				assert.Equal(t, c.alg, header.KeyID)
			} else {
				assert.Empty(t, header.KeyID)
			}
		})
	}
}

// TestDPoPVerifiers: servers accept the library's proofs with each kind of key, and other
// implementations verify them.
func TestDPoPVerifiers(t *testing.T) {
	for _, s := range dpopServers {
		t.Run(s.name, func(t *testing.T) {
			for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
				t.Run(alg, func(t *testing.T) {
					c := secretClient("proven-"+s.name+alg, secretBasic, dpopBound())
					at := s.start(t, c)[0]
					w := newWire(t, at.token)
					conf := &clientcredentials.Config{
						ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, AuthStyle: oauth2.AuthStyleInHeader,
						DPoP: testKeys()[alg],
					}
					used := requireOK(t, conf.Client(w.context(t)), at.api+"?a=query#and-more")
					ids := map[any]bool{}
					check := func(proof, method, url string, bound bool) {
						header := jwsHeader(proof)
						assert.Equal(t, "dpop+jwt", header.Type)
						assert.True(t, header.JWK.IsPublic())
						thumbprint, err := header.JWK.Thumbprint(crypto.SHA256)
						require.NoError(t, err)
						own, err := (&jose.JSONWebKey{Key: testKeys()[alg].Public()}).Thumbprint(crypto.SHA256)
						require.NoError(t, err)
						assert.Equal(t, own, thumbprint)
						claims := requireVerified(t, proof, alg, header.JWK.Key)
						assert.Equal(t, method, claims["htm"])
						assert.Equal(t, url, claims["htu"])
						assert.Equal(t, bound, claims["ath"] != nil)
						assert.False(t, ids[claims["jti"]])
						ids[claims["jti"]] = true
					}
					requests := w.tokenRequests()
					for _, r := range requests {
						check(r.proof, "POST", at.token, false)
					}
					check(used.proof, "GET", at.api, true)
					wanted, hops := []int{http.StatusOK}, 1
					if s.nonces {
						wanted, hops = []int{http.StatusBadRequest, http.StatusOK}, 2
					}
					assert.Equal(t, wanted, statuses(requests))
					assert.Equal(t, hops, used.hops)
				})
			}
		})
	}
}

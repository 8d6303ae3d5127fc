package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// assertionSecret is long enough for HS512 (RFC 7518, Section 3.2).
const assertionSecret = "a-secret-of-at-least-sixty-four-bytes-which-HS512-wants-as-its-key-0123456789"

var hmacAlgs = []string{"HS256", "HS384", "HS512"}

var signatureAlgs = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// testKeys returns a private key for each of signatureAlgs.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	must := func(key crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return key
	}
	keys := make(map[string]crypto.Signer)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	for _, alg := range signatureAlgs {
		keys[alg] = rsaKey
	}
	keys["ES256"] = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	keys["ES384"] = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	keys["ES512"] = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	keys["EdDSA"] = must(edKey, err)
	return keys
})

// publicKey returns the public key of testKeys for the algorithm, as a client
// registers it. Its kid is the name of the algorithm.
func publicKey(alg string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: testKeys()[alg].Public(), KeyID: alg, Algorithm: alg, Use: "sig"}
}

// jwtClients returns a client for each algorithm.
func jwtClients(prefix string) []registration {
	var clients []registration
	for _, alg := range hmacAlgs {
		clients = append(clients, registration{
			id: prefix + alg, secret: assertionSecret, method: secretJWT, ttl: time.Hour, alg: alg,
		})
	}
	for _, alg := range signatureAlgs {
		clients = append(clients, registration{
			id: prefix + alg, method: privateKeyJWT, ttl: time.Hour, alg: alg, keys: []jose.JSONWebKey{publicKey(alg)},
		})
	}
	return clients
}

// signingKey returns what a client of the algorithm signs with.
func signingKey(alg string) jose.SigningKey {
	if strings.HasPrefix(alg, "HS") {
		return jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: []byte(assertionSecret)}
	}
	return jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: testKeys()[alg]}
}

// assertionClaims returns good claims of RFC 7523, Section 3.
func assertionClaims(id, audience string) map[string]any {
	now := time.Now().Unix()
	return map[string]any{
		"iss": id, "sub": id, "aud": audience, "jti": rand.Text(), "iat": now, "exp": now + 60,
	}
}

// sign returns a JWT with the header's kid and typ, if any.
func sign(t *testing.T, key jose.SigningKey, header map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, &jose.SignerOptions{ExtraHeaders: header})
	require.NoError(t, err)
	signed, err := jwt.Signed(signer).Claims(claims).Serialize()
	require.NoError(t, err)
	return signed
}

// askWithAssertion asks for a token with an assertion.
func askWithAssertion(t *testing.T, at endpoints, assertion string) reply {
	t.Helper()
	return send(t, plainRequest(t, at, url.Values{
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion},
	}))
}

// An assertionServer takes client_secret_jwt and private_key_jwt.
type assertionServer struct {
	name  string
	start func(t *testing.T, clients ...registration) []endpoints
	// metadata are members that a client needs.
	metadata map[string]any
	// takesIssuer and takesToken say which audience the server takes for itself,
	// and takesList whether it may be one of several.
	takesIssuer, takesToken, takesList bool
	// status is that of a refusal.
	status int
	// needsKid servers find a public key by its kid only, and don't care for that
	// of a secret. The others don't need it, and refuse one that they don't know,
	// of a secret too.
	needsKid bool
}

var assertionServers = []assertionServer{
	{
		name: "oidc-provider", start: oidcProvider.start,
		takesIssuer: true, takesToken: true, takesList: true, status: http.StatusUnauthorized,
	},
	{
		name: "oidc-provider_https", start: oidcProviderTLS.start,
		takesIssuer: true, takesToken: true, takesList: true, status: http.StatusUnauthorized,
	},
	{
		name: "authlib_token_url", start: authlib.start,
		takesToken: true, status: http.StatusBadRequest, needsKid: true,
	},
	{
		name: "authlib_issuer", start: authlib.start, metadata: map[string]any{"assertion_audience": "issuer"},
		takesIssuer: true, status: http.StatusBadRequest, needsKid: true,
	},
}

// TestAssertions: which assertions the servers take, and that they refuse all others.
func TestAssertions(t *testing.T) {
	for _, s := range assertionServers {
		t.Run(s.name, func(t *testing.T) {
			clients := jwtClients("assertion-" + s.name + "-")
			for i := range clients {
				clients[i].metadata = s.metadata
			}
			at := s.start(t, clients...)
			for i, c := range clients {
				t.Run(c.alg, func(t *testing.T) {
					at := at[i]
					audience := at.token
					if !s.takesToken {
						audience = at.issuer
					}
					symmetric := c.method == secretJWT
					var kid map[jose.HeaderKey]any // a secret has none
					if !symmetric {
						kid = map[jose.HeaderKey]any{"kid": c.alg}
					}
					ask := func(key jose.SigningKey, header map[jose.HeaderKey]any, change map[string]any) reply {
						claims := assertionClaims(c.id, audience)
						maps.Copy(claims, change)
						maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
						return askWithAssertion(t, at, sign(t, key, header, claims))
					}
					key := signingKey(c.alg)
					requireToken(t, at, c.id, ask(key, kid, nil))

					now := time.Now().Unix()
					other := signingKey(map[bool]string{true: "HS256", false: "RS256"}[symmetric])
					if other.Algorithm == key.Algorithm {
						other = signingKey(map[bool]string{true: "HS384", false: "PS256"}[symmetric])
					}
					wrong := jose.SigningKey{Algorithm: key.Algorithm, Key: []byte(strings.Repeat("wrong", 20))}
					if !symmetric {
						wrong.Key = strangersKeys()[c.alg]
					}
					tests := []struct {
						name   string
						ok     bool
						key    jose.SigningKey
						header map[jose.HeaderKey]any
						claims map[string]any
					}{
						{"for_the_issuer", s.takesIssuer, key, kid, map[string]any{"aud": at.issuer}},
						{"for_the_token_endpoint", s.takesToken, key, kid, map[string]any{"aud": at.token}},
						{"for_a_list_of_one", s.takesList, key, kid, map[string]any{"aud": []string{audience}}},
						{"for_both", s.takesList, key, kid, map[string]any{"aud": []string{at.issuer, at.token}}},
						{"for_somebody_else", false, key, kid, map[string]any{"aud": "https://elsewhere.example"}},
						{"for_nobody", false, key, kid, map[string]any{"aud": nil}},
						{"typ_of_the_draft", true, key, withType(kid, "client-authentication+jwt"), nil},
						{"typ_JWT", true, key, withType(kid, "JWT"), nil},
						{"without_kid", symmetric || !s.needsKid, key, nil, nil},
						{"with_unknown_kid", symmetric && s.needsKid, key, map[jose.HeaderKey]any{"kid": "unknown"}, nil},
						{"without_iat", true, key, kid, map[string]any{"iat": nil}},
						{"without_jti", false, key, kid, map[string]any{"jti": nil}},
						{"without_exp", false, key, kid, map[string]any{"exp": nil}},
						{"expired", false, key, kid, map[string]any{"iat": now - 120, "exp": now - 60}},
						{"not_yet_good", false, key, kid, map[string]any{"nbf": now + 60}},
						{"issued_in_the_future", true, key, kid, map[string]any{"iat": now + 60, "exp": now + 120}},
						{"of_another_issuer", false, key, kid, map[string]any{"iss": "somebody"}},
						{"of_another_algorithm", false, other, kid, nil},
						{"with_another_key", false, wrong, kid, nil},
					}
					for _, tt := range tests {
						t.Run(tt.name, func(t *testing.T) {
							got := ask(tt.key, tt.header, tt.claims)
							if tt.ok {
								requireToken(t, at, c.id, got)
								return
							}
							assert.Equal(t, "invalid_client", got.Error)
							assert.Equal(t, s.status, got.status)
						})
					}

					t.Run("a_second_time", func(t *testing.T) {
						assertion := sign(t, key, kid, assertionClaims(c.id, audience))
						requireToken(t, at, c.id, askWithAssertion(t, at, assertion))
						got := askWithAssertion(t, at, assertion)
						assert.Equal(t, "invalid_client", got.Error)
						assert.Equal(t, s.status, got.status)
					})
				})
			}
		})
	}
}

// withType returns the header with a typ.
func withType(header map[jose.HeaderKey]any, typ string) map[jose.HeaderKey]any {
	typed := map[jose.HeaderKey]any{"typ": typ}
	maps.Copy(typed, header)
	return typed
}

// strangersKeys are keys that no server knows, by algorithm.
var strangersKeys = sync.OnceValue(func() map[string]crypto.Signer {
	keys := make(map[string]crypto.Signer)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	for alg, key := range testKeys() {
		switch key := key.(type) {
		case *rsa.PrivateKey:
			keys[alg] = rsaKey
		case *ecdsa.PrivateKey:
			keys[alg], err = ecdsa.GenerateKey(key.Curve, rand.Reader)
		case ed25519.PrivateKey:
			_, keys[alg], err = ed25519.GenerateKey(rand.Reader)
		}
		if err != nil {
			panic(err)
		}
	}
	return keys
})

package conformance

import (
	"crypto"
	"crypto/rand"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// assertionSecret is long enough for HS512 (RFC 7518, Section 3.2).
const assertionSecret = "a-secret-of-at-least-sixty-four-bytes-which-HS512-wants-as-its-key-0123456789"

var hmacAlgs = []string{"HS256", "HS384", "HS512"}

var signatureAlgs = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// testKeys returns a private key for each of signatureAlgs, and strangersKeys returns
// others, which no server knows.
var (
	testKeys      = sync.OnceValue(func() map[string]crypto.Signer { return testkit.NewKeys(signatureAlgs...) })
	strangersKeys = sync.OnceValue(func() map[string]crypto.Signer { return testkit.NewKeys(signatureAlgs...) })
)

// signingKey returns the key that a client signs with.
func signingKey(alg string) jose.SigningKey {
	if strings.HasPrefix(alg, "HS") {
		return jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: []byte(assertionSecret)}
	}
	return jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: testKeys()[alg]}
}

// assertionClaims returns good claims of RFC 7523, Section 3.
func assertionClaims(id, audience string) map[string]any {
	now := time.Now().Unix()
	return map[string]any{"iss": id, "sub": id, "aud": audience, "jti": rand.Text(), "iat": now, "exp": now + 60}
}

// sign returns a JWT with these further header parameters, if any.
func sign(t *testing.T, key jose.SigningKey, header map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, &jose.SignerOptions{ExtraHeaders: header})
	require.NoError(t, err)
	signed, err := jwt.Signed(signer).Claims(claims).Serialize()
	require.NoError(t, err)
	return signed
}

// askWithAssertion requests a token with an assertion.
func askWithAssertion(t *testing.T, at endpoints, assertion string) reply {
	t.Helper()
	return send(t, plainRequest(t, at, url.Values{
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion},
	}))
}

// TestAssertions shows which assertions the servers accept, and that they refuse all
// others.
func TestAssertions(t *testing.T) {
	for _, s := range []struct {
		name     string
		start    starter
		metadata map[string]any // of each client
		// takesIssuer, takesToken and takesList say which audiences the server accepts: its
		// issuer, its token endpoint, and a list.
		takesIssuer, takesToken, takesList bool
		status                             int // of a refusal
		// needsKid servers find a public key only by its kid, and ignore the kid of a
		// secret. The others need no kid, and refuse an unknown one, even for a secret.
		needsKid bool
		// others are the refusals by an error that isn't invalid_client.
		others map[string]reply
	}{
		{"oidc-provider", oidcProvider.start, nil, true, true, true, http.StatusUnauthorized, false, nil},
		{"authlib_token_url", authlib.start, nil, false, true, false, http.StatusBadRequest, true, nil},
		{"authlib_issuer", authlib.start, byIssuer(), true, false, false, http.StatusBadRequest, true, nil},
		{
			"hydra", hydra.start, nil, false, true, true, http.StatusUnauthorized, false,
			map[string]reply{
				"a_second_time":    {status: http.StatusBadRequest, Error: "jti_known"},
				"with_unknown_kid": {status: http.StatusBadRequest, Error: "invalid_request"},
				"expired":          {status: http.StatusInternalServerError, Error: "error"},
				"issued_later":     {status: http.StatusInternalServerError, Error: "error"},
				"not_yet_good":     {status: http.StatusInternalServerError, Error: "error"},
			},
		},
	} {
		for _, c := range []registration{
			{method: secretJWT, alg: "HS256", secret: assertionSecret},
			{method: privateKeyJWT, alg: "ES256", keys: []jose.JSONWebKey{publicKey("ES256", first)}},
		} {
			if s.name == "hydra" && c.method == secretJWT {
				continue // It doesn't implement this method.
			}
			t.Run(s.name+"/"+c.method, func(t *testing.T) {
				c.id, c.ttl, c.metadata = "assertion-"+s.name+c.alg, time.Hour, s.metadata
				at := s.start(t, c)[0]
				audience := at.token
				if !s.takesToken {
					audience = at.issuer
				}
				symmetric := c.method == secretJWT
				key, other, wrong := signingKey("HS256"), signingKey("HS512"), jose.SigningKey{Algorithm: "HS256", Key: []byte(secrets[second])}
				var kid map[jose.HeaderKey]any // nil for a secret
				if !symmetric {
					key, other, wrong = signingKey("ES256"), signingKey("RS256"), jose.SigningKey{Algorithm: "ES256", Key: signer("ES256", second)}
					kid = map[jose.HeaderKey]any{"kid": c.alg}
				}
				typed := map[jose.HeaderKey]any{"typ": "client-authentication+jwt"}
				maps.Copy(typed, kid)
				now := time.Now().Unix()
				jti := rand.Text()
				for _, tt := range []struct {
					name   string
					ok     bool
					key    jose.SigningKey
					header map[jose.HeaderKey]any
					claims map[string]any // nil removes a claim
				}{
					{"good", true, key, kid, map[string]any{"jti": jti}},
					{"a_second_time", false, key, kid, map[string]any{"jti": jti}},
					{"for_the_issuer", s.takesIssuer, key, kid, map[string]any{"aud": at.issuer}},
					{"for_the_token_endpoint", s.takesToken, key, kid, map[string]any{"aud": at.token}},
					{"for_both", s.takesList, key, kid, map[string]any{"aud": []string{at.issuer, at.token}}},
					{"for_somebody_else", false, key, kid, map[string]any{"aud": "https://elsewhere.example"}},
					{"typ_of_the_draft", true, key, typed, nil},
					{"without_kid", symmetric || !s.needsKid, key, nil, nil},
					{"with_unknown_kid", symmetric && s.needsKid, key, map[jose.HeaderKey]any{"kid": "unknown"}, nil},
					{"without_iat", true, key, kid, map[string]any{"iat": nil}},
					{"without_jti", false, key, kid, map[string]any{"jti": nil}},
					{"without_exp", false, key, kid, map[string]any{"exp": nil}},
					{"expired", false, key, kid, map[string]any{"iat": now - 120, "exp": now - 60}},
					{"not_yet_good", false, key, kid, map[string]any{"nbf": now + 60}},
					{"issued_later", s.others["issued_later"].status == 0, key, kid, map[string]any{"iat": now + 30, "exp": now + 90}},
					{"of_another_issuer", false, key, kid, map[string]any{"iss": "somebody"}},
					{"of_another_algorithm", false, other, kid, nil},
					{"with_another_key", false, wrong, kid, nil},
				} {
					t.Run(tt.name, func(t *testing.T) {
						got := askWithAssertion(t, at, sign(t, tt.key, tt.header, changed(assertionClaims(c.id, audience), tt.claims)))
						if tt.ok {
							requireToken(t, at, c.id, got)
							return
						}
						want, ok := s.others[tt.name]
						if !ok {
							want = reply{status: s.status, Error: "invalid_client"}
						}
						require.Equal(t, want.Error, got.Error)
						require.Equal(t, want.status, got.status)
					})
				}
			})
		}
	}
}

// byIssuer is the metadata of a client of Authlib whose assertions are for the issuer.
func byIssuer() map[string]any { return map[string]any{"assertion_audience": "issuer"} }

// changed returns claims with changes; nil removes a claim.
func changed(claims, changes map[string]any) map[string]any {
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

package conformance

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// dpopServers check DPoP proofs (RFC 9449), at the token endpoint and at the API.
var dpopServers = []struct {
	name   string
	start  starter
	nonces bool // each proof needs one
}{
	{"oidc-provider", oidcProvider.start, false},
	{"oidc-provider_https", oidcProviderTLS.start, false},
	{"oidc-provider_nonces", oidcProviderNonce.start, true},
}

// A prover makes DPoP proofs with a key.
type prover struct {
	alg string
	key crypto.Signer
	// nonces has the last nonce of each URL.
	nonces map[string]string
}

// prove adds a proof to r, with changed claims; nil removes a claim.
func (p *prover) prove(t *testing.T, r *http.Request, token string, change map[string]any) {
	t.Helper()
	claims := map[string]any{"jti": rand.Text(), "htm": r.Method, "htu": r.URL.String(), "iat": time.Now().Unix()}
	if token != "" {
		digest := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(digest[:])
	}
	if nonce := p.nonces[r.URL.String()]; nonce != "" {
		claims["nonce"] = nonce
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	r.Header.Set("DPoP", sign(t, jose.SigningKey{Algorithm: jose.SignatureAlgorithm(p.alg), Key: p.key},
		map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": jose.JSONWebKey{Key: p.key.Public()}}, claims))
}

// ask requests a token, and once more if the server demands a nonce.
func (p *prover) ask(t *testing.T, c registration, at endpoints, change map[string]any) reply {
	t.Helper()
	return p.send(t, func() *http.Request {
		r := plainBasic(t, at, c)
		p.prove(t, r, "", change)
		return r
	})
}

// call calls the API, and once more if it demands a nonce.
func (p *prover) call(t *testing.T, at endpoints, scheme, token string, change map[string]any) reply {
	t.Helper()
	return p.send(t, func() *http.Request {
		r := plainCall(t, at, scheme, token)
		p.prove(t, r, token, change)
		return r
	})
}

func (p *prover) send(t *testing.T, next func() *http.Request) reply {
	t.Helper()
	r := next()
	got := send(t, r)
	nonce := got.header.Get("DPoP-Nonce")
	if nonce != "" {
		p.nonces[r.URL.String()] = nonce
	}
	if got.Error == "use_dpop_nonce" && nonce != "" {
		return send(t, next())
	}
	return got
}

// TestDPoP shows which proofs the servers accept, and that they refuse all others.
func TestDPoP(t *testing.T) {
	for _, s := range dpopServers {
		t.Run(s.name, func(t *testing.T) {
			c := secretClient("dpop-client-"+s.name, secretBasic, nil)
			must := secretClient("dpop-must-"+s.name, secretBasic, dpopBound())
			at := s.start(t, c, must)[0]

			for _, alg := range signatureAlgs {
				t.Run(alg, func(t *testing.T) {
					p := &prover{alg, testKeys()[alg], map[string]string{}}
					got := p.ask(t, must, at, nil)
					require.Equal(t, http.StatusOK, got.status, "%+v", got)
					assert.Equal(t, "DPoP", got.TokenType)
					api := p.call(t, at, "DPoP", got.AccessToken, nil)
					require.Equal(t, http.StatusOK, api.status, "%+v", api)
					assert.Equal(t, must.id, api.ClientID)
				})
			}

			p := &prover{"ES256", testKeys()["ES256"], map[string]string{}}
			bound := p.ask(t, c, at, nil)
			require.Equal(t, http.StatusOK, bound.status, "%+v", bound)
			require.Equal(t, http.StatusOK, p.call(t, at, "DPoP", bound.AccessToken, nil).status)
			now := time.Now().Unix()
			same := rand.Text()
			tests := []struct {
				name   string
				change map[string]any
				// token and api say whether each takes the proof.
				token, api bool
			}{
				{"for_another_method", map[string]any{"htm": "PUT"}, false, false},
				{"for_another_url", map[string]any{"htu": "https://elsewhere.example/"}, false, false},
				{"with_a_query", map[string]any{"htu": nil}, false, false},
				{"without_jti", map[string]any{"jti": nil}, false, false},
				{"without_iat", map[string]any{"iat": nil}, false, false},
				{"with_a_jti_of_its_own", map[string]any{"jti": same}, true, true},
				{"with_the_same_jti", map[string]any{"jti": same}, false, false},
				{"for_another_token", map[string]any{"ath": "another"}, true, false},
				{"for_no_token", map[string]any{"ath": nil}, true, false},
				// The answer has a nonce. A proof with it may have any time.
				{"old", map[string]any{"iat": now - 600}, true, s.nonces},
				{"with_a_wrong_nonce", map[string]any{"nonce": "wrong"}, false, !s.nonces},
				{"without_nonce", map[string]any{"nonce": nil}, !s.nonces, !s.nonces},
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					atToken := p.ask(t, c, at, tt.change)
					assert.Equal(t, tt.token, atToken.status == http.StatusOK, "%+v", atToken)
					atAPI := p.call(t, at, "DPoP", bound.AccessToken, tt.change)
					assert.Equal(t, tt.api, atAPI.status == http.StatusOK, "%+v", atAPI)
					for _, got := range []reply{atToken, atAPI} {
						if got.status != http.StatusOK {
							assert.Contains(t, []string{"invalid_dpop_proof", "use_dpop_nonce", "invalid_grant"}, got.Error)
						}
					}
				})
			}

			t.Run("no_proof_for_a_token", func(t *testing.T) {
				assert.Equal(t, "invalid_grant", send(t, plainBasic(t, at, must)).Error)
				requireToken(t, at, c.id, send(t, plainBasic(t, at, c)))
			})
			t.Run("no_proof_for_the_api", func(t *testing.T) {
				got := send(t, plainCall(t, at, "DPoP", bound.AccessToken))
				assert.Equal(t, http.StatusUnauthorized, got.status)
				assert.Equal(t, `DPoP error="invalid_dpop_proof"`, got.header.Get("WWW-Authenticate"))
			})
			t.Run("as_a_bearer", func(t *testing.T) {
				got := p.call(t, at, "Bearer", bound.AccessToken, nil)
				assert.Equal(t, http.StatusUnauthorized, got.status)
				assert.Equal(t, `Bearer error="invalid_token"`, got.header.Get("WWW-Authenticate"))
			})
			t.Run("with_another_key", func(t *testing.T) {
				thief := &prover{"ES256", testkit.NewKey("ES256"), maps.Clone(p.nonces)}
				got := thief.call(t, at, "DPoP", bound.AccessToken, nil)
				assert.Equal(t, http.StatusUnauthorized, got.status)
				assert.Equal(t, "invalid_dpop_proof", got.Error)
			})
			t.Run("nonces", func(t *testing.T) {
				if !s.nonces {
					got := p.call(t, at, "DPoP", bound.AccessToken, nil)
					assert.Empty(t, got.header.Get("DPoP-Nonce"))
					return
				}
				assert.NotEqual(t, p.nonces[at.token], p.nonces[at.api], "each server has its own")
				forgetful := &prover{alg: p.alg, key: p.key}
				r := plainBasic(t, at, c)
				forgetful.prove(t, r, "", nil)
				got := send(t, r)
				assert.Equal(t, http.StatusBadRequest, got.status)
				assert.Equal(t, "use_dpop_nonce", got.Error)
				assert.NotEmpty(t, got.header.Get("DPoP-Nonce"))

				r = plainCall(t, at, "DPoP", bound.AccessToken)
				forgetful.prove(t, r, bound.AccessToken, nil)
				got = send(t, r)
				assert.Equal(t, http.StatusUnauthorized, got.status)
				assert.Equal(t, `DPoP error="use_dpop_nonce"`, got.header.Get("WWW-Authenticate"))
				assert.NotEmpty(t, got.header.Get("DPoP-Nonce"))
			})
		})
	}
}

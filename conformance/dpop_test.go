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
)

// A prover makes DPoP proofs (RFC 9449) with an ES256 key.
type prover struct {
	key    crypto.Signer
	nonces map[string]string // the last nonce of each URL
}

// send sends the request that next returns with a proof, and once more if the server
// demands a nonce. change changes claims of the proof.
func (p *prover) send(t *testing.T, next func() *http.Request, token string, change map[string]any) (got reply) {
	t.Helper()
	for range 2 {
		r := next()
		url := r.URL.String()
		claims := map[string]any{"jti": rand.Text(), "htm": r.Method, "htu": url, "iat": time.Now().Unix()}
		if token != "" {
			digest := sha256.Sum256([]byte(token))
			claims["ath"] = base64.RawURLEncoding.EncodeToString(digest[:])
		}
		if nonce := p.nonces[url]; nonce != "" {
			claims["nonce"] = nonce
		}
		r.Header.Set("DPoP", sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: p.key},
			map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": jose.JSONWebKey{Key: p.key.Public()}}, changed(claims, change)))
		got = send(t, r)
		if nonce := got.header.Get("DPoP-Nonce"); nonce != "" {
			p.nonces[url] = nonce
		}
		if got.Error != "use_dpop_nonce" {
			break
		}
	}
	return got
}

// TestDPoP shows which proofs the servers accept, and that they refuse all others.
func TestDPoP(t *testing.T) {
	for _, s := range []struct {
		name   string
		start  starter
		nonces bool // each proof needs one
	}{
		{"oidc-provider", oidcProvider.start, false},
		{"oidc-provider_nonces", oidcProviderNonce.start, true},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := secretClient("dpop-client-"+s.name, secretBasic, nil)
			must := secretClient("dpop-must-"+s.name, secretBasic, dpopBound())
			at := s.start(t, c, must)[0]

			p := &prover{testKeys()["ES256"], map[string]string{}}
			ask := func() *http.Request { return plainBasic(t, at, c) }
			bound := p.send(t, ask, "", nil)
			require.Equal(t, http.StatusOK, bound.status, "%+v", bound)
			call := func() *http.Request { return plainCall(t, at, "DPoP", bound.AccessToken) }
			require.Equal(t, http.StatusOK, p.send(t, call, bound.AccessToken, nil).status)
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
				{"for_no_url", map[string]any{"htu": nil}, false, false},
				{"without_jti", map[string]any{"jti": nil}, false, false},
				{"with_a_jti_of_its_own", map[string]any{"jti": same}, true, true},
				{"with_the_same_jti", map[string]any{"jti": same}, false, false},
				{"for_another_token", map[string]any{"ath": "another"}, true, false},
				// The answer has a nonce. A proof with it may have any time.
				{"old", map[string]any{"iat": now - 600}, true, s.nonces},
				{"with_a_wrong_nonce", map[string]any{"nonce": "wrong"}, false, !s.nonces},
				{"without_nonce", map[string]any{"nonce": nil}, !s.nonces, !s.nonces},
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					atToken := p.send(t, ask, "", tt.change)
					assert.Equal(t, tt.token, atToken.status == http.StatusOK, "%+v", atToken)
					atAPI := p.send(t, call, bound.AccessToken, tt.change)
					assert.Equal(t, tt.api, atAPI.status == http.StatusOK, "%+v", atAPI)
					for _, got := range []reply{atToken, atAPI} {
						if got.status != http.StatusOK {
							assert.Contains(t, []string{"invalid_dpop_proof", "use_dpop_nonce", "invalid_grant"}, got.Error)
						}
					}
				})
			}

			assert.Equal(t, "invalid_grant", send(t, plainBasic(t, at, must)).Error, "a token without a proof")
			requireToken(t, at, c.id, send(t, plainBasic(t, at, c)))
			bearer := func() *http.Request { return plainCall(t, at, "Bearer", bound.AccessToken) }
			thief := &prover{strangersKeys()["ES256"], maps.Clone(p.nonces)}
			for challenge, got := range map[string]reply{
				`DPoP error="invalid_dpop_proof"`: send(t, call()),
				`Bearer error="invalid_token"`:    p.send(t, bearer, bound.AccessToken, nil),
			} {
				assert.Equal(t, http.StatusUnauthorized, got.status)
				assert.Equal(t, challenge, got.header.Get("WWW-Authenticate"))
			}
			got := thief.send(t, call, bound.AccessToken, nil)
			assert.Equal(t, http.StatusUnauthorized, got.status)
			assert.Equal(t, "invalid_dpop_proof", got.Error)
		})
	}
}

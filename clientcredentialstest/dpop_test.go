package clientcredentialstest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const apiURL = "https://api.example/things"

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64url(sum[:])
}

// changed returns members with changes; nil removes a member.
func changed(members, changes map[string]any) map[string]any {
	members = maps.Clone(members)
	maps.Copy(members, changes)
	maps.DeleteFunc(members, func(_ string, value any) bool { return value == nil })
	return members
}

func jwkOf(t *testing.T, signer crypto.Signer) (jwk map[string]any, thumbprint string) {
	t.Helper()
	key, err := jws.NewKey(signer, "")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(key.JWK(), &jwk))
	return jwk, key.Thumbprint()
}

// A prover makes proofs with a P-256 key, good ones and bad ones.
type prover struct {
	key    *ecdsa.PrivateKey
	jwk    map[string]any
	jkt    string
	method string
	url    string
	token  string
}

// provers returns a prover for token requests, and one with the same key for API
// requests with that token.
func provers(t *testing.T, token string) (auth, api *prover) {
	key := testkit.NewKey("ES256").(*ecdsa.PrivateKey)
	jwk, jkt := jwkOf(t, key)
	return &prover{key, jwk, jkt, "POST", tokenURL, ""}, &prover{key, jwk, jkt, "GET", apiURL, token}
}

func (p *prover) proof(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"jti": rand.Text(), "htm": p.method, "htu": p.url, "iat": time.Now().Unix(), "ath": hashOf(p.token)}
	protected := changed(map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": p.jwk}, header)
	return forged(t, p.key, crypto.SHA256, protected, changed(all, claims))
}

// forged returns a JWT whose header and claims may be wrong, with an ECDSA signature.
func forged(t *testing.T, key *ecdsa.PrivateKey, hash crypto.Hash, header, claims map[string]any) string {
	t.Helper()
	protected, err := json.Marshal(header)
	require.NoError(t, err)
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	message := base64url(protected) + "." + base64url(payload)
	h := hash.New()
	h.Write([]byte(message))
	r, s, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
	require.NoError(t, err)
	return message + "." + base64url(append(r.FillBytes(make([]byte, hash.Size())), s.FillBytes(make([]byte, hash.Size()))...))
}

// proven returns a token request with these proofs.
func proven(t *testing.T, proofs ...string) *http.Request {
	t.Helper()
	req := post(t, "id", "secret", grant)
	req.Header["Dpop"] = proofs
	return req
}

// call calls the API with these proofs.
func call(api *cct.ResourceServer, authorization string, proofs ...string) *httptest.ResponseRecorder {
	return callAt(api, apiURL+"?query", authorization, proofs...)
}

func callAt(api *cct.ResourceServer, target, authorization string, proofs ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	r.Header.Set("Authorization", authorization)
	r.Header["Dpop"] = proofs
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return w
}

const algorithms = `, algs="ES256 ES384 ES512 RS256 PS256 EdDSA"`

// requireChallenge requires a 401 with a challenge of DPoP for that error, and one of
// Bearer.
func requireChallenge(t *testing.T, w *httptest.ResponseRecorder, code, text string) {
	t.Helper()
	require.Equal(t, http.StatusUnauthorized, w.Code)
	require.Equal(t, []string{
		`DPoP realm="clientcredentialstest"` + algorithms + fmt.Sprintf(`, error="%s", error_description="%s"`, code, text),
		`Bearer realm="clientcredentialstest"`,
	}, w.Header().Values("WWW-Authenticate"))
}

// TestProofsOfRFC9449 has the examples of RFC 9449, Figures 2 and 12.
func TestProofsOfRFC9449(t *testing.T) {
	const (
		header = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
		first  = header + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
		second = header + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
		token  = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
		jkt    = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	)
	testkit.Synctest(t, func(t *testing.T) { // Not testkit.Bubble: it takes 19 years.
		time.Sleep(time.Until(time.Unix(1562262616, 0)))
		auth := newAuth()
		req := proven(t, first)
		req.URL.Host, req.Host = "server.example.com", ""
		known, _ := auth.Introspect(send(t, auth, req).AccessToken)
		require.Equal(t, jkt, known.JKT)

		auth.Remember(token, known)
		api := &cct.ResourceServer{Issuer: auth}
		require.Equal(t, 200, callAt(api, "https://resource.example.org/protectedresource", "DPoP "+token, second).Code)
		require.Equal(t, token, api.Requests()[0].AccessToken)
	})
}

func TestProofAlgorithms(t *testing.T) {
	for algorithm, signer := range testkit.NewKeys("ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA", "RS512", "Ed25519") {
		t.Run(algorithm, func(t *testing.T) {
			key, err := jws.NewKey(signer, algorithm)
			require.NoError(t, err)
			proof, err := key.Sign(map[string]any{"typ": "dpop+jwt", "jwk": key.JWK()}, map[string]any{
				"jti": rand.Text(), "htm": "POST", "htu": tokenURL, "iat": time.Now().Unix(),
			})
			require.NoError(t, err)
			auth := newAuth()
			if !strings.Contains(algorithms, algorithm) {
				requireRefused(t, auth, proven(t, proof), "invalid_dpop_proof", "RFC 9449, Section 4.3: alg must be one of")
				return
			}
			known, _ := auth.Introspect(send(t, auth, proven(t, proof)).AccessToken)
			require.Equal(t, key.Thumbprint(), known.JKT)
			requireRefused(t, auth, proven(t, tampered(proof)), "invalid_dpop_proof", "the signature does not match jwk")
		})
	}
}

// newServers returns both servers, with provers for them. The API accepts "token", which
// is bound to their key.
func newServers(t *testing.T) (auth *cct.AuthorizationServer, api *cct.ResourceServer, forToken, forAPI *prover) {
	t.Helper()
	auth = newAuth()
	forToken, forAPI = provers(t, "token")
	auth.Remember("token", cct.Token{JKT: forAPI.jkt})
	return auth, &cct.ResourceServer{Issuer: auth}, forToken, forAPI
}

// TestProofRefused: both servers check a proof in the same way.
func TestProofRefused(t *testing.T) {
	now := time.Now().Unix()
	other, _ := jwkOf(t, testkit.NewKey("ES256"))
	type members = map[string]any
	for name, test := range map[string]struct {
		header, claims members
		fault          string
	}{
		"typ":                {members{"typ": "JWT"}, nil, "typ is not dpop+jwt"},
		"TYP":                {members{"typ": nil, "TYP": "dpop+jwt"}, nil, "typ is not dpop+jwt"},
		"alg":                {members{"alg": "none"}, nil, "alg must be one of"},
		"alg of another key": {members{"alg": "ES384"}, nil, "the signature does not match jwk"},
		"crit":               {members{"crit": []string{"x"}, "x": 1}, nil, "crit is not understood"},
		"no jwk":             {members{"jwk": nil}, nil, "jwk must be a public key"},
		"another jwk":        {members{"jwk": other}, nil, "the signature does not match jwk"},
		"no jti":             {nil, members{"jti": nil}, "jti is missing"},
		"htm":                {nil, members{"htm": "PUT"}, "htm is not the method"},
		"htm in lower case":  {nil, members{"htm": "get"}, "htm is not the method"},
		"htu":                {nil, members{"htu": "https://other.example/"}, "htu is not the URL"},
		"old":                {nil, members{"iat": now - 301}, "iat is more than 5 minutes off"},
		"early":              {nil, members{"iat": now + 310}, "iat is more than 5 minutes off"},
		"no iat":             {nil, members{"iat": nil}, "iat is more than 5 minutes off"},
	} {
		t.Run(name, func(t *testing.T) {
			auth, api, forToken, forAPI := newServers(t)
			requireRefused(t, auth, proven(t, forToken.proof(t, test.header, test.claims)), "invalid_dpop_proof", "token request 1: RFC 9449, Section 4.3: "+test.fault)

			w := call(api, "DPoP token", forAPI.proof(t, test.header, test.claims))
			require.Equal(t, http.StatusUnauthorized, w.Code)
			require.Contains(t, w.Header().Get("WWW-Authenticate"), `error="invalid_dpop_proof", error_description="`+test.fault)
			require.Len(t, api.Violations(), 1)
			require.ErrorContains(t, api.Violations()[0], "API request 1: RFC 9449, Section 4.3: "+test.fault)
		})
	}
	for _, proof := range []string{"e30.e30", "e30=.e30.", "AAAA.e30.", "e30.W10."} {
		requireRefused(t, newAuth(), proven(t, proof), "invalid_dpop_proof", "the proof is not a JWT")
	}
	requireRefused(t, newAuth(), proven(t, "x", "x"), "invalid_dpop_proof", "there is more than one proof")
}

func TestProofKeys(t *testing.T) {
	ecJWK, _ := jwkOf(t, testkit.NewKey("ES256"))
	rsaJWK, _ := jwkOf(t, testkit.NewKey("RS256"))
	edJWK, _ := jwkOf(t, testkit.NewKey("EdDSA"))
	x, y := ecJWK["x"].(string), ecJWK["y"].(string)
	first, _ := base64.RawURLEncoding.DecodeString(x)
	second, _ := base64.RawURLEncoding.DecodeString(y)
	longer, shorter := base64url(append(first, second[0])), base64url(second[1:])
	modulus, exponent := rsaJWK["n"].(string), rsaJWK["e"].(string)
	type members = map[string]any
	for name, jwk := range map[string]members{
		"EC, private":                changed(ecJWK, members{"d": "AA"}),
		"RSA, a prime":               changed(rsaJWK, members{"p": "AA"}),
		"secret":                     {"kty": "oct", "k": "AA"},
		"another curve":              changed(ecJWK, members{"crv": "P-224"}),
		"not on the curve":           changed(ecJWK, members{"y": x}),
		"coordinates of two lengths": changed(ecJWK, members{"x": longer, "y": shorter}),
		"RSA, padded modulus":        changed(rsaJWK, members{"n": "AAAA" + modulus}),
		"RSA, padded exponent":       changed(rsaJWK, members{"e": "AAAA" + exponent}),
		"RSA, short":                 changed(rsaJWK, members{"n": modulus[4:]}),
		"RSA, no exponent":           changed(rsaJWK, members{"e": nil}),
		"RSA, a huge exponent":       changed(rsaJWK, members{"e": "_____w"}),
		"X25519":                     changed(edJWK, members{"crv": "X25519"}),
		"Ed25519, cut":               changed(edJWK, members{"x": "AAAA"}),
	} {
		t.Run(name, func(t *testing.T) {
			auth, _, prover, _ := newServers(t)
			proof := prover.proof(t, members{"jwk": jwk}, nil)
			requireRefused(t, auth, proven(t, proof), "invalid_dpop_proof", "jwk must be a public key")
		})
	}
	// Further members of a public key don't matter.
	auth, _, prover, _ := newServers(t)
	jwk := changed(prover.jwk, members{"kid": "1", "use": "sig", "alg": "ES256"})
	require.Equal(t, "DPoP", send(t, auth, proven(t, prover.proof(t, members{"jwk": jwk}, nil))).TokenType)
}

func TestProofURL(t *testing.T) {
	for _, test := range []struct {
		url, htu string
		ok       bool
	}{
		{"https://api.example:443/a", "https://API.example/a", true},
		{"https://API.example/a", "HTTPS://api.example:443/a", true},
		{"https://api.example/", "https://api.example", true},
		{"https://api.example/%7Ea%2fb", "https://api.example/~a%2Fb", true},
		{"http://api.example/a", "http://api.example:80/a", true},
		{"http://api.example/a", "https://api.example/a", true}, // In memory, https looks like http.
		{"https://api.example/a", "http://api.example/a", false},
		{"https://api.example/a", "https://api.example/a?b=c", false},
		{"https://api.example/a", "https://api.example/a#", false},
		{"https://api.example/a", "https://user@api.example/a", false},
		{"https://api.example/a", "https://api.example/A", false},
		{"https://api.example/a%2Fb", "https://api.example/a/b", false},
		{"https://api.example:80/a", "https://api.example/a", false},
		{"http://api.example/a", "ftp://api.example/a", false},
		{"https://api.example/a", "https://api.example/%zz", false},
	} {
		_, api, _, prover := newServers(t)
		w := callAt(api, test.url, "DPoP token", prover.proof(t, nil, map[string]any{"htu": test.htu}))
		require.Equal(t, test.ok, w.Code == http.StatusOK, test)
	}
}

func TestProofIsUsedOnceAndSoon(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		auth, api, forToken, forAPI := newServers(t)
		request := func(proof string) string { return send(t, auth, proven(t, proof)).Error }
		used, usedAtAPI, late := forToken.proof(t, nil, nil), forAPI.proof(t, nil, nil), forToken.proof(t, nil, nil)
		require.Empty(t, request(used))
		require.Equal(t, 200, call(api, "DPoP token", usedAtAPI).Code)

		time.Sleep(5 * time.Minute)
		require.Equal(t, "invalid_dpop_proof", request(used))
		require.ErrorContains(t, auth.Violations()[0], "the proof has been used before")
		requireChallenge(t, call(api, "DPoP token", usedAtAPI), "invalid_dpop_proof", "the proof has been used before")
		require.Empty(t, request(late))

		// Proofs by two keys may have the same jti.
		for range 2 {
			another, _ := provers(t, "")
			require.Empty(t, request(another.proof(t, nil, map[string]any{"jti": "1"})))
		}
	})
}

func TestRequireDPoP(t *testing.T) {
	auth := newAuth(cct.Client{ID: "id", Secret: "secret", RequireDPoP: true})
	requireRefused(t, auth, proven(t), "invalid_dpop_proof", "")

	// Only the client itself can use up its proofs.
	prover, _ := provers(t, "")
	proof := prover.proof(t, nil, nil)
	req := proven(t, proof)
	req.SetBasicAuth("id", "wrong")
	require.Equal(t, "invalid_client", send(t, auth, req).Error)
	require.Equal(t, "DPoP", send(t, auth, proven(t, proof)).TokenType)
}

func TestDPoPNonce(t *testing.T) {
	auth, api, forToken, forAPI := newServers(t)
	request := func(nonce any) answer {
		return send(t, auth, proven(t, forToken.proof(t, nil, map[string]any{"nonce": nonce})))
	}
	ask := func(nonce any) *httptest.ResponseRecorder {
		return call(api, "DPoP token", forAPI.proof(t, nil, map[string]any{"nonce": nonce}))
	}
	require.NotContains(t, request("any").header, "Dpop-Nonce")
	w := ask("any")
	require.Equal(t, 200, w.Code)
	require.NotContains(t, w.Header(), "Dpop-Nonce")
	require.NotContains(t, w.Header(), "Cache-Control")

	for _, nonce := range []string{"1", "2"} {
		auth.SetDPoPNonce(nonce)
		api.SetDPoPNonce("api-" + nonce)
		for _, wrong := range []any{nil, "other"} {
			got := request(wrong)
			require.Equal(t, "use_dpop_nonce", got.Error)
			require.Equal(t, nonce, got.header.Get("DPoP-Nonce"))
			w := ask(wrong)
			requireChallenge(t, w, "use_dpop_nonce", "the proof must contain the nonce that comes with this answer")
			require.Equal(t, "api-"+nonce, w.Header().Get("DPoP-Nonce"))
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		}
		require.Equal(t, nonce, request(nonce).header.Get("DPoP-Nonce"))
		require.Equal(t, 200, ask("api-"+nonce).Code)
	}
	require.Equal(t, http.StatusOK, send(t, auth, proven(t)).status, "a request for a bearer token needs no nonce")
	auth.Script(cct.Fault{Header: http.Header{"DPoP-Nonce": nil}}, cct.Unavailable())
	require.NotContains(t, request("2").header, "Dpop-Nonce")
	require.Equal(t, []string{"2"}, request("2").header["Dpop-Nonce"])
	require.Empty(t, auth.Violations())
	require.Empty(t, api.Violations())
}

// TestDPoPNonceNeedsAnotherProof: a proof with a wrong nonce is used up.
func TestDPoPNonceNeedsAnotherProof(t *testing.T) {
	auth, api, forToken, forAPI := newServers(t)
	auth.DPoPNonce, api.DPoPNonce = "1", "1"
	wrong, right := map[string]any{"jti": "same"}, map[string]any{"jti": "same", "nonce": "1"}
	require.Equal(t, "use_dpop_nonce", send(t, auth, proven(t, forToken.proof(t, nil, wrong))).Error)
	require.Equal(t, "invalid_dpop_proof", send(t, auth, proven(t, forToken.proof(t, nil, right))).Error)
	require.Equal(t, 401, call(api, "DPoP token", forAPI.proof(t, nil, wrong)).Code)
	requireChallenge(t, call(api, "DPoP token", forAPI.proof(t, nil, right)), "invalid_dpop_proof", "the proof has been used before")
}

func TestTokensBoundToAKey(t *testing.T) {
	auth, _, forToken, good := newServers(t)
	auth.Remember("bearer", cct.Token{})
	_, stranger := provers(t, "token")
	proof, forBearer := good.proof(t, nil, nil), good.proof(t, nil, map[string]any{"ath": hashOf("bearer")})
	for _, test := range []struct {
		name, authorization string
		proofs              []string
		code, text, section string // of the refusal; empty: the request is accepted
	}{
		{"good", "dpop token", []string{proof}, "", "", ""},
		{"bearer token", "Bearer bearer", nil, "", "", ""},
		{"bearer token as another", "DPoP bearer", []string{forBearer}, "invalid_token", "the token is not bound to a key", "7.1"},
		{"another key", "DPoP token", []string{stranger.proof(t, nil, nil)}, "invalid_token", "the token is bound to another key", "7.1"},
		{"no proof", "DPoP token", nil, "invalid_dpop_proof", "there is no proof", "4.3"},
		{"ath of another", "DPoP token", []string{forBearer}, "invalid_dpop_proof", "ath is not the hash of the token", "4.3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := &cct.ResourceServer{Issuer: auth}
			w := call(api, test.authorization, test.proofs...)
			if test.code == "" {
				require.Equal(t, 200, w.Code)
				return
			}
			requireChallenge(t, w, test.code, test.text)
			require.Len(t, api.Violations(), 1)
			require.EqualError(t, api.Violations()[0], "API request 1: RFC 9449, Section "+test.section+": "+test.text)
		})
	}
	const bearer, dpop = `Bearer realm="clientcredentialstest"`, `DPoP realm="clientcredentialstest"` + algorithms
	api := &cct.ResourceServer{Issuer: auth, Scope: "x"}
	challenges := func(authorization string, proofs ...string) []string {
		return call(api, authorization, proofs...).Header().Values("WWW-Authenticate")
	}
	require.Equal(t, []string{bearer, dpop}, challenges("Basic eDp5"))
	require.Equal(t, []string{
		bearer + `, error="invalid_token", error_description="the token is bound to a key and was sent as a bearer token"`, dpop,
	}, challenges("Bearer token"))
	require.Equal(t, []string{
		dpop + `, error="insufficient_scope", error_description="the token lacks a scope", scope="x"`,
	}, challenges("DPoP token", proof))

	require.Equal(t, "Bearer", send(t, auth, proven(t)).TokenType)
	known, _ := auth.Introspect(send(t, auth, proven(t, forToken.proof(t, nil, nil))).AccessToken)
	require.Equal(t, good.jkt, known.JKT)
}

func TestTokensBoundToACertificate(t *testing.T) {
	own, other := testkit.ClientCertificate("own"), testkit.ClientCertificate("other")
	srv := cct.NewTLSServer(
		cct.Client{ID: "certified", Certificates: []*x509.Certificate{own.Leaf}, CertificateBound: true},
		cct.Client{ID: "secret", Secret: "secret", CertificateBound: true},
		cct.Client{ID: "unbound", Certificates: []*x509.Certificate{own.Leaf}},
	)
	t.Cleanup(srv.Close)
	ask := func(presented *tls.Certificate, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.APIURL, http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := presenting(t, srv, presented).Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	for _, form := range []string{"&client_id=certified", "&client_id=secret&client_secret=secret"} {
		bound := postForm(t, srv, own, form).AccessToken
		known, _ := srv.Auth.Introspect(bound)
		require.Equal(t, hashOf(string(own.Leaf.Raw)), known.X5TS256)
		require.Equal(t, []int{200, 401, 401}, []int{ask(own, bound), ask(nil, bound), ask(other, bound)})
	}
	require.Len(t, srv.API.Violations(), 4)
	require.ErrorContains(t, srv.API.Violations()[0], "RFC 8705, Section 3: ")
	require.Equal(t, "invalid_request", postForm(t, srv, nil, "&client_id=secret&client_secret=secret").Error)
	require.Equal(t, 200, ask(nil, postForm(t, srv, own, "&client_id=unbound").AccessToken))
	require.Empty(t, srv.Auth.Violations())
}

// TestTokensBoundToAKeyAndACertificate: a token that is bound to both needs both.
func TestTokensBoundToAKeyAndACertificate(t *testing.T) {
	auth, api, _, prover := newServers(t)
	auth.Remember("token", cct.Token{JKT: prover.jkt, X5TS256: hashOf("another certificate")})
	w := call(api, "DPoP token", prover.proof(t, nil, nil))
	require.Contains(t, w.Header().Get("WWW-Authenticate"), "the token is bound to a certificate")
}

// TestDPoPNonceOfAnswerHeldBack: an answer that was held back has the nonce that is
// current when it is sent.
func TestDPoPNonceOfAnswerHeldBack(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		auth := newAuth()
		auth.DPoPNonce = "1"
		auth.Latency = time.Minute
		time.AfterFunc(time.Second, func() { auth.SetDPoPNonce("2") })
		prover, _ := provers(t, "")
		got := send(t, auth, proven(t, prover.proof(t, nil, map[string]any{"nonce": "1"})))
		require.Equal(t, "DPoP", got.TokenType)
		require.Equal(t, "2", got.header.Get("DPoP-Nonce"))
	})
}

package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"net/http"
	"path/filepath"
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
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
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

// A server may want more in an assertion than RFC 7523 does, or something else.
func TestA1_ServerThatWantsMore(t *testing.T) {
	c := registration{
		id: "asserting", method: privateKeyJWT, ttl: time.Hour, keys: []jose.JSONWebKey{publicKey("ES256", first)},
		metadata: map[string]any{"asserts": map[string]any{"tenant": "acme", "roles": []string{"a", "b"}, "x-vendor": true}},
	}
	at := oidcProvider.start(t, c)[0]
	wanted := func() map[string]any {
		return map[string]any{"tenant": "acme", "roles": []string{"a", "b"}, "nbf": time.Now().Add(-time.Minute).Unix(), "aud": []string{"https://elsewhere.example", at.issuer}}
	}
	header := map[string]any{"x-vendor": true}
	for _, tt := range []struct {
		name   string
		header map[string]any
		remove string // a claim
		ok     bool
	}{
		{"all", header, "", true},
		{"without_a_claim", header, "tenant", false},
		{"without_an_array", header, "roles", false},
		{"without_the_header", nil, "", false},
		{"our_audience", header, "aud", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf := &clientcredentials.Config{ClientID: c.id, TokenURL: at.token, Issuer: at.issuer, ClientAuth: &clientauth.PrivateKeyJWT{
				Key: clientauth.SignerKey(signer("ES256", first)), KeyID: "ES256", Header: tt.header, Replace: []string{"aud"},
				Claims: func(context.Context) (map[string]any, error) {
					return changed(wanted(), map[string]any{tt.remove: nil}), nil
				},
			}}
			_, err := conf.Token(newWire(t, at.token).context(t))
			if tt.ok {
				require.NoError(t, err)
			} else {
				requireRefusal(t, err, "invalid_client")
			}
		})
	}
}

// Another implementation finds the key of an assertion in its x5c, and verifies the chain of
// certificates.
func TestA3_VerifiedByChain(t *testing.T) {
	ca := func(name string) x509.Certificate {
		return x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	root := testkit.NewCertificate(ca("root"), nil, nil)
	between := testkit.NewCertificate(ca("between"), root, nil)
	own := testkit.NewCertificate(x509.Certificate{Subject: pkix.Name{CommonName: "chained"}}, between, nil)
	dir := t.TempDir()
	require.NoError(t, writeFiles(dir, map[string]string{
		"key": testkit.KeyPEM(own.PrivateKey), // The root comes first, as in some bundles.
		"pem": testkit.CertificatePEM(root) + testkit.CertificatePEM(between) + testkit.CertificatePEM(own),
	}))
	key := jose.JSONWebKey{Key: own.Leaf.PublicKey, Use: "sig", Algorithm: "ES256"}
	c := registration{id: "chained", method: privateKeyJWT, ttl: time.Hour, alg: "ES256", keys: []jose.JSONWebKey{key}}
	at := oidcProvider.start(t, c)[0]
	w := newWire(t, at.token)
	conf := &clientcredentials.Config{ClientID: c.id, TokenURL: at.token, Issuer: at.issuer, ClientAuth: &clientauth.PrivateKeyJWT{
		Key:               clientauth.CertificateKey(clientauth.CertificateFiles(filepath.Join(dir, "pem"), filepath.Join(dir, "key"))),
		CertificateHeader: []string{"x5c", "x5t", "x5t#S256"},
	}}
	_, err := conf.Token(w.context(t))
	require.NoError(t, err)

	parsed, err := jose_jwt.ParseSigned(w.tokenRequests()[0].assertion, []jose.SignatureAlgorithm{jose.ES256})
	require.NoError(t, err)
	header := parsed.Headers[0]
	chains, err := header.Certificates(x509.VerifyOptions{Roots: testkit.Roots(root), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	require.NoError(t, err)
	require.Len(t, chains, 1)
	for i, c := range []*tls.Certificate{own, between, root} {
		require.True(t, c.Leaf.Equal(chains[0][i]), i)
	}
	require.NoError(t, parsed.Claims(chains[0][0].PublicKey, new(map[string]any)))
	_, err = header.Certificates(x509.VerifyOptions{Roots: testkit.Roots(testPKI().ca)})
	require.Error(t, err, "another root")

	// go-jose compares the thumbprints of a JWK with its x5c.
	encoded, err := json.Marshal(jose.JSONWebKey{Key: own.Leaf.PublicKey, Certificates: chains[0]})
	require.NoError(t, err)
	members := map[string]any{}
	require.NoError(t, json.Unmarshal(encoded, &members))
	members["x5t"], members["x5t#S256"] = header.ExtraHeaders["x5t"], header.ExtraHeaders["x5t#S256"]
	encoded, err = json.Marshal(members)
	require.NoError(t, err)
	var jwk jose.JSONWebKey
	require.NoError(t, jwk.UnmarshalJSON(encoded))
	require.Len(t, jwk.CertificateThumbprintSHA1, 20)
	require.Len(t, jwk.CertificateThumbprintSHA256, 32)
}

// Servers accept an assertion without client_id beside it, as RFC 7521, Section 4.2, permits,
// and one of them refuses it with client_id.
func TestA5_ServersWithoutClientID(t *testing.T) {
	for _, s := range []struct {
		name    string
		start   starter
		refuses bool
	}{
		{"oidc-provider", oidcProvider.start, false},
		{"authlib", authlib.start, false},
		{"hydra", hydra.start, false},
		{"refusing", oidcProvider.start, true},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := registration{id: "omitted-" + s.name, method: privateKeyJWT, ttl: time.Hour, alg: "ES256", keys: []jose.JSONWebKey{publicKey("ES256", first)}}
			if s.refuses {
				c.metadata = map[string]any{"asserts": map[string]any{"client_id": nil}}
			}
			at := s.start(t, c)[0]
			w := newWire(t, at.token)
			auth := &clientauth.PrivateKeyJWT{Key: clientauth.SignerKey(signer("ES256", first)), KeyID: "ES256", OmitClientID: true}
			conf := &clientcredentials.Config{ClientID: c.id, TokenURL: at.token, ClientAuth: auth}
			requireOK(t, conf.Client(w.context(t)), at.api)
			auth.OmitClientID = false
			if _, err := conf.Token(w.context(t)); s.refuses {
				requireRefusal(t, err, "invalid_client")
			} else {
				require.NoError(t, err)
			}
			requests := w.tokenRequests()
			require.Equal(t, []bool{false, true}, []bool{requests[0].named, requests[1].named})
		})
	}
}

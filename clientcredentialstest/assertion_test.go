package clientcredentialstest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	jwtBearer  = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	longSecret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// asserted returns a token request with an assertion and further parameters.
func asserted(t *testing.T, assertion string, more ...string) *http.Request {
	t.Helper()
	form := url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {jwtBearer},
		"client_assertion":      {assertion},
	}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return post(t, "", "", form.Encode())
}

// claims returns good claims with changes; nil removes a claim.
func claims(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	return changed(map[string]any{"iss": "id", "sub": "id", "aud": tokenURL, "iat": now, "exp": now + 60, "jti": rand.Text()}, changes)
}

// signed returns an assertion with these claims, signed with key. If key is nil, it is
// signed with longSecret.
func signed(t *testing.T, key crypto.Signer, algorithm string, claims map[string]any) string {
	t.Helper()
	signer, err := jws.NewSecretKey(longSecret, algorithm)
	if key != nil {
		signer, err = jws.NewKey(key, algorithm)
	}
	require.NoError(t, err)
	assertion, err := signer.Sign(nil, claims)
	require.NoError(t, err)
	return assertion
}

// tampered returns a JWT with another signature.
func tampered(jwt string) string {
	at := strings.LastIndex(jwt, ".") + 5
	other := map[bool]string{true: "B", false: "A"}[jwt[at] == 'A']
	return jwt[:at] + other + jwt[at+1:]
}

// authWithKey returns a server whose only client, "id", signs with key.
func authWithKey(key crypto.Signer) *cct.AuthorizationServer {
	return newAuth(cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}})
}

func TestAssertionAlgorithms(t *testing.T) {
	keys := testkit.NewKeys("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
	for _, algorithm := range []string{"HS256", "HS384", "HS512"} {
		keys[algorithm] = nil
	}
	auth := new(cct.AuthorizationServer)
	for algorithm, key := range keys {
		t.Run(algorithm, func(t *testing.T) {
			client, method := cct.Client{ID: "id", Secret: longSecret, AuthMethods: []string{"client_secret_jwt"}}, "client_secret_jwt"
			if key != nil {
				client = cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{testkit.NewKey("ES256").Public(), key.Public()}}
				method = "private_key_jwt"
			}
			auth.Register(client)
			require.Equal(t, 200, send(t, auth, asserted(t, signed(t, key, algorithm, claims(nil)))).status)
			requests := auth.Requests()
			require.Equal(t, "id "+method, requests[len(requests)-1].ClientID+" "+requests[len(requests)-1].AuthMethod)
			got := send(t, auth, asserted(t, tampered(signed(t, key, algorithm, claims(nil)))))
			require.Equal(t, "invalid_client", got.Error, "another signature")
		})
	}
	require.Empty(t, auth.Violations(), "a wrong signature breaks no rule")
}

func TestAssertionRefused(t *testing.T) {
	key, otherKey := testkit.NewKey("ES256"), testkit.NewKey("ES256")
	good := signed(t, key, "", claims(nil))
	forge := func(hash crypto.Hash, algorithm string) string {
		return forged(t, key.(*ecdsa.PrivateKey), hash, map[string]any{"alg": algorithm}, claims(nil))
	}
	hs256 := forge(crypto.SHA256, "HS256")
	hs256 = hs256[:strings.LastIndex(hs256, ".")] // without its signature
	short := make([]byte, 14)                     // the shortest that crypto/hmac takes in FIPS 140-3 mode
	mac := hmac.New(sha256.New, short)
	mac.Write([]byte(hs256))

	refuse := func(name string, client cct.Client, code, rule, assertion string, more ...string) {
		t.Helper()
		client.ID = "id"
		if client.PublicKeys == nil {
			client.PublicKeys = []crypto.PublicKey{key.Public()}
		}
		t.Run(name, func(t *testing.T) {
			requireRefused(t, newAuth(client), asserted(t, assertion, more...), code, rule)
		})
	}
	refuse("another key", cct.Client{PublicKeys: []crypto.PublicKey{otherKey.Public()}}, "invalid_client", "", good)
	refuse("method not allowed", cct.Client{AuthMethods: []string{"client_secret_jwt"}}, "invalid_client", "", good)
	refuse("HS256 with a short secret", cct.Client{Secret: string(short)}, "invalid_client", "", hs256+"."+base64url(mac.Sum(nil)))
	refuse("HS256 without a secret", cct.Client{}, "invalid_client", "", hs256+"."+base64url(mac.Sum(nil)))
	refuse("ES384 on P-256", cct.Client{}, "invalid_client", "", forge(crypto.SHA384, "ES384"))
	refuse("alg none", cct.Client{}, "invalid_client", "", forge(crypto.SHA256, "none"))
	refuse("not base64url", cct.Client{}, "invalid_client", "", "e30=.e30.x")
	refuse("unknown type", cct.Client{}, "invalid_client", "", good, "client_assertion_type", "x")
	refuse("no type", cct.Client{}, "invalid_request", "RFC 7521, Section 4.2: client_assertion_type is missing", good, "client_assertion_type", "")
	refuse("other client_id", cct.Client{}, "invalid_request", "RFC 7521, Section 4.2: client_id", good, "client_id", "other")
	refuse("and a secret", cct.Client{}, "invalid_request", "RFC 6749, Section 2.3:", good, "client_secret", "x")

	wrong := func(claim string, value any, rule string) {
		t.Helper()
		assertion := signed(t, key, "", claims(map[string]any{claim: value}))
		refuse(rule, cct.Client{}, "invalid_client", "RFC 7523, Section 3: "+rule, assertion)
	}
	now := time.Now().Unix()
	wrong("iss", "other", "iss and sub differ")
	wrong("aud", "https://auth.example", "aud is not this server")
	wrong("aud", []string{"https://auth.example", ""}, "aud is not this server")
	wrong("aud", 5, "aud is neither a string nor a list of strings")
	wrong("exp", nil, "exp is missing")
	wrong("exp", now, "the assertion has expired")
	wrong("exp", now+72*3600, "exp is more than two days away")
	wrong("iat", now+60, "iat is in the future")
	wrong("nbf", now+60, "nbf is in the future")
	wrong("jti", nil, "jti is missing")
}

// requireRefused requires that auth refuses a request with that code and lists the broken
// rule as its first violation, if any.
func requireRefused(t *testing.T, auth *cct.AuthorizationServer, req *http.Request, code, rule string) {
	t.Helper()
	got := send(t, auth, req)
	require.Equal(t, code, got.Error)
	require.Empty(t, got.AccessToken)
	if rule == "" {
		require.Empty(t, auth.Violations())
		return
	}
	require.Len(t, auth.Violations(), 1)
	require.ErrorContains(t, auth.Violations()[0], rule)
}

func TestAssertionAudience(t *testing.T) {
	key := testkit.NewKey("ES256")
	auth := authWithKey(key)
	auth.Issuer = "https://issuer.example"
	for _, test := range []struct {
		audience any
		status   int
	}{{auth.Issuer, 200}, {tokenURL, 401}, {[]string{tokenURL, auth.Issuer}, 200}, {[]string{tokenURL}, 401}, {[]string{}, 401}} {
		assertion := signed(t, key, "", claims(map[string]any{"aud": test.audience}))
		require.Equal(t, test.status, send(t, auth, asserted(t, assertion)).status, test.audience)
	}
}

func TestAssertionIsUsedOnce(t *testing.T) {
	key := testkit.NewKey("ES256")
	auth := authWithKey(key)
	assertion := signed(t, key, "", claims(nil))
	require.Equal(t, 200, send(t, auth, asserted(t, assertion)).status)
	requireRefused(t, auth, asserted(t, assertion), "invalid_client", "has been used before")
}

// A test can read what a client has signed, whether or not the server accepts it.
func TestA7_AssertionOfARequest(t *testing.T) {
	key := testkit.NewKey("ES256")
	auth := authWithKey(key)
	for _, test := range []struct {
		assertion, typ string
		claim          any // nil: it isn't a JWT
		status         int
	}{
		{signed(t, key, "", claims(map[string]any{"x": []string{"y"}})), jwtBearer, []any{"y"}, 200},
		{signed(t, testkit.NewKey("ES256"), "", claims(map[string]any{"x": 1})), jwtBearer, 1.0, 401},
		{signed(t, key, "", claims(map[string]any{"x": true, "exp": "soon"})), jwtBearer, true, 401},
		{signed(t, key, "", claims(map[string]any{"x": "y"})), "urn:x", "y", 401},
		{"<saml/>", "urn:x", nil, 401},
		{"", jwtBearer, nil, 401},
	} {
		require.Equal(t, test.status, send(t, auth, asserted(t, test.assertion, "client_assertion_type", test.typ)).status)
		requests := auth.Requests()
		got := requests[len(requests)-1].Assertion
		if test.claim == nil {
			require.Nil(t, got)
			continue
		}
		require.Equal(t, map[string]any{"alg": "ES256"}, got.Header)
		require.Equal(t, test.claim, got.Claims["x"])
	}
}

// presenting returns a client that presents a certificate to srv. nil: none.
func presenting(t *testing.T, srv *cct.Server, presented *tls.Certificate) *http.Client {
	transport := srv.Client().Transport.(*http.Transport).Clone()
	if presented != nil {
		transport.TLSClientConfig.Certificates = []tls.Certificate{*presented}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// postForm requests a token from srv and presents a certificate.
func postForm(t *testing.T, srv *cct.Server, presented *tls.Certificate, form string) (got answer) {
	t.Helper()
	resp, err := presenting(t, srv, presented).Post(srv.TokenURL, "application/x-www-form-urlencoded", strings.NewReader(grant+form))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	return got
}

func TestCertificates(t *testing.T) {
	own := testkit.ClientCertificate("own")
	issued := testkit.NewCertificate(x509.Certificate{}, own, nil)
	for name, test := range map[string]struct {
		presented *tls.Certificate
		methods   []string
		form      string
		method    string // empty: refused
	}{
		"self-signed":         {own, nil, "&client_id=id", "self_signed_tls_client_auth"},
		"issued":              {issued, nil, "&client_id=id", "tls_client_auth"},
		"none":                {nil, nil, "&client_id=id", ""},
		"another client":      {own, nil, "&client_id=other", ""},
		"method not allowed":  {own, []string{"tls_client_auth"}, "&client_id=id", ""},
		"a secret goes first": {own, nil, "&client_id=id&client_secret=wrong", ""},
	} {
		t.Run(name, func(t *testing.T) {
			srv := cct.NewTLSServer(
				cct.Client{ID: "id", Certificates: []*x509.Certificate{own.Leaf, issued.Leaf}, AuthMethods: test.methods},
				cct.Client{ID: "other", Secret: "secret"},
			)
			t.Cleanup(srv.Close)
			got := postForm(t, srv, test.presented, test.form)
			request := srv.Auth.Requests()[0]
			if test.method == "" {
				require.Equal(t, "invalid_client", got.Error)
			} else {
				require.Equal(t, test.method, request.AuthMethod)
				require.True(t, test.presented.Leaf.Equal(request.Certificate))
			}
		})
	}
}

package clientcredentialstest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

const (
	jwtBearer  = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	longSecret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// asserted makes a token request with an assertion.
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

func claims(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": "id", "sub": "id", "aud": tokenURL, "iat": now, "exp": now + 60, "jti": rand.Text()}
	for name, value := range changes {
		if value == nil {
			delete(c, name)
		} else {
			c[name] = value
		}
	}
	return c
}

func p256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// signed returns an assertion by that signer, or, if it is nil, by longSecret.
func signed(t *testing.T, signer crypto.Signer, algorithm string, claims map[string]any) string {
	t.Helper()
	key, err := jws.NewSecretKey(longSecret, algorithm)
	if signer != nil {
		key, err = jws.NewKey(signer, algorithm)
	}
	require.NoError(t, err)
	assertion, err := key.Sign(nil, claims)
	require.NoError(t, err)
	return assertion
}

func TestAssertionAlgorithms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	auth := &cct.AuthorizationServer{}
	for algorithm, signer := range map[string]crypto.Signer{
		"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey, "PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey,
		"ES256": p256(t), "ES384": p384, "ES512": p521, "EdDSA": ed, "Ed25519": ed,
		"HS256": nil, "HS384": nil, "HS512": nil,
	} {
		t.Run(algorithm, func(t *testing.T) {
			client := cct.Client{ID: "id", Secret: longSecret, AuthMethods: []string{"client_secret_jwt"}}
			if signer != nil {
				client = cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{p256(t).Public(), signer.Public()}}
			}
			auth.Register(client)
			require.Equal(t, 200, send(t, auth, asserted(t, signed(t, signer, algorithm, claims(nil)))).status)
			requests := auth.Requests()
			last := requests[len(requests)-1]
			require.Equal(t, "id", last.ClientID)
			require.Equal(t, map[bool]string{true: "client_secret_jwt", false: "private_key_jwt"}[signer == nil], last.AuthMethod)

			assertion := signed(t, signer, algorithm, claims(nil))
			at := strings.LastIndex(assertion, ".") + 5
			other := map[bool]string{true: "B", false: "A"}[assertion[at] == 'A']
			got := send(t, auth, asserted(t, assertion[:at]+other+assertion[at+1:]))
			require.Equal(t, "invalid_client", got.Error, "another signature")
		})
	}
	require.Empty(t, auth.Violations(), "a wrong signature breaks no rule")
}

func TestAssertionRefused(t *testing.T) {
	key := p256(t)
	unsigned := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"id"}`)) + "."
	}
	now := func() int64 { return time.Now().Unix() }
	for _, test := range []struct {
		name   string
		client cct.Client
		form   func(t *testing.T) []string // the assertion, and other parameters
		err    string
		rule   string // that is broken; empty: none
	}{
		{"another key", cct.Client{PublicKeys: []crypto.PublicKey{p256(t).Public()}}, nil, "invalid_client", ""},
		{"no key", cct.Client{Secret: "secret"}, nil, "invalid_client", ""},
		{"another client", cct.Client{ID: "other"}, nil, "invalid_client", ""},
		{"method not allowed", cct.Client{AuthMethods: []string{"client_secret_jwt"}}, nil, "invalid_client", ""},
		{"HS256 without a secret", cct.Client{}, func(t *testing.T) []string {
			message := signed(t, nil, "HS256", claims(nil))
			message = message[:strings.LastIndex(message, ".")]
			mac := hmac.New(sha256.New, nil)
			mac.Write([]byte(message))
			return []string{message + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))}
		}, "invalid_client", ""},
		{"ES384 on P-256", cct.Client{}, func(t *testing.T) []string {
			message := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES384"}`)) +
				strings.TrimPrefix(signed(t, key, "", claims(nil)), base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)))
			message = message[:strings.LastIndex(message, ".")]
			digest := sha512.Sum384([]byte(message))
			r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
			require.NoError(t, err)
			return []string{message + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 48)), s.FillBytes(make([]byte, 48))...))}
		}, "invalid_client", ""},
		{"no signature", cct.Client{}, func(t *testing.T) []string {
			assertion := signed(t, key, "", claims(nil))
			return []string{assertion[:strings.LastIndex(assertion, ".")+1]}
		}, "invalid_client", ""},
		{"no alg", cct.Client{}, func(*testing.T) []string { return []string{unsigned(`{}`)} }, "invalid_client", ""},
		{"alg none", cct.Client{}, func(*testing.T) []string {
			return []string{unsigned(`{"alg":"none"}`)}
		}, "invalid_client", ""},
		{"unknown alg", cct.Client{}, func(*testing.T) []string {
			return []string{unsigned(`{"alg":"ES999"}`)}
		}, "invalid_client", ""},
		{"unknown type", cct.Client{}, func(t *testing.T) []string {
			return []string{signed(t, key, "", claims(nil)), "client_assertion_type", "x"}
		}, "invalid_client", ""},
		{"no type", cct.Client{}, func(t *testing.T) []string {
			return []string{signed(t, key, "", claims(nil)), "client_assertion_type", ""}
		}, "invalid_request", "RFC 7521, Section 4.2: client_assertion_type is missing"},
		{"two parts", cct.Client{}, func(*testing.T) []string { return []string{"e30.e30"} }, "invalid_client", ""},
		{"not base64url", cct.Client{}, func(*testing.T) []string { return []string{"e30=.e30.x"} }, "invalid_client", ""},
		{"not JSON", cct.Client{}, func(*testing.T) []string { return []string{"AAAA.e30."} }, "invalid_client", ""},
		{"other client_id", cct.Client{}, func(t *testing.T) []string {
			return []string{signed(t, key, "", claims(nil)), "client_id", "other"}
		}, "invalid_request", "RFC 7521, Section 4.2: client_id"},
		{"and a secret", cct.Client{}, func(t *testing.T) []string {
			return []string{signed(t, key, "", claims(nil)), "client_secret", "x"}
		}, "invalid_request", "RFC 6749, Section 2.3:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := test.client
			if client.ID == "" {
				client.ID = "id"
			}
			if client.PublicKeys == nil && client.Secret == "" {
				client.PublicKeys = []crypto.PublicKey{key.Public()}
			}
			auth := &cct.AuthorizationServer{Clients: []cct.Client{client}}
			form := []string{signed(t, key, "", claims(nil))}
			if test.form != nil {
				form = test.form(t)
			}
			requireRefused(t, auth, asserted(t, form[0], form[1:]...), test.err, test.rule)
		})
	}
	for name, test := range map[string]struct {
		changes map[string]any
		rule    string
	}{
		"iss":            {map[string]any{"iss": "other"}, "iss is not sub"},
		"aud":            {map[string]any{"aud": "https://auth.example"}, "aud is not this server"},
		"no aud":         {map[string]any{"aud": nil}, "aud is not one string"},
		"aud of several": {map[string]any{"aud": []string{tokenURL}}, "aud is not one string"},
		"no exp":         {map[string]any{"exp": nil}, "exp is missing"},
		"expired":        {map[string]any{"exp": now()}, "has expired"},
		"far exp":        {map[string]any{"exp": now() + 7200}, "more than an hour"},
		"iat":            {map[string]any{"iat": now() + 60}, "iat is in the future"},
		"nbf":            {map[string]any{"nbf": now() + 60}, "nbf is in the future"},
		"no jti":         {map[string]any{"jti": nil}, "jti is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			auth := &cct.AuthorizationServer{Clients: []cct.Client{{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}}}}
			requireRefused(t, auth, asserted(t, signed(t, key, "", claims(test.changes))), "invalid_client", "RFC 7523, Section 3: "+test.rule)
		})
	}
}

func requireRefused(t *testing.T, auth *cct.AuthorizationServer, req *http.Request, code, rule string) {
	t.Helper()
	got := send(t, auth, req)
	require.Equal(t, code, got.Error)
	require.Zero(t, auth.TokensIssued())
	if rule == "" {
		require.Empty(t, auth.Violations())
		return
	}
	require.Len(t, auth.Violations(), 1)
	require.ErrorContains(t, auth.Violations()[0], strings.TrimPrefix(rule, "RFC 7523, Section 3: "))
}

func TestAssertionAudience(t *testing.T) {
	key := p256(t)
	for name, test := range map[string]struct {
		issuer, audience string
		status           int
	}{
		"issuer":                    {"https://issuer.example", "https://issuer.example", 200},
		"token URL but not issuer":  {"https://issuer.example", tokenURL, 401},
		"token URL":                 {"", tokenURL, 200},
		"token URL of another host": {"", "https://other.example/token", 401},
	} {
		t.Run(name, func(t *testing.T) {
			auth := &cct.AuthorizationServer{Issuer: test.issuer, Clients: []cct.Client{{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}}}}
			require.Equal(t, test.status, send(t, auth, asserted(t, signed(t, key, "", claims(map[string]any{"aud": test.audience})))).status)
		})
	}
}

func TestAssertionIsUsedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := p256(t)
		auth := &cct.AuthorizationServer{Clients: []cct.Client{{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}}}}
		assertion := signed(t, key, "", claims(nil))
		require.Equal(t, 200, send(t, auth, asserted(t, assertion)).status)
		require.Equal(t, 401, send(t, auth, asserted(t, assertion)).status)
		require.ErrorContains(t, auth.Violations()[0], "has been used before")

		late := signed(t, key, "", claims(nil))
		time.Sleep(time.Minute - time.Millisecond)
		require.Equal(t, 200, send(t, auth, asserted(t, late)).status)
		expired := signed(t, key, "", claims(map[string]any{"exp": time.Now().Unix() + 1}))
		time.Sleep(time.Millisecond)
		require.Equal(t, 401, send(t, auth, asserted(t, expired)).status)
	})
}

// A client with a key or a certificate isn't believed without.
func TestKeysAndCertificatesAreRequired(t *testing.T) {
	for name, client := range map[string]cct.Client{
		"key":         {ID: "id", PublicKeys: []crypto.PublicKey{p256(t).Public()}},
		"certificate": {ID: "id", Certificates: []*x509.Certificate{certificate(t, nil).Leaf}},
	} {
		t.Run(name, func(t *testing.T) {
			auth := &cct.AuthorizationServer{Clients: []cct.Client{client}}
			require.Equal(t, 401, send(t, auth, post(t, "", "", grant+"&client_id=id")).status)
			require.Equal(t, 401, send(t, auth, post(t, "id", "", grant)).status)
		})
	}
}

// certificate returns a new one issued by issuer, or, without one, by itself.
func certificate(t *testing.T, issuer *tls.Certificate) *tls.Certificate {
	t.Helper()
	key := p256(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: rand.Text()},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	if issuer == nil {
		issuer = &tls.Certificate{Leaf: template, PrivateKey: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Leaf, key.Public(), issuer.PrivateKey)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestCertificates(t *testing.T) {
	own := certificate(t, nil)
	issued := certificate(t, own)
	for name, test := range map[string]struct {
		presented *tls.Certificate
		methods   []string
		form      string
		method    string // empty: refused
	}{
		"self-signed":         {own, nil, "&client_id=id", "self_signed_tls_client_auth"},
		"issued":              {issued, nil, "&client_id=id", "tls_client_auth"},
		"another":             {certificate(t, nil), nil, "&client_id=id", ""},
		"none":                {nil, nil, "&client_id=id", ""},
		"no client_id":        {own, nil, "", ""},
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
			client := srv.Client()
			if test.presented != nil {
				client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*test.presented}
			}
			resp, err := client.Post(srv.TokenURL, "application/x-www-form-urlencoded", strings.NewReader(grant+test.form))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, test.method != "", resp.StatusCode == 200)
			request := srv.Auth.Requests()[0]
			if test.method != "" {
				require.Equal(t, test.method, request.AuthMethod)
			}
			if test.presented == nil {
				require.Nil(t, request.Certificate)
			} else {
				require.True(t, test.presented.Leaf.Equal(request.Certificate))
			}
		})
	}
}

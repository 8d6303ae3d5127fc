package clientauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// remote is a signer of another type, as those of key services are.
type remote struct{ crypto.Signer }

func TestPrivateKeyJWTOnTheWire(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	p256, p256PEM := newKey(t)
	own := newValidPair(t)
	encode := base64.RawURLEncoding.EncodeToString
	jwk := fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":"of the JWK","alg":"Ed25519","d":%q,"x":%q}`, encode(ed.Seed()), encode(ed.Public().(ed25519.PublicKey)))
	for name, test := range map[string]struct {
		auth   PrivateKeyJWT
		public crypto.PublicKey
		header map[string]any
	}{
		"RSA":           {PrivateKeyJWT{Key: SignerKey(rsaKey)}, rsaKey.Public(), map[string]any{"alg": "RS256"}},
		"PS256":         {PrivateKeyJWT{Key: SignerKey(rsaKey), Algorithm: "PS256"}, rsaKey.Public(), map[string]any{"alg": "PS256"}},
		"P-256":         {PrivateKeyJWT{Key: SignerKey(p256)}, p256.Public(), map[string]any{"alg": "ES256"}},
		"P-384":         {PrivateKeyJWT{Key: SignerKey(p384)}, p384.Public(), map[string]any{"alg": "ES384"}},
		"Ed25519":       {PrivateKeyJWT{Key: SignerKey(ed)}, ed.Public(), map[string]any{"alg": "EdDSA"}},
		"remote":        {PrivateKeyJWT{Key: SignerKey(remote{p256})}, p256.Public(), map[string]any{"alg": "ES256"}},
		"PEM":           {PrivateKeyJWT{Key: KeyBytes([]byte(p256PEM))}, p256.Public(), map[string]any{"alg": "ES256"}},
		"PEM in a file": {PrivateKeyJWT{Key: KeyFile(file(t, p256PEM))}, p256.Public(), map[string]any{"alg": "ES256"}},
		"JWK":           {PrivateKeyJWT{Key: KeyBytes([]byte(jwk))}, ed.Public(), map[string]any{"alg": "Ed25519", "kid": "of the JWK"}},
		"JWK in a file": {PrivateKeyJWT{Key: KeyFile(file(t, jwk))}, ed.Public(), map[string]any{"alg": "Ed25519", "kid": "of the JWK"}},
		"KeyID wins": {
			PrivateKeyJWT{Key: KeyBytes([]byte(jwk)), KeyID: "1", Algorithm: "EdDSA"},
			ed.Public(),
			map[string]any{"alg": "EdDSA", "kid": "1"},
		},
		"typ": {
			PrivateKeyJWT{Key: SignerKey(p256), Type: "client-authentication+jwt"},
			p256.Public(),
			map[string]any{"alg": "ES256", "typ": "client-authentication+jwt"},
		},
		"certificate": {
			PrivateKeyJWT{Key: CertificateKey(CertificateFiles(file(t, own.cert), file(t, own.key)))},
			own.Leaf.PublicKey,
			map[string]any{"alg": "ES256", "x5t#S256": thumbprint(own.Leaf.Raw)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cct.Start(t, cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{test.public}})
			_, err := config(srv, &test.auth).Token(t.Context())
			require.NoError(t, err)
			request := srv.Auth.Requests()[0]
			require.Equal(t, "private_key_jwt", request.AuthMethod)
			require.Equal(t, test.auth.Method(), request.AuthMethod)
			require.Equal(t, "id", request.Form.Get("client_id"))
			require.Empty(t, request.Header.Values("Authorization"))
			header, _ := decode(t, request.Form.Get("client_assertion"))
			if test.header["typ"] == nil {
				test.header["typ"] = "JWT"
			}
			require.Equal(t, test.header, header)
		})
	}
}

func TestClientSecretJWTOnTheWire(t *testing.T) {
	t.Parallel()
	long := longSecret + longSecret
	given := SecretSource(func(context.Context) (string, error) { return long, nil })
	for name, test := range map[string]struct {
		auth      ClientSecretJWT
		algorithm string
		secret    string // of the Config
	}{
		"default":   {ClientSecretJWT{}, "HS256", long},
		"HS384":     {ClientSecretJWT{Algorithm: "HS384"}, "HS384", long},
		"HS512":     {ClientSecretJWT{Algorithm: "HS512"}, "HS512", long},
		"by Secret": {ClientSecretJWT{Secret: given}, "HS256", "another"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cct.Start(t, cct.Client{ID: "id", Secret: long})
			conf := config(srv, &test.auth)
			conf.ClientSecret = test.secret
			_, err := conf.Token(t.Context())
			require.NoError(t, err)
			request := srv.Auth.Requests()[0]
			require.Equal(t, "client_secret_jwt", request.AuthMethod)
			require.Equal(t, test.auth.Method(), request.AuthMethod)
			require.Equal(t, "id", request.Form.Get("client_id"))
			require.NotContains(t, request.Form, "client_secret")
			header, _ := decode(t, request.Form.Get("client_assertion"))
			require.Equal(t, map[string]any{"alg": test.algorithm, "typ": "JWT"}, header)
		})
	}
}

func TestClaims(t *testing.T) {
	key, _ := newKey(t)
	for name, test := range map[string]struct {
		auth     PrivateKeyJWT
		issuer   string
		audience string
		lifetime float64
	}{
		"default":    {PrivateKeyJWT{}, "", "https://auth.example/token", 60},
		"Issuer":     {PrivateKeyJWT{}, "https://issuer.example", "https://issuer.example", 60},
		"Audience":   {PrivateKeyJWT{Audience: "https://given.example"}, "https://issuer.example", "https://given.example", 60},
		"Lifetime":   {PrivateKeyJWT{Lifetime: 5 * time.Minute}, "", "https://auth.example/token", 300},
		"short":      {PrivateKeyJWT{Lifetime: time.Second}, "", "https://auth.example/token", 1},
		"a bit more": {PrivateKeyJWT{Lifetime: 1900 * time.Millisecond}, "", "https://auth.example/token", 2}, // From half a second past.
	} {
		test.auth.Key = SignerKey(key)
		secret := &ClientSecretJWT{Audience: test.auth.Audience, Lifetime: test.auth.Lifetime}
		for _, auth := range []clientcredentials.ClientAuth{&test.auth, secret} {
			t.Run(name+" "+auth.Method(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(500 * time.Millisecond)
					now := float64(time.Now().Unix()) // Rounded down.
					attempt := attempt()
					attempt.Issuer, attempt.ClientSecret = test.issuer, longSecret
					require.NoError(t, auth.Authenticate(t.Context(), attempt))
					_, claims := decode(t, attempt.Form.Get("client_assertion"))
					require.GreaterOrEqual(t, len(claims["jti"].(string)), 22, "128 bits")
					delete(claims, "jti")
					require.Equal(t, map[string]any{
						"iss": "id", "sub": "id", "aud": test.audience, "iat": now, "exp": now + test.lifetime,
					}, claims)
					require.Equal(t, TypeJWTBearer, attempt.Form.Get("client_assertion_type"))
				})
			})
		}
	}
}

// The server refuses an assertion that it has seen before.
func TestEachAttemptHasItsAssertion(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	srv := cct.Start(t, cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}})
	srv.Auth.Script(cct.Unavailable())
	conf := config(srv, &PrivateKeyJWT{Key: SignerKey(key)})
	conf.Retry.MaxAttempts = 2
	for range 2 {
		_, err := conf.Token(t.Context())
		require.NoError(t, err)
	}
	seen := map[any]bool{}
	for _, request := range srv.Auth.Requests() {
		_, claims := decode(t, request.Form.Get("client_assertion"))
		seen[claims["jti"]] = true
	}
	require.Len(t, seen, 3)
}

// A key file that is replaced while the server refuses the old key.
func TestKeyFileIsReadEachTime(t *testing.T) {
	t.Parallel()
	_, oldPEM := newKey(t)
	key, newPEM := newKey(t)
	srv := cct.Start(t, cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}})
	path := file(t, oldPEM)
	conf := config(srv, &PrivateKeyJWT{Key: KeyFile(path)})
	base := conf.HTTPClient.Transport
	conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(req)
		write(t, path, newPEM)
		return resp, err
	})}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, srv.Auth.TokenRequests())
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// jwt looks like one of the client.
const jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJpZCJ9.c2lnbmF0dXJl"

func TestAssertionOnTheWire(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		assertion string // in the file
		typ       string
		clientID  string
		method    string
		form      string
	}{
		"JWT":          {jwt + "\n", "", "id", "private_key_jwt", "client_assertion=" + jwt + "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_id=id&grant_type=client_credentials"},
		"no client_id": {jwt, TypeJWTBearer, "", "private_key_jwt", "client_assertion=" + jwt + "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&grant_type=client_credentials"},
		"SPIFFE":       {jwt, TypeJWTSPIFFE, "spiffe://a/b", "spiffe_jwt", "client_assertion=" + jwt + "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-spiffe&client_id=spiffe%3A%2F%2Fa%2Fb&grant_type=client_credentials"},
		"other":        {"<saml/>", "urn:x", "id", "urn:x", "client_assertion=%3Csaml%2F%3E&client_assertion_type=urn%3Ax&client_id=id&grant_type=client_credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cct.NewServer()
			t.Cleanup(srv.Close)
			auth := &Assertion{Source: SecretFile(file(t, test.assertion)), Type: test.typ}
			require.Equal(t, test.method, auth.Method())
			conf := config(srv, auth)
			conf.ClientID = test.clientID
			_, err := conf.Token(t.Context())
			require.Error(t, err, "there is no such client")
			require.Equal(t, 1, srv.Auth.TokenRequests())
			require.Equal(t, test.form, srv.Auth.Requests()[0].Body)
		})
	}
}

// An assertion made by somebody who has the client's key is as good as the client's.
func TestAssertionFromElsewhere(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	srv := cct.Start(t, cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}})
	_, err := config(srv, &Assertion{Source: func(ctx context.Context) (string, error) {
		attempt := attempt()
		attempt.TokenURL = srv.TokenURL
		err := (&PrivateKeyJWT{Key: SignerKey(key)}).Authenticate(ctx, attempt)
		return attempt.Form.Get("client_assertion"), err
	}}).Token(t.Context())
	require.NoError(t, err)
}

// Another credential is another Credential, and the same is the same.
func TestCredential(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	other, _ := newKey(t)
	own, another := newValidPair(t), newValidPair(t)
	fixed := func(s string) SecretSource { return func(context.Context) (string, error) { return s, nil } }
	credential := func(auth clientcredentials.ClientAuth) string {
		attempt := attempt()
		require.NoError(t, auth.Authenticate(t.Context(), attempt))
		require.NotEmpty(t, attempt.CredentialID)
		return attempt.CredentialID
	}
	for name, test := range map[string]struct{ a, b clientcredentials.ClientAuth }{
		"basic":       {&ClientSecretBasic{Secret: fixed("a")}, &ClientSecretBasic{Secret: fixed("b")}},
		"post":        {&ClientSecretPost{Secret: fixed("a")}, &ClientSecretPost{Secret: fixed("b")}},
		"secret JWT":  {&ClientSecretJWT{Secret: fixed("a" + longSecret)}, &ClientSecretJWT{Secret: fixed("b" + longSecret)}},
		"key":         {&PrivateKeyJWT{Key: SignerKey(key)}, &PrivateKeyJWT{Key: SignerKey(other)}},
		"kid":         {&PrivateKeyJWT{Key: SignerKey(key)}, &PrivateKeyJWT{Key: SignerKey(key), KeyID: "1"}},
		"assertion":   {&Assertion{Source: fixed(jwt)}, &Assertion{Source: fixed(jwt + "x")}},
		"certificate": {&TLSClientAuth{Source: fixedPair(own)}, &TLSClientAuth{Source: fixedPair(another)}},
		"self-signed": {&SelfSignedTLSClientAuth{Source: fixedPair(own)}, &SelfSignedTLSClientAuth{Source: fixedPair(another)}},
	} {
		a, again, b := credential(test.a), credential(test.a), credential(test.b)
		require.Equal(t, a, again, name)
		require.NotEqual(t, a, b, name)
	}
}

// A signer elsewhere can obey the attempt's context, which the key was asked for with.
func TestKeyGetsTheContext(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	ctx, cancel := context.WithCancel(t.Context())
	auth := &PrivateKeyJWT{Key: func(ctx context.Context) (*SigningKey, error) {
		return &SigningKey{Signer: obedient{key, ctx}}, nil
	}}
	require.NoError(t, auth.Authenticate(ctx, attempt()))
	cancel()
	require.ErrorIs(t, auth.Authenticate(ctx, attempt()), context.Canceled)
}

type obedient struct {
	crypto.Signer
	ctx context.Context
}

func (s obedient) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	return s.Signer.Sign(random, digest, opts)
}

func TestJWTCharacters(t *testing.T) {
	t.Parallel()
	for assertion, ok := range map[string]bool{
		jwt:                           true,
		"a.b.":                        true,
		"a.b.c.d.e":                   true, // encrypted
		"a.b":                         false,
		"a.b.c\n":                     false,
		"a.b c.d":                     false,
		"a.b.c=":                      false,
		strings.Repeat("a.b.c", 9000): true,
	} {
		err := (&Assertion{Source: func(context.Context) (string, error) { return assertion, nil }}).Authenticate(t.Context(), attempt())
		require.Equal(t, ok, err == nil, assertion[:min(10, len(assertion))])
	}
}

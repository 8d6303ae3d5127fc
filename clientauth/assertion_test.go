package clientauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

func TestAssertionsOnTheWire(t *testing.T) {
	t.Parallel()
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	p256, p256PEM := newKey()
	remote := struct{ crypto.Signer }{p256} // Of another type, like the signers of key services.
	own := newValidPair()
	encode := base64.RawURLEncoding.EncodeToString
	jwk := fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":"of the JWK","alg":"Ed25519","d":%q,"x":%q}`, encode(ed.Seed()), encode(ed.Public().(ed25519.PublicKey)))
	const long = longSecret + longSecret
	for name, test := range map[string]struct {
		auth   clientcredentials.ClientAuth
		public crypto.PublicKey // Nil: the server knows the secret.
		secret string           // ClientSecret of the Config.
		header string           // Without braces, and without typ if that is JWT.
	}{
		"RSA":           {&PrivateKeyJWT{Key: SignerKey(rsaKey)}, rsaKey.Public(), "", `"alg":"RS256"`},
		"PS256":         {&PrivateKeyJWT{Key: SignerKey(rsaKey), Algorithm: "PS256"}, rsaKey.Public(), "", `"alg":"PS256"`},
		"P-256":         {&PrivateKeyJWT{Key: SignerKey(p256)}, p256.Public(), "", `"alg":"ES256"`},
		"P-384":         {&PrivateKeyJWT{Key: SignerKey(p384)}, p384.Public(), "", `"alg":"ES384"`},
		"Ed25519":       {&PrivateKeyJWT{Key: SignerKey(ed)}, ed.Public(), "", `"alg":"EdDSA"`},
		"remote":        {&PrivateKeyJWT{Key: SignerKey(remote)}, p256.Public(), "", `"alg":"ES256"`},
		"PEM":           {&PrivateKeyJWT{Key: KeyBytes([]byte(p256PEM))}, p256.Public(), "", `"alg":"ES256"`},
		"PEM in a file": {&PrivateKeyJWT{Key: KeyFile(file(t, p256PEM))}, p256.Public(), "", `"alg":"ES256"`},
		"JWK":           {&PrivateKeyJWT{Key: KeyBytes([]byte(jwk))}, ed.Public(), "", `"alg":"Ed25519","kid":"of the JWK"`},
		"JWK in a file": {&PrivateKeyJWT{Key: KeyFile(file(t, jwk))}, ed.Public(), "", `"alg":"Ed25519","kid":"of the JWK"`},
		"KeyID wins":    {&PrivateKeyJWT{Key: KeyBytes([]byte(jwk)), KeyID: "1", Algorithm: "EdDSA"}, ed.Public(), "", `"alg":"EdDSA","kid":"1"`},
		"typ":           {&PrivateKeyJWT{Key: SignerKey(p256), Type: "client-authentication+jwt"}, p256.Public(), "", `"alg":"ES256","typ":"client-authentication+jwt"`},
		"certificate": {
			&PrivateKeyJWT{Key: CertificateKey(CertificateFiles(file(t, own.cert), file(t, own.key)))},
			own.Leaf.PublicKey, "", `"alg":"ES256","x5t#S256":"` + thumbprint(own.Leaf.Raw) + `"`,
		},

		"default":   {&ClientSecretJWT{}, nil, long, `"alg":"HS256"`},
		"HS384":     {&ClientSecretJWT{Algorithm: "HS384"}, nil, long, `"alg":"HS384"`},
		"HS512":     {&ClientSecretJWT{Algorithm: "HS512"}, nil, long, `"alg":"HS512"`},
		"by Secret": {&ClientSecretJWT{Secret: secret(long)}, nil, "another", `"alg":"HS256"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{test.public}}
			method := "private_key_jwt"
			if test.public == nil {
				client, method = cct.Client{ID: "id", Secret: long}, "client_secret_jwt"
			}
			request := token(t, client, test.auth, test.secret)
			require.Equal(t, method, request.AuthMethod)
			require.Equal(t, "id", request.Form.Get("client_id"))
			require.NotContains(t, request.Form, "client_secret")
			require.Empty(t, request.Header.Values("Authorization"))
			header, _ := decode(t, request.Form.Get("client_assertion"))
			if !strings.Contains(test.header, `"typ"`) {
				test.header += `,"typ":"JWT"`
			}
			require.JSONEq(t, "{"+test.header+"}", string(must(json.Marshal(header))))
		})
	}
}

func TestClaims(t *testing.T) {
	key, _ := newKey()
	for name, test := range map[string]struct {
		auth             PrivateKeyJWT
		issuer, audience string
		lifetime         float64
	}{
		"default":    {PrivateKeyJWT{}, "", "https://auth.example/token", 60},
		"Issuer":     {PrivateKeyJWT{}, "https://issuer.example", "https://issuer.example", 60},
		"Audience":   {PrivateKeyJWT{Audience: "https://given.example"}, "https://issuer.example", "https://given.example", 60},
		"Lifetime":   {PrivateKeyJWT{Lifetime: 5 * time.Minute}, "", "https://auth.example/token", 300},
		"short":      {PrivateKeyJWT{Lifetime: time.Second}, "", "https://auth.example/token", 1},
		"a bit more": {PrivateKeyJWT{Lifetime: 1900 * time.Millisecond}, "", "https://auth.example/token", 2}, // It begins half a second after a full second.
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
					require.GreaterOrEqual(t, len(claims["jti"].(string)), 22, "the jti must have at least 128 bits")
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
func TestEachAttemptHasANewAssertion(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
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

// The key file is replaced while the server refuses the old key.
func TestKeyFileIsReadEachTime(t *testing.T) {
	t.Parallel()
	_, oldPEM := newKey()
	key, newPEM := newKey()
	srv := cct.Start(t, cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}})
	path, calls := file(t, oldPEM), 0
	_, err := config(srv, &PrivateKeyJWT{Key: func(ctx context.Context) (*SigningKey, error) {
		if calls++; calls == 2 {
			write(t, path, newPEM)
		}
		return KeyFile(path)(ctx)
	}}).Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, srv.Auth.TokenRequests())
}

// jwt has the form of an assertion.
const jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJpZCJ9.c2lnbmF0dXJl"

func TestAssertionOnTheWire(t *testing.T) {
	t.Parallel()
	const typ = "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3A"
	for name, test := range map[string]struct {
		assertion                  string // in the file
		typ, clientID              string // of the client
		method, formAfterAssertion string
	}{
		"JWT":          {jwt + "\n", "", "id", "private_key_jwt", typ + "jwt-bearer&client_id=id&grant_type=client_credentials"},
		"no client_id": {jwt, TypeJWTBearer, "", "private_key_jwt", typ + "jwt-bearer&grant_type=client_credentials"},
		"SPIFFE":       {jwt, TypeJWTSPIFFE, "spiffe://a/b", "spiffe_jwt", typ + "jwt-spiffe&client_id=spiffe%3A%2F%2Fa%2Fb&grant_type=client_credentials"},
		"other":        {"<saml/>", "urn:x", "id", "urn:x", "&client_assertion_type=urn%3Ax&client_id=id&grant_type=client_credentials"},
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
			require.Error(t, err, "the server knows no client")
			require.Equal(t, 1, srv.Auth.TokenRequests())
			value := url.QueryEscape(strings.TrimSpace(test.assertion))
			require.Equal(t, "client_assertion="+value+test.formAfterAssertion, srv.Auth.Requests()[0].Body)
		})
	}
}

// The server accepts an assertion that another program made with the client's key.
func TestAssertionFromElsewhere(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	srv := cct.Start(t, cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}})
	_, err := config(srv, &Assertion{Source: func(ctx context.Context) (string, error) {
		attempt := attempt()
		attempt.TokenURL = srv.TokenURL
		err := (&PrivateKeyJWT{Key: SignerKey(key)}).Authenticate(ctx, attempt)
		return attempt.Form.Get("client_assertion"), err
	}}).Token(t.Context())
	require.NoError(t, err)
}

// The CredentialID changes with the credential, and only then.
func TestCredentialID(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	other, _ := newKey()
	own, another := certificate(newValidPair().Certificate), certificate(newValidPair().Certificate)
	id := func(auth clientcredentials.ClientAuth) string {
		attempt := attempt()
		require.NoError(t, auth.Authenticate(t.Context(), attempt))
		require.NotEmpty(t, attempt.CredentialID)
		return attempt.CredentialID
	}
	for name, test := range map[string]struct{ a, b clientcredentials.ClientAuth }{
		"basic":       {&ClientSecretBasic{Secret: secret("a")}, &ClientSecretBasic{Secret: secret("b")}},
		"post":        {&ClientSecretPost{Secret: secret("a")}, &ClientSecretPost{Secret: secret("b")}},
		"secret JWT":  {&ClientSecretJWT{Secret: secret("a" + longSecret)}, &ClientSecretJWT{Secret: secret("b" + longSecret)}},
		"key":         {&PrivateKeyJWT{Key: SignerKey(key)}, &PrivateKeyJWT{Key: SignerKey(other)}},
		"kid":         {&PrivateKeyJWT{Key: SignerKey(key)}, &PrivateKeyJWT{Key: SignerKey(key), KeyID: "1"}},
		"assertion":   {&Assertion{Source: secret(jwt)}, &Assertion{Source: secret(jwt + "x")}},
		"certificate": {&TLSClientAuth{Source: own}, &TLSClientAuth{Source: another}},
		"self-signed": {&SelfSignedTLSClientAuth{Source: own}, &SelfSignedTLSClientAuth{Source: another}},
	} {
		a, again, b := id(test.a), id(test.a), id(test.b)
		require.Equal(t, a, again, name)
		require.NotEqual(t, a, b, name)
	}
}

// An obedient signer fails when the context that its key was requested with has ended.
type obedient struct {
	crypto.Signer
	ctx context.Context
}

func (s obedient) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return must(s.Signer.Sign(random, digest, opts)), context.Cause(s.ctx)
}

func TestSourcesGetTheContext(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	own := newValidPair()
	secret := func(ctx context.Context) (string, error) { return jwt, context.Cause(ctx) }
	certificate := func(ctx context.Context) (*tls.Certificate, error) { return own.Certificate, context.Cause(ctx) }
	for _, auth := range []clientcredentials.ClientAuth{
		&ClientSecretPost{Secret: secret},
		&Assertion{Source: secret},
		&TLSClientAuth{Source: certificate},
		&PrivateKeyJWT{Key: CertificateKey(certificate)},
		&PrivateKeyJWT{Key: func(ctx context.Context) (*SigningKey, error) {
			return &SigningKey{Signer: obedient{key, ctx}}, nil
		}},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		require.NoError(t, auth.Authenticate(ctx, attempt()))
		stop := errors.New("stop")
		cancel(stop)
		require.ErrorIs(t, auth.Authenticate(ctx, attempt()), stop)
	}
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
		err := (&Assertion{Source: secret(assertion)}).Authenticate(t.Context(), attempt())
		require.Equal(t, ok, err == nil, assertion[:min(10, len(assertion))])
	}
}

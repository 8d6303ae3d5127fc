package clientauth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

func TestAssertionsOnTheWire(t *testing.T) {
	t.Parallel()
	rsaKey, ed := testkit.NewKey("RS256"), testkit.NewKey("EdDSA").(ed25519.PrivateKey)
	p256, p256PEM := newKey()
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
		"PS256":         {&PrivateKeyJWT{Key: SignerKey(rsaKey), Algorithm: "PS256"}, rsaKey.Public(), "", `"alg":"PS256"`},
		"PEM in a file": {&PrivateKeyJWT{Key: KeyFile(file(t, p256PEM))}, p256.Public(), "", `"alg":"ES256"`},
		"JWK":           {&PrivateKeyJWT{Key: KeyBytes([]byte(jwk))}, ed.Public(), "", `"alg":"Ed25519","kid":"of the JWK"`},
		"KeyID wins":    {&PrivateKeyJWT{Key: KeyBytes([]byte(jwk)), KeyID: "1", Algorithm: "EdDSA"}, ed.Public(), "", `"alg":"EdDSA","kid":"1"`},
		"typ":           {&PrivateKeyJWT{Key: SignerKey(p256), Type: "client-authentication+jwt"}, p256.Public(), "", `"alg":"ES256","typ":"client-authentication+jwt"`},
		"certificate": {
			&PrivateKeyJWT{Key: CertificateKey(CertificateFiles(file(t, own.cert), file(t, own.key)))},
			own.Leaf.PublicKey, "", `"alg":"ES256","x5t#S256":"` + jws.Digest(own.Leaf.Raw) + `"`,
		},
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

// A Config that comes from a server's metadata signs with algorithms that the server lists.
func TestK7_AlgorithmsOfTheMetadata(t *testing.T) {
	t.Parallel()
	rsaKey := testkit.NewKey("RS256")
	named := func(algorithm string) KeySource {
		return func(context.Context) (*SigningKey, error) {
			return &SigningKey{Signer: rsaKey, Algorithm: algorithm}, nil
		}
	}
	for name, test := range map[string]struct {
		auth               clientcredentials.ClientAuth
		dpop               crypto.Signer
		listed, listedDPoP []string
		algorithm, ofProof string // in the token request
		err                string
	}{
		"no list":                  {auth: &PrivateKeyJWT{Key: SignerKey(rsaKey)}, algorithm: "RS256"},
		"the default":              {auth: &PrivateKeyJWT{Key: SignerKey(rsaKey)}, listed: []string{"PS256", "RS256"}, algorithm: "RS256"},
		"another":                  {auth: &PrivateKeyJWT{Key: SignerKey(rsaKey)}, listed: []string{"ES256", "PS256"}, algorithm: "PS256"},
		"the key's":                {auth: &PrivateKeyJWT{Key: named("PS512")}, listed: []string{"PS256", "PS512"}, algorithm: "PS512"},
		"not the key's":            {auth: &PrivateKeyJWT{Key: named("PS512")}, listed: []string{"PS256"}, err: "or set Algorithm in the ClientAuth if the list is wrong"},
		"the program's":            {auth: &PrivateKeyJWT{Key: named("PS512"), Algorithm: "RS384"}, listed: []string{"PS256"}, algorithm: "RS384"},
		"none":                     {auth: &PrivateKeyJWT{Key: SignerKey(rsaKey)}, listed: []string{"ES256"}, err: `an RSA key signs with RS256, RS384, RS512, PS256, PS384, PS512, and the server lists ["ES256"]; use another key, or set Algorithm`},
		"secret":                   {auth: &ClientSecretJWT{Secret: secret(longSecret + longSecret)}, listed: []string{"RS256", "HS512"}, algorithm: "HS512"},
		"secret, the program's":    {auth: &ClientSecretJWT{Secret: secret(longSecret + longSecret), Algorithm: "HS384"}, listed: []string{"HS512"}, algorithm: "HS384"},
		"secret, none":             {auth: &ClientSecretJWT{Secret: secret(longSecret)}, listed: []string{"RS256"}, err: `a secret signs with HS256, HS384, HS512, and the server lists ["RS256"]`},
		"proof, no list":           {auth: &PrivateKeyJWT{Key: SignerKey(rsaKey)}, dpop: rsaKey, listed: []string{"PS256"}, algorithm: "PS256", ofProof: "RS256"},
		"proof, another":           {auth: &PrivateKeyJWT{Key: SignerKey(rsaKey)}, dpop: rsaKey, listedDPoP: []string{"ES256", "PS256"}, algorithm: "RS256", ofProof: "PS256"},
		"proof, none":              {auth: &PrivateKeyJWT{Key: SignerKey(rsaKey)}, dpop: rsaKey, listedDPoP: []string{"ES256"}, err: `DPoP: no algorithm of the key is listed in the server's metadata: an RSA key`},
		"proof, by an RSA-PSS key": {auth: &PrivateKeyJWT{Key: KeyFile("../internal/jws/testdata/rsa-pss.pkcs8.pem")}, dpop: must(KeyFile("../internal/jws/testdata/rsa-pss.pkcs8.pem")(t.Context())).Signer, algorithm: "PS256", ofProof: "PS256"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cct.NewServer() // It knows no client, so that each request is refused.
			t.Cleanup(srv.Close)
			metadata := clientcredentials.ServerMetadata{
				Issuer: strings.TrimSuffix(srv.TokenURL, "/token"), TokenEndpoint: srv.TokenURL,
				TokenEndpointAuthMethodsSupported:          []string{test.auth.Method()},
				TokenEndpointAuthSigningAlgValuesSupported: test.listed, DPoPSigningAlgValuesSupported: test.listedDPoP,
			}
			conf, err := metadata.Config("id", test.auth)
			require.NoError(t, err)
			conf.HTTPClient, conf.DPoP = srv.Client(), test.dpop
			clear(metadata.TokenEndpointAuthSigningAlgValuesSupported)
			clear(metadata.DPoPSigningAlgValuesSupported)
			copied := *conf // as a program may do
			_, err = copied.Token(t.Context())
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				require.Zero(t, srv.Auth.TokenRequests())
				return
			}
			request := srv.Auth.Requests()[0]
			header, _ := decode(t, request.Form.Get("client_assertion"))
			require.Equal(t, test.algorithm, header["alg"])
			if proof := request.Header.Get("DPoP"); test.ofProof != "" {
				header, _ = decode(t, proof)
				require.Equal(t, test.ofProof, header["alg"])
			}
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
		"a bit more": {PrivateKeyJWT{Lifetime: 1900 * time.Millisecond}, "", "https://auth.example/token", 2}, // It begins half a second after a full second.
	} {
		test.auth.Key = SignerKey(key)
		secret := &ClientSecretJWT{Audience: test.auth.Audience, Lifetime: test.auth.Lifetime}
		for _, auth := range []clientcredentials.ClientAuth{&test.auth, secret} {
			t.Run(name+" "+auth.Method(), func(t *testing.T) {
				testkit.Bubble(t, func(t *testing.T) {
					time.Sleep(500 * time.Millisecond)
					now := float64(time.Now().Unix()) // Rounded down.
					attempt := attempt()
					attempt.Issuer, attempt.ClientSecret = test.issuer, longSecret
					require.NoError(t, auth.Authenticate(t.Context(), attempt))
					_, claims := decode(t, attempt.Form.Get("client_assertion"))
					require.NoError(t, auth.Authenticate(t.Context(), attempt))
					_, next := decode(t, attempt.Form.Get("client_assertion"))
					require.NotEqual(t, claims["jti"], next["jti"], "the server refuses an assertion that it has seen before")
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
		"secret JWT":  {&ClientSecretJWT{Secret: secret("a" + longSecret)}, &ClientSecretJWT{Secret: secret("b" + longSecret)}},
		"key":         {&PrivateKeyJWT{Key: SignerKey(key)}, &PrivateKeyJWT{Key: SignerKey(other)}},
		"kid":         {&PrivateKeyJWT{Key: SignerKey(key)}, &PrivateKeyJWT{Key: SignerKey(key), KeyID: "1"}},
		"assertion":   {&Assertion{Source: secret(jwt)}, &Assertion{Source: secret(jwt + "x")}},
		"certificate": {&TLSClientAuth{Source: own}, &TLSClientAuth{Source: another}},
	} {
		a, again, b := id(test.a), id(test.a), id(test.b)
		require.Equal(t, a, again, name)
		require.NotEqual(t, a, b, name)
	}
}

func TestSourcesGetTheContext(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	secret := func(ctx context.Context) (string, error) { return "", context.Cause(ctx) }
	certificate := func(ctx context.Context) (*tls.Certificate, error) { return nil, context.Cause(ctx) }
	key := func(ctx context.Context) (*SigningKey, error) { return nil, context.Cause(ctx) }
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	for _, auth := range []clientcredentials.ClientAuth{
		&ClientSecretPost{Secret: secret}, &Assertion{Source: secret}, &TLSClientAuth{Source: certificate},
		&PrivateKeyJWT{Key: key}, &PrivateKeyJWT{Key: CertificateKey(certificate)},
	} {
		require.ErrorIs(t, auth.Authenticate(ctx, attempt()), stop)
	}
}

func TestJWTCharacters(t *testing.T) {
	t.Parallel()
	for assertion, ok := range map[string]bool{
		jwt:         true,
		"a.b.c.d.e": true, // encrypted
		"a.b":       false,
		"a.b.c\n":   false,
		"a.b c.d":   false,
	} {
		err := (&Assertion{Source: secret(assertion)}).Authenticate(t.Context(), attempt())
		require.Equal(t, ok, err == nil, assertion)
	}
}

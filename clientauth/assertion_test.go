package clientauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/assertion"
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
		"not the key's":            {auth: &PrivateKeyJWT{Key: named("PS512")}, listed: []string{"PS256"}, err: `an RSA key whose alg is PS512, and the server lists ["PS256"]; use another key, or set Algorithm in the ClientAuth if the list is wrong`},
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
	}{
		"default":  {PrivateKeyJWT{}, "", "https://auth.example/token"},
		"Issuer":   {PrivateKeyJWT{}, "https://issuer.example", "https://issuer.example"},
		"Audience": {PrivateKeyJWT{Audience: "https://given.example"}, "https://issuer.example", "https://given.example"},
	} {
		test.auth.Key = SignerKey(key)
		secret := &ClientSecretJWT{Audience: test.auth.Audience}
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
						"iss": "id", "sub": "id", "aud": test.audience, "iat": now - 10, "exp": now + 50,
					}, claims)
					require.Equal(t, TypeJWTBearer, attempt.Form.Get("client_assertion_type"))
				})
			})
		}
	}
}

// sign makes an assertion and returns its header and its claims.
func sign(t *testing.T, auth clientcredentials.ClientAuth) (header, claims map[string]any) {
	t.Helper()
	attempt := attempt()
	attempt.ClientSecret = longSecret
	require.NoError(t, auth.Authenticate(t.Context(), attempt))
	return decode(t, attempt.Form.Get("client_assertion"))
}

// returning returns a function for the field Claims.
func returning(claims map[string]any) func(context.Context) (map[string]any, error) {
	return func(context.Context) (map[string]any, error) { return claims, nil }
}

// An assertion contains the claims and the parameters of the header that a program adds.
func TestA1_ClaimsAndHeader(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	type list = []any
	for name, test := range map[string]struct {
		claims  map[string]any
		replace []string
		want    map[string]any // in addition to, or instead of, the claims of the library
	}{
		"none":          {nil, nil, nil},
		"more claims":   {map[string]any{"tenant": "t", "nested": map[string]list{"a": {1, nil}}}, nil, map[string]any{"tenant": "t", "nested": map[string]any{"a": list{1.0, nil}}}},
		"nbf":           {map[string]any{"nbf": 1}, nil, map[string]any{"nbf": 1.0}},
		"raw JSON":      {map[string]any{"a": json.RawMessage(`{"b": 1}`)}, nil, map[string]any{"a": map[string]any{"b": 1.0}}},
		"any text":      {map[string]any{"a": `\ufffd \\ufffd <&> ` + "\ufffd\u2028"}, nil, map[string]any{"a": `\ufffd \\ufffd <&> ` + "\ufffd\u2028"}},
		"aud as a list": {map[string]any{"aud": []string{"a", "b"}}, []string{"aud"}, map[string]any{"aud": list{"a", "b"}}},
		"another sub":   {map[string]any{"sub": "other", "iss": "issuer"}, []string{"sub", "iss"}, map[string]any{"sub": "other", "iss": "issuer"}},
		"other times":   {map[string]any{"iat": 1, "exp": 2, "jti": "x"}, assertion.OwnClaims, map[string]any{"iat": 1.0, "exp": 2.0, "jti": "x"}},
		"not returned":  {map[string]any{"a": true}, assertion.OwnClaims, map[string]any{"a": true}},
		"similar names": {map[string]any{"isss": 1, "x-sub": 2, "": 3}, nil, map[string]any{"isss": 1.0, "x-sub": 2.0, "": 3.0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := maps.Clone(test.claims)
			added := map[string]any{"x5u": "https://example.com/chain", "vendor": list{1}}
			for _, auth := range []clientcredentials.ClientAuth{
				&PrivateKeyJWT{Key: SignerKey(key), Claims: returning(test.claims), Replace: test.replace, Header: added},
				&ClientSecretJWT{Claims: returning(test.claims), Replace: test.replace, Header: added},
			} {
				header, claims := sign(t, auth)
				require.Equal(t, list{"https://example.com/chain", list{1.0}, "JWT"}, list{header["x5u"], header["vendor"], header["typ"]})
				require.Len(t, header, 4)
				want := map[string]any{"iss": "id", "sub": "id", "aud": "https://auth.example/token", "iat": claims["iat"], "exp": claims["exp"], "jti": claims["jti"]}
				maps.Copy(want, test.want)
				require.Equal(t, want, claims)
				for _, name := range assertion.OwnClaims {
					require.NotNil(t, claims[name])
				}
			}
			require.Equal(t, before, test.claims, "the program's map is its own")
		})
	}
}

// A program can't replace by accident what the library sets, and nothing is sent if JSON
// can't represent a value. The error doesn't contain the value.
func TestA2_ClaimsAndHeaderRefused(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	broken := errors.New("the vault is sealed")
	mistakes := []mistake{
		{"Claims fails", &PrivateKeyJWT{Key: SignerKey(key), Claims: func(context.Context) (map[string]any, error) { return nil, broken }}, nil, broken.Error()},
		{"Replace of a parameter", &PrivateKeyJWT{Key: SignerKey(key), Replace: []string{"alg"}}, nil, `the Replace of the ClientAuth lists "alg"; it may list only iss, sub, aud, exp, iat, jti`},
		{"Replace of a claim that nobody sets", &ClientSecretJWT{Secret: secret(longSecret), Replace: []string{"aud", "scope"}}, nil, `the Replace of the ClientAuth lists "scope"`},
		{"Replace of a name with another case", &ClientSecretJWT{Secret: secret(longSecret), Replace: []string{"Sub"}}, nil, `the Replace of the ClientAuth lists "Sub"`},
		{"Replace of something long", &ClientSecretJWT{Secret: secret(longSecret), Replace: []string{strings.Repeat("x", 99)}}, nil, `the Replace of the ClientAuth lists "` + strings.Repeat("x", 45)},
	}
	add := func(name string, claims, header map[string]any, err string) {
		replace := []string{"exp"}
		mistakes = append(
			mistakes,
			mistake{name + ", key", &PrivateKeyJWT{Key: SignerKey(key), Claims: returning(claims), Header: header, Replace: replace}, nil, err},
			mistake{name + ", secret", &ClientSecretJWT{Secret: secret(longSecret), Claims: returning(claims), Header: header, Replace: replace}, nil, err},
		)
	}
	for _, name := range []string{"iss", "sub", "aud", "iat", "jti", "ISS", "Sub", "\u017fub", "eXp"} {
		add(name, map[string]any{"a": 1, name: canary}, nil, fmt.Sprintf("the Claims of the ClientAuth contain %q, which the library sets; remove it, or list it in Replace", name))
	}
	for _, name := range []string{"alg", "typ", "kid", "x5c", "x5t", "x5t#S256", "crit", "b64", "ALG", "Kid", "\u212aid", "X5T"} {
		add(name, nil, map[string]any{"a": 1, name: canary}, fmt.Sprintf("the Header of the ClientAuth contains %q, which it can't set; remove it", name))
	}
	for name, value := range map[string]any{
		"a function": func() string { return canary }, "a channel": make(chan int), "no number": math.NaN(), "infinite": math.Inf(-1),
		"a number that isn't one": json.Number(canary), "raw and damaged": json.RawMessage(`{"` + canary), "nested": []any{map[string]any{"b": json.Number(canary)}},
		"an own encoding": failingMarshaler{}, "not UTF-8": canary + "\xff", "not UTF-8 inside": []string{`\` + "\xc3"}, "a map with other keys": map[struct{}]string{{}: canary},
	} {
		want := fmt.Sprintf(`"a" in the Claims of the ClientAuth can't be written as JSON; check its value, which is of type %T`, value)
		add(name, map[string]any{"a": value}, nil, want)
		add(name+" in Header", nil, map[string]any{"a": value}, strings.Replace(want, "the Claims", "the Header", 1))
	}
	add("a name that isn't UTF-8", map[string]any{"a\xff": 1}, nil, `"a\xff" in the Claims of the ClientAuth can't be written as JSON`)
	for _, m := range mistakes {
		m.run(t, broken, canary)
	}
}

type failingMarshaler struct{}

func (failingMarshaler) MarshalJSON() ([]byte, error) { return nil, errors.New(canary) }

// The server learns by which certificate it knows the client.
func TestA3_CertificateHeader(t *testing.T) {
	t.Parallel()
	root := testkit.CA("root")
	between := testkit.NewCertificate(x509.Certificate{IsCA: true, BasicConstraintsValid: true, Subject: pkix.Name{CommonName: "between"}}, root, nil)
	own := testkit.NewCertificate(x509.Certificate{Subject: pkix.Name{CommonName: "own"}}, between, nil)
	stranger, self := testkit.CA("stranger"), newValidPair()
	pem := func(certificates ...*tls.Certificate) (all string) {
		for _, c := range certificates {
			all += testkit.CertificatePEM(c)
		}
		return all
	}
	type list = []any
	base64Of := func(certificates ...*tls.Certificate) (all list) {
		for _, c := range certificates {
			all = append(all, base64.StdEncoding.EncodeToString(c.Leaf.Raw))
		}
		return all
	}
	read := func(text string) KeySource {
		return CertificateKey(CertificateFiles(file(t, text), file(t, testkit.KeyPEM(own.PrivateKey))))
	}
	sha1Of := func(c *tls.Certificate) string {
		if testkit.FIPSOnly() {
			return ""
		}
		sum := sha1.Sum(c.Leaf.Raw)
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}
	sha256Of := jws.Digest(own.Leaf.Raw)
	for name, test := range map[string]struct {
		key  KeySource
		list []string
		want map[string]any
	}{
		"default":          {read(pem(own, between)), nil, map[string]any{"x5t#S256": sha256Of}},
		"empty":            {read(pem(own, between)), []string{}, map[string]any{"x5t#S256": sha256Of}},
		"without a chain":  {read(pem(own)), []string{"x5c"}, map[string]any{"x5c": base64Of(own)}},
		"without the root": {read(pem(own, between)), []string{"x5c"}, map[string]any{"x5c": base64Of(own, between)}},
		"with the root":    {read(pem(own, between, root)), []string{"x5c"}, map[string]any{"x5c": base64Of(own, between, root)}},
		"root first":       {read(pem(root, between, own)), []string{"x5c"}, map[string]any{"x5c": base64Of(own, between, root)}},
		"in between":       {read(pem(between, own, root)), []string{"x5c"}, map[string]any{"x5c": base64Of(own, between, root)}},
		"others beside":    {read(pem(stranger, own, between)), []string{"x5c"}, map[string]any{"x5c": base64Of(own, between)}},
		"twice":            {read(pem(own, between, own, between, root, root)), []string{"x5c"}, map[string]any{"x5c": base64Of(own, between, root)}},
		"a gap":            {read(pem(own, root)), []string{"x5c"}, map[string]any{"x5c": base64Of(own)}},
		"self-signed":      {CertificateKey(certificate(self.Certificate)), []string{"x5c"}, map[string]any{"x5c": base64Of(self.Certificate)}},
		"both":             {read(pem(own)), []string{"x5c", "x5t#S256"}, map[string]any{"x5c": base64Of(own), "x5t#S256": sha256Of}},
		"SHA-1":            {read(pem(own)), []string{"x5t"}, map[string]any{"x5t": sha1Of(own)}},
		"all":              {read(pem(own)), []string{"x5t", "x5c", "x5t#S256", "x5t"}, map[string]any{"x5t": sha1Of(own), "x5c": base64Of(own), "x5t#S256": sha256Of}},
		"the program's chain": {func(context.Context) (*SigningKey, error) {
			return &SigningKey{Signer: own.PrivateKey.(crypto.Signer), Certificate: own.Leaf, Chain: [][]byte{{0xff, 0xff}}}, nil
		}, []string{"x5c"}, map[string]any{"x5c": append(base64Of(own), "//8=")}},
		"kinds that x509 lacks": {CertificateKey(certificate(&tls.Certificate{Certificate: [][]byte{own.Leaf.Raw, {0x30}, between.Leaf.Raw}, PrivateKey: own.PrivateKey})), []string{"x5c"}, map[string]any{"x5c": list{base64Of(own)[0], "MA==", base64Of(between)[0]}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, ok := test.want["x5t"]; ok && testkit.FIPSOnly() {
				mistake{"FIPS", &PrivateKeyJWT{Key: test.key, CertificateHeader: test.list}, nil, "x5t needs SHA-1, which GODEBUG=fips140=only forbids; list x5t#S256 or x5c"}.run(t, errors.New("none"))
				return
			}
			header, _ := sign(t, &PrivateKeyJWT{Key: test.key, CertificateHeader: test.list})
			test.want["alg"], test.want["typ"] = "ES256", "JWT"
			require.Equal(t, test.want, header)
		})
	}
	for _, m := range []mistake{
		{"no certificate", &PrivateKeyJWT{Key: SignerKey(own.PrivateKey.(crypto.Signer)), CertificateHeader: []string{"x5c"}}, nil, "CertificateHeader is set, but the key has no certificate; use CertificateKey for Key"},
		{"unknown", &PrivateKeyJWT{Key: read(pem(own)), CertificateHeader: []string{"x5t", "x5u"}[1:]}, nil, `CertificateHeader lists "x5u"; it may list x5c, x5t and x5t#S256`},
		{"another certificate", &PrivateKeyJWT{Key: CertificateKey(certificate(&tls.Certificate{Certificate: self.Certificate.Certificate, PrivateKey: own.PrivateKey}))}, nil, "the private key belongs to another certificate; give the certificate and the key that belong together"},
	} {
		m.run(t, errors.New("none"), keyCanaries(own.PrivateKey.(*ecdsa.PrivateKey), testkit.KeyPEM(own.PrivateKey))...)
	}
}

// An authority that has replaced its key has two certificates with the same name, and
// authorities may certify each other.
func TestA3_Authorities(t *testing.T) {
	t.Parallel()
	authority := func(name string, issuer *tls.Certificate, key crypto.Signer, id ...byte) *tls.Certificate {
		return testkit.NewCertificate(x509.Certificate{IsCA: true, BasicConstraintsValid: true, Subject: pkix.Name{CommonName: name}, SubjectKeyId: id}, issuer, key)
	}
	older, newer := authority("a", nil, nil, 1), authority("a", nil, nil, 2)
	b := authority("b", newer, nil)
	newerByB := authority("a", b, newer.PrivateKey.(crypto.Signer), 2)
	for _, test := range []struct{ file, want []*tls.Certificate }{
		{[]*tls.Certificate{older, newer}, []*tls.Certificate{newer}},
		{[]*tls.Certificate{newer, older}, []*tls.Certificate{newer}},
		{[]*tls.Certificate{b, newerByB}, []*tls.Certificate{newerByB, b}},
	} {
		own := *testkit.NewCertificate(x509.Certificate{Subject: pkix.Name{CommonName: "own"}}, newer, nil)
		for _, c := range test.file {
			own.Certificate = append(own.Certificate[:len(own.Certificate):len(own.Certificate)], c.Leaf.Raw)
		}
		chain := issuers(&own)
		require.Len(t, chain, len(test.want))
		for i, c := range test.want {
			require.True(t, bytes.Equal(c.Leaf.Raw, chain[i]))
		}
	}
}

// The iat is a bit in the past, for servers that tolerate no iat in the future. The time from
// iat to exp is never longer than Lifetime, which servers limit.
func TestA4_Backdating(t *testing.T) {
	key, _ := newKey()
	for lifetime, test := range map[time.Duration]struct{ before, after int64 }{
		0:                       {10, 50},
		time.Minute:             {10, 50},
		time.Second:             {0, 1},
		1900 * time.Millisecond: {0, 2}, // It begins half a second after a full second.
		5 * time.Second:         {0, 5},
		6 * time.Second:         {1, 5},
		10 * time.Second:        {1, 9},
		30 * time.Second:        {5, 25},
		59 * time.Second:        {9, 50},
		61 * time.Second:        {10, 51},
		5 * time.Minute:         {10, 290},
		time.Hour:               {10, 3590},
	} {
		for _, auth := range []clientcredentials.ClientAuth{
			&PrivateKeyJWT{Key: SignerKey(key), Lifetime: lifetime}, &ClientSecretJWT{Lifetime: lifetime},
		} {
			t.Run(lifetime.String()+" "+auth.Method(), func(t *testing.T) {
				testkit.Bubble(t, func(t *testing.T) {
					time.Sleep(500 * time.Millisecond)
					now := time.Now().Unix() // Rounded down.
					_, claims := sign(t, auth)
					require.Equal(t, []any{float64(now - test.before), float64(now + test.after)}, []any{claims["iat"], claims["exp"]})
				})
			})
		}
	}
}

// Servers may refuse client_id beside an assertion.
func TestA5_OmitClientID(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	for name, test := range map[string]struct {
		auth clientcredentials.ClientAuth
		sent bool
	}{
		"key":                      {&PrivateKeyJWT{Key: SignerKey(key)}, true},
		"key, omitted":             {&PrivateKeyJWT{Key: SignerKey(key), OmitClientID: true}, false},
		"secret":                   {&ClientSecretJWT{Secret: secret(longSecret)}, true},
		"secret, omitted":          {&ClientSecretJWT{Secret: secret(longSecret), OmitClientID: true}, false},
		"assertion":                {&Assertion{Source: secret(jwt)}, true},
		"assertion, omitted":       {&Assertion{Source: secret(jwt), OmitClientID: true}, false},
		"other assertion":          {&Assertion{Source: secret(jwt), Type: TypeJWTSPIFFE}, true},
		"other assertion, omitted": {&Assertion{Source: secret(jwt), Type: TypeJWTSPIFFE, OmitClientID: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cct.NewServer(cct.Client{ID: "id", Secret: longSecret, PublicKeys: []crypto.PublicKey{key.Public()}})
			t.Cleanup(srv.Close)
			_, err := config(srv, test.auth).Token(t.Context())
			if _, readyMade := test.auth.(*Assertion); !readyMade {
				require.NoError(t, err)
				require.Equal(t, "id", srv.Auth.Requests()[0].ClientID)
			}
			require.Equal(t, test.sent, srv.Auth.Requests()[0].Form.Has("client_id"))
		})
	}
}

// A certificate may be renewed for the same key. If the server refuses the old one, the
// request is repeated at once with the new one, and with new claims.
func TestA1_A6_RenewedCertificate(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	own := testkit.NewCertificate(x509.Certificate{}, nil, key)
	renewed := testkit.NewCertificate(x509.Certificate{}, nil, key)
	srv := cct.Start(t, cct.Client{ID: "id", PublicKeys: []crypto.PublicKey{key.Public()}})
	srv.Auth.Script(cct.InvalidClient())
	attempts := 0
	conf := config(srv, &PrivateKeyJWT{
		Key: CertificateKey(func(context.Context) (*tls.Certificate, error) {
			return []*tls.Certificate{own, renewed}[attempts], nil
		}),
		Claims: func(ctx context.Context) (map[string]any, error) {
			attempts++
			_, limited := ctx.Deadline()
			return map[string]any{"attempt": attempts, "limited": limited}, nil
		},
	})
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	requests := srv.Auth.Requests()
	require.Len(t, requests, 2)
	for i, certificate := range []*tls.Certificate{own, renewed} {
		a := requests[i].Assertion
		require.Equal(t, jws.Digest(certificate.Leaf.Raw), a.Header["x5t#S256"])
		require.Equal(t, []any{float64(i + 1), true}, []any{a.Claims["attempt"], a.Claims["limited"]})
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

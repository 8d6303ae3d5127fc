package jws

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// The examples of RFC 7515, Appendix A.
const (
	rfc7515Claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}"

	rfc7515Secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
	rfc7515HS256  = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

	rfc7515RSAPublic  = `"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"`
	rfc7515RSAPrivate = `"d":"Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ"`
	rfc7515RSAPrimes  = `"p":"4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc","q":"uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc"`
	rfc7515RSA        = "{" + rfc7515RSAPublic + "," + rfc7515RSAPrivate + "," + rfc7515RSAPrimes + `,"dp":"BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0","dq":"h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU","qi":"IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U"}`
	rfc7515RS256      = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"

	rfc7515P256  = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`
	rfc7515ES256 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"

	rfc7515P521  = `{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2","d":"AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxerEzgdRhajnu0ferB0d53vM9mE15j2C"}`
	rfc7515ES512 = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
)

// RFC 8037, Appendix A.
const (
	rfc8037Key   = `{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	rfc8037EdDSA = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)

// The modulus of RFC 7638, Section 3.1.
const rfc7638Modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"

// must returns v, for what a test needs before it begins.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func decode(text string) []byte { return must(base64.RawURLEncoding.DecodeString(text)) }

func parseSigner(data string) crypto.Signer { return must(ParsePrivateKey([]byte(data))).Signer }

func parseKey(data string) *Key {
	parsed := must(ParsePrivateKey([]byte(data)))
	return must(NewKey(parsed.Signer, parsed.Algorithm))
}

func TestVectors(t *testing.T) {
	t.Parallel()
	secret := must(NewSecretKey(string(decode(rfc7515Secret)), ""))
	for _, tc := range []struct {
		name              string
		key               *Key
		protected, claims string
		want              string
	}{
		{"RFC 7515, Appendix A.1", secret, "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}", rfc7515Claims, rfc7515HS256},
		{"RFC 7515, Appendix A.2", parseKey(rfc7515RSA), `{"alg":"RS256"}`, rfc7515Claims, rfc7515RS256},
		{"RFC 8037, Appendix A.4", parseKey(rfc8037Key), `{"alg":"EdDSA"}`, "Example of Ed25519 signing", rfc8037EdDSA},
	} {
		got, err := tc.key.compact([]byte(tc.protected), []byte(tc.claims))
		require.NoError(t, err, tc.name)
		require.Equal(t, tc.want, got, tc.name)
	}
	// ECDSA signatures are random. TestSign makes the same check of ours.
	verify(t, parseSigner(rfc7515P256), rfc7515ES256) // Appendix A.3
	verify(t, parseSigner(rfc7515P521), rfc7515ES512) // Appendix A.4
}

func TestThumbprint(t *testing.T) {
	t.Parallel()
	const (
		x8037 = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
		x7515 = "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk"
		y7515 = "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2" // Begins with a zero byte.
		x9449 = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"
		y9449 = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"
	)
	modulus := new(big.Int).SetBytes(decode(rfc7638Modulus))
	point := func(x, y string) *ecdsa.PublicKey {
		return must(ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, decode(x), decode(y))))
	}
	for _, tc := range []struct {
		name, want, jwk string
		public          crypto.PublicKey
	}{
		{"RFC 7638, Section 3.1", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", `{"e":"AQAB","kty":"RSA","n":"` + rfc7638Modulus + `"}`, &rsa.PublicKey{N: modulus, E: 65537}},
		{"RFC 8037, Appendix A.3", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", `{"crv":"Ed25519","kty":"OKP","x":"` + x8037 + `"}`, ed25519.PublicKey(decode(x8037))},
		{"RFC 9449, Section 4", "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", `{"crv":"P-256","kty":"EC","x":"` + x9449 + `","y":"` + y9449 + `"}`, point(x9449, y9449)},
		{"RFC 7515, Appendix A.4", "u5YUSjQ2-2chBi51NSk3t3g7IM4o2KYcnPqPtCNGd3U", `{"crv":"P-521","kty":"EC","x":"` + x7515 + `","y":"` + y7515 + `"}`, parseSigner(rfc7515P521).Public()},
	} {
		key, err := NewKey(fakeSigner{public: tc.public}, "")
		require.NoError(t, err, tc.name)
		require.Equal(t, tc.jwk, string(key.JWK()), tc.name)
		require.Equal(t, tc.want, key.Thumbprint(), tc.name)
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	rsaSigner, edwards := parseSigner(rfc7515RSA), parseSigner(rfc8037Key)
	p256, p384, p521 := parseSigner(rfc7515P256), testkit.NewKey("ES384"), parseSigner(rfc7515P521)
	for _, tc := range []struct {
		signer       crypto.Signer
		byDefault    string
		toChooseFrom []string
	}{
		{rsaSigner, "RS256", []string{"", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
		{p256, "ES256", []string{""}},
		{p384, "ES384", []string{""}},
		{p521, "ES512", []string{"", "ES512"}},
		{edwards, "EdDSA", []string{"", "Ed25519"}},
	} {
		for _, algorithm := range tc.toChooseFrom {
			for name, signer := range map[string]crypto.Signer{
				"local":   tc.signer,
				"remote":  fakeSigner{public: tc.signer.Public(), sign: tc.signer.Sign},
				"message": messageSigner{tc.signer},
			} {
				t.Run(fmt.Sprintf("%s by %q, %s", tc.byDefault, algorithm, name), func(t *testing.T) {
					t.Parallel()
					want := cmp.Or(algorithm, tc.byDefault)
					key, err := NewKey(signer, algorithm)
					require.NoError(t, err)
					require.Equal(t, want, key.Algorithm())
					compact, err := key.Sign(map[string]any{"typ": "JWT", "kid": "k", "jwk": key.JWK()}, map[string]any{"iss": "<&>"})
					require.NoError(t, err)
					header, claims := verify(t, tc.signer, compact)
					require.JSONEq(t, `{"alg":"`+want+`","typ":"JWT","kid":"k","jwk":`+string(key.JWK())+`}`, header)
					require.JSONEq(t, `{"iss":"<&>"}`, claims)
				})
			}
		}
	}
}

func TestFixedWidth(t *testing.T) {
	t.Parallel()
	der := func(r, s *big.Int) []byte { return must(asn1.Marshal(struct{ R, S *big.Int }{r, s})) }
	raw, err := fixedWidth(der(big.NewInt(1), big.NewInt(0x1234)), 4)
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 0, 1, 0, 0, 0x12, 0x34}, raw)

	one, large := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 32)
	for name, signature := range map[string][]byte{
		"garbage":         []byte("garbage"),
		"trailing":        append(der(one, one), 0),
		"r is 0":          der(new(big.Int), one),
		"s is negative":   der(one, big.NewInt(-1)),
		"r is too long":   der(large, one),
		"not the minimum": {0x30, 7, 2, 2, 0, 1, 2, 1, 1},
	} {
		_, err := fixedWidth(signature, 4)
		require.ErrorContains(t, err, "the signer's signature ", name)
	}
}

func TestHMAC(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("s", 64)
	for _, tc := range []struct {
		algorithm, want string
		size            int
	}{{"", "HS256", 32}, {"HS256", "HS256", 32}, {"HS384", "HS384", 48}, {"HS512", "HS512", 64}} {
		_, err := NewSecretKey(secret[:tc.size-1], tc.algorithm)
		require.EqualError(t, err, fmt.Sprintf("%s needs a secret of at least %d bytes (RFC 7518, Section 3.2); ask the authorization server for a longer one", tc.want, tc.size))
		key, err := NewSecretKey(secret[:tc.size], tc.algorithm)
		require.NoError(t, err)
		require.Equal(t, tc.want, key.Algorithm())
		require.Nil(t, key.JWK())
		require.Empty(t, key.Thumbprint())

		compact, err := key.Sign(map[string]any{"typ": "JWT"}, struct{}{})
		require.NoError(t, err)
		parts := strings.Split(compact, ".")
		hash := map[int]crypto.Hash{32: crypto.SHA256, 48: crypto.SHA384, 64: crypto.SHA512}[tc.size]
		mac := hmac.New(hash.New, []byte(secret[:tc.size]))
		mac.Write([]byte(parts[0] + "." + parts[1]))
		require.Equal(t, mac.Sum(nil), decode(parts[2]))
	}
	_, err := NewSecretKey(secret, "RS256")
	require.EqualError(t, err, "RS256 doesn't fit a secret; use HS256, HS384, HS512")
}

func TestSignErrors(t *testing.T) {
	t.Parallel()
	key := parseKey(rfc8037Key)
	for _, name := range []string{"alg", "crit", "b64"} {
		_, err := key.Sign(map[string]any{name: "none"}, nil)
		require.EqualError(t, err, "the caller must not set "+name+" in the header")
	}
	_, err := key.Sign(map[string]any{"x": math.NaN()}, nil)
	require.ErrorContains(t, err, "the header can't be written as JSON: ")
	_, err = key.Sign(nil, math.NaN())
	require.ErrorContains(t, err, "the claims can't be written as JSON: ")

	header := map[string]any{"typ": "JWT"}
	_, err = key.Sign(header, nil)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"typ": "JWT"}, header, "Sign must not change the caller's map")
}

func TestNewKeyErrors(t *testing.T) {
	t.Parallel()
	rsaSigner, p256 := parseSigner(rfc7515RSA), parseSigner(rfc7515P256)
	offCurve := *p256.Public().(*ecdsa.PublicKey)
	offCurve.Curve = elliptic.P384()
	mixedP256 := *p256.(*ecdsa.PrivateKey)
	mixedP256.PublicKey = testkit.NewKey("ES256").(*ecdsa.PrivateKey).PublicKey
	const (
		noPublicKey = "the signer has no public key, or an invalid one"
		badCurve    = "the ECDSA key's curve must be P-256, P-384 or P-521"
	)
	public := func(key crypto.PublicKey) crypto.Signer { return fakeSigner{public: key} }
	for _, tc := range []struct {
		name            string
		signer          crypto.Signer
		algorithm, want string
	}{
		{"no signer", nil, "", "there is no signer"},
		{"nil pointer", (*ecdsa.PrivateKey)(nil), "", noPublicKey},
		{"no public key", public(nil), "", noPublicKey},
		{"RSA without N", public(&rsa.PublicKey{E: 3}), "", noPublicKey},
		{"not on the curve", public(&offCurve), "", noPublicKey},
		{"short Ed25519", public(ed25519.PublicKey("short")), "", noPublicKey},
		{"P-224", must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), "", badCurve},
		{"another type", public("secret"), "", "the signer's public key is a string; use RSA, ECDSA or Ed25519"},
		{"2047 bits", public(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 65537}), "", "the RSA key has 2047 bits; use at least 2048"},
		{"RSA, but ES256", rsaSigner, "ES256", "ES256 doesn't fit an RSA key; use RS256, RS384, RS512, PS256, PS384, PS512"},
		{"none", p256, "none", "the algorithm doesn't fit a P-256 key; use ES256"},
		{"parts of two P-256 keys", &mixedP256, "", "the signer's public key doesn't verify its signature with ES256; check that both belong to the same key, and that the signer supports the algorithm"},
	} {
		key, err := NewKey(tc.signer, tc.algorithm)
		require.ErrorContains(t, err, tc.want, tc.name)
		require.Nil(t, key, tc.name)
	}
}

// A server's metadata may list the algorithms that it accepts.
func TestK7_ListedAlgorithms(t *testing.T) {
	t.Parallel()
	rsaSigner, p256, edwards := parseSigner(rfc7515RSA), parseSigner(rfc7515P256), parseSigner(rfc8037Key)
	for _, tc := range []struct {
		name      string
		signer    crypto.Signer // nil: a secret
		algorithm string
		listed    []string
		want, err string
	}{
		{"the default is listed", rsaSigner, "", []string{"PS256", "RS256"}, "RS256", ""},
		{"another is listed", rsaSigner, "", []string{"ES256", "PS256"}, "PS256", ""},
		{"the last is listed", rsaSigner, "", []string{"none", "HS256", "PS512"}, "PS512", ""},
		{"not listed", rsaSigner, "", []string{"ES256", "EdDSA"}, "", `no algorithm of the key is listed in the server's metadata: an RSA key signs with RS256, RS384, RS512, PS256, PS384, PS512, and the server lists ["ES256" "EdDSA"]; use another key`},
		{"another curve", p256, "", []string{"ES384", "ES512"}, "", `a P-256 key signs with ES256, and the server lists ["ES384" "ES512"]`},
		{"letter case", p256, "", []string{"es256"}, "", `lists ["es256"]`},
		{"hostile list", p256, "", []string{strings.Repeat("\x1b[2J", 100)}, "", `lists ["\x1b[2J`},
		{"the key's own", rsaSigner, "PS384", []string{"RS256", "PS384"}, "PS384", ""},
		{"not the key's own", rsaSigner, "PS384", []string{"RS256"}, "", `no algorithm of the key is listed in the server's metadata: an RSA key whose alg is PS384, and the server lists ["RS256"]; use another key`},
		{"neither name", edwards, "EdDSA", []string{"RS256"}, "", `an Ed25519 key signs with EdDSA, Ed25519, and the server lists ["RS256"]; use another key`},
		{"older name", edwards, "", []string{"Ed25519", "EdDSA"}, "EdDSA", ""},
		{"newer name", edwards, "", []string{"Ed25519"}, "Ed25519", ""},
		{"the key's newer name", edwards, "Ed25519", []string{"EdDSA", "Ed25519"}, "Ed25519", ""},
		{"the key has the newer name only", edwards, "Ed25519", []string{"EdDSA"}, "EdDSA", ""},
		{"a key that doesn't fit its alg", edwards, "RS256", []string{"EdDSA"}, "", "RS256 doesn't fit an Ed25519 key; use EdDSA, Ed25519"},
		{"a secret", nil, "", []string{"RS256", "HS384"}, "HS384", ""},
		{"a secret that is too short", nil, "", []string{"HS512"}, "", "HS512 needs a secret of at least 64 bytes"},
		{"no secret", nil, "", []string{"RS256"}, "", `a secret signs with HS256, HS384, HS512, and the server lists ["RS256"]`},
	} {
		key, err := NewSecretKey(strings.Repeat("s", 48), tc.algorithm, tc.listed...)
		if tc.signer != nil {
			key, err = NewKey(tc.signer, tc.algorithm, tc.listed...)
		}
		if tc.err != "" {
			require.ErrorContains(t, err, tc.err, tc.name)
			require.Less(t, len(err.Error()), 500, tc.name)
			require.NotContains(t, err.Error(), "\x1b", tc.name)
			continue
		}
		require.NoError(t, err, tc.name)
		require.Equal(t, tc.want, key.Algorithm(), tc.name)
	}
}

// Whatever a signer does, Sign returns a valid JWS or an error.
func TestBadSigners(t *testing.T) {
	t.Parallel()
	rsaSigner, p256, edwards := parseSigner(rfc7515RSA), parseSigner(rfc7515P256), parseSigner(rfc8037Key)
	cause := errors.New("the HSM is on fire")
	returns := func(signature []byte) signFunc {
		return func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return signature, nil }
	}
	order := elliptic.P256().Params().N
	outOfRange := must(asn1.Marshal(struct{ R, S *big.Int }{order, big.NewInt(1)}))
	for _, tc := range []struct {
		name      string
		like      crypto.Signer
		algorithm string
		sign      signFunc
		want      string
	}{
		{"an error", p256, "", func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return []byte("s"), cause }, "the signer failed: the HSM is on fire"},
		{"a panic", p256, "", func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("s3cr3t") }, "the signer panicked with a value of type string"},
		{"ECDSA, r||s", p256, "", returns(make([]byte, 64)), "isn't two numbers in ASN.1"},
		{"ECDSA, out of range", p256, "", returns(outOfRange), "doesn't verify its signature with ES256"},
		{"Ed25519, garbage", edwards, "", returns(make([]byte, 64)), "doesn't verify its signature with EdDSA"},
		{"another salt length", rsaSigner, "PS256", func(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
			return rsaSigner.Sign(random, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: opts.HashFunc()})
		}, "doesn't verify its signature with PS256"},
		{"another key", p256, "", testkit.NewKey("ES256").Sign, "doesn't verify its signature with ES256"},
	} {
		key, err := NewKey(fakeSigner{public: tc.like.Public(), sign: tc.sign}, tc.algorithm)
		require.NoError(t, err, tc.name)
		compact, err := key.Sign(nil, nil)
		require.ErrorContains(t, err, tc.want, tc.name)
		require.Empty(t, compact, tc.name)
		require.NotContains(t, err.Error(), "s3cr3t", tc.name)
		require.Equal(t, tc.name == "an error", errors.Is(err, cause), tc.name)
	}
}

// A Key, or the result of ParsePrivateKey, may end up in a log.
func TestKeysAreNotPrinted(t *testing.T) {
	t.Parallel()
	const canary = "s3cr3t-Canary-that-is-long-enough"
	secret, edwards := must(NewSecretKey(canary, "")), must(ParsePrivateKey([]byte(rfc8037Key)))
	seed := edwards.Signer.(ed25519.PrivateKey).Seed()
	forbidden := []string{canary, "nWGxne", encode(seed), base64.StdEncoding.EncodeToString(seed[:9]), fmt.Sprintf("%x", seed[:9])}
	for _, bytes := range [][]byte{[]byte(canary), seed} {
		forbidden = append(forbidden, strings.Trim(fmt.Sprintf("%d", bytes[:9]), "[]"), strings.Trim(fmt.Sprintf("%#v", bytes[:9]), "[]byte{}"))
	}
	for _, value := range []any{secret, *secret, parseKey(rfc8037Key), edwards, &edwards} {
		text := fmt.Sprintf("%v %+[1]v %#[1]v %[1]s %[1]q %[1]x %[1]d %[2]s", value, must(json.Marshal(value)))
		for _, part := range forbidden {
			require.NotContains(t, text, part)
		}
	}
}

// verify checks a JWS with the standard library only, and returns its parts.
func verify(t testing.TB, signer crypto.Signer, compact string) (header, claims string) {
	t.Helper()
	parts := strings.Split(compact, ".")
	require.Len(t, parts, 3)
	header = string(decode(parts[0]))
	var members struct{ Alg string }
	require.NoError(t, json.Unmarshal([]byte(header), &members))
	message, signature := []byte(parts[0]+"."+parts[1]), decode(parts[2])
	if public, ok := signer.Public().(ed25519.PublicKey); ok {
		require.True(t, ed25519.Verify(public, message, signature))
		return header, string(decode(parts[1]))
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[members.Alg[2:]]
	h := hash.New()
	h.Write(message)
	digest := h.Sum(nil)
	switch public := signer.Public().(type) {
	case *rsa.PublicKey:
		if members.Alg[0] == 'P' {
			require.NoError(t, rsa.VerifyPSS(public, hash, digest, signature, &rsa.PSSOptions{SaltLength: hash.Size()}))
		} else {
			require.NoError(t, rsa.VerifyPKCS1v15(public, hash, digest, signature))
		}
	case *ecdsa.PublicKey:
		size := map[string]int{"ES256": 32, "ES384": 48, "ES512": 66}[members.Alg]
		require.Len(t, signature, 2*size)
		require.True(t, ecdsa.Verify(public, digest, new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])))
	default:
		require.Fail(t, "a key of another type")
	}
	return header, string(decode(parts[1]))
}

type signFunc func(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)

// A fakeSigner stands for a signer in another process.
type fakeSigner struct {
	public crypto.PublicKey
	sign   signFunc
}

func (s fakeSigner) Public() crypto.PublicKey { return s.public }

func (s fakeSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.sign(random, digest, opts)
}

// A messageSigner signs whole messages only, as some services do.
type messageSigner struct{ crypto.Signer }

func (s messageSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("give me the message")
}

func (s messageSigner) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return crypto.SignMessage(s.Signer, random, message, opts)
}

func BenchmarkSign(b *testing.B) {
	claims := map[string]any{"iss": "client", "sub": "client", "aud": "https://login.example.com", "jti": rand.Text(), "iat": 1_700_000_000, "exp": 1_700_000_060}
	for _, bench := range []struct{ algorithm, key string }{{"RS256", rfc7515RSA}, {"PS256", rfc7515RSA}, {"ES256", rfc7515P256}, {"ES512", rfc7515P521}, {"EdDSA", rfc8037Key}} {
		signer := parseSigner(bench.key)
		for name, signer := range map[string]crypto.Signer{"local": signer, "verified": fakeSigner{public: signer.Public(), sign: signer.Sign}} {
			b.Run(bench.algorithm+"/"+name, func(b *testing.B) {
				key := must(NewKey(signer, bench.algorithm))
				b.ReportAllocs()
				for b.Loop() {
					must(key.Sign(map[string]any{"typ": "JWT"}, claims))
				}
			})
		}
	}
}

package jws

import (
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
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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

func decode(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	return b
}

func parseKey(t testing.TB, data string) *Key {
	t.Helper()
	parsed, err := ParsePrivateKey([]byte(data))
	require.NoError(t, err)
	key, err := NewKey(parsed.Signer, parsed.Algorithm)
	require.NoError(t, err)
	return key
}

// Those whose signature depends on nothing but the key and the message.
func TestVectors(t *testing.T) {
	t.Parallel()
	secret, err := NewSecretKey(string(decode(t, rfc7515Secret)), "")
	require.NoError(t, err)
	for _, tc := range []struct {
		name              string
		key               *Key
		protected, claims string
		want              string
	}{
		{"RFC 7515, Appendix A.1", secret, "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}", rfc7515Claims, rfc7515HS256},
		{"RFC 7515, Appendix A.2", parseKey(t, rfc7515RSA), `{"alg":"RS256"}`, rfc7515Claims, rfc7515RS256},
		{"without primes", parseKey(t, "{"+rfc7515RSAPublic+","+rfc7515RSAPrivate+"}"), `{"alg":"RS256"}`, rfc7515Claims, rfc7515RS256},
		{"RFC 8037, Appendix A.4", parseKey(t, rfc8037Key), `{"alg":"EdDSA"}`, "Example of Ed25519 signing", rfc8037EdDSA},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := tc.key.compact([]byte(tc.protected), []byte(tc.claims))
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

// RFC 7515, Appendices A.3 and A.4: what verifies our signatures verifies theirs.
func TestVectorsECDSA(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ key, jws string }{{rfc7515P256, rfc7515ES256}, {rfc7515P521, rfc7515ES512}} {
		parsed, err := ParsePrivateKey([]byte(tc.key))
		require.NoError(t, err)
		verify(t, parsed.Signer, tc.jws)

		key, err := NewKey(parsed.Signer, "")
		require.NoError(t, err)
		parts := strings.Split(tc.jws, ".")
		ours, err := key.compact(decode(t, parts[0]), decode(t, parts[1]))
		require.NoError(t, err)
		verify(t, parsed.Signer, ours)
	}
}

func TestThumbprint(t *testing.T) {
	t.Parallel()
	modulus := new(big.Int).SetBytes(decode(t, rfc7638Modulus))
	point := func(x, y string) *ecdsa.PublicKey {
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, decode(t, x)...), decode(t, y)...))
		require.NoError(t, err)
		return public
	}
	for _, tc := range []struct {
		name   string
		public crypto.PublicKey
		want   string
		jwk    string
	}{
		{
			"RFC 7638, Section 3.1", &rsa.PublicKey{N: modulus, E: 65537}, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
			`{"e":"AQAB","kty":"RSA","n":"` + rfc7638Modulus + `"}`,
		},
		{
			"RFC 8037, Appendix A.3", ed25519.PublicKey(decode(t, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
			`{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		},
		{
			"RFC 9449, Section 4", point("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
			`{"crv":"P-256","kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			key, err := NewKey(fakeSigner{public: tc.public}, "")
			require.NoError(t, err)
			require.Equal(t, tc.jwk, string(key.JWK()))
			require.Equal(t, tc.want, key.Thumbprint())
		})
	}
}

// The scalars of small multiples of the base point whose coordinates begin with a
// zero: the JWK has them in full width.
func TestPaddedCoordinates(t *testing.T) {
	t.Parallel()
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		size := (curve.Params().BitSize + 7) / 8
		var short [2]bool
		for scalar := int64(1); !short[0] || !short[1]; scalar++ {
			require.Less(t, scalar, int64(10_000))
			signer, err := ecdsa.ParseRawPrivateKey(curve, big.NewInt(scalar).FillBytes(make([]byte, size)))
			require.NoError(t, err)
			point, err := signer.PublicKey.Bytes()
			require.NoError(t, err)
			x, y := point[1:1+size], point[1+size:]
			if x[0] != 0 && y[0] != 0 {
				continue
			}
			short[0], short[1] = short[0] || x[0] == 0, short[1] || y[0] == 0
			key, err := NewKey(signer, "")
			require.NoError(t, err)
			var members map[string]string
			require.NoError(t, json.Unmarshal(key.JWK(), &members))
			require.Equal(t, x, decode(t, members["x"]))
			require.Equal(t, y, decode(t, members["y"]))
		}
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	rsaSigner := parseSigner(t, rfc7515RSA)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	p256, p521, edwards := parseSigner(t, rfc7515P256), parseSigner(t, rfc7515P521), parseSigner(t, rfc8037Key)
	for _, tc := range []struct {
		signer    crypto.Signer
		algorithm string
		want      string
	}{
		{rsaSigner, "", "RS256"},
		{rsaSigner, "RS256", "RS256"},
		{rsaSigner, "RS384", "RS384"},
		{rsaSigner, "RS512", "RS512"},
		{rsaSigner, "PS256", "PS256"},
		{rsaSigner, "PS384", "PS384"},
		{rsaSigner, "PS512", "PS512"},
		{p256, "", "ES256"},
		{p384, "", "ES384"},
		{p521, "", "ES512"},
		{p521, "ES512", "ES512"},
		{edwards, "", "EdDSA"},
		{edwards, "Ed25519", "Ed25519"},
	} {
		for name, signer := range map[string]crypto.Signer{
			"local":   tc.signer,
			"remote":  fakeSigner{public: tc.signer.Public(), sign: tc.signer.Sign},
			"message": messageSigner{tc.signer},
		} {
			t.Run(fmt.Sprintf("%s by %q, %s", tc.want, tc.algorithm, name), func(t *testing.T) {
				t.Parallel()
				key, err := NewKey(signer, tc.algorithm)
				require.NoError(t, err)
				require.Equal(t, tc.want, key.Algorithm())
				compact, err := key.Sign(map[string]any{"typ": "JWT", "kid": "k", "jwk": key.JWK()}, map[string]any{"iss": "<&>"})
				require.NoError(t, err)
				header, claims := verify(t, tc.signer, compact)
				require.JSONEq(t, `{"alg":"`+tc.want+`","typ":"JWT","kid":"k","jwk":`+string(key.JWK())+`}`, header)
				require.JSONEq(t, `{"iss":"<&>"}`, claims)
			})
		}
	}
}

// A fixed signature length, whatever r and s are. Of 1,000 signatures about 8 have
// one that begins with a zero byte.
func TestSignatureLength(t *testing.T) {
	t.Parallel()
	key := parseKey(t, rfc7515P256)
	for range 1000 {
		compact, err := key.Sign(nil, nil)
		require.NoError(t, err)
		require.Len(t, decode(t, strings.Split(compact, ".")[2]), 64)
	}
}

func TestFixedWidth(t *testing.T) {
	t.Parallel()
	der := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		require.NoError(t, err)
		return b
	}
	raw, err := fixedWidth(der(big.NewInt(1), big.NewInt(0x1234)), 4)
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 0, 1, 0, 0, 0x12, 0x34}, raw)

	one, large := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 32)
	for name, signature := range map[string][]byte{
		"empty":           nil,
		"garbage":         []byte("garbage"),
		"r||s":            {0, 0, 0, 1, 0, 0, 0, 1},
		"trailing":        append(der(one, one), 0),
		"r is 0":          der(new(big.Int), one),
		"s is 0":          der(one, new(big.Int)),
		"r is negative":   der(big.NewInt(-1), one),
		"s is negative":   der(one, big.NewInt(-1)),
		"r is too long":   der(large, one),
		"s is too long":   der(one, large),
		"s is missing":    {0x30, 3, 2, 1, 1},
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
		message, signature, _ := cutLast(compact)
		hash := map[int]crypto.Hash{32: crypto.SHA256, 48: crypto.SHA384, 64: crypto.SHA512}[tc.size]
		mac := hmac.New(hash.New, []byte(secret[:tc.size]))
		mac.Write([]byte(message))
		require.Equal(t, mac.Sum(nil), decode(t, signature))
	}
	_, err := NewSecretKey(secret, "RS256")
	require.EqualError(t, err, "RS256 doesn't fit a secret; use HS256, HS384, HS512")
}

func TestSignErrors(t *testing.T) {
	t.Parallel()
	key := parseKey(t, rfc8037Key)
	for _, name := range []string{"alg", "crit", "b64"} {
		_, err := key.Sign(map[string]any{name: "none"}, nil)
		require.EqualError(t, err, "the header's "+name+" isn't the caller's to set")
	}
	_, err := key.Sign(map[string]any{"x": math.NaN()}, nil)
	require.ErrorContains(t, err, "the header can't be written as JSON: ")
	_, err = key.Sign(nil, math.NaN())
	require.ErrorContains(t, err, "the claims can't be written as JSON: ")

	header := map[string]any{"typ": "JWT"}
	_, err = key.Sign(header, nil)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"typ": "JWT"}, header, "it is the caller's")
}

func TestNewKeyErrors(t *testing.T) {
	t.Parallel()
	rsaSigner, p256 := parseSigner(t, rfc7515RSA), parseSigner(t, rfc7515P256)
	edwards := parseSigner(t, rfc8037Key).(ed25519.PrivateKey)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	offCurve := *p256.Public().(*ecdsa.PublicKey)
	offCurve.Curve = elliptic.P384()
	otherRSA, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	otherP256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	mixedP256 := *p256.(*ecdsa.PrivateKey)
	mixedP256.PublicKey = otherP256.PublicKey
	mixedRSA := rsa.PrivateKey{PublicKey: otherRSA.PublicKey, D: rsaSigner.(*rsa.PrivateKey).D}
	mixedEdwards := append(ed25519.PrivateKey(nil), edwards...)
	mixedEdwards[63] ^= 1
	const noPublicKey = "the signer has no public key, or a broken one"
	public := func(key crypto.PublicKey) crypto.Signer { return fakeSigner{public: key} }
	for _, tc := range []struct {
		name      string
		signer    crypto.Signer
		algorithm string
		want      string
	}{
		{"no signer", nil, "", "there is no signer"},
		{"nil pointer", (*ecdsa.PrivateKey)(nil), "", noPublicKey},
		{"empty Ed25519", ed25519.PrivateKey(nil), "", noPublicKey},
		{"Public panics", panickingPublic{}, "", noPublicKey},
		{"no public key", public(nil), "", noPublicKey},
		{"nil RSA", public((*rsa.PublicKey)(nil)), "", noPublicKey},
		{"nil ECDSA", public((*ecdsa.PublicKey)(nil)), "", noPublicKey},
		{"RSA without N", public(&rsa.PublicKey{E: 3}), "", noPublicKey},
		{"ECDSA without a point", public(&ecdsa.PublicKey{Curve: elliptic.P256()}), "", noPublicKey},
		{"not on the curve", public(&offCurve), "", noPublicKey},
		{"short Ed25519", public(ed25519.PublicKey("short")), "", noPublicKey},
		{"ECDSA without a curve", public(&ecdsa.PublicKey{}), "", "the ECDSA key's curve is none of P-256, P-384 and P-521"},
		{"P-224", p224, "", "the ECDSA key's curve is none of P-256, P-384 and P-521"},
		{"another type", public("secret"), "", "the signer's public key is a string; use RSA, ECDSA or Ed25519"},
		{"not a pointer", public(rsa.PublicKey{}), "", "the signer's public key is a rsa.PublicKey; use RSA, ECDSA or Ed25519"},
		{"2047 bits", public(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 65537}), "", "the RSA key has 2047 bits; use at least 2048"},
		{"RSA, but ES256", rsaSigner, "ES256", "ES256 doesn't fit an RSA key; use RS256, RS384, RS512, PS256, PS384, PS512"},
		{"P-256, but ES384", p256, "ES384", "ES384 doesn't fit a P-256 key; use ES256"},
		{"P-521, but ES256", parseSigner(t, rfc7515P521), "ES256", "ES256 doesn't fit a P-521 key; use ES512"},
		{"Ed25519, but RS256", edwards, "RS256", "RS256 doesn't fit an Ed25519 key; use EdDSA, Ed25519"},
		{"HS256", p256, "HS256", "HS256 doesn't fit a P-256 key; use ES256"},
		{"none", p256, "none", "the algorithm doesn't fit a P-256 key; use ES256"},
		{"lower case", p256, "es256", "the algorithm doesn't fit a P-256 key; use ES256"},
		{"parts of two P-256 keys", &mixedP256, "", "the signer's signature isn't one of its public key in ES256; check that both are of the same key, and that it supports the algorithm"},
		{"parts of two Ed25519 keys", mixedEdwards, "", "the signer's signature isn't one of its public key in EdDSA; check that both are of the same key, and that it supports the algorithm"},
		{"parts of two RSA keys", &mixedRSA, "", "the signer failed: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			key, err := NewKey(tc.signer, tc.algorithm)
			require.ErrorContains(t, err, tc.want)
			require.Nil(t, key)
		})
	}
}

// Whatever a signer does, what comes of it is a valid JWS or an error.
func TestBadSigners(t *testing.T) {
	t.Parallel()
	rsaSigner, p256, edwards := parseSigner(t, rfc7515RSA), parseSigner(t, rfc7515P256), parseSigner(t, rfc8037Key)
	cause := errors.New("the HSM is on fire")
	returns := func(signature []byte) signFunc {
		return func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return signature, nil }
	}
	order := elliptic.P256().Params().N
	outOfRange, err := asn1.Marshal(struct{ R, S *big.Int }{order, big.NewInt(1)})
	require.NoError(t, err)
	for _, tc := range []struct {
		name      string
		like      crypto.Signer
		algorithm string
		sign      signFunc
		want      string
	}{
		{"an error", p256, "", func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return []byte("s"), cause }, "the signer failed: the HSM is on fire"},
		{"a panic", p256, "", func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("s3cr3t") }, "the signer panicked with a value of type string"},
		{"RSA, nothing", rsaSigner, "", returns(nil), "isn't one of its public key in RS256"},
		{"ECDSA, nothing", p256, "", returns(nil), "isn't the ASN.1 of two numbers"},
		{"Ed25519, nothing", edwards, "", returns(nil), "isn't one of its public key in EdDSA"},
		{"RSA, garbage", rsaSigner, "PS256", returns(make([]byte, 256)), "isn't one of its public key in PS256"},
		{"ECDSA, r||s", p256, "", returns(make([]byte, 64)), "isn't the ASN.1 of two numbers"},
		{"ECDSA, out of range", p256, "", returns(outOfRange), "isn't one of its public key in ES256"},
		{"Ed25519, garbage", edwards, "", returns(make([]byte, 64)), "isn't one of its public key in EdDSA"},
		{"another salt length", rsaSigner, "PS256", func(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
			return rsaSigner.Sign(random, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: opts.HashFunc()})
		}, "isn't one of its public key in PS256"},
		{"PKCS #1 v1.5 for PSS", rsaSigner, "PS256", func(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
			return rsaSigner.Sign(random, digest, opts.HashFunc())
		}, "isn't one of its public key in PS256"},
		{"another key", p256, "", func(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
			other, err := ecdsa.GenerateKey(elliptic.P256(), random)
			if err != nil {
				return nil, err
			}
			return other.Sign(random, digest, opts)
		}, "isn't one of its public key in ES256"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			key, err := NewKey(fakeSigner{public: tc.like.Public(), sign: tc.sign}, tc.algorithm)
			require.NoError(t, err)
			compact, err := key.Sign(nil, nil)
			require.ErrorContains(t, err, tc.want)
			require.Empty(t, compact)
			require.NotContains(t, err.Error(), "s3cr3t")
			require.Equal(t, tc.name == "an error", errors.Is(err, cause))
		})
	}
}

// A Key and what ParsePrivateKey returns may end up in a log.
func TestKeysAreNotPrinted(t *testing.T) {
	t.Parallel()
	const canary = "s3cr3t-Canary-that-is-long-enough"
	secret, err := NewSecretKey(canary, "")
	require.NoError(t, err)
	edwards, err := ParsePrivateKey([]byte(rfc8037Key))
	require.NoError(t, err)
	seed := edwards.Signer.(ed25519.PrivateKey).Seed()
	forbidden := []string{canary, "nWGxne", encode(seed), base64.StdEncoding.EncodeToString(seed[:9]), fmt.Sprintf("%x", seed[:9])}
	for _, bytes := range [][]byte{[]byte(canary), seed} {
		forbidden = append(forbidden, strings.Trim(fmt.Sprintf("%d", bytes[:9]), "[]"), strings.Trim(fmt.Sprintf("%#v", bytes[:9]), "[]byte{}"))
	}
	for _, value := range []any{secret, *secret, parseKey(t, rfc8037Key), edwards, &edwards} {
		var texts []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, value))
		}
		inJSON, err := json.Marshal(value)
		require.NoError(t, err)
		for _, text := range append(texts, string(inJSON)) {
			for _, part := range forbidden {
				require.NotContains(t, text, part)
			}
		}
	}
}

// verify checks a JWS with the standard library only, and returns its parts.
func verify(t testing.TB, signer crypto.Signer, compact string) (header, claims string) {
	t.Helper()
	parts := strings.Split(compact, ".")
	require.Len(t, parts, 3)
	header = string(decode(t, parts[0]))
	var members struct{ Alg string }
	require.NoError(t, json.Unmarshal([]byte(header), &members))
	message, signature := []byte(parts[0]+"."+parts[1]), decode(t, parts[2])
	if public, ok := signer.Public().(ed25519.PublicKey); ok {
		require.True(t, ed25519.Verify(public, message, signature))
		return header, string(decode(t, parts[1]))
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
	return header, string(decode(t, parts[1]))
}

func parseSigner(t testing.TB, data string) crypto.Signer {
	t.Helper()
	parsed, err := ParsePrivateKey([]byte(data))
	require.NoError(t, err)
	return parsed.Signer
}

func cutLast(compact string) (message, signature string, ok bool) {
	i := strings.LastIndexByte(compact, '.')
	return compact[:i], compact[i+1:], i > 0
}

type signFunc func(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)

// A fakeSigner stands for one that is elsewhere.
type fakeSigner struct {
	public crypto.PublicKey
	sign   signFunc
}

func (s fakeSigner) Public() crypto.PublicKey { return s.public }

func (s fakeSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.sign(random, digest, opts)
}

// A messageSigner takes whole messages only, as some services do.
type messageSigner struct{ signer crypto.Signer }

func (s messageSigner) Public() crypto.PublicKey { return s.signer.Public() }

func (s messageSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("give me the message")
}

func (s messageSigner) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return crypto.SignMessage(s.signer, random, message, opts)
}

type panickingPublic struct{ crypto.Signer }

func (panickingPublic) Public() crypto.PublicKey { panic("no connection") }

func BenchmarkSign(b *testing.B) {
	claims := map[string]any{"iss": "client", "sub": "client", "aud": "https://login.example.com", "jti": rand.Text(), "iat": 1_700_000_000, "exp": 1_700_000_060}
	for _, bench := range []struct{ algorithm, key string }{{"RS256", rfc7515RSA}, {"PS256", rfc7515RSA}, {"ES256", rfc7515P256}, {"ES512", rfc7515P521}, {"EdDSA", rfc8037Key}} {
		signer := parseSigner(b, bench.key)
		for name, signer := range map[string]crypto.Signer{"local": signer, "verified": fakeSigner{public: signer.Public(), sign: signer.Sign}} {
			b.Run(bench.algorithm+"/"+name, func(b *testing.B) {
				key, err := NewKey(signer, bench.algorithm)
				require.NoError(b, err)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := key.Sign(map[string]any{"typ": "JWT"}, claims); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

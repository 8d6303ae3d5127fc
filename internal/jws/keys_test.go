package jws

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// file returns a file that OpenSSL or OpenSSH has written.
func file(name string) string { return string(must(os.ReadFile(filepath.Join("testdata", name)))) }

func TestParsePrivateKey(t *testing.T) {
	t.Parallel()
	p256, certificate := file("p256.sec1.pem"), file("certificate.pem")
	for _, tc := range []struct {
		name, data string
		algorithm  string // the one that NewKey chooses
	}{
		{"PKCS #8, RSA", file("rsa.pkcs8.pem"), "RS256"},
		{"PKCS #8, P-384", file("secp384r1.pkcs8.pem"), "ES384"},
		{"PKCS #8, Ed25519", file("ed25519.pkcs8.pem"), "EdDSA"},
		{"PKCS #1", file("rsa.pkcs1.pem"), "RS256"},
		{"SEC 1 with parameters", p256, "ES256"},
		{"certificate first", certificate + p256, "ES256"},
		{"public key beside", p256 + file("public.pem"), "ES256"},
		{"PKCS #12 by openssl", file("bag.pem"), "ES256"},
		{"Windows", "\ufeff" + strings.ReplaceAll(p256, "\n", "\r\n"), "ES256"},
		{"JWK, RSA", rfc7515RSA, "RS256"},
		{"JWK, RSA without primes", "{" + rfc7515RSAPublic + "," + rfc7515RSAPrivate + "}", "RS256"},
		{"JWK with a BOM", "\ufeff \n" + rfc8037Key + "\n", "EdDSA"},
		{"JWK with kid and alg", with(rfc7515RSA, `"kid":"2011-04-29","alg":"PS384"`), "PS384"},
		{"JWK for signatures", with(rfc8037Key, `"use":"sig","key_ops":["verify","sign"],"x5c":[],"ext":true`), "EdDSA"},
	} {
		parsed, err := ParsePrivateKey([]byte(tc.data))
		require.NoError(t, err, tc.name)
		want := Parsed{Signer: parsed.Signer}
		if tc.name == "JWK with kid and alg" {
			want.KeyID, want.Algorithm = "2011-04-29", "PS384"
		}
		require.Equal(t, want, parsed, tc.name)
		key, err := NewKey(parsed.Signer, parsed.Algorithm)
		require.NoError(t, err, tc.name)
		require.Equal(t, tc.algorithm, key.Algorithm(), tc.name)
	}
	require.Equal(t, parseKey(file("rsa.pkcs8.pem")).Thumbprint(), parseKey(file("rsa.pkcs1.pem")).Thumbprint(), "it is one key in two formats")
}

// with adds members to a JWK.
func with(jwk, members string) string { return "{" + members + "," + jwk[1:] }

// replaced replaces the value of a JWK's member, which is a string.
func replaced(jwk, name, value string) string {
	return regexp.MustCompile(`"`+name+`":"[^"]*"`).ReplaceAllLiteralString(jwk, `"`+name+`":`+value)
}

func TestParsePrivateKeyErrors(t *testing.T) {
	t.Parallel()
	p256, certificate, encrypted := file("p256.sec1.pem"), file("certificate.pem"), file("encrypted.pkcs8.pem")
	ed25519PEM := file("ed25519.pkcs8.pem")
	block, _ := pem.Decode([]byte(ed25519PEM))
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	broken := *parseSigner(rfc7515RSA).(*rsa.PrivateKey)
	broken.PublicKey = testkit.NewKey("RS256").(*rsa.PrivateKey).PublicKey
	minimalRSA := "{" + rfc7515RSAPublic + "," + rfc7515RSAPrivate + "}"
	const (
		encryptedText = "the private key is encrypted; decrypt it first, for example with openssl pkey"
		damaged       = "the PEM is damaged; check that its line breaks are still there, and that no line is indented"
		unreadable    = "the private key can't be read; openssl pkey -check may say more: "
		noPrivate     = "there is a certificate or a public key, but no private key"
		binary        = "the data is binary and thus neither PEM nor a JWK"
		brokenJSON    = "the JWK can't be read: it isn't valid JSON"
		mismatch      = "the JWK's public part doesn't belong to its private part"
		notForSigning = "the JWK isn't for signing: see its use and key_ops; use another key"
	)
	for _, tc := range []struct{ name, data, want string }{
		{"empty", "", "the data is empty"},
		{"too large", p256 + strings.Repeat("\n", maxKeyData), "the data is larger than 64 KiB"},
		{"an array", "[" + rfc8037Key + "]", "the data is neither PEM nor a JWK"},
		{"DER", string(block.Bytes) + "\xff", binary},

		{"encrypted PKCS #8", encrypted, encryptedText},
		{"encrypted SEC 1", file("encrypted.sec1.pem"), encryptedText},
		{"two keys", p256 + ed25519PEM, "there is more than one private key"},
		{"certificate only", certificate, noPrivate},
		{"indented", "  " + strings.ReplaceAll(ed25519PEM, "\n", "\n  "), damaged},
		{`\n`, strings.ReplaceAll(p256, "\n", `\n`), `the PEM contains \n as text where its lines should end; put line breaks there`},
		{"damaged before another", strings.Replace(p256, "MHcC", "M@cC", 1) + certificate, damaged},
		{"text after", p256 + "s3cr3t", "something follows the PEM; remove it"},
		{"DER after the key", encode("PRIVATE KEY", append(bytes.Clone(block.Bytes), 0)), "something follows the private key inside its PEM block; remove it"},
		{"too large a block", encode("PRIVATE KEY", make([]byte, maxKeyDER+1)), "the private key is too large; use a smaller one"},
		{"not ASN.1", encode("PRIVATE KEY", []byte("s3cr3t")), unreadable},
		{"parts of two RSA keys", encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(&broken)), unreadable},
		{"X25519", file("x25519.pkcs8.pem"), "the private key can't sign"},
		{"OpenSSH", file("openssh.pem"), "convert it with ssh-keygen -p -m PKCS8"},
		{"another block", encode("DH PARAMETERS", block.Bytes), "the PEM block must be a PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY"},

		{"open", rfc8037Key[:len(rfc8037Key)-1], brokenJSON},
		{"text after a JWK", rfc8037Key + "s3cr3t", "the JWK can't be read: something follows it; remove that"},
		{"a member twice", with(rfc8037Key, `"kty":"OKP"`), "the JWK can't be read: one of its members appears more than once"},
		{"a set", `{"keys":[` + rfc8037Key + `]}`, "the data is a JWK set; keep only the key to sign with"},
		{"no kty", "{}", "the JWK's kty must be RSA, EC or OKP"},
		{"oct", `{"kty":"oct","k":"` + rfc7515Secret + `"}`, "the JWK is a shared secret (kty is oct)"},
		{"public JWK", "{" + rfc7515RSAPublic + "}", "the JWK is a public key; use the private one"},
		{"for encryption", with(rfc7515P256, `"use":"enc"`), notForSigning},
		{"for verifying", with(rfc7515P256, `"key_ops":["verify"]`), notForSigning},
		{"key_ops", with(rfc7515P256, `"key_ops":"sign"`), "the JWK's key_ops isn't an array of strings"},
		{"use", with(rfc7515P256, `"use":5`), "the JWK's use isn't a string"},
		{"kty", `{"kty":null}`, "the JWK's kty isn't a string"},
		{"kid", with(rfc7515P256, `"kid":5`), "the JWK's kid isn't a string"},
		{"alg", with(rfc7515P256, `"alg":["ES256"]`), "the JWK's alg isn't a string"},
		{"crv", replaced(rfc7515P256, "crv", "256"), "the JWK's crv isn't a string"},
		{"crv of OKP", replaced(rfc8037Key, "crv", "25519"), "the JWK's crv isn't a string"},
		{"alg of encryption", with(rfc7515RSA, `"alg":"RSA-OAEP"`), "the algorithm doesn't fit an RSA key"},

		{"secp256k1 in a JWK", replaced(rfc7515P256, "crv", `"secp256k1"`), "the JWK's crv must be P-256, P-384 or P-521"},
		{"Ed448", replaced(rfc8037Key, "crv", `"Ed448"`), "the JWK's crv must be Ed25519"},
		{"d isn't base64url", replaced(rfc8037Key, "d", `"s3cr3t+/"`), "the JWK's d is missing, or isn't base64url without padding"},
		{"d in two lines", strings.Replace(rfc8037Key, "nWGxne", `nWG\nxne`, 1), "the JWK's d is missing, or isn't base64url without padding"},
		{"d is a number", replaced(rfc8037Key, "d", `5`), "the JWK's d isn't a string"},
		{"d with loose bits", strings.Replace(rfc8037Key, "uf2A", "uf2B", 1), "the JWK's d is missing, or isn't base64url without padding"},
		{"d in short", replaced(rfc8037Key, "d", `"AQAB"`), "the JWK's d has 3 bytes; its curve needs 32"},
		{"x in short", replaced(rfc8037Key, "x", `"AQAB"`), "the JWK's x has 3 bytes; its curve needs 32"},
		{"d out of range", replaced(rfc7515P256, "d", `"`+strings.Repeat("A", 43)+`"`), "the JWK's d is out of range"},
		{"EC of two keys", replaced(rfc7515P256, "y", `"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"`), mismatch},
		{"OKP of two keys", replaced(rfc8037Key, "x", `"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"`), mismatch},
		{"RSA, another d", replaced(rfc7515RSA, "d", `"AQAB"`), mismatch},
		{"RSA, even n", replaced(minimalRSA, "n", `"`+strings.Repeat("_", 340)+`_g"`), "the signer failed: "},
		{"RSA, no e", replaced(rfc7515RSA, "e", `""`), "the JWK's e is missing"},
		{"RSA, no q", "{" + rfc7515RSAPublic + "," + rfc7515RSAPrivate + `,"p":"AQAB"}`, "the JWK's q is missing"},
		{"RSA, three primes", with(rfc7515RSA, `"oth":[]`), "the JWK has more than two primes"},
		{"RSA, large", replaced(minimalRSA, "n", `"`+strings.Repeat("____", maxRSABits/24+1)+`"`), "the JWK has a number that is too large; use a smaller key"},
		{"RSA, large e", replaced(minimalRSA, "e", `"AQAAAAE"`), "the JWK's e is too large; use another key"},
	} {
		parsed, err := ParsePrivateKey([]byte(tc.data))
		require.ErrorContains(t, err, tc.want, tc.name)
		require.NotContains(t, err.Error(), "s3cr3t", tc.name)
		require.Zero(t, parsed, tc.name)
	}
}

// FuzzParsePrivateKey checks that a key that is accepted signs, and that the error for
// other data quotes nothing of it.
func FuzzParsePrivateKey(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pem")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, path := range files {
		f.Add([]byte(file(filepath.Base(path))))
	}
	for _, jwk := range []string{
		rfc7515RSA, "{" + rfc7515RSAPublic + "," + rfc7515RSAPrivate + "}", rfc7515P256, rfc7515P521, rfc8037Key,
		with(rfc7515P256, `"use":"sig","key_ops":["sign"],"kid":"1","alg":"ES256"`), `{"keys":[]}`, `{"kty":"oct","k":"AQAB"}`,
		replaced(rfc7515RSA, "n", `"AQAB"`), replaced(rfc7515RSA, "e", `"AA"`), replaced(rfc8037Key, "d", "null"),
	} {
		f.Add([]byte(jwk))
	}
	ours := literals()
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, err := ParsePrivateKey(data)
		if err == nil {
			compact, err := parseKey(string(data)).Sign(nil, nil)
			require.NoError(t, err)
			verify(t, parsed.Signer, compact)
			return
		}
		require.Zero(t, parsed)
		const length = 16
		for text := err.Error(); len(text) >= length; text = text[1:] {
			part := text[:length]
			require.False(t, bytes.Contains(data, []byte(part)) && !strings.Contains(ours, part), err.Error())
		}
	})
}

// literals returns the string literals that errors are made of: an input may happen to
// contain one.
func literals() string {
	var all strings.Builder
	for _, name := range []string{"jws.go", "keys.go", "../strictjson/strictjson.go"} {
		ast.Inspect(must(parser.ParseFile(token.NewFileSet(), name, nil, 0)), func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				all.WriteString(must(strconv.Unquote(literal.Value)) + "\n")
			}
			return true
		})
	}
	return all.String()
}

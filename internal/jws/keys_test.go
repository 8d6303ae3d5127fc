package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
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

	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
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
		{"JWK with members that are null", with(rfc8037Key, `"kid":null,"alg": null ,"use":null,"key_ops":null`), "EdDSA"},
		{"JWK without further primes", with(rfc7515RSA, `"oth":null`), "RS256"},
		{"JWK, RSA, primes that are null", "{" + rfc7515RSAPublic + "," + rfc7515RSAPrivate + `,"p":null,"q":null}`, "RS256"},
		{"JWK for any operation", with(rfc8037Key, `"use":"","key_ops":[]`), "EdDSA"},
		{"JWK beside a public one", `[` + with("{"+rfc7515RSAPublic+"}", `"d":null`) + `,` + rfc8037Key + `]`, "EdDSA"},
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
		damaged       = "the PEM is damaged: a block has no end, or contains something other than base64; make a new copy of the file"
		unreadable    = "the private key can't be read; openssl pkey -in FILE -check may say more: "
		noPrivate     = "there is a certificate or a public key, but no private key"
		neither       = "the data is neither PEM nor a JWK, nor is it DER"
		brokenJSON    = "the JWK can't be read: it isn't valid JSON"
		mismatch      = "the JWK's public part doesn't belong to its private part"
		notForSigning = "the JWK isn't for signing: see its use and key_ops; use another key"
	)
	for _, tc := range []struct{ name, data, want string }{
		{"empty", "", "the data is empty"},
		{"too large", p256 + strings.Repeat("\n", maxKeyData), "the data is larger than 64 KiB"},
		{"not ASN.1, binary", "\xff" + string(block.Bytes), neither},
		{"DER and more", string(block.Bytes) + "\xff", "something follows the key"},

		{"encrypted PKCS #8", encrypted, encryptedText},
		{"encrypted SEC 1", file("encrypted.sec1.pem"), encryptedText},
		{"two keys", p256 + ed25519PEM, "there is more than one private key"},
		{"certificate only", certificate, noPrivate},
		{"damaged before another", strings.Replace(p256, "MHcC", "M@cC", 1) + certificate, damaged},
		{"DER after the key", encode("PRIVATE KEY", append(bytes.Clone(block.Bytes), 0)), "something follows the key or the certificate inside its block; remove it"},
		{"too large a block", encode("PRIVATE KEY", make([]byte, maxKeyDER+1)), "the private key is too large; use a smaller one"},
		{"not ASN.1", encode("PRIVATE KEY", []byte("s3cr3t")), unreadable},
		{"parts of two RSA keys", encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(&broken)), unreadable},
		{"X25519", file("x25519.pkcs8.pem"), "the private key is an X25519 key, which can't sign; make another with openssl genpkey"},
		{"OpenSSH", file("openssh.pem"), "convert a copy of it with ssh-keygen -p -m PKCS8"},

		{"open", rfc8037Key[:len(rfc8037Key)-1], brokenJSON},
		{"text after a JWK", rfc8037Key + "s3cr3t", "the JWK can't be read: something follows it; remove that"},
		{"a member twice", with(rfc8037Key, `"kty":"OKP"`), "the JWK can't be read: one of its members appears more than once"},
		{"no kty", "{}", "the JSON contains no private key and no certificate"},
		{"another kty", `{"kty":"AKP"}`, "the JWK's kty must be RSA, EC or OKP"},
		{"oct", `{"kty":"oct","k":"` + rfc7515Secret + `"}`, "the JWK is a shared secret (kty is oct)"},
		{"public JWK", "{" + rfc7515RSAPublic + "}", "the JWK is a public key; use the private one"},
		{"for encryption", with(rfc7515P256, `"use":"enc"`), notForSigning},
		{"for verifying", with(rfc7515P256, `"key_ops":["verify"]`), notForSigning},
		{"key_ops", with(rfc7515P256, `"key_ops":"sign"`), "the JWK's key_ops isn't an array of strings"},
		{"use", with(rfc7515P256, `"use":5`), "the JWK's use isn't a string"},
		{"kty", `{"kty":5}`, "the JWK's kty isn't a string"},
		{"kty is null", `{"kty":null}`, "the JSON contains no private key and no certificate"},
		{"d is null", with("{"+rfc7515RSAPublic+"}", `"d":null`), "the JWK is a public key; use the private one"},
		{"e is null", replaced(rfc7515RSA, "e", "null"), "the JWK's e is missing"},
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

// What a file contains decides how it is read, not its name or the labels in it. Each of
// these has the same key.
func TestK1_K3_K6_FormsOfOneKey(t *testing.T) {
	t.Parallel()
	want := parseSigner(file("p256.sec1.pem")).(*ecdsa.PrivateKey)
	pkcs8PEM, sec1PEM := testkit.KeyPEM(want), file("p256.sec1.pem")
	block, _ := pem.Decode([]byte(pkcs8PEM))
	sec1 := must(x509.MarshalECPrivateKey(want))
	label := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	utf16 := func(order binary.AppendByteOrder, text string) string {
		data := order.AppendUint16(nil, 0xfeff)
		for _, c := range text {
			data = order.AppendUint16(data, uint16(c))
		}
		return string(data)
	}
	point := must(want.PublicKey.Bytes())
	jwk := func(zeros string) string {
		number := func(b []byte) string { return encode([]byte(zeros + string(b))) }
		return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q,"d":%q}`, number(point[1:33]), number(point[33:]), number(must(want.Bytes())))
	}
	inJSON := func(text string) string { return string(must(json.Marshal(text))) }
	quoted := inJSON(pkcs8PEM)
	asBase64 := base64.StdEncoding.EncodeToString
	for name, data := range map[string]string{
		"K1: SEC 1 in PRIVATE KEY":        label("PRIVATE KEY", sec1),
		"K1: SEC 1 in RSA PRIVATE KEY":    label("RSA PRIVATE KEY", sec1),
		"K1: PKCS #8 in EC PRIVATE KEY":   label("EC PRIVATE KEY", block.Bytes),
		"K1: PKCS #8 in another label":    label("ANY PRIVATE KEY", block.Bytes),
		"K1: a label of something else":   label("DH PARAMETERS", block.Bytes),
		"K1: labels that differ":          strings.Replace(pkcs8PEM, "END PRIVATE", "END EC PRIVATE", 1),
		"K1: beside other blocks":         label("X509 CRL", []byte("x")) + pkcs8PEM + label("CERTIFICATE REQUEST", []byte("y")),
		"K1: beside a request":            label("CERTIFICATE REQUEST", must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, want))) + pkcs8PEM,
		"K3: DER":                         string(block.Bytes),
		"K3: DER of SEC 1":                string(sec1),
		"K3: DER and a line break":        string(block.Bytes) + "\r\n",
		"K3: byte order mark":             "\ufeff" + pkcs8PEM,
		"K3: UTF-16 of PowerShell":        utf16(binary.LittleEndian, pkcs8PEM),
		"K3: UTF-16, big-endian":          utf16(binary.BigEndian, jwk("")),
		`K3: \n instead of line breaks`:   strings.ReplaceAll(pkcs8PEM, "\n", `\n`),
		`K3: \r\n instead of line breaks`: strings.ReplaceAll(pkcs8PEM, "\n", `\r\n`),
		"K3: as a string":                 quoted,
		"K3: in a file of variables":      "PRIVATE_KEY=" + quoted + "\n",
		"K3: in a file with sections":     "[keys]\nprivate = " + quoted + "\n",
		"K3: no line breaks":              strings.ReplaceAll(pkcs8PEM, "\n", ""),
		"K3: spaces":                      strings.ReplaceAll(pkcs8PEM, "\n", " "),
		"K3: indented":                    "key: |\n  " + strings.ReplaceAll(pkcs8PEM, "\n", "\n  "),
		"K3: old Macintosh":               strings.ReplaceAll(pkcs8PEM, "\n", "\r"),
		"K3: text around":                 "Our key:\n" + sec1PEM + "Keep it secret.\n",
		"K3: no padding":                  strings.ReplaceAll(sec1PEM, "=", ""),
		"K3: a header":                    strings.Replace(pkcs8PEM, "-----\n", "-----\nComment: ours\n\n", 1),
		"K3: twice":                       pkcs8PEM + pkcs8PEM,
		"K5: JWK":                         jwk(""),
		"K5: longer by a byte":            jwk("\x00"),
		"K5: longer by many":              jwk("\x00\x00\x00\x00\x00"),
		"K6: base64 of PEM":               asBase64([]byte(pkcs8PEM)),
		"K6: base64 in lines":             asBase64([]byte(pkcs8PEM))[:80] + "\n" + asBase64([]byte(pkcs8PEM))[80:] + "\n",
		"K6: base64url":                   encode([]byte(pkcs8PEM)),
		"K6: base64 of DER":               asBase64(block.Bytes),
		"K6: base64 of a JWK":             asBase64([]byte(jwk(""))),
		"K6: base64 of base64":            asBase64([]byte(asBase64([]byte(pkcs8PEM)))),
		"K6: a provider's JSON":           `{"type":"service_account","private_key_id":"1","private_key":` + quoted + `}`,
		"K6: nested":                      `{"a":{"b":{"privateKey":` + quoted + `,"passphrase":null}}}`,
		"K6: a JWK in it":                 `{"clientId":"1","key":` + jwk("") + `}`,
		"K6: base64 in it":                `{"kind":"Secret","data":{"tls.key":"` + asBase64([]byte(pkcs8PEM)) + `","tls.crt":"` + asBase64([]byte(file("certificate.pem"))) + `"}}`,
		"K6: a JWK as a string in it":     `{"private_jwk":` + inJSON(" "+jwk("")+"\n") + `,"url":"{base}/token"}`,
		"K6: a JWK set as a string in it": `{"keys":` + inJSON(`{"keys":[`+jwk("")+`]}`) + `}`,
		"K6: base64 of DER in it":         `{"private_key":"` + asBase64(block.Bytes) + `","signature":"MAYCAQECAQI=","public":"` + asBase64(must(x509.MarshalPKIXPublicKey(want.Public()))) + `"}`,
		"K6: base64 of SEC 1 in it":       `{"private_key":"` + encode(sec1) + `"}`,
		"K6: base64 of a JWK in it":       `{"data":{"jwk.json":"` + asBase64([]byte(jwk(""))) + `"}}`,
		"K6: base64 of a line and PEM":    `{"key":"` + asBase64([]byte("\n"+pkcs8PEM)) + `"}`,
		"K6: base64 of base64 in it":      `{"key":"` + asBase64([]byte(asBase64([]byte(pkcs8PEM)))) + `"}`,
		"K6: JSON in JSON in JSON":        `{"a":` + inJSON(`{"b":`+inJSON(jwk(""))+`}`) + `}`,
		"K6: the same key twice":          `{"pem":` + quoted + `,"der":"` + asBase64(block.Bytes) + `"}`,
		"K6: a quoted JWK":                inJSON(jwk("")),
		"K6: a quoted provider's JSON":    inJSON(`{"private_key":` + quoted + `}`),
		"K6: quoted base64":               inJSON(asBase64(block.Bytes)),
		"K6: a JWK set":                   `{"keys":[` + jwk("") + `]}`,
		"K6: a set with public keys":      `{"keys":[{` + rfc7515RSAPublic + `},` + jwk("") + `]}`,
		"K6: an array":                    "[" + jwk("") + "]",
	} {
		parsed, err := ParsePrivateKey([]byte(data))
		require.NoError(t, err, name)
		require.True(t, want.Equal(parsed.Signer), name)
		signers, err := ParseSigners([]byte(data))
		require.NoError(t, err, name)
		require.Len(t, signers, 1, name)
	}
}

// RFC 7518, Section 6.2.1.2, wants the full width. Programs that treat a coordinate as a
// number leave out zeros.
func TestK5_ShortCoordinates(t *testing.T) {
	t.Parallel()
	for _, octet := range []byte{0, 1} { // Which of the coordinates begins with a zero.
		var key *ecdsa.PrivateKey
		var point []byte
		for len(point) == 0 || point[1+32*int(octet)] != 0 {
			key = testkit.NewKey("ES256").(*ecdsa.PrivateKey)
			point = must(key.PublicKey.Bytes())
		}
		x, y := bytes.TrimLeft(point[1:33], "\x00"), bytes.TrimLeft(point[33:], "\x00")
		jwk := fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q,"d":%q}`, encode(x), encode(y), encode(must(key.Bytes())))
		parsed, err := ParsePrivateKey([]byte(jwk))
		require.NoError(t, err)
		require.True(t, key.Equal(parsed.Signer))
		// A coordinate that isn't that of the key is still refused.
		_, err = ParsePrivateKey([]byte(replaced(jwk, "x", `"`+encode(x[1:])+`"`)))
		require.ErrorContains(t, err, "the JWK's public part doesn't belong to its private part")
	}
	one := replaced(replaced(rfc7515P521, "d", `"AQ"`), "x", `"`+strings.Repeat("_", 88)+`_w"`)
	_, err := ParsePrivateKey([]byte(one))
	require.ErrorContains(t, err, "the JWK's x has 67 bytes; its curve needs 66")
}

// A file that can't be used is named, with the command that makes a usable one.
func TestK2_K3_K6_NamedWithTheCommand(t *testing.T) {
	t.Parallel()
	const another = "; make another with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem, and register its public key with the server"
	oid := func(algorithm ...int) string {
		return string(must(asn1.Marshal(struct {
			Version   int
			Algorithm pkix.AlgorithmIdentifier
			Key       []byte
		}{0, pkix.AlgorithmIdentifier{Algorithm: algorithm}, []byte{4, 1, 1}})))
	}
	onCurve := func(curve ...int) string {
		return string(must(asn1.Marshal(struct {
			Version int
			Key     []byte
			Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		}{1, []byte{1}, curve})))
	}
	encrypted, _ := pem.Decode([]byte(file("encrypted.pkcs8.pem")))
	p7b, _ := pem.Decode([]byte(file("certificate.p7b")))
	public, _ := pem.Decode([]byte(file("public.pem")))
	for _, tc := range []struct{ name, data, want string }{
		{"K2: Ed448", file("ed448.pkcs8.pem"), "the private key is an Ed448 key, which isn't supported" + another},
		{"K2: X448", file("x448.pkcs8.pem"), "the private key is an X448 key, which can't sign" + another},
		{"K2: DSA", file("dsa.pkcs8.pem"), "the private key is a DSA key, which isn't supported" + another},
		{"K2: DSA without PKCS #8", file("dsa.pem"), "the private key is a DSA key, which isn't supported" + another},
		{"K2: ML-DSA", oid(2, 16, 840, 1, 101, 3, 4, 3, 18), "an ML-DSA or SLH-DSA key"},
		{"K2: for encryption", oid(1, 2, 840, 113549, 1, 1, 7), "an RSA key for encryption (RSAES-OAEP)"},
		{"K2: Diffie-Hellman", oid(1, 2, 840, 113549, 1, 3, 1), "a Diffie-Hellman key, which can't sign"},
		{"K2: RSA-PSS, damaged", oid(1, 2, 840, 113549, 1, 1, 10), "the private key can't be read; openssl pkey -in FILE -check may say more: "},
		{"K2: unknown", oid(1, 2, 3, 4), "the private key can't be read; openssl pkey -in FILE -check may say more: "},
		{"K2: explicit curve", file("explicit.pkcs8.pem"), "the private key describes its curve by parameters instead of its name; convert it with openssl ec -in FILE -param_enc named_curve -out key.pem"},
		{"K2: explicit curve, SEC 1", file("explicit.sec1.pem"), "openssl ec -in FILE -param_enc named_curve -out key.pem"},
		{"K2: Brainpool", file("brainpool.sec1.pem"), "the private key is on a Brainpool curve, which isn't supported" + another},
		{"K2: secp256k1", file("secp256k1.pkcs8.pem"), "the private key is on secp256k1, which isn't supported" + another},
		{"K2: SM2", onCurve(1, 2, 156, 10197, 1, 301), "on SM2, which isn't supported" + another},
		{"K2: P-192", onCurve(1, 2, 840, 10045, 3, 1, 1), "on P-192, which isn't supported" + another},
		{"K2: another curve", onCurve(1, 2, 3), "on a curve that isn't supported" + another},
		{"K2: no curve", onCurve(), "on a curve that it doesn't name" + another},
		{"K2: P-224", file("secp224r1.pkcs8.pem"), "the ECDSA key's curve must be P-256, P-384 or P-521"},
		{"K2: RSA-PSS for SHA-1", file("rsa-pss-sha1.pkcs8.pem"), "the RSA-PSS key is restricted to parameters that no JWS algorithm has (RFC 7518, Section 3.5); make another with openssl genpkey -algorithm RSA-PSS"},
		{"K2: encrypted DER", string(encrypted.Bytes), "the private key is encrypted; decrypt it first, for example with openssl pkey -in FILE -out key.pem"},
		{"K2: encrypted in one line", strings.ReplaceAll(file("encrypted.sec1.pem"), "\n", " "), "the private key is encrypted"},
		{"K2: encrypted in JSON", `{"key":` + string(must(json.Marshal(file("encrypted.pkcs8.pem")))) + `}`, "the private key is encrypted"},
		{"K2: the usable one of two", file("p256.sec1.pem") + file("encrypted.pkcs8.pem"), "there is more than one private key"},

		{"K3: PKCS #12", file("keys.p12"), "the data is PKCS #12; take the key out of it with openssl pkcs12 -in FILE -nodes -nocerts -out key.pem"},
		{"K3: PKCS #7", file("certificate.p7b"), "there is a certificate or a public key, but no private key"},
		{"K3: PKCS #7 in DER", string(p7b.Bytes), "there is a certificate or a public key, but no private key"},
		{"K3: public key in DER", string(public.Bytes), "there is a certificate or a public key, but no private key"},
		{"K3: DER of something else", "\x30\x00", "the data is DER, but neither a private key nor a certificate"},
		{"K3: no end", strings.Split(file("p256.sec1.pem"), "-----END EC PRIVATE")[0], "the PEM is damaged"},
		{"K3: no beginning", "-----END PRIVATE KEY-----", "the PEM is damaged"},
		{"K3: no dashes", "-----BEGIN PRIVATE KEY\nAA==", "the PEM is damaged"},
		{"K3: a header only", "-----BEGIN PRIVATE KEY-----\nComment: x\n-----END PRIVATE KEY-----", "the PEM is damaged"},
		{"K3: an end between", "-----BEGIN PRIVATE KEY-----\n" + file("certificate.pem"), "the PEM is damaged"},

		{"K6: JSON without a key", `{"client_id":"x","client_secret":"s3cr3t"}`, "the JSON contains no private key and no certificate"},
		{"K6: deep JSON", strings.Repeat("[", 1000) + rfc8037Key + strings.Repeat("]", 1000), "the JSON contains no private key"},
		{"K6: two keys in JSON", "[" + rfc8037Key + "," + rfc7515P256 + "]", "there is more than one private key; keep the one to sign with"},
		{"K6: public keys in JSON", `{"keys":[{` + rfc7515RSAPublic + `}]}`, "there is a certificate or a public key, but no private key"},
		{"K6: two keys in JSON, one as a string", `{"a":` + rfc8037Key + `,"b":` + string(must(json.Marshal(rfc7515P256))) + `}`, "there is more than one private key"},
		{"K6: a public key as a string", string(must(json.Marshal("{" + rfc7515RSAPublic + "}"))), "there is a certificate or a public key, but no private key"},
		{"K6: encrypted, in base64", `{"key":"` + base64.StdEncoding.EncodeToString(encrypted.Bytes) + `"}`, "the private key is encrypted"},
		{"K6: strings without a key", `{"a":"{s3cr3t}","b":"{\"c\":\"s3cr3t\"}","d":"czNjcjN0","e":"","f":"MAA="}`, "the JSON contains no private key and no certificate"},
		{"K6: a quoted secret", `"s3cr3t"`, "the data is neither PEM nor a JWK"},
		{"K6: Java", "\xfe\xed\xfe\xed\x00", "a Java key store; convert it with keytool"},
		{"K6: Java, JCEKS", "\xce\xce\xce\xce\x00", "-srcstoretype JCEKS"},
		{"K6: PuTTY", "PuTTY-User-Key-File-3: ecdsa", "puttygen FILE -O private-openssh -o key.pem"},
		{"K6: PVK", "\x1e\xf1\xb5\xb0\x00", "openssl rsa -inform PVK -in FILE -out key.pem"},
		{"K6: SSH2", "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----", "ssh-keygen -i -f FILE"},
		{"K6: OpenSSH, public", "ssh-ed25519 AAAA", "a public key of OpenSSH"},
		{"K6: XML", "<RSAKeyValue><D>s3cr3t</D></RSAKeyValue>", "an RSA key in XML"},
		{"K6: OpenPGP", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nxx\n-----END PGP PRIVATE KEY BLOCK-----", "a key for OpenPGP"},
	} {
		_, err := ParsePrivateKey([]byte(tc.data))
		require.ErrorContains(t, err, tc.want, tc.name)
		require.NotContains(t, err.Error(), "s3cr3t", tc.name)
	}
}

// An RSA-PSS key signs with PS256, PS384 and PS512 only, and if it is restricted to a hash,
// with the one that has this hash.
func TestK2_RSAPSS(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		file, algorithm string
		listed          []string
		want, err       string
	}{
		{"rsa-pss.pkcs8.pem", "", nil, "PS256", ""},
		{"rsa-pss.pkcs8.pem", "PS512", nil, "PS512", ""},
		{"rsa-pss.pkcs8.pem", "", []string{"RS256", "PS384"}, "PS384", ""},
		{"rsa-pss.pkcs8.pem", "RS256", nil, "", "RS256 doesn't fit an RSA-PSS key; use PS256, PS384, PS512"},
		{"rsa-pss-sha256.pkcs8.pem", "", nil, "PS256", ""},
		{"rsa-pss-sha256.pkcs8.pem", "PS384", nil, "", "PS384 doesn't fit an RSA-PSS key for SHA-256; use PS256"},
	} {
		parsed, err := ParsePrivateKey([]byte(file(tc.file)))
		require.NoError(t, err, tc.file)
		key, err := NewKey(parsed.Signer, tc.algorithm, tc.listed...)
		if tc.err != "" {
			require.EqualError(t, err, tc.err)
			continue
		}
		require.NoError(t, err, tc.file)
		require.Equal(t, tc.want, key.Algorithm(), tc.file)
		require.True(t, key.IsLocal())
		header, _ := verify(t, parsed.Signer, must(key.Sign(nil, nil)))
		require.JSONEq(t, `{"alg":"`+tc.want+`"}`, header)
		_, err = parsed.Signer.Sign(rand.Reader, make([]byte, 32), crypto.SHA256) // as another program could
		require.ErrorContains(t, err, "the key is an RSA-PSS key")
	}

	// Other parameters than those of openssl.
	key := parseSigner(rfc7515RSA).(*rsa.PrivateKey)
	sha256, sha384 := pkix.AlgorithmIdentifier{Algorithm: hashIdentifier(crypto.SHA256)}, pkix.AlgorithmIdentifier{Algorithm: hashIdentifier(crypto.SHA384)}
	for _, tc := range []struct {
		name       string
		hash, mask pkix.AlgorithmIdentifier
		salt       int
		want       string
	}{
		{"SHA-384", sha384, sha384, 48, "PS384"},
		{"the least salt is shorter", sha256, sha256, 20, "PS256"},
		{"the least salt is longer", sha256, sha256, 33, ""},
		{"two hashes", sha256, sha384, 32, ""},
	} {
		mask := asn1.RawValue{FullBytes: must(asn1.Marshal(tc.mask))}
		parameters := must(asn1.Marshal(struct {
			Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
			MGF  pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
			Salt int                      `asn1:"explicit,tag:2"`
		}{tc.hash, pkix.AlgorithmIdentifier{Algorithm: idMGF1, Parameters: mask}, tc.salt}))
		der := must(asn1.Marshal(struct {
			Version   int
			Algorithm pkix.AlgorithmIdentifier
			Key       []byte
		}{0, pkix.AlgorithmIdentifier{Algorithm: idRSASSAPSS, Parameters: asn1.RawValue{FullBytes: parameters}}, x509.MarshalPKCS1PrivateKey(key)}))
		parsed, err := ParsePrivateKey(der)
		if tc.want == "" {
			require.ErrorContains(t, err, "restricted to parameters that no JWS algorithm has", tc.name)
			continue
		}
		require.NoError(t, err, tc.name)
		require.Equal(t, tc.want, must(NewKey(parsed.Signer, "")).Algorithm(), tc.name)
	}
}

// ParseSigners leaves the choice to its caller.
func TestK1_ParseSigners(t *testing.T) {
	t.Parallel()
	signers, err := ParseSigners([]byte(file("encrypted.pkcs8.pem") + file("p256.sec1.pem") + file("rsa1024.pem")))
	require.NoError(t, err)
	require.Len(t, signers, 2)
	_, err = ParseSigners([]byte(file("encrypted.pkcs8.pem") + file("ed448.pkcs8.pem")))
	require.ErrorIs(t, err, keyfile.ErrEncrypted)
	_, err = ParseSigners([]byte(file("certificate.pem")))
	require.ErrorIs(t, err, keyfile.ErrNoKey)
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
	for _, name := range []string{"jws.go", "keys.go", "der.go", "../keyfile/keyfile.go", "../strictjson/strictjson.go"} {
		ast.Inspect(must(parser.ParseFile(token.NewFileSet(), name, nil, 0)), func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				all.WriteString(must(strconv.Unquote(literal.Value)) + "\n")
			}
			return true
		})
	}
	return all.String()
}

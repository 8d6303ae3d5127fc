package keyfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/invisible"
)

// The tests of package jws and of clientauth show what is read. These are about the parts
// that they don't see.

func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "jws", "testdata", name))
	require.NoError(t, err)
	return data
}

// TestK3_Parts counts what is found in files of OpenSSL: keys, certificates, and of both
// those that can't be used.
func TestK3_Parts(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][4]int{
		"bag.pem":             {1, 1, 0, 0},
		"brainpool.sec1.pem":  {1, 0, 0, 0}, // Whoever parses it names the curve.
		"certificate.p7b":     {0, 1, 0, 1},
		"certificate.pem":     {0, 1, 0, 0},
		"dsa.pem":             {1, 0, 0, 0},
		"encrypted.pkcs8.pem": {1, 0, 1, 0},
		"encrypted.sec1.pem":  {1, 0, 1, 0},
		"explicit.sec1.pem":   {1, 0, 0, 0},
		"keys.p12":            {1, 1, 1, 1},
		"openssh.pem":         {1, 0, 1, 0},
		"p256.sec1.pem":       {1, 0, 0, 0},
		"public.pem":          {0, 0, 0, 0},
		"rsa.pkcs1.pem":       {1, 0, 0, 0},
		"trusted.pem":         {0, 1, 0, 0},
	} {
		contents, err := Read(file(t, name))
		require.NoError(t, err, name)
		unusable := func(parts []Part) (n int) {
			for _, part := range parts {
				if part.Err != nil {
					n++
				}
			}
			return n
		}
		require.Equal(t, want, [4]int{len(contents.Keys), len(contents.Certificates), unusable(contents.Keys), unusable(contents.Certificates)}, name)
		certificates, err := Certificates(file(t, name))
		require.Equal(t, want[1] == 1 && want[3] == 0, err == nil, name)
		require.Len(t, certificates, want[1]-want[3], name)
	}
}

// A block that can't be read may be the one that matters.
func TestK3_DamagedBlocks(t *testing.T) {
	t.Parallel()
	for damaged, want := range map[string][2]int{
		"-----BEGIN PRIVATE KEY-----\n@\n-----END PRIVATE KEY-----":        {1, 0},
		"-----BEGIN CERTIFICATE-----\n@\n-----END CERTIFICATE-----":        {0, 1},
		"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----":           {0, 1},
		"-----BEGIN CERTIFICATE-----\nMAA=":                                {0, 1},
		"MAA=\n-----END EC PRIVATE KEY-----":                               {1, 0},
		"-----BEGIN PUBLIC KEY-----\n@\n-----END PUBLIC KEY-----":          {0, 0},
		"-----BEGIN WHATEVER-----\n@\n-----END WHATEVER-----":              {1, 1},
		"-----BEGIN RSA PRIVATE KEY-----\na: b\n-----END RSA PRIVATE KEY-": {1, 0},
	} {
		contents, err := Read([]byte(damaged + "\n" + string(file(t, "bag.pem"))))
		require.NoError(t, err, damaged)
		got := [2]int{}
		for i, parts := range [][]Part{contents.Keys, contents.Certificates} {
			for _, part := range parts {
				if part.Err != nil {
					require.ErrorIs(t, part.Err, errDamaged)
					got[i]++
				}
			}
		}
		require.Equal(t, want, got, damaged)
	}
}

// By its label, data that can't be recognised is left to whoever parses it.
func TestK1_UnknownContent(t *testing.T) {
	t.Parallel()
	for label, want := range map[string][2]int{"PRIVATE KEY": {1, 0}, "CERTIFICATE": {0, 1}, "ENCRYPTED PRIVATE KEY": {1, 0}, "WHATEVER": {0, 0}} {
		for _, data := range []string{"MAA=", "MAMCAQU=", "AAAA"} {
			contents, err := Read([]byte("-----BEGIN " + label + "-----\n" + data + "\n-----END " + label + "-----\n"))
			require.NoError(t, err)
			require.Equal(t, want, [2]int{len(contents.Keys), len(contents.Certificates)}, "%s %s", label, data)
		}
	}
	for _, data := range []string{"", " \r\n", "\xff\xfe", "text", "\xff\xfe\xfd"} {
		_, err := Certificates([]byte(data))
		require.Error(t, err, "%q", data)
	}
}

// FuzzRead checks that Read ends, that it makes nothing up, and that its errors are our own
// texts.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("../jws/testdata/*")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, path := range files {
		f.Add(file(f, filepath.Base(path)))
	}
	for _, text := range []string{"", "{", "[[[", `{"keys":[{"kty":"EC","d":"x"}]}`, "-----BEGIN ", "-----END ", "-----BEGIN -----END ", "\xff\xfe-\x00", "0\x80"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		contents, err := Read(data)
		if err != nil {
			require.Empty(t, contents)
		}
		size := 0
		for _, part := range append(bytesOf(contents.Keys), bytesOf(contents.Certificates)...) {
			require.NotEmpty(t, part)
			size += len(part)
		}
		require.LessOrEqual(t, size, 3*len(data)) // UTF-16 may become three bytes for two.
		_ = invisible.Find(string(data), invisible.Is)
	})
}

// bytesOf returns the parts that can be used.
func bytesOf(parts []Part) (all [][]byte) {
	for _, part := range parts {
		if part.Err == nil {
			all = append(all, part.Data)
		}
	}
	return all
}

func TestK4_Find(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"pass wörd–€ 😀":   "",
		"a\u200bb\u2060":  "a zero width space (U+200B)",
		"a\u2060b":        "a word joiner (U+2060)",
		"a\x00b":          "a NUL, as in UTF-16 (U+0000)",
		"a\tb":            "a tab (U+0009)",
		"a\rb":            "a line break (U+000D)",
		"a\x7fb":          "a control character (U+007F)",
		"a\u202fb":        "a no-break space (U+202F)",
		"a\u3000b":        "a space other than the usual one (U+3000)",
		"a\u00adb":        "a soft hyphen (U+00AD)",
		"a\u200cb":        "a zero width joiner (U+200C)",
		"a\u200eb":        "a mark of the writing direction (U+200E)",
		"a\ufeffb":        "a byte order mark (U+FEFF)",
		"a\u034fb":        "an invisible character (U+034F)",
		"\xff\xfea\x00":   "", // UTF-16
		"\xfe\xff\x00a":   "",
		"\xff\xfea\x00\n": "a NUL, as in UTF-16 (U+0000)", // but cut
	} {
		require.Equal(t, want, invisible.Find(string(Text([]byte(text))), invisible.Is), "%q", text)
	}
}

func TestK4_Secret(t *testing.T) {
	for content, want := range map[string]struct{ secret, err string }{
		"secret":             {"secret", ""},
		"secret\r\n":         {"secret", ""},
		"\ufeff two words\n": {" two words", ""},
		"":                   {"", "the secret is empty"},
		"\n":                 {"", "the secret is empty"},
		"sec\u200bret":       {"", "the secret contains a zero width space (U+200B)"},
		"secret\n\n":         {"", "the secret contains a line break (U+000A)"},
	} {
		secret, err := ValueOf("secret").Parse([]byte(content))
		require.Equal(t, want.secret, secret)
		if want.err == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want.err)
	}
	require.NoError(t, ValueOf("secret").Check("sec\u200bret"))
	require.ErrorContains(t, ValueOf("secret").Check("sec\x00ret"), "the secret contains a NUL")
	require.ErrorContains(t, ValueOf("secret").Check(""), "the secret is empty")
}

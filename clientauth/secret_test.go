package clientauth

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

func TestSecretFile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ content, secret, err string }{
		"line break":            {"secret\n", "secret", ""},
		"CRLF":                  {"secret\r\n", "secret", ""},
		"spaces stay":           {" secret \n", " secret ", ""},
		"as large as can be":    {strings.Repeat("s", 64<<10), strings.Repeat("s", 64<<10), ""},
		"two line breaks":       {"secret\n\n", "", "the secret contains a line break (U+000A); remove it where the secret is stored"},
		"NUL":                   {"se\x00cret", "", "the secret contains a NUL, as in UTF-16 (U+0000)"},
		"only a line break":     {"\n", "", "the secret is empty"},
		"larger than it may be": {strings.Repeat("s", 64<<10+1), "", "is larger than 64 KiB"},
	} {
		path := file(t, test.content)
		secret, err := SecretFile(path)(t.Context())
		require.Equal(t, test.secret, secret, name)
		if test.err == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, test.err, name)
		require.ErrorContains(t, err, path, name)
	}
}

// Editors and shells of Windows begin a file with a byte order mark. Characters that people
// can't see come from a copied web page or document.
func TestK4_SecretFiles(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"\ufeffsecret\r\n":                  "secret",
		"\ufeffpass wörd":                   "pass wörd",
		"\xff\xfes\x00\xe9\x00\r\x00\n\x00": "sé", // PowerShell
		"\xfe\xff\x00s\x00\xe9":             "sé",
		"\xff\xfe\x3d\xd8\x00\xde":          "😀",
		"s\xe9cret":                         "s\xe9cret", // Latin-1
		"pässwörd–€":                        "pässwörd–€",
	} {
		secret, err := SecretFile(file(t, content))(t.Context())
		require.NoError(t, err, "%q", content)
		require.Equal(t, want, secret, "%q", content)
	}
	for invisible, name := range map[string]string{
		"\ufeff":        "a byte order mark (U+FEFF)",
		"\u200b":        "a zero width space (U+200B)",
		"\u200d":        "a zero width joiner (U+200D)",
		"\u00a0":        "a no-break space (U+00A0)",
		"\u2003":        "a space other than the usual one (U+2003)",
		"\u00ad":        "a soft hyphen (U+00AD)",
		"\u202e":        "a mark of the writing direction (U+202E)",
		"\u2060":        "a word joiner (U+2060)",
		"\u2028":        "a line break (U+2028)",
		"\t":            "a tab (U+0009)",
		"\x1b":          "a control character (U+001B)",
		"\u0085":        "a control character (U+0085)",
		"\ufe0f":        "an invisible character (U+FE0F)",
		"\u3164":        "an invisible character (U+3164)",
		"\u2800":        "an invisible character (U+2800)",
		"\U000e0041":    "an invisible character (U+E0041)",
		"\ufeff\ufeff":  "a byte order mark (U+FEFF)",
		"\n":            "a line break (U+000A)",
		"\u200b\u200c":  "a zero width space (U+200B)",
		"\u00a0\u00a0 ": "a no-break space (U+00A0)",
	} {
		for _, content := range []string{canary + invisible + "\n", "x" + invisible + canary, canary[:20] + invisible + canary[20:]} {
			_, err := SecretFile(file(t, content))(t.Context())
			require.ErrorContains(t, err, "the secret contains "+name+"; remove it where the secret is stored", "%q", content)
			requireHidden(t, err.Error(), canary)
		}
	}
	// A program that means such a secret can send it: upstream does.
	attempt := attempt()
	attempt.ClientSecret = "\ufeffse\u200bcret"
	require.NoError(t, (&ClientSecretPost{}).Authenticate(t.Context(), attempt))
	require.Equal(t, attempt.ClientSecret, attempt.Form.Get("client_secret"))
}

func TestUnreadableFiles(t *testing.T) {
	t.Parallel()
	dir, forbidden, cert := t.TempDir(), file(t, "secret"), file(t, newValidPair().cert)
	missing := filepath.Join(dir, "missing")
	require.NoError(t, os.Chmod(forbidden, 0))
	for _, read := range []func(path string) error{
		func(path string) error { _, err := SecretFile(path)(t.Context()); return err },
		func(path string) error { _, err := KeyFile(path)(t.Context()); return err },
		func(path string) error { _, err := CertificateFiles(path, path)(t.Context()); return err },
		func(path string) error { _, err := CertificateFiles(cert, path)(t.Context()); return err },
	} {
		require.ErrorIs(t, read(missing), os.ErrNotExist)
		require.ErrorContains(t, read(missing), missing)
		for _, path := range []string{dir, os.DevNull} {
			require.EqualError(t, read(path), path+" is not a regular file")
		}
		require.EqualError(t, read(""), "the name of a file is empty; set it")
		if os.Getuid() != 0 { // root may read every file.
			require.ErrorIs(t, read(forbidden), os.ErrPermission)
			require.ErrorContains(t, read(forbidden), forbidden)
		}
	}
}

// A file can be replaced at any time.
func TestFilesAreReadEachTime(t *testing.T) {
	t.Parallel()
	path := file(t, "old\n")
	source := SecretFile(path)
	require.Equal(t, "old", must(source(t.Context())))
	write(t, path, "new\n")
	require.Equal(t, "new", must(source(t.Context())))

	_, oldPEM := newKey()
	signer, newPEM := newKey()
	path = file(t, oldPEM)
	key := KeyFile(path)
	require.NotEqual(t, signer, must(key(t.Context())).Signer)
	write(t, path, newPEM)
	require.Equal(t, signer, must(key(t.Context())).Signer)
}

func TestSecretsOnTheWire(t *testing.T) {
	t.Parallel()
	const password = "s&cr t:100%/é"
	for name, test := range map[string]struct {
		auth   clientcredentials.ClientAuth
		client cct.Client
		config string // ClientSecret of the Config
	}{
		"basic":           {&ClientSecretBasic{}, cct.Client{}, password},
		"basic by Secret": {&ClientSecretBasic{Secret: secret(password)}, cct.Client{}, "another"},
		"raw":             {&ClientSecretBasic{Raw: true}, cct.Client{RawBasic: true}, password},
		"post":            {&ClientSecretPost{}, cct.Client{AuthMethods: []string{"client_secret_post"}}, password},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.client.ID, test.client.Secret = "i d/é", password
			request := token(t, test.client, test.auth, test.config) // Checks the method.
			require.Equal(t, name == "post", request.Form.Has("client_id"))
		})
	}
}

func TestBasicHeader(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		raw              bool
		id, secret, want string
	}{
		{false, "i:d", "s c/=é", "i%3Ad:s+c%2F%3D%C3%A9"}, // RFC 6749, Appendix B.
		{true, "id", "s:c/=é", "id:s:c/=é"},
	} {
		attempt := attempt()
		attempt.ClientID, attempt.ClientSecret = test.id, test.secret
		require.NoError(t, (&ClientSecretBasic{Raw: test.raw}).Authenticate(t.Context(), attempt))
		require.Equal(t, []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(test.want))}, attempt.Header["Authorization"])
		require.Empty(t, attempt.Form)
	}
}

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
		"two line breaks":       {"secret\n\n", "", "contains a control character"},
		"NUL":                   {"se\x00cret", "", "contains a control character"},
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

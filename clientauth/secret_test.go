package clientauth

import (
	"context"
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
		"plain":                 {"secret", "secret", ""},
		"line break":            {"secret\n", "secret", ""},
		"CRLF":                  {"secret\r\n", "secret", ""},
		"spaces stay":           {" secret \n", " secret ", ""},
		"UTF-8":                 {"gehëim", "gehëim", ""},
		"as large as can be":    {strings.Repeat("s", 64<<10), strings.Repeat("s", 64<<10), ""},
		"two line breaks":       {"secret\n\n", "", "contains a control character"},
		"CR alone":              {"se\rcret", "", "contains a control character"},
		"NUL":                   {"se\x00cret", "", "contains a control character"},
		"C1":                    {"se\u0085cret", "", "contains a control character"},
		"empty":                 {"", "", "the secret is empty"},
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

// No caller gets an error if the secret is replaced while the server refuses the old one.
func TestSecretFileIsReadEachTime(t *testing.T) {
	t.Parallel()
	srv := cct.Start(t, cct.Client{ID: "id", Secret: "old"})
	path := file(t, "old\n")
	conf := config(srv, &ClientSecretBasic{Secret: SecretFile(path)})
	_, err := conf.Token(t.Context())
	require.NoError(t, err)

	srv.Auth.Register(cct.Client{ID: "id", Secret: "new"})
	_, err = conf.Token(t.Context())
	require.ErrorContains(t, err, "invalid_client")
	require.Equal(t, 2, srv.Auth.TokenRequests(), "the same secret must not be sent twice")

	calls := 0
	conf.ClientAuth = &ClientSecretBasic{Secret: func(ctx context.Context) (string, error) {
		if calls++; calls == 2 {
			write(t, path, "new\n")
		}
		return SecretFile(path)(ctx)
	}}
	_, err = conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4, srv.Auth.TokenRequests())
}

func TestSecretsOnTheWire(t *testing.T) {
	t.Parallel()
	const password = "s&cr t:100%/é"
	post := cct.Client{AuthMethods: []string{"client_secret_post"}}
	for name, test := range map[string]struct {
		auth   clientcredentials.ClientAuth
		client cct.Client
		config string // ClientSecret of the Config
		method string
	}{
		"basic":             {&ClientSecretBasic{}, cct.Client{}, password, "client_secret_basic"},
		"basic by Secret":   {&ClientSecretBasic{Secret: secret(password)}, cct.Client{}, "another", "client_secret_basic"},
		"raw":               {&ClientSecretBasic{Raw: true}, cct.Client{RawBasic: true}, password, "client_secret_basic"},
		"raw by Secret":     {&ClientSecretBasic{Secret: secret(password), Raw: true}, cct.Client{RawBasic: true}, "another", "client_secret_basic"},
		"post":              {&ClientSecretPost{}, cct.Client{}, password, "client_secret_post"},
		"post by Secret":    {&ClientSecretPost{Secret: secret(password)}, cct.Client{}, "another", "client_secret_post"},
		"post to post only": {&ClientSecretPost{}, post, password, "client_secret_post"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.client.ID, test.client.Secret = "i d/é", password
			request := token(t, test.client, test.auth, test.config)
			require.Equal(t, test.method, request.AuthMethod)
			require.Equal(t, test.method == "client_secret_post", request.Form.Has("client_id"))
		})
	}
}

func TestBasicHeader(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		raw              bool
		id, secret, want string
	}{
		{false, "id", "secret", "id:secret"},
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

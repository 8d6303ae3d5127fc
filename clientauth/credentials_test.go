package clientauth

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

func TestK8_CredentialsFile(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]struct {
		id, secret, err string
	}{
		`{"client_id":"id","client_secret":"secret"}`:                            {"id", "secret", ""},
		"\ufeff" + `{"client_id":"id","client_secret":"secret"}` + "\r\n":        {"id", "secret", ""},
		`{"client_secret":" s ","client_secret_expires_at":0,"client_id":"i d"}`: {"i d", " s ", ""},
		`{"client_id":"id"}`:                                          {"id", "", ""},
		`{"client_id":"id","client_secret":null}`:                     {"id", "", ""},
		`{"client_secret":"` + canary + `"}`:                          {err: "the client identifier is empty"},
		`{"Client_ID":"id","client_secret":"` + canary + `"}`:         {err: "the client identifier is empty"},
		`{"client_id":7,"client_secret":"` + canary + `"}`:            {err: "client_id is not a string"},
		`{"client_id":"id","client_secret":["` + canary + `"]}`:       {err: "client_secret is not a string"},
		`{"client_id":"id","client_secret":"` + canary + `\u200b"}`:   {err: "the secret contains a zero width space (U+200B)"},
		`{"client_id":"i\u00a0d","client_secret":"` + canary + `"}`:   {err: "the client identifier contains a no-break space (U+00A0); remove it where the client identifier is stored"},
		`{"client_id":"a","client_id":"b"}`:                           {err: "one of its members appears more than once"},
		`{"client_id":"id","client_secret":"` + canary:                {err: "it isn't valid JSON"},
		`[{"client_id":"id","client_secret":"` + canary + `"}]`:       {err: "it isn't a JSON object"},
		`{"client_id":"id","client_secret":"` + canary + `"} trailer`: {err: "something follows it"},
	} {
		path := file(t, content)
		c, err := CredentialsFile(path)(t.Context())
		require.Equal(t, Credentials{want.id, want.secret}, c, content)
		if want.err == "" {
			require.NoError(t, err, content)
			continue
		}
		require.ErrorContains(t, err, want.err)
		require.ErrorContains(t, err, path)
		requireHidden(t, err.Error(), canary)
	}
}

// A volume is a directory in which files are replaced as Kubernetes does it: a symbolic link
// leads to the directory with the files of one generation.
type volume struct {
	t   *testing.T
	dir string
	n   int
}

// newVolume returns a volume with the first generation.
func newVolume(t *testing.T, files map[string]string) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir()}
	v.replace(files)
	for name := range files {
		require.NoError(t, os.Symlink(filepath.Join("..data", name), v.path(name)))
	}
	return v
}

func (v *volume) path(name string) string { return filepath.Join(v.dir, name) }

// replace replaces all files at once, and removes the previous ones.
func (v *volume) replace(files map[string]string) {
	old, _ := os.Readlink(v.path("..data"))
	v.n++
	next := fmt.Sprintf("..%d", v.n)
	require.NoError(v.t, os.Mkdir(v.path(next), 0o700))
	for name, content := range files {
		write(v.t, filepath.Join(v.dir, next, name), content)
	}
	require.NoError(v.t, os.Symlink(next, v.path("..tmp")))
	require.NoError(v.t, os.Rename(v.path("..tmp"), v.path("..data")))
	if old != "" {
		require.NoError(v.t, os.RemoveAll(v.path(old)))
	}
}

// generation returns the files of a client of that number.
func generation(n int) map[string]string {
	return map[string]string{"client_id": fmt.Sprintf("id-%d\n", n), "client_secret": generationSecret(n) + "\n"}
}

func generationSecret(n int) string { return fmt.Sprintf("secret-%d-%s", n, longSecret) }

// A rotation may come between any two readings.
func TestK8_FilesAreNeverMixed(t *testing.T) {
	t.Parallel()
	broken := errors.New("the file is damaged")
	for name, test := range map[string]struct {
		replaced func(reading int) bool // before that reading
		fails    func(reading int) bool
		want     int // the generation; 0: an error
		err      string
	}{
		"none":              {want: 1},
		"before the secret": {replaced: func(n int) bool { return n == 2 }, want: 2},
		"after the secret":  {replaced: func(n int) bool { return n == 3 }, want: 2},
		"twice":             {replaced: func(n int) bool { return n == 2 || n == 6 }, want: 3},
		"four times":        {replaced: func(n int) bool { return n%3 == 0 && n < 13 }, want: 5},
		"all the time":      {replaced: func(int) bool { return true }, err: "the files client_id and client_secret are replaced all the time"},
		"the first fails":   {fails: func(n int) bool { return n == 1 }, err: broken.Error()},
		"the second fails":  {fails: func(n int) bool { return n == 2 }, err: broken.Error()},
		"the last fails":    {fails: func(n int) bool { return n == 3 }, err: broken.Error()},
	} {
		current, readings := 1, 0
		c, err := readCredentials("client_id", "client_secret", func(path string, v keyfile.ValueOf) (string, error) {
			readings++
			if test.replaced != nil && test.replaced(readings) {
				current++
			}
			if test.fails != nil && test.fails(readings) {
				return "", broken
			}
			return v.Parse([]byte(generation(current)[path]))
		})
		if test.err != "" {
			require.ErrorContains(t, err, test.err, name)
			require.Empty(t, c, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, Credentials{fmt.Sprintf("id-%d", test.want), generationSecret(test.want)}, c, name)
	}
}

// A file is missing for a moment if the directory is removed that a symbolic link has led to.
func TestK8_FileIsMissingForAMoment(t *testing.T) {
	t.Parallel()
	missing, broken := &os.PathError{Op: "open", Path: "secret", Err: os.ErrNotExist}, errors.New("the file is damaged")
	for name, test := range map[string]struct {
		answers []error
		want    error
	}{
		"once":          {[]error{missing, nil}, nil},
		"four times":    {[]error{missing, missing, missing, missing, nil}, nil},
		"always":        {[]error{missing, missing, missing, missing, missing}, missing},
		"another error": {[]error{missing, broken}, broken},
		"no error":      {[]error{nil}, nil},
	} {
		_, err := untilFound(func() ([]byte, error) {
			answer := test.answers[0]
			test.answers = test.answers[1:]
			return nil, answer
		})
		require.Equal(t, test.want, err, name)
		require.Empty(t, test.answers, name)
	}
}

// A rotation with real files, which are replaced as fast as can be.
func TestK8_FilesAreReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	v := newVolume(t, generation(0))
	source := CredentialsFiles(v.path("client_id"), v.path("client_secret"))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if c, err := source(t.Context()); err == nil && !strings.HasPrefix(c.ClientSecret, "secret"+strings.TrimPrefix(c.ClientID, "id")+"-") {
					t.Errorf("mixed: %s with the secret of another", c.ClientID)
				}
			}
		})
	}
	for n := range 200 {
		v.replace(generation(n))
	}
	close(done)
	readers.Wait()
	require.Equal(t, Credentials{"id-199", generationSecret(199)}, must(source(t.Context())))
}

func TestK8_MistakesInFiles(t *testing.T) {
	t.Parallel()
	missing, good := filepath.Join(t.TempDir(), "missing"), file(t, canary)
	for _, source := range []CredentialsSource{CredentialsFiles(missing, good), CredentialsFiles(good, missing), CredentialsFile(missing), ClientIDFile(missing)} {
		_, err := source(t.Context())
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, missing)
	}
	for content, want := range map[string]string{"\n": "the client identifier is empty", "a\nb": "the client identifier contains a line break", "a\u200bb": "a zero width space"} {
		for _, source := range []CredentialsSource{CredentialsFiles(file(t, content), good), ClientIDFile(file(t, content))} {
			_, err := source(t.Context())
			require.ErrorContains(t, err, want)
			requireHidden(t, err.Error(), canary)
		}
	}
	require.Equal(t, Credentials{ClientID: "i d"}, must(ClientIDFile(file(t, "\ufeffi d\r\n"))(t.Context())))
	require.NotContains(t, surfaces(Credentials{"id", canary})+surfaces(&Credentials{"id", canary}), canary[:12])
	require.Contains(t, surfaces(Credentials{"id", canary}), `clientauth.Credentials{ClientID: "id"}`)
}

// pairOf returns a source of credentials that never change.
func pairOf(id, secret string) CredentialsSource {
	return func(context.Context) (Credentials, error) { return Credentials{id, secret}, nil }
}

func TestK8_MistakesInCredentials(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	broken := errors.New("the vault is sealed")
	count := 0
	for name, test := range map[string]struct {
		auth clientcredentials.ClientAuth
		err  string
	}{
		"no source":          {WithCredentials(nil, nil), "give WithCredentials a source"},
		"the source fails":   {WithCredentials(func(context.Context) (Credentials, error) { return Credentials{}, broken }, nil), broken.Error()},
		"no identifier":      {WithCredentials(pairOf("", canary), nil), "the client identifier is empty"},
		"a line break":       {WithCredentials(pairOf("id\n", canary), nil), "the client identifier contains a line break"},
		"no secret":          {WithCredentials(pairOf("id", ""), nil), "there is no secret"},
		"no secret, post":    {WithCredentials(pairOf("id", ""), new(ClientSecretPost)), "there is no secret"},
		"no secret, JWT":     {WithCredentials(pairOf("id", ""), new(ClientSecretJWT)), "there is no secret"},
		"two secrets, basic": {WithCredentials(pairOf("id", canary), &ClientSecretBasic{Secret: secret(canary)}), "don't set Secret in its method"},
		"two secrets, post":  {WithCredentials(pairOf("id", canary), &ClientSecretPost{Secret: secret(canary)}), "don't set Secret in its method"},
		"two secrets, JWT":   {WithCredentials(pairOf("id", canary), &ClientSecretJWT{Secret: secret(canary)}), "don't set Secret in its method"},
		"the method's":       {WithCredentials(pairOf("id", canary[:20]), &ClientSecretJWT{}), "HS256 needs a secret of at least 32 bytes"},
		"another id each time": {WithCredentials(func(context.Context) (Credentials, error) {
			count++
			return Credentials{ClientID: fmt.Sprint(count)}, nil
		}, &PrivateKeyJWT{Key: SignerKey(key)}), "the client identifier is replaced all the time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := cct.Start(t)
			conf := config(srv, test.auth)
			conf.ClientSecret = canary // of another identifier
			_, err := conf.Token(t.Context())
			require.ErrorContains(t, err, "oauth2: cannot fetch token: "+test.auth.Method()+": ")
			require.ErrorContains(t, err, test.err)
			requireHidden(t, surfaces(err), canary)
			require.Zero(t, srv.Auth.TokenRequests())
		})
	}
}

// The credentials are replaced while a request with the old ones is on its way, and the server
// knows only the new ones already.
func TestK8_RotatedWhileOnItsWay(t *testing.T) {
	t.Parallel()
	oldKey, oldPEM := newKey()
	newKey, newPEM := newKey()
	pair := newValidPair()
	oldFiles, newFiles := generation(1), generation(2)
	oldFiles["key.pem"], newFiles["key.pem"] = oldPEM, newPEM
	for name, test := range map[string]struct {
		method func(v *volume) clientcredentials.ClientAuth
		files  bool // the source has no secret
		client cct.Client
	}{
		"basic": {method: func(*volume) clientcredentials.ClientAuth { return nil }},
		"post":  {method: func(*volume) clientcredentials.ClientAuth { return new(ClientSecretPost) }},
		"JWT":   {method: func(*volume) clientcredentials.ClientAuth { return new(ClientSecretJWT) }},
		"a secret of the method": {files: true, method: func(v *volume) clientcredentials.ClientAuth {
			return &ClientSecretPost{Secret: SecretFile(v.path("client_secret"))}
		}},
		"key": {files: true, client: cct.Client{PublicKeys: []crypto.PublicKey{newKey.Public()}}, method: func(v *volume) clientcredentials.ClientAuth {
			return &PrivateKeyJWT{Key: KeyFile(v.path("key.pem"))}
		}},
		"the same key": {files: true, client: cct.Client{PublicKeys: []crypto.PublicKey{oldKey.Public()}}, method: func(*volume) clientcredentials.ClientAuth {
			return &PrivateKeyJWT{Key: SignerKey(oldKey)}
		}},
		"the same certificate": {files: true, client: cct.Client{Certificates: []*x509.Certificate{pair.Leaf}}, method: func(*volume) clientcredentials.ClientAuth {
			return &TLSClientAuth{Source: certificate(pair.Certificate)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, oldFiles)
			source := CredentialsFiles(v.path("client_id"), v.path("client_secret"))
			if test.files {
				source = ClientIDFile(v.path("client_id"))
			}
			auth := WithCredentials(source, test.method(v))
			start := cct.NewServer
			if test.client.Certificates != nil {
				start = cct.NewTLSServer
				require.Implements(t, (*clientcredentials.CertificateAuth)(nil), auth)
			}
			test.client.ID, test.client.Secret = "id-2", generationSecret(2)
			srv := start(test.client)
			t.Cleanup(srv.Close)
			conf := config(srv, auth)
			conf.ClientID, conf.ClientSecret = "ignored", ""
			transport := srv.Client().Transport.(*http.Transport).Clone()
			dial := transport.DialContext
			if dial == nil {
				dial = new(net.Dialer).DialContext
			}
			var once sync.Once
			transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				once.Do(func() { v.replace(newFiles) }) // The credentials are in the request already.
				return dial(ctx, network, address)
			}
			conf.HTTPClient = &http.Client{Transport: transport}
			t.Cleanup(transport.CloseIdleConnections)
			_, err := conf.Token(t.Context())
			require.NoError(t, err)
			requests := srv.Auth.Requests()
			require.Len(t, requests, 2)
			for i, want := range []string{"id-1", "id-2"} {
				require.Equal(t, want, requests[i].ClientID)
				if assertion := requests[i].Form.Get("client_assertion"); assertion != "" {
					_, claims := decode(t, assertion)
					require.Equal(t, want, claims["iss"])
					require.Equal(t, want, claims["sub"])
				}
				require.NotContains(t, fmt.Sprint(requests[i].Header, requests[i].Form), "ignored")
			}
			require.Empty(t, srv.Auth.Violations())
		})
	}
}

// The key is replaced together with the identifier after the identifier has been read.
func TestK8_KeyIsNeverMixed(t *testing.T) {
	t.Parallel()
	key1, key2 := testkit.NewKey("ES256"), testkit.NewKey("ES256")
	rotated := false
	source := func(context.Context) (Credentials, error) {
		return Credentials{ClientID: map[bool]string{false: "id-1", true: "id-2"}[rotated]}, nil
	}
	key := func(context.Context) (*SigningKey, error) {
		rotated = true
		return &SigningKey{Signer: key2}, nil
	}
	srv := cct.Start(t, cct.Client{ID: "id-1", PublicKeys: []crypto.PublicKey{key1.Public()}}, cct.Client{ID: "id-2", PublicKeys: []crypto.PublicKey{key2.Public()}})
	conf := config(srv, WithCredentials(source, addingAuth{&PrivateKeyJWT{Key: key}}))
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Len(t, srv.Auth.Requests(), 1)
	for _, values := range []map[string][]string{srv.Auth.Requests()[0].Form, srv.Auth.Requests()[0].Header} {
		require.Equal(t, []string{"id-2"}, values["X-Client"])
	}
}

// An addingAuth adds values, and doesn't set them.
type addingAuth struct{ *PrivateKeyJWT }

func (a addingAuth) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	attempt.Header.Add("X-Client", attempt.ClientID)
	attempt.Form.Add("X-Client", attempt.ClientID)
	return a.PrivateKeyJWT.Authenticate(ctx, attempt)
}

// What is odd about an identifier is a hint if the server refuses the client.
func TestK8_OddIdentifier(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{`"id"`: "ClientID is in quotation marks", " id": "ClientID contains a space", "i\u200bd": "ClientID contains a zero width space"} {
		_, err := config(cct.Start(t), WithCredentials(pairOf(id, canary), nil)).Token(t.Context())
		require.ErrorContains(t, err, "invalid_client")
		require.ErrorContains(t, err, want)
	}
}

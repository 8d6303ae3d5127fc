package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"go/format"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// These tests run cctoken, the command line tool, as users install it. The scripts in
// testdata/cctoken test its exit statuses, pipes and its fake server. The script in
// testdata/cctoken-servers runs against real servers.

// cctokenTemporary is the directory that cctokenDir returned. TestMain removes it.
var cctokenTemporary string

// cctokenDir returns a directory with cctoken in it.
var cctokenDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cctoken")
	if err != nil {
		return "", err
	}
	cctokenTemporary = dir
	return dir, goBuild(filepath.Join(dir, "cctoken"), "github.com/seed-5bfa0880/clientcredentials/cmd/cctoken")
})

// goBuild builds the program what, with the dependencies of this module.
func goBuild(to, what string) error {
	out, err := exec.Command("go", "build", "-o", to, what).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// runScripts runs the scripts in a directory, with cctoken in their path. For each
// script it calls setup first.
func runScripts(t *testing.T, dir string, setup func(*testscript.Env) error, conditions map[string]bool) {
	t.Helper()
	bin, err := cctokenDir()
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(name string) (bool, error) {
			holds, known := conditions[name]
			if !known {
				return false, fmt.Errorf("there is no condition %q", name)
			}
			return holds, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			if setup == nil {
				return nil
			}
			return setup(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "serve": startServe, "build": buildAdvice,
		},
	})
}

// exits N COMMAND runs a command, and checks that its exit status is N.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N COMMAND")
	}
	status := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		status = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("the exit status is %d", status)
	}
}

var exported = regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`)

// serve FLAG... runs cctoken serve until the script ends, and sets the variables that it
// exports.
func startServe(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := cctokenDir()
	ts.Check(err)
	cmd := exec.Command(filepath.Join(dir, "cctoken"), append([]string{"serve"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ts.Check(cmd.Wait())
	})
	text, err := io.ReadAll(stdout)
	ts.Check(err)
	for _, match := range exported.FindAllStringSubmatch(string(text), -1) {
		ts.Setenv(match[1], match[2])
	}
}

// build FILE builds the program ./client, which requests a token with the Config in
// FILE, a report of cctoken doctor.
func buildAdvice(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: build FILE")
	}
	_, code, ok := strings.Cut(ts.ReadFile(args[0]), "\nThe Config for it:\n\n")
	if !ok {
		ts.Fatalf("there is no Config in %s", args[0])
	}
	var imports strings.Builder
	for name, path := range map[string]string{
		"os.Getenv":           "os",
		"url.Values":          "net/url",
		"oauth2.Auth":         "golang.org/x/oauth2",
		"clientcredentials.C": "github.com/seed-5bfa0880/clientcredentials",
		"clientauth.":         "github.com/seed-5bfa0880/clientcredentials/clientauth",
	} {
		if strings.Contains(code, name) {
			fmt.Fprintf(&imports, "%q\n", path)
		}
	}
	source := fmt.Sprintf(`package main
		import ("context"; "fmt"; "log"
		%s)
		func main() { if err := run(context.Background()); err != nil { log.Fatal(err) } }
		func run(ctx context.Context) error {
			%s
			token, err := conf.Token(ctx)
			if err == nil { fmt.Println("got a", token.Type(), "token") }
			return err
		}`, &imports, code)
	formatted, err := format.Source([]byte(source))
	ts.Check(err)
	path := ts.MkAbs("client.go")
	ts.Check(os.WriteFile(path, formatted, 0o600))
	ts.Check(goBuild(ts.MkAbs("client"), path))
}

func TestCctoken(t *testing.T) { runScripts(t, filepath.Join("testdata", "cctoken"), nil, nil) }

// TestCctokenOnServers gets a token from each server with each kind of credential. It
// checks the report of doctor, and that its Config gets a token as well.
func TestCctokenOnServers(t *testing.T) {
	const special = "a+b/c d%e:f" // It shows whether a server decodes Basic credentials.
	bound := map[string]any{"dpop_bound_access_tokens": true}
	subject := map[string]any{"tls_client_auth_subject_dn": clientCertificates()[first].Leaf.Subject.String()}
	tests := []struct {
		name   string
		start  func(*testing.T, ...registration) []endpoints
		client registration
		issuer bool   // cctoken gets the issuer, not the token URL
		flags  string // for cctoken; writeCredentials writes the files in DIR
		method string // -auth-method for token; doctor finds it out
		report string // a line of the report of doctor
		wrong  string // a line of its report if the secret is wrong
	}{
		{
			name: "oidc-provider, basic", start: oidcProvider.start, issuer: true,
			client: registration{secret: special, method: secretBasic},
			report: `ok    encoding +the server form-decodes`,
			wrong:  `note  client_secret_basic refused.* invalid_client`,
		},
		{
			name: "oidc-provider, post", start: oidcProvider.start,
			client: registration{secret: "secret", method: secretPost},
			report: `ok    client_secret_post +works`,
			wrong:  `note  client_secret_post +refused.* invalid_client`,
		},
		{
			name: "oidc-provider, client_secret_jwt", start: oidcProvider.start, issuer: true,
			client: registration{secret: assertionSecret, method: secretJWT}, method: secretJWT,
			report: `ok    client_secret_jwt +works with the issuer as audience`,
			wrong:  `note  client_secret_jwt +refused.* invalid_client`,
		},
		{
			name: "oidc-provider, private_key_jwt", start: oidcProvider.start, issuer: true,
			client: registration{method: privateKeyJWT}, flags: "-key-file DIR/key.jwk",
			report: `ok    private_key_jwt +works with the issuer as audience`,
		},
		{
			name: "oidc-provider, DPoP", start: oidcProviderNonce.start, issuer: true,
			client: registration{method: privateKeyJWT, metadata: bound}, flags: "-key-file DIR/key.jwk -dpop-key-file DIR/key.pem",
			report: `ok    token +type DPoP`,
		},
		{
			name: "oidc-provider, tls_client_auth", start: oidcProviderTLS.start, issuer: true,
			client: registration{method: tlsAuth, metadata: subject}, flags: "-cert-file DIR/cert.pem -key-file DIR/key.pem -ca-file DIR/ca.pem",
			report: `ok    tls_client_auth +works`,
		},
		{
			name: "oidc-provider, https", start: oidcProviderTLS.start, issuer: true,
			client: registration{secret: "secret", method: secretBasic}, flags: "-ca-file DIR/ca.pem",
			report: `warn  tls +TLS 1.3, HTTP/2.0; certificate "authorization server" by "conformance tests", valid for another 0 days`,
			wrong:  `note  client_secret_basic refused`,
		},
		{
			name: "authlib, basic", start: authlib.start,
			client: registration{secret: special, method: secretBasic}, method: "client_secret_basic_raw",
			report: `ok    client_secret_basic_raw works`,
			wrong:  `note  client_secret_basic refused.* invalid_client`,
		},
		{
			name: "authlib, basic, a plain secret", start: authlib.start,
			client: registration{secret: "secret", method: secretBasic},
			report: `warn  encoding +the server doesn't decode Basic credentials`,
			wrong:  `note  client_secret_basic refused`,
		},
		{
			name: "authlib, post", start: authlib.start,
			client: registration{secret: special, method: secretPost},
			report: `ok    client_secret_post +works`,
			wrong:  `note  client_secret_post +refused`,
		},
		{
			name: "authlib, private_key_jwt", start: authlib.start,
			client: registration{method: privateKeyJWT}, flags: "-key-file DIR/key.jwk",
			report: `ok    private_key_jwt +works`,
		},
		{
			name: "django-oauth-toolkit, basic", start: django.start,
			client: registration{secret: special, method: secretBasic},
			report: `ok    encoding +the server form-decodes`,
			wrong:  `note  client_secret_basic refused`,
		},
		{
			name: "go-oauth2, basic", start: startGoOAuth2,
			client: registration{secret: "secret", method: secretBasic},
			report: `warn  encoding +the server doesn't decode Basic credentials`,
			wrong:  `note  client_secret_basic refused`,
		},
		{
			name: "go-oauth2, post", start: startGoOAuth2,
			client: registration{secret: special, method: secretPost},
			report: `ok    client_secret_post +works`,
			wrong:  `note  client_secret_post +refused`,
		},
	}
	for _, tt := range tests {
		t.Run(slug(tt.name), func(t *testing.T) {
			c := tt.client
			c.id, c.ttl = "cctoken-"+slug(tt.name), time.Hour
			if c.method == privateKeyJWT {
				c.keys = []jose.JSONWebKey{{Key: signer("ES256", first).Public(), KeyID: keyID("ES256", first), Algorithm: "ES256", Use: "sig"}}
			}
			at := tt.start(t, c)[0]
			runScripts(t, filepath.Join("testdata", "cctoken-servers"), func(env *testscript.Env) error {
				env.Setenv("CLIENT_ID", c.id)
				env.Setenv("CLIENT_SECRET", c.secret)
				if tt.issuer {
					env.Setenv("ISSUER", at.issuer)
				} else {
					env.Setenv("TOKEN_URL", at.token)
				}
				env.Setenv("API_URL", at.api)
				env.Setenv("FLAGS", strings.ReplaceAll(tt.flags, "DIR", env.WorkDir))
				env.Setenv("REPORT", tt.report)
				env.Setenv("WRONG", tt.wrong)
				env.Setenv("SSL_CERT_FILE", filepath.Join(env.WorkDir, "ca.pem")) // for ./client
				if tt.method != "" {
					env.Setenv("METHOD", "-auth-method="+tt.method)
				}
				return writeCredentials(env.WorkDir)
			}, map[string]bool{"bearer": c.metadata == nil && !strings.HasPrefix(at.api, "https:"), "secret": c.secret != ""})
		})
	}
}

// writeCredentials writes the keys and certificates of the first generation into dir.
func writeCredentials(dir string) error {
	jwk, err := json.Marshal(jose.JSONWebKey{Key: signer("ES256", first), KeyID: keyID("ES256", first), Algorithm: "ES256"})
	if err != nil {
		return err
	}
	certificate, key, err := pemOf(clientCertificates()[first])
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"key.jwk": jwk, "cert.pem": certificate, "key.pem": key, "ca.pem": []byte(testPKI().serverPEM().CA),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func pemOf(c tls.Certificate) (certificate, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

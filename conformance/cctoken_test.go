package conformance

import (
	"errors"
	"fmt"
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

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
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
		Condition:           func(name string) (bool, error) { return conditions[name], nil },
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
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
	const here = "github.com/seed-5bfa0880/clientcredentials"
	var imports strings.Builder
	for name, path := range map[string]string{
		"os.Getenv": "os", "url.Values": "net/url", "oauth2.Auth": "golang.org/x/oauth2",
		"clientcredentials.C": here, "clientauth.": here + "/clientauth",
	} {
		if strings.Contains(code, name) {
			imports.WriteString(strconv.Quote(path) + "\n")
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
		}`, imports.String(), code)
	path := ts.MkAbs("client.go")
	ts.Check(os.WriteFile(path, []byte(source), 0o600))
	ts.Check(goBuild(ts.MkAbs("client"), path))
}

func TestCctoken(t *testing.T) {
	runScripts(t, filepath.Join("testdata", "cctoken"), func(*testscript.Env) error { return nil }, nil)
}

// TestCctokenOnServers gets a token from each server with each kind of credential. It
// checks the report of doctor, and that its Config gets a token as well.
func TestCctokenOnServers(t *testing.T) {
	const special = "a+b/c d%e:f" // It shows whether a server decodes Basic credentials.
	subject := map[string]any{"tls_client_auth_subject_dn": clientCertificates()[first].Leaf.Subject.String()}
	for _, tt := range []struct {
		name   string
		start  starter
		secret string
		known  string         // the method that the client is registered for
		bound  map[string]any // further metadata
		issuer bool           // cctoken gets the issuer, not the token URL
		flags  string         // for cctoken; writeCredentials writes the files in DIR
		method string         // -auth-method for token; doctor finds it out
		report string         // a line of the report of doctor
		wrong  string         // a line of its report if the secret is wrong
	}{
		{
			"oidc-provider, basic", oidcProvider.start, special, secretBasic, nil, true, "", "",
			`ok    encoding +the server form-decodes`, `note  client_secret_basic refused.* invalid_client`,
		},
		{
			"oidc-provider, post", oidcProvider.start, special, secretPost, nil, false, "", "",
			`ok    client_secret_post +works`, `note  client_secret_post +refused.* invalid_client`,
		},
		{
			"oidc-provider, client_secret_jwt", oidcProvider.start, assertionSecret, secretJWT, nil, true, "", secretJWT,
			`ok    client_secret_jwt +works`, `note  client_secret_jwt +refused.* invalid_client`,
		},
		{
			"oidc-provider, DPoP", oidcProviderNonce.start, "", privateKeyJWT, dpopBound(), true,
			"-key-file DIR/key.jwk -dpop-key-file DIR/key.pem", "", `ok    token +type DPoP`, "",
		},
		{
			"oidc-provider, tls_client_auth", oidcProviderTLS.start, "", tlsAuth, subject, true,
			"-cert-file DIR/cert.pem -key-file DIR/key.pem -ca-file DIR/ca.pem", "", `ok    tls_client_auth +works`, "",
		},
		{
			"oidc-provider, https", oidcProviderTLS.start, "secret", secretBasic, nil, true, "-ca-file DIR/ca.pem", "",
			`warn  tls +TLS 1.3, HTTP/2.0; certificate "authorization server" by "conformance tests", valid for another 0 days`,
			`note  client_secret_basic refused`,
		},
		{
			"authlib, basic", authlib.start, special, secretBasic, nil, false, "", "client_secret_basic_raw",
			`ok    client_secret_basic_raw works`, `note  client_secret_basic refused.* invalid_client`,
		},
		{
			"authlib, private_key_jwt", authlib.start, "", privateKeyJWT, nil, false, "-key-file DIR/key.jwk", "",
			`ok    private_key_jwt +works`, "",
		},
		{
			"django-oauth-toolkit, basic", django.start, special, secretBasic, nil, false, "", "",
			`ok    encoding +the server form-decodes`, `note  client_secret_basic refused`,
		},
		{
			"hydra, basic", hydra.start, special, secretBasic, nil, true, "", "",
			`ok    encoding +the server form-decodes`, `note  client_secret_basic refused.* invalid_client`,
		},
		{
			"hydra, post", hydra.start, special, secretPost, nil, false, "", "",
			`ok    client_secret_post +works`, `note  client_secret_post +refused.* invalid_client`,
		},
		{
			"hydra, private_key_jwt", hydra.start, "", privateKeyJWT, nil, false, "-key-file DIR/key.jwk", "",
			`ok    private_key_jwt +works`, "",
		},
		{
			"node-oauth, basic", nodeOAuth.start, special, secretBasic, nil, false, "", "client_secret_basic_raw",
			`note  client_secret_basic_raw not tried: client_secret_post takes any secret`, `note  client_secret_basic refused.* invalid_client`,
		},
		{
			"zitadel, basic", startZitadel, special, secretBasic, nil, true, "", "",
			`ok    encoding +the server form-decodes`, `note  client_secret_basic refused.* invalid_client`,
		},
		{
			"go-oauth2, basic", startGoOAuth2, "secret", secretBasic, nil, false, "", "",
			`warn  encoding +the server doesn't decode Basic credentials`, `note  client_secret_basic refused`,
		},
	} {
		t.Run(slug(tt.name), func(t *testing.T) {
			c := registration{id: "cctoken-" + slug(tt.name), secret: tt.secret, method: tt.known, ttl: time.Hour, metadata: tt.bound}
			if c.method == privateKeyJWT {
				c.alg, c.keys = "ES256", []jose.JSONWebKey{publicKey("ES256", first)}
			}
			at := tt.start(t, c)[0]
			runScripts(t, filepath.Join("testdata", "cctoken-servers"), func(env *testscript.Env) error {
				for name, value := range map[string]string{
					"CLIENT_ID": c.id, "CLIENT_SECRET": c.secret, "API_URL": at.api,
					"FLAGS":  strings.ReplaceAll(tt.flags, "DIR", env.WorkDir),
					"REPORT": tt.report, "WRONG": tt.wrong,
					"SSL_CERT_FILE": filepath.Join(env.WorkDir, "ca.pem"), // for ./client
				} {
					env.Setenv(name, value)
				}
				if tt.issuer {
					env.Setenv("ISSUER", at.issuer)
				} else {
					env.Setenv("TOKEN_URL", at.token)
				}
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
	certificate := &clientCertificates()[first]
	return writeFiles(dir, map[string]string{
		"key.jwk": privateJWK("ES256", first), "cert.pem": testkit.CertificatePEM(certificate),
		"key.pem": testkit.KeyPEM(certificate.PrivateKey), "ca.pem": testPKI().serverPEM().CA,
	})
}

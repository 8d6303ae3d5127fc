package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

// The test program behaves as cctoken if that is its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "cctoken" {
		main()
	}
	leakcheck.Main(m)
}

const (
	canaryID     = "client"
	canarySecret = "SecretCanary/5&Kf+ w<2>=\"Z\"~%41-9xQ"
	plainSecret  = "SecretCanary-8fJq2.Vd_Lw4Rt6Yp0Zx3Nb7" // Form encoding doesn't change it.
	canaryToken  = "TokenCanary.e5Gy_t2Wq-7LmX"
)

// A result is what a call of cctoken returned and printed.
type result struct {
	status         int
	stdout, stderr string
}

// An environment holds the variables of the environment.
type environment map[string]string

func (e environment) get(name string) string { return e[name] }

// with returns a copy of e that has these variables, too.
func (e environment) with(namesAndValues ...string) environment {
	other := maps.Clone(e)
	for pair := range slices.Chunk(namesAndValues, 2) {
		other[pair[0]] = pair[1]
	}
	return other
}

// cctoken runs the program. It checks that no output contains a secret, and that an
// error is one line on standard error.
func cctoken(t *testing.T, env environment, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), args, env.get, strings.NewReader(stdin), &stdout, &stderr)
	r := result{status, stdout.String(), stderr.String()}
	for _, secret := range []string{canarySecret, plainSecret, canaryToken} {
		assert.Empty(t, hostile.Find(r.stderr, secret), "a secret on standard error")
		if len(args) > 0 && args[0] != "token" {
			assert.Empty(t, hostile.Find(r.stdout, secret), "a secret on standard output")
		}
	}
	if status != statusOK {
		lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
		assert.True(t, strings.HasPrefix(lines[len(lines)-1], "cctoken"), r.stderr)
		assert.Len(t, lines, 1, r.stderr)
	}
	return r
}

func TestUsage(t *testing.T) {
	configured := clientOf("http://127.0.0.1:1/token")
	_, keyFile := newKeyFile(t)
	issued := newCertificate(t, newCertificate(t, nil, time.Hour), time.Hour)
	tests := []struct {
		name  string
		env   environment
		stdin string
		args  []string
		want  string
	}{
		{name: "no command", want: "cctoken: no command was given; see cctoken help"},
		{name: "an unknown command", args: []string{canarySecret}, want: "the first argument isn't a command"},
		{name: "help of an unknown command", args: []string{"help", canarySecret}, want: "there is no such command"},
		{name: "help of two", args: []string{"help", "token", "serve"}, want: "give one command"},
		{name: "an unknown flag", args: []string{"token", "-colour"}, want: "there is no flag -colour; see cctoken token -h"},
		{name: "an unknown flag that may be a secret", args: []string{"token", "-" + canarySecret}, want: "the flags can't be parsed"},
		{name: "a flag without value", args: []string{"token", "-scopes"}, want: "the flag -scopes needs a value"},
		{name: "an argument", env: configured, args: []string{"token", canarySecret}, want: "there is an argument that isn't a flag"},
		{name: "a secret after an equals sign", args: []string{"doctor", "-n", "--client-secret=" + canarySecret}, want: "no flag takes a secret"},
		{name: "a timeout", env: configured, args: []string{"token", "-timeout", canarySecret}, want: "-timeout is not a duration such as 30s or 2m"},
		{name: "no time", env: configured, args: []string{"token", "-timeout", "0"}, want: "-timeout is 0"},
		{name: "two forms", env: configured, args: []string{"token", "-json", "-header"}, want: "-header and -json can't be combined"},
		{name: "no client id", env: configured.with("CLIENT_ID", ""), args: []string{"token"}, want: "give -client-id, or set CLIENT_ID"},
		{name: "no server", env: configured.with("TOKEN_URL", ""), args: []string{"token"}, want: "give -token-url or -issuer"},
		{name: "no credentials", env: configured.with("CLIENT_SECRET", ""), args: []string{"token"}, want: "set CLIENT_SECRET in the environment"},
		{name: "two secrets", env: configured.with("SECRET_FILE", "secret"), args: []string{"token"}, want: "both CLIENT_SECRET and SECRET_FILE are set"},
		{name: "a token URL that isn't absolute", env: configured.with("TOKEN_URL", "login.example"), args: []string{"token"}, want: "-token-url is not absolute"},
		{name: "an issuer over http", env: configured.with("TOKEN_URL", ""), args: []string{"token", "-issuer", "http://login.example"}, want: "the issuer is http"},
		{name: "params", env: configured, args: []string{"token", "-params", "%zz"}, want: "-params is not form-encoded"},
		{name: "a secret in params", env: configured, args: []string{"token", "-params", "client_secret=" + canarySecret}, want: "-params contains a parameter with the name of a secret"},
		{name: "a scope in params", env: configured, args: []string{"doctor", "-n", "-params", "scope=a", "-scopes", "b"}, want: "-params contains scope, and there is also -scopes"},
		{name: "a method", env: configured, args: []string{"token", "-auth-method", "basic"}, want: "-auth-method must be one of client_secret_basic, "},
		{name: "a method without key", env: configured, args: []string{"token", "-auth-method", privateKeyJWT}, want: "private_key_jwt needs -key-file or -assertion-file"},
		{name: "a method without certificate", env: configured, args: []string{"token", "-auth-method", tlsAuth}, want: "tls_client_auth needs -cert-file and -key-file"},
		{name: "a method without assertion", env: configured, args: []string{"token", "-auth-method", spiffeJWT}, want: "spiffe_jwt needs -assertion-file"},
		{name: "a method without secret", env: configured.with("CLIENT_SECRET", ""), args: []string{"token", "-key-file", keyFile, "-auth-method", secretPost}, want: "client_secret_post needs a secret"},
		{name: "a secret that is too short, after the metadata", env: configured.with("TOKEN_URL", "", "CLIENT_SECRET", "short", "ISSUER", startServer(t).withMetadata(t, func(*clientcredentials.ServerMetadata) {})), args: []string{"token", "-auth-method", secretJWT}, want: "needs a secret of at least 32 bytes"},
		{name: "a secret file", env: configured, args: []string{"token", "-secret-file", "missing"}, want: "-secret-file: stat missing"},
		{name: "a key file with something else", env: configured, args: []string{"token", "-key-file", writeFile(t, "key", canarySecret)}, want: "-key-file: the file"},
		{name: "a DPoP key file", env: configured, args: []string{"token", "-dpop-key-file", "missing"}, want: "-dpop-key-file: stat missing"},
		{name: "a header for a bound token", env: configured, args: []string{"token", "-header", "-dpop-key-file", keyFile}, want: "which -header can't provide"},
		{name: "a certificate without key", env: configured, args: []string{"token", "-cert-file", "x"}, want: "-cert-file needs the certificate's private key"},
		{name: "a header without certificate", env: configured, args: []string{"token", "-cert-header", "x5c", "-key-file", keyFile}, want: "-cert-header is about a certificate; give it with -cert-file"},
		{name: "an unknown header", env: configured, args: append([]string{"token"}, issued.flags("-auth-method", privateKeyJWT, "-cert-header", "x5c x5u")...), want: `it may list x5c, x5t and x5t#S256`},
		{name: "neither true nor false", env: configured, args: []string{"token", "-omit-client-id", canarySecret}, want: "-omit-client-id must be true or false"},
		{name: "a certificate file", env: configured, args: []string{"token", "-cert-file", "missing", "-key-file", keyFile}, want: "-cert-file: stat missing"},
		{name: "a CA file", env: configured, args: []string{"token", "-ca-file", "missing"}, want: "-ca-file: open missing"},
		{name: "a CA file with something else", env: configured, args: []string{"token", "-ca-file", keyFile}, want: "there is no certificate; check that this is the right file"},
		{name: "a name that rewrites the terminal", args: []string{"token", "-config", "missing\x1b[2J\nor not"}, want: "-config: open missing\ufffd[2J; or not"},
		{name: "a config file with two objects", args: []string{"token", "-config", writeFile(t, "c", `{} {}`)}, want: "must contain one JSON object"},
		{name: "a config file with a secret", args: []string{"token", "-config", writeFile(t, "c", `{"client_secret":"`+plainSecret+`"}`)}, want: "contains client_secret, but such a file is easily shared by mistake"},
		{name: "a config file with an unknown member", args: []string{"token", "-config", writeFile(t, "c", `{"clientID":"x"}`)}, want: `contains "clientID", which isn't a setting`},
		{name: "a config file with a list for a string", args: []string{"token", "-config", writeFile(t, "c", `{"scopes":["a"]}`)}, want: "scopes in "},
		{name: "refusals", env: configured, args: []string{"doctor", "-max-refusals", "11"}, want: "-max-refusals is not a number from 1 to 10"},
		{name: "a short lifetime", args: []string{"serve", "-lifetime", "1ms"}, want: "-lifetime is less than a second"},
		{name: "faults", args: []string{"serve", "-faults", "ok,200"}, want: "-faults is not a list of ok, reset"},
		{name: "no token", args: []string{"inspect"}, want: "the input is empty"},
		{name: "a token as an argument", args: []string{"inspect", canaryToken}, want: "if it is a token, don't give it as an argument"},
		{name: "two files", args: []string{"inspect", "a", "b"}, want: "too many arguments"},
		{name: "a directory", args: []string{"inspect", t.TempDir()}, want: "the input can't be read"},
		{name: "two words", stdin: canaryToken + " " + canaryToken, args: []string{"inspect"}, want: "the input isn't a token"},
		{name: "JSON without a token", stdin: `{"token":"` + canaryToken + `"}`, args: []string{"inspect"}, want: "JSON without an access_token"},
		{name: "too much", stdin: strings.Repeat("a", maxInput+1), args: []string{"inspect"}, want: "larger than 1 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := cctoken(t, tt.env, tt.stdin, tt.args...)
			assert.Equal(t, statusUsage, r.status, r.stderr)
			assert.Contains(t, r.stderr, tt.want)
			assert.Empty(t, r.stdout)
		})
	}
}

// A brokenWriter fails like a pipe without a reader.
type brokenWriter struct{ writes int }

func (w *brokenWriter) Write([]byte) (int, error) {
	w.writes++
	return 0, syscall.EPIPE
}

func TestBrokenOutput(t *testing.T) {
	srv := startServer(t)
	for _, args := range []string{"doctor", "token", "token -json", "token -header", "inspect", "version", "help", "serve", "key -out -", "exec-credential -cache=false"} {
		stdout, stderr := new(brokenWriter), new(bytes.Buffer)
		status := run(t.Context(), strings.Fields(args), srv.env().get, strings.NewReader(canaryToken), stdout, stderr)
		assert.Equal(t, statusOutput, status, args)
		assert.Equal(t, 1, stdout.writes, "it wrote again after an error")
		assert.Contains(t, stderr.String(), "the result can't be written: broken pipe")
		if args == "doctor" {
			assert.Zero(t, srv.Auth.TokenRequests(), "requests without anybody to read the report")
		}
	}
}

func TestInterrupted(t *testing.T) {
	srv := startServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	stdin, typing := io.Pipe()
	defer typing.Close()
	status := make(chan int, 1)
	go func() { status <- run(ctx, []string{"inspect"}, environment(nil).get, stdin, io.Discard, io.Discard) }()
	_, err := typing.Write([]byte("eyJ")) // Now it reads.
	require.NoError(t, err)
	cancel()
	assert.Equal(t, statusInterrupted, <-status)
	path := filepath.Join(t.TempDir(), "key.pem")
	for _, args := range []string{"token", "doctor", "key -out " + path} {
		name, _, _ := strings.Cut(args, " ")
		var stderr bytes.Buffer
		status := run(ctx, strings.Fields(args), srv.env().get, strings.NewReader(""), io.Discard, &stderr)
		assert.Equal(t, statusInterrupted, status)
		assert.Equal(t, "cctoken "+name+": interrupted\n", stderr.String())
	}
	assert.NoFileExists(t, path)
}

// TestHelp checks that all ways to ask for a help page print the same, that the page
// documents exactly the flags of the command, and that docs/cctoken.md links to it.
func TestHelp(t *testing.T) {
	overview, document := cctoken(t, nil, "", "help"), readDocument(t)
	assert.Contains(t, document, "(../cmd/cctoken/help/cctoken.txt)")
	for _, word := range []string{"-h", "--help", "-help"} {
		assert.Equal(t, overview, cctoken(t, nil, "", word))
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			r := cctoken(t, nil, "", "help", name)
			assert.Equal(t, r, cctoken(t, nil, "", name, "-h"))
			assert.True(t, strings.HasPrefix(r.stdout, "cctoken "+name+" "))
			assert.Contains(t, overview.stdout, "  "+name+" ")
			assert.Contains(t, document, "(../cmd/cctoken/help/"+name+".txt)")

			c := new(call)
			c.begin(name, []string{"-h"})
			c.env = environment(nil).get
			require.ErrorIs(t, command(t.Context(), c), errHelp)
			c.flags.VisitAll(func(f *flag.Flag) { assert.Regexp(t, `(?m)(^|[ \n])-`+f.Name+`\b`, r.stdout) })
			for _, match := range regexp.MustCompile(`(?m)^  -([a-z-]+) `).FindAllStringSubmatch(r.stdout, -1) {
				assert.True(t, match[1] == "h" || c.flags.Lookup(match[1]) != nil, "the page documents a flag that doesn't exist")
			}
		})
	}
	for _, o := range clientsettings.Options {
		assert.Contains(t, overview.stdout, "\n  -"+o.Flag+" ")
	}
}

func readDocument(t *testing.T) string {
	t.Helper()
	return readPage(t, "cctoken.md")
}

// readPage returns a page in docs/.
func readPage(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/" + name)
	require.NoError(t, err)
	return string(page)
}

func TestVersion(t *testing.T) {
	for _, word := range []string{"version", "-version", "--version"} {
		assert.Regexp(t, `^cctoken \S+ \(go\S+ \w+/\w+\)\n$`, cctoken(t, nil, "", word).stdout)
	}
}

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// oidcClient is a client's metadata (RFC 7591, Section 2) as server.mjs takes it.
type oidcClient struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
	Method string `json:"token_endpoint_auth_method"`
	Scope  string `json:"scope"`
	TTL    int    `json:"ttl"` // seconds
}

// oidcConfig is server.mjs's argument.
type oidcConfig struct {
	Scopes []string `json:"scopes"`
	// ClockTolerance is for how many seconds past its expiry a token is still
	// honoured. The provider keeps time in whole seconds, rounded down: at 0 a
	// token of three seconds lives between two and three, at 1 between three
	// and four. (Its own default is 15.)
	ClockTolerance int          `json:"clockTolerance"`
	Clients        []oidcClient `json:"clients"`
}

// startOIDCProvider starts an oidc-provider whose tokens live at least as long as it says.
func startOIDCProvider(t *testing.T, clients ...registration) []endpoints {
	t.Helper()
	return runOIDCProvider(t, 1, clients...)
}

// runOIDCProvider starts oidc-provider/server.mjs and stops it when the test ends.
func runOIDCProvider(t *testing.T, clockTolerance int, clients ...registration) []endpoints {
	t.Helper()

	dir := "oidc-provider"
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "Node.js is not installed: install it (Debian: nodejs, npm), then run `make setup`")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider", "package.json")); err != nil {
		missing(t, "oidc-provider is not installed: run `make setup`, or `npm ci` in conformance/oidc-provider")
	}

	config := oidcConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockTolerance: clockTolerance}
	for _, c := range clients {
		config.Clients = append(config.Clients, oidcClient{
			ID: c.id, Secret: c.secret, Method: c.method, Scope: scopeRead, TTL: int(c.ttl / time.Second),
		})
	}
	arg, err := json.Marshal(config)
	require.NoError(t, err)

	var stderr bytes.Buffer
	cmd := exec.Command(node, "server.mjs", string(arg))
	cmd.Dir = dir
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // held open until the test ends: the server ends with it
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())

	issuers := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer close(issuers)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var ready struct {
				Issuer string `json:"issuer"`
			}
			// The provider's own notices may come before and after.
			if json.Unmarshal(lines.Bytes(), &ready) == nil && ready.Issuer != "" {
				issuers <- ready.Issuer
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		<-drained
		err := cmd.Wait()
		if !kill.Stop() {
			t.Error("oidc-provider outlived its standard input and was killed")
		}
		if err != nil {
			t.Errorf("oidc-provider: %v", err)
		}
		if t.Failed() {
			t.Logf("oidc-provider's standard error:\n%s", stderr.String())
		}
	})

	var issuer string
	select {
	case issuer = <-issuers: // empty if it ended without a word
	case <-time.After(time.Minute):
	}
	require.NotEmpty(t, issuer, "oidc-provider did not start")

	all := make([]endpoints, len(clients))
	for i := range all {
		all[i] = endpoints{token: issuer + "/token", api: issuer + "/api"}
	}
	return all
}

// missing ends a test whose server can't be run here.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CLIENTCREDENTIALS_REQUIRE_SERVERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

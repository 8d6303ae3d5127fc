package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The programs. Those of oidc-provider differ in their configuration.
var (
	// oidcProvider serves by http. Its tokens live at least as long as it says.
	oidcProvider = oidc("oidc-provider", func(*programConfig) {})
	// oidcProviderNonce demands a nonce in each DPoP proof.
	oidcProviderNonce = oidc("oidc-provider, nonces", func(c *programConfig) { c.RequireNonce = true })
	// oidcProviderAhead serves by https, and its clock is an hour fast.
	oidcProviderAhead = oidc("oidc-provider, ahead", func(c *programConfig) { c.ClockOffset, c.TLS = 3600, testPKI().serverPEM() })
	// oidcProviderTLS serves by https, and asks for client certificates.
	oidcProviderTLS = oidc("oidc-provider, https", func(c *programConfig) { c.TLS = testPKI().serverPEM() })
	// Authlib refuses scopes that the server doesn't know, but only narrows a request for
	// scopes that the client may not have. So the server must not know scopeAdmin.
	authlib = python("authlib", "authlib", "python3-authlib", scopeRead)
	django  = python("django-oauth-toolkit", "django", "python3-django-oauth-toolkit", scopeRead, scopeAdmin)

	programs = []*program{oidcProvider, oidcProviderNonce, oidcProviderAhead, oidcProviderTLS, authlib, django}
)

// oidc returns an oidc-provider whose tokens live at least as long as it says, with
// changes.
func oidc(name string, change func(*programConfig)) *program {
	return &program{name: name, command: oidcProviderCommand, config: func() programConfig {
		config := programConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockTolerance: 1}
		change(&config)
		return config
	}}
}

func oidcProviderCommand(arg string) (*exec.Cmd, error) {
	dir := "oidc-provider"
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("install Node.js (Debian: nodejs, npm), then %w", errMissing)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider", "package.json")); err != nil {
		return nil, fmt.Errorf("oidc-provider is not installed: %w, or `npm ci` in conformance/oidc-provider", errMissing)
	}
	cmd := exec.Command(node, "server.mjs", arg)
	cmd.Dir = dir
	return cmd, nil
}

// python returns the program dir/server.py, which needs a Debian package. It runs with
// Debian's Python, because another one wouldn't find the package.
func python(name, dir, pkg string, scopes ...string) *program {
	return &program{name: name, config: func() programConfig { return programConfig{Scopes: scopes} }, command: func(arg string) (*exec.Cmd, error) {
		if _, err := os.Stat("/var/lib/dpkg/info/" + pkg + ".list"); err != nil {
			return nil, fmt.Errorf("the Debian package %s is not installed: %w", pkg, errMissing)
		}
		return exec.Command("/usr/bin/python3", "-I", "-B", filepath.Join(dir, "server.py"), arg), nil
	}}
}

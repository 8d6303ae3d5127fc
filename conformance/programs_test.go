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
	oidcProvider = oidcProgram("oidc-provider", func(*programConfig) {})
	// oidcProviderNonce demands a nonce in each DPoP proof.
	oidcProviderNonce = oidcProgram("oidc-provider, nonces", func(c *programConfig) { c.RequireNonce = true })
	// oidcProviderAhead serves by https, and its clock is an hour fast.
	oidcProviderAhead = oidcProgram("oidc-provider, ahead", func(c *programConfig) { c.ClockOffset, c.TLS = 3600, testPKI().serverPEM() })
	// oidcProviderTLS serves by https, and asks for client certificates.
	oidcProviderTLS = oidcProgram("oidc-provider, https", func(c *programConfig) { c.TLS = testPKI().serverPEM() })
	// Authlib refuses scopes that the server doesn't know, but only narrows a request for
	// scopes that the client may not have. So the server must not know scopeAdmin.
	authlib = python("authlib", "authlib", "python3-authlib", scopeRead)
	django  = python("django-oauth-toolkit", "django", "python3-django-oauth-toolkit", scopeRead, scopeAdmin)
	hydra   = &program{name: "hydra", command: hydraCommand, config: configOf(scopeRead, scopeAdmin)}
	// hydraBehind has a clock that is some seconds slow. For it, ours is ahead.
	hydraBehind = &program{name: "hydra, behind", command: hydraCommand, config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockOffset: -5}
	}}
	// nodeOAuth leaves scopes to the program that uses it.
	nodeOAuth = &program{name: "node-oauth", command: node("node-oauth", "@node-oauth/oauth2-server"), config: configOf()}

	programs = []*program{
		oidcProvider, oidcProviderNonce, oidcProviderAhead, oidcProviderTLS, authlib, django, hydra, hydraBehind, nodeOAuth,
	}
)

// configOf returns the configuration of a program that knows nothing but scopes.
func configOf(scopes ...string) func() programConfig {
	return func() programConfig { return programConfig{Scopes: scopes} }
}

// oidcProgram returns an oidc-provider whose tokens live at least as long as it says, with
// changes.
func oidcProgram(name string, change func(*programConfig)) *program {
	return &program{name: name, command: node("oidc-provider", "oidc-provider"), config: func() programConfig {
		config := programConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockTolerance: 1}
		change(&config)
		return config
	}}
}

// node returns the command of the program dir/server.mjs, which needs an npm package.
func node(dir, pkg string) func(arg string) (*exec.Cmd, error) {
	return func(arg string) (*exec.Cmd, error) {
		node, err := exec.LookPath("node")
		if err != nil {
			return nil, fmt.Errorf("install Node.js (Debian: nodejs, npm), then %w", errMissing)
		}
		if _, err := os.Stat(filepath.Join(dir, "node_modules", pkg, "package.json")); err != nil {
			return nil, fmt.Errorf("%s is not installed: %w, or `npm ci` in conformance/%s", pkg, errMissing, dir)
		}
		cmd := exec.Command(node, "server.mjs", arg)
		cmd.Dir = dir
		return cmd, nil
	}
}

func hydraCommand(arg string) (*exec.Cmd, error) {
	file := filepath.Join("..", "bin", "hydra")
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("Ory Hydra is not built: %w", errMissing)
	}
	return exec.Command(file, arg), nil
}

// python returns the program dir/server.py, which needs a Debian package. It runs with
// Debian's Python, because another one wouldn't find the package.
func python(name, dir, pkg string, scopes ...string) *program {
	return &program{name: name, config: configOf(scopes...), command: func(arg string) (*exec.Cmd, error) {
		if _, err := os.Stat("/var/lib/dpkg/info/" + pkg + ".list"); err != nil {
			return nil, fmt.Errorf("the Debian package %s is not installed: %w", pkg, errMissing)
		}
		return exec.Command("/usr/bin/python3", "-I", "-B", filepath.Join(dir, "server.py"), arg), nil
	}}
}

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The programs. Those of oidc-provider differ in what they ask of a client.
var (
	// oidcProvider serves by http. Its tokens live at least as long as it says.
	oidcProvider = &program{name: "oidc-provider", command: oidcProviderCommand, config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockTolerance: 1}
	}}
	// oidcProviderPunctual doesn't honour a token for longer than it has to.
	oidcProviderPunctual = &program{name: "oidc-provider, punctual", command: oidcProviderCommand, config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead, scopeAdmin}}
	}}
	// oidcProviderNonce wants a nonce in each DPoP proof.
	oidcProviderNonce = &program{name: "oidc-provider, nonces", command: oidcProviderCommand, config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockTolerance: 1, RequireNonce: true}
	}}
	// oidcProviderAhead serves by https, and its clock is an hour fast.
	oidcProviderAhead = &program{name: "oidc-provider, ahead", command: oidcProviderCommand, config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockTolerance: 1, ClockOffset: 3600, TLS: testPKI().serverPEM()}
	}}
	// oidcProviderTLS serves by https, and asks for client certificates.
	oidcProviderTLS = &program{name: "oidc-provider, https", command: oidcProviderCommand, config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead, scopeAdmin}, ClockTolerance: 1, TLS: testPKI().serverPEM()}
	}}
	// Authlib refuses scopes that the server doesn't know, and narrows those that
	// a client may not have: what the client may not have, the server doesn't know.
	authlib = &program{name: "authlib", command: python("authlib", "python3-authlib"), config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead}}
	}}
	django = &program{name: "django-oauth-toolkit", command: python("django", "python3-django-oauth-toolkit"), config: func() programConfig {
		return programConfig{Scopes: []string{scopeRead, scopeAdmin}}
	}}

	programs = []*program{oidcProvider, oidcProviderPunctual, oidcProviderNonce, oidcProviderAhead, oidcProviderTLS, authlib, django}
)

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

// python returns the command of dir/server.py, which needs a Debian package. Its
// Python is Debian's too: one of the user's own doesn't see the package.
func python(dir, pkg string) func(string) (*exec.Cmd, error) {
	return func(arg string) (*exec.Cmd, error) {
		if _, err := os.Stat("/var/lib/dpkg/info/" + pkg + ".list"); err != nil {
			return nil, fmt.Errorf("the Debian package %s is not installed: %w", pkg, errMissing)
		}
		return exec.Command("/usr/bin/python3", "-I", "-B", filepath.Join(dir, "server.py"), arg), nil
	}
}

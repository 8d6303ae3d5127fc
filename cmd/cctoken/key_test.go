package main

import (
	"crypto"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// registered returns the members of the registration in text, and the only key in it.
func registered(t *testing.T, text string) (members, key map[string]any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &members))
	keys := members["jwks"].(map[string]any)["keys"].([]any)
	require.Len(t, keys, 1)
	return members, keys[0].(map[string]any)
}

// TestC8_NewKeys makes a key for each algorithm. A server that knows the public key issues a
// token to the client that has the file.
func TestC8_NewKeys(t *testing.T) {
	for algorithm, kty := range map[string]string{"": "EC", "ES384": "EC", "ES512": "EC", "EdDSA": "OKP", "Ed25519": "OKP", "RS256": "RSA", "PS256": "RSA"} {
		t.Run(algorithm, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.pem")
			args := []string{"key", "-out", path}
			if algorithm != "" {
				args = append(args, "-algorithm", algorithm)
			}
			made := cctoken(t, nil, "", args...)
			require.Equal(t, statusOK, made.status, made.stderr)
			require.Empty(t, made.stderr)
			members, key := registered(t, made.stdout)
			if algorithm == "" {
				algorithm = "ES256"
			}
			assert.Equal(t, kty, key["kty"])
			assert.Equal(t, algorithm, key["alg"])
			assert.Equal(t, "sig", key["use"])
			assert.Equal(t, "private_key_jwt", members["token_endpoint_auth_method"])
			assert.Equal(t, algorithm, members["token_endpoint_auth_signing_alg"])
			assert.Equal(t, []any{"client_credentials"}, members["grant_types"])
			assert.NotContains(t, members, "client_name")
			assert.NotContains(t, members, "scope")
			requirePublic(t, path, made.stdout)
			if runtime.GOOS != "windows" {
				info, err := os.Stat(path)
				require.NoError(t, err)
				assert.Equal(t, os.FileMode(0o600), info.Mode())
			}

			signing, err := clientauth.KeyFile(path)(t.Context())
			require.NoError(t, err)
			srv := startServer(t, clientcredentialstest.Client{ID: canaryID, PublicKeys: []crypto.PublicKey{signing.Signer.Public()}})
			kid := key["kid"].(string)
			token := cctoken(t, environment{"CLIENT_ID": canaryID, "TOKEN_URL": srv.TokenURL}, "", "token", "-auth-method", privateKeyJWT, "-key-file", path, "-algorithm", algorithm, "-key-id", kid)
			require.Equal(t, statusOK, token.status, token.stderr)

			again := cctoken(t, nil, "", "key", "-from", path, "-algorithm", algorithm)
			assert.Equal(t, made, again, "the public part of the same key")
		})
	}
}

// requirePublic requires that text has nothing of the private key in a file.
func requirePublic(t *testing.T, path, text string) {
	t.Helper()
	private, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(private)), "\n")
	for _, line := range lines[1 : len(lines)-1] {
		require.NotContains(t, text, line)
	}
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &members))
	if jwks, ok := members["jwks"].(map[string]any); ok {
		members = jwks["keys"].([]any)[0].(map[string]any)
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
		require.NotContains(t, members, name)
	}
}

func TestC8_Registration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	made := cctoken(t, nil, "", "key", "-out", path, "-client-name", "Reports \x1b[2J", "-scopes", " read  write", "-key-id", "2026-01")
	members, key := registered(t, made.stdout)
	assert.Equal(t, "Reports \x1b[2J", members["client_name"])
	assert.NotContains(t, made.stdout, "\x1b", "it could rewrite the terminal")
	assert.Equal(t, "read write", members["scope"])
	assert.Equal(t, "2026-01", key["kid"])

	r := cctoken(t, nil, "", "key", "-from", path, "-jwk")
	require.Equal(t, statusOK, r.status)
	requirePublic(t, path, r.stdout)
	var jwk map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &jwk))
	assert.Equal(t, key["x"], jwk["x"])
	assert.Len(t, jwk["kid"], 43, "the thumbprint")

	// A private JWK brings its own kid and alg.
	private := writeFile(t, "key.jwk", `{"kty":"OKP","crv":"Ed25519","kid":"own","alg":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`)
	r = cctoken(t, nil, "", "key", "-from", private)
	members, key = registered(t, r.stdout)
	assert.Equal(t, "own", key["kid"])
	assert.Equal(t, "Ed25519", members["token_endpoint_auth_signing_alg"])
	assert.NotContains(t, r.stdout, "nWGxne")

	// The private key alone, for another program.
	r = cctoken(t, nil, "", "key", "-out", "-", "-algorithm", "EdDSA")
	require.Equal(t, statusOK, r.status)
	_, err := clientauth.KeyBytes([]byte(r.stdout))(t.Context())
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(r.stdout, "-----BEGIN PRIVATE KEY-----\n"))
	assert.True(t, strings.HasSuffix(r.stdout, "-----END PRIVATE KEY-----\n"))
	assert.NoFileExists(t, "-")
}

// Every path in it is in a directory of its own: without the guards, the command writes to
// these files and removes them.
func TestC8_Mistakes(t *testing.T) {
	dir := t.TempDir()
	existing := filepath.Join(dir, "existing")
	require.NoError(t, os.WriteFile(existing, []byte(canarySecret), 0o600))
	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink(filepath.Join(dir, "elsewhere"), dangling))
	_, keyFile := newKeyFile(t)
	fresh := filepath.Join(dir, "new")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing":             {nil, "give -out FILE for a new key, or -from FILE"},
		"both":                {[]string{"-out", fresh, "-from", keyFile}, "give one of them"},
		"a file that exists":  {[]string{"-out", existing}, "exists already"},
		"a directory":         {[]string{"-out", dir}, "exists already"},
		"a symbolic link":     {[]string{"-out", dangling}, "exists already"},
		"no such directory":   {[]string{"-out", filepath.Join(dir, "a", "b")}, "-out: open"},
		"a shared secret":     {[]string{"-out", fresh, "-algorithm", "HS256"}, "-algorithm: there are no keys for that algorithm; use one of RS256"},
		"an unknown one":      {[]string{"-out", fresh, "-algorithm", canarySecret}, "-algorithm: there are no keys for that algorithm"},
		"another letter case": {[]string{"-out", fresh, "-algorithm", "es256"}, "-algorithm: there are no keys for that algorithm"},
		"of another key":      {[]string{"-from", keyFile, "-algorithm", "RS256"}, "-algorithm: RS256 doesn't fit a P-256 key; use ES256"},
		"no key in the file":  {[]string{"-from", existing}, "-from: the file"},
		"a secret as JWK":     {[]string{"-from", writeFile(t, "k", `{"kty":"oct","k":"`+plainSecret+`"}`)}, "kty is oct"},
		"only a certificate":  {[]string{"-from", writeFile(t, "c", testkit.CertificatePEM(testkit.ClientCertificate("x")))}, "-from: the file"},
		"private and public":  {[]string{"-out", "-", "-jwk"}, "-out - prints the private key alone"},
		"private with a name": {[]string{"-out", "-", "-client-name", "x"}, "-out - prints the private key alone"},
		"an argument":         {[]string{"-out", fresh, canarySecret}, "there is an argument that isn't a flag"},
		"a key as a flag":     {[]string{"-key", canarySecret}, "no flag takes a secret"},
	} {
		t.Run(name, func(t *testing.T) {
			r := cctoken(t, nil, "", append([]string{"key"}, test.args...)...)
			assert.Equal(t, statusUsage, r.status, r.stderr)
			assert.Contains(t, r.stderr, test.want)
			assert.Empty(t, r.stdout)
			assert.NoFileExists(t, fresh)
			assert.NoFileExists(t, filepath.Join(dir, "elsewhere"))
		})
	}
	content, err := os.ReadFile(existing)
	require.NoError(t, err)
	assert.Equal(t, canarySecret, string(content))
}

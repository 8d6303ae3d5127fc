//go:build unix

package main

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// TestDocument runs all commands in docs/cctoken.md, in one shell.
func TestDocument(t *testing.T) { runPage(t, readDocument(t), "curl", "jq", "openssl") }

// TestC12_WithoutGo runs all commands in docs/without-go.md, in one shell.
func TestC12_WithoutGo(t *testing.T) {
	runPage(t, readPage(t, "without-go.md"), "curl", "jq", "python3")
}

// runPage runs the commands on a page, and writes the files on it before.
func runPage(t *testing.T, page string, tools ...string) {
	t.Helper()
	requireTools(t, tools...)
	var script strings.Builder
	for name, content := range filesIn(page) {
		fmt.Fprintf(&script, "cat >%s <<'END OF FILE'\n%sEND OF FILE\n", name, content)
	}
	for _, block := range regexp.MustCompile("(?s)\n\n```sh\n(.*?\n)```\n").FindAllStringSubmatch(page, -1) {
		script.WriteString(block[1])
	}
	script.WriteString("echo reached the end\n")
	out, err := shell(t, script.String())
	require.NoError(t, err, out)
	assert.Contains(t, out, "reached the end")
	assert.NotContains(t, out, "warning:")
}

// filesIn returns the files on a page: the blocks of code below a comment such as
// <!-- file: NAME -->.
func filesIn(page string) map[string]string {
	files := make(map[string]string)
	for _, block := range regexp.MustCompile("(?s)\n<!-- file: (\\S+) -->\n```\\w+\n(.*?\n)```\n").FindAllStringSubmatch(page, -1) {
		files[block[1]] = block[2]
	}
	return files
}

// requireTools skips the test if a program isn't installed.
func requireTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the test uses %s, which isn't installed", tool)
		}
	}
}

// TestC12_Renewal checks that the programs on the page get another token after a 401, that
// they fail if there is none, and that they make no other token requests.
func TestC12_Renewal(t *testing.T) {
	requireTools(t, "curl", "python3")
	files := filesIn(readPage(t, "without-go.md"))
	for name, program := range map[string]string{"report.sh": "sh", "report.py": "python3"} {
		t.Run(name, func(t *testing.T) {
			srv := startServer(t)
			dir := t.TempDir()
			for name, content := range map[string]string{
				name:           files[name],
				"secret":       canarySecret,
				"cctoken.json": fmt.Sprintf(`{"token_url":%q,"client_id":%q,"secret_file":"secret"}`, srv.TokenURL, canaryID),
			} {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
			}
			path := "PATH=" + installed(t) + ":/usr/local/bin:/usr/bin:/bin"
			report := func() (string, error) {
				cmd := exec.CommandContext(t.Context(), program, name)
				cmd.Dir = dir
				cmd.Env = append(surroundings(t), path, "HOME="+dir, "API_URL="+srv.APIURL)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			for range 2 {
				for range 2 {
					out, err := report()
					require.NoError(t, err, out)
					assert.NotEmpty(t, out)
				}
				if srv.Auth.TokenRequests() == 1 {
					srv.Auth.RevokeAll()
				}
			}
			assert.Equal(t, 2, srv.Auth.TokenRequests())

			srv.Auth.RevokeAll()
			out, err := report()
			require.Error(t, err, "the token was renewed a moment ago, and an API that refuses the new one, too, isn't obeyed")
			assert.Contains(t, out, "401")
			assert.Equal(t, 2, srv.Auth.TokenRequests())
			for _, cache := range []string{".cache", "Library"} {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, cache)))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("wrong"), 0o600))
			out, err = report()
			require.Error(t, err)
			assert.Contains(t, out, "cctoken token: the server refused")
			assert.NotContains(t, out, "401 ", "the API was called without a token")
		})
	}
}

// TestC11_Kubectl runs kubectl, if it is installed, with the kubeconfig on the page. It checks
// that kubectl sends the token.
func TestC11_Kubectl(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl isn't installed")
	}
	srv := startServer(t)
	authorizations := make(chan string, 2)
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/healthz" { // Some kubectl asks for the server's version first.
			http.NotFound(w, req)
			return
		}
		authorizations <- req.Header.Get("Authorization")
		_, _ = io.WriteString(w, "ok")
	}))
	defer api.Close()
	authority := base64.StdEncoding.EncodeToString([]byte(testkit.CertificatePEM(&tls.Certificate{Certificate: [][]byte{api.Certificate().Raw}})))
	home := t.TempDir()
	dir := installed(t)
	settings := filepath.Join(home, "cctoken.json")
	require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, `{"token_url":%q,"client_id":%q,"secret_file":"secret"}`, srv.TokenURL, canaryID), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(home, "secret"), []byte(canarySecret), 0o600))
	users := strings.Replace(filesIn(readPage(t, "without-go.md"))["users.yaml"], "/etc/ci/cctoken.json", settings, 1)
	for _, version := range []string{"v1beta1", "v1"} {
		kubeconfig := filepath.Join(home, version)
		require.NoError(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, `
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: ci}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]
%s`, api.URL, authority, strings.Replace(users, "k8s.io/v1", "k8s.io/"+version, 1)), 0o600))
		cmd := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", kubeconfig, "get", "--raw", "/healthz")
		cmd.Env = append(surroundings(t), "HOME="+home, "PATH="+dir+":/usr/local/bin:/usr/bin:/bin")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Equal(t, "ok", string(out))
	}
	first := <-authorizations
	_, valid := srv.Auth.Introspect(strings.TrimPrefix(first, "Bearer "))
	assert.True(t, valid)
	assert.Equal(t, first, <-authorizations, "it comes from the cache")
}

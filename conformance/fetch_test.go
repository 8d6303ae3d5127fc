package conformance

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// opaque makes fetch of Node.js return what browsers return for a redirect that isn't
// followed. A browser doesn't let the program see where the redirect leads.
const opaque = `
const original = globalThis.fetch;
globalThis.fetch = async (url, options) => {
	const response = await original(url, options);
	return options.redirect === "manual" && response.status >= 300 && response.status <= 399 ? Response.error() : response;
};
`

// Where net/http uses the Fetch API, an http.Client doesn't see redirects. Still the
// credentials go to the token endpoint alone, and no token is accepted from elsewhere.
func TestR14_Fetch(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node isn't here; run `make setup`")
	}
	dir := t.TempDir()
	binary, preload := filepath.Join(dir, "fetch.wasm"), filepath.Join(dir, "opaque.js")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./fetch")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.NoError(t, os.WriteFile(preload, []byte(opaque), 0o600))
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	runner := filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec_node.js")

	var asked, wrong atomic.Int32
	issue := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		wrong.Add(1)
		issue(w)
	}))
	t.Cleanup(other.Close)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if id, secret, ok := r.BasicAuth(); !ok || id != "client" || secret != "secret" {
			wrong.Add(1)
		}
		switch r.URL.Path {
		case "/302":
			http.Redirect(w, r, other.URL+"/token", http.StatusFound)
		case "/307":
			http.Redirect(w, r, other.URL+"/token", http.StatusTemporaryRedirect)
		case "/here":
			http.Redirect(w, r, "/another", http.StatusFound)
		default:
			issue(w)
		}
	}))
	t.Cleanup(server.Close)
	redirects := []string{"/302", "/307", "/here"}

	const noNetwork = "connect: Connection refused"
	for _, test := range []struct {
		name, client, argv0, preload string
		requests                     bool   // the Fetch API is used, and an ordinary token request succeeds
		message                      string // in the errors
	}{
		{"as in a browser", "default", "browser", preload, true, "oauth2: cannot fetch token"},
		{"default client", "default", "javascript", "", true, "which is not followed"},
		{"new transport", "new", "javascript", "", true, "which is not followed"},
		{"wrapped transport", "wrapped", "javascript", "", true, "which is not followed"},
		{"Dial", "dial", "javascript", "", false, noNetwork},
		{"DialContext", "dialContext", "javascript", "", false, noNetwork},
		{"named node", "new", "node", "", false, noNetwork},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked.Store(0)
			args := []string{test.argv0}
			if test.preload != "" {
				args = append(args, "--require", test.preload)
			}
			args = append(args, runner, binary, test.client, server.URL+"/token")
			for _, path := range redirects {
				args = append(args, server.URL+path)
			}
			// net/http uses the Fetch API unless the program is called node.
			cmd := exec.CommandContext(t.Context(), node)
			cmd.Args = args
			output, err := cmd.Output()
			require.NoError(t, err, "%s", output)
			type outcome struct{ Token, Error string }
			var outcomes []outcome
			for lines := json.NewDecoder(bytes.NewReader(output)); lines.More(); {
				var o outcome
				require.NoError(t, lines.Decode(&o))
				outcomes = append(outcomes, o)
			}
			require.Len(t, outcomes, 1+len(redirects))
			want := 0
			if test.requests {
				want = len(outcomes)
				require.Equal(t, outcome{Token: "t"}, outcomes[0])
				outcomes = outcomes[1:]
			}
			for _, o := range outcomes {
				require.Empty(t, o.Token)
				require.Contains(t, o.Error, test.message)
			}
			require.Zero(t, wrong.Load(), "requests to another server, or without the credentials")
			require.EqualValues(t, want, asked.Load(), "a redirect was followed")
		})
	}
}

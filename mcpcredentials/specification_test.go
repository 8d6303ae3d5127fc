package mcpcredentials

import (
	"crypto"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// The requirements of MCP 2026-07-28 for a client that uses the client credentials grant: what
// it must do, in our words, the page and section that demand it, and a test. The package
// documentation lists the requirements that don't apply.
//
// https://modelcontextprotocol.io/specification/2026-07-28/basic/authorization
var requirements = []struct {
	page, section, must string
	test                func(*testing.T, *world, way)
}{
	{
		"authorization", "Overview, 4", "finds the authorization server through the metadata of the MCP server",
		func(t *testing.T, w *world, use way) {
			requireSession(t, w, use)
			require.Equal(t, "/.well-known/oauth-protected-resource/mcp", w.asked()[0])
		},
	},
	{
		"authorization", "Overview, 5", "supports the metadata of RFC 8414 and of OpenID Connect Discovery",
		func(t *testing.T, w *world, use way) {
			requireDiscovery(t, w, use, "", "/.well-known/openid-configuration",
				"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")
		},
	},
	{
		"authorization-server-discovery", "Authorization Server Location", "sends credentials to no other authorization server than theirs",
		func(t *testing.T, w *world, use way) {
			w.lists(spy(t))
			requireNoToken(t, w, use, "your program trusts none of them")
		},
	},
	{
		"authorization-server-discovery", "Protected Resource Metadata Discovery Requirements", "uses the location in WWW-Authenticate of a 401",
		func(t *testing.T, w *world, use way) {
			w.challenge = func() string { return `Bearer resource_metadata="` + strings.TrimSuffix(w.endpoint, "mcp") + `meta"` }
			w.publishes("/meta")
			requireSession(t, w, use)
			require.Equal(t, "/meta", w.asked()[0])
		},
	},
	{
		"authorization-server-discovery", "Protected Resource Metadata Discovery Requirements", "without one, tries the location for the path and then the root",
		func(t *testing.T, w *world, use way) {
			w.challenge = func() string { return "" }
			w.publishes("/.well-known/oauth-protected-resource")
			requireSession(t, w, use)
			require.Equal(t, []string{"/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"}, w.asked()[:2])
		},
	},
	{
		"authorization-server-discovery", "Authorization Server Metadata Discovery", "for an issuer with a path, tries three locations in order",
		func(t *testing.T, w *world, use way) {
			requireDiscovery(t, w, use, "/tenant1", "/tenant1/.well-known/openid-configuration",
				"/.well-known/oauth-authorization-server/tenant1", "/.well-known/openid-configuration/tenant1", "/tenant1/.well-known/openid-configuration")
		},
	},
	{
		"authorization-server-discovery", "Authorization Server Metadata Discovery", "doesn't use metadata of another issuer",
		func(t *testing.T, w *world, use way) {
			w.serverMetadata = func(m *clientcredentials.ServerMetadata) { m.Issuer = spy(t) }
			requireNoToken(t, w, use, "it is that of the issuer")
		},
	},
	{
		"client-registration", "Authorization Server Binding", "binds registered credentials to the issuer, and reports another one",
		func(t *testing.T, w *world, use way) {
			_, err := New(w.endpoint, &clientcredentials.Config{ClientID: "agent", TokenURL: w.issuer + "/token"})
			require.ErrorContains(t, err, "Config.Issuer is empty")
			w.lists(w.issuer + "/new")
			requireNoToken(t, w, use, "your program trusts none of them")
		},
	},
	{
		"authorization", "Scope Selection Strategy", "takes the scopes of a challenge as those that the request needs, whatever scopes_supported says",
		func(t *testing.T, w *world, use way) {
			w.challenge = func() string { return `Bearer scope="files:write"` }
			w.publishMember("scopes_supported", []string{"files:read", "admin"})
			requireSession(t, w, use, func(c *clientcredentials.Config) {
				c.Challenged = clientcredentials.ScopeChallenge("files:write", "admin")
			})
			require.Equal(t, "files:write", w.auth.Requests()[0].Form.Get("scope"))
		},
	},
	{
		"authorization", "Resource Parameter Implementation", "sends the canonical URI of the MCP server as resource in every token request",
		func(t *testing.T, w *world, use way) {
			requireSession(t, w, use, func(c *clientcredentials.Config) {
				c.Challenged = clientcredentials.ScopeChallenge("files:write")
			})
			require.NotEmpty(t, w.auth.Requests())
			for _, request := range w.auth.Requests() {
				require.Equal(t, []string{w.endpoint}, request.Form["resource"])
			}
		},
	},
	{
		"authorization", "Access Token Usage, Token Requirements", "sends the token in the Authorization header of each request, and never in the URL",
		func(t *testing.T, w *world, use way) {
			requireSession(t, w, use)
			received := w.received()
			require.Empty(t, received[0], "nothing is known about the MCP server yet")
			for _, authorization := range received[1:] {
				require.Regexp(t, `^Bearer \S+$`, authorization)
			}
			for _, address := range w.addresses() {
				require.Equal(t, "/mcp", address)
			}
		},
	},
	{
		"authorization", "Access Token Usage, Token Handling", "sends the MCP server only tokens of an authorization server that it lists",
		func(t *testing.T, w *world, use way) {
			w.lists("https://other.example")
			requireNoToken(t, w, use, "your program trusts none of them", func(c *clientcredentials.Config) { c.TokenURL = w.issuer + "/token" })
		},
	},
	{
		"authorization", "Step-Up Authorization Flow", "keeps the old scopes, and repeats a request no more than a few times",
		func(t *testing.T, w *world, use way) {
			w.toolScopes = map[string]string{"write": "files:write"}
			session, err := connect(t, use(w, w.handler(t, func(c *clientcredentials.Config) {
				c.Scopes = []string{"files:read"}
				c.Challenged = clientcredentials.ScopeChallenge("files:write")
			})))
			require.NoError(t, err)
			before := len(w.received())
			requireCall(t, session, "write")
			require.Len(t, w.received()[before:], 2)
			require.Equal(t, "files:read files:write", w.auth.Requests()[1].Form.Get("scope"))
		},
	},
	{
		"security-considerations", "Communication Security", "sends credentials over https only, except to this host",
		func(t *testing.T, w *world, use way) {
			w.serverMetadata = func(m *clientcredentials.ServerMetadata) { m.TokenEndpoint = "http://login.example/token" }
			requireNoToken(t, w, use, "is not https")
			_, err := New("http://mcp.example/mcp", w.config())
			require.Error(t, err)
		},
	},
	{
		"security-considerations", "Token Theft", "shows tokens and credentials in no error",
		func(t *testing.T, w *world, use way) {
			w.auth.SetFault(&clientcredentialstest.Fault{Status: http.StatusBadRequest, Body: `{"error":"invalid_request","error_description":"s3cr3t-of-the-agent"}`})
			_, err := connect(t, use(w, w.handler(t)))
			require.ErrorContains(t, err, "invalid_request")
			require.NotContains(t, err.Error(), "s3cr3t")
		},
	},
	{
		"extension oauth-client-credentials", "Client Authentication Methods", "authenticates with a JWT, or with a secret in the body",
		func(t *testing.T, w *world, use way) {
			key := testkit.NewKey("ES256")
			w.auth.Register(clientcredentialstest.Client{ID: "agent", PublicKeys: []crypto.PublicKey{key.Public()}})
			w.auth.Issuer = w.issuer
			requireSession(t, w, use, func(c *clientcredentials.Config) {
				c.ClientSecret, c.ClientAuth = "", &clientauth.PrivateKeyJWT{Key: clientauth.SignerKey(key)}
			})
			require.Equal(t, "private_key_jwt", w.auth.Requests()[0].AuthMethod)
		},
	},
}

func TestM11_Requirements(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		for _, r := range requirements {
			t.Run(r.page+", "+r.section+": "+r.must, func(t *testing.T) {
				t.Parallel()
				r.test(t, listen(t), use)
			})
		}
	})
}

// requireSession connects and calls a tool.
func requireSession(t *testing.T, w *world, use way, changes ...func(*clientcredentials.Config)) {
	t.Helper()
	session, err := connect(t, use(w, w.handler(t, changes...)))
	require.NoError(t, err)
	requireCall(t, session, "read")
}

// requireDiscovery checks where a Handler looks for the metadata of an issuer with that path, if
// it is at the location found.
func requireDiscovery(t *testing.T, w *world, use way, path, found string, want ...string) {
	t.Helper()
	var asked []string
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if r.URL.Path != found {
			http.NotFound(rw, r)
			return
		}
		writeJSON(rw, &clientcredentials.ServerMetadata{Issuer: server.URL + path, TokenEndpoint: server.URL + "/token"})
	})
	mux.Handle("/token", w.auth)
	w.lists(server.URL + path)
	requireSession(t, w, use, func(c *clientcredentials.Config) { c.Issuer = server.URL + path })
	require.Equal(t, want, asked)
}

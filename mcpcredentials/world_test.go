package mcpcredentials

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A world is an authorization server, and a server of the MCP SDK that needs its tokens, with
// the metadata of both. The functions may be replaced before the first request.
type world struct {
	auth     *clientcredentialstest.AuthorizationServer
	issuer   string // of the authorization server
	endpoint string // of the MCP server, and its resource identifier
	network  *http.Client

	// challenge returns what the MCP server says in WWW-Authenticate when it answers 401.
	// Empty: nothing.
	challenge func() string
	// resourceMetadata returns the path of the MCP server's metadata, and the metadata.
	resourceMetadata func() (path string, metadata map[string]any)
	// serverMetadata changes the metadata of the authorization server.
	serverMetadata func(*clientcredentials.ServerMetadata)
	// refuse answers a request with a good token. nil, and false: the MCP server does.
	refuse func(http.ResponseWriter, *http.Request) bool
	// delay is how long the MCP server takes for its metadata.
	delay time.Duration
	// instead answers requests to the MCP server. nil: the server of the SDK does.
	instead http.Handler
	// audience is what a token must be for. nil: the endpoint.
	audience []string
	// toolScopes are the scopes that a tool needs.
	toolScopes map[string]string

	mu     sync.Mutex
	paths  []string // of GET requests for metadata, in order
	tokens []string // Authorization of each request to the MCP server
	urls   []string // its path and query
}

// listen starts a world on two ports of the loopback interface.
func listen(t *testing.T, clients ...clientcredentialstest.Client) *world {
	w := newWorld(t, clients)
	servers := []*httptest.Server{httptest.NewServer(w.authHandler()), httptest.NewServer(w.mcpHandler(t, false))}
	for _, server := range servers {
		t.Cleanup(server.Close)
	}
	w.issuer, w.endpoint = servers[0].URL, servers[1].URL+"/mcp"
	w.network = &http.Client{Transport: new(http.Transport)}
	t.Cleanup(w.network.CloseIdleConnections)
	return w
}

// inMemory is listen without sockets, for a bubble of testing/synctest.
func inMemory(t *testing.T, clients ...clientcredentialstest.Client) *world {
	w := newWorld(t, clients)
	w.issuer, w.endpoint = "https://auth.example", "https://mcp.example/mcp"
	mux := http.NewServeMux()
	mux.Handle("auth.example/", w.authHandler())
	mux.Handle("mcp.example/", w.mcpHandler(t, true))
	w.network = &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}
	return w
}

func newWorld(t *testing.T, clients []clientcredentialstest.Client) *world {
	if len(clients) == 0 {
		clients = []clientcredentialstest.Client{{ID: "agent", Secret: "s3cr3t-of-the-agent"}}
	}
	w := &world{auth: &clientcredentialstest.AuthorizationServer{Clients: clients}}
	w.challenge = func() string {
		return `Bearer resource_metadata="` + strings.TrimSuffix(w.endpoint, "/mcp") + `/.well-known/oauth-protected-resource/mcp"`
	}
	w.resourceMetadata = func() (string, map[string]any) {
		return "/.well-known/oauth-protected-resource/mcp", map[string]any{"resource": w.endpoint, "authorization_servers": []string{w.issuer}}
	}
	t.Cleanup(func() {
		for _, violation := range w.auth.Violations() {
			t.Error(violation)
		}
	})
	return w
}

func (w *world) authHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/token", w.auth)
	mux.HandleFunc("GET /.well-known/", func(rw http.ResponseWriter, r *http.Request) {
		w.sawMetadata(r)
		metadata := &clientcredentials.ServerMetadata{Issuer: w.issuer, TokenEndpoint: w.issuer + "/token"}
		if w.serverMetadata != nil {
			w.serverMetadata(metadata)
		}
		writeJSON(rw, metadata)
	})
	return mux
}

func (w *world) audiences() []string {
	if w.audience != nil {
		return w.audience
	}
	return []string{w.endpoint}
}

func (w *world) sawMetadata(r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths = append(w.paths, r.URL.RequestURI())
}

// mcpHandler returns the MCP server: the one of the SDK, behind the SDK's middleware.
func (w *world) mcpHandler(t *testing.T, stateless bool) http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "files", Version: "1"}, nil)
	for _, name := range []string{"read", "write"} {
		mcp.AddTool(server, &mcp.Tool{Name: name}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: name + " done"}}}, nil, nil
		})
	}
	t.Cleanup(func() {
		for session := range server.Sessions() {
			session.Close()
		}
	})
	inner := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: stateless})
	verify := func(_ context.Context, text string, _ *http.Request) (*auth.TokenInfo, error) {
		token, active := w.auth.Introspect(text)
		if !active || !slices.Equal(token.Audience, w.audiences()) {
			return nil, auth.ErrInvalidToken
		}
		return &auth.TokenInfo{Scopes: token.Scopes, Expiration: time.Now().Add(time.Hour), UserID: token.ClientID}, nil
	}
	guarded := auth.RequireBearerToken(verify, nil)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.refuse != nil && w.refuse(rw, r) {
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		has := auth.TokenInfoFromContext(r.Context()).Scopes
		for scope := range strings.FieldsSeq(w.toolScopes[toolIn(body)]) {
			if !slices.Contains(has, scope) {
				rw.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+w.toolScopes[toolIn(body)]+`"`)
				rw.WriteHeader(http.StatusForbidden)
				return
			}
		}
		inner.ServeHTTP(rw, r)
	}))
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		path, metadata := w.resourceMetadata()
		switch {
		case strings.HasPrefix(r.URL.Path, "/mcp"):
			w.mu.Lock()
			w.tokens = append(w.tokens, r.Header.Get("Authorization"))
			w.urls = append(w.urls, r.URL.RequestURI())
			w.mu.Unlock()
			if w.instead != nil {
				w.instead.ServeHTTP(rw, r)
				return
			}
			if said := w.challenge(); said != "" {
				rw = &challenger{rw, said}
			}
			guarded.ServeHTTP(rw, r)
		default:
			w.sawMetadata(r)
			time.Sleep(w.delay)
			if r.URL.Path != path {
				http.NotFound(rw, r)
				return
			}
			writeJSON(rw, metadata)
		}
	})
}

// challenger adds a challenge to each answer 401.
type challenger struct {
	http.ResponseWriter
	said string
}

func (c *challenger) WriteHeader(status int) {
	if status == http.StatusUnauthorized {
		c.Header().Set("WWW-Authenticate", c.said)
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *challenger) Unwrap() http.ResponseWriter { return c.ResponseWriter }
func (c *challenger) Flush()                      { _ = http.NewResponseController(c.ResponseWriter).Flush() }

// toolIn returns the name of the tool that a JSON-RPC message calls.
func toolIn(body []byte) string {
	var message struct {
		Method string
		Params struct{ Name string }
	}
	_ = json.Unmarshal(body, &message)
	if message.Method != "tools/call" {
		return ""
	}
	return message.Params.Name
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// config returns a Config for the world's client.
func (w *world) config() *clientcredentials.Config {
	return &clientcredentials.Config{ClientID: "agent", ClientSecret: "s3cr3t-of-the-agent", Issuer: w.issuer, HTTPClient: w.network}
}

// handler returns a Handler for the world's MCP server.
func (w *world) handler(t *testing.T, changes ...func(*clientcredentials.Config)) *Handler {
	conf := w.config()
	for _, change := range changes {
		change(conf)
	}
	h, err := New(w.endpoint, conf)
	require.NoError(t, err)
	return h
}

// A way is one of the two ways to use a Handler.
type way func(*world, *Handler) *mcp.StreamableClientTransport

var ways = map[string]way{
	"Transport": func(w *world, h *Handler) *mcp.StreamableClientTransport {
		transport := h.Transport(w.network.Transport)
		transport.Endpoint = w.endpoint
		return transport
	},
	"OAuthHandler": func(w *world, h *Handler) *mcp.StreamableClientTransport {
		return &mcp.StreamableClientTransport{Endpoint: w.endpoint, HTTPClient: w.network, OAuthHandler: h}
	},
}

// eachWay runs a test for each way to use a Handler.
func eachWay(t *testing.T, test func(*testing.T, way)) {
	t.Parallel()
	for name, use := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, use)
		})
	}
}

// connect connects a client of the SDK.
func connect(t *testing.T, transport *mcp.StreamableClientTransport) (*mcp.ClientSession, error) {
	return connectContext(t.Context(), t, transport)
}

func connectContext(ctx context.Context, t *testing.T, transport *mcp.StreamableClientTransport) (*mcp.ClientSession, error) {
	session, err := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, nil).Connect(ctx, transport, nil)
	if err == nil {
		t.Cleanup(func() { _ = session.Close() })
	}
	return session, err
}

// call calls a tool, and returns its text.
func call(ctx context.Context, session *mcp.ClientSession, tool string) (string, error) {
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool})
	if err != nil {
		return "", err
	}
	text, ok := result.Content[0].(*mcp.TextContent)
	if !ok || result.IsError {
		return "", fmt.Errorf("unexpected result %v", result.Content)
	}
	return text.Text, nil
}

// asked returns the addresses of the requests for metadata.
func (w *world) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.paths)
}

// received returns the Authorization of each request to the MCP server.
func (w *world) received() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.tokens)
}

// addresses returns the path and query of each request to the MCP server.
func (w *world) addresses() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.urls)
}

// publishMember changes a member of the MCP server's metadata.
func (w *world) publishMember(name string, value any) {
	path, metadata := w.resourceMetadata()
	metadata[name] = value
	w.resourceMetadata = func() (string, map[string]any) { return path, metadata }
}

// lists makes the MCP server list these authorization servers.
func (w *world) lists(issuers ...string) { w.publishMember("authorization_servers", issuers) }

// publishes makes the MCP server publish its metadata at that path only.
func (w *world) publishes(path string) {
	_, metadata := w.resourceMetadata()
	w.resourceMetadata = func() (string, map[string]any) { return path, metadata }
}

package mcpcredentials_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/mcpcredentials"
)

// Two sessions with an MCP server share one token.
func Example() {
	endpoint, issuer, stop := startServers()
	defer stop()

	handler, err := mcpcredentials.New(endpoint, &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		Issuer:       issuer,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	client := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1.0.0"}, nil)
	for range 2 {
		session, err := client.Connect(ctx, handler.Transport(nil), nil)
		if err != nil {
			log.Fatal(err)
		}
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "greet"})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(result.Content[0].(*mcp.TextContent).Text)
		session.Close()
	}
	// Output:
	// Hello, client. This is token 1.
	// Hello, client. This is token 1.
}

// startServers starts an authorization server, and an MCP server that needs its tokens.
func startServers() (endpoint, issuer string, stop func()) {
	tokens := &clientcredentialstest.AuthorizationServer{
		Clients: []clientcredentialstest.Client{{ID: clientcredentialstest.ClientID, Secret: clientcredentialstest.ClientSecret}},
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "greeter", Version: "1.0.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "greet"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		text := fmt.Sprintf("Hello, %s. This is token %d.", auth.TokenInfoFromContext(ctx).UserID, tokens.TokensIssued())
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
	})
	verify := func(_ context.Context, text string, _ *http.Request) (*auth.TokenInfo, error) {
		token, active := tokens.Introspect(text)
		if !active || len(token.Audience) != 1 || token.Audience[0] != endpoint {
			return nil, auth.ErrInvalidToken
		}
		return &auth.TokenInfo{UserID: token.ClientID, Expiration: time.Now().Add(time.Hour)}, nil
	}
	publish := func(metadata any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(metadata) }
	}

	login, site := http.NewServeMux(), http.NewServeMux()
	loginServer, siteServer := httptest.NewServer(login), httptest.NewServer(site)
	endpoint, issuer = siteServer.URL+"/mcp", loginServer.URL
	login.Handle("/token", tokens)
	login.Handle("/.well-known/oauth-authorization-server", publish(clientcredentials.ServerMetadata{Issuer: issuer, TokenEndpoint: issuer + "/token"}))
	metadata := strings.Replace(endpoint, "/mcp", "/.well-known/oauth-protected-resource/mcp", 1)
	site.Handle("/.well-known/oauth-protected-resource/mcp", publish(clientcredentials.ResourceMetadata{Resource: endpoint, AuthorizationServers: []string{issuer}}))
	site.Handle("/mcp", auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{ResourceMetadataURL: metadata})(
		mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)))
	return endpoint, issuer, func() {
		siteServer.Close()
		loginServer.Close()
		http.DefaultClient.CloseIdleConnections()
	}
}

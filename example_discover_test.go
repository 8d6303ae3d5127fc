package clientcredentials_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A program is given an issuer instead of the address of its token endpoint, and
// asks the server for the rest.
func ExampleDiscover() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	issuer := publishMetadata(server.TokenURL)
	defer issuer.Close()

	ctx := context.Background()
	metadata, err := clientcredentials.Discover(ctx, issuer.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	conf, err := metadata.Config(clientcredentialstest.ClientID)
	if err != nil {
		fmt.Println(err)
		return
	}
	conf.ClientSecret = clientcredentialstest.ClientSecret

	resp, err := conf.Client(ctx).Get(server.APIURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// 200 OK
}

// publishMetadata starts an issuer with that token endpoint.
func publishMetadata(tokenEndpoint string) *httptest.Server {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(clientcredentials.ServerMetadata{
			Issuer:                            server.URL,
			TokenEndpoint:                     tokenEndpoint,
			TokenEndpointAuthMethodsSupported: []string{"client_secret_basic", "client_secret_post"},
		})
	})
	return server
}

package clientcredentials_test

import (
	"context"
	"fmt"
	"log"
	"net/url"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A program knows only the address of an API, and the issuer of each authorization server that
// it has credentials for. The API says which of these issues its tokens, and that one says where
// its token endpoint is.
func ExampleDiscoverResource() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	issuer := publishMetadata(server.TokenURL)
	defer issuer.Close()
	server.API.Resource = server.APIURL + "reports"
	server.API.AuthorizationServers = []string{"https://other.example.com", issuer.URL}

	address := server.APIURL + "reports"
	trusted := []string{issuer.URL, "https://login.example.com"}

	ctx := context.Background()
	resource, err := clientcredentials.DiscoverResource(ctx, address, trusted...)
	if err != nil {
		log.Fatal(err)
	}
	metadata, err := clientcredentials.Discover(ctx, resource.AuthorizationServers[0])
	if err != nil {
		log.Fatal(err)
	}
	conf, err := metadata.Config(clientcredentialstest.ClientID)
	if err != nil {
		log.Fatal(err)
	}
	conf.ClientSecret = clientcredentialstest.ClientSecret
	conf.EndpointParams = url.Values{"resource": {resource.Resource}} // RFC 8707

	resp, err := conf.Client(ctx).Get(address)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	token, _ := server.Auth.Introspect(server.API.Requests()[0].AccessToken)
	fmt.Println(resp.Status, token.Audience[0] == address)
	// Output:
	// 200 OK true
}

package clientcredentials_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A program knows only the issuer, and asks the server for the address of the token
// endpoint and for the ways to authenticate.
func ExampleDiscover() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	issuer := publishMetadata(server.TokenURL)
	defer issuer.Close()

	ctx := context.Background()
	metadata, err := clientcredentials.Discover(ctx, issuer.URL)
	if err != nil {
		log.Fatal(err)
	}
	conf, err := metadata.Config(clientcredentialstest.ClientID)
	if err != nil {
		log.Fatal(err)
	}
	conf.ClientSecret = clientcredentialstest.ClientSecret

	resp, err := conf.Client(ctx).Get(server.APIURL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// 200 OK
}

// publishMetadata starts the server of an issuer whose token endpoint is elsewhere.
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

// A program can authenticate in two ways, and the server says which of them it accepts.
// Config chooses the stronger one. The metadata usually comes from Discover, but a program
// may also keep it in a file. For a method with a client certificate, Config would use the
// address in [clientcredentials.MTLSEndpointAliases].
func ExampleServerMetadata_Config() {
	metadata := &clientcredentials.ServerMetadata{
		Issuer:                            "https://login.example.com",
		TokenEndpoint:                     "https://login.example.com/oauth2/token",
		TokenEndpointAuthMethodsSupported: []string{"client_secret_basic", "private_key_jwt"},
		MTLSEndpointAliases:               clientcredentials.MTLSEndpointAliases{TokenEndpoint: "https://mtls.example.com/oauth2/token"},
	}
	conf, err := metadata.Config("reports",
		&clientauth.ClientSecretBasic{Secret: clientauth.SecretFile("/etc/reports/secret")},
		&clientauth.PrivateKeyJWT{Key: clientauth.KeyFile("/etc/reports/key.pem")},
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conf.ClientAuth.Method())
	fmt.Println(conf.TokenURL)
	// Output:
	// private_key_jwt
	// https://login.example.com/oauth2/token
}

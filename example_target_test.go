package clientcredentials_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A service calls three APIs as one client. Each API accepts only tokens that are for it, so
// the context of a request says which API that is. The tokens are cached: six requests need
// three token requests.
func ExampleWithTarget() {
	auth, network := threeAPIs()
	conf := &clientcredentials.Config{ClientID: "reports", ClientSecret: "secret", TokenURL: "https://auth.example/token"}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, network)
	client := conf.Client(ctx)

	call := func(api string) {
		ctx := clientcredentials.WithTarget(ctx, clientcredentials.Target{Resources: []string{api}})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"items", nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status, api)
	}
	for range 2 {
		call("https://billing.example/")
		call("https://users.example/")
		call("https://files.example/")
	}
	fmt.Println("token requests:", auth.TokenRequests())
	// Output:
	// 200 OK https://billing.example/
	// 200 OK https://users.example/
	// 200 OK https://files.example/
	// 200 OK https://billing.example/
	// 200 OK https://users.example/
	// 200 OK https://files.example/
	// token requests: 3
}

// A service has a client of its own for each of three APIs. Here the authorization server
// wants the parameter audience instead of resource. All clients use one Source, so that a
// pause which the server asks for holds for all of them.
func ExampleSource_For() {
	auth, network := threeAPIs()
	conf := &clientcredentials.Config{
		ClientID:     "reports",
		ClientSecret: "secret",
		TokenURL:     "https://auth.example/token",
		HTTPClient:   network, // For token requests. The Base below is for the API.
	}
	source := conf.Source(context.Background())
	clientFor := func(audience string) *http.Client {
		return &http.Client{Transport: &clientcredentials.Transport{
			Source: source.For(clientcredentials.Target{Audience: audience}),
			Base:   network.Transport,
		}}
	}
	billing := clientFor("https://billing.example/")
	users := clientFor("https://users.example/")
	files := clientFor("https://files.example/")

	call := func(client *http.Client, address string) {
		resp, err := client.Get(address)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status, address)
	}
	call(billing, "https://billing.example/invoices")
	call(users, "https://users.example/me")
	call(files, "https://files.example/list")
	call(billing, "https://users.example/me") // The wrong client: its token isn't for this API.
	fmt.Println("token requests:", auth.TokenRequests())
	// Output:
	// 200 OK https://billing.example/invoices
	// 200 OK https://users.example/me
	// 200 OK https://files.example/list
	// 401 Unauthorized https://users.example/me
	// token requests: 4
}

// threeAPIs returns an authorization server and a client for a network in memory, in which
// there are also three APIs. Each accepts only tokens with its own address as their audience.
func threeAPIs() (*clientcredentialstest.AuthorizationServer, *http.Client) {
	auth := &clientcredentialstest.AuthorizationServer{
		Clients: []clientcredentialstest.Client{{ID: "reports", Secret: "secret"}},
	}
	mux := http.NewServeMux()
	mux.Handle("auth.example/", auth)
	for _, host := range []string{"billing.example", "users.example", "files.example"} {
		mux.Handle(host+"/", &clientcredentialstest.ResourceServer{Issuer: auth, Audience: "https://" + host + "/"})
	}
	return auth, &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}
}

// An API of Microsoft asks for a token with certain claims when something about the client
// has changed: continuous access evaluation. The caller doesn't notice. The client has to
// declare, with the capability cp1, that it can handle this.
func ExampleClaimsChallenge() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	conf := exampleConfig(server)
	conf.EndpointParams = url.Values{"claims": {`{"access_token":{"xms_cc":{"values":["cp1"]}}}`}}
	conf.Challenged = clientcredentials.ClaimsChallenge
	client := conf.Client(context.Background())

	call := func() {
		resp, err := client.Get(server.APIURL)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	call()
	server.API.SetClaims(`{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`)
	call()
	call()
	fmt.Println("token requests:", server.Auth.TokenRequests())
	fmt.Println("refused by the API:", server.API.Rejected())
	// Output:
	// 200 OK
	// 200 OK
	// 200 OK
	// token requests: 2
	// refused by the API: 1
}

// A program starts with the scope that it needs for most requests. For a request that needs
// more, the API names the scopes in its answer, and the client requests a token that has them
// too. The program lists the scopes that an API may ask for: users.read isn't one of them.
func ExampleScopeChallenge() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	server.API.ScopeByPath = map[string]string{
		"/reports": "reports.read",
		"/drafts":  "reports.read reports.write",
		"/users":   "users.read",
	}
	conf := exampleConfig(server)
	conf.Scopes = []string{"reports.read"}
	conf.Challenged = clientcredentials.ScopeChallenge("reports.write")
	client := conf.Client(context.Background())

	for _, path := range []string{"reports", "drafts", "drafts", "users"} {
		resp, err := client.Get(server.APIURL + path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status, path)
	}
	for _, request := range server.Auth.Requests() {
		fmt.Println("requested:", request.Form.Get("scope"))
	}
	// Output:
	// 200 OK reports
	// 200 OK drafts
	// 200 OK drafts
	// 403 Forbidden users
	// requested: reports.read
	// requested: reports.read reports.write
}

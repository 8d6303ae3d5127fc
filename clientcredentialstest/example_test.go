package clientcredentialstest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A client without a library: it requests a token and calls the API with it.
func Example() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()

	resp, err := http.PostForm(srv.TokenURL, url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {clientcredentialstest.ClientID},
		"client_secret": {clientcredentialstest.ClientSecret},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil {
		log.Fatal(err)
	}

	call := func() {
		req, err := http.NewRequest(http.MethodGet, srv.APIURL, nil)
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token.AccessToken)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		fmt.Println(resp.Status)
	}
	call()
	srv.Auth.RevokeAll()
	call()
	// Output:
	// 200 OK
	// 401 Unauthorized
}

// Two token requests fail, and the third succeeds. Then an outage begins.
func ExampleAuthorizationServer_Script() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	ask := func() {
		resp, err := http.PostForm(srv.TokenURL, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {"client"}, "client_secret": {"secret"},
		})
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}

	srv.Auth.Script(
		clientcredentialstest.TooManyRequests(30*time.Second),
		clientcredentialstest.Fault{Status: http.StatusBadGateway, Body: "<h1>Oops</h1>"},
	)
	ask()
	ask()
	ask()
	down := clientcredentialstest.Unavailable()
	srv.Auth.SetFault(&down)
	ask()
	srv.Auth.SetFault(nil)
	ask()
	fmt.Println(srv.Auth.TokenRequests(), "requests,", srv.Auth.TokensIssued(), "tokens")
	// Output:
	// 429 Too Many Requests
	// 502 Bad Gateway
	// 200 OK
	// 503 Service Unavailable
	// 200 OK
	// 5 requests, 2 tokens
}

// Two servers without sockets, distinguished by their hosts.
func ExampleHandlerTransport() {
	auth := &clientcredentialstest.AuthorizationServer{}
	mux := http.NewServeMux()
	mux.Handle("auth.example/", auth)
	mux.Handle("api.example/", &clientcredentialstest.ResourceServer{Issuer: auth})
	client := &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}

	for _, address := range []string{"https://api.example/things", "https://auth.example/token"} {
		resp, err := client.Get(address)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	fmt.Println(auth.Violations())
	// Output:
	// 401 Unauthorized
	// 400 Bad Request
	// [token request 1: RFC 6749, Section 3.2: the method is not POST]
}

// An API asks for a token with certain claims, and gets it.
func ExampleResourceServer_SetClaims() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	request := func(claims string) (accessToken string) {
		resp, err := http.PostForm(srv.TokenURL, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {"client"}, "client_secret": {"secret"},
			"claims": {claims},
		})
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		var token struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&token); err != nil {
			log.Fatal(err)
		}
		return token.AccessToken
	}
	call := func(accessToken string) (challenge string) {
		req, err := http.NewRequest(http.MethodGet, srv.APIURL, nil)
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+accessToken)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		fmt.Println(resp.Status)
		return resp.Header.Get("WWW-Authenticate")
	}

	token := request("")
	call(token)
	srv.API.SetClaims(`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`)
	challenge := call(token)
	claims := regexp.MustCompile(`claims="(.*)"`).FindStringSubmatch(challenge)[1]
	decoded, err := base64.StdEncoding.DecodeString(claims)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(decoded))
	call(request(string(decoded)))
	// Output:
	// 200 OK
	// 401 Unauthorized
	// {"access_token":{"acrs":{"essential":true,"value":"c1"}}}
	// 200 OK
}

package clientcredentialstest_test

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"strings"
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

// The next two token requests fail, and the third succeeds.
func ExampleAuthorizationServer_Script() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	srv.Auth.Script(
		clientcredentialstest.TooManyRequests(30*time.Second),
		clientcredentialstest.Fault{Status: http.StatusBadGateway, Body: "<h1>Oops</h1>"},
	)

	for range 3 {
		resp, err := http.PostForm(srv.TokenURL, url.Values{
			"grant_type":    {"client_credentials"},
			"client_id":     {clientcredentialstest.ClientID},
			"client_secret": {clientcredentialstest.ClientSecret},
		})
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Printf("%d %q\n", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	fmt.Println(srv.Auth.TokenRequests(), "requests,", srv.Auth.TokensIssued(), "token")
	// Output:
	// 429 "30"
	// 502 ""
	// 200 ""
	// 3 requests, 1 token
}

// An outage: every token request fails until the fault is removed.
func ExampleAuthorizationServer_SetFault() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	ask := func() {
		resp, err := http.PostForm(srv.TokenURL, url.Values{
			"grant_type":    {"client_credentials"},
			"client_id":     {clientcredentialstest.ClientID},
			"client_secret": {clientcredentialstest.ClientSecret},
		})
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}

	down := clientcredentialstest.Unavailable()
	srv.Auth.SetFault(&down)
	ask()
	ask()
	srv.Auth.SetFault(nil)
	ask()
	// Output:
	// 503 Service Unavailable
	// 503 Service Unavailable
	// 200 OK
}

// The authorization server is down as after a crash: it refuses connections until it is
// back at the same address.
func ExampleServer_Stop() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	reachable := func() bool {
		resp, err := http.Get(srv.TokenURL)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	}

	fmt.Println(reachable())
	srv.Stop()
	fmt.Println(reachable())
	if err := srv.Restart(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reachable())
	// Output:
	// true
	// false
	// true
}

// An API with its own handler, which requires a scope.
func ExampleResourceServer() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	srv.API.Scope = "reports.read"
	srv.API.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "no reports")
	})

	resp, err := http.Get(srv.APIURL) // Without a token.
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	fmt.Println(resp.Header.Get("WWW-Authenticate"))
	fmt.Println("accepted:", srv.API.Accepted(), "rejected:", srv.API.Rejected())
	// Output:
	// 401 Unauthorized
	// Bearer realm="clientcredentialstest"
	// accepted: 0 rejected: 1
}

// Two servers without sockets, distinguished by their hosts.
func ExampleHandlerTransport() {
	auth := &clientcredentialstest.AuthorizationServer{}
	mux := http.NewServeMux()
	mux.Handle("auth.example/", auth)
	mux.Handle("api.example/", &clientcredentialstest.ResourceServer{Issuer: auth})
	client := &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}

	resp, err := client.Get("https://api.example/things")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)

	resp, err = client.Post("https://auth.example/token", "application/json", strings.NewReader(`{}`))
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	fmt.Println(auth.Violations())
	// Output:
	// 401 Unauthorized
	// 400 Bad Request
	// [token request 1: RFC 6749, Section 4.4.2: the Content-Type is not application/x-www-form-urlencoded]
}

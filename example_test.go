package clientcredentials_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// The examples of this file come in the order in which a program needs them: calling an
// API, configuring the client, handling failures, and handling the tokens itself. All of
// them use the fake servers of package clientcredentialstest.

// Most programs need only this: a [clientcredentials.Config], one client that is kept, and
// requests. [clientcredentials.Config.Client] caches the token, so a hundred requests need one
// token request. The servers are fakes that run during the example.
func Example() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		Scopes:       []string{"reports.read"},
	}
	client := conf.Client(context.Background())

	resp, err := client.Get(server.APIURL + "reports")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Status)
	fmt.Printf("%s\n", body)
	// Output:
	// 200 OK
	// {"ok":true}
}

// exampleConfig returns the Config for the client that a new server knows, if an example is
// about something else.
func exampleConfig(server *clientcredentialstest.Server) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
}

// A Transport is for an http.Client that the program sets up itself. To use the tokens of one
// Source with another RoundTripper, make a [clientcredentials.Transport]. For a library that
// takes an oauth2.TokenSource, call [clientcredentials.Config.TokenSource].
func ExampleConfig_Transport() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	client := &http.Client{
		Transport: exampleConfig(server).Transport(context.Background()),
		Timeout:   10 * time.Second,
	}

	resp, err := client.Get(server.APIURL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// A Source is for programs that need the token itself, for example to use it with another
// protocol than HTTP. It is the cache, so keep it. A caller waits no longer than the context of
// [clientcredentials.Source.TokenContext] allows, and the token request continues for later
// callers.
func ExampleConfig_Source() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	ctx := context.Background()
	source := exampleConfig(server).Source(ctx)

	first, err := source.TokenContext(ctx)
	if err != nil {
		log.Fatal(err)
	}
	second, err := source.TokenContext(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("same token:", first.AccessToken == second.AccessToken)
	fmt.Println("token requests:", server.Auth.TokenRequests())
	// Output:
	// same token: true
	// token requests: 1
}

// Token always requests a new token. It shows whether a configuration works. This request has
// more parameters: resource (RFC 8707), which may be repeated, and audience, which some
// authorization servers need.
func ExampleConfig_Token() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	conf := exampleConfig(server)
	conf.Scopes = []string{"reports.read", "reports.write"}
	conf.EndpointParams = url.Values{
		"resource": {"https://api.example.com/", "https://files.example.com/"},
		"audience": {"reports"},
	}

	token, err := conf.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("type:", token.Type())
	fmt.Println("scope:", token.Extra("scope"))
	fmt.Println("lifetime:", time.Duration(token.ExpiresIn)*time.Second)
	received := server.Auth.Requests()[0]
	fmt.Println("resource:", received.Form["resource"])
	fmt.Println("audience:", received.Form["audience"])
	// Output:
	// type: Bearer
	// scope: reports.read reports.write
	// lifetime: 1h0m0s
	// resource: [https://api.example.com/ https://files.example.com/]
	// audience: [reports]
}

// Only the listed origins receive the token.
func ExampleConfig_origins() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	conf := exampleConfig(server)
	conf.Origins = []string{server.APIURL}
	client := conf.Client(context.Background())

	resp, err := client.Get(server.APIURL + "reports")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)

	_, err = client.Get("https://elsewhere.example/reports") // Nothing is sent there.
	fmt.Println(err)
	// Output:
	// 200 OK
	// Get "https://elsewhere.example/reports": oauth2: https://elsewhere.example:443 is not among the Origins that may receive the token; add it there, or use another client
}

// IsTemporary separates the failures that may pass from those that somebody has to fix. If the
// server refuses, the error is the one of golang.org/x/oauth2. If the status is one of success,
// but the answer is no token response, it is a [clientcredentials.ResponseError]. A Config can be logged beside
// it: [clientcredentials.Config.String] doesn't show the secret. A [clientcredentials.RetryPolicy]
// bounds the attempts and the time that they take.
func ExampleIsTemporary() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	conf := exampleConfig(server)
	conf.ClientSecret = "no longer valid"
	conf.Retry.MaxAttempts = 1

	_, err := conf.Token(context.Background())
	if refusal, ok := err.(*oauth2.RetrieveError); ok { // Use errors.As for an error of an http.Client.
		fmt.Println(refusal.ErrorCode, refusal.Response.StatusCode)
	}
	fmt.Println("refused:", clientcredentials.IsTemporary(err))

	server.Stop()
	_, err = conf.Token(context.Background())
	fmt.Println("down:", clientcredentials.IsTemporary(err))
	// Output:
	// invalid_client 401
	// refused: false
	// down: true
}

// Status reports whether there is a token to use, for example to a readiness probe: see
// examples/readiness. See also [clientcredentials.State].
func ExampleSource_Status() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	source := exampleConfig(server).Source(context.Background())

	fmt.Println(source.Status().State)
	token, err := source.Token()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(source.Status().State)
	source.Invalidate(token)
	fmt.Println(source.Status().State)
	// Output:
	// expired
	// fresh
	// expired
}

// If a program adds the token to its requests itself, it reports a token that the API
// refused, and repeats the call if there will be another token. Client and Transport do all
// this themselves. A program that learns of a revocation in another way calls
// [clientcredentials.Source.Invalidate].
func ExampleSource_Reject() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	ctx := context.Background()
	source := exampleConfig(server).Source(ctx)

	call := func() (*oauth2.Token, int) {
		token, err := source.TokenContext(ctx)
		if err != nil {
			log.Fatal(err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.APIURL, nil)
		if err != nil {
			log.Fatal(err)
		}
		token.SetAuthHeader(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		return token, resp.StatusCode
	}
	call()
	server.Auth.RevokeAll()
	token, status := call()
	if status == http.StatusUnauthorized && source.Reject(token) {
		fmt.Println(status, "and again:")
		_, status = call()
	}
	fmt.Println(status)
	// Output:
	// 401 and again:
	// 200
}

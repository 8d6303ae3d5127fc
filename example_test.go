package clientcredentials_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// The whole of what most programs need: a Config, one client that is kept, and
// requests. The servers are fakes that run for the length of the example.
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
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.Status)
	fmt.Printf("%s\n", body)
	// Output:
	// 200 OK
	// {"ok":true}
}

func ExampleConfig_Client() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	client := conf.Client(context.Background())

	for range 100 {
		resp, err := client.Get(server.APIURL)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
	}
	fmt.Println("API requests with a valid token:", server.API.Accepted())
	fmt.Println("token requests:", server.Auth.TokenRequests())
	// Output:
	// API requests with a valid token: 100
	// token requests: 1
}

// Token requests a token each time, and so checks a configuration.
func ExampleConfig_Token() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		Scopes:       []string{"reports.read", "reports.write"},
	}
	token, err := conf.Token(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("type:", token.Type())
	fmt.Println("scope:", token.Extra("scope"))
	fmt.Println("lifetime:", time.Duration(token.ExpiresIn)*time.Second)
	// Output:
	// type: Bearer
	// scope: reports.read reports.write
	// lifetime: 1h0m0s
}

// For libraries that take an oauth2.TokenSource.
func ExampleConfig_TokenSource() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	ctx := context.Background()
	source := conf.TokenSource(ctx)
	client := oauth2.NewClient(ctx, source)

	resp, err := client.Get(server.APIURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// The Source is the cache. Keep it where the token itself is wanted, for other
// protocols than HTTP for example.
func ExampleConfig_Source() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	ctx := context.Background()
	source := conf.Source(ctx)

	first, err := source.TokenContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	second, err := source.TokenContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("same token:", first.AccessToken == second.AccessToken)
	fmt.Println("token requests:", server.Auth.TokenRequests())
	// Output:
	// same token: true
	// token requests: 1
}

// A Transport goes into a client that is set up as you like.
func ExampleConfig_Transport() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	client := &http.Client{
		Transport: conf.Transport(context.Background()),
		Timeout:   10 * time.Second,
	}
	resp, err := client.Get(server.APIURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// Parameters beyond those of RFC 6749: resource (RFC 8707), which may be
// repeated, and audience, which some authorization servers want.
func ExampleConfig_endpointParams() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		EndpointParams: url.Values{
			"resource": {"https://api.example.com/", "https://files.example.com/"},
			"audience": {"reports"},
		},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	received := server.Auth.Requests()[0]
	fmt.Println("resource:", received.Form["resource"])
	fmt.Println("audience:", received.Form["audience"])
	// Output:
	// resource: [https://api.example.com/ https://files.example.com/]
	// audience: [reports]
}

// Without an AuthStyle the client finds out how the server wants the
// credentials, and remembers it. This server knows client_secret_post only.
func ExampleConfig_authStyleAutoDetect() {
	server := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID:          "reports",
		Secret:      "s3cret",
		AuthMethods: []string{"client_secret_post"},
	})
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     "reports",
		ClientSecret: "s3cret",
		TokenURL:     server.TokenURL,
	}
	for range 2 {
		if _, err := conf.Token(context.Background()); err != nil {
			fmt.Println(err)
			return
		}
	}
	for i, received := range server.Auth.Requests() {
		fmt.Println("request", i+1, "by", received.AuthMethod)
	}
	// Output:
	// request 1 by client_secret_basic
	// request 2 by client_secret_post
	// request 3 by client_secret_post
}

// The credentials go into the Authorization header.
func ExampleConfig_authStyleInHeader() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		AuthStyle:    oauth2.AuthStyleInHeader,
	}
	if _, err := conf.Token(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	received := server.Auth.Requests()[0]
	fmt.Println(received.AuthMethod)
	fmt.Println(received.Header.Get("Authorization"))
	fmt.Println(received.Body)
	// Output:
	// client_secret_basic
	// Basic Y2xpZW50OnNlY3JldA==
	// grant_type=client_credentials
}

// The credentials go into the body.
func ExampleConfig_authStyleInParams() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		AuthStyle:    oauth2.AuthStyleInParams,
	}
	if _, err := conf.Token(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	received := server.Auth.Requests()[0]
	fmt.Println(received.AuthMethod)
	fmt.Println(received.Body)
	// Output:
	// client_secret_post
	// client_id=client&client_secret=secret&grant_type=client_credentials
}

// When the server refuses, the error is that of golang.org/x/oauth2.
func ExampleConfig_retrieveError() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: "no longer valid",
		TokenURL:     server.TokenURL,
	}
	_, err := conf.Token(context.Background())
	if refusal, ok := err.(*oauth2.RetrieveError); ok { // Or errors.As, for an error of an http.Client.
		fmt.Println(refusal.ErrorCode)
		fmt.Println(refusal.Response.Status)
	}
	// Output:
	// invalid_client
	// 401 Unauthorized
}

// The client in the context under oauth2.HTTPClient sends the token requests,
// and lends its Transport to the client that Config.Client returns: here one
// that trusts a private certification authority.
func ExampleConfig_tls() {
	server := clientcredentialstest.NewTLSServer()
	defer server.Close()
	// In earnest from a file, with x509.NewCertPool and AppendCertsFromPEM.
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs

	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{
		Transport: transport,
		Timeout:   10 * time.Second,
	})

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	resp, err := conf.Client(ctx).Get(server.APIURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, resp.TLS.Version == tls.VersionTLS13)
	// Output: 200 OK true
}

// The token goes to the origins that are listed and to no other.
func ExampleConfig_origins() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		Origins:      []string{server.APIURL},
	}
	client := conf.Client(context.Background())

	resp, err := client.Get(server.APIURL + "reports")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)

	_, err = client.Get("https://elsewhere.example/reports") // Nothing is sent there.
	fmt.Println(err)
	// Output:
	// 200 OK
	// Get "https://elsewhere.example/reports": oauth2: https://elsewhere.example:443 is not among the Origins that may receive the token; add it there, or use another client
}

// A caller waits no longer than its context allows. The token request goes on
// for those that come later.
func ExampleSource_TokenContext() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	server.Auth.Script(clientcredentialstest.Fault{Delay: time.Hour}) // The authorization server hangs.

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	source := conf.Source(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := source.TokenContext(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// A token that was revoked before its time is dropped, and the next call gets a
// new one. Any number of callers may report the same token.
func ExampleSource_Invalidate() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	ctx := context.Background()
	source := conf.Source(ctx)

	revoked, err := source.TokenContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	server.Auth.Revoke(revoked.AccessToken)
	source.Invalidate(revoked)

	token, err := source.TokenContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	source.Invalidate(revoked) // Late, and without effect: it has been replaced.

	_, active := server.Auth.Introspect(token.AccessToken)
	fmt.Println("another token:", token.AccessToken != revoked.AccessToken)
	fmt.Println("active:", active)
	fmt.Println("state:", source.Status().State)
	// Output:
	// another token: true
	// active: true
	// state: fresh
}

// A readiness probe: the service is ready while there is a token to use, even if
// the authorization server is down. Otherwise the probe asks for one: tokens are
// requested when they are needed, and a service that isn't ready gets no calls that
// would need one.
func ExampleSource_Status() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	source := conf.Source(context.Background())

	ready := func(w http.ResponseWriter, r *http.Request) {
		if state := source.Status().State; state == clientcredentials.Expired || state == clientcredentials.Failed {
			ctx, cancel := context.WithTimeout(r.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := source.TokenContext(ctx); err != nil {
				http.Error(w, "no token", http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	}
	probe := func() {
		answer := httptest.NewRecorder()
		ready(answer, httptest.NewRequest(http.MethodGet, "/ready", nil))
		fmt.Print(answer.Code, " ", answer.Body)
	}

	probe()
	server.Stop()
	probe()
	token, err := source.Token()
	if err != nil {
		fmt.Println(err)
		return
	}
	source.Invalidate(token)
	probe()
	// Output:
	// 200 ready
	// 200 ready
	// 503 no token
}

// A program that answers people can't wait for half a minute: two attempts at a
// token, and no more than 5 seconds.
func ExampleRetryPolicy() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	server.Auth.Script(clientcredentialstest.Unavailable()) // The first attempt is answered 503.

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		Retry: clientcredentials.RetryPolicy{
			MaxAttempts:    2,
			AttemptTimeout: 2 * time.Second,
			TotalTimeout:   5 * time.Second,
		},
	}
	_, err := conf.Token(context.Background())
	fmt.Println("error:", err)
	fmt.Println("token requests:", server.Auth.TokenRequests())
	// Output:
	// error: <nil>
	// token requests: 2
}

// The answer has a status of success, and is no token response: here a login page
// that a proxy has put in the way.
func ExampleResponseError() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	server.Auth.Script(clientcredentialstest.Fault{
		Status: http.StatusOK,
		Header: http.Header{"Content-Type": {"text/html"}},
		Body:   "<html>Please log in</html>",
	})

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	_, err := conf.Token(context.Background())
	var unusable *clientcredentials.ResponseError
	if errors.As(err, &unusable) {
		fmt.Println(unusable.StatusCode, unusable.MediaType, unusable.Size, "bytes")
	}
	// Output: 200 text/html 26 bytes
}

// The program can authenticate in two ways, and the server says which of them it
// takes: the stronger is chosen. Metadata usually comes from Discover; a program may
// also keep it in a file.
func ExampleServerMetadata_Config() {
	metadata := &clientcredentials.ServerMetadata{
		Issuer:                            "https://login.example.com",
		TokenEndpoint:                     "https://login.example.com/oauth2/token",
		TokenEndpointAuthMethodsSupported: []string{"client_secret_basic", "private_key_jwt"},
	}
	conf, err := metadata.Config("reports",
		&clientauth.ClientSecretBasic{Secret: clientauth.SecretFile("/etc/reports/secret")},
		&clientauth.PrivateKeyJWT{Key: clientauth.KeyFile("/etc/reports/key.pem")},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(conf.ClientAuth.Method())
	fmt.Println(conf.TokenURL)
	// Output:
	// private_key_jwt
	// https://login.example.com/oauth2/token
}

// Whether to call again later, or to call somebody.
func ExampleIsTemporary() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: "no longer valid",
		TokenURL:     server.TokenURL,
		Retry:        clientcredentials.RetryPolicy{MaxAttempts: 1},
	}
	_, err := conf.Token(context.Background())
	fmt.Println("refused:", clientcredentials.IsTemporary(err))

	server.Stop()
	_, err = conf.Token(context.Background())
	fmt.Println("down:", clientcredentials.IsTemporary(err))
	// Output:
	// refused: false
	// down: true
}

// Two clients that share a cache of tokens, over different connections: a Transport
// by hand instead of by Config.Transport.
func ExampleTransport() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	source := conf.Source(context.Background())
	bulk := http.DefaultTransport.(*http.Transport).Clone()
	bulk.MaxConnsPerHost = 2
	defer bulk.CloseIdleConnections()

	for _, client := range []*http.Client{
		{Transport: &clientcredentials.Transport{Source: source}},
		{Transport: &clientcredentials.Transport{Source: source, Base: bulk}},
	} {
		resp, err := client.Get(server.APIURL)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	fmt.Println("token requests:", server.Auth.TokenRequests())
	// Output:
	// 200 OK
	// 200 OK
	// token requests: 1
}

// A program that puts the token into its requests by itself reports the one that was
// refused, and calls again if there is another to be had. Client and Transport do so
// by themselves.
func ExampleSource_Reject() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	ctx := context.Background()
	source := conf.Source(ctx)

	call := func() (*oauth2.Token, int, error) {
		token, err := source.TokenContext(ctx)
		if err != nil {
			return nil, 0, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.APIURL, nil)
		if err != nil {
			return nil, 0, err
		}
		token.SetAuthHeader(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return token, resp.StatusCode, err
	}
	if _, _, err := call(); err != nil {
		fmt.Println(err)
		return
	}
	server.Auth.RevokeAll()
	token, status, err := call()
	if err == nil && status == http.StatusUnauthorized && source.Reject(token) {
		fmt.Println(status, "and again:")
		_, status, err = call()
	}
	fmt.Println(status, err)
	// Output:
	// 401 and again:
	// 200 <nil>
}

package grant_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/grant"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// The platform puts a new assertion into a file from time to time. The server trusts the
// platform, and needs no other credentials.
func ExampleJWTBearer() {
	srv := startServer("https://platform.example.com")
	defer srv.Close()

	conf := &clientcredentials.Config{
		TokenURL: srv.TokenURL,
		Grant:    &grant.JWTBearer{Assertion: platformToken(srv.TokenURL)}, // clientauth.SecretFile("/var/run/token")
	}
	resp, err := conf.Client(context.Background()).Get(srv.APIURL)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	printSubject(srv)
	// Output: a token for workload
}

// A service account signs its own assertions.
func ExampleSignedJWT() {
	srv := startServer("reports")
	defer srv.Close()

	assertion := grant.SignedJWT{
		Key:      clientauth.SignerKey(exampleKey), // clientauth.KeyFile("/etc/reports/key.pem")
		Issuer:   "reports",
		Subject:  "reports@example.com",
		Audience: srv.TokenURL,
		Claims:   map[string]any{"scope": "read"},
	}
	conf := &clientcredentials.Config{TokenURL: srv.TokenURL, Grant: &grant.JWTBearer{Assertion: assertion.Source()}}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].Form.Get("grant_type"))
	// Output: urn:ietf:params:oauth:grant-type:jwt-bearer
}

// A token of the client is exchanged for one with fewer rights, for another API.
func ExampleTokenExchange() {
	srv := startServer("")
	defer srv.Close()
	own := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     srv.TokenURL,
	}

	conf := &clientcredentials.Config{
		ClientID:       own.ClientID,
		ClientSecret:   own.ClientSecret,
		TokenURL:       srv.TokenURL,
		Scopes:         []string{"read"},
		EndpointParams: url.Values{"audience": {"https://reports.example.com"}},
		Grant:          &grant.TokenExchange{Subject: own.Source(context.Background()).AccessToken},
	}
	token, err := conf.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Extra("issued_token_type"))
	// Output: urn:ietf:params:oauth:token-type:access_token
}

// One authorization server issues an assertion for another one, which trusts it.
func Example_chaining() {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	home, away := startServer(""), startServer("")
	defer home.Close()
	defer away.Close()
	home.Auth.Issuer, home.Auth.SigningKey = "https://home.example.com", private
	away.Auth.TrustedIssuers = []clientcredentialstest.TrustedIssuer{{Issuer: home.Auth.Issuer, PublicKeys: []crypto.PublicKey{public}}}
	ctx := context.Background()

	own := clientcredentials.Config{ClientID: clientcredentialstest.ClientID, ClientSecret: clientcredentialstest.ClientSecret, TokenURL: home.TokenURL}
	exchange := own
	exchange.EndpointParams = url.Values{"audience": {away.TokenURL}}
	exchange.Grant = &grant.TokenExchange{Subject: own.Source(ctx).AccessToken, RequestedTokenType: grant.TypeJWT}
	conf := &clientcredentials.Config{
		TokenURL: away.TokenURL,
		Grant:    &grant.JWTBearer{Assertion: exchange.Source(ctx).AccessToken},
	}
	resp, err := conf.Client(ctx).Get(away.APIURL)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	printSubject(away)
	// Output: a token for client
}

// salesforce returns a Config for the JWT bearer flow of Salesforce. login is
// https://login.salesforce.com, or https://test.salesforce.com for a sandbox.
func salesforce(login, consumerKey, userName string, key clientauth.KeySource) *clientcredentials.Config {
	return &clientcredentials.Config{
		TokenURL: login + "/services/oauth2/token",
		Grant: &grant.JWTBearer{Assertion: grant.SignedJWT{
			Key:      key,
			Issuer:   consumerKey,
			Subject:  userName,
			Audience: login,
		}.Source()},
	}
}

// A Salesforce user has approved a connected app, whose certificate is uploaded there.
func Example_salesforce() {
	srv := startServer("the consumer key")
	defer srv.Close()
	srv.Auth.Issuer = strings.TrimSuffix(srv.TokenURL, "/token")

	conf := salesforce(srv.Auth.Issuer, "the consumer key", "robot@example.com", clientauth.SignerKey(exampleKey))
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].URL)
	// Output: /services/oauth2/token
}

// serviceAccount returns a Config for a service account in the style of Google. keyFile is the
// content of its JSON key file.
func serviceAccount(keyFile []byte, scopes ...string) (*clientcredentials.Config, error) {
	var account struct {
		Email    string `json:"client_email"`
		KeyID    string `json:"private_key_id"`
		TokenURL string `json:"token_uri"`
	}
	if err := json.Unmarshal(keyFile, &account); err != nil {
		return nil, err
	}
	return &clientcredentials.Config{
		TokenURL: account.TokenURL,
		Grant: &grant.JWTBearer{Assertion: grant.SignedJWT{
			Key:      clientauth.KeyBytes(keyFile), // Finds the private key in the JSON.
			KeyID:    account.KeyID,
			Issuer:   account.Email,
			Audience: account.TokenURL,
			Claims:   map[string]any{"scope": strings.Join(scopes, " ")},
		}.Source()},
	}, nil
}

// The assertion says which scopes the token is to have, and nothing else identifies the
// client.
func Example_serviceAccount() {
	srv := startServer("robot@project.example.com")
	defer srv.Close()
	keyFile, err := json.Marshal(map[string]string{
		"client_email":   "robot@project.example.com",
		"private_key":    testkit.KeyPEM(exampleKey),
		"private_key_id": "2026-01",
		"token_uri":      srv.TokenURL,
	})
	if err != nil {
		log.Fatal(err)
	}

	conf, err := serviceAccount(keyFile, "read", "write")
	if err != nil {
		log.Fatal(err)
	}
	token, err := conf.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Extra("scope"))
	// Output: read write
}

// maskinporten returns a Config for Maskinporten. issuer is https://maskinporten.no/, or that
// of the test environment. The scopes and the resource, which may be empty, go into the
// assertion.
func maskinporten(issuer, tokenURL, clientID, keyID string, key clientauth.KeySource, resource string, scopes ...string) *clientcredentials.Config {
	claims := map[string]any{"scope": strings.Join(scopes, " ")}
	if resource != "" {
		claims["resource"] = resource
	}
	return &clientcredentials.Config{
		TokenURL: tokenURL,
		Grant: &grant.JWTBearer{Assertion: grant.SignedJWT{
			Key:      key,
			KeyID:    keyID,
			Issuer:   clientID,
			Audience: issuer,
			Claims:   claims,
		}.Source()},
	}
}

// The client of a government API has its key registered at Maskinporten.
func Example_maskinporten() {
	srv := startServer("the client id")
	defer srv.Close()
	srv.Auth.Issuer = "https://maskinporten.no/"

	conf := maskinporten(srv.Auth.Issuer, srv.TokenURL, "the client id", "2026-01", clientauth.SignerKey(exampleKey), "https://api.example.no", "example:reports.read")
	resp, err := conf.Client(context.Background()).Get(srv.APIURL)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode == http.StatusOK)
	// Output: true
}

// exampleKey is the key of the issuers in the examples.
var exampleKey = testkit.NewKey("RS256")

// startServer starts a server that trusts an issuer with exampleKey.
func startServer(issuer string) *clientcredentialstest.Server {
	srv := clientcredentialstest.NewServer()
	srv.Auth.TrustedIssuers = []clientcredentialstest.TrustedIssuer{{Issuer: issuer, PublicKeys: []crypto.PublicKey{exampleKey.Public()}}}
	return srv
}

// platformToken returns assertions such as a platform would put into a file.
func platformToken(audience string) clientauth.SecretSource {
	return grant.SignedJWT{Key: clientauth.SignerKey(exampleKey), Issuer: "https://platform.example.com", Subject: "workload", Audience: audience}.Source()
}

// printSubject prints whom the last request to the API had a token for.
func printSubject(srv *clientcredentialstest.Server) {
	requests := srv.API.Requests()
	token, _ := srv.Auth.Introspect(requests[len(requests)-1].AccessToken)
	fmt.Println("a token for", token.Subject)
}

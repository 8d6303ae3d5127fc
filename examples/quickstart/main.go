// Quickstart shows the main job of package clientcredentials: API calls carry a token
// that is requested once, reused, and replaced before it expires.
//
//	go run ./examples/quickstart
//
// It takes about 12 seconds, and starts its own servers on the loopback interface. To use
// a real authorization server and API instead, set the environment variables that -h
// lists.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: quickstart

Without environment variables, it starts an authorization server and an API on
the loopback interface, and shows how a token is requested, reused and replaced.
To use your own servers, set:

  TOKEN_URL      address of the token endpoint
  CLIENT_ID      client identifier
  CLIENT_SECRET  client secret
  API_URL        address to GET with the token
  SCOPES         scopes to ask for, separated by spaces (optional)

The exit status is 0 if all checks pass, else 1.
`

func main() {
	report.Main("quickstart", usage, func(ctx context.Context, out io.Writer) error { return run(ctx, os.Getenv, out) })
}

func run(ctx context.Context, env func(string) string, out io.Writer) error {
	conf, apiURL, err := fromEnvironment(env)
	if err != nil {
		return err
	}
	r := report.New(out)
	if conf == nil {
		err = demonstrate(ctx, r, plan{
			calls:    1000,
			callers:  5,
			lifetime: 4 * time.Second,
			latency:  600 * time.Millisecond,
		})
	} else {
		r.Say("Using the authorization server and the API from the environment.\n")
		err = callAPI(ctx, r, newApp(ctx, conf, apiURL), 10)
	}
	if err != nil {
		return err
	}
	return r.Result()
}

// fromEnvironment returns a nil Config if none of the variables is set.
func fromEnvironment(env func(string) string) (conf *clientcredentials.Config, apiURL string, err error) {
	required := []string{"TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "API_URL"}
	var missing []string
	for _, name := range required {
		if env(name) == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) == len(required) && env("SCOPES") == "" {
		return nil, "", nil
	}
	if len(missing) > 0 {
		return nil, "", fmt.Errorf("missing in the environment: %s (for the demonstration, set none of %s)",
			strings.Join(missing, ", "), strings.Join(append(required, "SCOPES"), ", "))
	}
	return &clientcredentials.Config{
		TokenURL:     env("TOKEN_URL"),
		ClientID:     env("CLIENT_ID"),
		ClientSecret: env("CLIENT_SECRET"),
		Scopes:       strings.Fields(env("SCOPES")),
	}, env("API_URL"), nil
}

// app is a program that calls an API.
type app struct {
	source        *clientcredentials.Source
	client        *http.Client
	apiURL        string
	tokenRequests *counter
}

// newApp makes the client in two steps, because this program also uses the token and the
// Status of the Source. conf.Client(ctx) does the same in one step.
func newApp(ctx context.Context, conf *clientcredentials.Config, apiURL string) *app {
	requests := new(counter)
	conf.HTTPClient = &http.Client{Transport: requests}
	source := conf.Source(ctx)
	return &app{
		source:        source,
		client:        &http.Client{Transport: &clientcredentials.Transport{Source: source}, Timeout: 30 * time.Second},
		apiURL:        apiURL,
		tokenRequests: requests,
	}
}

// A counter is a transport that counts its requests.
type counter struct{ atomic.Int64 }

func (c *counter) RoundTrip(req *http.Request) (*http.Response, error) {
	c.Add(1)
	return http.DefaultTransport.RoundTrip(req)
}

// call makes one API call. It knows nothing about tokens.
func (a *app) call(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.apiURL, nil)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("the API answered %s: it doesn't accept the token; check that the token is for this API, and that the address doesn't redirect to another host", resp.Status)
	case resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("the API answered %s: the token doesn't allow this call; check SCOPES and the client's permissions", resp.Status)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return fmt.Errorf("the API answered %s", resp.Status)
	}
	return err
}

// callAPI is the main job: it gets a token and makes API calls with it.
func callAPI(ctx context.Context, r *report.Report, a *app, calls int) error {
	r.Say("1. The first token")
	start := time.Now()
	token, err := a.source.TokenContext(ctx)
	if err != nil {
		return fmt.Errorf("%w\nhint: %s", err, hint(err))
	}
	took := time.Since(start)
	expiry := "never, as far as the server says"
	if !token.Expiry.IsZero() {
		expiry = fmt.Sprintf("in %v", time.Until(token.Expiry).Round(time.Second))
	}
	scope, _ := token.Extra("scope").(string)
	r.Say("   type %s, scope %q, expires %s", token.Type(), scope, expiry)
	first := a.tokenRequests.Load()
	r.Check(token.Valid(), "it came after %v; token requests: %d", report.Round(took), first)

	r.Say("\n2. %d API calls with it", calls)
	var slowest time.Duration
	start = time.Now()
	for range calls {
		before := time.Now()
		if err := a.call(ctx); err != nil {
			return fmt.Errorf("calling the API: %w", err)
		}
		slowest = max(slowest, time.Since(before))
	}
	took = time.Since(start)
	r.Check(true, "all succeeded in %v: %v each, the slowest took %v", report.Round(took), report.Round(took/time.Duration(calls)), report.Round(slowest))
	more := a.tokenRequests.Load() - first
	r.Check(more == 0, "%d further token requests: each call used the first token", more)
	return nil
}

// hint says what to check after a failed token request.
func hint(err error) string {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return "TOKEN_URL must be the address of a token endpoint that can be reached from here"
	}
	switch refusal.ErrorCode {
	case "invalid_client", "unauthorized_client":
		return "check CLIENT_ID and CLIENT_SECRET, and that the client may use the client credentials grant"
	case "invalid_scope":
		return "check SCOPES"
	}
	return "the server refused; check TOKEN_URL, then CLIENT_ID and CLIENT_SECRET"
}

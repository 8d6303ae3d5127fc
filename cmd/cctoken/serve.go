package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// serve is cctoken serve.
func serve(ctx context.Context, c *call) error {
	var (
		port              int
		lifetime, latency time.Duration
		faults            []clientcredentialstest.Fault
	)
	c.addInt(&port, "port", 0, 0, 65535)
	clientID := c.flags.String("client-id", clientcredentialstest.ClientID, "")
	scopes := c.flags.String("scopes", "", "")
	c.addDuration(&lifetime, "lifetime", time.Hour)
	c.addDuration(&latency, "latency", 0)
	verbose := c.flags.Bool("v", false, "")
	c.addFlag("faults", "a list of ok, reset, html, a status from 400 to 599, or a duration such as 2s, separated by commas", func(text string) (ok bool) {
		faults, ok = parseFaults(text)
		return ok
	})
	if err := c.parse(); err != nil {
		return err
	}
	if lifetime < time.Second {
		return usagef("-lifetime is less than a second; expires_in is in whole seconds")
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return &failure{statusTemporary, fmt.Errorf("%w; choose another -port, or leave it out", err)}
	}
	origin := "http://" + listener.Addr().String()
	client := clientcredentialstest.Client{
		ID:     *clientID,
		Secret: rand.Text() + rand.Text(), // HS256 needs 32 bytes.
		Scopes: strings.Fields(*scopes),
	}
	auth := &clientcredentialstest.AuthorizationServer{
		Clients: []clientcredentialstest.Client{client}, Issuer: origin, TokenLifetime: lifetime, Latency: latency,
	}
	f := &fake{
		origin: origin,
		scopes: client.Scopes,
		auth:   auth,
		api:    &clientcredentialstest.ResourceServer{Issuer: auth},
		faults: faults,
	}
	if *verbose {
		f.log = c.stderr
	}
	for _, line := range []struct{ name, value string }{
		{"ISSUER", origin},
		{"TOKEN_URL", origin + "/token"},
		{"API_URL", origin + "/api/"},
		{"CLIENT_ID", client.ID},
		{"CLIENT_SECRET", client.Secret},
		{"CCTOKEN_SERVE_PID", strconv.Itoa(os.Getpid())},
	} {
		fmt.Fprintf(c.out, "export %s=%s\n", line.name, shellQuote(line.value))
	}
	// A shell that evaluates the lines, as in eval "$(cctoken serve &)", waits for the end.
	if err := c.out.Close(); err != nil {
		_ = listener.Close()
		return err
	}
	return f.serve(ctx, listener)
}

// shellQuote quotes text as one word for a shell.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// A fake is an authorization server and an API at one address.
type fake struct {
	origin string
	scopes []string
	auth   *clientcredentialstest.AuthorizationServer
	api    *clientcredentialstest.ResourceServer
	log    io.Writer // nil: none

	mu     sync.Mutex // protects the rest, and writes to log
	faults []clientcredentialstest.Fault
	next   int    // the index into faults, before the modulo
	logged [2]int // how many violations of auth and of api are in the log
}

// serve answers requests until ctx ends.
func (f *fake) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return &failure{statusTemporary, err}
	}
	return nil
}

// ServeHTTP serves the token endpoint at /token, the metadata at its two locations, and
// the API under /api/.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	recorded := &statusWriter{ResponseWriter: w}
	defer func() {
		v := recover()
		f.logRequest(r, recorded.status)
		if v != nil {
			panic(v) // The fake servers break connections with it.
		}
	}()
	switch {
	case r.URL.Path == "/token":
		f.script()
		f.auth.ServeHTTP(recorded, r)
	case r.URL.Path == "/.well-known/oauth-authorization-server", r.URL.Path == "/.well-known/openid-configuration":
		recorded.Header().Set("Content-Type", "application/json")
		_ = writeJSON(recorded, f.metadata())
	case strings.HasPrefix(r.URL.Path, "/api/"):
		f.api.ServeHTTP(recorded, r)
	default:
		http.NotFound(recorded, r)
	}
}

func (f *fake) metadata() clientcredentials.ServerMetadata {
	return clientcredentials.ServerMetadata{
		Issuer:                            f.origin,
		TokenEndpoint:                     f.origin + "/token",
		TokenEndpointAuthMethodsSupported: []string{secretBasic, secretPost, secretJWT},
		TokenEndpointAuthSigningAlgValuesSupported: []string{"HS256"},
		ScopesSupported:               f.scopes,
		GrantTypesSupported:           []string{"client_credentials"},
		DPoPSigningAlgValuesSupported: []string{"ES256", "ES384", "ES512", "EdDSA", "PS256", "RS256"},
	}
}

// script sets the fault for the next token request.
func (f *fake) script() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.faults) > 0 {
		f.auth.Script(f.faults[f.next%len(f.faults)])
		f.next++
	}
}

// logRequest writes a line for a request, and one for each rule that it broke.
func (f *fake) logRequest(r *http.Request, status int) {
	if f.log == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := "connection broken"
	if status != 0 {
		answer = strconv.Itoa(status)
	}
	fmt.Fprintf(f.log, "%s %s %s\n", r.Method, redact.OneLine(r.URL.Path), answer)
	for i, violations := range [][]error{f.auth.Violations(), f.api.Violations()} {
		for _, violation := range violations[f.logged[i]:] {
			fmt.Fprintf(f.log, "the client broke a rule: %s\n", redact.OneLine(violation.Error()))
		}
		f.logged[i] = len(violations)
	}
}

// A statusWriter records the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the underlying writer.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// parseFaults parses a list of faults, separated by commas.
func parseFaults(text string) (faults []clientcredentialstest.Fault, ok bool) {
	for name := range strings.SplitSeq(text, ",") {
		fault, ok := parseFault(strings.TrimSpace(name))
		if !ok {
			return nil, false
		}
		faults = append(faults, fault)
	}
	return faults, true
}

func parseFault(name string) (fault clientcredentialstest.Fault, ok bool) {
	switch name {
	case "ok":
		return clientcredentialstest.Fault{}, true
	case "reset":
		return clientcredentialstest.ConnectionReset(), true
	case "html":
		return clientcredentialstest.Fault{
			Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html><h1>Please log in</h1></html>",
		}, true
	case "401":
		return clientcredentialstest.InvalidClient(), true
	case "429":
		return clientcredentialstest.TooManyRequests(time.Second), true
	}
	if status, err := strconv.Atoi(name); err == nil && 400 <= status && status <= 599 {
		return clientcredentialstest.Fault{Status: status}, true
	}
	if delay, err := time.ParseDuration(name); err == nil && delay > 0 {
		return clientcredentialstest.Fault{Delay: delay}, true
	}
	return fault, false
}

// Readiness is a service whose readiness probe depends on its token. It shows the answer
// while the token is fresh, while it can't be replaced, after it has expired, and when
// the authorization server is back.
//
//	go run ./examples/readiness
//
// It takes about 7 seconds, and starts its own servers on the loopback interface. The
// part to copy is in ready.go.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: readiness

Starts an authorization server and a service on the loopback interface. Stops the
authorization server for a while, and keeps asking the service whether it is ready.

The exit status is 0 if all checks pass, else 1.
`

const demoSecret = "correct horse battery staple"

func main() {
	report.Main("readiness", usage, func(ctx context.Context, out io.Writer) error { return run(ctx, 8*time.Second, out) })
}

func run(ctx context.Context, lifetime time.Duration, out io.Writer) error {
	r := report.New(out)
	server := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "readiness", Secret: demoSecret})
	defer server.Close()
	server.Auth.TokenLifetime = lifetime
	conf := &clientcredentials.Config{
		ClientID:     "readiness",
		ClientSecret: demoSecret,
		TokenURL:     server.TokenURL,
		EarlyRefresh: lifetime / 2, // For tokens with an ordinary lifetime, leave the default.
	}
	source := conf.Source(ctx)
	service := httptest.NewServer(Ready(source, slog.New(slog.DiscardHandler)))
	defer service.Close()
	ask := func() (code int, answer Answer, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, service.URL, nil)
		if err != nil {
			return 0, answer, err
		}
		resp, err := service.Client().Do(req)
		if err != nil {
			return 0, answer, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, answer, json.NewDecoder(resp.Body).Decode(&answer)
	}
	// probe asks until the token is in that state, and checks the code of the answer.
	probe := func(want int, state clientcredentials.State, failing bool, claim string) error {
		var (
			code   int
			answer Answer
			err    error
		)
		if late := report.Until(ctx, 2*lifetime, func() bool {
			code, answer, err = ask()
			return err != nil || answer == Answer{state.String(), failing}
		}); late != nil {
			return fmt.Errorf("the token is not %v (failing: %v), but %+v: %w", state, failing, answer, late)
		}
		if err != nil {
			return err
		}
		r.Check(code == want, "%d, token %v: %s", code, state, claim)
		return nil
	}

	r.Say("1. The service has started")
	r.Check(source.Status().State == clientcredentials.Expired, "there is no token yet")
	if err := probe(http.StatusOK, clientcredentials.Fresh, false, "the probe requested it"); err != nil {
		return err
	}
	r.Say("\n2. The authorization server goes down, and the token is due to be replaced")
	server.Stop()
	expiry := source.Status().Expiry
	stop := report.Load(ctx, func() error { // These are the calls of a service in use.
		if _, err := source.TokenContext(ctx); time.Now().Before(expiry) {
			return err
		}
		return nil
	})
	defer func() { _ = stop() }()
	if err := probe(http.StatusOK, clientcredentials.Stale, true, "replacing it fails, but the service is still ready"); err != nil {
		return err
	}
	r.Check(stop() == nil, "no call has failed yet")
	r.Say("\n3. The authorization server stays down until the token expires")
	if err := probe(http.StatusServiceUnavailable, clientcredentials.Failed, true, "calls would fail now"); err != nil {
		return err
	}
	r.Say("\n4. The authorization server is back")
	if err := server.Restart(); err != nil {
		return err
	}
	if err := probe(http.StatusOK, clientcredentials.Fresh, false, "the failures caused a pause, and the first probe after it requested a new token"); err != nil {
		return err
	}
	return r.Result()
}

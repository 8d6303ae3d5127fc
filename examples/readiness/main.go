// Readiness answers a readiness probe by what is known of the token: while it is
// fresh, while it can't be replaced, when it is gone, and when the authorization
// server is back.
//
//	go run ./examples/readiness
//
// takes about 7 seconds. The servers are its own, on the loopback interface. What to
// copy is in ready.go.
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

Starts an authorization server and a service on the loopback interface, asks the
service whether it is ready, and takes the authorization server down meanwhile.

The exit status is 0 if what the output claims held, else 1.
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
		EarlyRefresh: lifetime / 2, // With an ordinary life of a token the default will do.
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
	// probe asks until the answer is of that kind, and checks its code.
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
	if err := probe(http.StatusOK, clientcredentials.Fresh, false, "the probe has requested it"); err != nil {
		return err
	}
	r.Say("\n2. The authorization server goes down, and the token is due to be replaced")
	server.Stop()
	expiry := source.Status().Expiry
	stop := report.Load(ctx, func() error { // The service is in use.
		if _, err := source.TokenContext(ctx); time.Now().Before(expiry) {
			return err
		}
		return nil
	})
	defer func() { _ = stop() }()
	if err := probe(http.StatusOK, clientcredentials.Stale, true, "which fails, and is no reason not to be ready"); err != nil {
		return err
	}
	r.Check(stop() == nil, "no call has failed so far")
	r.Say("\n3. It is down for longer than the token lives")
	if err := probe(http.StatusServiceUnavailable, clientcredentials.Failed, true, "now calls would fail"); err != nil {
		return err
	}
	r.Say("\n4. It is back")
	if err := server.Restart(); err != nil {
		return err
	}
	if err := probe(http.StatusOK, clientcredentials.Fresh, false, "after the pause that the failures have brought, a probe has requested it"); err != nil {
		return err
	}
	return r.Result()
}

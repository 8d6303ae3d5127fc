// Service is a small service that calls an API. The file service_test.go shows how to
// test it.
//
//	go run ./examples/service
//	go test -v ./examples/service
//
// The first command takes a moment, and starts the service and its servers on the
// loopback interface.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: service

Starts a service, and the servers that it needs, on the loopback interface, and
calls the service.

The exit status is 0 if all checks pass, else 1.
`

const demoSecret = "correct horse battery staple"

func main() { report.Main("service", usage, run) }

func run(ctx context.Context, out io.Writer) error {
	r := report.New(out)
	server := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "service", Secret: demoSecret, Scopes: []string{"reports.read"}})
	defer server.Close()
	server.API.Scope = "reports.read"
	server.API.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `["January", "February"]`)
	})

	// A real program reads these from its environment.
	conf := &clientcredentials.Config{
		ClientID:     "service",
		ClientSecret: demoSecret,
		TokenURL:     server.TokenURL,
		Scopes:       []string{"reports.read"},
	}
	var log strings.Builder
	service := httptest.NewServer(newService(conf.Client(ctx), server.APIURL, slog.New(slog.NewTextHandler(&log, nil))))
	defer service.Close()

	ask := func(want int, claim string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, service.URL+"/summary", nil)
		if err != nil {
			return err
		}
		resp, err := service.Client().Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		r.Check(err == nil && resp.StatusCode == want, "%s: %d, %s", claim, resp.StatusCode, strings.TrimSpace(string(body)))
		return err
	}
	if err := ask(http.StatusOK, "GET /summary"); err != nil {
		return err
	}
	server.Auth.RevokeAll()
	if err := ask(http.StatusOK, "after the token was revoked"); err != nil {
		return err
	}
	server.Stop()
	if err := ask(http.StatusOK, "while the authorization server is down"); err != nil {
		return err
	}
	server.Auth.RevokeAll()
	if err := ask(http.StatusBadGateway, "while it is down, after the token was revoked"); err != nil {
		return err
	}
	r.Check(strings.Contains(log.String(), "401") && !strings.Contains(log.String(), demoSecret), "the log says why, and contains no secret")
	if n := len(server.Auth.Violations()); n > 0 {
		return fmt.Errorf("%d token requests broke RFC 6749", n)
	}
	return r.Result()
}

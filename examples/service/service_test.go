package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// registered is the service as a client of the authorization server.
var registered = clientcredentialstest.Client{ID: "summaries", Secret: "s3cret", Scopes: []string{"reports.read"}}

// start starts an authorization server and an API, and returns a service that uses
// them. If the service breaks a rule of OAuth, the test fails when it ends.
func start(t *testing.T) (*clientcredentialstest.Server, http.Handler) {
	t.Helper()
	server := clientcredentialstest.Start(t, registered)
	server.API.Scope = "reports.read"
	server.API.Handler = reportsAPI()
	conf := &clientcredentials.Config{
		ClientID:     registered.ID,
		ClientSecret: registered.Secret,
		TokenURL:     server.TokenURL,
		Scopes:       []string{"reports.read"},
	}
	return server, newService(conf.Client(t.Context()), server.APIURL, slog.New(slog.DiscardHandler))
}

// reportsAPI is an API with two reports. Tokens are checked before it is called.
func reportsAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /reports", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `["January", "February"]`)
	})
	return mux
}

// expect asks the service for a summary, and checks the answer.
func expect(t *testing.T, service http.Handler, code int, body string) {
	t.Helper()
	expectWithin(t.Context(), t, service, code, body)
}

func expectWithin(ctx context.Context, t *testing.T, service http.Handler, code int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	service.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/summary", nil).WithContext(ctx))
	if w.Code != code || w.Body.String() != body {
		t.Errorf("got %d %q, want %d %q", w.Code, w.Body, code, body)
	}
}

func TestSummary(t *testing.T) {
	server, service := start(t)
	for range 3 {
		expect(t, service, http.StatusOK, "2 reports\n")
	}
	// The server has recorded its requests.
	if n := server.Auth.TokenRequests(); n != 1 {
		t.Errorf("token requests: %d", n)
	}
	if scope := server.Auth.Requests()[0].Form.Get("scope"); scope != "reports.read" {
		t.Errorf("asked for scope %q", scope)
	}
}

// The next token request fails. The one after that succeeds.
func TestHiccup(t *testing.T) {
	server, service := start(t)
	server.Auth.Script(clientcredentialstest.Unavailable())
	expect(t, service, http.StatusOK, "2 reports\n")
}

func TestOutage(t *testing.T) {
	server, service := start(t)
	expect(t, service, http.StatusOK, "2 reports\n")
	server.Stop() // Connections are refused.
	expect(t, service, http.StatusOK, "2 reports\n")
	server.Auth.RevokeAll()
	expect(t, service, http.StatusBadGateway, "the reports are not available\n")
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	expect(t, service, http.StatusOK, "2 reports\n")
}

func TestRevokedToken(t *testing.T) {
	server, service := start(t)
	expect(t, service, http.StatusOK, "2 reports\n")
	server.Auth.RevokeAll()
	expect(t, service, http.StatusOK, "2 reports\n") // Only the client has seen the 401.
	if rejected, tokens := server.API.Rejected(), server.Auth.TokensIssued(); rejected != 1 || tokens != 2 {
		t.Errorf("rejected calls: %d, tokens: %d", rejected, tokens)
	}
}

func TestWrongSecret(t *testing.T) {
	server, service := start(t)
	changed := registered
	changed.Secret = "another"
	server.Auth.Register(changed)
	expect(t, service, http.StatusInternalServerError, "this service is misconfigured\n")
}

// The authorization server hangs. The service waits only as long as its caller.
func TestImpatientCaller(t *testing.T) {
	server, service := start(t)
	server.Auth.SetFault(&clientcredentialstest.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	expectWithin(ctx, t, service, http.StatusGatewayTimeout, "the reports took too long\n")
}

// In a bubble of testing/synctest the clock is fake, so a day passes at once.
// HandlerTransport replaces the network.
func TestDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := &clientcredentialstest.AuthorizationServer{Clients: []clientcredentialstest.Client{registered}}
		mux := http.NewServeMux()
		mux.Handle("auth.example/", auth)
		mux.Handle("api.example/", &clientcredentialstest.ResourceServer{Issuer: auth, Handler: reportsAPI()})
		network := &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}
		conf := &clientcredentials.Config{
			ClientID:     registered.ID,
			ClientSecret: registered.Secret,
			TokenURL:     "https://auth.example/token",
		}
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, network)
		var log strings.Builder
		service := newService(conf.Client(ctx), "https://api.example/", slog.New(slog.NewTextHandler(&log, nil)))

		auth.Latency = 2 * time.Second // Only the first call waits for it. Later tokens come in the background.
		for start := time.Now(); time.Since(start) < 24*time.Hour; {
			begin := time.Now()
			expect(t, service, http.StatusOK, "2 reports\n")
			if waited := time.Since(begin); waited > 0 && begin != start {
				t.Errorf("at %v a call waited for %v", begin.Sub(start), waited)
			}
			time.Sleep(time.Minute)
		}
		// A token lives for an hour, and is replaced up to 5 minutes before it expires.
		if n := auth.TokensIssued(); n < 24 || n > 27 {
			t.Errorf("tokens: %d", n)
		}
		if log.Len() > 0 {
			t.Errorf("log:\n%s", &log)
		}
	})
}

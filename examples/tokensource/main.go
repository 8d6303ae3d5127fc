// Tokensource gives tokens to libraries that take an oauth2.TokenSource, and shows which
// features are lost when such a library puts its own cache around it.
//
//	go run ./examples/tokensource
//
// It takes about 6 seconds, and starts its own servers on the loopback interface. The
// part to copy is in sdk.go.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: tokensource

Starts authorization servers and APIs on the loopback interface, and calls the
APIs with clients that take an oauth2.TokenSource.

The exit status is 0 if all checks pass, else 1.
`

const demoSecret = "correct horse battery staple"

func main() { report.Main("tokensource", usage, run) }

func run(ctx context.Context, out io.Writer) error {
	r := report.New(out)
	for _, step := range []func(context.Context, *report.Report) error{libraries, margin, revocation} {
		if err := step(ctx, r); err != nil {
			return err
		}
	}
	return r.Result()
}

// start starts servers, and returns a Config for them.
func start(lifetime time.Duration) (*clientcredentialstest.Server, *clientcredentials.Config) {
	server := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "tokensource", Secret: demoSecret})
	server.Auth.TokenLifetime = lifetime
	return server, &clientcredentials.Config{ClientID: "tokensource", ClientSecret: demoSecret, TokenURL: server.TokenURL}
}

func libraries(ctx context.Context, r *report.Report) error {
	r.Say("1. What to give to a library")
	for _, c := range []struct {
		takes string
		open  func(context.Context, *clientcredentials.Config, string) *SDK
	}{
		{"a TokenSource", WithTokenSource},
		{"a RoundTripper", WithRoundTripper},
		{"a client", WithClient},
	} {
		server, conf := start(time.Hour)
		sdk := c.open(ctx, conf, server.APIURL)
		var failed error
		for range 100 {
			if err := sdk.List(ctx); err != nil {
				failed = err
			}
		}
		server.Close()
		n := server.Auth.TokenRequests()
		r.Check(failed == nil && n == 1, "if it takes %s: 100 calls, %d token request%s", c.takes, n, report.Because(failed))
	}
	return nil
}

func margin(ctx context.Context, r *report.Report) error {
	const (
		lifetime = 6 * time.Second
		early    = lifetime / 2
		most     = 500 * time.Millisecond
	)
	r.Say("\n2. A token is due to be replaced %v before it expires, and the authorization server hangs", early)
	one, conf := start(lifetime)
	defer one.Close()
	expiring := WithMargin(ctx, conf, early)
	other, conf := start(lifetime)
	defer other.Close()
	refreshing := WithEarlyRefresh(ctx, conf, early)

	sources := []oauth2.TokenSource{expiring, refreshing}
	for _, source := range sources {
		if _, err := source.Token(); err != nil {
			return err
		}
	}
	for _, server := range []*clientcredentialstest.Server{one, other} {
		server.Auth.SetFault(&clientcredentialstest.Fault{Delay: time.Hour})
	}
	if err := report.Sleep(ctx, lifetime*2/3); err != nil {
		return err
	}
	var took []time.Duration
	for _, source := range sources {
		begin := time.Now()
		if _, err := source.Token(); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	r.Check(took[0] > most, "with oauth2.ReuseTokenSourceWithExpiry, a call waited for %v, as with x/oauth2", report.Round(took[0]))
	r.Check(took[1] < most, "with Config.EarlyRefresh, a call waited for %v", report.Round(took[1]))
	return nil
}

func revocation(ctx context.Context, r *report.Report) error {
	r.Say("\n3. A token is revoked")
	server, conf := start(time.Hour)
	defer server.Close()
	source := conf.Source(ctx)
	clients := []*http.Client{
		oauth2.NewClient(ctx, conf.TokenSource(ctx)),
		oauth2.NewClient(ctx, source), // Puts a cache around the Source.
		{Transport: &oauth2.Transport{Source: source}},
		conf.Client(ctx),
	}
	for _, client := range clients {
		if _, err := report.Get(ctx, client, server.APIURL); err != nil {
			return err
		}
	}
	revoked, err := source.Token()
	if err != nil {
		return err
	}
	server.Auth.RevokeAll()
	source.Invalidate(revoked) // The program has learned of it.

	const unauthorized = "the API answered 401 Unauthorized"
	for i, c := range []struct{ what, want string }{
		{"oauth2.NewClient with Config.TokenSource: it has another source, which nobody tells", unauthorized},
		{"oauth2.NewClient with Config.Source: it has a cache of its own, which nobody tells", unauthorized},
		{"oauth2.Transport with Config.Source: the program has told the Source, which gets a new token", ""},
		{"Config.Client: it sees the 401, and repeats the call with a new token", ""},
	} {
		_, err := report.Get(ctx, clients[i], server.APIURL)
		got := ""
		if err != nil {
			got = err.Error()
		}
		r.Check(got == c.want, "%s%s", c.what, report.Because(err))
	}
	if n := len(server.API.Violations()); n > 0 {
		return fmt.Errorf("%d requests broke RFC 6750", n)
	}
	return nil
}

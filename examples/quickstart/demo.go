package main

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

// plan is the size of the demonstration.
type plan struct {
	calls    int           // API calls in a row with the first token
	callers  int           // of the API, at the same time
	lifetime time.Duration // of a token, from the third step on
	latency  time.Duration // of the authorization server
}

func demonstrate(ctx context.Context, r *report.Report, p plan) error {
	r.Say("This starts an authorization server and an API on the loopback interface.")
	r.Say("The authorization server is slow. It answers after %v.\n", p.latency)
	server, a := demoApp(ctx, p.latency, time.Hour)
	defer server.Close()
	if err := callAPI(ctx, r, a, p.calls); err != nil {
		return err
	}
	if err := demonstrateRefresh(ctx, r, p); err != nil {
		return err
	}
	return demonstrateOutage(ctx, r, p)
}

const demoSecret = "correct horse battery staple"

// demoApp starts servers and makes a program that uses them.
func demoApp(ctx context.Context, latency, lifetime time.Duration) (*clientcredentialstest.Server, *app) {
	server := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "quickstart", Secret: demoSecret, Scopes: []string{"reports.read"},
	})
	server.Auth.Latency = latency
	server.Auth.TokenLifetime = lifetime
	return server, newApp(ctx, &clientcredentials.Config{
		TokenURL:     server.TokenURL,
		ClientID:     "quickstart",
		ClientSecret: demoSecret,
		Scopes:       []string{"reports.read"},
		EarlyRefresh: min(5*time.Minute, lifetime/2), // For tokens with an ordinary lifetime, leave the default.
	}, server.APIURL)
}

func demonstrateRefresh(ctx context.Context, r *report.Report, p plan) error {
	duration := 2 * p.lifetime
	r.Say("\n3. Refresh in the background")
	r.Say("   Tokens now live for %v, and %d callers call the API for %v.", p.lifetime, p.callers, duration)
	server, a := demoApp(ctx, p.latency, p.lifetime)
	defer server.Close()
	if err := a.call(ctx); err != nil {
		return err
	}
	stop := a.load(ctx, p.callers)
	defer stop()
	if err := report.Sleep(ctx, duration); err != nil {
		return err
	}
	calls := stop()
	refreshes := server.Auth.TokensIssued() - 1
	r.Check(calls.err == nil, "%s; the slowest took %v", calls, report.Round(calls.slowest))
	r.Check(refreshes >= 2, "in that time the token was replaced %d times", refreshes)
	r.Check(calls.wait < p.latency/2, "nobody waited for that: a new token takes %v, but the longest wait for a token was %v", p.latency, report.Round(calls.wait))
	return nil
}

func demonstrateOutage(ctx context.Context, r *report.Report, p plan) error {
	r.Say("\n4. The authorization server goes down")
	server, a := demoApp(ctx, 0, p.lifetime)
	defer server.Close()
	if err := a.call(ctx); err != nil {
		return err
	}
	stop := a.load(ctx, p.callers)
	defer stop()
	status := a.source.Status
	server.Stop()
	down := time.Now()
	r.Say("   The token is valid for another %v.", report.Round(time.Until(status().Expiry)))
	if err := report.Until(ctx, 2*p.lifetime, func() bool { return status().LastError != nil }); err != nil {
		return fmt.Errorf("no attempt to replace the token failed: %w", err)
	}
	r.Check(true, "after %v the token was due to be replaced, and that failed: %v", report.Round(time.Since(down)), status().LastError)
	r.Check(a.call(ctx) == nil, "API calls still succeed: the token is valid for another %v", report.Round(time.Until(status().Expiry)))

	if err := server.Restart(); err != nil {
		return err
	}
	up := time.Now()
	if err := report.Until(ctx, 2*p.lifetime, func() bool { return status().State == clientcredentials.Fresh }); err != nil {
		return fmt.Errorf("no new token after the server came back: %w", err)
	}
	r.Check(true, "the server came back after %v, and the new token %v later", report.Round(up.Sub(down)), report.Round(time.Since(up)))
	calls := stop()
	r.Check(calls.err == nil, "in all that time: %s; the slowest took %v", calls, report.Round(calls.slowest))
	return nil
}

// calls sums up a number of API calls.
type calls struct {
	total, failed int
	slowest       time.Duration
	wait          time.Duration // the longest wait for a token
	err           error         // of the last call that failed
}

func (c calls) String() string {
	text := fmt.Sprintf("%d API calls, %d failed", c.total, c.failed)
	if c.err != nil {
		text += fmt.Sprintf(" (%v)", c.err)
	}
	return text
}

// load starts callers that call the API, about 50 times a second each, until stop is
// called. stop may be called more than once.
func (a *app) load(ctx context.Context, callers int) (stop func() calls) {
	running, cancel := context.WithCancel(ctx)
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex // protects sum
		sum calls
	)
	for range callers {
		wg.Go(func() {
			for running.Err() == nil {
				start := time.Now()
				var wait time.Duration
				// Not with running: let a call that has started finish.
				err := a.call(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
					GetConn: func(string) { wait = time.Since(start) }, // The token is there, and the call to the API begins.
				}))
				took := time.Since(start)
				mu.Lock()
				sum.total++
				sum.slowest = max(sum.slowest, took)
				sum.wait = max(sum.wait, wait)
				if err != nil {
					sum.failed++
					sum.err = err
				}
				mu.Unlock()
				_ = report.Sleep(running, 20*time.Millisecond)
			}
		})
	}
	return func() calls {
		cancel()
		wg.Wait()
		return sum
	}
}

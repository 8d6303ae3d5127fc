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
	callers  int           // that call the API at the same time
	lifetime time.Duration // of a token, after the first ones
	latency  time.Duration // of the authorization server
}

func demonstrate(ctx context.Context, r *report.Report, p plan) error {
	r.Say("An authorization server and an API are started on the loopback interface.")
	r.Say("The authorization server is slow: it answers after %v.\n", p.latency)
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
		EarlyRefresh: min(5*time.Minute, lifetime/2), // The default would do, too, for tokens with a longer life.
	}, server.APIURL)
}

func demonstrateRefresh(ctx context.Context, r *report.Report, p plan) error {
	duration := 2 * p.lifetime
	r.Say("\n3. Refresh in the background")
	r.Say("   A token now lives for %v, and %d callers call the API for %v.", p.lifetime, p.callers, duration)
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
	r.Check(refreshes >= 2, "meanwhile the token was replaced %d times", refreshes)
	r.Check(calls.wait < p.latency/2, "nobody waited for that: a new token takes %v, the longest wait for a token was %v", p.latency, report.Round(calls.wait))
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
	r.Say("   It is down, and the token is valid for another %v.", report.Round(time.Until(status().Expiry)))
	if err := report.Until(ctx, 2*p.lifetime, func() bool { return status().LastError != nil }); err != nil {
		return fmt.Errorf("no attempt to replace the token failed: %w", err)
	}
	r.Check(true, "after %v it was to be replaced, which failed: %v", report.Round(time.Since(down)), status().LastError)
	r.Check(a.call(ctx) == nil, "API calls still succeed: the token is valid for another %v", report.Round(time.Until(status().Expiry)))

	if err := server.Restart(); err != nil {
		return err
	}
	up := time.Now()
	if err := report.Until(ctx, 2*p.lifetime, func() bool { return status().State == clientcredentials.Fresh }); err != nil {
		return fmt.Errorf("no new token after the server came back: %w", err)
	}
	r.Check(true, "the server came back after %v, and %v later there was a new token", report.Round(up.Sub(down)), report.Round(time.Since(up)))
	calls := stop()
	r.Check(calls.err == nil, "in all that time %s; the slowest took %v", calls, report.Round(calls.slowest))
	return nil
}

// calls is what became of a number of API calls.
type calls struct {
	total, failed int
	slowest       time.Duration
	wait          time.Duration // the longest for a token
	err           error         // of the last that failed
}

func (c calls) String() string {
	text := fmt.Sprintf("%d API calls, %d failed", c.total, c.failed)
	if c.err != nil {
		text += fmt.Sprintf(" (%v)", c.err)
	}
	return text
}

// load lets callers call the API, about 50 times a second each, until the
// function that it returns is called, which may be done twice.
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
				// Not in running: a call that has begun is to end.
				err := a.call(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
					GetConn: func(string) { wait = time.Since(start) }, // There is a token, and now the API is called.
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

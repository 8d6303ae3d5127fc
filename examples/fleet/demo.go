package main

import (
	"context"
	"fmt"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

// plan is the size of the demonstration.
type plan struct {
	replicas int           // of each fleet
	calls    int           // of the API per second, by each fleet
	lifetime time.Duration // of tokens that are to be replaced
	latency  time.Duration // of the authorization server
	attempts int           // at each step, if the machine is too busy
}

// A demo has what the steps have in common.
type demo struct {
	plan
	redis *redisServer
}

func demonstrate(ctx context.Context, r *report.Report, p plan, server *redisServer) error {
	d := &demo{p, server}
	r.Say("Two fleets of %d replicas, each a process of its own. One has no store, the other", d.replicas)
	r.Say("shares tokens through a redis-server at %s. The authorization servers", d.redis.addr())
	r.Say("take %v for a token.\n", d.latency)
	for _, s := range []struct {
		title string
		do    func(context.Context, *attempt) error
	}{
		{"1. All replicas start at the same moment", d.coldStart},
		{"\n2. Tokens are replaced in the background\n" +
			fmt.Sprintf("   They live for %v now, and the replicas of each fleet call the API about %d\n", d.lifetime, d.calls) +
			"   times a second.\n", d.replacement},
		{"\n3. The token is revoked", d.revocation},
		{"\n4. The redis-server is killed, and started again\n", d.outage},
	} {
		r.Say("%s", s.title)
		if err := step(ctx, r, d.attempts, s.do); err != nil {
			return err
		}
	}
	return nil
}

// startPair starts a pair, in which each replica makes one call.
func (d *demo) startPair(ctx context.Context, lifetime time.Duration) (*pair, error) {
	p, err := startPair(ctx, d.plan, lifetime, d.redis.addr())
	if err != nil {
		return nil, err
	}
	if _, _, err := p.do(ctx, callOnce); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (d *demo) coldStart(ctx context.Context, a *attempt) error {
	p, err := startPair(ctx, d.plan, time.Hour, d.redis.addr())
	if err != nil {
		return err
	}
	defer p.close()
	without, with, err := p.do(ctx, callOnce)
	if err != nil {
		return err
	}
	a.blame(without, with)
	n := p.without.tokenRequests()
	a.claim(n == d.replicas, "without a store: %s; the longest wait was %v", count(n, "token request"), report.Round(without.LongestWait))
	n = p.with.tokenRequests()
	a.claim(n == 1, "with the store:  %s; the longest wait was %v", count(n, "token request"), report.Round(with.LongestWait))
	a.claimCalls(without, with)
	return nil
}

func (d *demo) replacement(ctx context.Context, a *attempt) error {
	const tokens = 3 // that follow the first
	p, err := d.startPair(ctx, d.lifetime)
	if err != nil {
		return err
	}
	defer p.close()
	first, firstShared := p.without.tokenRequests(), p.with.tokenRequests()
	a.Say("          ----- without a store -----   ------ with the store -----")
	a.Say("   time   API calls    token requests   API calls    token requests")
	p.without.delta()
	p.with.delta()
	t := newTicks(time.Second, func(at time.Duration) {
		calls, requests := p.without.delta()
		callsShared, requestsShared := p.with.delta()
		a.Say("   %3.1fs   %9d    %14d   %9d    %14d", at.Seconds(), calls, requests, callsShared, requestsShared)
	})
	if _, _, err := p.do(ctx, startCalls); err != nil {
		return err
	}
	settled := func() bool { return p.with.tokensSeen() > tokens && p.with.tokensInUse() == 1 }
	done, err := t.until(ctx, tokens*d.lifetime, settled)
	if err != nil {
		return err
	}
	n, nShared := p.without.tokenRequests()-first, p.with.tokenRequests()-firstShared
	without, with, err := p.do(ctx, stopCalls)
	if err != nil {
		return err
	}
	a.blame(without, with, figures{Hindered: t.late})
	a.Say("")
	lives := func(f figures) float64 { return float64(f.FromServer+f.FromStore) / float64(d.replicas) }
	perLife := float64(n) / lives(without)
	a.claim(lives(without) >= 1 && perLife >= float64(d.replicas), "without a store: %.1f token requests per life of a token (%d for %.1f)", perLife, n, lives(without))
	perLife = float64(nShared) / lives(with)
	a.claim(done && perLife < 1.5, "with the store:  %.1f token requests per life of a token (%d for %.1f)", perLife, nShared, lives(with))
	a.claimCalls(without, with)
	a.claimNoWait(d.latency, without, with)
	return nil
}

func (d *demo) revocation(ctx context.Context, a *attempt) error {
	p, err := d.startPair(ctx, time.Hour)
	if err != nil {
		return err
	}
	defer p.close()
	for _, f := range []*fleet{p.without, p.with} {
		f.server.Auth.RevokeAll()
		f.delta()
	}
	without, err := p.without.do(ctx, callOnce)
	if err != nil {
		return err
	}
	_, n := p.without.delta()
	refused := p.without.server.API.Rejected()
	a.claim(refused == d.replicas && n == d.replicas, "without a store: the API refused %s; %s", count(refused, "call"), count(n, "token request"))

	one, err := do(ctx, callOnce, p.with.replicas[:1])
	if err != nil {
		return err
	}
	_, n = p.with.delta()
	refused = p.with.server.API.Rejected()
	a.claim(refused == 1 && n == 1, "with the store:  the API refused %s of one replica; %s", count(refused, "call"), count(n, "token request"))
	others, err := do(ctx, callOnce, p.with.replicas[1:])
	if err != nil {
		return err
	}
	_, n = p.with.delta()
	refused = p.with.server.API.Rejected() - refused
	a.claim(refused == d.replicas-1 && n == 0 && p.with.tokensInUse() == 1, "then it refused %s of the others; %s: the new token was in the store", count(refused, "call"), count(n, "token request"))
	a.blame(without, one, others)
	a.claimCalls(without, one, others)
	return nil
}

func (d *demo) outage(ctx context.Context, a *attempt) error {
	if err := d.redis.start(ctx); err != nil { // The last attempt may have left it killed.
		return err
	}
	f, err := startFleet(ctx, d.plan, d.lifetime, d.redis.addr())
	if err != nil {
		return err
	}
	defer f.close()
	if _, err := f.do(ctx, callOnce); err != nil {
		return err
	}
	f.delta()
	state := "up"
	a.Say("   time   redis-server   API calls   token requests   tokens in use")
	t := newTicks(500*time.Millisecond, func(at time.Duration) {
		calls, requests := f.delta()
		a.Say("   %3.1fs   %-12s   %9d   %14d   %13d", at.Seconds(), state, calls, requests, f.tokensInUse())
	})
	type phase struct {
		figures
		done     bool
		took     time.Duration
		requests int
	}
	// until calls do, and then waits at least that long, until that many different tokens
	// are in use.
	until := func(do func() error, tokens int, least time.Duration) (p phase, err error) {
		start, before := time.Now(), f.tokenRequests()
		if err := do(); err != nil {
			return p, err
		}
		p.done, err = t.until(ctx, 3*d.lifetime, func() bool { return f.tokensInUse() == tokens && time.Since(start) >= least })
		if err != nil {
			return p, err
		}
		p.took, p.requests = time.Since(start), f.tokenRequests()-before
		p.figures, err = f.do(ctx, onlyFigures)
		return p, err
	}
	up, err := until(func() error {
		_, err := f.do(ctx, startCalls)
		return err
	}, 1, 800*time.Millisecond)
	if err != nil {
		return err
	}
	down, err := until(func() error {
		state = "down"
		d.redis.kill()
		return nil
	}, d.replicas, 0)
	if err != nil {
		return err
	}
	again, err := until(func() error {
		state = "up"
		return d.redis.start(ctx)
	}, 1, 0)
	if err != nil {
		return err
	}
	rest, err := f.do(ctx, stopCalls)
	if err != nil {
		return err
	}
	down.StoreFailures = 0 // These are intended.
	all := sum(up.figures, down.figures, again.figures, rest)
	a.blame(all, figures{Hindered: t.late})
	a.Say("")
	a.claim(down.done && down.requests >= d.replicas, "%v after it was killed, each replica had a token of its own, after %s", report.Round(down.took), count(down.requests, "token request"))
	a.claim(again.done && again.requests < d.replicas, "%v after it was started again, all shared one token, after %s", report.Round(again.took), count(again.requests, "token request"))
	a.claimCalls(all)
	a.claimNoWait(d.latency, all)
	return nil
}

// claimCalls claims that all API calls succeeded.
func (a *attempt) claimCalls(all ...figures) {
	f := sum(all...)
	because := ""
	if f.Error != "" {
		because = ", the last one because of " + f.Error
	}
	a.claim(f.Failed == 0 && f.Calls > 0, "%s, %d failed%s", count(f.Calls, "API call"), f.Failed, because)
}

// claimNoWait claims that no API call had to wait for a token request.
func (a *attempt) claimNoWait(latency time.Duration, all ...figures) {
	longest := sum(all...).LongestWait
	a.claim(longest < latency/2, "none of them waited for a token request: that takes %v, and the longest wait was %v", latency, report.Round(longest))
}

// ticks prints a line at regular intervals.
type ticks struct {
	start, next time.Time
	every       time.Duration
	line        func(at time.Duration)
	late        time.Duration // the longest that this process, which runs the servers, had to wait for the machine
}

func newTicks(every time.Duration, line func(at time.Duration)) *ticks {
	now := time.Now()
	return &ticks{start: now, next: now.Add(every), every: every, line: line}
}

// until prints lines until condition is true, and one more at the end. It reports whether
// condition became true within limit.
func (t *ticks) until(ctx context.Context, limit time.Duration, condition func() bool) (done bool, err error) {
	for deadline := time.Now().Add(limit); !done && time.Now().Before(deadline); done = condition() {
		late, err := nap(ctx)
		if err != nil {
			return false, err
		}
		t.late = max(t.late, late)
		if time.Now().After(t.next) {
			t.tick()
		}
	}
	t.tick()
	return done, nil
}

func (t *ticks) tick() {
	now := time.Now()
	t.line(now.Sub(t.start).Round(100 * time.Millisecond))
	t.next = now.Add(t.every)
}

// count returns "1 call", "2 calls".
func count(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

package main

import (
	"context"
	"fmt"
	"time"
)

// plan is the size of the demonstration.
type plan struct {
	replicas int           // of each fleet
	calls    int           // of the API by a fleet, a second
	lifetime time.Duration // of tokens that are to be replaced
	latency  time.Duration // of the authorization server
	attempts int           // at each step, while the machine is too busy
}

// A demo is what the steps have in common.
type demo struct {
	plan
	redis *redisServer
}

func demonstrate(ctx context.Context, r *report, p plan, server *redisServer) error {
	d := &demo{p, server}
	r.say("Two fleets of %d replicas, each a process of its own. One has no store, the other", d.replicas)
	r.say("shares tokens through a redis-server at %s. The authorization servers", d.redis.addr())
	r.say("take %v for a token.\n", d.latency)
	r.say("1. All replicas start at the same moment")
	if err := r.step(ctx, d.attempts, d.coldStart); err != nil {
		return err
	}
	r.say("\n2. Tokens are replaced in the background")
	r.say("   They live for %v now, and the replicas of each fleet call the API about %d", d.lifetime, d.calls)
	r.say("   times a second.\n")
	if err := r.step(ctx, d.attempts, d.replacement); err != nil {
		return err
	}
	r.say("\n3. The token is revoked")
	if err := r.step(ctx, d.attempts, d.revocation); err != nil {
		return err
	}
	r.say("\n4. The redis-server is killed, and started again\n")
	return r.step(ctx, d.attempts, d.outage)
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
	a.claim(n == d.replicas, "without a store: %s; the longest wait was %v", count(n, "token request"), round(without.LongestWait))
	n = p.with.tokenRequests()
	a.claim(n == 1, "with the store:  %s; the longest wait was %v", count(n, "token request"), round(with.LongestWait))
	a.claimCalls(without, with)
	return nil
}

func (d *demo) replacement(ctx context.Context, a *attempt) error {
	const tokens = 3 // that follow the first
	p, err := startPair(ctx, d.plan, d.lifetime, d.redis.addr())
	if err != nil {
		return err
	}
	defer p.close()
	if _, _, err := p.do(ctx, callOnce); err != nil {
		return err
	}
	first, firstShared := p.without.tokenRequests(), p.with.tokenRequests()
	a.say("          ----- without a store -----   ------ with the store -----")
	a.say("   time   API calls    token requests   API calls    token requests")
	p.without.delta()
	p.with.delta()
	t := newTicks(time.Second, func(at time.Duration) {
		calls, requests := p.without.delta()
		callsShared, requestsShared := p.with.delta()
		a.say("   %3.1fs   %9d    %14d   %9d    %14d", at.Seconds(), calls, requests, callsShared, requestsShared)
	})
	if _, _, err := p.do(ctx, startCalls); err != nil {
		return err
	}
	settled := func() bool { return p.with.tokensSeen() > tokens && p.with.tokensInUse() == 1 }
	held, err := t.until(ctx, tokens*d.lifetime, settled)
	if err != nil {
		return err
	}
	n, nShared := p.without.tokenRequests()-first, p.with.tokenRequests()-firstShared
	without, with, err := p.do(ctx, stopCalls)
	if err != nil {
		return err
	}
	a.blame(without, with, figures{Hindered: t.late})
	a.say("")
	lives := func(f figures) float64 { return float64(f.FromServer+f.FromStore) / float64(d.replicas) }
	perLife := float64(n) / lives(without)
	a.claim(lives(without) >= 1 && perLife >= float64(d.replicas), "without a store: %.1f token requests per life of a token (%d for %.1f)", perLife, n, lives(without))
	perLife = float64(nShared) / lives(with)
	a.claim(held && perLife < 1.5, "with the store:  %.1f token requests per life of a token (%d for %.1f)", perLife, nShared, lives(with))
	a.claimCalls(without, with)
	a.claimNoWait(d.latency, without, with)
	return nil
}

func (d *demo) revocation(ctx context.Context, a *attempt) error {
	p, err := startPair(ctx, d.plan, time.Hour, d.redis.addr())
	if err != nil {
		return err
	}
	defer p.close()
	if _, _, err := p.do(ctx, callOnce); err != nil {
		return err
	}
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
	if err := d.redis.start(ctx); err != nil { // The last attempt may have left it dead.
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
	a.say("   time   redis-server   API calls   token requests   tokens in use")
	t := newTicks(500*time.Millisecond, func(at time.Duration) {
		calls, requests := f.delta()
		a.say("   %3.1fs   %-12s   %9d   %14d   %13d", at.Seconds(), state, calls, requests, f.tokensInUse())
	})
	type phase struct {
		figures
		held     bool
		took     time.Duration
		requests int
	}
	// until does something, and waits until that many different tokens are in use, and
	// not less than least.
	until := func(do func() error, tokens int, least time.Duration) (p phase, err error) {
		start, before := time.Now(), f.tokenRequests()
		if err := do(); err != nil {
			return p, err
		}
		p.held, err = t.until(ctx, 3*d.lifetime, func() bool { return f.tokensInUse() == tokens && time.Since(start) >= least })
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
	down.StoreFailures = 0 // There must be some.
	all := sum(up.figures, down.figures, again.figures, rest)
	a.blame(all, figures{Hindered: t.late})
	a.say("")
	a.claim(down.held && down.requests >= d.replicas, "it was killed: %v later each replica had a token of its own, after %s", round(down.took), count(down.requests, "token request"))
	a.claim(again.held && again.requests < d.replicas, "it was started again: %v later all shared one, after %s", round(again.took), count(again.requests, "token request"))
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

// claimNoWait claims that no API call has waited for a token request.
func (a *attempt) claimNoWait(latency time.Duration, all ...figures) {
	longest := sum(all...).LongestWait
	a.claim(longest < latency/2, "none of them waited for a token request: that takes %v, and the longest wait was %v", latency, round(longest))
}

// ticks prints a line now and then.
type ticks struct {
	start, next time.Time
	every       time.Duration
	line        func(at time.Duration)
	late        time.Duration // the most that this process, which has the servers, was kept from running
}

func newTicks(every time.Duration, line func(at time.Duration)) *ticks {
	now := time.Now()
	return &ticks{start: now, next: now.Add(every), every: every, line: line}
}

// until prints lines until condition holds, and one about the rest. It reports whether
// that was within the limit.
func (t *ticks) until(ctx context.Context, limit time.Duration, condition func() bool) (held bool, err error) {
	for deadline := time.Now().Add(limit); !held && time.Now().Before(deadline); held = condition() {
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
	return held, nil
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

package main

import (
	"context"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

// upstreamMargin is how long before the expiry x/oauth2 stops using a token.
const upstreamMargin = 10 * time.Second

func demonstrate(ctx context.Context, r *report.Report, p plan) error {
	explain(r, p)
	ours, source := withThisPackage(ctx, p.lifetime, p.early)
	defer ours.close()
	theirs := withUpstream(ctx, p.lifetime)
	defer theirs.close()
	stopOurs := ours.load(ctx, p.callers, p.pause)
	defer stopOurs()
	stopTheirs := theirs.load(ctx, p.callers, p.pause)
	defer stopTheirs()
	t := &timeline{report: r, tick: p.tick, delay: p.delay, ours: ours, theirs: theirs, next: time.Now()}
	t.head()

	// On a busy machine, a phase lasts until the event that it shows has happened.
	fresh := func() bool { return source.Status().State == clientcredentials.Fresh }
	tried := func() bool { return source.Status().LastError != nil }

	if err := t.phase(ctx, "up", p.up, nil); err != nil {
		return err
	}
	if err := t.phase(ctx, "slow", p.slow, fresh); err != nil {
		return err
	}
	if err := t.phase(ctx, "up", p.upAgain, nil); err != nil {
		return err
	}
	theirToken, err := theirs.tokens.Token()
	if err != nil {
		return err
	}
	before := ours.network.tokenRequests.Load()
	down := time.Now()
	if err := t.phase(ctx, "down", p.down, tried); err != nil {
		return err
	}
	attempts := ours.network.tokenRequests.Load() - before
	failed := source.Status().LastError != nil
	up := time.Now()
	left := source.Status().Expiry.Sub(up)
	if err := t.phase(ctx, "up", p.recovered, fresh); err != nil {
		return err
	}
	recovered := fresh()
	stopOurs()
	stopTheirs()
	t.table()

	r.Say("\nx/oauth2")
	if theirs.total.failed > 0 {
		r.Say("   %d calls failed. The first failed %v after the server went down, when its token was", theirs.total.failed, report.Round(theirs.firstFailure.Sub(down)))
		r.Say("   valid for another %v. The last error:", report.Round(theirToken.Expiry.Sub(theirs.firstFailure)))
		r.Say("   %v", theirs.lastError)
	}
	r.Say("   The slowest call took %v. When a token is due, all calls wait for the next one.", report.Round(theirs.total.slowest))

	r.Say("\nthis package")
	if ours.total.failed > 0 {
		r.Say("   The last error: %v", ours.lastError)
	}
	r.Check(ours.total.failed == 0, "%d calls, %d failed", ours.total.succeeded+ours.total.failed, ours.total.failed)
	r.Check(ours.total.slowest < p.delay, "the slowest took %v: nobody waited for a token request, although these took %v for a while", report.Round(ours.total.slowest), p.delay)
	r.Check(failed && attempts > 0, "during the outage it tried to replace its token in the background; attempts: %d", attempts)
	r.Check(left > 0, "when the server came back after %v, the token was valid for another %v", report.Round(up.Sub(down)), report.Round(left))
	r.Check(recovered, "then the token was replaced")
	// Three tokens, then two attempts in the first second of the outage, then fewer.
	most := 4 + int64(up.Sub(down)/time.Second)
	r.Check(ours.total.tokenRequests <= most, "%d token requests, of at most %d expected", ours.total.tokenRequests, most)
	return nil
}

func explain(r *report.Report, p plan) {
	r.Say(`Two services call an API, up to %d times a second each. One gets its tokens from
this package, the other from golang.org/x/oauth2/clientcredentials. Each service
has its own servers. Both authorization servers do the same at the same time: they
are up, then slow (a token takes %v), up, down (connections are refused), and up
again. The APIs are always up.
`, int(time.Duration(p.callers)*time.Second/p.pause), p.delay)
	r.Say(`A token lives for %v, so that you don't have to wait long. x/oauth2 stops using a
token %v before its expiry. So it uses these tokens for %v, and tokens that
live for an hour for %v. From then on its calls wait for a new token, and fail
if there is none. This package starts to replace these tokens at about the same
age, %v to %v (EarlyRefresh is %v). But it does so in the background, and uses
the old token until then, if necessary until it expires.
`, p.lifetime, upstreamMargin, max(p.lifetime-upstreamMargin, 0), time.Hour-upstreamMargin,
		p.lifetime-min(p.early, p.lifetime/2), p.lifetime-min(p.early*3/4, p.lifetime/2), p.early)
}

// A timeline prints a line for each tick.
type timeline struct {
	report       *report.Report
	tick, delay  time.Duration
	ours, theirs *service
	start, next  time.Time
}

func (t *timeline) head() {
	t.start = t.next
	t.report.Say("%16s %-32s %s", "", "--- API calls, this package ---", "----- API calls, x/oauth2 -----")
	t.report.Say("%15s  %30s   %30s", "", "token", "token")
	t.line("time", "server", "ok", "failed", "slowest", "reqs", "ok", "failed", "slowest", "reqs")
}

func (t *timeline) line(values ...any) {
	t.report.Say("%5v   %-6v   %6v %6v %9v %6v   %6v %6v %9v %6v", values...)
}

// phase puts the servers into a state for that many ticks. If until is set, the phase
// lasts until it returns true, but at most twice as long.
func (t *timeline) phase(ctx context.Context, state string, ticks int, until func() bool) error {
	for _, s := range []*service{t.ours, t.theirs} {
		if err := s.setState(state, t.delay); err != nil {
			return err
		}
	}
	for n := 0; n < ticks || n < 2*ticks && until != nil && !until(); n++ {
		t.next = t.next.Add(t.tick)
		if err := report.Sleep(ctx, time.Until(t.next)); err != nil {
			return err
		}
		ours, theirs := t.ours.endTick(), t.theirs.endTick()
		t.line(t.next.Sub(t.start), state,
			ours.succeeded, ours.failed, ours.slowestText(), ours.tokenRequests,
			theirs.succeeded, theirs.failed, theirs.slowestText(), theirs.tokenRequests)
	}
	return nil
}

func (t *timeline) table() {
	t.ours.endTick()
	t.theirs.endTick()
	ours, theirs := t.ours.total, t.theirs.total
	row := func(name string, ours, theirs any) { t.report.Say("%-15s  %12v  %12v", name, ours, theirs) }
	t.report.Say("")
	row("", "this package", "x/oauth2")
	row("calls succeeded", ours.succeeded, theirs.succeeded)
	row("calls failed", ours.failed, theirs.failed)
	row("slowest call", ours.slowestText(), theirs.slowestText())
	row("token requests", ours.tokenRequests, theirs.tokenRequests)
}

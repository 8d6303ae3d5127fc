package workload

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

const (
	// maxEarly is how long before its expiry a token is replaced at most. That is long enough
	// for the token request, and for a server whose clock is fast.
	maxEarly = 5 * time.Minute

	// maxLife is how long a token is kept at most. No platform issues tokens for longer: those
	// of Azure's managed identities live for a day. A later exp is a mistake, such as one in
	// milliseconds, and the token would be used long after its end.
	maxLife = 24 * time.Hour
)

// A token is what a platform has issued.
type token struct {
	text  string
	once  bool           // it has a jti, so that a server may refuse to accept it twice
	fresh clock.Deadline // until then it is used without asking the platform
	valid clock.Deadline // its expiry
	taken bool           // somebody has got it; protected by the mu of the cache
}

// newToken returns the token in a text. What isn't a JWT has no expiry, and isn't kept.
func newToken(text string, now time.Time) *token {
	t := &token{text: text}
	claims, err := jws.UnverifiedClaims(text)
	if err != nil || claims.Expiry.IsZero() {
		return t
	}
	// A token that has expired is used all the same, but not kept: maybe it is the clock
	// of this machine that is wrong, and the server decides.
	left := min(claims.Expiry.Sub(now), maxLife)
	if !claims.Issued.IsZero() {
		// That is its whole life by the platform's clock. The clock of this machine may be
		// behind, and then the token seems to have more left.
		left = min(left, claims.Expiry.Sub(claims.Issued))
	}
	t.once = claims.ID != ""
	t.valid = clock.In(now, left)
	t.fresh = clock.In(now, left-min(left/5, maxEarly))
	return t
}

// A cache keeps the token of a platform while it is fresh, and asks for another one when it
// isn't. The rules:
//
//   - There is at most one request at a time, and all callers wait for it. Each leaves when
//     its own context ends. When the last one has left, the request is cancelled.
//   - No error is kept. If the platform fails while the old token is still valid, the
//     old one is used.
//   - A token with a jti goes to one caller only. A server may remember the jti, and refuse
//     the token as a replay when it sees it again (RFC 7523, Section 3, item 7).
type cache struct {
	platform string        // what errors call it
	limit    time.Duration // for one request, with its retries
	fetch    func(context.Context) (string, error)

	mu     sync.Mutex // protects what follows; not held while anybody waits
	kept   *token     // nil: none
	flight *flight    // nil: no request is under way
}

// A flight is a request to the platform that callers wait for.
type flight struct {
	call    *bounded.Call[*token]
	stop    context.CancelFunc
	waiting int // callers; protected by the mu of the cache
}

// get returns a token. It is a clientauth.SecretSource.
func (c *cache) get(ctx context.Context) (string, error) {
	for ctx.Err() == nil {
		text, f := c.use(ctx)
		if f == nil {
			return text, nil
		}
		t, err := f.call.Wait(ctx)
		text, ok := c.leave(f, t)
		switch {
		case ok:
			return text, nil
		case err != nil:
			return "", fmt.Errorf("cannot get a token from %s: %w", c.platform, err)
		}
		// Another caller has taken the token. Ask for one more.
	}
	return "", fmt.Errorf("cannot get a token from %s: %w", c.platform, context.Cause(ctx))
}

// use returns the token that is kept, if it is fresh. Otherwise it returns the flight to
// wait for, and starts one if there is none.
func (c *cache) use(ctx context.Context) (string, *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil && !c.kept.fresh.Passed(time.Now()) && c.kept.take() {
		return c.kept.text, nil
	}
	if c.flight == nil {
		c.flight = c.start(ctx)
	}
	c.flight.waiting++
	return "", c.flight
}

// start starts a flight. It requires c.mu.
func (c *cache) start(ctx context.Context) *flight {
	f := new(flight)
	ctx, f.stop = context.WithTimeoutCause(context.WithoutCancel(ctx), c.limit,
		fmt.Errorf("it took longer than %v: %w", c.limit, context.DeadlineExceeded))
	f.call = bounded.Start(ctx, func(ctx context.Context) (*token, error) {
		text, err := c.fetch(ctx)
		if err != nil {
			return nil, err
		}
		return newToken(text, time.Now()), nil
	}, func(t *token, err error) func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.flight == f {
			c.flight = nil
		}
		if err == nil {
			c.kept = t
		}
		return f.stop
	})
	return f
}

// leave ends the wait for f, whose result is t; nil: it failed, or the caller has gone. It
// returns the token that the caller can have.
func (c *cache) leave(f *flight, t *token) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.waiting--
	if f.waiting == 0 && !f.call.HasEnded() {
		f.stop()
		if c.flight == f {
			c.flight = nil // Nobody joins a request that is being cancelled.
		}
	}
	if t == nil && c.kept != nil && !c.kept.valid.Passed(time.Now()) {
		t = c.kept
	}
	if t == nil || !t.take() {
		return "", false
	}
	return t.text, true
}

// take reports whether a caller may have the token. It requires the mu of the cache.
func (t *token) take() bool {
	if t.once && t.taken {
		return false
	}
	t.taken = true
	return true
}

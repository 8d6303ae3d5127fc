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

	// patience is how long after the start of a request callers wait for it while they could
	// still use the token that is kept. They never wait for more than half of that token's
	// remaining life, or half of their own remaining time.
	patience = time.Second

	// cooldown is the pause after a request that has failed, while the token that is kept can
	// still be used. It doesn't start small and double as that of a Source does: send has
	// repeated the request already.
	cooldown = 10 * time.Second
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

// usable reports whether a caller may have t, which may be nil, although it isn't new. It
// requires the mu of the cache.
func (t *token) usable(now time.Time) bool {
	return t != nil && !t.isSpent() && !t.valid.Passed(now)
}

// isSpent reports whether the only caller that may have t has got it. It requires the mu of
// the cache.
func (t *token) isSpent() bool { return t.once && t.taken }

// take returns the text of t for a caller. It requires the mu of the cache.
func (t *token) take() string {
	t.taken = true
	return t.text
}

// A cache keeps the token of a platform while it is fresh, and asks for another one when it
// isn't. The rules:
//
//   - There is at most one request at a time. No caller's context reaches it. It has a limit
//     of its own.
//   - While the old token is valid, callers wait only a moment for the new one, and not at all
//     if the last request failed. Then they use the old one, and the request goes on without
//     them. After a failure there is a pause before the next request.
//   - Callers without a valid token wait for the request. Each leaves when its own context
//     ends. When the last one has left, the request is cancelled. For these callers no error
//     is kept, and there is no pause.
//   - A token with a jti goes to one caller only. A server may remember the jti, and refuse
//     the token as a replay when it sees it again (RFC 7523, Section 3, item 7).
type cache struct {
	platform string        // what errors call it
	limit    time.Duration // for one request, with its retries
	fetch    func(context.Context) (string, error)

	mu      sync.Mutex     // protects what follows; not held while anybody waits
	kept    *token         // nil: none
	flight  *flight        // nil: no request is under way
	failing bool           // the last request has failed
	pause   clock.Deadline // after that; no request before its end while kept is usable
}

// A flight is a request to the platform that callers wait for.
type flight struct {
	call    *bounded.Call[*token]
	started time.Time
	stop    context.CancelFunc
	waiting int // callers without a usable token; protected by the mu of the cache
}

// get returns a token. It is a clientauth.SecretSource.
func (c *cache) get(ctx context.Context) (string, error) {
	for ctx.Err() == nil {
		text, f, limit := c.board(ctx, time.Now())
		if f == nil {
			return text, nil
		}
		t, err := f.wait(ctx, limit)
		text, ok := c.leave(f, t, limit)
		switch {
		case ok:
			return text, nil
		case err != nil && limit == 0:
			return "", fmt.Errorf("cannot get a token from %s: %w", c.platform, err)
		}
		// Another caller has taken the token, or the machine slept. Ask for one more.
	}
	return "", fmt.Errorf("cannot get a token from %s: %w", c.platform, context.Cause(ctx))
}

// board returns the token to use, or the flight to wait for. It starts a flight if one is due.
// limit is how long to wait if the token that is kept will do after that; 0: to the end.
func (c *cache) board(ctx context.Context, now time.Time) (text string, f *flight, limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	usable := c.kept.usable(now)
	if usable && !c.kept.fresh.Passed(now) {
		return c.kept.take(), nil, 0
	}
	if c.flight == nil && (!usable || c.pause.Passed(now)) {
		c.flight = c.start(now)
	}
	if usable {
		if c.failing {
			return c.kept.take(), nil, 0
		}
		limit = min(patience-now.Sub(c.flight.started), c.kept.valid.Left(now)/2)
		if deadline, ok := ctx.Deadline(); ok {
			limit = min(limit, deadline.Sub(now)/2)
		}
		if limit <= 0 {
			return c.kept.take(), nil, 0
		}
		return "", c.flight, limit
	}
	c.flight.waiting++
	return "", c.flight, 0
}

// start starts a flight. It requires c.mu.
func (c *cache) start(now time.Time) *flight {
	f := &flight{started: now}
	ctx, stop := context.WithTimeoutCause(context.Background(), c.limit,
		fmt.Errorf("it took longer than %v: %w", c.limit, context.DeadlineExceeded))
	f.stop = stop
	f.call = bounded.Start(ctx, func(ctx context.Context) (*token, error) {
		text, err := c.fetch(ctx)
		if err != nil {
			return nil, err
		}
		return newToken(text, time.Now()), nil
	}, func(t *token, err error) func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.flight == f { // Otherwise nobody wanted it any more.
			c.flight, c.failing, c.pause = nil, err != nil, clock.Deadline{}
			if err != nil {
				c.pause = clock.In(time.Now(), cooldown)
			}
		}
		if err == nil {
			c.kept = t
		}
		return f.stop
	})
	return f
}

// wait returns what f ends with, or an error if ctx ends or the limit is over before. A limit
// of 0 is none.
func (f *flight) wait(ctx context.Context, limit time.Duration) (*token, error) {
	if limit > 0 {
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		ctx = limited
	}
	return f.call.Wait(ctx)
}

// leave ends the wait for f, which board has limited. The result of f is t; nil: it failed, or
// the caller has gone. leave returns the token that the caller can have.
func (c *cache) leave(f *flight, t *token, limit time.Duration) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit == 0 {
		f.waiting--
		if f.waiting == 0 && !f.call.HasEnded() {
			f.stop()
			if c.flight == f {
				c.flight = nil // Nobody joins a request that is being cancelled.
			}
		}
	}
	if t == nil && c.kept.usable(time.Now()) {
		t = c.kept
	}
	if t == nil || t.isSpent() {
		return "", false
	}
	return t.take(), true
}

package clientcredentials

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
)

// hardPatience is how long after the start of a flight callers wait for it while they could
// still use the token they have. They never wait for more than half of that token's
// remaining life.
const hardPatience = time.Second

// A flight is one acquisition of a token that any number of callers wait for.
//
//   - A Source has one flight at a time. It is started with mu held, after a
//     second look at the current token.
//   - It runs in its own goroutine, with its own deadline, under the Source's
//     context. No caller's context reaches it.
//   - It is tried again after a failure only if a caller without a token has
//     waited for it.
//   - It lands once, however it ends, and at the latest when its time is up, even if
//     a RoundTripper ignores that: then it is no longer the Source's flight, and
//     done is closed. token and err are written before that and never after.
//   - If a token is invalidated after the flight has sent its request, the flight doesn't
//     land with the answer, which may be older than the revocation. It requests
//     another token.
type flight struct {
	request    *tokenRequest
	started    time.Time
	background bool            // no caller without a token was there at the start
	wanted     atomic.Bool     // a caller without a token waits
	generation uint64          // of the Source when the request was sent; protected by Source.mu
	announced  chan struct{}   // closed when the Observer knows of the start
	ctx        context.Context // of the token request; nil until the Observer knows of the start
	traced     func(error)     // what Observer.TraceRefresh wants to be called at the end; written before announced is closed
	done       chan struct{}
	token      *cachedToken
	err        error
}

// flightKey is the key of the *Source in the context of its token requests.
type flightKey struct{ source *Source }

// errReentered is the error for a token request that goes through the client that needs the
// token: it would wait for itself.
const errReentered = constantError("oauth2: cannot fetch token: the token request goes through the very client that needs the token; set Config.HTTPClient to another")

// board returns the token to use, the flight to wait for, or both if the token
// will do in case the wait becomes long. It starts a flight if one is due.
func (s *Source) board(ctx context.Context, now time.Time, early time.Duration) (*cachedToken, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.current.Load() // It may have been replaced before mu was held.
	if c.fresh(now, early) {
		return c, nil, nil
	}
	usable := c.usable(now)
	if !usable && ctx.Value(flightKey{s}) != nil {
		return nil, nil, errReentered
	}
	if s.flight == nil {
		if err := s.takeOff(ctx, now, usable); err != nil {
			if usable {
				return c, nil, nil
			}
			return nil, nil, err
		}
	}
	rare := s.rare.Load()
	switch {
	case !usable:
		s.flight.wanted.Store(true)
		return nil, s.flight, nil
	case c.awaited(now, early) && (rare == nil || rare.cooldown.failures == 0) && ctx.Value(flightKey{s}) == nil:
		return c, s.flight, nil
	}
	return c, nil, nil
}

// takeOff starts a flight, or returns why there should be none. usable says that
// callers have a token meanwhile. It requires that s.mu is held.
func (s *Source) takeOff(ctx context.Context, now time.Time, usable bool) error {
	if s.ctx.Err() != nil {
		return newConstructionError(s.ctx)
	}
	if ctx.Err() != nil {
		return newWaitError(ctx)
	}
	if rare := s.rare.Load(); rare != nil && rare.cooldown.request != nil {
		if !rare.cooldown.request.isFor(s.conf) {
			rare.cooldown = cooldown{}
		}
		if !rare.cooldown.end(usable).Passed(now) {
			return rare.cooldown.err
		}
	}
	if err := s.relatives().pausing(now, s.conf, usable); err != nil {
		return err
	}
	request, err := newTokenRequest(s.ctx, s.conf, s.targetKey(), s.proofNonces())
	if err == nil && leadsBackTo(request.base, s) {
		err = errReentered
	}
	if err != nil {
		s.rarely().lastError = err
		return err
	}
	f := &flight{request: request, started: now, background: usable, generation: s.generation, announced: make(chan struct{}), done: make(chan struct{})}
	f.wanted.Store(!usable) // Before it can fail.
	s.flight = f
	s.flying.Store(true)
	ctx, cancel := timeout(context.WithValue(withoutTarget(s.ctx), flightKey{s}, s), request.conf.Retry.TotalTimeout, "the token request")
	s.fly(ctx, cancel, f)
	return nil
}

// fly gets a token, and lands f with it or with an error. If f is overtaken by an
// invalidation, it gets another token.
func (s *Source) fly(ctx context.Context, cancel context.CancelFunc, f *flight) {
	bounded.Go(ctx, func(ctx context.Context) (*tokenResponse, error) {
		if f.ctx == nil {
			s.announce(ctx, f)
		}
		return s.obtain(f.ctx, f)
	}, func(response *tokenResponse, err error) {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // The same error, whatever the token request makes of it.
			if s.ctx.Err() != nil {
				err = newConstructionError(s.ctx)
			}
		}
		if !s.land(f, response, nameFailure(err)) {
			s.fly(ctx, cancel, f)
			return
		}
		cancel()
	})
}

// announce tells the Observer that f starts. The Observer may choose another context for
// the token request, which ends with ctx all the same.
func (s *Source) announce(ctx context.Context, f *flight) {
	defer close(f.announced)
	observer := f.request.conf.observer()
	f.ctx, f.traced = observer.traceRefresh(ctx)
	if f.ctx != ctx {
		var cancel context.CancelFunc
		f.ctx, cancel = timeout(f.ctx, f.request.conf.Retry.TotalTimeout, "the token request")
		context.AfterFunc(ctx, cancel)
	}
	bounded.Tell(observer.RefreshStarted, event.RefreshStarted{Target: s.targetID(), Background: f.background})
	s.warnOfCleartext(observer, toTokenEndpoint, f.request.endpoint)
}

// land ends f with a response or an error, and reports whether f is over. It isn't if a
// token has been invalidated since f has sent its request.
func (s *Source) land(f *flight, response *tokenResponse, err error) bool {
	now := time.Now()
	s.mu.Lock()
	if err == nil && f.generation != s.generation {
		f.generation = s.generation
		s.invalidateSharedLocked(response.shared)
		s.mu.Unlock()
		return false
	}
	var cooling clock.Deadline
	failures := 0
	if err != nil || response.from == event.FromServer {
		s.relatives().landed(now, f.request, err, rand.Float64())
	}
	var token *cachedToken
	if err == nil {
		token = newCachedToken(response, f.request.conf.AuthScheme, f.request.conf.EarlyRefresh, rand.Float64())
		s.replaceLocked(token)
		if response.rejected {
			s.rarely().rejections.inherit(token, now)
		}
		if rare := s.rare.Load(); rare != nil {
			rare.cooldown, rare.lastError = cooldown{}, nil
			rare.fleet.asks = rare.fleet.asks && token.fromStore
		}
	} else {
		rare := s.rarely()
		rare.cooldown.fail(now, f.request, err, rand.Float64())
		rare.lastError = err
		cooling, failures = rare.cooldown.end(s.current.Load().usable(now)), rare.cooldown.failures
	}
	s.flight = nil
	s.flying.Store(false)
	f.token, f.err = token, err
	close(f.done)
	s.mu.Unlock()

	// Nobody waits for the Observer: f has landed.
	<-f.announced
	observer, duration := f.request.conf.observer(), now.Sub(f.started)
	if err == nil {
		bounded.Tell(observer.RefreshDone, event.RefreshDone{Target: s.targetID(), Duration: duration, Attempts: response.attempts, Life: response.life(), From: response.from, LeaseWait: response.leaseWait})
	} else {
		bounded.Tell(observer.RefreshFailed, event.RefreshFailed{Target: s.targetID(), Duration: duration, Err: err})
		if !cooling.Passed(now) {
			bounded.Tell(observer.Cooldown, event.Cooldown{Target: s.targetID(), Failures: failures, Until: cooling.Time()})
		}
	}
	bounded.Tell(f.traced, err)
	return true
}

// wait returns what f lands with, or an error if ctx ends first.
func (f *flight) wait(ctx context.Context) (*cachedToken, error) {
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return nil, newWaitError(ctx)
	}
}

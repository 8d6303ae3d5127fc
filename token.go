package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/dpop"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
)

// A Source is a source of cached tokens. It replaces a token in the background before the
// token expires. However many callers need a new token, it is requested once: all of them
// wait for the same request, each no longer than its own context allows.
//
// Get one from Config.Source. All methods are safe for concurrent use.
type Source struct {
	conf    *Config
	ctx     context.Context // its values go with each token request; once it is done, there are no more
	origins *origin.Policy  // nil: Config.Origins lists none

	target *targeted // nil: the token is what the Config says

	current atomic.Pointer[cachedToken] // nil: none yet, or invalidated; written with mu held
	rare    atomic.Pointer[rareState]   // nil: none of it has been needed so far
	flying  atomic.Bool                 // a flight is under way

	mu         sync.Mutex   // protects what follows, and parts of rare; never held while waiting or during I/O
	flight     *flight      // nil: none under way
	generation uint64       // number of invalidations
	previous   *cachedToken // the one before current; nil: none
}

// rareState is what most Sources never need, so that an idle one is small.
type rareState struct {
	// These require that Source.mu is held.
	cooldown   cooldown
	lastError  error // of the last flight, or of the check of the Config; nil after success
	rejections rejections
	fleet      fleetMemory
	certified  certifiedTransports

	// These are safe for concurrent use.
	nonces dpop.Nonces
	warned [2]atomic.Bool         // Observer.Insecure has been called; by cleartextTo
	family atomic.Pointer[family] // nil: there are no targets

	challenges challenges
}

// rarely returns the rare state, for writing.
func (s *Source) rarely() *rareState {
	if rare := s.rare.Load(); rare != nil {
		return rare
	}
	s.rare.CompareAndSwap(nil, new(rareState))
	return s.rare.Load()
}

// State is the state of a Source.
type State int

const (
	// Expired: there is no token that can be used, and callers wait for one.
	Expired State = iota
	// Fresh: there is a token, and no reason to replace it.
	Fresh
	// Stale: there is a token that is due to be replaced. The next call starts its
	// replacement. Nobody waits for that, except shortly before the expiry.
	Stale
	// Failed: there is no token that can be used, and the last token request
	// has failed. Calls get its error until it is time to try again.
	Failed
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Expired:
		return "expired"
	case Fresh:
		return "fresh"
	case Stale:
		return "stale"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Status says how a Source is doing, for readiness probes and the like.
type Status struct {
	State State

	// Expiry is when the current token expires. Zero: there is no token, or it doesn't
	// expire.
	Expiry time.Time

	// NextRefresh is the earliest time at which a call requests a token. Zero:
	// any call does, or the current token doesn't expire.
	NextRefresh time.Time

	// LastError is why the last token request failed. Nil: it succeeded, or
	// there was none.
	LastError error
}

// Token returns a token without a context to wait by: it waits until the token
// request ends, as Config.Retry allows. See TokenContext.
func (s *Source) Token() (*oauth2.Token, error) {
	return s.copyTo(context.Background(), new(oauth2.Token))
}

// TokenContext returns the cached token if it is valid. Otherwise it waits for a
// new one, no longer than ctx allows. Shortly before the expiry it waits up to a
// second, and returns the old token if the new one takes longer. It returns a copy
// that the caller may change. While a token is valid, a failure to replace it isn't
// reported.
//
// If ctx ends first, the error wraps ctx.Err(), and the token request goes on
// for later callers. Other errors are those of Config.Token; all callers that waited for
// the same token request get the same error. After five failures in a row, and as long as a
// Retry-After says, callers get the last error at once.
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	return s.copyTo(ctx, new(oauth2.Token))
}

// AccessToken returns the text of the token that TokenContext returns, for libraries that
// ask for a text, such as those for Kafka and for databases. A token that is bound to a
// key or to a certificate is an error: the text alone is of no use.
func (s *Source) AccessToken(ctx context.Context) (string, error) {
	s = s.serving(ctx)
	c, err := s.get(ctx, 0)
	switch {
	case err != nil:
		return "", err
	case c.isBound():
		return "", errors.New("oauth2: the token is bound to a key or a certificate, so its text alone cannot be used; use Source.Authorize, or a Client")
	}
	return c.accessToken(), nil
}

// TokenFor returns a token that lives at least for that long, for a job that takes so
// much time. If the cached token has less life left, TokenFor waits for a new one, no
// longer than ctx allows. It is an error if the server's tokens don't live that long;
// then no more tokens are requested than TokenContext would request. Otherwise it does
// what TokenContext does. A token that doesn't expire lives long enough.
func (s *Source) TokenFor(ctx context.Context, least time.Duration) (*oauth2.Token, error) {
	s = s.serving(ctx)
	for replaced := false; ; replaced = true {
		c, err := s.get(ctx, max(least, 0))
		if err != nil {
			return nil, err
		}
		now := time.Now()
		left := c.dead - c.age(now)
		if c.dead == forever || left >= least {
			return c.copy(), nil
		}
		if replaced || !c.nextMayLast(least, now) {
			return nil, fmt.Errorf("oauth2: the token lives for another %v, and the server's tokens for %v: less than the %v that were asked for; have them live longer, or ask for less", left.Round(time.Second), c.dead.Round(time.Second), least)
		}
		if err := s.awaitReplacement(ctx, c, now); err != nil {
			return nil, err
		}
	}
}

// awaitReplacement waits for the replacement of c, which the caller can't use although it is valid.
func (s *Source) awaitReplacement(ctx context.Context, c *cachedToken, now time.Time) error {
	if ctx.Value(flightKey{s}) != nil {
		return errReentered
	}
	s.mu.Lock()
	if s.current.Load() != c {
		s.mu.Unlock()
		return nil
	}
	if s.flight == nil {
		if err := s.takeOff(ctx, now, true); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	f := s.flight
	s.mu.Unlock()
	_, err := f.wait(ctx)
	return err
}

// copyTo returns token as a copy of the cached one. The caller makes token so that
// Token and TokenContext can be inlined: then the copy costs no allocation where
// the program doesn't keep it.
func (s *Source) copyTo(ctx context.Context, token *oauth2.Token) (*oauth2.Token, error) {
	s = s.serving(ctx)
	c, err := s.get(ctx, 0)
	if err != nil {
		return nil, err
	}
	*token = *c.token()
	return token, nil
}

// Invalidate drops the cached token if it is t, by its AccessToken. Call it if you know
// that the token has been revoked. If an API has answered 401, call Reject instead.
//
// The next call requests a new token. A token that has been replaced since is left alone, so
// any number of callers may report the same one.
func (s *Source) Invalidate(t *oauth2.Token) {
	if s == nil || t == nil {
		return
	}
	if holder := s.holder(isToken(t)); holder != nil {
		holder.drop(isToken(t), event.Revoked)
	}
}

// Reject drops the cached token if it is t, by its AccessToken, but at most once in 30
// seconds. Call it if an API has answered 401: the token may have been revoked, but the API
// may also reject every token, and then a new one for each call would only be a burden for
// the authorization server. If you know that the token has been revoked, call Invalidate.
//
// Reject reports whether there is, or will be, another token, so that it makes sense to
// repeat the call. A token from Config.Store that was requested long before the last
// rejection is dropped in any case. Client and Transport do all this by themselves.
//
// The token may also be that of another Target of the same client: see For.
func (s *Source) Reject(t *oauth2.Token) bool {
	return s != nil && t != nil && s.rejectHeld(isToken(t))
}

// rejectHeld is Reject for the token that is meant. After a challenge, or if it is for another
// target, another Source has it.
func (s *Source) rejectHeld(meant func(*cachedToken) bool) bool {
	holder := s.holder(meant)
	return holder != nil && holder.reject(meant)
}

// isToken returns a function that recognises t.
func isToken(t *oauth2.Token) func(*cachedToken) bool {
	return func(c *cachedToken) bool { return c.accessToken() == t.AccessToken }
}

// drop drops the current token if it is the one that is meant.
func (s *Source) drop(meant func(*cachedToken) bool, reason event.InvalidationReason) {
	s.mu.Lock()
	c := s.current.Load()
	if c == nil || !meant(c) {
		s.mu.Unlock()
		return
	}
	s.dropLocked(c, reason)
	s.mu.Unlock()
	observer := s.conf.observer()
	bounded.Tell(observer.Invalidated, event.Invalidated{Target: s.targetID(), Reason: reason})
}

// reject drops the token that an API has refused, unless it has been replaced since, or
// another one was dropped for that reason a moment ago. It reports whether there is another
// token to be had.
func (s *Source) reject(refused func(*cachedToken) bool) bool {
	s.mu.Lock()
	c := s.current.Load()
	if c == nil || !refused(c) {
		defer s.mu.Unlock()
		return s.previous != nil && refused(s.previous) // Otherwise it isn't from this Source at all.
	}
	rare, now := s.rarely(), time.Now()
	admitted, ask := rare.rejections.admit(now, c)
	rare.fleet.asks = rare.fleet.asks || ask
	if admitted {
		s.dropLocked(c, event.Rejected)
	}
	s.mu.Unlock()
	if admitted {
		observer := s.conf.observer()
		bounded.Tell(observer.Invalidated, event.Invalidated{Target: s.targetID(), Reason: event.Rejected})
	}
	return admitted
}

// dropLocked drops the current token c. A flight that has already requested a token
// requests another one. It requires that s.mu is held.
func (s *Source) dropLocked(c *cachedToken, reason event.InvalidationReason) {
	if s.conf.store() != nil {
		s.rarely().fleet.distrust(c, time.Now())
	}
	s.replaceLocked(nil)
	s.generation++
	if reason != event.CertificateReplaced { // Replicas that still have the old certificate can use it.
		s.invalidateSharedLocked(c.shared)
	}
}

// replaceLocked makes c the current token. It requires that s.mu is held.
func (s *Source) replaceLocked(c *cachedToken) {
	if old := s.current.Load(); old != nil {
		s.previous = old
		if old.shared != nil {
			s.rarely().fleet.spend(old.shared)
		}
	}
	s.current.Store(c)
}

// String returns the state of s and nothing secret.
func (s *Source) String() string {
	return fmt.Sprintf("clientcredentials.Source(%v)", s.Status().State)
}

// Format prints what String returns, whatever the verb: the fields hold tokens.
func (s *Source) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// Status returns how s is doing at the moment. It neither waits nor requests a token.
func (s *Source) Status() Status {
	if s = s.effective(); s == nil {
		return Status{}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.current.Load()
	status := Status{State: c.state(now)}
	var pause clock.Deadline
	if rare := s.rare.Load(); rare != nil {
		status.LastError = rare.lastError
		pause = rare.cooldown.end(status.State != Expired)
	}
	switch {
	case status.State == Expired && status.LastError != nil:
		status.State = Failed
		if !pause.Passed(now) {
			status.NextRefresh = pause.Time()
		}
	case status.State == Expired || c.dead == forever:
	default:
		status.Expiry = c.expiry()
		status.NextRefresh = c.sent.Time().Add(c.soft)
		if pause.Time().After(status.NextRefresh) {
			status.NextRefresh = pause.Time()
		}
	}
	return status
}

// get returns the cached token or waits for a new one. early is how much of a
// token's life must be left for the caller; 0: as much as the Source itself wants.
func (s *Source) get(ctx context.Context, early time.Duration) (*cachedToken, error) {
	if s == nil || s.conf == nil || s.ctx == nil || ctx == nil {
		return nil, s.misuse(ctx)
	}
	observer, now := s.conf.observer(), time.Now()
	c := s.current.Load()
	if c != nil && c.bound.certificate != nil {
		s.checkCertificate(ctx, c)
		c = s.current.Load()
	}
	if c.fresh(now, early) {
		observer.tokenServed(event.TokenServed{Target: s.targetID()})
		return c, nil
	}
	c, from, err := s.getSlowly(ctx, now, early)
	end := time.Now()
	if err != nil {
		bounded.Tell(observer.TokenFailed, event.TokenFailed{Target: s.targetID(), Waited: end.Sub(now), Err: err})
		return nil, err
	}
	observer.tokenServed(event.TokenServed{Target: s.targetID(), From: from, Waited: end.Sub(now), Stale: !c.fresh(end, 0)})
	return c, nil
}

// getSlowly is get for a token that isn't fresh. It also returns where the token came from.
func (s *Source) getSlowly(ctx context.Context, now time.Time, early time.Duration) (*cachedToken, event.TokenFrom, error) {
	c, f, err := s.board(ctx, now, early)
	if f == nil {
		return c, event.FromMemory, err
	}
	if c != nil {
		// c is about to expire, but until then using it is better than a long wait. It must
		// not expire during the wait.
		limit := (c.dead - c.age(now)) / 2
		if early == 0 {
			limit = min(limit, hardPatience-now.Sub(f.started))
		}
		patience, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if c2, err := f.wait(patience); err == nil {
			return c2, c2.from(), nil
		}
		now = time.Now()
		if s.current.Load() == c && c.usable(now) {
			return c, event.FromMemory, nil
		}
		return s.getSlowly(ctx, now, early) // It was dropped during the wait, or the machine slept.
	}
	if c, err = f.wait(ctx); err != nil {
		return nil, event.FromMemory, err
	}
	return c, c.from(), nil
}

// misuse returns the error for a call with something missing.
func (s *Source) misuse(ctx context.Context) error {
	switch {
	case s == nil || (s.conf == nil && s.ctx == nil):
		return errors.New("oauth2: the Source is nil or empty; get one from Config.Source")
	case ctx == nil:
		return errors.New("oauth2: the context given to TokenContext is nil")
	}
	_, err := newTokenRequest(s.ctx, s.conf, s.targetKey(), nil)
	return err
}

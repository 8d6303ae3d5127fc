package clientcredentials

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

const (
	maxSoftWindow = 5 * time.Minute  // background refresh starts at most so long before expiry
	maxHardWindow = 10 * time.Second // callers wait at most so long before expiry
	minReuse      = time.Second      // every token is used that long at least

	// hardPatience is how long after the start of a flight callers wait for it
	// while they could still use the token they have, but never for more than half
	// of the life that it has left.
	hardPatience = time.Second

	// minRejection is the least time between two tokens that are dropped because
	// an API answered 401: it may answer so whatever the token. It isn't for a
	// token that is older than the last such 401 by as much.
	minRejection = 30 * time.Second
)

// A Source is a source of cached tokens. It replaces a token in the background
// before it expires, and requests each new one once, however many callers want
// it: all wait for the same request, each no longer than its own context allows.
//
// Get one from Config.Source. All methods are safe for concurrent use.
type Source struct {
	conf *Config
	ctx  context.Context // its values go with each token request; once done, no more are made

	current atomic.Pointer[cachedToken] // nil: none yet, or invalidated; written with mu held

	mu         sync.Mutex // protects what follows; never held while waiting or during I/O
	flight     *flight    // nil: none under way
	generation uint64     // number of invalidations
	cooldown   cooldown
	lastError  error        // of the last flight, or of the check of the Config; nil after success
	rejected   time.Time    // when a token was dropped because of a 401; zero: never
	previous   *cachedToken // the one before current; nil: none

	spent        []string   // versions of the last shared tokens that were current, the newest last
	invalidation *storeCall // the last that removed one from the store; nil: none did

	certifiedTransports certifiedTransports

	nonces nonceCache // has its own lock

	insecureTokens, insecureAPI atomic.Bool // whether Observer.Insecure has been told
}

// State is the state of a Source.
type State int

const (
	// Expired: there is no token that can be used, and callers wait for one.
	Expired State = iota
	// Fresh: there is a token, and no reason to replace it.
	Fresh
	// Stale: there is a token that is due to be replaced. The next call starts
	// that, and nobody waits for it, except shortly before the expiry.
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

// Status tells how a Source does, for readiness probes and the like.
type Status struct {
	State State

	// Expiry is when the current token expires. Zero: it doesn't, or there is
	// none.
	Expiry time.Time

	// NextRefresh is the earliest time at which a call requests a token. Zero:
	// any call does, or the current token doesn't expire.
	NextRefresh time.Time

	// LastError is why the last token request failed. Nil: it succeeded, or
	// there was none.
	LastError error
}

// A cachedToken is a token with its times. It is immutable, and its token is
// never handed out, only copies of it.
type cachedToken struct {
	token         oauth2.Token
	from          event.TokenFrom  // FromStore or FromServer
	shared        *sharedVersion   // where it is in Config.Store; nil: it isn't
	authorization string           // the value of the Authorization header
	sent          time.Time        // just before the token request was sent
	sentWall      time.Time        // the same without monotonic reading
	certificate   *tls.Certificate // that the client presented then, and may be bound to it; nil: none
	proofKey      *jws.Key         // that the token is bound to; nil: none

	// Ages, counted from sent, at which the token becomes stale, is waited for,
	// and is dead. forever if it doesn't expire.
	soft, hard, dead time.Duration
}

const forever time.Duration = math.MaxInt64

// newCachedToken returns the token of response with its windows. draw is in
// [0,1) and says where in its range the soft window begins.
func newCachedToken(response *tokenResponse, earlyRefresh time.Duration, draw float64) *cachedToken {
	token := response.token()
	scheme := token.Type()
	if response.proofKey != nil {
		scheme = "DPoP" // However the server has written it.
	}
	c := &cachedToken{
		token:         *token,
		from:          response.from,
		shared:        response.shared,
		authorization: scheme + " " + token.AccessToken,
		sent:          response.sent,
		sentWall:      response.sent.Round(0),
		certificate:   response.certificate,
		proofKey:      response.proofKey,
		soft:          forever,
		hard:          forever,
		dead:          forever,
	}
	// A JWT is longer than all the rest: it is kept once.
	c.token.AccessToken = c.authorization[len(scheme)+1:]
	if raw, ok := response.raw.(map[string]any); ok && raw["access_token"] == any(token.AccessToken) {
		raw["access_token"] = c.token.AccessToken
	}
	if response.expiresIn == 0 {
		return c
	}
	life := time.Duration(response.expiresIn) * time.Second // May be less than 0.
	window := min(earlyRefresh, max(life, 0))
	if earlyRefresh == 0 {
		window = min(maxSoftWindow, max(life, 0)/4)
	}
	window = min(jittered(window, draw), max(life, 0)/2)
	c.soft = life - window
	if refresh := time.Duration(response.refreshIn) * time.Second; 0 < refresh && refresh < life {
		c.soft = max(refresh, life/2)
	}
	// A token that comes with no life left is used for a moment all the same:
	// otherwise each call to the API would be a token request.
	c.soft = max(c.soft, response.floor)
	c.hard = max(life-hardWindow(life), c.soft)
	c.dead = max(life, response.floor)
	return c
}

// hardWindow returns how long before the expiry of a token callers wait for the next.
func hardWindow(life time.Duration) time.Duration { return min(maxHardWindow, life/10) }

// age returns how old c is: by the monotonic clock, which nobody can set back, or
// by the wall clock, which goes on while the machine sleeps, whichever is more.
func (c *cachedToken) age(now time.Time) time.Duration {
	return max(now.Sub(c.sent), time.Duration(now.UnixNano()-c.sentWall.UnixNano()))
}

// usable reports whether c, which may be nil, has not expired.
func (c *cachedToken) usable(now time.Time) bool { return c != nil && c.age(now) < c.dead }

// fresh reports whether there is no reason to replace c, which may be nil, for a
// caller who wants early of its life to be left.
func (c *cachedToken) fresh(now time.Time, early time.Duration) bool {
	return c != nil && c.age(now) < c.soft && (early <= 0 || !c.awaited(now, early))
}

// state returns the state of a Source with token c, which may be nil.
func (c *cachedToken) state(now time.Time) State {
	switch {
	case c.fresh(now, 0):
		return Fresh
	case c.usable(now):
		return Stale
	}
	return Expired
}

// awaited reports whether callers should wait for c's replacement: because it
// may expire on its way to the API, or because less than early is left of it,
// which is more than the caller wants. Neither counts for a token so young that
// the next one would be no better.
func (c *cachedToken) awaited(now time.Time, early time.Duration) bool {
	age := c.age(now)
	if age >= c.hard {
		return true
	}
	if c.dead == forever || early <= 0 {
		return false
	}
	if early >= c.dead {
		early = c.dead / 2
	}
	return age >= max(c.dead-early, minReuse)
}

// isBound reports whether more than the token is needed to use it.
func (c *cachedToken) isBound() bool { return c.certificate != nil || c.proofKey != nil }

// copy returns a token that the caller may write to.
func (c *cachedToken) copy() *oauth2.Token {
	token := c.token
	return &token
}

// A flight is one token request that any number of callers wait for.
//
//   - A Source has one flight at a time. It is started with mu held, after a
//     second look at the current token.
//   - It runs in its own goroutine, with its own deadline, under the Source's
//     context. No caller's context reaches it.
//   - It is tried again after a failure only if somebody without a token has
//     waited for it.
//   - It lands once, however it ends, and at the latest when its time is up,
//     though a RoundTripper may be deaf to that: then it is no longer the Source's
//     flight, and done is closed. token and err are written before and never after.
//   - A flight that is overtaken by an invalidation doesn't land with what it
//     has: its token may be older than the revocation. It requests another.
type flight struct {
	request    *tokenRequest
	started    time.Time
	background bool          // nobody without a token was there at the start
	wanted     atomic.Bool   // somebody was since
	generation uint64        // of the Source when the request was sent; protected by its mu
	announced  chan struct{} // closed when the Observer knows of the start
	traced     func(error)   // Observer.TraceRefresh wants to be told of the end; nil: written before announced is closed
	done       chan struct{}
	token      *cachedToken
	err        error
}

// flightKey is the key of the *Source in the context of its token requests.
type flightKey struct{ source *Source }

// errReentered is the error for a token request through the client that needs the
// token: it would wait for itself.
var errReentered = errors.New("oauth2: cannot fetch token: the token request goes through the very client that needs the token; set Config.HTTPClient to another")

// Token returns a token without a context to wait by: it waits until the token
// request ends, as Config.Retry allows. See TokenContext.
func (s *Source) Token() (*oauth2.Token, error) {
	return s.copyTo(context.Background(), new(oauth2.Token))
}

// TokenContext returns the cached token if it is valid, and otherwise waits for a
// new one, no longer than ctx allows. Shortly before the expiry it waits up to a
// second, and returns the old token if the new one takes longer. It returns a copy
// that the caller may change. While a token is valid no failure to replace it is
// reported.
//
// When ctx ends first the error wraps ctx.Err(), and the token request goes on
// for the callers that come after. Other errors are those of Config.Token; all
// callers that waited for one token request get the same error. After five
// failures in a row, and as long as a Retry-After says, callers get the last error
// at once.
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	return s.copyTo(ctx, new(oauth2.Token))
}

// copyTo returns token as a copy of the cached one. It is the caller's so that
// Token and TokenContext are inlined, and the copy needs no memory of its own where
// the program doesn't keep it.
func (s *Source) copyTo(ctx context.Context, token *oauth2.Token) (*oauth2.Token, error) {
	c, err := s.get(ctx, 0)
	if err != nil {
		return nil, err
	}
	*token = c.token
	return token, nil
}

// Invalidate drops the cached token if it is t, by its AccessToken: after an API
// has refused it, or when it has been revoked. The next call requests a new one.
// A token that has been replaced meanwhile is left alone, so that any number of
// callers may report the same token.
func (s *Source) Invalidate(t *oauth2.Token) {
	if s == nil || t == nil {
		return
	}
	s.drop(func(c *cachedToken) bool { return c.token.AccessToken == t.AccessToken }, event.Invalidated{})
}

// drop drops the current token if it is the one that is meant.
func (s *Source) drop(meant func(*cachedToken) bool, info event.Invalidated) {
	s.mu.Lock()
	c := s.current.Load()
	drop := c != nil && meant(c)
	if drop {
		s.dropLocked()
		if info.Reason != event.CertificateReplaced { // Then it is still good for who has the old one.
			s.invalidateSharedLocked(c.shared)
		}
	}
	s.mu.Unlock()
	if drop {
		s.conf.Observer.invalidated(info)
	}
}

// reject drops the token that an API has refused, unless it has been replaced
// meanwhile or the last such was dropped a moment ago. It reports whether there is
// another token to be had.
func (s *Source) reject(refused func(*cachedToken) bool) bool {
	now := time.Now()
	s.mu.Lock()
	c := s.current.Load()
	if c == nil || !refused(c) {
		defer s.mu.Unlock()
		return s.previous != nil && refused(s.previous) // Or it isn't from this Source at all.
	}
	// One that another replica had requested long before is no sign that the API refuses
	// any: it may have been revoked together with the last.
	drop := s.rejected.IsZero() || now.Sub(s.rejected) >= minRejection || s.rejected.Sub(c.sent) >= minRejection
	if drop {
		s.rejected = now
		s.dropLocked()
		s.invalidateSharedLocked(c.shared)
	}
	s.mu.Unlock()
	if drop {
		s.conf.Observer.invalidated(event.Invalidated{Reason: event.Rejected})
	}
	return drop
}

// dropLocked drops the current token, and what a flight may bring that took off
// before. It requires that s.mu is held.
func (s *Source) dropLocked() {
	s.replaceLocked(nil)
	s.generation++
}

// Reject drops the cached token if it is t, by its AccessToken, like Invalidate, but
// no more than once in 30 seconds: for an API that has refused it, and may refuse any.
// A token from Config.Store that is older than that doesn't count.
// It reports whether there is, or will be, another token, so that it is worth to
// repeat the call. Client and Transport do this by themselves.
func (s *Source) Reject(t *oauth2.Token) bool {
	if s == nil || t == nil {
		return false
	}
	return s.reject(func(c *cachedToken) bool { return c.token.AccessToken == t.AccessToken })
}

// String returns the state of s and nothing secret.
func (s *Source) String() string {
	return fmt.Sprintf("clientcredentials.Source(%v)", s.Status().State)
}

// Format prints what String returns, whatever the verb: the fields hold tokens.
func (s *Source) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// replaceLocked makes c the current token. It requires that s.mu is held.
func (s *Source) replaceLocked(c *cachedToken) {
	if old := s.current.Load(); old != nil {
		s.previous = old
		s.spendLocked(old.shared)
	}
	s.current.Store(c)
}

// Status returns how s does at the moment. It neither waits nor requests a token.
func (s *Source) Status() Status {
	if s == nil {
		return Status{}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.current.Load()
	status := Status{State: c.state(now), LastError: s.lastError}
	switch {
	case status.State == Expired && s.lastError != nil:
		status.State = Failed
		if s.cooldown.foreground.After(now) {
			status.NextRefresh = s.cooldown.foreground
		}
	case status.State == Expired || c.dead == forever:
	default:
		status.Expiry = c.token.Expiry
		status.NextRefresh = latest(c.sent.Add(c.soft), s.cooldown.background)
	}
	return status
}

// get returns the cached token or waits for a new one. early is how much of a
// token's life must be left for the caller; 0: what the Source itself wants.
func (s *Source) get(ctx context.Context, early time.Duration) (*cachedToken, error) {
	if s == nil || s.conf == nil || s.ctx == nil || ctx == nil {
		return nil, s.misuse(ctx)
	}
	now := time.Now()
	c := s.current.Load()
	if c != nil && c.certificate != nil {
		s.checkCertificate(ctx, c)
		c = s.current.Load()
	}
	if c.fresh(now, early) {
		s.conf.Observer.tokenServed(event.TokenServed{})
		return c, nil
	}
	c, from, err := s.getSlowly(ctx, now, early)
	end := time.Now()
	if err != nil {
		s.conf.Observer.tokenFailed(event.TokenFailed{Waited: end.Sub(now), Err: err})
		return nil, err
	}
	s.conf.Observer.tokenServed(event.TokenServed{From: from, Waited: end.Sub(now), Stale: !c.fresh(end, 0)})
	return c, nil
}

// getSlowly is get for when there is something to do. It tells where the token came
// from.
func (s *Source) getSlowly(ctx context.Context, now time.Time, early time.Duration) (*cachedToken, event.TokenFrom, error) {
	c, f, err := s.board(ctx, now, early)
	if f == nil {
		return c, event.FromMemory, err
	}
	if c != nil {
		// c is about to expire, but until then it is better than a long wait, and
		// while waiting it must not expire.
		limit := (c.dead - c.age(now)) / 2
		if early == 0 {
			limit = min(limit, hardPatience-now.Sub(f.started))
		}
		patience, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if c2, err := f.wait(patience); err == nil {
			return c2, c2.from, nil
		}
		now = time.Now()
		if s.current.Load() == c && c.usable(now) {
			return c, event.FromMemory, nil
		}
		return s.getSlowly(ctx, now, early) // Dropped meanwhile, or the machine slept.
	}
	if c, err = f.wait(ctx); err != nil {
		return nil, event.FromMemory, err
	}
	return c, c.from, nil
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

// board returns the token to use, the flight to wait for, or both if the token
// will do should the wait become long. It starts the flight if one is due.
func (s *Source) board(ctx context.Context, now time.Time, early time.Duration) (*cachedToken, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.current.Load() // May have been replaced before mu was held.
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
	switch {
	case !usable:
		s.flight.wanted.Store(true)
		return nil, s.flight, nil
	case c.awaited(now, early) && s.cooldown.failures == 0:
		return c, s.flight, nil
	}
	return c, nil, nil
}

// takeOff starts a flight, or returns why none should be. It requires that s.mu
// is held.
func (s *Source) takeOff(ctx context.Context, now time.Time, usable bool) error {
	if s.ctx.Err() != nil {
		return newConstructionError(s.ctx)
	}
	if ctx.Err() != nil {
		return newWaitError(ctx)
	}
	if s.cooldown.failures > 0 && !s.cooldown.request.isFor(s.conf) {
		s.cooldown = cooldown{}
	}
	if usable && now.Before(s.cooldown.background) || !usable && now.Before(s.cooldown.foreground) {
		return s.cooldown.err
	}
	request, err := s.conf.tokenRequest(s.ctx)
	if err != nil {
		s.lastError = err
		return err
	}
	request.nonces = &s.nonces
	s.flight = &flight{request: request, started: now, background: usable, generation: s.generation, announced: make(chan struct{}), done: make(chan struct{})}
	s.flight.wanted.Store(!usable) // Before it can fail.
	go s.fly(s.flight)
	return nil
}

// fly requests a token until one can be kept, or the request fails.
func (s *Source) fly(f *flight) {
	timed, cancel := timeout(context.WithValue(s.ctx, flightKey{s}, s), f.request.retry.TotalTimeout, "the token request")
	defer cancel()
	timeIsUp := func() error {
		if s.ctx.Err() != nil {
			return newConstructionError(s.ctx)
		}
		return context.Cause(timed)
	}
	defer context.AfterFunc(timed, func() { s.land(f, nil, timeIsUp()) })()

	err := errors.New("oauth2: cannot fetch token: the token request ended its goroutine") // by runtime.Goexit
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
		if err != nil {
			s.land(f, nil, err)
		}
	}()
	ctx := f.announce(timed)
	if isCleartext(f.request.endpoint) {
		f.request.observer.insecureOnce(&s.insecureTokens, f.request.endpoint)
	}
	for {
		response, failure := s.obtain(ctx, f)
		if failure != nil {
			err = failure
			if timed.Err() != nil {
				err = timeIsUp() // Whoever lands f, it is with the same error.
			}
			return
		}
		if s.land(f, response, nil) {
			err = nil
			return
		}
	}
}

// announce tells the Observer of the start, and returns the context to request a token
// with.
func (f *flight) announce(ctx context.Context) context.Context {
	defer close(f.announced)
	ctx, f.traced = f.request.observer.traceRefresh(ctx)
	f.request.observer.refreshStarted(event.RefreshStarted{Background: f.background})
	return ctx
}

// land ends f with a response or an error, once, and reports whether f is on the
// ground: an invalidation since its request was sent keeps it in the air.
func (s *Source) land(f *flight, response *tokenResponse, err error) bool {
	var token *cachedToken
	if err == nil {
		token = newCachedToken(response, f.request.earlyRefresh, rand.Float64())
	}
	now := time.Now()
	s.mu.Lock()
	if s.flight != f {
		s.mu.Unlock()
		return true
	}
	if err == nil && f.generation != s.generation {
		f.generation = s.generation
		s.invalidateSharedLocked(response.shared)
		s.mu.Unlock()
		return false
	}
	if err == nil {
		s.replaceLocked(token)
		s.cooldown = cooldown{}
	} else {
		s.cooldown.fail(now, f.request, err, rand.Float64())
	}
	s.lastError = err
	cooling := event.Cooldown{Failures: s.cooldown.failures, Until: s.cooldown.foreground}
	if s.current.Load().usable(now) {
		cooling.Until = s.cooldown.background
	}
	s.flight = nil
	f.token, f.err = token, err
	close(f.done)
	s.mu.Unlock()

	// f has landed: what the Observer does, nobody waits for, and it harms nobody.
	defer func() { _ = recover() }()
	<-f.announced
	if f.traced != nil {
		defer f.traced(err)
	}
	observer, duration := f.request.observer, now.Sub(f.started)
	if err == nil {
		observer.refreshDone(event.RefreshDone{Duration: duration, Attempts: response.attempts, Life: time.Duration(response.expiresIn) * time.Second, From: response.from, LeaseWait: response.leaseWait})
		return true
	}
	observer.refreshFailed(event.RefreshFailed{Duration: duration, Err: err})
	if cooling.Until.After(now) {
		observer.cooldown(cooling)
	}
	return true
}

// panicError returns the error for a panic in the code that the user supplied
// for the token request. Only an error of the runtime is quoted: what else a
// program panics with may hold a secret.
func panicError(v any) error {
	if err, ok := v.(runtime.Error); ok {
		return fmt.Errorf("oauth2: cannot fetch token: panic in the token request: %w", err)
	}
	return fmt.Errorf("oauth2: cannot fetch token: panic in the token request with a value of type %T", v)
}

// misuse returns the error for a call with something missing.
func (s *Source) misuse(ctx context.Context) error {
	switch {
	case s == nil || (s.conf == nil && s.ctx == nil):
		return errors.New("oauth2: the Source is nil or empty; get one from Config.Source")
	case ctx == nil:
		return errors.New("oauth2: the context given to TokenContext is nil")
	}
	_, err := s.conf.tokenRequest(s.ctx)
	return err
}

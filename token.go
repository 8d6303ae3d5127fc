package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

const (
	maxSoftWindow = 5 * time.Minute  // background refresh starts at most so long before expiry
	maxHardWindow = 10 * time.Second // callers wait at most so long before expiry
	minReuse      = time.Second      // every token is used that long at least

	// hardPatience is how long after the start of a flight callers wait for it
	// while they could still use the token they have.
	hardPatience = time.Second

	minRefreshDelay = time.Second      // between a failed background refresh and the next
	maxRefreshDelay = 30 * time.Second // to this, doubling
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
	failures   int        // token requests that failed since one succeeded
	retryAt    time.Time  // no background refresh before; zero: none has failed
	lastError  error      // of the last token request; nil after success
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
	// has failed. The next call tries again.
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

	// NextRefresh is the earliest time at which a call starts the replacement of
	// the current token. Zero: never, or there is no token.
	NextRefresh time.Time

	// LastError is why the last token request failed. Nil: it succeeded, or
	// there was none.
	LastError error
}

// A cachedToken is a token with its times. It is immutable, and its token is
// never handed out, only copies of it.
type cachedToken struct {
	token         oauth2.Token
	authorization string    // the value of the Authorization header
	sent          time.Time // just before the token request was sent
	sentWall      time.Time // the same without monotonic reading

	// Ages, counted from sent, at which the token becomes stale, is waited for,
	// and is dead. forever if it doesn't expire.
	soft, hard, dead time.Duration
}

const forever time.Duration = math.MaxInt64

// newCachedToken returns the token of response with its windows. draw is in
// [0,1) and says where in its range the soft window begins.
func newCachedToken(response *tokenResponse, earlyRefresh time.Duration, draw float64) *cachedToken {
	token := response.token()
	c := &cachedToken{
		token:         *token,
		authorization: token.Type() + " " + token.AccessToken,
		sent:          response.sent,
		sentWall:      response.sent.Round(0),
		soft:          forever,
		hard:          forever,
		dead:          forever,
	}
	if response.expiresIn == 0 {
		return c
	}
	life := time.Duration(response.expiresIn) * time.Second
	window := earlyRefresh
	if window == 0 {
		window = min(maxSoftWindow, life/4)
	}
	window = min(time.Duration(float64(window)*(0.75+0.25*draw)), life/2)
	c.soft = life - window
	if refresh := time.Duration(response.refreshIn) * time.Second; 0 < refresh && refresh < life {
		c.soft = max(refresh, life/2)
	}
	// A token that comes with no life left is used for a moment all the same:
	// otherwise each call to the API would be a token request.
	floor := response.received.Sub(response.sent) + minReuse
	c.soft = max(c.soft, floor)
	c.hard = max(life-min(maxHardWindow, life/10), c.soft)
	c.dead = max(life, floor)
	return c
}

// age returns how old c is: by the monotonic clock, which nobody can set back, or
// by the wall clock, which goes on while the machine sleeps, whichever is more.
func (c *cachedToken) age(now time.Time) time.Duration {
	return max(now.Sub(c.sent), now.Sub(c.sentWall))
}

// usable reports whether c, which may be nil, has not expired.
func (c *cachedToken) usable(now time.Time) bool { return c != nil && c.age(now) < c.dead }

// state returns the state of a Source with token c, which may be nil.
func (c *cachedToken) state(now time.Time) State {
	switch {
	case !c.usable(now):
		return Expired
	case c.age(now) < c.soft:
		return Fresh
	}
	return Stale
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
//   - It lands once, however it ends: then it is no longer the Source's flight,
//     and done is closed. token and err are written before and never after.
//   - A flight that is overtaken by an invalidation doesn't land with what it
//     has: its token may be older than the revocation. It requests another.
type flight struct {
	request    *tokenRequest
	started    time.Time
	generation uint64 // of the Source when the request was sent
	done       chan struct{}
	token      *cachedToken
	err        error
}

// Token returns a token without a context to wait by: it waits until the token
// request ends, 30 seconds at most. See TokenContext.
func (s *Source) Token() (*oauth2.Token, error) {
	return s.TokenContext(context.Background())
}

// TokenContext returns the cached token if it is valid, and otherwise waits for a
// new one, no longer than ctx allows. It returns a copy that the caller may
// change. While a token is valid no failure to replace it is reported.
//
// When ctx ends first the error wraps ctx.Err(), and the token request goes on
// for the callers that come after. Other errors are those of Config.Token; all
// callers that waited for one token request get the same error.
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	c, err := s.get(ctx, 0)
	if err != nil {
		return nil, err
	}
	return c.copy(), nil
}

// Invalidate drops the cached token if it is t, by its AccessToken: after an API
// has refused it, or when it has been revoked. The next call requests a new one.
// A token that has been replaced meanwhile is left alone, so that any number of
// callers may report the same token.
func (s *Source) Invalidate(t *oauth2.Token) {
	if s == nil || t == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.current.Load(); c != nil && c.token.AccessToken == t.AccessToken {
		s.current.Store(nil)
		s.generation++
	}
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
	case status.State == Expired || c.dead == forever:
	default:
		status.Expiry = c.token.Expiry
		status.NextRefresh = c.sent.Add(c.soft)
		if s.retryAt.After(status.NextRefresh) {
			status.NextRefresh = s.retryAt
		}
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
	if c := s.current.Load(); c.state(now) == Fresh && !c.awaited(now, early) {
		return c, nil
	}
	c, f, err := s.board(ctx, now, early)
	if f == nil {
		return c, err
	}
	if c == nil {
		return f.wait(ctx)
	}
	// c is about to expire, but until then it is better than a long wait.
	patience, cancel := context.WithTimeout(ctx, hardPatience-now.Sub(f.started))
	defer cancel()
	if c2, err := f.wait(patience); err == nil {
		return c2, nil
	}
	if c.usable(time.Now()) {
		return c, nil
	}
	return f.wait(ctx)
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
	usable := c.usable(now)
	if usable && c.state(now) == Fresh && !c.awaited(now, early) {
		return c, nil, nil
	}
	if usable && now.Before(s.retryAt) {
		return c, nil, nil
	}
	if s.flight == nil {
		switch {
		case s.ctx.Err() != nil && usable, ctx.Err() != nil && usable:
			return c, nil, nil
		case s.ctx.Err() != nil:
			return nil, nil, constructionError(s.ctx)
		case ctx.Err() != nil:
			return nil, nil, newWaitError(ctx)
		}
		if err := s.takeOff(now); err != nil {
			if usable {
				return c, nil, nil
			}
			return nil, nil, err
		}
	}
	switch {
	case !usable:
		return nil, s.flight, nil
	case c.awaited(now, early) && s.failures == 0:
		return c, s.flight, nil
	}
	return c, nil, nil
}

// takeOff starts a flight. It requires that s.mu is held.
func (s *Source) takeOff(now time.Time) error {
	request, err := s.conf.tokenRequest(s.ctx)
	if err != nil {
		s.failLocked(now, err)
		return err
	}
	s.flight = &flight{request: request, started: now, generation: s.generation, done: make(chan struct{})}
	go s.fly(s.flight)
	return nil
}

// fly requests a token until one can be kept, or the request fails.
func (s *Source) fly(f *flight) {
	err := errors.New("oauth2: cannot fetch token: the token request ended its goroutine") // by runtime.Goexit
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
		if err != nil {
			s.land(f, nil, err)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(s.ctx, totalTimeout, errTotalTimeout)
	defer cancel()
	for {
		response, failure := f.request.do(ctx)
		if failure != nil {
			if s.ctx.Err() != nil {
				failure = fmt.Errorf("%w (%w)", constructionError(s.ctx), failure)
			}
			err = failure
			return
		}
		if s.land(f, newCachedToken(response, f.request.earlyRefresh, rand.Float64()), nil) {
			err = nil
			return
		}
	}
}

// land ends f with a token or an error, and reports whether it could: an
// invalidation since f's request was sent keeps it in the air.
func (s *Source) land(f *flight, token *cachedToken, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && f.generation != s.generation {
		f.generation = s.generation
		return false
	}
	if err != nil {
		s.failLocked(time.Now(), err)
	} else {
		s.current.Store(token)
		s.failures, s.retryAt, s.lastError = 0, time.Time{}, nil
	}
	s.flight = nil
	f.token, f.err = token, err
	close(f.done)
	return true
}

// failLocked notes a failed token request. It requires that s.mu is held.
func (s *Source) failLocked(now time.Time, err error) {
	s.lastError = err
	s.failures++
	delay := min(minRefreshDelay<<min(s.failures-1, 10), maxRefreshDelay)
	s.retryAt = now.Add(time.Duration(float64(delay) * (0.75 + 0.25*rand.Float64())))
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

// newReusableSource returns s inside the type that oauth2.ReuseTokenSource and
// oauth2.ReuseTokenSourceWithExpiry return, as upstream does. The latter looks
// for that type, and sets its margin instead of wrapping it.
//
// Its own cache would hide what s knows, so it gets a margin with which no
// token that expires is ever valid, and asks s each time.
func newReusableSource(s *Source) oauth2.TokenSource {
	inner := &marginSource{Source: s}
	outer := oauth2.ReuseTokenSourceWithExpiry(nil, inner, forever)
	inner.margin = marginOf(outer)
	return outer
}

// A marginSource is what newReusableSource puts into its shell.
type marginSource struct {
	*Source
	margin func() time.Duration // of the shell; forever: as newReusableSource made it
}

// Token returns the Source's token or, when the shell has been given a margin by
// oauth2.ReuseTokenSourceWithExpiry, one that has as much left to live.
func (m *marginSource) Token() (*oauth2.Token, error) {
	var early time.Duration
	if margin := m.margin(); margin != forever {
		early = margin
	}
	c, err := m.get(context.Background(), early)
	if err != nil {
		return nil, err
	}
	return c.copy(), nil
}

// marginOf returns a function that reads the margin of the shell. There is no
// exported way. To look for the margin in a token that went through the shell,
// which writes it there, would be a data race once a second shell is put around
// the same source. If the field should be gone one day, the margin is not
// honoured, and a test says so.
func marginOf(shell oauth2.TokenSource) func() time.Duration {
	if v := reflect.ValueOf(shell); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if field := v.Elem().FieldByName("expiryDelta"); field.IsValid() && field.Kind() == reflect.Int64 {
			return func() time.Duration { return time.Duration(field.Int()) }
		}
	}
	return func() time.Duration { return forever }
}

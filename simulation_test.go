package clientcredentials

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// TestSimulation plays random scenarios with one Source: callers of every kind, an
// authorization server and an API that misbehave, invalidations, rotations of the secret,
// contexts that end, clocks that jump, a machine that is suspended. It records what happens on the fake clock of
// testing/synctest, and judges it at the end.
//
// The judge learns only from the authorization server for how long a token is valid. From
// the Source's Observer it learns when a flight starts and ends, and when a token is
// dropped.
//
// A token is surely there at a moment if it came with the last flight that landed, has not
// been dropped, and has life left. Events in the same nanosecond have no order: the judge
// accepts either.
//
//   - deadline: a call returns when its context ends, to the nanosecond. Without a
//     context it waits no longer than TotalTimeout.
//   - expired: no token is served when expires_in has passed, counted from before the token
//     request was sent. Each token may be used for 1 second, though.
//   - provenance: only what the server issued is served, and the API never gets a request
//     without a token. No caller's context reaches a token request.
//   - refused: no call fails if a token is surely there at its start or its end, unless a
//     token is dropped during the call.
//   - wait: no call waits while a token is surely there, except in the last tenth of its
//     life, 10 seconds at most, and then for 1 second at most. A TokenSource with a
//     margin waits as soon as the margin is reached, and for half of what is left.
//   - error: each error is that of the caller's own context, of the construction context
//     once it is done, or of a failed flight: one that ended during the call, or the last
//     one while it is cooling.
//   - shared: callers that waited and got an error at the same moment got the same error.
//   - single: there are never two token requests under way.
//   - justified: a flight takes off only during a call. It doesn't take off while a fresh
//     token is there, which includes at least the first half of the token's life, or
//     before a Retry-After is over. After the nth failure in a row it waits at least 0.75
//     of 1, 2, 4 ... 30 seconds while a token is there, and from the fifth failure on
//     also while none is.
//   - attempts: a flight makes MaxAttempts, and one more to find the auth style, at least
//     100 milliseconds apart and after a Retry-After. It makes only one while a token is
//     there. It starts over when an invalidation has overtaken it.
//   - refresh: a call with a stale token starts a flight, unless one is under way or the
//     last one is cooling, however many have failed.
//   - dropped: a token issued before an invalidation is never served after it.
//   - kept: a token is dropped only by Invalidate with that token, or after the API has
//     answered 401 to it. The latter happens at most once in 30 seconds, or in the
//     token's life if that is less, except in the last second of that life.
//   - rejected: the first 401 in that time drops the token, unless it gives another
//     reason than invalid_token or is the answer to a replay. The replay carries another
//     token.
//   - construction: no token is requested once the construction context is done.
//   - recovery: when the server has recovered, a caller gets a token after what is under
//     way has timed out and what is cooling is over.
//   - status: Status reports whether a token is there.
//   - closed: the body of each request is closed.
//   - leak: no goroutine is left. testing/synctest checks this one.
//
// A failure prints the seed and what happened. To play that scenario again, more than once
// because the seed decides neither the order of goroutines nor the library's jitter:
//
//	go test -run TestSimulation -seed=N -scenarios=1 -count=100
func TestSimulation(t *testing.T) {
	t.Parallel()
	scenarios := *simulationScenarios
	if testing.Short() {
		scenarios /= 10
	}
	met := &encounters{count: make(map[string]int)}
	t.Cleanup(func() {
		t.Logf("met:\n%v", met)
		if scenarios >= defaultScenarios && !t.Failed() {
			met.requireAll(t)
		}
	})
	shards := runtime.GOMAXPROCS(0)
	for shard := range shards {
		t.Run(fmt.Sprintf("shard %d", shard), func(t *testing.T) {
			t.Parallel()
			for i := shard; i < scenarios && !t.Failed(); i += shards {
				simulate(t, *simulationSeed+uint64(i), met)
			}
		})
	}
}

const defaultScenarios = 10_000

var (
	simulationSeed      = flag.Uint64("seed", 1, "seed of the first scenario of TestSimulation; the others have the seeds that follow")
	simulationScenarios = flag.Int("scenarios", defaultScenarios, "how many scenarios TestSimulation plays")
)

// simulate plays the scenario of a seed and judges it.
func simulate(t *testing.T, seed uint64, met *encounters) {
	t.Helper()
	s := &simulation{scenario: generate(seed), rand: rand.New(rand.NewPCG(seed, 2)), notes: make(map[noteKind][]note)}
	defer func() {
		if v := recover(); v != nil {
			s.fail("leak", "%v", v)
		}
		if len(s.violations) > 0 || t.Failed() {
			t.Errorf("go test -run TestSimulation -seed=%d -scenarios=1 -count=100\n%+v\n%s\nVIOLATED:\n%s",
				seed, s.scenario, s.timeline(), strings.Join(s.violations, "\n"))
		}
	}()
	testkit.Synctest(t, func(*testing.T) { s.play() })
	s.judge()
	met.add(s)
}

// A scenario is what is drawn from a seed before anything happens.
type scenario struct {
	// The Config.
	style  oauth2.AuthStyle
	post   bool // the server accepts the secret in the body only
	early  time.Duration
	retry  RetryPolicy
	margin time.Duration // of the TokenSource, if there is one; 0: its own

	// The authorization server and the API.
	lives     []int         // expires_in is one of these; 0: there is none
	refreshIn int           // percent of tokens that come with refresh_in
	latency   time.Duration // each answer takes half to one and a half of it
	faults    []outage
	apiDelay  time.Duration // likewise
	apiFaults []outage

	callers []simCaller
	events  []simEvent // in the order of time
	leave   bool       // the construction context isn't cancelled at the end
}

// An outage is a time in which a server misbehaves.
type outage struct {
	from, until time.Duration
	percent     int // of the requests
	fault       fault
}

// A fault is one kind of misbehaviour.
type fault struct {
	kind       faultKind
	status     int
	retryAfter int // seconds; 0: none
	date       bool
	body       string        // of the API: its WWW-Authenticate
	latency    time.Duration // 0: the usual
}

type faultKind string

const (
	faultSound     faultKind = "sound"
	faultStatus    faultKind = "status"
	faultReset     faultKind = "reset"
	faultCut       faultKind = "cut"       // within the body
	faultSlow      faultKind = "slow"      // the body takes as long again as the header
	faultHang      faultKind = "hang"      // until the context ends
	faultDeaf      faultKind = "deaf"      // ignores the context
	faultNever     faultKind = "never"     // likewise, and never returns
	faultMalformed faultKind = "malformed" // with status 200
	faultPanics    faultKind = "panics"
	faultExits     faultKind = "exits" // by runtime.Goexit
)

// A simEvent happens by itself, once.
type simEvent struct {
	at   time.Duration
	kind eventKind
	by   time.Duration // how far the clock jumps, or how long the machine is suspended
}

type eventKind string

const (
	eventRevoke  eventKind = "revoke"       // all tokens, at the server
	eventRotate  eventKind = "rotate"       // the secret at the server
	eventAssign  eventKind = "assign"       // the server's secret to the Config
	eventCancel  eventKind = "cancel"       // the construction context
	eventJump    eventKind = "jump"         // of the wall clock against the monotonic one
	eventSuspend eventKind = "suspend"      // the machine: the monotonic clock stands still
	eventLook    eventKind = "status"       // ask for the Status
	eventDrop    eventKind = "drop current" // Invalidate with the current token
)

// A simCaller makes its calls one after the other.
type simCaller struct {
	kind  callerKind
	calls []plan
}

type callerKind string

const (
	bySource      callerKind = "Source"
	byTransport   callerKind = "Transport"
	byClient      callerKind = "Client"
	byTokenSource callerKind = "TokenSource" // at most one: a wait for the lock of oauth2's cache would stop the clock
)

// A plan describes a call in advance.
type plan struct {
	pause   time.Duration // before
	timeout time.Duration // of its context; 0: already over; -1: none
	cancel  time.Duration // likewise
	body    bool          // the request has one
	getBody bool          // and can produce it again
	drop    bool          // call Invalidate afterwards
	dropOld bool          // likewise, with a token that the caller got before
}

// A generator draws the parts of a scenario.
type generator struct {
	*rand.Rand
	scenario
	theme       theme
	span        time.Duration // of a token's life
	horizon     time.Duration // of what the server and the API do
	tokenSource bool          // one of the callers has it
}

// A theme makes a scenario dwell on something that chance alone seldom brings.
type theme string

const (
	themeMixture theme = "mixture"
	themeOutages theme = "outages" // the server fails for a while when tokens are stale
	themeStorm   theme = "storm"   // and many callers call all the time
)

// generate draws a scenario.
func generate(seed uint64) scenario {
	g := generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	g.theme = pick(g.Rand, themeMixture, themeMixture, themeMixture, themeOutages, themeOutages, themeStorm)
	g.leave = g.percent(50)
	g.drawConfig()
	g.drawServers()
	g.drawCallers()
	g.drawEvents()
	return g.scenario
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

func (g *generator) percent(n int) bool { return g.IntN(100) < n }

func (g *generator) upTo(d time.Duration) time.Duration { return 1 + time.Duration(g.Int64N(int64(d))) }

// within draws one of several spans, and then a duration up to that.
func (g *generator) within(spans ...time.Duration) time.Duration {
	return g.upTo(pick(g.Rand, spans...))
}

func (g *generator) drawConfig() {
	g.style = oauth2.AuthStyleInHeader
	switch g.IntN(4) {
	case 0:
		g.style, g.post = oauth2.AuthStyleInParams, true
	case 1:
		g.style, g.post = oauth2.AuthStyleAutoDetect, g.percent(50)
	}
	if g.percent(30) {
		g.early = pick(g.Rand, time.Second, 5*time.Second, time.Minute, 10*time.Minute, 2*time.Hour)
	}
	if g.percent(30) {
		g.retry = RetryPolicy{
			MaxAttempts:    g.IntN(6),
			AttemptTimeout: pick(g.Rand, 0, time.Second, 5*time.Second),
			TotalTimeout:   pick(g.Rand, 0, 3*time.Second, 12*time.Second),
		}
	}
}

func (g *generator) drawServers() {
	life := pick(g.Rand, 1, 2, 3, 5, 10, 30, 60, 60, 300, 300, 600, 3600, 3600, 0, -1)
	if g.theme == themeOutages {
		life = pick(g.Rand, 5, 10, 30, 60, 300, 3600)
	}
	g.lives = []int{life}
	if g.percent(20) {
		g.lives = append(g.lives, life, pick(g.Rand, 1, 20, 120, 3600, 0, -1))
	}
	g.span = time.Duration(life) * time.Second
	if life <= 0 {
		g.span = 2 * time.Minute
	}
	g.horizon = 3 * g.span
	if g.percent(30) {
		g.refreshIn = pick(g.Rand, 10, 100)
	}
	g.latency = pick(g.Rand, 1, 5*time.Millisecond, 5*time.Millisecond, 300*time.Millisecond, 2*time.Second, 8*time.Second)
	g.apiDelay = pick(g.Rand, 1, 10*time.Millisecond, time.Second)

	switch {
	case g.theme == themeOutages:
		from := g.span/2 + g.upTo(g.span/2)
		g.faults = []outage{{from: from, until: from + g.upTo(g.span), percent: 100, fault: g.drawFault()}}
	case g.theme == themeStorm:
		g.faults = []outage{{until: g.within(10*time.Second, time.Minute), percent: 100, fault: g.drawFault()}}
	case g.percent(75):
		for range 1 + g.IntN(4) {
			from := g.upTo(g.horizon)
			if g.percent(25) {
				from = 0
			}
			until := from + g.within(time.Second, 10*time.Second, g.span/4+time.Second, g.span+time.Minute)
			g.faults = append(g.faults, outage{from, until, pick(g.Rand, 100, 100, 50), g.drawFault()})
		}
	}
	if g.theme == themeMixture && g.percent(40) {
		for range 1 + g.IntN(2) {
			from := g.upTo(g.horizon)
			until := from + g.within(time.Second, time.Minute, g.span)
			kind := pick(g.Rand, faultReset, faultStatus, faultStatus, faultStatus, faultStatus)
			challenge := pick(g.Rand, "", `Bearer realm="x"`, invalidToken, invalidToken, `Bearer error="insufficient_scope"`)
			g.apiFaults = append(g.apiFaults, outage{from, until, 100, fault{kind: kind, body: challenge}})
		}
	}
}

func (g *generator) drawFault() fault {
	f := fault{kind: pick(g.Rand, faultStatus, faultStatus, faultStatus, faultReset, faultCut, faultSlow, faultHang, faultDeaf, faultNever, faultMalformed, faultPanics, faultExits)}
	switch f.kind {
	case faultStatus:
		f.status = pick(g.Rand, 302, 400, 401, 403, 408, 429, 429, 500, 502, 503, 503, 504)
		if f.status == 429 || f.status == 503 {
			f.retryAfter = pick(g.Rand, 0, 1, 3, 10, 60, 300, 7200)
			f.date = g.percent(30)
		}
	case faultDeaf:
		f.latency = g.upTo(50 * time.Second)
	case faultSlow:
		f.latency = g.upTo(12 * time.Second)
	case faultMalformed:
		f.body = pick(g.Rand, "<html>", "", "{}", `{"access_token":5}`, `{"access_token":"a\u0000b"}`, `{"access_token":"x","expires_in":"soon"}`, `{"error":"temporarily_unavailable"}`)
	default:
	}
	return f
}

func (g *generator) drawCallers() {
	callers, calls := pick(g.Rand, 1, 2, 3, 5, 8, 20), 14
	switch g.theme {
	case themeOutages:
		callers, calls = pick(g.Rand, 1, 2, 3), 40
	case themeStorm:
		callers, calls = 10, 20
	case themeMixture:
	}
	for range callers {
		c := simCaller{kind: pick(g.Rand, bySource, bySource, byTransport, byClient, byTokenSource)}
		if c.kind == byTokenSource {
			if g.tokenSource {
				c.kind = bySource
			}
			g.tokenSource = true
		}
		patient := g.percent(40)
		for i := range 1 + g.IntN(calls) {
			c.calls = append(c.calls, g.drawCall(patient, i == 0))
		}
		g.callers = append(g.callers, c)
	}
	if g.tokenSource && g.percent(30) {
		g.margin = pick(g.Rand, time.Second, 20*time.Second, g.span/2, g.span, time.Hour)
	}
}

func (g *generator) drawCall(patient, first bool) plan {
	p := plan{timeout: -1, cancel: -1}
	switch {
	case first && g.percent(50):
	case g.theme == themeOutages:
		p.pause = g.upTo(g.span/15 + time.Second)
	case g.theme == themeStorm:
		p.pause = g.within(1, time.Millisecond, time.Second)
	case g.percent(3):
		p.pause = g.upTo(10*g.span + time.Hour) // The clock jumps.
	default:
		p.pause = g.within(1, 1, 100*time.Millisecond, time.Second, g.span/20+time.Second, g.span/20+time.Second, g.span/2, g.span)
	}
	if !patient && g.percent(60) {
		p.timeout = pick(g.Rand, 0, g.within(20*time.Millisecond, 100*time.Millisecond, time.Second, 5*time.Second, time.Minute))
	}
	if !patient && g.percent(10) {
		p.cancel = pick(g.Rand, 0, g.within(100*time.Millisecond, 5*time.Second))
	}
	p.body = g.percent(30)
	p.getBody = p.body && g.percent(60)
	p.drop = g.theme == themeMixture && g.percent(5)
	p.dropOld = g.theme == themeMixture && !p.drop && g.percent(3)
	return p
}

func (g *generator) drawEvents() {
	add := func(kind eventKind, at, by time.Duration) { g.events = append(g.events, simEvent{at, kind, by}) }
	for range g.IntN(3) {
		if g.percent(40) {
			add(eventRevoke, g.upTo(g.horizon), 0)
		}
		if g.percent(40) {
			at := g.upTo(g.horizon)
			add(eventRotate, at, 0)
			add(eventAssign, at+g.within(1, time.Second, time.Minute, g.span), 0)
		}
		if g.percent(30) {
			add(eventDrop, g.upTo(g.horizon), 0)
		}
	}
	for range g.IntN(8) {
		add(eventLook, g.upTo(g.horizon), 0)
	}
	if g.percent(15) {
		add(eventCancel, g.upTo(g.horizon), 0)
	}
	if g.percent(25) && !g.tokenSource { // The cache of oauth2 knows only the wall clock.
		by := g.within(time.Second, g.span/2, 2*g.span)
		if g.percent(50) {
			by = -by
		}
		add(eventJump, g.upTo(g.horizon), by)
	}
	if g.percent(20) && !g.tokenSource {
		for range 1 + g.IntN(3) {
			add(eventSuspend, g.upTo(g.horizon), g.within(time.Second, 10*time.Second, time.Minute, g.span))
		}
	}
	slices.SortStableFunc(g.events, func(a, b simEvent) int { return cmp.Compare(a.at, b.at) })
}

// A simulation is a scenario under way, and the record of it.
type simulation struct {
	scenario

	source    *Source
	conf      *Config
	transport http.RoundTripper
	client    http.RoundTripper
	shell     oauth2.TokenSource

	zero   time.Time
	over   chan struct{}      // closed at the end, for what ignores everything else
	cancel context.CancelFunc // of the construction context

	mu           sync.Mutex // protects what follows
	rand         *rand.Rand // the server's
	healed       bool
	serverSecret int
	configSecret int
	revoked      time.Time // tokens issued before; zero: none
	cancelled    time.Time // when the construction context was; zero: it wasn't

	clock      int // number of things that have been recorded
	attempts   []*simAttempt
	flights    []*simFlight
	ended      int // how many of the flights
	calls      []*simCall
	notes      map[noteKind][]note
	finish     time.Time
	violations []string
}

// A simAttempt is one token request on the wire.
type simAttempt struct {
	flight    *simFlight
	ctx       context.Context
	sent, end time.Time // end is zero until then
	style     oauth2.AuthStyle
	fault     fault
	latency   time.Duration
	early     bool      // the token is issued before the latency, not after it
	accepted  bool      // the credentials are right
	hold      time.Time // what Retry-After says
	issued    time.Time
	token     string // "": none was issued
	life      int    // seconds; 0: forever
	refresh   int
	received  bool // the whole answer
}

// A simFlight is what the Observer tells of a flight.
type simFlight struct {
	start, end time.Time
	secret     int
	background bool
	err        error
	attempts   []*simAttempt

	// For the judge.
	token    *simAttempt // that it landed with
	failures int         // in a row, with this one
	hold     time.Time   // what Retry-After says at its end
}

// A simCall is a call for a token, or a request to the API.
type simCall struct {
	caller     int
	kind       callerKind
	plan       plan
	start, end time.Time
	number     int       // of the start, by the clock
	secret     int       // of the Config
	until      time.Time // its context ends; zero: it doesn't
	err        error
	serves     []note // tokens in the hands of the caller or the API; two if the request was replayed
	body       *closeCounter
	apiLatency time.Duration
}

// empty reports whether the call ended with an error and without a token.
func (c *simCall) empty() bool { return c.err != nil && len(c.serves) == 0 }

// A note records something that happens at one moment.
type note struct {
	at       time.Time
	number   int // by the clock
	token    string
	rejected bool          // a token is dropped because the API has answered 401
	replay   bool          // the API answers 401 to a replay
	by       time.Duration // how far the clock jumps, or how long the machine is suspended
	state    State
}

type noteKind string

const (
	noteDrop         noteKind = "drop" // by the Source
	noteInvalidate   noteKind = "Invalidate"
	noteUnauthorized noteKind = "401"
	noteJump         noteKind = "the wall clock jumps"
	noteSuspend      noteKind = "the machine is suspended"
	noteLook         noteKind = "status"
)

// lock locks s.mu and returns the function that unlocks it.
func (s *simulation) lock() func() {
	s.mu.Lock()
	return s.mu.Unlock
}

// note records n, which happens now.
func (s *simulation) note(kind noteKind, n note) {
	defer s.lock()()
	n.at, n.number = time.Now(), s.tick()
	s.notes[kind] = append(s.notes[kind], n)
}

// tick returns the number of what is recorded next. It requires that s.mu is held.
func (s *simulation) tick() int {
	s.clock++
	return s.clock
}

// fail records a violation.
func (s *simulation) fail(invariant, format string, args ...any) {
	s.violations = append(s.violations, invariant+": "+fmt.Sprintf(format, args...))
}

// at prints a moment.
func (s *simulation) at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Sub(s.zero).String()
}

// play plays the scenario, in a bubble.
func (s *simulation) play() {
	s.zero, s.over = time.Now(), make(chan struct{})
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.conf = &Config{
		ClientID:     "id",
		ClientSecret: "secret0",
		TokenURL:     "https://auth.example/token",
		AuthStyle:    s.style,
		EarlyRefresh: s.early,
		Retry:        s.retry,
		HTTPClient:   &http.Client{Transport: roundTripFunc(s.requestToken)},
		Observer: &Observer{
			RefreshStarted: s.refreshStarted,
			RefreshDone:    func(event.RefreshDone) { s.refreshEnded(nil) },
			RefreshFailed:  func(info event.RefreshFailed) { s.refreshEnded(info.Err) },
			Invalidated: func(info event.Invalidated) {
				s.note(noteDrop, note{rejected: info.Reason == event.Rejected})
			},
		},
	}
	// Config.TokenSource, Client and Transport make them like this, but here over one
	// Source.
	s.source = s.conf.Source(ctx)
	s.shell = newShelledSource(s.source)
	if s.margin != 0 {
		s.shell = oauth2.ReuseTokenSourceWithExpiry(nil, s.shell, s.margin)
	}
	s.client = newClientTransport(s.source, roundTripFunc(s.requestAPI))
	s.transport = &Transport{Source: s.source, Base: roundTripFunc(s.requestAPI)}

	var callers, events sync.WaitGroup
	quiet := make(chan struct{})
	events.Go(func() { s.playEvents(quiet) })
	for i, c := range s.callers {
		callers.Go(func() { s.playCaller(i, c) })
	}
	callers.Wait()
	close(quiet)
	events.Wait()
	s.settle()
	if s.leave {
		time.Sleep(s.policy().TotalTimeout)
	} else {
		s.cancel()
	}
	s.finish = time.Now()
	close(s.over)
	// The clock stops with this goroutine. A goroutine that doesn't end by itself now leaks.
}

// playCaller makes the calls of a caller.
func (s *simulation) playCaller(i int, c simCaller) {
	var old string
	for _, p := range c.calls {
		time.Sleep(p.pause)
		token := s.call(i, c.kind, p)
		switch {
		case p.drop:
			s.invalidate(token)
		case p.dropOld:
			s.invalidate(old)
		}
		old = cmp.Or(token, old)
	}
}

// playEvents makes the events happen until quiet is closed.
func (s *simulation) playEvents(quiet chan struct{}) {
	for _, e := range s.events {
		select {
		case <-quiet:
			return
		case <-time.After(e.at - time.Since(s.zero)):
		}
		switch e.kind {
		case eventRevoke:
			s.mu.Lock()
			s.revoked = time.Now()
			s.mu.Unlock()
		case eventRotate:
			s.mu.Lock()
			s.serverSecret++
			s.mu.Unlock()
		case eventAssign:
			s.assignSecret()
		case eventCancel:
			s.mu.Lock()
			s.cancelled = time.Now()
			s.mu.Unlock()
			s.cancel()
		case eventJump:
			s.jump(e.by)
		case eventSuspend:
			s.suspend(e.by)
		case eventLook:
			s.note(noteLook, note{state: s.source.Status().State})
		case eventDrop:
			if c := s.source.current.Load(); c != nil {
				s.invalidate(c.accessToken())
			}
		}
	}
}

// assignSecret gives the server's secret to the Config. A program that does so while tokens
// are requested needs a lock.
func (s *simulation) assignSecret() {
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	defer s.lock()()
	s.configSecret = s.serverSecret
	s.conf.ClientSecret = fmt.Sprintf("secret%d", s.configSecret)
}

// jump moves the wall clock, as the current token sees it.
func (s *simulation) jump(by time.Duration) {
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	s.jumpLocked(by)
}

// suspend suspends the machine between flights: everything that pauses sees the wall clock
// go on while the monotonic clock stands still.
func (s *simulation) suspend(by time.Duration) {
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	if s.source.flight != nil {
		return // Its pauses can't be reached from here.
	}
	s.jumpLocked(by)
	if rare := s.source.rare.Load(); rare != nil {
		rare.cooldown.background = rare.cooldown.background.MoveWallClock(by)
		rare.cooldown.foreground = rare.cooldown.foreground.MoveWallClock(by)
		rare.rejections.last = rare.rejections.last.MoveWallClock(by)
	}
	s.note(noteSuspend, note{by: by})
}

func (s *simulation) jumpLocked(by time.Duration) {
	if c := s.source.current.Load(); c != nil {
		moved := &cachedToken{receivedToken: c.receivedToken}
		moved.sent = moved.sent.MoveWallClock(by)
		s.source.current.Store(moved)
		s.note(noteJump, note{token: c.accessToken(), by: by})
	}
}

func (s *simulation) invalidate(token string) {
	if token != "" {
		s.note(noteInvalidate, note{token: token})
		s.source.Invalidate(&oauth2.Token{AccessToken: token})
	}
}

// settle ends all misbehaviour and waits until a caller gets a token.
func (s *simulation) settle() {
	s.assignSecret()
	s.mu.Lock()
	s.healed = true
	s.mu.Unlock()
	limit := time.Now().Add(s.policy().TotalTimeout + 30*time.Second)
	for {
		token := s.call(-1, bySource, plan{timeout: -1, cancel: -1})
		s.mu.Lock()
		for _, a := range s.attempts { // An answer may have been under way.
			if a.hold.After(limit) {
				limit = a.hold
			}
		}
		over := token != "" || !s.cancelled.IsZero()
		if !over && time.Now().After(limit) {
			s.fail("recovery", "no token at %s", s.at(time.Now()))
			over = true
		}
		s.mu.Unlock()
		if over {
			return
		}
		time.Sleep(max(time.Second, time.Until(limit)/20))
	}
}

// callKey is the key of the *simCall in its context.
type callKey struct{}

// call makes one call and returns the token that the caller or the API got.
func (s *simulation) call(caller int, kind callerKind, p plan) string {
	c := &simCall{caller: caller, kind: kind, plan: p, start: time.Now()}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), callKey{}, c))
	defer cancel()
	if kind != byTokenSource {
		for _, end := range []time.Duration{p.timeout, p.cancel} {
			if end >= 0 && (c.until.IsZero() || c.start.Add(end).Before(c.until)) {
				c.until = c.start.Add(end)
			}
		}
		if p.timeout >= 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, p.timeout)
			defer stop()
		}
		switch {
		case p.cancel == 0:
			cancel()
		case p.cancel > 0:
			defer time.AfterFunc(p.cancel, cancel).Stop()
		}
	}
	s.mu.Lock()
	s.calls = append(s.calls, c)
	c.number, c.secret = s.tick(), s.configSecret
	s.mu.Unlock()

	var token *oauth2.Token
	var resp *http.Response
	var err error
	switch kind {
	case bySource:
		token, err = s.source.TokenContext(ctx)
	case byTokenSource:
		token, err = s.shell.Token()
	case byTransport:
		resp, err = s.transport.RoundTrip(c.request(ctx))
	case byClient:
		resp, err = s.client.RoundTrip(c.request(ctx))
	}
	if resp != nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}

	defer s.lock()()
	c.end, c.err = time.Now(), err
	if token != nil {
		c.serves = append(c.serves, note{token: token.AccessToken, at: c.end})
	}
	if len(c.serves) == 0 {
		return ""
	}
	return c.serves[len(c.serves)-1].token
}

// request returns the request to the API that the call makes.
func (c *simCall) request(ctx context.Context) *http.Request {
	var body io.Reader
	if c.plan.body {
		c.body = &closeCounter{Reader: strings.NewReader("x")}
		body = c.body
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "https://api.example/", body)
	if err != nil {
		panic(err)
	}
	if c.plan.getBody {
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }
	}
	return req
}

func (s *simulation) refreshStarted(info event.RefreshStarted) {
	defer s.lock()()
	s.flights = append(s.flights, &simFlight{start: time.Now(), secret: s.configSecret, background: info.Background})
}

// refreshEnded records the end of a flight. Flights end in the order in which they start,
// because each token request takes at least a nanosecond.
func (s *simulation) refreshEnded(err error) {
	defer s.lock()()
	if s.ended == len(s.flights) {
		s.fail("single", "a flight ends that hasn't started")
		return
	}
	f := s.flights[s.ended]
	s.ended++
	f.end, f.err = time.Now(), err
}

// requestToken is the authorization server.
func (s *simulation) requestToken(req *http.Request) (*http.Response, error) {
	form, err := formOf(req)
	if err != nil {
		return nil, err
	}
	a := s.receive(req, form)
	defer func() {
		defer s.lock()()
		if a.end.IsZero() {
			a.end = time.Now()
		}
	}()
	if a.early {
		s.issue(a)
	}
	switch a.fault.kind {
	case faultHang:
		<-req.Context().Done()
		return nil, req.Context().Err()
	case faultNever:
		<-s.over
		return nil, errors.New("it is over")
	case faultDeaf:
		select {
		case <-time.After(a.latency):
		case <-s.over:
		}
	default:
		if err := sleep(req.Context(), a.latency); err != nil {
			return nil, err
		}
	}
	if !a.early {
		s.issue(a)
	}
	defer s.lock()()
	a.end = time.Now()
	return s.answer(req.Context(), a)
}

// answer returns what the authorization server sends in the end. It requires that s.mu is
// held.
func (s *simulation) answer(ctx context.Context, a *simAttempt) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}}
	text := fmt.Sprintf(`{"access_token":%q,"token_type":"bearer"`, a.token)
	if a.life != 0 {
		text += fmt.Sprintf(`,"expires_in":%d`, a.life)
	}
	if a.refresh != 0 {
		text += fmt.Sprintf(`,"refresh_in":%d`, a.refresh)
	}
	text += "}"
	isToken, whole, end := a.accepted, true, io.EOF
	switch a.fault.kind {
	case faultReset:
		return nil, errors.New("connection reset")
	case faultCut:
		text, whole, end = text[:len(text)/2], false, io.ErrUnexpectedEOF
	case faultMalformed:
		text, isToken = a.fault.body, false
	case faultPanics:
		panic("as drawn")
	case faultExits:
		runtime.Goexit()
	case faultStatus:
		text, isToken = `{"error":"as_drawn"}`, false
		resp.StatusCode = a.fault.status
		if a.fault.status == http.StatusFound {
			resp.Header.Set("Location", "https://elsewhere.example/")
		}
		if seconds := a.fault.retryAfter; seconds > 0 {
			resp.Header.Set("Retry-After", fmt.Sprint(seconds))
			a.hold = a.end.Add(min(time.Duration(seconds)*time.Second, time.Hour))
			if a.fault.date {
				a.hold = a.hold.Truncate(time.Second)
				resp.Header.Set("Retry-After", a.hold.UTC().Format(http.TimeFormat))
			}
		}
	default:
		if !a.accepted {
			text = `{"error":"invalid_client"}`
			resp.StatusCode = http.StatusUnauthorized
		}
	}
	ended := func(err error, whole bool) (int, error) {
		defer s.lock()()
		a.end, a.received = time.Now(), whole && isToken
		return 0, err
	}
	resp.Body = io.NopCloser(io.MultiReader(
		readerFunc(func([]byte) (int, error) {
			if a.fault.kind == faultSlow {
				if err := sleep(ctx, a.latency); err != nil {
					return ended(err, false)
				}
			}
			return 0, io.EOF
		}),
		strings.NewReader(text),
		readerFunc(func([]byte) (int, error) { return ended(end, whole) }),
	))
	return resp, nil
}

// receive records the arrival of a token request, and decides what the server does with it.
func (s *simulation) receive(req *http.Request, form url.Values) *simAttempt {
	defer s.lock()()
	a := &simAttempt{ctx: req.Context(), sent: time.Now(), style: oauth2.AuthStyleInHeader}
	_, secret, ok := req.BasicAuth()
	if !ok {
		a.style, secret = oauth2.AuthStyleInParams, form.Get("client_secret")
	}
	if len(s.flights) == 0 {
		s.fail("justified", "a token request at %s without a flight", s.at(a.sent))
		s.flights = append(s.flights, &simFlight{start: a.sent})
	}
	a.flight = s.flights[len(s.flights)-1]
	for _, other := range s.attempts {
		if other.end.IsZero() && other.ctx.Err() == nil {
			s.fail("single", "token requests of %s and %s are under way at once", s.at(other.sent), s.at(a.sent))
		}
	}
	if !s.cancelled.IsZero() && a.sent.After(s.cancelled) {
		s.fail("construction", "a token request at %s", s.at(a.sent))
	}
	if req.Context().Value(callKey{}) != nil {
		s.fail("provenance", "the token request at %s has a caller's context", s.at(a.sent))
	}
	a.flight.attempts = append(a.flight.attempts, a)
	s.attempts = append(s.attempts, a)

	a.accepted = secret == fmt.Sprintf("secret%d", s.serverSecret) && (a.style == oauth2.AuthStyleInParams) == s.post
	a.fault = s.misbehaviour(s.faults, a.sent)
	a.latency = cmp.Or(a.fault.latency, s.latency/2+time.Duration(s.rand.Int64N(int64(s.latency))), 1)
	if s.healed {
		a.latency = time.Millisecond // It might otherwise exceed a timeout.
	}
	a.early = s.rand.IntN(2) == 0
	return a
}

// misbehaviour returns what goes wrong with a request at t. It requires that s.mu is held.
func (s *simulation) misbehaviour(outages []outage, t time.Time) fault {
	for _, o := range outages {
		if at := t.Sub(s.zero); !s.healed && o.from <= at && at < o.until && s.rand.IntN(100) < o.percent {
			return o.fault
		}
	}
	return fault{kind: faultSound}
}

// issue issues a token if the credentials are right.
func (s *simulation) issue(a *simAttempt) {
	defer s.lock()()
	if !a.accepted {
		return
	}
	a.issued = time.Now()
	a.token = fmt.Sprintf("t%d", s.tick())
	a.life = pick(s.rand, s.lives...)
	if a.life > 0 && s.rand.IntN(100) < s.refreshIn {
		a.refresh = 1 + s.rand.IntN(a.life+1)
	}
}

// sleep is time.Sleep, but returns ctx.Err() when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// requestAPI is the API.
func (s *simulation) requestAPI(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	c, ok := req.Context().Value(callKey{}).(*simCall)
	if !ok {
		panic("a request that no call has made")
	}
	fault, latency, replay, refused := s.receiveAPI(req, c)
	if err := sleep(req.Context(), latency); err != nil {
		return nil, err
	}
	if fault.kind == faultReset {
		return nil, errors.New("the API's connection was reset")
	}
	if !refused {
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	}
	if !strings.Contains(fault.body, "insufficient_scope") {
		s.note(noteUnauthorized, note{token: strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "), replay: replay})
	}
	resp := unauthorized(fault.body, http.NoBody)
	if fault.body == "" {
		resp.Header = nil
	}
	return resp, nil
}

// receiveAPI records the arrival of a request at the API, and decides what to do with it.
func (s *simulation) receiveAPI(req *http.Request, c *simCall) (f fault, latency time.Duration, replay, refused bool) {
	defer s.lock()()
	now := time.Now()
	value := req.Header.Get("Authorization")
	token, isBearer := strings.CutPrefix(value, "Bearer ")
	a := s.issuedAs(token)
	if !isBearer || a == nil {
		s.fail("provenance", "the API got %q at %s", value, s.at(now))
	}
	c.serves = append(c.serves, note{token: token, at: now})
	latency = s.apiDelay/2 + time.Duration(s.rand.Int64N(int64(s.apiDelay)))
	c.apiLatency += latency
	f = s.misbehaviour(s.apiFaults, now)
	if f.kind == faultSound && (a == nil || a.issued.Before(s.revoked) || a.life != 0 && !now.Before(a.issued.Add(time.Duration(a.life)*time.Second))) {
		f = fault{kind: faultStatus, body: invalidToken}
	}
	return f, latency, len(c.serves) > 1, f.kind == faultStatus
}

// issuedAs returns the token request that token came from, or nil.
func (s *simulation) issuedAs(token string) *simAttempt {
	for _, a := range s.attempts {
		if a.token == token && token != "" {
			return a
		}
	}
	return nil
}

// policy returns the Config's RetryPolicy with its defaults.
func (s *simulation) policy() RetryPolicy {
	return RetryPolicy{
		MaxAttempts:  cmp.Or(s.retry.MaxAttempts, 3),
		TotalTimeout: cmp.Or(s.retry.TotalTimeout, 30*time.Second),
	}
}

// The judge comes when nothing moves anymore, so it needs no lock.

// imprecision is how much the library may lose because it calculates with float64.
const imprecision = time.Microsecond

func (s *simulation) judge() {
	s.prepare()
	s.judgeFlights()
	for _, c := range s.calls {
		s.judgeCall(c)
		for i := range c.serves {
			s.judgeServing(c, i)
		}
		if c.empty() {
			s.judgeError(c)
		}
	}
	s.judgeDrops()
	s.judgeStatus()
}

// prepare finds out which tokens were kept, and which flights failed in a row.
func (s *simulation) prepare() {
	for i, f := range s.flights {
		if f.end.IsZero() {
			s.fail("single", "the flight of %s doesn't end", s.at(f.start))
			f.end = s.finish
			continue
		}
		if len(f.attempts) > 0 {
			last := f.attempts[len(f.attempts)-1]
			f.hold = last.hold
			if f.err == nil && last.received {
				f.token = last
			}
		}
		if f.err == nil && f.token == nil {
			s.fail("provenance", "the flight of %s succeeded without a token", s.at(f.start))
		}
		if f.err != nil {
			f.failures = 1
			if i > 0 && s.flights[i-1].secret == f.secret {
				f.failures += s.flights[i-1].failures
			}
		}
	}
}

// dead returns for how long after it was sent for a's token may be used.
func (a *simAttempt) dead() time.Duration {
	if a.life == 0 {
		return forever
	}
	return max(time.Duration(a.life)*time.Second, a.floor())
}

// floor returns for how long after it was sent for each token may be used.
func (a *simAttempt) floor() time.Duration { return a.end.Sub(a.sent) + time.Second }

// soft returns between which ages a's token becomes stale.
func (s *simulation) soft(a *simAttempt) (earliest, latest time.Duration) {
	if a.life == 0 {
		return forever, forever
	}
	life := max(time.Duration(a.life)*time.Second, 0)
	window := min(s.early, life)
	if s.early == 0 {
		window = min(5*time.Minute, life/4)
	}
	earliest, latest = life-min(window, life/2), life-min(window*3/4, life/2)
	if refresh := time.Duration(a.refresh) * time.Second; 0 < refresh && refresh < life {
		earliest = max(refresh, life/2)
		latest = earliest
	}
	return max(earliest, a.floor()) - imprecision, max(latest, a.floor()) + imprecision
}

// hard returns the age from which on a caller may have to wait for the token that
// replaces a's.
func (s *simulation) hard(a *simAttempt) time.Duration {
	if a.life == 0 {
		return forever
	}
	life := time.Duration(a.life) * time.Second
	return max(life-min(10*time.Second, life/10), a.floor())
}

// age returns the age of a's token at t, by the clock that shows more.
func (s *simulation) age(a *simAttempt, t time.Time) time.Duration {
	var by time.Duration
	for _, jump := range s.notes[noteJump] {
		if jump.token == a.token && !jump.at.After(t) {
			by += jump.by
		}
	}
	return t.Sub(a.sent) + max(by, 0)
}

// current returns the token that the Source has at t, if any. certain is false if
// that changes in this very moment.
func (s *simulation) current(t time.Time) (a *simAttempt, certain bool) {
	for _, f := range s.flights {
		switch {
		case f.token == nil:
		case f.end.Before(t):
			a = f.token
		case f.end.Equal(t):
			return nil, false
		}
	}
	if a == nil {
		return nil, true
	}
	if s.any(noteJump, func(n note) bool { return n.at.Equal(t) }) ||
		s.any(noteDrop, func(n note) bool { return n.at.Equal(t) || n.at.Equal(a.flight.end) }) {
		return nil, false
	}
	if s.any(noteDrop, func(n note) bool { return n.at.After(a.flight.end) && n.at.Before(t) }) {
		return nil, true
	}
	return a, true
}

// asleep returns how long the machine was suspended from one moment to another.
func (s *simulation) asleep(from, to time.Time) (sum time.Duration) {
	for _, n := range s.notes[noteSuspend] {
		if !n.at.Before(from) && !n.at.After(to) {
			sum += n.by
		}
	}
	return sum
}

// any reports whether match is true for one of the notes of that kind.
func (s *simulation) any(kind noteKind, match func(note) bool) bool {
	return slices.ContainsFunc(s.notes[kind], match)
}

// there returns the token that is surely there at t, or nil.
func (s *simulation) there(t time.Time) *simAttempt {
	if a, certain := s.current(t); certain && a != nil && s.age(a, t) < a.dead() {
		return a
	}
	return nil
}

// pauseAfter returns the longest pause after the nth failure in a row.
func pauseAfter(n int) time.Duration {
	if n < 1 {
		return 0
	}
	return min(time.Second<<min(n-1, 10), 30*time.Second)
}

// lastFlight returns the last flight that has ended before t, or nil.
func (s *simulation) lastFlight(t time.Time) *simFlight {
	var last *simFlight
	for _, f := range s.flights {
		if f.end.Before(t) {
			last = f
		}
	}
	return last
}

// cooling reports whether f, the last flight before t, holds up the next one with
// the same secret: for certain, or perhaps.
func (s *simulation) cooling(f *simFlight, t time.Time, withToken bool) (certain, perhaps bool) {
	if f == nil || f.failures == 0 {
		return false, false
	}
	pause := pauseAfter(f.failures - 4)
	if withToken {
		pause = pauseAfter(f.failures)
	}
	// A suspend at this very moment comes before t or after.
	late, early := t.Add(s.asleep(f.end, t)), t.Add(s.asleep(f.end.Add(1), t.Add(-1)))
	return late.Before(f.hold) || late.Before(f.end.Add(pause*3/4-imprecision)), early.Before(f.hold) || early.Before(f.end.Add(pause))
}

func (s *simulation) judgeFlights() {
	var before *simFlight
	for _, f := range s.flights {
		if before != nil && f.start.Before(before.end) {
			s.fail("single", "the flight of %s takes off before that of %s has landed", s.at(f.start), s.at(before.start))
		}
		if !s.cancelled.IsZero() && f.start.After(s.cancelled) {
			s.fail("construction", "a flight at %s", s.at(f.start))
		}
		if !slices.ContainsFunc(s.calls, func(c *simCall) bool { return !c.start.After(f.start) && !c.end.Before(f.start) }) {
			s.fail("justified", "the flight of %s takes off without a call", s.at(f.start))
		}
		a := s.there(f.start)
		if a != nil {
			least, _ := s.soft(a)
			if s.margin != 0 {
				margin := s.margin
				if margin >= a.dead() {
					margin = a.dead() / 2
				}
				if a.life != 0 {
					least = min(least, max(a.dead()-margin, time.Second))
				}
			}
			if age := s.age(a, f.start); age < least {
				s.fail("justified", "the flight of %s takes off though %s, of %d s, is only %v old", s.at(f.start), a.token, a.life, age)
			}
		}
		if before != nil && before.secret == f.secret {
			if cooling, _ := s.cooling(before, f.start, a != nil); cooling {
				s.fail("justified", "the flight of %s takes off too early after failure %d at %s, with Retry-After until %s", s.at(f.start), before.failures, s.at(before.end), s.at(before.hold))
			}
		}
		s.judgeAttempts(f)
		before = f
	}
}

func (s *simulation) judgeAttempts(f *simFlight) {
	limit := s.policy().MaxAttempts
	if s.style == oauth2.AuthStyleAutoDetect {
		limit++
	}
	count, from := 0, f.start
	for i, a := range f.attempts {
		if i > 0 {
			before := f.attempts[i-1]
			switch {
			case before.received:
				if !s.any(noteDrop, func(n note) bool { return !n.at.Before(from) && !n.at.After(before.end) }) {
					s.fail("attempts", "the flight of %s threw away %s, though no token was dropped during it", s.at(f.start), before.token)
				}
				count, from = 0, before.end
			case a.style != before.style:
				if s.style != oauth2.AuthStyleAutoDetect || !a.sent.Equal(before.end) {
					s.fail("attempts", "the token request of %s has another auth style", s.at(a.sent))
				}
			default:
				if a.sent.Before(before.end.Add(100*time.Millisecond)) || a.sent.Before(before.hold) {
					s.fail("attempts", "the token request of %s comes too early after the one that ended at %s, with Retry-After until %s", s.at(a.sent), s.at(before.end), s.at(before.hold))
				}
				if there := s.there(before.end); there != nil && len(s.notes[noteJump]) == 0 {
					s.fail("attempts", "the flight of %s tries again at %s though nobody needs a token: %s is there", s.at(f.start), s.at(a.sent), there.token)
				}
			}
		}
		if count++; count > limit {
			s.fail("attempts", "the flight of %s makes token request %d at %s", s.at(f.start), count, s.at(a.sent))
		}
	}
}

// described is for messages.
func (s *simulation) described(c *simCall) string {
	return fmt.Sprintf("the call of %s by caller %d, %s, which ends at %s,", s.at(c.start), c.caller, c.kind, s.at(c.end))
}

func (s *simulation) judgeCall(c *simCall) {
	limit := c.until
	if limit.IsZero() {
		limit = c.start.Add(s.policy().TotalTimeout)
		if c.kind == byTransport || c.kind == byClient {
			limit = limit.Add(s.policy().TotalTimeout + c.apiLatency) // It may be replayed.
		}
	}
	if c.end.After(limit) {
		s.fail("deadline", "%s had until %s", s.described(c), s.at(limit))
	}
	if c.body != nil && c.body.closed.Load() == 0 {
		s.fail("closed", "%s left the body open", s.described(c))
	}
	if len(c.serves) > 2 {
		s.fail("rejected", "%s was replayed twice", s.described(c))
	}

	a := s.there(c.start)
	if a == nil {
		return
	}
	got := c.end
	if len(c.serves) > 0 {
		got = c.serves[0].at
	}
	age := s.age(a, c.start)
	if got.After(c.start) && age < s.hard(a) && (c.kind != byTokenSource || s.margin == 0) {
		s.fail("wait", "%s waited though it had %s, of %d s and %v old", s.described(c), a.token, a.life, age)
	}
	patience := time.Second
	if c.kind == byTokenSource && s.margin != 0 {
		patience = (a.dead()-age)/2 + 1
	}
	if end := c.start.Add(patience); got.After(end) && s.there(end) == a {
		s.fail("wait", "%s waited %v though it had %s", s.described(c), got.Sub(c.start), a.token)
	}
	if c.kind == byTokenSource || !c.until.IsZero() && !c.until.After(c.start) || !s.cancelled.IsZero() && !s.cancelled.After(c.start) {
		return // It couldn't start a flight, or needn't.
	}
	if _, latest := s.soft(a); age < latest {
		return
	}
	if slices.ContainsFunc(s.flights, func(f *simFlight) bool { return !f.start.After(c.start) && !f.end.Before(c.start) }) {
		return
	}
	last := s.lastFlight(c.start)
	if _, cooling := s.cooling(last, c.start, true); cooling && last.secret == c.secret {
		return
	}
	s.fail("refresh", "%s started no flight, with %s of %d s and %v old", s.described(c), a.token, a.life, age)
}

func (s *simulation) judgeServing(c *simCall, i int) {
	v := c.serves[i]
	a := s.issuedAs(v.token)
	if a == nil {
		s.fail("provenance", "%s got %q", s.described(c), v.token)
		return
	}
	if !a.received || a.end.After(v.at) {
		s.fail("provenance", "%s got %s before it was there", s.described(c), v.token)
	}
	if age := s.age(a, v.at); age >= a.dead() {
		s.fail("expired", "%s got %s of %d s when it was %v old", s.described(c), v.token, a.life, age)
	}
	if i > 0 && c.serves[0].token == v.token {
		s.fail("rejected", "%s was replayed with the same %s", s.described(c), v.token)
	}
	if c.kind == byTokenSource {
		return // The cache of oauth2 keeps what it has.
	}
	for _, d := range s.notes[noteDrop] {
		if a.issued.Before(d.at) && (v.at.After(d.at) || i == 0 && c.number > d.number) {
			s.fail("dropped", "%s got %s, issued at %s, in spite of the drop at %s", s.described(c), v.token, s.at(a.issued), s.at(d.at))
		}
	}
}

// disturbed reports whether a token was dropped, or the clock moved, during c.
func (s *simulation) disturbed(c *simCall) bool {
	during := func(n note) bool { return n.at.After(c.start) && !n.at.After(c.end) }
	return s.any(noteDrop, during) || s.any(noteJump, during)
}

func (s *simulation) judgeError(c *simCall) {
	for _, t := range []time.Time{c.start, c.end} {
		if a := s.there(t); a != nil && !s.disturbed(c) {
			s.fail("refused", "%s failed though %s was there at %s: %v", s.described(c), a.token, s.at(t), c.err)
		}
	}
	var own *waitError
	if errors.As(c.err, &own) {
		if c.until.IsZero() || c.until.After(c.end) {
			s.fail("error", "%s says that its context ended: %v", s.described(c), c.err)
		}
		return
	}
	if !s.cancelled.IsZero() && !s.cancelled.After(c.end) && errors.Is(c.err, context.Canceled) {
		return
	}
	for _, other := range s.calls {
		if other.end.Equal(c.end) && other.start.Before(other.end) && c.start.Before(c.end) && other.empty() &&
			!errors.As(other.err, &own) && !isSame(other.err, c.err) {
			s.fail("shared", "%s got %v, another call %v", s.described(c), c.err, other.err)
		}
	}
	n := slices.IndexFunc(s.flights, func(f *simFlight) bool { return isSame(f.err, c.err) })
	if n < 0 {
		s.fail("error", "%s got an error that no flight has: %v", s.described(c), c.err)
		return
	}
	f := s.flights[n]
	if f.end.After(c.end) {
		s.fail("error", "%s got the error of a flight that ended at %s: %v", s.described(c), s.at(f.end), c.err)
	}
	if !f.end.Before(c.start) {
		return
	}
	if last := s.lastFlight(c.start); last != f {
		s.fail("error", "%s got the error of %s, which isn't the last: %v", s.described(c), s.at(f.end), c.err)
	}
	if _, cooling := s.cooling(f, c.start, false); !cooling || f.secret != c.secret {
		s.fail("error", "%s got the error of %s, of failure %d with Retry-After until %s, though that is over: %v", s.described(c), s.at(f.end), f.failures, s.at(f.hold), c.err)
	}
}

// isSame is errors.Is without unwrapping.
func isSame(a, b error) bool { return any(a) == any(b) }

func (s *simulation) judgeDrops() {
	var rejected time.Time // the last
	for _, d := range s.notes[noteDrop] {
		causes := s.notes[noteInvalidate]
		if d.rejected {
			causes = s.notes[noteUnauthorized]
		}
		var candidates []*simAttempt // for having been dropped
		for _, f := range s.flights {
			if f.token == nil || f.end.After(d.at) {
				continue
			}
			if f.end.Before(d.at) {
				candidates = nil
			}
			candidates = append(candidates, f.token)
		}
		i := slices.IndexFunc(candidates, func(a *simAttempt) bool {
			return slices.ContainsFunc(causes, func(u note) bool { return u.at.Equal(d.at) && u.token == a.token })
		})
		if i < 0 {
			s.fail("kept", "at %s the Source dropped one of %d tokens, of which nobody complained", s.at(d.at), len(candidates))
			continue
		}
		a := candidates[i]
		if !d.rejected || a.dead() != forever && s.age(a, d.at) >= max(a.dead()-time.Second, time.Second) {
			continue
		}
		if !rejected.IsZero() && d.at.Add(s.asleep(rejected, d.at)).Before(rejected.Add(min(30*time.Second, a.dead()))) {
			s.fail("kept", "because of status 401 tokens were dropped at %s and at %s", s.at(rejected), s.at(d.at))
		}
		rejected = d.at
	}
	for _, u := range s.notes[noteUnauthorized] {
		a, certain := s.current(u.at)
		if u.replay || !certain || a == nil || a.token != u.token {
			continue
		}
		if !s.any(noteDrop, func(d note) bool {
			return d.rejected && d.at.After(u.at.Add(s.asleep(d.at.Add(1), u.at.Add(-1))-min(30*time.Second, a.dead()))) && d.at.Before(u.at)
		}) {
			s.fail("rejected", "%s was kept at %s in spite of status 401", u.token, s.at(u.at))
		}
	}
	for _, u := range s.notes[noteInvalidate] {
		if a, certain := s.current(u.at); certain && a != nil && a.token == u.token {
			s.fail("kept", "%s was kept at %s in spite of Invalidate", u.token, s.at(u.at))
		}
	}
}

func (s *simulation) judgeStatus() {
	for _, l := range s.notes[noteLook] {
		a, certain := s.current(l.at)
		if !certain {
			continue
		}
		usable := a != nil && s.age(a, l.at) < a.dead()
		want := []State{Expired, Failed}
		if usable {
			want = []State{Fresh, Stale}
			earliest, latest := s.soft(a)
			if age := s.age(a, l.at); age < earliest {
				want = []State{Fresh}
			} else if age >= latest {
				want = []State{Stale}
			}
		}
		if !slices.Contains(want, l.state) {
			s.fail("status", "at %s it is %v, not one of %v", s.at(l.at), l.state, want)
		}
	}
}

// timeline prints what has happened.
func (s *simulation) timeline() string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	add := func(at time.Time, format string, args ...any) {
		lines = append(lines, line{at, fmt.Sprintf(format, args...)})
	}
	for i, f := range s.flights {
		add(f.start, "flight %d, background=%v", i, f.background)
		add(f.end, "flight %d ends: %v", i, f.err)
	}
	for _, a := range s.attempts {
		add(a.sent, "  token request, %s %d", a.fault.kind, a.fault.status)
		add(a.end, "  the one of %s ends, received=%v token=%q issued at %s expires_in=%d refresh_in=%d hold=%s", s.at(a.sent), a.received, a.token, s.at(a.issued), a.life, a.refresh, s.at(a.hold))
	}
	for i, c := range s.calls {
		add(c.start, "    call %d of caller %d, %s, until %s", i, c.caller, c.kind, s.at(c.until))
		for _, v := range c.serves {
			add(v.at, "    call %d has %s", i, v.token)
		}
		add(c.end, "    call %d ends: %v", i, c.err)
	}
	for kind, notes := range s.notes {
		for _, n := range notes {
			add(n.at, "%s: token=%q rejected=%v replay=%v by=%v state=%v", kind, n.token, n.rejected, n.replay, n.by, n.state)
		}
	}
	if !s.cancelled.IsZero() {
		add(s.cancelled, "the construction context ends")
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%18s %s\n", s.at(l.at), l.text)
	}
	return b.String()
}

// An encounters counts what the scenarios have met. A simulation in which nothing happens
// would prove nothing.
type encounters struct {
	mu    sync.Mutex // protects count
	count map[string]int
}

func (e *encounters) add(s *simulation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	met := func(what string, happened bool) {
		if happened {
			e.count[what]++
		} else {
			e.count[what] += 0 // requireAll must see it.
		}
	}
	met("scenarios", true)
	for _, a := range s.attempts {
		met("token requests", true)
		met("fault "+string(a.fault.kind), true)
		met("tokens that arrive with less than a second left", a.received && a.life != 0 && a.floor() > time.Duration(a.life)*time.Second)
	}
	for _, f := range s.flights {
		met("flights that succeed", f.err == nil)
		met("flights that fail", f.err != nil)
		met("flights in the background", f.background)
		met("flights that try again", len(f.attempts) > 1)
		met("flights that start over", slices.ContainsFunc(f.attempts, func(a *simAttempt) bool { return a.received && a != f.token }))
		met("flights after more than five failures", f.failures > 5)
	}
	for _, c := range s.calls {
		var own *waitError
		isOwn, waited := errors.As(c.err, &own), c.end.After(c.start)
		served := len(c.serves) > 0
		atOnce := served && c.serves[0].at.Equal(c.start)
		met("calls", true)
		met("calls by "+string(c.kind), true)
		met("calls with a token at once", atOnce)
		met("calls that wait for a token", served && !atOnce)
		met("calls that wait though a token is there", served && !atOnce && s.there(c.start) != nil)
		met("calls whose context ends", isOwn)
		met("calls with the error of a flight", waited && c.empty() && !isOwn)
		met("calls with the last error", !waited && c.empty() && !isOwn)
		met("calls after the construction context", !s.cancelled.IsZero() && c.start.After(s.cancelled))
		met("calls with a stale token and a failed refresh", served && s.there(c.start) != nil && s.lastFlight(c.start) != nil && s.lastFlight(c.start).failures > 0)
		met("replays", len(c.serves) > 1)
	}
	for _, d := range s.notes[noteDrop] {
		met("drops by Invalidate", !d.rejected)
		met("drops because of 401", d.rejected)
	}
	for _, u := range s.notes[noteInvalidate] {
		a, _ := s.current(u.at)
		met("late Invalidates", a != nil && a.token != u.token)
	}
	met("jumps forward", s.any(noteJump, func(n note) bool { return n.by > 0 }))
	met("suspends after a failure", s.any(noteSuspend, func(n note) bool { f := s.lastFlight(n.at); return f != nil && f.err != nil }))
	met("token requests that never return", slices.ContainsFunc(s.attempts, func(a *simAttempt) bool { return a.fault.kind == faultNever }))
	met("jumps back", s.any(noteJump, func(n note) bool { return n.by < 0 }))
}

// requireAll fails the test if something was never met.
func (e *encounters) requireAll(t *testing.T) {
	t.Helper()
	for what, n := range e.count {
		if n == 0 {
			t.Errorf("no scenario has met %s", what)
		}
	}
}

func (e *encounters) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []string
	for what, n := range e.count {
		list = append(list, fmt.Sprintf("%9d %s", n, what))
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

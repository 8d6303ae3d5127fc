package clientcredentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A recorder keeps what an Observer is told. Two goroutines tell it what a caller gets and
// what becomes of the flight that the caller waited for, in either order, so it keeps them
// apart.
type recorder struct {
	mu     sync.Mutex // protects what follows
	served []event.TokenServed
	failed []event.TokenFailed
	events []any // all others
}

// record makes the world's Config tell a recorder.
func (w *world) record() *recorder {
	r := new(recorder)
	w.conf.Observer = observe(func(info any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch info := info.(type) {
		case event.TokenServed:
			r.served = append(r.served, info)
		case event.TokenFailed:
			r.failed = append(r.failed, info)
		default:
			r.events = append(r.events, info)
		}
	})
	return r
}

// take returns what the recorder was told since the last call.
func (r *recorder) take() (served []event.TokenServed, events []any) {
	synctest.Wait() // A flight tells the Observer after its callers have left.
	r.mu.Lock()
	defer r.mu.Unlock()
	served, events = r.served, r.events
	r.served, r.events = nil, nil
	return served, events
}

// takeFailed returns the callers that got no token since the last call.
func (r *recorder) takeFailed() []event.TokenFailed {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := r.failed
	r.failed = nil
	return failed
}

type served []event.TokenServed

// expect checks what the recorder was told since the last call of expect or take.
func (r *recorder) expect(t *testing.T, wantServed served, wantEvents ...any) {
	t.Helper()
	gotServed, gotEvents := r.take()
	require.Equal(t, []event.TokenServed(wantServed), gotServed)
	require.Equal(t, wantEvents, gotEvents)
}

var (
	fromMemory = served{{}}
	fromServer = served{{From: event.FromServer}}
	stale      = served{{Stale: true}}
)

// refreshed is told when a token of an hour has arrived with the first attempt.
func refreshed(took time.Duration) event.RefreshDone {
	return event.RefreshDone{Duration: took, Attempts: 1, Life: time.Hour, From: event.FromServer}
}

func TestObserverColdStartAndMemory(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		w.auth.Latency = 3 * time.Second
		s := w.conf.Source(w.ctx)
		r.expect(t, nil)
		var wg sync.WaitGroup
		wg.Go(func() { tokenFrom(t, s) })
		time.Sleep(time.Second)
		wg.Go(func() { tokenFrom(t, s) }) // Waits for the same flight.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.TokenContext(ctx) // Leaves before the flight lands.
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, []event.TokenFailed{{Waited: time.Second, Err: err}}, r.takeFailed())
		r.expect(t, nil, event.RefreshStarted{})
		wg.Wait()
		gotServed, events := r.take()
		require.ElementsMatch(t, served{
			{From: event.FromServer, Waited: 3 * time.Second},
			{From: event.FromServer, Waited: 2 * time.Second},
		}, gotServed)
		require.Equal(t, []any{refreshed(3 * time.Second)}, events)

		promptly(t, s)
		r.expect(t, fromMemory)
		s.Status()
		r.expect(t, nil)
	})
}

func TestObserverRefresh(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		r.take()

		// In the background.
		time.Sleep(57 * time.Minute)
		w.auth.Latency = 3 * time.Second
		promptly(t, s)
		promptly(t, s)
		r.expect(t, served{{Stale: true}, {Stale: true}}, event.RefreshStarted{Background: true})
		time.Sleep(3 * time.Second)
		r.expect(t, nil, refreshed(3*time.Second))
		promptly(t, s)
		r.expect(t, fromMemory)

		// Shortly before the expiry a caller waits for a moment, and gets the new token
		// or the old one.
		for _, test := range []struct {
			latency, since time.Duration // of this token request, and of the previous one
			want           served
		}{
			{time.Second / 2, 3 * time.Second, served{{From: event.FromServer, Waited: time.Second / 2}, {}}},
			{5 * time.Second, time.Second / 2, served{{Waited: hardPatience, Stale: true}, {Stale: true}}},
		} {
			time.Sleep(time.Hour - 8*time.Second - test.since)
			w.auth.Latency = test.latency
			tokenFrom(t, s)
			promptly(t, s) // Later callers don't wait at all.
			time.Sleep(test.latency)
			r.expect(t, test.want, event.RefreshStarted{Background: true}, refreshed(test.latency))
		}
	})
}

func TestObserverRetry(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		w.auth.Script(
			clientcredentialstest.Fault{Delay: time.Second, Status: 503},
			clientcredentialstest.Fault{Delay: time.Second, Reset: true},
		)
		start := time.Now()
		tokenFrom(t, w.conf.Source(w.ctx))
		took := time.Since(start)
		gotServed, events := r.take()
		require.Equal(t, []event.TokenServed{{From: event.FromServer, Waited: took}}, gotServed)
		require.Len(t, events, 4)
		require.Equal(t, event.RefreshStarted{}, events[0])
		pauses := took - 2*time.Second
		for i, e := range events[1:3] {
			require.IsType(t, event.Retry{}, e)
			retry := e.(event.Retry)
			require.Equal(t, i+1, retry.Attempt)
			require.GreaterOrEqual(t, retry.Delay, minRetryDelay)
			require.LessOrEqual(t, retry.Delay, maxRetryDelay)
			pauses -= retry.Delay
			var refusal *oauth2.RetrieveError
			require.Equal(t, i == 0, errors.As(retry.Err, &refusal), "%v", retry.Err)
		}
		require.Zero(t, pauses)
		require.Equal(t, event.RefreshDone{Duration: took, Attempts: 3, Life: time.Hour, From: event.FromServer}, events[3])
	})
}

func TestObserverIsToldOfTheStartFirst(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(w.ctx)
		var told []string
		w.conf.Observer = &Observer{
			RefreshStarted: func(event.RefreshStarted) {
				cancel() // The flight is over before it has sent a request.
				time.Sleep(time.Millisecond)
				told = append(told, "started")
			},
			RefreshFailed: func(event.RefreshFailed) { told = append(told, "failed") },
		}
		require.ErrorIs(t, errorFrom(t, w.conf.Source(ctx)), context.Canceled)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"started", "failed"}, told)
		require.Zero(t, w.auth.TokenRequests())
	})
}

func TestObserverFailureAndCooldown(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		s := w.conf.Source(w.ctx)
		fault := clientcredentialstest.InvalidClient()
		fault.Delay = time.Second
		w.outage(fault)
		for failures := 1; failures <= cooldownFree; failures++ {
			err := errorFrom(t, s)
			want := []any{event.RefreshStarted{}, event.RefreshFailed{Duration: time.Second, Err: err}}
			if failures == cooldownFree {
				until := s.Status().NextRefresh
				require.True(t, until.After(time.Now()))
				want = append(want, event.Cooldown{Failures: cooldownFree, Until: until})
			}
			r.expect(t, nil, want...)
			require.Equal(t, []event.TokenFailed{{Waited: time.Second, Err: err}}, r.takeFailed())
		}
		err := errorFrom(t, s) // The last error, without another request.
		r.expect(t, nil)
		require.Equal(t, []event.TokenFailed{{Err: err}}, r.takeFailed())

		w.auth.SetFault(nil)
		time.Sleep(minCooldown)
		promptly(t, s)
		r.expect(t, fromServer, event.RefreshStarted{}, refreshed(0))
		require.Empty(t, r.takeFailed())

		// A Config that can't make a request starts no flight.
		w.conf.Retry.MaxAttempts = -1
		err = errorFrom(t, w.conf.Source(w.ctx))
		require.Equal(t, []event.TokenFailed{{Err: err}}, r.takeFailed())
		r.expect(t, nil)
	})
}

func TestObserverFailureInTheBackground(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		time.Sleep(57 * time.Minute)
		r.take()
		for failures, fault := range []clientcredentialstest.Fault{
			clientcredentialstest.Unavailable(), // There is no retry while nobody needs a new token.
			clientcredentialstest.TooManyRequests(time.Minute),
		} {
			w.outage(fault)
			promptly(t, s)
			synctest.Wait()
			status := s.Status()
			require.True(t, status.NextRefresh.After(time.Now()))
			r.expect(t, stale,
				event.RefreshStarted{Background: true},
				event.RefreshFailed{Err: status.LastError},
				event.Cooldown{Failures: failures + 1, Until: status.NextRefresh})
			promptly(t, s)
			r.expect(t, stale)
			time.Sleep(minCooldown)
		}
		require.Equal(t, time.Minute-minCooldown, time.Until(s.Status().NextRefresh))
	})
}

// only returns the events of one kind.
func only[T any](events []any) (list []T) {
	for _, e := range events {
		if e, ok := e.(T); ok {
			list = append(list, e)
		}
	}
	return list
}

// hosts are addresses that others may be able to overhear, and how Observer names them.
var hosts = []struct {
	address string
	origin  string // empty: not in cleartext, or not on a network
}{
	{"HTTP://H.example", "http://h.example:80"},
	{"http://192.0.2.1", "http://192.0.2.1:80"},
	{"http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080"},
	{"http://localhost.example", "http://localhost.example:80"},
	{"https://h.example", ""},
	{"https://192.0.2.1:80", ""},
	{"http://LOCALHOST:8080", ""},
	{"http://127.1.2.3", ""},
	{"http://[::1]:8080", ""},
}

// anywhere makes the world's servers answer on every host.
func (w *world) anywhere() {
	mux := http.NewServeMux()
	mux.Handle("/token", w.auth)
	mux.Handle("/", w.api)
	w.ctx = context.WithValue(w.ctx, oauth2.HTTPClient, &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)})
}

func TestF16_CleartextTokenEndpoint(t *testing.T) {
	for _, host := range hosts {
		t.Run(host.address, func(t *testing.T) {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				w.anywhere()
				r := w.record()
				w.conf.TokenURL = host.address + "/token?key=value"
				for range 2 { // Each Source warns.
					s := w.conf.Source(w.ctx)
					token := promptly(t, s)
					want := []any{event.RefreshStarted{}, refreshed(0)}
					if host.origin != "" {
						want = []any{event.RefreshStarted{}, event.Insecure{Origin: host.origin}, refreshed(0)}
					}
					_, events := r.take()
					require.Equal(t, want, events)
					s.Invalidate(token)
					promptly(t, s) // It warns once.
					_, events = r.take()
					require.Equal(t, []any{event.Invalidated{}, event.RefreshStarted{}, refreshed(0)}, events)
				}

				w.conf.Strict = true
				before := w.auth.TokenRequests()
				for name, source := range w.sources() {
					_, err := source.Token()
					if host.origin == "" {
						require.NoError(t, err, name)
						continue
					}
					require.EqualError(t, err, "oauth2: TokenURL is http, which Strict refuses; use https", name)
				}
				if host.origin != "" {
					require.Equal(t, before, w.auth.TokenRequests())
					r.expect(t, nil)
				}
			})
		})
	}
}

func TestF17_CleartextAPI(t *testing.T) {
	for _, host := range hosts {
		for _, kind := range kinds {
			t.Run(host.address+"/"+kind, func(t *testing.T) {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					w.anywhere()
					r := w.record()
					get := func(client *http.Client) error {
						resp, err := client.Get(host.address + "/path?key=value")
						if err == nil {
							_, _ = io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
							require.Equal(t, http.StatusOK, resp.StatusCode)
						}
						return err
					}
					var want []event.Insecure
					if host.origin != "" {
						want = []event.Insecure{{Origin: host.origin}}
					}
					for range 2 { // Each Source warns, once.
						client := w.clients()[kind]
						together(10, func() { require.NoError(t, get(client)) })
						_, events := r.take()
						require.Equal(t, want, only[event.Insecure](events))
					}

					w.conf.Strict = true
					requests := w.auth.TokenRequests() + len(w.api.Requests())
					err := get(w.clients()[kind])
					if host.origin == "" {
						require.NoError(t, err)
						return
					}
					require.ErrorContains(t, err, "oauth2: the request goes to http, where Strict sends no token; use https")
					require.Equal(t, requests, w.auth.TokenRequests()+len(w.api.Requests()))
					r.expect(t, nil)
				})
			})
		}
	}
}

// An asker asks for a token in one of several ways, perhaps for a request to that path of
// the API, and reports whether that succeeds.
type asker func(path string) bool

// sourceKinds are those of world.sources.
var sourceKinds = []string{"Source", "TokenSource", "Token"}

// asker returns the asker of that kind, one of kinds or sourceKinds.
func (w *world) asker(kind string) asker {
	if client, ok := w.clients()[kind]; ok {
		return askAPI(client)
	}
	source := w.sources()[kind]
	last := new(oauth2.Token)
	return func(path string) bool {
		if s, ok := source.(*Source); ok && path == "revoked" {
			s.Invalidate(last)
		}
		token, err := source.Token()
		if err == nil {
			last = token
		}
		return err == nil
	}
}

// askAPI returns an asker that sends requests with client.
func askAPI(client *http.Client) asker {
	return func(path string) bool {
		resp, err := client.Get("http://api.example/" + path)
		if err != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}

// succeeds is what everything returns for a Client or a Transport.
var succeeds = []bool{true, false, true, true, false}

// everything makes events of all kinds happen that ask can cause, and returns what ask did.
func everything(w *world, ask asker) (outcomes []bool) {
	w.conf.TokenURL = "http://auth.example/token"
	w.api.Handler = http.HandlerFunc(func(resp http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/away" {
			http.Redirect(resp, req, "https://other.example/", http.StatusTemporaryRedirect)
		}
	})
	do := func(path string) { outcomes = append(outcomes, ask(path)) }
	refusal := clientcredentialstest.InvalidClient()
	refusal.Delay = time.Second // A refusal in no time may come before the caller waits.
	w.auth.Script(clientcredentialstest.Fault{Delay: time.Second, Status: http.StatusServiceUnavailable})
	do("")     // Insecure, RefreshStarted, TraceRefresh, StoreOperation, Retry, RefreshDone, TokenServed
	do("away") // OriginRefused
	w.auth.RevokeAll()
	do("revoked") // Invalidated
	time.Sleep(57 * time.Minute)
	w.auth.Script(refusal)
	do("") // RefreshFailed, Cooldown
	time.Sleep(time.Hour)
	w.outage(refusal)
	do("") // TokenFailed
	w.auth.SetFault(nil)
	synctest.Wait()
	return outcomes
}

// share gives the world's Config a store that fails, but whose operations the Observer is
// told of.
func (w *world) share() {
	w.conf.Store = DangerouslyShareInPlaintext(functionStore{acquire: func(context.Context) error { return errors.New("down") }})
}

func TestEverything(t *testing.T) {
	for _, kind := range kinds {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			r := w.record()
			w.share()
			require.Equal(t, succeeds, everything(w, w.asker(kind)))
			gotServed, events := r.take()
			require.NotEmpty(t, gotServed)
			require.NotEmpty(t, r.takeFailed())
			kinds := map[reflect.Type]bool{reflect.TypeFor[event.TokenServed](): true, reflect.TypeFor[event.TokenFailed](): true}
			for _, e := range events {
				kinds[reflect.TypeOf(e)] = true
			}
			require.Len(t, kinds, len(eventFields(new(Observer))))
		})
	}
}

// TestObserverMayAskTheSource would hang if a function were called while the Source's lock
// is held.
func TestObserverMayAskTheSource(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		transport := w.conf.Transport(w.ctx)
		asked := make(map[reflect.Type]bool)
		var mu sync.Mutex
		w.conf.Observer = observe(func(info any) {
			transport.Source.(*Source).Status()
			mu.Lock()
			defer mu.Unlock()
			asked[reflect.TypeOf(info)] = true
		})
		w.share()
		require.Equal(t, succeeds, everything(w, askAPI(&http.Client{Transport: transport})))
		require.Len(t, asked, len(eventFields(w.conf.Observer)))
	})
}

// A function of an Observer may be nil, and may panic: nothing changes for a caller and
// for the server. TestF19_NoCallOutlivesItsContext has Observers that misbehave in other
// ways.
func TestObserverChangesNothing(t *testing.T) {
	misbehave := func() { panic("in an Observer") }
	observers := map[string]*Observer{
		"empty":        {},
		"TraceRefresh": {TraceRefresh: func(context.Context) (context.Context, func(error)) { misbehave(); return nil, nil }},
		"end of TraceRefresh": {TraceRefresh: func(ctx context.Context) (context.Context, func(error)) {
			return ctx, func(error) { misbehave() }
		}},
	}
	for name, field := range eventFields(observe(func(any) { misbehave() })) {
		o := new(Observer)
		functionsOf(o)[name].Set(field)
		observers[name] = o
	}
	observers["Inline"] = &Observer{TokenServed: observers["TokenServed"].TokenServed, Inline: true}
	for _, kind := range slices.Concat(kinds, sourceKinds) {
		play := func(t *testing.T, observer *Observer) (outcomes []bool, requests int) {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				w.conf.Observer = observer
				w.share()
				outcomes = everything(w, w.asker(kind))
				requests = w.auth.TokenRequests()
			})
			return outcomes, requests
		}
		want, wantRequests := play(t, nil)
		for name, observer := range observers {
			t.Run(kind+"/"+name, func(t *testing.T) {
				outcomes, requests := play(t, observer)
				require.Equal(t, want, outcomes)
				require.Equal(t, wantRequests, requests)
			})
		}
	}
}

// TestObserverHoldsNoLock has an Observer make API calls with the client that it
// observes, as an Observer does that sends logs. It runs outside of a bubble, which can't
// see that a goroutine waits for a lock.
func TestObserverHoldsNoLock(t *testing.T) {
	conf, _ := answeringConfig(t, `{"access_token":"t"}`)
	client := &http.Client{Transport: &Transport{Source: conf.Source(t.Context()), Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
	})}}
	get := func() error {
		resp, err := client.Get("http://api.example/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	conf.Observer = &Observer{Insecure: func(event.Insecure) { _ = get() }}
	done := make(chan error, 1)
	go func() { done <- get() }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("an API call in Observer.Insecure waits for that to return")
	}
}

func TestSlogObserver(t *testing.T) {
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failure := errors.New("first line\nsecond line")
	const debug, info, warn = slog.LevelDebug, slog.LevelInfo, slog.LevelWarn
	check := func(told any, level slog.Level, text string) {
		t.Helper()
		for _, least := range []slog.Level{debug, info, warn, slog.LevelError} {
			var got bytes.Buffer
			tell(t, SlogObserver(slog.New(slog.NewTextHandler(&got, withoutTime(least)))), told)
			want := ""
			if text != "" && level >= least {
				want = fmt.Sprintf("level=%v %s\n", level, text)
			}
			require.Equal(t, want, got.String())
		}
	}
	check(event.TokenServed{}, debug, "")
	check(event.TokenServed{From: event.FromServer, Waited: 1500 * time.Millisecond}, debug,
		`msg="oauth2: waited for a token" from=server waited=1.5s`)
	check(event.TokenFailed{Waited: time.Second, Err: failure}, debug,
		`msg="oauth2: a caller got no token" waited=1s error="first line\nsecond line"`)
	check(event.RefreshStarted{Background: true}, debug, `msg="oauth2: requesting a token" background=true`)
	check(event.RefreshDone{Duration: time.Second, Attempts: 2, Life: time.Hour, From: event.FromServer}, debug,
		`msg="oauth2: got a token" duration=1s from=server attempts=2 life=1h0m0s`)
	check(event.RefreshFailed{Duration: time.Second, Err: failure}, warn,
		`msg="oauth2: got no token" duration=1s error="first line\nsecond line"`)
	check(event.Retry{Attempt: 1, Delay: time.Second, Err: failure}, info,
		`msg="oauth2: trying again to get a token" attempt=1 delay=1s error="first line\nsecond line"`)
	check(event.Cooldown{Failures: 5, Until: until}, info,
		`msg="oauth2: requesting no token for a while" failures=5 until=2026-01-02T03:04:05.000Z`)
	check(event.Invalidated{Reason: event.Rejected}, info, `msg="oauth2: dropped a token" reason=rejected`)
	check(event.StoreOperation{Operation: "acquire", State: tokenstore.ClaimHit, Duration: time.Millisecond}, debug,
		`msg="oauth2: called the store of shared tokens" operation=acquire duration=1ms state=hit`)
	check(event.StoreOperation{Operation: "publish", Duration: time.Millisecond, Err: tokenstore.ErrLeaseLost}, debug,
		`msg="oauth2: called the store of shared tokens" operation=publish duration=1ms`)
	check(event.StoreOperation{Operation: "publish", Duration: time.Millisecond, Err: failure}, warn,
		`msg="oauth2: the store of shared tokens failed; going on without it" operation=publish duration=1ms error="first line\nsecond line"`)
	check(event.OriginRefused{Origin: "https://other.example:443"}, warn,
		`msg="oauth2: kept the token from an origin" origin=https://other.example:443 outcome=request_refused`)
	check(event.Insecure{Origin: "http://auth.example:80"}, warn,
		`msg="oauth2: credentials travel in cleartext; use https" origin=http://auth.example:80`)
}

func withoutTime(level slog.Level) *slog.HandlerOptions {
	return &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}
}

func TestJoinObservers(t *testing.T) {
	var order []string
	note := func(name string) *Observer {
		o := observe(func(info any) { order = append(order, fmt.Sprintf("%s %T", name, info)) })
		o.TraceRefresh = func(ctx context.Context) (context.Context, func(error)) {
			outer, _ := ctx.Value(flightKey{}).(string)
			order = append(order, name+" begins in "+outer)
			return context.WithValue(ctx, flightKey{}, name), func(err error) { order = append(order, fmt.Sprint(name, " ends: ", err)) }
		}
		return o
	}
	joined := JoinObservers(nil, note("a"), new(Observer), note("b"), nil)
	joined.TokenServed(event.TokenServed{})
	joined.StoreOperation(event.StoreOperation{})
	ctx, end := joined.traceRefresh(t.Context())
	require.Equal(t, "b", ctx.Value(flightKey{}))
	end(io.EOF)
	require.Equal(t, []string{
		"a event.TokenServed", "b event.TokenServed",
		"a event.StoreOperation", "b event.StoreOperation",
		"a begins in ", "b begins in a", "b ends: EOF", "a ends: EOF",
	}, order)

	// A panic in one Observer doesn't keep the event from the next.
	order = nil
	JoinObservers(&Observer{TokenServed: func(event.TokenServed) { panic("here") }}, note("c")).TokenServed(event.TokenServed{})
	require.Equal(t, []string{"c event.TokenServed"}, order)

	// Every field is joined, even one that is added in the future.
	for name, field := range functionsOf(joined) {
		require.False(t, field.IsNil(), name)
	}
	require.Equal(t, Observer{}, *JoinObservers(nil, new(Observer)), "functions that are nil in all Observers stay nil")
	alone := note("alone")
	joined = JoinObservers(alone)
	for name, field := range functionsOf(joined) {
		require.Equal(t, functionsOf(alone)[name].Pointer(), field.Pointer())
	}

	// Whoever has no TokenServed has nothing against Inline.
	inline := &Observer{TokenServed: alone.TokenServed, Inline: true}
	require.True(t, JoinObservers(&Observer{Retry: alone.Retry}, inline, SlogObserver(slog.Default())).Inline)
	require.False(t, JoinObservers(inline, alone).Inline)
}

// With Inline, the goroutine of the caller calls TokenServed for a token from memory, and only
// then.
func TestObserverInline(t *testing.T) {
	for name, kind := range map[string]func(*Config, context.Context) func(){
		"Source": func(conf *Config, ctx context.Context) func() {
			source := conf.Source(ctx)
			return func() { _, _ = source.Token() }
		},
		"Transport": func(conf *Config, ctx context.Context) func() {
			transport, req := conf.Transport(ctx), requestWith(t, 0)
			return func() { _, _ = transport.RoundTrip(req) }
		},
		"Client": func(conf *Config, ctx context.Context) func() {
			transport, req := conf.Client(ctx).Transport, requestWith(t, 0)
			return func() { _, _ = transport.RoundTrip(req) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			conf, ctx := warm(t)
			inline := make(chan bool, 1) // On a busy machine nobody waits for the Observer.
			conf.Observer = &Observer{Inline: true, TokenServed: func(event.TokenServed) {
				inline <- strings.Contains(string(debug.Stack()), "testing.tRunner(")
				panic("here")
			}}
			ask := kind(conf, ctx)
			ask()
			require.False(t, <-inline, "from the server")
			ask()
			require.True(t, <-inline, "from memory")
			conf.Observer.Inline = false
			ask()
			require.False(t, <-inline, "without Inline")
		})
	}
}

// A token request ends in time, also if the Observer's context doesn't.
func TestF19_DetachedContextOfTheObserver(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.conf.Retry.TotalTimeout = time.Second
		w.conf.Observer = &Observer{TraceRefresh: func(ctx context.Context) (context.Context, func(error)) {
			return context.WithoutCancel(ctx), nil
		}}
		for _, retryAfter := range []time.Duration{0, 3 * time.Second} {
			w.auth.SetFault(&clientcredentialstest.Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {strconv.Itoa(int(retryAfter / time.Second))}}})
			start := time.Now()
			require.ErrorContains(t, errorFrom(t, w.conf.Source(w.ctx)), "oauth2: ")
			require.LessOrEqual(t, time.Since(start), time.Second+50*time.Millisecond)
			requests := w.auth.TokenRequests()
			time.Sleep(time.Hour)
			require.Equal(t, requests, w.auth.TokenRequests())
		}
	})
}

func TestTraceRefresh(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		type key struct{}
		var events []string
		w.conf.Observer = &Observer{
			TraceRefresh: func(ctx context.Context) (context.Context, func(error)) {
				events = append(events, "trace")
				return context.WithValue(ctx, key{}, "span"), func(err error) { events = append(events, fmt.Sprint("end ", err != nil)) }
			},
			RefreshStarted: func(event.RefreshStarted) { events = append(events, "started") },
			RefreshDone:    func(event.RefreshDone) { events = append(events, "done") },
			RefreshFailed:  func(event.RefreshFailed) { events = append(events, "failed") },
		}
		inner := w.ctx.Value(oauth2.HTTPClient).(*http.Client)
		w.conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			events = append(events, fmt.Sprint("request in ", req.Context().Value(key{})))
			return inner.Transport.RoundTrip(req)
		})}
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		synctest.Wait()
		require.Equal(t, []string{"trace", "started", "request in span", "done", "end false"}, events)
		events = nil
		w.auth.Script(clientcredentialstest.InvalidClient())
		s.Invalidate(promptly(t, s))
		_ = errorFrom(t, s)
		synctest.Wait()
		require.Equal(t, []string{"trace", "started", "request in span", "failed", "end true"}, events)

		// What it returns may be nil.
		w.conf.Observer = &Observer{TraceRefresh: func(context.Context) (context.Context, func(error)) { return nil, nil }}
		promptly(t, s)
	})
}

func TestTokenFrom(t *testing.T) {
	require.Equal(t, "memory store server TokenFrom(3)", fmt.Sprint(event.FromMemory, " ", event.FromStore, " ", event.FromServer, " ", event.TokenFrom(3)))
	require.Equal(t, "lead hit wait cooling ClaimState(0)", fmt.Sprint(tokenstore.ClaimLead, " ", tokenstore.ClaimHit, " ", tokenstore.ClaimWait, " ", tokenstore.ClaimCooling, " ", tokenstore.ClaimState(0)))
}

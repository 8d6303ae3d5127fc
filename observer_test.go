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
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

func TestObserverTokenWithoutExpiry(t *testing.T) {
	bubble(t, -1, func(t *testing.T, w *world) {
		r := w.record()
		promptly(t, w.conf.Source(w.ctx))
		r.expect(t, fromServer, event.RefreshStarted{}, event.RefreshDone{Attempts: 1, From: event.FromServer})
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

		// Shortly before the expiry a caller waits for a moment, and gets the new token or the
		// old one.
		for _, test := range []struct {
			latency, since time.Duration // of this token request, and of the previous one
			want           served
		}{
			{time.Second / 2, 3 * time.Second, served{{From: event.FromServer, Waited: time.Second / 2}}},
			{5 * time.Second, time.Second / 2, served{{Waited: hardPatience, Stale: true}}},
		} {
			time.Sleep(time.Hour - 8*time.Second - test.since)
			w.auth.Latency = test.latency
			tokenFrom(t, s)
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
		w.conf.TokenURL = ""
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

func TestObserverInvalidate(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		s := w.conf.Source(w.ctx)
		token := promptly(t, s)
		r.take()
		s.Invalidate(nil)
		s.Invalidate(&oauth2.Token{AccessToken: "another"})
		r.expect(t, nil)
		s.Invalidate(token)
		s.Invalidate(token)
		r.expect(t, nil, event.Invalidated{})
		token2 := promptly(t, s)
		s.Invalidate(token)
		r.expect(t, fromServer, event.RefreshStarted{}, refreshed(0))

		// During a flight: it drops its first token on arrival, and is told as one flight.
		time.Sleep(57 * time.Minute)
		w.auth.Latency = 2 * time.Second
		promptly(t, s)
		time.Sleep(time.Second)
		s.Invalidate(token2)
		tokenFrom(t, s)
		r.expect(t, served{{Stale: true}, {From: event.FromServer, Waited: 3 * time.Second}},
			event.RefreshStarted{Background: true}, event.Invalidated{}, refreshed(4*time.Second))
	})
}

func TestObserverOfAPIRequests(t *testing.T) {
	for _, kind := range kinds {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			r := w.record()
			client := w.clients()[kind]
			require.Equal(t, http.StatusOK, w.status(t, client), kind)
			r.expect(t, fromServer, event.RefreshStarted{}, refreshed(0))
			w.status(t, client)
			r.expect(t, fromMemory)

			w.auth.RevokeAll()
			require.Equal(t, http.StatusOK, w.status(t, client), kind)
			_, events := r.take()
			require.Equal(t, []any{event.Invalidated{Reason: event.Rejected}, event.RefreshStarted{}, refreshed(0)}, events, kind)

			// Shortly afterwards, a rejected token is kept.
			w.auth.RevokeAll()
			require.Equal(t, http.StatusUnauthorized, w.status(t, client), kind)
			_, events = r.take()
			require.Empty(t, events, kind)
		})
	}
}

func TestObserverRefusedOrigin(t *testing.T) {
	const a, b, c = "https://a.example", "https://b.example:8443", "https://c.example"
	for _, test := range []struct {
		name    string
		origins []string
		chain   []string
		refused []string // origins, in order
		sent    int      // requests to the API
	}{
		{"same origin", nil, []string{a, a + ":443"}, nil, 2},
		{"permitted", []string{a, b}, []string{a, b}, nil, 2},
		{"another", nil, []string{a, b}, []string{b}, 2},
		{"another, with a secret in its address", nil, []string{a, "https://user:secret@c.example?access_token=secret"}, []string{c + ":443"}, 2},
		{"there and back", nil, []string{a, b, a}, []string{b, a + ":443"}, 3},
		{"downgrade", []string{a, "http://a.example"}, []string{a, "http://a.example"}, []string{"http://a.example:80"}, 2},
		{"the first", []string{a}, []string{c}, []string{c + ":443"}, 0},
	} {
		for _, kind := range kinds {
			t.Run(test.name+"/"+kind, func(t *testing.T) {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					r := w.record()
					w.conf.Origins = test.origins
					network := new(redirecting)
					resp, err := w.through(t, kind, network).Get(strings.Join(test.chain, "/"))
					require.Equal(t, test.sent == 0, err != nil, "%v", err)
					if err == nil {
						resp.Body.Close()
					}
					require.Len(t, network.hops, test.sent)
					_, events := r.take()
					var refused []string
					for _, info := range only[event.OriginRefused](events) {
						refused = append(refused, info.Origin)
					}
					require.Equal(t, test.refused, refused)
					if test.sent == 0 {
						require.Len(t, events, 1)
						require.Zero(t, w.auth.TokenRequests())
					}
				})
			})
		}
	}
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
	{"http://h.example", "http://h.example:80"},
	{"HTTP://H.example", "http://h.example:80"},
	{"http://h.example:8080", "http://h.example:8080"},
	{"http://192.0.2.1", "http://192.0.2.1:80"},
	{"http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080"},
	{"http://localhost.example", "http://localhost.example:80"},
	{"https://h.example", ""},
	{"https://192.0.2.1:80", ""},
	{"http://localhost", ""},
	{"http://LOCALHOST:8080", ""},
	{"http://127.0.0.1:8080", ""},
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

// An asker asks for a token in one of several ways, perhaps for a request to that path of the
// API, and reports whether that succeeds.
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

// share gives the world's Config a store that fails, but whose operations the Observer is told of.
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
			require.Len(t, kinds, reflect.TypeFor[Observer]().NumField()-1, "all but TraceRefresh, which takes no event")
		})
	}
}

func TestObserverMayBeNil(t *testing.T) {
	observers := map[string]*Observer{"nil": nil, "empty": {}}
	fields := reflect.TypeFor[Observer]()
	for i := range fields.NumField() {
		o := observe(func(any) {})
		reflect.ValueOf(o).Elem().Field(i).SetZero()
		observers["without "+fields.Field(i).Name] = o
	}
	for name, observer := range observers {
		for _, kind := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					w.conf.Observer = observer
					w.share()
					require.Equal(t, succeeds, everything(w, w.asker(kind)))
				})
			})
		}
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
		require.Len(t, asked, reflect.TypeFor[Observer]().NumField()-1)
	})
}

// misbehaving returns Observers with only one function each, which calls misbehave. The names
// are those of the functions.
func misbehaving(misbehave func()) map[string]*Observer {
	observers := map[string]*Observer{
		"TraceRefresh": {TraceRefresh: func(context.Context) (context.Context, func(error)) { misbehave(); return nil, nil }},
		"end of TraceRefresh": {TraceRefresh: func(ctx context.Context) (context.Context, func(error)) {
			return ctx, func(error) { misbehave() }
		}},
	}
	all := reflect.ValueOf(observe(func(any) { misbehave() })).Elem()
	for i := range all.NumField() {
		if field := all.Field(i); !field.IsNil() {
			o := new(Observer)
			reflect.ValueOf(o).Elem().Field(i).Set(field)
			observers[all.Type().Field(i).Name] = o
		}
	}
	return observers
}

// TestObserverThatMisbehaves checks the rule in the comment on Observer, for each function
// and each way to ask for a token.
func TestObserverThatMisbehaves(t *testing.T) {
	const blocked = 10 * time.Minute
	// kindsFor are the kinds of askers that call a function, if not all of them do but Token.
	kindsFor := map[string][]string{"OriginRefused": kinds, "Invalidated": {"Client", "Transport", "Source"}, "Retry": slices.Concat(kinds, sourceKinds)}
	// toCaller reports whether the function is told of a caller, and not only of token requests.
	toCaller := func(function, kind string) bool {
		return slices.Contains([]string{"TokenServed", "TokenFailed", "Invalidated", "OriginRefused"}, function) ||
			function == "Insecure" && slices.Contains(kinds, kind)
	}
	// play returns how all calls of an asker ended, and how many token requests there were.
	play := func(t *testing.T, w *world, kind string, limit time.Duration) (outcomes []bool, requests int) {
		w.share()
		ask := w.asker(kind)
		outcomes = everything(w, func(path string) bool {
			start := time.Now()
			defer func() { require.LessOrEqual(t, time.Since(start), limit) }()
			return ask(path)
		})
		requests = w.auth.TokenRequests()
		if w.conf.Observer == nil {
			return outcomes, requests
		}
		time.Sleep(2 * time.Hour) // Until all calls of the Observer have returned.
		synctest.Wait()
		w.conf.Observer = nil
		for range 3 { // Scripted faults may be left for the first two.
			time.Sleep(time.Minute)
			ask("")
		}
		require.True(t, ask(""))
		return outcomes, requests
	}
	for _, kind := range slices.Concat(kinds, sourceKinds) {
		var want []bool
		var wantRequests int
		bubble(t, time.Hour, func(t *testing.T, w *world) { want, wantRequests = play(t, w, kind, defaultTotalTimeout) })
		for how, misbehave := range map[string]func(){
			"panics":             func() { panic("in an Observer") },
			"blocks":             func() { time.Sleep(blocked) },
			"ends its goroutine": runtime.Goexit,
		} {
			for function := range misbehaving(nil) {
				limit := 2 * defaultTotalTimeout // A request to the API may be repeated with another token.
				if toCaller(function, kind) {
					limit += 2 * blocked
					if how == "ends its goroutine" {
						continue // The goroutine is the caller's own.
					}
				}
				t.Run(fmt.Sprintf("%s/%s/%s", kind, function, how), func(t *testing.T) {
					bubble(t, time.Hour, func(t *testing.T, w *world) {
						var called atomic.Bool
						w.conf.Observer = misbehaving(func() { called.Store(true); misbehave() })[function]
						outcomes, requests := play(t, w, kind, limit)
						by, ok := kindsFor[function]
						require.Equal(t, ok && slices.Contains(by, kind) || !ok && kind != "Token", called.Load())
						if how == "panics" {
							require.Equal(t, want, outcomes)
							require.Equal(t, wantRequests, requests)
						}
					})
				})
			}
		}
	}
}

// TestObserverHoldsNoLock has an Observer make API calls with the client that it observes, as
// an Observer does that sends logs. It runs outside of a bubble, which can't see that a
// goroutine waits for a lock.
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
	for _, test := range []struct {
		info  any
		level slog.Level
		text  string // after the level; empty: nothing is logged
		json  string
	}{
		{event.TokenServed{}, debug, ``, ``},
		{event.TokenServed{Stale: true}, debug, ``, ``},
		{
			event.TokenServed{From: event.FromServer, Waited: 1500 * time.Millisecond},
			debug,
			`msg="oauth2: waited for a token" from=server waited=1.5s`,
			`"msg":"oauth2: waited for a token","from":"server","waited":1500000000`,
		},
		{
			event.TokenFailed{Waited: time.Second, Err: failure},
			debug,
			`msg="oauth2: a caller got no token" waited=1s error="first line\nsecond line"`,
			`"msg":"oauth2: a caller got no token","waited":1000000000,"error":"first line\nsecond line"`,
		},
		{
			event.RefreshStarted{Background: true},
			debug,
			`msg="oauth2: requesting a token" background=true`,
			`"msg":"oauth2: requesting a token","background":true`,
		},
		{
			event.RefreshDone{Duration: time.Second, Attempts: 2, Life: time.Hour, From: event.FromServer},
			debug,
			`msg="oauth2: got a token" duration=1s from=server attempts=2 life=1h0m0s`,
			`"msg":"oauth2: got a token","duration":1000000000,"from":"server","attempts":2,"life":3600000000000`,
		},
		{
			event.RefreshFailed{Duration: time.Second, Err: failure},
			warn,
			`msg="oauth2: got no token" duration=1s error="first line\nsecond line"`,
			`"msg":"oauth2: got no token","duration":1000000000,"error":"first line\nsecond line"`,
		},
		{
			event.Retry{Attempt: 1, Delay: time.Second, Err: failure},
			info,
			`msg="oauth2: trying again to get a token" attempt=1 delay=1s error="first line\nsecond line"`,
			`"msg":"oauth2: trying again to get a token","attempt":1,"delay":1000000000,"error":"first line\nsecond line"`,
		},
		{
			event.Cooldown{Failures: 5, Until: until},
			info,
			`msg="oauth2: requesting no token for a while" failures=5 until=2026-01-02T03:04:05.000Z`,
			`"msg":"oauth2: requesting no token for a while","failures":5,"until":"2026-01-02T03:04:05Z"`,
		},
		{
			event.Invalidated{Reason: event.Rejected},
			info,
			`msg="oauth2: dropped a token" reason=rejected`,
			`"msg":"oauth2: dropped a token","reason":"rejected"`,
		},
		{
			event.StoreOperation{Operation: "acquire", State: tokenstore.ClaimHit, Duration: time.Millisecond},
			debug,
			`msg="oauth2: called the store of shared tokens" operation=acquire duration=1ms state=hit`,
			`"msg":"oauth2: called the store of shared tokens","operation":"acquire","duration":1000000,"state":"hit"`,
		},
		{
			event.StoreOperation{Operation: "publish", Duration: time.Millisecond, Err: tokenstore.ErrLeaseLost},
			debug,
			`msg="oauth2: called the store of shared tokens" operation=publish duration=1ms`,
			`"msg":"oauth2: called the store of shared tokens","operation":"publish","duration":1000000`,
		},
		{
			event.StoreOperation{Operation: "publish", Duration: time.Millisecond, Err: failure},
			warn,
			`msg="oauth2: the store of shared tokens failed; going on without it" operation=publish duration=1ms error="first line\nsecond line"`,
			`"msg":"oauth2: the store of shared tokens failed; going on without it","operation":"publish","duration":1000000,"error":"first line\nsecond line"`,
		},
		{
			event.OriginRefused{Origin: "https://other.example:443"},
			warn,
			`msg="oauth2: kept the token from an origin" origin=https://other.example:443 outcome=request_refused`,
			`"msg":"oauth2: kept the token from an origin","origin":"https://other.example:443","outcome":"request_refused"`,
		},
		{
			event.Insecure{Origin: "http://auth.example:80"},
			warn,
			`msg="oauth2: credentials travel in cleartext; use https" origin=http://auth.example:80`,
			`"msg":"oauth2: credentials travel in cleartext; use https","origin":"http://auth.example:80"`,
		},
	} {
		for _, least := range []slog.Level{debug, info, warn, slog.LevelError} {
			var text, object bytes.Buffer
			tell(t, SlogObserver(slog.New(slog.NewTextHandler(&text, withoutTime(least)))), test.info)
			tell(t, SlogObserver(slog.New(slog.NewJSONHandler(&object, withoutTime(least)))), test.info)
			var wantText, wantObject string
			if test.text != "" && test.level >= least {
				wantText = fmt.Sprintf("level=%v %s\n", test.level, test.text)
				wantObject = fmt.Sprintf("{\"level\":%q,%s}\n", test.level, test.json)
			}
			require.Equal(t, wantText, text.String())
			require.Equal(t, wantObject, object.String())
		}
	}
}

func withoutTime(level slog.Level) *slog.HandlerOptions {
	return &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}
}

func TestSlogObserverLogsWhatHappens(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		var out bytes.Buffer
		w.conf.Observer = SlogObserver(slog.New(slog.NewTextHandler(&out, withoutTime(slog.LevelWarn))))
		everything(w, w.asker("Transport"))
		require.Equal(t, `level=WARN msg="oauth2: credentials travel in cleartext; use https" origin=http://api.example:80
level=WARN msg="oauth2: credentials travel in cleartext; use https" origin=http://auth.example:80
level=WARN msg="oauth2: kept the token from an origin" origin=https://other.example:443 outcome=sent_without_token
level=WARN msg="oauth2: got no token" duration=1s error="oauth2: \"invalid_client\" \"scripted fault\""
level=WARN msg="oauth2: got no token" duration=1s error="oauth2: \"invalid_client\" \"scripted fault\""
`, out.String())
	})
}

// told returns everything that a program may print of an Observer's events while a token
// endpoint gives such answers: the events themselves, and what SlogObserver logs of them.
// After the first answers there is a token. The last answer comes when the token is due to be
// replaced.
func told(t *testing.T, secret string, replies ...reply) string {
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		options := &slog.HandlerOptions{Level: slog.LevelDebug}
		text := SlogObserver(slog.New(slog.NewTextHandler(&out, options)))
		object := SlogObserver(slog.New(slog.NewJSONHandler(&out, options)))
		var mu sync.Mutex
		conf := newTokenEndpoint(replies...).config()
		conf.ClientSecret = secret
		conf.Scopes = []string{"first", scopeCanary}
		conf.Retry = RetryPolicy{}
		conf.Observer = observe(func(info any) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(&out, "%v\n%+v\n%#v\n%s\n", info, info, info, info)
			tell(t, text, info)
			tell(t, object, info)
		})
		s := conf.Source(t.Context())
		if _, err := s.Token(); err != nil { // Not every answer is worth a retry.
			promptly(t, s)
		}
		time.Sleep(57 * time.Minute)
		promptly(t, s)
		synctest.Wait()
		require.Error(t, s.Status().LastError)
	})
	require.Contains(t, out.String(), "oauth2: got no token")
	return out.String()
}

const (
	scopeCanary = "ScopeCanary:read/all"
	tokenCanary = "TokenCanary-0123456789"
)

var canaryReply = reply{body: `{"access_token":"` + tokenCanary + `","expires_in":3600}`}

// echoing are answers that repeat what must not appear in a log.
var echoing = map[string]func(echoed string) reply{
	"page": func(echoed string) reply {
		return reply{status: 503, mediaType: "text/html", body: "<pre>" + echoed + "</pre>"}
	},
	"description": func(echoed string) reply {
		return reply{status: 503, body: `{"error":"e","error_description":"` + jsonEscape(echoed, false) + `"}`}
	},
	"code": func(echoed string) reply {
		return reply{status: 503, body: `{"error":"` + jsonEscape(echoed, false) + `"}`}
	},
	"member": func(echoed string) reply {
		return reply{status: 503, body: `{"sent":"` + jsonEscape(echoed, false) + `"}`}
	},
	"token response": func(echoed string) reply {
		return reply{body: `{"access_token":"t","expires_in":"` + jsonEscape(echoed, false) + `"}`}
	},
	"HTML":          func(echoed string) reply { return reply{mediaType: "text/html", body: "<pre>" + echoed + "</pre>"} },
	"network error": func(echoed string) reply { return reply{err: errors.New("cannot send " + echoed)} },
	"cut":           func(echoed string) reply { return reply{body: "{", bodyErr: errors.New("cannot read " + echoed)} },
}

// requireUntold is like requireMasked, but shows only the line in question.
func requireUntold(t *testing.T, text, canary string, echoes []echo) {
	t.Helper()
	for line := range strings.Lines(text) {
		for _, echo := range echoes {
			require.NotContains(t, line, echo.encode(canary), echo.name)
		}
	}
}

func TestObserverIsToldNoSecret(t *testing.T) {
	for _, secret := range []string{plainSecret, oddSecret} {
		for place, answer := range echoing {
			t.Run(fmt.Sprintf("%q/%s", secret, place), func(t *testing.T) {
				echoed := answer(inEveryWay(secret, echoes))
				text := told(t, secret, echoed, canaryReply, echoed)
				requireUntold(t, text, secret, echoes)
				requireUntold(t, text, tokenCanary, plainEchoes)
			})
		}
	}
}

func inEveryWay(canary string, echoes []echo) string {
	var ways []string
	for _, echo := range echoes {
		ways = append(ways, echo.encode(canary))
	}
	return strings.Join(ways, " ")
}

// plainEchoes are those that also apply to what isn't a credential.
var plainEchoes = func() (list []echo) {
	for _, echo := range echoes {
		switch echo.name {
		case "raw", "form", "JSON", "HTML":
			list = append(list, echo)
		}
	}
	return list
}()

// The library itself never names a scope in an event. A server's error text may do so.
func TestObserverIsToldNoScope(t *testing.T) {
	for place, answer := range echoing {
		t.Run(place, func(t *testing.T) {
			failing := answer("nothing")
			requireUntold(t, told(t, plainSecret, failing, canaryReply, failing), scopeCanary, plainEchoes)
		})
	}
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
	fields := reflect.ValueOf(joined).Elem()
	for i := range fields.NumField() {
		require.False(t, fields.Field(i).IsNil(), fields.Type().Field(i).Name)
	}
	require.Equal(t, Observer{}, *JoinObservers(nil, new(Observer)), "functions that are nil in all Observers stay nil")
	alone := note("alone")
	joined = JoinObservers(alone)
	for i := range fields.NumField() {
		require.Equal(t, reflect.ValueOf(alone).Elem().Field(i).Pointer(), reflect.ValueOf(joined).Elem().Field(i).Pointer())
	}
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

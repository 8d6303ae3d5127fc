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

// A recorder writes down what an Observer is told. What a caller gets and what
// becomes of the flight it waited for is told by two goroutines, in either order,
// and so it is kept apart.
type recorder struct {
	mu     sync.Mutex // protects what follows
	served []event.TokenServed
	failed []event.TokenFailed
	events []any // all other infos
}

// record makes the world's Config tell a recorder.
func (w *world) record() *recorder {
	r := new(recorder)
	w.conf.Observer = observe(r.note)
	return r
}

func (r *recorder) note(info any) {
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
}

// take returns what has been told since it was called last.
func (r *recorder) take() (served []event.TokenServed, events []any) {
	synctest.Wait() // A flight tells of itself after its callers have left.
	r.mu.Lock()
	defer r.mu.Unlock()
	served, events = r.served, r.events
	r.served, r.events = nil, nil
	return served, events
}

// takeFailed returns the callers without a token since it was called last.
func (r *recorder) takeFailed() []event.TokenFailed {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := r.failed
	r.failed = nil
	return failed
}

type served []event.TokenServed

// expect checks what has been told since the last call of it or of take.
func (r *recorder) expect(t *testing.T, wantServed served, wantEvents ...any) {
	t.Helper()
	gotServed, gotEvents := r.take()
	require.Equal(t, []event.TokenServed(wantServed), gotServed)
	require.Equal(t, wantEvents, gotEvents)
}

var fromMemory = served{{}}

func TestObserverColdStartAndMemory(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		w.auth.Latency = 3 * time.Second
		s := w.conf.Source(w.ctx)
		r.expect(t, nil)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = s.Token() })
		time.Sleep(time.Second)
		wg.Go(func() { _, _ = s.Token() }) // Waits for the same flight.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.TokenContext(ctx) // Leaves before it lands.
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, []event.TokenFailed{{Waited: time.Second, Err: err}}, r.takeFailed())
		r.expect(t, nil, event.RefreshStarted{})
		wg.Wait()
		gotServed, events := r.take()
		require.ElementsMatch(t, served{
			{From: event.FromServer, Waited: 3 * time.Second},
			{From: event.FromServer, Waited: 2 * time.Second},
		}, gotServed)
		require.Equal(t, []any{event.RefreshDone{Duration: 3 * time.Second, Attempts: 1, Life: time.Hour, From: event.FromServer}}, events)

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
		r.expect(t, served{{From: event.FromServer}}, event.RefreshStarted{}, event.RefreshDone{Attempts: 1, From: event.FromServer})
	})
}

func TestObserverIsToldOfEveryRequest(t *testing.T) {
	for _, kind := range []string{"Client", "Transport"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				r := w.record()
				client := w.clients()[kind]
				get := func() {
					t.Helper()
					_, err := w.get(t, client)
					require.NoError(t, err)
				}
				get()
				r.expect(t, served{{From: event.FromServer}}, event.RefreshStarted{}, event.RefreshDone{Attempts: 1, Life: time.Hour, From: event.FromServer})
				get()
				r.expect(t, fromMemory)
			})
		})
	}
}

func TestObserverBackgroundRefresh(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		time.Sleep(57 * time.Minute)
		r.take()
		w.auth.Latency = 3 * time.Second
		promptly(t, s)
		promptly(t, s)
		r.expect(t, served{{Stale: true}, {Stale: true}}, event.RefreshStarted{Background: true})
		time.Sleep(3 * time.Second)
		r.expect(t, nil, event.RefreshDone{Duration: 3 * time.Second, Attempts: 1, Life: time.Hour, From: event.FromServer})
		promptly(t, s)
		r.expect(t, fromMemory)
	})
}

// TestObserverShortlyBeforeExpiry has a caller wait for a moment, though there
// is a valid token, and get the old one or the new one.
func TestObserverShortlyBeforeExpiry(t *testing.T) {
	for latency, want := range map[time.Duration]served{
		time.Second / 2: {{From: event.FromServer, Waited: time.Second / 2}},
		5 * time.Second: {{Waited: hardPatience, Stale: true}},
	} {
		t.Run(latency.String(), func(t *testing.T) {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				r := w.record()
				s := w.conf.Source(w.ctx)
				promptly(t, s)
				time.Sleep(time.Hour - 8*time.Second)
				r.take()
				w.auth.Latency = latency
				_, err := s.Token()
				require.NoError(t, err)
				time.Sleep(latency)
				r.expect(t, want, event.RefreshStarted{Background: true}, event.RefreshDone{Duration: latency, Attempts: 1, Life: time.Hour, From: event.FromServer})
			})
		})
	}
}

func TestObserverRetry(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		// With a delay: a failure in no time may be over before the flight knows
		// that somebody waits for it.
		w.auth.Script(
			clientcredentialstest.Fault{Delay: time.Second, Status: 503},
			clientcredentialstest.Fault{Delay: time.Second, Reset: true},
		)
		start := time.Now()
		_, err := w.conf.Source(w.ctx).Token()
		require.NoError(t, err)
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
				cancel() // The flight is over before it has begun.
				time.Sleep(time.Millisecond)
				told = append(told, "started")
			},
			RefreshFailed: func(event.RefreshFailed) { told = append(told, "failed") },
		}
		_, err := w.conf.Source(ctx).Token()
		require.ErrorIs(t, err, context.Canceled)
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
		w.auth.SetFault(&fault)
		for failures := 1; failures <= cooldownFree; failures++ {
			_, err := s.Token()
			require.Error(t, err)
			want := []any{event.RefreshStarted{}, event.RefreshFailed{Duration: time.Second, Err: err}}
			if failures == cooldownFree {
				until := s.Status().NextRefresh
				require.True(t, until.After(time.Now()))
				want = append(want, event.Cooldown{Failures: cooldownFree, Until: until})
			}
			r.expect(t, nil, want...)
			require.Equal(t, []event.TokenFailed{{Waited: time.Second, Err: err}}, r.takeFailed())
		}
		_, err := s.Token() // Gets the last error.
		require.Error(t, err)
		r.expect(t, nil)
		require.Equal(t, []event.TokenFailed{{Err: err}}, r.takeFailed())

		w.auth.SetFault(nil)
		time.Sleep(minCooldown)
		promptly(t, s)
		r.expect(t, served{{From: event.FromServer}}, event.RefreshStarted{}, event.RefreshDone{Attempts: 1, Life: time.Hour, From: event.FromServer})
		require.Empty(t, r.takeFailed())
	})
}

// TestObserverFailureWithoutRequest is about what is found out before.
func TestObserverFailureWithoutRequest(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		w.conf.TokenURL = ""
		_, err := w.conf.Source(w.ctx).Token()
		require.Error(t, err)
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
			clientcredentialstest.Unavailable(), // It isn't tried again while nobody needs it.
			clientcredentialstest.TooManyRequests(time.Minute),
		} {
			w.auth.SetFault(&fault)
			promptly(t, s)
			synctest.Wait()
			status := s.Status()
			require.True(t, status.NextRefresh.After(time.Now()))
			r.expect(t, served{{Stale: true}},
				event.RefreshStarted{Background: true},
				event.RefreshFailed{Err: status.LastError},
				event.Cooldown{Failures: failures + 1, Until: status.NextRefresh})
			promptly(t, s)
			r.expect(t, served{{Stale: true}})
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
		promptly(t, s)
		s.Invalidate(token)
		r.expect(t, served{{From: event.FromServer}}, event.RefreshStarted{}, event.RefreshDone{Attempts: 1, Life: time.Hour, From: event.FromServer})
	})
}

// TestObserverInvalidationDuringTheFlight has the flight's first token dropped on
// arrival. There is one flight all the same.
func TestObserverInvalidationDuringTheFlight(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		r := w.record()
		s := w.conf.Source(w.ctx)
		token := promptly(t, s)
		time.Sleep(57 * time.Minute)
		r.take()
		w.auth.Latency = 2 * time.Second
		promptly(t, s)
		time.Sleep(time.Second)
		s.Invalidate(token)
		_, err := s.Token()
		require.NoError(t, err)
		r.expect(t, served{{Stale: true}, {From: event.FromServer, Waited: 3 * time.Second}},
			event.RefreshStarted{Background: true},
			event.Invalidated{},
			event.RefreshDone{Duration: 4 * time.Second, Attempts: 1, Life: time.Hour, From: event.FromServer})
	})
}

func TestObserverRejectedToken(t *testing.T) {
	for _, kind := range []string{"Client", "Transport"} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			r := w.record()
			client := w.clients()[kind]
			_, err := w.get(t, client)
			require.NoError(t, err)
			r.take()

			w.auth.RevokeAll()
			resp, err := w.get(t, client)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			_, events := r.take() // TestObserverIsToldOfEveryRequest looks at what was served.
			require.Equal(t, []any{event.Invalidated{Reason: event.Rejected}, event.RefreshStarted{}, event.RefreshDone{Attempts: 1, Life: time.Hour, From: event.FromServer}}, events, kind)

			// Soon after, a rejected token is kept.
			w.auth.RevokeAll()
			resp, err = w.get(t, client)
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
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
		for _, kind := range []string{"Client", "Transport"} {
			t.Run(test.name+"/"+kind, func(t *testing.T) {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					r := w.record()
					w.conf.Origins = test.origins
					w.conf.HTTPClient, _ = contextClient(w.ctx)
					network := new(redirecting)
					w.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: network})
					resp, err := w.clients()[kind].Get(strings.Join(test.chain, "/"))
					require.Equal(t, test.sent == 0, err != nil, "%v", err)
					if err == nil {
						resp.Body.Close()
					}
					require.Len(t, network.hops, test.sent)
					_, events := r.take()
					var refused []string
					for _, e := range events {
						if info, ok := e.(event.OriginRefused); ok {
							refused = append(refused, info.Origin)
						}
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

// hosts says which addresses can be overheard, and how Observer names them.
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
				done := event.RefreshDone{Attempts: 1, Life: time.Hour, From: event.FromServer}
				for range 2 { // Each Source tells.
					s := w.conf.Source(w.ctx)
					token := promptly(t, s)
					want := []any{event.RefreshStarted{}, done}
					if host.origin != "" {
						want = []any{event.RefreshStarted{}, event.Insecure{Origin: host.origin}, done}
					}
					_, events := r.take()
					require.Equal(t, want, events)
					s.Invalidate(token)
					promptly(t, s) // It tells once.
					_, events = r.take()
					require.Equal(t, []any{event.Invalidated{}, event.RefreshStarted{}, done}, events)
				}

				w.conf.Strict = true
				before := w.auth.TokenRequests()
				for name, call := range map[string]func() (*oauth2.Token, error){
					"Token":       func() (*oauth2.Token, error) { return w.conf.Token(w.ctx) },
					"Source":      w.conf.Source(w.ctx).Token,
					"TokenSource": w.conf.TokenSource(w.ctx).Token,
				} {
					_, err := call()
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
		for _, kind := range []string{"Client", "Transport"} {
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
					for range 2 { // Each Source tells, once.
						client := w.clients()[kind]
						var wg sync.WaitGroup
						for range 10 {
							wg.Go(func() { require.NoError(t, get(client)) })
						}
						wg.Wait()
						_, events := r.take()
						var got []event.Insecure
						for _, e := range events {
							if info, ok := e.(event.Insecure); ok {
								got = append(got, info)
							}
						}
						require.Equal(t, want, got)
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

// everything makes each kind of event happen at least once.
func everything(t *testing.T, w *world, client *http.Client) {
	t.Helper()
	w.conf.TokenURL = "http://auth.example/token"
	w.api.Handler = http.HandlerFunc(func(resp http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/away" {
			http.Redirect(resp, req, "https://other.example/", http.StatusTemporaryRedirect)
		}
	})
	get := func(path string, status int) {
		t.Helper()
		resp, err := client.Get("http://api.example/" + path)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		require.Equal(t, status, resp.StatusCode)
	}
	w.auth.Script(clientcredentialstest.Fault{Delay: time.Second, Status: http.StatusServiceUnavailable})
	get("", http.StatusOK)               // Insecure, RefreshStarted, Insecure, Retry, RefreshDone, TokenServed
	get("away", http.StatusUnauthorized) // OriginRefused
	w.auth.RevokeAll()                   //
	get("", http.StatusOK)               // Invalidated
	time.Sleep(57 * time.Minute)         //
	w.auth.Script(clientcredentialstest.InvalidClient())
	get("", http.StatusOK) // RefreshFailed, Cooldown
	time.Sleep(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api.example/", nil)
	require.NoError(t, err)
	_, err = client.Do(req) // TokenFailed
	require.ErrorIs(t, err, context.Canceled)
	synctest.Wait()
}

// withoutStore is how many fields of Observer everything leaves out: StoreOperation,
// and TraceRefresh, which takes no info.
const withoutStore = 2

func TestEverything(t *testing.T) {
	for _, kind := range []string{"Client", "Transport"} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			r := w.record()
			everything(t, w, w.clients()[kind])
			gotServed, events := r.take()
			require.NotEmpty(t, gotServed)
			require.NotEmpty(t, r.takeFailed())
			kinds := map[reflect.Type]bool{reflect.TypeFor[event.TokenServed](): true, reflect.TypeFor[event.TokenFailed](): true}
			for _, e := range events {
				kinds[reflect.TypeOf(e)] = true
			}
			require.Len(t, kinds, reflect.TypeFor[Observer]().NumField()-withoutStore)
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
		for _, kind := range []string{"Client", "Transport"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					w.conf.Observer = observer
					everything(t, w, w.clients()[kind])
				})
			})
		}
	}
}

// TestObserverMayAskTheSource would hang if a function were called while the
// Source's lock is held.
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
		everything(t, w, &http.Client{Transport: transport})
		require.Len(t, asked, reflect.TypeFor[Observer]().NumField()-withoutStore)
	})
}

// TestObserverHoldsNoLock has an Observer make API calls with the client that it
// observes, as one does that sends logs. It runs outside of a bubble, which can't
// see who waits for a lock.
func TestObserverHoldsNoLock(t *testing.T) {
	ctx, _ := answering(t.Context(), `{"access_token":"t"}`)
	conf := &Config{TokenURL: "https://auth.example/token"}
	conf.HTTPClient, _ = contextClient(ctx)
	client := &http.Client{Transport: &Transport{Source: conf.Source(ctx), Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
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
	for _, test := range []struct {
		info  any
		level slog.Level
		text  string // after the level
		json  string
	}{
		{event.TokenServed{}, slog.LevelDebug, ``, ``},
		{event.TokenServed{Stale: true}, slog.LevelDebug, ``, ``},
		{
			event.TokenServed{From: event.FromServer, Waited: 1500 * time.Millisecond},
			slog.LevelDebug,
			`msg="oauth2: waited for a token" from=server waited=1.5s`,
			`"msg":"oauth2: waited for a token","from":"server","waited":1500000000`,
		},
		{
			event.TokenFailed{Waited: time.Second, Err: failure},
			slog.LevelDebug,
			`msg="oauth2: a caller got no token" waited=1s error="first line\nsecond line"`,
			`"msg":"oauth2: a caller got no token","waited":1000000000,"error":"first line\nsecond line"`,
		},
		{
			event.RefreshStarted{Background: true},
			slog.LevelDebug,
			`msg="oauth2: requesting a token" background=true`,
			`"msg":"oauth2: requesting a token","background":true`,
		},
		{
			event.RefreshDone{Duration: time.Second, Attempts: 2, Life: time.Hour, From: event.FromServer},
			slog.LevelDebug,
			`msg="oauth2: got a token" duration=1s from=server attempts=2 life=1h0m0s`,
			`"msg":"oauth2: got a token","duration":1000000000,"from":"server","attempts":2,"life":3600000000000`,
		},
		{
			event.RefreshFailed{Duration: time.Second, Err: failure},
			slog.LevelWarn,
			`msg="oauth2: got no token" duration=1s error="first line\nsecond line"`,
			`"msg":"oauth2: got no token","duration":1000000000,"error":"first line\nsecond line"`,
		},
		{
			event.Retry{Attempt: 1, Delay: time.Second, Err: failure},
			slog.LevelInfo,
			`msg="oauth2: trying again to get a token" attempt=1 delay=1s error="first line\nsecond line"`,
			`"msg":"oauth2: trying again to get a token","attempt":1,"delay":1000000000,"error":"first line\nsecond line"`,
		},
		{
			event.Cooldown{Failures: 5, Until: until},
			slog.LevelInfo,
			`msg="oauth2: requesting no token for a while" failures=5 until=2026-01-02T03:04:05.000Z`,
			`"msg":"oauth2: requesting no token for a while","failures":5,"until":"2026-01-02T03:04:05Z"`,
		},
		{
			event.Invalidated{Reason: event.Rejected},
			slog.LevelInfo,
			`msg="oauth2: dropped a token" reason=rejected`,
			`"msg":"oauth2: dropped a token","reason":"rejected"`,
		},
		{
			event.StoreOperation{Operation: "acquire", State: tokenstore.ClaimHit, Duration: time.Millisecond},
			slog.LevelDebug,
			`msg="oauth2: called the store of shared tokens" operation=acquire duration=1ms state=hit`,
			`"msg":"oauth2: called the store of shared tokens","operation":"acquire","duration":1000000,"state":"hit"`,
		},
		{
			event.StoreOperation{Operation: "publish", Duration: time.Millisecond, Err: tokenstore.ErrLeaseLost},
			slog.LevelDebug,
			`msg="oauth2: called the store of shared tokens" operation=publish duration=1ms`,
			`"msg":"oauth2: called the store of shared tokens","operation":"publish","duration":1000000`,
		},
		{
			event.StoreOperation{Operation: "publish", Duration: time.Millisecond, Err: failure},
			slog.LevelWarn,
			`msg="oauth2: the store of shared tokens failed; going on without it" operation=publish duration=1ms error="first line\nsecond line"`,
			`"msg":"oauth2: the store of shared tokens failed; going on without it","operation":"publish","duration":1000000,"error":"first line\nsecond line"`,
		},
		{
			event.OriginRefused{Origin: "https://other.example:443"},
			slog.LevelWarn,
			`msg="oauth2: kept the token from an origin" origin=https://other.example:443 outcome=request_refused`,
			`"msg":"oauth2: kept the token from an origin","origin":"https://other.example:443","outcome":"request_refused"`,
		},
		{
			event.Insecure{Origin: "http://auth.example:80"},
			slog.LevelWarn,
			`msg="oauth2: credentials travel in cleartext; use https" origin=http://auth.example:80`,
			`"msg":"oauth2: credentials travel in cleartext; use https","origin":"http://auth.example:80"`,
		},
	} {
		for _, least := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
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
		everything(t, w, w.clients()["Transport"])
		require.Equal(t, `level=WARN msg="oauth2: credentials travel in cleartext; use https" origin=http://api.example:80
level=WARN msg="oauth2: credentials travel in cleartext; use https" origin=http://auth.example:80
level=WARN msg="oauth2: kept the token from an origin" origin=https://other.example:443 outcome=sent_without_token
level=WARN msg="oauth2: got no token" duration=0s error="oauth2: \"invalid_client\" \"scripted fault\""
`, out.String())
	})
}

// told returns everything that comes out of an Observer's infos while a token
// endpoint gives such answers: by printing them, and by SlogObserver. There is a
// token between the first answers and the last one, which comes when the token is
// to be replaced.
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

// echoing are answers that repeat what must not get into a log.
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
	"HTML": func(echoed string) reply {
		return reply{mediaType: "text/html", body: "<pre>" + echoed + "</pre>"}
	},
	"network error": func(echoed string) reply { return reply{err: errors.New("cannot send " + echoed)} },
	"cut":           func(echoed string) reply { return reply{body: "{", bodyErr: errors.New("cannot read " + echoed)} },
}

// requireUntold is requireMasked, and shows no more than the line in question.
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

// plainEchoes are those in which a server may repeat what isn't a credential.
var plainEchoes = func() (list []echo) {
	for _, echo := range echoes {
		switch echo.name {
		case "raw", "form", "JSON", "HTML":
			list = append(list, echo)
		}
	}
	return list
}()

// TestObserverIsToldNoScope: by the library. A server's error text may name one.
func TestObserverIsToldNoScope(t *testing.T) {
	for place, answer := range echoing {
		t.Run(place, func(t *testing.T) {
			failing := answer("nothing")
			requireUntold(t, told(t, plainSecret, failing, canaryReply, failing), scopeCanary, plainEchoes)
		})
	}
}

// TestObserverThatMisbehaves: no function of an Observer keeps callers from their
// token for longer than a token request may take, or ends the program.
func TestObserverThatMisbehaves(t *testing.T) {
	for how, misbehave := range map[string]func(){
		"panic":  func() { panic("in an Observer") },
		"goexit": runtime.Goexit,
		"block":  func() { time.Sleep(time.Hour) },
	} {
		for event, observe := range map[string]func() *Observer{
			"RefreshStarted": func() *Observer { return &Observer{RefreshStarted: func(event.RefreshStarted) { misbehave() }} },
			"RefreshDone":    func() *Observer { return &Observer{RefreshDone: func(event.RefreshDone) { misbehave() }} },
			"RefreshFailed":  func() *Observer { return &Observer{RefreshFailed: func(event.RefreshFailed) { misbehave() }} },
			"Cooldown":       func() *Observer { return &Observer{Cooldown: func(event.Cooldown) { misbehave() }} },
			"Retry":          func() *Observer { return &Observer{Retry: func(event.Retry) { misbehave() }} },
			"Insecure":       func() *Observer { return &Observer{Insecure: func(event.Insecure) { misbehave() }} },
		} {
			t.Run(how+" in "+event, func(t *testing.T) {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					w.conf.TokenURL = "http://auth.example/token"
					w.conf.Observer = observe()
					fault := clientcredentialstest.Unavailable()
					w.auth.SetFault(&fault)
					s := w.conf.Source(w.ctx)
					for i := range 10 {
						if i == 8 {
							w.auth.SetFault(nil)
							time.Sleep(time.Hour)
						}
						start := time.Now()
						_, _ = s.Token()
						require.LessOrEqual(t, time.Since(start), defaultTotalTimeout)
					}
					w.conf.Observer = nil
					time.Sleep(2 * time.Hour)
					_, err := s.Token()
					require.NoError(t, err)
				})
			})
		}
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

	// Every field is joined, also those that are added one day.
	fields := reflect.ValueOf(joined).Elem()
	for i := range fields.NumField() {
		require.False(t, fields.Field(i).IsNil(), fields.Type().Field(i).Name)
	}
	require.Equal(t, Observer{}, *JoinObservers(nil, new(Observer)), "what nobody wants to know isn't asked for")
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
		token, err := s.Token()
		require.NoError(t, err)
		s.Invalidate(token)
		_, err = s.Token()
		require.Error(t, err)
		synctest.Wait()
		require.Equal(t, []string{"trace", "started", "request in span", "failed", "end true"}, events)

		// What it returns may be nil.
		w.conf.Observer = &Observer{TraceRefresh: func(context.Context) (context.Context, func(error)) { return nil, nil }}
		promptly(t, s)

		// A panic in it changes nothing.
		w.conf.Observer = &Observer{TraceRefresh: func(context.Context) (context.Context, func(error)) { panic("here") }}
		promptly(t, w.conf.Source(w.ctx))
		w.conf.Observer = &Observer{TraceRefresh: func(ctx context.Context) (context.Context, func(error)) {
			return ctx, func(error) { panic("here") }
		}}
		promptly(t, w.conf.Source(w.ctx))
	})
}

func TestTokenFrom(t *testing.T) {
	require.Equal(t, "memory store server TokenFrom(3)", fmt.Sprint(event.FromMemory, " ", event.FromStore, " ", event.FromServer, " ", event.TokenFrom(3)))
	require.Equal(t, "lead hit wait cooling ClaimState(0)", fmt.Sprint(tokenstore.ClaimLead, " ", tokenstore.ClaimHit, " ", tokenstore.ClaimWait, " ", tokenstore.ClaimCooling, " ", tokenstore.ClaimState(0)))
}

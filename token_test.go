package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

func TestColdCallersShareOneFlight(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = time.Second
		s := w.conf.Source(w.ctx)
		var wg sync.WaitGroup
		var tokens sync.Map
		for range 100 {
			wg.Go(func() {
				token, err := s.Token()
				if err == nil {
					tokens.Store(token.AccessToken, token)
				}
			})
		}
		wg.Wait()
		n := 0
		tokens.Range(func(any, any) bool { n++; return true })
		require.Equal(t, 1, n)
		require.Equal(t, 1, w.auth.TokenRequests())
		require.Equal(t, Fresh, s.Status().State)
	})
}

func TestF1_SlowRefreshBoundedByEachCaller(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		time.Sleep(2 * time.Hour)
		w.auth.Latency = 2 * time.Second
		start := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, err := s.TokenContext(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 100*time.Millisecond, time.Since(start))
				var timeout interface{ Timeout() bool }
				require.ErrorAs(t, err, &timeout)
				require.True(t, timeout.Timeout())
			})
		}
		wg.Wait()
		time.Sleep(2 * time.Second)
		promptly(t, s) // The refresh went on without them.
		require.Equal(t, 2, w.auth.TokenRequests())
	})
}

func TestWaitErrorTellsTheCause(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = time.Second
		s := w.conf.Source(w.ctx)
		ctx, cancel := context.WithCancelCause(t.Context())
		because := errors.New("shutting down")
		time.AfterFunc(time.Millisecond, func() { cancel(because) })
		_, err := s.TokenContext(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, because)
		require.ErrorContains(t, err, "oauth2: cannot fetch token")
		time.Sleep(time.Second)
	})
}

func TestStaleTokenIsServedWhileOneRefreshRuns(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(55 * time.Minute)
		time.Sleep(75 * time.Second) // Past the latest moment that the soft window draws.
		require.Equal(t, Stale, s.Status().State)
		w.auth.Latency = 8 * time.Second
		for range 100 {
			require.Equal(t, first.AccessToken, promptly(t, s).AccessToken)
		}
		time.Sleep(8*time.Second + 1)
		require.NotEqual(t, first.AccessToken, promptly(t, s).AccessToken)
		require.Equal(t, 2, w.auth.TokenRequests())
	})
}

func TestF10_OutageServesToTheTrueExpiry(t *testing.T) {
	for _, fault := range []clientcredentialstest.Fault{
		clientcredentialstest.Unavailable(),
		clientcredentialstest.ConnectionReset(),
		{Delay: 2 * time.Second, Status: http.StatusBadGateway},
		{Delay: time.Hour}, // Black hole: each request ends by its deadline.
	} {
		bubble(t, time.Minute, func(t *testing.T, w *world) {
			s := w.conf.Source(w.ctx)
			first := promptly(t, s)
			start := time.Now()
			w.auth.SetFault(&fault)
			var waited time.Duration
			for time.Since(start) < time.Minute {
				before := time.Now()
				token, err := s.Token()
				require.NoError(t, err, "after %v", time.Since(start))
				require.Equal(t, first.AccessToken, token.AccessToken)
				waited += time.Since(before)
				time.Sleep(99 * time.Millisecond)
			}
			require.LessOrEqual(t, waited, hardPatience, "of callers whose token was valid")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := s.TokenContext(ctx)
			require.Error(t, err)
			require.Equal(t, Failed, s.Status().State)
			require.Equal(t, err, s.Status().LastError)

			w.auth.SetFault(nil)
			time.Sleep(maxCooldown)
			token, err := s.Token()
			require.NoError(t, err)
			require.NotEqual(t, first.AccessToken, token.AccessToken)
			require.NoError(t, s.Status().LastError)
		})
	}
}

func TestHardWindow(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)

		time.Sleep(time.Hour - 5*time.Second)
		w.auth.Latency = 300 * time.Millisecond
		start := time.Now()
		second, err := s.Token()
		require.NoError(t, err)
		require.NotEqual(t, first.AccessToken, second.AccessToken)
		require.Equal(t, 300*time.Millisecond, time.Since(start), "the first idle caller waits for the new token")

		time.Sleep(time.Hour - 5*time.Second)
		w.auth.Latency = 3 * time.Second
		start = time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				token, err := s.Token()
				require.NoError(t, err)
				require.Equal(t, second.AccessToken, token.AccessToken)
				require.Equal(t, hardPatience, time.Since(start), "but not for long: the one it has is valid")
			})
		}
		wg.Wait()
		require.Equal(t, second.AccessToken, promptly(t, s).AccessToken, "later callers not at all")

		time.Sleep(2*time.Second + 1)
		require.NotEqual(t, second.AccessToken, promptly(t, s).AccessToken)
		require.Equal(t, 3, w.auth.TokenRequests())

		// The end of a caller's context is no reason to refuse a valid token.
		time.Sleep(time.Hour - 5*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = s.TokenContext(ctx)
		require.NoError(t, err)
		require.Error(t, ctx.Err())
		time.Sleep(time.Minute)
	})
}

func TestTokenDoesNotExpireWhileItsReplacementIsWaitedFor(t *testing.T) {
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(59600 * time.Millisecond)
		w.auth.Script(clientcredentialstest.Fault{Delay: 5 * time.Second, Status: 503})
		start := time.Now()
		token, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, first.AccessToken, token.AccessToken)
		require.Equal(t, 200*time.Millisecond, time.Since(start))
		time.Sleep(time.Minute)
	})
}

func TestF4_ConstructionContext(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(w.ctx)
		s := w.conf.Source(ctx)
		first := promptly(t, s)
		cancel()
		time.Sleep(time.Hour - 1)
		require.Equal(t, first.AccessToken, promptly(t, s).AccessToken)
		time.Sleep(1)
		_, err := s.Token()
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "the context given to Config.")
		require.Equal(t, 1, w.auth.TokenRequests())

		// Even a RoundTripper that looks at no context gets no request.
		heedless, requests := answering(ctx, `{"access_token":"t"}`)
		_, err = w.conf.Source(heedless).Token()
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, requests.Load())

		// A request under way ends with it, as upstream's does.
		ctx, cancel = context.WithCancel(w.ctx)
		w.auth.Latency = time.Minute
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err = w.conf.Source(ctx).Token()
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "the context given to Config.")
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestF12_LifeCountsFromBeforeSending(t *testing.T) {
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		w.auth.Latency = 8 * time.Second
		s := w.conf.Source(w.ctx)
		start := time.Now()
		token, err := s.Token()
		require.NoError(t, err)
		require.WithinDuration(t, start.Add(time.Minute), token.Expiry, 0)
		require.WithinDuration(t, token.Expiry, s.Status().Expiry, 0)
		token2, err := w.conf.Token(w.ctx)
		require.NoError(t, err)
		require.WithinDuration(t, start.Add(68*time.Second), token2.Expiry, 0)
	})
}

func TestF13_InvalidateOvertakesTheFlight(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(59 * time.Minute)
		w.auth.Latency = 5 * time.Second // Tokens are issued at once, and answered late.
		promptly(t, s)                   // Starts the refresh.
		time.Sleep(time.Second)
		w.auth.RevokeAll()
		s.Invalidate(first)
		s.Invalidate(first) // Once is enough.
		token, err := s.Token()
		require.NoError(t, err)
		_, valid := w.auth.Introspect(token.AccessToken)
		require.True(t, valid, "the flight landed with a token from before the revocation")
		require.Equal(t, token.AccessToken, promptly(t, s).AccessToken)
		require.Equal(t, 3, w.auth.TokenRequests())
	})
}

func TestInvalidateReachesWhoCouldStillUseTheToken(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(time.Hour - 5*time.Second)
		w.auth.Latency = 3 * time.Second
		time.AfterFunc(500*time.Millisecond, func() { s.Invalidate(first) })
		token, err := s.Token() // Would be content with first after a second.
		require.NoError(t, err)
		require.NotEqual(t, first.AccessToken, token.AccessToken)
	})
}

func TestInvalidate(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		s.Invalidate(nil)
		(*Source)(nil).Invalidate(&oauth2.Token{})
		s.Invalidate(&oauth2.Token{}) // Nothing to drop.
		first := promptly(t, s)
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				s.Invalidate(first)
				_, err := s.Token()
				require.NoError(t, err)
			})
		}
		wg.Wait()
		require.Equal(t, 2, w.auth.TokenRequests())
		second := promptly(t, s)
		s.Invalidate(first) // Late: must not kill the newer token.
		require.Equal(t, second.AccessToken, promptly(t, s).AccessToken)
	})
}

func TestF18_PanicInTheTokenRequest(t *testing.T) {
	for name, misbehave := range map[string]func(){
		"panic":         func() { panic("canary-secret") },
		"runtime error": func() { panic(new(runtime.TypeAssertionError)) },
		"goexit":        runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				var once sync.Once
				base, _ := contextClient(w.ctx)
				w.conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					once.Do(misbehave)
					return base.Transport.RoundTrip(req)
				})}
				s := w.conf.Source(w.ctx)
				_, err := s.Token()
				require.ErrorContains(t, err, "oauth2: cannot fetch token")
				require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "canary")
				promptly(t, s)
			})
		})
	}
}

func TestH2_ReturnedTokensAreCopies(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s, client := w.conf.Source(w.ctx), w.conf.Client(w.ctx).Transport.(*oauth2.Transport).Source
		for _, source := range []oauth2.TokenSource{s, client} {
			token, err := source.Token()
			require.NoError(t, err)
			want := token.AccessToken
			for range 2 { // The first is a new token, the second comes from the cache.
				token.AccessToken, token.TokenType, token.Expiry = "edited", "edited", time.Time{}
				again, err := source.Token()
				require.NoError(t, err)
				require.Equal(t, want, again.AccessToken)
				require.NotZero(t, again.Expiry)
				token = again
			}
		}
	})
}

func TestH3_EarlierOfWallAndMonotonicClock(t *testing.T) {
	c := newCachedToken(&tokenResponse{Response: &tokenresponse.Response{AccessToken: "x", ExpiresIn: 3600}, sent: time.Now(), floor: minReuse}, 0, 0)
	require.Equal(t, Fresh, c.state(c.sent.Time().Add(time.Minute)))
	require.Equal(t, Expired, c.state(c.sent.Time().Add(time.Hour)))

	slept := *c
	slept.sent = c.sent.MoveWallClock(2 * time.Hour) // The monotonic clock stood still.
	require.Equal(t, Expired, slept.state(c.sent.Time().Add(time.Minute)))

	setBack := *c
	setBack.sent = c.sent.MoveWallClock(-time.Hour) // Now it is an hour earlier.
	require.Equal(t, Fresh, setBack.state(c.sent.Time().Add(time.Minute)))
	require.Equal(t, Expired, setBack.state(c.sent.Time().Add(time.Hour)))
}

func TestH4_DoneContextRequestsNothing(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		done, cancel := context.WithCancel(t.Context())
		cancel()
		s := w.conf.Source(w.ctx)
		_, err := s.TokenContext(done)
		require.ErrorIs(t, err, context.Canceled)
		for _, client := range []*http.Client{w.conf.Client(w.ctx), {Transport: w.conf.Transport(w.ctx)}} {
			body := &closeCounter{Reader: strings.NewReader("x")}
			req, err := http.NewRequestWithContext(done, "POST", worldAPI, body)
			require.NoError(t, err)
			_, err = client.Transport.RoundTrip(req)
			require.ErrorIs(t, err, context.Canceled)
			require.EqualValues(t, 1, body.closed.Load())
		}
		synctest.Wait()
		require.Zero(t, w.auth.TokenRequests())
		require.Empty(t, w.api.Requests())

		promptly(t, s)
		time.Sleep(59 * time.Minute)
		_, err = s.TokenContext(done) // Stale: usable, and no reason to start a refresh.
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 1, w.auth.TokenRequests())
	})
}

func TestH5_FieldsAreCopiedAtTheStartOfAFlight(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = time.Second
		w.conf.AuthStyle = oauth2.AuthStyleAutoDetect // Two requests: both must say the same.
		w.auth.Script(clientcredentialstest.Fault{Delay: time.Second, Status: http.StatusUnauthorized})
		w.conf.EndpointParams = url.Values{"audience": {"one"}}
		w.conf.Scopes = []string{"a", "b"}
		s := w.conf.Source(w.ctx)
		landed := make(chan error)
		go func() {
			_, err := s.Token()
			landed <- err
		}()
		synctest.Wait() // The flight is in the air.
		w.conf.EndpointParams["audience"][0] = "two"
		w.conf.EndpointParams["more"] = []string{"x"}
		w.conf.Scopes[0] = "z"
		w.conf.ClientSecret = "changed"
		require.NoError(t, <-landed)
		require.Equal(t, 2, w.auth.TokenRequests())
		form := w.auth.Requests()[1].Form
		require.Equal(t, "one", form.Get("audience"))
		require.Equal(t, "a b", form.Get("scope"))
		require.NotContains(t, form, "more")

		time.Sleep(2 * time.Hour)
		_, err := s.Token() // With what the fields say now.
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, "z b", w.auth.Requests()[2].Form.Get("scope"))
	})
}

func TestP1c_ShortTokensAreReusedForASecond(t *testing.T) {
	for _, expiresIn := range []int{-1, -2147483649, 1} {
		synctest.Test(t, func(t *testing.T) {
			ctx, requests := answering(t.Context(), fmt.Sprintf(`{"access_token":"t%%","expires_in":%d}`, expiresIn))
			s := (&Config{TokenURL: "https://auth.example/token"}).Source(ctx)
			for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
				_, err := s.Token()
				require.NoError(t, err)
			}
			require.EqualValues(t, 10, requests.Load())
		})
	}
}

func TestTokenWithoutExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, requests := answering(t.Context(), `{"access_token":"t%"}`)
		s := (&Config{TokenURL: "https://auth.example/token"}).Source(ctx)
		token := promptly(t, s)
		require.Zero(t, token.Expiry)
		time.Sleep(100 * 365 * 24 * time.Hour)
		require.Equal(t, token, promptly(t, s))
		require.Equal(t, Status{State: Fresh}, s.Status())
		s.Invalidate(token)
		require.Equal(t, "t2", promptly(t, s).AccessToken)
		require.EqualValues(t, 2, requests.Load())
	})
}

func TestWindows(t *testing.T) {
	const s, m, h = time.Second, time.Minute, time.Hour
	for _, test := range []struct {
		life, refreshIn  int
		early            time.Duration
		latency          time.Duration
		draw             float64
		soft, hard, dead time.Duration
	}{
		{life: 3600, draw: 1, soft: 55 * m, hard: h - 10*s, dead: h},
		{life: 3600, draw: 0, soft: h - 225*s, hard: h - 10*s, dead: h},
		{life: 86400, draw: 1, soft: 24*h - 5*m, hard: 24*h - 10*s, dead: 24 * h},
		{life: 300, draw: 1, soft: 225 * s, hard: 290 * s, dead: 300 * s},
		{life: 60, draw: 1, soft: 45 * s, hard: 54 * s, dead: 60 * s},
		{life: 3, draw: 1, soft: 2250 * time.Millisecond, hard: 2700 * time.Millisecond, dead: 3 * s},
		{life: 1, draw: 1, soft: s, hard: s, dead: s},
		{life: -5, draw: 1, soft: s, hard: s, dead: s},
		{life: 3600, draw: 1, early: 10 * m, soft: 50 * m, hard: h - 10*s, dead: h},
		{life: 3600, draw: 0, early: 10 * m, soft: 52*m + 30*s, hard: h - 10*s, dead: h},
		{life: 3600, draw: 1, early: 2 * h, soft: 30 * m, hard: h - 10*s, dead: h},
		{life: 3600, draw: 1, early: 1, soft: h - 1, hard: h - 1, dead: h},
		{life: 3600, refreshIn: 2400, draw: 1, soft: 40 * m, hard: h - 10*s, dead: h},
		{life: 3600, refreshIn: 60, draw: 1, soft: 30 * m, hard: h - 10*s, dead: h},
		{life: 3600, refreshIn: 3600, draw: 1, soft: 55 * m, hard: h - 10*s, dead: h},
		{life: 10, latency: 20 * s, draw: 1, soft: 21 * s, hard: 21 * s, dead: 21 * s},
		{life: 0, soft: forever, hard: forever, dead: forever},
	} {
		sent := time.Now()
		c := newCachedToken(&tokenResponse{
			Response: &tokenresponse.Response{AccessToken: "x", ExpiresIn: int64(test.life), RefreshIn: int64(test.refreshIn)},
			sent:     sent,
			floor:    test.latency + minReuse,
		}, test.early, test.draw)
		require.Equal(t, []time.Duration{test.soft, test.hard, test.dead}, []time.Duration{c.soft, c.hard, c.dead}, "%+v", test)
	}
}

func TestStatus(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		require.Equal(t, Status{}, (*Source)(nil).Status())
		s := w.conf.Source(w.ctx)
		require.Equal(t, Status{State: Expired}, s.Status())
		w.auth.Script(clientcredentialstest.InvalidClient())
		_, err := s.Token()
		require.Equal(t, Status{State: Failed, LastError: err}, s.Status())

		token := promptly(t, s)
		status := s.Status()
		require.Equal(t, Fresh, status.State)
		require.Equal(t, token.Expiry, status.Expiry)
		left := status.Expiry.Sub(status.NextRefresh)
		require.LessOrEqual(t, left, 5*time.Minute)
		require.GreaterOrEqual(t, left, 225*time.Second)

		time.Sleep(time.Until(status.NextRefresh))
		require.Equal(t, Stale, s.Status().State)
		w.auth.Script(clientcredentialstest.Unavailable())
		promptly(t, s)
		synctest.Wait()
		status = s.Status()
		require.Equal(t, Stale, status.State)
		require.Error(t, status.LastError)
		require.Greater(t, status.NextRefresh, time.Now())
		require.Equal(t, []string{"expired", "fresh", "stale", "failed", "State(9)"},
			[]string{Expired.String(), Fresh.String(), Stale.String(), Failed.String(), State(9).String()})
	})
}

func TestF5_MissingThings(t *testing.T) {
	w := newWorld(t, time.Hour)
	var none context.Context
	for name, call := range map[string]func() (*oauth2.Token, error){
		"nil Source":               (*Source)(nil).Token,
		"empty Source":             new(Source).Token,
		"nil ctx for Token":        func() (*oauth2.Token, error) { return w.conf.Token(none) },
		"nil ctx for Source":       w.conf.Source(none).Token,
		"nil ctx":                  func() (*oauth2.Token, error) { return w.conf.Source(w.ctx).TokenContext(none) },
		"nil Config":               (*Config)(nil).Source(w.ctx).Token,
		"nil Config for Token":     func() (*oauth2.Token, error) { return (*Config)(nil).Token(w.ctx) },
		"nil Config for Client":    (*Config)(nil).Client(w.ctx).Transport.(*oauth2.Transport).Source.Token,
		"nil Config for Transport": (*Config)(nil).Transport(w.ctx).Source.Token,
		"nil client in context":    w.conf.Source(context.WithValue(w.ctx, oauth2.HTTPClient, (*http.Client)(nil))).Token,
	} {
		token, err := call()
		require.Nil(t, token, name)
		require.ErrorContains(t, err, "oauth2: ", name)
	}
	require.Zero(t, w.auth.TokenRequests())
}

func TestF14_TotalTimeout(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.SetFault(&clientcredentialstest.Fault{Drip: time.Second}) // F14
		for _, call := range []func() (*oauth2.Token, error){
			w.conf.Source(w.ctx).Token,
			func() (*oauth2.Token, error) { return w.conf.Token(w.ctx) },
		} {
			start := time.Now()
			_, err := call()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "oauth2: ")
			require.Equal(t, defaultTotalTimeout, time.Since(start))
		}
	})
}

func TestReuseTokenSourceWithExpiry(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		ts := w.conf.TokenSource(w.ctx)
		early := oauth2.ReuseTokenSourceWithExpiry(nil, ts, 20*time.Minute)
		require.True(t, early == ts, "upstream's shell takes the margin instead of a second shell")
		at := func(minute int) string {
			time.Sleep(time.Until(time.Date(2000, 1, 1, 0, minute, 0, 0, time.UTC)))
			token, err := early.Token()
			require.NoError(t, err)
			return token.AccessToken
		}
		first := at(0)
		require.Equal(t, first, at(39))
		second := at(41)
		require.NotEqual(t, first, second)
		require.Equal(t, second, at(42))
		require.Equal(t, 2, w.auth.TokenRequests())

		// A failure within the margin costs nobody a valid token.
		fault := clientcredentialstest.Unavailable()
		w.auth.SetFault(&fault)
		require.Equal(t, second, at(82))
		require.Equal(t, second, at(99))
	})
}

func TestTokenSourceRefreshesInTheBackground(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		ts := w.conf.TokenSource(w.ctx)
		_, err := ts.Token()
		require.NoError(t, err)
		w.auth.Latency = 2 * time.Second
		for start := time.Now(); time.Since(start) < 150*time.Minute; time.Sleep(time.Second) {
			before := time.Now()
			_, err := ts.Token()
			require.NoError(t, err)
			require.Zero(t, time.Since(before))
		}
	})
}

func TestTokensOfTokenSourceAreValid(t *testing.T) {
	for _, life := range []time.Duration{20 * time.Second, time.Minute, time.Hour} {
		bubble(t, life, func(t *testing.T, w *world) {
			ts := w.conf.TokenSource(w.ctx)
			_, err := ts.Token()
			require.NoError(t, err)
			fault := clientcredentialstest.Unavailable()
			w.auth.SetFault(&fault)
			for start := time.Now(); time.Since(start) < life; time.Sleep(life / 1000) {
				token, err := ts.Token()
				require.NoError(t, err)
				require.True(t, token.Valid(), "after %v", time.Since(start))
			}
		})
	}
}

func TestReuseTokenSourceWithExpiryWaitsForASlowServer(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		ts := oauth2.ReuseTokenSourceWithExpiry(nil, w.conf.TokenSource(w.ctx), 30*time.Minute)
		first, err := ts.Token()
		require.NoError(t, err)
		firstToken := first.AccessToken
		time.Sleep(35 * time.Minute)
		w.auth.Latency = 5 * time.Second
		token, err := ts.Token()
		require.NoError(t, err)
		require.NotEqual(t, firstToken, token.AccessToken)
		require.True(t, token.Valid())
	})
}

func TestReuseTokenSourceWithExpiryOfAboutTheLife(t *testing.T) {
	for _, test := range []struct {
		margin time.Duration
		most   int // token requests in ten minutes
	}{
		{5 * time.Minute, 4},                        // None in the first half of a token's life.
		{5*time.Minute - 100*time.Millisecond, 600}, // As early as that is, as upstream: but each is used for a second.
	} {
		bubble(t, 5*time.Minute, func(t *testing.T, w *world) {
			ts := oauth2.ReuseTokenSourceWithExpiry(nil, w.conf.TokenSource(w.ctx), test.margin)
			for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(250 * time.Millisecond) {
				_, err := ts.Token()
				require.NoError(t, err)
			}
			require.LessOrEqual(t, w.auth.TokenRequests(), test.most)
		})
	}
}

func TestTwoShellsOverOneSource(t *testing.T) {
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		ts := w.conf.TokenSource(w.ctx)
		saved := &oauth2.Token{AccessToken: "saved", Expiry: time.Now().Add(30 * time.Second)}
		shells := []oauth2.TokenSource{
			ts,
			oauth2.ReuseTokenSource(saved, ts),
			oauth2.ReuseTokenSourceWithExpiry(&oauth2.Token{}, ts, 20*time.Second),
		}
		token, err := shells[1].Token()
		require.NoError(t, err)
		require.Equal(t, "saved", token.AccessToken)
		var wg sync.WaitGroup
		for _, shell := range shells {
			for range 4 {
				wg.Go(func() {
					for start := time.Now(); time.Since(start) < 5*time.Minute; time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond) {
						token, err := shell.Token()
						require.NoError(t, err)
						require.True(t, token.Expiry.After(time.Now()))
						_ = token.Valid()
					}
				})
			}
		}
		wg.Wait()
		require.LessOrEqual(t, w.auth.TokenRequests(), 8)
	})
}

func TestConcurrentUse(t *testing.T) {
	bubble(t, 10*time.Second, func(t *testing.T, w *world) {
		w.auth.Latency = 50 * time.Millisecond
		s := w.conf.Source(w.ctx)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(time.Duration(1+rand.IntN(200)) * time.Millisecond) {
					token, err := s.Token()
					require.NoError(t, err)
					switch rand.IntN(100) {
					case 0:
						s.Invalidate(token)
					case 1:
						s.Status()
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestReject(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		require.False(t, s.Reject(nil))
		require.False(t, (*Source)(nil).Reject(new(oauth2.Token)))
		old := promptly(t, s)
		require.False(t, s.Reject(&oauth2.Token{AccessToken: "other"}), "it isn't from this Source")
		require.True(t, s.Reject(old))
		current := promptly(t, s)
		require.NotEqual(t, old.AccessToken, current.AccessToken)
		require.True(t, s.Reject(old), "there is another already")
		require.False(t, s.Reject(current), "whatever the token, it is refused")
		require.Equal(t, current.AccessToken, promptly(t, s).AccessToken)
		time.Sleep(minRejection)
		require.True(t, s.Reject(current))
		require.Equal(t, Expired, s.Status().State)
	})
}

// Whatever the program's code does, Config.Token ends with its context, and when
// Config.Retry says.
func TestF20_TokenIsBounded(t *testing.T) {
	deaf := func() { time.Sleep(time.Hour) }
	for name, misbehave := range map[string]func(*Config){
		"RoundTripper": func(c *Config) {
			c.HTTPClient = &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) { deaf(); return nil, io.EOF })}
		},
		"body": func(c *Config) {
			c.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: io.NopCloser(readerFunc(func([]byte) (int, error) { deaf(); return 0, io.EOF })), Request: req}, nil
			})}
		},
		"ClientAuth": func(c *Config) {
			c.ClientAuth = authFunc(func(context.Context, *Attempt) error { deaf(); return nil })
		},
		"signer": func(c *Config) {
			c.DPoP = signerFunc{newProofSigner(t), func() { deaf() }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &Config{TokenURL: "https://auth.example/token", HTTPClient: &http.Client{Transport: newTokenEndpoint(reply{body: `{"access_token":"a"}`})}}
				misbehave(c)
				ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
				defer cancel()
				start := time.Now()
				_, err := c.Token(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 7*time.Second, time.Since(start))
				var outer *url.Error
				require.ErrorAs(t, err, &outer, "as from an http.Client that obeys its context")
				require.Equal(t, `Post "https://auth.example/token": context deadline exceeded`, err.Error())

				_, err = c.Token(t.Context())
				require.ErrorContains(t, err, " took longer than ")
				require.LessOrEqual(t, time.Since(start), 7*time.Second+defaultTotalTimeout)
				time.Sleep(3 * time.Hour) // Until the last late call has returned.
			})
		})
	}
}

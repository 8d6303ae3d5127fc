package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"io"
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
)

func TestF1_SlowRefreshBoundedByEachCaller(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		time.Sleep(2 * time.Hour)
		w.auth.Latency = 2 * time.Second
		start := time.Now()
		together(100, func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := s.TokenContext(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 100*time.Millisecond, time.Since(start))
			var timeout interface{ Timeout() bool }
			require.ErrorAs(t, err, &timeout)
			require.True(t, timeout.Timeout())
		})
		time.Sleep(2 * time.Second)
		promptly(t, s) // The refresh went on without them.
		require.Equal(t, 2, w.auth.TokenRequests())
	})
}

func TestWaitErrorWrapsTheCause(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = time.Second
		ctx, cancel := context.WithCancelCause(t.Context())
		because := errors.New("shutting down")
		time.AfterFunc(time.Millisecond, func() { cancel(because) })
		_, err := w.conf.Source(w.ctx).TokenContext(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, because)
		require.ErrorContains(t, err, "oauth2: cannot fetch token")
		time.Sleep(time.Second)
	})
}

func TestF10_OutageServesToTheTrueExpiry(t *testing.T) {
	for _, fault := range []clientcredentialstest.Fault{
		clientcredentialstest.Unavailable(),
		clientcredentialstest.ConnectionReset(),
		{Delay: 2 * time.Second, Status: http.StatusBadGateway},
		{Delay: time.Hour}, // A black hole: each request ends by its deadline.
	} {
		bubble(t, time.Minute, func(t *testing.T, w *world) {
			s := w.conf.Source(w.ctx)
			first := promptly(t, s)
			start := time.Now()
			w.outage(fault)
			var waited time.Duration
			for time.Since(start) < time.Minute {
				before := time.Now()
				require.Equal(t, first.AccessToken, tokenFrom(t, s).AccessToken)
				waited += time.Since(before)
				time.Sleep(99 * time.Millisecond)
			}
			require.LessOrEqual(t, waited, hardPatience, "by callers whose token was valid")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := s.TokenContext(ctx)
			require.Error(t, err)
			require.Equal(t, Failed, s.Status().State)
			require.Equal(t, err, s.Status().LastError)

			w.auth.SetFault(nil)
			time.Sleep(maxCooldown)
			require.NotEqual(t, first.AccessToken, tokenFrom(t, s).AccessToken)
			require.NoError(t, s.Status().LastError)
		})
	}
}

func TestTokenDoesNotExpireWhileItsReplacementIsWaitedFor(t *testing.T) {
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(59600 * time.Millisecond)
		w.auth.Script(clientcredentialstest.Fault{Delay: 5 * time.Second, Status: 503})
		start := time.Now()
		require.Equal(t, first.AccessToken, tokenFrom(t, s).AccessToken)
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
		err := errorFrom(t, s)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "the context given to Config.")
		require.Equal(t, 1, w.auth.TokenRequests())

		// Even a RoundTripper that ignores its context gets no request.
		heedless, requests := answering(ctx, `{"access_token":"t"}`)
		require.ErrorIs(t, errorFrom(t, w.conf.Source(heedless)), context.Canceled)
		require.Zero(t, requests.Load())

		// A request under way ends with the context, as it does in x/oauth2.
		ctx, cancel = context.WithCancel(w.ctx)
		w.auth.Latency = time.Minute
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err = errorFrom(t, w.conf.Source(ctx))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "the context given to Config.")
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestF13_InvalidateOvertakesTheFlight(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(59 * time.Minute)
		w.auth.Latency = 5 * time.Second // The server issues tokens at once, and answers late.
		promptly(t, s)                   // Starts the refresh.
		time.Sleep(time.Second)
		w.auth.RevokeAll()
		s.Invalidate(first)
		s.Invalidate(first) // This changes nothing.
		token := tokenFrom(t, s)
		_, valid := w.auth.Introspect(token.AccessToken)
		require.True(t, valid, "the flight landed with a token from before the revocation")
		require.Equal(t, token.AccessToken, promptly(t, s).AccessToken)
		require.Equal(t, 3, w.auth.TokenRequests())
	})
}

func TestInvalidateReachesCallersThatCouldStillUseTheToken(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(time.Hour - 5*time.Second)
		w.auth.Latency = 3 * time.Second
		time.AfterFunc(500*time.Millisecond, func() { s.Invalidate(first) })
		require.NotEqual(t, first.AccessToken, tokenFrom(t, s).AccessToken) // It would otherwise get first after a second.
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
				err := errorFrom(t, s)
				require.ErrorContains(t, err, "oauth2: cannot fetch token")
				require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "canary")
				promptly(t, s)
			})
		})
	}
}

// What a program supplies may return a *oauth2.RetrieveError of its own making.
func TestF18_RefusalWithoutResponse(t *testing.T) {
	for name, refusal := range map[string]error{
		"with a code": &oauth2.RetrieveError{ErrorCode: "invalid_client"},
		"temporary":   &oauth2.RetrieveError{ErrorCode: "temporarily_unavailable"},
		"empty":       &oauth2.RetrieveError{}, // Its Error panics.
		"nil":         (*oauth2.RetrieveError)(nil),
	} {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader} {
			for of, change := range map[string]func(conf *Config, err error){
				"ClientAuth":   func(conf *Config, err error) { conf.ClientAuth = &scriptedAuth{err: err} },
				"Grant":        func(conf *Config, err error) { conf.Grant = &scriptedGrant{grantType: bearerType, err: err} },
				"RoundTripper": func(conf *Config, err error) { conf.HTTPClient = failingClient(err) },
			} {
				t.Run(name+" of a "+of, func(t *testing.T) {
					bubble(t, time.Hour, func(t *testing.T, w *world) {
						w.conf.AuthStyle = style
						change(w.conf, fmt.Errorf("of the program: %w", refusal))
						s := w.conf.Source(w.ctx)
						for _, call := range []tokenFunc{s.Token, func() (*oauth2.Token, error) { return w.conf.Token(w.ctx) }} {
							require.ErrorContains(t, errorFrom(t, call), "oauth2: ")
						}
						require.Error(t, s.Status().LastError)
					})
				})
			}
		}
	}
}

func failingClient(err error) *http.Client {
	return &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, err })}
}

func TestH4_DoneContextRequestsNothing(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		done, cancel := context.WithCancel(t.Context())
		cancel()
		s := w.conf.Source(w.ctx)
		_, err := s.TokenContext(done)
		require.ErrorIs(t, err, context.Canceled)
		auth, client := new(scriptedAuth), failingClient(io.EOF)
		_, err = (&Config{TokenURL: worldAPI, ClientAuth: auth, HTTPClient: client}).Token(done)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, auth.calls)
		for _, client := range w.clients() {
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
		_, err = s.TokenContext(done) // The token is stale, but such a call starts no refresh.
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 1, w.auth.TokenRequests())
	})
}

func TestH5_FieldsAreCopiedAtTheStartOfAFlight(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = time.Second
		w.conf.AuthStyle = oauth2.AuthStyleAutoDetect // This takes two requests, and both must say the same.
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

		time.Sleep(2 * time.Hour) // The next flight uses the new values.
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, errorFrom(t, s), &refusal)
		require.Equal(t, "z b", w.auth.Requests()[2].Form.Get("scope"))
	})
}

func TestF14_TotalTimeout(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.outage(clientcredentialstest.Fault{Drip: time.Second})
		for name, source := range w.sources() {
			start := time.Now()
			err := errorFrom(t, source)
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.ErrorContains(t, err, "oauth2: ", name)
			require.Equal(t, defaultTotalTimeout, time.Since(start), name)
		}
	})
}

func TestF9_TokenRequestThroughTheClientThatNeedsTheToken(t *testing.T) {
	for _, kind := range kinds {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			client := new(http.Client)
			w.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, client)
			client.Transport = roundTripFunc(w.clients()[kind].Transport.RoundTrip) // Only the context shows the way back.
			start := time.Now()
			_, err := client.Get(worldAPI)
			require.ErrorIs(t, err, errReentered, kind)
			require.Zero(t, time.Since(start))
		})
	}

	// While there is a token, the token request may use it, but not wait for the next one.
	for _, test := range []struct {
		age, least time.Duration
		err        error
	}{
		{30 * time.Minute, 0, nil},
		{30 * time.Minute, 10 * time.Minute, nil},
		{30 * time.Minute, 50 * time.Minute, errReentered},
		{time.Hour - 5*time.Second, 0, nil},
		{time.Hour - 5*time.Second, time.Minute, errReentered},
	} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			var s *Source
			network, _ := contextClient(w.ctx)
			reentries := 0
			w.conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if s.current.Load() != nil {
					reentries++
					start := time.Now()
					_, err := s.TokenFor(req.Context(), test.least)
					require.ErrorIs(t, err, test.err, "%+v", test)
					require.Zero(t, time.Since(start), "%+v", test)
				}
				return network.Transport.RoundTrip(req)
			})}
			s = w.conf.Source(w.ctx)
			promptly(t, s)
			time.Sleep(test.age)
			_, err := s.TokenFor(t.Context(), 50*time.Minute)
			require.NoError(t, err)
			require.Equal(t, 1, reentries)
		})
	}
}

package clientcredentials

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// This file has the mistakes that other token caches have made. Each test is named after a
// mistake, and fails if it is made here.

// kinds are those of world.clients.
var kinds = []string{"Client", "Transport"}

// If the window is five minutes, a token that lives for five minutes is always due.
func TestMistake_FixedWindowOnShortTokens(t *testing.T) {
	for _, life := range []int{2, 3, 5, 10, 30, 300} {
		for _, early := range []time.Duration{0, time.Second, 5 * time.Minute, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				ctx, requests := answering(t.Context(), fmt.Sprintf(`{"access_token":"t%%","expires_in":%d}`, life))
				s := (&Config{TokenURL: "https://auth.example/token", EarlyRefresh: early}).Source(ctx)
				const lives = 10
				for start := time.Now(); time.Since(start) < lives*time.Duration(life)*time.Second; time.Sleep(time.Duration(life) * 10 * time.Millisecond) {
					promptly(t, s)
					synctest.Wait()
				}
				require.LessOrEqual(t, int(requests.Load()), 2*lives)
				require.GreaterOrEqual(t, int(requests.Load()), lives)
			})
		}
	}
}

// A caller that comes before the goroutine has run starts another one.
func TestMistake_RefreshFlagSetInsideTheGoroutine(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		time.Sleep(59 * time.Minute)
		require.Equal(t, Stale, s.Status().State)
		w.auth.Latency = time.Second
		for range 1000 {
			promptly(t, s) // No other goroutine needs to run between these calls.
		}
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { promptly(t, s) })
		}
		wg.Wait()
		time.Sleep(2 * time.Second)
		require.Equal(t, 2, w.auth.TokenRequests())
	})
}

// The goroutine that refreshes has ended, and nothing notices that it failed.
func TestMistake_FailedRefreshIsTheLast(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		time.Sleep(57 * time.Minute)
		for range 5 {
			w.auth.Script(clientcredentialstest.InvalidClient())
		}
		start := time.Now()
		for promptly(t, s).AccessToken == first.AccessToken {
			require.Less(t, time.Since(start), (1+2+4+8+16+1)*time.Second)
			time.Sleep(100 * time.Millisecond)
		}
		require.Equal(t, 1+5+1, w.auth.TokenRequests())
	})
}

// While the window is open, every API request starts a token request.
func TestMistake_NoPauseBetweenFailedRefreshes(t *testing.T) {
	bubble(t, 10*time.Hour, func(t *testing.T, w *world) {
		w.conf.EarlyRefresh = 5 * time.Hour // The token is due after 5:00 to 6:15 hours.
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		fault := clientcredentialstest.Unavailable()
		w.auth.SetFault(&fault)
		time.Sleep(7 * time.Hour)
		before := len(w.auth.Requests())
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(10 * time.Millisecond) {
			promptly(t, s)
		}
		requests := w.auth.Requests()[before:]
		for i := 1; i < len(requests); i++ {
			pause := min(time.Second<<(i-1), 30*time.Second)
			gap := requests[i].Time.Sub(requests[i-1].Time)
			require.GreaterOrEqual(t, gap, pause*3/4, "between failures %d and %d", i, i+1)
			require.LessOrEqual(t, gap, pause+20*time.Millisecond, "between failures %d and %d", i, i+1)
		}
		require.Greater(t, len(requests), 20)

		w.auth.SetFault(nil)
		time.Sleep(time.Minute)
		promptly(t, s)
		synctest.Wait()
		require.Equal(t, Fresh, s.Status().State)
	})
}

// A slow request gets its answer when there is already a new token.
func TestMistake_Any401KillsTheNewerToken(t *testing.T) {
	for _, kind := range kinds {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			base, _ := contextClient(w.ctx)
			w.ctx = context.WithValue(w.ctx, oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				delay, _ := time.ParseDuration(req.URL.Query().Get("delay"))
				resp, err := base.Transport.RoundTrip(req)
				time.Sleep(delay) // The answer takes this long to arrive.
				return resp, err
			})})
			client := w.clients()[kind]
			_, err := w.get(t, client)
			require.NoError(t, err)
			w.auth.RevokeAll()
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() {
					resp, err := client.Get(fmt.Sprintf("%s?delay=%dm", worldAPI, 1+i))
					require.NoError(t, err)
					require.Equal(t, http.StatusOK, resp.StatusCode, kind)
					resp.Body.Close()
				})
			}
			wg.Wait()
			require.Equal(t, 10, w.api.Rejected(), kind)
			require.Equal(t, 2, w.auth.TokenRequests(), kind)
		})
	}
}

// A caller that waits on a sync.Cond or a mutex doesn't see that its context ends.
func TestMistake_WaitersDeafToTheirContext(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = 8 * time.Second
		s := w.conf.Source(w.ctx)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				// The caller that started the token request gives up first.
				time.AfterFunc(time.Duration(i)*time.Second+1, cancel)
				_, err := s.TokenContext(ctx)
				if i < 8 {
					require.ErrorIs(t, err, context.Canceled)
					require.Equal(t, time.Duration(i)*time.Second+1, time.Since(start))
					return
				}
				require.NoError(t, err)
				require.Equal(t, 8*time.Second, time.Since(start))
			})
			synctest.Wait()
		}
		wg.Wait()
		require.Equal(t, 1, w.auth.TokenRequests())
	})
}

// The API answers 401, or it answers although it shouldn't.
func TestMistake_RequestSentWithoutAToken(t *testing.T) {
	for _, fault := range []clientcredentialstest.Fault{
		clientcredentialstest.InvalidClient(),
		clientcredentialstest.ConnectionReset(),
		{Body: `{}`},
		{Body: `{"access_token":""}`},
		{Delay: time.Hour},
	} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			w.auth.SetFault(&fault)
			for name, client := range w.clients() {
				for range 10 { // The last ones come during the cooldown.
					_, err := client.Get(worldAPI)
					require.Error(t, err, name)
				}
			}
			require.Empty(t, w.api.Requests())
			time.Sleep(time.Hour) // Wait for the requests that hang.
		})
	}
}

// One tenant gets the token of another. Here each Source has its own cache, and the copies
// of a Config share no token.
func TestMistake_CacheKeyWithoutParametersOrScopes(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		promptly(t, w.conf.Source(w.ctx)) // The Config has been used when it is copied.
		var sources []*Source
		for _, change := range []func(c *Config){
			func(*Config) {},
			func(c *Config) { c.Scopes = []string{"read"} },
			func(c *Config) { c.Scopes = []string{"read", "write"} },
			func(c *Config) { c.EndpointParams = url.Values{"audience": {"a"}} },
			func(c *Config) { c.EndpointParams = url.Values{"audience": {"b"}} },
			func(c *Config) { c.EndpointParams = url.Values{"resource": {"https://a.example", "https://b.example"}} },
		} {
			conf := *w.conf
			change(&conf)
			sources = append(sources, conf.Source(w.ctx))
		}
		var tokens []string
		for _, s := range sources {
			tokens = append(tokens, promptly(t, s).AccessToken)
		}
		for i, s := range sources {
			require.Equal(t, tokens[i], promptly(t, s).AccessToken)
		}
		slices.Sort(tokens)
		require.Len(t, slices.Compact(tokens), len(sources))
		require.Equal(t, 1+len(sources), w.auth.TokenRequests())
	})
}

// A token that was being requested when the old one was revoked may be revoked too.
func TestMistake_OlderFlightOverwritesAnInvalidation(t *testing.T) {
	for _, kind := range kinds {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			client := w.clients()[kind]
			_, err := w.get(t, client)
			require.NoError(t, err)
			time.Sleep(59 * time.Minute)
			w.auth.Latency = 5 * time.Second // A token is issued at once, and arrives late.
			_, err = w.get(t, client)        // This starts the refresh.
			require.NoError(t, err)
			time.Sleep(time.Second)
			w.auth.RevokeAll()
			for range 3 {
				resp, err := w.get(t, client)
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, resp.StatusCode, kind)
			}
			require.Equal(t, 1, w.api.Rejected(), kind)
			require.Equal(t, 3, w.auth.TokenRequests(), kind)
		})
	}
}

// There is no other token, so the expired one is used.
func TestMistake_ExpiredTokenDuringBackOff(t *testing.T) {
	for _, fault := range []clientcredentialstest.Fault{
		clientcredentialstest.TooManyRequests(5 * time.Minute),
		clientcredentialstest.InvalidClient(),
	} {
		bubble(t, time.Minute, func(t *testing.T, w *world) {
			s := w.conf.Source(w.ctx)
			first := promptly(t, s)
			w.auth.SetFault(&fault)
			for time.Now().Before(first.Expiry) {
				promptly(t, s)
				time.Sleep(time.Second)
			}
			for range 100 {
				token, err := s.Token()
				require.Error(t, err)
				require.Nil(t, token)
				time.Sleep(time.Second)
			}
		})
	}
}

// The token stays valid when the secret changes.
func TestMistake_ValidTokenDroppedForANewSecret(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		first := promptly(t, s)
		w.conf.ClientSecret = "next" // The server doesn't know it yet.
		for time.Until(first.Expiry) > 10*time.Second {
			require.Equal(t, first.AccessToken, promptly(t, s).AccessToken)
			time.Sleep(time.Second)
		}
		w.auth.Register(clientcredentialstest.Client{ID: worldID, Secret: "next"})
		time.Sleep(time.Minute)
		token, err := s.Token()
		require.NoError(t, err)
		require.NotEqual(t, first.AccessToken, token.AccessToken)
	})
}

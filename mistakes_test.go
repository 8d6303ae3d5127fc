package clientcredentials

import (
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// This file has the mistakes that other token caches have made. Each test is named after a
// mistake, and fails if it is made here.

// kinds are those of world.clients.
var kinds = []string{"Client", "Transport"}

// If the window is five minutes, a token that lives for five minutes is always due.
func TestMistake_FixedWindowOnShortTokens(t *testing.T) {
	for _, life := range []int{2, 3, 5, 10, 30, 300} {
		for _, early := range []time.Duration{0, time.Second, 5 * time.Minute, time.Hour} {
			testkit.Synctest(t, func(t *testing.T) {
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

package clientcredentials

import (
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

func TestF2_OneFailureForAll(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.conf.AuthStyle = oauth2.AuthStyleAutoDetect
		w.conf.ClientSecret = "wrong"
		w.auth.Latency = time.Millisecond
		s := w.conf.Source(w.ctx)
		var first atomic.Value
		together(1000, func() {
			err := errorFrom(t, s)
			first.CompareAndSwap(nil, err)
			require.Same(t, first.Load(), err)
		})
		require.LessOrEqual(t, w.auth.TokenRequests(), 2)
	})
}

func TestCallersThatRacedWithTheFailureShareIt(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		w.auth.Latency = time.Second
		w.auth.Script(clientcredentialstest.InvalidClient())
		called := time.Now()
		err := errorFrom(t, s)
		_, f, err2 := s.board(t.Context(), called, 0) // This caller called then, and gets the lock only now.
		require.Nil(t, f)
		require.Same(t, err, err2)
		start := time.Now()
		tokenFrom(t, s) // A caller that calls now starts another request.
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestF3_RetryAfterHoldsAllCallers(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.outage(clientcredentialstest.TooManyRequests(time.Minute))
		s := w.conf.Source(w.ctx)
		every(6*time.Second, 5*time.Minute, func() {
			before := time.Now()
			var refusal *oauth2.RetrieveError
			require.ErrorAs(t, errorFrom(t, s), &refusal)
			require.Zero(t, time.Since(before), "a caller waited for the last error")
			require.Equal(t, Failed, s.Status().State)
			require.Positive(t, time.Until(s.Status().NextRefresh))
		})
		require.Equal(t, 5, w.auth.TokenRequests())
	})
}

func TestCooldownAfterABurst(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.outage(clientcredentialstest.InvalidClient())
		s := w.conf.Source(w.ctx)
		start := time.Now()
		var last error
		for i := range 100 {
			err := errorFrom(t, s)
			if i >= cooldownFree {
				require.Same(t, last, err)
			}
			last = err
		}
		require.Equal(t, cooldownFree, w.auth.TokenRequests())
		require.Zero(t, time.Since(start))
		every(10*time.Millisecond, 10*time.Minute, func() { _ = errorFrom(t, s) })
		requests := w.auth.Requests()[cooldownFree-1:]
		for i := 1; i < len(requests); i++ {
			delay := min(time.Second<<(i-1), 30*time.Second)
			gap := requests[i].Time.Sub(requests[i-1].Time)
			require.GreaterOrEqual(t, gap, delay*3/4)
			require.LessOrEqual(t, gap, delay+20*time.Millisecond)
		}
		require.Greater(t, len(requests), 15)

		// After a success, five failures are free again.
		w.auth.SetFault(nil)
		time.Sleep(time.Minute)
		token := promptly(t, s)
		w.outage(clientcredentialstest.InvalidClient())
		s.Invalidate(token)
		before := w.auth.TokenRequests()
		for range 100 {
			_ = errorFrom(t, s)
		}
		require.Equal(t, before+cooldownFree, w.auth.TokenRequests())
	})
}

func TestChangedCredentialsEndTheCooldown(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"ClientSecret":   func(c *Config) { c.ClientSecret = "another" },
		"ClientID":       func(c *Config) { c.ClientID = "other" },
		"TokenURL":       func(c *Config) { c.TokenURL = "https://auth.example/v2/token" },
		"AuthStyle":      func(c *Config) { c.AuthStyle = oauth2.AuthStyleInParams },
		"Scopes":         func(c *Config) { c.Scopes = []string{"x"} },
		"EndpointParams": func(c *Config) { c.EndpointParams = url.Values{"audience": {"x"}} },
	} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			w.outage(clientcredentialstest.InvalidClient())
			s := w.conf.Source(w.ctx)
			for range 100 {
				_ = errorFrom(t, s)
			}
			require.Equal(t, cooldownFree, w.auth.TokenRequests())
			change(w.conf)
			_ = errorFrom(t, s)
			require.Equal(t, cooldownFree+1, w.auth.TokenRequests(), name)
		})
	}
}

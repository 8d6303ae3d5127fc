package clientcredentials

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// outage makes the authorization server answer every token request like that.
func (w *world) outage(fault clientcredentialstest.Fault) { w.auth.SetFault(&fault) }

// sources returns the ways to ask for a token: two that cache it, and Config.Token.
func (w *world) sources() map[string]oauth2.TokenSource {
	return map[string]oauth2.TokenSource{
		"Source":      w.conf.Source(w.ctx),
		"TokenSource": w.conf.TokenSource(w.ctx),
		"Token":       tokenFunc(func() (*oauth2.Token, error) { return w.conf.Token(w.ctx) }),
	}
}

type tokenFunc func() (*oauth2.Token, error)

func (f tokenFunc) Token() (*oauth2.Token, error) { return f() }

// answeringConfig returns a Config whose token endpoint answers as that of answering.
func answeringConfig(t *testing.T, body string) (*Config, *atomic.Int32) {
	ctx, requests := answering(t.Context(), body)
	client, err := contextClient(ctx)
	require.NoError(t, err)
	return &Config{TokenURL: "https://auth.example/token", HTTPClient: client}, requests
}

// tokenFrom returns a token of source, however long that takes.
func tokenFrom(t *testing.T, source oauth2.TokenSource) *oauth2.Token {
	t.Helper()
	token, err := source.Token()
	require.NoError(t, err)
	return token
}

// errorFrom returns the error of source, which must have no token.
func errorFrom(t *testing.T, source oauth2.TokenSource) error {
	t.Helper()
	_, err := source.Token()
	require.Error(t, err)
	return err
}

// together calls f that often at the same time, and waits until all calls have returned.
func together(times int, f func()) {
	var wg sync.WaitGroup
	for range times {
		wg.Go(f)
	}
	wg.Wait()
}

// every calls f at that interval until the time is up.
func every(interval, until time.Duration, f func()) {
	for start := time.Now(); time.Since(start) < until; time.Sleep(interval) {
		f()
	}
}

func TestH2_ReturnedTokensAreCopies(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		for _, source := range []oauth2.TokenSource{w.conf.Source(w.ctx), w.conf.Client(w.ctx).Transport.(*oauth2.Transport).Source} {
			want := ""
			for range 3 { // The first is a new token, the others come from the cache.
				token := tokenFrom(t, source)
				want = cmp.Or(want, token.AccessToken)
				require.Equal(t, want, token.AccessToken)
				require.NotZero(t, token.Expiry)
				token.AccessToken, token.TokenType, token.Expiry = "edited", "edited", time.Time{}
			}
		}
	})
}

func TestInvalidate(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		s.Invalidate(nil)
		(*Source)(nil).Invalidate(&oauth2.Token{})
		s.Invalidate(&oauth2.Token{}) // There is no token to drop.
		first := promptly(t, s)
		together(200, func() {
			s.Invalidate(first)
			tokenFrom(t, s)
		})
		require.Equal(t, 2, w.auth.TokenRequests())
		second := promptly(t, s)
		s.Invalidate(first) // Too late: the newer token must survive.
		require.Equal(t, second.AccessToken, promptly(t, s).AccessToken)
	})
}

func TestReject(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		require.False(t, s.Reject(nil))
		require.False(t, (*Source)(nil).Reject(new(oauth2.Token)))
		old := promptly(t, s)
		require.False(t, s.Reject(&oauth2.Token{AccessToken: "other"}), "a token that isn't from this Source")
		require.True(t, s.Reject(old))
		current := promptly(t, s)
		require.NotEqual(t, old.AccessToken, current.AccessToken)
		require.True(t, s.Reject(old), "there is another token already")
		require.False(t, s.Reject(current), "a token was dropped a moment ago")
		require.Equal(t, current.AccessToken, promptly(t, s).AccessToken)
		time.Sleep(minRejection)
		require.True(t, s.Reject(current))
		require.Equal(t, Expired, s.Status().State)
	})
}

func TestStatus(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		require.Equal(t, Status{}, (*Source)(nil).Status())
		s := w.conf.Source(w.ctx)
		require.Equal(t, Status{State: Expired}, s.Status())
		w.auth.Script(clientcredentialstest.InvalidClient())
		err := errorFrom(t, s)
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
		require.Equal(t, "expired fresh stale failed State(9)", fmt.Sprint(Expired, " ", Fresh, " ", Stale, " ", Failed, " ", State(9)))
	})
}

func TestF5_MissingThings(t *testing.T) {
	w := newWorld(t, time.Hour)
	var none context.Context
	for name, call := range map[string]tokenFunc{
		"nil Source":               (*Source)(nil).Token,
		"empty Source":             new(Source).Token,
		"nil ctx for Token":        func() (*oauth2.Token, error) { return w.conf.Token(none) },
		"nil ctx for Source":       w.conf.Source(none).Token,
		"nil ctx for TokenContext": func() (*oauth2.Token, error) { return w.conf.Source(w.ctx).TokenContext(none) },
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

// What Config.TokenSource returns, by itself and in the caches of oauth2 around it.

func TestTokensOfTokenSourceAreValid(t *testing.T) {
	for _, life := range []time.Duration{20 * time.Second, time.Minute, time.Hour} {
		bubble(t, life, func(t *testing.T, w *world) {
			ts := w.conf.TokenSource(w.ctx)
			tokenFrom(t, ts)
			w.outage(clientcredentialstest.Unavailable())
			start := time.Now()
			every(life/1000, life, func() { require.True(t, tokenFrom(t, ts).Valid(), "after %v", time.Since(start)) })
		})
	}
}

func TestReuseTokenSourceWithExpiry(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		ts := w.conf.TokenSource(w.ctx)
		early := oauth2.ReuseTokenSourceWithExpiry(nil, ts, 20*time.Minute)
		require.True(t, early == ts, "oauth2 must pass the margin on, and not add another cache")
		at := func(minute int) string {
			time.Sleep(time.Until(time.Date(2000, 1, 1, 0, minute, 0, 0, time.UTC)))
			return tokenFrom(t, early).AccessToken
		}
		first := at(0)
		require.Equal(t, first, at(39))
		w.auth.Latency = 5 * time.Second
		second := at(41) // The caller waits, although the first token is still valid.
		require.NotEqual(t, first, second)
		require.Equal(t, second, at(42))
		require.Equal(t, 2, w.auth.TokenRequests())

		// A failure within the margin must not cost a caller the valid token.
		w.outage(clientcredentialstest.Unavailable())
		require.Equal(t, second, at(82))
	})
}

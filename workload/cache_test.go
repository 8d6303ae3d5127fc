package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A fakePlatform issues JWTs whose subjects are numbers. Only one request to it may run at a
// time.
type fakePlatform struct {
	t        *testing.T
	life     time.Duration // 0: the tokens have no exp
	once     bool          // the tokens have a jti
	takes    time.Duration
	err      error
	requests int
	running  int
}

func (f *fakePlatform) fetch(ctx context.Context) (string, error) {
	f.requests++
	f.running++
	defer func() { f.running-- }()
	require.Equal(f.t, 1, f.running)
	claims := map[string]any{"sub": fmt.Sprint(f.requests)}
	if f.life != 0 {
		claims["exp"] = time.Now().Add(f.life).Unix()
	}
	if f.once {
		claims["jti"] = fmt.Sprint(f.requests)
	}
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if f.err != nil {
		return "", f.err
	}
	return jwt(claims), nil
}

func (f *fakePlatform) cache() *cache {
	return &cache{platform: "the platform", limit: 10 * time.Second, fetch: f.fetch}
}

// A step of a test: at that time, this many requests have been made when the call is over.
type step struct {
	at       time.Duration
	requests int
}

func TestW7_HowLongATokenIsKept(t *testing.T) {
	for name, test := range map[string]struct {
		platform fakePlatform
		steps    []step
	}{
		"an hour":           {fakePlatform{life: time.Hour}, []step{{0, 1}, {54 * time.Minute, 1}, {55 * time.Minute, 2}, {56 * time.Minute, 2}, {110 * time.Minute, 3}}},
		"a day":             {fakePlatform{life: 24 * time.Hour}, []step{{0, 1}, {23*time.Hour + 54*time.Minute, 1}, {23*time.Hour + 55*time.Minute, 2}}},
		"five minutes":      {fakePlatform{life: 5 * time.Minute}, []step{{0, 1}, {239 * time.Second, 1}, {240 * time.Second, 2}}},
		"ten seconds":       {fakePlatform{life: 10 * time.Second}, []step{{0, 1}, {7 * time.Second, 1}, {8 * time.Second, 2}}},
		"no exp":            {fakePlatform{}, []step{{0, 1}, {0, 2}, {time.Second, 3}}},
		"expired":           {fakePlatform{life: -time.Minute}, []step{{0, 1}, {0, 2}}},
		"just expired":      {fakePlatform{life: time.Nanosecond}, []step{{0, 1}, {0, 2}}},
		"exp of 1970":       {fakePlatform{life: -50 * 365 * 24 * time.Hour}, []step{{0, 1}, {0, 2}}},
		"exp of 9999":       {fakePlatform{life: 290 * 365 * 24 * time.Hour}, []step{{0, 1}, {23*time.Hour + 54*time.Minute, 1}, {23*time.Hour + 55*time.Minute, 2}}},
		"jti":               {fakePlatform{life: time.Hour, once: true}, []step{{0, 1}, {0, 2}, {time.Minute, 3}}},
		"jti, without exp":  {fakePlatform{once: true}, []step{{0, 1}, {0, 2}}},
		"jti, long expired": {fakePlatform{once: true, life: -time.Hour}, []step{{0, 1}, {0, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				start, platform := time.Now(), &test.platform
				platform.t = t
				c := platform.cache()
				for _, step := range test.steps {
					time.Sleep(step.at - time.Since(start))
					token, err := c.get(t.Context())
					require.NoError(t, err)
					require.NotEmpty(t, token)
					require.Equal(t, step.requests, platform.requests, step.at)
				}
			})
		})
	}
}

// The clock of this machine may be wrong, and so may exp.
func TestW7_LifeOfAToken(t *testing.T) {
	now := time.Unix(time.Now().Unix(), 0)
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, test := range []struct {
		claims map[string]any
		life   time.Duration // 0: it isn't kept
	}{
		{map[string]any{"exp": in(90 * time.Minute)}, 90 * time.Minute},
		{map[string]any{"exp": in(90 * time.Minute), "iat": in(30 * time.Minute)}, time.Hour},
		{map[string]any{"exp": in(90 * time.Minute), "nbf": in(30 * time.Minute)}, time.Hour},
		{map[string]any{"exp": in(90 * time.Minute), "iat": in(30 * time.Minute), "nbf": in(80 * time.Minute)}, time.Hour},
		{map[string]any{"exp": in(30 * time.Minute), "iat": in(-30 * time.Minute)}, 30 * time.Minute},
		{map[string]any{"exp": in(30 * time.Minute), "iat": in(time.Hour)}, 0},
		{map[string]any{"exp": in(23 * time.Hour)}, 23 * time.Hour},
		{map[string]any{"exp": in(25 * time.Hour)}, 24 * time.Hour},
		{map[string]any{"exp": in(time.Hour) * 1000, "iat": in(0)}, 24 * time.Hour},
	} {
		require.Equal(t, test.life, max(0, newToken(jwt(test.claims), now).valid.Left(now)), test.claims)
	}
}

// While a machine sleeps, the monotonic clock stands still and tokens expire.
func TestW7_Suspended(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		platform := &fakePlatform{t: t, life: time.Hour}
		c := platform.cache()
		_, err := c.get(t.Context())
		require.NoError(t, err)
		c.kept.fresh, c.kept.valid = c.kept.fresh.MoveWallClock(time.Hour), c.kept.valid.MoveWallClock(time.Hour)
		platform.err = errors.New("it is down")
		_, err = c.get(t.Context())
		require.ErrorIs(t, err, platform.err)
		require.Equal(t, 2, platform.requests)
	})
}

// A platform that fails is asked again at the next call. Until the old token expires, the old
// one is used.
func TestW7_PlatformThatFails(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		platform := &fakePlatform{t: t, life: time.Hour, err: errors.New("it is down")}
		c := platform.cache()
		for range 2 {
			_, err := c.get(t.Context())
			require.ErrorIs(t, err, platform.err)
			require.EqualError(t, err, "cannot get a token from the platform: it is down")
		}
		require.Equal(t, 2, platform.requests)

		down := platform.err
		platform.err = nil
		old, err := c.get(t.Context())
		require.NoError(t, err)
		platform.err = down
		time.Sleep(56 * time.Minute)
		token, err := c.get(t.Context())
		require.NoError(t, err)
		require.Equal(t, old, token)
		require.Equal(t, 4, platform.requests)
		time.Sleep(5 * time.Minute)
		_, err = c.get(t.Context())
		require.ErrorIs(t, err, down)

		// It hangs.
		platform.takes = time.Hour
		start := time.Now()
		_, err = c.get(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "it took longer than 10s")
		require.Equal(t, c.limit, time.Since(start))

		// It panics.
		c.fetch = func(context.Context) (string, error) { panic(requestSecret) }
		_, err = c.get(t.Context())
		var failure *bounded.FailureError
		require.ErrorAs(t, err, &failure)
		require.NotContains(t, surfaces(err), requestSecret)
	})
}

// While a token is valid, nobody waits long for the next one, and a platform that fails isn't
// asked all the time.
func TestW7_NobodyWaitsLongWithAValidToken(t *testing.T) {
	const stale = 56 * time.Minute // The first token is valid for an hour.
	type call struct {
		at, waited time.Duration
		requests   int
		token      int // which one the caller gets
	}
	for name, test := range map[string]struct {
		takes   time.Duration
		fails   bool
		timeout time.Duration // of each caller; 0: none
		calls   []call
	}{
		"in time": {500 * time.Millisecond, false, 0, []call{{stale, 500 * time.Millisecond, 2, 2}, {stale + time.Second, 0, 2, 2}}},
		"slow": {3 * time.Second, false, 0, []call{
			{stale, time.Second, 2, 1}, {stale + 1500*time.Millisecond, 0, 2, 1}, {stale + 3500*time.Millisecond, 0, 2, 2},
		}},
		"it hangs": {time.Hour, false, 0, []call{
			{stale, time.Second, 2, 1}, {stale + 9*time.Second, 0, 2, 1}, // The request has 10 seconds,
			{stale + 11*time.Second, 0, 2, 1}, {stale + 19*time.Second, 0, 2, 1}, // and then there is a pause.
			{stale + 20*time.Second, 0, 3, 1}, {stale + 25*time.Second, 0, 3, 1},
		}},
		"it fails": {0, true, 0, []call{
			{stale, 0, 2, 1}, {stale + 9*time.Second, 0, 2, 1}, {stale + 10*time.Second, 0, 3, 1}, {stale + 11*time.Second, 0, 3, 1},
		}},
		"short timeout":          {time.Hour, false, time.Second, []call{{stale, 500 * time.Millisecond, 2, 1}, {stale + 2*time.Second, 0, 2, 1}}},
		"long timeout":           {time.Hour, false, 5 * time.Second, []call{{stale, time.Second, 2, 1}}},
		"shortly before the end": {time.Hour, false, 0, []call{{time.Hour - time.Second, 500 * time.Millisecond, 2, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				platform := &fakePlatform{t: t, life: time.Hour}
				c := platform.cache()
				start := time.Now()
				first, err := c.get(t.Context())
				require.NoError(t, err)
				platform.takes = test.takes
				if test.fails {
					platform.err = errors.New("it is down")
				}
				for _, call := range test.calls {
					time.Sleep(call.at - time.Since(start))
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if test.timeout != 0 {
						ctx, cancel = context.WithTimeout(ctx, test.timeout)
					}
					token, err := c.get(ctx)
					require.NoError(t, err)
					require.Equal(t, call.waited, time.Since(start)-call.at, call.at)
					cancel()
					synctest.Wait() // The request may have just started.
					require.Equal(t, call.requests, platform.requests, call.at)
					require.Equal(t, call.token == 1, token == first, call.at)
				}
				time.Sleep(c.limit)
				synctest.Wait()
				require.Zero(t, platform.running, "the request ends by itself")
			})
		})
	}
}

// The request that goes on without callers has nothing of the one that has started it.
func TestW8_NoCallersContextReachesTheRequest(t *testing.T) {
	type key struct{}
	c := &cache{limit: time.Second, fetch: func(ctx context.Context) (string, error) {
		require.Nil(t, ctx.Value(key{}))
		return lasting(time.Hour), nil
	}}
	_, err := c.get(context.WithValue(t.Context(), key{}, "x"))
	require.NoError(t, err)
}

// However many callers there are, one request serves them all, and each leaves by its own
// context. The request ends with the last of them.
func TestW8_Callers(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		platform := &fakePlatform{t: t, life: time.Hour, takes: 5 * time.Second}
		c := platform.cache()
		var callers sync.WaitGroup
		start := time.Now()
		for i := range 100 {
			callers.Go(func() {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if i%2 == 0 { // This includes the caller that has started the request.
					time.AfterFunc(time.Second, func() { cancel(errGone) })
				}
				token, err := c.get(ctx)
				if i%2 == 0 {
					require.ErrorIs(t, err, errGone)
					require.Equal(t, time.Second, time.Since(start))
					return
				}
				require.NoError(t, err)
				require.NotEmpty(t, token)
				require.Equal(t, 5*time.Second, time.Since(start))
			})
			synctest.Wait()
		}
		callers.Wait()
		require.Equal(t, 1, platform.requests)

		// A caller that has gone causes no request.
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errGone)
		c.kept = nil
		_, err := c.get(ctx)
		require.ErrorIs(t, err, errGone)
		require.Equal(t, 1, platform.requests)

		// All callers leave: the request is cancelled, and the next caller starts another one.
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		for range 10 {
			callers.Go(func() {
				_, err := c.get(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		callers.Wait()
		synctest.Wait()
		require.Zero(t, platform.running)

		// Nobody joins a request that is being cancelled.
		var requests atomic.Int32
		c.fetch = func(ctx context.Context) (string, error) {
			if requests.Add(1) == 1 {
				<-ctx.Done()
				return "", context.Cause(ctx)
			}
			return lasting(time.Hour), nil
		}
		ctx, stop = context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err = c.get(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = c.get(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, requests.Load())
	})
}

// A token with a jti goes to one caller. The requests for the others follow each other.
func TestW8_NobodySharesATokenWithAJTI(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		platform := &fakePlatform{t: t, life: time.Hour, once: true, takes: 100 * time.Millisecond}
		c := platform.cache()
		var mu sync.Mutex
		seen := make(map[string]int)
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				token, err := c.get(t.Context())
				require.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				seen[token]++
			})
		}
		callers.Wait()
		require.Len(t, seen, 20)
		require.Equal(t, 20, platform.requests)

		// A token that nobody waited for is used by the next caller.
		platform.takes = 0
		text, err := platform.fetch(t.Context())
		require.NoError(t, err)
		c.kept = newToken(text, time.Now())
		token, err := c.get(t.Context())
		require.NoError(t, err)
		require.Equal(t, text, token)
		token, err = c.get(t.Context())
		require.NoError(t, err)
		require.NotEqual(t, text, token)

		// Of two callers that could use it if the next one is late, one gets it.
		c.kept = newToken(text, time.Now())
		c.kept.fresh = clock.Deadline{}
		platform.takes = 5 * time.Second
		start := time.Now()
		waited := make(map[time.Duration]string)
		for range 2 {
			callers.Go(func() {
				token, err := c.get(t.Context())
				require.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				waited[time.Since(start)] = token
			})
		}
		callers.Wait()
		require.Len(t, waited, 2)
		require.Equal(t, text, waited[time.Second])
		require.NotEmpty(t, waited[platform.takes])
	})
}

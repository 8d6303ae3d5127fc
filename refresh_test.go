package clientcredentials

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// agedToken returns a token with that life and refresh_in in seconds, for
// Config.EarlyRefresh early. Its request took so long, and draw decides where its soft
// window begins.
func agedToken(life, refreshIn int, took, early time.Duration, draw float64) *cachedToken {
	return newCachedToken(&tokenResponse{
		Response: &tokenresponse.Response{AccessToken: "x", ExpiresIn: int64(life), RefreshIn: int64(refreshIn)},
		sent:     time.Now(),
		floor:    took + minReuse,
	}, "", early, draw)
}

func TestWindows(t *testing.T) {
	const s, m, h = time.Second, time.Minute, time.Hour
	for _, test := range []struct {
		life, refreshIn  int
		took, early      time.Duration
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
		{life: 10, took: 20 * s, draw: 1, soft: 21 * s, hard: 21 * s, dead: 21 * s},
		{life: 0, soft: forever, hard: forever, dead: forever},
	} {
		c := agedToken(test.life, test.refreshIn, test.took, test.early, test.draw)
		require.Equal(t, []time.Duration{test.soft, test.hard, test.dead}, []time.Duration{c.soft, c.hard, c.dead}, "%+v", test)
	}
}

func TestH3_EarlierOfWallAndMonotonicClock(t *testing.T) {
	c := agedToken(3600, 0, 0, 0, 0)
	for _, test := range []struct {
		wall time.Duration // how far the wall clock is ahead of the monotonic one
		age  time.Duration // by the monotonic clock
		want State
	}{
		{0, time.Minute, Fresh},
		{0, time.Hour, Expired},
		{2 * time.Hour, time.Minute, Expired}, // The machine slept, and the monotonic clock stood still.
		{-time.Hour, time.Minute, Fresh},      // Somebody set the wall clock back by an hour.
		{-time.Hour, time.Hour, Expired},
	} {
		moved := &cachedToken{receivedToken: c.receivedToken}
		moved.sent = c.sent.MoveWallClock(test.wall)
		require.Equal(t, test.want, moved.state(c.sent.Time().Add(test.age)), "%+v", test)
	}
}

func TestF12_LifeCountsFromBeforeSending(t *testing.T) {
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		w.auth.Latency = 8 * time.Second
		s := w.conf.Source(w.ctx)
		start := time.Now()
		token := tokenFrom(t, s)
		require.WithinDuration(t, start.Add(time.Minute), token.Expiry, 0)
		require.WithinDuration(t, token.Expiry, s.Status().Expiry, 0)
		token, err := w.conf.Token(w.ctx)
		require.NoError(t, err)
		require.WithinDuration(t, start.Add(68*time.Second), token.Expiry, 0)
	})
}

func TestP1c_ShortTokensAreReusedForASecond(t *testing.T) {
	for _, expiresIn := range []int64{-1, -2147483649, 1} {
		testkit.Synctest(t, func(t *testing.T) {
			conf, requests := answeringConfig(t, fmt.Sprintf(`{"access_token":"t%%","expires_in":%d}`, expiresIn))
			s := conf.Source(t.Context())
			every(time.Millisecond, 10*time.Second, func() { tokenFrom(t, s) })
			require.EqualValues(t, 10, requests.Load())
		})
	}
}

func TestTokenWithoutExpiry(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		conf, requests := answeringConfig(t, `{"access_token":"t%"}`)
		s := conf.Source(t.Context())
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

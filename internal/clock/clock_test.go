package clock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBothClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		instant, deadline := At(now), In(now, time.Minute)
		require.Equal(t, now, instant.Time())
		require.Equal(t, now.Add(time.Minute), deadline.Time())
		for _, test := range []struct {
			name      string
			asleep    time.Duration // by the wall clock alone
			later     time.Duration // by both
			age, left time.Duration
		}{
			{"at once", 0, 0, 0, time.Minute},
			{"later", 0, 20 * time.Second, 20 * time.Second, 40 * time.Second},
			{"suspended", time.Hour, time.Second, time.Hour + time.Second, -59*time.Minute - time.Second},
			{"the wall clock was set back", -time.Hour, 20 * time.Second, 20 * time.Second, 40 * time.Second},
			{"over", 0, time.Minute, time.Minute, 0},
		} {
			at := now.Add(test.later)
			require.Equal(t, test.age, instant.MoveWallClock(test.asleep).Age(at), test.name)
			require.Equal(t, test.left, deadline.MoveWallClock(test.asleep).Left(at), test.name)
			require.Equal(t, test.left <= 0, deadline.MoveWallClock(test.asleep).Passed(at), test.name)
		}
		require.True(t, Deadline{}.Passed(now))
		require.Zero(t, Deadline{}.Time())
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		require.NoError(t, In(start, 2500*time.Millisecond).Wait(t.Context()))
		require.Equal(t, 2500*time.Millisecond, time.Since(start))
		require.NoError(t, In(start, time.Hour).MoveWallClock(time.Hour).Wait(t.Context()), "the machine slept")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		require.ErrorIs(t, In(time.Now(), time.Hour).Wait(ctx), context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

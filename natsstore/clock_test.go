package natsstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClock(t *testing.T) {
	var local instant
	local.wall = time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	pass := func(elapsed, wall time.Duration) {
		local.elapsed += elapsed
		local.wall = local.wall.Add(wall)
	}
	server := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	c := clock{local: func() instant { return local }}

	_, ok := c.now()
	require.False(t, ok, "the server was never asked")

	sent := local
	pass(40*time.Millisecond, 40*time.Millisecond)
	c.set(sent, server)
	now, ok := c.now()
	require.True(t, ok)
	require.Equal(t, server, now, "the server may have written the answer just now")

	pass(time.Second, time.Second)
	now, ok = c.now()
	require.True(t, ok)
	require.Equal(t, server.Add(time.Second), now)

	// Another answer is used if it is more exact.
	for _, answer := range []struct {
		roundTrip, change time.Duration
	}{
		{50 * time.Millisecond, 0},
		{30 * time.Millisecond, time.Minute},
	} {
		sent = local
		pass(answer.roundTrip, answer.roundTrip)
		before, _ := c.now()
		c.set(sent, before.Add(time.Minute))
		now, _ = c.now()
		require.Equal(t, before.Add(answer.change), now)
	}

	pass(maxClockAge+1, maxClockAge+1)
	_, ok = c.now()
	require.False(t, ok, "the reading is old")

	for name, wall := range map[string]time.Duration{
		"slept":    time.Hour,
		"set back": -5 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			c.set(local, server)
			_, ok := c.now()
			require.True(t, ok)
			pass(time.Millisecond, wall)
			_, ok = c.now()
			require.False(t, ok)
		})
	}
}

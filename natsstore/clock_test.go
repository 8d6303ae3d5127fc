package natsstore

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClock(t *testing.T) {
	local := instant{wall: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)}
	server := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	c := clock{local: func() instant { return local }}
	pass := func(elapsed, wall time.Duration) {
		local.elapsed += elapsed
		local.wall = local.wall.Add(wall)
	}
	// answer has the server answer that it is the given time, after a round trip.
	answer := func(roundTrip time.Duration, server time.Time) {
		sent := local
		pass(roundTrip, roundTrip)
		c.set(sent, server)
	}
	requireTime := func(want time.Time) {
		t.Helper()
		now, ok := c.now()
		require.True(t, ok)
		require.Equal(t, want, now)
	}
	requireAsk := func(why string) {
		t.Helper()
		_, ok := c.now()
		require.False(t, ok, why)
	}

	requireAsk("the server was never asked")
	answer(40*time.Millisecond, server)
	requireTime(server) // The server may have written the answer just now.
	pass(time.Second, time.Second)
	requireTime(server.Add(time.Second))

	// Another answer is used if it is more exact.
	answer(50*time.Millisecond, server.Add(time.Hour))
	requireTime(server.Add(time.Second + 50*time.Millisecond))
	answer(30*time.Millisecond, server.Add(time.Hour))
	requireTime(server.Add(time.Hour))

	pass(maxClockAge+1, maxClockAge+1)
	requireAsk("the reading is old")
	for _, step := range []time.Duration{time.Hour, -5 * time.Minute} {
		answer(0, server)
		requireTime(server)
		pass(time.Millisecond, step)
		requireAsk("the machine slept, or its wall clock was set")
	}
}

// TestClockIsShared has several calls set a new clock at once.
func TestClockIsShared(t *testing.T) {
	for range 50_000 {
		var c clock
		var calls sync.WaitGroup
		for range 3 {
			calls.Go(func() { c.set(c.read(), time.Now()) })
		}
		calls.Wait()
		_, ok := c.now()
		require.True(t, ok)
	}
}

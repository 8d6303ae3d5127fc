package natsstore

import (
	"sync/atomic"
	"time"
)

const (
	// maxClockAge is how old a reading of the server's clock may be: after a change
	// of the stream's leader another server tells the time.
	maxClockAge = 10 * time.Second

	// maxClockStep is how far this machine's two clocks may part from one reading to
	// the next. One of them stands still while the machine sleeps.
	maxClockStep = time.Second
)

// A clock tells the time of the server: what that said last, and what has passed
// since by this machine's monotonic clock. What this machine thinks that the time is
// doesn't count.
type clock struct {
	local   func() instant // nil: this machine's
	reading atomic.Pointer[reading]
}

// An instant is the time by both clocks of this machine.
type instant struct {
	elapsed time.Duration // monotonic, since some moment
	wall    time.Time
}

// A reading is what the time was by the server's clock.
type reading struct {
	at     instant
	server time.Time
}

var processStart = time.Now()

func (c *clock) read() instant {
	if c.local != nil {
		return c.local()
	}
	now := time.Now()
	return instant{elapsed: now.Sub(processStart), wall: now.Round(0)}
}

// now returns the server's time, or false if the server is to be asked.
func (c *clock) now() (time.Time, bool) {
	r := c.reading.Load()
	if r == nil {
		return time.Time{}, false
	}
	now := c.read()
	age := now.elapsed - r.at.elapsed
	step := now.wall.Sub(r.at.wall) - age
	if age > maxClockAge || step.Abs() > maxClockStep {
		return time.Time{}, false
	}
	return r.server.Add(age), true
}

// set notes what the server has answered to a request that was sent at that moment.
// The answer was written at some time since: in the middle, to be wrong by no more
// than half the round trip.
func (c *clock) set(sent instant, server time.Time) {
	half := (c.read().elapsed - sent.elapsed) / 2
	c.reading.Store(&reading{
		at:     instant{elapsed: sent.elapsed + half, wall: sent.wall.Add(half)},
		server: server,
	})
}

package natsstore

import (
	"sync/atomic"
	"time"
)

const (
	// maxClockAge is how old a reading of the server's clock may be. It is short because
	// after a change of the stream's leader, the time is that of another server.
	maxClockAge = 10 * time.Second

	// maxClockStep is how far this machine's two clocks may drift apart after a reading.
	// They drift apart while the machine sleeps: the monotonic clock may stand still.
	maxClockStep = time.Second
)

// A clock keeps the server's time: the time of the server's last answer, plus what has
// passed since then by this machine's monotonic clock. The wall clock of this machine
// doesn't matter. A clock is never ahead of the server's. It is behind by at most the round
// trip of that answer.
type clock struct {
	local   func() instant // nil: the clocks of this machine
	reading atomic.Pointer[reading]
}

// An instant is a time by both clocks of this machine.
type instant struct {
	elapsed time.Duration // since processStart, by the monotonic clock
	wall    time.Time
}

// A reading is an answer of the server that says what time it is.
type reading struct {
	at        instant // when the answer arrived
	server    time.Time
	roundTrip time.Duration
}

var processStart = time.Now()

func (c *clock) read() instant {
	if c.local != nil {
		return c.local()
	}
	now := time.Now()
	return instant{elapsed: now.Sub(processStart), wall: now.Round(0)}
}

// now returns the server's time, or false if the server has to be asked.
func (c *clock) now() (time.Time, bool) { return c.reading.Load().timeAt(c.read()) }

// timeAt returns the server's time at now. A reading that is nil or too old doesn't know it.
func (r *reading) timeAt(now instant) (time.Time, bool) {
	if r == nil {
		return time.Time{}, false
	}
	age := now.elapsed - r.at.elapsed
	step := now.wall.Sub(r.at.wall) - age
	if age > maxClockAge || step.Abs() > maxClockStep {
		return time.Time{}, false
	}
	return r.server.Add(age), true
}

// set records the time that the server has answered to a request sent at sent. If several
// calls ask at the same time, the fastest answer is kept, because it is the most exact.
func (c *clock) set(sent instant, server time.Time) {
	at := c.read()
	r := &reading{at: at, server: server, roundTrip: at.elapsed - sent.elapsed}
	old := c.reading.Load() // Once: another call may store one at any time.
	if _, ok := old.timeAt(at); ok && old.roundTrip < r.roundTrip {
		return
	}
	c.reading.Store(r)
}

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
// doesn't count. It is never ahead, and late by no more than the answer took to arrive:
// so nothing is ever said to last longer than it was given.
type clock struct {
	local   func() instant // nil: this machine's
	reading atomic.Pointer[reading]
}

// An instant is the time by both clocks of this machine.
type instant struct {
	elapsed time.Duration // monotonic, since some moment
	wall    time.Time
}

// A reading is what the server's clock has said.
type reading struct {
	at        instant // when that arrived
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

// set notes what the server has answered to a request that was sent at that moment. Of
// answers to several calls at the same time the fastest counts: it is the most exact.
func (c *clock) set(sent instant, server time.Time) {
	at := c.read()
	r := &reading{at: at, server: server, roundTrip: at.elapsed - sent.elapsed}
	old := c.reading.Load()
	if _, ok := c.now(); ok && old.roundTrip < r.roundTrip {
		return
	}
	c.reading.Store(r)
}

// Package clock measures time that passes while a machine may be suspended, and while
// somebody may set its clock.
//
// Go's monotonic clock stands still while a machine is suspended, on Linux and elsewhere.
// The wall clock goes on, but can be set back. So a time span is over as soon as one of
// the two says so.
package clock

import (
	"context"
	"time"
)

// An Instant is a moment that time is counted from.
type Instant struct {
	at   time.Time // with the monotonic reading
	wall int64     // without it, in nanoseconds of Unix time
}

// At returns the instant of a time with a monotonic reading, such as time.Now returns.
func At(t time.Time) Instant { return Instant{t, t.UnixNano()} }

// Time returns the time that the instant was made of.
func (i Instant) Time() time.Time { return i.at }

// Age returns how much time has passed since the instant, by the clock that shows more.
func (i Instant) Age(now time.Time) time.Duration {
	return max(now.Sub(i.at), time.Duration(now.UnixNano()-i.wall))
}

// A Deadline is the end of a pause. The zero value has passed.
type Deadline struct {
	since Instant
	after time.Duration
}

// In returns the deadline that comes d after now.
func In(now time.Time, d time.Duration) Deadline { return Deadline{At(now), d} }

// Passed reports whether the pause is over.
func (d Deadline) Passed(now time.Time) bool { return d.Left(now) <= 0 }

// Left returns how much of the pause is left; 0 or less: it is over.
func (d Deadline) Left(now time.Time) time.Duration {
	if d == (Deadline{}) {
		return 0
	}
	return d.after - d.since.Age(now)
}

// Time returns the time of the deadline, for people. The zero value returns the zero time.
func (d Deadline) Time() time.Time {
	if d == (Deadline{}) {
		return time.Time{}
	}
	return d.since.at.Add(d.after)
}

// slice is how long Wait sleeps at a time. A machine may wake up after the deadline, and
// a timer knows only the monotonic clock.
const slice = time.Second

// Wait waits until the deadline has passed. If ctx is done before, it returns the cause of
// ctx. After a suspend it returns at most a second late.
func (d Deadline) Wait(ctx context.Context) error {
	for {
		left := d.Left(time.Now())
		if left <= 0 {
			return nil
		}
		select {
		case <-time.After(min(left, slice)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// MoveWallClock returns the deadline as it looks after the wall clock has moved on by d
// while the monotonic clock stood still. It is for tests.
func (d Deadline) MoveWallClock(by time.Duration) Deadline {
	d.since = d.since.MoveWallClock(by)
	return d
}

// MoveWallClock returns the instant as it looks after the wall clock has moved on by d while
// the monotonic clock stood still. It is for tests.
func (i Instant) MoveWallClock(by time.Duration) Instant {
	i.wall -= int64(by)
	return i
}

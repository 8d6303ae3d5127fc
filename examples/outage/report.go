package main

import (
	"fmt"
	"io"
	"time"
)

// report tells what happens, and keeps in mind whether it was as claimed.
type report struct {
	out            io.Writer
	checks, failed int
}

func (r *report) say(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
}

// check tells a claim, and whether it held.
func (r *report) check(held bool, format string, args ...any) {
	mark := "ok    "
	if !held {
		mark = "FAILED"
		r.failed++
	}
	r.checks++
	r.say("   "+mark+" "+format, args...)
}

// result is an error if a claim didn't hold.
func (r *report) result() error {
	if r.failed > 0 {
		return fmt.Errorf("%d of %d claims didn't hold: see FAILED above", r.failed, r.checks)
	}
	r.say("\nAll of it held (%d of %d checks).", r.checks, r.checks)
	return nil
}

// round leaves of d what is worth reading.
func round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

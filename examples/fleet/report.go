package main

import (
	"context"
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
func (r *report) check(c claim) {
	mark := "ok    "
	if !c.held {
		mark = "FAILED"
		r.failed++
	}
	r.checks++
	r.say("   %s %s", mark, c.text)
}

// result is an error if a claim didn't hold.
func (r *report) result() error {
	if r.failed > 0 {
		return fmt.Errorf("%d of %d claims didn't hold: see FAILED above", r.failed, r.checks)
	}
	r.say("\nAll of it held (%d of %d checks).", r.checks, r.checks)
	return nil
}

type claim struct {
	held bool
	text string
}

// An attempt is one attempt at a step. What it claims is told when it is certain that
// no other one follows.
type attempt struct {
	*report
	claims   []claim
	hindered string // why the machine may be to blame; empty: it isn't
}

func (a *attempt) claim(held bool, format string, args ...any) {
	a.claims = append(a.claims, claim{held, fmt.Sprintf(format, args...)})
}

// held reports whether all that is claimed does.
func (a *attempt) held() bool {
	for _, c := range a.claims {
		if !c.held {
			return false
		}
	}
	return true
}

// blame finds out whether the machine has kept replicas from doing what is claimed of
// them: tokens with so short a life leave little time.
func (a *attempt) blame(all ...figures) {
	switch f := sum(all...); {
	case f.StoreFailures > 0:
		a.hindered = fmt.Sprintf("%d calls of Redis failed, or took longer than 250ms", f.StoreFailures)
	case f.Hindered > tolerance:
		a.hindered = fmt.Sprintf("a process was ready to run, and had to wait for %v", round(f.Hindered))
	}
}

// tolerance is how long a process may wait for the machine, and nobody notices.
const tolerance = 50 * time.Millisecond

// step makes attempts until one is as claimed, or isn't though the machine had time.
func (r *report) step(ctx context.Context, attempts int, do func(context.Context, *attempt) error) error {
	for n := 1; ; n++ {
		a := &attempt{report: r}
		if err := do(ctx, a); err != nil {
			return err
		}
		if !a.held() && a.hindered != "" && n < attempts {
			r.say("   The machine is too busy to show this: %s. Once more.", a.hindered)
			continue
		}
		for _, c := range a.claims {
			r.check(c)
		}
		if !a.held() && a.hindered != "" {
			r.say("   The machine may be to blame: %s.", a.hindered)
		}
		return nil
	}
}

// round leaves of d what is worth reading.
func round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

// An attempt is one attempt at a step. Its claims are checked when it is certain that no
// other attempt follows.
type attempt struct {
	*report.Report
	claims   []claim
	hindered string // why the machine may be to blame for a failure; empty: it isn't
}

type claim struct {
	holds bool
	text  string
}

func (a *attempt) claim(holds bool, format string, args ...any) {
	a.claims = append(a.claims, claim{holds, fmt.Sprintf(format, args...)})
}

// failed reports whether a claim doesn't hold.
func (a *attempt) failed() bool {
	return slices.ContainsFunc(a.claims, func(c claim) bool { return !c.holds })
}

// blame finds out whether replicas had trouble because the machine was busy. Tokens that
// live so briefly leave them little time.
func (a *attempt) blame(all ...figures) {
	switch f := sum(all...); {
	case f.StoreFailures > 0:
		a.hindered = fmt.Sprintf("%d calls of Redis failed, or took longer than 250ms", f.StoreFailures)
	case f.Hindered > tolerance:
		a.hindered = fmt.Sprintf("a process was ready to run, and had to wait for %v", report.Round(f.Hindered))
	}
}

// tolerance is how long a process may wait for the machine without any effect.
const tolerance = 50 * time.Millisecond

// step makes attempts at a step until one succeeds, or fails although the machine wasn't
// busy. It then checks the claims of that attempt.
func step(ctx context.Context, r *report.Report, attempts int, do func(context.Context, *attempt) error) error {
	for n := 1; ; n++ {
		a := &attempt{Report: r}
		if err := do(ctx, a); err != nil {
			return err
		}
		hindered := a.failed() && a.hindered != ""
		if hindered && n < attempts {
			r.Say("   The machine is too busy to show this: %s. Trying again.", a.hindered)
			continue
		}
		for _, c := range a.claims {
			r.Check(c.holds, "%s", c.text)
		}
		if hindered {
			r.Say("   The machine may be to blame: %s.", a.hindered)
		}
		return nil
	}
}

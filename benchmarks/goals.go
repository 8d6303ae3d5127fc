package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/perf/benchmath"
)

// A goal is a number to reach.
type goal struct {
	text    string
	found   string
	reached bool
}

// find returns the cost of p among costs.
func find(costs []cost, p peer) cost {
	return costs[slices.IndexFunc(costs, func(c cost) bool { return c.peer == p.name })]
}

// tolerance is how much two measurements of the same operation can differ.
const tolerance = 1.03

// notSlower reports whether c isn't slower than upstream, as far as the samples show.
func notSlower(costs []cost, c cost) bool {
	return c.median() <= costs[0].median() || !differ(costs[0], c) && c.median() <= tolerance*costs[0].median()
}

// differ reports whether the difference between a and b is more than chance.
func differ(a, b cost) bool {
	comparison := benchmath.AssumeNothing.Compare(a.ns, b.ns)
	return comparison.P <= comparison.Alpha
}

// found prints a cost relative to upstream's.
func found(costs []cost, c cost) string {
	comparison := benchmath.AssumeNothing.Compare(costs[0].ns, c.ns)
	return fmt.Sprintf("%s × upstream (p=%.3f)", ratio(costs, c), comparison.P)
}

// goals computes which goals are reached.
func (r *results) goals() []goal {
	var goals []goal
	for _, fields := range slices.Sorted(maps.Keys(r.trips)) {
		costs := r.trips[fields]
		own := find(costs, ownPeer)
		goals = append(goals, goal{
			text:    fmt.Sprintf("`Transport`, %d header fields: at most half of upstream's time", fields),
			found:   found(costs, own),
			reached: own.median() <= 0.5*costs[0].median(),
		}, goal{
			text:    fmt.Sprintf("`Transport`, %d header fields: at most 3 allocations", fields),
			found:   fmt.Sprintf("%d, upstream %d", own.allocs, costs[0].allocs),
			reached: own.allocs <= 3,
		})
	}
	for _, fields := range slices.Sorted(maps.Keys(r.trips)) {
		costs := r.trips[fields]
		dropIn := find(costs, dropInPeer)
		goals = append(goals, goal{
			text:    fmt.Sprintf("`Client`'s `*oauth2.Transport`, %d header fields: no slower than upstream's", fields),
			found:   found(costs, dropIn),
			reached: notSlower(costs, dropIn),
		})
	}
	for _, p := range []peer{dropInPeer, ownPeer} {
		c := find(r.calls, p)
		goals = append(goals, goal{
			text:    fmt.Sprintf("A call of an API on the loopback interface (%s): no slower than upstream", p.name),
			found:   found(r.calls, c),
			reached: notSlower(r.calls, c),
		})
	}
	for _, p := range []peer{dropInPeer, ownPeer, interfacePeer} {
		c := find(r.serial, p)
		goals = append(goals, goal{
			text:    fmt.Sprintf("Reading a token, one caller (%s): no slower than upstream", p.name),
			found:   found(r.serial, c),
			reached: notSlower(r.serial, c),
		})
	}
	for _, callers := range slices.Sorted(maps.Keys(r.parallel)) {
		costs := r.parallel[callers]
		c := find(costs, ownPeer)
		goals = append(goals, goal{
			text:    fmt.Sprintf("Reading a token, %d callers at once (%s): faster than upstream", callers, ownPeer.name),
			found:   found(costs, c),
			reached: c.median() < costs[0].median() && differ(costs[0], c),
		})
	}
	for i, p := range peers() {
		if p.module != ownPeer.module {
			continue
		}
		refresh, outage := r.refresh[i], r.outage[i]
		limit := r.plan.refresh.delay / 2
		valid := outage.between(0, r.plan.outage.life-200*time.Millisecond)
		failed := failures(refresh.calls) + failures(valid)
		waited := waits(refresh.calls, limit) + waits(valid, limit)
		goals = append(goals, goal{
			text:    fmt.Sprintf("While a token is valid (%s): nobody waits %v or longer, and no call fails", p.name, limit),
			found:   fmt.Sprintf("of %d calls, %d waited and %d failed", len(refresh.calls)+len(valid), waited, failed),
			reached: failed == 0 && waited == 0,
		})
		most := r.idle[slices.Max(slices.Collect(maps.Keys(r.idle)))][i]
		goals = append(goals, goal{
			text:    fmt.Sprintf("An idle source (%s): no goroutine", p.name),
			found:   fmt.Sprintf("%.2f", most.goroutines),
			reached: most.goroutines <= 0,
		}, goal{
			text:    fmt.Sprintf("An idle source and its token (%s): at most 1 KiB", p.name),
			found:   fmt.Sprintf("%.0f bytes", most.bytes),
			reached: most.bytes <= 1024,
		})
	}
	return goals
}

// Goals is the table of goals.
func (r *results) Goals() string {
	t := newTable("goal", "found", "")
	for _, g := range r.goals() {
		reached := "reached"
		if !g.reached {
			reached = "**not reached**"
		}
		t.row(g.text, g.found, reached)
	}
	return t.String()
}

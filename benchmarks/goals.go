package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// A goal is a number to reach.
type goal struct {
	what, measured, limit string
	reached               bool
	why                   string // it isn't reached, one sentence
}

// find returns the cost of p among costs.
func find(costs []cost, p peer) cost {
	return costs[slices.IndexFunc(costs, func(c cost) bool { return c.peer == p.name })]
}

// tolerance is how much two measurements of the same operation can differ.
const tolerance = 1.03

// within reports whether the ratio of c, as it is printed, is within limit. If the goal is
// that c isn't slower, the two may be the same operation.
func within(c cost, limit float64) bool {
	if limit == 1 {
		limit = tolerance
	}
	return math.Round(100*c.ratio.Center) <= math.Round(100*limit)
}

// atMost is the goal that c takes at most limit times as long as what it is compared with.
func atMost(limit float64, what string, c cost, why string) goal {
	return goal{
		what:     what,
		measured: fmt.Sprintf("%s × ± %.0f%%", ratio(c), 100*spread(c)),
		limit:    fmt.Sprintf("%.2f ×", limit),
		reached:  within(c, limit),
		why:      why,
	}
}

// Reasons of several goals.
const (
	whyCopy = "A transport must not change the request, so it copies the request and its header. " +
		"The profile below shows how much of the time that is."
	whyClient = "`Client` returns upstream's type, because programs expect it. So upstream's code copies the request and sets the header field. " +
		"In addition, each request gets a copy of the token, and the guard under `Client` checks the origin of the request. Over a network this is too little to notice."
	whyProxy = "For each request, ccproxy decides which API it is for, copies it to add the token, and counts it in the metrics. " +
		"It keeps a body of up to 64 KiB, so that it can send it again with another token."
	whyDecoded = "A `Source` keeps the server's response instead of the whole token that upstream's type needs. After a garbage collection, `Token` decodes it again. " +
		"`AccessToken` and `Transport` don't need that."
	whyMemory = "A read needs memory from several places. With so many tenants, none of it is in the caches of the processor."
)

// goals computes which goals are reached.
func (r *results) goals() []goal {
	own, upstream := r.programs[1], r.programs[0]
	added := own.stripped - upstream.stripped
	most := r.idle[slices.Max(slices.Collect(maps.Keys(r.idle)))]
	ownIdle, dropInIdle := most[slices.IndexFunc(most, ownPeer.is)], most[slices.IndexFunc(most, dropInPeer.is)]
	trips := r.trips[5]
	target, challenged, ownTrip := find(r.targets, targetPeer), find(trips, challengedPeer), find(trips, ownPeer)
	goals := []goal{
		{
			"A small program, beyond one with upstream", fmt.Sprintf("%+.0f kB", float64(added)/1000), "350 kB", added <= 350_000,
			"Nearly half of it is machine code. Go's tables about that code take almost as much. The linker doesn't know which fields of `Config` a program sets, so it keeps the code for all of them. " +
				"A third of the code is for stores, targets, DPoP and grants. The rest has no large part.",
		},
		{
			"Work when a program starts", fmt.Sprintf("%d bytes, %d allocations", own.bytes, own.allocs), "none", own.bytes == 0 && own.allocs == 0,
			"A package variable needs memory.",
		},
		{
			"An idle `Source` and its token of 40 bytes", fmt.Sprintf("%.0f bytes", ownIdle.bytes), "528 bytes", ownIdle.bytes <= 528,
			"It holds the server's response, the value of the header field, and the times of the token.",
		},
		{
			"The same, with upstream's type (drop-in)", fmt.Sprintf("%.0f bytes", dropInIdle.bytes), "1024 bytes", dropInIdle.bytes <= 1024,
			"Upstream's `TokenSource` keeps its own copy of the token, with the server's response as a map, beside ours.",
		},
		{
			"Goroutines of an idle source", fmt.Sprintf("%.2f", max(ownIdle.goroutines, dropInIdle.goroutines)), "none", max(ownIdle.goroutines, dropInIdle.goroutines) <= 0,
			"Something waits in the background.",
		},
		atMost(1, "A token request (drop-in)", find(r.requests, dropInPeer),
			"It runs in its own goroutine with a deadline, so that a caller never waits longer than its context allows. That starts and wakes goroutines, and makes two timers."),
		atMost(0.35, "`Transport`, 5 header fields", ownTrip, whyCopy),
		atMost(0.35, "`Transport`, 5 header fields, with a `Target`", target, whyCopy),
		atMost(0.35, "`Transport`, 5 header fields, with `Challenged`", challenged, whyCopy),
		{
			"Allocations of these three", fmt.Sprintf("%d, %d, %d", ownTrip.allocs, target.allocs, challenged.allocs), "3",
			max(ownTrip.allocs, target.allocs, challenged.allocs) <= 3, whyCopy,
		},
		atMost(1, "`Client`'s `*oauth2.Transport`, 5 header fields, without a network", find(trips, dropInPeer), whyClient),
		atMost(1, "A call of an API on the loopback interface (drop-in)", find(r.calls, dropInPeer), whyClient),
		atMost(1, "A call of an API on the loopback interface (own types)", find(r.calls, ownPeer), whyCopy),
	}
	for _, method := range slices.Sorted(maps.Keys(r.proxies)) {
		goals = append(goals, atMost(1.15, "A "+method+" through ccproxy, beside a plain `httputil.ReverseProxy`", r.proxies[method][1],
			whyProxy))
	}
	counts := slices.Sorted(maps.Keys(r.reads))
	for _, callers := range []int{1, counts[1], counts[len(counts)-1]} {
		for _, p := range []peer{dropInPeer, ownPeer, interfacePeer} {
			if callers > 1 && p.name != ownPeer.name {
				continue
			}
			why := map[string]string{
				dropInPeer.name:    "Upstream's `TokenSource` is in front of ours: it locks a mutex, as upstream does.",
				ownPeer.name:       "Each read copies the token, so that nobody can change that of somebody else.",
				interfacePeer.name: "Each read copies the token, and here the copy is on the heap. If a caller is compiled with the `Source` itself and doesn't keep the token, the copy is on the stack and costs nothing.",
			}[p.name]
			goals = append(goals, atMost(1, fmt.Sprintf("Reading a token, %s (%s)", callersAtOnce(callers), strings.TrimPrefix(p.name, "here: ")), find(r.reads[callers], p), why))
		}
	}
	for _, p := range []peer{ownPeer, textPeer} {
		of := fmt.Sprintf("%d tenants (%s)", r.plan.tenants, strings.TrimPrefix(p.name, "here: "))
		why := whyMemory
		if p.name == ownPeer.name {
			why = whyDecoded
		}
		goals = append(goals,
			atMost(1, "The first read after a garbage collection, "+of, find(r.tenancy.first, p), why),
			atMost(1, "Another read, "+of, find(r.tenancy.again, p), whyMemory))
	}
	ownTenant, upstreamTenant := r.tenancy.idle[slices.IndexFunc(r.tenancy.idle, ownPeer.is)], r.tenancy.idle[0]
	goals = append(goals, goal{
		fmt.Sprintf("Memory for each of %d tenants (own types), beside upstream's", r.plan.tenants), fmt.Sprintf("%.2f ×", ownTenant.bytes/upstreamTenant.bytes), "1.00 ×", ownTenant.bytes <= upstreamTenant.bytes,
		"Each tenant has a `Config`, and its `Source` a copy of that.",
	})
	limit := r.plan.refresh.delay / 2
	for i, p := range peers() {
		if p.module != ownPeer.module {
			continue
		}
		refresh, outage := r.refresh[i], r.outage[i]
		valid := outage.between(0, r.plan.outage.life-200*time.Millisecond)
		failed := failures(refresh.calls) + failures(valid)
		waited := waits(refresh.calls, limit) + waits(valid, limit)
		goals = append(goals, goal{
			fmt.Sprintf("Calls that fail or wait %v while a token is valid (%s)", limit, strings.TrimPrefix(p.name, "here: ")),
			fmt.Sprintf("%d of %d", failed+waited, len(refresh.calls)+len(valid)), "none", failed+waited == 0,
			"A busy machine can delay a call so long.",
		})
	}
	return goals
}

// is reports whether f is a footprint of p.
func (p peer) is(f footprint) bool { return f.peer == p.name }

// Goals is the table of goals, with the reasons for those that aren't reached.
func (r *results) Goals() string {
	t := newTable("", "measured", "goal: at most", "")
	missed := make(map[string][]string) // by reason
	var reasons []string
	for _, g := range r.goals() {
		reached := "reached"
		if !g.reached {
			reached = "**not reached**"
			if missed[g.why] == nil {
				reasons = append(reasons, g.why)
			}
			missed[g.why] = append(missed[g.why], "**"+g.what+"**")
		}
		t.row(g.what, g.measured, g.limit, reached)
	}
	if len(reasons) > 0 {
		t.WriteString("\nThese goals are not reached, and why:\n\n")
	}
	for _, why := range reasons {
		fmt.Fprintf(t, "- %s: %s\n", strings.Join(missed[why], "; "), why)
	}
	return t.String()
}

package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"text/template"
	"time"
)

//go:embed report.md.tmpl
var reportText string

// results are the results of all measurements.
type results struct {
	plan   plan
	took   time.Duration
	others float64 // the share of the processors that other programs used

	reads    map[int][]cost // by callers
	trips    map[int][]cost // by header fields
	targets  []cost         // with 5 header fields
	calls    []cost
	requests []cost
	profiles []shares
	proxies  map[string][]cost // by method
	programs []program

	idle           map[int][]footprint // by sources
	idleOfJWTs     []footprint
	idleConfigured []footprint
	tenancy        tenancy

	stampedes map[int][]crowd // by callers
	refusals  []crowd

	refresh, outage []timeline
}

// run measures everything, and prints its progress to w.
func (p plan) run(ctx context.Context, w io.Writer) (r *results, err error) {
	start, before := time.Now(), readProcessors()
	r = &results{plan: p, idle: make(map[int][]footprint)}
	step := func(name string, do func() error) {
		if err != nil {
			return
		}
		began := time.Now()
		fmt.Fprintf(w, "%s... ", name)
		err = do()
		fmt.Fprintf(w, "%.1fs\n", time.Since(began).Seconds())
	}
	measure := func(name string, do func()) { step(name, func() error { do(); return nil }) }
	measure("idle sources", func() {
		for _, n := range p.sources {
			r.idle[n] = p.footprints(n, opaqueLength, false)
		}
		r.idleOfJWTs = p.footprints(p.sources[0], tokenLength, false)
		r.idleConfigured = p.footprints(p.sources[0], opaqueLength, true)
	})
	measure("token reads", func() { r.reads = p.reads() })
	measure("round trips", func() { r.trips = p.trips() })
	step("profiles", func() (err error) { r.profiles, err = p.profiles(); return err })
	measure("calls of an API", func() { r.calls = p.calls() })
	measure("token requests", func() { r.requests = p.requests() })
	measure("tenants", func() { r.tenancy = p.tenancy() })
	measure("round trips with targets", func() { r.targets = p.targets() })
	step("ccproxy", func() (err error) { r.proxies, err = p.proxies(ctx); return err })
	step("programs", func() (err error) { r.programs, err = programs(ctx); return err })
	measure("cold starts", func() { r.stampedes = p.stampedes() })
	measure("refused credentials", func() { r.refusals = p.refusals() })
	measure("a refresh by a slow server", func() { r.refresh = p.refresh.live() })
	measure("an outage", func() { r.outage = p.outage.live() })
	r.took, r.others = time.Since(start), readProcessors().others(before)
	return r, err
}

// write writes the report.
func (r *results) write(w io.Writer) error {
	t, err := template.New("report").Parse(reportText)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// Machine describes the machine.
func (r *results) Machine() string {
	return fmt.Sprintf("%s. Other programs used %.0f%% of its processors", machine(), 100*r.others)
}

// idle is the largest share of the processors that other programs may use, and stable is
// the largest spread that half of the ratios may have.
const (
	idle   = 0.05
	stable = 0.05
)

// Quality says whether the measurements are reliable.
func (r *results) Quality() string {
	var spreads []float64
	for _, costs := range slices.Concat(slices.Collect(maps.Values(r.trips)), slices.Collect(maps.Values(r.reads)), [][]cost{r.calls, r.requests}) {
		for _, c := range costs[1:] {
			spreads = append(spreads, spread(c))
		}
	}
	slices.Sort(spreads)
	if r.others > idle || spreads[len(spreads)/2] > stable {
		return "**The machine was busy with something else. The ratios are not reliable: repeat this on an idle machine.**"
	}
	return "Look at the ratios: the times are those of one machine."
}

// Took is the duration of all measurements in minutes.
func (r *results) Took() string { return fmt.Sprintf("%.0f", max(r.took.Minutes(), 1)) }

// Short is how most costs are sampled, and Long those with a network or with several callers.
func (r *results) Short() string { return r.plan.short.String() }
func (r *results) Long() string  { return r.plan.long.String() }

func (s sampling) String() string { return fmt.Sprintf("%d samples of %v", s.count, s.each) }

// Ballast is the size of the heap in megabytes.
func (r *results) Ballast() int { return ballast >> 20 }

// Refresh is the plan of the refresh by a slow server.
func (r *results) Refresh() lifePlanText { return lifePlanText{r.plan.refresh} }

// Outage is the plan of the outage.
func (r *results) Outage() lifePlanText { return lifePlanText{r.plan.outage} }

// lifePlanText has the fields of a lifePlan for the template.
type lifePlanText struct{ plan lifePlan }

func (t lifePlanText) Life() time.Duration  { return t.plan.life }
func (t lifePlanText) Early() time.Duration { return t.plan.early }
func (t lifePlanText) Delay() time.Duration { return t.plan.delay }
func (t lifePlanText) Down() time.Duration  { return t.plan.down }
func (t lifePlanText) Up() time.Duration    { return t.plan.up }
func (t lifePlanText) End() time.Duration   { return t.plan.end }
func (t lifePlanText) Callers() int         { return t.plan.callers }
func (t lifePlanText) Pause() time.Duration { return t.plan.pause }

// A table is a table in Markdown.
type table struct{ strings.Builder }

func newTable(heads ...string) *table {
	t := new(table)
	t.row(heads...)
	fmt.Fprintf(t, "|---|%s\n", strings.Repeat("---:|", len(heads)-1))
	return t
}

func (t *table) row(cells ...string) { fmt.Fprintf(t, "| %s |\n", strings.Join(cells, " | ")) }

// Peers lists the libraries, and how they are used.
func (r *results) Peers() string {
	var b strings.Builder
	build, _ := debug.ReadBuildInfo()
	for _, p := range peers() {
		fmt.Fprintf(&b, "- **%s**", p.name)
		for _, module := range build.Deps {
			if module.Path == p.module && module.Replace == nil {
				fmt.Fprintf(&b, " (`%s` %s)", module.Path, module.Version)
			}
		}
		fmt.Fprintf(&b, ": %s\n", p.how)
	}
	return b.String()
}

// Reads is the table of token reads, by the number of callers.
func (r *results) Reads() string {
	counts := slices.Sorted(maps.Keys(r.reads))
	heads := []string{"time of a read"}
	for _, n := range counts {
		heads = append(heads, callersAtOnce(n))
	}
	t := newTable(append(heads, "allocations", "bytes")...)
	for i, c := range r.reads[counts[0]] {
		cells := []string{c.peer}
		for _, n := range counts {
			cells = append(cells, nanoseconds(r.reads[n][i].ns))
		}
		t.row(append(cells, fmt.Sprint(c.allocs), fmt.Sprint(c.bytes))...)
	}
	return t.String()
}

// ReadRatios compares these times with upstream's.
func (r *results) ReadRatios() string {
	counts := slices.Sorted(maps.Keys(r.reads))
	heads := []string{"× upstream"}
	for _, n := range counts {
		heads = append(heads, callersAtOnce(n))
	}
	t := newTable(heads...)
	for i, c := range r.reads[counts[0]] {
		cells := []string{c.peer}
		for _, n := range counts {
			cells = append(cells, ratioAndSpread(r.reads[n], i))
		}
		t.row(cells...)
	}
	return t.String()
}

// Trips is the table of what a token adds to the cost of a request.
func (r *results) Trips() string {
	heads := []string{""}
	counts := slices.Sorted(maps.Keys(r.trips))
	for _, n := range counts {
		heads = append(heads, fmt.Sprintf("%d fields", n), "× upstream")
	}
	t := newTable(heads...)
	for i, c := range r.trips[counts[0]] {
		cells := []string{c.peer}
		for _, n := range counts {
			cells = append(cells, nanoseconds(r.trips[n][i].ns), ratioAndSpread(r.trips[n], i))
		}
		t.row(cells...)
	}
	return t.String()
}

// Targets is the table of the same in a program that uses targets.
func (r *results) Targets() string { return costTable(r.targets) }

// Allocations is the table of the allocations of these requests.
func (r *results) Allocations() string {
	heads := []string{""}
	counts := slices.Sorted(maps.Keys(r.trips))
	for _, n := range counts {
		heads = append(heads, fmt.Sprintf("%d fields", n), "bytes")
	}
	t := newTable(heads...)
	for i, c := range r.trips[counts[0]] {
		cells := []string{c.peer}
		for _, n := range counts {
			cells = append(cells, fmt.Sprint(r.trips[n][i].allocs), fmt.Sprint(r.trips[n][i].bytes))
		}
		t.row(cells...)
	}
	return t.String()
}

// Profiles is the table of the parts of a round trip.
func (r *results) Profiles() string {
	heads := []string{"share of the time"}
	for _, s := range r.profiles {
		heads = append(heads, s.peer)
	}
	t := newTable(heads...)
	for _, part := range parts {
		cells := []string{part.text}
		for _, s := range r.profiles {
			if share, ok := s.of[part]; ok {
				cells = append(cells, fmt.Sprintf("%.0f%%", 100*share))
			} else {
				cells = append(cells, "")
			}
		}
		t.row(cells...)
	}
	return t.String()
}

// Calls is the table of API calls over a network.
func (r *results) Calls() string { return costTable(r.calls) }

// Requests is the table of token requests.
func (r *results) Requests() string { return costTable(r.requests) }

func costTable(costs []cost) string {
	t := newTable("", "time", "× upstream", "allocations", "bytes")
	for i, c := range costs {
		t.row(c.peer, nanoseconds(c.ns), ratioAndSpread(costs, i), fmt.Sprint(c.allocs), fmt.Sprint(c.bytes))
	}
	return t.String()
}

// Proxies is the table of ccproxy beside a plain proxy.
func (r *results) Proxies() string {
	methods := slices.Sorted(maps.Keys(r.proxies))
	heads := []string{""}
	for _, method := range methods {
		heads = append(heads, method, "× plain", "allocations", "bytes")
	}
	t := newTable(heads...)
	for i, c := range r.proxies[methods[0]] {
		cells := []string{c.peer}
		for _, method := range methods {
			c := r.proxies[method][i]
			cells = append(cells, nanoseconds(c.ns), ratioAndSpread(r.proxies[method], i), fmt.Sprint(c.allocs), fmt.Sprint(c.bytes))
		}
		t.row(cells...)
	}
	return t.String()
}

// ProxyRuns is how often the benchmark of ccproxy ran.
func (r *results) ProxyRuns() int { return r.plan.proxyRuns }

// Programs is the table of small programs.
func (r *results) Programs() string {
	t := newTable("", "without symbols", "beyond upstream", "with symbols", "beyond upstream", "bytes at start", "allocations at start")
	for _, p := range r.programs {
		t.row(p.peer, kilobytes(p.stripped), kilobytes(p.stripped-r.programs[0].stripped),
			kilobytes(p.size), kilobytes(p.size-r.programs[0].size), fmt.Sprint(p.bytes), fmt.Sprint(p.allocs))
	}
	return t.String()
}

func kilobytes(n int64) string { return fmt.Sprintf("%.0f kB", float64(n)/1000) }

// Tenants is how many tenants a program has.
func (r *results) Tenants() int { return r.plan.tenants }

// TenantCallers is how many callers replace their tokens.
func (r *results) TenantCallers() int { return r.plan.tenantCallers }

// TenantReads is the table of reads in a program with many tenants.
func (r *results) TenantReads() string {
	t := newTable("", "first read", "× upstream", "another read", "× upstream", "another read, "+callersAtOnce(r.plan.tenantCallers), "× upstream")
	for i, c := range r.tenancy.first {
		cells := []string{c.peer}
		for _, costs := range [][]cost{r.tenancy.first, r.tenancy.again, r.tenancy.many} {
			cells = append(cells, nanoseconds(costs[i].ns), ratioAndSpread(costs, i))
		}
		t.row(cells...)
	}
	return t.String()
}

// Tenancy is the table of what many tenants cost a program.
func (r *results) Tenancy() string {
	t := newTable("", "replacing all tokens", "× upstream", "bytes per tenant", "goroutines")
	for i, f := range r.tenancy.idle {
		all := time.Duration(r.tenancy.rounds[i].ns * float64(r.plan.tenants))
		t.row(f.peer, milliseconds(all), ratioAndSpread(r.tenancy.rounds, i), fmt.Sprintf("%.0f", f.bytes), fmt.Sprintf("%.0f", f.goroutines*float64(r.plan.tenants)))
	}
	return t.String()
}

// Idle is the table of idle sources.
func (r *results) Idle() string {
	heads := []string{"bytes per source"}
	counts := slices.Sorted(maps.Keys(r.idle))
	for _, n := range counts {
		heads = append(heads, fmt.Sprintf("%d sources", n))
	}
	t := newTable(append(heads, "with a JWT each", "with a configuration each", "goroutines per source")...)
	for i, f := range r.idle[counts[0]] {
		cells := []string{f.peer}
		for _, n := range counts {
			cells = append(cells, fmt.Sprintf("%.0f", r.idle[n][i].bytes))
		}
		t.row(append(cells, fmt.Sprintf("%.0f", r.idleOfJWTs[i].bytes), fmt.Sprintf("%.0f", r.idleConfigured[i].bytes), fmt.Sprintf("%.2f", r.idle[counts[len(counts)-1]][i].goroutines))...)
	}
	return t.String()
}

// Stampedes is the table of cold starts.
func (r *results) Stampedes() string {
	heads := []string{"slowest call"}
	counts := slices.Sorted(maps.Keys(r.stampedes))
	for _, n := range counts {
		heads = append(heads, callersAtOnce(n))
	}
	most := counts[len(counts)-1]
	t := newTable(append(heads, fmt.Sprintf("half of %d", most), "token requests", "failed")...)
	for i, c := range r.stampedes[most] {
		cells := []string{c.peer}
		for _, n := range counts {
			cells = append(cells, milliseconds(quantile(r.stampedes[n][i].calls, 1)))
		}
		t.row(append(cells, milliseconds(quantile(c.calls, 0.5)), fmt.Sprint(c.requests), fmt.Sprint(failures(c.calls)))...)
	}
	return t.String()
}

func callersAtOnce(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return fmt.Sprintf("%d callers", n)
}

// CrowdDelay is how long a token request takes in a cold start.
func (r *results) CrowdDelay() time.Duration { return r.plan.crowdDelay }

// RefusedCalls is how many calls each caller makes when the credentials are refused.
func (r *results) RefusedCalls() int { return r.plan.refusedCalls }

// RefusedCallers is how many callers make them.
func (r *results) RefusedCallers() int { return r.plan.refusedCallers }

// RefusedDelay is how long a token request takes when the credentials are refused.
func (r *results) RefusedDelay() time.Duration { return r.plan.refusedDelay }

// Refusals is the table of refused credentials.
func (r *results) Refusals() string {
	t := newTable("", "token requests", "time for all calls", "half of the calls within", "slowest")
	for _, c := range r.refusals {
		t.row(c.peer, fmt.Sprint(c.requests), milliseconds(c.took), milliseconds(quantile(c.calls, 0.5)), milliseconds(quantile(c.calls, 1)))
	}
	return t.String()
}

// Refreshes is the table of the refresh by a slow server.
func (r *results) Refreshes() string {
	t := newTable("", "calls", "failed", fmt.Sprintf("waited %v or more", r.plan.refresh.delay/2), "half within", "99% within", "slowest", "token requests")
	for _, l := range r.refresh {
		t.row(l.peer, fmt.Sprint(len(l.calls)), fmt.Sprint(failures(l.calls)), fmt.Sprint(waits(l.calls, r.plan.refresh.delay/2)),
			milliseconds(quantile(l.calls, 0.5)), milliseconds(quantile(l.calls, 0.99)), milliseconds(quantile(l.calls, 1)), fmt.Sprint(len(l.requests)))
	}
	return t.String()
}

// Outages is the table of the outage.
func (r *results) Outages() string {
	p := r.plan.outage
	t := newTable("", "calls while the token was valid", "failed", "calls after that", "failed", "back after", "token requests while down", "slowest call")
	for _, l := range r.outage {
		valid, expired := l.between(0, p.life), l.between(p.life, p.up)
		requests := 0
		for _, request := range l.requests {
			if !request.ok {
				requests++
			}
		}
		t.row(l.peer, fmt.Sprint(len(valid)), fmt.Sprint(failures(valid)), fmt.Sprint(len(expired)), fmt.Sprint(failures(expired)),
			seconds(l.recovery(p.up)), fmt.Sprint(requests), milliseconds(quantile(l.calls, 1)))
	}
	return t.String()
}

// nanoseconds prints the median of times.
func nanoseconds(median float64) string {
	unit, divisor := "ns", 1.0
	if median >= 10_000 {
		unit, divisor = "µs", 1000
	}
	digits := 0
	if median/divisor < 100 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, median/divisor, unit)
}

// ratio prints how long c takes, compared with the first of its costs.
func ratio(c cost) string { return fmt.Sprintf("%.2f", c.ratio.Center) }

// spread is the distance of the confidence interval of the ratio from its median, as a share.
func spread(c cost) float64 {
	return max(c.ratio.Center-c.ratio.Lo, c.ratio.Hi-c.ratio.Center) / c.ratio.Center
}

// ratioAndSpread prints the ratio of a cost to the first one.
func ratioAndSpread(costs []cost, i int) string {
	if i == 0 {
		return ratio(costs[0])
	}
	return fmt.Sprintf("%s ± %.0f%%", ratio(costs[i]), 100*spread(costs[i]))
}

func milliseconds(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case ms < 1:
		return fmt.Sprintf("%.3f ms", ms)
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}

func seconds(d time.Duration) string {
	if d < 0 {
		return "never"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/template"
	"time"

	"golang.org/x/perf/benchmath"
)

//go:embed report.md.tmpl
var reportText string

// results are the results of all measurements.
type results struct {
	plan plan
	took time.Duration

	serial   []cost
	parallel map[int][]cost // by callers
	trips    map[int][]cost // by header fields
	calls    []cost
	requests []cost
	profiles []shares

	idle           map[int][]footprint // by sources
	idleOfJWTs     []footprint
	idleConfigured []footprint

	stampedes map[int][]crowd // by callers
	refusals  []crowd

	refresh, outage []timeline
}

// run measures everything, and prints its progress to w.
func (p plan) run(w io.Writer) *results {
	start := time.Now()
	r := &results{plan: p, idle: make(map[int][]footprint)}
	step := func(name string, do func()) {
		began := time.Now()
		fmt.Fprintf(w, "%s... ", name)
		do()
		fmt.Fprintf(w, "%.1fs\n", time.Since(began).Seconds())
	}
	step("idle sources", func() {
		for _, n := range p.sources {
			r.idle[n] = p.footprints(n, opaqueLength, false)
		}
		r.idleOfJWTs = p.footprints(p.sources[0], tokenLength, false)
		r.idleConfigured = p.footprints(p.sources[0], opaqueLength, true)
	})
	step("token reads", func() { r.serial, r.parallel = p.reads() })
	step("round trips", func() { r.trips = p.trips() })
	step("profiles", func() {
		var err error
		if r.profiles, err = p.profiles(); err != nil {
			panic(err) // It fails only if another profile is being taken.
		}
	})
	step("calls of an API", func() { r.calls = p.calls() })
	step("token requests", func() { r.requests = p.requests() })
	step("cold starts", func() { r.stampedes = p.stampedes() })
	step("refused credentials", func() { r.refusals = p.refusals() })
	step("a refresh by a slow server", func() { r.refresh = p.refresh.live() })
	step("an outage", func() { r.outage = p.outage.live() })
	r.took = time.Since(start)
	return r
}

// write writes the report.
func (r *results) write(w io.Writer) error {
	t, err := template.New("report").Parse(reportText)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// Machine describes the machine, without its name.
func (r *results) Machine() string {
	machine := fmt.Sprintf("%s, %s/%s, %d cores", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return machine
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, model, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			return machine + " of " + strings.TrimSpace(model)
		}
	}
	return machine
}

// Quality says whether the measurements are reliable.
func (r *results) Quality() string {
	var spreads []float64
	for _, c := range slices.Concat(append(slices.Collect(maps.Values(r.trips)), r.serial)...) {
		s := summary(c.ns)
		spreads = append(spreads, max(s.Center-s.Lo, s.Hi-s.Center)/s.Center)
	}
	slices.Sort(spreads)
	if spreads[len(spreads)/2] > 0.15 {
		return "**The machine was busy with something else. The ratios are not reliable: repeat this on an idle machine.**"
	}
	return "Look at the ratios: the times are those of one machine."
}

// Took is the duration of all measurements in minutes.
func (r *results) Took() string { return fmt.Sprintf("%.0f", max(r.took.Minutes(), 1)) }

// Samples is the number of samples of each cost.
func (r *results) Samples() int { return r.plan.samples }

// Each is the duration of a sample.
func (r *results) Each() time.Duration { return r.plan.each }

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

// ratio compares a cost with the first of costs, which is upstream's.
func ratio(costs []cost, c cost) string {
	return fmt.Sprintf("%.2f", c.median()/costs[0].median())
}

// Reads is the table of token reads.
func (r *results) Reads() string {
	callers := slices.Max(slices.Collect(maps.Keys(r.parallel)))
	few := slices.Min(slices.Collect(maps.Keys(r.parallel)))
	t := newTable("", "one caller", "× upstream", fmt.Sprintf("%d callers at once", few), "× upstream", fmt.Sprintf("%d callers at once", callers), "× upstream", "allocations", "bytes")
	for i, c := range r.serial {
		t.row(c.peer, nanoseconds(c), ratio(r.serial, c),
			nanoseconds(r.parallel[few][i]), ratio(r.parallel[few], r.parallel[few][i]),
			nanoseconds(r.parallel[callers][i]), ratio(r.parallel[callers], r.parallel[callers][i]),
			fmt.Sprint(c.allocs), fmt.Sprint(c.bytes))
	}
	return t.String()
}

// ReadsByCallers is the table of reads by the number of callers.
func (r *results) ReadsByCallers() string {
	heads := []string{""}
	counts := slices.Sorted(maps.Keys(r.parallel))
	for _, n := range counts {
		heads = append(heads, callersAtOnce(n))
	}
	t := newTable(heads...)
	for i, c := range r.serial {
		cells := []string{c.peer}
		for _, n := range counts {
			cells = append(cells, nanoseconds(r.parallel[n][i]))
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
			cells = append(cells, nanoseconds(r.trips[n][i]), ratio(r.trips[n], r.trips[n][i]))
		}
		t.row(cells...)
	}
	return t.String()
}

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
	for _, c := range costs {
		t.row(c.peer, nanoseconds(c), ratio(costs, c), fmt.Sprint(c.allocs), fmt.Sprint(c.bytes))
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

// nanoseconds prints a median and its spread.
func nanoseconds(c cost) string {
	s := summary(c.ns)
	unit, divisor := "ns", 1.0
	if s.Center >= 10_000 {
		unit, divisor = "µs", 1000
	}
	digits := 0
	if s.Center/divisor < 100 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %s %s", digits, s.Center/divisor, unit, spread(s))
}

// spread prints the distance of the confidence interval from the median.
func spread(s benchmath.Summary) string {
	return fmt.Sprintf("± %.0f%%", 100*max(s.Center-s.Lo, s.Hi-s.Center)/s.Center)
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

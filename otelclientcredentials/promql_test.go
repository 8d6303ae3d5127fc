package otelclientcredentials

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// This is the part of PromQL that the dashboard uses: a parser to check the names in its
// queries, and an evaluator to draw its picture. A query is one of
//
//	name{label="value", …}              selector; also !=, =~ and !~
//	selector offset …                   what it was at the start of the interval
//	rate(selector[…]), increase(…)      without extrapolation
//	sum(query), min(query)              also: sum by (label, …) (query)
//	histogram_quantile(0.99, query)
//	60 * query, query / query, query and query, query or query, vector(0)
//
// The interval is $__rate_interval, or $__range, which is all that was scraped. Operators have
// no precedence: there are parentheses.

// A promQuery is a node of a parsed query.
type promQuery struct {
	op      string // "select", "number", "*", "/", "or" or the name of a function
	args    []*promQuery
	number  float64
	metric  string    // of a selector
	matches []matcher // of a selector
	by      []string  // of an aggregation
	offset  bool      // of a selector
	all     bool      // of a selector: the interval is $__range
}

type matcher struct{ label, op, value string }

func (m matcher) matches(value string) bool {
	equal := value == m.value
	if strings.HasSuffix(m.op, "~") {
		// A variable of the dashboard stands for all its values.
		equal = strings.HasPrefix(m.value, "$") || regexp.MustCompile("^(?:"+m.value+")$").MatchString(value)
	}
	return equal == (m.op[0] == '=')
}

var lexeme = regexp.MustCompile(`^\s*("[^"]*"|[A-Za-z_][A-Za-z0-9_]*|[0-9.]+|\[?\$__[a-z_]+\]?|=~|!~|!=|[-=+*/(){},])`)

// A promParser reads a query. It panics if it doesn't understand it.
type promParser struct{ rest string }

func parseQuery(text string) *promQuery {
	p := &promParser{text}
	q := p.binary()
	if p.peek() != "" {
		panic(fmt.Sprintf("cannot read %q at %q", text, p.rest))
	}
	return q
}

func (p *promParser) peek() string {
	if m := lexeme.FindStringSubmatch(p.rest); m != nil {
		return m[1]
	}
	return strings.TrimSpace(p.rest)
}

func (p *promParser) next(want ...string) string {
	got := p.peek()
	if len(want) > 0 && !slices.Contains(want, got) {
		panic(fmt.Sprintf("%q instead of %q in a query", got, want))
	}
	p.rest = strings.TrimSpace(p.rest)[len(got):]
	return got
}

func (p *promParser) binary() *promQuery {
	left := p.term()
	for slices.Contains([]string{"*", "/", "and", "or"}, p.peek()) {
		left = &promQuery{op: p.next(), args: []*promQuery{left, p.term()}}
	}
	return left
}

func (p *promParser) labels() (labels []string) {
	p.next("(")
	for p.peek() != ")" {
		labels = append(labels, p.next())
		if p.peek() == "," {
			p.next()
		}
	}
	p.next(")")
	return labels
}

func (p *promParser) term() *promQuery {
	switch word := p.next(); {
	case word == "(":
		q := p.binary()
		p.next(")")
		return q
	case word[0] >= '0' && word[0] <= '9':
		number, err := strconv.ParseFloat(word, 64)
		if err != nil {
			panic(err)
		}
		return &promQuery{op: "number", number: number}
	case slices.Contains([]string{"sum", "min", "rate", "increase", "histogram_quantile", "vector"}, word):
		q := &promQuery{op: word}
		if p.peek() == "by" {
			p.next()
			q.by = p.labels()
		}
		for p.next("(", ","); ; p.next(",") {
			q.args = append(q.args, p.binary())
			if p.peek() == ")" {
				break
			}
		}
		p.next(")")
		return q
	default:
		q := &promQuery{op: "select", metric: word}
		for p.next("{"); p.peek() != "}"; {
			m := matcher{label: p.next(), op: p.next("=", "!=", "=~", "!~"), value: strings.Trim(p.next(), `"`)}
			q.matches = append(q.matches, m)
			if p.peek() == "," {
				p.next()
			}
		}
		p.next("}")
		switch {
		case p.peek() == "offset":
			p.next()
			q.offset, q.all = true, p.next("$__rate_interval", "$__range") == "$__range"
		case strings.HasPrefix(p.peek(), "["):
			q.all = p.next("[$__rate_interval]", "[$__range]") == "[$__range]"
		}
		return q
	}
}

// walk calls f for each selector of q, with all labels that the query needs of it.
func (q *promQuery) walk(by []string, f func(selector *promQuery, labels []string)) {
	if q.op == "select" {
		labels := slices.Clone(by)
		for _, m := range q.matches {
			labels = append(labels, m.label)
		}
		f(q, labels)
		return
	}
	if q.op == "histogram_quantile" {
		by = append(slices.Clone(by), "le")
	}
	for _, arg := range q.args {
		arg.walk(append(slices.Clone(by), q.by...), f)
	}
}

// grouping returns the labels that the result of q has.
func (q *promQuery) grouping() (labels []string) {
	if q.by != nil {
		return q.by
	}
	for _, arg := range q.args {
		labels = append(labels, arg.grouping()...)
	}
	return labels
}

// A scrape is the value of each series at one time, by the names of the metric and of the series.
type scrape map[string]map[string]sample

type sample struct {
	metric string
	labels map[string]string
	value  float64
}

func seriesName(metric string, labels map[string]string) string {
	var b strings.Builder
	b.WriteString(metric)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&b, ",%s=%s", name, labels[name])
	}
	return b.String()
}

// A history is what a server has scraped, once in an interval.
type history struct {
	interval time.Duration
	scrapes  []scrape
}

// rateInterval is Grafana's default for $__rate_interval, in scrapes.
const rateInterval = 4

// eval returns the value of q at the nth scrape. As in Prometheus, a series that is new has no
// increase.
func (h *history) eval(q *promQuery, n int) []sample {
	switch q.op {
	case "select":
		return h.selected(q, n)
	case "number", "vector":
		number := q.number
		if q.op == "vector" {
			number = q.args[0].number
		}
		return []sample{{value: number}}
	case "rate":
		return h.increases(q.args[0], n, h.interval.Seconds()*rateInterval)
	case "increase":
		return h.increases(q.args[0], n, 1)
	case "sum", "min":
		return aggregate(q, h.eval(q.args[0], n))
	case "histogram_quantile":
		return quantiles(q.args[0].number, h.eval(q.args[1], n))
	}
	left, right := h.eval(q.args[0], n), h.eval(q.args[1], n)
	switch {
	case q.op == "and":
		return slices.DeleteFunc(left, func(s sample) bool { return !s.isIn(right) })
	case q.op == "or":
		return append(left, slices.DeleteFunc(right, func(s sample) bool { return s.isIn(left) })...)
	case q.op == "*":
		for i := range right {
			right[i].value *= q.args[0].number
		}
		return right
	case len(left) == 0 || len(right) == 0 || right[0].value == 0:
		return nil
	}
	return []sample{{value: left[0].value / right[0].value}}
}

// isIn reports whether one of list has the same labels.
func (s sample) isIn(list []sample) bool {
	return slices.ContainsFunc(list, func(other sample) bool { return maps.Equal(s.labels, other.labels) })
}

// start returns where the interval of q, a selector, begins that ends at the nth scrape.
func (q *promQuery) start(n int) int {
	if q.all {
		return -1
	}
	return n - rateInterval
}

func (h *history) selected(q *promQuery, n int) (found []sample) {
	if q.offset {
		n = q.start(n)
	}
	if n < 0 {
		return nil
	}
	for _, s := range h.scrapes[n][q.metric] {
		if !slices.ContainsFunc(q.matches, func(m matcher) bool { return !m.matches(s.labels[m.label]) }) {
			found = append(found, s)
		}
	}
	return found
}

func (h *history) increases(selector *promQuery, to int, per float64) (found []sample) {
	for _, s := range h.selected(selector, to) {
		name := seriesName(s.metric, s.labels)
		for n := max(selector.start(to), 0); n < to; n++ {
			if old, ok := h.scrapes[n][s.metric][name]; ok {
				s.value = (s.value - old.value) / per
				found = append(found, s)
				break
			}
		}
	}
	return found
}

func aggregate(q *promQuery, samples []sample) (groups []sample) {
	index := map[string]int{}
	for _, s := range samples {
		labels := map[string]string{}
		for _, label := range q.by {
			if s.labels[label] != "" {
				labels[label] = s.labels[label]
			}
		}
		name := seriesName("", labels)
		i, ok := index[name]
		switch {
		case !ok:
			index[name] = len(groups)
			groups = append(groups, sample{labels: labels, value: s.value})
		case q.op == "sum":
			groups[i].value += s.value
		default:
			groups[i].value = min(groups[i].value, s.value)
		}
	}
	return groups
}

// quantiles is histogram_quantile, for buckets that begin at 0.
func quantiles(quantile float64, buckets []sample) (found []sample) {
	groups := map[string][]sample{}
	for _, b := range buckets {
		labels := maps.Clone(b.labels)
		delete(labels, "le")
		name := seriesName("", labels)
		groups[name] = append(groups[name], b)
	}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b sample) int { return cmp.Compare(bound(a), bound(b)) })
		rank := quantile * group[len(group)-1].value
		if rank == 0 {
			continue
		}
		last := sample{labels: map[string]string{"le": "0"}}
		for _, b := range group {
			if b.value >= rank {
				value := bound(last)
				if !math.IsInf(bound(b), 1) {
					value += (bound(b) - bound(last)) * (rank - last.value) / (b.value - last.value)
				}
				labels := maps.Clone(b.labels)
				delete(labels, "le")
				found = append(found, sample{labels: labels, value: value})
				break
			}
			last = b
		}
	}
	return found
}

func bound(bucket sample) float64 {
	le, err := strconv.ParseFloat(bucket.labels["le"], 64)
	if err != nil {
		panic(err)
	}
	return le
}

// The evaluator draws a picture, and nothing would show if it was wrong.
func TestQueries(t *testing.T) {
	h := &history{interval: 15 * time.Second}
	for n := range 9 {
		now := scrape{"c": {}, "b": {}}
		put := func(metric string, value float64, labels map[string]string) {
			now[metric][seriesName(metric, labels)] = sample{metric, labels, value}
		}
		put("c", float64(60*n), map[string]string{"kind": "old", "instance": "1"})
		put("c", float64(30*n), map[string]string{"kind": "old", "instance": "2"})
		if n >= 7 {
			put("c", 5, map[string]string{"kind": "new", "instance": "1"})
		}
		for le, value := range map[string]float64{"1": 10, "2": 30, "+Inf": 40} {
			put("b", value*float64(n), map[string]string{"le": le})
		}
		h.scrapes = append(h.scrapes, now)
	}
	const kinds = `sum by (kind) ((increase(c{}[$__rate_interval]) and c{} offset $__rate_interval) or c{})`
	for text, want := range map[string]string{
		`c{kind="old", instance!="2"}`:               "instance=1,kind=old 480",
		`c{kind=~"o.*", instance!~"2|3"}`:            "instance=1,kind=old 480",
		`c{kind=~"$kind", instance=~"1"}`:            "instance=1,kind=new 5; instance=1,kind=old 480",
		`sum by (kind) (c{})`:                        "kind=new 5; kind=old 720",
		`min(c{})`:                                   " 5",
		`c{instance="2"} offset $__rate_interval`:    "instance=2,kind=old 120",
		`c{} offset $__range`:                        "",
		`sum(rate(c{}[$__rate_interval]))`:           " 6",
		`60 * sum(rate(c{}[$__rate_interval]))`:      " 360",
		`sum(increase(c{}[$__rate_interval]))`:       " 360",
		`sum(increase(c{kind="old"}[$__range]))`:     " 720",
		kinds:                                        "kind=new 5; kind=old 360",
		`c{kind="none"} or vector(0)`:                " 0",
		`min(c{}) or vector(0)`:                      " 5",
		`sum(c{kind="none"}) / sum(c{})`:             "",
		`sum(c{kind="new"}) / sum(c{kind="old"})`:    " 0.006944444444444444",
		`histogram_quantile(0.5, sum by (le) (b{}))`: " 1.5",
		`histogram_quantile(0.99, b{})`:              " 2",
	} {
		var got []string
		for _, s := range h.eval(parseQuery(text), 8) {
			got = append(got, fmt.Sprintf("%s %v", strings.TrimPrefix(seriesName("", s.labels), ","), s.value))
		}
		slices.Sort(got)
		require.Equal(t, want, strings.Join(got, "; "), text)
	}
	for _, text := range []string{`sum(`, `max(c{})`, `c{kind}`, `c{} c{}`, `c{}[5m]`, `c`} {
		require.Panics(t, func() { parseQuery(text) }, text)
	}
}

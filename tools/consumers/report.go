package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// A report says how the tests of a consumer ended.
type report struct {
	consumer

	before   *testRun
	changes  []change
	outputs  []string // what the tests with these changes printed
	unstable []string // tests whose result sometimes differs
}

// differences returns the tests and packages whose results differ, sorted by name. It leaves
// out what follows from another difference: a test with a subtest whose result changes in the
// same way, and the tests of a package that no longer compiles.
func differences(before, after *testRun) (changes []change) {
	names := maps.Clone(before.results)
	maps.Copy(names, after.results)
	all := map[string]change{}
	for name := range names {
		if b, a := before.result(name), after.result(name); b != a {
			all[name] = change{test: name, before: b, after: a}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		pkg, _, isTest := strings.Cut(name, " ")
		if isTest && after.broken[pkg] {
			continue
		}
		follows := false
		for other, o := range all {
			below := strings.HasPrefix(other, name+"/") && isTest || strings.HasPrefix(other, name+" ")
			follows = follows || below && o.before == c.before && o.after == c.after
		}
		if !follows {
			changes = append(changes, c)
		}
	}
	return changes
}

// unexpected returns the changes that modules.txt doesn't list, and those that it lists and
// that didn't occur.
func (r *report) unexpected() (problems []string) {
	for _, c := range r.changes {
		if r.reason(c) == "" {
			problems = append(problems, c.String())
		}
	}
	for _, e := range r.expected {
		if !slices.ContainsFunc(r.changes, e.same) {
			problems = append(problems, fmt.Sprintf("%v: it is listed in modules.txt, but didn't happen", e))
		}
	}
	return problems
}

// reason says why c is expected, or is empty.
func (r *report) reason(c change) string {
	if i := slices.IndexFunc(r.expected, c.same); i >= 0 {
		return r.expected[i].reason
	}
	return ""
}

func (c change) same(other change) bool {
	return c.test == other.test && c.before == other.before && c.after == other.after
}

// count returns how many tests and subtests had the result with upstream's package.
func (r *report) count(result string) (n int) {
	for name, got := range r.before.results {
		if strings.Contains(name, " ") && got == result {
			n++
		}
	}
	return n
}

func (r *report) String() string {
	var text strings.Builder
	problems := r.unexpected()
	verdict := "ok"
	if len(problems) > 0 {
		verdict = "CHANGED"
	}
	fmt.Fprintf(&text, "%-10s %s %s: %d passed, %d failed and %d were skipped with upstream's package, of which they reach %v%%; %d changed with ours\n",
		verdict, r.module, r.version, r.count("pass"), r.count("fail"), r.count("skip"), r.before.reached, len(r.changes))
	indented := func(kind, line string) {
		fmt.Fprintf(&text, "           %s: %s\n", kind, strings.ReplaceAll(line, "\n", "\n           "))
	}
	for _, name := range slices.Sorted(maps.Keys(r.before.results)) {
		if strings.Contains(name, " ") && r.before.results[name] == "fail" {
			indented("failed with upstream's package", name)
		}
	}
	for _, c := range r.changes {
		if reason := r.reason(c); reason != "" {
			indented("expected", c.String()+": "+reason)
		}
	}
	for _, problem := range problems {
		indented("unexpected", problem)
	}
	for _, line := range r.unstable {
		indented("unstable", line)
	}
	if len(problems) > 0 {
		for _, output := range r.outputs {
			indented("output", output)
		}
	}
	return text.String()
}

// inWords has the results as predicates.
var inWords = map[string]string{"pass": "passes", "fail": "fails", "skip": "is skipped", absent: "doesn't run"}

// table returns the reports as a table in Markdown, and the reasons of the changes.
func table(reports []*report) string {
	var rows, reasons strings.Builder
	rows.WriteString("| module | used by | tests of | passed | failed | skipped | reach | changed here |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range reports {
		fmt.Fprintf(&rows, "| `%s` %s | %s | `%s` | %d | %d | %d | %v %% | %d |\n",
			r.module, r.version, r.uses, strings.Join(r.packages, "`, `"), r.count("pass"), r.count("fail"), r.count("skip"), r.before.reached, len(r.changes))
		for _, c := range r.changes {
			pkg, test, _ := strings.Cut(c.test, " ")
			fmt.Fprintf(&reasons, "- `%s` in `%s` of `%s` %s with upstream's package, and %s here. %s\n",
				test, pkg, r.module, inWords[c.before], inWords[c.after], r.reason(c))
		}
	}
	if reasons.Len() > 0 {
		rows.WriteString("\n" + reasons.String())
	}
	return rows.String()
}

// replaceSection writes the table between the markers in the Markdown file.
func replaceSection(name, table string) error {
	doc, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	const begin, end = "<!-- consumers:begin -->\n", "<!-- consumers:end -->\n"
	before, rest, ok := strings.Cut(string(doc), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s needs a line %q and a line %q", name, begin, end)
	}
	return os.WriteFile(name, []byte(before+begin+"\n"+table+"\n"+end+after), 0o600)
}

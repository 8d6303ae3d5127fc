package main

import (
	"fmt"
	"slices"
	"strings"
)

// A consumer is a module that imports upstream's package, and those of its tests to run.
type consumer struct {
	module, version string
	uses            string   // what uses it, and what is special about its tests
	tags            string   // build tags, separated by commas
	run, skip       string   // regular expressions: which tests to run, if not all, and which of them not
	packages        []string // patterns, such as ./config
	expected        []change
}

// A change is a test whose result differs.
type change struct {
	test          string // its package and its name; or only the package, if that doesn't compile or fails as a whole
	before, after string
	reason        string // why it is expected, if it is
}

func (c change) String() string { return fmt.Sprintf("%s: %s -> %s", c.test, c.before, c.after) }

// parse reads modules.txt. Entries are separated by an empty line, and consist of
//
//	# what uses it
//	module PATH VERSION
//	tags TAG,TAG
//	run REGEXP
//	skip REGEXP
//	test PACKAGE...
//	changed PACKAGE TEST BEFORE AFTER REASON
//
// The lines with tags, run and skip are optional. There is a line with changed for each
// expected change, and BEFORE and AFTER are pass, fail, skip or absent.
func parse(text string) (consumers []consumer, err error) {
	for entry := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var c consumer
		for line := range strings.Lines(entry) {
			keyword, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			fields := strings.Fields(rest)
			switch {
			case keyword == "#":
				c.uses = strings.TrimSpace(c.uses + " " + rest)
			case keyword == "module" && len(fields) == 2:
				c.module, c.version = fields[0], fields[1]
			case keyword == "tags" && len(fields) == 1:
				c.tags = rest
			case keyword == "run" && len(fields) == 1:
				c.run = rest
			case keyword == "skip" && len(fields) == 1:
				c.skip = rest
			case keyword == "test" && len(fields) > 0:
				c.packages = fields
			case keyword == "changed" && len(fields) > 4:
				c.expected = append(c.expected, change{
					test: fields[0] + " " + fields[1], before: fields[2], after: fields[3], reason: strings.Join(fields[4:], " "),
				})
			default:
				return nil, fmt.Errorf("modules.txt: what does %q mean?", line)
			}
		}
		if c.uses == "" || c.module == "" || c.packages == nil {
			return nil, fmt.Errorf("modules.txt: an entry needs lines with #, module and test: %q", entry)
		}
		if slices.ContainsFunc(consumers, func(other consumer) bool { return other.module == c.module }) {
			return nil, fmt.Errorf("modules.txt: there are two entries for %s", c.module)
		}
		consumers = append(consumers, c)
	}
	return consumers, nil
}

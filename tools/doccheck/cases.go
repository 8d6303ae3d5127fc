package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

var (
	separator = regexp.MustCompile(`^\|[-| ]+\|$`)
	caseID    = regexp.MustCompile(`^\| ([A-Z][0-9]+[a-z]?) \|`)
	testName  = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	namedIDs  = regexp.MustCompile(`^Test((?:[A-Z][0-9]+[a-z]?_)+)`)
)

// checkCases compares the register of test cases with the tests in root and below:
//
//   - Each row of a table names at least one test, and the tests that it names exist.
//   - Each id has one row, and so has each id in the name of a test.
//   - Each test whose name begins with TestMistake_ is named.
func checkCases(register, root string) (problems []string, err error) {
	text, err := os.ReadFile(register)
	if err != nil {
		return nil, err
	}
	tests, err := findTests(os.DirFS(root))
	if err != nil {
		return nil, err
	}
	report := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s:%d: %s", register, line, fmt.Sprintf(format, args...)))
	}
	ids, named := map[string]bool{}, map[string]bool{}
	inTable := false
	for i, row := range strings.Split(string(text), "\n") {
		if !inTable || !strings.HasPrefix(row, "|") {
			inTable = separator.MatchString(row)
			continue
		}
		if m := caseID.FindStringSubmatch(row); m != nil {
			if ids[m[1]] {
				report(i+1, "%s has two rows", m[1])
			}
			ids[m[1]] = true
		}
		names := testName.FindAllStringSubmatch(row, -1)
		if len(names) == 0 {
			report(i+1, "the row names no test")
		}
		for _, m := range names {
			named[m[1]] = true
			if !tests[m[1]] {
				report(i+1, "no test is named %s", m[1])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		if m := namedIDs.FindStringSubmatch(name); m != nil {
			for id := range strings.SplitSeq(strings.TrimSuffix(m[1], "_"), "_") {
				if !ids[id] {
					problems = append(problems, fmt.Sprintf("%s: %s, after which %s is named, has no row", register, id, name))
				}
			}
		}
		if strings.HasPrefix(name, "TestMistake_") && !named[name] {
			problems = append(problems, fmt.Sprintf("%s: %s is missing", register, name))
		}
	}
	return problems, nil
}

// findTests returns the names of all tests and fuzz targets in a tree of folders.
func findTests(tree fs.FS) (map[string]bool, error) {
	tests := map[string]bool{}
	err := fs.WalkDir(tree, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "node_modules", "testdata"}, entry.Name()) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(tree, path)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	return tests, err
}

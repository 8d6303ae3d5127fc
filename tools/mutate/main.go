// Mutate checks that a test fails when a guard is removed from the code.
//
// Each entry of guards.txt has the name of a guard, a file in any module, the lines to
// remove and the lines to put in their place. Mutate makes the change in a copy of the
// repository, runs tests until one fails, and prints its name. It runs the tests of the
// file's package, and after those of a package under internal/ also those of the root
// package, which is built on it. If the guard's name contains "data race", the tests run
// under the race detector.
//
//	go run ./mutate [-run regexp] repository
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed guards.txt
var guardsText string

// A guard is a text in a file, and the text that replaces it.
type guard struct{ name, file, old, new string }

func main() {
	pattern := flag.String("run", "", "only guards whose name matches this regular expression")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	survived, err := check(flag.Arg(0), regexp.MustCompile(*pattern))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
	if survived > 0 {
		fmt.Printf("%d guards can be removed, and all tests still pass\n", survived)
		os.Exit(1)
	}
}

// check tries all guards whose name matches, and returns how many can be removed without
// a test that fails.
func check(repository string, pattern *regexp.Regexp) (survived int, err error) {
	guards, err := parse(guardsText)
	if err != nil {
		return 0, err
	}
	work := make(chan guard)
	var mu sync.Mutex // protects tried, survived and err
	tried := 0
	temporary, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(temporary)
	var wg sync.WaitGroup
	for i := range max(runtime.GOMAXPROCS(0)/2, 1) {
		dir := filepath.Join(temporary, strconv.Itoa(i))
		if err := clone(repository, dir); err != nil {
			return 0, err
		}
		wg.Go(func() {
			for g := range work {
				by, failure := try(dir, g)
				mu.Lock()
				tried++
				switch {
				case failure != nil:
					err = errors.Join(err, fmt.Errorf("%s: %w", g.name, failure))
				case by == "":
					survived++
					fmt.Printf("SURVIVED  %s\n", g.name)
				default:
					fmt.Printf("caught    %s: %s\n", g.name, by)
				}
				mu.Unlock()
			}
		})
	}
	for _, g := range guards {
		if pattern.MatchString(g.name) {
			work <- g
		}
	}
	close(work)
	wg.Wait()
	fmt.Printf("%d guards tried\n", tried)
	return survived, err
}

// parse reads guards.txt. Entries are separated by an empty line, and consist of
//
//	# the name of the guard
//	the file
//	-the lines to remove
//	+the lines to put in their place
func parse(text string) (guards []guard, err error) {
	for entry := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var g guard
		for line := range strings.Lines(entry + "\n") {
			switch line[0] {
			case '#':
				g.name = strings.TrimSpace(line[1:])
			case '-':
				g.old += line[1:]
			case '+':
				g.new += line[1:]
			default:
				g.file = strings.TrimSpace(line)
			}
		}
		// Without the last line break, a guard can be a part of a line.
		g.old, g.new = strings.TrimSuffix(g.old, "\n"), strings.TrimSuffix(g.new, "\n")
		if g.name == "" || g.file == "" || g.old == "" || g.old == g.new {
			return nil, fmt.Errorf("guards.txt: incomplete entry %q", entry)
		}
		guards = append(guards, g)
	}
	return guards, nil
}

// replace returns the content of the guard's file without the guard.
func (g guard) replace(content []byte) ([]byte, error) {
	switch n := bytes.Count(content, []byte(g.old)); n {
	case 0:
		return nil, fmt.Errorf("%s has no such text", g.file)
	case 1:
		return bytes.Replace(content, []byte(g.old), []byte(g.new), 1), nil
	default:
		return nil, fmt.Errorf("%s has this text %d times", g.file, n)
	}
}

// clone copies the files that git tracks to dir.
func clone(repository, dir string) error {
	list := exec.Command("git", "ls-files", "-z")
	list.Dir = repository
	names, err := list.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\w+)|^(panic: .*)`)

// try removes g in dir, and returns the name of the test that failed, or "".
func try(dir string, g guard) (by string, err error) {
	path := filepath.Join(dir, g.file)
	original, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	changed, err := g.replace(original)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, original, 0o600)) }()

	args := []string{"test", "-vet=off", "-failfast", "-timeout", "60s"}
	if strings.Contains(g.name, "data race") {
		args = append(args, "-race")
	}
	args = append(args, ".")
	if folder := filepath.Dir(g.file); folder != "." {
		by, err = test(filepath.Join(dir, folder), args)
		if by != "" || err != nil || !strings.HasPrefix(g.file, "internal/") {
			return by, err
		}
	}
	// In the root package, the two slow tests run only if no other test failed.
	const slow = "^(TestCanary|TestSimulation)$"
	by, err = test(dir, append(slices.Clone(args), "-skip", slow))
	if by != "" || err != nil {
		return by, err
	}
	return test(dir, append(args, "-run", slow, "-scenarios", "300"))
}

// test runs go with args in dir, and returns the name of the test that failed, or "".
func test(dir string, args []string) (by string, err error) {
	command := exec.Command("go", args...)
	command.Dir = dir
	output, failure := command.CombinedOutput()
	if failure == nil {
		return "", nil
	}
	if bytes.Contains(output, []byte("[build failed]")) {
		return "", fmt.Errorf("doesn't compile:\n%s", output)
	}
	if found := failed.FindSubmatch(output); found != nil {
		return string(found[1]) + string(found[2]), nil
	}
	return "", fmt.Errorf("failed for an unknown reason:\n%s", output)
}

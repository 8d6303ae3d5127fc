package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// moduleTime bounds all that is done for one module.
	moduleTime = 30 * time.Minute
	// testTime bounds the tests of one package. The go command prints where they hang.
	testTime = "5m"
	// repetitions is how often both runs are repeated if they differ.
	repetitions = 3
	// version is what the go command calls a replacement without a version.
	version = "v0.0.0-00010101000000-000000000000"
)

// try runs the tests of c with both packages, and compares the results.
func try(ctx context.Context, c consumer, ours *replacement) (*report, error) {
	ctx, cancel := context.WithTimeout(ctx, moduleTime)
	defer cancel()
	work, err := os.MkdirTemp("", "consumers")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	source, err := ours.download(ctx, work, c)
	if err != nil {
		return nil, err
	}
	return compare(ctx, work, source, c, ours)
}

// download has the go command download the module, and returns its folder.
func (o *replacement) download(ctx context.Context, dir string, c consumer) (string, error) {
	// In case of an error, the go command prints it in JSON.
	output, err := o.goCommand(ctx, dir, "mod", "download", "-json", c.module+"@"+c.version)
	if err != nil {
		return "", err
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal([]byte(output), &downloaded); err != nil {
		return "", fmt.Errorf("go mod download: %w", err)
	}
	return downloaded.Dir, nil
}

// compare runs the tests of the module in the folder source. It writes below work only.
func compare(ctx context.Context, work, source string, c consumer, ours *replacement) (*report, error) {
	dir := filepath.Join(work, "module")
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		return nil, err
	}
	overlay, err := ours.prepare(ctx, dir, work, c)
	if err != nil {
		return nil, err
	}
	before := func() (*testRun, error) { return ours.test(ctx, dir, work, c, "-coverpkg="+ours.old) }
	after := func() (*testRun, error) { return ours.test(ctx, dir, work, c, "-overlay="+overlay) }
	b, err := before()
	if err != nil {
		return nil, err
	}
	for pkg := range b.broken {
		return nil, fmt.Errorf("%s doesn't compile as it is:\n%s", pkg, b.output(pkg))
	}
	if b.reached == 0 {
		return nil, fmt.Errorf("no test reaches %s", ours.old)
	}
	a, err := after()
	if err != nil {
		return nil, err
	}
	r := &report{consumer: c, before: b, changes: differences(b, a)}
	for _, change := range r.changes {
		r.outputs = append(r.outputs, a.output(change.test))
	}
	if len(r.unexpected()) == 0 || len(a.broken) > 0 {
		return r, nil
	}
	return r, r.repeat(before, after)
}

// repeat runs the tests again, which may depend on time and chance. Changes that most
// repetitions don't show become unstable.
func (r *report) repeat(before, after func() (*testRun, error)) error {
	var befores, afters [repetitions]*testRun
	for i := range repetitions {
		var err error
		if befores[i], err = before(); err != nil {
			return err
		}
		if afters[i], err = after(); err != nil {
			return err
		}
	}
	r.changes = slices.DeleteFunc(r.changes, func(c change) bool {
		differ, seen := 0, []string{c.String()}
		for i := range repetitions {
			again := change{test: c.test, before: befores[i].result(c.test), after: afters[i].result(c.test)}
			if again.before != again.after {
				differ++
			}
			seen = append(seen, again.before+" -> "+again.after)
		}
		if differ > repetitions/2 {
			return false
		}
		r.unstable = append(r.unstable, strings.Join(seen, "; "))
		return true
	})
	return nil
}

// prepare adds a requirement of our module to the copy in dir, downloads what its tests
// need, and writes an overlay of the go command in which our package is imported. It
// returns the overlay's name.
func (o *replacement) prepare(ctx context.Context, dir, work string, c consumer) (overlay string, err error) {
	files, err := o.rewrite(dir)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("no file imports %s", o.old)
	}
	replace := map[string]string{}
	for name, content := range files {
		replace[name] = filepath.Join(work, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(replace[name], content, 0o600); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(work, "overlay.json")
	if err := os.WriteFile(overlay, data, 0o600); err != nil {
		return "", err
	}
	list := append([]string{"list", "-deps", "-test", "-tags=" + c.tags, "-overlay=" + overlay}, c.packages...)
	for _, args := range [][]string{
		{"mod", "edit", "-require=" + o.module + "@" + version, "-replace=" + o.module + "=" + o.repository},
		{"get", o.module + "@" + version}, // also a newer Go, if our module needs one
		list,
		// Without the overlay, the old package may need what the new one doesn't.
		slices.DeleteFunc(slices.Clone(list), func(arg string) bool { return strings.HasPrefix(arg, "-overlay=") }),
	} {
		if _, err := o.goCommand(ctx, dir, args...); err != nil {
			return "", err
		}
	}
	return overlay, nil
}

// rewrite returns the files in dir that import the old package, with imports of the new one.
// Both packages have the same name, so nothing else changes.
func (o *replacement) rewrite(dir string) (map[string][]byte, error) {
	files, folder := map[string][]byte{}, os.DirFS(dir)
	err := fs.WalkDir(folder, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			// The go command overlooks these folders, too.
			if name != "." && (base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(base) != ".go" {
			return nil
		}
		content, err := fs.ReadFile(folder, name)
		if err != nil || !bytes.Contains(content, []byte(o.old)) {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, content, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range slices.Backward(parsed.Imports) {
			if path, err := strconv.Unquote(spec.Path.Value); err == nil && path == o.old {
				// In a set of its own, the file's first byte has position 1.
				start, end := int(spec.Path.Pos())-1, int(spec.Path.End())-1
				content = slices.Concat(content[:start], []byte(strconv.Quote(o.new)), content[end:])
				files[filepath.Join(dir, name)] = content
			}
		}
		return nil
	})
	return files, err
}

// A testRun is what one go test found out. Its maps have the packages, such as ./config, and
// the tests, such as "./config TestX/y".
type testRun struct {
	results map[string]string // pass, fail or skip
	outputs map[string]*strings.Builder
	broken  map[string]bool // packages that don't compile
	reached float64         // how much of the old package the tests of one package run at most, in percent
}

// absent is the result of a test that didn't run.
const absent = "absent"

func (r *testRun) result(name string) string {
	if result, ok := r.results[name]; ok {
		return result
	}
	return absent
}

// output returns the last lines that a test and its subtests printed.
func (r *testRun) output(test string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.outputs)) {
		if name == test || strings.HasPrefix(name, test+"/") {
			text.WriteString(r.outputs[name].String())
		}
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	return strings.Join(lines[max(len(lines)-40, 0):], "\n")
}

var coverage = regexp.MustCompile(`^coverage: ([0-9.]+)% of statements in `)

// test runs the tests of c in dir, offline.
func (o *replacement) test(ctx context.Context, dir, work string, c consumer, flags ...string) (*testRun, error) {
	home, err := os.MkdirTemp(work, "home")
	if err != nil {
		return nil, err
	}
	// From Go 1.24 on, vet refuses what was allowed in modules for older versions.
	args := append([]string{"test", "-json", "-count=1", "-vet=off", "-timeout=" + testTime, "-tags=" + c.tags}, flags...)
	// Without a pattern, -run selects all tests, and -skip none.
	args = append(args, "-run="+c.run, "-skip="+c.skip)
	command := exec.CommandContext(ctx, "go", append(args, c.packages...)...)
	command.Dir = dir
	command.Env = append(slices.Clone(o.offline), "HOME="+home, "TMPDIR="+home)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 30 * time.Second
	err = command.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	r, parseErr := readResults(stdout.Bytes(), c.module)
	if parseErr != nil || len(r.results) == 0 {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), errors.Join(err, parseErr), stderr.String())
	}
	return r, nil
}

// readResults reads what go test -json prints; see go doc test2json.
func readResults(data []byte, module string) (*testRun, error) {
	r := &testRun{results: map[string]string{}, broken: map[string]bool{}, outputs: map[string]*strings.Builder{}}
	for line := range bytes.Lines(data) {
		var event struct{ Action, Package, ImportPath, Test, Output, FailedBuild string }
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, fmt.Errorf("%w in %q", err, line)
		}
		if event.Package == "" { // the import path may end in " [package.test]"
			event.Package, _, _ = strings.Cut(event.ImportPath, " ")
		}
		pkg := "." + strings.TrimPrefix(event.Package, module)
		name := pkg
		if event.Test != "" {
			name += " " + event.Test
		}
		switch event.Action {
		case "output", "build-output":
			if r.outputs[name] == nil {
				r.outputs[name] = &strings.Builder{}
			}
			r.outputs[name].WriteString(event.Output)
			if found := coverage.FindStringSubmatch(event.Output); found != nil {
				percent, err := strconv.ParseFloat(found[1], 64)
				if err != nil {
					return nil, err
				}
				r.reached = max(r.reached, percent)
			}
		case "run":
			r.results[name] = "fail" // unless it ends
		case "pass", "fail", "skip":
			r.results[name] = event.Action
			if event.FailedBuild != "" {
				r.broken[pkg] = true
			}
		}
	}
	return r, nil
}

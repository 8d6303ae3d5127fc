// Consumers runs the tests of public modules twice, with upstream's package and with ours,
// and reports each test whose result changes.
//
//	go run ./consumers [-run regexp] [-update FILE] REPOSITORY
//
// modules.txt lists the modules. For each of them:
//
//  1. The go command downloads the module, and its folder is copied.
//  2. The copy's go.mod gets a requirement of our module, which REPOSITORY replaces. Both
//     runs use this go.mod, so that they differ in the import only.
//  3. The tests run as they are. At least one of them must reach upstream's package.
//  4. The tests run again, with our package in each import of upstream's.
//  5. If a result differs, both runs are repeated three times. A test whose result doesn't
//     differ most of the time is called unstable.
//
// It fails if a module can't be tested, if a result changes that isn't listed in
// modules.txt with a reason, or if a listed change doesn't occur.
//
// The tests are other people's code. They get a home directory and an environment of their
// own, so that they depend less on the machine and leave nothing behind. That is no sandbox.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

//go:embed modules.txt
var modulesText string

// upstream is the package whose imports are replaced.
const upstream = "golang.org/x/oauth2/clientcredentials"

func main() {
	pattern := flag.String("run", "", "only modules whose path matches this regular expression")
	update := flag.String("update", "", "write the results into this Markdown file, between its markers")
	flag.Parse()
	if flag.NArg() != 1 || *pattern != "" && *update != "" {
		fmt.Fprintln(os.Stderr, "usage: consumers [-run regexp | -update FILE] REPOSITORY")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ok, err := run(ctx, flag.Arg(0), regexp.MustCompile(*pattern), *update)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "consumers:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run tests all modules whose path matches, and reports whether all is as modules.txt says.
func run(ctx context.Context, repository string, pattern *regexp.Regexp, update string) (ok bool, err error) {
	consumers, err := parse(modulesText)
	if err != nil {
		return false, err
	}
	ours, err := newReplacement(ctx, upstream, repository)
	if err != nil {
		return false, err
	}
	var reports []*report
	failures := 0
	for _, c := range consumers {
		if !pattern.MatchString(c.module) || ctx.Err() != nil {
			continue
		}
		start := time.Now()
		r, err := try(ctx, c, ours)
		if err != nil {
			failures++
			fmt.Printf("FAILED     %s %s: %v\n", c.module, c.version, err)
			continue
		}
		reports = append(reports, r)
		failures += len(r.unexpected())
		fmt.Print(r)
		fmt.Printf("%11s(%v)\n", "", time.Since(start).Round(time.Second))
	}
	fmt.Printf("\n%s\n%d modules tested, %d failures\n", table(reports), len(reports), failures)
	if failures > 0 || ctx.Err() != nil {
		return false, ctx.Err()
	}
	if update != "" {
		return true, replaceSection(update, table(reports))
	}
	return true, nil
}

// A replacement is the package that takes the place of another.
type replacement struct {
	old, new   string   // import paths
	module     string   // the new package's module
	repository string   // the folder of that module
	online     []string // the environment of go commands that may download modules
	offline    []string // the environment of tests, but for their folders
}

// newReplacement uses the package in the root of the module in the folder repository.
func newReplacement(ctx context.Context, old, repository string) (*replacement, error) {
	repository, err := filepath.Abs(repository)
	if err != nil {
		return nil, err
	}
	// Requirements that go.mod lacks are added, and nobody's go.work has a say.
	o := &replacement{old: old, repository: repository}
	o.online = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	module, err := o.goCommand(ctx, repository, "list", "-m")
	if err != nil {
		return nil, err
	}
	o.module = strings.TrimSpace(module)
	o.new = o.module

	// The tests get another home directory, so what the go command finds there is named.
	o.offline = []string{"PATH=" + os.Getenv("PATH"), "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off"}
	for _, name := range []string{"GOENV", "GOPATH", "GOMODCACHE", "GOCACHE", "GOTOOLCHAIN"} {
		value, err := o.goCommand(ctx, repository, "env", name)
		if err != nil {
			return nil, err
		}
		o.offline = append(o.offline, name+"="+strings.TrimSpace(value))
	}
	return o, nil
}

// goCommand runs the go command with the developer's environment, and returns its output.
func (o *replacement) goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir, command.Env = dir, o.online
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s%s", strings.Join(args, " "), err, output, stderr.String())
	}
	return string(output), nil
}

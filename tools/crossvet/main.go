// Crossvet does what go vet does, but for platforms that it isn't run on, and from source:
//
//	crossvet GOOS/GOARCH...
//
// It checks the packages of the module in the current folder, with their tests. For each platform,
// go vet would make the go command compile the standard library, which takes five times as
// long. The compiler's errors are found, too: a name or a file that is missing on a
// platform, or a number that is too large for its int.
//
// It is run by make test-platforms.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/analysis/suite/vet"
	"golang.org/x/tools/go/packages"
)

func main() {
	var problems []string
	for _, platform := range os.Args[1:] {
		found, err := check(platform)
		if err != nil {
			fmt.Fprintf(os.Stderr, "crossvet: %s: %v\n", platform, err)
			os.Exit(1)
		}
		problems = append(problems, found...)
	}
	for _, problem := range problems {
		fmt.Println(problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// check returns what is wrong with the packages in and below the current folder.
func check(platform string) (problems []string, err error) {
	system, processor, ok := strings.Cut(platform, "/")
	if !ok {
		return nil, fmt.Errorf("this isn't GOOS/GOARCH")
	}
	loaded, err := packages.Load(&packages.Config{
		Mode:  packages.LoadAllSyntax | packages.NeedModule,
		Tests: true,
		Env:   append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+processor),
	}, "./...")
	if err != nil {
		return nil, err
	}
	packages.Visit(loaded, nil, func(pkg *packages.Package) {
		for _, err := range pkg.Errors {
			problems = append(problems, fmt.Sprintf("%s: %v", platform, err))
		}
	})
	if len(problems) == 0 {
		graph, err := checker.Analyze(vet.Suite, loaded, nil)
		if err != nil {
			return nil, err
		}
		for _, action := range graph.Roots {
			if action.Err != nil {
				return nil, fmt.Errorf("%v: %w", action, action.Err)
			}
			for _, found := range action.Diagnostics {
				problems = append(problems, fmt.Sprintf("%s: %v: %s", platform, action.Package.Fset.Position(found.Pos), found.Message))
			}
		}
	}
	// A file belongs to a package, and to the same package with its tests.
	slices.Sort(problems)
	return slices.Compact(problems), nil
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGuards finds entries of guards.txt that no longer fit the code.
func TestGuards(t *testing.T) {
	guards, err := parse(guardsText)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, g := range guards {
		if names[g.name] {
			t.Errorf("two guards are named %q", g.name)
		}
		names[g.name] = true
		content, err := os.ReadFile(filepath.Join("..", "..", g.file))
		if err == nil {
			_, err = g.replace(content)
		}
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
	}
}

func TestParse(t *testing.T) {
	complete := "# one\na.go\n-old\n-\tlines\n+new\n\n# two\nb/c.go\n-old\n+\n"
	guards, err := parse(complete)
	want := []guard{{"one", "a.go", "old\n\tlines", "new"}, {"two", "b/c.go", "old", ""}}
	if err != nil || fmt.Sprint(guards) != fmt.Sprint(want) {
		t.Errorf("parse(%q) = %q, %v; want %q", complete, guards, err, want)
	}
	for _, incomplete := range []string{
		"",
		"a.go\n-no name\n+",
		"# no file\n-old\n+new",
		"# nothing to remove\na.go\n+new",
		"# no difference\na.go\n-same\n+same",
	} {
		if guards, err := parse(incomplete); err == nil {
			t.Errorf("parse(%q) = %q, want an error", incomplete, guards)
		}
	}
}

// TestTry removes guards of a small module. Its internal package has no tests.
func TestTry(t *testing.T) {
	repository := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":          "module example.com/m\n\ngo 1.25\n",
		"internal/p/p.go": "package p\n\nfunc Value() int { return 1 + 0 }\n",
		"q/q.go":          "package q\n\nvar Value = 1\n",
		"m_test.go": `package m

import (
	"flag"
	"testing"

	"example.com/m/internal/p"
)

var scenarios = flag.Int("scenarios", 0, "")

func TestValue(t *testing.T) {
	if v := p.Value(); v != 1 && v != 3 {
		t.Fatal(v)
	}
}

func TestSimulation(t *testing.T) {
	if p.Value() == 3 && *scenarios == 300 {
		panic("three")
	}
}
`,
	} {
		path := filepath.Join(repository, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const file = "internal/p/p.go"
	for _, test := range []struct {
		guard
		by, err string
	}{
		{guard{"a test of the root package fails", file, "1", "2"}, "TestValue", ""},
		{guard{"a slow test fails", file, "1", "3"}, "TestSimulation", ""},
		{guard{"it survives", file, " + 0", ""}, "", ""},
		{guard{"only the package itself is tested", "q/q.go", "= 1", "= 2"}, "", ""},
		{guard{"no such text", file, "2", "3"}, "", "has no such text"},
		{guard{"an ambiguous text", file, " ", ""}, "", "has this text 9 times"},
		{guard{"no such file", "none.go", "1", "2"}, "", "none.go"},
		{guard{"it doesn't compile", file, "1", "one"}, "", "doesn't compile"},
	} {
		by, err := try(repository, test.guard)
		if by != test.by || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %q, %v; want %q, an error with %q", test.name, by, err, test.by, test.err)
		}
	}
}

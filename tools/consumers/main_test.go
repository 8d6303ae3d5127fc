package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestModules reads the real list.
func TestModules(t *testing.T) {
	consumers, err := parse(modulesText)
	if err != nil {
		t.Fatal(err)
	}
	if len(consumers) < 10 {
		t.Errorf("%d modules, want 10 or more", len(consumers))
	}
}

func TestParse(t *testing.T) {
	text := "# one\n# and more\nmodule a v1\ntest .\n\n# two\nmodule b v2\ntags x,y\nrun ^Test\nskip B$\ntest ./b ./c/...\nchanged ./b TestA/b fail pass since it is mended\n"
	consumers, err := parse(text)
	want := []consumer{
		{module: "a", version: "v1", uses: "one and more", packages: []string{"."}},
		{
			module: "b", version: "v2", uses: "two", tags: "x,y", run: "^Test", skip: "B$", packages: []string{"./b", "./c/..."},
			expected: []change{{"./b TestA/b", "fail", "pass", "since it is mended"}},
		},
	}
	if err != nil || fmt.Sprintf("%#v", consumers) != fmt.Sprintf("%#v", want) {
		t.Errorf("got %#v, %v; want %#v", consumers, err, want)
	}
	for _, bad := range []string{
		"",
		"module a v1\ntest .",
		"# no module\ntest .",
		"# no packages\nmodule a v1",
		"# no version\nmodule a\ntest .",
		"# no reason\nmodule a v1\ntest .\nchanged . TestA pass fail",
		"# another keyword\nmodule a v1\ntest .\nenv A=b",
		"# twice\nmodule a v1\ntest .\n\n# twice\nmodule a v2\ntest .",
	} {
		if consumers, err := parse(bad); err == nil {
			t.Errorf("parse(%q) = %v, want an error", bad, consumers)
		}
	}
}

// write writes files, whose names are relative to dir.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRewrite(t *testing.T) {
	for name, test := range map[string]struct{ file, content, want string }{
		"in a set":             {"a.go", "package a\n\nimport (\n\t\"fmt\"\n\n\t\"x/old\"\n)\n", "package a\n\nimport (\n\t\"fmt\"\n\n\t\"y/new\"\n)\n"},
		"with another name":    {"a/b.go", "package a\nimport cc \"x/old\"\n", "package a\nimport cc \"y/new\"\n"},
		"twice, in raw quotes": {"a_test.go", "package a\nimport . `x/old`\nimport _ \"x/old\"\n", "package a\nimport . \"y/new\"\nimport _ \"y/new\"\n"},
		"texts stay":           {"a.go", "package a // x/old\nimport \"x/old\"\nconst c = \"x/old\"", "package a // x/old\nimport \"y/new\"\nconst c = \"x/old\""},
		"only in a text":       {"a.go", "package a\nconst c = \"x/old\"", ""},
		"a package below it":   {"a.go", "package a\nimport \"x/old/internal\"", ""},
		"a package above it":   {"a.go", "package a\nimport \"x\"", ""},
		"test data":            {"testdata/a.go", "package a\nimport \"x/old\"", ""},
		"a hidden folder":      {"_a/a.go", "package a\nimport \"x/old\"", ""},
		"not Go":               {"a.txt", "package a\nimport \"x/old\"", ""},
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{test.file: test.content})
		o := &replacement{old: "x/old", new: "y/new"}
		files, err := o.rewrite(dir)
		if err != nil || string(files[filepath.Join(dir, test.file)]) != test.want || len(files) > 1 {
			t.Errorf("%s: got %q, %v; want %q", name, files, err, test.want)
		}
	}
}

const goMod = `module example.com/consumer

go 1.25

require example.com/old v1.0.0

replace example.com/old => %s
`

// someTests are those of a consumer of a package whose V is 1, or 2 in its replacement.
const someTests = `package consumer

import (
	"os"
	"testing"

	"example.com/old"
)

func TestSame(t *testing.T) {
	t.Run("a", func(t *testing.T) { _ = old.V() })
	t.Run("skipped", func(t *testing.T) { t.Skip() })
}

func TestFails(t *testing.T) { t.Fatal() }

func TestBreaks(t *testing.T) {
	t.Run("x/y", func(t *testing.T) {
		if old.V() != 1 {
			t.Fatal("not one")
		}
	})
	t.Run("z", func(t *testing.T) {})
}

func TestHeals(t *testing.T) {
	if old.V() == 1 {
		t.Fatal()
	}
}

func TestVanishes(t *testing.T) {
	if old.V() == 1 {
		t.Run("sub", func(t *testing.T) {})
	}
}

// It fails in the second run, the first one with the new package.
func TestUnstable(t *testing.T) {
	runs, _ := os.ReadFile("runs")
	os.WriteFile("runs", append(runs, '.'), 0o600)
	if len(runs) == 1 {
		t.Fatal()
	}
}

func TestEnvironment(t *testing.T) {
	if os.Getenv("CONSUMERS_TEST") != "" {
		t.Fatal("the developer's environment")
	}
	if _, err := os.Stat(os.Getenv("HOME") + "/file"); err == nil {
		t.Fatal("the home of another run")
	}
	if err := os.WriteFile(os.Getenv("HOME")+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
`

func TestCompare(t *testing.T) {
	t.Setenv("CONSUMERS_TEST", "1")
	oldDir, newDir := t.TempDir(), t.TempDir()
	write(t, oldDir, map[string]string{"go.mod": "module example.com/old\n\ngo 1.20\n", "old.go": "package old\n\nfunc V() int { return 1 }\n\nfunc W() {}\n"})
	write(t, newDir, map[string]string{"go.mod": "module example.com/new\n\ngo 1.25.0\n", "new.go": "package old\n\nfunc V() int { return 2 }\n"})
	ours, err := newReplacement(t.Context(), "example.com/old", newDir)
	if err != nil {
		t.Fatal(err)
	}
	breaks := change{". TestBreaks/x/y", "pass", "fail", "It counts."}
	heals := change{". TestHeals", "fail", "pass", "It counts, too."}
	vanishes := change{". TestVanishes/sub", "pass", "absent", "There is none."}
	const head = "package consumer\n\nimport (\n\t\"testing\"\n\n\t\"example.com/old\"\n)\n\n"
	for name, test := range map[string]struct {
		consumer

		tests, changes, unexpected, unstable, err string
	}{
		"nothing is expected": {
			consumer{},
			someTests,
			". TestBreaks/x/y: pass -> fail, . TestHeals: fail -> pass, . TestVanishes/sub: pass -> absent",
			". TestBreaks/x/y: pass -> fail, . TestHeals: fail -> pass, . TestVanishes/sub: pass -> absent",
			". TestUnstable: pass -> fail; pass -> pass; pass -> pass; pass -> pass", "",
		},
		"all is expected": {
			consumer{skip: "Unstable", expected: []change{breaks, heals, vanishes}},
			someTests,
			". TestBreaks/x/y: pass -> fail, . TestHeals: fail -> pass, . TestVanishes/sub: pass -> absent", "", "", "",
		},
		"an expected change doesn't happen": {
			consumer{run: "Breaks/z|Same", expected: []change{breaks}},
			someTests, "",
			". TestBreaks/x/y: pass -> fail: it is listed in modules.txt, but didn't happen", "", "",
		},
		"another change than expected": {
			consumer{run: "Heals", expected: []change{{". TestHeals", "pass", "fail", "It is wrong."}}},
			someTests,
			". TestHeals: fail -> pass",
			". TestHeals: fail -> pass, . TestHeals: pass -> fail: it is listed in modules.txt, but didn't happen", "", "",
		},
		"a build tag": {
			consumer{tags: "tagged"}, "//go:build tagged\n\n" + head + "func TestV(t *testing.T) { old.V() }\n", "", "", "", "",
		},
		"it doesn't compile with the new package": {
			consumer{},
			head + "func TestW(t *testing.T) { old.V(); old.W() }\n",
			".: pass -> fail", ".: pass -> fail", "", "",
		},
		"it ends with the new package": {
			consumer{},
			strings.Replace(head, "(", "(\n\t\"os\"", 1) + "func TestV(t *testing.T) {\n\tif old.V() == 2 {\n\t\tos.Exit(1)\n\t}\n}\n",
			". TestV: pass -> fail", ". TestV: pass -> fail", "", "",
		},
		"it doesn't compile": {
			consumer{}, head + "func TestV(t *testing.T) { old.V(1) }\n", "", "", "", "doesn't compile as it is",
		},
		"no test reaches the package": {
			consumer{}, head + "func TestV(t *testing.T) { _ = old.V }\n", "", "", "", "no test reaches example.com/old",
		},
		"no import": {
			consumer{}, "package consumer\n", "", "", "", "no file imports example.com/old",
		},
		"no such package": {
			consumer{packages: []string{"./none"}}, someTests, "", "", "", "none",
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			write(t, source, map[string]string{"go.mod": fmt.Sprintf(goMod, oldDir), "a_test.go": test.tests})
			c := test.consumer
			c.module, c.version, c.uses = "example.com/consumer", "v1.2.3", "a test"
			if c.packages == nil {
				c.packages = []string{"."}
			}
			r, err := compare(t.Context(), t.TempDir(), source, c, ours)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, %v; want an error with %q", r, err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var changes []string
			for _, c := range r.changes {
				changes = append(changes, c.String())
			}
			for what, texts := range map[string][2]string{
				"changes":    {strings.Join(changes, ", "), test.changes},
				"unexpected": {strings.Join(r.unexpected(), ", "), test.unexpected},
				"unstable":   {strings.Join(r.unstable, ", "), test.unstable},
			} {
				if texts[0] != texts[1] {
					t.Errorf("%s: got %q, want %q\n%v", what, texts[0], texts[1], r)
				}
			}
		})
	}
}

// TestReport also writes a table into a document.
func TestReport(t *testing.T) {
	r := &report{
		consumer: consumer{
			module: "example.com/a", version: "v1.0.0", uses: "programs", packages: []string{"./b", "./c"},
			expected: []change{{"./b TestA", "pass", "fail", "It counts."}},
		},
		before: &testRun{reached: 12.5, results: map[string]string{
			"./b": "fail", "./b TestA": "pass", "./b TestB": "fail", "./b TestC": "skip", "./b TestC/d": "pass",
		}},
		changes:  []change{{test: "./b TestA", before: "pass", after: "fail"}, {test: "./b TestC", before: "skip", after: "pass"}},
		unstable: []string{"./b TestC/d"},
		outputs:  []string{"printed\nlines"},
	}
	want := `CHANGED    example.com/a v1.0.0: 2 passed, 1 failed and 1 were skipped with upstream's package, of which they reach 12.5%; 2 changed with ours
           failed with upstream's package: ./b TestB
           expected: ./b TestA: pass -> fail: It counts.
           unexpected: ./b TestC: skip -> pass
           unstable: ./b TestC/d
           output: printed
           lines
`
	if got := r.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	doc := filepath.Join(t.TempDir(), "doc.md")
	const section = "# Head\n\n<!-- consumers:begin -->\n%s<!-- consumers:end -->\n\ntail\n"
	for _, old := range []string{"", "old\n"} {
		if err := os.WriteFile(doc, fmt.Appendf(nil, section, old), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := replaceSection(doc, table([]*report{r})); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(doc)
		want := fmt.Sprintf(section, "\n"+`| module | used by | tests of | passed | failed | skipped | reach | changed here |
|---|---|---|---|---|---|---|---|
`+"| `example.com/a` v1.0.0 | programs | `./b`, `./c` | 2 | 1 | 1 | 12.5 % | 2 |\n"+`
`+"- `TestA` in `./b` of `example.com/a` passes with upstream's package, and fails here. It counts.\n- `TestC` in `./b` of `example.com/a` is skipped with upstream's package, and passes here. \n\n")
		if err != nil || string(got) != want {
			t.Errorf("got\n%s, %v; want\n%s", got, err, want)
		}
	}
	if err := os.WriteFile(doc, []byte("<!-- consumers:begin -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceSection(doc, ""); err == nil {
		t.Error("no error for a document without the end marker")
	}
}

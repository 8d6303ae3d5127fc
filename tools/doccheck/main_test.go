package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write writes files into a new directory, and makes it the current one.
func write(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// compare compares each problem with the beginning of the one that is wanted.
func compare(t *testing.T, name string, got []string, err error, want []string) {
	t.Helper()
	same := err == nil && len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		same = strings.HasPrefix(got[i], want[i])
	}
	if !same {
		t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
	}
}

func fenced(language, code string) string { return "```" + language + "\n" + code + "```\n" }

func TestCheck(t *testing.T) {
	const file = "package p\n\nimport \"fmt\"\n\nfunc f() { fmt.Printf(\"%d\", \"no number\") }\n"
	write(t, map[string]string{
		"go.mod":      "module example.com/m\n\ngo 1.25\n",
		"sub/go.mod":  "module example.com/m/sub\n\ngo 1.25\n\nrequire example.com/m v0.0.0\n\nreplace example.com/m => ../\n",
		"lib/lib.go":  "package lib\n\nfunc F() {}\n",
		"a_test.go":   "package m\n\nfunc TestA(t *testing.T) {}\n",
		"other.md":    "# The *title*, twice\n\n## The title, twice\n\n~~~\n# no heading\n~~~\n",
		"sub/copy.go": "package sub\n\nfunc f() {\n\tg()\n}\n",
	})
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"links": {"# A `b`_c\n[x](#a-b_c) [x](other.md) [x](other.md#the-title-twice-1) [x](sub) [x](https://example.com/none) `[x](none)`\n", nil},
		"a missing file": {"\n[x](none.md \"title\")\n", []string{
			"doc.md:2: link none.md: open none.md",
		}},
		"other kinds of links": {"[x]: none1\n<a href=\"none2\"> <img src=\"none3\">\n", []string{
			"doc.md:1: link none1: ", "doc.md:2: link none2: ", "doc.md:2: link none3: ",
		}},
		"missing headings": {"[x](#none)\n[x](other.md#no-heading)\n[x](other.md#the-title-twice-2)\n", []string{
			"doc.md:1: link #none: doc.md has no such heading",
			"doc.md:2: link other.md#no-heading: other.md has no such heading",
			"doc.md:3: link other.md#the-title-twice-2: other.md has no such heading",
		}},
		"tests": {"[TestA](a_test.go)\n[TestB](a_test.go)\n", []string{
			"doc.md:2: link a_test.go: the file has no TestB",
		}},
		"copied blocks": {"<!-- from: sub/copy.go -->\n" + fenced("go", "func f() {\n\tg()\n}\n") +
			"<!-- from: sub/copy.go -->\n" + fenced("", "func g() {}\n"), []string{
			"doc.md:9: sub/copy.go doesn't contain this block",
		}},
		"a copy of a missing file": {"<!-- from: none.go -->\n" + fenced("sh", "ls\n"), []string{
			"doc.md:3: open none.go",
		}},
		"Go": {fenced("go", "x := 1\n") + fenced("go", "x:=1\n") + fenced("go", "x :=\n") + fenced("sh", "x:=1\n"), []string{
			"doc.md:5: not formatted; gofmt writes:\nx := 1\n", "doc.md:8: not Go: ",
		}},
		"go vet": {fenced("go", file), []string{
			"doc.md:2: go vet:\n",
		}},
		"a whole file": {fenced("go", strings.Replace(file, "%d", "%s", 1)), nil},
		"the module to vet in": {"<!-- module: sub -->\n" + fenced("go", "package p\n\nimport _ \"example.com/m/lib\"\n") +
			fenced("go", "package p\n\nimport _ \"example.com/m/none\"\n"), []string{
			"doc.md:8: go vet:\n",
		}},
	} {
		if err := os.WriteFile("doc.md", []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := check("", []string{"doc.md"})
		compare(t, name, got, err, test.want)
	}
	if err := os.WriteFile("doc.md", []byte("```go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := check("", []string{"other.md", "doc.md"}); err == nil {
		t.Errorf("a block that isn't closed: got %q, want an error", got)
	}
}

func TestCases(t *testing.T) {
	const head = "| id | what must happen | tests |\n| --- | --- | --- |\n"
	write(t, map[string]string{
		"a_test.go":            "func TestR1_A(t *testing.T) {}\nfunc TestOther(t *testing.T) {}\nfunc FuzzA(f *testing.F) {}\n",
		"nested/b_test.go":     "func TestS04_S05b_B(t *testing.T) {}\nfunc TestMistake_M(t *testing.T) {}\nfunc TestR(t *testing.T) {}\n",
		"testdata/c_test.go":   "func TestK9_C(t *testing.T) {}\n",
		"nested/not_a_test.md": "func TestK9_D(t *testing.T) {}\n",
	})
	const complete = "| R1 | a | `TestR1_A`, `TestOther` |\n| S04 | b | `TestS04_S05b_B` |\n| S05b | c | `FuzzA` |\n\n" +
		"| the mistake | test |\n| --- | --- |\n| d | `TestMistake_M` |\n"
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"complete": {"# Cases\n\n| no | register |\n\n" + head + complete, nil},
		"incomplete": {head + "| S04 | b | `TestS04_S05b_B` |\n", []string{
			"cases.md: TestMistake_M is missing",
			"cases.md: R1, after which TestR1_A is named, has no row",
			"cases.md: S05b, after which TestS04_S05b_B is named, has no row",
		}},
		"wrong": {head + "| D1 | a | TestR1_A |\n| D2 | b | `TestOther`, `TestR2` |\n| D2 | c | `TestK9_C` |\n" + complete, []string{
			"cases.md:3: the row names no test",
			"cases.md:4: no test is named TestR2",
			"cases.md:5: D2 has two rows",
			"cases.md:5: no test is named TestK9_C",
		}},
	} {
		if err := os.WriteFile("cases.md", []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := check("cases.md", nil)
		compare(t, name, got, err, test.want)
	}
}

func TestErrors(t *testing.T) {
	const code = `package m

import "some module/with words"

type t struct{ f int ` + "`some:\"tag with words\"`" + ` }

var errA, errB = errors.New("oauth2: it is broken; repair it"), errors.New("short")

func f(name string) error {
	if name == "a b" || strings.Contains(name, "c d") {
		panic("it can't be")
	}
	label := []byte("only a label")
	advice := "the file " + name + " is empty" + "; fill it"
	return fmt.Errorf("oauth2: cannot fetch token: %s: %w", advice, err)
}

func (*t) g() error { return fmt.Errorf("%q holds %d%% too much: %w", a, b, err) }
`
	const head = "| you read | why | what to do |\n| --- | --- | --- |\n"
	write(t, map[string]string{
		"m.go":           code,
		"m_test.go":      "package m\n\nvar a = \"only in a test\"\n",
		"testdata/m.go":  "package m\n\nvar a = \"only test data\"\n",
		"report/r.go":    "package report\n\nvar a = \"a line of a report\"\n\nfunc f() error { return errors.New(\"no report today\") }\n",
		"report/list.go": "package report\n\nfunc list() { print(\"a list: \") }\n",
	})
	const (
		complete = head + "| `oauth2: it is broken`<br>`… holds …% too much` | a | `b c` |\n| “said by Go” | | |\n| `the file … is empty: …` | | |\n| `no report today` | | |\n"
		excepted = "# Words.\n\nreport/r.go:a a fact\nreport/list.go a list\n"
	)
	for name, test := range map[string]struct {
		page, except string
		want         []string
	}{
		"complete":       {complete, excepted, nil},
		"a whole folder": {strings.Replace(complete, "| `no report today` | | |\n", "", 1), "report/ reports\n", nil},
		"no exceptions":  {complete, "", []string{"report/list.go:3: this text is missing in page.md", "report/r.go:3: this text is missing"}},
		"too many of them": {complete, excepted + "none.go no file\nm.go:g skipped anyway\n", []string{
			"except.txt: none.go has no texts", "except.txt: m.go:g has no texts",
		}},
		"an empty page": {"`it is broken` isn't in a table\n", excepted, []string{
			"m.go:7: this text is missing in page.md. Add a row to the section that fits, or add the text to the first cell of a row with the same advice:\n\t| `it is broken` | why | what to do |\n\tIf it isn't part of an error, add this line to except.txt:\n\tm.go:errA the reason",
			"m.go:14: this text is missing", "m.go:18: this text is missing", "report/r.go:5: this text is missing",
		}},
		"the wrong advice": {strings.Replace(complete, "is broken", "is broken; call us", 1), excepted, []string{
			`page.md:3: no text in the code is "oauth2: it is broken; call us"`,
		}},
		"a text that is gone": {complete + "| `it was broken` | | |\n", excepted, []string{
			`page.md:7: no text in the code is "it was broken"`,
		}},
	} {
		for file, text := range map[string]string{"page.md": test.page, "except.txt": test.except} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := checkErrors("page.md", "except.txt")
		compare(t, name, got, err, test.want)
	}
	if err := os.WriteFile("except.txt", []byte("m.go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := checkErrors("page.md", "except.txt"); err == nil {
		t.Errorf("an exception without a reason: got %q, want an error", got)
	}
}

// Doccheck checks Markdown files:
//
//   - The target of a relative link exists, and has the heading that the link's fragment
//     names. If the text of the link is the name of a test, the target contains it.
//   - A block marked as go is formatted by gofmt. If it is a whole file, it also passes
//     go vet, in the module that contains the Markdown file, or, after the line
//     <!-- module: path -->, in the module in that folder.
//   - A block after the line <!-- from: path --> appears in that file, word for word.
//
// Paths are relative to the Markdown file. With -cases, it also compares a register of
// test cases with the tests in the current folder and below. With -errors, it also compares
// a page on error texts with the code there; see checkErrors.
//
//	doccheck [-cases FILE] [-errors FILE -except FILE] FILE...
//
// It is run by make check-docs.
package main

import (
	"flag"
	"fmt"
	"go/format"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

func main() {
	register := flag.String("cases", "", "the register of test cases to compare with the tests")
	errorPage := flag.String("errors", "", "the page on error texts to compare with the code")
	except := flag.String("except", "", "the list of texts in the code that aren't errors")
	flag.Parse()
	problems, err := check(*register, flag.Args())
	if err == nil && *errorPage != "" {
		var more []string
		more, err = checkErrors(*errorPage, *except)
		problems = append(problems, more...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "doccheck:", err)
		os.Exit(1)
	}
	for _, problem := range problems {
		fmt.Println(problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
	fmt.Printf("checked %d Markdown files\n", flag.NArg())
}

// check returns what is wrong with the files and with the register, if there is one.
func check(register string, names []string) (problems []string, err error) {
	for _, name := range names {
		doc, err := parse(name)
		if err != nil {
			return nil, err
		}
		problems = append(problems, doc.check()...)
	}
	if register == "" {
		return problems, nil
	}
	more, err := checkCases(register, ".")
	return append(problems, more...), err
}

// A document holds the parts of a Markdown file that are checked.
type document struct {
	name     string
	links    []link
	blocks   []block
	headings map[string]bool // as GitHub writes them in a link's fragment
}

type link struct {
	line   int
	test   string // the text of the link, if it is the name of a test
	target string
}

// A block is a fenced block of code.
type block struct {
	line     int    // of its first line of code
	language string // the first word after the fence
	from     string // the file that it is copied from; empty: none
	module   string // the folder of the module to vet it in; empty: that of the document
	code     string
}

var (
	fence   = regexp.MustCompile("^ {0,3}(```+|~~~+)\\s*(\\S*)")
	heading = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)
	from    = regexp.MustCompile(`^<!-- from: (\S+) -->$`)
	module  = regexp.MustCompile(`^<!-- module: (\S+) -->$`)
	inline  = regexp.MustCompile("`[^`]*`")
	test    = regexp.MustCompile(`\[((?:Test|Fuzz|Benchmark|Example)\w+)\]\(([^)\s]+)\)`)
	target  = regexp.MustCompile(`\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]:\s+(\S+)|(?:href|src)="([^"]+)"`)
)

func parse(name string) (*document, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	doc := &document{name: name, headings: map[string]bool{}}
	var (
		end            string // the fence that ends the current block; empty: not in a block
		source, inside string
	)
	for i, line := range strings.Split(string(text), "\n") {
		if end != "" {
			b := &doc.blocks[len(doc.blocks)-1]
			if strings.TrimSpace(line) == end {
				end = ""
				continue
			}
			b.code += line + "\n"
			continue
		}
		if m := fence.FindStringSubmatch(line); m != nil {
			end = m[1]
			doc.blocks = append(doc.blocks, block{line: i + 2, language: m[2], from: source, module: inside})
			source, inside = "", ""
			continue
		}
		if m := from.FindStringSubmatch(line); m != nil {
			source = m[1]
		}
		if m := module.FindStringSubmatch(line); m != nil {
			inside = m[1]
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			doc.addHeading(m[1])
		}
		for _, m := range test.FindAllStringSubmatch(line, -1) {
			doc.links = append(doc.links, link{line: i + 1, test: m[1], target: m[2]})
		}
		for _, m := range target.FindAllStringSubmatch(inline.ReplaceAllString(line, ""), -1) {
			doc.links = append(doc.links, link{line: i + 1, target: m[1] + m[2] + m[3]})
		}
	}
	if end != "" {
		return nil, fmt.Errorf("%s: a block of code isn't closed", name)
	}
	return doc, nil
}

func (d *document) addHeading(title string) {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, title)
	name := slug
	for i := 1; d.headings[name]; i++ {
		name = fmt.Sprintf("%s-%d", slug, i)
	}
	d.headings[name] = true
}

func (d *document) check() []string {
	var problems []string
	report := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s:%d: %s", d.name, line, fmt.Sprintf(format, args...)))
	}
	for _, l := range d.links {
		if err := d.checkLink(l); err != nil {
			report(l.line, "link %s: %v", l.target, err)
		}
	}
	for _, b := range d.blocks {
		if err := d.checkBlock(b); err != nil {
			report(b.line, "%v", err)
		}
	}
	return problems
}

func (d *document) checkLink(l link) error {
	u, err := url.Parse(l.target)
	if err != nil {
		return err
	}
	if u.Scheme != "" || u.Host != "" {
		return nil // Not a file in this repository.
	}
	to := d
	if u.Path != "" {
		path := filepath.Join(filepath.Dir(d.name), u.Path)
		data, err := os.ReadFile(path)
		if err != nil {
			if info, failure := os.Stat(path); failure != nil || !info.IsDir() {
				return err
			}
		}
		if l.test != "" && !strings.Contains(string(data), "func "+l.test+"(") {
			return fmt.Errorf("the file has no %s", l.test)
		}
		if u.Fragment == "" || filepath.Ext(path) != ".md" {
			return nil
		}
		if to, err = parse(path); err != nil {
			return err
		}
	}
	if !to.headings[u.Fragment] {
		return fmt.Errorf("%s has no such heading", to.name)
	}
	return nil
}

func (d *document) checkBlock(b block) error {
	if b.from != "" {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(d.name), b.from))
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), b.code) {
			return fmt.Errorf("%s doesn't contain this block", b.from)
		}
	}
	if b.language != "go" {
		return nil
	}
	formatted, err := format.Source([]byte(b.code))
	if err != nil {
		return fmt.Errorf("not Go: %w", err)
	}
	if string(formatted) != b.code {
		return fmt.Errorf("not formatted; gofmt writes:\n%s", formatted)
	}
	if strings.HasPrefix(b.code, "package ") || strings.Contains(b.code, "\npackage ") {
		return d.vet(b)
	}
	return nil
}

// vet runs go vet on a block that is a whole file.
func (d *document) vet(b block) error {
	temp, err := os.MkdirTemp("", "doccheck")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	// With the line directive, errors name the line in the document.
	name, err := filepath.Abs(d.name)
	if err != nil {
		return err
	}
	code := fmt.Sprintf("//line %s:%d\n%s", name, b.line, b.code)
	file := filepath.Join(temp, "block.go")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("go", "vet", file)
	cmd.Dir = filepath.Join(filepath.Dir(name), b.module)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go vet:\n%s", out)
	}
	return nil
}

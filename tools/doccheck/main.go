// Doccheck checks Markdown files:
//
//   - A relative link leads to a file that exists, and its fragment to a heading.
//     If its text is the name of a test, the file has that test.
//   - A block marked as go is formatted by gofmt, and passes go vet if it is a
//     whole file, in the module that the Markdown file is in, or, after the line
//     <!-- module: path -->, in the one in that folder.
//   - A block after the line <!-- from: path --> is part of that file, word for
//     word.
//
// Paths are relative to the Markdown file.
//
// It is run by make check-docs.
package main

import (
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
	failed := false
	for _, name := range os.Args[1:] {
		doc, err := parse(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, problem := range doc.check() {
			failed = true
			fmt.Println(problem)
		}
	}
	if failed {
		os.Exit(1)
	}
	fmt.Printf("checked %d Markdown files\n", len(os.Args)-1)
}

// A document is what is checked of a Markdown file.
type document struct {
	name     string
	links    []link
	blocks   []block
	headings map[string]bool // as GitHub names them in a link's fragment
}

type link struct {
	line   int
	test   string // the text, if it is the name of a test
	target string
}

// A block is a fenced block of code.
type block struct {
	line     int    // of its first line of code
	language string // the first word after the fence
	from     string // the file that it is copied from, if any
	module   string // the folder of the module to vet it in; empty: the document's
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
		end            string // the fence that ends the block we are in
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
		return nil, fmt.Errorf("%s: a block of code has no end", name)
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
		return nil // not ours to check
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
			return fmt.Errorf("there is no %s", l.test)
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
			return fmt.Errorf("the block is not in %s", b.from)
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
		return fmt.Errorf("not formatted by gofmt, which wants:\n%s", formatted)
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
	// The line directive has errors point into the document.
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

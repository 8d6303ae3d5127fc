package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	verb      = regexp.MustCompile(`%[-+# 0]*(?:\[\d+\])?[\d.*]*[a-zA-Z%]`)
	gap       = regexp.MustCompile(`…(?:\s*…)+`)
	words     = regexp.MustCompile(`\p{Ll}[\pL'’-]*,? +(?:… +)*\pL`) // two or more
	codeSpan  = regexp.MustCompile("`([^`]+)`")
	firstCell = regexp.MustCompile(`^\| (.*?) \|`)
	prefix    = regexp.MustCompile(`^(?:oauth2: )?(?:cannot fetch token: )?`)
)

// A message is a text in the code that an error may consist of.
type message struct {
	where string // the file and the line
	in    string // the declaration, as in a line of exceptions
	whole string // the text, with an ellipsis for each part that varies
	text  string // the part that a page must contain
}

// checkErrors compares a page on error texts with the code in the current folder and below:
//
//   - A code span in the first cell of a row contains each text of the code, unless the
//     text is listed in the file except. Only the part of a text that comes before its advice
//     has to be there, with an ellipsis for each part that varies: see shorten.
//   - Each code span in the first cell of a row, if it has two words or more, is part of a
//     text of the code. It may begin and end with an ellipsis.
//   - Each line of except is needed.
//
// A text is a string literal with at least two words, whatever it is used for: an error is
// often put together far from where its parts come from. Only the literals in the contexts
// that isOther knows are certainly something else. A line of except begins with the file, the
// folder (it ends with a slash), or the declaration in a file (main.go:run, or
// main.go:Type.Method) that has other texts. The reason follows.
func checkErrors(page, except string) (problems []string, err error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	exceptions, err := readExceptions(except)
	if err != nil {
		return nil, err
	}
	messages, err := findMessages(os.DirFS("."), exceptions)
	if err != nil {
		return nil, err
	}
	rows := strings.Split(string(text), "\n")
	var spans []string
	for _, row := range rows {
		for _, m := range codeSpan.FindAllStringSubmatch(firstCell.FindString(row), -1) {
			spans = append(spans, m[1])
		}
	}
	for _, m := range messages {
		if !slices.ContainsFunc(spans, func(span string) bool { return strings.Contains(span, m.text) }) {
			problems = append(problems, fmt.Sprintf("%s: this text is missing in %s. Add a row to the section that fits, or add the text to the first cell of a row with the same advice:\n\t| `%s` | why | what to do |\n\tIf it isn't part of an error, add this line to %s:\n\t%s the reason", m.where, page, m.text, except, m.in))
		}
	}
	for i, row := range rows {
		for _, m := range codeSpan.FindAllStringSubmatch(firstCell.FindString(row), -1) {
			if span := m[1]; words.MatchString(span) && !slices.ContainsFunc(messages, func(m message) bool {
				return strings.Contains(m.whole, strings.Trim(span, "…: "))
			}) {
				problems = append(problems, fmt.Sprintf("%s:%d: no text in the code is %q; remove it, or write it without backticks if it comes from elsewhere", page, i+1, span))
			}
		}
	}
	for _, e := range exceptions {
		if !e.used {
			problems = append(problems, fmt.Sprintf("%s: %s has no texts; remove the line", except, e.where))
		}
	}
	return problems, nil
}

// An exception says where texts are that don't become part of an error.
type exception struct {
	where string
	used  bool
}

func readExceptions(name string) ([]*exception, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var exceptions []*exception
	for i, line := range strings.Split(string(text), "\n") {
		where, reason, _ := strings.Cut(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.TrimSpace(reason) == "":
			return nil, fmt.Errorf("%s:%d: add a space and the reason", name, i+1)
		default:
			exceptions = append(exceptions, &exception{where: where})
		}
	}
	return exceptions, nil
}

// findMessages returns the texts in a tree of folders that aren't excepted.
func findMessages(tree fs.FS, exceptions []*exception) (messages []message, err error) {
	err = fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", "bin", "node_modules", "testdata"}, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		code, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, code, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			in := name + ":" + declared(decl)
			for _, text := range textsIn(decl, files, in) {
				excepted := false
				for _, e := range exceptions {
					if e.where == name || e.where == in || strings.HasSuffix(e.where, "/") && strings.HasPrefix(name, e.where) {
						e.used, excepted = true, true
					}
				}
				if !excepted {
					messages = append(messages, text)
				}
			}
		}
		return nil
	})
	return messages, err
}

// declared returns the name of what a declaration declares: the first of several.
func declared(decl ast.Decl) string {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil {
			return decl.Name.Name
		}
		receiver := decl.Recv.List[0].Type
		for {
			switch t := receiver.(type) {
			case *ast.StarExpr:
				receiver = t.X
			case *ast.IndexExpr:
				receiver = t.X
			case *ast.Ident:
				return t.Name + "." + decl.Name.Name
			default:
				return decl.Name.Name
			}
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				return spec.Names[0].Name
			case *ast.TypeSpec:
				return spec.Name.Name
			}
		}
	}
	return ""
}

// textsIn returns the texts in a declaration with that name.
func textsIn(decl ast.Decl, files *token.FileSet, in string) (messages []message) {
	ast.Inspect(decl, func(n ast.Node) bool {
		if n == nil || isOther(n) {
			return false
		}
		expr, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		format, ok := joined(expr)
		if !ok {
			return true
		}
		whole := gap.ReplaceAllString(verb.ReplaceAllStringFunc(format, func(verb string) string {
			if verb == "%%" {
				return "%"
			}
			return "…"
		}), "…")
		if text := shorten(whole); words.MatchString(text) {
			at := files.Position(n.Pos())
			messages = append(messages, message{fmt.Sprintf("%s:%d", at.Filename, at.Line), in, whole, text})
		}
		_, isLiteral := n.(*ast.BasicLit)
		return !isLiteral && !isSum(expr)
	})
	return messages
}

func isSum(expr ast.Expr) bool {
	sum, ok := expr.(*ast.BinaryExpr)
	return ok && sum.Op == token.ADD
}

// joined returns the string that an expression is, with the verb %v for each part of a sum
// that isn't a literal. It is false of an expression without a literal.
func joined(expr ast.Expr) (string, bool) {
	switch e := expr.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, err := strconv.Unquote(e.Value)
			return s, err == nil
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			left, isLeft := joined(e.X)
			right, isRight := joined(e.Y)
			if !isLeft {
				left = "%v"
			}
			if !isRight {
				right = "%v"
			}
			return left + right, isLeft || isRight
		}
	}
	return "", false
}

// isOther reports whether no literal in a node becomes part of an error.
func isOther(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.ImportSpec:
		return true
	case *ast.StructType: // Its tags.
		return true
	case *ast.BinaryExpr: // A comparison.
		return n.Op == token.EQL || n.Op == token.NEQ
	case *ast.CallExpr:
		switch f := n.Fun.(type) {
		case *ast.ArrayType: // A conversion to bytes.
			return true
		case *ast.Ident:
			return f.Name == "panic"
		case *ast.SelectorExpr:
			of, ok := f.X.(*ast.Ident)
			return ok && slices.Contains([]string{"bytes", "hkdf", "regexp", "slices", "slog", "strings"}, of.Name) && f.Sel.Name != "Join" ||
				f.Sel.Name == "WithDescription" // Of an instrument of OpenTelemetry.
		}
	}
	return false
}

// shorten returns the part of a text that a page has to contain: without what most errors
// begin with, without punctuation at both ends, and, if two words remain, without the advice
// after a semicolon.
func shorten(whole string) string {
	const punctuation = " ,;:.…(\""
	text, _, _ := strings.Cut(strings.TrimSpace(whole), "\n")
	text = strings.Trim(prefix.ReplaceAllString(text, ""), punctuation)
	if short, _, _ := strings.Cut(text, "; "); words.MatchString(short) {
		text = short
	}
	return strings.Trim(text, punctuation)
}

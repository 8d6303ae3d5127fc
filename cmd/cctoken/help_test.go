package main

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHelp checks that all ways to ask for a help page print the same, and that the page
// documents exactly the flags of the command.
func TestHelp(t *testing.T) {
	overview := cctoken(t, nil, "", "help")
	require.Zero(t, overview.status)
	for _, word := range []string{"-h", "--help", "-help"} {
		assert.Equal(t, overview, cctoken(t, nil, "", word))
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			r := cctoken(t, nil, "", "help", name)
			require.Zero(t, r.status)
			assert.Equal(t, r, cctoken(t, nil, "", name, "-h"))
			assert.Equal(t, r, cctoken(t, nil, "", name, "--help"))
			assert.True(t, strings.HasPrefix(r.stdout, "cctoken "+name+" "))
			assert.Contains(t, overview.stdout, "  "+name+" ")

			c := new(call)
			c.begin(name, []string{"-h"})
			c.env = func(string) string { return "" }
			require.ErrorIs(t, command(t.Context(), c), errHelp)
			var defined []string
			c.flags.VisitAll(func(f *flag.Flag) {
				defined = append(defined, f.Name)
				assert.Regexp(t, `(?m)(^|[ \n])-`+f.Name+`\b`, r.stdout)
			})
			for _, match := range regexp.MustCompile(`(?m)^  -([a-z-]+) `).FindAllStringSubmatch(r.stdout, -1) {
				if match[1] != "h" {
					assert.Contains(t, defined, match[1], "the page documents a flag that doesn't exist")
				}
			}
		})
	}
	for _, o := range options {
		assert.Contains(t, overview.stdout, "\n  -"+o.flag+" ")
	}
	for line := range strings.Lines(overview.stdout) {
		assert.LessOrEqual(t, len(line), 90, line)
	}
}

// TestHelpInTheDocument checks that docs/cctoken.md contains the help pages.
func TestHelpInTheDocument(t *testing.T) {
	document := readDocument(t)
	for _, args := range [][]string{{"help"}, {"token", "-h"}, {"inspect", "-h"}, {"doctor", "-h"}, {"serve", "-h"}} {
		help := cctoken(t, nil, "", args...)
		assert.Contains(t, document, "```text\n"+help.stdout+"```\n", "cctoken %s", strings.Join(args, " "))
	}
}

func readDocument(t *testing.T) string {
	t.Helper()
	document, err := os.ReadFile("../../docs/cctoken.md")
	require.NoError(t, err)
	return string(document)
}

func TestVersion(t *testing.T) {
	for _, word := range []string{"version", "-version", "--version"} {
		r := cctoken(t, nil, "", word)
		assert.Zero(t, r.status)
		assert.Regexp(t, `^cctoken \S+ \(go\S+ \w+/\w+\)\n$`, r.stdout)
	}
}

package conformance

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the results of the tests into "+providersDoc)

const providersDoc = "../docs/providers.md"

// A matrix has the results of TestMatrix: for each server a table of methods and columns.
type matrix struct {
	servers []matrixServer
	columns []string

	mu    sync.Mutex // protects cells
	cells map[cellKey]string
}

type cellKey struct{ server, method, alg, column string }

func newMatrix(servers []matrixServer) *matrix {
	m := &matrix{servers: servers, cells: map[cellKey]string{}}
	for _, c := range columns {
		m.columns = append(m.columns, c.name)
	}
	m.columns = append(m.columns, lifetimesColumn)
	return m
}

func (m *matrix) set(s matrixServer, method clientMethod, column, cell string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cells[cellKey{s.name, method.name, method.alg, column}] = cell
}

// compare compares the matrix with the one in the document, if it is complete.
func (m *matrix) compare(t *testing.T) {
	t.Helper()
	text, err := m.text()
	if t.Failed() || err != nil && (testing.Short() || strings.Contains(flag.Lookup("test.run").Value.String(), "/")) {
		t.Log("not compared with " + providersDoc + ": some tests did not run or failed")
		return
	}
	require.NoError(t, err)
	compareSection(t, "matrix", text)
}

func (m *matrix) text() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var text strings.Builder
	for _, s := range m.servers {
		var rows [][]string // the first cell is the name
		for _, method := range s.methods {
			row := []string{method.name}
			for _, column := range m.columns {
				cell, ok := m.cells[cellKey{s.name, method.name, method.alg, column}]
				if !ok {
					return "", fmt.Errorf("%s, %s: there is no result for %s", s.name, method.name, column)
				}
				row = append(row, cell)
			}
			rows = append(rows, row)
			if method.alg == "" || method.dpop || method.readyMade {
				continue
			}
			// Merge the rows of algorithms with the same results.
			rows[len(rows)-1][0] += ": " + method.alg
			if i := len(rows) - 2; i >= 0 && strings.HasPrefix(rows[i][0], method.name+": ") && m.same(rows[i], row) {
				rows[i][0] += ", " + method.alg
				rows = rows[:i+1]
			}
		}
		fmt.Fprintf(&text, "### %s\n\n", s.name)
		writeTable(&text, append([]string{"method"}, m.columns...), rows)
		text.WriteByte('\n')
	}
	return text.String(), nil
}

// same reports whether two rows have the same cells. It ignores ten lifetimes, which run
// with one algorithm of each method, and copies that cell.
func (m *matrix) same(a, b []string) bool {
	for i, name := range m.columns {
		switch {
		case name == lifetimesColumn && a[i+1] == "":
			a[i+1] = b[i+1]
		case name != lifetimesColumn && a[i+1] != b[i+1]:
			return false
		}
	}
	return true
}

// writeTable writes a Markdown table without its empty columns.
func writeTable(text *strings.Builder, head []string, rows [][]string) {
	var used []int
	for i := range head {
		if slices.ContainsFunc(rows, func(row []string) bool { return row[i] != "" }) {
			used = append(used, i)
		}
	}
	line := func(cell func(i int) string) {
		for _, i := range used {
			fmt.Fprintf(text, "| %s ", cell(i))
		}
		text.WriteString("|\n")
	}
	line(func(i int) string { return head[i] })
	line(func(int) string { return "---" })
	for _, row := range rows {
		line(func(i int) string {
			if row[i] == "" {
				return "–"
			}
			return row[i]
		})
	}
}

// compareSection compares text with the section between two marks in the document. With
// -update, it replaces the section.
func compareSection(t *testing.T, name, text string) {
	t.Helper()
	doc, err := os.ReadFile(providersDoc)
	require.NoError(t, err)
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->\n"
	before, rest, ok := strings.Cut(string(doc), begin)
	require.True(t, ok, "no %s in %s", begin, providersDoc)
	old, after, ok := strings.Cut(rest, end)
	require.True(t, ok, "no %s in %s", end, providersDoc)
	text = "\n" + text
	if old == text {
		return
	}
	if *update {
		require.NoError(t, os.WriteFile(providersDoc, []byte(before+begin+text+end+after), 0o600))
		return
	}
	require.Equal(t, old, text, "%s differs from the results of the tests; update it with `make providers`", providersDoc)
}

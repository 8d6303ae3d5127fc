// Benchmarks compares this library with others in one run, and writes the document
// docs/performance.md with its plots.
//
//	make bench
//
// It takes a few minutes, and starts its own servers on the loopback interface.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("out", "../docs", "the directory of performance.md")
	smoke := flag.Bool("smoke", false, "measure very little, only to see whether everything works")
	flag.Parse()
	p := fullPlan
	if *smoke {
		p = smokePlan
	}
	if err := run(p, *out); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// run measures, and writes the results into the directory out.
func run(p plan, out string) error {
	r, err := p.run(context.Background(), os.Stderr)
	if err != nil {
		return err
	}
	return r.save(out)
}

// save writes the document and its plots.
func (r *results) save(out string) error {
	plots := filepath.Join(out, "performance")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	for name, draw := range map[string]func() ([]byte, error){
		"refresh.svg": r.refreshPlot,
		"outage.svg":  r.outagePlot,
	} {
		svg, err := draw()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(plots, name), svg, 0o644); err != nil {
			return err
		}
	}
	var document bytes.Buffer
	if err := r.write(&document); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "performance.md"), document.Bytes(), 0o644)
}

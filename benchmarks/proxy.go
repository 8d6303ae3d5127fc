package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/perf/benchfmt"
)

// proxies runs BenchmarkProxy of ccproxy, and returns its costs by method: first those of a
// plain httputil.ReverseProxy. ccproxy is a command, so its benchmark is a program of its
// own.
func (p plan) proxies(ctx context.Context) (map[string][]cost, error) {
	dir, err := os.MkdirTemp("", "benchmarks")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "ccproxy.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, ".")
	build.Dir = filepath.Join("..", "cmd", "ccproxy")
	if _, err := output(build); err != nil {
		return nil, err
	}
	samples := make(proxySamples)
	for range p.proxyRuns {
		command := exec.CommandContext(ctx, program, "-test.run", "^$", "-test.bench", "^BenchmarkProxy$", "-test.benchtime", p.eachProxy)
		command.Dir = build.Dir
		// With so few objects in memory, the garbage collector would run as often as
		// without the ballast of the other benchmarks.
		command.Env = append(os.Environ(), fmt.Sprintf("GOGC=%d", 100*ballast/(4<<20)))
		text, err := output(command)
		if err != nil {
			return nil, err
		}
		if err := samples.add(text); err != nil {
			return nil, err
		}
	}
	return samples.costs()
}

// proxySamples are the results of BenchmarkProxy, by method, then by proxy.
type proxySamples map[string]map[string][]*benchfmt.Result

// proxyNames are the proxies that BenchmarkProxy compares, and what they are called here.
var proxyNames = []struct{ benchmark, text string }{
	{"plain", "`httputil.ReverseProxy`"},
	{"ccproxy", "ccproxy"},
}

// add reads the output of the benchmark.
func (s proxySamples) add(text []byte) error {
	reader := benchfmt.NewReader(bytes.NewReader(text), "BenchmarkProxy")
	for reader.Scan() {
		result, ok := reader.Result().(*benchfmt.Result)
		if !ok {
			continue // This describes a unit.
		}
		_, parts := result.Name.Parts()
		if len(parts) < 2 {
			return fmt.Errorf("benchmark %q: its name must be Proxy/PROXY/METHOD", result.Name)
		}
		proxy, method := string(parts[0][1:]), string(parts[1][1:])
		if s[method] == nil {
			s[method] = make(map[string][]*benchfmt.Result)
		}
		s[method][proxy] = append(s[method][proxy], result.Clone())
	}
	return reader.Err()
}

// costs returns the costs by method, in the order of proxyNames.
func (s proxySamples) costs() (map[string][]cost, error) {
	if len(s) == 0 {
		return nil, errors.New("BenchmarkProxy measured nothing")
	}
	all := make(map[string][]cost)
	for method, byProxy := range s {
		names, ns := make([]string, len(proxyNames)), make([][]float64, len(proxyNames))
		for i, name := range proxyNames {
			names[i] = name.text
			for _, result := range byProxy[name.benchmark] {
				took, _ := result.Value("sec/op")
				ns[i] = append(ns[i], 1e9*took)
			}
			if len(ns[i]) == 0 || len(ns[i]) != len(ns[0]) {
				return nil, fmt.Errorf("BenchmarkProxy measured %s with %s %d times", method, name.benchmark, len(ns[i]))
			}
		}
		costs := compare(names, ns)
		for i, name := range proxyNames {
			last := byProxy[name.benchmark][len(ns[i])-1]
			allocs, _ := last.Value("allocs/op")
			size, _ := last.Value("B/op")
			costs[i].allocs, costs[i].bytes = int(allocs), int(size)
		}
		all[method] = costs
	}
	return all, nil
}

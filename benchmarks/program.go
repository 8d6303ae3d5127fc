package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A program is what a small program costs because of a library.
type program struct {
	peer           string
	stripped, size int64 // of the file, in bytes: without symbols, and as `go build` makes it
	bytes, allocs  int   // when the packages of the library are initialized
}

// programs measures testdata/program, with upstream and with this package. Only the import
// line differs.
func programs(ctx context.Context) ([]program, error) {
	source, err := os.ReadFile(filepath.Join("testdata", "program", "main.go"))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "benchmarks")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var all []program
	for _, peer := range []struct{ peer, path, module string }{
		{upstreamPeer.name, upstreamPeer.module + "/clientcredentials", upstreamPeer.module},
		{dropInPeer.name, dropInPeer.module, dropInPeer.module},
	} {
		p := program{peer: peer.peer}
		text := bytes.Replace(source, fmt.Appendf(nil, "%q", dropInPeer.module), fmt.Appendf(nil, "%q", peer.path), 1)
		if err := os.WriteFile(filepath.Join(dir, "main.go"), text, 0o600); err != nil {
			return nil, err
		}
		for _, build := range []struct {
			flags string
			size  *int64
		}{{"-s -w", &p.stripped}, {"", &p.size}} {
			if _, err := output(exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", build.flags, "-o", dir, filepath.Join(dir, "main.go"))); err != nil {
				return nil, err
			}
			info, err := os.Stat(filepath.Join(dir, "main"))
			if err != nil {
				return nil, err
			}
			*build.size = info.Size()
		}
		command := exec.CommandContext(ctx, filepath.Join(dir, "main"))
		command.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		trace, err := output(command)
		if err != nil {
			return nil, err
		}
		if p.bytes, p.allocs, err = initialization(trace, peer.module); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// initialization returns what the packages of a module allocate when a program starts, from
// a trace of the runtime.
func initialization(trace []byte, module string) (size, allocs int, err error) {
	if !bytes.Contains(trace, []byte("init ")) {
		return 0, 0, errors.New("the runtime printed no trace")
	}
	for lines := bufio.NewScanner(bytes.NewReader(trace)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "init" || !strings.HasPrefix(words[1]+"/", module+"/") {
			continue
		}
		var b, n int
		_, values, _ := strings.Cut(lines.Text(), "clock, ")
		if _, err := fmt.Sscanf(values, "%d bytes, %d allocs", &b, &n); err != nil {
			return 0, 0, fmt.Errorf("trace of the runtime: %q: %w", lines.Text(), err)
		}
		size, allocs = size+b, allocs+n
	}
	return size, allocs, nil
}

// output runs a command, and returns what it prints.
func output(command *exec.Cmd) ([]byte, error) {
	text, err := command.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", command, err, text)
	}
	return text, nil
}

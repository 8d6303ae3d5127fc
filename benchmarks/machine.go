package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// machine describes the machine, without its name.
func machine() string {
	text := fmt.Sprintf("%s, %s/%s, %d cores", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	info, _ := os.ReadFile("/proc/cpuinfo") // Only Linux has it.
	for line := range strings.Lines(string(info)) {
		if name, model, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			return text + " of " + strings.TrimSpace(model)
		}
	}
	return text
}

// A processors is how the processors have spent their time until now, in ticks. The zero
// value means that the system doesn't report it.
type processors struct {
	all  float64
	busy float64
	own  float64 // with this program, and the programs that it ran
}

func readProcessors() processors {
	total, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processors{}
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return processors{}
	}
	return parseProcessors(total, own)
}

// parseProcessors reads the files of proc_stat(5) and proc_pid_stat(5).
func parseProcessors(total, own []byte) processors {
	first, _, _ := bytes.Cut(total, []byte("\n"))
	ticks := strings.Fields(string(first))
	// The name of the program is in parentheses, and may contain some.
	values := strings.Fields(string(own[bytes.LastIndexByte(own, ')')+1:]))
	if len(ticks) < 9 || len(values) < 15 {
		return processors{}
	}
	var p processors
	for i, text := range ticks[1:9] { // The rest is part of them.
		n, _ := strconv.ParseFloat(text, 64)
		p.all += n
		switch i {
		case 3, 4: // idle, and waiting for a disk
		case 5, 6: // interrupts, which the sockets of this program also cause
		default:
			p.busy += n
		}
	}
	for _, text := range values[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseFloat(text, 64)
		p.own += n
	}
	return p
}

// others returns the share of the time since before that the processors spent with other
// programs.
func (p processors) others(before processors) float64 {
	all := p.all - before.all
	if all <= 0 {
		return 0
	}
	return max(p.busy-before.busy-(p.own-before.own), 0) / all
}

// Package leakcheck fails the tests of a package that leave goroutines behind.
package leakcheck

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

const pause = 10 * time.Millisecond // between two looks

var patience = 10 * time.Second // with goroutines that are about to end; tests shorten it

// Main runs the tests of m and exits. Call it from TestMain:
//
//	func TestMain(m *testing.M) { leakcheck.Main(m) }
//
// After tests that passed it waits until no goroutine of theirs is left. If
// some stay, it prints their stacks, and the exit status is 1. After tests that
// failed it doesn't look: they may have been cut short.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if stacks := wait(patience); len(stacks) > 0 {
			fmt.Fprintf(os.Stderr, "leakcheck: goroutines left by the tests: %d\n\n%s\n", len(stacks), strings.Join(stacks, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// wait returns the stacks of the goroutines that are left after that time, or
// nil as soon as there are none.
func wait(patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	for {
		// An idle connection has goroutines, and is no leak.
		http.DefaultClient.CloseIdleConnections()
		stacks := left()
		if len(stacks) == 0 || time.Now().After(deadline) {
			return stacks
		}
		time.Sleep(pause)
	}
}

// expected are calls on the stacks of goroutines that nobody can wait for.
var expected = []string{
	"testing.(*T).Run(", // waits for the test that looks, when one does
	"os/signal.loop(",   // runs for ever after the first signal.Notify
}

// left returns the stacks of all goroutines but the caller's and those expected.
// The runtime's own are not among what it shows.
func left() []string {
	buffer := make([]byte, 64<<10)
	n := runtime.Stack(buffer, true)
	for n == len(buffer) { // There may be more.
		buffer = make([]byte, 2*len(buffer))
		n = runtime.Stack(buffer, true)
	}
	var stacks []string
next:
	for _, stack := range strings.Split(strings.TrimSpace(string(buffer[:n])), "\n\n")[1:] { // The caller's comes first.
		for _, call := range expected {
			if strings.Contains(stack, "\n"+call) {
				continue next
			}
		}
		stacks = append(stacks, stack)
	}
	return stacks
}

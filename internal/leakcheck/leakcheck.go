// Package leakcheck fails the tests of a package if they leave goroutines behind.
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

const pause = 10 * time.Millisecond // between two checks

var patience = 10 * time.Second // how long goroutines may take to end; our own tests shorten it

// Main runs the tests of m and exits. Call it from TestMain:
//
//	func TestMain(m *testing.M) { leakcheck.Main(m) }
//
// If the tests pass, it waits until none of their goroutines is left. If some
// remain, it prints their stacks and exits with status 1. If the tests fail, it
// doesn't check: they may have been cut short.
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

// wait returns the stacks of the goroutines that are left after patience, or nil
// as soon as there are none.
func wait(patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	for {
		// The goroutines of an idle connection are not a leak.
		http.DefaultClient.CloseIdleConnections()
		stacks := left()
		if len(stacks) == 0 || time.Now().After(deadline) {
			return stacks
		}
		time.Sleep(pause)
	}
}

// expected are calls that mark the stack of a goroutine that doesn't count as a leak.
var expected = []string{
	"testing.(*T).Run(",    // waits for the test that calls wait, in our own tests
	"os/signal.loop(",      // runs forever after the first signal.Notify
	"runtime.handleEvent(", // belongs to the runtime for GOOS=js
}

// left returns the stacks of all goroutines except the caller's and the expected
// ones. runtime.Stack doesn't show the runtime's own goroutines.
func left() []string {
	buffer := make([]byte, 64<<10)
	n := runtime.Stack(buffer, true)
	for n == len(buffer) { // The buffer may be too small.
		buffer = make([]byte, 2*len(buffer))
		n = runtime.Stack(buffer, true)
	}
	var stacks []string
next:
	for _, stack := range strings.Split(strings.TrimSpace(string(buffer[:n])), "\n\n")[1:] { // The first stack is the caller's.
		for _, call := range expected {
			if strings.Contains(stack, "\n"+call) {
				continue next
			}
		}
		stacks = append(stacks, stack)
	}
	return stacks
}

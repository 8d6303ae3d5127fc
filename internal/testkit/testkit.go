// Package testkit has what the tests of several packages need: keys, certificates, and
// bubbles of testing/synctest that don't run forever.
//
// The functions for keys and certificates panic if they fail. Only a mistake in a test
// makes them fail, and so they can also be called outside of tests, for example in a
// sync.OnceValue.
package testkit

import (
	"crypto/fips140"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// FIPSOnly reports whether the tests run with GODEBUG=fips140=only. The standard library
// then refuses, by an error or a panic, what FIPS 140-3 doesn't approve.
func FIPSOnly() bool { return strings.Contains(os.Getenv("GODEBUG"), "fips140=only") }

// Synctest is [synctest.Test]. In FIPS 140-3 mode it skips the test: crypto/rand then
// collects entropy by measuring time, and panics in a bubble, where time stands still.
func Synctest(t *testing.T, test func(*testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		t.Skip("crypto/rand can't collect entropy by the clock of a bubble")
	}
	synctest.Test(t, test)
}

// limit is how long a bubble may last by its own clock. A loop that polls once a second
// reaches the limit within seconds of real time.
const limit = 60 * 24 * time.Hour

// Bubble runs test in a bubble of [Synctest], and panics if the test still runs after
// 60 days by the clock of the bubble. That is for a test that waits for something that
// never happens: if another goroutine of the bubble wakes up regularly, the test would go
// on until go test gives up.
func Bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	bubble(t, limit, test)
}

// World is [Bubble] for a test that needs a world: newWorld makes it inside the bubble.
func World[W any](t *testing.T, newWorld func(*testing.T) W, test func(*testing.T, W)) {
	t.Helper()
	Bubble(t, func(t *testing.T) { test(t, newWorld(t)) })
}

func bubble(t *testing.T, limit time.Duration, test func(*testing.T)) {
	t.Helper()
	Synctest(t, func(t *testing.T) {
		watchdog := time.AfterFunc(limit, func() {
			panic(fmt.Sprintf("testkit: %s still runs after %v by the clock of its bubble", t.Name(), limit))
		})
		defer watchdog.Stop()
		test(t)
	})
}

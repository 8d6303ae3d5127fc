// Package testkit has what the tests of several packages need: keys, certificates, and
// bubbles of testing/synctest that don't run forever.
//
// Its functions for keys and certificates panic where they fail, which only a mistake in
// a test can cause. So they also serve in package variables and in sync.OnceValue.
package testkit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// limit is how long a bubble may last, by its own clock. A loop that polls once a second
// reaches it in seconds of real time.
const limit = 60 * 24 * time.Hour

// Bubble runs test in a bubble of [synctest.Test]. It panics when the test still runs
// after 60 days by the clock of the bubble. Without that limit, a test that waits for
// something that never comes runs until the time limit of go test, if any goroutine of
// the bubble wakes up regularly.
func Bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	bubble(t, limit, test)
}

// World is [Bubble] with a world that newWorld makes in the bubble.
func World[W any](t *testing.T, newWorld func(*testing.T) W, test func(*testing.T, W)) {
	t.Helper()
	Bubble(t, func(t *testing.T) { test(t, newWorld(t)) })
}

func bubble(t *testing.T, limit time.Duration, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		watchdog := time.AfterFunc(limit, func() {
			panic(fmt.Sprintf("testkit: %s still runs after %v by the clock of its bubble", t.Name(), limit))
		})
		defer watchdog.Stop()
		test(t)
	})
}

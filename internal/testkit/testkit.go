// Package testkit has what the tests of several packages need: keys, certificates, and
// bubbles of testing/synctest that don't run forever.
//
// The functions for keys and certificates panic if they fail. Only a mistake in a test
// makes them fail, and so they can also be called outside of tests, for example in a
// sync.OnceValue.
package testkit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// limit is how long a bubble may last by its own clock. A loop that polls once a second
// reaches the limit within seconds of real time.
const limit = 60 * 24 * time.Hour

// Bubble runs test in a bubble of [synctest.Test], and panics if the test still runs after
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
	synctest.Test(t, func(t *testing.T) {
		watchdog := time.AfterFunc(limit, func() {
			panic(fmt.Sprintf("testkit: %s still runs after %v by the clock of its bubble", t.Name(), limit))
		})
		defer watchdog.Stop()
		test(t)
	})
}

package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// fastPlan is the default one at three times the speed. x/oauth2 has no use for
// such tokens: it requests one for each call.
//
// Refreshes are due after 3 seconds, when the server is slow, and then after 6,
// when it is down. That token would live for another 3.
func fastPlan() plan {
	return plan{
		lifetime:  6 * time.Second,
		early:     10 * time.Second,
		delay:     time.Second,
		callers:   2,
		pause:     50 * time.Millisecond,
		tick:      100 * time.Millisecond,
		up:        25,
		slow:      25,
		upAgain:   1,
		down:      16,
		recovered: 8,
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), fastPlan(), &out), "%s", &out)
	text := out.String()
	for _, want := range []string{"All of it held (6 of 6 checks).", "calls failed                0 ", "API calls, x/oauth2"} {
		require.Contains(t, text, want)
	}
	require.GreaterOrEqual(t, strings.Count(text, "   slow  "), 25, text)
	require.GreaterOrEqual(t, strings.Count(text, "   down  "), 16, text)
	require.NotContains(t, text, "FAILED")
	reporttest.RequireNoSecret(t, text, clientSecret)
}

// TestOutageBeyondTheTokensLife has the server down for longer than any token can
// help: the claims don't hold.
func TestOutageBeyondTheTokensLife(t *testing.T) {
	t.Parallel()
	p := fastPlan()
	p.lifetime = 2 * time.Second
	p.delay = 100 * time.Millisecond
	p.up, p.slow, p.down = 4, 2, 30
	var out bytes.Buffer
	require.ErrorContains(t, run(t.Context(), p, &out), "of 6 claims didn't hold: see FAILED above")
	require.Contains(t, out.String(), "FAILED when the server came back", "%s", &out)
	require.NotContains(t, out.String(), "All of it held")
	reporttest.RequireNoSecret(t, out.String(), clientSecret)
}

func TestInterruption(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	start := time.Now()
	require.ErrorIs(t, run(ctx, defaultPlan, &out), context.DeadlineExceeded, "%s", &out)
	require.Less(t, time.Since(start), 5*time.Second)
}

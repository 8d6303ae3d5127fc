package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// fastPlan is the default plan at three times the speed. x/oauth2 can't cache such
// tokens, and requests one for each call.
//
// Refreshes are due after 3 seconds, when the server is slow, and after 6 seconds, when
// it is down. At that time the token is valid for another 3 seconds.
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
	text := reporttest.Run(t, 6, func(ctx context.Context, out io.Writer) error { return run(ctx, fastPlan(), out) }, clientSecret)
	require.Contains(t, text, "calls failed                0 ")
	require.Contains(t, text, "API calls, x/oauth2")
	require.GreaterOrEqual(t, strings.Count(text, "   slow  "), 25, text)
	require.GreaterOrEqual(t, strings.Count(text, "   down  "), 16, text)
}

// The server is down until after the token has expired, so the checks fail.
func TestOutageBeyondTheTokensLife(t *testing.T) {
	t.Parallel()
	p := fastPlan()
	p.lifetime = 2 * time.Second
	p.delay = 100 * time.Millisecond
	p.up, p.slow, p.down = 4, 2, 30
	var out bytes.Buffer
	require.ErrorContains(t, run(t.Context(), p, &out), "of 6 checks failed: see FAILED above")
	require.Contains(t, out.String(), "FAILED when the server came back", "%s", &out)
	require.NotContains(t, out.String(), "checks passed")
	reporttest.RequireNoSecret(t, out.String(), clientSecret)
}

func TestInterruption(t *testing.T) {
	t.Parallel()
	reporttest.Interrupt(t, 300*time.Millisecond, func(ctx context.Context, out io.Writer) error { return run(ctx, defaultPlan, out) })
}

package report

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := New(&out)
	r.Say("%d things:", 2)
	r.Check(true, "one")
	require.NoError(t, r.Result())
	r.Check(false, "two")
	require.EqualError(t, r.Result(), "1 of 2 checks failed: see FAILED above")
	require.Equal(t, "2 things:\n   ok     one\n\nAll 1 checks passed.\n   FAILED two\n", out.String())
}

func TestUntil(t *testing.T) {
	require.NoError(t, Until(t.Context(), 0, func() bool { return true }))
	require.EqualError(t, Until(t.Context(), time.Nanosecond, func() bool { return false }), "not within 1ns")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Until(ctx, time.Hour, func() bool { return false }), context.Canceled)
}

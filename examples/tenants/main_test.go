package main

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestRun(t *testing.T) {
	reporttest.Run(t, 9, run, "correct horse")
}

func TestTenants(t *testing.T) {
	looked := map[string]int{}
	down := errors.New("down")
	var failure error
	tenants := NewTenants(t.Context(), 2, func(_ context.Context, tenant string) (*clientcredentials.Config, error) {
		looked[tenant]++
		return &clientcredentials.Config{ClientID: tenant}, failure
	})
	get := func(tenant string) *http.Client {
		client, err := tenants.Client(t.Context(), tenant)
		require.NoError(t, err)
		return client
	}
	a, b := get("a"), get("b")
	require.NotSame(t, a, b)
	require.Same(t, a, get("a")) // Now b is the least recently used,
	get("c")
	require.Same(t, a, get("a"))
	require.Equal(t, map[string]int{"a": 1, "b": 1, "c": 1}, looked)
	require.NotSame(t, b, get("b")) // and was dropped.
	require.Equal(t, 2, looked["b"])
	require.Equal(t, 2, tenants.Len())

	tenants.Forget("b")
	tenants.Forget("nobody")
	require.Equal(t, 1, tenants.Len())
	failure = down
	_, err := tenants.Client(t.Context(), "b")
	require.ErrorIs(t, err, down)
	require.ErrorContains(t, err, `"b"`)
	require.Equal(t, 1, tenants.Len(), "a failure must not be kept")

	// If two clients are made at the same time, both callers get the first one.
	first := tenants.keep("d", new(http.Client))
	require.Same(t, first, tenants.keep("d", new(http.Client)))
}

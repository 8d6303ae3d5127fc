package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestRun(t *testing.T) {
	reporttest.Run(t, 9, run, demoSecret)
}

func TestTransportNeedsAuthorities(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	_, err := Network{CAFile: missing}.Transport()
	require.ErrorIs(t, err, os.ErrNotExist)

	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, []byte("nothing"), 0o600))
	_, err = Network{CAFile: empty}.Transport()
	require.EqualError(t, err, "no certificate in "+empty)
}

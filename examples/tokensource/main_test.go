package main

import (
	"testing"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestRun(t *testing.T) {
	reporttest.Run(t, 9, run, demoSecret)
}

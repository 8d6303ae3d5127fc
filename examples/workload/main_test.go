package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) { reporttest.Run(t, 6, run, "eyJ") }

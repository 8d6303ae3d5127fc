package main

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	reporttest.Run(t, 10, run, demoSecret)
}

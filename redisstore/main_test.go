package redisstore_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	logging.Disable() // It logs what the tests break on purpose.
	if os.Getenv(workerVariable) != "" {
		work()
		return
	}
	flag.Parse()
	// These tests wait for leases and tokens to expire rather than compute: how many of
	// them run at a time has nothing to do with the number of processors.
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(patient{m})
}

// patient waits for goroutines of go-redis: one that connects to a server that is gone
// goes on doing so for a while after Close.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	code := p.m.Run()
	deadline := time.Now().Add(patience)
	for goleak.Find() != nil && time.Now().Before(deadline) {
		continue // Find waits a moment by itself.
	}
	return code
}

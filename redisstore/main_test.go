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
	goleak.VerifyTestMain(patient{m}, leftBehind...)
}

// leftBehind are goroutines that go-redis never ends when its client by Sentinel is
// closed just after it has found another Sentinel: the subscription begins after its end.
var leftBehind = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9.(*sentinelFailover).listen"),
	goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9.(*channel).initMsgChan.func1"),
}

// patient waits for goroutines of go-redis: one that connects to a server that is gone
// goes on doing so for a while after Close.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	code := p.m.Run()
	deadline := time.Now().Add(patience)
	for goleak.Find(leftBehind...) != nil && time.Now().Before(deadline) {
		continue // Find waits a moment by itself.
	}
	return code
}

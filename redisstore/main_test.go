package redisstore_test

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // go-redis would log what the tests break on purpose.
	if os.Getenv(workerVariable) != "" {
		work()
		return
	}
	flag.Parse()
	// These tests spend most of their time waiting for leases and tokens to expire, so more
	// of them than there are processors can run at a time.
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(patient{m}, leftBehind...)
}

// silent is a logger of go-redis that logs nothing. The oldest go-redis that this module
// supports has none of its own.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// leftBehind are goroutines that go-redis never ends if a Sentinel client is closed just
// after it has found another Sentinel: it subscribes after it was closed.
var leftBehind = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9.(*sentinelFailover).listen"),
	goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9.(*channel).initMsgChan.func1"),
}

// patient waits for goroutines of go-redis after the tests: a goroutine that is connecting
// to a server that is gone goes on for a while after Close.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	code := p.m.Run()
	deadline := time.Now().Add(patience)
	for goleak.Find(leftBehind...) != nil && time.Now().Before(deadline) {
		continue // Find itself waits a moment.
	}
	return code
}

package protocols

import (
	"testing"

	"github.com/rcrowley/go-metrics"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	metrics.UseNilMetrics = true // Those of Sarama have a goroutine that never ends.
	goleak.VerifyTestMain(m)
}

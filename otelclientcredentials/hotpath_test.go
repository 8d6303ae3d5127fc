package otelclientcredentials

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/seed-5bfa0880/clientcredentials/event"
)

func providers() map[string]metric.MeterProvider {
	return map[string]metric.MeterProvider{"no-op": noop.NewMeterProvider(), "SDK": newTelemetry().meters, "global": otel.GetMeterProvider()}
}

// TestServingAllocatesNothing is about what happens for every API request.
func TestServingAllocatesNothing(t *testing.T) {
	for name, provider := range providers() {
		for attributes, option := range map[string]Option{
			"without attributes": WithAttributes(),
			"with attributes":    WithAttributes(attribute.String("clientcredentials.name", "billing"), attribute.Int("n", 1)),
		} {
			t.Run(name+" "+attributes, func(t *testing.T) {
				observer, err := NewObserver(WithMeterProvider(provider), option)
				require.NoError(t, err)
				for _, info := range []event.TokenServed{
					{},
					{Stale: true, Waited: time.Microsecond},
				} {
					require.Zero(t, testing.AllocsPerRun(1000, func() { observer.TokenServed(info) }), info)
				}
			})
		}
	}
}

func TestTokenServedByALaterCore(t *testing.T) {
	tel := newTelemetry()
	observer := tel.observer(t)
	for _, info := range []event.TokenServed{
		{From: event.FromServer + 1},
		{From: -1},
		{From: event.FromServer + 1, Stale: true},
	} {
		observer.TokenServed(info)
	}
	require.Equal(t, map[string]string{
		"clientcredentials.token.source=TokenFrom(3),clientcredentials.token.state=expired": "1",
		"clientcredentials.token.source=TokenFrom(-1),clientcredentials.token.state=fresh":  "1",
		"clientcredentials.token.source=memory,clientcredentials.token.state=State(4)":      "1",
		"clientcredentials.token.source=memory,clientcredentials.token.state=State(-1)":     "1",
	}, tel.values(t)["clientcredentials.token.gets"])
}

func BenchmarkTokenServed(b *testing.B) {
	for name, provider := range providers() {
		b.Run(name, func(b *testing.B) {
			observer, err := NewObserver(WithMeterProvider(provider))
			require.NoError(b, err)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					observer.TokenServed(event.TokenServed{})
				}
			})
		})
	}
}

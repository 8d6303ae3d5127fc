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

// A token from memory is served for every API request.
func TestServingAllocatesNothing(t *testing.T) {
	for name, provider := range providers() {
		for attributes, option := range map[string]Option{
			"without attributes": WithAttributes(),
			"with attributes":    WithAttributes(attribute.String("clientcredentials.name", "billing"), attribute.Int("n", 1)),
		} {
			t.Run(name+" "+attributes, func(t *testing.T) {
				observer, err := NewObserver(WithMeterProvider(provider), option)
				require.NoError(t, err)
				for _, info := range []event.TokenServed{{}, {Stale: true, Waited: time.Microsecond}} {
					require.Zero(t, testing.AllocsPerRun(1000, func() { observer.TokenServed(info) }), info)
				}
			})
		}
	}
}

// A later version of the core may have more sources of tokens.
func TestTokenServedByALaterCore(t *testing.T) {
	tel := newTelemetry()
	observer := tel.observer(t)
	for _, info := range []event.TokenServed{{From: event.FromServer + 1}, {From: -1}, {From: event.FromServer + 1, Stale: true}} {
		observer.TokenServed(info)
	}
	require.ElementsMatch(t, []string{
		"token.gets token.source=TokenFrom(3) token.state=fresh: 1",
		"token.gets token.source=TokenFrom(-1) token.state=fresh: 1",
		"token.gets token.source=TokenFrom(3) token.state=stale: 1",
	}, tel.series(t, "token.gets"))
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

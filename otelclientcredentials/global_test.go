package otelclientcredentials

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
)

// globalsSet reports whether the global providers have been set. Until then they
// forward to whatever is set first. That can't be undone.
var globalsSet bool

// The global providers are set after one Observer is made, and before another.
func TestGlobalProviders(t *testing.T) {
	early, err := NewObserver(nil, WithMeterProvider(nil), WithTracerProvider(nil))
	require.NoError(t, err)
	use := func(observer *clientcredentials.Observer) {
		observer.TokenServed(event.TokenServed{})
		_, ended := observer.TraceRefresh(t.Context())
		ended(nil)
	}
	use(early) // Nobody listens yet.

	tel := newTelemetry()
	otel.SetMeterProvider(tel.meters)
	otel.SetTracerProvider(tel.traces)
	late, err := NewObserver()
	require.NoError(t, err)
	observers := []*clientcredentials.Observer{late}
	if !globalsSet { // With -count, only in the first run.
		observers = append(observers, early)
		globalsSet = true
	}
	for _, observer := range observers {
		use(observer)
		require.Zero(t, testing.AllocsPerRun(10, func() { observer.TokenServed(event.TokenServed{}) })) // Makes 11 calls.
	}
	tel.requireSeries(t, fmt.Sprintf("token.gets token.source=memory token.state=fresh: %d", 12*len(observers)))
	require.Len(t, tel.spans.Ended(), len(observers))
}

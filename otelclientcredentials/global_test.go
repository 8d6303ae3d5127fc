package otelclientcredentials

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
)

// globalsSet says that the global providers are no longer those that wait for others to
// be set: that can't be undone.
var globalsSet bool

// TestGlobalProviders sets them after an Observer was made, and before another is.
func TestGlobalProviders(t *testing.T) {
	info := event.TokenServed{}
	early, err := NewObserver(nil, WithMeterProvider(nil), WithTracerProvider(nil))
	require.NoError(t, err)
	early.TokenServed(info) // To nobody.
	_, ended := early.TraceRefresh(t.Context())
	ended(nil)

	tel := newTelemetry()
	otel.SetMeterProvider(tel.meters)
	otel.SetTracerProvider(tel.traces)
	late, err := NewObserver()
	require.NoError(t, err)
	observers := []*clientcredentials.Observer{late}
	if !globalsSet { // With -count the first run only.
		observers = append(observers, early)
		globalsSet = true
	}
	for _, observer := range observers {
		require.Zero(t, testing.AllocsPerRun(10, func() { observer.TokenServed(info) })) // And one call more.
		_, ended := observer.TraceRefresh(t.Context())
		ended(nil)
	}
	require.Equal(t, values{
		"clientcredentials.token.gets": {"clientcredentials.token.source=memory,clientcredentials.token.state=fresh": strconv.Itoa(11 * len(observers))},
	}, tel.values(t))
	require.Len(t, tel.spans.Ended(), len(observers))
}

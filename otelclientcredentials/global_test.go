package otelclientcredentials

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"

	"github.com/seed-5bfa0880/clientcredentials"
)

// TestGlobalProviders sets them after the Observer was made, and before another is.
// They can't be set back: no other test may rely on them.
func TestGlobalProviders(t *testing.T) {
	early, err := NewObserver(nil, WithMeterProvider(nil), WithTracerProvider(nil))
	require.NoError(t, err)
	info := clientcredentials.TokenServedInfo{State: clientcredentials.Fresh}
	early.TokenServed(info) // To nobody.
	_, ended := early.TraceRefresh(context.Background())
	ended(nil)

	tel := newTelemetry()
	otel.SetMeterProvider(tel.meters)
	otel.SetTracerProvider(tel.traces)
	late, err := NewObserver()
	require.NoError(t, err)
	for _, observer := range []*clientcredentials.Observer{early, late} {
		require.Zero(t, testing.AllocsPerRun(10, func() { observer.TokenServed(info) }))
		_, ended := observer.TraceRefresh(t.Context())
		ended(nil)
	}
	require.Equal(t, values{
		"clientcredentials.token.gets": {"clientcredentials.token.source=memory,clientcredentials.token.state=fresh": "22"}, // AllocsPerRun makes one call more.
	}, tel.values(t))
	require.Len(t, tel.spans.Ended(), 2)
}

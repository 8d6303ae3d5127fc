package otelclientcredentials

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// register returns a Source of the Config, which RegisterSource measures.
func (w *world) register(t *testing.T, attributes ...attribute.KeyValue) (*clientcredentials.Source, metric.Registration) {
	t.Helper()
	source := w.conf.Source(t.Context())
	registration, err := RegisterSource(source, w.options(attributes...)...)
	require.NoError(t, err)
	return source, registration
}

// requireRemaining checks the only series of the gauge. Empty: there is none.
func (w *world) requireRemaining(t *testing.T, want string, why ...any) {
	t.Helper()
	got := strings.TrimPrefix(strings.Join(w.series(t, "token.remaining"), "|"), "token.remaining: ")
	require.Equal(t, want, got, why...)
}

func TestRemaining(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source, registration := w.register(t)
		w.requireRemaining(t, "", "nobody has asked for a token")
		require.Empty(t, w.auth.Requests(), "measuring must not request a token")

		w.get(t, source)
		w.requireRemaining(t, "1h0m0s")
		time.Sleep(59 * time.Minute)
		w.requireRemaining(t, "1m0s")

		w.auth.SetFault(&clientcredentialstest.Fault{Status: 503})
		w.get(t, source) // Tries to replace the token.
		w.requireRemaining(t, "1m0s")
		time.Sleep(time.Minute)
		w.requireRemaining(t, "0s", "the last request failed")

		w.auth.SetFault(nil)
		w.get(t, source)
		w.requireRemaining(t, "1h0m0s")
		time.Sleep(2 * time.Hour)
		w.requireRemaining(t, "", "nobody has asked since the token expired")

		w.get(t, source)
		require.NoError(t, registration.Unregister())
		w.requireRemaining(t, "")
	})
}

func TestRemainingOfUnusualTokens(t *testing.T) {
	for expiresIn, want := range map[string]string{"": "", `,"expires_in":-5`: "0s"} { // One that has expired is used for a second all the same.
		bubble(t, func(t *testing.T, w *world) {
			w.auth.Script(clientcredentialstest.Fault{Body: `{"access_token":"t","token_type":"Bearer"` + expiresIn + `}`})
			source, _ := w.register(t)
			w.get(t, source)
			require.Equal(t, clientcredentials.Fresh, source.Status().State)
			w.requireRemaining(t, want)
		})
	}
}

func TestErrors(t *testing.T) {
	_, err := RegisterSource(nil)
	require.EqualError(t, err, "oauth2: the Source to register is nil; get one from Config.Source")

	broken := errors.New("broken")
	for _, row := range []struct {
		meter brokenMeter
		want  string
	}{
		{brokenMeter{gauge: broken}, "oauth2: cannot make the instrument; check the MeterProvider: "},
		{brokenMeter{callback: broken}, "oauth2: cannot observe the Source; check the MeterProvider: "},
		{brokenMeter{counter: broken}, "oauth2: cannot make the instruments; check the MeterProvider: "},
		{brokenMeter{histogram: broken}, "oauth2: cannot make the instruments; check the MeterProvider: "},
	} {
		provider := WithMeterProvider(brokenProvider{meter: row.meter})
		_, ofObserver := NewObserver(provider)
		_, ofSource := RegisterSource(new(clientcredentials.Config).Source(t.Context()), provider)
		err := errors.Join(ofObserver, ofSource) // Only one of them fails.
		require.ErrorIs(t, err, broken)
		require.ErrorContains(t, err, row.want)
	}
}

// A brokenProvider has a Meter that can't make what it has an error for.
type brokenProvider struct {
	noop.MeterProvider
	meter brokenMeter
}

func (p brokenProvider) Meter(string, ...metric.MeterOption) metric.Meter { return p.meter }

type brokenMeter struct {
	noop.Meter
	counter, histogram, gauge, callback error
}

func (m brokenMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return noop.Int64Counter{}, m.counter
}

func (m brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return noop.Float64Histogram{}, m.histogram
}

func (m brokenMeter) Float64ObservableGauge(string, ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return noop.Float64ObservableGauge{}, m.gauge
}

func (m brokenMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return noop.Registration{}, m.callback
}

package otelclientcredentials

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

func (tel *telemetry) remaining(t *testing.T) map[string]string {
	t.Helper()
	return tel.values(t)["clientcredentials.token.remaining"]
}

func TestRemaining(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.conf.Source(t.Context())
		registration, err := RegisterSource(source, w.options()...)
		require.NoError(t, err)
		require.Empty(t, w.remaining(t), "no token has been wanted")
		require.Empty(t, w.auth.Requests(), "to look is to request nothing")

		w.get(t, source)
		require.Equal(t, map[string]string{"": "1h0m0s"}, w.remaining(t))
		time.Sleep(59 * time.Minute)
		require.Equal(t, map[string]string{"": "1m0s"}, w.remaining(t))

		w.auth.SetFault(&clientcredentialstest.Fault{Status: 503})
		w.get(t, source) // Tries to replace it.
		require.Equal(t, map[string]string{"": "1m0s"}, w.remaining(t))
		time.Sleep(time.Minute)
		require.Equal(t, map[string]string{"": "0s"}, w.remaining(t), "the last request failed")

		w.auth.SetFault(nil)
		w.get(t, source)
		require.Equal(t, map[string]string{"": "1h0m0s"}, w.remaining(t))
		time.Sleep(2 * time.Hour)
		require.Empty(t, w.remaining(t), "idle")

		w.get(t, source)
		require.NoError(t, registration.Unregister())
		require.Empty(t, w.remaining(t))
	})
}

func TestRemainingOfATokenWithoutExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.TokenLifetime = -1
		source := w.conf.Source(t.Context())
		_, err := RegisterSource(source, w.options()...)
		require.NoError(t, err)
		w.get(t, source)
		require.Empty(t, w.remaining(t))
	})
}

// TestRemainingOfATokenBornDead has one that is used for a second all the same.
func TestRemainingOfATokenBornDead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Script(clientcredentialstest.Fault{Body: `{"access_token":"t","token_type":"Bearer","expires_in":-5}`})
		source := w.conf.Source(t.Context())
		_, err := RegisterSource(source, w.options()...)
		require.NoError(t, err)
		w.get(t, source)
		require.Equal(t, clientcredentials.Fresh, source.Status().State)
		require.Equal(t, map[string]string{"": "0s"}, w.remaining(t))
	})
}

func TestRemainingOfSeveralSources(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, name := range []string{"billing", "reports"} {
			source := w.conf.Source(t.Context())
			_, err := RegisterSource(source, w.options(attribute.String("clientcredentials.name", name))...)
			require.NoError(t, err)
			w.get(t, source)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		require.Equal(t, map[string]string{
			"clientcredentials.name=billing": "58m0s",
			"clientcredentials.name=reports": "59m0s",
		}, w.remaining(t))
	})
}

func TestRegisterSourceErrors(t *testing.T) {
	_, err := RegisterSource(nil)
	require.EqualError(t, err, "oauth2: the Source to register is nil; get one from Config.Source")

	source := new(clientcredentials.Config).Source(t.Context())
	_, err = RegisterSource(source, WithMeterProvider(brokenProvider{gauge: errBroken}))
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "oauth2: cannot make the instrument; check the MeterProvider: ")
	_, err = RegisterSource(source, WithMeterProvider(brokenProvider{callback: errBroken}))
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "oauth2: cannot observe the Source; check the MeterProvider: ")
}

func TestNewObserverErrors(t *testing.T) {
	observer, err := NewObserver(WithMeterProvider(brokenProvider{counter: errBroken}))
	require.Nil(t, observer)
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, "oauth2: cannot make the instruments; check the MeterProvider: ")
	_, err = NewObserver(WithMeterProvider(brokenProvider{histogram: errBroken}))
	require.ErrorIs(t, err, errBroken)
}

var errBroken = errors.New("broken")

// A brokenProvider fails to make what it has errors for.
type brokenProvider struct {
	noop.MeterProvider

	counter, histogram, gauge, callback error
}

func (p brokenProvider) Meter(string, ...metric.MeterOption) metric.Meter {
	return brokenMeter{errs: p}
}

type brokenMeter struct {
	noop.Meter

	errs brokenProvider
}

func (m brokenMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return noop.Int64Counter{}, m.errs.counter
}

func (m brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return noop.Float64Histogram{}, m.errs.histogram
}

func (m brokenMeter) Float64ObservableGauge(string, ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return noop.Float64ObservableGauge{}, m.errs.gauge
}

func (m brokenMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return noop.Registration{}, m.errs.callback
}

// TestCollectWhileInUse is for the race detector.
func TestCollectWhileInUse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.conf.Source(t.Context())
		_, err := RegisterSource(source, w.options()...)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = source.Token()
					time.Sleep(time.Minute)
				}
			})
		}
		for ctx.Err() == nil {
			w.metrics(t)
			time.Sleep(time.Minute)
		}
		wg.Wait()
	})
}

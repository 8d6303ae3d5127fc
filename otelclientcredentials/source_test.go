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
	lines := []string{}
	if want != "" {
		lines = append(lines, "token.remaining: "+want)
	}
	require.Equal(t, lines, w.series(t, "token.remaining"), why...)
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
	for name, row := range map[string]struct {
		expiresIn string
		want      string
	}{
		"without expiry":  {"", ""},
		"already expired": {`,"expires_in":-5`, "0s"}, // It is used for a second all the same.
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.auth.Script(clientcredentialstest.Fault{Body: `{"access_token":"t","token_type":"Bearer"` + row.expiresIn + `}`})
				source, _ := w.register(t)
				w.get(t, source)
				require.Equal(t, clientcredentials.Fresh, source.Status().State)
				w.requireRemaining(t, row.want)
			})
		})
	}
}

func TestRemainingOfSeveralSources(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, name := range []string{"billing", "reports"} {
			source, _ := w.register(t, attribute.String("clientcredentials.name", name))
			w.get(t, source)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		require.ElementsMatch(t, []string{"token.remaining name=billing: 58m0s", "token.remaining name=reports: 59m0s"}, w.series(t, "token.remaining"))
	})
}

func TestErrors(t *testing.T) {
	_, err := RegisterSource(nil)
	require.EqualError(t, err, "oauth2: the Source to register is nil; get one from Config.Source")

	broken := errors.New("broken")
	register := func(provider metric.MeterProvider) error {
		_, err := RegisterSource(new(clientcredentials.Config).Source(t.Context()), WithMeterProvider(provider))
		return err
	}
	observe := func(provider metric.MeterProvider) error {
		observer, err := NewObserver(WithMeterProvider(provider))
		require.Nil(t, observer)
		return err
	}
	for _, row := range []struct {
		err  error
		want string
	}{
		{register(brokenProvider{gauge: broken}), "oauth2: cannot make the instrument; check the MeterProvider: "},
		{register(brokenProvider{callback: broken}), "oauth2: cannot observe the Source; check the MeterProvider: "},
		{observe(brokenProvider{counter: broken}), "oauth2: cannot make the instruments; check the MeterProvider: "},
		{observe(brokenProvider{histogram: broken}), "oauth2: cannot make the instruments; check the MeterProvider: "},
	} {
		require.ErrorIs(t, row.err, broken)
		require.ErrorContains(t, row.err, row.want)
	}
}

// A brokenProvider can't make what it has an error for.
type brokenProvider struct {
	noop.MeterProvider

	counter, histogram, gauge, callback error
}

func (p brokenProvider) Meter(string, ...metric.MeterOption) metric.Meter {
	return brokenMeter{provider: p}
}

type brokenMeter struct {
	noop.Meter

	provider brokenProvider
}

func (m brokenMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return noop.Int64Counter{}, m.provider.counter
}

func (m brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return noop.Float64Histogram{}, m.provider.histogram
}

func (m brokenMeter) Float64ObservableGauge(string, ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return noop.Float64ObservableGauge{}, m.provider.gauge
}

func (m brokenMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return noop.Registration{}, m.provider.callback
}

// This is for the race detector.
func TestCollectWhileInUse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source, _ := w.register(t)
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

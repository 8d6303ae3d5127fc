package otelclientcredentials

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/seed-5bfa0880/clientcredentials"
)

// RegisterSource measures how long the current token of source remains valid, as
// clientcredentials.token.remaining, whenever metrics are collected. Measuring never
// requests a token and never waits for one.
//
//   - Nothing is reported while there is no token and no failure, because no caller has
//     asked for a token since the last one expired.
//   - Nothing is reported for a token that doesn't expire.
//   - 0 is reported if there is no token because the last request failed.
//
// An idle Source lets its token expire, so alert on a low value that stays low.
//
// Give each Source different attributes, with WithAttributes: of two Sources with the
// same attributes, only one is reported. WithTracerProvider has no effect here. The
// Source is kept in memory until Unregister is called on the result. To get at the
// Source of an http.Client, build the client from Config.Source and a
// clientcredentials.Transport.
//
// RegisterSource returns an error if source is nil, or if the MeterProvider can't make
// the instrument.
func RegisterSource(source *clientcredentials.Source, opts ...Option) (metric.Registration, error) {
	if source == nil {
		return nil, errors.New("oauth2: the Source to register is nil; get one from Config.Source")
	}
	o := newOptions(opts)
	meter := o.meter()
	remaining, err := meter.Float64ObservableGauge("clientcredentials.token.remaining", metric.WithUnit("s"), metric.WithDescription("How long the current token remains valid."))
	if err != nil {
		return nil, fmt.Errorf("oauth2: cannot make the instrument; check the MeterProvider: %w", err)
	}
	attributes := o.with()
	registration, err := meter.RegisterCallback(func(_ context.Context, observer metric.Observer) error {
		status := source.Status()
		switch {
		case status.State == clientcredentials.Failed:
			observer.ObserveFloat64(remaining, 0, attributes)
		case !status.Expiry.IsZero():
			observer.ObserveFloat64(remaining, max(time.Until(status.Expiry), 0).Seconds(), attributes)
		}
		return nil
	}, remaining)
	if err != nil {
		return nil, fmt.Errorf("oauth2: cannot observe the Source; check the MeterProvider: %w", err)
	}
	return registration, nil
}

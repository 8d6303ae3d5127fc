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
// clientcredentials.token.remaining, whenever metrics are collected. That neither
// requests a token nor waits for one. Nothing is reported while there is no token and
// no reason to worry (none has been wanted since the last one expired), nor for a token
// that doesn't expire; and 0 when there is none because the last request failed. An
// idle Source lets its token run out: alert on a low value that stays.
//
// Sources need attributes that differ, WithAttributes: of two with the same, one is
// reported. Of the options the TracerProvider doesn't count. Source is kept until
// Unregister is called on what is returned. To get at the Source of an http.Client,
// make that with Config.Source and a clientcredentials.Transport.
//
// An error says that source is nil, or that the MeterProvider refuses the instrument.
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

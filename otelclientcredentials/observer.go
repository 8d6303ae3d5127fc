package otelclientcredentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// ScopeName is the name of the instrumentation scope of all metrics and spans.
const ScopeName = "github.com/seed-5bfa0880/clientcredentials/otelclientcredentials"

// Version returns the version of this module in the running program. It is also the
// version of the instrumentation scope. It is empty if it isn't known, for example when
// the program was built with a local copy of the module.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return versionIn(info)
	}
	return ""
}

func versionIn(info *debug.BuildInfo) string {
	for _, module := range info.Deps {
		if module.Path == ScopeName && module.Replace == nil {
			return module.Version
		}
	}
	return ""
}

const (
	sourceKey     = attribute.Key("clientcredentials.token.source")
	stateKey      = attribute.Key("clientcredentials.token.state")
	backgroundKey = attribute.Key("clientcredentials.token.request.background")
	reasonKey     = attribute.Key("clientcredentials.token.invalidation.reason")
	operationKey  = attribute.Key("clientcredentials.store.operation")
	outcomeKey    = attribute.Key("clientcredentials.store.outcome")
	refusalKey    = attribute.Key("clientcredentials.origin.outcome")
	targetKey     = attribute.Key("clientcredentials.target")

	// From the semantic conventions.
	errorTypeKey  = attribute.Key("error.type")
	statusCodeKey = attribute.Key("http.response.status_code")
)

const spanName = "request token"

// minWait is the shortest wait that is recorded for a caller that got an error, or the
// token that was in memory all along. Anything shorter is the cost of the call itself.
const minWait = time.Millisecond

var (
	// The buckets of http.client.request.duration in the semantic conventions, and more
	// up to the 30 seconds that a token request may take.
	waitBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 30}

	// Nobody waits for a store longer than 250 milliseconds: a longer call has timed out.
	storeBuckets = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25}

	// A pause doubles from one second up to 30, and a Retry-After can ask for an hour.
	cooldownBuckets = []float64{1, 2, 4, 8, 16, 30, 60, 300, 900, 3600}
)

// An Option changes what NewObserver and RegisterSource do by default.
type Option func(*options)

type options struct {
	meterProvider  metric.MeterProvider
	tracerProvider trace.TracerProvider
	attributes     []attribute.KeyValue
	targets        map[string]string // names by Target.ID
}

// WithMeterProvider sets the provider of the instruments. The default, also for nil, is
// the global MeterProvider.
func WithMeterProvider(provider metric.MeterProvider) Option {
	return func(o *options) { o.meterProvider = provider }
}

// WithTracerProvider sets the provider of the spans. The default, also for nil, is the
// global TracerProvider.
func WithTracerProvider(provider trace.TracerProvider) Option {
	return func(o *options) { o.tracerProvider = provider }
}

// WithAttributes adds attributes to every measurement and span, to tell one Config
// from another: attribute.String("clientcredentials.name", "billing"). Use few values,
// and no secrets. An attribute of this package wins over one with the same key.
func WithAttributes(attributes ...attribute.KeyValue) Option {
	return func(o *options) { o.attributes = append(o.attributes, attributes...) }
}

// WithTargetName gives the tokens of a target a name in metrics, as the attribute
// clientcredentials.target. Without a name it is other, because a program may have any
// number of targets. What is measured of the Config's own token has no such attribute.
func WithTargetName(target clientcredentials.Target, name string) Option {
	return func(o *options) {
		if o.targets == nil {
			o.targets = make(map[string]string)
		}
		o.targets[target.ID()] = name
	}
}

// unnamed is the name of targets without one.
const unnamed = "other"

func newOptions(opts []Option) *options {
	o := new(options)
	for _, option := range opts {
		if option != nil {
			option(o)
		}
	}
	if o.meterProvider == nil {
		o.meterProvider = otel.GetMeterProvider()
	}
	if o.tracerProvider == nil {
		o.tracerProvider = otel.GetTracerProvider()
	}
	return o
}

func (o *options) meter() metric.Meter {
	return o.meterProvider.Meter(ScopeName, metric.WithInstrumentationVersion(Version()))
}

func (o *options) tracer() trace.Tracer {
	return o.tracerProvider.Tracer(ScopeName, trace.WithInstrumentationVersion(Version()))
}

// with returns the attributes of WithAttributes together with attributes.
func (o *options) with(attributes ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(slices.Concat(o.attributes, attributes)...)) // For each key, the last one wins.
}

// of returns with, for what is about a target.
func (o *options) of(target string, attributes ...attribute.KeyValue) metric.MeasurementOption {
	if target != "" {
		attributes = append(attributes, targetKey.String(cmp.Or(o.targets[target], unnamed)))
	}
	return o.with(attributes...)
}

// served returns the attributes of a token that was served.
func (o *options) served(info event.TokenServed) []metric.AddOption {
	state := clientcredentials.Fresh
	if info.Stale {
		state = clientcredentials.Stale
	}
	return []metric.AddOption{o.of(info.Target, sourceKey.String(info.From.String()), stateKey.String(state.String()))}
}

// NewObserver returns an Observer for Config.Observer that measures what happens to
// tokens and makes a span for each token request. Several Configs may share it. To tell
// them apart, give each its own, with WithAttributes. To log as well, join it with
// another Observer: see clientcredentials.JoinObservers.
//
// It returns an error if the MeterProvider can't make an instrument.
func NewObserver(opts ...Option) (*clientcredentials.Observer, error) {
	o := newOptions(opts)
	m := maker{meter: o.meter()}
	var (
		gets          = m.counter("clientcredentials.token.gets", "{get}", "How often callers asked for a token.")
		waits         = m.histogram("clientcredentials.token.wait.duration", "How long callers waited for a token.", waitBuckets)
		requests      = m.counter("clientcredentials.token.requests", "{request}", "Token requests that were started.")
		durations     = m.histogram("clientcredentials.token.request.duration", "How long token requests took, including retries.", waitBuckets)
		retries       = m.counter("clientcredentials.token.retries", "{attempt}", "Failed attempts to get a token that were followed by another attempt.")
		cooldowns     = m.histogram("clientcredentials.token.cooldown.duration", "How long no token is requested after a failure.", cooldownBuckets)
		invalidations = m.counter("clientcredentials.token.invalidations", "{token}", "Tokens that were dropped before they expired.")
		operations    = m.histogram("clientcredentials.store.operation.duration", "How long calls to the store of shared tokens took.", storeBuckets)
		leases        = m.histogram("clientcredentials.store.lease.wait.duration", "How long token requests waited for another replica to get a token.", waitBuckets)
		refusals      = m.counter("clientcredentials.origin.refusals", "{request}", "API requests to origins that the token must not go to.")
	)
	if err := m.err(); err != nil {
		return nil, err
	}

	tracer := o.tracer()
	ctx := context.Background() // For measurements: they don't belong to any one caller.
	// Every API request is served a token, mostly from memory. That must not allocate, so
	// these attributes are made in advance.
	fresh, stale := o.served(event.TokenServed{}), o.served(event.TokenServed{Stale: true})
	return &clientcredentials.Observer{
		Inline: true,
		TokenServed: func(info event.TokenServed) {
			switch {
			case info.From != event.FromMemory || info.Target != "":
				gets.Add(ctx, 1, o.served(info)...)
			case info.Stale:
				gets.Add(ctx, 1, stale...)
			default:
				gets.Add(ctx, 1, fresh...)
			}
			if info.From != event.FromMemory || info.Waited >= minWait {
				waits.Record(ctx, info.Waited.Seconds(), o.of(info.Target, sourceKey.String(info.From.String())))
			}
		},
		TokenFailed: func(info event.TokenFailed) {
			attributes := o.of(info.Target, errorTypeKey.String(errorType(info.Err)))
			gets.Add(ctx, 1, attributes)
			if info.Waited >= minWait {
				waits.Record(ctx, info.Waited.Seconds(), attributes)
			}
		},
		RefreshStarted: func(info event.RefreshStarted) {
			requests.Add(ctx, 1, o.of(info.Target, backgroundKey.Bool(info.Background)))
		},
		RefreshDone: func(info event.RefreshDone) {
			durations.Record(ctx, info.Duration.Seconds(), o.of(info.Target, sourceKey.String(info.From.String())))
			if info.LeaseWait > 0 {
				leases.Record(ctx, info.LeaseWait.Seconds(), o.of(info.Target))
			}
		},
		RefreshFailed: func(info event.RefreshFailed) {
			durations.Record(ctx, info.Duration.Seconds(), o.of(info.Target, errorTypeKey.String(errorType(info.Err))))
		},
		TraceRefresh: func(ctx context.Context) (context.Context, func(error)) {
			ctx, span := tracer.Start(ctx, spanName, trace.WithAttributes(o.attributes...)) //nolint:spancheck // The function below ends it.
			return ctx, func(err error) { end(span, err) }                                  //nolint:spancheck // See above.
		},
		Retry: func(info event.Retry) {
			retries.Add(ctx, 1, o.with(errorTypeKey.String(errorType(info.Err))))
		},
		Cooldown: func(info event.Cooldown) {
			cooldowns.Record(ctx, max(time.Until(info.Until), 0).Seconds(), o.of(info.Target))
		},
		Invalidated: func(info event.Invalidated) {
			invalidations.Add(ctx, 1, o.of(info.Target, reasonKey.String(info.Reason.String())))
		},
		StoreOperation: func(info event.StoreOperation) {
			operations.Record(ctx, info.Duration.Seconds(), o.with(storeAttributes(info)...))
		},
		OriginRefused: func(info event.OriginRefused) {
			// The origin isn't an attribute: a server that redirects us can choose any
			// number of them.
			refusals.Add(ctx, 1, o.with(refusalKey.String(info.Outcome.String())))
		},
	}, nil
}

// end ends the span of a token request. It doesn't put the text of err into the span's
// status, because that text may quote the server.
func end(span trace.Span, err error) {
	defer span.End()
	if err == nil {
		return
	}
	span.SetStatus(codes.Error, "")
	span.SetAttributes(errorTypeKey.String(errorType(err)))
	if status := statusCode(err); status != 0 {
		span.SetAttributes(statusCodeKey.Int(status))
	}
}

// storeAttributes returns the attributes of a call to the store.
func storeAttributes(info event.StoreOperation) []attribute.KeyValue {
	attributes := []attribute.KeyValue{operationKey.String(string(info.Operation))}
	switch {
	case errors.Is(info.Err, tokenstore.ErrLeaseLost):
		attributes = append(attributes, outcomeKey.String("lease_lost"))
	case info.Err != nil:
		attributes = append(attributes, errorTypeKey.String(errorType(info.Err)))
	case info.State != 0:
		attributes = append(attributes, outcomeKey.String(info.State.String()))
	}
	return attributes
}

// A maker makes instruments and collects the errors.
type maker struct {
	meter  metric.Meter
	errors []error
}

func (m *maker) counter(name, unit, description string) metric.Int64Counter {
	instrument, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errors = append(m.errors, err)
	return instrument
}

func (m *maker) histogram(name, description string, buckets []float64) metric.Float64Histogram {
	instrument, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(buckets...))
	m.errors = append(m.errors, err)
	return instrument
}

func (m *maker) err() error {
	if err := errors.Join(m.errors...); err != nil {
		return fmt.Errorf("oauth2: cannot make the instruments; check the MeterProvider: %w", err)
	}
	return nil
}

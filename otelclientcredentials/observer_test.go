package otelclientcredentials

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// telemetry is an SDK that keeps the metrics and spans it gets.
type telemetry struct {
	reader *sdkmetric.ManualReader
	meters *sdkmetric.MeterProvider
	spans  *tracetest.SpanRecorder
	traces *sdktrace.TracerProvider
}

func newTelemetry() *telemetry {
	reader, spans := sdkmetric.NewManualReader(), tracetest.NewSpanRecorder()
	return &telemetry{
		reader: reader,
		meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		spans:  spans,
		traces: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
	}
}

func (tel *telemetry) options(attributes ...attribute.KeyValue) []Option {
	return []Option{WithMeterProvider(tel.meters), WithTracerProvider(tel.traces), WithAttributes(attributes...)}
}

func (tel *telemetry) observer(t *testing.T, attributes ...attribute.KeyValue) *clientcredentials.Observer {
	t.Helper()
	observer, err := NewObserver(tel.options(attributes...)...)
	require.NoError(t, err)
	return observer
}

// metrics collects and returns the metrics.
func (tel *telemetry) metrics(t *testing.T) []metricdata.Metrics {
	t.Helper()
	var collected metricdata.ResourceMetrics
	require.NoError(t, tel.reader.Collect(t.Context(), &collected))
	if len(collected.ScopeMetrics) == 0 {
		return nil
	}
	require.Len(t, collected.ScopeMetrics, 1)
	require.Equal(t, ScopeName, collected.ScopeMetrics[0].Scope.Name)
	require.Equal(t, Version(), collected.ScopeMetrics[0].Scope.Version)
	return collected.ScopeMetrics[0].Metrics
}

// A point is one series of a metric: its attributes, and its value as text.
type point struct {
	attributes attribute.Set
	text       string
}

func points(m metricdata.Metrics) (list []point) {
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			list = append(list, point{p.Attributes, fmt.Sprint(p.Value)})
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			list = append(list, point{p.Attributes, seconds(p.Value).String()})
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			list = append(list, point{p.Attributes, fmt.Sprintf("%d in %v", p.Count, seconds(p.Sum))})
		}
	default:
		panic(fmt.Sprintf("%s is a %T", m.Name, m.Data))
	}
	return list
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }

// series returns one line for each series of a metric, or of all metrics if the name is
// empty: the name, the attributes and the value. The prefix "clientcredentials." of names
// and attributes is left out.
func (tel *telemetry) series(t *testing.T, metric string) []string {
	t.Helper()
	lines := []string{}
	for _, m := range tel.metrics(t) {
		name := strings.TrimPrefix(m.Name, "clientcredentials.")
		if metric != "" && metric != name {
			continue
		}
		for _, p := range points(m) {
			var line strings.Builder
			line.WriteString(name)
			for _, a := range p.attributes.ToSlice() {
				line.WriteString(" " + strings.TrimPrefix(string(a.Key), "clientcredentials.") + "=" + fmt.Sprint(a.Value.AsInterface()))
			}
			lines = append(lines, line.String()+": "+p.text)
		}
	}
	return lines
}

// requireSeries checks all series of all metrics.
func (tel *telemetry) requireSeries(t *testing.T, want ...string) {
	t.Helper()
	require.ElementsMatch(t, want, tel.series(t, ""))
}

// A world is a client and its authorization server, in memory.
type world struct {
	*telemetry
	auth *clientcredentialstest.AuthorizationServer
	conf *clientcredentials.Config
}

func newWorld(t *testing.T, attributes ...attribute.KeyValue) *world {
	tel := newTelemetry()
	auth := &clientcredentialstest.AuthorizationServer{
		Clients: []clientcredentialstest.Client{{ID: clientcredentialstest.ClientID, Secret: clientcredentialstest.ClientSecret}},
	}
	return &world{tel, auth, &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		AuthStyle:    oauth2.AuthStyleInHeader,
		TokenURL:     "https://auth.example/token",
		HTTPClient:   &http.Client{Transport: clientcredentialstest.HandlerTransport(auth)},
		Observer:     tel.observer(t, attributes...),
	}}
}

// bubble runs a test of a world under synctest.
func bubble(t *testing.T, f func(t *testing.T, w *world), attributes ...attribute.KeyValue) {
	t.Helper()
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld(t, attributes...)
		f(t, w)
		require.Empty(t, w.auth.Violations())
	})
}

// get gets a token, and waits until all events have been reported. Some of them are
// reported only after the caller has its token.
func (w *world) get(t *testing.T, source *clientcredentials.Source) {
	t.Helper()
	_, err := source.TokenContext(t.Context())
	require.NoError(t, err)
	synctest.Wait()
}

// fail asks for a token in vain, and waits as get does.
func (w *world) fail(t *testing.T, source *clientcredentials.Source) {
	t.Helper()
	_, err := source.TokenContext(t.Context())
	require.Error(t, err)
	synctest.Wait()
}

func TestLifeOfAToken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx, parent := w.traces.Tracer("test").Start(t.Context(), "start")
		source := w.conf.Source(ctx)
		w.requireSeries(t)
		w.auth.Latency = 3 * time.Second
		w.get(t, source)
		w.get(t, source)
		time.Sleep(57 * time.Minute)
		w.get(t, source) // Starts to replace the token in the background.
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.requireSeries(t,
			"token.gets token.source=server token.state=fresh: 1",
			"token.gets token.source=memory token.state=fresh: 1",
			"token.gets token.source=memory token.state=stale: 1",
			"token.wait.duration token.source=server: 1 in 3s",
			"token.requests token.request.background=false: 1",
			"token.requests token.request.background=true: 1",
			"token.request.duration token.source=server: 2 in 6s",
		)
		spans := w.spans.Ended()
		require.Len(t, spans, 2)
		for _, span := range spans {
			require.Equal(t, "request token", span.Name())
			require.Equal(t, trace.SpanKindInternal, span.SpanKind())
			require.Equal(t, sdktrace.Status{}, span.Status())
			require.Empty(t, span.Attributes())
			require.Empty(t, span.Events())
			require.Equal(t, ScopeName, span.InstrumentationScope().Name)
			require.Equal(t, Version(), span.InstrumentationScope().Version)
			require.Equal(t, parent.SpanContext(), span.Parent())
			require.Equal(t, 3*time.Second, span.EndTime().Sub(span.StartTime()))
		}
	})
}

func TestRetriesAndCooldown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Script(
			clientcredentialstest.Fault{Status: 503},
			clientcredentialstest.Fault{Reset: true},
			clientcredentialstest.Fault{Status: 429, Body: "<p>", Header: http.Header{"Retry-After": {"60"}}},
		)
		start := time.Now()
		source := w.conf.Source(t.Context())
		w.fail(t, source)
		took := time.Since(start).String()
		w.fail(t, source) // Gets the same error, without a token request.
		w.requireSeries(t,
			"token.gets error.type=429: 2",
			"token.wait.duration error.type=429: 1 in "+took,
			"token.requests token.request.background=false: 1",
			"token.request.duration error.type=429: 1 in "+took,
			"token.retries error.type=temporarily_unavailable: 1",
			"token.retries error.type=connection: 1",
			"token.cooldown.duration: 1 in 1m0s",
		)
	})
}

func TestEvents(t *testing.T) {
	const ms = time.Millisecond
	later := event.FromServer + 1 // A later version of the core may have more sources of tokens.
	for name, row := range map[string]struct {
		report func(*clientcredentials.Observer)
		want   []string
	}{
		"waits for a token in memory": {func(observer *clientcredentials.Observer) {
			observer.TokenServed(event.TokenServed{Waited: ms - 1})
			observer.TokenServed(event.TokenServed{Waited: ms})
		}, []string{"token.gets token.source=memory token.state=fresh: 2", "token.wait.duration token.source=memory: 1 in 1ms"}},
		"from another replica": {func(observer *clientcredentials.Observer) {
			observer.TokenServed(event.TokenServed{From: event.FromStore})
			observer.RefreshDone(event.RefreshDone{Duration: 2 * time.Second, From: event.FromStore, LeaseWait: 1500 * ms})
			observer.RefreshDone(event.RefreshDone{Duration: 7 * ms, From: event.FromStore})
		}, []string{
			"token.gets token.source=store token.state=fresh: 1", "token.wait.duration token.source=store: 1 in 0s",
			"token.request.duration token.source=store: 2 in 2.007s", "store.lease.wait.duration: 1 in 1.5s",
		}},
		"from elsewhere": {func(observer *clientcredentials.Observer) {
			observer.TokenServed(event.TokenServed{From: later})
			observer.TokenServed(event.TokenServed{From: later, Stale: true})
		}, []string{
			"token.gets token.source=TokenFrom(3) token.state=fresh: 1", "token.gets token.source=TokenFrom(3) token.state=stale: 1",
			"token.wait.duration token.source=TokenFrom(3): 2 in 0s",
		}},
		"cooldown that is over": {func(observer *clientcredentials.Observer) {
			observer.Cooldown(event.Cooldown{Until: time.Now().Add(-time.Hour)})
		}, []string{"token.cooldown.duration: 1 in 0s"}},
		"calls to the store": {func(observer *clientcredentials.Observer) {
			observer.StoreOperation(event.StoreOperation{Operation: event.Acquire, State: tokenstore.ClaimWait, Duration: 2 * ms})
			observer.StoreOperation(event.StoreOperation{Operation: event.Acquire, State: tokenstore.ClaimWait, Duration: 3 * ms})
			observer.StoreOperation(event.StoreOperation{Operation: event.Acquire, Duration: 250 * ms, Err: fmt.Errorf("slow: %w", context.DeadlineExceeded)})
			observer.StoreOperation(event.StoreOperation{Operation: event.Publish, Duration: 4 * ms})
			observer.StoreOperation(event.StoreOperation{Operation: event.Publish, Duration: 5 * ms, Err: fmt.Errorf("late: %w", tokenstore.ErrLeaseLost)})
		}, []string{
			"store.operation.duration store.operation=acquire store.outcome=wait: 2 in 5ms",
			"store.operation.duration store.operation=acquire error.type=timeout: 1 in 250ms",
			"store.operation.duration store.operation=publish: 1 in 4ms",
			"store.operation.duration store.operation=publish store.outcome=lease_lost: 1 in 5ms",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			tel := newTelemetry()
			row.report(tel.observer(t))
			tel.requireSeries(t, row.want...)
		})
	}
}

// Targets have the names that the program gives them, and all others one name together.
func TestTargets(t *testing.T) {
	tel := newTelemetry()
	billing, other, third := clientcredentials.Target{Audience: "billing"}, clientcredentials.Target{Audience: "a"}, clientcredentials.Target{Audience: "b"}
	observer, err := NewObserver(append(tel.options(), WithTargetName(billing, "billing"))...)
	require.NoError(t, err)
	for _, target := range []string{"", billing.ID(), other.ID(), third.ID()} {
		observer.TokenServed(event.TokenServed{Target: target})
		observer.RefreshStarted(event.RefreshStarted{Target: target})
	}
	tel.requireSeries(t,
		"token.gets token.source=memory token.state=fresh: 1",
		"token.gets target=billing token.source=memory token.state=fresh: 1",
		"token.gets target=other token.source=memory token.state=fresh: 2",
		"token.requests token.request.background=false: 1",
		"token.requests target=billing token.request.background=false: 1",
		"token.requests target=other token.request.background=false: 2",
	)
}

func TestConstantAttributes(t *testing.T) {
	tel := newTelemetry()
	name := attribute.String("clientcredentials.name", "billing")
	observer := tel.observer(t, name, attribute.String("error.type", "mine"), attribute.String("clientcredentials.token.source", "mine"))
	exercise(observer)
	source := (&clientcredentials.Config{}).Source(t.Context())
	_, err := source.Token()
	require.Error(t, err)
	_, err = RegisterSource(source, tel.options(name)...)
	require.NoError(t, err)
	for _, line := range tel.series(t, "") {
		require.Regexp(t, " name=billing[ :]", line)
		if strings.Contains(line, " token.state=") {
			require.NotContains(t, line, " token.source=mine", "the package's own attribute must win")
		}
	}
	spans := tel.spans.Ended()
	require.NotEmpty(t, spans)
	for _, span := range spans {
		set := attribute.NewSet(span.Attributes()...)
		require.Contains(t, set.ToSlice(), name)
		value, _ := set.Value("error.type")
		require.Equal(t, span.Status().Code != codes.Error, value.AsString() == "mine", "the package's own attribute must win")
	}
}

func TestGlobalProviders(t *testing.T) {
	tel := newTelemetry()
	otel.SetMeterProvider(tel.meters)
	otel.SetTracerProvider(tel.traces)
	observer, err := NewObserver(nil, WithMeterProvider(nil), WithTracerProvider(nil))
	require.NoError(t, err)
	observer.TokenServed(event.TokenServed{})
	_, ended := observer.TraceRefresh(t.Context())
	ended(nil)
	tel.requireSeries(t, "token.gets token.source=memory token.state=fresh: 1")
	require.Len(t, tel.spans.Ended(), 1)
}

// Every API request reports an event, so that must cost little.
func TestServingAllocatesNothing(t *testing.T) {
	name := attribute.String("clientcredentials.name", "billing")
	for _, provider := range []metric.MeterProvider{noop.NewMeterProvider(), newTelemetry().meters, otel.GetMeterProvider()} {
		observer, err := NewObserver(WithMeterProvider(provider), WithAttributes(name, attribute.Int("n", 1)))
		require.NoError(t, err)
		for _, info := range []event.TokenServed{{}, {Stale: true, Waited: time.Microsecond}} {
			require.Zero(t, testing.AllocsPerRun(1000, func() { observer.TokenServed(info) }), "%T %v", provider, info)
		}
	}
}

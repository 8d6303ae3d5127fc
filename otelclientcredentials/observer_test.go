package otelclientcredentials

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
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
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/event"
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
			line := name
			for _, a := range p.attributes.ToSlice() {
				line += " " + strings.TrimPrefix(string(a.Key), "clientcredentials.") + "=" + a.Value.String()
			}
			lines = append(lines, line+": "+p.text)
		}
	}
	return lines
}

// value returns the value of a series.
func (tel *telemetry) value(t *testing.T, series string) (value string) {
	t.Helper()
	for _, line := range tel.series(t, "") {
		if rest, ok := strings.CutPrefix(line, series+": "); ok {
			value = rest
		}
	}
	return value
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
	synctest.Test(t, func(t *testing.T) {
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
		source := w.conf.Source(t.Context())
		w.requireSeries(t)
		require.Empty(t, w.spans.Started())

		w.auth.Latency = 3 * time.Second
		w.get(t, source)
		w.get(t, source)
		w.get(t, source)
		w.requireSeries(t,
			"token.gets token.source=server token.state=fresh: 1",
			"token.gets token.source=memory token.state=fresh: 2",
			"token.wait.duration token.source=server: 1 in 3s",
			"token.requests token.request.background=false: 1",
			"token.request.duration token.source=server: 1 in 3s",
		)

		time.Sleep(57 * time.Minute)
		w.get(t, source) // Starts to replace the token in the background.
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.requireSeries(t,
			"token.gets token.source=server token.state=fresh: 1",
			"token.gets token.source=memory token.state=fresh: 2",
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
			require.False(t, span.Parent().IsValid())
			require.Equal(t, 3*time.Second, span.EndTime().Sub(span.StartTime()))
		}
	})
}

// The caller gives up. The token request goes on and succeeds.
func TestCallerThatGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Latency = 3 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := w.conf.Source(t.Context()).TokenContext(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.requireSeries(t,
			"token.gets error.type=timeout: 1",
			"token.wait.duration error.type=timeout: 1 in 1s",
			"token.requests token.request.background=false: 1",
			"token.request.duration token.source=server: 1 in 3s",
		)
	})
}

// Shortly before the expiry a caller waits for a new token, but only for a second. Then
// it gets the old one.
func TestWaitForAReplacement(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.conf.Source(t.Context())
		w.get(t, source)
		first := "token.wait.duration token.source=server: 1 in 0s"
		require.Equal(t, []string{first}, w.series(t, "token.wait.duration"))
		time.Sleep(time.Hour - 8*time.Second)
		w.auth.Latency = 5 * time.Second
		w.get(t, source)
		require.ElementsMatch(t, []string{first, "token.wait.duration token.source=memory: 1 in 1s"}, w.series(t, "token.wait.duration"))
		time.Sleep(5 * time.Second)
	})
}

func TestRetriesAndCooldown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Script(
			clientcredentialstest.Fault{Delay: time.Second, Status: 503},
			clientcredentialstest.Fault{Delay: time.Second, Reset: true},
			clientcredentialstest.Fault{Delay: time.Second, Status: 429, Body: "<p>", Header: http.Header{"Retry-After": {"60"}}},
		)
		start := time.Now()
		source := w.conf.Source(t.Context())
		w.fail(t, source)
		took := time.Since(start)
		want := []string{
			"token.wait.duration error.type=429: 1 in " + took.String(),
			"token.requests token.request.background=false: 1",
			"token.request.duration error.type=429: 1 in " + took.String(),
			"token.retries error.type=temporarily_unavailable: 1",
			"token.retries error.type=connection: 1",
			"token.cooldown.duration: 1 in 1m0s",
		}
		w.requireSeries(t, append(want, "token.gets error.type=429: 1")...)
		w.fail(t, source) // Gets the same error, without a token request.
		w.requireSeries(t, append(want, "token.gets error.type=429: 2")...)
	})
}

func TestCooldownThatIsOver(t *testing.T) {
	tel := newTelemetry()
	tel.observer(t).Cooldown(event.Cooldown{Failures: 1, Until: time.Now().Add(-time.Hour)})
	tel.requireSeries(t, "token.cooldown.duration: 1 in 0s")
}

func TestConfigTokenReportsRetriesOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Script(clientcredentialstest.Unavailable())
		_, err := w.conf.Token(t.Context())
		require.NoError(t, err)
		w.requireSeries(t, "token.retries error.type=temporarily_unavailable: 1")
		require.Empty(t, w.spans.Started())
	})
}

func TestInvalidations(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.conf.Source(t.Context())
		for n := range 3 {
			token, err := source.Token()
			require.NoError(t, err)
			if n == 2 {
				source.Reject(token)
				break
			}
			source.Invalidate(token)
			source.Invalidate(token)
		}
		synctest.Wait()
		w.conf.Observer.Invalidated(event.Invalidated{Reason: event.CertificateReplaced})
		require.ElementsMatch(t, []string{
			"token.invalidations token.invalidation.reason=revoked: 2",
			"token.invalidations token.invalidation.reason=rejected: 1",
			"token.invalidations token.invalidation.reason=certificate_replaced: 1",
		}, w.series(t, "token.invalidations"))
	})
}

// A redirect to another origin is followed without the token. A request that starts
// there is refused.
func TestOriginRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		mux := http.NewServeMux()
		mux.Handle("api.example/", http.RedirectHandler("https://elsewhere.example/", http.StatusFound))
		mux.Handle("elsewhere.example/", http.NotFoundHandler())
		w.conf.Origins = []string{"https://api.example"}
		transport := w.conf.Transport(t.Context())
		transport.Base = clientcredentialstest.HandlerTransport(mux)
		client := &http.Client{Transport: transport}
		resp, err := client.Get("https://api.example/")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		_, err = client.Get("https://elsewhere.example/")
		require.Error(t, err)
		require.ElementsMatch(t, []string{
			"origin.refusals origin.outcome=sent_without_token: 1",
			"origin.refusals origin.outcome=request_refused: 1",
		}, w.series(t, "origin.refusals"))
	})
}

// Two replicas share a token, and then lose their store.
func TestFleet(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const key = "a key that is 32 bytes or longer"
		keyring, err := clientcredentials.NewKeyring([]byte(key))
		require.NoError(t, err)
		store := new(storetest.Store)
		w.conf.Store = clientcredentials.Seal(store, keyring)
		w.auth.Latency = 2 * time.Second
		other := newTelemetry()
		conf := *w.conf
		conf.Observer = other.observer(t)
		source, second := w.conf.Source(t.Context()), conf.Source(t.Context())

		var wg sync.WaitGroup
		wg.Go(func() { _, _ = source.Token() })
		time.Sleep(time.Second)
		wg.Go(func() { _, _ = second.Token() })
		wg.Wait()
		synctest.Wait()
		renewal := func(line string) bool { return strings.Contains(line, "store.operation=renew") } // Depends on timing.
		require.ElementsMatch(t, []string{
			"token.gets token.source=server token.state=fresh: 1",
			"token.wait.duration token.source=server: 1 in 2s",
			"token.requests token.request.background=false: 1",
			"token.request.duration token.source=server: 1 in 2s",
			"store.operation.duration store.operation=acquire store.outcome=lead: 1 in 0s",
			"store.operation.duration store.operation=publish: 1 in 0s",
		}, slices.DeleteFunc(w.series(t, ""), renewal))
		const request, wait = "token.request.duration token.source=store", "store.operation.duration store.operation=acquire store.outcome=wait"
		took, waits := other.value(t, request), other.value(t, wait)
		other.requireSeries(t,
			"token.gets token.source=store token.state=fresh: 1",
			"token.wait.duration token.source=store: "+took,
			"token.requests token.request.background=false: 1",
			request+": "+took,
			"store.lease.wait.duration: "+took,
			wait+": "+waits, // As often as it asked for the token.
			"store.operation.duration store.operation=acquire store.outcome=hit: 1 in 0s",
		)

		fault := storetest.Unavailable()
		store.SetFault(&fault)
		time.Sleep(2 * time.Hour)
		w.get(t, source)
		require.Contains(t, w.series(t, ""), "store.operation.duration store.operation=acquire error.type=_OTHER: 1 in 0s")
		require.Contains(t, w.series(t, ""), "token.request.duration token.source=server: 2 in 4s")
		store.SetFault(&storetest.Fault{Delay: time.Hour})
		time.Sleep(2 * time.Hour)
		w.get(t, source)
		require.Contains(t, w.series(t, ""), "store.operation.duration store.operation=acquire error.type=timeout: 1 in 250ms")
	})
}

func TestStoreOperations(t *testing.T) {
	tel := newTelemetry()
	observer := tel.observer(t)
	const ms = time.Millisecond
	for _, info := range []event.StoreOperation{
		{Operation: event.Acquire, State: tokenstore.ClaimWait, Duration: 2 * ms},
		{Operation: event.Acquire, State: tokenstore.ClaimWait, Duration: 3 * ms},
		{Operation: event.Acquire, State: tokenstore.ClaimHit, Duration: ms},
		{Operation: event.Acquire, Duration: 250 * ms, Err: fmt.Errorf("slow: %w", context.DeadlineExceeded)},
		{Operation: event.Publish, Duration: 4 * ms},
		{Operation: event.Publish, Duration: 5 * ms, Err: fmt.Errorf("late: %w", tokenstore.ErrLeaseLost)},
		{Operation: event.Invalidate, Duration: 6 * ms, Err: errors.New("OOM command not allowed")},
	} {
		observer.StoreOperation(info)
	}
	observer.RefreshDone(event.RefreshDone{Duration: 2 * time.Second, From: event.FromStore, LeaseWait: 1500 * ms})
	observer.RefreshDone(event.RefreshDone{Duration: 7 * ms, From: event.FromStore})
	observer.TokenServed(event.TokenServed{From: event.FromStore, Waited: 7 * ms})
	tel.requireSeries(t,
		"store.operation.duration store.operation=acquire store.outcome=wait: 2 in 5ms",
		"store.operation.duration store.operation=acquire store.outcome=hit: 1 in 1ms",
		"store.operation.duration store.operation=acquire error.type=timeout: 1 in 250ms",
		"store.operation.duration store.operation=publish: 1 in 4ms",
		"store.operation.duration store.operation=publish store.outcome=lease_lost: 1 in 5ms",
		"store.operation.duration store.operation=invalidate error.type=_OTHER: 1 in 6ms",
		"store.lease.wait.duration: 1 in 1.5s",
		"token.request.duration token.source=store: 2 in 2.007s",
		"token.gets token.source=store token.state=fresh: 1",
		"token.wait.duration token.source=store: 1 in 7ms",
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

func TestSeveralObservers(t *testing.T) {
	tel := newTelemetry()
	for _, name := range []string{"billing", "reports", "reports"} {
		tel.observer(t, attribute.String("clientcredentials.name", name)).RefreshStarted(event.RefreshStarted{})
	}
	tel.requireSeries(t,
		"token.requests name=billing token.request.background=false: 1",
		"token.requests name=reports token.request.background=false: 2",
	)
}

// The span of a token request is a child of the span that the Source was made in, and
// not of the caller's span.
func TestParentOfTheSpan(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		tracer := w.traces.Tracer("test")
		ctx, start := tracer.Start(t.Context(), "start")
		source := w.conf.Source(ctx)
		start.End()
		ctx, call := tracer.Start(t.Context(), "call")
		_, err := source.TokenContext(ctx)
		require.NoError(t, err)
		call.End()
		synctest.Wait()
		ended := w.spans.Ended()
		at := slices.IndexFunc(ended, func(span sdktrace.ReadOnlySpan) bool { return span.Name() == "request token" })
		require.GreaterOrEqual(t, at, 0, "the token request has no span")
		require.Equal(t, start.SpanContext(), ended[at].Parent())
	})
}

func TestJoined(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		other := newTelemetry()
		w.conf.Observer = clientcredentials.JoinObservers(w.conf.Observer, other.observer(t))
		w.get(t, w.conf.Source(t.Context()))
		require.NotEmpty(t, w.series(t, ""))
		other.requireSeries(t, w.series(t, "")...)
		require.Len(t, w.spans.Ended(), 1)
		require.Len(t, other.spans.Ended(), 1)
		require.Equal(t, w.spans.Ended()[0].SpanContext(), other.spans.Ended()[0].Parent())
	})
}

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

func providers() map[string]metric.MeterProvider {
	return map[string]metric.MeterProvider{"no-op": noop.NewMeterProvider(), "SDK": newTelemetry().meters, "global": otel.GetMeterProvider()}
}

// A token from memory is served for every API request.
func TestServingAllocatesNothing(t *testing.T) {
	for name, provider := range providers() {
		for attributes, option := range map[string]Option{
			"without attributes": WithAttributes(),
			"with attributes":    WithAttributes(attribute.String("clientcredentials.name", "billing"), attribute.Int("n", 1)),
		} {
			t.Run(name+" "+attributes, func(t *testing.T) {
				observer, err := NewObserver(WithMeterProvider(provider), option)
				require.NoError(t, err)
				for _, info := range []event.TokenServed{{}, {Stale: true, Waited: time.Microsecond}} {
					require.Zero(t, testing.AllocsPerRun(1000, func() { observer.TokenServed(info) }), info)
				}
			})
		}
	}
}

// A later version of the core may have more sources of tokens.
func TestTokenServedByALaterCore(t *testing.T) {
	tel := newTelemetry()
	observer := tel.observer(t)
	for _, info := range []event.TokenServed{{From: event.FromServer + 1}, {From: -1}, {From: event.FromServer + 1, Stale: true}} {
		observer.TokenServed(info)
	}
	require.ElementsMatch(t, []string{
		"token.gets token.source=TokenFrom(3) token.state=fresh: 1",
		"token.gets token.source=TokenFrom(-1) token.state=fresh: 1",
		"token.gets token.source=TokenFrom(3) token.state=stale: 1",
	}, tel.series(t, "token.gets"))
}

func BenchmarkTokenServed(b *testing.B) {
	for name, provider := range providers() {
		b.Run(name, func(b *testing.B) {
			observer, err := NewObserver(WithMeterProvider(provider))
			require.NoError(b, err)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					observer.TokenServed(event.TokenServed{})
				}
			})
		})
	}
}

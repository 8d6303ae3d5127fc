package otelclientcredentials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
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

// telemetry is what an SDK without exporters to elsewhere has got.
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

// metrics returns what is collected now.
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

// A point is one series: its attributes, and what there is to say of its value.
type point struct {
	attributes attribute.Set
	text       string
}

func points(m metricdata.Metrics) (list []point) {
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			list = append(list, point{p.Attributes, strconv.FormatInt(p.Value, 10)})
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

// values is what all instruments say, by name, and by attributes.
type values map[string]map[string]string

func (tel *telemetry) values(t *testing.T) values {
	t.Helper()
	all := values{}
	for _, m := range tel.metrics(t) {
		series := map[string]string{}
		for _, p := range points(m) {
			series[p.attributes.Encoded(attribute.DefaultEncoder())] = p.text
		}
		if len(series) > 0 {
			all[m.Name] = series
		}
	}
	return all
}

// A world is a client and its authorization server, in a bubble of synctest.
type world struct {
	*telemetry
	auth *clientcredentialstest.AuthorizationServer
	conf *clientcredentials.Config
}

func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			telemetry: newTelemetry(),
			auth: &clientcredentialstest.AuthorizationServer{
				Clients: []clientcredentialstest.Client{{ID: clientcredentialstest.ClientID, Secret: clientcredentialstest.ClientSecret}},
			},
		}
		w.conf = &clientcredentials.Config{
			ClientID:     clientcredentialstest.ClientID,
			ClientSecret: clientcredentialstest.ClientSecret,
			AuthStyle:    oauth2.AuthStyleInHeader,
			TokenURL:     "https://auth.example/token",
			HTTPClient:   &http.Client{Transport: clientcredentialstest.HandlerTransport(w.auth)},
			Observer:     w.observer(t),
		}
		f(t, w)
		require.Empty(t, w.auth.Violations())
	})
}

func (w *world) get(t *testing.T, source *clientcredentials.Source) {
	t.Helper()
	_, err := source.TokenContext(t.Context())
	require.NoError(t, err)
	synctest.Wait() // A token request tells of itself after its callers have left.
}

func TestLifeOfAToken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.conf.Source(t.Context())
		require.Empty(t, w.values(t))
		require.Empty(t, w.spans.Started())

		w.auth.Latency = 3 * time.Second
		w.get(t, source)
		w.get(t, source)
		w.get(t, source)
		want := values{
			"clientcredentials.token.gets": {
				"clientcredentials.token.source=server,clientcredentials.token.state=fresh": "1",
				"clientcredentials.token.source=memory,clientcredentials.token.state=fresh": "2",
			},
			"clientcredentials.token.wait.duration":    {"clientcredentials.token.source=server": "1 in 3s"},
			"clientcredentials.token.requests":         {"clientcredentials.token.request.background=false": "1"},
			"clientcredentials.token.request.duration": {"clientcredentials.token.source=server": "1 in 3s"},
		}
		require.Equal(t, want, w.values(t))

		time.Sleep(57 * time.Minute)
		w.get(t, source) // Due for its replacement.
		time.Sleep(3 * time.Second)
		synctest.Wait()
		want["clientcredentials.token.gets"]["clientcredentials.token.source=memory,clientcredentials.token.state=stale"] = "1"
		want["clientcredentials.token.requests"]["clientcredentials.token.request.background=true"] = "1"
		want["clientcredentials.token.request.duration"]["clientcredentials.token.source=server"] = "2 in 6s"
		require.Equal(t, want, w.values(t))

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

// TestCallerThatLeaves doesn't wait for the token request to end, which does well.
func TestCallerThatLeaves(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Latency = 3 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := w.conf.Source(t.Context()).TokenContext(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, values{
			"clientcredentials.token.gets":             {"error.type=timeout": "1"},
			"clientcredentials.token.wait.duration":    {"error.type=timeout": "1 in 1s"},
			"clientcredentials.token.requests":         {"clientcredentials.token.request.background=false": "1"},
			"clientcredentials.token.request.duration": {"clientcredentials.token.source=server": "1 in 3s"},
		}, w.values(t))
	})
}

// TestWaitForAReplacement has a caller wait a second for a new token, in vain.
func TestWaitForAReplacement(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.conf.Source(t.Context())
		w.get(t, source)
		before := w.values(t)["clientcredentials.token.wait.duration"]
		require.Equal(t, map[string]string{"clientcredentials.token.source=server": "1 in 0s"}, before)
		time.Sleep(time.Hour - 8*time.Second)
		w.auth.Latency = 5 * time.Second
		w.get(t, source)
		require.Equal(t, map[string]string{
			"clientcredentials.token.source=server": "1 in 0s",
			"clientcredentials.token.source=memory": "1 in 1s",
		}, w.values(t)["clientcredentials.token.wait.duration"])
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
		_, err := source.Token()
		require.Error(t, err)
		took := time.Since(start)
		synctest.Wait()
		got := w.values(t)
		require.Equal(t, values{
			"clientcredentials.token.gets":          {"error.type=429": "1"},
			"clientcredentials.token.wait.duration": {"error.type=429": fmt.Sprint("1 in ", took)},
			"clientcredentials.token.requests":      {"clientcredentials.token.request.background=false": "1"},
			"clientcredentials.token.request.duration": {
				"error.type=429": fmt.Sprint("1 in ", took),
			},
			"clientcredentials.token.retries": {
				"error.type=temporarily_unavailable": "1",
				"error.type=connection":              "1",
			},
			"clientcredentials.token.cooldown.duration": {"": "1 in 1m0s"},
		}, got)

		_, err = source.Token() // Gets the same error, and is no request.
		require.Error(t, err)
		synctest.Wait()
		got["clientcredentials.token.gets"]["error.type=429"] = "2"
		require.Equal(t, got, w.values(t))
	})
}

func TestCooldownThatIsOver(t *testing.T) {
	tel := newTelemetry()
	tel.observer(t).Cooldown(event.Cooldown{Failures: 1, Until: time.Now().Add(-time.Hour)})
	require.Equal(t, map[string]string{"": "1 in 0s"}, tel.values(t)["clientcredentials.token.cooldown.duration"])
}

func TestConfigTokenTellsOfRetriesOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Script(clientcredentialstest.Unavailable())
		_, err := w.conf.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, values{"clientcredentials.token.retries": {"error.type=temporarily_unavailable": "1"}}, w.values(t))
		require.Empty(t, w.spans.Started())
	})
}

func TestInvalidations(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.conf.Source(t.Context())
		for range 2 {
			token, err := source.Token()
			require.NoError(t, err)
			source.Invalidate(token)
			source.Invalidate(token)
		}
		token, err := source.Token()
		require.NoError(t, err)
		source.Reject(token)
		synctest.Wait()
		w.conf.Observer.Invalidated(event.Invalidated{Reason: event.CertificateReplaced})
		require.Equal(t, map[string]string{
			"clientcredentials.token.invalidation.reason=revoked":              "2",
			"clientcredentials.token.invalidation.reason=rejected":             "1",
			"clientcredentials.token.invalidation.reason=certificate_replaced": "1",
		}, w.values(t)["clientcredentials.token.invalidations"])
	})
}

func TestOriginRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		mux := http.NewServeMux()
		mux.Handle("api.example/", http.RedirectHandler("https://elsewhere.example/", http.StatusFound))
		mux.Handle("elsewhere.example/", http.NotFoundHandler())
		transport := w.conf.Transport(t.Context())
		transport.Base = clientcredentialstest.HandlerTransport(mux)
		resp, err := (&http.Client{Transport: transport}).Get("https://api.example/")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, map[string]string{"": "1"}, w.values(t)["clientcredentials.origin.refusals"])
	})
}

// TestFleet has two replicas that share a token, and then lose their store.
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
		got := w.values(t)
		delete(got["clientcredentials.store.operation.duration"], "clientcredentials.store.operation=renew") // Or there was no need.
		require.Equal(t, values{
			"clientcredentials.token.gets":             {"clientcredentials.token.source=server,clientcredentials.token.state=fresh": "1"},
			"clientcredentials.token.wait.duration":    {"clientcredentials.token.source=server": "1 in 2s"},
			"clientcredentials.token.requests":         {"clientcredentials.token.request.background=false": "1"},
			"clientcredentials.token.request.duration": {"clientcredentials.token.source=server": "1 in 2s"},
			"clientcredentials.store.operation.duration": {
				"clientcredentials.store.operation=acquire,clientcredentials.store.outcome=lead": "1 in 0s",
				"clientcredentials.store.operation=publish":                                      "1 in 0s",
			},
		}, got)
		got = other.values(t)
		require.Equal(t, []string{"clientcredentials.token.source=store,clientcredentials.token.state=fresh"}, slices.Collect(maps.Keys(got["clientcredentials.token.gets"])))
		require.Equal(t, []string{"clientcredentials.token.source=store"}, slices.Collect(maps.Keys(got["clientcredentials.token.request.duration"])))
		require.Equal(t, got["clientcredentials.token.request.duration"]["clientcredentials.token.source=store"], got["clientcredentials.store.lease.wait.duration"][""])
		require.ElementsMatch(t, []string{
			"clientcredentials.store.operation=acquire,clientcredentials.store.outcome=wait",
			"clientcredentials.store.operation=acquire,clientcredentials.store.outcome=hit",
		}, slices.Collect(maps.Keys(got["clientcredentials.store.operation.duration"])))

		fault := storetest.Unavailable()
		store.SetFault(&fault)
		time.Sleep(2 * time.Hour)
		w.get(t, source)
		require.Equal(t, "1 in 0s", w.values(t)["clientcredentials.store.operation.duration"]["clientcredentials.store.operation=acquire,error.type=_OTHER"])
		require.Equal(t, "2 in 4s", w.values(t)["clientcredentials.token.request.duration"]["clientcredentials.token.source=server"])
		store.SetFault(&storetest.Fault{Delay: time.Hour})
		time.Sleep(2 * time.Hour)
		w.get(t, source)
		require.Contains(t, w.values(t)["clientcredentials.store.operation.duration"], "clientcredentials.store.operation=acquire,error.type=timeout")
	})
}

func TestStoreOperations(t *testing.T) {
	tel := newTelemetry()
	observer := tel.observer(t)
	const ms = time.Millisecond
	for _, info := range []event.StoreOperation{
		{Operation: "acquire", State: tokenstore.ClaimWait, Duration: 2 * ms},
		{Operation: "acquire", State: tokenstore.ClaimWait, Duration: 3 * ms},
		{Operation: "acquire", State: tokenstore.ClaimHit, Duration: ms},
		{Operation: "acquire", Duration: 250 * ms, Err: fmt.Errorf("slow: %w", context.DeadlineExceeded)},
		{Operation: "publish", Duration: 4 * ms},
		{Operation: "publish", Duration: 5 * ms, Err: fmt.Errorf("late: %w", tokenstore.ErrLeaseLost)},
		{Operation: "invalidate", Duration: 6 * ms, Err: errors.New("OOM command not allowed")},
	} {
		observer.StoreOperation(info)
	}
	observer.RefreshDone(event.RefreshDone{Duration: 2 * time.Second, From: event.FromStore, LeaseWait: 1500 * ms})
	observer.RefreshDone(event.RefreshDone{Duration: 7 * ms, From: event.FromStore})
	observer.TokenServed(event.TokenServed{From: event.FromStore, Waited: 7 * ms})
	require.Equal(t, values{
		"clientcredentials.store.operation.duration": {
			"clientcredentials.store.operation=acquire,clientcredentials.store.outcome=wait":       "2 in 5ms",
			"clientcredentials.store.operation=acquire,clientcredentials.store.outcome=hit":        "1 in 1ms",
			"clientcredentials.store.operation=acquire,error.type=timeout":                         "1 in 250ms",
			"clientcredentials.store.operation=publish":                                            "1 in 4ms",
			"clientcredentials.store.operation=publish,clientcredentials.store.outcome=lease_lost": "1 in 5ms",
			"clientcredentials.store.operation=invalidate,error.type=_OTHER":                       "1 in 6ms",
		},
		"clientcredentials.store.lease.wait.duration": {"": "1 in 1.5s"},
		"clientcredentials.token.request.duration":    {"clientcredentials.token.source=store": "2 in 2.007s"},
		"clientcredentials.token.gets":                {"clientcredentials.token.source=store,clientcredentials.token.state=fresh": "1"},
		"clientcredentials.token.wait.duration":       {"clientcredentials.token.source=store": "1 in 7ms"},
	}, tel.values(t))
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
	for _, m := range tel.metrics(t) {
		list := points(m)
		require.NotEmpty(t, list, m.Name)
		for _, p := range list {
			require.Contains(t, p.attributes.ToSlice(), name, m.Name)
			if p.attributes.HasValue(stateKey) {
				value, _ := p.attributes.Value(sourceKey)
				require.NotEqual(t, "mine", value.AsString(), "ours wins")
			}
		}
	}
	spans := tel.spans.Ended()
	require.NotEmpty(t, spans)
	for _, span := range spans {
		set := attribute.NewSet(span.Attributes()...)
		require.Contains(t, set.ToSlice(), name)
		value, _ := set.Value("error.type")
		require.Equal(t, span.Status().Code != codes.Error, value.AsString() == "mine", "ours wins")
	}
}

func TestSeveralObservers(t *testing.T) {
	tel := newTelemetry()
	for _, name := range []string{"billing", "reports", "reports"} {
		tel.observer(t, attribute.String("clientcredentials.name", name)).RefreshStarted(event.RefreshStarted{})
	}
	require.Equal(t, map[string]string{
		"clientcredentials.name=billing,clientcredentials.token.request.background=false": "1",
		"clientcredentials.name=reports,clientcredentials.token.request.background=false": "2",
	}, tel.values(t)["clientcredentials.token.requests"])
}

// TestSpanOfTheSourcesContext is about whose child a token request is: not the
// caller's.
func TestSpanOfTheSourcesContext(t *testing.T) {
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
		for _, span := range w.spans.Ended() {
			if span.Name() == "request token" {
				require.Equal(t, start.SpanContext(), span.Parent())
				return
			}
		}
		require.Fail(t, "there is no span of the token request")
	})
}

func TestJoined(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		other := newTelemetry()
		w.conf.Observer = clientcredentials.JoinObservers(w.conf.Observer, other.observer(t))
		w.get(t, w.conf.Source(t.Context()))
		require.NotEmpty(t, w.values(t))
		require.Equal(t, w.values(t), other.values(t))
		require.Len(t, w.spans.Ended(), 1)
		require.Len(t, other.spans.Ended(), 1)
		require.Equal(t, w.spans.Ended()[0].SpanContext(), other.spans.Ended()[0].Parent())
	})
}

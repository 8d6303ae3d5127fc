package otelclientcredentials_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/otelclientcredentials"
)

func Example() {
	server := clientcredentialstest.NewServer() // In place of your authorization server and API.
	defer server.Close()
	reader := sdkmetric.NewManualReader() // In place of your exporter.
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))

	observer, err := otelclientcredentials.NewObserver(
		otelclientcredentials.WithMeterProvider(provider),
		otelclientcredentials.WithAttributes(attribute.String("clientcredentials.name", "billing")),
	)
	if err != nil {
		log.Fatal(err)
	}
	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		Observer:     observer,
	}
	client := conf.Client(context.Background())
	for range 3 {
		resp, err := client.Get(server.APIURL)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}

	for _, m := range collect(reader) {
		if m.Name != "clientcredentials.token.gets" {
			continue
		}
		fmt.Println(m.Description)
		for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
			name, _ := point.Attributes.Value("clientcredentials.name")
			source, _ := point.Attributes.Value("clientcredentials.token.source")
			fmt.Printf("%s, from %s: %d\n", name.AsString(), source.AsString(), point.Value)
		}
	}
	// Unordered output:
	// How often callers asked for a token.
	// billing, from server: 1
	// billing, from memory: 2
}

// The span of the token request is the parent of the spans that otelhttp makes for its
// attempts.
func Example_spans() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	spans := make(exporter, 10) // In place of your exporter.
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))

	observer, err := otelclientcredentials.NewObserver(otelclientcredentials.WithTracerProvider(provider))
	if err != nil {
		log.Fatal(err)
	}
	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		HTTPClient: &http.Client{
			Transport: otelhttp.NewTransport(http.DefaultTransport, otelhttp.WithTracerProvider(provider)),
		},
		Observer: observer,
	}
	server.Auth.Script(clientcredentialstest.Unavailable()) // The first attempt fails.
	if _, err := conf.Source(context.Background()).Token(); err != nil {
		log.Fatal(err)
	}

	first, second, request := <-spans, <-spans, <-spans
	fmt.Printf("%s (%v)\n", request.Name(), request.SpanKind())
	for _, span := range []sdktrace.ReadOnlySpan{first, second} {
		if span.Parent().SpanID() == request.SpanContext().SpanID() {
			fmt.Printf("    %s (%v), %v\n", span.Name(), span.SpanKind(), span.Status().Code)
		}
	}
	// Output:
	// request token (internal)
	//     HTTP POST (client), Error
	//     HTTP POST (client), Unset
}

func ExampleRegisterSource() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	source := conf.Source(context.Background())
	client := &http.Client{Transport: &clientcredentials.Transport{Source: source}}
	registration, err := otelclientcredentials.RegisterSource(source, otelclientcredentials.WithMeterProvider(provider))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = registration.Unregister() }() // When the client is no longer used.

	resp, err := client.Get(server.APIURL)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()

	for _, m := range collect(reader) {
		seconds := m.Data.(metricdata.Gauge[float64]).DataPoints[0].Value
		fmt.Println(m.Name, time.Duration(seconds*float64(time.Second)).Round(time.Minute))
	}
	// Output: clientcredentials.token.remaining 1h0m0s
}

// To log as well, join the Observer with another one.
func Example_logs() {
	observer, err := otelclientcredentials.NewObserver()
	if err != nil {
		log.Fatal(err)
	}
	conf := &clientcredentials.Config{
		Observer: clientcredentials.JoinObservers(observer, clientcredentials.SlogObserver(slog.Default())),
	}
	fmt.Println(conf.Observer.Insecure != nil)
	// Output: true
}

// An exporter sends each span to a channel when it ends.
type exporter chan sdktrace.ReadOnlySpan

func (e exporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, span := range spans {
		e <- span
	}
	return nil
}

func (exporter) Shutdown(context.Context) error { return nil }

// collect returns the metrics of this package.
func collect(reader *sdkmetric.ManualReader) []metricdata.Metrics {
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		log.Fatal(err)
	}
	for _, scope := range collected.ScopeMetrics {
		if scope.Scope.Name == otelclientcredentials.ScopeName {
			return scope.Metrics
		}
	}
	return nil
}

package main

import (
	"encoding/json"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/seed-5bfa0880/clientcredentials"
)

// health is what /healthz answers. It contains nothing secret, and no text of a server.
type health struct {
	Status   string        `json:"status"` // ok or failing
	Settings string        `json:"settings_error,omitempty"`
	Store    string        `json:"store,omitempty"` // ok or failing, as the last call went; empty: there is none
	Routes   []routeHealth `json:"routes"`
}

type routeHealth struct {
	Route  string `json:"route"`
	Client string `json:"client"`
	State  string `json:"state"` // as Status.State
	Error  string `json:"error,omitempty"`
}

// health returns how the routes are doing, and whether each can serve a request. A route that
// nobody has used yet can.
func (r *routing) health() (h health, healthy bool) {
	h = health{Status: "ok", Store: r.store.health()} // Without the store, each process has its own tokens.
	for _, route := range r.routes {
		s := route.source.Status()
		h.Routes = append(h.Routes, routeHealth{route.name(), route.client, s.State.String(), failureText(s.LastError)})
		if s.State == clientcredentials.Failed {
			h.Status = "failing"
		}
	}
	return h, h.Status == "ok"
}

// newMeters returns a provider of meters, and a handler that reports what they have measured.
func newMeters() (*sdk.MeterProvider, http.Handler, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, nil, err
	}
	return sdk.NewMeterProvider(sdk.WithReader(exporter)), promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), nil
}

// adminHandler returns the handler of the addresses for administration.
func adminHandler(current func() *routing, problem *atomic.Value, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		h, healthy := current().health()
		h.Settings, _ = problem.Load().(string)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(h)
	})
	return mux
}

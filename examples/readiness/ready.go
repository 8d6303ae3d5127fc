package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
)

// patience is how long a probe waits for a token. The orchestrator's own timeout has
// to be longer.
const patience = 500 * time.Millisecond

// Ready returns the handler of a readiness probe: 200 if there is a token, or one is
// to be had, else 503.
//
//   - Fresh, Stale: ready. Should the last attempt to replace the token have failed,
//     that is worth an alert, and no reason to be unready: calls succeed until the token
//     expires. To take the replicas out meanwhile would make an outage of the
//     authorization server one of this service, minutes before there need be any.
//   - Expired: nobody has needed a token for a while, or not yet. That is no failure;
//     but tokens are requested when they are needed, and a service that gets no calls
//     because it isn't ready would never request one. So the probe does.
//   - Failed: the same. During the pause that follows failures the probe gets the last
//     error at once, and no request is made: probes don't add to an outage.
//
// It is for a service that can do nothing without its API. If it can do something,
// leave it ready, and answer 503 where the API is needed. A liveness probe must not ask
// for any of this: a restart cures nothing, and costs the token that is still valid.
func Ready(source *clientcredentials.Source, logger *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusOK
		switch source.Status().State {
		case clientcredentials.Fresh, clientcredentials.Stale:
		case clientcredentials.Expired, clientcredentials.Failed:
			ctx, cancel := context.WithTimeout(r.Context(), patience)
			defer cancel()
			if _, err := source.TokenContext(ctx); err != nil {
				code = http.StatusServiceUnavailable
				logger.Warn("not ready", "error", err) // It holds no secret, but isn't for everybody.
			}
		}
		status := source.Status()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(Answer{
			Token:   status.State.String(),
			Failing: status.LastError != nil,
		})
	})
}

// Answer is what a probe answers, for people and for alerts.
type Answer struct {
	Token   string `json:"token"`   // the state: fresh, stale, expired or failed
	Failing bool   `json:"failing"` // whether the last token request failed
}

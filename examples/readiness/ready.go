package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
)

// patience is how long a probe waits for a token. The orchestrator's own timeout must
// be longer.
const patience = 500 * time.Millisecond

// Ready returns the handler of a readiness probe. It answers 200 if there is a token or
// it can get one, else 503.
//
//   - Fresh, Stale: ready. If the last attempt to replace the token failed, send an alert,
//     but stay ready: calls succeed until the token expires. If all replicas became
//     unready, an outage of the authorization server would be an outage of this service,
//     minutes before it has to be.
//   - Expired: nobody has needed a token for a while, or not yet. That isn't a failure.
//     But a token is requested only when somebody needs it, and a service that isn't
//     ready gets no calls. So the probe requests one.
//   - Failed: the probe requests one here, too. In the pause after failures it gets the
//     last error at once, without a token request. So probes don't make an outage worse.
//
// This is for a service that can do nothing without its API. If yours can do something,
// keep it ready, and answer 503 where the API is needed. A liveness probe must not
// depend on the token: a restart fixes nothing, and loses a token that is still valid.
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
				logger.Warn("not ready", "error", err) // The caller needn't know why.
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

// Answer is the body of the answer to a probe, for people and for alerts.
type Answer struct {
	Token   string `json:"token"`   // the state: fresh, stale, expired or failed
	Failing bool   `json:"failing"` // whether the last token request failed
}

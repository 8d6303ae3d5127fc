package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/reporttest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestRun(t *testing.T) {
	reporttest.Run(t, 6, func(ctx context.Context, out io.Writer) error { return run(ctx, 6*time.Second, out) }, demoSecret)
}

// In a bubble of synctest, the hour that a token lives passes at once.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := &clientcredentialstest.AuthorizationServer{Clients: []clientcredentialstest.Client{{ID: "readiness", Secret: demoSecret}}}
		conf := &clientcredentials.Config{
			ClientID:     "readiness",
			ClientSecret: demoSecret,
			TokenURL:     "https://auth.example/token",
			HTTPClient:   &http.Client{Transport: clientcredentialstest.HandlerTransport(auth)},
		}
		source := conf.Source(t.Context())
		var log strings.Builder
		handler := Ready(source, slog.New(slog.NewTextHandler(&log, nil)))
		probe := func(code int, want Answer) {
			t.Helper()
			w := httptest.NewRecorder()
			start := time.Now()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ready", nil))
			require.LessOrEqual(t, time.Since(start), patience)
			var answer Answer
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
			require.Equal(t, want, answer)
			require.Equal(t, code, w.Code)
		}
		probe(http.StatusOK, Answer{"fresh", false})
		require.Equal(t, 1, auth.TokenRequests())

		// The last token request failed, and the token is valid for another minute.
		down := clientcredentialstest.Unavailable()
		auth.SetFault(&down)
		time.Sleep(59 * time.Minute)
		_, err := source.TokenContext(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		probe(http.StatusOK, Answer{"stale", true})
		require.Empty(t, log.String())

		// The token has expired. The probe doesn't wait for retries.
		time.Sleep(time.Minute)
		probe(http.StatusServiceUnavailable, Answer{"failed", true})
		require.Contains(t, log.String(), "not ready")
		reporttest.RequireNoSecret(t, log.String(), demoSecret)

		// The server hangs. The probe still answers in time.
		auth.SetFault(&clientcredentialstest.Fault{Delay: time.Hour})
		time.Sleep(time.Minute)
		probe(http.StatusServiceUnavailable, Answer{"failed", true})

		// The server is back. Only the probe asks for a token.
		auth.SetFault(nil)
		time.Sleep(2 * time.Minute)
		probe(http.StatusOK, Answer{"fresh", false})
	})
}

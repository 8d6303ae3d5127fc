package otelclientcredentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/event"
)

// dump is all that was exported, as text.
func (tel *telemetry) dump(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, v := range []any{tel.metrics(t), tracetest.SpanStubsFromReadOnlySpans(tel.spans.Ended())} {
		encoded, err := json.MarshalIndent(v, "", " ")
		require.NoError(t, err)
		fmt.Fprintf(&text, "%s\n%+v\n", encoded, v)
	}
	return text.String()
}

// TestCanary searches what was exported for secrets, and for whatever else a server or
// a configuration has put in.
func TestCanary(t *testing.T) {
	canaries := map[string]string{
		"client id":        "IDCanary-3kP",
		"client secret":    "SecretCanary-9xQ",
		"password":         "PasswordCanary-3nM",
		"token":            "TokenCanary-7LmX",
		"scope":            "ScopeCanary-k2S",
		"query":            "QueryCanary-Bc6",
		"host":             "host-canary.example",
		"server's text":    "TextCanary-u5R",
		"transport's text": "TransportCanary-q1W",
		"panic":            "PanicCanary-j8Z",
	}
	answer := func(status int, mediaType, body string) roundTripper {
		return func(req *http.Request) (*http.Response, error) {
			sent, _ := io.ReadAll(req.Body)
			w := httptest.NewRecorder()
			w.Header().Set("Content-Type", mediaType)
			w.Header().Set("X-Echo", req.Header.Get("Authorization"))
			w.WriteHeader(status)
			echo := canaries["server's text"] + req.URL.String() + req.Header.Get("Authorization") + string(sent) + canaries["token"]
			_, _ = w.WriteString(strings.ReplaceAll(body, "ECHO", echo))
			resp := w.Result()
			resp.Request = req
			return resp, nil
		}
	}
	const asJSON = "application/json"
	answers := map[string]roundTripper{
		"token":       answer(200, asJSON, `{"access_token":"`+canaries["token"]+`","token_type":"Bearer","expires_in":3600,"scope":"`+canaries["scope"]+`"}`),
		"page":        answer(200, "text/html", "<p>ECHO"),
		"unavailable": answer(503, "text/html", "<p>ECHO"),
		"refusal":     answer(401, asJSON, `{"error":"invalid_client","error_description":"ECHO"}`),
		"code":        answer(400, asJSON, `{"error":"ECHO","error_description":"ECHO","error_uri":"https://auth.example/ECHO"}`),
		"type":        answer(200, asJSON, `{"access_token":"`+canaries["token"]+`","token_type":"ECHO"}`),
		"media type":  answer(200, "text/"+canaries["token"], "<p>ECHO"),
		"network": func(*http.Request) (*http.Response, error) {
			return nil, errors.New(canaries["transport's text"])
		},
		"panic": func(*http.Request) (*http.Response, error) { panic(canaries["panic"]) },
	}
	for name, transport := range answers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tel := newTelemetry()
				conf := &clientcredentials.Config{
					ClientID:       canaries["client id"],
					ClientSecret:   canaries["client secret"],
					AuthStyle:      oauth2.AuthStyleInHeader,
					TokenURL:       "https://" + canaries["host"] + "/token?tenant=" + canaries["query"],
					Scopes:         []string{canaries["scope"]},
					EndpointParams: url.Values{"password": {canaries["password"]}},
					HTTPClient:     &http.Client{Transport: transport},
					Observer:       tel.observer(t, attribute.String("clientcredentials.name", "VisibleCanary")),
				}
				source := conf.Source(t.Context())
				_, err := RegisterSource(source, tel.options(attribute.String("clientcredentials.name", "VisibleCanary"))...)
				require.NoError(t, err)
				for range 7 {
					token, err := source.Token()
					require.Equal(t, name == "token", err == nil)
					source.Invalidate(token)
				}
				conf.Observer.OriginRefused(event.OriginRefused{Origin: "https://" + canaries["host"]})
				conf.Observer.StoreOperation(event.StoreOperation{Operation: "acquire", Err: errors.New(canaries["transport's text"])})
				synctest.Wait()
				require.Len(t, tel.spans.Ended(), len(tel.spans.Started()))
				text := tel.dump(t)
				require.Greater(t, strings.Count(text, "VisibleCanary"), 8, "the search finds nothing at all")
				require.Contains(t, text, "request token")
				for what, canary := range canaries {
					require.NotContains(t, text, canary, what)
				}
			})
		})
	}
}

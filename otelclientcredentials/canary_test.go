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

	"github.com/seed-5bfa0880/clientcredentials/event"
)

// dump returns everything that was exported, as text.
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

// This searches everything that was exported for secrets, and for anything else that a
// server or the configuration contains.
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
	// ECHO in a body is replaced by what the client sent, and by canaries.
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
	visible := attribute.String("clientcredentials.name", "VisibleCanary")
	for name, transport := range map[string]roundTripper{
		"token":      answer(200, asJSON, `{"access_token":"`+canaries["token"]+`","token_type":"Bearer","expires_in":3600,"scope":"`+canaries["scope"]+`"}`),
		"page":       answer(200, "text/html", "<p>ECHO"),
		"refusal":    answer(401, asJSON, `{"error":"invalid_client","error_description":"ECHO"}`),
		"code":       answer(400, asJSON, `{"error":"ECHO","error_description":"ECHO","error_uri":"https://auth.example/ECHO"}`),
		"type":       answer(200, asJSON, `{"access_token":"`+canaries["token"]+`","token_type":"\u0000ECHO"}`),
		"media type": answer(200, "text/"+canaries["token"], "<p>ECHO"),
		"network":    func(*http.Request) (*http.Response, error) { return nil, errors.New(canaries["transport's text"]) },
		"panic":      func(*http.Request) (*http.Response, error) { panic(canaries["panic"]) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.conf.ClientID, w.conf.ClientSecret = canaries["client id"], canaries["client secret"]
				w.conf.TokenURL = "https://" + canaries["host"] + "/token?tenant=" + canaries["query"]
				w.conf.Scopes = []string{canaries["scope"]}
				w.conf.EndpointParams = url.Values{"password": {canaries["password"]}}
				w.conf.HTTPClient = &http.Client{Transport: transport}
				source, _ := w.register(t, visible)
				for range 7 {
					token, err := source.Token()
					require.Equal(t, name == "token", err == nil)
					source.Invalidate(token)
				}
				w.conf.Observer.OriginRefused(event.OriginRefused{Origin: "https://" + canaries["host"]})
				w.conf.Observer.StoreOperation(event.StoreOperation{Operation: event.Acquire, Err: errors.New(canaries["transport's text"])})
				synctest.Wait()
				require.Len(t, w.spans.Ended(), len(w.spans.Started()))
				text := w.dump(t)
				require.Greater(t, strings.Count(text, "VisibleCanary"), 8, "the search doesn't even find what must be there")
				require.Contains(t, text, "request token")
				for what, canary := range canaries {
					require.NotContains(t, text, canary, what)
				}
			}, visible)
		})
	}
}

package otelclientcredentials

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
)

// requireFailure checks what was reported of one token request that failed.
func (tel *telemetry) requireFailure(t *testing.T, errorType string, status int) {
	t.Helper()
	require.Equal(t, []string{"token.gets error.type=" + errorType + ": 1"}, tel.series(t, "token.gets"))
	durations := tel.series(t, "token.request.duration")
	require.Len(t, durations, 1)
	require.Contains(t, durations[0], " error.type="+errorType+": ")

	spans := tel.spans.Ended()
	require.Len(t, spans, 1)
	require.Equal(t, codes.Error, spans[0].Status().Code)
	require.Empty(t, spans[0].Status().Description)
	require.Empty(t, spans[0].Events())
	want := []attribute.KeyValue{attribute.String("error.type", errorType)}
	if status != 0 {
		want = append(want, attribute.Int("http.response.status_code", status))
	}
	require.Equal(t, want, spans[0].Attributes())
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A token request fails because of the server, the network or the program itself.
func TestErrorTypeOfATokenRequest(t *testing.T) {
	const page = "<p>"
	fault := func(fault clientcredentialstest.Fault) func(*world) {
		return func(w *world) { w.auth.SetFault(&fault) }
	}
	answer := func(status int, body string) func(*world) {
		return fault(clientcredentialstest.Fault{Status: status, Body: body})
	}
	transport := func(f roundTripper) func(*world) {
		return func(w *world) { w.conf.HTTPClient = &http.Client{Transport: f} }
	}
	for name, row := range map[string]struct {
		prepare   func(*world)
		errorType string
		status    int
	}{
		"invalid_client":       {fault(clientcredentialstest.InvalidClient()), "invalid_client", 401},
		"unknown code":         {answer(400, `{"error":"made_up"}`), "400", 400},
		"unknown code and 200": {answer(0, `{"error":"made_up"}`), "_OTHER", 200},
		"unknown status":       {answer(499, page), "_OTHER", 499},
		"page with 503":        {answer(503, page), "503", 503},
		"page of a proxy":      {answer(520, page), "temporarily_unavailable", 520},
		"slow down":            {answer(400, `{"error":"slow_down"}`), "slow_down", 400},
		"redirect":             {fault(clientcredentialstest.Fault{Status: 302, Header: http.Header{"Location": {"https://elsewhere.example/"}}}), "302", 302},
		"no token":             {answer(0, `{}`), "invalid_response", 200},
		"reset":                {fault(clientcredentialstest.ConnectionReset()), "connection", 0},
		"cut off":              {fault(clientcredentialstest.Fault{CloseAfter: 5}), "connection", 0},
		"slow":                 {fault(clientcredentialstest.Fault{Delay: time.Hour}), "timeout", 0},
		"slower and slower":    {fault(clientcredentialstest.Fault{Drip: time.Minute}), "timeout", 0},
		"panic":                {transport(func(*http.Request) (*http.Response, error) { panic("at the wrong moment") }), "_OTHER", 0},
		"no answer":            {transport(func(*http.Request) (*http.Response, error) { return nil, errors.New("breaker is open") }), "connection", 0},
		"unknown host": {transport(func(*http.Request) (*http.Response, error) {
			return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
		}), "dns", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.conf.Retry.MaxAttempts = 1
				row.prepare(w)
				w.fail(t, w.conf.Source(t.Context()))
				w.requireFailure(t, row.errorType, row.status)
			})
		})
	}
}

// Some errors need a real network.
func TestErrorTypeOverSockets(t *testing.T) {
	for name, row := range map[string]struct {
		errorType string
		server    func(*httptest.Server)              // starts the server
		client    func(*httptest.Server, *tls.Config) // changes the client, which trusts the server
	}{
		"refused":           {"connection", func(s *httptest.Server) { s.Start(); s.Close() }, nil},
		"unknown authority": {"tls", (*httptest.Server).StartTLS, func(_ *httptest.Server, c *tls.Config) { c.RootCAs = nil }},
		"no common version": {
			"tls", func(s *httptest.Server) { s.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}; s.StartTLS() },
			func(_ *httptest.Server, c *tls.Config) { c.MinVersion = tls.VersionTLS13 },
		},
		"https to an http port": {
			"tls", (*httptest.Server).Start,
			func(s *httptest.Server, _ *tls.Config) { s.URL = strings.Replace(s.URL, "http:", "https:", 1) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.Config.ErrorLog = log.New(io.Discard, "", 0) // It would log the errors that this test provokes.
			row.server(server)
			defer server.Close()
			client := server.Client()
			defer client.CloseIdleConnections()
			if row.client != nil {
				row.client(server, client.Transport.(*http.Transport).TLSClientConfig)
			}
			w := newWorld(t)
			w.conf.TokenURL, w.conf.HTTPClient, w.conf.Retry.MaxAttempts = server.URL, client, 1
			_, err := w.conf.Source(t.Context()).Token()
			require.Equal(t, row.errorType, errorType(err), "%v", err)
		})
	}
}

func TestErrorType(t *testing.T) {
	inURL := func(err error) error { return &url.Error{Op: "Post", URL: "https://auth.example/token", Err: err} }
	for name, row := range map[string]struct {
		err       error
		errorType string
	}{
		"unknown":                 {errors.New("no idea"), "_OTHER"},
		"code in upper case":      {&oauth2.RetrieveError{ErrorCode: "Invalid_Grant"}, "_OTHER"},
		"wrapped refusal":         {fmt.Errorf("cannot: %w", &oauth2.RetrieveError{Response: &http.Response{StatusCode: 502}}), "502"},
		"refusal, then a timeout": {errors.Join(context.DeadlineExceeded, &oauth2.RetrieveError{ErrorCode: "invalid_scope"}), "invalid_scope"},
		"informational status":    {&oauth2.RetrieveError{Response: &http.Response{StatusCode: 100}}, "_OTHER"},
		"slow name server":        {inURL(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), "dns"},
		"deadline of a file":      {os.ErrDeadlineExceeded, "timeout"},
		"TLS handshake timeout":   {inURL(timeoutError{}), "timeout"},
		"canceled":                {inURL(context.Canceled), "canceled"},
		"TLS record":              {inURL(tls.RecordHeaderError{Msg: "not TLS"}), "tls"},
		"damaged TLS record":      {inURL(&net.OpError{Op: "local error", Err: errors.New("tls: bad record MAC")}), "tls"},
		"reset of a store":        {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "connection"},
		"file":                    {&os.PathError{Op: "open", Path: "key.pem", Err: syscall.ENOENT}, "_OTHER"},
		"end of the stream":       {io.EOF, "connection"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.errorType, errorType(row.err))
			require.Contains(t, errorTypes(), row.errorType)
		})
	}
}

type timeoutError struct{}

func (timeoutError) Error() string { return "net/http: TLS handshake timeout" }
func (timeoutError) Timeout() bool { return true }

// errorTypes returns every value that error.type may have.
func errorTypes() []string {
	all := append([]string{typeInvalidResponse, typeTimeout, typeCanceled, typeDNS, typeTLS, typeConnection, typeOther}, oauthErrors...)
	for status := 300; status < 600; status++ {
		if http.StatusText(status) != "" {
			all = append(all, strconv.Itoa(status))
		}
	}
	slices.Sort(all)
	return all
}

// A server that answers differently each time must not make the number of series grow.
func TestCardinality(t *testing.T) {
	tel := newTelemetry()
	observer := tel.observer(t)
	for n := range 1000 {
		text := strconv.Itoa(rand.Int())
		for _, err := range []error{
			errors.New(text),
			&url.Error{Op: text, URL: text, Err: &net.OpError{Op: text, Net: text}},
			syscall.Errno(n),
			&clientcredentials.ResponseError{StatusCode: n, MediaType: text, Err: errors.New(text)},
			&oauth2.RetrieveError{Response: &http.Response{StatusCode: n}, ErrorCode: oauthErrors[n%len(oauthErrors)] + text},
		} {
			observer.TokenFailed(event.TokenFailed{Waited: time.Second, Err: err})
			observer.RefreshFailed(event.RefreshFailed{Err: err})
			observer.Retry(event.Retry{Err: err})
			observer.StoreOperation(event.StoreOperation{Operation: event.Acquire, Err: err})
		}
		observer.OriginRefused(event.OriginRefused{Origin: text})
		observer.RefreshDone(event.RefreshDone{Duration: time.Duration(n), Attempts: n, Life: time.Duration(n), From: event.FromServer})
		observer.Cooldown(event.Cooldown{Failures: n, Until: time.Now().Add(time.Duration(n))})
	}
	known := errorTypes()
	require.Less(t, len(known), 100)
	for _, m := range tel.metrics(t) {
		require.LessOrEqual(t, len(points(m)), len(known)+1, m.Name)
		for _, p := range points(m) {
			if value, ok := p.attributes.Value("error.type"); ok {
				require.Contains(t, known, value.AsString(), m.Name)
			}
		}
	}
	require.Len(t, tel.series(t, "origin.refusals"), 1)
}

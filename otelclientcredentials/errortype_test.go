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
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
)

// requireFailure checks what was told of one token request that failed.
func (tel *telemetry) requireFailure(t *testing.T, errorType string, status int) {
	t.Helper()
	durations := tel.values(t)["clientcredentials.token.request.duration"]
	require.Len(t, durations, 1)
	require.Contains(t, durations, "error.type="+errorType)
	require.Equal(t, map[string]string{"error.type=" + errorType: "1"}, tel.values(t)["clientcredentials.token.gets"])

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

func TestErrorTypeOfFaults(t *testing.T) {
	const page = "<p>"
	for name, row := range map[string]struct {
		fault     clientcredentialstest.Fault
		errorType string
		status    int
	}{
		"invalid_client":       {clientcredentialstest.InvalidClient(), "invalid_client", 401},
		"unavailable":          {clientcredentialstest.Unavailable(), "temporarily_unavailable", 503},
		"too many requests":    {clientcredentialstest.TooManyRequests(time.Second), "temporarily_unavailable", 429},
		"server error":         {clientcredentialstest.Fault{Status: 500}, "server_error", 500},
		"invalid_scope":        {clientcredentialstest.Fault{Status: 400, Body: `{"error":"invalid_scope"}`}, "invalid_scope", 400},
		"invalid_target":       {clientcredentialstest.Fault{Status: 400, Body: `{"error":"invalid_target"}`}, "invalid_target", 400},
		"code with status 200": {clientcredentialstest.Fault{Body: `{"error":"access_denied"}`}, "access_denied", 200},
		"unknown code":         {clientcredentialstest.Fault{Status: 400, Body: `{"error":"made_up"}`}, "400", 400},
		"unknown code and 200": {clientcredentialstest.Fault{Body: `{"error":"made_up"}`}, "_OTHER", 200},
		"unknown status":       {clientcredentialstest.Fault{Status: 499, Body: page}, "_OTHER", 499},
		"page with 503":        {clientcredentialstest.Fault{Status: 503, Body: page}, "503", 503},
		"page with 404":        {clientcredentialstest.Fault{Status: 404, Body: page}, "404", 404},
		"redirect":             {clientcredentialstest.Fault{Status: 302, Header: http.Header{"Location": {"https://elsewhere.example/"}}}, "302", 302},
		"page with 200":        {clientcredentialstest.Fault{Body: page}, "invalid_response", 200},
		"no token":             {clientcredentialstest.Fault{Body: `{}`}, "invalid_response", 200},
		"reset":                {clientcredentialstest.ConnectionReset(), "connection", 0},
		"cut":                  {clientcredentialstest.Fault{CloseAfter: 5}, "connection", 0},
		"slow":                 {clientcredentialstest.Fault{Delay: time.Hour}, "timeout", 0},
		"slower and slower":    {clientcredentialstest.Fault{Drip: time.Minute}, "timeout", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.conf.Retry.MaxAttempts = 1
				w.auth.SetFault(&row.fault)
				_, err := w.conf.Source(t.Context()).Token()
				require.Error(t, err)
				synctest.Wait()
				w.requireFailure(t, row.errorType, row.status)
			})
		})
	}
}

func TestErrorTypeOfTheContext(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Latency = 5 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := w.conf.Source(ctx).Token()
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		w.requireFailure(t, "canceled", 0)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestErrorTypeOfTheProgram(t *testing.T) {
	for name, row := range map[string]struct {
		auth      authFunc
		transport roundTripper
		errorType string
	}{
		"panic":     {nil, func(*http.Request) (*http.Response, error) { panic("at the wrong moment") }, "_OTHER"},
		"no key":    {func() error { _, err := os.Open("/nowhere/key.pem"); return err }, nil, "_OTHER"},
		"no answer": {nil, func(*http.Request) (*http.Response, error) { return nil, errors.New("breaker is open") }, "connection"},
		"no such API": {nil, func(*http.Request) (*http.Response, error) {
			return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
		}, "dns"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.conf.Retry.MaxAttempts = 1
				if row.auth != nil {
					w.conf.ClientAuth = row.auth
				}
				if row.transport != nil {
					w.conf.HTTPClient = &http.Client{Transport: row.transport}
				}
				_, err := w.conf.Source(t.Context()).Token()
				require.Error(t, err)
				synctest.Wait()
				w.requireFailure(t, row.errorType, 0)
			})
		})
	}
}

type authFunc func() error

func (f authFunc) Authenticate(context.Context, *clientcredentials.Attempt) error { return f() }

func (authFunc) Method() string { return "private_key_jwt" }

// TestErrorTypeOverSockets has what there is on a network only.
func TestErrorTypeOverSockets(t *testing.T) {
	secure := func(t *testing.T, change func(*tls.Config)) *httptest.Server {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.TLS = new(tls.Config)
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // It logs what the tests want.
		change(server.TLS)
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	for name, row := range map[string]struct {
		server    func(t *testing.T) (address string, client *http.Client)
		errorType string
	}{
		"refused": {func(t *testing.T) (string, *http.Client) {
			server := httptest.NewServer(http.NotFoundHandler())
			server.Close()
			return server.URL, server.Client()
		}, "connection"},
		"not HTTP": {func(t *testing.T) (string, *http.Client) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.9\r\n\r\n")
					_ = conn.Close()
				}
			}))
			t.Cleanup(server.Close)
			return server.URL, server.Client()
		}, "connection"},
		"HTTP/2 stream reset": {func(t *testing.T) (string, *http.Client) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
			server.EnableHTTP2 = true
			server.StartTLS()
			t.Cleanup(server.Close)
			return server.URL, server.Client()
		}, "connection"},
		"certificate of an unknown authority": {func(t *testing.T) (string, *http.Client) {
			server := secure(t, func(*tls.Config) {})
			return server.URL, &http.Client{Transport: new(http.Transport)}
		}, "tls"},
		"certificate of another host": {func(t *testing.T) (string, *http.Client) {
			server := secure(t, func(*tls.Config) {})
			client := server.Client()
			client.Transport.(*http.Transport).TLSClientConfig.ServerName = "other.example"
			return server.URL, client
		}, "tls"},
		"no client certificate": {func(t *testing.T) (string, *http.Client) {
			server := secure(t, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
			return server.URL, server.Client()
		}, "tls"},
		"no common version": {func(t *testing.T) (string, *http.Client) {
			server := secure(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
			client := server.Client()
			client.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS13
			return server.URL, client
		}, "tls"},
		"https to an http port": {func(t *testing.T) (string, *http.Client) {
			server := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(server.Close)
			return strings.Replace(server.URL, "http:", "https:", 1), server.Client()
		}, "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			tel := newTelemetry()
			address, client := row.server(t)
			defer client.CloseIdleConnections()
			ended := make(chan error, 1)
			conf := clientcredentials.Config{
				ClientID:     "id",
				ClientSecret: "secret",
				AuthStyle:    oauth2.AuthStyleInHeader,
				TokenURL:     address,
				HTTPClient:   client,
				Retry:        clientcredentials.RetryPolicy{MaxAttempts: 1},
				Observer:     clientcredentials.JoinObservers(signal(ended), tel.observer(t)),
			}
			_, err := conf.Source(t.Context()).Token()
			require.Error(t, err)
			require.Error(t, <-ended)
			tel.requireFailure(t, row.errorType, 0)
		})
	}
}

// signal returns an Observer that tells of the end of token requests. In front of
// another, it does so when that knows all of it.
func signal(ended chan<- error) *clientcredentials.Observer {
	return &clientcredentials.Observer{
		TraceRefresh: func(ctx context.Context) (context.Context, func(error)) {
			return ctx, func(err error) { ended <- err }
		},
	}
}

func TestErrorType(t *testing.T) {
	inURL := func(err error) error { return &url.Error{Op: "Post", URL: "https://auth.example/token", Err: err} }
	for name, row := range map[string]struct {
		err       error
		errorType string
	}{
		"nothing":                     {errors.New("no idea"), "_OTHER"},
		"refusal without an answer":   {&oauth2.RetrieveError{}, "_OTHER"},
		"code without an answer":      {&oauth2.RetrieveError{ErrorCode: "invalid_grant"}, "invalid_grant"},
		"code in other letter case":   {&oauth2.RetrieveError{ErrorCode: "Invalid_Grant"}, "_OTHER"},
		"wrapped refusal":             {fmt.Errorf("cannot: %w", &oauth2.RetrieveError{Response: &http.Response{StatusCode: 502}}), "502"},
		"refusal, then a timeout":     {errors.Join(context.DeadlineExceeded, &oauth2.RetrieveError{ErrorCode: "invalid_scope"}), "invalid_scope"},
		"status of informing":         {&oauth2.RetrieveError{Response: &http.Response{StatusCode: 100}}, "_OTHER"},
		"negative status":             {&oauth2.RetrieveError{Response: &http.Response{StatusCode: -1}}, "_OTHER"},
		"answer":                      {&clientcredentials.ResponseError{Err: io.ErrUnexpectedEOF}, "invalid_response"},
		"slow name server":            {inURL(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), "dns"},
		"deadline of a file":          {os.ErrDeadlineExceeded, "timeout"},
		"TLS handshake timeout":       {inURL(timeoutError{}), "timeout"},
		"canceled":                    {inURL(context.Canceled), "canceled"},
		"TLS record":                  {inURL(tls.RecordHeaderError{Msg: "not TLS"}), "tls"},
		"damaged TLS record":          {inURL(&net.OpError{Op: "local error", Err: errors.New("tls: bad record MAC")}), "tls"},
		"reset of a store":            {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "connection"},
		"file":                        {&os.PathError{Op: "open", Path: "key.pem", Err: syscall.ENOENT}, "_OTHER"},
		"end of the stream":           {io.EOF, "connection"},
		"connection refused, quickly": {inURL(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), "connection"},
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

// TestCardinality has a server that answers something else each time.
func TestCardinality(t *testing.T) {
	tel := newTelemetry()
	observer := tel.observer(t)
	for n := range 1000 {
		text := strconv.Itoa(rand.Int())
		status := n
		for _, err := range []error{
			errors.New(text),
			&url.Error{Op: text, URL: text, Err: errors.New(text)},
			&net.DNSError{Name: text, Err: text},
			&net.OpError{Op: text, Net: text},
			syscall.Errno(n),
			&clientcredentials.ResponseError{StatusCode: status, MediaType: text, Err: errors.New(text)},
			&oauth2.RetrieveError{Response: &http.Response{StatusCode: status}, ErrorCode: text, ErrorDescription: text},
			&oauth2.RetrieveError{Response: &http.Response{StatusCode: status}, ErrorCode: oauthErrors[n%len(oauthErrors)] + text},
		} {
			observer.TokenFailed(event.TokenFailed{Waited: time.Second, Err: err})
			observer.RefreshFailed(event.RefreshFailed{Err: err})
			observer.Retry(event.Retry{Err: err})
			observer.StoreOperation(event.StoreOperation{Operation: "acquire", Err: err})
		}
		observer.OriginRefused(event.OriginRefused{Origin: text})
		observer.RefreshDone(event.RefreshDone{Duration: time.Duration(n), Attempts: n, Life: time.Duration(n), From: event.FromServer})
		observer.Cooldown(event.Cooldown{Failures: n, Until: time.Now().Add(time.Duration(n))})
	}
	known := errorTypes()
	require.Less(t, len(known), 100)
	for _, m := range tel.metrics(t) {
		list := points(m)
		require.LessOrEqual(t, len(list), len(known)+1, m.Name)
		for _, p := range list {
			if value, ok := p.attributes.Value("error.type"); ok {
				require.Contains(t, known, value.AsString(), m.Name)
			}
		}
	}
	require.Len(t, tel.values(t)["clientcredentials.origin.refusals"], 1)
}

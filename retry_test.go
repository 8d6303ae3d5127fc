package clientcredentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

func refusalWith(status int, header http.Header) *oauth2.RetrieveError {
	return &oauth2.RetrieveError{Response: &http.Response{StatusCode: status, Header: header}}
}

func TestIsTemporary(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{refusalWith(400, nil), false},
		{refusalWith(401, nil), false},
		{refusalWith(403, nil), false},
		{refusalWith(404, nil), false},
		{refusalWith(408, nil), true},
		{refusalWith(425, nil), true},
		{refusalWith(429, nil), true},
		{refusalWith(500, nil), true},
		{refusalWith(501, nil), false},
		{refusalWith(502, nil), true},
		{refusalWith(503, nil), true},
		{refusalWith(504, nil), true},
		{redirectError(new(http.Response), refusalWith(307, http.Header{"Location": {"https://x.example"}})), false},
		{&ResponseError{StatusCode: 200}, false},
		{&url.Error{Err: syscall.ECONNREFUSED}, true},
		{&url.Error{Err: syscall.ECONNRESET}, true},
		{&url.Error{Err: io.EOF}, true},
		{&url.Error{Err: context.DeadlineExceeded}, true},
		{endedEarly(io.ErrUnexpectedEOF, new(redact.Masker)), true},
		{&url.Error{Err: &net.DNSError{}}, true},
		{&url.Error{Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, false},
		{&url.Error{Err: tls.AlertError(40)}, false},
		{&url.Error{Err: tls.RecordHeaderError{}}, false},
		{&url.Error{Err: http.ErrSchemeMismatch}, false},
		{&url.Error{Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, true},
		{&url.Error{Err: errReentered}, false},
		{endedEarly(errors.New("stream error"), new(redact.Masker)), true},
		{fmt.Errorf("get: %w", refusalWith(503, nil)), true},
		{&waitError{context.DeadlineExceeded}, true},
		{&waitError{context.Canceled}, false},
		{&url.Error{Err: context.Canceled}, false},
		{&constructionError{context.DeadlineExceeded}, false},
		{&authError{"DPoP", io.ErrUnexpectedEOF}, false},
		{errors.New("oauth2: TokenURL is empty"), false},
		{new(oauth2.RetrieveError), false},
		{nil, false},
	} {
		require.Equal(t, test.want, IsTemporary(test.err), "%v", test.err)
	}
}

// What net/http says of an address or a proxy that can't work is no reason to try again.
func TestF28_Misconfigured(t *testing.T) {
	proxy := func(status int, text string) string {
		return strings.TrimSuffix(serveRaw(t, fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, text)).TokenURL, "/token")
	}
	for name, test := range map[string]struct {
		tokenURL string
		proxy    string
		want     bool
	}{
		"unknown scheme":               {"custom://auth.example/token", "", false},
		"port out of range":            {"https://auth.example:99999/token", "", false},
		"no host":                      {"https:///token", "", false},
		"proxy asks for credentials":   {"https://auth.example/token", proxy(407, "Proxy Authentication Required"), false},
		"proxy forbids":                {"https://auth.example/token", proxy(403, "Forbidden"), false},
		"proxy is overloaded":          {"https://auth.example/token", proxy(503, "Service Unavailable"), true},
		"proxy can't reach the server": {"https://auth.example/token", proxy(502, "Bad Gateway"), true},
		"proxy that is down":           {"https://auth.example/token", "http://127.0.0.1:1", true},
	} {
		transport := new(http.Transport)
		if test.proxy != "" {
			transport.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(test.proxy) }
		}
		conf := &Config{TokenURL: test.tokenURL, HTTPClient: &http.Client{Transport: transport}, Retry: RetryPolicy{MaxAttempts: 1}}
		_, err := conf.Token(t.Context())
		require.Error(t, err, name)
		require.Equal(t, test.want, IsTemporary(err), "%s: %v", name, err)
		transport.CloseIdleConnections()
	}
	transport := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return nil, errors.New(`invalid proxy address "%": parse`) }}
	_, err := (&Config{TokenURL: "https://auth.example/token", HTTPClient: &http.Client{Transport: transport}}).Token(t.Context())
	require.False(t, IsTemporary(err), "%v", err)
}

// Whoever asks whether an error was a timeout gets the right answer for our own limits.
func TestF29_TimeoutsAreTimeouts(t *testing.T) {
	hang := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	})}
	stalled := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		body := readerFunc(func([]byte) (int, error) { <-req.Context().Done(); return 0, req.Context().Err() })
		return &http.Response{StatusCode: 200, Body: io.NopCloser(body)}, nil
	})}
	for name, change := range map[string]func(*Config){
		"AttemptTimeout": func(c *Config) { c.Retry = RetryPolicy{AttemptTimeout: time.Second, MaxAttempts: 1} },
		"TotalTimeout":   func(c *Config) { c.Retry.TotalTimeout = time.Second },
		"AttemptTimeout of a body": func(c *Config) {
			c.Retry, c.HTTPClient = RetryPolicy{AttemptTimeout: time.Second, MaxAttempts: 1}, stalled
		},
	} {
		testkit.Synctest(t, func(t *testing.T) {
			conf := &Config{TokenURL: "https://auth.example/token", HTTPClient: hang}
			change(conf)
			_, err := conf.Token(t.Context())
			var network net.Error
			require.ErrorAs(t, err, &network, name)
			require.True(t, network.Timeout(), "%s: %v", name, err)
			for _, client := range []*http.Client{conf.Client(t.Context()), {Transport: conf.Transport(t.Context())}} {
				_, err := client.Get("https://api.example/")
				outer, ok := err.(*url.Error)
				require.True(t, ok)
				require.True(t, outer.Timeout(), "%s: %v", name, err)
				require.True(t, IsTemporary(err), "%s: %v", name, err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err := (&Config{TokenURL: "https://auth.example/token"}).Client(ctx).Get("https://api.example/")
	outer, ok := err.(*url.Error)
	require.True(t, ok)
	require.True(t, outer.Timeout())
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"60":                             time.Minute,
		" 60 ":                           time.Minute,
		"3600":                           time.Hour,
		"3601":                           time.Hour,
		"99999999999999999999999":        time.Hour,
		"-1":                             0,
		"1.5":                            0,
		"soon":                           0,
		"Fri, 02 Jan 2026 03:05:05 GMT":  time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT":  0,
		"Sat, 02 Jan 2027 03:03:05 GMT":  time.Hour,
		"Friday, 02-Jan-26 03:05:05 GMT": time.Minute,
		"Fri Jan  2 03:05:05 2026":       time.Minute,
	} {
		require.Equal(t, want, parseRetryAfter(value, now), value)
	}
	// A date counts by the server's clock, if the answer has one.
	require.Equal(t, time.Minute, retryAfter(refusalWith(503, http.Header{
		"Date":        {"Fri, 02 Jan 2026 13:04:05 GMT"},
		"Retry-After": {"Fri, 02 Jan 2026 13:05:05 GMT"},
	}), now))
	require.Zero(t, retryAfter(io.EOF, now))
}

func TestRetryPolicy(t *testing.T) {
	for _, policy := range []RetryPolicy{{MaxAttempts: -1}, {AttemptTimeout: -1}, {TotalTimeout: -1}} {
		_, err := (&Config{TokenURL: "https://auth.example/token", Retry: policy}).Token(t.Context())
		require.ErrorContains(t, err, "oauth2: a field of Retry is negative")
	}
}

func TestF7_TokenRequestIsTriedAgain(t *testing.T) {
	for _, test := range []struct {
		name     string
		fault    clientcredentialstest.Fault
		times    int // that the fault happens
		policy   RetryPolicy
		requests int
		ok       bool
	}{
		{"503 once", clientcredentialstest.Unavailable(), 1, RetryPolicy{}, 2, true},
		{"503 twice", clientcredentialstest.Unavailable(), 2, RetryPolicy{}, 3, true},
		{"503 thrice", clientcredentialstest.Unavailable(), 3, RetryPolicy{}, 3, false},
		{"503 four times of five", clientcredentialstest.Unavailable(), 4, RetryPolicy{MaxAttempts: 5}, 5, true},
		{"503 with one attempt", clientcredentialstest.Unavailable(), 1, RetryPolicy{MaxAttempts: 1}, 1, false},
		{"F7 reset", clientcredentialstest.ConnectionReset(), 2, RetryPolicy{}, 3, true},
		{"cut", clientcredentialstest.Fault{CloseAfter: 10}, 2, RetryPolicy{}, 3, true},
		{"hangs", clientcredentialstest.Fault{Delay: time.Hour}, 2, RetryPolicy{}, 3, true},
		{"401", clientcredentialstest.InvalidClient(), 1, RetryPolicy{}, 1, false},
		{"400", clientcredentialstest.Fault{Status: 400}, 1, RetryPolicy{}, 1, false},
		{"HTML", clientcredentialstest.Fault{Body: "<html>"}, 1, RetryPolicy{}, 1, false},
		{"Retry-After of 5 seconds", clientcredentialstest.TooManyRequests(5 * time.Second), 2, RetryPolicy{}, 3, true},
		{"Retry-After beyond the total", clientcredentialstest.TooManyRequests(time.Minute), 1, RetryPolicy{}, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, kind := range sourceKinds {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					w.conf.Retry = test.policy
					for range test.times {
						w.auth.Script(test.fault)
					}
					_, err := w.sources()[kind].Token()
					require.Equal(t, test.ok, err == nil, "%v", err)
					requests := w.auth.Requests()
					require.Len(t, requests, test.requests)
					for i := 1; i < len(requests); i++ {
						gap := requests[i].Time.Sub(requests[i-1].Time)
						if test.fault.Delay > 0 {
							gap -= defaultAttemptTimeout
						}
						least := minRetryDelay
						if test.fault.Header.Get("Retry-After") != "" {
							least = 5 * time.Second
						}
						require.GreaterOrEqual(t, gap, least)
						require.LessOrEqual(t, gap, max(maxRetryDelay, least))
					}
					time.Sleep(2 * time.Hour) // Until the server has answered the requests that hang.
				})
			}
		})
	}
}

func TestProbeAndRetry(t *testing.T) {
	for _, test := range []struct {
		statuses []int
		styles   []string
	}{
		{[]int{401, 200}, []string{"basic", "post"}},
		{[]int{503, 200}, []string{"basic", "basic"}},
		{[]int{503, 401, 200}, []string{"basic", "basic", "post"}},
		{[]int{401, 503, 200}, []string{"basic", "post", "post"}},
		{[]int{500, 500, 500, 500}, []string{"basic", "post", "post", "post"}},
		{[]int{503, 503, 503}, []string{"basic", "basic", "basic"}},
		{[]int{503, 503, 401, 200}, []string{"basic", "basic", "basic", "post"}},
	} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			w.conf.AuthStyle = oauth2.AuthStyleAutoDetect
			for _, status := range test.statuses {
				fault := clientcredentialstest.Fault{}
				if status != 200 {
					fault.Status = status
				}
				w.auth.Script(fault)
			}
			_, err := w.conf.Source(w.ctx).Token()
			require.Equal(t, test.statuses[len(test.statuses)-1] == 200, err == nil)
			var styles []string
			for _, request := range w.auth.Requests() {
				styles = append(styles, request.AuthMethod[len("client_secret_"):])
			}
			require.Equal(t, test.styles, styles)
		})
	}
}

func TestBackgroundRefreshTriesOnceUnlessSomebodyWaits(t *testing.T) {
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		w.outage(clientcredentialstest.Fault{Delay: 5 * time.Second, Status: 503})
		time.Sleep(49 * time.Second)
		promptly(t, s)
		time.Sleep(6 * time.Second)
		require.Equal(t, 2, w.auth.TokenRequests())

		time.Sleep(3 * time.Second) // After 58 seconds a flight starts in the background, and outlives the token.
		promptly(t, s)
		time.Sleep(2500 * time.Millisecond)
		w.auth.SetFault(nil)
		tokenFrom(t, s) // Waits for that flight, and for its retry.
		require.Equal(t, 4, w.auth.TokenRequests())
	})
}

// F24: oauth2.Transport asks its Source without a context, but the way back can be seen
// before anything is sent.
func TestF24_ThroughTokenSource(t *testing.T) {
	for name, source := range map[string]func(*Config, context.Context) oauth2.TokenSource{
		"TokenSource": func(c *Config, ctx context.Context) oauth2.TokenSource { return c.TokenSource(ctx) },
		"Source":      func(c *Config, ctx context.Context) oauth2.TokenSource { return c.Source(ctx) },
		"with a margin": func(c *Config, ctx context.Context) oauth2.TokenSource {
			return oauth2.ReuseTokenSourceWithExpiry(nil, c.TokenSource(ctx), time.Minute)
		},
		"in a shell": func(c *Config, ctx context.Context) oauth2.TokenSource {
			return oauth2.ReuseTokenSource(&oauth2.Token{}, c.Source(ctx))
		},
	} {
		for wrapping, wrap := range map[string]func(http.RoundTripper) http.RoundTripper{
			"bare":         func(rt http.RoundTripper) http.RoundTripper { return rt },
			"instrumented": func(rt http.RoundTripper) http.RoundTripper { return wrapper{rt} },
			"below another": func(rt http.RoundTripper) http.RoundTripper {
				return &oauth2.Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{}), Base: rt}
			},
			"below our own": func(rt http.RoundTripper) http.RoundTripper {
				return &Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{}), Base: rt}
			},
		} {
			client := new(http.Client)
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, client)
			conf := &Config{ClientID: "id", TokenURL: "https://auth.example/token"}
			client.Transport = wrap(&oauth2.Transport{Source: source(conf, ctx), Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
				t.Error("nothing is to be sent")
				return nil, io.EOF
			})})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example", http.NoBody)
			require.NoError(t, err)
			_, err = client.Do(req)
			require.ErrorIs(t, err, errReentered, "%s, %s", name, wrapping)
		}
	}
}

// A client that gets its tokens from another Source is not a way back.
func TestTokenRequestThroughAnotherClient(t *testing.T) {
	endpoint := newTokenEndpoint(reply{body: `{"access_token":"a"}`})
	outer := endpoint.config()
	inner := endpoint.config()
	inner.HTTPClient = &http.Client{Transport: &oauth2.Transport{Source: outer.TokenSource(t.Context()), Base: endpoint}}
	_, err := inner.TokenSource(t.Context()).Token()
	require.NoError(t, err)
	require.Len(t, endpoint.received(), 2)
}

// A caller that has left wants no other attempt, and the Observer isn't told of one.
func TestNoRetryAfterTheEndOfTheContext(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	requests := 0
	conf := &Config{
		ClientID: "client", ClientSecret: "secret", TokenURL: "https://auth.example/token",
		Observer: noRetries(t),
		HTTPClient: &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
			requests++
			leave()
			return nil, errors.New("reset")
		})},
	}
	_, err := conf.Token(ctx)
	require.Error(t, err)
	require.Equal(t, 1, requests)
}

// noRetries returns an Observer that fails the test if a token request is tried again.
func noRetries(t *testing.T) *Observer {
	return &Observer{Retry: func(info event.Retry) { t.Error("tried again after", info.Err) }}
}

// Neither of these servers will behave differently in a second.
func TestPermanentTLSErrorsAreNotTriedAgain(t *testing.T) {
	plain := clientcredentialstest.Start(t)
	wantsCertificate := httptest.NewUnstartedServer(http.NotFoundHandler())
	wantsCertificate.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	wantsCertificate.Config.ErrorLog = log.New(io.Discard, "", 0)
	wantsCertificate.StartTLS()
	defer wantsCertificate.Close()

	conf := &Config{ClientID: "id", ClientSecret: "secret", TokenURL: strings.Replace(plain.TokenURL, "http:", "https:", 1), Observer: noRetries(t)}
	err := errorFrom(t, conf.Source(t.Context()))
	require.ErrorIs(t, err, http.ErrSchemeMismatch)
	require.False(t, IsTemporary(err))

	conf = &Config{TokenURL: wantsCertificate.URL, HTTPClient: wantsCertificate.Client(), AuthStyle: oauth2.AuthStyleInHeader, Observer: noRetries(t)}
	err = errorFrom(t, conf.Source(t.Context()))
	require.ErrorContains(t, err, "certificate required")
	require.False(t, IsTemporary(err))
}

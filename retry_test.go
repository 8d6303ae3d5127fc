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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
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
		{refusalWith(425, nil), false},
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
		{fmt.Errorf("%w: %w", errEndedEarly, io.ErrUnexpectedEOF), true},
		{&url.Error{Err: &net.DNSError{}}, true},
		{&url.Error{Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, false},
		{&url.Error{Err: tls.AlertError(40)}, false},
		{&url.Error{Err: tls.RecordHeaderError{}}, false},
		{&url.Error{Err: http.ErrSchemeMismatch}, false},
		{&url.Error{Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, true},
		{&url.Error{Err: errReentered}, false},
		{fmt.Errorf("%w: %w", errEndedEarly, errors.New("stream error")), true},
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
	// By the server's clock, if it tells.
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
			for _, call := range []func(w *world) (*oauth2.Token, error){
				func(w *world) (*oauth2.Token, error) { return w.conf.Source(w.ctx).Token() },
				func(w *world) (*oauth2.Token, error) { return w.conf.Token(w.ctx) },
			} {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					w.conf.Retry = test.policy
					for range test.times {
						w.auth.Script(test.fault)
					}
					_, err := call(w)
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
					time.Sleep(2 * time.Hour) // The server's hanging requests end.
				})
			}
		})
	}
}

func TestRetriesEndWithTheTotalTimeout(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.conf.Retry = RetryPolicy{MaxAttempts: 100, TotalTimeout: 20 * time.Second}
		fault := clientcredentialstest.Unavailable()
		w.auth.SetFault(&fault)
		for _, call := range []func() (*oauth2.Token, error){
			w.conf.Source(w.ctx).Token,
			func() (*oauth2.Token, error) { return w.conf.Token(w.ctx) },
		} {
			start := time.Now()
			_, err := call()
			require.Error(t, err)
			require.LessOrEqual(t, time.Since(start), 20*time.Second)
			require.GreaterOrEqual(t, time.Since(start), 18*time.Second)
		}
		require.Less(t, w.auth.TokenRequests(), 2*20*10)
	})
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

func TestF2_OneFailureForAll(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.conf.AuthStyle = oauth2.AuthStyleAutoDetect
		w.conf.ClientSecret = "wrong"
		w.auth.Latency = time.Millisecond
		s := w.conf.Source(w.ctx)
		var wg sync.WaitGroup
		var first atomic.Value
		for range 1000 {
			wg.Go(func() {
				_, err := s.Token()
				require.Error(t, err)
				first.CompareAndSwap(nil, err)
				require.Same(t, first.Load(), err)
			})
		}
		wg.Wait()
		require.LessOrEqual(t, w.auth.TokenRequests(), 2)
	})
}

func TestCallersThatRacedWithTheFailureShareIt(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		w.auth.Latency = time.Second
		w.auth.Script(clientcredentialstest.InvalidClient())
		called := time.Now()
		_, err := s.Token()
		require.Error(t, err)
		_, f, err2 := s.board(t.Context(), called, 0) // Called then, and got to the lock now.
		require.Nil(t, f)
		require.Same(t, err, err2)
		promptlyAfter(t, s, time.Second) // Who calls now gets another try.
	})
}

func promptlyAfter(t *testing.T, s *Source, wait time.Duration) {
	t.Helper()
	start := time.Now()
	_, err := s.Token()
	require.NoError(t, err)
	require.Equal(t, wait, time.Since(start))
}

func TestF3_RetryAfterHoldsAllCallers(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		fault := clientcredentialstest.TooManyRequests(time.Minute)
		w.auth.SetFault(&fault)
		s := w.conf.Source(w.ctx)
		for start := time.Now(); time.Since(start) < 5*time.Minute; time.Sleep(6 * time.Second) {
			before := time.Now()
			_, err := s.Token()
			var refusal *oauth2.RetrieveError
			require.ErrorAs(t, err, &refusal)
			require.Zero(t, time.Since(before), "the last error is there at once")
			require.Equal(t, Failed, s.Status().State)
			require.Positive(t, time.Until(s.Status().NextRefresh))
		}
		require.Equal(t, 5, w.auth.TokenRequests())
	})
}

func TestRetryAfterHoldsBackgroundRefresh(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		fault := clientcredentialstest.TooManyRequests(time.Minute)
		w.auth.SetFault(&fault)
		time.Sleep(57 * time.Minute)
		for start := time.Now(); time.Since(start) < 170*time.Second; time.Sleep(time.Second) {
			promptly(t, s)
		}
		require.Equal(t, 1+3, w.auth.TokenRequests())
	})
}

func TestCooldownAfterABurst(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		fault := clientcredentialstest.InvalidClient()
		w.auth.SetFault(&fault)
		s := w.conf.Source(w.ctx)
		start := time.Now()
		var last error
		for i := range 100 {
			_, err := s.Token()
			require.Error(t, err)
			if i >= cooldownFree {
				require.Same(t, last, err)
			}
			last = err
		}
		require.Equal(t, cooldownFree, w.auth.TokenRequests())
		require.Zero(t, time.Since(start))
		for time.Since(start) < 10*time.Minute {
			time.Sleep(10 * time.Millisecond)
			_, err := s.Token()
			require.Error(t, err)
		}
		requests := w.auth.Requests()[cooldownFree-1:]
		for i := 1; i < len(requests); i++ {
			delay := min(time.Second<<(i-1), 30*time.Second)
			gap := requests[i].Time.Sub(requests[i-1].Time)
			require.GreaterOrEqual(t, gap, delay*3/4)
			require.LessOrEqual(t, gap, delay+20*time.Millisecond)
		}
		require.Greater(t, len(requests), 15)

		// Success ends it, and the burst is there again.
		w.auth.SetFault(nil)
		time.Sleep(time.Minute)
		token := promptly(t, s)
		w.auth.SetFault(&fault)
		s.Invalidate(token)
		before := w.auth.TokenRequests()
		for range 100 {
			_, err := s.Token()
			require.Error(t, err)
		}
		require.Equal(t, before+cooldownFree, w.auth.TokenRequests())
	})
}

func TestChangedCredentialsEndTheCooldown(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"ClientSecret":   func(c *Config) { c.ClientSecret = "another" },
		"ClientID":       func(c *Config) { c.ClientID = "other" },
		"TokenURL":       func(c *Config) { c.TokenURL = "https://auth.example/v2/token" },
		"AuthStyle":      func(c *Config) { c.AuthStyle = oauth2.AuthStyleInParams },
		"Scopes":         func(c *Config) { c.Scopes = []string{"x"} },
		"EndpointParams": func(c *Config) { c.EndpointParams = url.Values{"audience": {"x"}} },
	} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			fault := clientcredentialstest.InvalidClient()
			w.auth.SetFault(&fault)
			s := w.conf.Source(w.ctx)
			for range 100 {
				_, err := s.Token()
				require.Error(t, err)
			}
			require.Equal(t, cooldownFree, w.auth.TokenRequests())
			change(w.conf)
			_, err := s.Token()
			require.Error(t, err)
			require.Equal(t, cooldownFree+1, w.auth.TokenRequests(), name)
		})
	}
}

func TestBackgroundRefreshTriesOnceUnlessSomebodyWaits(t *testing.T) {
	bubble(t, time.Minute, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		w.auth.SetFault(&clientcredentialstest.Fault{Delay: 5 * time.Second, Status: 503})
		time.Sleep(49 * time.Second)
		promptly(t, s)
		time.Sleep(6 * time.Second)
		require.Equal(t, 2, w.auth.TokenRequests())

		time.Sleep(3 * time.Second) // 58 s: a background flight that outlives the token.
		promptly(t, s)
		time.Sleep(2500 * time.Millisecond)
		w.auth.SetFault(nil)
		_, err := s.Token() // Waits for that flight, and for its retry.
		require.NoError(t, err)
		require.Equal(t, 4, w.auth.TokenRequests())
	})
}

func TestDeafRoundTripperCannotHoldTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls atomic.Int32
		answers, _ := answering(t.Context(), `{"access_token":"t"}`)
		inner, _ := contextClient(answers)
		conf := &Config{TokenURL: "https://auth.example/token", HTTPClient: &http.Client{
			Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if calls.Add(1) == 1 {
					<-release // Whatever req.Context says.
				}
				return inner.Transport.RoundTrip(req)
			}),
		}}
		s := conf.Source(t.Context())
		start := time.Now()
		_, err := s.Token()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, defaultTotalTimeout, time.Since(start))
		token := promptly(t, s)
		close(release)
		synctest.Wait()
		require.Equal(t, token, promptly(t, s))
	})
}

func TestF9_TokenRequestThroughTheClientThatNeedsTheToken(t *testing.T) {
	for _, kind := range []string{"Client", "Transport"} {
		bubble(t, time.Hour, func(t *testing.T, w *world) {
			client := new(http.Client)
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, client)
			client.Transport = map[string]http.RoundTripper{
				"Client":    w.conf.Client(ctx).Transport,
				"Transport": w.conf.Transport(ctx),
			}[kind]
			start := time.Now()
			_, err := client.Get(worldAPI)
			require.ErrorIs(t, err, errReentered, kind)
			require.Zero(t, time.Since(start))
		})
	}
}

// F24: oauth2.Transport asks its Source without a context, but the way back can be seen before
// anything is sent.
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
			"twice":        func(rt http.RoundTripper) http.RoundTripper { return &wrapper{wrapper{rt}} },
			"below another": func(rt http.RoundTripper) http.RoundTripper {
				return &oauth2.Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{}), Base: rt}
			},
			"below our own": func(rt http.RoundTripper) http.RoundTripper {
				return &Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{}), Base: rt}
			},
			"through a client": func(rt http.RoundTripper) http.RoundTripper { return (&http.Client{Transport: rt}).Transport },
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

// TestRetryAfterAResetHTTP2Stream: both the first and the fresh connection speak
// HTTP/2 to a server that offers it.
func TestRetryAfterAResetHTTP2Stream(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 2 {
			panic(http.ErrAbortHandler) // RST_STREAM
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"t","expires_in":3600}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, transport := range []*http.Transport{
		{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true},
		{TLSClientConfig: &tls.Config{RootCAs: roots}},
	} {
		requests.Store(0)
		conf := &Config{TokenURL: server.URL + "/token", AuthStyle: oauth2.AuthStyleInParams, HTTPClient: &http.Client{Transport: transport}}
		for range 2 {
			_, err := conf.Token(t.Context())
			require.NoError(t, err)
		}
		require.EqualValues(t, 3, requests.Load())
		transport.CloseIdleConnections()
	}
}

// The API answers 401.

func TestF11_RequestWithoutAToken(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		// The Base of Client's Transport, used by itself, sends no token at all, and
		// not for the asking.
		calls := 0
		hostile := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			calls++
			require.Empty(t, req.Header.Get("Authorization"))
			return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, Body: http.NoBody}, nil
		})}
		w.conf.HTTPClient, _ = contextClient(w.ctx)
		base := w.conf.Client(context.WithValue(t.Context(), oauth2.HTTPClient, hostile)).Transport.(*oauth2.Transport).Base
		_, err := w.get(t, &http.Client{Transport: base})
		require.NoError(t, err)
		require.Equal(t, 1, calls)
		require.Zero(t, w.auth.TokenRequests())
	})
}

func TestF11_UnauthorizedWithoutEnd(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		reader, writer := io.Pipe()
		defer writer.Close()
		calls := 0
		tr := w.conf.Transport(w.ctx)
		tr.Base = roundTripFunc(func(*http.Request) (*http.Response, error) {
			if calls++; calls == 2 {
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}
			return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, ContentLength: -1, Body: reader}, nil
		})
		resp, err := (&http.Client{Transport: tr}).Get(worldAPI)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		_, err = writer.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe, "the first answer is left open")
	})
}

func TestF11_RevokedTokenIsReplaced(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		for name, client := range w.clients() {
			_, err := w.get(t, client)
			require.NoError(t, err)
			before := w.auth.TokenRequests()
			w.auth.RevokeAll()
			w.auth.Latency = time.Second
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					resp, err := w.get(t, client)
					require.NoError(t, err, name)
					require.Equal(t, 200, resp.StatusCode, name)
				})
			}
			wg.Wait()
			require.Equal(t, before+1, w.auth.TokenRequests(), name)
			w.auth.Latency = 0
		}
	})
}

func TestF11_Replay(t *testing.T) {
	for _, test := range []struct {
		name      string
		challenge string
		body      string // "", "GetBody", "stream"
		drops     bool   // the token
		replays   bool
	}{
		{"no body", `Bearer error="invalid_token"`, "", true, true},
		{"GetBody", `Bearer error="invalid_token"`, "GetBody", true, true},
		{"stream", `Bearer error="invalid_token"`, "stream", true, false},
		{"no code", `Bearer realm="x"`, "", true, false},
		{"no challenge", ``, "", true, false},
		{"another scheme", `Basic realm="x"`, "", true, false},
		{"insufficient_scope", `Bearer error="insufficient_scope"`, "", false, false},
		{"invalid_request", `Bearer error="invalid_request"`, "", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				for name := range w.clients() {
					var bodies []string
					var firstBody closeCounter
					endless := new(zeros)
					base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
						body := ""
						if req.Body != nil {
							data, _ := io.ReadAll(req.Body)
							req.Body.Close()
							body = string(data)
						}
						bodies = append(bodies, body+" "+req.Header.Get("Authorization"))
						resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}
						if len(bodies) == 1 {
							firstBody = closeCounter{Reader: io.LimitReader(endless, 1<<30)}
							resp = &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {test.challenge}}, Body: &firstBody}
						}
						return resp, nil
					})
					conf := *w.conf
					conf.HTTPClient, _ = contextClient(w.ctx)
					ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: base})
					client := map[string]*http.Client{"Client": conf.Client(ctx), "Transport": {Transport: conf.Transport(ctx)}}[name]
					before := w.auth.TokenRequests()

					var reqBody io.Reader
					switch test.body {
					case "GetBody":
						reqBody = strings.NewReader("data")
					case "stream":
						reqBody = io.MultiReader(strings.NewReader("data"))
					}
					req, err := http.NewRequestWithContext(t.Context(), "PUT", worldAPI, reqBody)
					require.NoError(t, err)
					resp, err := client.Do(req)
					require.NoError(t, err)
					if test.replays {
						require.Equal(t, 200, resp.StatusCode)
						require.Len(t, bodies, 2)
						require.NotEqual(t, bodies[0], bodies[1], "the same token")
						require.Equal(t, bodies[0][:1], bodies[1][:1], "another body")
						require.EqualValues(t, 1, firstBody.closed.Load())
						require.Positive(t, endless.read)
						require.LessOrEqual(t, endless.read, 2*maxDrain)
						require.Equal(t, before+2, w.auth.TokenRequests())
						resp.Body.Close()
						continue
					}
					require.Equal(t, 401, resp.StatusCode)
					require.Len(t, bodies, 1)
					require.Zero(t, firstBody.closed.Load(), "the caller has not read it yet")
					resp.Body.Close()
					resp, err = client.Get(worldAPI)
					require.NoError(t, err)
					resp.Body.Close()
					want := before + 1
					if test.drops {
						want++
					}
					require.Equal(t, want, w.auth.TokenRequests())
				}
			})
		})
	}
}

func TestF11_ServerThatKeepsIssuingTheSameToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, requests := answering(t.Context(), `{"access_token":"same"}`)
		conf := &Config{TokenURL: "https://auth.example/token"}
		conf.HTTPClient, _ = contextClient(ctx)
		calls := 0
		tr := &Transport{Source: conf.Source(t.Context()), Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
			calls++
			return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, Body: http.NoBody}, nil
		})}
		resp, err := (&http.Client{Transport: tr}).Get(worldAPI)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 1, calls, "it was refused already")
		require.EqualValues(t, 2, requests.Load())
	})
}

func TestF11_Always401(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.api.Handler = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			rw.WriteHeader(http.StatusUnauthorized)
		})
		client := w.conf.Client(w.ctx)
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(500 * time.Millisecond) {
			resp, err := w.get(t, client)
			require.NoError(t, err)
			require.Equal(t, 401, resp.StatusCode)
		}
		require.LessOrEqual(t, w.auth.TokenRequests(), 1+10*60/30)
	})
}

func TestF11_NoNewTokenToBeHad(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		for name, client := range w.clients() {
			_, err := w.get(t, client)
			require.NoError(t, err)
			w.auth.RevokeAll()
			w.auth.Script(clientcredentialstest.InvalidClient())
			resp, err := client.Get(worldAPI)
			require.NoError(t, err, name)
			require.Equal(t, 401, resp.StatusCode, "the API's answer, whole")
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NotEmpty(t, body)
			resp.Body.Close()
		}
	})
}

func TestF11_TokenOfAnotherSource(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		client := w.conf.Client(w.ctx)
		client.Transport.(*oauth2.Transport).Source = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "another"})
		resp, err := w.get(t, client)
		require.NoError(t, err)
		require.Equal(t, 401, resp.StatusCode)
		require.Zero(t, w.auth.TokenRequests())
	})
}

func TestF11_GetBodyFails(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		client := w.conf.Client(w.ctx)
		_, err := w.get(t, client)
		require.NoError(t, err)
		w.auth.RevokeAll()
		req, err := http.NewRequestWithContext(t.Context(), "PUT", worldAPI, strings.NewReader("x"))
		require.NoError(t, err)
		req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.Equal(t, 401, resp.StatusCode)
		resp.Body.Close()
	})
}

// Who has left doesn't want another attempt, and nobody is told of one.
func TestNoRetryAfterTheEndOfTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	requests := 0
	conf := &Config{
		ClientID: "client", ClientSecret: "secret", TokenURL: "https://auth.example/token",
		Observer: &Observer{Retry: func(info event.Retry) { t.Error("told of another attempt", info) }},
		HTTPClient: &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
			requests++
			cancel()
			return nil, errors.New("reset")
		})},
	}
	_, err := conf.Token(ctx)
	require.Error(t, err)
	require.Equal(t, 1, requests)
}

// A token endpoint that speaks http where https is expected doesn't learn it in a second.
func TestPlainServerIsNotTriedAgain(t *testing.T) {
	server := clientcredentialstest.Start(t)
	conf := &Config{
		ClientID: clientcredentialstest.ClientID, ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL: strings.Replace(server.TokenURL, "http:", "https:", 1),
		Observer: &Observer{Retry: func(info event.Retry) { t.Error("tried again after", info.Err) }},
	}
	_, err := conf.Source(t.Context()).Token()
	require.ErrorIs(t, err, http.ErrSchemeMismatch)
	require.False(t, IsTemporary(err))
}

// A server that wants another client certificate doesn't change its mind in a second.
func TestRefusedCertificateIsNotTriedAgain(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	conf := &Config{
		TokenURL: server.URL, HTTPClient: server.Client(), AuthStyle: oauth2.AuthStyleInHeader,
		Observer: &Observer{Retry: func(info event.Retry) { t.Error("tried again after", info.Err) }},
	}
	_, err := conf.Source(t.Context()).Token()
	require.ErrorContains(t, err, "certificate required")
	require.False(t, IsTemporary(err))
}

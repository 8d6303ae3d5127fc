package clientcredentials

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// These benchmarks measure what a request costs when its token is there. Run them before and
// after a change of token.go or transport.go, and compare the results with benchstat:
//
//	go test -run '^$' -bench . -count 10 . >old.txt
//	go tool -modfile=tools/go.mod benchstat old.txt new.txt
//
// The module benchmarks/ compares this package with others.

// idle always gives the same answer at once.
var idle = func() roundTripFunc {
	answer := &http.Response{StatusCode: http.StatusOK, Header: make(http.Header), Body: http.NoBody, Request: new(http.Request)}
	return func(*http.Request) (*http.Response, error) { return answer, nil }
}()

// warm returns a Config and a context for sources whose token requests cost little.
func warm(tb testing.TB) (*Config, context.Context) {
	tb.Helper()
	auth := &clientcredentialstest.AuthorizationServer{Clients: []clientcredentialstest.Client{{ID: "id", Secret: "secret"}}}
	client := &http.Client{Transport: clientcredentialstest.HandlerTransport(auth)}
	conf := &Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token", HTTPClient: client}
	return conf, context.WithValue(tb.Context(), oauth2.HTTPClient, &http.Client{Transport: idle})
}

func requestWith(tb testing.TB, fields int) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "https://api.example/", nil)
	require.NoError(tb, err)
	for i := range fields {
		req.Header.Set(fmt.Sprintf("X-Field-%d", i), "value")
	}
	return req
}

// asInterface hides the type of source from the compiler, so that the copy of the token
// is on the heap.
//
//go:noinline
func asInterface(source oauth2.TokenSource) (*oauth2.Token, error) { return source.Token() }

func BenchmarkToken(b *testing.B) {
	conf, ctx := warm(b)
	source := conf.Source(ctx)
	_, err := source.Token()
	require.NoError(b, err)
	for name, ask := range map[string]func(){
		"serial":    func() { _, _ = source.Token() },
		"interface": func() { _, _ = asInterface(source) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = source.Token()
			}
		})
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	conf, ctx := warm(b)
	for name, transport := range map[string]http.RoundTripper{"Transport": conf.Transport(ctx), "Client": conf.Client(ctx).Transport} {
		for _, fields := range []int{0, 5, 8, 20} { // A map with more than eight is of another kind.
			req := requestWith(b, fields)
			b.Run(fmt.Sprintf("%s/fields=%d", name, fields), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, _ = transport.RoundTrip(req)
				}
			})
		}
	}
}

// What a target costs is the difference to BenchmarkRoundTrip/Transport/fields=5, in the same
// run: WithTarget makes every request look for one.
func BenchmarkTarget(b *testing.B) {
	conf, ctx := warm(b)
	transport := conf.Transport(ctx)
	target := Target{Scopes: []string{"read", "write"}, Resources: []string{"https://api.example/"}}
	for name, ctx := range map[string]context.Context{"none": b.Context(), "one": WithTarget(b.Context(), target)} {
		req := requestWith(b, 5).WithContext(ctx)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = transport.RoundTrip(req)
			}
		})
	}
}

func BenchmarkTokenRequest(b *testing.B) {
	conf, ctx := warm(b)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = conf.Token(ctx)
	}
}

// The copy of the token is on the caller's stack if the compiler sees that the caller calls
// Source.Token and doesn't keep the token.
func TestTokenAllocates(t *testing.T) {
	conf, ctx := warm(t)
	source := conf.Source(ctx)
	var length int
	require.Zero(t, testing.AllocsPerRun(100, func() {
		token, err := source.Token()
		if err == nil {
			length = len(token.AccessToken)
		}
	}))
	require.NotZero(t, length)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = source.TokenContext(ctx) }))
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = asInterface(source) }), 1.0)
}

// RoundTrip allocates the request, the map of its header, and the parts of the map: one
// up to eight fields, three beyond.
func TestRoundTripAllocates(t *testing.T) {
	conf, ctx := warm(t)
	transport := conf.Transport(ctx)
	for fields, most := range map[int]float64{0: 3, 5: 3, 7: 3, 8: 5, 9: 5, 20: 5} {
		req := requestWith(t, fields)
		_, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = transport.RoundTrip(req) }), most, "%d fields", fields)
		require.Len(t, req.Header, fields)
	}
}

// An idle Source takes a kilobyte with its token, and keeps a long token only once. TestMain
// checks that it has no goroutine.
func TestIdleSourceIsSmall(t *testing.T) {
	conf, ctx := warm(t)
	var answer string
	conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answer)), Request: req}, nil
	})}
	const many = 2000
	sources, targets := make([]*Source, many), make([]Target, many)
	for i := range targets {
		targets[i] = Target{Resources: []string{fmt.Sprintf("https://api-%d.example/", i)}}
	}
	for name, source := range map[string]func(i int) *Source{
		"a Source": func(int) *Source { return conf.Source(ctx) },
		"a target": func(i int) *Source { return sources[i-i%maxTargets].For(targets[i]) },
	} {
		fill := func(tokenLength int) float64 {
			answer = fmt.Sprintf(`{"access_token":"%s","token_type":"Bearer","expires_in":3600}`, strings.Repeat("x", tokenLength))
			clear(sources)
			for i := 0; i < many; i += maxTargets {
				sources[i] = conf.Source(ctx)
			}
			before := heap()
			for i := range sources {
				s := source(i)
				_, err := s.Token()
				require.NoError(t, err)
				if i%maxTargets > 0 {
					sources[i] = s
				}
			}
			return (heap() - before) / many
		}
		require.Less(t, fill(40), 40+528.0, name)
		require.Less(t, fill(4000), 1.2*4000+528, name)
		runtime.KeepAlive(sources)
	}
}

func heap() float64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // Only the second one frees what was in a sync.Pool.
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// During an outage, every call that uses the old token checks whether it is time to try
// again. That must not cost more than the token.
func TestReadsDuringAnOutageAllocateLittle(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		client := w.conf.Client(w.ctx).Transport.(*oauth2.Transport)
		read := func() { _, _ = s.Token(); _, _ = client.Source.Token() }
		read()
		time.Sleep(57 * time.Minute)
		w.outage(clientcredentialstest.TooManyRequests(time.Minute))
		read()
		synctest.Wait()
		read()
		require.Equal(t, Stale, s.Status().State)
		require.LessOrEqual(t, testing.AllocsPerRun(100, read), 2.0)
	})
}

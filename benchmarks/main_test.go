package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/perf/benchmath"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every scenario runs with every library, and its results are in the document. The
// numbers mean nothing.
func TestSmoke(t *testing.T) {
	out := t.TempDir()
	require.NoError(t, run(smokePlan, out))

	document, err := os.ReadFile(filepath.Join(out, "performance.md"))
	require.NoError(t, err)
	for _, name := range proxyNames {
		require.Contains(t, string(document), "\n| "+name.text+" | ")
	}
	for _, p := range append(peers(), textPeer, interfacePeer, targetPeer, challengedPeer) {
		require.Contains(t, string(document), "\n| "+p.name+" | ")
	}
	require.NotContains(t, string(document), "NaN")
	for _, name := range []string{"refresh.svg", "outage.svg"} {
		require.Contains(t, string(document), "performance/"+name)
		svg, err := os.ReadFile(filepath.Join(out, "performance", name))
		require.NoError(t, err)
		requireXML(t, svg)
	}
}

func requireXML(t *testing.T, text []byte) {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(text))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

// Each library gets a token from the server, and its transport adds the token.
func TestPeers(t *testing.T) {
	for _, p := range peers() {
		server := startAuthServer(time.Hour)
		s := server.settings(0)
		api := new(recorder)
		s.api = api
		_, err := p.transport(s).RoundTrip(newRequest(apiURL, 5))
		require.NoError(t, err, p.name)
		require.Regexp(t, `^Bearer 1\.x{798}$`, api.authorization, p.name)
		require.EqualValues(t, 1, server.requests.Load(), p.name)

		if p.sources != nil {
			source := p.sources(s)()
			for range 3 {
				token, err := source(t.Context())
				require.NoError(t, err, p.name)
				require.Regexp(t, `^2\.x{798}$`, token, p.name)
			}
			require.EqualValues(t, 2, server.requests.Load(), p.name)
		}
		server.close()
	}
}

// A recorder is an API that records the header Authorization.
type recorder struct{ authorization string }

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.authorization = req.Header.Get("Authorization")
	return newNoAPI().answer, nil
}

// This checks counts and quantiles of known calls.
func TestTimeline(t *testing.T) {
	l := timeline{calls: []call{
		{0, time.Millisecond, false},
		{time.Second, 2 * time.Millisecond, true},
		{2 * time.Second, time.Second, true},
		{4 * time.Second, 4 * time.Millisecond, false},
	}}
	require.Equal(t, 2, failures(l.calls))
	require.Equal(t, 1, waits(l.calls, time.Second))
	require.Len(t, l.between(0, 2*time.Second), 2)
	require.Len(t, l.between(2*time.Second, 4*time.Second), 1, "the end of a call decides")
	require.Equal(t, 2*time.Millisecond, quantile(l.calls, 0.25))
	require.Equal(t, 4*time.Millisecond, quantile(l.calls, 0.5))
	require.Equal(t, time.Second, quantile(l.calls, 1))
	require.Zero(t, quantile(nil, 0.5))
	require.Equal(t, 1004*time.Millisecond, l.recovery(3*time.Second))
	require.Negative(t, l.recovery(5*time.Second))
}

// A ratio compares times of the same round, so it doesn't matter that the machine was slow in
// one of them.
func TestCompare(t *testing.T) {
	costs := compare([]string{"a", "b"}, [][]float64{{10, 100, 20, 10, 10, 10}, {5, 50, 10, 5, 5, 6}})
	require.InDelta(t, 1, costs[0].ratio.Center, 1e-9)
	require.InDelta(t, 0.5, costs[1].ratio.Center, 1e-9)
	require.InDelta(t, 5.5, costs[1].ns, 1e-9)
	for _, tt := range []struct {
		ratio, limit float64
		within       bool
	}{
		{0.9, 1, true},
		{1.03, 1, true},
		{1.04, 1, false},
		{0.35, 0.35, true},
		{0.354, 0.35, true}, // It is printed as 0.35.
		{0.356, 0.35, false},
		{1.16, 1.15, false},
	} {
		require.Equal(t, tt.within, within(cost{ratio: benchmath.Summary{Center: tt.ratio}}, tt.limit), "%+v", tt)
	}
}

// An operation is done as often as it should be, however many callers there are.
func TestWorkload(t *testing.T) {
	for _, callers := range []int{1, 3, 100} {
		var done atomic.Int64
		do := func(n int) {
			for range n {
				done.Add(1)
			}
		}
		count, _ := workload{callers: callers, prepare: func() operation { return do }}.calibrate(time.Microsecond)
		require.Zero(t, count%batch)
		done.Store(0)
		workload{callers: callers}.run(do, 10*batch)
		require.EqualValues(t, 10*batch, done.Load())
	}
}

func TestInitialization(t *testing.T) {
	trace := []byte(`init internal/bytealg @0.008 ms, 0 ms clock, 0 bytes, 0 allocs
init golang.org/x/oauth2 @1.6 ms, 0.005 ms clock, 48 bytes, 2 allocs
init golang.org/x/oauth2/internal @1.7 ms, 0 ms clock, 100 bytes, 3 allocs
init golang.org/x/oauth2something @1.7 ms, 0 ms clock, 7 bytes, 1 allocs
`)
	size, allocs, err := initialization(trace, "golang.org/x/oauth2")
	require.NoError(t, err)
	require.Equal(t, []int{148, 5}, []int{size, allocs})
	_, _, err = initialization([]byte("init golang.org/x/oauth2 @1.6 ms, no more"), "golang.org/x/oauth2")
	require.ErrorContains(t, err, "trace")
	_, _, err = initialization(nil, "golang.org/x/oauth2")
	require.ErrorContains(t, err, "trace")
}

func TestProxySamples(t *testing.T) {
	const run = `goos: linux
BenchmarkProxy/plain/GET-2     	 100	 50000 ns/op	 11906 B/op	 137 allocs/op
BenchmarkProxy/ccproxy/GET-2   	 100	 60000 ns/op	 13943 B/op	 156 allocs/op
PASS
`
	samples := make(proxySamples)
	require.NoError(t, samples.add([]byte(run)))
	require.NoError(t, samples.add([]byte(run)))
	costs, err := samples.costs()
	require.NoError(t, err)
	require.Len(t, costs, 1)
	require.InDelta(t, 50_000, costs["GET"][0].ns, 0.001)
	require.InDelta(t, 1.2, costs["GET"][1].ratio.Center, 1e-9)
	require.Equal(t, 156, costs["GET"][1].allocs)
	require.Equal(t, 13943, costs["GET"][1].bytes)

	const plain, ccproxy = "BenchmarkProxy/plain/GET-2 100 50000 ns/op\n", "BenchmarkProxy/ccproxy/GET-2 100 50000 ns/op\n"
	for _, text := range []string{"", plain, ccproxy, plain + plain + ccproxy} {
		samples := make(proxySamples)
		require.NoError(t, samples.add([]byte(text)))
		_, err := samples.costs()
		require.ErrorContains(t, err, "BenchmarkProxy measured", text)
	}
	require.ErrorContains(t, make(proxySamples).add([]byte("BenchmarkProxy-2 100 50000 ns/op\n")), "PROXY/METHOD")
}

// This checks the share of other programs, with files of proc_stat(5) and proc_pid_stat(5).
func TestProcessors(t *testing.T) {
	before := parseProcessors([]byte("cpu 100 0 0 1000 0 5 5 0 0 0\ncpu0 1 1 1"), []byte("7 (a) name) R 1 1 1 0 -1 0 1 1 1 1 40 10 20 5 20 0"))
	after := parseProcessors([]byte("cpu 150 10 20 1090 10 10 5 5 0 0\ncpu0 1 1 1"), []byte("7 (a) name) R 1 1 1 0 -1 0 1 1 1 1 60 20 30 5 20 0"))
	require.Equal(t, processors{all: 1110, busy: 100, own: 75}, before)
	// 85 of 190 ticks were busy, 40 of them with this program.
	require.InDelta(t, 45.0/190, after.others(before), 1e-9)
	require.Zero(t, parseProcessors(nil, nil))
	require.Zero(t, processors{}.others(processors{}))
}

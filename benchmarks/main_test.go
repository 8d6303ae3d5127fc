package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every scenario runs with every library, and its results are in the document. The
// numbers mean nothing.
func TestSmoke(t *testing.T) {
	benchtime := flag.Lookup("test.benchtime").Value.String()
	defer func() { require.NoError(t, flag.Set("test.benchtime", benchtime)) }()
	out := t.TempDir()
	require.NoError(t, run(smokePlan, out))

	document, err := os.ReadFile(filepath.Join(out, "performance.md"))
	require.NoError(t, err)
	for _, p := range append(peers(), interfacePeer) {
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

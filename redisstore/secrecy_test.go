package redisstore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// Neither what Redis is sent nor what it keeps reveals anything.
func TestS17_NothingToRead(t *testing.T) {
	t.Parallel()
	t.Run("sealed", func(t *testing.T) {
		t.Parallel()
		undisturbed(t, func(t *testing.T) {
			f, tokens, places := listen(t, func(*spec) {})
			for _, text := range append(tokens, clientID, clientSecret, "confidential", f.url) {
				for place, content := range places {
					require.False(t, contains(content, text), "%s in %s", text, place)
				}
			}
		})
	})
	// In plaintext the search finds the tokens. Otherwise it would prove nothing.
	t.Run("in plaintext", func(t *testing.T) {
		t.Parallel()
		undisturbed(t, func(t *testing.T) {
			_, tokens, places := listen(t, func(s *spec) { s.Keys = nil })
			for _, token := range tokens {
				require.True(t, contains(places["MONITOR"], token))
			}
			require.True(t, contains(places["dump.rdb"], tokens[1]))
			require.True(t, contains(places["dump.rdb"], "confidential reason"))
		})
	})
}

// listen runs a fleet. It returns the tokens that the fleet has had, one after the other,
// and what Redis was sent and what it keeps.
func listen(t *testing.T, change func(*spec)) (f *fleet, tokens []string, places map[string]string) {
	t.Helper()
	f = startFleet(t, "rdbcompression no")
	f.Register(clientcredentialstest.Client{ID: clientID, Secret: clientSecret, Scopes: []string{"confidential.scope"}})
	f.spec.Scopes = []string{"confidential.scope"}
	f.spec.Params = url.Values{"audience": {"https://confidential.example"}}
	change(&f.spec)
	monitored := startMonitor(t, f.redis.addr)

	replicas := f.replicas(t, 3)
	tokens = append(tokens, requireTokens(t, getAll(t.Context(), 1, replicas...)...)...)
	calm(replicas...)
	report(replicas[0].token(t), replicas...)
	tokens = append(tokens, requireTokens(t, getAll(t.Context(), 1, replicas...)...)...)
	// A refusal is shared, too.
	f.SetFault(&clientcredentialstest.Fault{Status: http.StatusServiceUnavailable, Body: `{"error":"temporarily_unavailable","error_description":"confidential reason"}`})
	refused := f.replica(t, func(s *spec) {
		s.Params = url.Values{"audience": {"https://other.example"}}
		s.Retry.MaxAttempts = 1
	})
	require.NotEmpty(t, refused.get(t.Context()).Err)
	aborted(t, refused)

	require.NoError(t, f.admin.Save(t.Context()).Err())
	dump, err := os.ReadFile(filepath.Join(f.redis.dir, "dump.rdb"))
	require.NoError(t, err)
	require.NoError(t, f.admin.Echo(t.Context(), "the end").Err())
	places = map[string]string{
		"MONITOR": monitored("the end"), "KEYS": strings.Join(f.keys(t), "\n"), "dump.rdb": string(dump),
	}
	calm(append(replicas, refused)...)
	return f, tokens, places
}

// contains reports whether text is in content, in any encoding.
func contains(content, text string) bool {
	return slices.ContainsFunc([]string{
		text, strings.ToLower(text), url.QueryEscape(text), hex.EncodeToString([]byte(text)),
		inBase64(text, 0), inBase64(text, 1), inBase64(text, 2),
	}, func(form string) bool { return strings.Contains(content, form) })
}

// inBase64 returns what text looks like in the base64 of a longer text, in which it
// begins offset bytes after a multiple of three.
func inBase64(text string, offset int) string {
	encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), text...))
	from := (offset*8 + 5) / 6         // The characters before this also encode what precedes text,
	to := (offset + len(text)) * 8 / 6 // and the last may also encode what follows it.
	return encoded[from:to]
}

// startMonitor returns a function that returns everything that the server has been sent
// since, up to a word that it was sent last.
func startMonitor(t *testing.T, addr string) func(until string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, "MONITOR\r\n")
	require.NoError(t, err)
	ok := make([]byte, len("+OK\r\n"))
	_, err = io.ReadFull(conn, ok)
	require.NoError(t, err)
	return func(until string) string {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		var log bytes.Buffer
		for buffer := make([]byte, 64<<10); !strings.Contains(log.String(), until); {
			n, err := conn.Read(buffer)
			require.NoError(t, err)
			log.Write(buffer[:n])
		}
		return log.String()
	}
}

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

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// Neither what Redis is sent nor what it keeps reveals anything.
func TestS17_NothingToRead(t *testing.T) {
	t.Parallel()
	t.Run("sealed", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t *trial, f *fleet) {
			token, places := f.listen(t)
			for _, text := range []string{token, clientID, clientSecret, "confidential", f.url} {
				for place, content := range places {
					require.False(t, contains(content, text), "%s in %s", text, place)
				}
			}
		}, "rdbcompression no")
	})
	// In plaintext the search finds the token. Otherwise it would prove nothing.
	t.Run("in plaintext", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t *trial, f *fleet) {
			f.spec.Keys = nil
			token, places := f.listen(t)
			require.True(t, contains(places["MONITOR"], token))
			require.True(t, contains(places["dump.rdb"], token))
			require.True(t, contains(places["dump.rdb"], "confidential reason"))
		}, "rdbcompression no")
	})
}

// listen shares a token and a refusal. It returns the token, what Redis was sent, and
// what it keeps.
func (f *fleet) listen(t testing.TB) (token string, places map[string]string) {
	t.Helper()
	f.Register(clientcredentialstest.Client{ID: clientID, Secret: clientSecret, Scopes: []string{"confidential.scope"}})
	monitored := startMonitor(t, f.redis.addr)
	token = requireOneToken(t, getAll(t.Context(), 1, f.replicas(t, 3, scoped("confidential.scope"))...)...)
	f.SetFault(&clientcredentialstest.Fault{
		Status: http.StatusServiceUnavailable,
		Body:   `{"error":"temporarily_unavailable","error_description":"confidential reason"}`,
	})
	refused := f.replica(t, func(c *clientcredentials.Config) {
		c.EndpointParams = url.Values{"audience": {"https://confidential.example"}}
		c.Retry.MaxAttempts = 1
	})
	require.NotEmpty(t, refused.get(t.Context()).Err)
	f.awaitAbort(t, refused)

	require.NoError(t, f.admin.Save(t.Context()).Err())
	dump, err := os.ReadFile(filepath.Join(f.redis.dir, "dump.rdb"))
	require.NoError(t, err)
	require.NoError(t, f.admin.Echo(t.Context(), "the end").Err())
	return token, map[string]string{
		"MONITOR": monitored("the end"), "KEYS": strings.Join(f.keys(t), "\n"), "dump.rdb": string(dump),
	}
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
func startMonitor(t testing.TB, addr string) func(until string) string {
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

package clientcredentialstest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

func TestHandlerTransportStreams(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.HandleFunc("a.example/", func(w http.ResponseWriter, r *http.Request) {
			// HTTP/1.1 answers before the request is read only if it is told to.
			assert.NoError(t, http.NewResponseController(w).EnableFullDuplex())
			for range 3 {
				line := make([]byte, 2)
				_, err := io.ReadFull(r.Body, line)
				assert.NoError(t, err)
				time.Sleep(time.Second)
				_, _ = w.Write(line)
				assert.NoError(t, http.NewResponseController(w).Flush())
			}
			w.Header().Set(http.TrailerPrefix+"X-Trailer", "end")
		})
		mux.HandleFunc("b.example/", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Host)
		})
		client := &http.Client{Transport: cct.HandlerTransport(mux)}

		start := time.Now()
		body := &closeRecorder{Reader: strings.NewReader("a\nb\nc\n")}
		resp, err := client.Post("https://a.example/", "text/plain", body)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(start), "the header arrives with the first byte")
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "a\nb\nc\n", string(got))
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, "end", resp.Trailer.Get("X-Trailer"))
		body.requireClosed(t)

		resp, err = client.Get("http://b.example:8080/")
		require.NoError(t, err)
		got, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "b.example:8080", string(got))
	})
}

type closeRecorder struct {
	io.Reader
	mu     sync.Mutex
	closed bool
}

func (c *closeRecorder) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *closeRecorder) requireClosed(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.True(t, c.closed)
}

func TestHandlerTransportCancels(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		var handlerErr error
		h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			handlerErr = r.Context().Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://a.example/", nil)
		require.NoError(t, err)
		_, err = cct.HandlerTransport(h).RoundTrip(req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.ErrorIs(t, handlerErr, context.Canceled)
	})
}

// TestHandlerTransportLeavesNothingRunning: even an unread body and a client that leaves
// early leave no goroutine behind. The bubble could not end otherwise.
func TestHandlerTransportLeavesNothingRunning(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		})
		client := &http.Client{Transport: cct.HandlerTransport(h)}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				resp, err := client.Get("http://a.example/")
				if err == nil {
					_ = resp.Body.Close()
				}
			})
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://a.example/", nil)
				go cancel()
				resp, err := client.Do(req)
				if err == nil {
					_ = resp.Body.Close()
				}
			})
		}
		wg.Wait()
	})
}

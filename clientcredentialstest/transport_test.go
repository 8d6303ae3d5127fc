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
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		client := &http.Client{Transport: cct.HandlerTransport(h)}

		start := time.Now()
		resp, err := client.Post("https://a.example/", "text/plain", strings.NewReader("a\nb\nc\n"))
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(start), "the header arrives with the first byte")
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "a\nb\nc\n", string(got))
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, "end", resp.Trailer.Get("X-Trailer"))
	})
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
		for i := range 20 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://a.example/", nil)
				if i%2 == 0 {
					go cancel()
				}
				if resp, err := client.Do(req); err == nil {
					_ = resp.Body.Close()
				}
			})
		}
		wg.Wait()
	})
}

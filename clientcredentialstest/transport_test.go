package clientcredentialstest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// TestHandlerTransportLeavesNothingRunning: even an unread body and a client that leaves
// early leave no goroutine behind. The bubble could not end otherwise. TestFaultTakesTime
// covers streaming and canceled requests.
func TestHandlerTransportLeavesNothingRunning(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		client := &http.Client{Transport: cct.HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		}))}
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

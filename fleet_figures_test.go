package clientcredentials_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

var updateFigures = flag.Bool("update-figures", false, "simulate fleets of up to 100,000 replicas, and write what comes of it into docs/fleet.md")

// TestFleetFigures simulates fleets of the real thing: only time, the network and the
// store are not. With -update-figures it writes a table into docs/fleet.md; without, it
// checks that small fleets behave as the table says of all.
func TestFleetFigures(t *testing.T) {
	sizes := []int{10, 100}
	if *updateFigures {
		sizes = []int{10, 100, 1_000, 10_000, 100_000}
	}
	var cold, steady strings.Builder
	for _, n := range sizes {
		figures := simulateFigures(t, n)
		require.Equal(t, 1, figures.coldRequests)
		require.LessOrEqual(t, figures.coldWait, 450*time.Millisecond)
		require.InDelta(t, 3600.0/3300, figures.requestsPerLife, 0.15)
		require.Less(t, figures.operationsPerLife, 4.0)
		fmt.Fprintf(&cold, "| %s | %s | %d | %v | %.1f |\n", thousands(n), thousands(n), figures.coldRequests, figures.coldWait.Round(time.Millisecond), figures.coldOperations)
		fmt.Fprintf(&steady, "| %s | %s | %.2f | %.2f | %.1f/s | %v | %v |\n", thousands(n), thousands(n), figures.requestsPerLife, figures.operationsPerLife,
			figures.operationsPerLife*float64(n)/3600, figures.early.Round(time.Second), figures.late.Round(time.Second))
	}
	if !*updateFigures {
		return
	}
	writeFigures(t, "cold", "| replicas | token requests without a store | with | longest wait | store operations per replica |\n| ---: | ---: | ---: | ---: | ---: |\n"+cold.String())
	writeFigures(t, "steady", "| replicas | token requests per life without a store | with | store operations per replica and life | of the fleet | a tenth have looked after | nine tenths after |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"+steady.String())
}

// writeFigures replaces a part of docs/fleet.md.
func writeFigures(t *testing.T, name, text string) {
	t.Helper()
	const document = "docs/fleet.md"
	old, err := os.ReadFile(document)
	require.NoError(t, err)
	part := regexp.MustCompile(`(?s)(<!-- figures: ` + name + ` -->\n).*?(<!-- end -->)`)
	require.True(t, part.Match(old), "docs/fleet.md has no part for %s", name)
	require.NoError(t, os.WriteFile(document, part.ReplaceAll(old, []byte("${1}"+text+"${2}")), 0o644))
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// figures are what a fleet costs. A token lives an hour, the authorization server takes
// 300 milliseconds, and each replica uses its token once in a minute on average.
type figures struct {
	coldRequests   int
	coldWait       time.Duration
	coldOperations float64 // per replica

	requestsPerLife   float64
	operationsPerLife float64       // per replica
	early, late       time.Duration // after the token request, when a tenth and nine tenths of the fleet have asked the store
}

func simulateFigures(t *testing.T, n int) (result figures) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		store := &countingStore{Store: f.store}
		sources := make([]*clientcredentials.Source, n)
		for i := range sources {
			conf := &clientcredentials.Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token", Store: clientcredentials.Seal(store, f.keyring)}
			sources[i] = conf.Source(f.ctx)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex // protects result.coldWait
		for _, source := range sources {
			wg.Go(func() {
				start := time.Now()
				if _, err := source.Token(); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				result.coldWait = max(result.coldWait, time.Since(start))
			})
		}
		wg.Wait()
		synctest.Wait()
		result.coldRequests = f.auth.TokenRequests()
		result.coldOperations = float64(store.count()) / float64(n)

		const lives = 3
		store.take()
		before := f.auth.TokenRequests()
		start := time.Now()
		for _, source := range sources {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for time.Since(start) < lives*time.Hour {
					if _, err := source.Token(); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration(random.Int64N(int64(2 * time.Minute))))
				}
			})
		}
		wg.Wait()
		operations := store.take()
		result.requestsPerLife = float64(f.auth.TokenRequests()-before) / lives
		result.operationsPerLife = float64(len(operations)) / float64(n) / lives

		// Around the first replacement: when the others found out.
		first := f.auth.Requests()[before].Time
		var looked []time.Duration
		for _, at := range operations {
			if d := at.Sub(first); 0 <= d && d < 30*time.Minute {
				looked = append(looked, d)
			}
		}
		slices.Sort(looked)
		result.early, result.late = looked[len(looked)/10], looked[len(looked)*9/10]
	})
	return result
}

// A countingStore notes when it was called.
type countingStore struct {
	*storetest.Store
	mu    sync.Mutex // protects calls
	calls []time.Time
}

func (s *countingStore) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, time.Now())
}

func (s *countingStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

func (s *countingStore) take() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *countingStore) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	s.note()
	return s.Store.Acquire(ctx, key, stale, owner, lease)
}

func (s *countingStore) Renew(ctx context.Context, key, owner string, lease time.Duration) error {
	s.note()
	return s.Store.Renew(ctx, key, owner, lease)
}

func (s *countingStore) Publish(ctx context.Context, key, owner string, record tokenstore.Record, ttl time.Duration) error {
	s.note()
	return s.Store.Publish(ctx, key, owner, record, ttl)
}

package clientcredentials_test

import (
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
	"github.com/seed-5bfa0880/clientcredentials/event"
)

var updateFigures = flag.Bool("update-figures", false, "simulate fleets of up to 100,000 replicas, and write the results into docs/fleet.md")

// There is one token request per life of a token, nobody waits, and the replicas look for
// the new token at different times.
func TestS14_EarlyRefresh(t *testing.T) {
	for _, n := range []int{10, 100} {
		simulateFigures(t, n)
	}
}

// With -update-figures, TestFleetFigures writes tables into docs/fleet.md. Each line is
// from a simulation of a fleet of real Sources: only time, the network and the store are
// simulated.
func TestFleetFigures(t *testing.T) {
	if !*updateFigures {
		t.Skip("needs -update-figures")
	}
	var cold strings.Builder
	cold.WriteString("| replicas | token requests without a store | with | longest wait | store operations per replica |\n| ---: | ---: | ---: | ---: | ---: |\n")
	var steady strings.Builder
	steady.WriteString("| replicas | token requests per life without a store | with | store operations per replica and life | of the fleet | a tenth have looked after | nine tenths after |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, n := range []int{10, 100, 1_000, 10_000, 100_000} {
		figures := simulateFigures(t, n)
		fmt.Fprintf(&cold, "| %s | %s | %d | %v | %.1f |\n", thousands(n), thousands(n), figures.coldRequests, figures.coldWait.Round(time.Millisecond), figures.coldOperations)
		fmt.Fprintf(&steady, "| %s | %s | %.2f | %.2f | %.1f/s | %v | %v |\n", thousands(n), thousands(n), figures.requestsPerLife, figures.operationsPerLife,
			figures.operationsPerLife*float64(n)/3600, figures.early.Round(time.Second), figures.late.Round(time.Second))
	}
	writeFigures(t, "cold", cold.String())
	writeFigures(t, "steady", steady.String())
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

// figures say what a fleet costs. A token lives an hour, the authorization server takes
// 300 milliseconds, and each replica uses its token once a minute on average.
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
		var mu sync.Mutex          // protects operations
		var operations []time.Time // of the store, when each of them ended
		observer := &clientcredentials.Observer{StoreOperation: func(event.StoreOperation) {
			mu.Lock()
			defer mu.Unlock()
			operations = append(operations, time.Now())
		}}
		replicas := make([]*replica, n)
		for i := range replicas {
			conf := &clientcredentials.Config{
				ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token",
				Store: clientcredentials.Seal(f.store, f.keyring), Observer: observer,
			}
			replicas[i] = &replica{Source: conf.Source(f.ctx)}
		}
		_, result.coldWait = allShare(t, replicas, 1)
		synctest.Wait()
		result.coldRequests = f.auth.TokenRequests()
		result.coldOperations = float64(len(operations)) / float64(n)

		const lives = 3
		operations = nil
		before := f.auth.TokenRequests()
		start := time.Now()
		var wg sync.WaitGroup
		for _, r := range replicas {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for time.Since(start) < lives*time.Hour {
					if _, took := r.get(t); took != 0 {
						t.Error("waited", took)
					}
					time.Sleep(time.Duration(random.Int64N(int64(2 * time.Minute))))
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		result.requestsPerLife = float64(f.auth.TokenRequests()-before) / lives
		result.operationsPerLife = float64(len(operations)) / float64(n) / lives

		// The first replacement of the token: when did the other replicas find it?
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
	require.Equal(t, 1, result.coldRequests)
	require.LessOrEqual(t, result.coldWait, 450*time.Millisecond)
	require.InDelta(t, 3600.0/3300, result.requestsPerLife, 0.15)
	require.Less(t, result.operationsPerLife, 4.0)
	require.Greater(t, result.late-result.early, 15*time.Second)
	return result
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A tenancy is a program with many tenants: each has its own client, token endpoint and
// token. All of them run in one process.
type tenancy struct {
	idle   []footprint // with a token each
	rounds []cost      // of replacing all tokens after their expiry, per tenant

	// Reads of tokens: by one caller, for the first time after a garbage collection and
	// again, and by several callers.
	first, again, many []cost
}

// shortLife is how long the tokens live that are replaced: the shortest expires_in.
const shortLife = time.Second

// tenancy measures sources for many tenants.
func (p plan) tenancy() tenancy {
	var t tenancy
	endpoint := new(atomic.Pointer[instant])
	endpoint.Store(newInstant(tokenLength, shortLife))
	tokens := &http.Client{Transport: current{endpoint}}
	var names []string
	var sources [][]source
	for _, peer := range append(peers(), textPeer) {
		if peer.sources == nil {
			continue
		}
		f, filled := fill(peer.name, p.tenants, func(i int) source {
			return filled(peer.sources(settings{
				clientID: fmt.Sprintf("client-of-tenant-%d", i),
				tokenURL: fmt.Sprintf("https://login.example.com/tenant-%d/token", i),
				tokens:   tokens,
				api:      newNoAPI(),
			})())
		})
		// Callers of different tenants come in any order.
		rand.Shuffle(len(filled), func(i, j int) { filled[i], filled[j] = filled[j], filled[i] })
		names, sources, t.idle = append(names, peer.name), append(sources, filled), append(t.idle, f)
	}

	rounds := make([][]float64, len(names))
	for round := range p.rounds {
		if round == p.rounds-1 {
			endpoint.Store(newInstant(tokenLength, time.Hour))
		}
		time.Sleep(shortLife + 100*time.Millisecond)
		for _, i := range rand.Perm(len(names)) {
			runtime.GC()
			rounds[i] = append(rounds[i], float64(readAll(sources[i], p.tenantCallers))/float64(p.tenants))
		}
	}
	t.rounds = compare(names, rounds)

	// The garbage collector runs only where it is told to, because none of these samples
	// leaves much garbage.
	first, again, many := make([][]float64, len(names)), make([][]float64, len(names)), make([][]float64, len(names))
	for range p.readRounds {
		runtime.GC()
		for _, i := range rand.Perm(len(names)) {
			first[i] = append(first[i], readEach(sources[i]))
			again[i] = append(again[i], readEach(sources[i]))
			took := workload{callers: p.tenantCallers}.run(readsOf(sources[i]), 4*p.tenants)
			many[i] = append(many[i], float64(took)/float64(4*p.tenants))
		}
	}
	t.first, t.again, t.many = compare(names, first), compare(names, again), compare(names, many)
	return t
}

// readEach reads each source once, and returns how many nanoseconds a read takes. This is the
// median of small parts, most of which no other program interrupts.
func readEach(sources []source) float64 {
	ctx := context.Background()
	var ns []float64
	for part := range slices.Chunk(sources, 250) {
		start := time.Now()
		for _, read := range part {
			_, _ = read(ctx)
		}
		ns = append(ns, float64(time.Since(start))/float64(len(part)))
	}
	return summary(ns).Center
}

// readAll reads each source once, by several callers, and returns how long that takes.
func readAll(sources []source, callers int) time.Duration {
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(sources)); i = next.Add(1) - 1 {
				_ = filled(sources[i])
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// readsOf returns the operation of reading the token of one source after the other, from a
// random one on.
func readsOf(sources []source) operation {
	ctx := context.Background()
	return func(n int) {
		at := rand.IntN(len(sources))
		for range n {
			_, _ = sources[at](ctx)
			if at++; at == len(sources) {
				at = 0
			}
		}
	}
}

// current is an authorization server without a network whose answers can change.
type current struct{ endpoint *atomic.Pointer[instant] }

func (c current) RoundTrip(req *http.Request) (*http.Response, error) {
	return c.endpoint.Load().RoundTrip(req)
}

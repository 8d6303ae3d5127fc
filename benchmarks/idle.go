package main

import (
	"context"
	"runtime"
	"time"
)

// A footprint is the memory and the goroutines of idle sources with a token.
type footprint struct {
	peer       string
	bytes      float64 // per source
	goroutines float64 // per source
}

// footprints measures the cost of n idle sources of each peer. Each source has a token.
// If configured is set, each also has its own configuration. Otherwise they share one.
func (p plan) footprints(n, tokenLength int, configured bool) []footprint {
	var all []footprint
	for _, peer := range peers() {
		s := inMemory(tokenLength)
		next := func(int) any {
			transport := peer.transport(s)
			must(trip(transport, newRequest(apiURL, 0)))
			return transport
		}
		if peer.sources != nil {
			newSource := peer.sources(s)
			next = func(int) any {
				if configured {
					newSource = peer.sources(s)
				}
				return filled(newSource())
			}
		}
		f, idle := fill(peer.name, n, next)
		runtime.KeepAlive(idle)
		all = append(all, f)
	}
	return all
}

// filled returns read after it has got its token.
func filled(read source) source {
	_, err := read(context.Background())
	must(err)
	return read
}

// fill makes n sources, and returns them with what they cost.
func fill[S any](peer string, n int, next func(i int) S) (footprint, []S) {
	sources := make([]S, n)
	bytes, goroutines := inUse(), runtime.NumGoroutine()
	for i := range sources {
		sources[i] = next(i)
	}
	return footprint{
		peer:       peer,
		bytes:      (inUse() - bytes) / float64(n),
		goroutines: float64(runtime.NumGoroutine()-goroutines) / float64(n),
	}, sources
}

// inUse returns the memory that the heap and the stacks use, in bytes.
func inUse() float64 {
	var stats runtime.MemStats
	for range 3 { // Pools and finalizers need more than one collection.
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc + stats.StackInuse)
}

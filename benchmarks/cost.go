package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"golang.org/x/perf/benchmath"
)

// A cost is the cost of an operation, over all samples.
type cost struct {
	peer          string
	ns            *benchmath.Sample
	allocs, bytes int64
}

// median returns the median in nanoseconds.
func (c cost) median() float64 { return summary(c.ns).Center }

func summary(s *benchmath.Sample) benchmath.Summary {
	return benchmath.AssumeNothing.Summary(s, 0.95)
}

// A workload is an operation that is repeated.
type workload struct {
	peer string
	run  func(b *testing.B)
}

// measure takes samples of the workloads in turns. So if the machine is busy for a while,
// that affects all of them.
func (p plan) measure(workloads []workload) []cost {
	ns := make([][]float64, len(workloads))
	costs := make([]cost, len(workloads))
	for range p.samples {
		for i, w := range workloads {
			runtime.GC() // Don't let w pay for the garbage of others.
			result := testing.Benchmark(w.run)
			ns[i] = append(ns[i], float64(result.T.Nanoseconds())/float64(result.N))
			costs[i] = cost{peer: w.peer, allocs: result.AllocsPerOp(), bytes: result.AllocedBytesPerOp()}
		}
	}
	for i := range costs {
		costs[i].ns = benchmath.NewSample(ns[i], &benchmath.DefaultThresholds)
	}
	return costs
}

// inMemory returns settings for costs without a network.
func inMemory(tokenLength int) settings {
	return settings{tokenURL: "https://login.example.com/token", tokens: newInstant(tokenLength), api: newNoAPI()}
}

// reads measures how long it takes to get a token from the cache: by one caller, and by
// several at once, for each number of callers.
func (p plan) reads() (serial []cost, parallel map[int][]cost) {
	ctx := context.Background()
	var one []workload
	many := make(map[int][]workload)
	for _, peer := range append(peers(), interfacePeer) {
		if peer.sources == nil {
			continue
		}
		read := peer.sources(inMemory(tokenLength))()
		_, err := read(ctx)
		must(err)
		one = append(one, workload{peer.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = read(ctx)
			}
		}})
		for _, perCore := range p.callers {
			many[perCore] = append(many[perCore], workload{peer.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(perCore)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						_, _ = read(ctx)
					}
				})
			}})
		}
	}
	parallel = make(map[int][]cost)
	for _, perCore := range p.callers {
		parallel[perCore*runtime.GOMAXPROCS(0)] = p.measure(many[perCore])
	}
	return p.measure(one), parallel
}

// trips measures the cost of adding a token to a request, for each number of header
// fields.
func (p plan) trips() map[int][]cost {
	costs := make(map[int][]cost)
	for _, fields := range p.fields {
		var workloads []workload
		for _, peer := range peers() {
			transport := peer.transport(inMemory(tokenLength))
			req := newRequest(apiURL, fields)
			must(trip(transport, req))
			workloads = append(workloads, workload{peer.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_ = trip(transport, req)
				}
			}})
		}
		costs[fields] = p.measure(workloads)
	}
	return costs
}

// trip sends req by transport.
func trip(transport http.RoundTripper, req *http.Request) error {
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// calls measures requests of an http.Client to an API on the loopback interface.
func (p plan) calls() []cost {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer api.Close()
	base := api.Client().Transport.(*http.Transport)
	var workloads []workload
	for _, peer := range []peer{upstreamPeer, dropInPeer, ownPeer} {
		s := inMemory(tokenLength)
		s.api = base
		client := &http.Client{Transport: peer.transport(s)}
		get := func() error {
			resp, err := client.Do(newRequest(api.URL, 5))
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			return resp.Body.Close()
		}
		must(get())
		workloads = append(workloads, workload{peer.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = get()
			}
		}})
	}
	return p.measure(workloads)
}

// requests measures a token request without a network.
func (p plan) requests() []cost {
	var workloads []workload
	add := func(name string, request func(context.Context) error) {
		ctx := context.Background()
		must(request(ctx))
		workloads = append(workloads, workload{name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = request(ctx)
			}
		}})
	}
	for _, peer := range peers() {
		if peer.request != nil {
			add(peer.name, peer.request(inMemory(tokenLength)))
		}
	}
	least := inMemory(tokenLength)
	add("the minimum", func(ctx context.Context) error {
		_, _, err := least.requestToken(ctx)
		return err
	})
	return p.measure(workloads)
}

func newRequest(address string, fields int) *http.Request {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	must(err)
	for i := range fields {
		req.Header.Set(fmt.Sprintf("X-Field-%d", i), "value")
	}
	return req
}

// A footprint is the memory and the goroutines of idle sources with a token.
type footprint struct {
	peer       string
	sources    int
	bytes      float64 // per source
	goroutines float64 // per source
}

// footprints measures the cost of n idle sources of each peer. Each source has a token.
// If configured is set, each also has its own configuration. Otherwise they share one.
func (p plan) footprints(n, tokenLength int, configured bool) []footprint {
	ctx := context.Background()
	var all []footprint
	for _, peer := range peers() {
		s := inMemory(tokenLength)
		next := func() any {
			transport := peer.transport(s)
			must(trip(transport, newRequest(apiURL, 0)))
			return transport
		}
		if peer.sources != nil {
			newSource := peer.sources(s)
			next = func() any {
				if configured {
					newSource = peer.sources(s)
				}
				source := newSource()
				_, err := source(ctx)
				must(err)
				return source
			}
		}
		idle := make([]any, n)
		bytes, goroutines := inUse(), runtime.NumGoroutine()
		for i := range idle {
			idle[i] = next()
		}
		all = append(all, footprint{
			peer:       peer.name,
			sources:    n,
			bytes:      (inUse() - bytes) / float64(n),
			goroutines: float64(runtime.NumGoroutine()-goroutines) / float64(n),
		})
		runtime.KeepAlive(idle)
	}
	return all
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

// must panics if err isn't nil. It is for errors that can't happen.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

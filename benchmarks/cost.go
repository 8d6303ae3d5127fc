package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/perf/benchmath"
)

// A cost is the cost of an operation.
type cost struct {
	peer          string
	ns            float64           // the median
	ratio         benchmath.Summary // of its time to that of the first one
	allocs, bytes int
}

// compare returns the costs of operations, from the times of each in nanoseconds. The
// ratios are those of times that were measured one shortly after the other, so a machine
// that becomes slower or faster in between doesn't change them.
func compare(names []string, ns [][]float64) []cost {
	costs := make([]cost, len(names))
	for i := range names {
		ratios := make([]float64, len(ns[i]))
		for round := range ratios {
			ratios[round] = ns[i][round] / ns[0][round]
		}
		costs[i] = cost{peer: names[i], ns: summary(ns[i]).Center, ratio: summary(ratios)}
	}
	return costs
}

// summary returns the median, and its confidence interval.
func summary(values []float64) benchmath.Summary {
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0.95)
}

// An operation does the same n times.
type operation func(n int)

// A workload is an operation that is repeated, possibly by several callers at once.
type workload struct {
	peer    string
	callers int
	prepare func() operation
}

// ballast is the size of the heap in bytes, as that of a small service. With an empty heap,
// the garbage collector runs after every 4 MB. That takes more time than everything else as
// soon as another program uses the second core.
const ballast = 64 << 20

// batch is how many operations one of several callers does before it checks whether all are done.
const batch = 16

// measure takes samples of the workloads. In each round, all of them have a turn, in random
// order. Each is prepared anew, so its objects are at other places in memory. So neither a busy
// moment nor such a place decides on a ratio.
//
// It doesn't use testing.Benchmark, which needs many times as long as one of these samples to
// find out how often to repeat an operation.
func (s sampling) measure(workloads []workload) []cost {
	heap := make([]byte, ballast)
	defer runtime.KeepAlive(heap)
	names := make([]string, len(workloads))
	counts := make([]int, len(workloads))
	allocated := make([]cost, len(workloads))
	for i, w := range workloads {
		names[i] = w.peer
		counts[i], allocated[i] = w.calibrate(s.each)
	}
	ns := make([][]float64, len(workloads))
	for range s.count {
		for _, i := range rand.Perm(len(workloads)) {
			do := workloads[i].prepare()
			workloads[i].run(do, counts[i]/10) // This fills the caches of the processor.
			ns[i] = append(ns[i], float64(workloads[i].run(do, counts[i]))/float64(counts[i]))
		}
	}
	costs := compare(names, ns)
	for i := range costs {
		costs[i].allocs, costs[i].bytes = allocated[i].allocs, allocated[i].bytes
	}
	return costs
}

// calibrate returns how many operations take the time each, and what they allocate.
func (w workload) calibrate(each time.Duration) (count int, allocated cost) {
	do := w.prepare()
	for count = w.callers * batch; ; count *= 2 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		took := w.run(do, count)
		runtime.ReadMemStats(&after)
		if took < each/2 {
			continue
		}
		allocated.allocs = int(float64(after.Mallocs-before.Mallocs) / float64(count))
		allocated.bytes = int(float64(after.TotalAlloc-before.TotalAlloc) / float64(count))
		// Callers do whole batches.
		return max(int(float64(count)*float64(each)/float64(took))/batch, 1) * batch, allocated
	}
}

// run returns how long n operations take.
func (w workload) run(do operation, n int) time.Duration {
	if w.callers == 1 {
		start := time.Now()
		do(n)
		return time.Since(start)
	}
	var left atomic.Int64
	left.Store(int64(n / batch))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for range w.callers {
		wg.Go(func() {
			<-begin
			for left.Add(-1) >= 0 {
				do(batch)
			}
		})
	}
	start := time.Now()
	close(begin)
	wg.Wait()
	return time.Since(start)
}

// inMemory returns settings for costs without a network.
func inMemory(tokenLength int) settings {
	return settings{
		clientID: clientID,
		tokenURL: "https://login.example.com/token",
		tokens:   &http.Client{Transport: newInstant(tokenLength, time.Hour)},
		api:      newNoAPI(),
	}
}

// reads measures how long it takes to get a token from the cache, by the number of callers.
func (p plan) reads() map[int][]cost {
	ctx := context.Background()
	costs := make(map[int][]cost)
	for _, callers := range p.callers {
		var workloads []workload
		for _, peer := range append(peers(), textPeer, interfacePeer) {
			if peer.sources == nil {
				continue
			}
			workloads = append(workloads, workload{peer.name, callers, func() operation {
				read := peer.sources(inMemory(tokenLength))()
				_, err := read(ctx)
				must(err)
				return func(n int) {
					for range n {
						_, _ = read(ctx)
					}
				}
			}})
		}
		sampling := p.short
		if callers > 1 {
			sampling = p.long
		}
		costs[callers] = sampling.measure(workloads)
	}
	return costs
}

// trips measures the cost of adding a token to a request, for each number of header
// fields.
func (p plan) trips() map[int][]cost {
	costs := make(map[int][]cost)
	for _, fields := range p.fields {
		costs[fields] = p.tripsOf(fields, append(peers(), challengedPeer)...)
	}
	return costs
}

// targets measures the same in a program that uses targets. Nothing that is measured later is
// without them, because the package remembers that this process has made one.
func (p plan) targets() []cost { return p.tripsOf(5, upstreamPeer, ownPeer, targetPeer) }

func (p plan) tripsOf(fields int, peers ...peer) []cost {
	var workloads []workload
	for _, peer := range peers {
		workloads = append(workloads, workload{peer.name, 1, func() operation { return roundTrips(peer, fields) }})
	}
	return p.short.measure(workloads)
}

// roundTrips returns the operation of sending a request to an API without a network.
func roundTrips(peer peer, fields int) operation {
	transport := peer.transport(inMemory(tokenLength))
	req := newRequest(apiURL, fields)
	if peer.context != nil {
		req = req.WithContext(peer.context(req.Context()))
	}
	must(trip(transport, req))
	return func(n int) {
		for range n {
			_ = trip(transport, req)
		}
	}
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
		workloads = append(workloads, workload{peer.name, 1, func() operation {
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
			return func(n int) {
				for range n {
					_ = get()
				}
			}
		}})
	}
	return p.long.measure(workloads)
}

// requests measures a token request without a network.
func (p plan) requests() []cost {
	ctx := context.Background()
	var workloads []workload
	add := func(name string, prepare func(settings) func(context.Context) error) {
		workloads = append(workloads, workload{name, 1, func() operation {
			request := prepare(inMemory(tokenLength))
			must(request(ctx))
			return func(n int) {
				for range n {
					_ = request(ctx)
				}
			}
		}})
	}
	for _, peer := range peers() {
		if peer.request != nil {
			add(peer.name, peer.request)
		}
	}
	add("the minimum", func(s settings) func(context.Context) error {
		return func(ctx context.Context) error {
			_, _, err := s.requestToken(ctx)
			return err
		}
	})
	return p.short.measure(workloads)
}

func newRequest(address string, fields int) *http.Request {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	must(err)
	for i := range fields {
		req.Header.Set(fmt.Sprintf("X-Field-%d", i), "value")
	}
	return req
}

// must panics if err isn't nil. It is for errors that can't happen.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

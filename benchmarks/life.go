package main

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A call is a request to an API that answers at once. So its duration is the time that
// the token takes.
type call struct {
	at, took time.Duration // since the first token
	failed   bool
}

// A timeline is what the callers of one peer see.
type timeline struct {
	peer     string
	calls    []call
	requests []tokenRequest
}

// A tokenRequest is a token request as the server sees it.
type tokenRequest struct {
	at, took time.Duration
	ok       bool
}

// live runs all peers at the same time, each with its own server.
func (p lifePlan) live() []timeline {
	timelines := make([]timeline, len(peers()))
	var wg sync.WaitGroup
	for i, peer := range peers() {
		wg.Go(func() { timelines[i] = p.liveWith(peer) })
	}
	wg.Wait()
	return timelines
}

func (p lifePlan) liveWith(peer peer) timeline {
	server := startAuthServer(p.life)
	defer server.close()
	transport := peer.transport(server.settings(p.early))

	start := time.Now()
	must(trip(transport, newRequest(apiURL, 0)))
	server.delay.Store(int64(p.delay))
	if p.down != 0 {
		defer time.AfterFunc(p.down, func() { server.state.Store(down) }).Stop()
		defer time.AfterFunc(p.up, func() { server.state.Store(up) }).Stop()
	}

	var wg sync.WaitGroup
	calls := make([][]call, p.callers)
	for i := range calls {
		wg.Go(func() {
			time.Sleep(rand.N(p.pause))
			for time.Since(start) < p.end {
				began := time.Now()
				err := trip(transport, newRequest(apiURL, 0))
				calls[i] = append(calls[i], call{began.Sub(start), time.Since(began), err != nil})
				time.Sleep(p.pause)
			}
		})
	}
	wg.Wait()

	t := timeline{peer: peer.name, calls: slices.Concat(calls...)}
	slices.SortFunc(t.calls, func(a, b call) int { return int(a.at - b.at) })
	for _, r := range server.log() {
		t.requests = append(t.requests, tokenRequest{r.start.Sub(start), r.end.Sub(r.start), r.ok})
	}
	return t
}

// between returns the calls that ended in a period.
func (t timeline) between(from, to time.Duration) []call {
	var calls []call
	for _, c := range t.calls {
		if end := c.at + c.took; from <= end && end < to {
			calls = append(calls, c)
		}
	}
	return calls
}

func failures(calls []call) int {
	n := 0
	for _, c := range calls {
		if c.failed {
			n++
		}
	}
	return n
}

// waits returns how many calls took limit or longer.
func waits(calls []call, limit time.Duration) int {
	n := 0
	for _, c := range calls {
		if c.took >= limit {
			n++
		}
	}
	return n
}

// quantile returns the longest duration among the fastest calls, whose share of all is q.
func quantile(calls []call, q float64) time.Duration {
	if len(calls) == 0 {
		return 0
	}
	took := make([]time.Duration, len(calls))
	for i, c := range calls {
		took[i] = c.took
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}

// recovery returns how long it took, from the time after, until a call succeeded. It
// returns -1 if none did.
func (t timeline) recovery(after time.Duration) time.Duration {
	for _, c := range t.calls {
		if !c.failed && c.at+c.took >= after {
			return c.at + c.took - after
		}
	}
	return -1
}

// A crowd is the result of many calls at once.
type crowd struct {
	peer     string
	callers  int
	calls    []call
	requests int64 // for a token
	took     time.Duration
}

// stampedes measures cold starts, for each number of callers at once.
func (p plan) stampedes() map[int][]crowd {
	crowds := make(map[int][]crowd)
	for _, callers := range p.crowds {
		for _, peer := range peers() {
			server := startAuthServer(time.Hour)
			server.delay.Store(int64(p.crowdDelay))
			crowds[callers] = append(crowds[callers], runCrowd(peer, server, callers, 1))
			server.close()
		}
	}
	return crowds
}

// refusals measures what happens when the server refuses the credentials.
func (p plan) refusals() []crowd {
	var crowds []crowd
	for _, peer := range peers() {
		server := startAuthServer(time.Hour)
		server.delay.Store(int64(p.refusedDelay))
		server.state.Store(refusing)
		crowds = append(crowds, runCrowd(peer, server, p.refusedCallers, p.refusedCalls))
		server.close()
	}
	return crowds
}

// runCrowd lets callers call the API at the same time, each callsEach times in a row.
func runCrowd(peer peer, server *authServer, callers, callsEach int) crowd {
	transport := peer.transport(server.settings(0))
	calls := make([][]call, callers)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			<-begin
			for range callsEach {
				began := time.Now()
				err := trip(transport, newRequest(apiURL, 0))
				calls[i] = append(calls[i], call{took: time.Since(began), failed: err != nil})
			}
		})
	}
	start := time.Now()
	close(begin)
	wg.Wait()
	return crowd{peer.name, callers, slices.Concat(calls...), server.requests.Load(), time.Since(start)}
}

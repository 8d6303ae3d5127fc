package main

import (
	"bytes"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// A part is a part of a round trip that takes time.
type part struct {
	text     string
	function string // the end of its name
}

// parts are the parts of a round trip. They overlap, because all of them allocate.
var parts = []part{
	{"getting the token: `x/oauth2`", "oauth2.(*reuseTokenSource).Token"},
	{"getting the token: `Client`", "clientcredentials.(*clientSource).Token"},
	{"getting the token: `Transport`", "clientcredentials.(*Source).get"},
	{"reading the clock", "time.Now"},
	{"`http.Request.Clone`", "net/http.(*Request).Clone"},
	{"`oauth2.Token.SetAuthHeader`", "oauth2.(*Token).SetAuthHeader"},
	{"the guard under `Client`, with an API that does nothing", "clientcredentials.(*guard).RoundTrip"},
	{"the copy of the request in `Transport`", "clientcredentials.withAuthorization"},
	{"allocating memory, in all of the above", "runtime.mallocgc"},
}

// shares is the share of its time that a workload spends on each part.
type shares struct {
	peer string
	of   map[part]float64
}

// profiles measures the parts of round trips with five header fields.
func (p plan) profiles() ([]shares, error) {
	heap := make([]byte, ballast)
	defer runtime.KeepAlive(heap)
	var all []shares
	for _, peer := range []peer{upstreamPeer, dropInPeer, ownPeer} {
		do := roundTrips(peer, 5)
		var raw bytes.Buffer
		if err := pprof.StartCPUProfile(&raw); err != nil {
			return nil, err
		}
		for start := time.Now(); time.Since(start) < p.profile; {
			do(batch)
		}
		pprof.StopCPUProfile()
		parsed, err := profile.Parse(&raw)
		if err != nil {
			return nil, err
		}
		all = append(all, shares{peer.name, sharesOf(parsed)})
	}
	return all, nil
}

// sharesOf returns the share of each part in the samples of a round trip.
func sharesOf(p *profile.Profile) map[part]float64 {
	total, of := 0.0, make(map[part]float64)
	for _, sample := range p.Sample {
		names := make(map[string]bool)
		for _, location := range sample.Location {
			for _, line := range location.Line {
				names[line.Function.Name] = true
			}
		}
		has := func(end string) bool {
			for name := range names {
				if strings.HasSuffix(name, end) {
					return true
				}
			}
			return false
		}
		if !has("Transport).RoundTrip") {
			continue // This is the garbage collector or the benchmark itself.
		}
		value := float64(sample.Value[len(sample.Value)-1])
		total += value
		for _, part := range parts {
			if has(part.function) {
				of[part] += value
			}
		}
	}
	for part := range of {
		of[part] /= total
	}
	return of
}

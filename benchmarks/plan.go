package main

import "time"

// tokenLength is the length of the access tokens in bytes: that of a small JWT.
const tokenLength = 800

// opaqueLength is the length of tokens that aren't JWTs.
const opaqueLength = 40

// A plan says how much is measured.
type plan struct {
	// Costs
	short   sampling      // of most costs
	long    sampling      // of costs with a network, or with several callers
	fields  []int         // header fields of requests
	callers []int         // at the same time
	profile time.Duration // how long a profile takes

	// Idle sources
	sources []int // how many

	// Tenants
	tenants       int // each with a source
	tenantCallers int // at the same time
	rounds        int // of replacing all tokens
	readRounds    int // of reading all tokens

	// ccproxy
	proxyRuns int    // of its benchmark
	eachProxy string // how long each part of a run takes, or how many requests it makes

	// Cold starts
	crowds     []int         // callers at once
	crowdDelay time.Duration // of the token request

	// Credentials that the server refuses
	refusedCallers, refusedCalls int           // calls for each caller
	refusedDelay                 time.Duration // of a token request

	refresh, outage lifePlan
}

// A sampling is how many samples of a cost are taken, in turns with others, and how long each
// of them takes. If other programs use the machine now and then, most short samples are not
// interrupted.
type sampling struct {
	count int
	each  time.Duration
}

// A lifePlan is the plan of a scenario in real time. Its times start at the first token.
type lifePlan struct {
	life     time.Duration // of a token
	early    time.Duration // how long before its expiry a token is replaced, if that can be set
	delay    time.Duration // of the token requests after the first
	down, up time.Duration // when the server goes down and comes back; 0: it stays up
	end      time.Duration
	callers  int
	pause    time.Duration // of a caller between two calls
}

// x/oauth2 always replaces a token 10 seconds before its expiry. So the tokens of these
// plans live for 20 seconds.
var fullPlan = plan{
	short:   sampling{800, 500 * time.Microsecond},
	long:    sampling{200, 5 * time.Millisecond},
	fields:  []int{0, 5, 20},
	callers: []int{1, 2, 20, 200, 1000},
	profile: 3 * time.Second,

	sources: []int{1000, 10_000, 100_000},

	tenants:       10_000,
	tenantCallers: 200,
	rounds:        6,
	readRounds:    30,

	proxyRuns: 100,
	eachProxy: "20ms",

	crowds:     []int{1, 10, 100, 1000},
	crowdDelay: 200 * time.Millisecond,

	refusedCallers: 50,
	refusedCalls:   20,
	refusedDelay:   2 * time.Millisecond,

	refresh: lifePlan{
		life:    20 * time.Second,
		early:   8 * time.Second,
		delay:   time.Second,
		end:     18 * time.Second,
		callers: 8,
		pause:   200 * time.Millisecond,
	},
	outage: lifePlan{
		life:    20 * time.Second,
		early:   8 * time.Second,
		delay:   20 * time.Millisecond,
		down:    7 * time.Second,
		up:      25 * time.Second,
		end:     35 * time.Second,
		callers: 8,
		pause:   400 * time.Millisecond,
	},
}

// smokePlan is for tests: it ends at once, and its numbers mean nothing.
var smokePlan = plan{
	short:   sampling{2, time.Millisecond},
	long:    sampling{2, time.Millisecond},
	fields:  []int{0, 5, 20},
	callers: []int{1, 2},
	profile: 20 * time.Millisecond,

	sources: []int{10},

	tenants:       10,
	tenantCallers: 2,
	rounds:        1,
	readRounds:    1,

	proxyRuns: 1,
	eachProxy: "1x",

	crowds:     []int{1, 5},
	crowdDelay: time.Millisecond,

	refusedCallers: 2,
	refusedCalls:   2,
	refusedDelay:   time.Millisecond,

	refresh: lifePlan{
		life:    20 * time.Second,
		early:   8 * time.Second,
		delay:   time.Millisecond,
		end:     30 * time.Millisecond,
		callers: 2,
		pause:   5 * time.Millisecond,
	},
	outage: lifePlan{
		life:    20 * time.Second,
		early:   8 * time.Second,
		delay:   time.Millisecond,
		down:    5 * time.Millisecond,
		up:      20 * time.Millisecond,
		end:     30 * time.Millisecond,
		callers: 2,
		pause:   5 * time.Millisecond,
	},
}

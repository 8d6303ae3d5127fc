// Outage shows what happens to API calls while the authorization server is slow, and
// while it is down. It compares this package with golang.org/x/oauth2/clientcredentials
// in the same run and under the same load.
//
//	go run ./examples/outage
//
// It takes about 25 seconds, and starts its own servers on the loopback interface.
package main

import (
	"context"
	"io"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const usage = `Usage: outage

Starts authorization servers and APIs on the loopback interface, and calls the
APIs for 25 seconds, with this package and with x/oauth2. In that time the
authorization servers are slow for a while, and down for a while.

The exit status is 0 if all checks of this package pass, else 1. The numbers of
x/oauth2 are only reported.
`

func main() {
	report.Main("outage", usage, func(ctx context.Context, out io.Writer) error { return run(ctx, defaultPlan, out) })
}

// plan is the size of the demonstration.
type plan struct {
	lifetime time.Duration // of a token
	early    time.Duration // Config.EarlyRefresh
	delay    time.Duration // of a token request, while the authorization server is slow
	callers  int           // of each API, at the same time
	pause    time.Duration // of a caller between two calls
	tick     time.Duration // between two lines of the output

	// How long the server is in each state, in ticks.
	up, slow, upAgain, down, recovered int
}

// x/oauth2 uses a token that lives for 18 seconds for 8 seconds. So it requests tokens
// after 8 seconds, when the server is slow, and after 17.5 seconds. This package requests
// them after 9 to 10.5 seconds, and after 18 to 21. The server is down from 16 to 22.
var defaultPlan = plan{
	lifetime:  18 * time.Second,
	early:     10 * time.Second,
	delay:     1500 * time.Millisecond,
	callers:   4,
	pause:     40 * time.Millisecond,
	tick:      time.Second,
	up:        7,
	slow:      5,
	upAgain:   4,
	down:      6,
	recovered: 3,
}

func run(ctx context.Context, p plan, out io.Writer) error {
	r := report.New(out)
	if err := demonstrate(ctx, r, p); err != nil {
		return err
	}
	return r.Result()
}

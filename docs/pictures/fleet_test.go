package pictures

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/internal/svg"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	replicas     = 100
	fleetLatency = 300 * time.Millisecond // of the authorization server
	fleetLimit   = 20                     // token requests that it takes in a second, if it has a limit
)

// A limited is an authorization server that takes so many token requests in a second, and
// answers the others with 429.
type limited struct {
	server http.Handler

	mu     sync.Mutex // protects what follows
	second int64
	taken  int
}

func (l *limited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	if now := time.Now().Unix(); now != l.second {
		l.second, l.taken = now, 0
	}
	l.taken++
	refused := l.taken > fleetLimit
	l.mu.Unlock()
	if refused {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	}
	l.server.ServeHTTP(w, r)
}

// A deployment is what happens when all replicas start at once and each keeps asking for a
// token until it has one.
type deployment struct {
	ready    []time.Duration // when each replica has a token
	requests int             // that the authorization server received
}

func deploy(t *testing.T, shared, limit bool) (d deployment) {
	testkit.Bubble(t, func(t *testing.T) {
		server := newServer(time.Hour)
		server.Latency = fleetLatency
		var mu sync.Mutex // protects d.requests
		var handler http.Handler = server
		if limit {
			handler = &limited{server: server}
		}
		network := clientcredentialstest.HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			d.requests++
			mu.Unlock()
			handler.ServeHTTP(w, r)
		}))
		var store storetest.Store
		d.ready = make([]time.Duration, replicas)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range d.ready {
			conf := server.ours()
			conf.HTTPClient = &http.Client{Transport: network}
			if shared {
				replica := store.Connect()
				replica.SetFault(&storetest.Fault{Delay: 2 * time.Millisecond}) // the way to the store
				conf.Store = clientcredentials.DangerouslyShareInPlaintext(replica)
			}
			wg.Go(func() {
				source := conf.Source(t.Context())
				for {
					if _, err := source.Token(); err == nil {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				d.ready[i] = time.Since(start)
			})
		}
		wg.Wait()
		time.Sleep(time.Minute) // What is still under way ends.
	})
	slices.Sort(d.ready)
	return d
}

func drawFleet(t *testing.T) *svg.Picture {
	const top, bottom = 78, 258
	p := svg.New(760, 356, "A service of 100 replicas starts: when each of them has a token, without and with a store")
	p.Text(16, 26, svg.Start, svg.Title, "100 replicas of a service start at once")
	next := key(p, 420, 26, svg.Late, "without a store")
	key(p, next, 26, svg.Good, "with Config.Store")
	y := scale{0, replicas, bottom, top}
	for _, panel := range []struct {
		name        string
		limit       bool
		left, right float64
		end, tick   time.Duration
	}{
		{"The server takes all token requests", false, 62, 372, 500 * time.Millisecond, 100 * time.Millisecond},
		{fmt.Sprintf("The server takes %d a second", fleetLimit), true, 430, 740, 5 * time.Second, time.Second},
	} {
		x := scale{0, panel.end.Seconds(), panel.left, panel.right}
		p.Text(panel.left, 58, svg.Start, svg.Label, panel.name)
		for n := 0; n <= replicas; n += 25 {
			p.Line(panel.left, y.at(float64(n)), panel.right, y.at(float64(n)), svg.Grid)
			p.Text(panel.left-8, y.at(float64(n))+4, svg.End, svg.Note, fmt.Sprint(n))
		}
		for at := time.Duration(0); at <= panel.end; at += panel.tick {
			p.Line(x.time(at), bottom, x.time(at), bottom+5, svg.ThinLine)
			p.Text(x.time(at), bottom+20, svg.Middle, svg.Note, fmt.Sprint(at.Seconds()))
		}
		without, with := deploy(t, false, panel.limit), deploy(t, true, panel.limit)
		require.GreaterOrEqual(t, without.requests, replicas)
		require.Equal(t, 1, with.requests)
		p.Draw(with.curve(x, y), svg.GoodLine)
		p.Draw(without.curve(x, y), svg.LateLine)
		text := panel.left + 8
		if panel.limit {
			text += 120 // Below the stairs.
		}
		p.Text(text, bottom-25, svg.Start, svg.Label, fmt.Sprintf("without: %d token requests", without.requests))
		p.Text(text, bottom-8, svg.Start, svg.Label, fmt.Sprintf("with: %d", with.requests))
	}
	for i, line := range []string{
		"Across: seconds since the start. Up: replicas that have a token. A token request takes 0.3 seconds, and a call",
		"to the store 2 milliseconds. On the right the server answers 429 with Retry-After: 1 to all requests beyond 20 in",
		"a second. A replica that gets an error asks for a token again after 0.1 seconds.",
	} {
		p.Text(16, float64(300+18*i), svg.Start, svg.Note, line)
	}
	return p
}

// curve draws how many replicas have a token.
func (d deployment) curve(x, y scale) *svg.Path {
	var path svg.Path
	path.Move(x.at(0), y.at(0))
	for i, at := range d.ready {
		path.To(x.time(at), y.at(float64(i)))
		path.To(x.time(at), y.at(float64(i+1)))
	}
	path.To(x.right, y.at(replicas))
	return &path
}

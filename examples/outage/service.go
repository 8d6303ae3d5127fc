package main

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	upstream "golang.org/x/oauth2/clientcredentials"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

const (
	clientID     = "outage"
	clientSecret = "correct horse battery staple"
)

// A service calls an API all the time. It has its own servers.
type service struct {
	server  *clientcredentialstest.Server
	network *network
	client  *http.Client
	tokens  oauth2.TokenSource // the tokens of client

	mu           sync.Mutex // protects what follows
	tick, total  calls
	firstFailure time.Time
	lastError    error
}

// calls sums up a number of API calls.
type calls struct {
	succeeded, failed int
	slowest           time.Duration
	tokenRequests     int64
}

func (c calls) slowestText() string {
	if c.succeeded+c.failed == 0 {
		return "-"
	}
	return report.Round(c.slowest).String()
}

// newService starts the servers. It doesn't set the client.
func newService(ctx context.Context, lifetime time.Duration) (*service, context.Context) {
	s := &service{server: clientcredentialstest.NewServer(clientcredentialstest.Client{ID: clientID, Secret: clientSecret})}
	s.server.Auth.TokenLifetime = lifetime
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 100
	s.network = &network{Transport: transport, tokenURL: s.server.TokenURL}
	return s, context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: s.network})
}

// withThisPackage makes the client in two steps, because this program also uses the
// Status of the Source. conf.Client(ctx) does the same in one step.
func withThisPackage(ctx context.Context, lifetime, early time.Duration) (*service, *clientcredentials.Source) {
	s, ctx := newService(ctx, lifetime)
	conf := clientcredentials.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		TokenURL:     s.server.TokenURL,
		EarlyRefresh: early,
	}
	source := conf.Source(ctx)
	s.client = &http.Client{Transport: &clientcredentials.Transport{Source: source, Base: s.network}}
	s.tokens = source
	return s, source
}

func withUpstream(ctx context.Context, lifetime time.Duration) *service {
	s, ctx := newService(ctx, lifetime)
	conf := upstream.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		TokenURL:     s.server.TokenURL,
	}
	s.client = conf.Client(ctx)
	s.tokens = s.client.Transport.(*oauth2.Transport).Source
	return s
}

// setState brings the authorization server up, makes it slow, or takes it down.
func (s *service) setState(state string, delay time.Duration) error {
	switch state {
	case "down":
		s.server.Stop()
		return nil
	case "slow":
		s.server.Auth.SetFault(&clientcredentialstest.Fault{Delay: delay})
	default:
		s.server.Auth.SetFault(nil)
	}
	return s.server.Restart()
}

func (s *service) close() {
	s.server.Close()
	s.network.CloseIdleConnections()
}

// network counts token requests, including those that reach no server.
type network struct {
	*http.Transport
	tokenURL      string
	tokenRequests atomic.Int64
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.String() == n.tokenURL {
		n.tokenRequests.Add(1)
	}
	return n.Transport.RoundTrip(req)
}

// load starts callers that call the API until stop is called.
func (s *service) load(ctx context.Context, callers int, pause time.Duration) (stop func()) {
	running, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for running.Err() == nil {
				start := time.Now()
				_, err := report.Get(ctx, s.client, s.server.APIURL) // Not with running: let a call that has started finish.
				s.count(time.Since(start), err)
				_ = report.Sleep(running, pause)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func (s *service) count(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick.slowest = max(s.tick.slowest, took)
	if err == nil {
		s.tick.succeeded++
		return
	}
	s.tick.failed++
	if s.lastError = err; s.firstFailure.IsZero() {
		s.firstFailure = time.Now()
	}
}

// endTick returns the calls that ended since the last call of endTick.
func (s *service) endTick() calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.network.tokenRequests.Load()
	tick := s.tick
	tick.tokenRequests = requests - s.total.tokenRequests
	s.tick = calls{}
	s.total.succeeded += tick.succeeded
	s.total.failed += tick.failed
	s.total.slowest = max(s.total.slowest, tick.slowest)
	s.total.tokenRequests = requests
	return tick
}

package pictures

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/svg"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	life      = time.Hour
	lifeFrom  = 54 * time.Minute // the part of a token's life that is drawn
	lifeUntil = 61 * time.Minute
	slowly    = 2 * time.Second // how long a token request takes
)

// refreshes returns how old the tokens of many Sources are when their replacement starts in
// the background. Each Source is asked once a second.
func refreshes(t *testing.T) (ages []time.Duration) {
	testkit.Bubble(t, func(t *testing.T) {
		server := newServer(life)
		var mu sync.Mutex // protects ages
		var wg sync.WaitGroup
		start := time.Now()
		for range 300 {
			conf := server.ours()
			conf.Observer = &clientcredentials.Observer{RefreshStarted: func(info event.RefreshStarted) {
				if info.Background {
					mu.Lock()
					defer mu.Unlock()
					ages = append(ages, time.Since(start))
				}
			}}
			wg.Go(func() {
				source := conf.Source(t.Context())
				_, err := source.Token()
				require.NoError(t, err)
				time.Sleep(lifeFrom)
				for time.Since(start) < 57*time.Minute {
					_, err := source.Token()
					require.NoError(t, err)
					time.Sleep(time.Second)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
	})
	require.Len(t, ages, 300, "each token is replaced once")
	slices.Sort(ages)
	return ages
}

// A call is what a caller gets.
type call struct {
	at     time.Duration
	waited time.Duration
	err    error
}

func (c call) style() svg.Style {
	switch {
	case c.err != nil:
		return svg.Bad
	case c.waited > 0:
		return svg.Late
	}
	return svg.Good
}

// firstCalls returns what callers get who are the first to ask since a token was issued: one
// every 10 seconds of its life, and at the end one every second.
func firstCalls(t *testing.T, fault *clientcredentialstest.Fault, tokens func(context.Context, authorizationServer) oauth2.TokenSource) []call {
	var calls []call
	for at := lifeFrom; at < lifeUntil; {
		calls = append(calls, call{at: at})
		if at < life-30*time.Second {
			at += 10 * time.Second
		} else {
			at += time.Second
		}
	}
	testkit.Bubble(t, func(t *testing.T) {
		server := newServer(life)
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, server.client())
		start := time.Now()
		var wg sync.WaitGroup
		for i := range calls {
			source := tokens(ctx, server)
			_, err := source.Token()
			require.NoError(t, err)
			wg.Go(func() {
				time.Sleep(time.Until(start.Add(calls[i].at)))
				_, calls[i].err = source.Token()
				calls[i].waited = time.Since(start) - calls[i].at
			})
		}
		server.SetFault(fault)
		wg.Wait()
		time.Sleep(time.Minute) // Requests in the background end by themselves.
	})
	return calls
}

func ourTokens(ctx context.Context, server authorizationServer) oauth2.TokenSource {
	return server.ours().Source(ctx)
}

func theirTokens(ctx context.Context, server authorizationServer) oauth2.TokenSource {
	return server.theirs().TokenSource(ctx)
}

func drawLife(t *testing.T) *svg.Picture {
	const left, right, height = 168, 740, 22
	p := svg.New(760, 358, "The last minutes of a token that lives for an hour: when it is replaced, and what callers get")
	x := scale{lifeFrom.Seconds(), lifeUntil.Seconds(), left, right}
	p.Text(16, 26, svg.Start, svg.Title, "The last minutes of a token that lives for an hour")
	for age := lifeFrom; age <= lifeUntil; age += time.Minute {
		p.Line(x.time(age), 50, x.time(age), 305, svg.Grid)
		p.Text(x.time(age), 322, svg.Middle, svg.Note, clock(age))
	}
	p.Text((left+right)/2, 342, svg.Middle, svg.Note, "age of the token, in minutes and seconds")

	// The share of programs in which the replacement has started.
	ages := refreshes(t)
	first, last := ages[0], ages[len(ages)-1]
	require.InDelta(t, 55*60, first.Seconds(), 4)
	require.InDelta(t, 56*60+15, last.Seconds(), 4)
	y := scale{0, float64(len(ages)), 112, 62}
	p.Rect(left, 62, x.time(lifeUntil)-left, 50, svg.Good)
	var started svg.Path
	started.Move(x.time(first), y.at(0))
	for i := 0; i < len(ages); i += 5 {
		started.To(x.time(ages[i]), y.at(float64(i)))
	}
	started.To(x.time(last), y.at(float64(len(ages))))
	started.To(x.time(life), 62)
	started.To(x.time(life), 112)
	p.Draw(&started, svg.Stale)
	p.Rect(x.time(life), 62, x.time(lifeUntil)-x.time(life), 50, svg.Bad)
	p.Text(left-10, 84, svg.End, svg.Label, "state of the token,")
	p.Text(left-10, 101, svg.End, svg.Label, "in many programs")
	p.Text(x.time(54*time.Minute+30*time.Second), 91, svg.Middle, svg.Label, "fresh")
	p.Text(x.time(58*time.Minute), 84, svg.Middle, svg.Label, "stale: due to be replaced,")
	p.Text(x.time(58*time.Minute), 101, svg.Middle, svg.Label, "and used until it is")
	p.Text(x.time(60*time.Minute+30*time.Second), 91, svg.Middle, svg.Label, "expired")
	p.Text(left, 132, svg.Start, svg.Note, "The replacement starts in the background, at a random moment from 55:00 to 56:15.")

	down := clientcredentialstest.Unavailable()
	slow := clientcredentialstest.Fault{Delay: slowly}
	lane := 148.0
	for _, row := range []struct {
		label  string
		fault  clientcredentialstest.Fault
		tokens func(context.Context, authorizationServer) oauth2.TokenSource
		then   svg.Style // what calls get at the end
		from   string    // and from when
	}{
		{"this package", slow, ourTokens, svg.Late, "59:50"},
		{"x/oauth2", slow, theirTokens, svg.Late, "59:51"},
		{"this package", down, ourTokens, svg.Bad, "60:00"},
		{"x/oauth2", down, theirTokens, svg.Bad, "59:51"},
	} {
		switch lane {
		case 148:
			p.Text(left, lane+14, svg.Start, svg.Label, "The first call at that age. If a token takes 2 seconds, it waits from 59:50 on:")
			lane += 22
		case 224:
			p.Text(left, lane+14, svg.Start, svg.Label, "The same, if the authorization server is down:")
			lane += 22
		}
		p.Text(left-10, lane+16, svg.End, svg.Label, row.label)
		calls := firstCalls(t, &row.fault, row.tokens)
		change := slices.IndexFunc(calls, func(c call) bool { return c.style() != svg.Good })
		then := calls[change].at
		require.Equal(t, row.from, clock(then), row.label)
		for _, c := range calls[change:] {
			require.Equal(t, row.then, c.style(), row.label)
		}
		p.Rect(left, lane, x.time(then)-left, height, svg.Good)
		p.Rect(x.time(then), lane, right-x.time(then), height, row.then)
		lane += 27
	}
	next := key(p, 430, 26, svg.Good, "at once")
	next = key(p, next, 26, svg.Late, "after waiting")
	key(p, next, 26, svg.Bad, "no token")
	return p
}

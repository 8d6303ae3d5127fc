package pictures

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/svg"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	outageLife    = 10 * time.Minute // of a token
	outageEnd     = 20 * time.Minute
	outageCallers = 5 // each makes a call a second after its last one
	outageStep    = 10 * time.Second
)

// Two outages. The first begins when x/oauth2 hasn't replaced its token yet, and the second
// when it is this package's turn.
var outages = [][2]time.Duration{
	{9 * time.Minute, 11 * time.Minute},
	{14*time.Minute + 50*time.Second, 16*time.Minute + 50*time.Second},
}

// A service is what the callers of a program get.
type service struct {
	calls    []map[svg.Style]int // by the step in which they ended
	dead     []time.Duration     // when token requests arrived at a server that was down
	answered []time.Duration     // and when they got a token
}

// live runs a program through the outages. A token request takes 2 seconds.
func live(t *testing.T, tokens func(context.Context, authorizationServer) oauth2.TokenSource) *service {
	s := &service{calls: make([]map[svg.Style]int, outageEnd/outageStep)}
	for step := range s.calls {
		s.calls[step] = map[svg.Style]int{}
	}
	testkit.Bubble(t, func(t *testing.T) {
		server := newServer(outageLife)
		server.Latency = slowly
		start := time.Now()
		for _, outage := range outages {
			fault := clientcredentialstest.Unavailable()
			time.AfterFunc(outage[0], func() { server.SetFault(&fault) })
			time.AfterFunc(outage[1], func() { server.SetFault(nil) })
		}
		source := tokens(context.WithValue(t.Context(), oauth2.HTTPClient, server.client()), server)
		_, err := source.Token()
		require.NoError(t, err)
		var mu sync.Mutex // protects s
		var wg sync.WaitGroup
		for i := range outageCallers {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second / outageCallers)
				for {
					began := time.Now()
					_, err := source.Token()
					c := call{began.Sub(start), time.Since(began), err}
					step := time.Since(start) / outageStep
					if int(step) >= len(s.calls) {
						return
					}
					mu.Lock()
					s.calls[step][c.style()]++
					mu.Unlock()
					time.Sleep(time.Second)
				}
			})
		}
		wg.Wait()
		for _, request := range server.Requests() {
			at := request.Time.Sub(start)
			if isDown(at) {
				s.dead = append(s.dead, at)
			} else {
				s.answered = append(s.answered, at)
			}
		}
		time.Sleep(time.Minute) // Requests in the background end by themselves.
	})
	return s
}

// count returns how many calls ended like that.
func (s *service) count(style svg.Style) (n int) {
	for _, calls := range s.calls {
		n += calls[style]
	}
	return n
}

func isDown(at time.Duration) bool {
	for _, outage := range outages {
		if outage[0] <= at && at < outage[1] {
			return true
		}
	}
	return false
}

// inTurn is a TokenSource for callers who wait for each other. x/oauth2 does that with a
// mutex, during which simulated time would stand still.
type inTurn struct {
	turn   chan struct{}
	source oauth2.TokenSource
}

func (s inTurn) Token() (*oauth2.Token, error) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.source.Token()
}

func drawOutage(t *testing.T) *svg.Picture {
	const left, right, top, panel, bars = 64, 744, 62, 172, 96
	p := svg.New(760, 438, "Calls of two programs, one with x/oauth2 and one with this package, across two outages of the authorization server")
	x := scale{0, outageEnd.Seconds(), left, right}
	next := key(p, left, 26, svg.Good, "token at once")
	next = key(p, next, 26, svg.Late, "after waiting")
	next = key(p, next, 26, svg.Bad, "no token")
	key(p, next, 26, svg.Down, "authorization server down")

	theirs := live(t, func(ctx context.Context, server authorizationServer) oauth2.TokenSource {
		return inTurn{make(chan struct{}, 1), theirTokens(ctx, server)}
	})
	ours := live(t, ourTokens)
	require.NotEmpty(t, ours.dead)
	require.Zero(t, ours.count(svg.Bad))
	require.Zero(t, ours.count(svg.Late))
	for i, row := range []struct {
		name string
		*service
	}{{"x/oauth2", theirs}, {"this package", ours}} {
		y := float64(top + i*panel)
		for _, outage := range outages {
			p.Rect(x.time(outage[0]), y, x.time(outage[1])-x.time(outage[0]), bars+38, svg.Down)
		}
		text := "no call failed, and none waited"
		if failed := row.count(svg.Bad); failed > 0 {
			text = fmt.Sprintf("%d calls failed, %d waited, %d token requests to a server that is down", failed, row.count(svg.Late), len(row.dead))
		}
		p.Text(left, y-8, svg.Start, svg.Title, row.name)
		p.Text(left+110, y-8, svg.Start, svg.Note, text)

		height := scale{0, 62, 0, bars}
		var good, late, bad svg.Path
		for step, calls := range row.calls {
			at, width := x.time(time.Duration(step)*outageStep)+0.5, (right-left)/float64(len(row.calls))-1
			base := y + bars
			for _, part := range []struct {
				style svg.Style
				path  *svg.Path
			}{{svg.Good, &good}, {svg.Late, &late}, {svg.Bad, &bad}} {
				if n := calls[part.style]; n > 0 {
					h := height.at(float64(n))
					part.path.Rect(at, base-h, width, h)
					base -= h
				}
			}
		}
		p.Draw(&good, svg.Good)
		p.Draw(&late, svg.Late)
		p.Draw(&bad, svg.Bad)
		p.Line(left, y+bars, right, y+bars, svg.ThinLine)
		for _, n := range []float64{0, 25, 50} {
			p.Text(left-8, y+bars-height.at(n)+4, svg.End, svg.Note, fmt.Sprint(n))
		}

		// Token requests.
		var answered, dead svg.Path
		for _, at := range row.answered {
			answered.Move(x.time(at), y+bars+8)
			answered.To(x.time(at), y+bars+30)
		}
		drawn := -1.0
		for _, at := range row.dead {
			if x.time(at)-drawn < 1 {
				continue // It would be drawn over the last one.
			}
			drawn = x.time(at)
			dead.Move(drawn, y+bars+8)
			dead.To(drawn, y+bars+30)
		}
		p.Draw(&answered, svg.GoodLine)
		p.Draw(&dead, svg.BadLine)
		p.Text(left-8, y+bars+16, svg.End, svg.Note, "token")
		p.Text(left-8, y+bars+30, svg.End, svg.Note, "requests")
	}
	for at := time.Duration(0); at <= outageEnd; at += 2 * time.Minute {
		p.Line(x.time(at), top+panel+bars+38, x.time(at), top+panel+bars+44, svg.ThinLine)
		p.Text(x.time(at), top+panel+bars+58, svg.Middle, svg.Note, fmt.Sprint(at.Minutes()))
	}
	p.Text((left+right)/2, top+panel+bars+78, svg.Middle, svg.Note, "minutes since the first token. Tokens live for 10 minutes, and a token request takes 2 seconds.")
	p.Text((left+right)/2, top+panel+bars+96, svg.Middle, svg.Note, "Bars: calls in 10 seconds. Five callers each make a call a second after their last one.")
	return p
}

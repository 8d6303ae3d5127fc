package pictures

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/svg"
)

// A network sends every request to the authorization server or to an API that redirects from
// each address of the chain to the next, and notes who got a token.
type network struct {
	server authorizationServer
	chain  []string

	tokens []string // what the servers of the chain received as Authorization
}

// RoundTrip implements http.RoundTripper.
func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == "auth.example" {
		return n.server.client().Transport.RoundTrip(req)
	}
	n.tokens = append(n.tokens, req.Header.Get("Authorization"))
	next := len(n.tokens)
	return clientcredentialstest.HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if next < len(n.chain) {
			http.Redirect(w, r, n.chain[next], http.StatusTemporaryRedirect)
		}
	})).RoundTrip(req)
}

// A journey is a call to an API, and what became of the token.
type journey struct {
	chain   []string
	own     int      // how many servers of the chain, from the first on, are meant to get it
	origins []string // Config.Origins, which x/oauth2 doesn't have
	note    string
}

// follow makes the call, and returns for each address of the chain whether it got the token.
// The result is shorter than the chain if the rest of it was never called.
func (j journey) follow(t *testing.T, client func(context.Context, authorizationServer) *http.Client) (got []bool) {
	n := &network{server: newServer(time.Hour), chain: j.chain}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: n})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.chain[0], http.NoBody)
	require.NoError(t, err)
	resp, err := client(ctx, n.server).Do(req)
	if err == nil {
		require.NoError(t, resp.Body.Close())
	}
	for _, token := range n.tokens {
		got = append(got, token != "")
	}
	return got
}

func drawOrigins(t *testing.T) *svg.Picture {
	const api, files = "https://api.example", "https://files.example"
	p := svg.New(760, 392, "Which servers get the token when an API redirects, with this package and with x/oauth2")
	p.Text(16, 26, svg.Start, svg.Title, "The program calls an API, and the API redirects: who gets the token?")
	p.Text(594, 52, svg.Middle, svg.Label, "this package")
	p.Text(698, 52, svg.Middle, svg.Label, "x/oauth2")
	y := 62.0
	for _, j := range []journey{
		{chain: []string{api, api + "/2"}, own: 2},
		{chain: []string{api, api + ":8443"}, own: 1},
		{chain: []string{api, files}, own: 1},
		{chain: []string{api, "http://api.example"}, own: 1},
		{chain: []string{api, files, api + "/2"}, own: 1},
		{chain: []string{api, files}, own: 2, origins: []string{api, files}, note: "Origins lists both"},
		{chain: []string{files}, origins: []string{api}, note: "Origins lists only " + api},
	} {
		x := 16.0
		for i, address := range j.chain {
			if i > 0 {
				p.Arrow(x-15, x-2, y+18, svg.ThinLine)
			}
			p.Rect(x, y+4, 158, 28, svg.Box)
			p.Text(x+79, y+22, svg.Middle, svg.Note, address)
			x += 175
		}
		if j.note != "" {
			p.Text(x-8, y+22, svg.Start, svg.Note, j.note)
		}
		ours := j.follow(t, func(ctx context.Context, server authorizationServer) *http.Client {
			conf := server.ours()
			conf.HTTPClient = nil // That of the context.
			conf.Origins = j.origins
			return conf.Client(ctx)
		})
		require.NotEqual(t, svg.Bad, j.drawVerdict(p, 548, y, ours), j.chain)
		if j.origins != nil {
			p.Text(698, y+22, svg.Middle, svg.Note, "no such setting")
		} else {
			j.drawVerdict(p, 652, y, j.follow(t, func(ctx context.Context, server authorizationServer) *http.Client {
				return server.theirs().Client(ctx)
			}))
		}
		y += 42
	}
	next := key(p, 16, y+18, svg.Good, "the last server gets the token")
	next = key(p, next, y+18, svg.Stale, "no token, or not called")
	key(p, next, y+18, svg.Bad, "a server gets the token of another origin")
	return p
}

// drawVerdict draws whether the last server got the token, and whether one got it that
// wasn't meant to.
func (j journey) drawVerdict(p *svg.Picture, x, y float64, got []bool) svg.Style {
	style, text := svg.Stale, "no token"
	switch {
	case slices.Contains(got[min(j.own, len(got)):], true):
		style, text = svg.Bad, "token"
	case len(got) < len(j.chain):
		text = "not called"
	case got[len(got)-1]:
		style, text = svg.Good, "token"
	}
	p.Rect(x, y+4, 92, 28, style)
	p.Text(x+46, y+22, svg.Middle, svg.Label, text)
	return style
}

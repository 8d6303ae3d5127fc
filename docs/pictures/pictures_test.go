// Package pictures draws the pictures in the documentation. What they show is measured on the
// real library, and on golang.org/x/oauth2/clientcredentials beside it: only time and the
// network are simulated.
package pictures

import (
	"flag"
	"fmt"
	"net/http"
	"testing"
	"time"

	"golang.org/x/oauth2"
	upstream "golang.org/x/oauth2/clientcredentials"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
	"github.com/seed-5bfa0880/clientcredentials/internal/svg"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

var update = flag.Bool("update", false, "write the pictures")

// With -update, TestPictures writes the pictures. Otherwise it measures and draws them all,
// and compares what they are made of: elements and texts. Curves differ a little each time,
// because the library chooses some times at random.
func TestPictures(t *testing.T) {
	for name, draw := range map[string]func(*testing.T) *svg.Picture{
		"life.svg":    drawLife,
		"outage.svg":  drawOutage,
		"fleet.svg":   drawFleet,
		"origins.svg": drawOrigins,
	} {
		t.Run(name, func(t *testing.T) {
			svg.Check(t, draw(t), name, *update)
		})
	}
}

// An authorizationServer is one server with one client.
type authorizationServer struct {
	*clientcredentialstest.AuthorizationServer
}

func newServer(lifetime time.Duration) authorizationServer {
	return authorizationServer{&clientcredentialstest.AuthorizationServer{
		Clients:       []clientcredentialstest.Client{{ID: clientcredentialstest.ClientID, Secret: clientcredentialstest.ClientSecret}},
		TokenLifetime: lifetime,
	}}
}

const tokenURL = "https://auth.example/token"

// client returns an HTTP client whose requests all go to the server.
func (s authorizationServer) client() *http.Client {
	return &http.Client{Transport: clientcredentialstest.HandlerTransport(s.AuthorizationServer)}
}

// ours returns what a program sets up for this package.
func (s authorizationServer) ours() *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: clientcredentialstest.ClientID, ClientSecret: clientcredentialstest.ClientSecret,
		AuthStyle: oauth2.AuthStyleInHeader, TokenURL: tokenURL, HTTPClient: s.client(),
	}
}

// theirs is ours for x/oauth2.
func (s authorizationServer) theirs() *upstream.Config {
	return &upstream.Config{
		ClientID: clientcredentialstest.ClientID, ClientSecret: clientcredentialstest.ClientSecret,
		AuthStyle: oauth2.AuthStyleInHeader, TokenURL: tokenURL,
	}
}

// A scale turns values into coordinates.
type scale struct{ from, to, left, right float64 }

func (s scale) at(value float64) float64 {
	return s.left + (value-s.from)/(s.to-s.from)*(s.right-s.left)
}

func (s scale) time(d time.Duration) float64 { return s.at(d.Seconds()) }

// clock returns minutes and seconds.
func clock(d time.Duration) string {
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// key draws an entry of the key, and returns where the next one begins.
func key(p *svg.Picture, x, y float64, style svg.Style, text string) float64 {
	p.Rect(x, y-10, 12, 12, style)
	p.Text(x+18, y, svg.Start, svg.Note, text)
	return x + 18 + 6.2*float64(len(text)) + 22
}

// Command fetch requests a token from each of the token endpoints in its arguments, and
// prints a line about each: what came of it, as JSON. TestR14 builds it for GOOS=js,
// where net/http uses the Fetch API.
//
// The first argument says how the HTTP client is made: see client.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// An outcome is what came of a token request.
type outcome struct{ Token, Error string }

func main() {
	for _, url := range os.Args[2:] {
		conf := &clientcredentials.Config{
			ClientID:     "client",
			ClientSecret: "secret",
			TokenURL:     url,
			HTTPClient:   client(os.Args[1]),
			AuthStyle:    oauth2.AuthStyleInHeader,
			Retry:        clientcredentials.RetryPolicy{MaxAttempts: 1, TotalTimeout: 20 * time.Second},
		}
		var o outcome
		token, err := conf.Token(context.Background())
		if err != nil {
			o.Error = err.Error()
		} else {
			o.Token = token.AccessToken
		}
		line, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}

// A wrapper hides the type of a RoundTripper, as instrumentation does.
type wrapper struct{ http.RoundTripper }

// client returns an HTTP client. The dialers don't use the network, because there is none
// but the Fetch API.
func client(kind string) *http.Client {
	switch kind {
	case "default":
		return nil
	case "new":
		return &http.Client{Transport: new(http.Transport)}
	case "wrapped":
		return &http.Client{Transport: wrapper{new(http.Transport)}}
	case "dial":
		return &http.Client{Transport: &http.Transport{Dial: net.Dial}} //nolint:staticcheck // Programs still use Dial.
	case "dialContext":
		return &http.Client{Transport: &http.Transport{DialContext: new(net.Dialer).DialContext}}
	}
	panic("an unknown kind of client: " + kind)
}

package clientcredentials_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
)

// Counters of a program, fed by an Observer. Its functions are called concurrently,
// and must be quick.
func ExampleObserver() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	var requests, served atomic.Int64
	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		Observer: &clientcredentials.Observer{
			RefreshStarted: func(event.RefreshStarted) { requests.Add(1) },
			TokenServed:    func(event.TokenServed) { served.Add(1) },
		},
	}
	client := conf.Client(context.Background())
	for range 10 {
		resp, err := client.Get(server.APIURL)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
	}
	fmt.Println("token requests:", requests.Load())
	fmt.Println("requests with a token:", served.Load())
	// Output:
	// token requests: 1
	// requests with a token: 10
}

// What happens to tokens is logged. Here only what needs attention is, and the part
// of it that isn't the same each time is left out.
func ExampleSlogObserver() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "duration" {
				return slog.Attr{}
			}
			return a
		},
	}))
	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: "no longer valid",
		TokenURL:     server.TokenURL,
		Observer:     clientcredentials.SlogObserver(logger),
	}
	// An Observer is told of what a Source does in the goroutine that does it, when
	// the callers have what they wanted. This one waits for it.
	logged := make(chan struct{})
	conf.Observer = clientcredentials.JoinObservers(conf.Observer, &clientcredentials.Observer{
		RefreshFailed: func(event.RefreshFailed) { close(logged) },
	})
	if _, err := conf.Source(context.Background()).Token(); err != nil {
		<-logged
	}
	// Output:
	// level=WARN msg="oauth2: got no token" error="oauth2: \"invalid_client\" \"client authentication failed\""
}

// A log and a counter: each of them is told.
func ExampleJoinObservers() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	var requests atomic.Int64
	counter := &clientcredentials.Observer{
		RefreshStarted: func(event.RefreshStarted) { requests.Add(1) },
	}
	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		Observer:     clientcredentials.JoinObservers(clientcredentials.SlogObserver(slog.New(slog.DiscardHandler)), counter),
	}
	if _, err := conf.Source(context.Background()).Token(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("token requests:", requests.Load())
	// Output: token requests: 1
}

package clientcredentials_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
)

// SlogObserver logs what happens to tokens. This logger prints only warnings, without the
// attributes that change from run to run. [clientcredentials.JoinObservers] combines it with
// another [clientcredentials.Observer], for instance one that counts events. Its functions may
// be called at the same time, and must return quickly.
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
	conf := exampleConfig(server)
	conf.ClientSecret = "no longer valid"
	// A Source calls its Observer after it has answered its callers. So this example waits.
	logged := make(chan struct{})
	conf.Observer = clientcredentials.JoinObservers(clientcredentials.SlogObserver(logger), &clientcredentials.Observer{
		RefreshFailed: func(event.RefreshFailed) { close(logged) },
	})
	if _, err := conf.Source(context.Background()).Token(); err != nil {
		<-logged
	}
	// Output:
	// level=WARN msg="oauth2: got no token" error="oauth2: \"invalid_client\" \"client authentication failed\""
}

package main

import (
	"context"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// configure returns our Config, and the context that has the client for the API.
func configure(s settings) (*clientcredentials.Config, context.Context) {
	return &clientcredentials.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		TokenURL:     s.tokenURL,
		HTTPClient:   s.httpClient(),
		EarlyRefresh: s.early,
	}, context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: s.api})
}

var dropInPeer = peer{
	name:   "here: drop-in",
	module: "github.com/seed-5bfa0880/clientcredentials",
	how: "`Config.TokenSource` and `Config.Client`: what a program gets that only changes its import line. " +
		"Both are of the types that x/oauth2 returns.",
	sources: func(s settings) func() source {
		conf, ctx := configure(s)
		return func() source {
			tokens := conf.TokenSource(ctx)
			return func(context.Context) (string, error) {
				token, err := tokens.Token()
				if err != nil {
					return "", err
				}
				return token.AccessToken, nil
			}
		}
	},
	transport: func(s settings) http.RoundTripper {
		conf, ctx := configure(s)
		return conf.Client(ctx).Transport
	},
	request: func(s settings) func(context.Context) error {
		conf, _ := configure(s)
		return func(ctx context.Context) error {
			_, err := conf.Token(ctx)
			return err
		}
	},
}

var ownPeer = peer{
	name:   "here: own types",
	module: "github.com/seed-5bfa0880/clientcredentials",
	how: "`Config.Source` and `Config.Transport`. Each call of `Source.Token` returns a copy of its own, " +
		"which is on the stack of a caller that doesn't keep it.",
	sources: func(s settings) func() source {
		conf, ctx := configure(s)
		return func() source {
			tokens := conf.Source(ctx)
			return func(ctx context.Context) (string, error) {
				token, err := tokens.TokenContext(ctx)
				if err != nil {
					return "", err
				}
				return token.AccessToken, nil
			}
		}
	},
	transport: func(s settings) http.RoundTripper {
		conf, ctx := configure(s)
		return conf.Transport(ctx)
	},
}

// interfacePeer is ownPeer for programs that know the Source by upstream's interface
// only, and by which the copy is on the heap. It is measured where that counts.
var interfacePeer = peer{
	name: "here: own types, as an `oauth2.TokenSource`",
	sources: func(s settings) func() source {
		conf, ctx := configure(s)
		return func() source {
			tokens := conf.Source(ctx)
			return func(context.Context) (string, error) { return ask(tokens) }
		}
	},
}

// ask is compiled without knowing what tokens are.
//
//go:noinline
func ask(tokens oauth2.TokenSource) (string, error) {
	token, err := tokens.Token()
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}

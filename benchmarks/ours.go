package main

import (
	"context"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// configure returns our Config, and a context with the client for the API.
func configure(s settings) (*clientcredentials.Config, context.Context) {
	return &clientcredentials.Config{
		ClientID:     s.clientID,
		ClientSecret: clientSecret,
		TokenURL:     s.tokenURL,
		HTTPClient:   s.tokens,
		EarlyRefresh: s.early,
	}, context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: s.api})
}

var dropInPeer = peer{
	name:   "here: drop-in",
	module: "github.com/seed-5bfa0880/clientcredentials",
	how: "`Config.TokenSource` and `Config.Client`: what a program gets if it only changes its import line. " +
		"They return the same types as x/oauth2.",
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
	how: "`Config.Source` and `Config.Transport`. Each call of `Source.Token` returns a new copy of the token. " +
		"It is on the stack if the caller doesn't keep it.",
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

// textPeer is ownPeer for programs that need only the text of the token.
var textPeer = peer{
	name: "here: own types, `AccessToken`",
	sources: func(s settings) func() source {
		conf, ctx := configure(s)
		return func() source { return conf.Source(ctx).AccessToken }
	},
}

// targetPeer is ownPeer for requests that need another token.
var targetPeer = peer{
	name:      "here: own types, with a `Target`",
	transport: ownPeer.transport,
	context: func(ctx context.Context) context.Context {
		return clientcredentials.WithTarget(ctx, clientcredentials.Target{Scopes: []string{"read", "write"}, Resources: []string{"https://api.example.com/"}})
	},
}

// challengedPeer is ownPeer with an API that may ask for another token.
var challengedPeer = peer{
	name: "here: own types, with `Challenged`",
	transport: func(s settings) http.RoundTripper {
		conf, ctx := configure(s)
		conf.Challenged = clientcredentials.ScopeChallenge("read", "write")
		return conf.Transport(ctx)
	},
}

// interfacePeer is ownPeer for programs that use the Source as an oauth2.TokenSource. Then
// the copy of the token is on the heap. It is measured where that makes a difference.
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

// ask is compiled without knowing the type of tokens.
//
//go:noinline
func ask(tokens oauth2.TokenSource) (string, error) {
	token, err := tokens.Token()
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}

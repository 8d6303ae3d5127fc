package main

import (
	"context"
	"net/http"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// configureUpstream returns a Config, and a context with the client for token requests.
func configureUpstream(s settings) (*clientcredentials.Config, context.Context) {
	conf := &clientcredentials.Config{ClientID: s.clientID, ClientSecret: clientSecret, TokenURL: s.tokenURL}
	return conf, context.WithValue(context.Background(), oauth2.HTTPClient, s.tokens)
}

var upstreamPeer = peer{
	name:   "x/oauth2",
	module: "golang.org/x/oauth2",
	how: "`clientcredentials.Config` with its `TokenSource` and `Client`. " +
		"A token is due 10 seconds before its expiry. That can't be set for a `Client`. " +
		"It doesn't replace tokens in the background, and callers can't limit their wait with a context.",
	sources: func(s settings) func() source {
		conf, ctx := configureUpstream(s)
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
		conf, ctx := configureUpstream(s)
		transport := conf.Client(ctx).Transport.(*oauth2.Transport)
		transport.Base = s.api
		return transport
	},
	request: func(s settings) func(context.Context) error {
		conf, ctx := configureUpstream(s)
		return func(context.Context) error {
			_, err := conf.Token(ctx)
			return err
		}
	},
}

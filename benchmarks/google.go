package main

import (
	"context"
	"net/http"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
)

var googlePeer = peer{
	name:   "cloud.google.com/go/auth",
	module: "cloud.google.com/go/auth",
	how: "`auth.NewCachedTokenProvider` with its defaults, which also caches the tokens of service accounts, and `httptransport.AddAuthorizationMiddleware`. " +
		"It has no client credentials grant, so it gets the minimal token request. " +
		"It tries once to replace a token in the background. If that fails, callers wait after the expiry. " +
		"They wait in turn, regardless of their contexts.",
	sources: func(s settings) func() source {
		return func() source {
			provider := googleCache(s)
			return func(ctx context.Context) (string, error) {
				token, err := provider.Token(ctx)
				if err != nil {
					return "", err
				}
				return token.Value, nil
			}
		}
	},
	transport: func(s settings) http.RoundTripper {
		middleware := &http.Client{Transport: s.api}
		credentials := auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: googleCache(s)})
		if err := httptransport.AddAuthorizationMiddleware(middleware, credentials); err != nil {
			panic(err) // It fails only if one of the two is nil.
		}
		return middleware.Transport
	},
}

func googleCache(s settings) auth.TokenProvider {
	return auth.NewCachedTokenProvider(googleProvider{s}, &auth.CachedTokenProviderOptions{ExpireEarly: s.early})
}

type googleProvider struct{ settings settings }

func (p googleProvider) Token(ctx context.Context) (*auth.Token, error) {
	accessToken, expiry, err := p.settings.requestToken(ctx)
	if err != nil {
		return nil, err
	}
	return &auth.Token{Value: accessToken, Type: "Bearer", Expiry: expiry}, nil
}

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
	how: "`auth.NewCachedTokenProvider` with its defaults, which is what caches the tokens of service accounts too, and `httptransport.AddAuthorizationMiddleware`. " +
		"It has no client credentials grant: the token request is the least that will do. " +
		"It tries once to replace a token in the background; if that fails, callers wait after the expiry. " +
		"Callers who wait do so in line, whatever their context.",
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
			panic(err) // Either of the two is nil.
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

package main

import (
	"context"
	"net/http"
	"time"

	"github.com/aws/smithy-go/auth/bearer"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

var smithyPeer = peer{
	name:   "smithy-go",
	module: "github.com/aws/smithy-go",
	how: "`bearer.TokenCache` with `RefreshBeforeExpires` of 5 minutes and `RetrieveBearerTokenTimeout` of 30 seconds, as the AWS SDK sets them. " +
		"It has no client credentials grant, so it gets the minimal token request. " +
		"It has no `http.RoundTripper`, so one around `bearer.SignHTTPSMessage` is measured.",
	sources: func(s settings) func() source {
		return func() source {
			cache := smithyCache(s)
			return func(ctx context.Context) (string, error) {
				token, err := cache.RetrieveBearerToken(ctx)
				return token.Value, err
			}
		}
	},
	transport: func(s settings) http.RoundTripper {
		return &smithyTransport{smithyCache(s), bearer.NewSignHTTPSMessage(), s.api}
	},
}

func smithyCache(s settings) *bearer.TokenCache {
	return bearer.NewTokenCache(
		bearer.TokenProviderFunc(func(ctx context.Context) (bearer.Token, error) {
			accessToken, expiry, err := s.requestToken(ctx)
			return bearer.Token{Value: accessToken, CanExpire: true, Expires: expiry}, err
		}),
		func(o *bearer.TokenCacheOptions) {
			o.RefreshBeforeExpires = 5 * time.Minute
			if s.early != 0 {
				o.RefreshBeforeExpires = s.early
			}
			o.RetrieveBearerTokenTimeout = 30 * time.Second
		},
	)
}

// A smithyTransport does for an http.Request what bearer.AuthenticationMiddleware does for
// a request of the SDK.
type smithyTransport struct {
	cache  *bearer.TokenCache
	signer bearer.Signer
	base   http.RoundTripper
}

func (t *smithyTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := t.cache.RetrieveBearerToken(req.Context())
	if err != nil {
		return nil, err
	}
	signed, err := t.signer.SignWithBearerToken(req.Context(), token, &smithyhttp.Request{Request: req})
	if err != nil {
		return nil, err
	}
	return t.base.RoundTrip(signed.(*smithyhttp.Request).Request)
}

package main

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

// An SDK stands for somebody else's library, that calls an API.
type SDK struct {
	client *http.Client
	url    string
}

// List makes a call.
func (s *SDK) List(ctx context.Context) error {
	_, err := report.Get(ctx, s.client, s.url)
	return err
}

// WithClient is for a library that takes an *http.Client. Give it the whole client:
// nothing is lost.
func WithClient(ctx context.Context, conf *clientcredentials.Config, url string) *SDK {
	return &SDK{client: conf.Client(ctx), url: url}
}

// WithRoundTripper is for a library that takes an http.RoundTripper, and has its own
// ideas of timeouts and redirects. Nothing is lost either.
func WithRoundTripper(ctx context.Context, conf *clientcredentials.Config, url string) *SDK {
	return &SDK{client: &http.Client{Transport: conf.Transport(ctx), Timeout: 30 * time.Second}, url: url}
}

// WithTokenSource is for a library that takes an oauth2.TokenSource. Most put a cache
// around it, as this one does: that of Config.TokenSource is recognised, and no second
// one comes on top. What is lost is what needs the request: the end of its context,
// redirects to other origins, and 401.
func WithTokenSource(ctx context.Context, conf *clientcredentials.Config, url string) *SDK {
	source := conf.TokenSource(ctx)
	return &SDK{client: oauth2.NewClient(ctx, oauth2.ReuseTokenSource(nil, source)), url: url}
}

// WithMargin is what programs do with x/oauth2 to have tokens replaced early. It works
// as ever: calls within the margin wait for the new token.
func WithMargin(ctx context.Context, conf *clientcredentials.Config, early time.Duration) oauth2.TokenSource {
	return oauth2.ReuseTokenSourceWithExpiry(nil, conf.TokenSource(ctx), early)
}

// WithEarlyRefresh is what to do instead: nobody waits, because the token is replaced
// in the background. Without EarlyRefresh it is too, up to 5 minutes before its end.
func WithEarlyRefresh(ctx context.Context, conf *clientcredentials.Config, early time.Duration) oauth2.TokenSource {
	conf.EarlyRefresh = early
	return conf.TokenSource(ctx)
}

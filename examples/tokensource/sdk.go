package main

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/examples/internal/report"
)

// An SDK stands for a library of somebody else that calls an API.
type SDK struct {
	client *http.Client
	url    string
}

// List makes a call.
func (s *SDK) List(ctx context.Context) error {
	_, err := report.Get(ctx, s.client, s.url)
	return err
}

// WithClient is for a library that takes an *http.Client. Give it the whole client. All
// features work.
func WithClient(ctx context.Context, conf *clientcredentials.Config, url string) *SDK {
	return &SDK{client: conf.Client(ctx), url: url}
}

// WithRoundTripper is for a library that takes an http.RoundTripper, because it sets
// timeouts and follows redirects itself. All features work here, too.
func WithRoundTripper(ctx context.Context, conf *clientcredentials.Config, url string) *SDK {
	return &SDK{client: &http.Client{Transport: conf.Transport(ctx), Timeout: 30 * time.Second}, url: url}
}

// WithTokenSource is for a library that takes an oauth2.TokenSource. Most libraries put a
// cache around it, as this one does. x/oauth2 recognizes the cache of Config.TokenSource
// and adds no second one. But features that need to see the request don't work: waiting
// only as long as its context allows, keeping the token from other origins after a
// redirect, and replacing the token after a 401.
func WithTokenSource(ctx context.Context, conf *clientcredentials.Config, url string) *SDK {
	source := conf.TokenSource(ctx)
	return &SDK{client: oauth2.NewClient(ctx, oauth2.ReuseTokenSource(nil, source)), url: url}
}

// WithMargin is how programs replace tokens early with x/oauth2. It works as usual:
// calls within the margin wait for the new token.
func WithMargin(ctx context.Context, conf *clientcredentials.Config, early time.Duration) oauth2.TokenSource {
	return oauth2.ReuseTokenSourceWithExpiry(nil, conf.TokenSource(ctx), early)
}

// WithEarlyRefresh is how to do it instead. Nobody waits, because the token is replaced
// in the background. The default of EarlyRefresh, up to 5 minutes before the expiry, does
// the same.
func WithEarlyRefresh(ctx context.Context, conf *clientcredentials.Config, early time.Duration) oauth2.TokenSource {
	conf.EarlyRefresh = early
	return conf.TokenSource(ctx)
}

package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-resty/resty/v2"
	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// The layers, from the program down to the network:
//
//	the library that retries    makes several attempts, each a request of its own
//	Config.Client               adds the current token to each attempt
//	http.Transport              sends it
//
// In this order, an attempt that comes a minute later carries the token that is valid a
// minute later. The other way round, each attempt would repeat the same header with a
// token that may have been replaced. The library would also retry token requests, which
// this package already retries, with pauses when that doesn't help: see wrongly.

// withRetryablehttp puts hashicorp/go-retryablehttp on top of a client with tokens.
func withRetryablehttp(ctx context.Context, conf *clientcredentials.Config) *http.Client {
	client := retryablehttp.NewClient()
	client.HTTPClient = conf.Client(ctx)
	client.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if isRefusal(err) {
			return false, nil
		}
		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
	}
	client.RetryWaitMin, client.RetryWaitMax = retryWait, retryWait
	client.Logger = nil
	return client.StandardClient()
}

// withResty puts go-resty/resty on top of a client with tokens. Don't use its own methods
// for tokens, such as SetAuthToken.
func withResty(ctx context.Context, conf *clientcredentials.Config) *resty.Client {
	client := resty.NewWithClient(conf.Client(ctx))
	client.SetLogger(silent{})
	client.SetRetryCount(retries).SetRetryWaitTime(retryWait)
	client.AddRetryCondition(func(resp *resty.Response, err error) bool {
		if err != nil {
			return !isRefusal(err)
		}
		return resp.StatusCode() == http.StatusTooManyRequests || resp.StatusCode() >= 500
	})
	return client
}

// isRefusal reports whether the authorization server refused to issue a token. This
// package has already retried as often as makes sense.
func isRefusal(err error) bool {
	var refusal *oauth2.RetrieveError
	return errors.As(err, &refusal)
}

// wrongly puts the library below the client. Token requests go through it, too.
func wrongly(ctx context.Context, conf *clientcredentials.Config) *http.Client {
	client := retryablehttp.NewClient()
	client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = retries, retryWait, retryWait
	client.Logger = nil
	return conf.Client(context.WithValue(ctx, oauth2.HTTPClient, client.StandardClient()))
}

// silent keeps the log of resty out of the output.
type silent struct{}

func (silent) Errorf(string, ...any) {}
func (silent) Warnf(string, ...any)  {}
func (silent) Debugf(string, ...any) {}

const (
	retries   = 4                     // the default of retryablehttp
	retryWait = 10 * time.Millisecond // far too short for anything but this program
)

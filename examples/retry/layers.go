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
//	the library that tries again    each attempt is a request of its own,
//	Config.Client                   for which there is a token by now,
//	http.Transport                  and which goes out with that
//
// In this order an attempt that comes a minute later carries the token that is good a
// minute later. The other way round each attempt would repeat the same header, with a
// token that may have been replaced. And token requests, which are tried again here
// already and pause when that doesn't help, would go through both: see wrongly.

// withRetryablehttp puts hashicorp/go-retryablehttp above a client with tokens.
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

// withResty puts go-resty/resty above a client with tokens. Its own ways of setting a
// token, SetAuthToken and the like, are not needed.
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

// isRefusal reports whether there is no token because the authorization server has
// said so. It was asked as often as makes sense.
func isRefusal(err error) bool {
	var refusal *oauth2.RetrieveError
	return errors.As(err, &refusal)
}

// wrongly puts the library below: tokens are requested through it.
func wrongly(ctx context.Context, conf *clientcredentials.Config) *http.Client {
	client := retryablehttp.NewClient()
	client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = retries, retryWait, retryWait
	client.Logger = nil
	return conf.Client(context.WithValue(ctx, oauth2.HTTPClient, client.StandardClient()))
}

// silent keeps resty's log out of the output of this program.
type silent struct{}

func (silent) Errorf(string, ...any) {}
func (silent) Warnf(string, ...any)  {}
func (silent) Debugf(string, ...any) {}

const (
	retries   = 4                     // the default of retryablehttp
	retryWait = 10 * time.Millisecond // far too short, except for this program
)

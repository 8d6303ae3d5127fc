package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A peer is a library, or one way to use it. Each library has its own file.
type peer struct {
	name   string // in tables and plots
	module string // whose version is reported
	how    string // how it is used here, and what it can't do

	// sources configures a client, and returns a function that makes sources of its
	// tokens, each with its own cache. Nil: the library has no function that returns a
	// token.
	sources func(settings) func() source

	// transport returns a RoundTripper that adds tokens, with its own cache.
	transport func(settings) http.RoundTripper

	// context returns the context of a request that transport sends. Nil: it stays as it is.
	context func(context.Context) context.Context

	// request returns a function that always requests a new token. Nil: the library
	// leaves token requests to the program.
	request func(settings) func(context.Context) error
}

// A source returns a token, from its cache if possible.
type source func(context.Context) (string, error)

// settings are the settings of a source or a transport.
type settings struct {
	clientID string
	tokenURL string
	tokens   *http.Client      // for token requests
	api      http.RoundTripper // for everything else
	early    time.Duration     // how long before its expiry a token is replaced, if that can be set; 0: the default
}

const (
	clientID     = "reports"
	clientSecret = "a secret"
)

// peers returns all peers. The others are compared with the first one.
func peers() []peer {
	return []peer{upstreamPeer, dropInPeer, ownPeer, googlePeer, smithyPeer, azurePeer}
}

// requestToken is a minimal token request, for the libraries that have none.
func (s settings) requestToken(ctx context.Context) (accessToken string, expiry time.Time, err error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.tokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", time.Time{}, err
	}
	req.SetBasicAuth(url.QueryEscape(s.clientID), url.QueryEscape(clientSecret))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sent := time.Now()
	resp, err := s.tokens.Do(req)
	if err != nil {
		return "", time.Time{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", time.Time{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", time.Time{}, fmt.Errorf("token request: %s", resp.Status)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", time.Time{}, err
	}
	return answer.AccessToken, sent.Add(time.Duration(answer.ExpiresIn) * time.Second), nil
}

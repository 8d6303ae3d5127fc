package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// printToken is cctoken token.
func printToken(ctx context.Context, c *call) error {
	header := c.flags.Bool("header", false, "")
	inJSON := c.flags.Bool("json", false, "")
	caching := c.addCacheFlags(false)
	var timeout time.Duration
	c.addDuration(&timeout, "timeout", 30*time.Second)
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	switch {
	case *header && *inJSON:
		return usagef("-header and -json can't be combined; give one")
	case *header && s.DPoP != nil:
		return usagef("a token that is bound to a key needs a proof with each request, which -header can't provide; leave out -header or -dpop-key-file")
	}
	token, err := fetch(ctx, c, s, caching, timeout)
	if err != nil {
		return err
	}
	switch {
	case *header:
		fmt.Fprintf(c.out, "Authorization: %s %s\n", scheme(token), token.AccessToken)
	case *inJSON:
		return writeJSON(c.out, newTokenJSON(token, s.Requested()))
	default:
		fmt.Fprintln(c.out, token.AccessToken)
	}
	return nil
}

// scheme returns the authentication scheme with which the library would send the token.
func scheme(token *oauth2.Token) string {
	response := tokenresponse.Response{TokenType: token.TokenType}
	return response.Scheme()
}

// maxTokenRequests is how many requests cctoken token sends at most: those of Discover,
// the library's three attempts, one for the other auth style, and a second one for each
// of these four with a nonce. With a cache there may be another token request, if somebody
// else drops the token that the first one brings.
const maxTokenRequests = maxLocations + 2*2*(3+1)

// fetch gets a token, from the cache if the flags say so.
func fetch(ctx context.Context, c *call, s *settings, caching *cacheFlags, timeout time.Duration) (*oauth2.Token, error) {
	if err := caching.check(s); err != nil {
		return nil, err
	}
	ctx, cancel, err := within(ctx, timeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	m, err := s.Method(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := c.openCache(caching)
	if err != nil {
		return nil, err
	}
	defer kept.close(ctx)
	w := newWire(s, m.Cert, maxTokenRequests)
	defer w.close()
	known := situation{settings: s, server: server{endpoint: s.TokenURL}}
	explained := func(err error) error {
		known.sent = w.sent()
		return known.diagnose(err).failure()
	}
	conf := &clientcredentials.Config{TokenURL: s.TokenURL}
	if conf.TokenURL == "" {
		if known.metadata, err = w.discover(ctx, s.Issuer); err != nil {
			return nil, explained(err)
		}
		if conf, err = s.discovered(m, known.metadata); err != nil {
			return nil, err
		}
		known.listsNone = m.Name != "" && known.listsNoneOf(m)
		if m.Name == "" {
			m.Style = conf.AuthStyle
		}
	}
	known.endpoint = conf.TokenURL
	if isCleartext(conf.TokenURL) {
		c.warn("the token URL is http, so that others on the network can read the credentials and the token; use https")
	}
	s.Fill(conf, m)
	conf.Retry.TotalTimeout = timeout
	conf.Retry.AttemptTimeout = attemptTimeout(timeout)
	token, err := w.token(ctx, conf, kept)
	switch {
	case err == nil:
		return token, nil
	case ctx.Err() != nil:
		err = &failure{statusTemporary, context.Cause(ctx)}
	}
	return nil, explained(err)
}

// attemptTimeout returns how long one attempt may take: the library's default, or a
// third of a long -timeout.
func attemptTimeout(timeout time.Duration) time.Duration { return max(10*time.Second, timeout/3) }

// discovered returns the Config for m that the metadata leads to.
func (s *settings) discovered(m *method, metadata *clientcredentials.ServerMetadata) (*clientcredentials.Config, error) {
	conf, err := s.Discovered(m, metadata)
	if err != nil {
		return nil, &failure{statusUnusable, err}
	}
	return conf, nil
}

// A tokenJSON is a token response, RFC 6749, Section 5.1, with the time of expiry.
type tokenJSON struct {
	AccessToken string     `json:"access_token"`
	TokenType   string     `json:"token_type"`
	ExpiresIn   int64      `json:"expires_in,omitempty"`
	Expiry      *time.Time `json:"expiry,omitempty"`
	Scope       string     `json:"scope,omitempty"`
}

func newTokenJSON(token *oauth2.Token, asked string) tokenJSON {
	t := tokenJSON{AccessToken: token.AccessToken, TokenType: token.Type(), ExpiresIn: token.ExpiresIn, Scope: grantedScope(token, asked)}
	if !token.Expiry.IsZero() {
		expiry := token.Expiry.UTC().Truncate(time.Second)
		t.Expiry = &expiry
	}
	return t
}

// grantedScope returns the scope of token. A server may leave it out if it is the scope
// that was asked for, RFC 6749, Section 5.1.
func grantedScope(token *oauth2.Token, asked string) string {
	if scope, ok := token.Extra("scope").(string); ok {
		return scope
	}
	return strings.Join(strings.Fields(asked), " ")
}

// writeJSON writes v as JSON that can't rewrite a terminal.
func writeJSON(out io.Writer, v any) error {
	text, err := toJSON(v, "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, text)
	return err
}

// toJSON returns v as JSON. Characters that could rewrite a terminal are escaped.
func toJSON(v any, indent string) (string, error) {
	var buffer strings.Builder
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return "", err
	}
	var escaped strings.Builder
	for _, r := range strings.TrimSuffix(buffer.String(), "\n") {
		if redact.Neutralise(string(r)) == string(r) {
			escaped.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&escaped, `\u%04x`, unit)
		}
	}
	return escaped.String(), nil
}

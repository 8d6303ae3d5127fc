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
)

// printToken is cctoken token.
func printToken(ctx context.Context, c *call) error {
	header := c.flags.Bool("header", false, "")
	inJSON := c.flags.Bool("json", false, "")
	var timeout time.Duration
	c.addDuration(&timeout, "timeout", 30*time.Second)
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	switch {
	case *header && *inJSON:
		return usagef("-header and -json exclude each other; give one")
	case *header && s.dpop != nil:
		return usagef("a token bound to a key needs a proof with each request, and a header alone has none; leave out -header, or -dpop-key-file")
	}
	ctx, cancel, err := within(ctx, timeout)
	if err != nil {
		return err
	}
	defer cancel()
	token, err := fetch(ctx, c, s, timeout)
	if err != nil {
		return err
	}
	switch {
	case *header:
		fmt.Fprintf(c.out, "Authorization: %s %s\n", token.Type(), token.AccessToken)
	case *inJSON:
		return writeJSON(c.out, newTokenJSON(token, s.scopes))
	default:
		fmt.Fprintln(c.out, token.AccessToken)
	}
	return nil
}

// maxTokenRequests bounds what one cctoken token sends: the requests of Discover,
// three attempts of the library, one for the other auth style, one for a nonce each.
const maxTokenRequests = 3 + 2*(3+1)

// fetch requests a token as the settings say.
func fetch(ctx context.Context, c *call, s *settings, timeout time.Duration) (*oauth2.Token, error) {
	name, err := s.authMethodName(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.newMethod(ctx, name)
	if err != nil {
		return nil, err
	}
	w := newWire(s, m.cert, maxTokenRequests)
	defer w.close()
	endpoint := s.tokenURL
	if endpoint == "" {
		metadata, err := w.discover(ctx, s.issuer)
		if err != nil {
			return nil, err
		}
		if endpoint, err = s.endpoint(m, metadata); err != nil {
			return nil, err
		}
	}
	if isCleartext(endpoint) {
		fmt.Fprintf(c.stderr, "cctoken token: warning: the token URL is http, and whoever is on the way can read credentials and token; use https\n")
	}
	conf := s.config(endpoint, m)
	conf.Retry.TotalTimeout = timeout
	conf.Retry.AttemptTimeout = attemptTimeout(timeout)
	token, err := w.token(ctx, conf)
	if err != nil && ctx.Err() != nil {
		err = &failure{statusTemporary, context.Cause(ctx)}
	}
	return token, err
}

// attemptTimeout returns how long one attempt may take: the library's default, or more
// of a long -timeout.
func attemptTimeout(timeout time.Duration) time.Duration { return max(10*time.Second, timeout/3) }

// endpoint returns the token endpoint for m. If no method is asked for, m becomes the
// form of the secret that the server takes.
func (s *settings) endpoint(m *method, metadata *clientcredentials.ServerMetadata) (string, error) {
	unusable := func(err error) error { return &failure{statusUnusable, err} }
	var methods []clientcredentials.ClientAuth
	if m.auth != nil {
		methods = append(methods, m.auth)
	}
	if s.authMethod != "" {
		// Asked for: what the metadata lists is no reason not to try.
		open := *metadata
		open.TokenEndpointAuthMethodsSupported = []string{m.registered()}
		metadata = &open
	}
	conf, err := metadata.Config(s.clientID, methods...)
	if err != nil {
		return "", unusable(err)
	}
	if m.name == "" {
		m.style = conf.AuthStyle
	}
	return conf.TokenURL, nil
}

// A tokenJSON is a token as a token response has it, RFC 6749, Section 5.1, with the
// moment of its expiry.
type tokenJSON struct {
	AccessToken string     `json:"access_token"`
	TokenType   string     `json:"token_type"`
	ExpiresIn   int64      `json:"expires_in,omitempty"`
	Expiry      *time.Time `json:"expiry,omitempty"`
	Scope       string     `json:"scope,omitempty"`
}

// newTokenJSON returns token, for which that scope was asked for.
func newTokenJSON(token *oauth2.Token, asked string) tokenJSON {
	t := tokenJSON{AccessToken: token.AccessToken, TokenType: token.Type(), ExpiresIn: token.ExpiresIn, Scope: grantedScope(token, asked)}
	if !token.Expiry.IsZero() {
		expiry := token.Expiry.UTC().Truncate(time.Second)
		t.Expiry = &expiry
	}
	return t
}

// grantedScope returns the scope of token. A server needn't tell it if it is the one
// that was asked for, RFC 6749, Section 5.1.
func grantedScope(token *oauth2.Token, asked string) string {
	if scope, ok := token.Extra("scope").(string); ok {
		return scope
	}
	return strings.Join(strings.Fields(asked), " ")
}

// writeJSON writes v as JSON, without characters that could rewrite a terminal.
func writeJSON(out io.Writer, v any) error {
	text, err := toJSON(v, "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, text)
	return err
}

// toJSON returns v as JSON with that indentation. Such characters are escaped.
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
		if neutralise(string(r)) == string(r) {
			escaped.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&escaped, `\u%04x`, unit)
		}
	}
	return escaped.String(), nil
}

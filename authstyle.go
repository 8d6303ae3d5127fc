package clientcredentials

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"golang.org/x/oauth2"
)

// authenticate adds the client's credentials to a token request in the given
// style, RFC 6749, Section 2.3.1: to header, or to form.
//
// A style that is neither sends no credentials, as upstream does.
func (r *tokenRequest) authenticate(style oauth2.AuthStyle, header http.Header, form url.Values) {
	if style == oauth2.AuthStyleInHeader { // client_secret_basic
		header.Set("Authorization", "Basic "+basicCredentials(url.QueryEscape(r.clientID), url.QueryEscape(r.clientSecret)))
	}
	if style == oauth2.AuthStyleInParams { // client_secret_post
		if r.clientID != "" {
			form.Set("client_id", r.clientID)
		}
		if r.clientSecret != "" {
			form.Set("client_secret", r.clientSecret)
		}
	}
}

// firstStyle returns the style to try first, and whether it is a guess.
func (r *tokenRequest) firstStyle() (style oauth2.AuthStyle, probing bool) {
	if r.authStyle != oauth2.AuthStyleAutoDetect || r.clientAuth != nil {
		return r.authStyle, false
	}
	if style, ok := r.styles.get(r.url, r.clientID); ok {
		return style, false
	}
	return oauth2.AuthStyleInHeader, true
}

// rejectsAuthStyle reports whether err is an answer that a server may give to
// credentials in a form that it doesn't know. Some answer 403, 404, 422 or 500
// to those, and some 200 with an error code. Without an answer, or with one that
// speaks of load or of other parameters, a second request would only double the
// failure and show the secret once more.
func rejectsAuthStyle(err error) bool {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return false
	}
	switch refusal.ErrorCode {
	case "invalid_scope", "unsupported_grant_type", "use_dpop_nonce", "invalid_dpop_proof":
		return false
	}
	switch refusal.Response.StatusCode {
	case http.StatusBadRequest,
		http.StatusUnauthorized,
		http.StatusForbidden,
		http.StatusNotFound,
		http.StatusUnprocessableEntity,
		http.StatusInternalServerError:
		return true
	}
	return refusal.Response.StatusCode < 300
}

// maxAuthStyles bounds an authStyleCache. A Config is used with one token
// endpoint and client, or with a few: at the bound the cache starts anew.
const maxAuthStyles = 100

// authStyleCache remembers which style a token endpoint has accepted from a
// client. Only success is remembered.
type authStyleCache struct {
	mu    sync.Mutex   // protects known
	known []knownStyle // few, and most often one: a map would be larger, and no faster
}

type knownStyle struct {
	tokenURL, clientID string
	style              oauth2.AuthStyle
}

func (c *authStyleCache) get(tokenURL, clientID string) (oauth2.AuthStyle, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.known {
		if k.tokenURL == tokenURL && k.clientID == clientID {
			return k.style, true
		}
	}
	return 0, false
}

func (c *authStyleCache) set(tokenURL, clientID string, style oauth2.AuthStyle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = slices.DeleteFunc(c.known, func(k knownStyle) bool { return k.tokenURL == tokenURL && k.clientID == clientID })
	if len(c.known) >= maxAuthStyles {
		c.known = nil
	}
	c.known = append(c.known, knownStyle{tokenURL, clientID, style})
}

// authStyles returns the cache of c, which copies of c made from now on share.
func (c *Config) authStyles() *authStyleCache {
	if cache, ok := c.styles.Load().(*authStyleCache); ok {
		return cache
	}
	c.styles.CompareAndSwap(nil, new(authStyleCache))
	return c.styles.Load().(*authStyleCache)
}

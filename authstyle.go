package clientcredentials

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// addSecret adds the client's id and secret to a token request in the given
// style, RFC 6749, Section 2.3.1: to header, or to form.
//
// A style that is neither sends no credentials, as upstream does.
func (r *tokenRequest) addSecret(style oauth2.AuthStyle, header http.Header, form url.Values) {
	id, secret := r.conf.ClientID, r.conf.ClientSecret
	if r.conf.Grant != nil && id == "" && secret == "" {
		return // RFC 7521, Section 4.1: client authentication is optional.
	}
	if style == oauth2.AuthStyleInHeader { // client_secret_basic
		header.Set("Authorization", "Basic "+redact.BasicCredentials(url.QueryEscape(id), url.QueryEscape(secret)))
	}
	if style == oauth2.AuthStyleInParams { // client_secret_post
		if id != "" {
			form.Set("client_id", id)
		}
		if secret != "" {
			form.Set("client_secret", secret)
		}
	}
}

// firstStyle returns the style to try first, and whether it is a guess.
func (r *tokenRequest) firstStyle() (style oauth2.AuthStyle, probing bool) {
	if r.conf.AuthStyle != oauth2.AuthStyleAutoDetect || r.conf.ClientAuth != nil {
		return r.conf.AuthStyle, false
	}
	if r.conf.isPublic() {
		return oauth2.AuthStyleInParams, false // Trying another style would send the grant twice.
	}
	if style, ok := r.styles.get(r.conf.TokenURL, r.conf.ClientID); ok {
		return style, false
	}
	return oauth2.AuthStyleInHeader, true
}

// isPublic reports whether c has no secret to authenticate with, and needs none. A ClientID
// only names the client then (RFC 6749, Section 3.2.1).
func (c *Config) isPublic() bool {
	return c.Grant != nil && c.ClientAuth == nil && c.ClientSecret == ""
}

// rejectsAuthStyle reports whether err is an answer that a server may give to
// credentials in a style that it doesn't accept. Some servers answer 403, 404, 422 or 500
// to those, and some 200 with an error code or with no token. If there is no answer, or if
// it is about load or about what was asked for, a second request would only double the
// failure and expose the secret once more.
func (r *tokenRequest) rejectsAuthStyle(err error) bool {
	var silent *tokenresponse.RefusalError
	refusal := refusalOf(err)
	switch {
	case r.about(err) == tokenresponse.AboutRequest:
		return false
	case errors.As(err, &silent):
		return true
	case refusal == nil:
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

// about returns what the refusal that err stands for speaks of.
func (r *tokenRequest) about(err error) tokenresponse.About {
	var silent *tokenresponse.RefusalError
	refusal := refusalOf(err)
	switch {
	case errors.As(err, &silent):
		return tokenresponse.AboutOf("", silent.Said, r.clientID)
	case refusal == nil:
		return tokenresponse.AboutNothing
	}
	if r.conf.Grant != nil && refusal.ErrorCode == "invalid_grant" {
		return tokenresponse.AboutRequest // RFC 6749, Section 5.2: it is about the assertion.
	}
	words := tokenresponse.Explanation(refusal)
	if status := refusal.Response.StatusCode; status == http.StatusNotFound || status >= 500 {
		words = "" // It is the page for any address, or for any mistake of the server.
	}
	return tokenresponse.AboutOf(refusal.ErrorCode, words, r.clientID)
}

// saysMore reports whether the refusal that err stands for says more about what the user can
// change than another one. If they speak of the same, one with an error code does.
func (r *tokenRequest) saysMore(err, other error) bool {
	about, others := r.about(err), r.about(other)
	return about > others || about == others && about != tokenresponse.AboutNothing && hasCode(err) && !hasCode(other)
}

func hasCode(err error) bool {
	refusal := refusalOf(err)
	return refusal != nil && refusal.ErrorCode != ""
}

// maxAuthStyles bounds an authStyleCache. A Config is used with one token
// endpoint and client, or with a few. At the bound the cache starts anew.
const maxAuthStyles = 100

// authStyleCache remembers which style a token endpoint has accepted from a
// client. Only success is remembered.
type authStyleCache struct {
	mu    sync.Mutex   // protects known
	known []knownStyle // few, usually one: a map would be larger and no faster
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

// privateCopy returns a copy of c, with scopes and parameters of its own, and the cache that both
// share. Several Sources may copy one Config at the same time, and the first of them makes the
// cache.
func (c *Config) privateCopy() (*Config, *authStyleCache) {
	copying.Lock()
	styles := c.authStyles()
	private := *c
	copying.Unlock()
	private.Scopes = slices.Clone(private.Scopes)
	if private.EndpointParams != nil {
		private.EndpointParams = cloneValues(private.EndpointParams)
	}
	return &private, styles
}

// copying protects Config.styles of every Config from being written while it is copied. It is
// held for a moment, and only by token requests.
var copying sync.Mutex

// authStyles returns the cache of c. Copies of c that are made from now on share it.
func (c *Config) authStyles() *authStyleCache {
	if cache, ok := c.styles.Load().(*authStyleCache); ok {
		return cache
	}
	c.styles.CompareAndSwap(nil, new(authStyleCache))
	return c.styles.Load().(*authStyleCache)
}

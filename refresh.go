package clientcredentials

import (
	"math"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
)

// This file decides when a token is replaced: how its life is divided into fresh, stale and
// expired, and when callers wait for its replacement.

const (
	maxSoftWindow = 5 * time.Minute  // a background refresh starts at most that long before the expiry
	maxHardWindow = 10 * time.Second // callers wait for the replacement at most that long before the expiry
	minReuse      = time.Second      // every token is used at least that long

	forever time.Duration = math.MaxInt64
)

// A cachedToken is a token with its times. It is immutable, and its token is never handed
// out, only copies of it.
type cachedToken struct {
	token         oauth2.Token
	from          event.TokenFrom // FromStore or FromServer
	shared        *sharedVersion  // where it is in Config.Store; nil: it isn't there
	raw           any             // the members of the token response, which token refers to
	odd           bool            // authorization has another scheme than the token says
	nested        bool            // raw has values that each copy of token needs for itself
	authorization string          // the value of the Authorization header
	sent          clock.Instant   // just before the token request was sent
	bound         binding         // what the client proved to have when it requested the token
	issued        time.Time       // when it was requested, by the clock of the replica that did; zero: unknown

	arrived time.Duration // how old it was when it arrived; 0: it came from the store

	// Ages, counted from sent, at which the token becomes stale, at which callers wait for
	// its replacement, and at which it is dead. forever if it doesn't expire.
	soft, hard, dead time.Duration
}

// newCachedToken returns the token of response with its windows. scheme is
// Config.AuthScheme. draw is in [0,1) and decides where in its range the soft window begins.
func newCachedToken(response *tokenResponse, scheme string, earlyRefresh time.Duration, draw float64) *cachedToken {
	token := response.token()
	if scheme == "" {
		scheme = response.Scheme()
	}
	if response.bound.key != nil {
		scheme = "DPoP" // In whatever letter case the server has written it.
	}
	c := &cachedToken{
		token:         *token,
		from:          response.from,
		shared:        response.shared,
		raw:           response.Raw,
		odd:           scheme != token.Type(),
		nested:        isNested(response.Raw),
		authorization: scheme + " " + token.AccessToken,
		sent:          clock.At(response.sent),
		bound:         response.bound,
		arrived:       max(response.floor-minReuse, 0),
		issued:        response.issued,
		soft:          forever,
		hard:          forever,
		dead:          forever,
	}
	// A JWT is longer than everything else here, so its text is kept only once.
	c.token.AccessToken = c.authorization[len(scheme)+1:]
	if raw, ok := response.Raw.(map[string]any); ok && raw["access_token"] == any(token.AccessToken) {
		raw["access_token"] = c.token.AccessToken
	}
	if !response.expires() {
		return c
	}
	life := response.life()
	c.soft = life - softWindow(max(life, 0), earlyRefresh, draw)
	if refresh := time.Duration(response.RefreshIn) * time.Second; 0 < refresh && refresh < life {
		c.soft = max(refresh, life/2)
	}
	// Even a token that arrives with no life left is used for a moment. Otherwise each call
	// to the API would cost a token request.
	c.soft = max(c.soft, response.floor)
	c.hard = max(life-hardWindow(life), c.soft)
	c.dead = max(life, response.floor)
	return c
}

// softWindow returns how long before the expiry of a token its replacement starts in the
// background.
func softWindow(life, earlyRefresh time.Duration, draw float64) time.Duration {
	window := min(earlyRefresh, life)
	if earlyRefresh == 0 {
		window = min(maxSoftWindow, life/4)
	}
	return min(jittered(window, draw), life/2)
}

// hardWindow returns how long before the expiry of a token callers wait for its
// replacement.
func hardWindow(life time.Duration) time.Duration { return min(maxHardWindow, life/10) }

// expiry returns when c expires, as seen from now; zero: it doesn't. If the machine was
// suspended, that is earlier than it was meant to be by the monotonic clock.
func (c *cachedToken) expiry(now time.Time) time.Time {
	if c.token.Expiry.IsZero() {
		return time.Time{}
	}
	return now.Add(c.token.Expiry.Sub(c.sent.Time()) - c.age(now))
}

// age returns how old c is.
func (c *cachedToken) age(now time.Time) time.Duration { return c.sent.Age(now) }

// usable reports whether c, which may be nil, has not expired.
func (c *cachedToken) usable(now time.Time) bool { return c != nil && c.age(now) < c.dead }

// fresh reports whether there is no reason to replace c, which may be nil, for a caller who
// needs a token with early of its life left.
func (c *cachedToken) fresh(now time.Time, early time.Duration) bool {
	return c != nil && c.age(now) < c.soft && (early <= 0 || !c.awaited(now, early))
}

// state returns the state of a Source with token c, which may be nil.
func (c *cachedToken) state(now time.Time) State {
	switch {
	case c.fresh(now, 0):
		return Fresh
	case c.usable(now):
		return Stale
	}
	return Expired
}

// awaited reports whether callers should wait for c's replacement, because c may expire on
// its way to the API, or because it has less life left than the early that the caller needs.
// A caller doesn't wait for early if c is so young that the next token would be no better.
func (c *cachedToken) awaited(now time.Time, early time.Duration) bool {
	age := c.age(now)
	if age >= c.hard {
		return true
	}
	if c.dead == forever || early <= 0 {
		return false
	}
	if early >= c.dead {
		early = c.dead / 2
	}
	return age >= max(c.dead-early, minReuse)
}

// isBound reports whether using c takes more than the token.
func (c *cachedToken) isBound() bool { return c.bound != binding{} }

// copy returns a token that the caller may change, including the values of its Extra.
func (c *cachedToken) copy() *oauth2.Token {
	token := c.token
	if c.nested {
		return token.WithExtra(cloneJSON(c.raw))
	}
	return &token
}

// cloneJSON returns a deep copy of a value that encoding/json has read.
func cloneJSON(value any) any {
	switch value := value.(type) {
	case map[string]any:
		clone := make(map[string]any, len(value))
		for name, member := range value {
			clone[name] = cloneJSON(member)
		}
		return clone
	case []any:
		clone := make([]any, len(value))
		for i, element := range value {
			clone[i] = cloneJSON(element)
		}
		return clone
	}
	return value
}

// isNested reports whether raw, the members of a token response, has a value that a
// caller could change.
func isNested(raw any) bool {
	members, _ := raw.(map[string]any)
	for _, member := range members {
		switch member.(type) {
		case map[string]any, []any:
			return true
		}
	}
	return false
}

package clientcredentials

import (
	"math"
	"sync/atomic"
	"time"
	"weak"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// This file decides when a token is replaced: how its life is divided into fresh, stale and
// expired, and when callers wait for its replacement.

const (
	maxSoftWindow = 5 * time.Minute  // a background refresh starts at most that long before the expiry
	maxHardWindow = 10 * time.Second // callers wait for the replacement at most that long before the expiry
	minReuse      = time.Second      // every token is used at least that long

	forever time.Duration = math.MaxInt64
)

// A cachedToken is a token with its times. It takes little memory, because a program may have
// thousands of them.
type cachedToken struct {
	receivedToken

	// handed is the whole token as it was last made of answer, for as long as the garbage
	// collector leaves it. Only copies of it are handed out.
	handed atomic.Pointer[weak.Pointer[oauth2.Token]]
}

// A receivedToken is what is known of a token when it arrives, and never changes.
type receivedToken struct {
	*particulars

	authorization string                // the value of the Authorization header, which ends with the token
	answer        tokenresponse.Compact // the token response, of which the whole token is made

	issued time.Time     // when it was requested, by the clock of the replica that did; zero: unknown
	sent   clock.Instant // just before the token request was sent
	life   time.Duration // what the server gave it, counted from sent; forever: it doesn't expire

	arrived time.Duration // how old it was when it arrived; 0: it came from the store

	// Ages, counted from sent, at which the token becomes stale, at which callers wait for
	// its replacement, and at which it is dead. forever if it doesn't expire.
	soft, hard, dead time.Duration

	start     int32 // where the token begins in authorization
	fromStore bool  // otherwise it is from the server
	odd       bool  // authorization isn't what the token alone says
	foreign   bool  // it isn't an access token, so no API accepts it
	nested    bool  // the answer has values that each copy of the token needs for itself
}

// particulars is what most tokens don't have. Those have the same one, which is empty.
type particulars struct {
	shared       *sharedVersion // where the token is in Config.Store; nil: it isn't there
	bound        binding        // what the client proved to have when it requested the token
	refreshToken string         // that of the answer, or the program's own if it overrides grant_type
}

var nothingParticular particulars

// newCachedToken returns the token of response with its windows. scheme is
// Config.AuthScheme. draw is in [0,1) and decides where in its range the soft window begins.
func newCachedToken(response *tokenResponse, scheme string, earlyRefresh time.Duration, draw float64) *cachedToken {
	foreign := response.foreign && scheme == "" // With a scheme, the program says how to use it.
	if scheme == "" {
		scheme = response.Scheme()
	}
	if response.bound.key != nil {
		scheme = "DPoP" // In whatever letter case the server has written it.
	}
	c := &cachedToken{receivedToken: receivedToken{
		particulars:   &nothingParticular,
		authorization: scheme + " " + response.AccessToken,
		start:         int32(len(scheme) + 1), //nolint:gosec // An answer isn't as large as that.
		answer:        response.Compact(response.body),
		fromStore:     response.from == event.FromStore,
		foreign:       foreign,
		nested:        isNested(response.Raw),
		sent:          clock.At(response.sent),
		life:          forever,
		arrived:       max(response.floor-minReuse, 0),
		issued:        response.issued,
		soft:          forever,
		hard:          forever,
		dead:          forever,
	}}
	if own := (particulars{response.shared, response.bound, response.RefreshToken}); own != nothingParticular {
		c.particulars = &own
	}
	response.Share(c.accessToken())
	token := response.token()
	c.odd = scheme != token.Type() || foreign
	c.remember(token)
	if !response.expires() {
		return c
	}
	life := response.life()
	c.life = life
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

// from returns where c came from.
func (c *cachedToken) from() event.TokenFrom {
	if c.fromStore {
		return event.FromStore
	}
	return event.FromServer
}

// accessToken returns the token's text.
func (c *cachedToken) accessToken() string { return c.authorization[c.start:] }

// token returns the whole token, which the caller must not change or hand out.
func (c *cachedToken) token() *oauth2.Token {
	if handed := c.handed.Load(); handed != nil && !c.nested {
		if token := handed.Value(); token != nil {
			return token
		}
	}
	return c.remake()
}

// remake makes the whole token of the answer.
func (c *cachedToken) remake() *oauth2.Token {
	response := c.answer.Response(c.accessToken())
	response.RefreshToken = c.refreshToken
	token := newToken(response, c.expiry())
	c.remember(token)
	return token
}

// remember keeps the whole token for as long as it costs nothing.
func (c *cachedToken) remember(token *oauth2.Token) {
	handed := weak.Make(token)
	c.handed.Store(&handed)
}

// copy returns a token that the caller may change, including the values of its Extra.
func (c *cachedToken) copy() *oauth2.Token {
	token := *c.token()
	return &token
}

// expiry returns when c expires; zero: it doesn't.
func (c *cachedToken) expiry() time.Time {
	if c.life == forever {
		return time.Time{}
	}
	return c.sent.Time().Add(c.life)
}

// expirySeen returns when c expires, as seen from now; zero: it doesn't. If the machine was
// suspended, that is earlier than it was meant to be by the monotonic clock.
func (c *cachedToken) expirySeen(now time.Time) time.Time {
	if c.life == forever {
		return time.Time{}
	}
	return now.Add(c.life - c.age(now))
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
// A caller doesn't wait for early if the next token would be no better.
func (c *cachedToken) awaited(now time.Time, early time.Duration) bool {
	age := c.age(now)
	if age >= c.hard {
		return true
	}
	return c.dead != forever && c.dead-age < early && c.nextMayLast(early, now)
}

// nextMayLast reports whether the token that replaces c may arrive with that much life left. It
// may if c did, unless c is so young that the next one would be no better.
func (c *cachedToken) nextMayLast(life time.Duration, now time.Time) bool {
	return c.dead-c.arrived >= life && c.age(now) >= minReuse
}

// isBound reports whether using c takes more than the token.
func (c *cachedToken) isBound() bool { return c.bound != binding{} }

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

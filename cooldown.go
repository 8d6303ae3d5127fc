package clientcredentials

import (
	"errors"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
)

// This file decides how long a Source pauses: its token requests after failures, and the
// dropping of tokens after an API has rejected one.

const (
	minCooldown  = time.Second      // between two token requests when they fail
	maxCooldown  = 30 * time.Second // to this, doubling
	cooldownFree = 5                // failures in a row before callers without a token have to wait

	// minRejection is the least time between two tokens that are dropped because an API
	// answered 401, since an API may answer 401 to any token. If a token has a shorter life,
	// that life is the limit.
	minRejection = 30 * time.Second

	// lastMoment is how long before its expiry a token that an API rejects has simply ended.
	lastMoment = time.Second
)

// A cooldown spaces out the token requests of a Source after failures. A success clears it,
// and so does a change of what is requested. The zero value is clear. Its methods require
// that Source.mu is held.
//
//   - While there is a valid token, the second request comes 1 second after the first
//     failure. The pause doubles with each failure, up to 30 seconds.
//   - Without a valid token, the first five failures cause no pause, so that a program
//     recovers at once from a single failure. Then the pauses are the same, and callers get
//     the last error until the pause is over.
//   - A Retry-After holds in both cases. If there is a Store, the first Retry-After holds
//     for at most a minute.
type cooldown struct {
	failures   int // in a row
	err        error
	request    *tokenRequest  // the last one that failed
	background clock.Deadline // no request before it while there is a valid token
	foreground clock.Deadline // and before this one while there is none
}

// fail notes a failure. draw is in [0,1) and decides how much of the jitter is used.
func (c *cooldown) fail(now time.Time, request *tokenRequest, err error, draw float64) {
	if errors.Is(err, errOthersFailed) {
		// This replica has asked the store and not the server, for a token that nobody
		// needs yet. That is no reason to keep callers waiting once they need one.
		c.err, c.request = err, request
		c.background = clock.In(now, cooldownDelay(c.failures+1, draw))
		return
	}
	c.failures++
	c.err, c.request = err, request
	delay := retryAfter(err, now)
	if request.conf.Store != nil && c.failures == 1 {
		delay = min(delay, maxSharedCooldown) // Another replica may have a token by then.
	}
	c.background = clock.In(now, max(delay, cooldownDelay(c.failures, draw)))
	if c.failures >= cooldownFree {
		delay = max(delay, cooldownDelay(c.failures-cooldownFree+1, draw))
	}
	c.foreground = clock.In(now, delay)
}

// end returns the end of the pause, for a Source with or without a valid token.
func (c *cooldown) end(valid bool) clock.Deadline {
	if valid {
		return c.background
	}
	return c.foreground
}

// A rejections limits how often an API can cause a token to be dropped. The zero value has
// seen none. Its methods require that Source.mu is held.
type rejections struct {
	last  clock.Instant // when a token was dropped because of a 401
	count int           // how often that has happened
	final bool          // the current token was requested because of that, so dropping it would be no use
}

// isRecent reports whether a token was dropped so short a time ago that the next one may
// be rejected for the same reason.
func (r *rejections) isRecent(now time.Time) bool {
	return r.count > 0 && r.last.Age(now) < minRejection
}

// inherit notes that another replica has requested c because an API had rejected the
// token before. Otherwise each replica would drop one token of an API that rejects all.
func (r *rejections) inherit(c *cachedToken, now time.Time) {
	if now.Sub(c.issued) < minRejection {
		r.last, r.final = clock.At(now), true
		r.count++
	}
}

// admit reports whether c may be dropped now because an API has rejected it, and whether the
// next token must come from the server and not from the store.
func (r *rejections) admit(now time.Time, c *cachedToken) (drop, ask bool) {
	if c.dead != forever && c.age(now) >= max(c.dead-lastMoment, minReuse) {
		// Some servers end a token a moment before its time, and the next one is due anyway.
		return true, false
	}
	if r.count > 0 && r.last.Age(now) < min(minRejection, c.dead) {
		// A token from the store may have been revoked together with the last one, or
		// somebody has put it back there. The server knows better. That helps once.
		again := c.fromStore && !r.final
		r.final = true
		return again, again
	}
	r.last, r.final = clock.At(now), false
	r.count++
	return true, false
}

// cooldownDelay returns the pause after the nth failure.
func cooldownDelay(n int, draw float64) time.Duration {
	return jittered(min(minCooldown<<min(n-1, 10), maxCooldown), draw)
}

// jittered returns between three quarters of d and the whole, so that replicas don't act
// all at once. draw is in [0,1) and decides where in between.
func jittered(d time.Duration, draw float64) time.Duration {
	return time.Duration(float64(d) * (0.75 + 0.25*draw))
}

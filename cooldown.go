package clientcredentials

import (
	"time"
)

// This file decides how long a Source pauses: its token requests after failures, and the
// dropping of tokens after an API has rejected one.

const (
	minCooldown  = time.Second      // between two token requests when they fail
	maxCooldown  = 30 * time.Second // to this, doubling
	cooldownFree = 5                // failures in a row before callers without a token have to wait

	// minRejection is the least time between two tokens that are dropped because an API
	// answered 401, since an API may answer 401 to any token.
	minRejection = 30 * time.Second
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
//   - A Retry-After holds in both cases. If there is a Store, the first Retry-After holds for
//     at most a minute.
type cooldown struct {
	failures   int // in a row
	err        error
	request    *tokenRequest // the last one that failed
	background time.Time     // no request before this time while there is a valid token
	foreground time.Time     // and before this one while there is none
}

// fail notes a failure. draw is in [0,1) and decides how much of the jitter is used.
func (c *cooldown) fail(now time.Time, request *tokenRequest, err error, draw float64) {
	c.failures++
	c.err, c.request = err, request
	delay := retryAfter(err, now)
	if request.conf.Store != nil && c.failures == 1 {
		delay = min(delay, maxSharedCooldown) // Another replica may have a token by then.
	}
	hold := now.Add(delay)
	c.background = latest(hold, now.Add(cooldownDelay(c.failures, draw)))
	c.foreground = hold
	if c.failures >= cooldownFree {
		c.foreground = latest(hold, now.Add(cooldownDelay(c.failures-cooldownFree+1, draw)))
	}
}

// end returns when the pause is over, for a Source with or without a valid token.
func (c *cooldown) end(valid bool) time.Time {
	if valid {
		return c.background
	}
	return c.foreground
}

// A rejections limits how often an API can cause a token to be dropped. The zero value has
// seen none. Its methods require that Source.mu is held.
type rejections struct {
	last time.Time // when a token was dropped because of a 401; zero: never
}

// admit reports whether a token that was requested at the time sent may be dropped now. If so it
// notes that.
func (r *rejections) admit(now, sent time.Time) bool {
	// A token that another replica had requested long before the last rejection says
	// nothing about whether the API rejects every token: both may have been revoked together.
	if !r.last.IsZero() && now.Sub(r.last) < minRejection && r.last.Sub(sent) < minRejection {
		return false
	}
	r.last = now
	return true
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

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

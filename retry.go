package clientcredentials

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
)

const (
	defaultMaxAttempts    = 3
	defaultAttemptTimeout = 10 * time.Second
	defaultTotalTimeout   = 30 * time.Second

	minRetryDelay = 100 * time.Millisecond // between two attempts at a token
	maxRetryDelay = time.Second            // to this, at random

	minCooldown  = time.Second      // between two token requests when they fail
	maxCooldown  = 30 * time.Second // to this, doubling
	cooldownFree = 5                // failures in a row before callers without a token have to wait

	// maxRetryAfter bounds what a server can ask for: a mistake in it would
	// otherwise outlast the outage.
	maxRetryAfter = time.Hour
)

// RetryPolicy says how hard to try for a token that somebody waits for. The zero
// value of each field is its default.
//
// A token request is tried again, 100 milliseconds to 1 second later, after a
// network error, a timeout, and an answer with status 408, 429, 500, 502, 503 or
// 504. A Retry-After in the answer is obeyed, up to an hour. A second attempt
// after a network error uses a new connection.
type RetryPolicy struct {
	// MaxAttempts is how often to try, with one attempt more if the auth style
	// turns out to be the other one. 0: 3 times.
	MaxAttempts int

	// AttemptTimeout bounds one attempt. 0: 10 seconds.
	AttemptTimeout time.Duration

	// TotalTimeout bounds all of them together, with the pauses. 0: 30 seconds.
	TotalTimeout time.Duration
}

// withDefaults returns p with its zero fields filled in.
func (p RetryPolicy) withDefaults() (RetryPolicy, error) {
	if p.MaxAttempts < 0 || p.AttemptTimeout < 0 || p.TotalTimeout < 0 {
		return p, errors.New("oauth2: a field of Retry is negative; use zero for the default")
	}
	if p.MaxAttempts == 0 {
		p.MaxAttempts = defaultMaxAttempts
	}
	if p.AttemptTimeout == 0 {
		p.AttemptTimeout = defaultAttemptTimeout
	}
	if p.TotalTimeout == 0 {
		p.TotalTimeout = defaultTotalTimeout
	}
	return p, nil
}

// timeout returns a context that ends after d, with an error that says what did.
func timeout(ctx context.Context, d time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("oauth2: cannot fetch token: %s took longer than %v: %w", what, d, context.DeadlineExceeded))
}

// do requests a token, and again as the policy says and as long as it is wanted.
// On the way it finds out which auth style the server accepts, if the Config
// doesn't say and no earlier request has found out.
func (r *tokenRequest) do(ctx context.Context, wanted func() bool) (*tokenResponse, error) {
	defer r.closeCertified()
	style, probing := r.firstStyle()
	attempt := 1
	var refusal error // that another credential may mend
	nonced := false   // whether this attempt has been repeated with a nonce
	for {
		response, err := r.send(ctx, style)
		if err == nil {
			if probing {
				r.styles.set(r.url, r.clientID, style)
			}
			response.attempts = attempt
			return response, nil
		}
		if errors.Is(err, errSameCredential) {
			return nil, refusal
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if !nonced && r.wantsNonce(err) {
			nonced = true
			continue
		}
		if refusal == nil && r.credential != "" && isInvalidClient(err) {
			// Replaced, perhaps, while it was on its way.
			refusal, r.refused = err, r.credential
			continue
		}
		if probing && style == oauth2.AuthStyleInHeader && rejectsAuthStyle(err) && r.clientID+r.clientSecret != "" {
			style = oauth2.AuthStyleInParams
			continue
		}
		delay, ok := r.pause(ctx, err, attempt)
		if !ok || !wanted() {
			return nil, err
		}
		r.observer.retry(event.Retry{Attempt: attempt, Delay: delay, Err: err})
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, err
		}
		if !isAnswer(err) {
			r.freshConnection()
		}
		attempt++
		nonced = false
	}
}

// pause returns how long to wait after an attempt that ended with err, and
// whether there should be another.
func (r *tokenRequest) pause(ctx context.Context, err error, attempt int) (time.Duration, bool) {
	if attempt >= r.retry.MaxAttempts || !IsTemporary(err) {
		return 0, false
	}
	// Full jitter, so that clients that failed together don't return together.
	delay := minRetryDelay + rand.N(maxRetryDelay-minRetryDelay)
	delay = max(delay, retryAfter(err, time.Now()))
	deadline, ok := ctx.Deadline()
	return delay, !ok || delay < time.Until(deadline)
}

// isAnswer reports whether err is an answer of the token endpoint.
func isAnswer(err error) bool {
	var refusal *oauth2.RetrieveError
	var fault *ResponseError
	return errors.As(err, &refusal) || errors.As(err, &fault)
}

// IsTemporary reports whether an error of this package, or one that wraps it, may well
// pass by itself, so that the same call succeeds a little later: the network failed,
// something took too long, or the authorization server answered 408, 429, 500, 502, 503
// or 504. Otherwise somebody has to mend something: the credentials, a certificate, the
// Config, a context that is done. Nil is not temporary.
func IsTemporary(err error) bool {
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		if refusal.Response == nil {
			return false // Not one of ours.
		}
		switch refusal.Response.StatusCode {
		case http.StatusRequestTimeout,
			http.StatusTooManyRequests,
			http.StatusInternalServerError,
			http.StatusBadGateway,
			http.StatusServiceUnavailable,
			http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	var (
		authentication *authError
		construction   *constructionError
		certificate    *tls.CertificateVerificationError
		alert          tls.AlertError
		notTLS         tls.RecordHeaderError
		operation      *net.OpError
		network        net.Error // A *url.Error is one, and so is context.DeadlineExceeded.
	)
	switch {
	case isAnswer(err), errors.Is(err, errReentered), errors.As(err, &authentication):
		return false
	case errors.As(err, &construction), errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &certificate), errors.As(err, &alert), errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		return false // The peer doesn't become another in a second.
	case errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error"):
		return false // An alert of TLS over TCP; crypto/tls doesn't export its type.
	}
	return errors.As(err, &network) || errors.Is(err, errEndedEarly) || errors.Is(err, errOthersFailed)
}

// retryAfter returns how long the answer that err stands for asks to wait, RFC
// 9110, Section 10.2.3. 0: it doesn't.
func retryAfter(err error, now time.Time) time.Duration {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return 0
	}
	header := refusal.Response.Header
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date // A time in Retry-After is by the server's clock.
	}
	return parseRetryAfter(header.Get("Retry-After"), now)
}

func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}

// freshConnection makes the next attempt use a connection of its own: the one
// before failed on the network, and others in the pool may be as dead. An HTTP/2
// connection whose packets get lost stays in the pool for minutes.
func (r *tokenRequest) freshConnection() {
	r.closeCertified()
	base := r.client.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	if !ok {
		r.client.CloseIdleConnections() // All that can be asked of another RoundTripper.
		return
	}
	transport = cloneTransport(transport)
	transport.DisableKeepAlives = true
	r.client.Transport = transport
}

// cloneTransport returns a transport like the one given, with connections of its own.
func cloneTransport(transport *http.Transport) *http.Transport {
	transport = transport.Clone()
	config := transport.TLSClientConfig
	switch {
	case transport.TLSNextProto["h2"] != nil:
		// The user's HTTP/2, whose pool the clone shares: do without.
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
		transport.TLSNextProto = nil
		if config != nil {
			config.NextProtos = slices.DeleteFunc(slices.Clone(config.NextProtos), func(p string) bool { return p == "h2" })
		}
	case config != nil && slices.Contains(config.NextProtos, "h2"):
		// That of net/http: a clone offers it, and can't speak it unless told to.
		transport.ForceAttemptHTTP2 = true
	}
	return transport
}

// A cooldown spaces the token requests of a Source after failures. It is cleared
// by a success, and by a change of what is requested. The zero value is clear.
//
//   - While there is a valid token, the second request comes 1 second after the
//     first failure, and so on, doubling, up to 30 seconds.
//   - Callers without one may try five times at once, so that a program that
//     recovers from a single failure still does; then they wait as long as the
//     others, and get the last error meanwhile. Who called before a failure has, in
//     effect, waited for it, and gets it too.
//   - A Retry-After holds for both; the first one, where there is a Store, for a minute at
//     most.
type cooldown struct {
	failures   int // in a row
	err        error
	request    *tokenRequest // that failed last
	background time.Time     // no request before, while there is a valid token
	foreground time.Time     // and while there is none
}

// fail notes a failure. draw is in [0,1) and says how much the delay is jittered.
func (c *cooldown) fail(now time.Time, request *tokenRequest, err error, draw float64) {
	c.failures++
	c.err, c.request = err, request
	delay := retryAfter(err, now)
	if request.store != nil && c.failures == 1 {
		delay = min(delay, maxSharedCooldown) // Another replica may have got a token.
	}
	hold := now.Add(delay)
	c.background = latest(hold, now.Add(cooldownDelay(c.failures, draw)))
	c.foreground = hold
	if c.failures >= cooldownFree {
		c.foreground = latest(hold, now.Add(cooldownDelay(c.failures-cooldownFree+1, draw)))
	}
}

// cooldownDelay returns the pause after the nth failure.
func cooldownDelay(n int, draw float64) time.Duration {
	return jittered(min(minCooldown<<min(n-1, 10), maxCooldown), draw)
}

// jittered returns three quarters of d to the whole, so that replicas don't act in
// step. draw is in [0,1) and says where in between.
func jittered(d time.Duration, draw float64) time.Duration {
	return time.Duration(float64(d) * (0.75 + 0.25*draw))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

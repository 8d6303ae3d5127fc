package clientcredentials

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/tlsalert"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

const (
	defaultMaxAttempts    = 3
	defaultAttemptTimeout = 10 * time.Second
	defaultTotalTimeout   = 30 * time.Second

	minRetryDelay = 100 * time.Millisecond // between two attempts at a token
	maxRetryDelay = time.Second            // to this, at random

	// maxRetryAfter bounds what a server can ask for: a mistake in it would
	// otherwise outlast the outage.
	maxRetryAfter = time.Hour
)

// RetryPolicy says how hard to try for a token that somebody waits for. The zero
// value of each field is its default.
//
// A token request is tried again, 100 milliseconds to 1 second later, after a
// failure that IsTemporary is true of. A Retry-After in the answer is obeyed, up to an
// hour. After a network error the idle connections are closed, and the next attempt asks for
// its connection to be closed.
type RetryPolicy struct {
	// MaxAttempts is how often to try. Finding out the auth style may take one more
	// attempt. 0: 3 times.
	MaxAttempts int

	// AttemptTimeout bounds one attempt. 0: 10 seconds.
	AttemptTimeout time.Duration

	// TotalTimeout bounds all attempts together, with the pauses. 0: 30 seconds.
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

// timeout returns a context that ends after d, with an error that says what took too long.
func timeout(ctx context.Context, d time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, &timeoutError{what, d})
}

// A timeoutError is the error for what took longer than Config.Retry allows. It is a
// net.Error, because url.Error asks only the error right below it whether it is a timeout.
type timeoutError struct {
	what  string
	limit time.Duration
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("oauth2: cannot fetch token: %s took longer than %v: %v", e.what, e.limit, context.DeadlineExceeded)
}

func (e *timeoutError) Unwrap() error   { return context.DeadlineExceeded }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

// do requests a token, and tries again as the policy says and as long as the token is
// wanted. On the way it finds out which auth style the server accepts, unless the Config
// says so or an earlier request has found out.
func (r *tokenRequest) do(ctx context.Context, wanted func() bool) (*tokenResponse, error) {
	defer r.closeCertified()
	style, probing := r.firstStyle()
	attempt := 1
	nonced := false    // this attempt has been repeated with a nonce
	var refusal error  // the credential was refused, and another one may be accepted
	var inHeader error // the server refused the first auth style with it
	for {
		response, err := r.send(ctx, style)
		if err == nil {
			if probing {
				r.styles.set(r.conf.TokenURL, r.conf.ClientID, style)
			}
			response.attempts = attempt
			return response, nil
		}

		// Try at once what the answer asks for.
		var authentication *authError
		blamed := r.blamed(err)
		switch {
		case errors.Is(err, errSameCredential):
			return nil, refusal
		case errors.As(err, &authentication):
			// Nothing was sent. If it wraps an answer, that is one of another server.
			return nil, err
		case ctx.Err() != nil:
			return nil, err
		case !nonced && r.wantsNonce(err):
			nonced = true
			continue
		case refusal == nil && blamed != credentialIDs{}:
			// The credential may have been replaced while the request was on its way.
			refusal, r.attempts.refused = err, blamed
			continue
		case probing && style == oauth2.AuthStyleInHeader && r.rejectsAuthStyle(err) && r.conf.ClientID+r.conf.ClientSecret != "":
			style, inHeader = oauth2.AuthStyleInParams, err
			continue
		}

		// Otherwise wait, and try again if that makes sense.
		delay, ok := r.pause(ctx, err, attempt)
		if !ok || !wanted() {
			if inHeader != nil && isAnswer(err) && !IsTemporary(err) && r.saysMore(inHeader, err) {
				return nil, inHeader // It says more about what the user can change.
			}
			return nil, err
		}
		observer := r.conf.observer()
		bounded.Tell(observer.Retry, event.Retry{Attempt: attempt, Delay: delay, Err: err})
		if clock.In(time.Now(), delay).Wait(ctx) != nil {
			return nil, err
		}
		if !isAnswer(err) {
			r.forgetConnections()
		}
		attempt++
		nonced = false
	}
}

// pause returns how long to wait after an attempt that ended with err, and
// whether there should be another.
func (r *tokenRequest) pause(ctx context.Context, err error, attempt int) (time.Duration, bool) {
	if attempt >= r.conf.Retry.MaxAttempts || !IsTemporary(err) {
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
	var fault *ResponseError
	return refusalOf(err) != nil || errors.As(err, &fault)
}

// refusalOf returns the refusal of a token endpoint that err stands for, or nil. One without a
// Response isn't of this package: a RoundTripper or a ClientAuth has made it.
func refusalOf(err error) *oauth2.RetrieveError {
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) && refusal != nil && refusal.Response != nil {
		return refusal
	}
	return nil
}

// IsTemporary reports whether the failure that err stands for may pass by itself, so that
// the same call succeeds a little later: the network failed, something took too long, or the
// authorization server answered 408, 425, 429, a status of 500 or more that is about its
// health, or an error code that says so, such as temporarily_unavailable. Otherwise somebody
// has to fix something: the credentials, a certificate, an address, a proxy, the Config, a
// context that is done.
// err is an error of this package, or wraps one. Nil is not temporary.
func IsTemporary(err error) bool {
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		refusal = refusalOf(err)
		return refusal != nil && tokenresponse.IsTemporary(refusal.Response.StatusCode, refusal.ErrorCode)
	}
	var (
		network net.Error // A *url.Error is one, and so is context.DeadlineExceeded.
		early   *endedEarlyError
		masked  *maskedError
	)
	switch {
	case isPermanent(err):
		return false
	case errors.As(err, &early):
		return early.temporary // It was judged before it was masked,
	case errors.As(err, &masked):
		return masked.temporary // and so was this one.
	}
	return errors.As(err, &network) || errors.Is(err, errOthersFailed)
}

// isPermanent reports whether somebody has to fix what err, which is no refusal, stands for.
func isPermanent(err error) bool {
	var (
		authentication *authError
		grant          *grantError
		construction   *constructionError
		certificate    *tls.CertificateVerificationError
		notTLS         tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &grant):
		return isPermanent(grant.err) // It may ask another server.
	case isAnswer(err), errors.Is(err, errReentered), errors.As(err, &authentication):
		return true
	case errors.As(err, &construction), errors.Is(err, context.Canceled):
		return true
	case errors.As(err, &certificate), tlsalert.Is(err), errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		return true // The server will be the same in a second.
	}
	return isMisconfigured(err)
}

// isMisconfigured reports whether err is an error of net/http that says that an address can't
// work, or that a proxy refuses. Such errors have no type, or a type for all kinds.
func isMisconfigured(err error) bool {
	var request *url.Error
	var address *net.AddrError
	if !errors.As(err, &request) {
		return false
	}
	text := request.Err.Error()
	switch {
	case request.Op == "parse":
		return true
	case errors.As(err, &address) && (strings.Contains(address.Err, "port") || strings.Contains(address.Err, "in address")):
		return true // With GOOS=js such an error may also be about the connection.
	case strings.HasPrefix(text, "unsupported protocol scheme"), strings.HasPrefix(text, "invalid proxy address"),
		strings.HasPrefix(text, "http: no Host in request URL"):
		return true
	}
	// If a proxy refuses to connect, the error is the text of its answer's status.
	for status := 400; status < 600; status++ {
		if ascii.EqualFold(text, http.StatusText(status)) && text != "" {
			return !tokenresponse.IsTemporary(status, "")
		}
	}
	return false
}

// retryAfter returns how long the server asks to wait in the answer that err stands for,
// RFC 9110, Section 10.2.3. 0: it doesn't ask.
func retryAfter(err error, now time.Time) time.Duration {
	refusal := refusalOf(err)
	if refusal == nil {
		return 0
	}
	header := refusal.Response.Header
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date // A time in Retry-After is measured by the server's clock.
	}
	return parseRetryAfter(header.Get("Retry-After"), now)
}

// isSeconds reports whether the value of Retry-After is a number.
func isSeconds(value string) bool {
	return value != "" && strings.Trim(value, "0123456789") == ""
}

func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if isSeconds(value) {
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

// forgetConnections makes the next attempt use a new connection if possible: the last
// attempt failed on the network, and the other connections in the pool may be just as
// dead. It always uses the program's own RoundTripper, with whatever is registered with
// it or wrapped around it. That leaves two ways to say that a connection must not be used
// again:
//
//   - CloseIdleConnections, which an http.Client forwards to RoundTrippers that have it, and
//     which also closes an HTTP/2 connection that has no requests left;
//   - Request.Close, which closes the connection after the next request, also if a
//     RoundTripper is wrapped around the transport.
func (r *tokenRequest) forgetConnections() {
	r.client.CloseIdleConnections()
	r.attempts.unsure = true
}

// cloneTransport returns a transport like the given one, with its own connections.
func cloneTransport(transport *http.Transport) *http.Transport {
	transport = transport.Clone()
	config := transport.TLSClientConfig
	switch {
	case transport.TLSNextProto["h2"] != nil:
		// The program has configured HTTP/2 by itself, and a clone would share its
		// connections: use HTTP/1.1.
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
		transport.TLSNextProto = nil
		if config != nil {
			config.NextProtos = slices.DeleteFunc(slices.Clone(config.NextProtos), func(p string) bool { return p == "h2" })
		}
	case config != nil && slices.Contains(config.NextProtos, "h2"):
		// HTTP/2 of net/http: a clone offers it in the handshake, but speaks it only if
		// told to.
		transport.ForceAttemptHTTP2 = true
	}
	return transport
}

package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

const (
	maxErrorBody   = 8 << 10  // what is kept of an error response's body,
	maxErrorText   = 1 << 10  // of each of its members and of a header field,
	maxErrorHeader = 32 << 10 // and of all header fields
)

// A constantError is an error that never changes. Unlike errors.New it costs nothing when a program
// starts.
type constantError string

func (e constantError) Error() string { return string(e) }

// ResponseError is the error for an answer of the token endpoint that can't be
// used although its status says success: HTML, an empty body, a part of
// something larger, more than 1 MiB, or a token response that breaks RFC 6749,
// Section 5.1. It quotes nothing of the answer. If the server refuses, the error is a
// *oauth2.RetrieveError instead.
type ResponseError struct {
	StatusCode int    // the answer's status
	MediaType  string // its media type, without parameters; empty if it had none
	Size       int    // the body's size in bytes, after decompression; 1 MiB + 1 if it is larger than 1 MiB
	Err        error  // what is wrong; may be nil

	prefix string // the words with which upstream begins such an error
}

func (e *ResponseError) Error() string {
	mediaType := e.MediaType
	if mediaType == "" {
		mediaType = "no media type"
	}
	var reason string
	if e.Err != nil {
		reason = ": " + strings.ReplaceAll(e.Err.Error(), "\n", "; ")
	}
	return fmt.Sprintf("%s%s (status %d, %s, %d bytes)", e.prefix, reason, e.StatusCode, mediaType, e.Size)
}

// Unwrap returns e.Err.
func (e *ResponseError) Unwrap() error { return e.Err }

// retrieveError returns the error for a refusal. It keeps what a program may
// want to look at, and nothing that must not be in a log: neither the request's
// credentials, which upstream leaves in Response.Request, nor their echo in the
// answer, nor a token.
func retrieveError(resp *http.Response, body []byte, parsed *tokenresponse.Response, mask *redact.Masker) *oauth2.RetrieveError {
	text := func(s string) string { return mask.Mask(s, maxErrorText) }

	clone := new(http.Response)
	*clone = *resp
	clone.Status = redact.Neutralise(text(resp.Status))
	clone.Body = http.NoBody
	clone.Trailer = nil
	clone.Header = make(http.Header, len(resp.Header))
	for _, name := range []string{"Date", "Retry-After"} { // retryAfter reads them.
		if value := resp.Header.Get(name); isTime(value) {
			clone.Header.Set(name, value)
		}
	}
	budget := maxErrorHeader
	for name, values := range resp.Header {
		if clone.Header[name] != nil {
			continue
		}
		for _, value := range values {
			if budget -= len(name) + min(len(value), maxErrorText); budget >= 0 {
				clone.Header[name] = append(clone.Header[name], text(value))
			}
		}
	}
	if resp.Request != nil {
		clone.Request = withoutCredentials(resp.Request)
	}
	code := parsed.ErrorCode
	switch code { // The codes of RFC 6749, Section 5.2, of RFC 9449, and two more that servers send.
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
		"invalid_scope", "server_error", "temporarily_unavailable", "use_dpop_nonce", "invalid_dpop_proof":
	default:
		code = text(code)
	}
	return &oauth2.RetrieveError{
		Response:         clone,
		Body:             []byte(redact.Clip(redact.Neutralise(mask.Mask(string(body), maxErrorBody)), maxErrorBody)),
		ErrorCode:        code,
		ErrorDescription: text(parsed.ErrorDescription),
		ErrorURI:         text(parsed.ErrorURI),
	}
}

// isTime reports whether value is a number of seconds or a date of HTTP.
func isTime(value string) bool {
	_, err := http.ParseTime(value)
	return err == nil || value != "" && strings.Trim(value, "0123456789") == ""
}

// withoutCredentials returns a request that says where req went, and no more.
func withoutCredentials(req *http.Request) *http.Request {
	clone := &http.Request{
		Method:     req.Method,
		Proto:      req.Proto,
		ProtoMajor: req.ProtoMajor,
		ProtoMinor: req.ProtoMinor,
		Host:       req.Host,
		Header:     req.Header.Clone(),
	}
	clone.Header.Del("Authorization")
	clone.Header.Del("DPoP")
	clone.Header.Del("Cookie")
	if req.URL != nil {
		clone.URL = redact.BareURL(req.URL)
	}
	return clone
}

// withoutSecrets returns err, an error of net/http, without the query of the
// address that it quotes. Such an error may also quote an answer that isn't HTTP. If that
// is long or echoes the request, a maskedError replaces what err wraps.
func withoutSecrets(err error, mask *redact.Masker) error {
	var outer *url.Error
	if !errors.As(err, &outer) {
		return harmless(err, mask)
	}
	for quoted := outer; quoted != nil; {
		quoted.URL = redact.AddressText(quoted.URL)
		var inner *url.Error // of a RoundTripper that is a client itself
		errors.As(quoted.Err, &inner)
		quoted = inner
	}
	outer.Err = harmless(outer.Err, mask)
	return err
}

// harmless returns err, or a maskedError if the text of err can't be shown as it is.
func harmless(err error, mask *redact.Masker) error {
	whole := err.Error()
	masked := mask.Mask(whole, maxErrorText)
	text := redact.Clip(redact.Neutralise(masked), maxErrorText)
	if text == whole {
		return err
	}
	return &maskedError{
		text: text,
		is:   func(target error) bool { return errors.Is(err, target) },
		as: func(target any) bool {
			return masked == redact.Clip(whole, maxErrorText) && errors.As(err, target)
		},
	}
}

// A maskedError stands for an error whose text, and that of what it wraps, can't be shown.
// errors.Is still finds what the error wraps, and so does errors.As if there is no secret in
// it.
type maskedError struct {
	text string
	is   func(target error) bool
	as   func(target any) bool
}

func (e *maskedError) Error() string        { return e.text }
func (e *maskedError) Is(target error) bool { return e.is(target) }
func (e *maskedError) As(target any) bool   { return e.as(target) }

// Timeout is for url.Error, which asks the error that it wraps.
func (e *maskedError) Timeout() bool {
	return e.is(context.DeadlineExceeded) || e.is(os.ErrDeadlineExceeded)
}

// redirectError returns the error for an answer that points elsewhere.
func redirectError(resp *http.Response, refusal *oauth2.RetrieveError) error {
	target := "an address that cannot be parsed"
	resp = &http.Response{Header: refusal.Response.Header, Request: resp.Request} // Its secrets are masked.
	if location, err := resp.Location(); err == nil {
		target = redact.Clip(origin.Of(location).String(), maxErrorText)
	}
	return fmt.Errorf("oauth2: cannot fetch token: the token endpoint answered %d, a redirect to %s, which is not followed; set TokenURL to the endpoint's final address: %w",
		refusal.Response.StatusCode, target, refusal)
}

// masker returns what masks the secrets of an attempt in a text of the server, which may echo
// them in any encoding.
func (r *tokenRequest) masker(attempt *Attempt) *redact.Masker {
	secrets := []string{r.conf.ClientSecret}
	for _, parameters := range []url.Values{attempt.Form, r.endpoint.Query()} {
		for name, values := range parameters {
			if redact.IsCredentialName(name) {
				secrets = append(secrets, values...)
			}
		}
	}
	secrets = append(secrets, redact.HeaderSecrets(attempt.Header)...)
	if r.conf.ClientSecret != "" {
		secrets = append(secrets,
			redact.BasicCredentials(url.QueryEscape(r.conf.ClientID), url.QueryEscape(r.conf.ClientSecret)),
			redact.BasicCredentials(r.conf.ClientID, r.conf.ClientSecret))
	}
	return redact.NewMasker(secrets...)
}

// A waitError is the error of a caller whose context ended before there was a
// token. The token request goes on without that caller.
type waitError struct{ cause error }

func (e *waitError) Error() string {
	return "oauth2: cannot fetch token: the context ended while waiting: " + e.cause.Error()
}

func (e *waitError) Unwrap() error { return e.cause }

// Timeout makes the error of an http.Client say that it was a timeout.
func (e *waitError) Timeout() bool { return errors.Is(e.cause, context.DeadlineExceeded) }

func newWaitError(ctx context.Context) error { return &waitError{endOf(ctx)} }

// A constructionError is the error for a Source whose own context is done. No caller's
// context can change that.
type constructionError struct{ cause error }

func newConstructionError(ctx context.Context) error { return &constructionError{endOf(ctx)} }

func (e *constructionError) Error() string {
	return "oauth2: cannot fetch token: the context given to Config.Client, Source, TokenSource or Transport is done; give it one that lives as long as the service: " + e.cause.Error()
}

func (e *constructionError) Unwrap() error { return e.cause }

// errEndedEarly is for an answer of which only a part arrived.
const errEndedEarly = constantError("oauth2: cannot fetch token: the answer ended early")

// endOf returns why ctx is done: its Err, and its cause if that says more.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

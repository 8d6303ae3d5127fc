package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
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

// A constantError is an error that never changes. Unlike errors.New it costs nothing when
// a program starts.
type constantError string

func (e constantError) Error() string { return string(e) }

// ResponseError is the error for an answer of the token endpoint that can't be
// used although its status says success: HTML, an empty body, a part of
// something larger, more than 1 MiB, or a token response that breaks RFC 6749,
// Section 5.1. If the answer is an object without a token, the text has what the server
// says in it, without secrets. If the server refuses as RFC 6749, Section 5.2, has it, the
// error is a *oauth2.RetrieveError instead.
type ResponseError struct {
	StatusCode int    // the answer's status
	MediaType  string // its media type, without parameters; empty if it had none
	Size       int    // the body's size in bytes, after decompression; 1 MiB + 1 if it is larger than 1 MiB
	Err        error  // what is wrong; may be nil

	upstream string // the whole text of upstream's error for such an answer; empty: it accepts the answer
}

func (e *ResponseError) Error() string {
	mediaType := e.MediaType
	if mediaType == "" {
		mediaType = "no media type"
	}
	text := e.upstream
	if text == "" {
		text = "oauth2: cannot fetch token"
	}
	if e.Err != nil && e.Err.Error() != "" {
		text += ": " + strings.ReplaceAll(e.Err.Error(), "\n", "; ")
	}
	return fmt.Sprintf("%s (status %d, %s, %d bytes)", text, e.StatusCode, mediaType, e.Size)
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
	if resp.Status != fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode)) {
		clone.Status = redact.Neutralise(text(resp.Status))
	}
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
		clone.Request = withoutCredentials(resp.Request, mask)
	}
	code := parsed.ErrorCode
	switch code { // The codes of RFC 6749, Section 5.2, of RFC 8707, of RFC 9449, and two more that servers send.
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
		"invalid_scope", "server_error", "temporarily_unavailable", "invalid_target", "use_dpop_nonce", "invalid_dpop_proof":
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
	return err == nil || isSeconds(value)
}

// withoutCredentials returns a request that says where req went, and no more. Of the
// header it keeps only fields that hold no credentials, without secrets that are there
// all the same.
func withoutCredentials(req *http.Request, mask *redact.Masker) *http.Request {
	clone := &http.Request{
		Method:     req.Method,
		Proto:      req.Proto,
		ProtoMajor: req.ProtoMajor,
		ProtoMinor: req.ProtoMinor,
		Host:       req.Host,
		Header:     make(http.Header),
	}
	for name, values := range req.Header {
		if !redact.IsPublicField(name) {
			continue
		}
		for _, value := range values {
			own := []string{"application/x-www-form-urlencoded"}
			clone.Header[name] = append(clone.Header[name], mask.MaskExcept(value, maxErrorText, own))
		}
	}
	if req.URL != nil {
		clone.URL = redact.BareURL(req.URL)
	}
	return clone
}

// withoutSecrets returns err, an error of net/http, without the query of the
// address that it quotes. Such an error may also quote an answer that isn't HTTP. If that
// is long or echoes the request, a maskedError replaces what err wraps. The texts of own
// errors are never masked. IsTemporary says the same of the result as of err.
func withoutSecrets(err error, mask *redact.Masker, own ...error) error {
	temporary := IsTemporary(err)
	dropQueries(err)
	if outer, ok := err.(*url.Error); ok { //nolint:errorlint // What wraps a *url.Error may quote an answer, too.
		outer.Err = harmless(outer.Err, temporary, mask, own...)
		return err
	}
	return harmless(err, temporary, mask, own...)
}

// dropQueries removes the queries of the addresses that err quotes. There may be several: a
// RoundTripper may be a client itself.
func dropQueries(err error) {
	var quoted *url.Error
	for errors.As(err, &quoted) {
		quoted.URL = redact.AddressText(quoted.URL)
		err = quoted.Err
	}
}

// endedEarly returns the error for an answer of which only a part arrived. Reading the
// rest ended with err.
func endedEarly(err error, mask *redact.Masker, own ...error) error {
	temporary := IsTemporary(err) || !isPermanent(err)
	return &endedEarlyError{withoutSecrets(err, mask, own...), temporary}
}

// An endedEarlyError is the error for an answer of which only a part arrived.
type endedEarlyError struct {
	cause     error
	temporary bool // it may pass by itself
}

func (e *endedEarlyError) Error() string {
	return "oauth2: cannot fetch token: " + e.cause.Error() + ": the answer ended early"
}

func (e *endedEarlyError) Unwrap() error { return e.cause }

// Timeout makes the error of an http.Client say that it was a timeout.
func (e *endedEarlyError) Timeout() bool { return isTimeout(e.cause) }

// wordsOfHTTP are what net/http writes around what an answer said.
var wordsOfHTTP = [...]string{
	"net/http: HTTP/1.x transport connection broken: ",
	"malformed HTTP response ",
	"net/http: Transport failed to read from server: ",
	"net/http: TLS handshake timeout",
	"net/http: timeout awaiting response headers",
	"http: server closed idle connection",
	"context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
	"context deadline exceeded (Client.Timeout or context cancellation while reading body)",
}

// harmless returns err, or a maskedError if the text of err can't be shown as it is.
func harmless(err error, temporary bool, mask *redact.Masker, own ...error) error {
	words := wordsOfHTTP[:]
	trustworthy := redact.Trustworthy(err, own...)
	for _, e := range trustworthy {
		words = append(words, e.Error())
	}
	whole := err.Error()
	masked := mask.MaskExcept(whole, maxErrorText, words)
	text := redact.Clip(redact.Neutralise(masked), maxErrorText)
	if text == whole {
		return err
	}
	return &maskedError{
		text:      text,
		temporary: temporary,
		is:        func(target error) bool { return errors.Is(err, target) },
		as: func(target any) bool {
			if masked == redact.Clip(whole, maxErrorText) {
				return errors.As(err, target)
			}
			return slices.ContainsFunc(trustworthy, func(e error) bool { return errors.As(e, target) })
		},
	}
}

// A maskedError stands for an error whose text, and that of what it wraps, can't be shown.
// errors.Is still finds what the error wraps. errors.As finds what can't have a secret in
// it, like an error of package net.
type maskedError struct {
	text      string
	temporary bool // whether IsTemporary is true of the error that the program gets
	is        func(target error) bool
	as        func(target any) bool
}

func (e *maskedError) Error() string        { return e.text }
func (e *maskedError) Is(target error) bool { return e.is(target) }
func (e *maskedError) As(target any) bool   { return e.as(target) }

// Timeout is for url.Error, which asks the error that it wraps.
func (e *maskedError) Timeout() bool { return isTimeout(e) }

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout()
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

// publicParameters are those parameters of a ClientAuth or a Grant that aren't secret.
var publicParameters = [...]string{
	"client_id", "client_assertion_type",
	"grant_type", "subject_token_type", "actor_token_type", "requested_token_type",
}

// masker returns what masks the secrets of an attempt in a text of the server, which may
// echo them in any encoding: the secret of the Config, the values of parameters that are
// named like credentials, and everything that a ClientAuth or a Grant has added. sent is the request
// as a RoundTripper has sent it, which may have added more; nil: unknown.
func (r *tokenRequest) masker(attempt *Attempt, sent *http.Request) *redact.Masker {
	id, secret := r.clientID, r.conf.ClientSecret
	secrets := []string{secret}
	if secret != "" {
		secrets = append(secrets, id+":"+secret, url.QueryEscape(id)+":"+url.QueryEscape(secret)) // Basic, decoded.
	}
	add := func(values, known []string) {
		for _, value := range values {
			if !slices.Contains(known, value) && value != id {
				secrets = append(secrets, value)
			}
		}
	}
	query := r.endpoint.Query()
	for _, parameters := range []url.Values{attempt.Form, query} {
		for name, values := range parameters {
			if redact.IsCredentialName(name) {
				add(values, nil)
			}
		}
	}
	if r.conf.ClientAuth != nil || r.conf.Grant != nil {
		own := r.form()
		for name, values := range attempt.Form {
			if !slices.Contains(publicParameters[:], name) {
				add(values, own[name])
			}
		}
	}
	secrets = append(secrets, redact.HeaderSecrets(attempt.Header)...)
	if sent != nil {
		secrets = append(secrets, redact.HeaderSecrets(sent.Header)...)
		if sent.URL != nil {
			for name, values := range sent.URL.Query() {
				add(values, query[name])
			}
			password, _ := sent.URL.User.Password()
			secrets = append(secrets, password)
		}
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

// Timeout makes the error of an http.Client say that it was a timeout.
func (e *constructionError) Timeout() bool { return errors.Is(e.cause, context.DeadlineExceeded) }

// endOf returns why ctx is done: its Err, and its cause if that says more.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

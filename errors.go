package clientcredentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/oauth2"
)

const (
	maxErrorBody = 8 << 10 // what is kept of an error response's body
	maxErrorText = 1 << 10 // and of each of its members

	redacted = "[redacted]"
)

// ResponseError is the error for an answer of the token endpoint that can't be
// used although its status is one of success: HTML, nothing at all, a part of
// something, more than 1 MiB, or a token response that breaks RFC 6749,
// Section 5.1. It quotes nothing of the answer. A refusal by the server is a
// *oauth2.RetrieveError instead.
type ResponseError struct {
	StatusCode int    // the answer's status
	MediaType  string // its media type, without parameters; empty if it had none
	Size       int    // the body's size in bytes, after decompression; 1 MiB + 1 for any that is larger
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
func (r *tokenRequest) retrieveError(resp *http.Response, body []byte, parsed *members) *oauth2.RetrieveError {
	mask := r.masker(parsed)
	text := func(s string) string { return clip(mask.Replace(s), maxErrorText) }

	clone := new(http.Response)
	*clone = *resp
	clone.Status = neutralise(text(resp.Status))
	clone.Body = http.NoBody
	clone.Header = make(http.Header, len(resp.Header))
	for name, values := range resp.Header {
		for _, value := range values {
			clone.Header[name] = append(clone.Header[name], mask.Replace(value))
		}
	}
	if resp.Request != nil {
		clone.Request = withoutCredentials(resp.Request)
	}
	return &oauth2.RetrieveError{
		Response:         clone,
		Body:             []byte(clip(neutralise(mask.Replace(string(body))), maxErrorBody)),
		ErrorCode:        text(parsed.errorCode),
		ErrorDescription: text(parsed.errorDescription),
		ErrorURI:         text(parsed.errorURI),
	}
}

// withoutCredentials returns a request that tells where req went, and no more.
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
	clone.Header.Del("Cookie")
	if req.URL != nil {
		u := *req.URL
		u.User, u.RawQuery = nil, ""
		clone.URL = &u
	}
	return clone
}

// withoutQuery removes the query from the address that an error of an
// http.Client quotes: keys may be in it.
func withoutQuery(err error) error {
	var quoted *url.Error
	if errors.As(err, &quoted) {
		quoted.URL, _, _ = strings.Cut(quoted.URL, "?")
	}
	return err
}

// redirectError returns the error for an answer that points elsewhere.
func redirectError(resp *http.Response, refusal error) error {
	target := "an address that cannot be parsed"
	if location, err := resp.Location(); err == nil {
		target = originOf(location).String()
	}
	return fmt.Errorf("oauth2: cannot fetch token: the token endpoint answered %d, a redirect to %s, which is not followed; set TokenURL to the endpoint's final address: %w",
		resp.StatusCode, target, refusal)
}

// masker returns a replacer of the request's secrets, in every form in which a
// server may echo them, and of the tokens in its answer.
func (r *tokenRequest) masker(parsed *members) *strings.Replacer {
	secrets := []string{r.clientSecret, parsed.accessToken, parsed.refreshToken}
	for name, values := range r.form {
		if isSecretParameter(name) {
			secrets = append(secrets, values...)
		}
	}
	var forms []string
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		quoted, _ := json.Marshal(secret)
		forms = append(forms, secret,
			url.QueryEscape(secret), lowerEscapes(url.QueryEscape(secret)),
			url.PathEscape(secret), lowerEscapes(url.PathEscape(secret)),
			html.EscapeString(secret), strings.Trim(string(quoted), `"`),
			base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	if r.clientSecret != "" {
		forms = append(forms,
			basicCredentials(url.QueryEscape(r.clientID), url.QueryEscape(r.clientSecret)),
			basicCredentials(r.clientID, r.clientSecret))
	}
	// The longest first: one may begin another.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(forms))
	for _, form := range slices.Compact(forms) {
		pairs = append(pairs, form, redacted)
	}
	return strings.NewReplacer(pairs...)
}

// isSecretParameter reports whether a parameter of that name is a credential,
// like client_secret, client_assertion or password.
func isSecretParameter(name string) bool {
	if strings.HasSuffix(name, "_type") {
		return false
	}
	for _, word := range []string{"secret", "password", "assertion", "token", "code", "key"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// lowerEscapes returns s with the digits of its %XX in lower case.
func lowerEscapes(s string) string {
	escaped := []byte(s)
	for i := 0; i+2 < len(escaped); i++ {
		if escaped[i] == '%' {
			copy(escaped[i+1:i+3], strings.ToLower(s[i+1:i+3]))
		}
	}
	return string(escaped)
}

// clip returns s, cut between two runes if it is longer than limit bytes.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// neutralise returns s with characters replaced that could rewrite a terminal or
// a log line. Line ends and tabs stay: a program may parse the text.
func neutralise(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (isControl(r) || unicode.Is(unicode.Cf, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func isControl(r rune) bool { return unicode.IsControl(r) }

// A waitError is the error of a caller whose context ended before there was a
// token. The token request went on without it.
type waitError struct{ cause error }

func (e *waitError) Error() string {
	return "oauth2: cannot fetch token: the context ended while waiting: " + e.cause.Error()
}

func (e *waitError) Unwrap() error { return e.cause }

// Timeout makes the error of an http.Client say that it was a timeout.
func (e *waitError) Timeout() bool { return errors.Is(e.cause, context.DeadlineExceeded) }

func newWaitError(ctx context.Context) error { return &waitError{endOf(ctx)} }

// constructionError returns the error for a source whose own context is done,
// which no caller's context can mend.
func constructionError(ctx context.Context) error {
	return fmt.Errorf("oauth2: cannot fetch token: the context given to Config.Client, Source, TokenSource or Transport is done; give it one that lives as long as the service: %w", endOf(ctx))
}

// endOf returns why ctx is done: its Err, and its cause if that tells more.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

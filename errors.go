package clientcredentials

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/oauth2"
)

const (
	maxErrorBody   = 8 << 10  // what is kept of an error response's body,
	maxErrorText   = 1 << 10  // of each of its members and of a header field,
	maxErrorHeader = 32 << 10 // and of all header fields

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
	text := func(s string) string { return mask(s, maxErrorText) }

	clone := new(http.Response)
	*clone = *resp
	clone.Status = neutralise(text(resp.Status))
	clone.Body = http.NoBody
	clone.Trailer = nil
	clone.Header = make(http.Header, len(resp.Header))
	for _, name := range []string{"Date", "Retry-After"} { // Read by retryAfter.
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
	code := parsed.errorCode
	switch code { // RFC 6749, Section 5.2, RFC 9449, and two more that servers send.
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
		"invalid_scope", "server_error", "temporarily_unavailable", "use_dpop_nonce", "invalid_dpop_proof":
	default:
		code = text(code)
	}
	return &oauth2.RetrieveError{
		Response:         clone,
		Body:             []byte(clip(neutralise(mask(string(body), maxErrorBody)), maxErrorBody)),
		ErrorCode:        code,
		ErrorDescription: text(parsed.errorDescription),
		ErrorURI:         text(parsed.errorURI),
	}
}

// isTime reports whether value is a number of seconds or a date of HTTP.
func isTime(value string) bool {
	_, err := http.ParseTime(value)
	return err == nil || value != "" && strings.Trim(value, "0123456789") == ""
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
	clone.Header.Del("DPoP")
	clone.Header.Del("Cookie")
	if req.URL != nil {
		u := *req.URL
		u.User, u.RawQuery = nil, ""
		clone.URL = &u
	}
	return clone
}

// withoutSecrets returns err, an error of net/http, without the query of the
// address that it quotes. If it also quotes an answer that isn't HTTP, and that
// is long or echoes the request, what it wraps is replaced by a maskedError.
func (r *tokenRequest) withoutSecrets(err error) error {
	var outer *url.Error
	if !errors.As(err, &outer) {
		return r.harmless(err)
	}
	for quoted := outer; quoted != nil; {
		quoted.URL, _, _ = strings.Cut(quoted.URL, "?")
		var inner *url.Error // of a RoundTripper that is a client itself
		errors.As(quoted.Err, &inner)
		quoted = inner
	}
	outer.Err = r.harmless(outer.Err)
	return err
}

func (r *tokenRequest) harmless(err error) error {
	whole := err.Error()
	masked := r.masker(new(members))(whole, maxErrorText)
	text := clip(neutralise(masked), maxErrorText)
	if text == whole {
		return err
	}
	return &maskedError{
		text: text,
		is:   func(target error) bool { return errors.Is(err, target) },
		as:   func(target any) bool { return masked == clip(whole, maxErrorText) && errors.As(err, target) },
	}
}

// A maskedError stands for an error whose text isn't fit to be seen, nor that of
// what it wraps. What it is, for errors.Is, it can tell, and for errors.As if there
// is no secret in it.
type maskedError struct {
	text string
	is   func(target error) bool
	as   func(target any) bool
}

func (e *maskedError) Error() string        { return e.text }
func (e *maskedError) Is(target error) bool { return e.is(target) }
func (e *maskedError) As(target any) bool   { return e.as(target) }

// Timeout is for url.Error, which asks what it wraps.
func (e *maskedError) Timeout() bool {
	return e.is(context.DeadlineExceeded) || e.is(os.ErrDeadlineExceeded)
}

// redirectError returns the error for an answer that points elsewhere.
func redirectError(resp *http.Response, refusal *oauth2.RetrieveError) error {
	target := "an address that cannot be parsed"
	resp = &http.Response{Header: refusal.Response.Header, Request: resp.Request} // Without secrets.
	if location, err := resp.Location(); err == nil {
		target = clip(originOf(location).String(), maxErrorText)
	}
	return fmt.Errorf("oauth2: cannot fetch token: the token endpoint answered %d, a redirect to %s, which is not followed; set TokenURL to the endpoint's final address: %w",
		refusal.Response.StatusCode, target, refusal)
}

// masker returns a function that masks the request's secrets in a text of the
// server, which may echo them in any encoding, and the tokens in its answer. Of a
// text longer than limit it returns the beginning, and looks at little more: the
// text may be large, and full of what is almost a secret.
func (r *tokenRequest) masker(parsed *members) func(text string, limit int) string {
	secrets := []string{r.clientSecret}
	for _, parameters := range []url.Values{r.form, r.endpoint.Query()} {
		for name, values := range parameters {
			if isSecretParameter(name) {
				secrets = append(secrets, values...)
			}
		}
	}
	secrets = append(secrets, secretsInHeader(r.header)...)
	if r.clientSecret != "" {
		secrets = append(secrets,
			basicCredentials(url.QueryEscape(r.clientID), url.QueryEscape(r.clientSecret)),
			basicCredentials(r.clientID, r.clientSecret))
	}
	// The server chooses its tokens, and could make a regular expression of them
	// costly. Most are plain, like a JWT, and need none.
	tokens := []string{parsed.accessToken, parsed.refreshToken}
	for _, token := range tokens {
		if len(token) <= maxOddToken && !isAllPlain(token) {
			secrets = append(secrets, token)
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // One may begin another.
	var patterns []string
	longest := max(len(tokens[0]), len(tokens[1]))
	absurd := func(text string, _ int) string {
		if text == "" {
			return ""
		}
		return redacted
	}
	for _, secret := range secrets {
		if len(secret) > maxOddSecret && !isAllPlain(secret) {
			return absurd
		}
		if secret != "" {
			patterns = append(patterns, echoPattern(secret), regexp.QuoteMeta(base64.StdEncoding.EncodeToString([]byte(secret))))
			longest = max(longest, maxEncoding*len(secret))
		}
	}
	if longest == 0 {
		return clip
	}
	echo, err := regexp.Compile(strings.Join(patterns, "|"))
	if err != nil {
		return absurd
	}
	return func(text string, limit int) string {
		head := text[:min(len(text), limit+longest)]
		var matches [][]int
		if patterns != nil {
			matches = echo.FindAllStringIndex(head, -1)
		}
		for _, token := range tokens {
			matches = append(matches, indexAll(head, token)...)
		}
		slices.SortFunc(matches, func(a, b []int) int { return a[0] - b[0] })

		var masked strings.Builder
		at := 0
		for _, match := range matches {
			if match[0] >= limit {
				break
			}
			if match[0] >= at {
				masked.WriteString(text[at:match[0]] + redacted)
			}
			at = max(at, match[1])
		}
		if at < limit {
			masked.WriteString(clip(text[at:], limit-at))
		}
		return masked.String()
	}
}

// maxOddToken is up to which length a token with characters that aren't plain is
// looked for in other encodings too.
const maxOddToken = 512

// maxOddSecret is the length up to which a secret with such characters makes a
// regular expression of reasonable size. Of the answer to a longer one nothing is
// shown.
const maxOddSecret = 4 << 10

func isAllPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !isPlain(r) })
}

// isPlain reports whether forms, URLs, JSON and HTML leave r as it is.
func isPlain(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_'
}

// maxEncoding is how many bytes an encoding makes of one, like &quot; and \u0022.
const maxEncoding = 8

// indexAll returns where token stands in text, as regexp does.
func indexAll(text, token string) (matches [][]int) {
	for at := 0; token != ""; {
		i := strings.Index(text[at:], token)
		if i < 0 {
			break
		}
		matches = append(matches, []int{at + i, at + i + len(token)})
		at += i + len(token)
	}
	return matches
}

// echoPattern returns a regular expression for what becomes of secret in forms,
// URLs, JSON and HTML. They differ in what they do to a character that isn't plain.
func echoPattern(secret string) string {
	var pattern strings.Builder
	for secret != "" {
		r, size := utf8.DecodeRuneInString(secret)
		raw := secret[:size]
		secret = secret[size:]
		if isPlain(r) {
			pattern.WriteString(regexp.QuoteMeta(raw))
			continue
		}
		var percent, escape strings.Builder
		for _, c := range []byte(raw) {
			fmt.Fprintf(&percent, "%%%02x", c)
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&escape, `\\u%04x`, unit)
		}
		alternatives := []string{
			regexp.QuoteMeta(string(r)), // U+FFFD, which also matches what isn't UTF-8, for that.
			"(?i:" + percent.String() + ")",
			"(?i:" + escape.String() + ")",
			fmt.Sprintf("(?i:&#0*%d;|&#x0*%x;)", r, r),
		}
		if r < 0x100 {
			alternatives = append(alternatives, fmt.Sprintf(`(?i:%%%02x|\\x%02x)`, r, r))
		}
		switch r {
		case ' ':
			alternatives = append(alternatives, `\+`)
		case '"':
			alternatives = append(alternatives, "&quot;")
		case '\'':
			alternatives = append(alternatives, "&apos;")
		case '&', '<', '>':
			alternatives = append(alternatives, html.EscapeString(string(r)))
		}
		// JSON puts a backslash before some characters, of which HTML makes more.
		pattern.WriteString(`\\*(?:` + strings.Join(alternatives, "|") + ")")
	}
	return pattern.String()
}

// isSecretParameter reports whether a parameter of that name is a credential,
// like client_secret, client_assertion or password.
func isSecretParameter(name string) bool {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, "_type") {
		return false
	}
	for _, word := range []string{"secret", "password", "assertion", "token"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return strings.HasSuffix(name, "key") || name == "code" || name == "device_code"
}

// secretsInHeader returns what of the Authorization and DPoP header fields isn't for
// others to see: the credentials as they are, and a password in them.
func secretsInHeader(header http.Header) []string {
	secrets := header.Values("DPoP")
	for _, value := range header.Values("Authorization") {
		scheme, credentials, _ := strings.Cut(value, " ")
		secrets = append(secrets, credentials)
		if !strings.EqualFold(scheme, "Basic") {
			continue
		}
		pair, _ := base64.StdEncoding.DecodeString(credentials)
		_, password, _ := strings.Cut(string(pair), ":")
		secrets = append(secrets, password)
		if decoded, err := url.QueryUnescape(password); err == nil {
			secrets = append(secrets, decoded)
		}
	}
	return secrets
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

// A constructionError is the error for a source whose own context is done, which no
// caller's context can mend.
type constructionError struct{ cause error }

func newConstructionError(ctx context.Context) error { return &constructionError{endOf(ctx)} }

func (e *constructionError) Error() string {
	return "oauth2: cannot fetch token: the context given to Config.Client, Source, TokenSource or Transport is done; give it one that lives as long as the service: " + e.cause.Error()
}

func (e *constructionError) Unwrap() error { return e.cause }

// errEndedEarly is for an answer of which only a part arrived.
var errEndedEarly = errors.New("oauth2: cannot fetch token: the answer ended early")

// endOf returns why ctx is done: its Err, and its cause if that tells more.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

package workload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

const (
	// totalTimeout is for all attempts. It is shorter than the AttemptTimeout of a
	// Config, so that the error says which server didn't answer.
	totalTimeout = 8 * time.Second

	// attemptTimeout is for one attempt. A metadata server answers within milliseconds
	// from its cache, and within a second or two without it.
	attemptTimeout = 5 * time.Second

	// dialTimeout is for a connection to a metadata server, which is on the same machine or
	// next to it. Where there is none, packets to its address may get lost, and the
	// program must find out soon.
	dialTimeout = 2 * time.Second

	// firstPause is before the second attempt. Each pause is twice as long as the one
	// before. Azure asks for at least a second.
	firstPause = time.Second

	maxAttempts = 4

	// maxRefused is how often a connection may be refused. The metadata server of a new
	// pod needs a few seconds to start, but mostly there is none.
	maxRefused = 3

	maxAnswer = 64 << 10 // bytes
	maxText   = 300      // bytes of an answer that an error quotes
	maxWord   = 100      // bytes of a word in it; a JWT is longer
)

// A network is how to reach a platform. The zero value is the real one; tests have others.
type network struct {
	dial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer
	roots *x509.CertPool                                                    // nil: those of the system
}

// A request asks a platform for a token.
type request struct {
	method  string
	url     *url.URL
	header  http.Header
	secrets []string // those in header

	// proxied says that the request may go through the proxy that the environment names. It
	// is for servers on the internet, which are reached by https. A metadata server is never
	// reached through a proxy: the proxy would get its own token, or keep the program's.
	proxied bool

	// isTemporary reports whether to repeat the request after that status.
	isTemporary func(status int) bool

	// check reports whether the right server has answered. Nil: any will do.
	check func(http.Header) error

	// advice says what to do about a status, or about a failed connection if status is 0.
	advice func(status int) string
}

// send sends the request, repeatedly if that may help, and returns the body of the answer.
// Its errors contain no secret.
func (n network) send(ctx context.Context, r *request) ([]byte, error) {
	client := &http.Client{
		Transport: n.transport(r),
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // The credentials are for one server.
		},
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		body, again, err := r.attempt(ctx, client)
		if err == nil || !again || attempt == maxAttempts || attempt == maxRefused && isRefused(err) {
			return body, err
		}
		if clock.In(time.Now(), pause).Wait(ctx) != nil {
			return nil, err
		}
		pause *= 2
	}
}

// transport returns a transport for one request. Its connections aren't kept: requests are
// rare.
func (n network) transport(r *request) *http.Transport {
	dial := n.dial
	if dial == nil {
		// With a dial function of its own, a transport for GOOS=js doesn't use the Fetch API,
		// which would follow redirects.
		dialer := new(net.Dialer)
		if !r.proxied {
			dialer.Timeout = dialTimeout
		}
		dial = dialer.DialContext
	}
	transport := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: n.roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    attemptTimeout,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswer,
	}
	if r.proxied && r.url.Scheme == "https" {
		transport.Proxy = http.ProxyFromEnvironment
	}
	return transport
}

// attempt sends the request once. again says that it makes sense to repeat it after err.
func (r *request) attempt(ctx context.Context, client *http.Client) (body []byte, again bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptTimeout, fmt.Errorf("no answer within %v: %w", attemptTimeout, context.DeadlineExceeded))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), http.NoBody)
	if err != nil {
		return nil, false, fmt.Errorf("the address cannot be used: %w", r.withoutSecrets(err))
	}
	req.Header = r.header
	resp, err := client.Do(req)
	if err != nil {
		return nil, isTemporary(err), r.explain(0, "%s: %w", redact.Address(r.url), r.withoutSecrets(err, context.Cause(ctx)))
	}
	defer resp.Body.Close()
	if r.check != nil {
		if err := r.check(resp.Header); err != nil {
			return nil, false, r.explain(0, "%s: %w", redact.Address(r.url), err)
		}
	}
	if resp.StatusCode >= 200 { // After 101 Switching Protocols no context ends the reading.
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, r.isTemporary(resp.StatusCode), r.explain(resp.StatusCode, "%s answered %s", redact.Address(r.url), r.describe(resp, body))
	case err != nil:
		return nil, true, fmt.Errorf("the answer of %s ended early: %w", redact.Address(r.url), r.withoutSecrets(err))
	case len(body) > maxAnswer:
		return nil, false, fmt.Errorf("the answer of %s is larger than 64 KiB", redact.Address(r.url))
	}
	return body, false, nil
}

// isTemporary reports whether a network error may pass within seconds. A connection that can't
// be made in time won't: nothing is at that address.
func isTemporary(err error) bool {
	var operation *net.OpError
	if errors.As(err, &operation) {
		return operation.Op == "read" || operation.Op == "write" || isRefused(err)
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// isRefused reports whether a connection failed at once, although the name of the host is known.
func isRefused(err error) bool {
	var operation *net.OpError
	var name *net.DNSError
	return errors.As(err, &operation) && operation.Op == "dial" && !operation.Timeout() && !errors.As(err, &name)
}

// explain returns an error with the advice for a status.
func (r *request) explain(status int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if r.advice != nil {
		if advice := r.advice(status); advice != "" {
			return fmt.Errorf("%w; %s", err, advice)
		}
	}
	return err
}

// describe returns the status of an answer, and what it says to people.
func (r *request) describe(resp *http.Response, body []byte) string {
	text := fmt.Sprint(resp.StatusCode)
	if 300 <= resp.StatusCode && resp.StatusCode <= 399 {
		return text + ", a redirect, which is not followed"
	}
	parsed, _ := tokenresponse.Parse(body, tokenresponse.MediaType(resp), false)
	var said []string
	if parsed.ErrorCode != "" {
		said = append(said, redact.Quote(parsed.ErrorCode, maxText))
	}
	refusal := &oauth2.RetrieveError{Response: resp, Body: body, ErrorCode: parsed.ErrorCode, ErrorDescription: parsed.ErrorDescription}
	if words := tokenresponse.Explanation(refusal); words != "" {
		said = append(said, words)
	}
	if len(said) == 0 {
		return text
	}
	return text + ": " + r.quote(strings.Join(said, " "))
}

// quote returns what a server said, in one line and without secrets: those of the request, and
// words that are so long that they may be tokens.
func (r *request) quote(said string) string {
	words := strings.Fields(said)
	for i, word := range words {
		if len(word) > maxWord {
			words[i] = redact.Redacted
		}
	}
	return redact.Neutralise(redact.NewMasker(r.secrets...).Mask(strings.Join(words, " "), maxText))
}

// A networkError is an error of net/http that may quote what a server has sent.
type networkError struct {
	text    string
	trusted []error // those that it wraps and that quote nothing
}

func (e *networkError) Error() string   { return e.text }
func (e *networkError) Unwrap() []error { return e.trusted }

// withoutSecrets returns an error of net/http without the query of the address, and without
// the secrets of the request, which a server may have repeated. own are errors of ours.
func (r *request) withoutSecrets(err error, own ...error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	trusted := redact.Trustworthy(err, own...)
	if len(trusted) == 1 && trusted[0] == err { //nolint:errorlint // The whole error is trustworthy.
		return err
	}
	return &networkError{r.quote(err.Error()), trusted}
}

// member returns the token in a member of a JSON object.
func member(body []byte, name string) (string, error) {
	members, err := strictjson.Object(body)
	if err != nil {
		return "", fmt.Errorf("the answer cannot be used: %w", err)
	}
	var text string
	if json.Unmarshal(members[name], &text) != nil || text == "" { // Its error may quote the token.
		return "", fmt.Errorf("the answer has no %s", name)
	}
	return checkJWT(text)
}

// checkJWT returns text if it is a JWT: nothing else is sent as an assertion.
func checkJWT(text string) (string, error) {
	if _, err := jws.UnverifiedClaims(text); err != nil {
		return "", fmt.Errorf("the answer has no token that can be used: %w", err)
	}
	return text, nil
}

// variable returns a variable of the environment. It is an error if it is empty; advice
// says what to do then.
func variable(name, advice string) (string, error) {
	value := strings.TrimSpace(os.Getenv(name))
	if value == "" {
		return "", fmt.Errorf("the environment variable %s is not set; %s", name, advice)
	}
	return value, nil
}

// address returns the address in a variable of the environment. What is sent there includes
// a credential, so it must be https, or http to a host that mayBeCleartext accepts.
func address(name, value string, mayBeCleartext func(*url.URL) bool) (*url.URL, error) {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" { // err quotes the value.
		return nil, fmt.Errorf("the environment variable %s is not an address that begins with https://", name)
	}
	if u.Scheme == "http" && !mayBeCleartext(u) {
		return nil, fmt.Errorf("the environment variable %s is an address that begins with http://, and others could read the credential that is sent there; use https", name)
	}
	return u, nil
}

// isThisHost reports whether u is on this host.
func isThisHost(u *url.URL) bool { return !origin.IsCleartext(u) }

// withQuery adds parameters to the query that u has already.
func withQuery(u *url.URL, parameters url.Values) *url.URL {
	more := *u
	more.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+parameters.Encode(), "&")
	return &more
}

// isOverloaded reports whether a status is about the health of a server.
func isOverloaded(status int) bool { return tokenresponse.IsTemporary(status, "") }

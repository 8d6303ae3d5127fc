package clientcredentials

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/dpop"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// maxResponseBody bounds what is read of an answer, after decompression.
const maxResponseBody = 1 << 20

// A tokenRequest is one acquisition of a token, RFC 6749, Section 4.4.2: a checked copy of
// a Config, and how the attempts at the token have gone so far. One goroutine at a time
// uses it.
type tokenRequest struct {
	conf     *Config           // private: later changes of the program's Config don't reach it
	clientID string            // conf.ClientID, or what the ClientAuth says instead
	scopes   []string          // those of the program's Config, without regard to a Target
	params   url.Values        // likewise
	endpoint *url.URL          // conf.TokenURL
	client   *http.Client      // private: follows no redirects
	base     http.RoundTripper // the program's; client.Transport differs from it if a certificate is presented
	styles   *authStyleCache
	nonces   *dpop.Nonces

	bound    binding
	granting granting
	attempts attempts
}

// A binding is what a token is bound to: nobody can use the token without it.
type binding struct {
	certificate *tls.Certificate // RFC 8705, Section 3; nil: none
	key         *dpop.Key        // RFC 9449; nil: none
}

// attempts is what one attempt at a token leaves for the next.
type attempts struct {
	credentials credentialIDs // of the last one
	refused     credentialIDs // those that the server has refused
	nonce       string        // in the proof of the last one
	newNonce    bool          // the answer to the last one has brought another nonce
	unsure      bool          // the last one failed on the network: the next one's connection may be dead
}

const errNilConfig = constantError("oauth2: the Config is nil")

// newTokenRequest returns a token request for a copy of c, or reports what is wrong with
// c. The values of ctx decide which HTTP client is used. nonces are those of the Source.
// target is an encoded Target; empty: none.
func newTokenRequest(ctx context.Context, c *Config, target string, nonces *dpop.Nonces) (*tokenRequest, error) {
	if c == nil {
		return nil, errNilConfig
	}
	if ctx == nil {
		return nil, errors.New("oauth2: the context is nil; pass context.Background() if there is no other")
	}
	client := c.HTTPClient
	if isEmptyClient(client) {
		var err error
		if client, err = contextClient(ctx); err != nil {
			return nil, err
		}
	}
	conf, styles := c.privateCopy()
	scopes, params := conf.Scopes, conf.EndpointParams
	if target != "" {
		t := decodeTarget(target)
		t.apply(conf)
	}
	endpoint, retry, err := conf.check()
	if err == nil {
		err = checkAddress(endpoint, client.Transport)
	}
	if err != nil {
		return nil, err
	}
	conf.Store = c.store()
	conf.Retry = retry

	// RFC 6749, Section 10.1: the secret is for the configured endpoint alone, so no
	// redirect is followed.
	return &tokenRequest{conf: conf, clientID: conf.ClientID, scopes: scopes, params: params, endpoint: endpoint, client: withoutRedirects(client), base: client.Transport, styles: styles, nonces: nonces}, nil
}

// form returns the parameters of the request, without the client's credentials and those that
// a Grant adds.
func (r *tokenRequest) form() url.Values {
	form := cloneValues(r.conf.EndpointParams)
	if r.conf.Grant == nil && !form.Has("grant_type") {
		form["grant_type"] = []string{"client_credentials"}
	}
	if len(r.conf.Scopes) > 0 { // Then EndpointParams has no scope.
		form["scope"] = []string{strings.Join(r.conf.Scopes, " ")}
	}
	return form
}

// withoutRedirects returns a copy of client that follows no redirect.
func withoutRedirects(client *http.Client) *http.Client {
	private := *client
	private.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &private
}

// isEmptyClient reports whether client is nil, or as good as nil: some decoders of
// configuration fill nil pointers with empty structs.
func isEmptyClient(client *http.Client) bool {
	return client == nil || client.Transport == nil && client.CheckRedirect == nil && client.Jar == nil && client.Timeout == 0
}

// isFor reports whether a request built from c now would be equivalent to r. It must be
// cheap: during an outage every call that uses a stale token asks.
func (r *tokenRequest) isFor(c *Config) bool {
	return r.conf.TokenURL == c.TokenURL && r.conf.ClientID == c.ClientID && r.conf.ClientSecret == c.ClientSecret &&
		r.conf.AuthStyle == c.AuthStyle && sameInterface(r.conf.ClientAuth, c.ClientAuth) && sameInterface(r.conf.Grant, c.Grant) && sameInterface(r.conf.DPoP, c.DPoP) &&
		slices.Equal(r.conf.listed.assertion, c.listed.assertion) && slices.Equal(r.conf.listed.dpop, c.listed.dpop) &&
		slices.Equal(r.scopes, c.Scopes) && maps.EqualFunc(r.params, c.EndpointParams, slices.Equal)
}

// sameInterface reports whether a and b are the same, as far as that can be found out: some
// values can't be compared.
func sameInterface(a, b any) bool {
	if reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	return a == nil || !reflect.ValueOf(a).Comparable() || a == b
}

// bind finds out what the token will be bound to. It may be called again.
func (r *tokenRequest) bind(ctx context.Context) error {
	certificate, err := certificateOf(ctx, r.conf.ClientAuth)
	if err != nil {
		return err
	}
	if err := r.present(certificate); err != nil {
		return err
	}
	if r.conf.DPoP != nil && r.bound.key == nil {
		if r.bound.key, err = dpop.NewKey(r.conf.DPoP, r.conf.listed.dpop...); err != nil {
			return &authError{"DPoP", err}
		}
	}
	return nil
}

// A tokenResponse is a token response, RFC 6749, Section 5.1, and how it came about.
type tokenResponse struct {
	*tokenresponse.Response
	sent      time.Time     // just before the request was
	floor     time.Duration // the token is used at least that long, counted from sent
	attempts  int
	from      event.TokenFrom
	shared    *sharedVersion // where the token is in Config.Store; nil: it isn't there
	leaseWait time.Duration  // how long another replica was waited for
	bound     binding
	issued    time.Time // when it was requested, by the clock of the replica that did; zero: it doesn't say
	rejected  bool      // an API had just rejected the token before
	foreign   bool      // the token isn't an access token, RFC 8693, Section 2.2.1
	known     time.Time // when the token expires, if the response doesn't say so but an earlier one with the same token did; zero: it didn't

	body      []byte // the answer as it came
	mediaType string
}

// token returns a new token with what the response says.
//
// RFC 6749, Section 5.1, counts expires_in from the time at which the server generated the
// response. That time isn't known; the time before sending is certainly earlier.
func (r *tokenResponse) token() *oauth2.Token {
	var expiry time.Time
	if r.expires() {
		expiry = r.sent.Add(r.life())
	}
	return newToken(r.Response, expiry)
}

// newToken returns a token with what a response says.
func newToken(r *tokenresponse.Response, expiry time.Time) *oauth2.Token {
	token := &oauth2.Token{
		AccessToken:  r.AccessToken,
		TokenType:    r.TokenType,
		RefreshToken: r.RefreshToken,
		Expiry:       expiry,
		ExpiresIn:    r.ExpiresIn,
	}
	return token.WithExtra(r.Raw)
}

// expires reports whether the token has a life that ends.
func (r *tokenResponse) expires() bool { return r.ExpiresIn != 0 || !r.known.IsZero() }

// life returns how long the token lives, counted from sent; 0 if it doesn't expire. A life
// that has ended is negative, or 0.
func (r *tokenResponse) life() time.Duration {
	if r.ExpiresIn == 0 && !r.known.IsZero() {
		return r.known.Sub(r.sent)
	}
	return time.Duration(r.ExpiresIn) * time.Second
}

// recognise notes that old, which may be nil, was the same token. Some servers keep one token
// for each client, and answer with what is left of its life. In its last second that is 0,
// which would otherwise mean that it never expires; others leave expires_in out then.
func (r *tokenResponse) recognise(old *cachedToken) {
	if old != nil && r.ExpiresIn == 0 && r.known.IsZero() && old.accessToken() == r.AccessToken {
		r.known = old.expirySeen(r.sent)
	}
}

// send makes one attempt on the wire.
func (r *tokenRequest) send(ctx context.Context, style oauth2.AuthStyle) (*tokenResponse, error) {
	ctx, cancel := timeout(ctx, r.conf.Retry.AttemptTimeout, "an attempt")
	defer cancel()
	attempt, err := r.authenticate(ctx, style)
	if err != nil {
		return nil, err
	}
	if err := r.bind(ctx); err != nil {
		return nil, err
	}
	if r.bound.certificate != nil {
		attempt.CredentialID = r.clientID + " " + certificateThumbprint(r.bound.certificate)
	}
	if err := r.prove(ctx, attempt); err != nil {
		return nil, err
	}
	r.attempts.credentials.client = attempt.CredentialID
	if r.attempts.refused.repeats(r.attempts.credentials) {
		return nil, errSameCredential
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.conf.TokenURL, strings.NewReader(attempt.Form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("oauth2: cannot fetch token: %w", err)
	}
	req.Header = attempt.Header
	if req.Header["Accept"] == nil {
		req.Header.Set("Accept", "application/json") // Some servers answer 406 or XML without it.
	}
	req.Close = r.attempts.unsure
	keepFromFollowing(r.client.Transport, req.Header)
	if r.conf.ClientAuth != nil || r.conf.Grant != nil {
		req.GetBody = nil // An assertion is sent once.
	}

	sent := time.Now()
	resp, err := r.client.Do(req)
	if err != nil {
		err = withoutSecrets(err, r.masker(attempt, nil), context.Cause(ctx))
		if outer, ok := err.(*url.Error); ok && isMisconfigured(err) { //nolint:errorlint // That of the client.
			err = adviseOnAddress(outer, r.endpoint) // A RoundTripper around net/http's has let it pass.
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 {
		// After 101 Switching Protocols no context ends the reading of what is no body.
		resp.Body.Close()
		resp.Body = http.NoBody
	}
	r.adoptNonce(resp.Header)
	body, err := readBody(resp)
	if err != nil {
		return nil, endedEarly(err, r.masker(attempt, resp.Request), context.Cause(ctx))
	}
	mediaType := tokenresponse.MediaType(resp)
	parsed, err := r.interpret(resp, mediaType, body, attempt)
	if err != nil {
		return nil, err
	}
	if parsed.RefreshToken == "" {
		parsed.RefreshToken = r.conf.EndpointParams.Get("refresh_token") // As upstream, for programs that override grant_type.
	}
	return &tokenResponse{
		Response: parsed, body: body, mediaType: mediaType, sent: sent, floor: time.Since(sent) + minReuse,
		from: event.FromServer, bound: r.bound, issued: sent.Round(0), foreign: r.isForeign(parsed),
	}, nil
}

// readBody reads the body of an answer, up to one byte more than it may have.
func readBody(resp *http.Response) ([]byte, error) {
	// The length that the answer claims saves some growing.
	body := bytes.NewBuffer(make([]byte, 0, bytes.MinRead+min(max(resp.ContentLength, 0), 16<<10)))
	_, err := body.ReadFrom(io.LimitReader(resp.Body, maxResponseBody+1))
	return body.Bytes(), err
}

// interpret decides whether the answer to an attempt is a token response. It returns the
// members of the response, or the error that the answer stands for.
func (r *tokenRequest) interpret(resp *http.Response, mediaType string, body []byte, attempt *Attempt) (*tokenresponse.Response, error) {
	parsed, err := tokenresponse.Parse(body, mediaType, r.conf.Strict)
	masker := func() *redact.Masker {
		return r.masker(attempt, resp.Request).Literal(parsed.AccessToken, parsed.RefreshToken)
	}
	fault := func(err error) error {
		if parsed.AccessToken == "" && parsed.Raw != nil {
			said := masker().Mask(parsed.Words(err), maxErrorText)
			err = &tokenresponse.RefusalError{Err: err, Said: redact.Clip(redact.Neutralise(said), maxErrorText)}
		}
		return &ResponseError{StatusCode: resp.StatusCode, MediaType: r.masker(attempt, resp.Request).Mask(mediaType, maxErrorText), Size: len(body), Err: err, upstream: tokenresponse.UpstreamError(body, mediaType)}
	}

	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		mask := masker()
		refusal := retrieveError(resp, body, parsed, mask)
		if resp.StatusCode >= 300 && resp.StatusCode <= 399 && resp.Header.Get("Location") != "" {
			return nil, redirectError(resp, refusal)
		}
		hint := oddity(r.conf.TokenURL, r.clientID, r.conf.ClientSecret)
		if encoding := tokenresponse.Encoding(resp.Header, body); err != nil && encoding != "" {
			hint = notDecoded(encoding).Error() // So nobody can read what the server says.
		}
		return nil, withHint(refusal, cmp.Or(hint, r.grantHint(refusal, attempt, mask)))
	case len(body) > maxResponseBody:
		return nil, fault(errors.New("the answer is larger than 1 MiB"))
	case parsed.ErrorCode != "":
		// RFC 6749, Section 5.2, asks for status 400; some servers answer 200.
		mask := masker()
		refusal := retrieveError(resp, body, parsed, mask)
		return nil, withHint(refusal, r.grantHint(refusal, attempt, mask))
	case err != nil, parsed.AccessToken == "":
		if encoding := tokenresponse.Encoding(resp.Header, body); encoding != "" {
			err = notDecoded(encoding)
		}
		return nil, fault(err)
	case resp.StatusCode == http.StatusPartialContent:
		return nil, fault(errors.New("the answer is a part of something larger"))
	}
	if err := r.checkResponse(parsed); err != nil {
		return nil, fault(err)
	}
	if r.conf.Strict && parsed.Form && endsWithConnection(resp) {
		return nil, fault(errors.New("a form-encoded answer without Content-Length may have been cut"))
	}
	return parsed, nil
}

// withHint returns a refusal with what may help; empty: nothing.
func withHint(refusal *oauth2.RetrieveError, hint string) error {
	if hint == "" {
		return refusal
	}
	return fmt.Errorf("%w\n%s", refusal, hint)
}

// notDecoded is the error for an answer with a content coding that nobody has undone.
func notDecoded(encoding string) error {
	return fmt.Errorf("the answer is encoded as %s, and the HTTP client doesn't decode it; don't set Accept-Encoding there", encoding)
}

// endsWithConnection reports whether resp's body ends where the connection does, so that a
// cut can't be noticed. JSON and gzip show by themselves that they were cut.
func endsWithConnection(resp *http.Response) bool {
	return resp.ProtoMajor < 2 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && !resp.Uncompressed
}

// explain returns the error of a token request that a bounded call has ended with err. If
// the context has ended, the error is always the one of an http.Client that obeys its
// context, whatever the request was doing at that moment.
func (r *tokenRequest) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !isAnswer(err) {
		return &url.Error{Op: "Post", URL: redact.Address(r.endpoint), Err: cause}
	}
	return nameFailure(err)
}

// nameFailure says that it was the token request that panicked or ended its goroutine, if
// that is what err stands for.
func nameFailure(err error) error {
	var failure *bounded.FailureError
	if errors.As(err, &failure) {
		return fmt.Errorf("oauth2: cannot fetch token: the token request %w", err)
	}
	return err
}

func cloneValues(values url.Values) url.Values {
	clone := make(url.Values, len(values))
	for name, list := range values {
		clone[name] = append([]string(nil), list...)
	}
	return clone
}

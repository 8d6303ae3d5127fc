package clientcredentials

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
)

// A Transport is an http.RoundTripper that adds a token to each request, RFC
// 6750, Section 2.1. Unlike oauth2.Transport it waits for a token no longer than
// the request's context allows, and sends the token only to the origin
// of the request that its caller made.
//
// It is safe for concurrent use if Source and Base are, and as long as its
// fields don't change.
type Transport struct {
	// Source supplies the tokens. A *Source, or any other source with a method
	// TokenContext like that of *Source, is called with the request's context.
	Source oauth2.TokenSource

	// Base makes the requests. Nil: http.DefaultTransport.
	Base http.RoundTripper

	// Origins are the origins that may receive the token, as in Config. Nil: those of
	// the Config that Source was made from, if Source is a *Source.
	Origins []string
}

// contextSource is a source that can be asked with a context.
type contextSource interface {
	TokenContext(ctx context.Context) (*oauth2.Token, error)
}

// RoundTrip sends req with a token. The request itself is not changed, and its
// body is always closed. Errors are those of the Source and of Base.
//
// With a *Source, an answer with status 401 drops the token, at most every 30
// seconds, unless its Bearer challenge gives another reason. If the answer says
// invalid_token (RFC 6750, Section 3.1), and the request has no body or a GetBody, the
// request is sent once more, with a new token.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	source := sourceOf(t.Source)
	permitted, err := permit(source, req, t.Origins)
	if err != nil {
		return refuse(req, err)
	}
	if !permitted {
		// Drop the caller's own Authorization too: net/http copies it on redirects.
		return roundTrip(t.Base, withAuthorization(req, ""))
	}
	if source != nil {
		return source.roundTrip(t.Base, req)
	}
	if _, targeted := targetIn(req.Context()); targeted {
		return refuse(req, errors.New("oauth2: the request's context has a Target, and Transport's Source knows none; use a *Source"))
	}
	token, err := t.token(req.Context())
	if err != nil {
		return refuse(req, err)
	}
	return roundTrip(t.Base, withAuthorization(req, token.Type()+" "+token.AccessToken))
}

// sourceOf returns the Source that source is, or nil.
func sourceOf(source oauth2.TokenSource) *Source {
	switch source := source.(type) {
	case *Source:
		return source
	case *clientSource:
		return source.Source
	}
	return nil
}

// token returns the token of a Source that isn't a *Source.
func (t *Transport) token(ctx context.Context) (token *oauth2.Token, err error) {
	switch source := t.Source.(type) {
	case nil:
		return nil, errors.New("oauth2: Transport's Source is nil")
	case *Source:
		return nil, source.misuse(ctx)
	case contextSource:
		token, err = source.TokenContext(ctx)
	default:
		// It knows no context, so it may take longer than the request has.
		token, err = bounded.Do(ctx, func(context.Context) (*oauth2.Token, error) { return source.Token() })
	}
	switch {
	case err != nil:
		return nil, err
	case token == nil:
		return nil, errors.New("oauth2: Transport's Source returned neither a token nor an error")
	case ascii.EqualFold(token.TokenType, "DPoP"):
		return nil, errors.New("oauth2: the token is bound to a key, RFC 9449, and Transport's Source can't prove that it has it; use Config.Transport, or a *Source")
	}
	return token, nil
}

// A guard is the Base of the oauth2.Transport in Config.Client. It does what needs the
// request, which an oauth2.TokenSource doesn't get to see.
type guard struct {
	source *Source
	base   http.RoundTripper

	// marker stands for a token that isn't there yet. The guard replaces it by a token,
	// for which it waits by the request's context. See clientSource.
	marker      string
	markerValue string // of the Authorization header
}

// RoundTrip sends a request that oauth2.Transport has put a token or the marker
// into.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	permitted, err := permit(g.source, req, nil)
	if err != nil {
		return refuse(req, err)
	}
	if !permitted {
		return roundTrip(g.base, withAuthorization(req, ""))
	}
	var value string
	if values := req.Header["Authorization"]; len(values) > 0 { // Get would canonicalise the name first.
		value = values[0]
	}
	if _, targeted := targetIn(req.Context()); targeted || value == g.markerValue {
		return g.source.roundTrip(g.base, req)
	}
	resp, err := roundTrip(g.base, req)
	if err != nil {
		return nil, err
	}
	return g.source.retry(g.base, req, value, resp)
}

// roundTrip sends req with a token.
func (s *Source) roundTrip(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	s = s.forContext(req.Context())
	c, err := s.effective().get(req.Context(), 0)
	if err != nil {
		return refuse(req, err)
	}
	resp, err := s.sendOnce(base, req, c)
	if err != nil {
		return nil, err
	}
	return s.retry(base, req, c.authorization, resp)
}

// sendOnce sends req with the token of c, and with what the token is bound to.
func (s *Source) sendOnce(base http.RoundTripper, req *http.Request, c *cachedToken) (*http.Response, error) {
	if c.foreign {
		return refuse(req, errNotAccessToken)
	}
	base, err := s.certified(base, c)
	if err != nil {
		return refuse(req, err)
	}
	if c.bound.key != nil {
		return s.sendProof(base, req, c)
	}
	return roundTrip(base, withAuthorization(req, c.authorization))
}

// retry handles resp, an answer to req, which carried that Authorization value. If another
// token may help, it returns the answer to a second try, else resp itself.
func (s *Source) retry(base http.RoundTripper, req *http.Request, authorization string, resp *http.Response) (*http.Response, error) {
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
		return resp, nil
	}
	c, err := s.answerChallenge(req, authorization, resp)
	if err != nil {
		go resp.Body.Close() // It may wait for the body.
		return nil, err
	}
	if c == nil && (resp.StatusCode == http.StatusForbidden || !s.recoverUnauthorized(authorization, resp)) {
		return resp, nil
	}
	body, ok := bodyAgain(req)
	if !ok {
		return resp, nil
	}
	if c == nil {
		c = s.effective().other(req.Context(), authorization)
	}
	if c == nil {
		if body != nil {
			body.Close()
		}
		return resp, nil
	}
	discard(resp)
	again := req.WithContext(req.Context())
	again.Body = body
	return s.sendOnce(base, again, c)
}

// recoverUnauthorized drops the token with that Authorization value, which an API has
// answered with 401, and reports whether it makes sense to try again with another one.
func (s *Source) recoverUnauthorized(authorization string, resp *http.Response) bool {
	code := tokenError(resp, authorization)
	if code != "" && code != codeInvalidToken {
		return false // A new token wouldn't help, RFC 6750, Section 3.1.
	}
	return s.rejectHeld(hasAuthorization(authorization)) && code != ""
}

// tokenError returns the error code with which an API rejects the token in that
// Authorization value. The challenge with the token's scheme counts more than one for Bearer;
// in others, whatever their scheme, only invalid_token is looked for.
func tokenError(resp *http.Response, authorization string) string {
	challenges := resp.Header.Values("WWW-Authenticate")
	code, _ := challenge.Error(challenges, challengedScheme(challenges, authorization))
	if code == "" && challenge.Says(challenges, codeInvalidToken) {
		return codeInvalidToken
	}
	return code
}

// challengedScheme returns the scheme whose challenge is about the token in that
// Authorization value: the token's own, or Bearer if there is no challenge for that.
func challengedScheme(challenges []string, authorization string) string {
	scheme, _, _ := strings.Cut(authorization, " ")
	if _, found := challenge.Error(challenges, scheme); found {
		return scheme
	}
	return "Bearer"
}

// hasAuthorization returns a function that recognises the token with that Authorization value.
func hasAuthorization(value string) func(*cachedToken) bool {
	return func(c *cachedToken) bool { return c.authorization == value }
}

// codeInvalidToken is the error code of RFC 6750, Section 3.1, for a token that another one can
// replace.
const codeInvalidToken = "invalid_token"

// bodyAgain returns the body of req for a second try, and whether there can be one.
func bodyAgain(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := bounded.Do(req.Context(), func(context.Context) (io.ReadCloser, error) { return req.GetBody() })
	return body, err == nil && body != nil
}

const (
	// maxDrain is how much is read of an answer that nobody will look at.
	maxDrain = 64 << 10

	// maxDrainTime is how long that may take. A body that is there takes microseconds. If
	// a server announces a body and doesn't send it, a new connection is cheaper than
	// waiting.
	maxDrainTime = 5 * time.Millisecond
)

// discard closes the body of an answer that another one replaces. It reads a small body to
// its end, so that the connection can be used again.
func discard(resp *http.Response) {
	ctx, cancel := context.WithTimeout(context.Background(), maxDrainTime)
	defer cancel()
	drained := false
	if 0 <= resp.ContentLength && resp.ContentLength <= maxDrain {
		_, err := bounded.Do(ctx, func(context.Context) (struct{}, error) {
			_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
			return struct{}{}, nil
		})
		drained = err == nil
	}
	if drained {
		resp.Body.Close()
		return
	}
	go resp.Body.Close() // It ends the reading, and may wait for it.
}

// A clientSource is the Source of the oauth2.Transport in Config.Client.
//
// oauth2.Transport asks it for a token without a context. If no token is ready, or if a
// token isn't enough, it hands out a marker, which the guard replaces by a token, for
// which it waits by the request's context. Any other caller, even another
// oauth2.Transport, waits for the real token: a marker must reach only the guard. It
// can't be sent to a server in any case: it begins with a byte that no header field may
// contain.
type clientSource struct {
	*Source
	transport *oauth2.Transport // whose Source this is
	guard     *guard
}

// newClientTransport returns the Transport of Config.Client.
func newClientTransport(source *Source, base http.RoundTripper) *oauth2.Transport {
	marker := "\x00" + rand.Text()
	g := &guard{source: source, base: base, marker: marker, markerValue: "Bearer " + marker}
	transport := &oauth2.Transport{Base: g}
	transport.Source = &clientSource{Source: source, transport: transport, guard: g}
	return transport
}

// Token returns a token, or a marker if there is something for the guard to do and
// the caller certainly passes the marker on to it.
func (c *clientSource) Token() (*oauth2.Token, error) {
	s := c.effective()
	if cached := s.current.Load(); cached != nil && !cached.isBound() && !cached.odd {
		observer, now := s.conf.observer(), time.Now()
		if cached.fresh(now, 0) {
			observer.tokenServed(event.TokenServed{Target: s.targetID()})
			return cached.copy(), nil
		}
		// During an outage the token may be stale for a long time. isCaller is slow, so it
		// is left out if there is nothing to wait for. An expired token is left to the
		// guard. If a flight failed before the guard waits for it, another would follow.
		if cached.usable(now) {
			if stale, flight, _ := s.board(context.Background(), now, 0); stale != nil && flight == nil {
				observer.tokenServed(event.TokenServed{Target: s.targetID(), Stale: !stale.fresh(now, 0)})
				return stale.copy(), nil
			}
		}
	}
	if c.transport.Base == http.RoundTripper(c.guard) && isCaller(roundTripName, c.transport) {
		return &oauth2.Token{AccessToken: c.guard.marker}, nil
	}
	return s.Token()
}

// roundTrip sends req through base. A RoundTripper may return odd things: roundTrip makes of
// them what an http.Client does, so that nothing else here has to look out for them.
func roundTrip(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(req)
	switch {
	case err != nil:
		return nil, err // Even if there is an answer too.
	case resp == nil:
		return nil, fmt.Errorf("oauth2: the RoundTripper %T returned neither an answer nor an error", base)
	case resp.Body == nil && resp.ContentLength > 0 && req.Method != http.MethodHead:
		return nil, fmt.Errorf("oauth2: the RoundTripper %T returned an answer of %d bytes without a body", base, resp.ContentLength)
	}
	follows := origin.Follows(resp.Request, req)
	if resp.Body != nil && resp.Header != nil && follows {
		return resp, nil
	}
	filled := *resp // A fake may return the same answer to several goroutines.
	if resp.Body == nil {
		filled.Body = http.NoBody
	}
	if resp.Header == nil {
		filled.Header = make(http.Header)
	}
	if !follows {
		filled.Request = req // The rule for redirects needs it to find the way back.
	}
	return &filled, nil
}

// CloseIdleConnections closes the idle connections of Base, and those that present the
// client's certificate. http.Client.CloseIdleConnections calls it.
func (t *Transport) CloseIdleConnections() { closeIdle(sourceOf(t.Source), t.Base) }

// CloseIdleConnections is for programs that reach the Base of the client's
// *oauth2.Transport, which doesn't forward the call.
func (g *guard) CloseIdleConnections() { closeIdle(g.source, g.base) }

func closeIdle(source *Source, base http.RoundTripper) {
	if source != nil {
		source.closeCertified()
	}
	(&http.Client{Transport: base}).CloseIdleConnections()
}

// refuse ends a request that isn't sent. A RoundTripper must close the body in any case.
func refuse(req *http.Request, err error) (*http.Response, error) {
	if req != nil && req.Body != nil {
		req.Body.Close()
	}
	return nil, err
}

// withAuthorization returns a shallow copy of req with that Authorization header
// field, or with none if value is empty. The header map is new; the values of
// other fields are shared with req.
func withAuthorization(req *http.Request, value string) *http.Request {
	// The field's value is allocated together with the request. It isn't shared with other
	// requests, so whoever gets this one may write to it.
	var sent struct {
		http.Request
		value [1]string
	}
	sent.Request, sent.value[0] = *req, value
	if len(req.Header) == mapGroup || req.Header == nil {
		sent.Header = make(http.Header, len(req.Header)+1)
		maps.Copy(sent.Header, req.Header)
	} else {
		sent.Header = maps.Clone(req.Header) // Copies memory and hashes nothing.
	}
	for name := range sent.Header {
		// The program may have set its own under another spelling. net/http sends it as
		// it is.
		if len(name) == len("Authorization") && ascii.EqualFold(name, "Authorization") {
			delete(sent.Header, name)
		}
	}
	if value != "" {
		sent.Header["Authorization"] = sent.value[:]
	}
	return &sent.Request
}

// mapGroup is how many entries a small map has room for. A clone of a full one would have
// to grow at once.
const mapGroup = 8

// permit reports whether req may carry the token: to one of those origins or, if that is
// nil, to one of those that source lists, and by the other rules of source, which may be
// nil. It tells the source's Observer.
func permit(source *Source, req *http.Request, origins []string) (bool, error) {
	if req == nil || req.URL == nil {
		return false, errors.New("oauth2: the request has no URL")
	}
	policy := origin.NewPolicy(origins)
	if origins == nil && source != nil {
		policy = source.origins
	}
	permitted, err := policy.Permit(req)
	if source == nil || source.conf == nil {
		return permitted, err
	}
	observer := source.conf.observer()
	if !permitted {
		outcome := event.SentWithoutToken
		var refused *origin.RefusedError
		if errors.As(err, &refused) {
			outcome = event.RequestRefused
		}
		if err == nil || refused != nil {
			bounded.Tell(observer.OriginRefused, event.OriginRefused{Origin: origin.Of(req.URL).String(), Outcome: outcome})
		}
		return false, err
	}
	if source.conf.Strict && origin.IsCleartext(req.URL) {
		return false, errors.New("oauth2: the request goes to http, where Strict sends no token; use https")
	}
	source.warnOfCleartext(observer, toAPI, req.URL)
	return true, nil
}

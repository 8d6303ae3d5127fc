package clientcredentials

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
)

// A Transport is an http.RoundTripper that adds a token to each request, RFC
// 6750, Section 2.1. Unlike oauth2.Transport it waits for a token no longer than
// the request's context allows, and sends the token nowhere but to the origin
// of the request that its caller made.
//
// It is safe for concurrent use if Source and Base are, and as long as its
// fields are left alone.
type Transport struct {
	// Source supplies the tokens. A *Source, and any other with a method
	// TokenContext like that of *Source, is asked with the request's context.
	Source oauth2.TokenSource

	// Base makes the requests. Nil: http.DefaultTransport.
	Base http.RoundTripper

	// Origins is as in Config.
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
// seconds, unless its Bearer challenge gives another reason. If the answer says invalid_token (RFC 6750, Section 3.1), and the
// request has no body or a GetBody, the request is sent once more, with a new
// token.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	source := sourceOf(t.Source)
	permitted, err := permit(source, req, t.Origins)
	if err != nil {
		return refuse(req, err)
	}
	if !permitted {
		return roundTrip(t.Base, withAuthorization(req, "")) // Nor the caller's own, which net/http copies.
	}
	if source != nil {
		return source.roundTrip(t.Base, req)
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
		token, err = source.Token()
	}
	switch {
	case err != nil:
		return nil, err
	case token == nil:
		return nil, errors.New("oauth2: Transport's Source returned neither a token nor an error")
	case strings.EqualFold(token.TokenType, "DPoP"):
		return nil, errors.New("oauth2: the token is bound to a key, RFC 9449, and Transport's Source can't prove that it has it; use Config.Transport, or a *Source")
	}
	return token, nil
}

// A guard is the Base of the oauth2.Transport in Config.Client: it does for that
// what needs the request, which an oauth2.TokenSource doesn't get to see.
type guard struct {
	source  *Source
	base    http.RoundTripper
	origins []string

	// marker stands for a token that isn't there yet, and is resolved here with
	// the request's context. See clientSource.
	marker      string
	markerValue string // of the Authorization header
}

// RoundTrip sends a request that oauth2.Transport has put a token or the marker
// into.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	permitted, err := permit(g.source, req, g.origins)
	if err != nil {
		return refuse(req, err)
	}
	if !permitted {
		return roundTrip(g.base, withAuthorization(req, ""))
	}
	var value string
	if values := req.Header["Authorization"]; len(values) > 0 { // As Get, but that looks at the name first.
		value = values[0]
	}
	if value == g.markerValue {
		return g.source.roundTrip(g.base, req)
	}
	resp, err := roundTrip(g.base, req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		return g.source.recoverUnauthorized(g.base, req, value, resp)
	}
	return resp, err
}

// roundTrip sends req with a token.
func (s *Source) roundTrip(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	c, err := s.get(req.Context(), 0)
	if err != nil {
		return refuse(req, err)
	}
	return s.send(base, req, c)
}

// send sends req with the token of c, and perhaps once more with another.
func (s *Source) send(base http.RoundTripper, req *http.Request, c *cachedToken) (*http.Response, error) {
	resp, err := s.sendOnce(base, req, c)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		return s.recoverUnauthorized(base, req, c.authorization, resp)
	}
	return resp, err
}

// sendOnce sends req with the token of c, and with what the token is bound to.
func (s *Source) sendOnce(base http.RoundTripper, req *http.Request, c *cachedToken) (*http.Response, error) {
	base = s.certified(base, c)
	if c.proofKey != nil {
		return s.sendProof(base, req, c)
	}
	return roundTrip(base, withAuthorization(req, c.authorization))
}

// recoverUnauthorized returns what to make of resp, an answer with status 401 to
// req, which carried that Authorization value: the answer to a second try with a
// new token, or resp itself.
func (s *Source) recoverUnauthorized(base http.RoundTripper, req *http.Request, authorization string, resp *http.Response) (*http.Response, error) {
	code := tokenError(resp, authorization)
	if code != "" && code != "invalid_token" {
		return resp, nil // A new token wouldn't help, RFC 6750, Section 3.1.
	}
	if !s.reject(func(c *cachedToken) bool { return c.authorization == authorization }) || code == "" {
		return resp, nil
	}
	body, ok := bodyAgain(req)
	if !ok {
		return resp, nil
	}
	c, err := s.get(req.Context(), 0)
	if err != nil || c.authorization == authorization {
		if body != nil {
			body.Close()
		}
		return resp, nil // The API's answer tells more than err.
	}
	discard(resp)
	again := req.WithContext(req.Context())
	again.Body = body
	return s.sendOnce(base, again, c)
}

// tokenError returns what an API has against the token in that Authorization value.
func tokenError(resp *http.Response, authorization string) string {
	challenges := resp.Header.Values("WWW-Authenticate")
	scheme, _, _ := strings.Cut(authorization, " ")
	code, found := challengeError(challenges, scheme)
	if !found {
		code, _ = challengeError(challenges, "Bearer")
	}
	return code
}

// bodyAgain returns the body of req for a second try, and whether there can be one.
func bodyAgain(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

// maxDrain is how much is read of an answer that nobody will look at.
const maxDrain = 64 << 10

// discard closes the body of an answer that another takes the place of. It reads
// it, so that the connection can be used again, if that is soon done.
func discard(resp *http.Response) {
	if 0 <= resp.ContentLength && resp.ContentLength <= maxDrain {
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	}
	resp.Body.Close()
}

// A clientSource is the Source of the oauth2.Transport in Config.Client.
//
// oauth2.Transport asks it for a token without a context. If none is ready, or if
// it takes more than the token, it hands out a marker, which the guard beneath
// resolves with the request's context. Whoever else asks, be it another oauth2.Transport, waits for the
// real token: a marker must get to the guard and nowhere else. It couldn't get
// onto a wire either: it begins with a byte that no header field may contain.
type clientSource struct {
	*Source
	transport *oauth2.Transport // whose Source this is
	guard     *guard
}

// newClientTransport returns the Transport of Config.Client.
func newClientTransport(source *Source, base http.RoundTripper, origins []string) *oauth2.Transport {
	marker := "\x00" + rand.Text()
	g := &guard{source: source, base: base, origins: origins, marker: marker, markerValue: "Bearer " + marker}
	transport := &oauth2.Transport{Base: g}
	transport.Source = &clientSource{Source: source, transport: transport, guard: g}
	return transport
}

// Token returns a token, or a marker if there is something for the guard to do and
// the caller is sure to give it to that.
func (c *clientSource) Token() (*oauth2.Token, error) {
	if cached := c.current.Load(); cached != nil && !cached.isBound() {
		now := time.Now()
		if cached.fresh(now, 0) {
			c.conf.Observer.tokenServed(event.TokenServed{})
			return cached.copy(), nil
		}
		// Stale, for as long as an outage lasts: who calls doesn't matter if there is
		// nothing to wait for.
		if stale, flight, _ := c.board(context.Background(), now, 0); stale != nil && flight == nil {
			c.conf.Observer.tokenServed(event.TokenServed{Stale: !stale.fresh(now, 0)})
			return stale.copy(), nil
		}
	}
	if c.transport.Base == http.RoundTripper(c.guard) && isCaller(roundTripName, c.transport) {
		return &oauth2.Token{AccessToken: c.guard.marker}, nil
	}
	return c.Source.Token()
}

// roundTrip sends req through base.
func roundTrip(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(req)
	if resp != nil && resp.Request == nil {
		resp.Request = req // The next hop's origin is judged by it.
	}
	return resp, err
}

// refuse ends a request that isn't sent. A RoundTripper closes the body always.
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
	// The field's value has its place beside the request, which costs nothing, and
	// isn't shared with other requests: who gets this one may write to it.
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
	if value == "" {
		delete(sent.Header, "Authorization")
	} else {
		sent.Header["Authorization"] = sent.value[:]
	}
	return &sent.Request
}

// mapGroup is how many fields a small map has room for. A clone of one that is full
// would have to grow at once.
const mapGroup = 8

// permit is mayCarryToken with the checks of a Source, which may be nil, and its
// Observer.
func permit(source *Source, req *http.Request, origins []string) (bool, error) {
	if req == nil || req.URL == nil {
		return false, errors.New("oauth2: the request has no URL")
	}
	permitted, err := mayCarryToken(req, origins)
	if source == nil || source.conf == nil {
		return permitted, err
	}
	if !permitted {
		var refused *originError
		outcome := event.SentWithoutToken
		if errors.As(err, &refused) {
			outcome = event.RequestRefused
		}
		if err == nil || refused != nil {
			source.conf.Observer.originRefused(event.OriginRefused{Origin: originOf(req.URL).String(), Outcome: outcome})
		}
		return false, err
	}
	if strict, observer := source.conf.Strict, source.conf.Observer; (strict || observer != nil) && isCleartext(req.URL) {
		if strict {
			return false, errors.New("oauth2: the request goes to http, where Strict sends no token; use https")
		}
		observer.insecureOnce(&source.insecureAPI, req.URL)
	}
	return permitted, nil
}

// maxHops bounds the walk along a chain of redirects. An http.Client follows ten.
const maxHops = 100

// mayCarryToken reports whether req may carry the token: if it is the request
// that a caller made, or a redirect of it that never left the first request's
// origin and those in origins, nor https for http. Once a chain has left, it
// stays without the token. A first request to an origin that isn't listed,
// where origins are, is an error.
func mayCarryToken(req *http.Request, origins []string) (bool, error) {
	if req.Response == nil && len(origins) == 0 {
		return true, nil
	}
	permitted := make(map[origin]bool, len(origins)+1)
	for _, text := range origins {
		o, err := parseOrigin(text)
		if err != nil {
			return false, err
		}
		permitted[o] = true
	}

	hops := []origin{originOf(req.URL)} // The last first.
	for req.Response != nil {
		req = req.Response.Request
		if req == nil || req.URL == nil || len(hops) > maxHops {
			return false, nil // A chain that can't be walked counts as crossed.
		}
		hops = append(hops, originOf(req.URL))
	}
	first := hops[len(hops)-1]
	if len(origins) > 0 && !permitted[first] {
		return false, &originError{first}
	}
	permitted[first] = true
	unprotected := false
	for _, hop := range hops {
		if !permitted[hop] || hop.scheme == "https" && unprotected {
			return false, nil
		}
		unprotected = unprotected || hop.scheme != "https"
	}
	return true, nil
}

// An originError is the error for a request to an origin that isn't listed.
type originError struct{ origin origin }

func (e *originError) Error() string {
	return fmt.Sprintf("oauth2: %s is not among the Origins that may receive the token; add it there, or use another client", e.origin)
}

// An origin is a scheme, a host and a port, RFC 6454, Section 4.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) origin {
	o := origin{strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()}
	if o.port == "" {
		switch o.scheme {
		case "https":
			o.port = "443"
		case "http":
			o.port = "80"
		}
	}
	return o
}

// parseOrigin reads an entry of Origins.
func parseOrigin(text string) (origin, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return origin{}, fmt.Errorf("oauth2: %q in Origins is not an origin; write it like https://api.example.com or https://api.example.com:8443", text)
	}
	return originOf(u), nil
}

func (o origin) String() string {
	host := o.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return o.scheme + "://" + host + ":" + o.port
}

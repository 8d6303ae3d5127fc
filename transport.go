package clientcredentials

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"time"

	"golang.org/x/oauth2"
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
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req == nil || req.URL == nil {
		return refuse(req, errors.New("oauth2: the request has no URL"))
	}
	permitted, err := mayCarryToken(req, t.Origins)
	if err != nil {
		return refuse(req, err)
	}
	if permitted {
		value, err := t.authorization(req.Context())
		if err != nil {
			return refuse(req, err)
		}
		req = withAuthorization(req, value)
	}
	return roundTrip(t.Base, req)
}

// authorization returns the value of the Authorization header.
func (t *Transport) authorization(ctx context.Context) (string, error) {
	if source, ok := t.Source.(*Source); ok {
		c, err := source.get(ctx, 0)
		if err != nil {
			return "", err
		}
		return c.authorization, nil
	}
	var token *oauth2.Token
	var err error
	switch source := t.Source.(type) {
	case nil:
		return "", errors.New("oauth2: Transport's Source is nil")
	case contextSource:
		token, err = source.TokenContext(ctx)
	default:
		token, err = source.Token()
	}
	if err != nil {
		return "", err
	}
	if token == nil {
		return "", errors.New("oauth2: Transport's Source returned neither a token nor an error")
	}
	return token.Type() + " " + token.AccessToken, nil
}

// A guard is the Base of the oauth2.Transport in Config.Client: it does for that
// what needs the request, which an oauth2.TokenSource doesn't get to see.
type guard struct {
	source  *Source
	base    http.RoundTripper
	origins []string

	// marker stands for a token that isn't there yet, and is resolved here with
	// the request's context. See clientSource.
	marker string
}

// RoundTrip sends a request that oauth2.Transport has put a token or the marker
// into.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req == nil || req.URL == nil {
		return refuse(req, errors.New("oauth2: the request has no URL"))
	}
	permitted, err := mayCarryToken(req, g.origins)
	if err != nil {
		return refuse(req, err)
	}
	if !permitted {
		return roundTrip(g.base, withAuthorization(req, ""))
	}
	if req.Header.Get("Authorization") == "Bearer "+g.marker {
		c, err := g.source.get(req.Context(), 0)
		if err != nil {
			return refuse(req, err)
		}
		req = withAuthorization(req, c.authorization)
	}
	return roundTrip(g.base, req)
}

// A clientSource is the Source of the oauth2.Transport in Config.Client.
//
// oauth2.Transport asks it for a token without a context. If none is ready it
// hands out a marker, which the guard beneath resolves with the request's
// context. Whoever else asks, be it another oauth2.Transport, waits for the
// real token: a marker must get to the guard and nowhere else. It couldn't get
// onto a wire either: it begins with a byte that no header field may contain.
type clientSource struct {
	*Source
	transport *oauth2.Transport // whose Source this is
	guard     *guard
}

// newClientTransport returns the Transport of Config.Client.
func newClientTransport(source *Source, base http.RoundTripper, origins []string) *oauth2.Transport {
	g := &guard{source: source, base: base, origins: origins, marker: "\x00" + rand.Text()}
	transport := &oauth2.Transport{Base: g}
	transport.Source = &clientSource{Source: source, transport: transport, guard: g}
	return transport
}

// Token returns a token, or a marker if none is fresh and the caller is sure to
// give it to the guard.
func (c *clientSource) Token() (*oauth2.Token, error) {
	if cached := c.current.Load(); cached.state(time.Now()) == Fresh {
		return cached.copy(), nil
	}
	if c.transport.Base == http.RoundTripper(c.guard) && calledByRoundTrip(c.transport) {
		return &oauth2.Token{AccessToken: c.guard.marker}, nil
	}
	return c.Source.Token()
}

var roundTripName = runtime.FuncForPC(reflect.ValueOf((*oauth2.Transport).RoundTrip).Pointer()).Name()

// calledByRoundTrip reports whether its caller was called by the method
// RoundTrip of t itself. The name of a calling function isn't enough, for another
// oauth2.Transport with the same Source may have any Base; only a stack trace
// tells the receiver. Where it doesn't, the answer is no, and costs no more than
// the wait that upstream has as well.
func calledByRoundTrip(t *oauth2.Transport) bool {
	buffer := make([]byte, 2048)
	buffer = buffer[:runtime.Stack(buffer, false)]
	// A line for the goroutine, then two for each function: calledByRoundTrip,
	// the method Token, and the one in question.
	lines := bytes.SplitN(buffer, []byte("\n"), 7)
	return len(lines) == 7 && bytes.HasPrefix(lines[5], fmt.Appendf(nil, "%s(%p, ", roundTripName, t))
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
	header := make(http.Header, len(req.Header)+1)
	maps.Copy(header, req.Header)
	if value == "" {
		delete(header, "Authorization")
	} else {
		header["Authorization"] = []string{value}
	}
	req = req.WithContext(req.Context())
	req.Header = header
	return req
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
		return false, fmt.Errorf("oauth2: %s is not among the Origins that may receive the token; add it there, or use another client", first)
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

// Package origin is the one home of the rule that keeps a token where it belongs: what
// an origin is, which origins a chain of redirects may carry the token to, and where it
// would travel in cleartext.
package origin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

// An Origin is a scheme, a host and a port, RFC 6454, Section 4. Two origins are the
// same if they are equal by ==.
type Origin struct{ scheme, host, port string }

// Of returns the origin of a URL, with the default port of http and https filled in. Only
// ASCII letters are folded: hosts that Unicode would fold to the same text are different
// hosts.
func Of(u *url.URL) Origin {
	o := Origin{ascii.Lower(u.Scheme), ascii.Lower(u.Hostname()), u.Port()}
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

// Parse reads an origin, such as https://api.example.com:8443. A slash at the end is
// fine; a path, a query, a fragment or a user name is an error.
func Parse(text string) (Origin, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return Origin{}, fmt.Errorf("oauth2: %q in Origins is not an origin; write it like https://api.example.com or https://api.example.com:8443", text)
	}
	return Of(u), nil
}

// String returns the scheme, the host and always the port.
func (o Origin) String() string { return o.scheme + "://" + net.JoinHostPort(o.host, o.port) }

// IsCleartext reports whether others can read what is sent to u: it is http, and not to
// this host.
func IsCleartext(u *url.URL) bool {
	return ascii.EqualFold(u.Scheme, "http") && !IsThisHost(u.Hostname())
}

// IsThisHost reports whether a name or an address stays on this host: it is localhost, or on the
// loopback interface.
func IsThisHost(host string) bool {
	ip := net.ParseIP(host)
	return ascii.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// A Policy is a list of origins that may receive the token. A nil Policy has no list:
// it permits whatever origin the caller's own request goes to. A Policy is immutable.
type Policy struct {
	listed []Origin
	err    error // what is wrong with the list
}

// NewPolicy returns the policy of a list of origins, or nil if the list is nil. It copies
// the list. Permit reports what is wrong with the list, also if it is empty but not nil:
// that could mean everything or nothing.
func NewPolicy(list []string) *Policy {
	if list == nil {
		return nil
	}
	if len(list) == 0 {
		return &Policy{err: errors.New("oauth2: Origins is empty but not nil, so no origin may receive the token; list some, or set it to nil")}
	}
	p := new(Policy)
	for _, text := range list {
		o, err := Parse(text)
		if err != nil {
			return &Policy{err: err}
		}
		p.listed = append(p.listed, o)
	}
	return p
}

// A RefusedError is the error for a request to an origin that isn't listed.
type RefusedError struct{ origin Origin }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("oauth2: %s is not among the Origins that may receive the token; add it there, or use another client", e.origin)
}

// maxHops bounds the walk along a chain of redirects. An http.Client follows ten.
const maxHops = 100

// Permit reports whether req may carry the token. It may if it is the request that a
// caller made, or a redirect of that request which
//
//   - has never left the first request's origin and those listed, and
//   - has never gone from https to http.
//
// Once a chain of redirects has broken one of these rules, it goes on without the token,
// even if it comes back. A first request to an origin that isn't listed, where there is a
// list, is a *RefusedError.
func (p *Policy) Permit(req *http.Request) (bool, error) {
	if p != nil && p.err != nil {
		return false, p.err
	}
	if p == nil && req.Response == nil {
		return true, nil // The usual case, at no cost.
	}

	hops := []Origin{Of(req.URL)} // The last hop comes first.
	for req.Response != nil {
		req = req.Response.Request
		if req == nil || req.URL == nil || len(hops) > maxHops {
			return false, nil // Nobody can say where this chain has been.
		}
		hops = append(hops, Of(req.URL))
	}
	first := hops[len(hops)-1]
	if p != nil && !p.lists(first) {
		return false, &RefusedError{first}
	}
	unprotected := false
	for _, hop := range hops {
		if hop != first && !p.lists(hop) || hop.scheme == "https" && unprotected {
			return false, nil
		}
		unprotected = unprotected || hop.scheme != "https"
	}
	return true, nil
}

// Follows reports whether sent, the request that a RoundTripper says it has answered, is req or
// leads back to what req is a redirect of. A RoundTripper that makes a request of its own may
// forget that, and then Permit would take a later redirect for the request of a caller.
func Follows(sent, req *http.Request) bool {
	for range maxHops {
		switch {
		case sent == nil:
			return false
		case sent.Response == req.Response:
			return true
		case sent.Response == nil:
			return false
		}
		sent = sent.Response.Request
	}
	return false
}

func (p *Policy) lists(o Origin) bool {
	if p == nil {
		return false
	}
	return slices.Contains(p.listed, o)
}

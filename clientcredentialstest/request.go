package clientcredentialstest

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// kept is how many requests and violations a server remembers.
const kept = 10_000

// Request is a request as a server received it. Don't change its maps: all callers
// share them.
type Request struct {
	Time   time.Time
	Method string
	Host   string
	URL    string // the request target as sent: path and query
	Header http.Header

	// Body and Form are the body of a token request. Form is nil if the body is not
	// a form, and Body is empty if it is larger than 1 MiB.
	Body string
	Form url.Values

	// ClientID and AuthMethod are the client that the sender of a token request
	// claims to be, and the method by which it authenticates: one of
	// [Client].AuthMethods, or empty for anything else.
	ClientID   string
	AuthMethod string

	// Assertion is the JWT in client_assertion of a token request (RFC 7523, Section 2.2),
	// whether or not the server accepts it. nil: there is none, or it isn't a JWT.
	Assertion *Assertion

	// Certificate is the certificate that the client presented in the TLS handshake.
	// nil: none.
	Certificate *x509.Certificate

	// AccessToken is the token of a request to a ResourceServer, whether it is a
	// bearer token or bound to a key.
	AccessToken string
}

func received(r *http.Request) Request {
	req := Request{
		Time:   time.Now(),
		Method: r.Method,
		Host:   r.Host,
		URL:    r.RequestURI,
		Header: r.Header.Clone(),
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		req.Certificate = r.TLS.PeerCertificates[0]
	}
	return req
}

// recent counts all values and holds the last of them.
type recent[T any] struct {
	total int
	last  []T
}

func (r *recent[T]) add(v T) {
	r.total++
	if len(r.last) == kept {
		var zero T
		r.last[0] = zero // free it: the array behind the slice lives on for a while
		r.last = r.last[1:]
	}
	r.last = append(r.last, v)
}

func (r *recent[T]) list() []T {
	return slices.Clone(r.last)
}

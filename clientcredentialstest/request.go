package clientcredentialstest

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// kept bounds what a server remembers of each kind.
const kept = 10_000

// Request is a request as a server received it. Its maps are shared between
// callers: read only.
type Request struct {
	Time   time.Time
	Method string
	Host   string
	URL    string // the request target as sent: path and query
	Header http.Header

	// Body and Form are those of a token request. Form is nil when the body
	// is not a form, and Body is empty beyond 1 MiB.
	Body string
	Form url.Values

	// ClientID and AuthMethod tell who the sender of a token request says it
	// is, and how: one of [Client].AuthMethods, or empty for anything else.
	ClientID   string
	AuthMethod string

	// Certificate is what the client presented in the TLS handshake. nil: nothing.
	Certificate *x509.Certificate

	// AccessToken is the token of a request to a ResourceServer, whether bearer
	// token or bound to a key.
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

// recent counts all and holds the last of them.
type recent[T any] struct {
	total int
	last  []T
}

func (r *recent[T]) add(v T) {
	r.total++
	if len(r.last) == kept {
		var zero T
		r.last[0] = zero // the array behind the slice lives on for a while
		r.last = r.last[1:]
	}
	r.last = append(r.last, v)
}

func (r *recent[T]) list() []T {
	return slices.Clone(r.last)
}

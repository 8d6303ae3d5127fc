package clientcredentials

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// This file is about the client's TLS certificate, RFC 8705: connections that present it to
// the token endpoint and to the API, and what happens when the certificate is replaced.

// certificateOf returns the certificate of auth, or nil if its method needs none.
func certificateOf(ctx context.Context, auth ClientAuth) (*tls.Certificate, error) {
	source, ok := auth.(CertificateAuth)
	if !ok {
		return nil, nil
	}
	certificate, err := source.Certificate(ctx)
	if err == nil && (certificate == nil || len(certificate.Certificate) == 0) {
		err = errors.New("there is no certificate")
	}
	if err != nil {
		return nil, &authError{auth.Method(), err}
	}
	return certificate, nil
}

// certificateThumbprint returns the x5t#S256 of RFC 8705, Section 3.1.
func certificateThumbprint(certificate *tls.Certificate) string {
	return jws.Digest(certificate.Certificate[0])
}

func sameCertificate(a, b *tls.Certificate) bool {
	return a == b || a != nil && b != nil && bytes.Equal(a.Certificate[0], b.Certificate[0])
}

// plainTransport returns the *http.Transport that base is, if it is one. Nil is
// http.DefaultTransport.
func plainTransport(base http.RoundTripper) (*http.Transport, bool) {
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	return transport, ok
}

// withCertificate returns a transport like base, with its own connections, which present
// certificate.
func withCertificate(base *http.Transport, certificate *tls.Certificate) (*http.Transport, error) {
	for name, set := range map[string]bool{"DialTLSContext": base.DialTLSContext != nil, "DialTLS": base.DialTLS != nil} { //nolint:staticcheck // Programs still use DialTLS.
		if set {
			return nil, fmt.Errorf("oauth2: the http.Transport has a %s, whose connections don't present the client's certificate; use TLSClientConfig instead, or a RoundTripper of another type that presents the certificate", name)
		}
	}
	transport := cloneTransport(base)
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = new(tls.Config)
	}
	config := transport.TLSClientConfig
	config.Certificates = nil
	// The authorities that the server names are ignored: it may accept others than those,
	// and a self-signed certificate has none.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	if config.ClientSessionCache != nil {
		// A session that is resumed is bound to the certificate it was begun with.
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	if transport.IdleConnTimeout == 0 {
		transport.IdleConnTimeout = 90 * time.Second // Nobody else can close these connections.
	}
	return transport, nil
}

// present makes the next attempts use connections that present certificate, unless that is
// nil.
func (r *tokenRequest) present(certificate *tls.Certificate) error {
	if certificate == nil || sameCertificate(certificate, r.bound.certificate) {
		return nil
	}
	if transport, ok := plainTransport(r.base); ok {
		transport, err := withCertificate(transport, certificate)
		if err != nil {
			return err
		}
		r.closeCertified()
		r.client.Transport = transport
	}
	r.bound.certificate = certificate
	return nil
}

// closeCertified closes the connections that present the client's certificate, which nobody
// else uses.
func (r *tokenRequest) closeCertified() {
	if transport, ok := r.client.Transport.(*http.Transport); ok && http.RoundTripper(transport) != r.base {
		transport.CloseIdleConnections()
	}
}

// certifiedTransports are clones of the RoundTrippers that a Source's tokens go
// through. They present the certificate that its current token was requested
// with. Its methods require that Source.mu is held.
type certifiedTransports struct {
	certificate *tls.Certificate
	clones      map[*http.Transport]*http.Transport
}

// maxCertifiedTransports bounds certifiedTransports: a Source is used with one
// RoundTripper, or with a few.
const maxCertifiedTransports = 10

// clone returns a clone of base that presents certificate.
func (t *certifiedTransports) clone(base *http.Transport, certificate *tls.Certificate) (http.RoundTripper, error) {
	if !sameCertificate(t.certificate, certificate) || len(t.clones) >= maxCertifiedTransports && t.clones[base] == nil {
		for _, clone := range t.clones {
			go clone.CloseIdleConnections() // Not while Source.mu is held.
		}
		*t = certifiedTransports{certificate, make(map[*http.Transport]*http.Transport)}
	}
	if t.clones[base] == nil {
		clone, err := withCertificate(base, certificate)
		if err != nil {
			return nil, err
		}
		t.clones[base] = clone
	}
	return t.clones[base], nil
}

// closeCertified closes the idle connections that present the client's certificate.
func (s *Source) closeCertified() {
	s = s.root()
	rare := s.rare.Load()
	if rare == nil {
		return
	}
	s.mu.Lock()
	clones := slices.Collect(maps.Values(rare.certified.clones))
	s.mu.Unlock()
	for _, clone := range clones {
		clone.CloseIdleConnections()
	}
}

// certified returns a RoundTripper like base that presents the certificate that c
// may be bound to. If base isn't an *http.Transport, it has to do so by itself.
func (s *Source) certified(base http.RoundTripper, c *cachedToken) (http.RoundTripper, error) {
	if c.bound.certificate == nil {
		return base, nil
	}
	transport, ok := plainTransport(base)
	if !ok {
		return base, nil
	}
	s = s.root()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rarely().certified.clone(transport, c.bound.certificate)
}

// checkCertificate drops c if the client has another certificate now: it can't use a token
// that is bound to the old one, RFC 8705, Section 6.3.
func (s *Source) checkCertificate(ctx context.Context, c *cachedToken) {
	certificate, err := bounded.Do(ctx, func(ctx context.Context) (*tls.Certificate, error) { return certificateOf(ctx, s.conf.ClientAuth) })
	if err != nil || certificate == nil || sameCertificate(certificate, c.bound.certificate) {
		return // As long as there is no other certificate, c is better than an error.
	}
	s.drop(func(current *cachedToken) bool { return current == c }, event.CertificateReplaced)
}

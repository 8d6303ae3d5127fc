package clientcredentials

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/event"
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
	sum := sha256.Sum256(certificate.Certificate[0])
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func sameCertificate(a, b *tls.Certificate) bool {
	return a == b || a != nil && b != nil && bytes.Equal(a.Certificate[0], b.Certificate[0])
}

// withCertificate returns a RoundTripper like base, with its own connections, which present
// certificate. If base isn't an *http.Transport, withCertificate returns base, which has to
// present the certificate by itself.
func withCertificate(base http.RoundTripper, certificate *tls.Certificate) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	if !ok {
		return base
	}
	transport = cloneTransport(transport)
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
	return transport
}

// present makes the next attempts use connections that present certificate, unless that is
// nil.
func (r *tokenRequest) present(certificate *tls.Certificate) {
	if certificate == nil || sameCertificate(certificate, r.bound.certificate) {
		return
	}
	r.closeCertified()
	r.bound.certificate = certificate
	r.client.Transport = withCertificate(r.client.Transport, certificate)
}

// closeCertified closes the connections that present the client's certificate, which nobody
// else uses.
func (r *tokenRequest) closeCertified() {
	if transport, ok := r.client.Transport.(*http.Transport); ok && r.bound.certificate != nil {
		transport.CloseIdleConnections()
	}
}

// certifiedTransports are clones of the RoundTrippers that a Source's tokens go
// through. They present the certificate that its current token was requested
// with. Its methods require that Source.mu is held.
type certifiedTransports struct {
	certificate *tls.Certificate
	clones      map[*http.Transport]http.RoundTripper
}

// maxCertifiedTransports bounds certifiedTransports: a Source is used with one
// RoundTripper, or with a few.
const maxCertifiedTransports = 10

// clone returns a clone of base that presents certificate.
func (t *certifiedTransports) clone(base *http.Transport, certificate *tls.Certificate) http.RoundTripper {
	if !sameCertificate(t.certificate, certificate) || len(t.clones) >= maxCertifiedTransports && t.clones[base] == nil {
		for _, clone := range t.clones {
			go clone.(*http.Transport).CloseIdleConnections() // Not while Source.mu is held.
		}
		*t = certifiedTransports{certificate, make(map[*http.Transport]http.RoundTripper)}
	}
	if t.clones[base] == nil {
		t.clones[base] = withCertificate(base, certificate)
	}
	return t.clones[base]
}

// certified returns a RoundTripper like base that presents the certificate that c
// may be bound to.
func (s *Source) certified(base http.RoundTripper, c *cachedToken) http.RoundTripper {
	if c.bound.certificate == nil {
		return base
	}
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	if !ok {
		return base
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rarely().certified.clone(transport, c.bound.certificate)
}

// checkCertificate drops c if the client has another certificate now: it can't use a token
// that is bound to the old one, RFC 8705, Section 6.3.
func (s *Source) checkCertificate(ctx context.Context, c *cachedToken) {
	certificate, err := certificateOf(ctx, s.conf.ClientAuth)
	if err != nil || certificate == nil || sameCertificate(certificate, c.bound.certificate) {
		return // As long as there is no other certificate, c is better than an error.
	}
	s.drop(func(current *cachedToken) bool { return current == c }, event.CertificateReplaced)
}

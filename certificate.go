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

// This file is about the client's TLS certificate, RFC 8705: a connection that
// presents it, to the token endpoint and to the API, and what follows when it is
// replaced.

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

// withCertificate returns a RoundTripper like base, with connections of its own
// that present certificate. It returns base if that isn't an *http.Transport,
// which then has to do so by itself.
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
	// Whatever authorities the server names: they may be others than those that
	// it accepts, and a self-signed certificate has none.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	if config.ClientSessionCache != nil {
		// A session that is resumed is that of the certificate it was begun with.
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	if transport.IdleConnTimeout == 0 {
		transport.IdleConnTimeout = 90 * time.Second // Nobody else can close them.
	}
	return transport
}

// certify makes the attempt use the client's certificate, if its method needs one.
func (r *tokenRequest) certify(ctx context.Context, attempt *Attempt) error {
	certificate, err := certificateOf(ctx, r.clientAuth)
	if err != nil || certificate == nil {
		return err
	}
	attempt.CredentialID = certificateThumbprint(certificate)
	if !sameCertificate(certificate, r.certificate) {
		r.closeCertified()
		r.certificate = certificate
		r.client.Transport = withCertificate(r.client.Transport, certificate)
	}
	return nil
}

// closeCertified closes the connections that present the client's certificate:
// they are r's own.
func (r *tokenRequest) closeCertified() {
	if transport, ok := r.client.Transport.(*http.Transport); ok && r.certificate != nil {
		transport.CloseIdleConnections()
	}
}

// certifiedTransports are clones of the RoundTrippers that a Source's tokens go
// through. They present the certificate that its current token was requested
// with. Source.mu protects it.
type certifiedTransports struct {
	certificate *tls.Certificate
	clones      map[*http.Transport]http.RoundTripper
}

// maxCertifiedTransports bounds certifiedTransports: a Source is used with one
// RoundTripper, or with a few.
const maxCertifiedTransports = 10

// certified returns a RoundTripper like base that presents the certificate that c
// may be bound to.
func (s *Source) certified(base http.RoundTripper, c *cachedToken) http.RoundTripper {
	if c.certificate == nil {
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
	t := &s.certifiedTransports
	if !sameCertificate(t.certificate, c.certificate) || len(t.clones) >= maxCertifiedTransports && t.clones[transport] == nil {
		for _, clone := range t.clones {
			go clone.(*http.Transport).CloseIdleConnections() // Off the lock.
		}
		*t = certifiedTransports{c.certificate, make(map[*http.Transport]http.RoundTripper)}
	}
	if t.clones[transport] == nil {
		t.clones[transport] = withCertificate(transport, c.certificate)
	}
	return t.clones[transport]
}

// checkCertificate drops c if the client has another certificate now: what c is
// bound to, it has no longer, RFC 8705, Section 6.3.
func (s *Source) checkCertificate(ctx context.Context, c *cachedToken) {
	certificate, err := certificateOf(ctx, s.conf.ClientAuth)
	if err != nil || certificate == nil || sameCertificate(certificate, c.certificate) {
		return // As long as there is no other one, c is better than an error.
	}
	s.drop(func(current *cachedToken) bool { return current == c }, event.Invalidated{Reason: event.CertificateReplaced})
}

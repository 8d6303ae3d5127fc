package clientauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
)

// A Certificate returns the client's certificate and private key. It is called with
// each token request and, because tokens may be bound to the certificate, with each
// use of a token: it must be quick, safe for concurrent use, and return the same
// pointer as long as the certificate is the same.
type CertificateSource func(ctx context.Context) (*tls.Certificate, error)

// GetClientCertificate is for the field of that name in a tls.Config, of a program
// that makes TLS connections of its own.
func (c CertificateSource) GetClientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return present(request.Context(), c)
}

// reloadInterval is the least time between two looks at the files of a certificate.
const reloadInterval = time.Second

// CertificateFiles returns a Certificate from two files in PEM: a chain that begins
// with the client's certificate, and its private key, not encrypted.
//
// A new pair of files counts without restart. When the certificate is used, at most
// once a second, its file is read and compared with what it was. That finds every
// change, such as that of a symbolic link to the directory, at the cost of some
// microseconds. While there is no good pair in the files, perhaps because only one
// of them has been replaced yet, the last one stays in use until it expires.
//
// A missing file, a key that is encrypted or belongs to another certificate, and a
// certificate that has expired or isn't valid yet are errors.
func CertificateFiles(certFile, keyFile string) CertificateSource {
	files := newCertificateFiles(certFile, keyFile)
	return func(ctx context.Context) (*tls.Certificate, error) { return files.get(ctx, time.Now()) }
}

type certificateFiles struct {
	cert, key string
	turn      chan struct{} // full while one goroutine looks at the files
	current   atomic.Pointer[loadedCertificate]
}

func newCertificateFiles(cert, key string) *certificateFiles {
	return &certificateFiles{cert: cert, key: key, turn: make(chan struct{}, 1)}
}

// A loadedCertificate isn't changed anymore.
type loadedCertificate struct {
	pair   *tls.Certificate // with a Leaf
	file   []byte           // that the certificate is from
	looked time.Time        // at the file
}

// isFresh reports whether l can be used without a look at the files.
func (l *loadedCertificate) isFresh(now time.Time) bool {
	return l.isUsable(now) && now.Sub(l.looked) < reloadInterval
}

func (l *loadedCertificate) isUsable(now time.Time) bool {
	return l != nil && checkValidity(l.pair.Leaf, now) == nil
}

func (f *certificateFiles) get(ctx context.Context, now time.Time) (*tls.Certificate, error) {
	if current := f.current.Load(); current.isFresh(now) {
		return current.pair, nil
	} else if current.isUsable(now) {
		select {
		case f.turn <- struct{}{}:
		default:
			return current.pair, nil // Another goroutine looks.
		}
	} else {
		select {
		case f.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { <-f.turn }()

	current := f.current.Load()
	next, err := f.load(current, now)
	if err != nil {
		if !current.isUsable(now) {
			return nil, err
		}
		next = &loadedCertificate{current.pair, current.file, now}
	}
	f.current.Store(next)
	return next.pair, nil
}

// load reads the files. If the certificate is what it was, so is the pair: no other
// key belongs to it.
func (f *certificateFiles) load(current *loadedCertificate, now time.Time) (*loadedCertificate, error) {
	cert, err := readFile(f.cert)
	if err != nil {
		return nil, err
	}
	if current != nil && bytes.Equal(current.file, cert) {
		err := checkValidity(current.pair.Leaf, now)
		return &loadedCertificate{current.pair, cert, now}, f.describe(err)
	}
	key, err := readFile(f.key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		if bytes.Contains(key, []byte("ENCRYPTED")) {
			err = errors.New("the private key is encrypted; decrypt it, with openssl pkey for instance")
		}
		return nil, f.describe(err)
	}
	if pair.Leaf, err = leaf(&pair); err == nil {
		err = checkValidity(pair.Leaf, now)
	}
	return &loadedCertificate{&pair, cert, now}, f.describe(err)
}

// describe says in which files the fault is.
func (f *certificateFiles) describe(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the files %s and %s: %w", f.cert, f.key, err)
}

// leaf returns the client's certificate, which a program may have left unparsed.
func leaf(pair *tls.Certificate) (*x509.Certificate, error) {
	if pair.Leaf != nil {
		return pair.Leaf, nil
	}
	return x509.ParseCertificate(pair.Certificate[0])
}

func checkValidity(certificate *x509.Certificate, now time.Time) error {
	if now.Before(certificate.NotBefore) {
		return fmt.Errorf("the certificate is not valid before %s; check the clock of this machine", certificate.NotBefore.Format(time.RFC3339))
	}
	if now.After(certificate.NotAfter) {
		return fmt.Errorf("the certificate expired at %s; replace it", certificate.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// present returns what source does if it can be presented in a handshake.
func present(ctx context.Context, source CertificateSource) (*tls.Certificate, error) {
	if source == nil {
		return nil, errors.New("there is no certificate; set Source in the ClientAuth")
	}
	pair, err := source(ctx)
	if err != nil {
		return nil, err
	}
	if pair == nil || len(pair.Certificate) == 0 || pair.PrivateKey == nil {
		return nil, errors.New("the certificate has no content, or no private key; set both in what Source returns")
	}
	return pair, nil
}

// usable is present for what is valid now. The Leaf of the copy it returns is set.
func usable(ctx context.Context, source CertificateSource) (*tls.Certificate, error) {
	pair, err := present(ctx, source)
	if err != nil {
		return nil, err
	}
	parsed := *pair
	if parsed.Leaf, err = leaf(pair); err != nil {
		return nil, err
	}
	return &parsed, checkValidity(parsed.Leaf, time.Now())
}

// authenticate adds to attempt what the certificate doesn't say: RFC 8705, Section
// 2, wants client_id.
func authenticate(ctx context.Context, source CertificateSource, attempt *clientcredentials.Attempt) error {
	if err := checkClientID(attempt); err != nil {
		return err
	}
	pair, err := usable(ctx, source)
	if err != nil {
		return err
	}
	attempt.Form.Set("client_id", attempt.ClientID)
	attempt.CredentialID = thumbprint(pair.Leaf.Raw)
	return nil
}

// TLSClientAuth is tls_client_auth: the client proves in the TLS handshake that it
// has the private key of a certificate, which a certification authority that the
// server trusts has issued, RFC 8705, Section 2.1.
//
// It is a [clientcredentials.CertificateAuth]: see there for what presents the
// certificate. It is safe for concurrent use if Source is.
type TLSClientAuth struct {
	// Source returns the certificate and its key. Required.
	Source CertificateSource
}

// Method returns "tls_client_auth".
func (*TLSClientAuth) Method() string { return "tls_client_auth" }

// Authenticate checks the certificate and sets client_id.
func (a *TLSClientAuth) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	return authenticate(ctx, a.Source, attempt)
}

// Certificate returns what Source does.
func (a *TLSClientAuth) Certificate(ctx context.Context) (*tls.Certificate, error) {
	return present(ctx, a.Source)
}

// SelfSignedTLSClientAuth is self_signed_tls_client_auth: TLSClientAuth with a
// certificate that the server knows by itself, RFC 8705, Section 2.2.
//
// It is safe for concurrent use if Source is.
type SelfSignedTLSClientAuth struct {
	// Source returns the certificate and its key. Required.
	Source CertificateSource
}

// Method returns "self_signed_tls_client_auth".
func (*SelfSignedTLSClientAuth) Method() string { return "self_signed_tls_client_auth" }

// Authenticate checks the certificate and sets client_id.
func (a *SelfSignedTLSClientAuth) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	return authenticate(ctx, a.Source, attempt)
}

// Certificate returns what Source does.
func (a *SelfSignedTLSClientAuth) Certificate(ctx context.Context) (*tls.Certificate, error) {
	return present(ctx, a.Source)
}

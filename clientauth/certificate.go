package clientauth

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/assertion"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
)

// A CertificateSource returns the client's certificate and private key. It is called
// for each token request, and for each use of a token, because a token may be bound to
// the certificate. So it must
//
//   - be quick,
//   - be safe for concurrent use,
//   - return the same pointer as long as the certificate is the same.
type CertificateSource func(ctx context.Context) (*tls.Certificate, error)

// GetClientCertificate returns the certificate for a TLS handshake. Set it as the
// GetClientCertificate of a [tls.Config] to present the certificate on other TLS
// connections of the program.
func (c CertificateSource) GetClientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return present(request.Context(), c)
}

// reloadInterval is the least time between two readings of a certificate's file.
const reloadInterval = time.Second

// CertificateFiles returns a source that reads two files: the client's certificate with
// its chain, and the private key of that certificate, not encrypted. Their formats are
// those of [KeyBytes], and both may be in one file. The client's certificate is the one
// that the private key belongs to. It needn't come first. If there are several for one key,
// perhaps because a renewed one was appended to the file, the one that is valid now and
// expires last is used.
//
// New files are picked up without a restart. When the certificate is used, but at most
// once a second, its file is read again and compared with its previous content. That
// takes some microseconds and finds every change, even of a symbolic link to the
// directory. If the files don't contain a valid pair, perhaps because only one of them
// has been replaced so far, the previous pair stays in use until it expires.
//
// It is an error if a file is missing or has another format, if the key is encrypted or
// belongs to another certificate, or if the certificate has expired or isn't valid yet.
func CertificateFiles(certFile, keyFile string) CertificateSource {
	files := newCertificateFiles(certFile, keyFile)
	return func(ctx context.Context) (*tls.Certificate, error) { return files.get(ctx, time.Now()) }
}

// certificateFiles are the two files of a certificate, and the pair that was last
// found in them.
type certificateFiles struct {
	cert, key string
	turn      chan struct{} // full while a goroutine reads the files
	current   atomic.Pointer[loadedCertificate]
}

func newCertificateFiles(cert, key string) *certificateFiles {
	return &certificateFiles{cert: cert, key: key, turn: make(chan struct{}, 1)}
}

// A loadedCertificate is the result of reading the files. It is never changed.
type loadedCertificate struct {
	pair *tls.Certificate // with a Leaf
	file []byte           // content of the certificate's file
	read time.Time        // when that was last read
}

// isFresh reports whether l can be used without reading the files again.
func (l *loadedCertificate) isFresh(now time.Time) bool {
	return l.isUsable(now) && now.Sub(l.read) < reloadInterval
}

// isUsable reports whether there is a certificate in l that is valid now.
func (l *loadedCertificate) isUsable(now time.Time) bool {
	return l != nil && checkValidity(l.pair.Leaf, now) == nil
}

// get returns the pair in the files, which it reads again if reloadInterval has passed.
// Only one goroutine reads them at a time. Others use the current pair if they can, and
// else wait.
func (f *certificateFiles) get(ctx context.Context, now time.Time) (*tls.Certificate, error) {
	if current := f.current.Load(); current.isFresh(now) {
		return current.pair, nil
	} else if current.isUsable(now) {
		select {
		case f.turn <- struct{}{}:
		default:
			return current.pair, nil // Another goroutine reads the files.
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

// load reads the files. It doesn't read the key if the certificate is unchanged and still
// valid, because no other key belongs to that certificate.
func (f *certificateFiles) load(current *loadedCertificate, now time.Time) (*loadedCertificate, error) {
	cert, err := readFile(f.cert)
	if err != nil {
		return nil, err
	}
	if current.isUsable(now) && bytes.Equal(current.file, cert) {
		return &loadedCertificate{current.pair, cert, now}, nil
	}
	certificates, err := keyfile.Certificates(cert)
	if err != nil {
		return nil, fmt.Errorf("the file %s: %w", f.cert, err)
	}
	signers, err := parseFile(f.key, jws.ParseSigners)
	if err != nil {
		return nil, err
	}
	pair, err := match(certificates, signers, now)
	if err == nil {
		err = checkValidity(pair.Leaf, now)
	}
	return &loadedCertificate{pair, cert, now}, f.describe(err)
}

// match returns a certificate together with its key, and the best one by isBetter if there are
// several. The certificates of other keys follow in their order. They may be of kinds that
// crypto/x509 can't parse: only the server needs them.
func match(certificates [][]byte, signers []crypto.Signer, now time.Time) (*tls.Certificate, error) {
	var unusable error
	var pairs []*tls.Certificate
	for i, der := range certificates {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			unusable = cmp.Or(unusable, fmt.Errorf("certificate %d of the file can't be read; openssl x509 -in FILE -text may say more: %w", i+1, err))
			continue
		}
		public, ok := parsed.PublicKey.(interface {
			Equal(other crypto.PublicKey) bool
		})
		if !ok {
			unusable = cmp.Or(unusable, fmt.Errorf("the public key in certificate %d of the file is of a kind that crypto/tls can't use, such as RSA-PSS or Ed448; have a certificate issued for an RSA, P-256 or Ed25519 key", i+1))
			continue
		}
		for _, signer := range signers {
			if public.Equal(signer.Public()) {
				pairs = append(pairs, &tls.Certificate{PrivateKey: signer, Leaf: parsed})
				break
			}
		}
	}
	if pairs == nil {
		return nil, cmp.Or(unusable, assertion.ErrOtherCertificate)
	}
	best := pairs[0]
	for _, pair := range pairs[1:] {
		if isBetter(pair.Leaf, best.Leaf, now) {
			best = pair
		}
	}
	best.Certificate = [][]byte{best.Leaf.Raw}
	for _, der := range certificates {
		// An older or newer certificate of the same key certifies nothing in the chain.
		ofSameKey := slices.ContainsFunc(pairs, func(p *tls.Certificate) bool { return bytes.Equal(p.Leaf.Raw, der) && hasSameKey(p.Leaf, best.Leaf) })
		if !ofSameKey {
			best.Certificate = append(best.Certificate, der)
		}
	}
	return best, nil
}

// isBetter reports whether to present c instead of another certificate that comes before it in
// the file: if only c is valid now, or if both are for the same key and c expires later. So a
// renewed certificate may be appended to the file. The key of an authority may be in the
// file, too. Its certificate isn't the client's, although it expires later.
func isBetter(c, than *x509.Certificate, now time.Time) bool {
	if valid := checkValidity(c, now) == nil; valid != (checkValidity(than, now) == nil) {
		return valid
	}
	return hasSameKey(c, than) && c.NotAfter.After(than.NotAfter)
}

// hasSameKey reports whether two certificates are for the same public key.
func hasSameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// issuers returns the certificates of pair that lead from its Leaf to a root, each followed by
// the one that certifies it, as RFC 7515, Section 4.1.6, wants. In a file they may be in any
// order, and others may be beside them. If crypto/x509 can't parse one of them, they stay as
// they are.
func issuers(pair *tls.Certificate) [][]byte {
	var others []*x509.Certificate
	for _, der := range pair.Certificate[1:] {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return pair.Certificate[1:]
		}
		others = append(others, parsed)
	}
	var chain [][]byte
	// A root is its own issuer.
	for current := pair.Leaf; !bytes.Equal(current.RawSubject, current.RawIssuer); {
		i := slices.IndexFunc(others, func(c *x509.Certificate) bool { return isIssuer(c, current) })
		if i < 0 {
			break
		}
		current = others[i]
		chain = append(chain, current.Raw)
		others = slices.Delete(others, i, i+1) // It ends even if certificates certify each other.
	}
	return chain
}

// isIssuer reports whether ca belongs to the authority that issued c. An authority that has
// replaced its key has two certificates with the same name.
func isIssuer(ca, c *x509.Certificate) bool {
	return bytes.Equal(ca.RawSubject, c.RawIssuer) &&
		(len(ca.SubjectKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(ca.SubjectKeyId, c.AuthorityKeyId))
}

// describe adds the names of the files to an error.
func (f *certificateFiles) describe(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the files %s and %s: %w", f.cert, f.key, err)
}

// leaf returns the client's certificate. It parses it if a program hasn't set Leaf.
func leaf(pair *tls.Certificate) (*x509.Certificate, error) {
	if pair.Leaf != nil {
		return pair.Leaf, nil
	}
	return x509.ParseCertificate(pair.Certificate[0])
}

// checkValidity reports a certificate that has expired or isn't valid yet.
func checkValidity(certificate *x509.Certificate, now time.Time) error {
	if now.Before(certificate.NotBefore) {
		return fmt.Errorf("the certificate is not valid before %s; check the clock of this machine", certificate.NotBefore.Format(time.RFC3339))
	}
	if now.After(certificate.NotAfter) {
		return fmt.Errorf("the certificate expired at %s; replace it", certificate.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// present returns the pair of source if it is fit for a TLS handshake.
func present(ctx context.Context, source CertificateSource) (*tls.Certificate, error) {
	if source == nil {
		return nil, errors.New("there is no certificate; set Source in the ClientAuth")
	}
	pair, err := source(ctx)
	if err != nil {
		return nil, err
	}
	if pair == nil || len(pair.Certificate) == 0 || pair.PrivateKey == nil {
		return nil, errors.New("the certificate is empty or has no private key; check what Source returns")
	}
	return pair, nil
}

// usable returns a copy of the pair of source, with its Leaf set, if the certificate is
// valid now.
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

// authenticate checks the certificate of source. It adds client_id to attempt, which
// RFC 8705, Section 2, requires besides the certificate.
func authenticate(ctx context.Context, source CertificateSource, attempt *clientcredentials.Attempt) error {
	if err := checkClientID(attempt); err != nil {
		return err
	}
	pair, err := usable(ctx, source)
	if err != nil {
		return err
	}
	attempt.Form.Set("client_id", attempt.ClientID)
	attempt.CredentialID = jws.Digest(pair.Leaf.Raw)
	return nil
}

// TLSClientAuth is tls_client_auth: the client presents a certificate in the TLS
// handshake and proves that it has the private key, RFC 8705, Section 2.1. The
// certificate is from a certification authority that the server trusts.
//
// It is a [clientcredentials.CertificateAuth], which describes the connections that
// present the certificate. It is safe for concurrent use if Source is.
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

// Certificate returns the certificate of Source.
func (a *TLSClientAuth) Certificate(ctx context.Context) (*tls.Certificate, error) {
	return present(ctx, a.Source)
}

// SelfSignedTLSClientAuth is self_signed_tls_client_auth: like TLSClientAuth, but the
// certificate itself is registered with the server, RFC 8705, Section 2.2.
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

// Certificate returns the certificate of Source.
func (a *SelfSignedTLSClientAuth) Certificate(ctx context.Context) (*tls.Certificate, error) {
	return present(ctx, a.Source)
}

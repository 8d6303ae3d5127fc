package grant

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/assertion"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// signerKey is the key of an *atomic.Pointer[string] in a context, in which a SignedJWT says
// with which key it has signed.
type signerKey struct{}

// A SignedJWT describes assertions that the client signs by itself, for a server that knows
// its public key. Each is a new one with its own jti.
type SignedJWT struct {
	// Key returns the private key. Required.
	Key clientauth.KeySource

	// Algorithm and KeyID are as in clientauth.PrivateKeyJWT.
	Algorithm, KeyID string

	// Issuer is the iss of the assertion: the name by which the server knows the key.
	// Required.
	Issuer string

	// Subject is the sub: whom the token is for. Empty: there is none. RFC 7523, Section
	// 3, requires it, but some servers take the issuer.
	Subject string

	// Audience is the aud, which names the server: its issuer identifier, or the address of
	// its token endpoint. Required.
	Audience string

	// Claims are further claims, such as scope. It is an error if they contain one that the
	// library sets, unless Replace lists it: iss, sub, aud, exp, iat and jti.
	Claims map[string]any

	// Replace, Lifetime, Type, CertificateHeader and Header are as in clientauth.PrivateKeyJWT.
	Replace           []string
	Lifetime          time.Duration
	Type              string
	CertificateHeader []string
	Header            map[string]any
}

// Source returns a source of such assertions, for JWTBearer.Assertion. A TokenExchange can
// use it too, but replicas don't share its tokens, because each subject token is another.
//
// It is safe for concurrent use if Key is, and as long as Claims don't change. What is wrong
// with a field is the error of each call.
func (a SignedJWT) Source() clientauth.SecretSource {
	return a.sign
}

func (a SignedJWT) sign(ctx context.Context) (string, error) {
	switch {
	case a.Key == nil:
		return "", errors.New("there is no key; set Key in the SignedJWT")
	case a.Issuer == "":
		return "", errors.New("the Issuer of the SignedJWT is empty; set it")
	case a.Audience == "":
		return "", errors.New("the Audience of the SignedJWT is empty; set it")
	}
	signing, err := a.Key(ctx)
	if err != nil {
		return "", err
	}
	if signing == nil {
		return "", errors.New("the Key of the SignedJWT returned no key")
	}
	key, err := jws.NewKey(signing.Signer, cmp.Or(a.Algorithm, signing.Algorithm))
	if err != nil {
		return "", err
	}
	header, id, err := assertion.KeyHeader(key, cmp.Or(a.KeyID, signing.KeyID), signing.Signer, signing.Certificate, signing.Chain, a.CertificateHeader)
	if err != nil {
		return "", err
	}
	if signer, ok := ctx.Value(signerKey{}).(*atomic.Pointer[string]); ok {
		signer.Store(&id)
	}
	content := assertion.Content{Owner: "the SignedJWT", Issuer: a.Issuer, Subject: a.Subject, Audience: a.Audience, Type: a.Type, Lifetime: a.Lifetime, Header: a.Header, Claims: a.Claims, Replace: a.Replace}
	return content.Sign(key, header)
}

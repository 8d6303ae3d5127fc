package grant

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// TypeJWTBearer is the grant_type of RFC 7523, Section 2.1.
const TypeJWTBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer" //nolint:gosec // A name, not a credential.

// JWTBearer is the grant of RFC 7523, Section 2.1: the client sends an assertion, and gets a
// token for its subject. The server must trust the issuer of the assertion. Where the client
// needn't authenticate besides, leave ClientID and ClientSecret of the Config empty.
//
// Don't confuse it with clientauth.PrivateKeyJWT and clientauth.Assertion: with those the
// client only authenticates by an assertion, and the token is for the client itself.
//
// Replicas share a token if their assertions have the same claims, but for exp, iat, nbf and
// jti. That includes iss, sub, aud and scopes. It is safe for concurrent use if Assertion is.
type JWTBearer struct {
	// Assertion returns the assertion, a JWT with an iss: that of a SignedJWT, a file that
	// the platform renews, or the AccessToken method of another clientcredentials.Source.
	// It is called for each attempt at a token. Required.
	Assertion clientauth.SecretSource
}

// Type returns TypeJWTBearer.
func (*JWTBearer) Type() string { return TypeJWTBearer }

// Authorize adds an assertion. It is an error if that isn't a JWT, has no iss, or has expired.
func (g *JWTBearer) Authorize(ctx context.Context, attempt *clientcredentials.Attempt) (subject string, err error) {
	if g.Assertion == nil {
		return "", errors.New("there is no assertion; set Assertion in the Grant")
	}
	var signer atomic.Pointer[string]
	assertion, err := g.Assertion(context.WithValue(ctx, signerKey{}, &signer))
	if err != nil {
		return "", err
	}
	t, err := read("assertion", "Assertion", assertion)
	switch {
	case err != nil:
		return "", err
	case t.opaque != nil && !isEncrypted(assertion):
		return "", t.opaque
	case t.opaque == nil && t.claims.Issuer == "":
		return "", errors.New("the assertion has no iss, which RFC 7523, Section 3, requires; have its issuer add it")
	case t.opaque != nil:
		subject = jws.Digest([]byte(assertion))
	default:
		if subject, err = jws.UnverifiedIdentity(assertion); err != nil {
			return "", err
		}
	}
	attempt.Form.Set("assertion", assertion)
	attempt.GrantName = t.name
	attempt.CredentialID = jws.Digest([]byte(assertion))
	if id := signer.Load(); id != nil {
		attempt.CredentialID = *id // Each assertion is a new one, but the key is the same.
	}
	return subject, nil
}

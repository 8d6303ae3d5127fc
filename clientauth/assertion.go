package clientauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/assertion"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// The values of client_assertion_type.
//
//nolint:gosec // Names, not credentials.
const (
	// TypeJWTBearer is for a JWT, RFC 7523, Section 2.2.
	TypeJWTBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

	// TypeJWTSPIFFE is for a SPIFFE JWT-SVID,
	// draft-ietf-oauth-spiffe-client-auth, Section 3.1.
	TypeJWTSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
)

// PrivateKeyJWT is private_key_jwt: the client signs an assertion with its private
// key, and the server verifies it with the public key, RFC 7523, Section 2.2. Each
// attempt at a token uses a new assertion.
//
// It is safe for concurrent use if Key is.
type PrivateKeyJWT struct {
	// Key returns the private key. Required.
	Key KeySource

	// Algorithm is the JWS algorithm, such as "PS256". It is an error if it doesn't
	// fit the key. Empty: the alg of the key if it is a JWK that has one, else RS256
	// for RSA, PS256 for RSA-PSS, EdDSA for Ed25519, and the one of the curve for ECDSA.
	//
	// If it is empty, and the Config comes from a ServerMetadata, the server's metadata
	// decides, too: the first algorithm of the key that it lists is used, and it is an
	// error if it lists none. An Algorithm that is set is used in any case.
	Algorithm string

	// KeyID is the kid in the assertion's header. It tells the server which public
	// key to use. Empty: the kid of the key if it is a JWK that has one, else none.
	KeyID string

	// Audience is the aud of the assertion, which names the server that it is for.
	// Empty: Issuer of the Config, as draft-ietf-oauth-rfc7523bis, Section 4,
	// requires. If that is empty too: TokenURL, which older servers expect.
	Audience string

	// Lifetime is the time from the iat of the assertion to its exp, at least a second.
	// Servers limit it, some to a minute. Zero: a minute.
	//
	// The iat is a sixth of Lifetime in the past, but at most ten seconds, in whole
	// seconds. So a server that tolerates no iat in the future accepts the assertion even
	// if the client's clock is ahead by that much. It accepts the assertion until its own
	// clock is ahead by the rest of Lifetime: 50 seconds of a minute.
	Lifetime time.Duration

	// Type is the typ in the assertion's header. Empty: "JWT".
	// draft-ietf-oauth-rfc7523bis, Section 4, requires "client-authentication+jwt".
	Type string

	// CertificateHeader lists the parameters in the assertion's header by which the server
	// finds or checks the certificate of the key. The key must have one, see CertificateKey.
	//
	//   - "x5t#S256" is the thumbprint of the certificate by SHA-256 (RFC 7515, Section
	//     4.1.8).
	//   - "x5t" is the thumbprint by SHA-1 (Section 4.1.7), for servers that don't know
	//     x5t#S256, such as AD FS. With GODEBUG=fips140=only it is an error.
	//   - "x5c" is the certificate with its chain (Section 4.1.6), for servers that check
	//     its issuer and subject instead of the certificate itself.
	//
	// Empty: x5t#S256 if the key has a certificate, else none.
	CertificateHeader []string

	// Header has more parameters for the assertion's header. Those that the library
	// knows are an error: set Algorithm, KeyID, Type or CertificateHeader for alg, kid, typ
	// or x5c, x5t and x5t#S256. The parameters crit and b64 are never allowed.
	Header map[string]any

	// Claims returns more claims for the assertion, such as nbf (RFC 7519, Section 4.1.5).
	// It is called for each attempt at a token. It must obey ctx and be safe for concurrent
	// use. The map isn't changed. Nil: none.
	//
	// A claim that the library sets is an error, unless Replace lists it: iss, sub, aud,
	// exp, iat and jti. So is a value that JSON can't represent.
	//
	// Claims must not decide what the token is for, because a token is cached and shared
	// whatever the claims were. Use EndpointParams of the Config or a Target for that.
	Claims func(ctx context.Context) (map[string]any, error)

	// Replace lists the claims of the library that Claims may replace, such as "aud" for a
	// server that wants an array. If Claims doesn't return one of them, the library sets it.
	Replace []string

	// OmitClientID leaves the parameter client_id out of the token request, for servers
	// that refuse it beside an assertion. The sub of the assertion says who the client is.
	// RFC 7521, Section 4.2, permits both, but many servers require client_id.
	OmitClientID bool
}

// Method returns "private_key_jwt".
func (*PrivateKeyJWT) Method() string { return "private_key_jwt" }

// Authenticate signs an assertion and sets client_assertion.
func (a *PrivateKeyJWT) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	if err := checkClientID(attempt); err != nil {
		return err
	}
	if a.Key == nil {
		return errors.New("there is no key; set Key in the ClientAuth")
	}
	signing, err := a.Key(ctx)
	if err != nil {
		return err
	}
	if signing == nil {
		return errors.New("the Key of the ClientAuth returned no key")
	}
	var key *jws.Key
	if a.Algorithm != "" {
		key, err = jws.NewKey(signing.Signer, a.Algorithm)
	} else {
		key, err = jws.NewKey(signing.Signer, signing.Algorithm, attempt.SigningAlgorithms...)
	}
	if err != nil {
		return explainList(err)
	}
	header, id, err := assertion.KeyHeader(key, cmp.Or(a.KeyID, signing.KeyID), signing.Signer, signing.Certificate, signing.Chain, a.CertificateHeader)
	if err != nil {
		return err
	}
	content := assertion.Content{Type: a.Type, Audience: a.Audience, Lifetime: a.Lifetime, Header: a.Header, Replace: a.Replace}
	if err := addAssertion(ctx, attempt, key, header, content, a.Claims, a.OmitClientID); err != nil {
		return err
	}
	attempt.CredentialID = id
	return nil
}

// ClientSecretJWT is client_secret_jwt: the client signs an assertion with its secret
// and doesn't send the secret itself, RFC 7523, Section 2.2. Each attempt at a token
// uses a new assertion.
//
// It is safe for concurrent use if Secret is.
type ClientSecretJWT struct {
	// Secret returns the secret. Nil: ClientSecret of the Config. The secret must be
	// at least as long as the hash: 32 bytes for HS256 (RFC 7518, Section 3.2).
	Secret SecretSource

	// Algorithm is "HS256", "HS384" or "HS512". Empty: HS256, or the first of them that
	// the server's metadata lists, as in PrivateKeyJWT.
	Algorithm string

	// These are as in PrivateKeyJWT.
	Audience     string
	Lifetime     time.Duration
	Type         string
	Header       map[string]any
	Claims       func(ctx context.Context) (map[string]any, error)
	Replace      []string
	OmitClientID bool
}

// Method returns "client_secret_jwt".
func (*ClientSecretJWT) Method() string { return "client_secret_jwt" }

// Authenticate signs an assertion and sets client_assertion.
func (a *ClientSecretJWT) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	secret, err := clientSecret(ctx, a.Secret, attempt)
	if err != nil {
		return err
	}
	var listed []string
	if a.Algorithm == "" {
		listed = attempt.SigningAlgorithms
	}
	key, err := jws.NewSecretKey(secret, a.Algorithm, listed...)
	if err != nil {
		return explainList(err)
	}
	content := assertion.Content{Type: a.Type, Audience: a.Audience, Lifetime: a.Lifetime, Header: a.Header, Replace: a.Replace}
	return addAssertion(ctx, attempt, key, map[string]any{}, content, a.Claims, a.OmitClientID)
}

// explainList adds what helps if the server's list of algorithms is wrong.
func explainList(err error) error {
	if errors.Is(err, jws.ErrNotListed) {
		return fmt.Errorf("%w, or set Algorithm in the ClientAuth if the list is wrong", err)
	}
	return err
}

// addAssertion makes an assertion, signs it with key and adds it to attempt. The header has the
// parameters that depend on the key. The content lacks what the attempt and claims say.
func addAssertion(ctx context.Context, attempt *clientcredentials.Attempt, key *jws.Key, header map[string]any, content assertion.Content, claims func(ctx context.Context) (map[string]any, error), omitClientID bool) error {
	content.Owner = "the ClientAuth"
	content.Issuer, content.Subject = attempt.ClientID, attempt.ClientID
	content.Audience = cmp.Or(content.Audience, attempt.Issuer, attempt.TokenURL)
	if claims != nil {
		var err error
		if content.Claims, err = claims(ctx); err != nil {
			return err
		}
	}
	signed, err := content.Sign(key, header)
	if err != nil {
		return err
	}
	setAssertion(attempt, TypeJWTBearer, signed, omitClientID)
	return nil
}

// setAssertion adds an assertion to attempt. RFC 7521, Section 4.2, doesn't require
// client_id, but some servers do.
func setAssertion(attempt *clientcredentials.Attempt, typ, assertion string, omitClientID bool) {
	if attempt.ClientID != "" && !omitClientID {
		attempt.Form.Set("client_id", attempt.ClientID)
	}
	attempt.Form.Set("client_assertion_type", typ)
	attempt.Form.Set("client_assertion", assertion)
}

// Assertion sends an assertion that comes from somewhere else, RFC 7521, Section 4.2,
// such as a Kubernetes service account token from a projected volume, or a SPIFFE
// JWT-SVID. The Config needs no ClientID if the assertion identifies the client.
//
// It is safe for concurrent use if Source is.
type Assertion struct {
	// Source returns the assertion. It is called for each attempt at a token: with
	// SecretFile, each attempt sends the newest assertion in the file. Required.
	Source SecretSource

	// Type is the client_assertion_type. Empty: TypeJWTBearer. For a SPIFFE
	// JWT-SVID, use TypeJWTSPIFFE or the type that the server accepts.
	Type string

	// OmitClientID leaves out client_id, as in PrivateKeyJWT. Without a ClientID in the
	// Config, there is none anyway.
	OmitClientID bool
}

// Method returns "private_key_jwt" for TypeJWTBearer, because that is the registered
// name for assertions by RFC 7523 that are signed with a private key. It returns
// "spiffe_jwt" for TypeJWTSPIFFE (draft-ietf-oauth-spiffe-client-auth, Section 4), and
// else Type.
func (a *Assertion) Method() string {
	switch a.Type {
	case "", TypeJWTBearer:
		return "private_key_jwt"
	case TypeJWTSPIFFE:
		return "spiffe_jwt"
	}
	return a.Type
}

// Authenticate sets client_assertion.
func (a *Assertion) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	if a.Source == nil {
		return errors.New("there is no assertion; set Source in the ClientAuth")
	}
	assertion, err := a.Source(ctx)
	if err != nil {
		return err
	}
	typ := cmp.Or(a.Type, TypeJWTBearer)
	switch typ {
	case TypeJWTBearer, TypeJWTSPIFFE:
		// The content of a wrong file must not be sent.
		if strings.Count(assertion, ".") < 2 || strings.Trim(assertion, jws.Characters) != "" {
			return errors.New("the assertion is not a JWT; check where Source gets it from")
		}
	default:
		if err := checkSecret(assertion); err != nil {
			return err
		}
	}
	setAssertion(attempt, typ, assertion, a.OmitClientID)
	attempt.CredentialID = fingerprint(assertion)
	return nil
}

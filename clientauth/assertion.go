package clientauth

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
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

// jwtCharacters are all that a JWT may contain, RFC 7515, Sections 2 and 3.1.
const jwtCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

// defaultLifetime is short, because an assertion is used at once. The server still
// accepts it if the clocks differ by less than that.
const defaultLifetime = time.Minute

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
	// If it is empty, and the Config comes from ServerMetadata.Config, the server's
	// metadata decides, too: the first algorithm of the key that it lists is used, and
	// it is an error if it lists none. An Algorithm that is set is used in any case.
	Algorithm string

	// KeyID is the kid in the assertion's header. It tells the server which public
	// key to use. Empty: the kid of the key if it is a JWK that has one, else none.
	KeyID string

	// Audience is the aud of the assertion, which names the server that it is for.
	// Empty: Issuer of the Config, as draft-ietf-oauth-rfc7523bis, Section 4,
	// requires. If that is empty too: TokenURL, which older servers expect.
	Audience string

	// Lifetime is the time from making the assertion to its exp, at least a second.
	// Zero: a minute.
	Lifetime time.Duration

	// Type is the typ in the assertion's header. Empty: "JWT".
	// draft-ietf-oauth-rfc7523bis, Section 4, requires "client-authentication+jwt".
	Type string
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
	header := map[string]any{}
	keyID := cmp.Or(a.KeyID, signing.KeyID)
	if keyID != "" {
		header["kid"] = keyID
	}
	if signing.Certificate != nil {
		header["x5t#S256"] = jws.Digest(signing.Certificate.Raw)
	}
	if err := assert(attempt, key, header, a.Type, a.Audience, a.Lifetime); err != nil {
		return err
	}
	attempt.CredentialID = strings.TrimSuffix(key.Thumbprint()+" "+keyID, " ")
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

	// Audience, Lifetime and Type are as in PrivateKeyJWT.
	Audience string
	Lifetime time.Duration
	Type     string
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
	return assert(attempt, key, map[string]any{}, a.Type, a.Audience, a.Lifetime)
}

// explainList adds what helps if the server's list of algorithms is wrong.
func explainList(err error) error {
	if errors.Is(err, jws.ErrNotListed) {
		return fmt.Errorf("%w, or set Algorithm in the ClientAuth if the list is wrong", err)
	}
	return err
}

// assert makes an assertion, signs it with key and adds it to attempt.
func assert(attempt *clientcredentials.Attempt, key *jws.Key, header map[string]any, typ, audience string, lifetime time.Duration) error {
	lifetime = cmp.Or(lifetime, defaultLifetime)
	if lifetime < time.Second {
		return errors.New("the Lifetime is less than a second; set it to zero for a minute")
	}
	header["typ"] = cmp.Or(typ, "JWT")
	now := time.Now()
	assertion, err := key.Sign(header, struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"` // Only one, so that no other server accepts it.
		IssuedAt int64  `json:"iat"` // Rounded down, so that it isn't in the future.
		Expiry   int64  `json:"exp"`
		ID       string `json:"jti"`
	}{
		Issuer:   attempt.ClientID,
		Subject:  attempt.ClientID,
		Audience: cmp.Or(audience, attempt.Issuer, attempt.TokenURL),
		IssuedAt: now.Unix(),
		Expiry:   now.Add(lifetime).Unix(),
		ID:       rand.Text(),
	})
	if err != nil {
		return err
	}
	setAssertion(attempt, TypeJWTBearer, assertion)
	return nil
}

// setAssertion adds an assertion to attempt. RFC 7521, Section 4.2, doesn't require
// client_id, but some servers do.
func setAssertion(attempt *clientcredentials.Attempt, typ, assertion string) {
	if attempt.ClientID != "" {
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
		if strings.Count(assertion, ".") < 2 || strings.Trim(assertion, jwtCharacters) != "" {
			return errors.New("the assertion is not a JWT; check where Source gets it from")
		}
	default:
		if err := checkSecret(assertion); err != nil {
			return err
		}
	}
	setAssertion(attempt, typ, assertion)
	attempt.CredentialID = fingerprint(assertion)
	return nil
}

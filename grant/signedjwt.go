package grant

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// defaultLifetime is short, because an assertion is used at once.
const defaultLifetime = time.Minute

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

	// Claims are further claims, such as scope. They can't be those that a SignedJWT sets by
	// itself: iss, sub, aud, exp, iat, jti.
	Claims map[string]any

	// Lifetime is the time from making an assertion to its exp, at least a second. Zero:
	// a minute.
	Lifetime time.Duration

	// Type is the typ in the header. Empty: "JWT".
	Type string
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
	lifetime := cmp.Or(a.Lifetime, defaultLifetime)
	switch {
	case a.Key == nil:
		return "", errors.New("there is no key; set Key in the SignedJWT")
	case a.Issuer == "":
		return "", errors.New("the Issuer of the SignedJWT is empty; set it")
	case a.Audience == "":
		return "", errors.New("the Audience of the SignedJWT is empty; set it")
	case lifetime < time.Second:
		return "", errors.New("the Lifetime is less than a second; set it to zero for a minute")
	}
	now := time.Now()
	claims := map[string]any{
		"iss": a.Issuer,
		"aud": a.Audience, // Only one, so that no other server accepts it.
		"iat": now.Unix(), // Rounded down, so that it isn't in the future.
		"jti": rand.Text(),
		"exp": now.Add(lifetime).Unix(),
	}
	for _, name := range slices.Sorted(maps.Keys(a.Claims)) {
		if _, reserved := claims[name]; reserved || name == "sub" {
			return "", fmt.Errorf("the Claims of the SignedJWT contain %s, which it sets by itself; remove it there", name)
		}
	}
	maps.Copy(claims, a.Claims)
	if a.Subject != "" {
		claims["sub"] = a.Subject
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
	header := map[string]any{"typ": cmp.Or(a.Type, "JWT")}
	keyID := cmp.Or(a.KeyID, signing.KeyID)
	if keyID != "" {
		header["kid"] = keyID
	}
	if signing.Certificate != nil {
		header["x5t#S256"] = jws.Digest(signing.Certificate.Raw)
	}
	if signer, ok := ctx.Value(signerKey{}).(*atomic.Pointer[string]); ok {
		id := strings.TrimSuffix(key.Thumbprint()+" "+keyID, " ")
		signer.Store(&id)
	}
	return key.Sign(header, claims)
}

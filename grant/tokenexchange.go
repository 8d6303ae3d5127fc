package grant

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// TypeTokenExchange is the grant_type of RFC 8693, Section 2.1.
const TypeTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange" //nolint:gosec // A name, not a credential.

// The types of tokens, RFC 8693, Section 3.
//
//nolint:gosec // Names, not credentials.
const (
	TypeAccessToken  = "urn:ietf:params:oauth:token-type:access_token"
	TypeRefreshToken = "urn:ietf:params:oauth:token-type:refresh_token"
	TypeIDToken      = "urn:ietf:params:oauth:token-type:id_token"
	TypeSAML1        = "urn:ietf:params:oauth:token-type:saml1"
	TypeSAML2        = "urn:ietf:params:oauth:token-type:saml2"
	TypeJWT          = "urn:ietf:params:oauth:token-type:jwt"
)

// TokenExchange is the grant of RFC 8693: the client sends a token, and gets another one for
// the same subject. What the new token is for, say Scopes and EndpointParams of the Config, or
// a Target, with their resource and audience.
//
// Replicas share a token only if they have the very same subject token and actor token. Two
// subject tokens of one subject may have different rights, and nobody has verified them: a
// replica mustn't get what the server has given for a better one. So a token is requested
// anew when the next flight finds another subject token.
//
// The server may issue a token that isn't an access token (token_type N_A). APIs don't accept
// it, and so Client and Transport don't send it. The AccessToken method of the Source returns
// it, for another grant.
//
// It is safe for concurrent use if Subject and Actor are.
type TokenExchange struct {
	// Subject returns the token of the party that the new token is for. It is called for
	// each attempt at a token. Required.
	Subject clientauth.SecretSource

	// SubjectTokenType says what that token is. Empty: TypeAccessToken.
	SubjectTokenType string

	// Actor returns a token of the party that acts for the subject. Nil: none.
	Actor clientauth.SecretSource

	// ActorTokenType says what that token is. Empty: TypeAccessToken.
	ActorTokenType string

	// RequestedTokenType is what to issue, such as TypeAccessToken or TypeJWT. Empty: the
	// server chooses.
	RequestedTokenType string
}

// Type returns TypeTokenExchange.
func (*TokenExchange) Type() string { return TypeTokenExchange }

// Authorize adds the tokens to exchange. It is an error if one of them is empty, has expired,
// or isn't a JWT although its type says so.
func (g *TokenExchange) Authorize(ctx context.Context, attempt *clientcredentials.Attempt) (subject string, err error) {
	if g.Subject == nil {
		return "", errors.New("there is no subject token; set Subject in the Grant")
	}
	if g.Actor == nil && g.ActorTokenType != "" {
		return "", errors.New("ActorTokenType is set, but Actor is not; set Actor in the Grant, or remove ActorTokenType")
	}
	name, identity, err := add(ctx, attempt, "subject_token", "Subject", g.Subject, g.SubjectTokenType)
	if err != nil {
		return "", err
	}
	if g.Actor != nil {
		actor, digest, err := add(ctx, attempt, "actor_token", "Actor", g.Actor, g.ActorTokenType)
		if err != nil {
			return "", err
		}
		name += " with " + actor
		identity = append(identity, digest...)
	}
	attempt.CredentialID = jws.Digest(identity)
	attempt.GrantName = name
	if g.RequestedTokenType != "" {
		attempt.Form.Set("requested_token_type", g.RequestedTokenType)
		identity = jws.AppendText(identity, g.RequestedTokenType)
	}
	return jws.Digest(jws.AppendText(identity, "")), nil // Not what identifies the credential.
}

// add adds a token to attempt, as that parameter. It returns what errors call the token, and
// bytes that are those of no other token.
func add(ctx context.Context, attempt *clientcredentials.Attempt, parameter, field string, source clientauth.SecretSource, tokenType string) (name string, identity []byte, err error) {
	tokenType = cmp.Or(tokenType, TypeAccessToken)
	token, err := source(ctx)
	if err != nil {
		return "", nil, err
	}
	t, err := read(strings.ReplaceAll(parameter, "_", " "), field, token)
	if err != nil {
		return "", nil, err
	}
	if t.opaque != nil && (tokenType == TypeJWT || tokenType == TypeIDToken) && !isEncrypted(token) {
		return "", nil, t.opaque
	}
	attempt.Form.Set(parameter, token)
	attempt.Form.Set(parameter+"_type", tokenType)
	return t.name, jws.AppendText(jws.AppendText(jws.AppendText(nil, parameter), tokenType), token), nil
}

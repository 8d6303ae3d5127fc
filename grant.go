package clientcredentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// A Grant is what a client asks for a token with, if not as itself: an authorization grant of
// RFC 6749, Section 1.3, that needs no user, such as an assertion. Package grant has those of
// RFC 7523 and RFC 8693; set one in Config.Grant.
//
// A Grant must be safe for concurrent use.
type Grant interface {
	// Type returns the grant_type, such as urn:ietf:params:oauth:grant-type:jwt-bearer.
	Type() string

	// Authorize adds the grant's parameters to attempt.Form. It may set no parameter that is
	// there already, such as scope. It is called for each attempt at a token, before
	// the ClientAuth, so that no assertion is sent twice. With a Store it is also called
	// before the store is asked, and what it adds then isn't sent.
	//
	// It returns a text that says whose token it will be. Replicas share a token through
	// Config.Store only if their subjects are the same, so everything that decides which
	// token the server issues must be part of it. An empty subject is an error.
	//
	// Authorize must obey ctx. Its errors must not contain a secret, because callers get to
	// see them. After an error nothing is sent, and the attempt isn't repeated. IsTemporary
	// is true of the error that callers get if it is true of this one.
	//
	// If attempt.CredentialID is set, it identifies the assertion. If the server answers
	// invalid_grant or invalid_request, Authorize is called again. If it then sets another
	// CredentialID, the request is repeated at once.
	Authorize(ctx context.Context, attempt *Attempt) (subject string, err error)
}

// granting is what a token request knows of its Grant. The zero value: there is none, or it
// hasn't been asked yet.
type granting struct {
	grantType, subject string
	requested          string // requested_token_type, RFC 8693, Section 2.1
}

// isExchange reports whether the grant is the token exchange of RFC 8693.
func (g granting) isExchange() bool {
	return g.grantType == "urn:ietf:params:oauth:grant-type:token-exchange"
}

// identifySubject finds out whose token the Grant asks for, if there is one.
func (r *tokenRequest) identifySubject(ctx context.Context) error {
	if r.conf.Grant == nil {
		return nil
	}
	ctx, cancel := timeout(ctx, r.conf.Retry.AttemptTimeout, "the grant")
	defer cancel()
	return r.authorize(ctx, r.newAttempt())
}

// authorize adds the Grant's parameters to attempt, and notes whose token it asks for.
func (r *tokenRequest) authorize(ctx context.Context, attempt *Attempt) error {
	grant := r.conf.Grant
	grantType := grant.Type()
	fail := func(err error) error { return &grantError{&authError{cmp.Or(grantType, "the Grant"), err}} }
	if grantType == "" {
		return fail(errors.New("its Type is empty; return a grant_type"))
	}
	attempt.Form.Set("grant_type", grantType)
	before := cloneValues(attempt.Form)
	subject, err := grant.Authorize(ctx, attempt)
	switch {
	case err != nil:
		return fail(err)
	case subject == "":
		// All subjects would share one token in the store.
		return fail(errors.New("it doesn't say whose token it asks for; return a subject from Authorize"))
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if !slices.Equal(before[name], attempt.Form[name]) {
			return fail(fmt.Errorf("it sets the parameter %s, which the Config or the Target sets too; remove it there", redact.Quote(name, maxErrorText)))
		}
	}
	r.granting = granting{grantType, subject, attempt.Form.Get("requested_token_type")}
	return nil
}

// A grantError is the error for a Grant that failed, before anything was sent.
type grantError struct{ *authError }

// Unwrap returns the *authError that it is, too.
func (e *grantError) Unwrap() error { return e.authError }

// grantHint returns what the error for a refusal adds if the server has refused what the
// Grant has sent; empty: it hasn't.
func (r *tokenRequest) grantHint(refusal *oauth2.RetrieveError, attempt *Attempt, mask *redact.Masker) string {
	if r.conf.Grant == nil || refusal.ErrorCode != "invalid_grant" {
		return ""
	}
	name := redact.Clip(redact.Neutralise(mask.Mask(attempt.GrantName, maxErrorText)), maxErrorText)
	if name == "" {
		name = "the grant"
	}
	return fmt.Sprintf("oauth2: the server has refused %s; check that it knows the issuer and the subject, and what audience and life it demands", name)
}

// checkResponse reports why the token in a response can't be used.
func (r *tokenRequest) checkResponse(parsed *tokenresponse.Response) error {
	strict := r.conf.Strict
	if r.granting.isExchange() {
		if strict {
			if err := parsed.CheckExchange(r.granting.requested); err != nil {
				return err
			}
		}
		strict = strict && parsed.IsAccessToken()
	}
	return parsed.Check(strict, r.conf.DPoP != nil)
}

// isForeign reports whether the token that a response brings isn't an access token, but one
// to be exchanged for one: RFC 8693, Section 2.2.1.
func (r *tokenRequest) isForeign(parsed *tokenresponse.Response) bool {
	return r.granting.isExchange() && !parsed.IsAccessToken()
}

// errNotAccessToken is the error for an API request with a token that isn't an access token.
const errNotAccessToken = constantError("oauth2: the server has issued a token that is not an access token (token_type N_A, RFC 8693, Section 2.2.1), so no API accepts it; use Source.AccessToken to pass it on, for example as the assertion of a grant.JWTBearer")

// credentialIDs identify what an attempt has proved itself with: Attempt.CredentialID of the
// ClientAuth and of the Grant.
type credentialIDs struct{ client, grant string }

// blamed returns those credentials of the last attempt that the server may have refused with
// err.
func (r *tokenRequest) blamed(err error) (ids credentialIDs) {
	if mayRefuseCredential(err) {
		ids.client = r.attempts.credentials.client
	}
	// RFC 8693, Section 2.2.2, has invalid_request where others have invalid_grant.
	if refusal := refusalOf(err); refusal != nil && (refusal.ErrorCode == "invalid_grant" || refusal.ErrorCode == "invalid_request") {
		ids.grant = r.attempts.credentials.grant
	}
	return ids
}

// repeats reports whether sent has nothing new in place of what was refused.
func (refused credentialIDs) repeats(sent credentialIDs) bool {
	return refused != (credentialIDs{}) &&
		(refused.client == "" || refused.client == sent.client) &&
		(refused.grant == "" || refused.grant == sent.grant)
}

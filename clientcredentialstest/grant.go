package clientcredentialstest

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// The grants besides client credentials, and the types of tokens that can be exchanged: RFC
// 7523, Section 2.1, and RFC 8693, Sections 2.1 and 3.
//
//nolint:gosec // Names, not credentials.
const (
	jwtBearerGrant  = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	exchangeGrant   = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token"
	idTokenType     = "urn:ietf:params:oauth:token-type:id_token"
	jwtType         = "urn:ietf:params:oauth:token-type:jwt"
)

// TrustedIssuer is an issuer of assertions (RFC 7523) and of tokens to exchange (RFC 8693)
// that an [AuthorizationServer] trusts.
type TrustedIssuer struct {
	// Issuer is the iss of its JWTs.
	Issuer string

	// PublicKeys verify them, as in [Client].
	PublicKeys []crypto.PublicKey

	// Subjects are the values of sub that it may speak for. nil: any, and none.
	Subjects []string
}

// owner is whom a token is issued for, if not for the client itself.
type owner struct {
	subject, actor string
	scope          string // that an assertion asks for
	issues         string // the type of the token to issue, in a token exchange
}

// needsNoClient reports whether a request may lack client authentication (RFC 7521, Section
// 4.1; RFC 8693, Section 2.1) and does.
func needsNoClient(form url.Values, r *http.Request) bool {
	switch form.Get("grant_type") {
	case jwtBearerGrant, exchangeGrant:
		return form.Get("client_id") == "" && form.Get("client_secret") == "" && form.Get("client_assertion") == "" && len(r.Header.Values("Authorization")) == 0
	}
	return false
}

// ownerLocked returns whom the token is for, by the grant of the request.
func (s *AuthorizationServer) ownerLocked(form url.Values, r *http.Request) (owner, *refusal) {
	switch form.Get("grant_type") {
	case "client_credentials":
		return owner{}, nil
	case jwtBearerGrant:
		return s.bearerLocked(form, r)
	case exchangeGrant:
		return s.exchangeLocked(form)
	case "":
		return owner{}, violation("RFC 6749, Section 4.4.2", "grant_type is missing")
	}
	return owner{}, violation("RFC 6749, Section 4.4.2", "this grant_type is not supported").as("unsupported_grant_type")
}

// bearerLocked returns the owner that an assertion names: RFC 7523, Sections 2.1 and 3.
func (s *AuthorizationServer) bearerLocked(form url.Values, r *http.Request) (owner, *refusal) {
	const rule = "RFC 7523, Section 3"
	text := form.Get("assertion")
	if text == "" {
		return owner{}, violation("RFC 7523, Section 2.1", "assertion is missing")
	}
	a, ok := parseAssertion(text)
	if !ok {
		return owner{}, violation(rule, "the assertion is not a JWT").as("invalid_grant")
	}
	if !s.trustsLocked(a) {
		return owner{}, &refusal{code: "invalid_grant", text: "the assertion is not from a trusted issuer, or not for a subject of it"}
	}
	now := time.Now()
	fault := cmp.Or(s.audienceFault(a, r), a.faultAt(now))
	if fault == "" && a.claims.ID != "" && !s.assertions.add("grant "+a.claims.Issuer+" "+a.claims.ID, now, now.Add(maxAssertionLife)) {
		fault = "the assertion has been used before"
	}
	if fault != "" {
		return owner{}, violation(rule, fault).as("invalid_grant")
	}
	return owner{subject: a.subject(), scope: a.claims.Scope}, nil
}

// exchangeLocked returns the owner of a token that is to be exchanged: RFC 8693, Section 2.1.
func (s *AuthorizationServer) exchangeLocked(form url.Values) (o owner, refused *refusal) {
	const rule = "RFC 8693, Section 2.1"
	switch {
	case form.Get("subject_token") == "":
		return o, violation(rule, "subject_token is missing")
	case form.Get("subject_token_type") == "":
		return o, violation(rule, "subject_token_type is missing")
	case form.Get("actor_token") != "" && form.Get("actor_token_type") == "":
		return o, violation(rule, "actor_token_type is missing")
	case form.Get("actor_token") == "" && form.Get("actor_token_type") != "":
		return o, violation(rule, "there is an actor_token_type without an actor_token")
	}
	var ok bool
	if o.subject, ok = s.exchangeableLocked(form.Get("subject_token"), form.Get("subject_token_type")); !ok {
		return o, &refusal{code: "invalid_request", text: "the subject_token is not accepted"} // Section 2.2.2.
	}
	if actor := form.Get("actor_token"); actor != "" {
		if o.actor, ok = s.exchangeableLocked(actor, form.Get("actor_token_type")); !ok {
			return o, &refusal{code: "invalid_request", text: "the actor_token is not accepted"}
		}
	}
	switch o.issues = form.Get("requested_token_type"); o.issues {
	case "":
		o.issues = accessTokenType
	case accessTokenType:
	case jwtType:
		if s.SigningKey == nil || s.Issuer == "" {
			return o, &refusal{code: "invalid_request", text: "this server issues no JWTs: it has no SigningKey, or no Issuer"}
		}
	default:
		return o, &refusal{code: "invalid_request", text: "this requested_token_type is not supported"}
	}
	return o, nil
}

// exchangeableLocked returns whose token that is: one that this server has issued, or a JWT of
// a trusted issuer.
func (s *AuthorizationServer) exchangeableLocked(text, tokenType string) (subject string, ok bool) {
	now := time.Now()
	if t, known := s.tokens[text]; known && tokenType == accessTokenType {
		subject = t.Subject
		if subject == "" {
			subject = t.ClientID
		}
		return subject, !t.expired(now)
	}
	switch tokenType {
	case accessTokenType, idTokenType, jwtType:
		a, isJWT := parseAssertion(text)
		if isJWT && s.trustsLocked(a) && a.faultAt(now) == "" {
			return a.subject(), true
		}
	}
	return "", false
}

// subject returns the sub of an assertion, or its iss if it has none.
func (a *assertion) subject() string {
	if a.claims.Subject == "" {
		return a.claims.Issuer
	}
	return a.claims.Subject
}

// trustsLocked reports whether a trusted issuer has signed a, for one of its subjects.
func (s *AuthorizationServer) trustsLocked(a *assertion) bool {
	return slices.ContainsFunc(s.TrustedIssuers, func(i TrustedIssuer) bool {
		return i.Issuer == a.claims.Issuer && slices.ContainsFunc(i.PublicKeys, a.isSignedBy) &&
			(i.Subjects == nil || slices.Contains(i.Subjects, a.claims.Subject))
	})
}

// signJWT returns the JWT that a token exchange has asked for.
func (s *AuthorizationServer) signJWT(t Token) string {
	claims := map[string]any{"iss": s.Issuer, "sub": t.Subject, "aud": t.Audience, "iat": t.IssuedAt.Unix(), "jti": rand.Text()}
	if !t.Expiry.IsZero() {
		claims["exp"] = t.Expiry.Unix()
	}
	if t.Actor != "" {
		claims["act"] = map[string]string{"sub": t.Actor} // RFC 8693, Section 4.1.
	}
	part := base64.RawURLEncoding.EncodeToString
	signed := part([]byte(`{"alg":"EdDSA","typ":"JWT"}`)) + "." + part(encode(claims))
	return signed + "." + part(ed25519.Sign(s.SigningKey, []byte(signed)))
}

package clientcredentials

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"

	"golang.org/x/oauth2"
)

// A ClientAuth authenticates a client to the token endpoint, RFC 6749, Section 2.3.
// Package clientauth has one for each method in use; set it in Config.ClientAuth.
//
// A ClientAuth must be safe for concurrent use.
type ClientAuth interface {
	// Method returns the method's name in the IANA registry "OAuth Token
	// Endpoint Authentication Methods", such as private_key_jwt.
	Method() string

	// Authenticate adds the client's credentials to one attempt at a token. It is
	// called for each attempt anew, so that no assertion is sent twice and what
	// has been rotated is used at once. It must obey ctx, and its errors must
	// contain no secret: callers get to see them. After an error nothing is sent,
	// and it isn't tried again by itself.
	Authenticate(ctx context.Context, attempt *Attempt) error
}

// A CertificateAuth is a ClientAuth whose method, such as tls_client_auth (RFC
// 8705, Section 2), uses a certificate in the TLS handshake with the token
// endpoint. Tokens may be bound to it (Section 3), so that Client and Transport
// present it to the API too, wherever they send the token, and a token is dropped
// when the certificate is replaced (Section 6.3).
//
// That needs an *http.Transport without a DialTLSContext: another RoundTripper is
// used as it is, and has to present the certificate by itself.
type CertificateAuth interface {
	ClientAuth

	// Certificate returns the client's certificate and key. It is called with
	// each token request and each use of a token, and so must be quick as long
	// as nothing has changed.
	Certificate(ctx context.Context) (*tls.Certificate, error)
}

// An Attempt is one attempt at a token, to which a ClientAuth adds credentials. It
// is the ClientAuth's alone while Authenticate runs, and not to be kept.
type Attempt struct {
	// Of the Config. To change them has no effect.
	TokenURL, Issuer, ClientID, ClientSecret string

	// Header and Form are what will be sent, for Authenticate to add to. In Form,
	// client_id is not set yet.
	Header http.Header
	Form   url.Values

	// Credential may be set to what tells one credential from another without
	// being secret, such as the thumbprint of a key. When the server answers
	// invalid_client, and Authenticate, called again, sets another Credential,
	// the request is repeated at once, with that. Empty: it isn't.
	CredentialID string
}

// String returns a description of a without anything secret.
func (a Attempt) String() string {
	return fmt.Sprintf("clientcredentials.Attempt{TokenURL: %q, ClientID: %q}", printableURL(a.TokenURL), a.ClientID)
}

// Format prints what String returns, whatever the verb.
func (a Attempt) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// MarshalText returns what String does, for encodings.
func (a Attempt) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// LogValue returns what String does, for log/slog.
func (a Attempt) LogValue() slog.Value { return slog.StringValue(a.String()) }

// errSameCredential ends an attempt that would repeat what has been refused.
var errSameCredential = errors.New("oauth2: the credential is the one that has been refused")

// An authError is the error for a failure to authenticate before anything is sent.
type authError struct {
	method string
	err    error
}

func (e *authError) Error() string {
	return fmt.Sprintf("oauth2: cannot fetch token: %s: %v", e.method, e.err)
}

func (e *authError) Unwrap() error { return e.err }

// checkClientAuth reports what doesn't go together with c.ClientAuth.
func (c *Config) checkClientAuth() error {
	if c.ClientAuth == nil {
		return nil
	}
	// RFC 6749, Section 2.3: one method in a request.
	for _, name := range []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"} {
		if c.EndpointParams.Has(name) {
			return fmt.Errorf("oauth2: EndpointParams contains %s, which is for ClientAuth to set; remove it there", name)
		}
	}
	return nil
}

// authenticated returns an attempt with the client's credentials, in that style
// if there is no ClientAuth.
func (r *tokenRequest) authenticated(ctx context.Context, style oauth2.AuthStyle) (*Attempt, error) {
	attempt := &Attempt{
		TokenURL:     r.url,
		Issuer:       r.issuer,
		ClientID:     r.clientID,
		ClientSecret: r.clientSecret,
		Header:       http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		Form:         cloneValues(r.form),
	}
	if r.clientAuth == nil {
		r.authenticate(style, attempt.Header, attempt.Form)
		return attempt, nil
	}
	if err := r.clientAuth.Authenticate(ctx, attempt); err != nil {
		return nil, &authError{r.clientAuth.Method(), err}
	}
	return attempt, nil
}

// sameInterface reports whether a and b are the same, as far as can be told: some
// can't be compared.
func sameInterface(a, b any) bool {
	if reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	return a == nil || !reflect.ValueOf(a).Comparable() || a == b
}

// isInvalidClient reports whether err is an answer that refuses the client's
// credentials, RFC 6749, Section 5.2.
func isInvalidClient(err error) bool {
	var refusal *oauth2.RetrieveError
	return errors.As(err, &refusal) &&
		(refusal.ErrorCode == "invalid_client" || refusal.Response.StatusCode == http.StatusUnauthorized)
}

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
	"slices"
	"strings"

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
	// called for each attempt, so that no assertion is sent twice and rotated
	// credentials are used at once. It must obey ctx. Its errors must not contain a
	// secret, because callers get to see them. After an error nothing is sent, and the
	// attempt isn't repeated.
	Authenticate(ctx context.Context, attempt *Attempt) error
}

// A CertificateAuth is a ClientAuth whose method, such as tls_client_auth (RFC
// 8705, Section 2), uses a certificate in the TLS handshake with the token
// endpoint. Tokens may be bound to the certificate (Section 3). Therefore Client and
// Transport present it to the API too, wherever they send the token, and drop the token
// when the certificate is replaced (Section 6.3).
//
// This works with an *http.Transport. One that has a DialTLSContext is an error, because
// its connections wouldn't present the certificate. Any other RoundTripper is used as it
// is, and has to present the certificate by itself. If the transport uses an https proxy
// that asks for a client certificate, the proxy is shown this one too: net/http has one
// TLS configuration for both.
type CertificateAuth interface {
	ClientAuth

	// Certificate returns the client's certificate and key. It is called for
	// each token request and each use of a token, so it must be quick as long
	// as nothing has changed.
	Certificate(ctx context.Context) (*tls.Certificate, error)
}

// A ClientIdentifier is a ClientAuth that knows who the client is, because the client
// identifier is rotated together with the credential. It takes the place of
// Config.ClientID. Its Authenticate sets Attempt.ClientID to the identifier that goes
// with the credentials that it adds. WithCredentials of package clientauth makes one.
type ClientIdentifier interface {
	ClientAuth

	// ClientID returns the client identifier, which is never empty. It is called before a
	// token is looked for in Config.Store, as replicas share the tokens of one client. It
	// must be quick as long as nothing has changed.
	ClientID(ctx context.Context) (string, error)
}

// An Attempt is one attempt at a token, to which a ClientAuth adds credentials. While
// Authenticate runs, nobody else uses it. Authenticate must not keep it. A Grant gets the same
// Attempt before, and what is said here of Authenticate holds for its Authorize.
type Attempt struct {
	// These are copied from the Config. Changing them has no effect, except that a
	// ClientIdentifier sets ClientID.
	TokenURL, Issuer, ClientID, ClientSecret string

	// SigningAlgorithms are those that the server's metadata lists for assertions
	// (token_endpoint_auth_signing_alg_values_supported, RFC 8414, Section 2), if the
	// Config comes from a ServerMetadata. Empty: unknown.
	SigningAlgorithms []string

	// Header and Form will be sent, and Authenticate adds to them. Form doesn't contain
	// client_id yet.
	Header http.Header
	Form   url.Values

	// GrantName may be set by a Grant to what it has sent, in words for people, such as
	// the assertion of subject "reports". If the server answers invalid_grant, the error
	// says so. It must not be secret.
	GrantName string

	// CredentialID may be set to a text that identifies the credential without
	// being secret, such as the thumbprint of a key. If the server answers
	// invalid_client or invalid_request, Authenticate is called again. If it then sets
	// another CredentialID, the request is repeated at once with the new credential.
	// Empty: a refused request isn't repeated.
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

// errSameCredential ends an attempt that would repeat a credential that was refused.
const errSameCredential = constantError("oauth2: the credential is the one that has been refused")

// An authError is the error for a failure to authenticate, before anything is sent.
type authError struct {
	method string
	err    error
}

func (e *authError) Error() string {
	const prefix = "oauth2: cannot fetch token: "
	return prefix + e.method + ": " + strings.TrimPrefix(e.err.Error(), prefix)
}

func (e *authError) Unwrap() error { return e.err }

// checkClientAuth reports what doesn't go together with c.ClientAuth.
func (c *Config) checkClientAuth() error {
	// RFC 6749, Section 2.3: one method in a request.
	for _, name := range []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"} {
		if c.EndpointParams.Has(name) {
			return fmt.Errorf("oauth2: EndpointParams contains %s, which is for ClientAuth to set; remove it there", name)
		}
	}
	return nil
}

// authenticate returns an attempt with the client's credentials: those of the ClientAuth, or
// id and secret in the given style.
func (r *tokenRequest) authenticate(ctx context.Context, style oauth2.AuthStyle) (*Attempt, error) {
	attempt := r.newAttempt()
	if r.conf.Grant != nil {
		if err := r.authorize(ctx, attempt); err != nil {
			return nil, err
		}
		r.attempts.credentials.grant, attempt.CredentialID = attempt.CredentialID, ""
	}
	if r.conf.ClientAuth == nil {
		r.addSecret(style, attempt.Header, attempt.Form)
		return attempt, nil
	}
	if err := r.conf.ClientAuth.Authenticate(ctx, attempt); err != nil {
		return nil, &authError{r.conf.ClientAuth.Method(), err}
	}
	if identifies(r.conf.ClientAuth) {
		r.clientID = attempt.ClientID // It may have been replaced since identifyClient.
	}
	return attempt, nil
}

// identifies reports whether auth, which may be nil, knows who the client is.
func identifies(auth ClientAuth) bool {
	_, ok := auth.(ClientIdentifier)
	return ok
}

// identifyClient finds out who the client is, if the ClientAuth knows that.
func (r *tokenRequest) identifyClient(ctx context.Context) error {
	auth, ok := r.conf.ClientAuth.(ClientIdentifier)
	if !ok {
		return nil
	}
	id, err := auth.ClientID(ctx)
	if err == nil && id == "" {
		err = errors.New("the client identifier is empty")
	}
	if err != nil {
		return &authError{auth.Method(), err}
	}
	r.clientID = id
	return nil
}

// newAttempt returns an attempt without a grant and without credentials.
func (r *tokenRequest) newAttempt() *Attempt {
	return &Attempt{
		TokenURL:          r.conf.TokenURL,
		Issuer:            r.conf.Issuer,
		ClientID:          r.clientID,
		ClientSecret:      r.conf.ClientSecret,
		SigningAlgorithms: slices.Clone(r.conf.listed.assertion),
		Header:            http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		Form:              r.form(),
	}
}

// mayRefuseCredential reports whether err is an answer that may refuse the client's
// credential (RFC 6749, Section 5.2). Some servers, such as Ory Hydra, answer
// invalid_request to an assertion whose key they don't know.
func mayRefuseCredential(err error) bool {
	refusal := refusalOf(err)
	return refusal != nil && (refusal.ErrorCode == "invalid_client" ||
		refusal.ErrorCode == "invalid_request" || refusal.Response.StatusCode == http.StatusUnauthorized)
}

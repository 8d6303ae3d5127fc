package clientcredentialstest

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" //nolint:gosec // A name, not a credential.

// An Assertion is what a client has signed to authenticate, as [json.Unmarshal] decodes it:
// numbers are float64.
type Assertion struct {
	Header map[string]any // RFC 7515, Section 4
	Claims map[string]any // RFC 7519, Section 4, and RFC 7523, Section 3
}

// readAssertion returns what is in a JWT, or nil if text isn't one.
func readAssertion(text string) *Assertion {
	var a Assertion
	parsed, ok := parseJWT(text, &a.Claims)
	if !ok {
		return nil
	}
	a.Header = parsed.header
	return &a
}

// An assertion is a JWT by which a client authenticates (RFC 7523, Section 3).
type assertion struct {
	*jwt
	claims struct {
		Issuer    string          `json:"iss"`
		Subject   string          `json:"sub"`
		Audience  json.RawMessage `json:"aud"`
		Expiry    *float64        `json:"exp"`
		IssuedAt  float64         `json:"iat"`
		NotBefore float64         `json:"nbf"`
		ID        string          `json:"jti"`
		Scope     string          `json:"scope"`
	}
}

func parseAssertion(text string) (a *assertion, ok bool) {
	a = new(assertion)
	a.jwt, ok = parseJWT(text, &a.claims)
	return a, ok
}

// method returns the authentication method that the assertion belongs to.
func (a *assertion) method() string {
	if strings.HasPrefix(a.algorithm(), "HS") {
		return "client_secret_jwt"
	}
	return "private_key_jwt"
}

// isFrom reports whether the client has signed the assertion.
func (a *assertion) isFrom(c *Client) bool {
	if a.method() == "private_key_jwt" {
		return slices.ContainsFunc(c.PublicKeys, a.isSignedBy)
	}
	hash, ok := a.hash()
	if !ok || len(c.Secret) < hash.Size() { // RFC 7518, Section 3.2; with less, crypto/hmac may panic in FIPS 140-3 mode
		return false
	}
	mac := hmac.New(hash.New, []byte(c.Secret))
	mac.Write([]byte(a.signed))
	return hmac.Equal(mac.Sum(nil), a.signature)
}

// authenticateByAssertionLocked completes req and returns the client that signed
// its assertion.
func (s *AuthorizationServer) authenticateByAssertionLocked(req *Request, r *http.Request) (*Client, *refusal) {
	a, ok := parseAssertion(req.Form.Get("client_assertion"))
	if !ok {
		return nil, unknownClient
	}
	switch req.Form.Get("client_assertion_type") {
	case jwtBearer:
	case "":
		return nil, violation("RFC 7521, Section 4.2", "client_assertion_type is missing")
	default:
		return nil, unknownClient
	}
	req.AuthMethod = a.method()
	id := a.claims.Subject
	if other := req.Form.Get("client_id"); other != "" && other != id {
		return nil, violation("RFC 7521, Section 4.2", "client_id is not the subject of the assertion")
	}
	req.ClientID = id
	for _, c := range s.Clients {
		if c.ID == id && (c.AuthMethods == nil || slices.Contains(c.AuthMethods, req.AuthMethod)) && a.isFrom(&c) {
			if fault := s.faultLocked(a, r); fault != "" {
				return nil, violation("RFC 7523, Section 3", fault).as("invalid_client")
			}
			return &c, nil
		}
	}
	return nil, unknownClient
}

// faultLocked returns what is wrong with the claims of an assertion (RFC 7523,
// Section 3), or "". An assertion without a fault can't be used again.
func (s *AuthorizationServer) faultLocked(a *assertion, r *http.Request) string {
	now := time.Now()
	if a.claims.Issuer != a.claims.Subject {
		return "iss and sub differ"
	}
	if fault := cmp.Or(s.audienceFault(a, r), a.faultAt(now)); fault != "" {
		return fault
	}
	if a.claims.ID == "" {
		return "jti is missing"
	}
	if !s.assertions.add(a.claims.Subject+" "+a.claims.ID, now, now.Add(maxAssertionLife)) {
		return "the assertion has been used before"
	}
	return ""
}

// maxAssertionLife is longer than what platforms issue, which is a day at most.
const maxAssertionLife = 48 * time.Hour

// faultAt returns what is wrong with the times in an assertion, or "".
func (a *assertion) faultAt(now time.Time) string {
	seconds := float64(now.UnixNano()) / 1e9
	switch {
	case a.claims.Expiry == nil:
		return "exp is missing"
	case *a.claims.Expiry <= seconds:
		return "the assertion has expired"
	case *a.claims.Expiry > seconds+float64(maxAssertionLife/time.Second):
		return "exp is more than two days away"
	case a.claims.IssuedAt > seconds:
		return "iat is in the future"
	case a.claims.NotBefore > seconds:
		return "nbf is in the future"
	}
	return ""
}

// audienceFault returns what is wrong with the aud of an assertion, which is a string or a list
// of strings (RFC 7519, Section 4.1.3), or "".
func (s *AuthorizationServer) audienceFault(a *assertion, r *http.Request) string {
	audiences := make([]string, 1)
	if json.Unmarshal(a.claims.Audience, &audiences[0]) != nil && json.Unmarshal(a.claims.Audience, &audiences) != nil {
		return "aud is neither a string nor a list of strings"
	}
	if !slices.ContainsFunc(audiences, func(audience string) bool { return s.isAudience(audience, r) }) {
		return "aud is not this server"
	}
	return ""
}

// isAudience reports whether audience is this server.
func (s *AuthorizationServer) isAudience(audience string, r *http.Request) bool {
	if s.Issuer != "" {
		return audience == s.Issuer
	}
	endpoint := "://" + r.Host + r.URL.Path
	// In memory, a request for https looks like one for http.
	return audience == "https"+endpoint || r.TLS == nil && audience == "http"+endpoint
}

// authenticateByCertificateLocked completes req and returns the client that the
// certificate of the connection belongs to (RFC 8705, Section 2), or nil.
func (s *AuthorizationServer) authenticateByCertificateLocked(req *Request) *Client {
	if req.Certificate == nil {
		return nil
	}
	method := "tls_client_auth"
	if bytes.Equal(req.Certificate.RawIssuer, req.Certificate.RawSubject) {
		method = "self_signed_tls_client_auth"
	}
	for _, c := range s.Clients {
		if c.ID == req.ClientID && (c.AuthMethods == nil || slices.Contains(c.AuthMethods, method)) &&
			slices.ContainsFunc(c.Certificates, func(known *x509.Certificate) bool { return known.Equal(req.Certificate) }) {
			req.AuthMethod = method
			return &c
		}
	}
	return nil
}

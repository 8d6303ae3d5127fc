package clientcredentialstest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"
)

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" //nolint:gosec // A name, not a credential.

// An assertion is a client's JWT, RFC 7523, Section 3.
type assertion struct {
	algorithm string
	signed    string
	signature []byte
	claims    struct {
		Issuer    string          `json:"iss"`
		Subject   string          `json:"sub"`
		Audience  json.RawMessage `json:"aud"`
		Expiry    *float64        `json:"exp"`
		IssuedAt  float64         `json:"iat"`
		NotBefore float64         `json:"nbf"`
		ID        string          `json:"jti"`
	}
}

func parseAssertion(text string) (*assertion, bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, false
	}
	a := &assertion{signed: parts[0] + "." + parts[1]}
	header, headerErr := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	claims, claimsErr := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	signature, signatureErr := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	var protected struct {
		Algorithm string `json:"alg"`
	}
	if headerErr != nil || claimsErr != nil || signatureErr != nil ||
		json.Unmarshal(header, &protected) != nil || json.Unmarshal(claims, &a.claims) != nil {
		return nil, false
	}
	a.algorithm, a.signature = protected.Algorithm, signature
	return a, true
}

// method returns how a client with such an assertion authenticates.
func (a *assertion) method() string {
	if strings.HasPrefix(a.algorithm, "HS") {
		return "client_secret_jwt"
	}
	return "private_key_jwt"
}

// isSignedBy reports whether the client has made the assertion: RFC 7518, Section
// 3.1, and RFC 8037, Section 3.1.
func (a *assertion) isSignedBy(c *Client) bool {
	if a.algorithm == "EdDSA" || a.algorithm == "Ed25519" {
		return slices.ContainsFunc(c.PublicKeys, func(key crypto.PublicKey) bool {
			public, ok := key.(ed25519.PublicKey)
			return ok && ed25519.Verify(public, []byte(a.signed), a.signature)
		})
	}
	if len(a.algorithm) != 5 {
		return false
	}
	hash, ok := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[a.algorithm[2:]]
	if !ok {
		return false
	}
	if a.algorithm[:2] == "HS" {
		mac := hmac.New(hash.New, []byte(c.Secret))
		mac.Write([]byte(a.signed))
		return c.Secret != "" && hmac.Equal(mac.Sum(nil), a.signature)
	}
	h := hash.New()
	h.Write([]byte(a.signed))
	digest := h.Sum(nil)
	return slices.ContainsFunc(c.PublicKeys, func(key crypto.PublicKey) bool {
		switch public := key.(type) {
		case *rsa.PublicKey:
			switch a.algorithm[:2] {
			case "RS":
				return rsa.VerifyPKCS1v15(public, hash, digest, a.signature) == nil
			case "PS":
				return rsa.VerifyPSS(public, hash, digest, a.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
			}
		case *ecdsa.PublicKey:
			bits := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[a.algorithm]
			size := (bits + 7) / 8
			return bits == public.Curve.Params().BitSize && len(a.signature) == 2*size &&
				ecdsa.Verify(public, digest, new(big.Int).SetBytes(a.signature[:size]), new(big.Int).SetBytes(a.signature[size:]))
		}
		return false
	})
}

// authenticateByAssertionLocked completes req and returns the client that has
// signed its assertion.
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
		if c.ID == id && (c.AuthMethods == nil || slices.Contains(c.AuthMethods, req.AuthMethod)) && a.isSignedBy(&c) {
			if fault := s.faultLocked(a, r); fault != "" {
				return nil, violation("RFC 7523, Section 3", fault).as("invalid_client")
			}
			return &c, nil
		}
	}
	return nil, unknownClient
}

// faultLocked returns what is wrong with the claims of an assertion, RFC 7523,
// Section 3. If nothing is, the assertion is used up.
func (s *AuthorizationServer) faultLocked(a *assertion, r *http.Request) string {
	now := time.Now()
	seconds := float64(now.UnixNano()) / 1e9
	var audience string
	switch err := json.Unmarshal(a.claims.Audience, &audience); {
	case a.claims.Issuer != a.claims.Subject:
		return "iss is not sub"
	case err != nil:
		return "aud is not one string"
	case !s.isAudience(audience, r):
		return "aud is not this server"
	case a.claims.Expiry == nil:
		return "exp is missing"
	case *a.claims.Expiry <= seconds:
		return "the assertion has expired"
	case *a.claims.Expiry > seconds+float64(maxAssertionLife/time.Second):
		return "exp is more than an hour away"
	case a.claims.IssuedAt > seconds:
		return "iat is in the future"
	case a.claims.NotBefore > seconds:
		return "nbf is in the future"
	case a.claims.ID == "":
		return "jti is missing"
	}
	used := a.claims.Subject + " " + a.claims.ID
	if _, ok := s.assertions[used]; ok {
		return "the assertion has been used before"
	}
	if s.assertions == nil {
		s.assertions = make(map[string]time.Time)
	}
	if len(s.assertions) >= kept {
		maps.DeleteFunc(s.assertions, func(_ string, seen time.Time) bool { return now.Sub(seen) > maxAssertionLife })
	}
	s.assertions[used] = now
	return ""
}

const maxAssertionLife = time.Hour

// isAudience reports whether audience is this server.
func (s *AuthorizationServer) isAudience(audience string, r *http.Request) bool {
	if s.Issuer != "" {
		return audience == s.Issuer
	}
	endpoint := "://" + r.Host + r.URL.Path
	// Nothing tells https in memory.
	return audience == "https"+endpoint || r.TLS == nil && audience == "http"+endpoint
}

// authenticateByCertificateLocked completes req and returns the client that has
// the certificate of the connection, RFC 8705, Section 2, or nil.
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

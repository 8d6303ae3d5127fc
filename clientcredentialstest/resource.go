package clientcredentialstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// ResourceServer is an API that requires a token of an [AuthorizationServer]: a
// bearer token (RFC 6750), or a token that is bound to a key (RFC 9449) or to a
// certificate (RFC 8705).
//
// Set the fields before the first request. The methods are safe for concurrent use.
type ResourceServer struct {
	// Issuer issued the tokens that are accepted. Required.
	Issuer *AuthorizationServer

	// Audience is the audience that a token must be for: one of the values of resource
	// (RFC 8707) and audience that it was requested with. Other tokens are answered
	// with invalid_token. Empty: any token is accepted.
	Audience string

	// Scope has the scopes that a token needs, separated by spaces. Empty: none.
	Scope string

	// ScopeByPath has the scopes that a token needs in addition to Scope, separated by
	// spaces. The keys are patterns of [http.ServeMux], such as "/things/" or "DELETE
	// /things/{id}", and the most specific pattern that matches applies. Patterns that
	// ServeMux refuses cause a panic. A request whose token lacks a scope is answered
	// with insufficient_scope, and the challenge lists all scopes that the request needs.
	ScopeByPath map[string]string

	// Claims are the claims that a token must have been requested with: a JSON object whose
	// members the parameter claims of the token request has, too. Other tokens are
	// answered with insufficient_claims, and the challenge has Claims in base64, as in
	// the continuous access evaluation of Microsoft Entra ID. Empty: none. Change it
	// with [ResourceServer.SetClaims].
	//
	// https://learn.microsoft.com/entra/identity-platform/claims-challenge
	Claims string

	// AuthorizationURI is the authorization_uri in a challenge for Claims.
	AuthorizationURI string

	// ACRValues and MaxAge are the acr_values, separated by spaces, and the max_age, in
	// seconds, that a token must have been requested with (RFC 9470, Section 3). Other
	// tokens are answered with insufficient_user_authentication. Clients rarely ask for
	// either in the client credentials grant, because no user takes part in it. Empty:
	// anything is accepted.
	ACRValues, MaxAge string

	// AlwaysChallenge answers even good tokens with a challenge. The first that applies
	// is repeated: the one for Claims, for ACRValues and MaxAge, for Scope and
	// ScopeByPath, or else invalid_token.
	AlwaysChallenge bool

	// Handler is the API itself. nil: the API answers 200 with a short JSON object.
	Handler http.Handler

	// Resource is the API's resource identifier (RFC 9728, Section 1.2): the URL of the API
	// or of a part of it, which has metadata then. Empty: the API has no metadata.
	Resource string

	// AuthorizationServers are the issuer identifiers that the metadata lists.
	AuthorizationServers []string

	// DPoPNonce is the nonce that proofs of possession must contain (RFC 9449, Section
	// 9). It works like that of [AuthorizationServer]. Change it with
	// [ResourceServer.SetDPoPNonce].
	DPoPNonce string

	mu         sync.Mutex // protects all below, and Claims and DPoPNonce once serving
	requests   recent[Request]
	violations recent[error]
	proofs     used // by key and jti
	accepted   int
}

// hasClaims reports whether a token that was requested with claims has those that are wanted.
// It may have been requested with more.
func hasClaims(claims, wanted string) bool {
	var has, wants any
	if json.Unmarshal([]byte(claims), &has) != nil || json.Unmarshal([]byte(wanted), &wants) != nil {
		return claims == wanted
	}
	return contains(has, wants)
}

func contains(has, wants any) bool {
	members, ok := wants.(map[string]any)
	if !ok {
		return reflect.DeepEqual(has, wants)
	}
	object, ok := has.(map[string]any)
	for name, value := range members {
		ok = ok && contains(object[name], value)
	}
	return ok
}

// SetClaims changes Claims: from now on, a token must have been requested with these. If
// they are empty, no claims are needed any more.
func (s *ResourceServer) SetClaims(claims string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Claims = claims
}

// SetDPoPNonce changes DPoPNonce: from now on, proofs with the old nonce are refused.
func (s *ResourceServer) SetDPoPNonce(nonce string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.DPoPNonce = nonce
}

func (s *ResourceServer) dpopNonce() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.DPoPNonce
}

// Requests returns the last 10,000 requests, oldest first.
func (s *ResourceServer) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.list()
}

// Accepted returns the number of requests with a good token.
func (s *ResourceServer) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Rejected returns the number of requests without a good token.
func (s *ResourceServer) Rejected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.total - s.accepted
}

// Violations returns the last 10,000 violations, oldest first: an error for each request
// that broke RFC 6750, RFC 8705 or RFC 9449. The error names the section. It never
// contains a token.
func (s *ResourceServer) Violations() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.violations.list()
}

// ServeHTTP passes a request with a good token to Handler. It answers other requests as
// RFC 6750, Section 3, and RFC 9449, Section 7.1, say:
//
//   - 401 if there is no token
//   - 401 invalid_token if the token is unknown, expired or revoked, for another audience,
//     or bound to a key or a certificate that the client doesn't have
//   - 401 invalid_dpop_proof or use_dpop_nonce if the proof is wrong
//   - 401 insufficient_claims if the token was requested without the Claims
//   - 401 insufficient_user_authentication if the token was requested without the ACRValues
//     or the MaxAge
//   - 403 insufficient_scope
//   - 400 invalid_request if the request violates RFC 6750
//
// The metadata of Resource, at the location of RFC 9728, Section 3.1, needs no token, and
// requests for it aren't recorded.
func (s *ResourceServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.isMetadata(r) {
		s.serveMetadata(w)
		return
	}
	denied := s.admit(r)
	offerNonce(w.Header(), s.dpopNonce())
	if denied != nil {
		denied.challenge(w.Header())
		http.Error(w, http.StatusText(denied.status), denied.status)
		return
	}
	if s.Handler != nil {
		s.Handler.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"ok":true}`))
}

// admit records a request. It returns nil if the request may pass, or else its answer.
func (s *ResourceServer) admit(r *http.Request) *denial {
	req := received(r)
	scheme, malformed := credentials(&req, r)
	token, active := s.Issuer.Introspect(req.AccessToken)
	var p proof
	var fault string
	if scheme == "DPoP" {
		p, fault = readProof(r, req.AccessToken) // Not under the lock, because it takes long.
	}
	scopes := s.neededScopes(r)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests.add(req)
	denied := malformed
	switch {
	case malformed != nil:
	case req.AccessToken == "":
		// RFC 6750, Section 3.1: no error code without credentials.
		denied = &denial{status: http.StatusUnauthorized}
	case !active:
		denied = invalidToken("", "the token is unknown, expired or revoked")
	case scheme == "DPoP":
		denied = s.checkProofLocked(token, p, fault)
	case token.JKT != "":
		denied = invalidToken("RFC 9449, Section 7.1", "the token is bound to a key and was sent as a bearer token")
	}
	if denied == nil {
		denied = s.checkTokenLocked(token, req, scopes)
	}
	if denied == nil {
		s.accepted++
		return nil
	}
	denied.scheme = scheme
	if denied.rule != "" {
		s.violations.add(fmt.Errorf("API request %d: %s: %s", s.requests.total, denied.rule, denied.text))
	}
	return denied
}

// b64token is the grammar of RFC 6750, Section 2.1, and RFC 9449, Section 7.1.
var b64token = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// credentials completes req. It returns the scheme of its token, and an answer if the
// credentials are malformed.
func credentials(req *Request, r *http.Request) (scheme string, malformed *denial) {
	violated := func(rule, text string) *denial {
		return &denial{status: http.StatusBadRequest, refusal: *violation(rule, text)}
	}
	scheme = "Bearer"
	values := r.Header.Values("Authorization")
	if len(values) == 1 {
		name, token, _ := strings.Cut(values[0], " ")
		bound := strings.EqualFold(name, "DPoP")
		if bound {
			scheme = "DPoP"
		}
		if bound || strings.EqualFold(name, "Bearer") {
			req.AccessToken = token
			if !b64token.MatchString(token) {
				malformed = violated("RFC 6750, Section 2.1", "the token breaks the grammar")
			}
		}
	}
	if len(values) > 1 {
		malformed = violated("RFC 6750, Section 2", "more than one Authorization header")
	}
	if r.URL.Query().Has("access_token") {
		malformed = violated("RFC 6750, Section 2.3", "the token is in the URL")
	}
	return scheme, malformed
}

// checkProofLocked returns nil if the token is bound to the key of the proof (RFC 9449,
// Section 7.1). fault is what readProof has found wrong with the proof, or "".
func (s *ResourceServer) checkProofLocked(token Token, p proof, fault string) *denial {
	if fault == "" && !p.use(&s.proofs) {
		fault = usedProof
	}
	switch {
	case token.JKT == "":
		return invalidToken("RFC 9449, Section 7.1", "the token is not bound to a key")
	case fault != "":
		return unauthorized("invalid_dpop_proof", proofRule, fault)
	case p.jkt != token.JKT:
		return invalidToken("RFC 9449, Section 7.1", "the token is bound to another key")
	case s.DPoPNonce != "" && p.nonce != s.DPoPNonce:
		return unauthorized("use_dpop_nonce", "", wrongNonce)
	}
	return nil
}

// neededScopes returns the scopes that a token needs for r, each once.
func (s *ResourceServer) neededScopes(r *http.Request) []string {
	mux := http.NewServeMux()
	for pattern := range s.ScopeByPath {
		mux.Handle(pattern, http.NotFoundHandler())
	}
	_, pattern := mux.Handler(r)
	var scopes []string
	for scope := range strings.FieldsSeq(s.Scope + " " + s.ScopeByPath[pattern]) {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// checkTokenLocked returns nil if the token may be used on the connection of req, and has
// these scopes and everything else that s needs.
func (s *ResourceServer) checkTokenLocked(token Token, req Request, scopes []string) *denial {
	lacks := func(scope string) bool { return !slices.Contains(token.Scopes, scope) }
	// wanting reports whether to challenge a token for something that s needs.
	wanting := func(fulfilled bool) bool { return s.AlwaysChallenge || !fulfilled }
	switch {
	case token.X5TS256 != "" && (req.Certificate == nil || base64urlSHA256(req.Certificate.Raw) != token.X5TS256):
		return invalidToken("RFC 8705, Section 3", "the token is bound to a certificate that the client did not present")
	case s.Audience != "" && !slices.Contains(token.Audience, s.Audience):
		return invalidToken("", "the token is for another audience")
	case s.Claims != "" && wanting(hasClaims(token.Claims, s.Claims)):
		d := unauthorized("insufficient_claims", "", "the token was requested without the claims")
		d.parameters = parameter("realm", "") + parameter("authorization_uri", s.AuthorizationURI) +
			parameter("error", d.code) + parameter("claims", base64.StdEncoding.EncodeToString([]byte(s.Claims)))
		return d
	case (s.ACRValues != "" || s.MaxAge != "") && wanting(
		(s.ACRValues == "" || token.ACRValues == s.ACRValues) && (s.MaxAge == "" || token.MaxAge == s.MaxAge)):
		d := unauthorized("insufficient_user_authentication", "", "the token was requested without acr_values or max_age")
		if s.ACRValues != "" {
			d.needs += parameter("acr_values", s.ACRValues)
		}
		if s.MaxAge != "" {
			d.needs += parameter("max_age", s.MaxAge)
		}
		return d
	case len(scopes) > 0 && wanting(!slices.ContainsFunc(scopes, lacks)):
		return &denial{
			status:  http.StatusForbidden,
			refusal: refusal{code: "insufficient_scope", text: "the token lacks a scope"},
			needs:   parameter("scope", strings.Join(scopes, " ")),
		}
	case s.AlwaysChallenge:
		return invalidToken("", "no token is good enough")
	}
	return nil
}

// A denial is an answer of the API to a request that may not pass.
type denial struct {
	refusal
	status int
	scheme string
	needs  string // parameters of the challenge that say what is needed

	// parameters replace all others of the challenge. Empty: they are those of RFC 6750,
	// Section 3.
	parameters string
}

func unauthorized(code, rule, text string) *denial {
	return &denial{status: http.StatusUnauthorized, refusal: refusal{code: code, rule: rule, text: text}}
}

func invalidToken(rule, text string) *denial { return unauthorized("invalid_token", rule, text) }

// challenge sets WWW-Authenticate: it says what is wrong in the scheme of the request,
// and a 401 also offers the other scheme (RFC 9449, Section 7.2).
func (d *denial) challenge(header http.Header) {
	realm := parameter("realm", "clientcredentialstest")
	challenges := map[string]string{
		"Bearer": realm,
		"DPoP":   realm + parameter("algs", strings.Join(proofAlgorithms, " ")),
	}
	if d.code != "" {
		challenges[d.scheme] += parameter("error", d.code) + parameter("error_description", d.text) + d.needs
	}
	if d.parameters != "" {
		challenges[d.scheme] = d.parameters
	}
	offer := func(scheme string) {
		header.Add("WWW-Authenticate", scheme+" "+strings.TrimPrefix(challenges[scheme], ", "))
	}
	offer(d.scheme)
	if d.status == http.StatusUnauthorized {
		delete(challenges, d.scheme)
		for other := range challenges {
			offer(other)
		}
	}
}

var quotedString = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// parameter returns a parameter of a challenge, after a comma: RFC 9110, Section 11.2.
func parameter(name, value string) string {
	return fmt.Sprintf(`, %s="%s"`, name, quotedString.Replace(value))
}

package clientcredentialstest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const maxBody = 1 << 20

// Client is a client registered at an [AuthorizationServer] (RFC 6749,
// Section 2).
type Client struct {
	ID     string
	Secret string

	// Scopes are the scopes that the client may request, and those that it gets if
	// it requests none. nil: it may request any scope, and gets none by default.
	Scopes []string

	// PublicKeys verify the client's assertions (RFC 7523). Each is an
	// *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
	PublicKeys []crypto.PublicKey

	// Certificates are the certificates that the client may present in the TLS
	// handshake (RFC 8705), to a server of [NewTLSServer].
	Certificates []*x509.Certificate

	// AuthMethods are the methods by which the client may authenticate (RFC 7591,
	// Section 2): "client_secret_basic", "client_secret_post", "client_secret_jwt",
	// "private_key_jwt", "tls_client_auth" with a certificate that isn't
	// self-signed, and "self_signed_tls_client_auth". nil: any method for which the
	// client has a Secret, PublicKeys or Certificates. A client without any of
	// these needs no authentication.
	AuthMethods []string

	// RequireDPoP refuses token requests without a proof of possession: the client
	// is registered with dpop_bound_access_tokens (RFC 9449, Section 5.2). Other
	// clients may send a proof, too, and then get a token that is bound to its key.
	RequireDPoP bool

	// CertificateBound binds tokens to the certificate of the connection, however
	// the client authenticates, and refuses token requests without a certificate:
	// the client is registered with tls_client_certificate_bound_access_tokens (RFC
	// 8705, Section 3.4). It needs a server of [NewTLSServer].
	CertificateBound bool

	// RawBasic compares Basic credentials as they are, without the form
	// encoding of RFC 6749, Section 2.3.1. Many servers do.
	RawBasic bool
}

// Token is what an [AuthorizationServer] knows about an access token that it issued.
type Token struct {
	ClientID string // empty: the request had no client, only a grant

	// Subject is whom the token is for, if it was requested with an assertion (RFC 7523) or
	// in exchange for another token (RFC 8693): the sub of the JWT, or its iss if it has
	// none. Actor is who acts for the subject in a token exchange. Empty: none.
	Subject, Actor string

	Scopes   []string
	Audience []string // the values of resource (RFC 8707) and audience
	IssuedAt time.Time
	Expiry   time.Time // zero: never

	// Claims is the parameter claims of the token request (OpenID Connect Core 1.0,
	// Section 5.5): a JSON object, exactly as it was sent. Empty: none.
	Claims string

	// ACRValues and MaxAge are the parameters acr_values and max_age of the token
	// request (RFC 9470, Section 4). Empty: none.
	ACRValues, MaxAge string

	// JKT is the thumbprint of the key that the token is bound to (RFC 9449,
	// Section 6.1). Empty: the token isn't bound to a key.
	JKT string

	// X5TS256 is the x5t#S256 of the certificate that the token is bound to (RFC
	// 8705, Section 3.1). Empty: the token isn't bound to a certificate.
	X5TS256 string

	issuedType string // issued_token_type, RFC 8693, Section 2.2.1
}

// AuthorizationServer is the token endpoint of an authorization server that
// supports only grants without a user: client credentials (RFC 6749, Sections 3.2 and 4.4),
// and if it has TrustedIssuers assertions (RFC 7523) and token exchange (RFC 8693). As an
// [http.Handler] it answers at every path that ends in /token.
//
// An assertion with a jti is accepted once. In a token exchange the server accepts its own
// access tokens too, and any number of times.
//
// It issues tokens for any resource (RFC 8707), audience and claims. [Token] has what a
// token was requested with.
//
// A request that breaks RFC 6749 or RFC 8707, or whose proof of possession breaks RFC 9449,
// gets an error and no token, and [AuthorizationServer.Violations] lists it. A request also gets
// an error for wrong credentials, for an unknown scope, and if it lacks a proof or a
// certificate that the client's registration demands. Those break no rule, so they are
// not violations.
//
// The zero value is usable and knows no client. Set the fields before the first
// request. The methods are safe for concurrent use at any time.
type AuthorizationServer struct {
	Clients []Client

	// Issuer is the audience that client assertions must have. Empty: they must
	// have the URL of the token endpoint.
	Issuer string

	// TrustedIssuers are the issuers of the assertions and of the tokens to exchange that
	// this server accepts.
	TrustedIssuers []TrustedIssuer

	// SigningKey signs the JWTs that a token exchange asks for with a requested_token_type,
	// for a server with this Issuer in its TrustedIssuers. nil: such a request is refused.
	SigningKey ed25519.PrivateKey

	// TokenLifetime is how long a token is valid. The answer gives it in whole
	// seconds, rounded down. 0: one hour. Negative: forever, and the answer has no
	// expires_in.
	TokenLifetime time.Duration

	// Latency holds back each answer of the token endpoint. The token in it is
	// issued before that, so part of its life is already over when it arrives.
	Latency time.Duration

	// DPoPNonce is the nonce that proofs of possession must contain (RFC 9449,
	// Section 8). A proof without it is answered with use_dpop_nonce, and every
	// answer contains the nonce. Empty: proofs need no nonce. Change it with
	// [AuthorizationServer.SetDPoPNonce].
	DPoPNonce string

	mu         sync.Mutex // protects all below, and Clients and DPoPNonce once serving; never held while waiting
	requests   recent[Request]
	violations recent[error]
	script     []Fault
	outage     *Fault
	tokens     map[string]Token
	sweepAt    int  // the number of tokens at which the expired ones are removed
	assertions used // by sub and jti
	proofs     used // by key and jti
	issued     int
}

// Register adds a client, or replaces the client with the same ID. Use it to rotate
// a secret.
func (s *AuthorizationServer) Register(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Clone the slice, because it belongs to the caller.
	s.Clients = append(slices.DeleteFunc(slices.Clone(s.Clients), func(old Client) bool {
		return old.ID == c.ID
	}), c)
}

// SetDPoPNonce changes DPoPNonce: from now on, proofs with the old nonce are
// refused. Answers that are still held back already contain the new one.
func (s *AuthorizationServer) SetDPoPNonce(nonce string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.DPoPNonce = nonce
}

func (s *AuthorizationServer) dpopNonce() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.DPoPNonce
}

// Script queues faults. Each happens to one of the next token requests, in order.
func (s *AuthorizationServer) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

// SetFault begins an outage: the fault happens to every token request until SetFault
// is called again, with nil to end the outage. Faults queued by
// [AuthorizationServer.Script] come first.
func (s *AuthorizationServer) SetFault(f *Fault) {
	if f != nil {
		c := *f
		f = &c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = f
}

// Requests returns the last 10,000 token requests, oldest first.
func (s *AuthorizationServer) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.list()
}

// TokenRequests returns the number of token requests received, including those that
// were refused.
func (s *AuthorizationServer) TokenRequests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.total
}

// TokensIssued returns the number of tokens issued.
func (s *AuthorizationServer) TokensIssued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issued
}

// Violations returns the last 10,000 violations, oldest first: an error for each token
// request that broke RFC 6749 or another specification, such as RFC 8707. The error names
// the section. It never contains the value of a parameter.
func (s *AuthorizationServer) Violations() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.violations.list()
}

// Revoke ends the life of a token.
func (s *AuthorizationServer) Revoke(accessToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, accessToken)
}

// RevokeAll ends the life of every token issued so far.
func (s *AuthorizationServer) RevokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Introspect returns what is known about a token, and whether the token is active
// (RFC 7662, Section 2.2): false if it is unknown, expired or revoked.
func (s *AuthorizationServer) Introspect(accessToken string) (Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[accessToken]
	if !ok || t.expired(time.Now()) {
		return Token{}, false
	}
	return t, true
}

func (t Token) expired(now time.Time) bool {
	return !t.Expiry.IsZero() && !now.Before(t.Expiry)
}

// ServeHTTP answers a token request. It panics with [http.ErrAbortHandler] to break
// the connection: on some faults, and when the client leaves while its answer is held
// back.
func (s *AuthorizationServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/token") {
		http.NotFound(w, r)
		return
	}
	// Read the whole body first: only then does net/http notice that a client leaves.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); err != nil && !errors.As(err, &tooLarge) {
		panic(http.ErrAbortHandler) // The body was cut short: nobody waits for an answer.
	}
	fault, grant, refused := s.receive(r, body, err != nil)

	wait(r.Context(), fault.Delay)
	var a answer
	switch {
	case fault.Reset:
		// Issue no token.
	case fault.replaces():
		a = fault.answer()
	case refused != nil:
		a = refused.answer()
	default:
		a = s.issue(grant)
	}
	wait(r.Context(), s.Latency)
	if fault.Reset {
		reset(w)
		return
	}
	offerNonce(w.Header(), s.dpopNonce())
	a.write(w, r, fault)
}

// receive records a request and its violation, if any, and takes its fault from the
// script or the outage.
func (s *AuthorizationServer) receive(r *http.Request, body []byte, tooLarge bool) (Fault, Token, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := received(r)
	if !tooLarge { // 10,000 bodies without a limit might not fit into memory.
		req.Body = string(body)
	}
	grant, refused := s.examineLocked(&req, r, tooLarge)
	s.requests.add(req)
	if refused != nil && refused.rule != "" {
		s.violations.add(fmt.Errorf("token request %d: %s: %s", s.requests.total, refused.rule, refused.text))
	}
	var fault Fault
	switch {
	case len(s.script) > 0:
		fault, s.script = s.script[0], s.script[1:]
	case s.outage != nil:
		fault = *s.outage
	}
	return fault, grant, refused
}

// examineLocked completes req and returns the token that it asks for, or the reason for
// its refusal.
func (s *AuthorizationServer) examineLocked(req *Request, r *http.Request, tooLarge bool) (Token, *refusal) {
	if r.Method != http.MethodPost {
		return Token{}, violation("RFC 6749, Section 3.2", "the method is not POST")
	}
	if tooLarge {
		return Token{}, violation("a limit of this server", "the body is larger than 1 MiB")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return Token{}, violation("RFC 6749, Section 4.4.2", "the Content-Type is not application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(req.Body)
	if err != nil {
		return Token{}, violation("RFC 6749, Appendix B", "the body is not form-encoded")
	}
	req.Form = form
	for _, name := range slices.Sorted(maps.Keys(form)) {
		values := form[name]
		if !utf8.ValidString(name + strings.Join(values, "")) {
			return Token{}, violation("RFC 6749, Appendix B", "a parameter is not UTF-8")
		}
		// RFC 8707, Section 2, lets a client name several resources.
		if len(values) > 1 && name != "resource" {
			return Token{}, violation("RFC 6749, Section 3.2", "parameter sent more than once: "+printable(name))
		}
	}
	for _, name := range []string{"client_id", "client_secret", "client_assertion"} {
		if r.URL.Query().Has(name) {
			return Token{}, violation("RFC 6749, Section 2.3.1", "credentials in the URL: "+name)
		}
	}
	client := new(Client)
	if !needsNoClient(form, r) {
		var refused *refusal
		if client, refused = s.authenticateLocked(req, r); refused != nil {
			return Token{}, refused
		}
	}
	owner, refused := s.ownerLocked(form, r)
	if refused != nil {
		return Token{}, refused
	}
	scope := form.Get("scope")
	if scope == "" {
		scope = owner.scope
	}
	scopes, refused := client.grant(scope)
	if refused != nil {
		return Token{}, refused
	}
	audience, refused := requestedAudience(form)
	if refused != nil {
		return Token{}, refused
	}
	token := Token{
		ClientID: client.ID,
		Subject:  owner.subject, Actor: owner.actor, issuedType: owner.issues,
		Scopes:    scopes,
		Audience:  audience,
		Claims:    form.Get("claims"),
		ACRValues: form.Get("acr_values"),
		MaxAge:    form.Get("max_age"),
	}
	if token.Claims != "" && !isJSONObject(token.Claims) {
		return Token{}, violation("OpenID Connect Core 1.0, Section 5.5", "claims is not a JSON object")
	}
	if client.CertificateBound {
		if req.Certificate == nil {
			return Token{}, &refusal{code: "invalid_request", text: "the client is registered for certificate-bound tokens but presents no certificate"}
		}
		token.X5TS256 = base64urlSHA256(req.Certificate.Raw)
	}
	token.JKT, refused = s.proveLocked(client, r)
	return token, refused
}

// proveLocked returns the thumbprint of the key that the token is to be bound to, or ""
// for a bearer token: RFC 9449, Section 5.
func (s *AuthorizationServer) proveLocked(client *Client, r *http.Request) (jkt string, refused *refusal) {
	if len(r.Header.Values("DPoP")) == 0 {
		if client.RequireDPoP {
			return "", &refusal{code: "invalid_dpop_proof", text: "the client is registered for key-bound tokens but sends no proof"}
		}
		return "", nil
	}
	p, fault := readProof(r, "")
	if fault == "" && !p.use(&s.proofs) {
		fault = usedProof
	}
	switch {
	case fault != "":
		return "", violation(proofRule, fault).as("invalid_dpop_proof")
	case s.DPoPNonce != "" && p.nonce != s.DPoPNonce:
		return "", &refusal{code: "use_dpop_nonce", text: wrongNonce}
	}
	return p.jkt, nil
}

// authenticateLocked completes req and returns the client that sent it (RFC 6749,
// Section 2.3).
func (s *AuthorizationServer) authenticateLocked(req *Request, r *http.Request) (*Client, *refusal) {
	id, secret := req.Form.Get("client_id"), req.Form.Get("client_secret")
	req.ClientID = id
	credentials := r.Header.Values("Authorization")
	methods := len(credentials)
	if secret != "" {
		req.AuthMethod = "client_secret_post"
		methods++
	}
	asserted := req.Form.Get("client_assertion") != ""
	if asserted {
		req.AuthMethod = ""
		req.Assertion = readAssertion(req.Form.Get("client_assertion"))
		methods++
	}
	if methods > 1 {
		return nil, violation("RFC 6749, Section 2.3", "more than one authentication method")
	}
	if asserted {
		return s.authenticateByAssertionLocked(req, r)
	}
	if methods == 0 {
		if client := s.authenticateByCertificateLocked(req); client != nil {
			return client, nil
		}
	}

	method, raw := "client_secret_post", false
	if len(credentials) == 1 {
		scheme, _, _ := strings.Cut(credentials[0], " ")
		if !strings.EqualFold(scheme, "Basic") {
			return nil, unknownClient
		}
		method, req.AuthMethod = "client_secret_basic", "client_secret_basic"
		basicID, basicSecret, isRaw, refused := s.basicLocked(r)
		if refused != nil {
			return nil, refused
		}
		req.ClientID = basicID
		if id != "" && id != basicID {
			return nil, violation("RFC 6749, Section 2.3", "client_id differs from the id in the Authorization header")
		}
		id, secret, raw = basicID, basicSecret, isRaw
	}
	for _, c := range s.Clients {
		if c.ID == id && c.Secret == secret && (secret != "" || c.PublicKeys == nil && c.Certificates == nil) &&
			(method == "client_secret_post" || c.RawBasic == raw) &&
			(c.AuthMethods == nil || slices.Contains(c.AuthMethods, method)) {
			return &c, nil
		}
	}
	return nil, unknownClient
}

// basicLocked decodes Basic credentials as RFC 6749, Section 2.3.1, says, or returns
// them as they are for a client with RawBasic.
func (s *AuthorizationServer) basicLocked(r *http.Request) (id, secret string, raw bool, refused *refusal) {
	rawID, rawSecret, ok := r.BasicAuth()
	if !ok {
		return "", "", false, violation("RFC 7617, Section 2", "the Basic credentials are malformed")
	}
	for _, c := range s.Clients {
		if c.RawBasic && c.ID == rawID {
			return rawID, rawSecret, true, nil
		}
	}
	id, idErr := url.QueryUnescape(rawID)
	secret, secretErr := url.QueryUnescape(rawSecret)
	if idErr != nil || secretErr != nil {
		return "", "", false, violation("RFC 6749, Section 2.3.1", "the Basic credentials are not form-encoded")
	}
	return id, secret, false, nil
}

// grant returns the scopes that the client gets (RFC 6749, Section 3.3).
func (c *Client) grant(scope string) ([]string, *refusal) {
	if scope == "" {
		return slices.Clone(c.Scopes), nil
	}
	scopes := strings.Split(scope, " ")
	for _, token := range scopes {
		if token == "" || strings.ContainsFunc(token, notScope) {
			return nil, violation("RFC 6749, Section 3.3", "the scope breaks the grammar").as("invalid_scope")
		}
	}
	for _, token := range scopes {
		if c.Scopes != nil && !slices.Contains(c.Scopes, token) {
			return nil, &refusal{code: "invalid_scope", text: "the client may not request this scope"}
		}
	}
	return scopes, nil
}

// absoluteURI matches an absolute URI, which has no fragment: RFC 3986, Section 4.3. It
// doesn't check what is between the delimiters.
var absoluteURI = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*$`)

// requestedAudience returns the values of resource and audience. Empty ones are as good as
// none: RFC 6749, Section 3.2.
func requestedAudience(form url.Values) (audience []string, refused *refusal) {
	for _, name := range []string{"resource", "audience"} {
		for _, value := range form[name] {
			switch {
			case value == "":
			case name == "resource" && !absoluteURI.MatchString(value):
				return nil, violation("RFC 8707, Section 2", "resource is not an absolute URI without a fragment").as("invalid_target")
			default:
				audience = append(audience, value)
			}
		}
	}
	return audience, nil
}

func isJSONObject(text string) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal([]byte(text), &members) == nil && members != nil
}

// notScope reports whether a scope must not contain r.
func notScope(r rune) bool {
	return r < 0x21 || r == '"' || r == '\\' || r > 0x7e
}

// printable replaces what RFC 6749, Section 5.2, forbids in an error_description.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != ' ' && notScope(r) {
			return '?'
		}
		return r
	}, s)
}

// issue issues the token and returns the answer with it.
func (s *AuthorizationServer) issue(t Token) answer {
	lifetime := s.TokenLifetime
	if lifetime == 0 {
		lifetime = time.Hour
	}
	t.IssuedAt = time.Now()
	// RFC 6749, Section 5.1.
	var response struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		IssuedType  string `json:"issued_token_type,omitempty"` // RFC 8693, Section 2.2.1.
		ExpiresIn   *int64 `json:"expires_in,omitempty"`
		Scope       string `json:"scope,omitempty"`
	}
	response.AccessToken = rand.Text()
	response.TokenType = "Bearer"
	if t.JKT != "" {
		response.TokenType = "DPoP" // RFC 9449, Section 5.
	}
	response.IssuedType = t.issuedType
	response.Scope = strings.Join(t.Scopes, " ")
	if lifetime > 0 {
		t.Expiry = t.IssuedAt.Add(lifetime)
		seconds := int64(lifetime / time.Second)
		response.ExpiresIn = &seconds
	}
	if t.issuedType == jwtType {
		response.AccessToken, response.TokenType = s.signJWT(t), "N_A"
	}
	s.remember(response.AccessToken, t)
	return answer{status: http.StatusOK, body: encode(response)}
}

func (s *AuthorizationServer) remember(accessToken string, t Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued++
	if t.issuedType == jwtType {
		return // It isn't an access token.
	}
	if s.tokens == nil {
		s.tokens = make(map[string]Token)
	}
	if len(s.tokens) >= max(s.sweepAt, kept) {
		maps.DeleteFunc(s.tokens, func(_ string, old Token) bool { return old.expired(t.IssuedAt) })
		s.sweepAt = 2 * len(s.tokens)
	}
	s.tokens[accessToken] = t
}

package clientcredentialstest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
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

	// Scopes is what the client may ask for, and what it gets when it names no
	// scope. nil: it may ask for any, and gets none when it names none.
	Scopes []string

	// PublicKeys are those that the client may sign assertions with (RFC 7523):
	// *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
	PublicKeys []crypto.PublicKey

	// Certificates are those that the client may present in the TLS handshake
	// (RFC 8705), to a server that [NewTLSServer] started.
	Certificates []*x509.Certificate

	// AuthMethods is how the client may authenticate (RFC 7591, Section 2):
	// "client_secret_basic", "client_secret_post", "client_secret_jwt",
	// "private_key_jwt", "tls_client_auth" with a certificate that another has
	// issued, "self_signed_tls_client_auth". nil: in any way for which the fields
	// above have what it takes. Without a Secret, PublicKeys and Certificates the
	// client is believed.
	AuthMethods []string

	// RequireDPoP refuses token requests without a proof of possession: the client
	// is registered with dpop_bound_access_tokens (RFC 9449, Section 5.2). Any
	// client may send one, and gets a token that is bound to the key of the proof.
	RequireDPoP bool

	// CertificateBound binds tokens to the certificate of the connection, whatever
	// the client authenticates with, and refuses token requests without one: the
	// client is registered with tls_client_certificate_bound_access_tokens (RFC
	// 8705, Section 3.4). It takes servers that [NewTLSServer] started.
	CertificateBound bool

	// RawBasic compares Basic credentials as they are, without the form
	// encoding of RFC 6749, Section 2.3.1. Many servers do.
	RawBasic bool
}

// Token is what an [AuthorizationServer] knows of an access token it issued.
type Token struct {
	ClientID string
	Scopes   []string
	Audience []string // the values of resource (RFC 8707) and audience
	IssuedAt time.Time
	Expiry   time.Time // zero: never

	// JKT is the thumbprint of the key that the token is bound to (RFC 9449,
	// Section 6.1). Empty: none.
	JKT string

	// X5TS256 is the x5t#S256 of the certificate that the token is bound to (RFC
	// 8705, Section 3.1). Empty: none.
	X5TS256 string
}

// AuthorizationServer is the token endpoint of an authorization server that
// knows the client credentials grant and nothing else (RFC 6749, Sections 3.2
// and 4.4). As an [http.Handler] it answers at every path that ends in /token.
//
// A request that breaks RFC 6749 is answered with an error, issues nothing and
// is listed by [AuthorizationServer.Violations], and so is one whose proof of
// possession breaks RFC 9449. Wrong credentials, unknown scopes, and what the client
// is registered for and comes without, are errors too, but break no rule.
//
// The zero value is usable and knows no client. Set the fields before the first
// request; the methods are safe for concurrent use at any time.
type AuthorizationServer struct {
	Clients []Client

	// Issuer is the audience that client assertions must have. Empty: the URL of
	// the token endpoint.
	Issuer string

	// TokenLifetime is how long a token is valid. The answer tells it in whole
	// seconds, rounded down. 0: one hour. Negative: for ever, and the answer
	// has no expires_in.
	TokenLifetime time.Duration

	// Latency holds back each answer of the token endpoint. The token in it is
	// already issued, and its life runs.
	Latency time.Duration

	// DPoPNonce is what proofs of possession must contain (RFC 9449, Section 8). The
	// answer to another one is use_dpop_nonce, and every answer tells the nonce.
	// Empty: anything will do. [AuthorizationServer.SetDPoPNonce] changes it.
	DPoPNonce string

	mu         sync.Mutex // protects all below, and Clients and DPoPNonce once serving; never held while waiting
	requests   recent[Request]
	violations recent[error]
	script     []Fault
	outage     *Fault
	tokens     map[string]Token
	sweepAt    int  // when tokens has this many, the expired ones go
	assertions used // by sub and jti
	proofs     used // by key and jti
	issued     int
}

// Register adds a client, or replaces the one that has its ID: rotate a secret
// with it.
func (s *AuthorizationServer) Register(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A copy, because the slice is the caller's.
	s.Clients = append(slices.DeleteFunc(slices.Clone(s.Clients), func(old Client) bool {
		return old.ID == c.ID
	}), c)
}

// SetDPoPNonce changes DPoPNonce: proofs with the one before are refused from now
// on. Answers that are still held back tell the new one.
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

// Script queues faults: the next token requests get one each, in order.
func (s *AuthorizationServer) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

// SetFault is an outage: every token request gets the fault until it is set to
// nil. What [AuthorizationServer.Script] queued goes first.
func (s *AuthorizationServer) SetFault(f *Fault) {
	if f != nil {
		c := *f
		f = &c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = f
}

// Requests returns the token requests received, oldest first; of many the last
// 10,000.
func (s *AuthorizationServer) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.list()
}

// TokenRequests returns the number of token requests received, whatever their
// answer.
func (s *AuthorizationServer) TokenRequests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.total
}

// TokensIssued returns the number of access tokens issued.
func (s *AuthorizationServer) TokensIssued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issued
}

// Violations returns an error for each token request that broke RFC 6749, or a
// specification it refers to, with the section; of many the last 10,000. No
// error repeats a parameter's value.
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

// Introspect returns what is known of a token, and false if it is unknown,
// expired or revoked, as the active member of RFC 7662, Section 2.2, would tell.
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

// ServeHTTP answers a token request. It ends with panic(http.ErrAbortHandler)
// where a connection is to break: on some faults, and when the client leaves
// while its answer is held back.
func (s *AuthorizationServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/token") {
		http.NotFound(w, r)
		return
	}
	// All of the body first: only then does net/http notice a client that leaves.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); err != nil && !errors.As(err, &tooLarge) {
		panic(http.ErrAbortHandler) // Cut short: nobody waits for an answer.
	}
	fault, grant, refused := s.receive(r, body, err != nil)

	wait(r.Context(), fault.Delay)
	var a answer
	switch {
	case fault.Reset:
		// It issues nothing.
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

// receive records a request and what is wrong with it, and takes its fault.
func (s *AuthorizationServer) receive(r *http.Request, body []byte, tooLarge bool) (Fault, Token, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := received(r)
	if !tooLarge { // 10,000 of them would not fit in memory.
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

// examineLocked completes req and returns the token it asks for, or why it gets none.
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
	client, refused := s.authenticateLocked(req, r)
	if refused != nil {
		return Token{}, refused
	}
	switch grantType := form.Get("grant_type"); grantType {
	case "client_credentials":
	case "":
		return Token{}, violation("RFC 6749, Section 4.4.2", "grant_type is missing")
	default:
		return Token{}, violation("RFC 6749, Section 4.4.2", "grant_type is not client_credentials").as("unsupported_grant_type")
	}
	scopes, refused := client.grant(form.Get("scope"))
	if refused != nil {
		return Token{}, refused
	}
	token := Token{
		ClientID: client.ID,
		Scopes:   scopes,
		Audience: slices.Concat(form["resource"], form["audience"]),
	}
	if client.CertificateBound {
		if req.Certificate == nil {
			return Token{}, &refusal{code: "invalid_request", text: "the client is registered for tokens bound to its certificate, and presents none"}
		}
		token.X5TS256 = base64urlSHA256(req.Certificate.Raw)
	}
	token.JKT, refused = s.proveLocked(client, r)
	return token, refused
}

// proveLocked returns the thumbprint of the key that the token is to be bound to, or
// nothing if the client asks for none: RFC 9449, Section 5.
func (s *AuthorizationServer) proveLocked(client *Client, r *http.Request) (jkt string, refused *refusal) {
	if len(r.Header.Values("DPoP")) == 0 {
		if client.RequireDPoP {
			return "", &refusal{code: "invalid_dpop_proof", text: "the client is registered for tokens bound to a key, and sends no proof"}
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
			return nil, violation("RFC 6749, Section 2.3", "client_id is not that of the Authorization header")
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

// basicLocked decodes the credentials of RFC 6749, Section 2.3.1, or the raw ones
// of a client that is registered for it.
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

// grant returns the scopes the client gets (RFC 6749, Section 3.3).
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
			return nil, &refusal{code: "invalid_scope", text: "the client may not ask for this scope"}
		}
	}
	return scopes, nil
}

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

// issue makes a token for the grant.
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
		ExpiresIn   *int64 `json:"expires_in,omitempty"`
		Scope       string `json:"scope,omitempty"`
	}
	response.AccessToken = rand.Text()
	response.TokenType = "Bearer"
	if t.JKT != "" {
		response.TokenType = "DPoP" // RFC 9449, Section 5.
	}
	response.Scope = strings.Join(t.Scopes, " ")
	if lifetime > 0 {
		t.Expiry = t.IssuedAt.Add(lifetime)
		seconds := int64(lifetime / time.Second)
		response.ExpiresIn = &seconds
	}
	s.remember(response.AccessToken, t)
	return answer{status: http.StatusOK, body: encode(response)}
}

func (s *AuthorizationServer) remember(accessToken string, t Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued++
	if s.tokens == nil {
		s.tokens = make(map[string]Token)
	}
	if len(s.tokens) >= max(s.sweepAt, kept) {
		maps.DeleteFunc(s.tokens, func(_ string, old Token) bool { return old.expired(t.IssuedAt) })
		s.sweepAt = 2 * len(s.tokens)
	}
	s.tokens[accessToken] = t
}

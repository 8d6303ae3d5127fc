package clientcredentialstest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// ResourceServer is an API guarded by the bearer tokens of an
// [AuthorizationServer] (RFC 6750).
//
// Set the fields before the first request; the methods are safe for concurrent
// use.
type ResourceServer struct {
	// Issuer issued the tokens that are accepted. Required.
	Issuer *AuthorizationServer

	// Scope is what a token needs, separated by spaces. Empty: nothing.
	Scope string

	// Handler is the API itself. nil: it answers 200 with a short JSON.
	Handler http.Handler

	mu         sync.Mutex // protects all below
	requests   recent[Request]
	violations recent[error]
	accepted   int
}

// Requests returns the requests received, oldest first; of many the last
// 10,000.
func (s *ResourceServer) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.list()
}

// Accepted returns the number of requests that came with a good token.
func (s *ResourceServer) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Rejected returns the number of requests that did not.
func (s *ResourceServer) Rejected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.total - s.accepted
}

// Violations returns an error for each request that broke RFC 6750, with the
// section; of many the last 10,000. No error repeats a token.
func (s *ResourceServer) Violations() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.violations.list()
}

// ServeHTTP lets a request with a good token pass, and answers any other as
// RFC 6750, Section 3, says: 401 without a token, 401 invalid_token for one that
// is unknown, expired or revoked, 403 insufficient_scope, 400 invalid_request
// for a violation.
func (s *ResourceServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, challenge := s.admit(r)
	if status != http.StatusOK {
		w.Header().Set("WWW-Authenticate", challenge)
		http.Error(w, http.StatusText(status), status)
		return
	}
	if s.Handler != nil {
		s.Handler.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"ok":true}`))
}

// b64token is the grammar of RFC 6750, Section 2.1.
var b64token = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// admit records a request and returns 200, or what to answer instead.
func (s *ResourceServer) admit(r *http.Request) (status int, challenge string) {
	req := received(r)
	rule, text := "", ""
	credentials := r.Header.Values("Authorization")
	if len(credentials) == 1 {
		if scheme, token, _ := strings.Cut(credentials[0], " "); strings.EqualFold(scheme, "Bearer") {
			req.AccessToken = token
			if !b64token.MatchString(token) {
				rule, text = "RFC 6750, Section 2.1", "the token breaks the grammar"
			}
		}
	}
	if len(credentials) > 1 {
		rule, text = "RFC 6750, Section 2", "more than one Authorization header"
	}
	if r.URL.Query().Has("access_token") {
		rule, text = "RFC 6750, Section 2.3", "the token is in the URL"
	}
	token, active := s.Issuer.Introspect(req.AccessToken)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests.add(req)
	switch {
	case rule != "":
		s.violations.add(fmt.Errorf("API request %d: %s: %s", s.requests.total, rule, text))
		return http.StatusBadRequest, bearerChallenge("invalid_request", text)
	case req.AccessToken == "":
		// RFC 6750, Section 3.1: no error code without credentials.
		return http.StatusUnauthorized, `Bearer realm="clientcredentialstest"`
	case !active:
		return http.StatusUnauthorized, bearerChallenge("invalid_token", "the token is unknown, expired or revoked")
	}
	for scope := range strings.FieldsSeq(s.Scope) {
		if !slices.Contains(token.Scopes, scope) {
			return http.StatusForbidden, bearerChallenge("insufficient_scope", "the token lacks a scope") +
				fmt.Sprintf(`, scope="%s"`, s.Scope)
		}
	}
	s.accepted++
	return http.StatusOK, ""
}

func bearerChallenge(code, description string) string {
	return fmt.Sprintf(`Bearer realm="clientcredentialstest", error="%s", error_description="%s"`, code, description)
}

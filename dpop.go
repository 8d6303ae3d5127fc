package clientcredentials

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// This file is about tokens that are bound to a key, RFC 9449: each request that
// carries one, and the request for it, comes with a proof that the sender has the
// key.

// A proofClaims is the payload of a DPoP proof, RFC 9449, Section 4.2.
type proofClaims struct {
	ID        string `json:"jti"`
	Method    string `json:"htm"`
	URL       string `json:"htu"`
	IssuedAt  int64  `json:"iat"`
	TokenHash string `json:"ath,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
}

// newProof returns a proof for one request with that method and URL, and with
// that token and nonce, of which both may be empty.
func newProof(key *jws.Key, method string, u *url.URL, host, accessToken, nonce string, now time.Time) (string, error) {
	claims := proofClaims{
		ID:       rand.Text(), // 130 bits, where Section 4.2 wants 96.
		Method:   method,
		URL:      proofURL(u, host),
		IssuedAt: now.Unix(),
		Nonce:    nonce,
	}
	if claims.Method == "" {
		claims.Method = http.MethodGet
	}
	if accessToken != "" {
		sum := sha256.Sum256([]byte(accessToken))
		claims.TokenHash = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return key.Sign(map[string]any{"typ": "dpop+jwt", "jwk": key.JWK()}, claims)
}

func proofError(err error) error {
	return fmt.Errorf("oauth2: the proof for DPoP can't be made: %w", err)
}

// proofURL returns the htu of RFC 9449, Section 4.2: u without query and fragment,
// with the host that the request names, normalised as Section 4.3 wants verifiers
// to do.
func proofURL(u *url.URL, host string) string {
	target := url.URL{Scheme: strings.ToLower(u.Scheme), Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	if host != "" {
		target.Host = host
	}
	target.Host = strings.ToLower(target.Host)
	switch port := target.Port(); {
	case target.Scheme == "https" && port == "443", target.Scheme == "http" && port == "80":
		target.Host = strings.TrimSuffix(target.Host, ":"+port)
	}
	if target.Path == "" {
		target.Path = "/"
	}
	return target.String()
}

const (
	// maxNonces bounds a nonceCache. A Source's tokens go to one API and are
	// requested from one server, or from a few: at the bound the cache starts anew.
	maxNonces = 100

	// maxNonce bounds the length of a nonce that is taken over.
	maxNonce = 1 << 10
)

// A nonceCache has the nonces of servers. Each is for the server that it came from
// alone, RFC 9449, Section 9. Safe for concurrent use.
type nonceCache struct {
	mu sync.Mutex // protects m
	m  map[origin]string
}

func (c *nonceCache) get(o origin) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[o]
}

// adopt takes over the nonce in an answer from o, successful or not, RFC 9449,
// Section 8.2. It reports whether that is another than the one given.
func (c *nonceCache) adopt(o origin, header http.Header, used string) bool {
	nonce := header.Get("DPoP-Nonce")
	if !isNonce(nonce) || nonce == used {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxNonces {
		c.m = make(map[origin]string)
	}
	c.m[o] = nonce
	return true
}

// isNonce reports whether s is a nonce by the grammar of RFC 9449, Section 8.1.
func isNonce(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}

// wantsNonce reports whether a server that answers with that error code, and a
// nonce, may accept the same request with it. Some say only that the proof is
// invalid, when its time is off: a server that gives nonces has no need of clocks.
func wantsNonce(code string) bool { return code == "use_dpop_nonce" || code == "invalid_dpop_proof" }

// prove adds a proof to an attempt, if tokens are to be bound to a key.
func (r *tokenRequest) prove(attempt *Attempt) error {
	if r.dpop == nil {
		return nil
	}
	if err := r.prepareProofs(); err != nil {
		return err
	}
	r.nonce = r.nonces.get(originOf(r.endpoint))
	proof, err := newProof(r.proofKey, http.MethodPost, r.endpoint, "", "", r.nonce, time.Now())
	if err != nil {
		return &authError{"DPoP", err}
	}
	attempt.Header.Set("DPoP", proof)
	return nil
}

// prepareProofs makes r.proofKey, if tokens are to be bound to one.
func (r *tokenRequest) prepareProofs() error {
	if r.dpop == nil || r.proofKey != nil {
		return nil
	}
	key, err := jws.NewKey(r.dpop, "")
	if err != nil {
		return &authError{"DPoP", err}
	}
	r.proofKey = key
	return nil
}

// adoptNonce takes over the nonce of the token endpoint.
func (r *tokenRequest) adoptNonce(header http.Header) {
	r.newNonce = r.dpop != nil && r.nonces.adopt(originOf(r.endpoint), header, r.nonce)
}

// wantsNonce reports whether err is an answer that asks for another proof with the
// nonce that came with it.
func (r *tokenRequest) wantsNonce(err error) bool {
	var refusal *oauth2.RetrieveError
	return r.newNonce && errors.As(err, &refusal) && wantsNonce(refusal.ErrorCode)
}

// sendProof sends req with the token of c and a proof, and once more if the API
// wants a nonce in that.
func (s *Source) sendProof(base http.RoundTripper, req *http.Request, c *cachedToken) (*http.Response, error) {
	target := originOf(req.URL)
	for again := false; ; again = true {
		nonce := s.nonces.get(target)
		proof, err := newProof(c.proofKey, req.Method, req.URL, req.Host, c.token.AccessToken, nonce, time.Now())
		if err != nil {
			return refuse(req, proofError(err))
		}
		sent := withAuthorization(req, c.authorization)
		sent.Header.Set("DPoP", proof)
		resp, err := roundTrip(base, sent)
		if err != nil || !s.nonces.adopt(target, resp.Header, nonce) || again {
			return resp, err
		}
		code, _ := challengeError(resp.Header.Values("WWW-Authenticate"), "DPoP")
		if resp.StatusCode != http.StatusUnauthorized || !wantsNonce(code) {
			return resp, nil
		}
		body, ok := bodyAgain(req)
		if !ok {
			return resp, nil
		}
		discard(resp)
		req = req.WithContext(req.Context())
		req.Body = body
	}
}

// Authorize adds to req's header what an API wants to see: a token, and a proof of
// possession (RFC 9449, Section 7.1) if the token is bound to Config.DPoP. It is
// for programs that send requests by themselves rather than through Config.Client
// or a Transport: where req goes, and whether the token may go there, is their
// business. It changes req, which must be sent once only and soon. Its errors are
// those of TokenContext with the request's context.
//
// See AdoptNonce for what to do with the answer.
func (s *Source) Authorize(req *http.Request) error {
	if req == nil || req.URL == nil {
		return errors.New("oauth2: the request has no URL")
	}
	c, err := s.get(req.Context(), 0)
	if err != nil {
		return err
	}
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	if c.proofKey != nil {
		proof, err := newProof(c.proofKey, req.Method, req.URL, req.Host, c.token.AccessToken, s.nonces.get(originOf(req.URL)), time.Now())
		if err != nil {
			return proofError(err)
		}
		req.Header.Set("DPoP", proof)
	}
	req.Header.Set("Authorization", c.authorization)
	return nil
}

// AdoptNonce takes over the DPoP nonce in an API's answer to a request that
// Authorize was used for, RFC 9449, Section 9, for the requests to come. It
// reports whether the API wants this one again with it: then call Authorize again,
// and send it once more.
func (s *Source) AdoptNonce(resp *http.Response) bool {
	if s == nil || resp == nil || resp.Request == nil || resp.Request.URL == nil {
		return false
	}
	target := originOf(resp.Request.URL)
	if !s.nonces.adopt(target, resp.Header, s.nonces.get(target)) {
		return false
	}
	code, _ := challengeError(resp.Header.Values("WWW-Authenticate"), "DPoP")
	return resp.StatusCode == http.StatusUnauthorized && wantsNonce(code)
}

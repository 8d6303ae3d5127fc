package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/dpop"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
)

// This file puts proofs of possession, RFC 9449, into token requests and API requests.
// Package internal/dpop makes them.

// prove adds a proof to an attempt, if tokens are bound to a key.
func (r *tokenRequest) prove(ctx context.Context, attempt *Attempt) error {
	if r.bound.key == nil {
		return nil
	}
	r.attempts.nonce = r.nonces.Get(origin.Of(r.endpoint))
	proof := dpop.Proof{Method: http.MethodPost, URL: r.endpoint, Nonce: r.attempts.nonce}
	signed, err := r.bound.key.Prove(ctx, proof, time.Now())
	if err != nil {
		return &authError{"DPoP", err}
	}
	attempt.Header.Set(dpop.Header, signed)
	return nil
}

// adoptNonce remembers the nonce of the token endpoint.
func (r *tokenRequest) adoptNonce(header http.Header) {
	r.attempts.newNonce = r.bound.key != nil && r.nonces.Adopt(origin.Of(r.endpoint), header, r.attempts.nonce)
}

// wantsNonce reports whether err is an answer that asks for another proof, with the nonce
// that came with the answer.
func (r *tokenRequest) wantsNonce(err error) bool {
	refusal := refusalOf(err)
	return r.attempts.newNonce && refusal != nil && dpop.IsNonceError(refusal.ErrorCode)
}

// proofNonces returns the nonces of s, or nil if it needs none.
func (s *Source) proofNonces() *dpop.Nonces {
	if s.conf == nil || s.conf.DPoP == nil {
		return nil
	}
	return &s.root().rarely().nonces
}

// proveRequest adds to header a proof for req by the key that c is bound to. It returns the
// nonce in the proof.
func (s *Source) proveRequest(req *http.Request, header http.Header, c *cachedToken) (nonce string, err error) {
	nonce = s.root().rarely().nonces.Get(origin.Of(req.URL))
	proof := dpop.Proof{Method: req.Method, URL: req.URL, Host: req.Host, AccessToken: c.accessToken(), Nonce: nonce}
	signed, err := c.bound.key.Prove(req.Context(), proof, time.Now())
	if err != nil {
		return "", fmt.Errorf("oauth2: cannot make the proof for DPoP: %w", err)
	}
	header.Set(dpop.Header, signed)
	return nonce, nil
}

// sendProof sends req with the token of c and a proof. If the API asks for a nonce in the
// proof, it sends req once more.
func (s *Source) sendProof(base http.RoundTripper, req *http.Request, c *cachedToken) (*http.Response, error) {
	target := origin.Of(req.URL)
	for again := false; ; again = true {
		sent := withAuthorization(req, c.authorization)
		nonce, err := s.proveRequest(req, sent.Header, c)
		if err != nil {
			return refuse(req, err)
		}
		resp, err := roundTrip(base, sent)
		if err != nil || !s.root().rarely().nonces.Adopt(target, resp.Header, nonce) || again || !dpop.AsksForNonce(resp) {
			return resp, err
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

// Authorize adds to req's header what an API asks for: a token, and a proof of
// possession (RFC 9449, Section 7.1) if the token is bound to Config.DPoP. It is
// for programs that send requests themselves rather than through Config.Client
// or a Transport. Such a program decides by itself where the request goes, and whether the
// token may go there. Authorize changes req, which must be sent only once and soon. Its
// errors are those of TokenContext with the request's context, and those of the key.
//
// Give the answer to AdoptNonce.
func (s *Source) Authorize(req *http.Request) error {
	if req == nil || req.URL == nil {
		return errors.New("oauth2: the request has no URL")
	}
	s = s.serving(req.Context())
	c, err := s.get(req.Context(), 0)
	if err != nil {
		return err
	}
	if c.foreign {
		return errNotAccessToken
	}
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	if c.bound.key != nil {
		if _, err := s.proveRequest(req, req.Header, c); err != nil {
			return err
		}
	}
	req.Header.Set("Authorization", c.authorization)
	return nil
}

// AdoptNonce remembers the DPoP nonce in an API's answer, RFC 9449, Section 9, for later
// calls of Authorize. It reports whether the API asks for the same request with the new
// nonce: then call Authorize again, and send the request once more.
func (s *Source) AdoptNonce(resp *http.Response) bool {
	if s == nil || resp == nil || resp.Request == nil || resp.Request.URL == nil {
		return false
	}
	// Another request may have brought the same nonce in the meantime. This one is sent again if
	// it hasn't used the nonce.
	used := dpop.NonceIn(resp.Request.Header)
	return s.root().rarely().nonces.Adopt(origin.Of(resp.Request.URL), resp.Header, used) && dpop.AsksForNonce(resp)
}

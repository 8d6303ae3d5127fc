package clientcredentials

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
)

// This file is about APIs that ask for another token than the one they got.

// A Challenge is what an API has against a token, or what it asks for instead, from an
// answer with status 401 or 403: the WWW-Authenticate for the scheme of the token, RFC 9110,
// Section 11.6.1. The texts are the API's and may be anything.
type Challenge struct {
	StatusCode       int    // 401 or 403
	Scheme           string // such as Bearer
	Error            string // the error code, such as insufficient_scope (RFC 6750, Section 3.1); empty: there is none
	Scope            string // the scopes that the API asks for, with spaces between them (RFC 6750, Section 3)
	Claims           string // the claims that Microsoft's APIs ask for, as they came, in base64
	ResourceMetadata string // the address of the API's metadata (RFC 9728, Section 5.1), for DiscoverResourceAt

	// Target is what the token was for that the API got. If it has no Scopes of its own, they
	// are those of the Config, or those in EndpointParams. To ask for more than before,
	// change a copy of it.
	Target Target

	claims string // the parameter claims that the program itself sends; empty: none
}

// ScopeChallenge returns a function for Config.Challenged that answers insufficient_scope
// (RFC 6750, Section 3.1): it asks for the scopes that the API names, in addition to those
// that the token has. Only the allowed scopes are ever added, because an API must not
// choose what a program may do elsewhere. If the API names none of them that is missing,
// the caller gets the API's answer.
func ScopeChallenge(allowed ...string) func(context.Context, *Challenge) (*Target, error) {
	allowed = slices.Clone(allowed)
	return func(_ context.Context, c *Challenge) (*Target, error) {
		if c.Error != "insufficient_scope" {
			return nil, nil
		}
		target := c.Target
		target.Scopes = slices.Clone(target.Scopes)
		for scope := range strings.FieldsSeq(c.Scope) {
			if slices.Contains(allowed, scope) && !slices.Contains(target.Scopes, scope) {
				target.Scopes = append(target.Scopes, scope)
			}
		}
		if len(target.Scopes) == len(c.Target.Scopes) {
			return nil, nil
		}
		return &target, nil
	}
}

// maxClaims bounds the claims of a challenge. Those of Entra ID have 200 bytes.
const maxClaims = 4 << 10

// ClaimsChallenge is a function for Config.Challenged that answers insufficient_claims, with
// which APIs of Microsoft ask for a new token when something about the client has changed
// (continuous access evaluation). It asks for a token with these claims, as the
// parameter claims. Such APIs ask only clients that say so with their own claims, in
// EndpointParams or in a Target:
//
//	{"access_token":{"xms_cc":{"values":["cp1"]}}}
//
// The claims of the API are added to those. Claims that aren't a JSON object, or are longer
// than 4 KiB, are ignored: the caller gets the API's answer.
func ClaimsChallenge(_ context.Context, c *Challenge) (*Target, error) {
	claims := decodeClaims(c.Claims)
	if c.Error != "insufficient_claims" || claims == "" {
		return nil, nil
	}
	target := c.Target
	target.Params = cloneValues(target.Params)
	target.Params.Set("claims", mergeClaims(c.claims, claims))
	return &target, nil
}

// mergeClaims returns the claims of a program with those that an API asks for. Where both have
// a value, it is the API's.
func mergeClaims(own, asked string) string {
	var merged, added map[string]any
	if json.Unmarshal([]byte(own), &merged) != nil || merged == nil || json.Unmarshal([]byte(asked), &added) != nil {
		return asked
	}
	addMembers(merged, added)
	text, err := json.Marshal(merged)
	if err != nil {
		return asked
	}
	return string(text)
}

func addMembers(to, from map[string]any) {
	for name, value := range from {
		inner, isObject := value.(map[string]any)
		if old, ok := to[name].(map[string]any); ok && isObject {
			addMembers(old, inner)
			continue
		}
		to[name] = value
	}
}

// decodeClaims returns the JSON object in encoded; empty: there is none.
func decodeClaims(encoded string) string {
	// Some APIs use the alphabet for URLs, some leave out the padding.
	text, err := base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(encoded))
	if err != nil || len(encoded) > maxClaims || !json.Valid(text) || text[0] != '{' {
		return ""
	}
	return string(text)
}

// minChallenge is the least time between two targets that an API can make a Source ask for.
const minChallenge = 30 * time.Second

// challenges is what a Source remembers of the challenges of an API.
type challenges struct {
	successor atomic.Pointer[Source] // serves what this Source served; nil: none

	// These require that Source.mu is held.
	last   clock.Instant // when a target was asked for because of a challenge
	key    string        // of that target; empty: there was none
	failed bool          // the token request for it
}

// admit reports whether a token may be requested for the target with that key.
func (c *challenges) admit(now time.Time, key string) bool {
	if key == c.key && !c.failed {
		return true // It is cached, or under way.
	}
	if c.key != "" && c.last.Age(now) < minChallenge {
		return false
	}
	c.last, c.key, c.failed = clock.At(now), key, false
	return true
}

// effective returns the Source that serves what s is for: after a challenge that is another.
func (s *Source) effective() *Source {
	if s == nil {
		return nil
	}
	if rare := s.rare.Load(); rare != nil {
		if successor := rare.challenges.successor.Load(); successor != nil {
			return successor
		}
	}
	return s
}

// serving returns the Source that serves the target in ctx, else what s is for.
func (s *Source) serving(ctx context.Context) *Source {
	if targetsInUse.Load() { // Two calls less for those who have no targets.
		s = s.forContext(ctx)
	}
	return s.effective()
}

// answerChallenge handles resp, an answer to req with that Authorization value. If the API
// asks for another token, and the program agrees, it returns that token. Nil: there is none to
// be had.
func (s *Source) answerChallenge(req *http.Request, authorization string, resp *http.Response) (*cachedToken, error) {
	hook := s.conf.Challenged
	if hook == nil {
		return nil, nil
	}
	c := newChallenge(authorization, resp)
	if c == nil {
		return nil, nil
	}
	ctx, used := req.Context(), s.effective()
	if meant := hasAuthorization(authorization); !used.knows(meant) {
		if s.holder(meant) == nil {
			return nil, nil // The program sends a token of its own.
		}
		return used.other(ctx, authorization), nil // Another request was challenged before this one.
	}
	c.Target = decodeTarget(used.targetKey())
	c.Target.fillScopes(s.conf)
	before := c.Target.encode() // The program may change c.
	own := decodeTarget(s.targetKey())
	c.claims = cmp.Or(own.Params.Get("claims"), s.conf.EndpointParams.Get("claims"))
	target, err := bounded.Do(ctx, func(ctx context.Context) (*Target, error) { return hook(ctx, c) })
	switch {
	case err != nil:
		return nil, fmt.Errorf("oauth2: Config.Challenged: %w", err)
	case target == nil:
		return nil, nil
	}
	key := target.encode()
	if key == used.targetKey() || key == before {
		return nil, nil
	}
	s.mu.Lock()
	admitted := s.rarely().challenges.admit(time.Now(), key)
	s.mu.Unlock()
	if !admitted {
		return nil, nil
	}
	next := s.forKey(key)
	token := next.other(ctx, authorization)
	if token == nil {
		s.mu.Lock()
		s.rarely().challenges.failed = ctx.Err() == nil // Otherwise the token request goes on for the next caller.
		s.mu.Unlock()
		return nil, nil
	}
	s.rarely().challenges.successor.Store(next)
	return token, nil
}

// knows reports whether s has, or has just had, the token that is meant.
func (s *Source) knows(meant func(*cachedToken) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.current.Load()
	return c != nil && meant(c) || s.previous != nil && meant(s.previous)
}

// other returns a token with another Authorization value, or nil. The API's answer says more
// than the reason why there is none.
func (s *Source) other(ctx context.Context, authorization string) *cachedToken {
	c, err := s.get(ctx, 0)
	if err != nil || c.authorization == authorization {
		return nil
	}
	return c
}

// newChallenge returns the challenge in an answer with status 401 or 403, or nil if there is
// none for the scheme of the token or for Bearer, or if it only says that the token isn't
// valid anymore: then another one for the same target is what it takes.
func newChallenge(authorization string, resp *http.Response) *Challenge {
	values := resp.Header.Values("WWW-Authenticate")
	scheme := challengedScheme(values, authorization)
	parameters, found := challenge.Parameters(values, scheme)
	c := &Challenge{
		StatusCode:       resp.StatusCode,
		Scheme:           scheme,
		Error:            parameters["error"],
		Scope:            parameters["scope"],
		Claims:           parameters["claims"],
		ResourceMetadata: parameters["resource_metadata"],
	}
	if !found || c.Error == codeInvalidToken && c.Claims == "" {
		return nil
	}
	return c
}

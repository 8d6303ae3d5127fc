package clientcredentials

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/tlsalert"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// A Target is what a token is for, where that differs from the Config: with targets one
// client gets tokens for many APIs, tenants or sets of scopes. Each target has its own
// token, which is cached, requested once for all callers, refreshed in the background and
// shared through Config.Store like any other.
//
// A field that is nil or empty leaves what the Config says. Scopes and Resources that are
// empty but not nil ask for none.
type Target struct {
	// Scopes take the place of Config.Scopes, and of a scope in Config.EndpointParams. Their
	// order has no meaning.
	Scopes []string

	// Resources are the addresses of the APIs that the token is for, RFC 8707. Their order
	// has no meaning.
	Resources []string

	// Audience is the parameter audience, which some servers want instead of resources.
	Audience string

	// Params are further parameters, such as authorization_details (RFC 9396). Each takes
	// the place of the one with its name in Config.EndpointParams. One with an empty list
	// removes it.
	Params url.Values
}

// maxTargets is how many targets a Source remembers.
const maxTargets = 100

// WithTarget returns a context for requests to an API that needs another token than the one
// that the Config describes. Client, Transport, Source.TokenContext, Source.TokenFor,
// Source.AccessToken, Source.Authorize and package grpccredentials obey it. With the zero
// Target they use the Config's own token again.
//
// A Transport whose Source isn't a *Source knows no targets: there such a request fails.
func WithTarget(ctx context.Context, t Target) context.Context {
	targetsInUse.Store(true)
	key := t.encode()
	return context.WithValue(ctx, targetKey{}, &key)
}

// targetKey is the key of a *string in a context: an encoded Target.
type targetKey struct{}

// targetsInUse says that WithTarget has been called in this process. Otherwise nobody needs
// to look for a target in a context.
var targetsInUse atomic.Bool

// targetIn returns the encoded target in ctx.
func targetIn(ctx context.Context) (key string, found bool) {
	if !targetsInUse.Load() || ctx == nil {
		return "", false
	}
	if found, ok := ctx.Value(targetKey{}).(*string); ok {
		return *found, true
	}
	return "", false
}

// withoutTarget returns ctx for a token request: what it calls, such as a ClientAuth or an
// HTTPClient, may have a Source of its own, which must not obey the same target.
func withoutTarget(ctx context.Context) context.Context {
	if key, _ := targetIn(ctx); key != "" {
		return WithTarget(ctx, Target{})
	}
	return ctx
}

// encode returns a text that is the same only for equal targets: the order of scopes and of
// resources has no meaning, everything else has one. It is empty for the zero Target.
func (t *Target) encode() string {
	if t.Scopes == nil && t.Resources == nil && t.Audience == "" && len(t.Params) == 0 {
		return ""
	}
	var b []byte
	number := func(n int) { b = binary.AppendUvarint(b, uint64(n)) } //nolint:gosec // A length is no less than 0.
	list := func(values []string) {
		number(len(values))
		for _, value := range values {
			number(len(value))
			b = append(b, value...)
		}
	}
	for _, values := range [][]string{t.Scopes, t.Resources} {
		if values == nil {
			number(0)
			continue
		}
		number(1)
		list(slices.Sorted(slices.Values(values)))
	}
	list([]string{t.Audience})
	number(len(t.Params))
	for _, name := range slices.Sorted(maps.Keys(t.Params)) {
		list([]string{name})
		list(t.Params[name])
	}
	return string(b)
}

// decodeTarget returns the Target that encode has encoded.
func decodeTarget(key string) (t Target) {
	if key == "" {
		return t
	}
	rest := []byte(key)
	number := func() int {
		n, size := binary.Uvarint(rest)
		rest = rest[size:]
		return int(n) //nolint:gosec // It was an int.
	}
	list := func() []string {
		values := make([]string, number())
		for i := range values {
			n := number()
			values[i], rest = string(rest[:n]), rest[n:]
		}
		return values
	}
	if number() == 1 {
		t.Scopes = list()
	}
	if number() == 1 {
		t.Resources = list()
	}
	t.Audience = list()[0]
	if n := number(); n > 0 {
		t.Params = make(url.Values, n)
		for range n {
			name := list()[0]
			t.Params[name] = list()
		}
	}
	return t
}

// apply changes c, which is a copy, to what the target says.
func (t *Target) apply(c *Config) {
	own := make(url.Values)
	if t.Scopes != nil {
		c.Scopes, own["scope"] = t.Scopes, nil
	}
	if t.Resources != nil {
		own["resource"] = t.Resources
	}
	if t.Audience != "" {
		own.Set("audience", t.Audience)
	}
	maps.Copy(own, t.Params)
	params := make(url.Values)
	maps.Copy(params, c.EndpointParams)
	for name, values := range own {
		if len(values) == 0 {
			delete(params, name)
			continue
		}
		params[name] = values
	}
	c.EndpointParams = params
}

// fillScopes makes t, which may have no Scopes, name those that it asks for if it is applied to
// c, even if a parameter says which.
func (t *Target) fillScopes(c *Config) {
	if t.Scopes != nil {
		return
	}
	applied := Config{Scopes: c.Scopes, EndpointParams: c.EndpointParams}
	t.apply(&applied)
	t.Scopes = append(t.Scopes, applied.Scopes...)
	if scopes := strings.Fields(strings.Join(applied.EndpointParams["scope"], " ")); len(scopes) > 0 {
		t.Scopes = scopes
		delete(t.Params, "scope") // There is one or the other.
	}
}

// ID returns a short text that identifies the target in events: 16 hexadecimal digits, or
// nothing for the zero Target. It doesn't show what the target is.
func (t Target) ID() string { return targetID(t.encode()) }

func targetID(key string) string {
	if key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:8])
}

// String returns a description of t without its Params, which may be secret, but for a number
// that is another one in each process.
func (t Target) String() string {
	return fmt.Sprintf("clientcredentials.Target{Scopes: %q, Resources: %q, Audience: %q%s}", t.Scopes, t.Resources, t.Audience, printableValues("Params", t.Params))
}

// GoString returns what String does.
func (t Target) GoString() string { return t.String() }

// Format prints what String returns, whatever the verb.
func (t Target) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue returns what String does, for log/slog.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.String()) }

// For returns a Source for the tokens of a target. Equal targets have the same Source, and
// the zero Target has the Source that the Config made. For of such a Source, too, is about
// what differs from the Config, and not from that Source.
//
// What is the client's, and not the target's, is shared: the pause after the server has
// refused the client (invalid_client) or asked it to slow down (429), DPoP nonces, the auth
// style that was found out, and connections that present the client's certificate. A target
// that is slow, or is refused for another reason, delays no other.
//
// A Source remembers 100 targets, and then forgets the one that hasn't been used for the
// longest time, but none with a token request under way. A forgotten Source that the program
// still has goes on working by itself.
func (s *Source) For(t Target) *Source { return s.forKey(t.encode()) }

// forContext returns the Source for the target in ctx, else s.
func (s *Source) forContext(ctx context.Context) *Source {
	if key, found := targetIn(ctx); found {
		return s.forKey(key)
	}
	return s
}

// targeted is what a Source for a target has besides what every Source has.
type targeted struct {
	root *Source // the one that the Config made
	key  string  // the encoded Target
	id   string
	used uint64 // when it was used last, by the clock of family; protected by family.mu
}

// A family is what the Sources for the targets of one Source share.
type family struct {
	mu       sync.Mutex // protects what follows; no other lock is taken while it is held
	members  map[string]*Source
	clock    uint64   // counts uses
	cooldown cooldown // after failures that are about the client
}

// root returns the Source that has what all targets share: s itself, or the one it is from.
func (s *Source) root() *Source {
	if s.target != nil {
		return s.target.root
	}
	return s
}

// relatives returns the family of s, or nil if it has no targets.
func (s *Source) relatives() *family {
	if rare := s.root().rare.Load(); rare != nil {
		return rare.family.Load()
	}
	return nil
}

// targetKey returns the encoded target of s; empty: it has none.
func (s *Source) targetKey() string {
	if s.target == nil {
		return ""
	}
	return s.target.key
}

// targetID returns what identifies the target of s in events; empty: it has none.
func (s *Source) targetID() string {
	if s.target == nil {
		return ""
	}
	return s.target.id
}

func (s *Source) forKey(key string) *Source {
	if s == nil || s.conf == nil {
		return s
	}
	root := s.root()
	if key == "" {
		return root
	}
	rare := root.rarely()
	if rare.family.Load() == nil {
		rare.family.CompareAndSwap(nil, &family{members: make(map[string]*Source)})
	}
	return rare.family.Load().member(root, key)
}

// member returns the Source for a target.
func (f *family) member(root *Source, key string) *Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock++
	s := f.members[key]
	if s == nil {
		f.evict()
		s = &Source{conf: root.conf, ctx: root.ctx, origins: root.origins, target: &targeted{root: root, key: key, id: targetID(key)}}
		f.members[key] = s
	}
	s.target.used = f.clock
	if next := s.effective(); next.target != nil {
		next.target.used = f.clock // It serves s.
	}
	return s
}

// evict makes room for one more target, unless all of them have a token request under way.
func (f *family) evict() {
	if len(f.members) < maxTargets {
		return
	}
	var oldest *Source
	for _, s := range f.members {
		if !s.flying.Load() && (oldest == nil || s.target.used < oldest.target.used) {
			oldest = s
		}
	}
	if oldest != nil {
		delete(f.members, oldest.target.key)
	}
}

// holder returns the Source among the relatives of s that has, or has just had, the token that
// is meant, or nil if none has.
func (s *Source) holder(meant func(*cachedToken) bool) *Source {
	candidates := []*Source{s.effective(), s}
	if family := s.relatives(); family != nil {
		family.mu.Lock()
		candidates = slices.AppendSeq(candidates, maps.Values(family.members))
		family.mu.Unlock()
		candidates = append(candidates, s.root().effective(), s.root())
	}
	for _, candidate := range candidates {
		if candidate.knows(meant) {
			return candidate
		}
	}
	return nil
}

// concernsClient reports whether the token request failed with err for a reason that is the
// client's, and not its target's: it has no credentials, the server doesn't accept them or
// its certificate, or has had too many of its requests.
func (r *tokenRequest) concernsClient(err error) bool {
	var grant *grantError
	if errors.As(err, &grant) {
		return false // Authorize may succeed for another target.
	}
	var authentication *authError
	if errors.As(err, &authentication) || tlsalert.Is(err) {
		return true
	}
	refusal := refusalOf(err)
	if refusal == nil {
		return false
	}
	switch refusal.Response.StatusCode {
	case http.StatusTooManyRequests:
		return true
	case http.StatusUnauthorized:
		return r.about(err) != tokenresponse.AboutRequest
	}
	return refusal.ErrorCode == "invalid_client"
}

// landed notes how a token request for one of the targets has ended.
func (f *family) landed(now time.Time, request *tokenRequest, err error, draw float64) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.cooldown = cooldown{}
	case request.concernsClient(err):
		f.cooldown.fail(now, request, err, draw)
	}
}

// pausing returns the last error that concerns all targets, if there must be no token
// request yet. usable says that the callers have a token meanwhile.
func (f *family) pausing(now time.Time, c *Config, usable bool) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cooldown.request == nil {
		return nil
	}
	if !f.cooldown.request.isFor(c) {
		f.cooldown = cooldown{}
	}
	if f.cooldown.end(usable).Passed(now) {
		return nil
	}
	return f.cooldown.err
}

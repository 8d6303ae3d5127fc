package clientauth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/assertion"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

const (
	// readTimeout bounds one reading of all keys of a JWKSet.
	readTimeout = 10 * time.Second

	// goneAfter is how long the file of a published key is missing before the key is dropped. A
	// program may remove the file before it writes the new one.
	goneAfter = 10 * time.Second

	// jwksMaxAge is how long a server may use a set before it asks again.
	jwksMaxAge = 5 * time.Minute
)

// A JWKSet publishes the public keys of a client as a JWK Set, RFC 7517, Section 5. As an
// http.Handler it serves the address that is registered with the authorization server as the
// client's jwks_uri (RFC 7591, Section 2). JSON returns the set itself, for servers that
// want it as the client's jwks. Use JWKS to make one.
//
// For each key the set has
//
//   - kid: the KeyID of the SigningKey, which PrivateKeyJWT sends, too, unless it has a KeyID
//     of its own. A key without one is published under its thumbprint (RFC 7638). Use
//     ThumbprintKeyID so that assertions also have it.
//   - use, which is sig, and alg if the SigningKey has an Algorithm or can sign with one only.
//   - x5c with the chain, and x5t#S256, if the key is that of a certificate, for servers that
//     know the client by it.
//
// # Rotation
//
// A server accepts a key only after it has read it. So a new key is published first, and signs
// later:
//
//  1. Publish the current key and the next one.
//  2. Wait until servers have read the set again. They may keep it for five minutes, and some
//     do for longer, so an hour is a safe time.
//  3. Sign with the next key. Keep the old one published until the last assertion that it has
//     signed has expired, which takes a minute.
//  4. Remove the old key.
//
// With files this needs no restart, because a file that doesn't exist has no key: the example
// of JWKS shows it. A published key is removed once two readings, at least ten seconds apart,
// have found no file. A program may remove the file before it writes the new one. If there is
// a file but its key can't be read, perhaps because only a part has been written so far, the
// set keeps the key that the file had before. So a mistake in one file never takes away a key
// that is in use.
//
// It is safe for concurrent use if the sources of the keys are.
type JWKSet struct {
	sources []KeySource
	turn    chan struct{} // full while a goroutine reads the keys
	current atomic.Pointer[publishedSet]
}

// A publishedSet is the result of reading all keys. It is never changed.
type publishedSet struct {
	keys     []json.RawMessage // by source; nil: it has no key
	missing  []time.Time       // by source; since when its file is missing; zero: it isn't
	document json.RawMessage
	read     time.Time
}

// JWKS returns a set with the public keys of these sources. Give it the sources of
// PrivateKeyJWT: the keys that it signs with, and those that it will sign with.
//
// The keys are read again when they are asked for, but at most once a second.
func JWKS(keys ...KeySource) *JWKSet {
	return &JWKSet{sources: slices.Clone(keys), turn: make(chan struct{}, 1)}
}

// JSON returns the set as JSON. Call it once when the program starts, to see mistakes.
//
// It is an error if there is no key, or if a key can't be read that has never been read
// before. One whose file doesn't exist is left out. A shared secret isn't published: it is an
// error, too.
func (s *JWKSet) JSON(ctx context.Context) (json.RawMessage, error) {
	set, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clone(set.document), nil
}

// ServeHTTP answers GET and HEAD with the set. Where JSON returns an error, it answers 503
// without saying why, because everybody may ask. Servers then go on with the set that they
// have.
func (s *JWKSet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	set, err := s.get(r.Context())
	if err != nil {
		header.Set("Cache-Control", "no-store")
		http.Error(w, "the keys can't be read", http.StatusServiceUnavailable)
		return
	}
	header.Set("Content-Type", "application/jwk-set+json") // RFC 7517, Section 8.5.2.
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", jwksMaxAge/time.Second))
	header.Set("ETag", `"`+jws.Digest(set.document)+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(set.document))
}

// isFresh reports whether s can be used without reading the keys again.
func (s *publishedSet) isFresh() bool { return s != nil && time.Since(s.read) < reloadInterval }

// get returns the current set. Only one goroutine reads the keys at a time. Others use the
// previous set if there is one, and else wait.
func (s *JWKSet) get(ctx context.Context) (*publishedSet, error) {
	previous := s.current.Load()
	if previous != nil {
		select {
		case s.turn <- struct{}{}:
		default:
			return previous, nil
		}
	} else {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if previous = s.current.Load(); previous.isFresh() {
		<-s.turn
		return previous, nil
	}
	// Others need the result even if this caller leaves.
	reading, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), readTimeout, fmt.Errorf("reading the keys took longer than %v: %w", readTimeout, context.DeadlineExceeded))
	call := bounded.Start(reading, func(ctx context.Context) (*publishedSet, error) {
		return s.read(ctx, previous)
	}, func(next *publishedSet, err error) func() {
		switch {
		case err == nil, errors.Is(err, errNoKeys):
			s.current.Store(next)
		case previous != nil:
			same := *previous
			same.read = time.Now()
			s.current.Store(&same)
		}
		<-s.turn
		return cancel
	})
	next, err := call.Wait(ctx)
	if err != nil && previous != nil && !errors.Is(err, errNoKeys) {
		return previous, nil
	}
	return next, err
}

// errNoKeys is the error if no source has a key.
var errNoKeys = errors.New("there is no key to publish; check the sources that were given to JWKS")

// read reads all keys. A key that can't be read is the one in previous, which may be nil. So is
// one whose file is missing, until goneAfter has passed.
func (s *JWKSet) read(ctx context.Context, previous *publishedSet) (*publishedSet, error) {
	next := &publishedSet{keys: make([]json.RawMessage, len(s.sources)), missing: make([]time.Time, len(s.sources))}
	now := time.Now()
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	for i, source := range s.sources {
		key, err := publicKey(ctx, source)
		isMissing := errors.Is(err, fs.ErrNotExist)
		switch {
		case err == nil:
		case previous != nil:
			key = previous.keys[i]
			if isMissing {
				next.missing[i] = cmp.Or(previous.missing[i], now)
			}
			if isMissing && now.Sub(next.missing[i]) >= goneAfter {
				key = nil
			}
		case !isMissing:
			return nil, err
		}
		next.keys[i] = key
		isKnown := slices.ContainsFunc(document.Keys, func(known json.RawMessage) bool { return bytes.Equal(known, key) })
		if key != nil && !isKnown {
			document.Keys = append(document.Keys, key)
		}
	}
	if document.Keys == nil {
		return nil, errNoKeys
	}
	var err error
	next.document, err = json.Marshal(document)
	next.read = time.Now()
	return next, err
}

// publicKey returns the public part of the key of source as a JWK, RFC 7517, Section 4.
func publicKey(ctx context.Context, source KeySource) (json.RawMessage, error) {
	signing, err := signingKey(ctx, source)
	if err != nil {
		return nil, err
	}
	key, err := jws.NewKey(signing.Signer, signing.Algorithm)
	if err != nil {
		return nil, err
	}
	members := map[string]any{"use": "sig", "kid": key.Thumbprint()}
	if err := json.Unmarshal(key.JWK(), &members); err != nil {
		return nil, err
	}
	if signing.KeyID != "" {
		members["kid"] = signing.KeyID
	}
	if signing.Algorithm != "" || key.IsOnlyAlgorithm() {
		members["alg"] = key.Algorithm()
	}
	if signing.Certificate != nil {
		certificate, err := assertion.CertificateHeader(signing.Signer, signing.Certificate, signing.Chain, []string{"x5c", "x5t#S256"})
		if err != nil {
			return nil, err
		}
		maps.Copy(members, certificate)
	}
	return json.Marshal(members)
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/filestore"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// closingTime is how long a process waits for the end of its lease before it exits. Without
// that, others would wait until the lease expires.
const closingTime = 250 * time.Millisecond

// cacheFlags are the flags about the cache.
type cacheFlags struct {
	use, renew   bool
	dir, keyFile string
}

// addCacheFlags adds the flags about the cache. use says whether it is used without a flag.
func (c *call) addCacheFlags(use bool) *cacheFlags {
	f := new(cacheFlags)
	c.flags.BoolVar(&f.use, "cache", use, "")
	c.flags.BoolVar(&f.renew, "renew", false, "")
	c.flags.StringVar(&f.dir, "cache-dir", "", "")
	c.flags.StringVar(&f.keyFile, "cache-key-file", "", "")
	return f
}

// check reports why the token for s can't be cached.
func (f *cacheFlags) check(s *settings) error {
	if !f.use {
		if f.renew || f.dir != "" || f.keyFile != "" {
			return usagef("-renew, -cache-dir and -cache-key-file are about the cache; give -cache, too")
		}
		return nil
	}
	if s.ClientID == "" {
		return usagef("without a client id nobody can tell whose token is in the cache; give -client-id, or set CLIENT_ID, or leave the cache out with -cache=false")
	}
	for name := range s.Form {
		if redact.ForbidsSharing(name) {
			return usagef("-params contains %s, which looks like a secret, and the name of a cached token would depend on it; leave the cache out with -cache=false", name)
		}
	}
	return nil
}

// A cache keeps tokens for later calls of cctoken by the same user. The library decides
// everything about them, as if the processes were replicas of a service. Only the files are
// ours.
type cache struct {
	call   *call
	shared *clientcredentials.SharedStore
	store  *filestore.Store
	renew  bool

	mu       sync.Mutex // protects what follows
	problems []string   // why a token wasn't taken from the cache, or put into it
}

// openCache returns the cache for the flags. Nil: none is wanted, or there is a warning about
// why none can be used. A token is worth more than a cache.
func (c *call) openCache(f *cacheFlags) (*cache, error) {
	if !f.use {
		return nil, nil
	}
	var key []byte
	var keyring *clientcredentials.Keyring
	if f.keyFile != "" {
		var err error
		if key, err = os.ReadFile(f.keyFile); err != nil {
			return nil, usagef("-cache-key-file: %w", err)
		}
		if keyring, err = clientcredentials.NewKeyring(key); err != nil {
			return nil, usagef("-cache-key-file: %s must have 32 random bytes or more; make one with openssl rand 32", f.keyFile)
		}
	}
	dir := f.dir
	if dir == "" {
		parent, err := os.UserCacheDir()
		if err != nil {
			c.warn("there is no folder for the cache, so the token isn't cached: %v; give -cache-dir", err)
			return nil, nil
		}
		dir = filepath.Join(parent, "cctoken")
	}
	k := &cache{call: c, renew: f.renew}
	var err error
	if k.store, err = filestore.Open(dir, k.note); err != nil {
		c.warn("the token isn't cached: %v; -cache-dir names another folder", err)
		return nil, nil
	}
	k.shared = clientcredentials.DangerouslyShareInPlaintext(k.store)
	if keyring != nil {
		// With another key, or with none, a token has another file. Otherwise each call would
		// find one that it can't read, and leave it alone.
		sum := sha256.Sum256(append([]byte("cctoken cache "), key...))
		k.shared = clientcredentials.Seal(k.store, keyring).For(hex.EncodeToString(sum[:]))
	}
	return k, nil
}

// note remembers why the cache couldn't be used. It may be called at any time.
func (k *cache) note(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problems = append(k.problems, err.Error())
}

// token returns a token for conf. With -renew it is another one than that in the cache. sent
// returns how many requests were sent so far.
func (k *cache) token(ctx context.Context, conf *clientcredentials.Config, sent func() int) (*oauth2.Token, error) {
	conf.Store = k.shared
	source := conf.Source(ctx)
	before := sent()
	token, err := source.TokenContext(ctx)
	if err == nil && k.renew && sent() == before {
		if source.Reject(token) {
			token, err = source.TokenContext(ctx)
		} else {
			k.call.warn("the token was renewed less than 30 seconds ago, so it isn't renewed again; if the API rejects this one, too, ask its operator why")
		}
	}
	if err == nil && !token.Expiry.IsZero() && sent() == before {
		token.ExpiresIn = int64(time.Until(token.Expiry) / time.Second) // It was right when the token was issued.
	}
	return token, err
}

// close ends the use of the cache, and prints a warning if something was wrong with it.
func (k *cache) close(ctx context.Context) {
	if k == nil {
		return
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingTime)
	defer cancel()
	_ = k.store.Close(closing)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.problems) > 0 && ctx.Err() == nil {
		k.call.warn("the cache: %s", k.problems[0])
	}
}

// warn prints a warning.
func (c *call) warn(format string, args ...any) {
	fmt.Fprintf(c.stderr, "cctoken %s: warning: %s\n", c.name, redact.OneLine(fmt.Sprintf(format, args...)))
}

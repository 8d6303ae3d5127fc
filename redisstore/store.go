package redisstore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// DefaultPrefix is what the keys in Redis begin with if Store.Prefix is empty.
const DefaultPrefix = "clientcredentials:"

// New returns a store for Config.Store that shares encrypted tokens through the Redis of
// client. It doesn't connect, and it reports no error itself. The first call that needs a
// token reports a missing keyring, and the Observer is told of errors of Redis. Any number
// of Configs can use the store.
//
// To use another prefix for the keys, seal a Store yourself:
// clientcredentials.Seal(&Store{…}, keyring).
func New(client redis.UniversalClient, keyring *clientcredentials.Keyring) *clientcredentials.SharedStore {
	return clientcredentials.Seal(&Store{Client: client}, keyring)
}

// A Store implements tokenstore.Store with Redis. It encrypts nothing: pass it to
// clientcredentials.Seal, as New does. It is safe for concurrent use once its fields
// are set.
//
// Its errors wrap those of Client, and reveal nothing about tokens.
type Store struct {
	// Client is the connection to Redis. Nil: every call fails.
	Client redis.UniversalClient

	// Prefix is what the keys in Redis begin with. Services share tokens only if they
	// have the same prefix. Empty: DefaultPrefix.
	Prefix string
}

var _ tokenstore.Store = (*Store)(nil)

// Acquire implements tokenstore.Store.
func (s *Store) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	reply, err := s.run(ctx, &acquire, key, owner, stale, lease.Milliseconds())
	if err != nil {
		return tokenstore.Claim{}, err
	}
	if size, ok := largeOf(reply); ok {
		return tokenstore.Claim{}, fmt.Errorf("oauth2: redisstore: %s: the hash at the key %q has a text of %d bytes, which doesn't come from this package; delete it", acquire.name, s.key(key), size)
	}
	claim, ok := claimOf(reply)
	if !ok {
		return tokenstore.Claim{}, acquire.unexpected(reply)
	}
	return claim, nil
}

// Renew implements tokenstore.Store.
func (s *Store) Renew(ctx context.Context, key, owner string, lease time.Duration) error {
	reply, err := s.run(ctx, &renew, key, owner, lease.Milliseconds())
	if err != nil {
		return err
	}
	return renew.held(reply)
}

// Publish implements tokenstore.Store. When the connection breaks, go-redis may send a
// command twice. Publish then returns ErrLeaseLost although it has stored the record, and
// the next Acquire returns that record.
func (s *Store) Publish(ctx context.Context, key, owner string, record tokenstore.Record, ttl time.Duration) error {
	reply, err := s.run(ctx, &publish, key, owner, ttl.Milliseconds(), record.Version, record.Data)
	if err != nil {
		return err
	}
	return publish.held(reply)
}

// Abort implements tokenstore.Store.
func (s *Store) Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error {
	_, err := s.run(ctx, &abort, key, owner, cooldown.Milliseconds(), note)
	return err
}

// Invalidate implements tokenstore.Store.
func (s *Store) Invalidate(ctx context.Context, key, version string) error {
	_, err := s.run(ctx, &invalidate, key, version)
	return err
}

// held returns the error that a reply of the scripts renew and publish stands for.
func (s *script) held(reply any) error {
	switch reply {
	case int64(1):
		return nil
	case int64(0):
		return tokenstore.ErrLeaseLost
	}
	return s.unexpected(reply)
}

// largeOf returns the size of what the script acquire has found and not returned, because
// it is too large. It returns false for all other replies.
func largeOf(reply any) (size int64, ok bool) {
	values, _ := reply.([]any)
	if len(values) != 4 || values[0] != "large" {
		return 0, false
	}
	size, ok = values[1].(int64)
	return size, ok
}

// claimOf returns the claim in a reply of the script acquire. It returns false if the
// reply can't come from that script.
func claimOf(reply any) (claim tokenstore.Claim, ok bool) {
	values, _ := reply.([]any)
	if len(values) != 4 {
		return claim, false
	}
	state, _ := values[0].(string)
	ttl, isTTL := values[1].(int64)
	first, isText := values[2].(string)
	second, isData := values[3].(string)
	if !isTTL || !isText || !isData {
		return claim, false
	}
	claim.TTL = time.Duration(ttl) * time.Millisecond
	switch state {
	case "hit":
		claim.State = tokenstore.ClaimHit
		claim.Record = tokenstore.Record{Version: first, Data: []byte(second)}
	case "lead":
		claim.State = tokenstore.ClaimLead
	case "wait":
		claim.State = tokenstore.ClaimWait
		claim.Owner = first
	case "cooling":
		claim.State = tokenstore.ClaimCooling
		claim.Note = []byte(first)
	default:
		return claim, false
	}
	return claim, true
}

// run runs script on key.
func (s *Store) run(ctx context.Context, script *script, key string, args ...any) (any, error) {
	if s == nil || isNil(s.Client) {
		return nil, errors.New("oauth2: the Store of redisstore has no Client; set it to a client of go-redis")
	}
	keys := []string{s.key(key)}
	command := s.Client.EvalSha(ctx, script.sha1, keys, args...)
	if redis.HasErrorPrefix(command.Err(), "NOSCRIPT") {
		command = s.Client.Eval(ctx, script.source, keys, args...)
	}
	reply, err := command.Result()
	if err != nil {
		return nil, fmt.Errorf("oauth2: redisstore: %s: %w", script.name, err)
	}
	return reply, nil
}

// key returns the key in Redis.
func (s *Store) key(key string) string {
	if s.Prefix == "" {
		return DefaultPrefix + key
	}
	return s.Prefix + key
}

// isNil reports whether client is nil, or a nil pointer to a client.
func isNil(client redis.UniversalClient) bool {
	v := reflect.ValueOf(client)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

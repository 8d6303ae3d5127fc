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

// DefaultPrefix is what the keys in Redis begin with, unless Store.Prefix says
// otherwise.
const DefaultPrefix = "clientcredentials:"

// New returns what Config.Store needs to share tokens, encrypted, through the Redis of
// client. It neither connects nor reports errors: what is wrong is reported by the
// calls that need a token, and to the Observer. One serves any number of Configs.
//
// For another prefix of the keys seal a Store: clientcredentials.Seal(&Store{…}, keyring).
func New(client redis.UniversalClient, keyring *clientcredentials.Keyring) *clientcredentials.SharedStore {
	return clientcredentials.Seal(&Store{Client: client}, keyring)
}

// A Store is a clientcredentials.Store on Redis. It encrypts nothing: give it to
// clientcredentials.Seal, as New does. It is safe for concurrent use once its fields
// are set.
//
// Its errors wrap those of Client, and hold nothing of what is kept.
type Store struct {
	// Client is the connection to Redis. Nil: every call fails.
	Client redis.UniversalClient

	// Prefix is what the keys in Redis begin with. Services that have another don't
	// share tokens. Empty: DefaultPrefix.
	Prefix string
}

var _ tokenstore.Store = (*Store)(nil)

// Acquire does what clientcredentials.Store says.
func (s *Store) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	reply, err := s.run(ctx, &acquire, key, owner, stale, lease.Milliseconds())
	if err != nil {
		return tokenstore.Claim{}, err
	}
	claim, ok := claimOf(reply)
	if !ok {
		return tokenstore.Claim{}, acquire.unexpected(reply)
	}
	return claim, nil
}

// Renew does what clientcredentials.Store says.
func (s *Store) Renew(ctx context.Context, key, owner string, lease time.Duration) error {
	reply, err := s.run(ctx, &renew, key, owner, lease.Milliseconds())
	if err != nil {
		return err
	}
	return renew.held(reply)
}

// Publish does what clientcredentials.Store says. When the connection breaks, go-redis
// may send a command twice: then the error is ErrLeaseLost though the record is there,
// and the next Acquire returns it.
func (s *Store) Publish(ctx context.Context, key, owner string, record tokenstore.Record, ttl time.Duration) error {
	reply, err := s.run(ctx, &publish, key, owner, ttl.Milliseconds(), record.Version, record.Data)
	if err != nil {
		return err
	}
	return publish.held(reply)
}

// Abort does what clientcredentials.Store says.
func (s *Store) Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error {
	_, err := s.run(ctx, &abort, key, owner, cooldown.Milliseconds(), note)
	return err
}

// Invalidate does what clientcredentials.Store says.
func (s *Store) Invalidate(ctx context.Context, key, version string) error {
	_, err := s.run(ctx, &invalidate, key, version)
	return err
}

// held returns the error that the reply of renew or publish stands for.
func (s *script) held(reply any) error {
	switch reply {
	case int64(1):
		return nil
	case int64(0):
		return tokenstore.ErrLeaseLost
	}
	return s.unexpected(reply)
}

// claimOf returns what the reply of the script acquire says, and whether it is one.
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

// run runs a script on one key.
func (s *Store) run(ctx context.Context, script *script, key string, args ...any) (any, error) {
	if s == nil || isNil(s.Client) {
		return nil, errors.New("oauth2: the Store of redisstore has no Client; set it to a client of go-redis")
	}
	prefix := s.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	keys := []string{prefix + key}
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

// isNil reports whether client is nil, or a nil pointer to a client.
func isNil(client redis.UniversalClient) bool {
	v := reflect.ValueOf(client)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

package natsstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

const (
	// maxInline is the largest size of a record's data that is part of the entry. Waiting
	// replicas read the entry again and again. Hardly any token is larger.
	maxInline = 8 << 10

	// maxAttempts is how often a change is tried while other replicas write to the entry.
	maxAttempts = 20

	// After a lost race there is a random pause, at first up to minBackoff. The bound
	// doubles each time, to maxBackoff.
	minBackoff = 2 * time.Millisecond
	maxBackoff = 32 * time.Millisecond
)

// A Store implements tokenstore.Store with a bucket of NATS JetStream's key-value store.
// It encrypts nothing: use New to share encrypted tokens.
//
// Set its fields before first use, and don't copy it. Its methods are safe for
// concurrent use, even by many Sources. They leave no goroutine behind, and don't
// close the connection.
type Store struct {
	// JetStream is the connection to the servers, from jetstream.New. It may be
	// disconnected at any time, even at first.
	JetStream jetstream.JetStream

	// Bucket is the name of the bucket. It must exist when a token is needed. The
	// package documentation says how to create it.
	Bucket string

	clock clock
}

var _ tokenstore.Store = (*Store)(nil)

// New returns a store for Config.Store that shares tokens through a bucket of JetStream's
// key-value store, encrypted with keyring. It makes no call, and reports no error itself.
// The first call that needs a token reports a missing keyring, and the Observer is told of
// everything else.
func New(js jetstream.JetStream, bucket string, keyring *clientcredentials.Keyring) *clientcredentials.SharedStore {
	return clientcredentials.Seal(&Store{JetStream: js, Bucket: bucket}, keyring)
}

// Acquire implements tokenstore.Store.
func (s *Store) Acquire(ctx context.Context, key, stale, owner string, leaseTime time.Duration) (tokenstore.Claim, error) {
	var claim tokenstore.Claim
	var withoutData uint64 // the revision of an entry whose record has no data
	err := s.change(ctx, key, func(now time.Time, e *entry) (verdict, error) {
		if e.Record != nil && e.Record.Apart && !e.isStale(stale) {
			data, err := s.get(ctx, dataKey(key, e.Record.Version))
			switch {
			case err != nil:
				return leave, err
			case len(data.Data) == 0 && withoutData != e.revision:
				withoutData = e.revision
				return again, nil // The record may have been replaced just now.
			case len(data.Data) == 0:
				e.Record = nil
			default:
				e.Record = &record{Version: e.Record.Version, Data: data.Data, End: e.Record.End}
			}
		}
		switch {
		case e.Record != nil && !e.isStale(stale):
			claim = tokenstore.Claim{
				State:  tokenstore.ClaimHit,
				TTL:    e.Record.End.Sub(now),
				Record: tokenstore.Record{Version: e.Record.Version, Data: e.Record.Data},
			}
			return leave, nil
		case e.Lease != nil && e.Lease.Owner != owner:
			claim = tokenstore.Claim{State: tokenstore.ClaimWait, TTL: e.Lease.End.Sub(now), Owner: e.Lease.Owner}
			return leave, nil
		case e.Cooldown != nil: // No replica holds the lease during a cooldown.
			claim = tokenstore.Claim{State: tokenstore.ClaimCooling, TTL: e.Cooldown.End.Sub(now), Note: e.Cooldown.Note}
			return leave, nil
		}
		e.Lease = &lease{Owner: owner, End: now.Add(leaseTime)}
		claim = tokenstore.Claim{State: tokenstore.ClaimLead, TTL: leaseTime}
		return write, nil
	})
	if err != nil {
		return tokenstore.Claim{}, err
	}
	return claim, nil
}

// Renew implements tokenstore.Store.
func (s *Store) Renew(ctx context.Context, key, owner string, leaseTime time.Duration) error {
	return s.change(ctx, key, func(now time.Time, e *entry) (verdict, error) {
		if !e.isLeasedTo(owner) {
			return leave, tokenstore.ErrLeaseLost
		}
		e.Lease = &lease{Owner: owner, End: now.Add(leaseTime)}
		return write, nil
	})
}

// Publish implements tokenstore.Store.
func (s *Store) Publish(ctx context.Context, key, owner string, r tokenstore.Record, ttl time.Duration) error {
	apart := len(r.Data) > maxInline
	written := false // whether separate data has been written
	var old *record
	err := s.change(ctx, key, func(now time.Time, e *entry) (verdict, error) {
		if !e.isLeasedTo(owner) {
			return leave, tokenstore.ErrLeaseLost
		}
		old = e.Record
		e.Record, e.Lease, e.Cooldown = &record{Version: r.Version, Apart: apart, End: now.Add(ttl)}, nil, nil
		if !apart {
			e.Record.Data = r.Data
			return write, nil
		}
		if !written {
			if _, err := s.put(ctx, dataKey(key, r.Version), r.Data); err != nil {
				return leave, err
			}
			written = true
		}
		return write, nil
	})
	switch {
	case err == nil:
		s.removeData(ctx, key, old)
	case written && errors.Is(err, tokenstore.ErrLeaseLost):
		s.removeData(ctx, key, &record{Version: r.Version, Apart: true})
	}
	return err
}

// Abort implements tokenstore.Store.
func (s *Store) Abort(ctx context.Context, key, owner string, note []byte, cooling time.Duration) error {
	return s.change(ctx, key, func(now time.Time, e *entry) (verdict, error) {
		if !e.isLeasedTo(owner) {
			return leave, nil
		}
		e.Lease = nil
		if cooling > 0 {
			e.Cooldown = &cooldown{Note: note, End: now.Add(cooling)}
		}
		return write, nil
	})
}

// Invalidate implements tokenstore.Store.
func (s *Store) Invalidate(ctx context.Context, key, version string) error {
	var old *record
	err := s.change(ctx, key, func(_ time.Time, e *entry) (verdict, error) {
		if e.Record == nil || e.Record.Version != version {
			return leave, nil
		}
		old = e.Record
		e.Record, e.Lease = nil, nil
		return write, nil
	})
	if err == nil {
		s.removeData(ctx, key, old)
	}
	return err
}

// A verdict says what to do with an entry that was read.
type verdict int

const (
	leave verdict = iota // leave it as it is
	write                // write the changed entry
	again                // read it again
)

// errBusy is the error for a change that has lost every race.
var errBusy = errors.New("too many replicas write to the same entry at the same time")

// change reads the entry at key, removes what has expired, and calls decide, which may
// change the entry. It then writes the entry, unless another replica has written to it since
// it was read. In that case change starts again. now is the server's time.
func (s *Store) change(ctx context.Context, key string, decide func(now time.Time, e *entry) (verdict, error)) error {
	for attempt := range maxAttempts {
		if err := backOff(ctx, attempt); err != nil {
			return s.failed(err)
		}
		now, err := s.now(ctx)
		if err != nil {
			return s.failed(err)
		}
		m, err := s.get(ctx, key)
		if err != nil {
			return s.failed(err)
		}
		if m.Time.After(now) {
			now = m.Time // The clock is behind: the entry can't be from the future.
		}
		e, err := decode(m.Data, m.Sequence)
		if err != nil {
			return s.failed(err)
		}
		e.expire(now)
		what, err := decide(now, &e)
		switch {
		case errors.Is(err, tokenstore.ErrLeaseLost):
			return err
		case err != nil:
			return s.failed(err)
		case what == leave:
			return nil
		case what == again:
			continue
		}
		value, err := e.encode()
		if err != nil {
			return s.failed(err)
		}
		lost, err := s.put(ctx, key, value, jetstream.WithExpectLastSequencePerSubject(e.revision))
		if err != nil {
			return s.failed(err)
		}
		if !lost {
			return nil
		}
	}
	return s.failed(errBusy)
}

// backOff waits before another attempt, so that replicas that race don't meet again.
func backOff(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(rand.N(min(minBackoff<<(attempt-1), maxBackoff))) //nolint:gosec // Jitter needs no secrecy.
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeData removes the data of a record that isn't needed anymore, if the data is a
// separate value. If that fails, the bucket's TTL removes the data later.
func (s *Store) removeData(ctx context.Context, key string, r *record) {
	if r != nil && r.Apart {
		_ = s.purge(ctx, dataKey(key, r.Version))
	}
}

// failed returns the error of a call that couldn't use the bucket because of err.
func (s *Store) failed(err error) error {
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("oauth2: natsstore: the bucket %q doesn't exist, or JetStream isn't running; the documentation of natsstore says how to create a bucket: %w", s.Bucket, err)
	}
	return fmt.Errorf("oauth2: natsstore: the bucket %q can't be used: %w", s.Bucket, err)
}

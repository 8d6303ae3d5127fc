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
	// maxInline is how large the data of a record may be to lie in its entry, which
	// waiting replicas read again and again. Hardly a token is larger.
	maxInline = 8 << 10

	// maxAttempts bounds how often a change is tried while others make theirs.
	maxAttempts = 20

	// After a lost race there is a pause, up to minBackoff, which doubles to maxBackoff.
	minBackoff = 2 * time.Millisecond
	maxBackoff = 32 * time.Millisecond
)

// A Store keeps shared tokens in a bucket of NATS JetStream's key-value store. It
// implements clientcredentials.Store, and encrypts nothing: New has one that does.
//
// Set its fields before first use, and don't copy it. Its methods are safe for
// concurrent use, also by many Sources. They leave no goroutine behind, and don't
// close the connection.
type Store struct {
	// JetStream is the connection to the servers, by jetstream.New. It may be
	// disconnected at any time, also at first.
	JetStream jetstream.JetStream

	// Bucket is the name of the bucket. It must exist when a token is needed; see
	// the package's documentation for how to make one.
	Bucket string

	clock clock
}

var _ tokenstore.Store = (*Store)(nil)

// New returns a store of shared tokens in a bucket of JetStream's key-value store,
// encrypted with the keys of keyring. It makes no call: what is wrong with its
// arguments is reported by the first call that needs a token.
func New(js jetstream.JetStream, bucket string, keyring *clientcredentials.Keyring) *clientcredentials.SharedStore {
	return clientcredentials.Seal(&Store{JetStream: js, Bucket: bucket}, keyring)
}

// Acquire implements clientcredentials.Store.
func (s *Store) Acquire(ctx context.Context, key, stale, owner string, leaseTime time.Duration) (tokenstore.Claim, error) {
	var claim tokenstore.Claim
	var withoutData uint64 // revision of an entry whose record's data is missing
	err := s.change(ctx, key, func(now time.Time, e *entry) (verdict, error) {
		if e.Record != nil && e.Record.Apart && !e.isStale(stale) {
			data, err := s.get(ctx, dataKey(key, e.Record.Version))
			switch {
			case err != nil:
				return leave, err
			case len(data.Data) == 0 && withoutData != e.revision:
				withoutData = e.revision
				return again, nil // There may just be another record.
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
		case e.Cooldown != nil: // Nobody holds the lease during one.
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

// Renew implements clientcredentials.Store.
func (s *Store) Renew(ctx context.Context, key, owner string, leaseTime time.Duration) error {
	return s.change(ctx, key, func(now time.Time, e *entry) (verdict, error) {
		if !e.isLeasedTo(owner) {
			return leave, tokenstore.ErrLeaseLost
		}
		e.Lease = &lease{Owner: owner, End: now.Add(leaseTime)}
		return write, nil
	})
}

// Publish implements clientcredentials.Store.
func (s *Store) Publish(ctx context.Context, key, owner string, r tokenstore.Record, ttl time.Duration) error {
	apart := len(r.Data) > maxInline
	written := false // the data apart
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

// Abort implements clientcredentials.Store.
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

// Invalidate implements clientcredentials.Store.
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

// A verdict is what to do with an entry that was read.
type verdict int

const (
	leave verdict = iota // it as it is
	write                // what it was changed to
	again                // read it
)

// errBusy is the error for a change that always came too late.
var errBusy = errors.New("too many write to the same entry at the same time")

// change reads an entry, without what is over, lets decide change it, and writes it if
// nobody else did meanwhile; otherwise all of that again. now is the server's time.
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
			now = m.Time // Nothing is from the future.
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

// backOff waits before another attempt, so that those who race don't meet again.
func backOff(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(rand.N(min(minBackoff<<(attempt-1), maxBackoff))) //nolint:gosec // Nobody has to guess it.
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeData removes the data of a record that isn't needed anymore, if it is apart.
// It may fail: the bucket's TTL is for what is left.
func (s *Store) removeData(ctx context.Context, key string, r *record) {
	if r != nil && r.Apart {
		_ = s.purge(ctx, dataKey(key, r.Version))
	}
}

// failed returns the error for when the bucket can't be used.
func (s *Store) failed(err error) error {
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("oauth2: natsstore: the bucket %q isn't there; create it, and see that JetStream is up: %w", s.Bucket, err)
	}
	return fmt.Errorf("oauth2: natsstore: the bucket %q can't be used: %w", s.Bucket, err)
}

package storetest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// kept is how many calls a Store remembers, and how many entries it holds before it looks
// for expired ones.
const kept = 10_000

// A Store is a [tokenstore.Store] in memory that fails when it is told to. Lifetimes are
// exact, and TTLs are rounded down to milliseconds.
//
// The zero value is an empty store. All methods are safe for concurrent use. A Store
// must not be copied.
type Store struct {
	mu       sync.Mutex // protects all below; never held while waiting
	contents *contents  // nil: not used yet
	last     []*Call    // the last calls
	script   []Fault
	outage   *Fault
	hanging  []chan struct{} // closed when the calls that hang may go on
}

var _ tokenstore.Store = (*Store)(nil)

// A Call is a call that a Store remembers.
type Call struct {
	Time      time.Time
	Operation event.Operation // the method
	Key       string
	Owner     string        // empty for Invalidate
	Version   string        // the stale version, the published one, or the invalidated one
	Data      []byte        // the data published, or the note given to Abort; read only
	Duration  time.Duration // the lease, ttl or cooldown that the caller asked for

	Pending bool // the call hasn't returned yet
	State   tokenstore.ClaimState
	Err     error
}

// Connect returns another client of the same store. What one client writes, the others
// read, but each has its own faults and calls. Give a client to each replica, and the
// network can fail for one replica alone.
func (s *Store) Connect() *Store { return &Store{contents: s.shared()} }

func (s *Store) shared() *contents {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contents == nil {
		s.contents = new(contents)
	}
	return s.contents
}

// Acquire implements [tokenstore.Store].
func (s *Store) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	var claim tokenstore.Claim
	call := Call{Operation: event.Acquire, Key: key, Owner: owner, Version: stale, Duration: lease}
	err := s.do(ctx, &call, &claim, func(e *entry, now time.Time) error {
		claim = e.acquire(now, stale, owner, lease)
		return nil
	})
	if err != nil {
		return tokenstore.Claim{}, err
	}
	return claim, nil
}

// Renew implements [tokenstore.Store].
func (s *Store) Renew(ctx context.Context, key, owner string, lease time.Duration) error {
	call := Call{Operation: event.Renew, Key: key, Owner: owner, Duration: lease}
	return s.do(ctx, &call, nil, func(e *entry, now time.Time) error {
		return e.renew(now, owner, lease)
	})
}

// Publish implements [tokenstore.Store].
func (s *Store) Publish(ctx context.Context, key, owner string, record tokenstore.Record, ttl time.Duration) error {
	call := Call{Operation: event.Publish, Key: key, Owner: owner, Version: record.Version, Data: bytes.Clone(record.Data), Duration: ttl}
	return s.do(ctx, &call, nil, func(e *entry, now time.Time) error {
		return e.publish(now, owner, record, ttl)
	})
}

// Abort implements [tokenstore.Store].
func (s *Store) Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error {
	call := Call{Operation: event.Abort, Key: key, Owner: owner, Data: bytes.Clone(note), Duration: cooldown}
	return s.do(ctx, &call, nil, func(e *entry, now time.Time) error {
		e.abort(now, owner, note, cooldown)
		return nil
	})
}

// Invalidate implements [tokenstore.Store].
func (s *Store) Invalidate(ctx context.Context, key, version string) error {
	call := Call{Operation: event.Invalidate, Key: key, Version: version}
	return s.do(ctx, &call, nil, func(e *entry, _ time.Time) error {
		e.invalidate(version)
		return nil
	})
}

// do remembers call and carries it out with f, unless the fault that it gets prevents
// that.
func (s *Store) do(ctx context.Context, call *Call, claim *tokenstore.Claim, f func(*entry, time.Time) error) (err error) {
	fault, hang := s.receive(ctx, call)
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		call.Pending, call.Err = false, err
		if claim != nil && err == nil {
			call.State = claim.State
		}
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	if !fault.Reply {
		if err := fault.happen(ctx, hang); err != nil {
			return err
		}
	}
	err = s.shared().update(call.Key, f)
	if fault.Reply {
		if err := fault.happen(ctx, hang); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if claim != nil && fault.Claim != nil {
		fault.Claim(claim)
	}
	return nil
}

// receive remembers call and takes its fault from the script or the outage. A call whose
// context is already done takes none: it never reaches the store.
func (s *Store) receive(ctx context.Context, call *Call) (Fault, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Time, call.Pending = time.Now(), true
	if len(s.last) == kept {
		s.last[0] = nil // the array behind the slice lives on for a while
		s.last = s.last[1:]
	}
	s.last = append(s.last, call)
	if ctx.Err() != nil {
		return Fault{}, nil
	}
	var fault Fault
	if i := slices.IndexFunc(s.script, func(f Fault) bool { return f.concerns(call) }); i >= 0 {
		fault = s.script[i]
		s.script = slices.Delete(s.script, i, i+1)
	} else if s.outage != nil && s.outage.concerns(call) {
		fault = *s.outage
	}
	if !fault.Hang {
		return fault, nil
	}
	hang := make(chan struct{})
	s.hanging = append(s.hanging, hang)
	return fault, hang
}

// Script queues faults. Each happens once, to the next call that it concerns.
func (s *Store) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

// SetFault begins an outage: the fault happens to every call that it concerns until
// SetFault is called again, with nil to end the outage. Faults queued by [Store.Script]
// come first. Calls that hang go on.
func (s *Store) SetFault(f *Fault) {
	if f != nil {
		c := *f
		f = &c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = f
	for _, hang := range s.hanging {
		close(hang)
	}
	s.hanging = nil
}

// Calls returns the calls of these operations, or of all operations if none is named,
// oldest first. A client remembers its last 10,000 calls.
func (s *Store) Calls(operations ...event.Operation) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var calls []Call
	for _, call := range s.last {
		if len(operations) == 0 || slices.Contains(operations, call.Operation) {
			calls = append(calls, *call)
		}
	}
	return calls
}

// Keys returns the keys that have a record, a lease or a cooldown, sorted.
func (s *Store) Keys() []string {
	c := s.shared()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweepLocked(time.Now())
	return slices.Sorted(maps.Keys(c.entries))
}

// Record returns the record under key, and how long it will last. If there is none, the
// TTL is 0.
func (s *Store) Record(key string) (record tokenstore.Record, ttl time.Duration) {
	s.inspect(key, func(e *entry, now time.Time) {
		record, ttl = clone(e.record), max(0, e.recordUntil.Sub(now))
	})
	return record, ttl
}

// Lease returns the owner of the lease on key, and how long the lease will last. If there
// is none, the TTL is 0.
func (s *Store) Lease(key string) (owner string, ttl time.Duration) {
	s.inspect(key, func(e *entry, now time.Time) {
		owner, ttl = e.owner, max(0, e.leaseUntil.Sub(now))
	})
	return owner, ttl
}

// Cooldown returns the note that Abort has left under key, and how long the cooldown will
// last. If there is none, the TTL is 0.
func (s *Store) Cooldown(key string) (note []byte, ttl time.Duration) {
	s.inspect(key, func(e *entry, now time.Time) {
		note, ttl = bytes.Clone(e.note), max(0, e.cooldownUntil.Sub(now))
	})
	return note, ttl
}

// SetRecord replaces the record under key for ttl, and leaves the lease and the cooldown
// alone. An attacker who can write to the store could do that.
func (s *Store) SetRecord(key string, record tokenstore.Record, ttl time.Duration) {
	s.inspect(key, func(e *entry, now time.Time) {
		e.record, e.recordUntil = clone(record), now.Add(ttl)
	})
}

// Flush removes everything under these keys, or all keys if none is named.
func (s *Store) Flush(keys ...string) {
	c := s.shared()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(keys) == 0 {
		clear(c.entries)
	}
	for _, key := range keys {
		delete(c.entries, key)
	}
}

func (s *Store) inspect(key string, f func(*entry, time.Time)) {
	_ = s.shared().update(key, func(e *entry, now time.Time) error {
		f(e, now)
		return nil
	})
}

// contents is what the clients of a store share.
type contents struct {
	mu      sync.Mutex // protects what follows
	entries map[string]entry
	sweepAt int // the number of entries at which the expired ones are removed
}

// update calls f with the entry of key, without what has expired, and keeps the result.
func (c *contents) update(key string, f func(*entry, time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	e := c.entries[key]
	e.pass(now)
	err := f(&e, now)
	e.pass(now) // f may have put something in without a lifetime
	if e.empty() {
		delete(c.entries, key)
		return err
	}
	if c.entries == nil {
		c.entries = make(map[string]entry)
	}
	if len(c.entries) >= max(c.sweepAt, kept) {
		c.sweepLocked(now)
		c.sweepAt = 2 * len(c.entries)
	}
	c.entries[key] = e
	return err
}

func (c *contents) sweepLocked(now time.Time) {
	maps.DeleteFunc(c.entries, func(_ string, e entry) bool {
		e.pass(now)
		return e.empty()
	})
}

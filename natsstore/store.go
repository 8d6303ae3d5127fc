package natsstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-5bfa0880/clientcredentials"
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

	// maxLeases bounds how many leases of its own a Store remembers.
	maxLeases = 1000
)

// A Store keeps shared tokens in a bucket of NATS JetStream's key-value store. It
// implements clientcredentials.Store, and encrypts nothing: New has one that does.
//
// Set its fields before first use, and don't copy it. Its methods are safe for
// concurrent use, also by many Sources. They keep no goroutine, and don't close the
// connection.
type Store struct {
	// JetStream is the connection to the servers, by jetstream.New. It may be
	// disconnected at any time, also at first.
	JetStream jetstream.JetStream

	// Bucket is the name of the bucket. It must exist when a token is needed; see
	// the package's documentation for how to make one.
	Bucket string

	clock  clock
	bucket atomic.Pointer[jetstream.KeyValue] // nil: to be looked up

	mu     sync.Mutex       // protects what follows
	leases map[string]entry // what this Store has written last to get a lease, by key
}

var _ clientcredentials.Store = (*Store)(nil)

// New returns a store of shared tokens in a bucket of JetStream's key-value store,
// encrypted with the keys of keyring. It makes no call: what is wrong with its
// arguments is reported by the first call that needs a token.
func New(js jetstream.JetStream, bucket string, keyring *clientcredentials.Keyring) *clientcredentials.SharedStore {
	return clientcredentials.Seal(&Store{JetStream: js, Bucket: bucket}, keyring)
}

// Acquire implements clientcredentials.Store. It reads once, and writes once if it
// returns ClaimLead; the data of a record of more than 8 KiB it reads besides.
func (s *Store) Acquire(ctx context.Context, key, stale, owner string, leaseTime time.Duration) (clientcredentials.Claim, error) {
	var claim clientcredentials.Claim
	missing := 0
	e, err := s.change(ctx, key, "", func(t *turn, e *entry) (verdict, error) {
		if e.Record != nil && (stale == "" || e.Record.Version != stale) {
			data := e.Record.Data
			if e.Record.Apart {
				value, err := t.bucket.Get(ctx, dataKey(key, e.Record.Version))
				switch {
				case err == nil:
					data = value.Value()
				case !errors.Is(err, jetstream.ErrKeyNotFound):
					return 0, err
				case missing < 3:
					missing++ // It has just been replaced, or the server that was asked is behind.
					return again, nil
				default:
					e.Record = nil
				}
			}
			if e.Record != nil {
				claim = clientcredentials.Claim{
					State:  clientcredentials.ClaimHit,
					TTL:    e.Record.End.Sub(t.now),
					Record: clientcredentials.Record{Version: e.Record.Version, Data: data},
				}
				return leave, nil
			}
		}
		switch {
		case e.Lease != nil && e.Lease.Owner != owner:
			claim = clientcredentials.Claim{State: clientcredentials.ClaimWait, TTL: e.Lease.End.Sub(t.now), Owner: e.Lease.Owner}
			return leave, nil
		case e.Lease == nil && e.Cooldown != nil:
			claim = clientcredentials.Claim{State: clientcredentials.ClaimCooling, TTL: e.Cooldown.End.Sub(t.now), Note: e.Cooldown.Note}
			return leave, nil
		}
		e.Lease = &lease{Owner: owner, End: t.now.Add(leaseTime)}
		claim = clientcredentials.Claim{State: clientcredentials.ClaimLead, TTL: leaseTime}
		return write, nil
	})
	if err != nil {
		return clientcredentials.Claim{}, err
	}
	if claim.State == clientcredentials.ClaimLead {
		s.remember(key, e)
	}
	return claim, nil
}

// Renew implements clientcredentials.Store. It writes once, and reads only if the lease
// was renewed or ended elsewhere.
func (s *Store) Renew(ctx context.Context, key, owner string, leaseTime time.Duration) error {
	e, err := s.change(ctx, key, owner, func(t *turn, e *entry) (verdict, error) {
		if !e.leasedTo(owner) {
			return leave, clientcredentials.ErrLeaseLost
		}
		e.Lease = &lease{Owner: owner, End: t.now.Add(leaseTime)}
		return write, nil
	})
	if err == nil {
		s.remember(key, e)
	}
	return err
}

// Publish implements clientcredentials.Store. It writes once, and reads only if the
// lease was renewed or ended elsewhere. For data of more than 8 KiB it writes twice,
// and once more to remove such data of the record before.
func (s *Store) Publish(ctx context.Context, key, owner string, r clientcredentials.Record, ttl time.Duration) error {
	apart := len(r.Data) > maxInline
	put := false
	var old *record
	_, err := s.change(ctx, key, owner, func(t *turn, e *entry) (verdict, error) {
		if !e.leasedTo(owner) {
			return leave, clientcredentials.ErrLeaseLost
		}
		old = e.Record
		*e = entry{revision: e.revision, Record: &record{Version: r.Version, Apart: apart, End: t.now.Add(ttl)}}
		if !apart {
			e.Record.Data = r.Data
			return write, nil
		}
		if !put {
			if _, err := t.bucket.Put(ctx, dataKey(key, r.Version), r.Data); err != nil {
				return leave, err
			}
			put = true
		}
		return write, nil
	})
	switch {
	case err == nil:
		s.purge(ctx, key, old)
	case put && errors.Is(err, clientcredentials.ErrLeaseLost):
		s.purge(ctx, key, &record{Version: r.Version, Apart: true})
	}
	return err
}

// Abort implements clientcredentials.Store. It writes once, and reads only if the
// lease was renewed or ended elsewhere.
func (s *Store) Abort(ctx context.Context, key, owner string, note []byte, cooling time.Duration) error {
	_, err := s.change(ctx, key, owner, func(t *turn, e *entry) (verdict, error) {
		if !e.leasedTo(owner) {
			return leave, nil
		}
		e.Lease = nil
		if cooling > 0 {
			e.Cooldown = &cooldown{Note: note, End: t.now.Add(cooling)}
		}
		return write, nil
	})
	return err
}

// Invalidate implements clientcredentials.Store. It reads once, and writes once if
// the record is of that version.
func (s *Store) Invalidate(ctx context.Context, key, version string) error {
	var old *record
	_, err := s.change(ctx, key, "", func(_ *turn, e *entry) (verdict, error) {
		old = nil
		if !e.hasRecord(version) {
			return leave, nil
		}
		old = e.Record
		e.Record, e.Lease = nil, nil
		return write, nil
	})
	if err == nil {
		s.purge(ctx, key, old)
	}
	return err
}

// A turn is one attempt to make a change.
type turn struct {
	bucket jetstream.KeyValue
	now    time.Time // the server's
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
// nobody else did meanwhile; otherwise all of that again. It returns what was written.
//
// For an owner, what this Store has written to give it the lease stands for the first
// read. That saves one, and it is never out of date unnoticed: in a cluster any server
// that has the stream answers a read, maybe without the last write, and would deny
// an owner its own lease. All else that is decided without a write can bear to be
// as old as that.
func (s *Store) change(ctx context.Context, key, owner string, decide func(*turn, *entry) (verdict, error)) (entry, error) {
	for attempt := range maxAttempts {
		if err := backOff(ctx, attempt); err != nil {
			return entry{}, s.failed(err)
		}
		var t turn
		var err error
		if t.bucket, err = s.open(ctx); err != nil {
			return entry{}, s.failed(err)
		}
		if t.now, err = s.now(ctx, t.bucket); err != nil {
			return entry{}, s.failed(err)
		}
		e, ok := s.recall(key, owner)
		if !ok {
			if e, err = s.read(ctx, &t, key); err != nil {
				return entry{}, s.failed(err)
			}
		}
		e.expire(t.now)
		what, err := decide(&t, &e)
		switch {
		case errors.Is(err, clientcredentials.ErrLeaseLost):
			return entry{}, err
		case err != nil:
			return entry{}, s.failed(err)
		case what == leave:
			return e, nil
		case what == again:
			continue
		}
		revision, err := put(ctx, t.bucket, key, e)
		if err == nil {
			e.revision = revision
			return e, nil
		}
		if !isRaceLost(err) {
			return entry{}, s.failed(err)
		}
	}
	return entry{}, s.failed(errBusy)
}

// backOff waits before another attempt, so that those who race don't meet again.
func backOff(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return nil
	}
	limit := min(minBackoff<<(attempt-1), maxBackoff)
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open looks up the bucket. That is not done before it is used: a service has to start
// while the servers are down.
func (s *Store) open(ctx context.Context) (jetstream.KeyValue, error) {
	if b := s.bucket.Load(); b != nil {
		return *b, nil
	}
	if s.JetStream == nil || s.Bucket == "" {
		return nil, errors.New("the Store needs a JetStream and the name of a Bucket")
	}
	b, err := s.JetStream.KeyValue(ctx, s.Bucket)
	if err != nil {
		return nil, err
	}
	s.bucket.Store(&b)
	return b, nil
}

// now returns the server's time, and asks it if that was long ago.
func (s *Store) now(ctx context.Context, bucket jetstream.KeyValue) (time.Time, error) {
	if now, ok := s.clock.now(); ok {
		return now, nil
	}
	sent := s.clock.read()
	status, err := bucket.Status(ctx)
	if err != nil {
		return time.Time{}, err
	}
	stream, ok := status.(interface{ StreamInfo() *jetstream.StreamInfo })
	if !ok || stream.StreamInfo().TimeStamp.IsZero() {
		return time.Time{}, errors.New("the server doesn't tell its time: it takes NATS 2.10 or later")
	}
	now := stream.StreamInfo().TimeStamp
	s.clock.set(sent, now)
	return now, nil
}

// read returns the entry at key, and corrects the time of t: no entry is from the
// future.
func (s *Store) read(ctx context.Context, t *turn, key string) (entry, error) {
	value, err := t.bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return entry{}, nil
	}
	if err != nil {
		return entry{}, err
	}
	if value.Created().After(t.now) {
		t.now = value.Created()
	}
	return decode(value.Value(), value.Revision())
}

// put writes e if the value is still the one that e was made from.
func put(ctx context.Context, bucket jetstream.KeyValue, key string, e entry) (uint64, error) {
	value, err := e.encode()
	if err != nil {
		return 0, err
	}
	if e.revision == 0 {
		return bucket.Create(ctx, key, value) // And not Update, because that can't follow a deletion.
	}
	return bucket.Update(ctx, key, value, e.revision)
}

// isRaceLost reports whether err means that another value was written since. Servers
// have two codes for it, and the client an error for each but not for both.
func isRaceLost(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// purge removes the data of a record that isn't needed anymore, if it is on its own.
// It may fail: the bucket's TTL is for what is left.
func (s *Store) purge(ctx context.Context, key string, r *record) {
	if b := s.bucket.Load(); b != nil && r != nil && r.Apart {
		_ = (*b).Purge(ctx, dataKey(key, r.Version))
	}
}

// failed returns the error for when the bucket can't be used, and lets the next call
// look it up anew: it may be another one then.
func (s *Store) failed(err error) error {
	s.bucket.Store(nil)
	for _, gone := range []error{jetstream.ErrBucketNotFound, jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound, nats.ErrNoResponders} {
		if errors.Is(err, gone) {
			return fmt.Errorf("oauth2: natsstore: the bucket %q isn't there: create it, and see that JetStream is up: %w", s.Bucket, err)
		}
	}
	return fmt.Errorf("oauth2: natsstore: the bucket %q can't be used: %w", s.Bucket, err)
}

// remember keeps e, which has given a lease.
func (s *Store) remember(key string, e entry) {
	now, _ := s.clock.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases == nil {
		s.leases = make(map[string]entry)
	}
	delete(s.leases, key)
	if len(s.leases) >= maxLeases {
		for k, e := range s.leases {
			if e.expire(now); e.Lease == nil {
				delete(s.leases, k)
			}
		}
	}
	if len(s.leases) < maxLeases {
		s.leases[key] = e
	}
}

// recall returns what has given owner the lease, once: it is over now, or changed by
// somebody else.
func (s *Store) recall(key, owner string) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.leases[key]
	if !ok || !e.leasedTo(owner) {
		return entry{}, false
	}
	delete(s.leases, key)
	return e, true
}

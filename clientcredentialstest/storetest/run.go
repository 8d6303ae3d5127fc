package storetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// Run tests that a [tokenstore.Store] does what its documentation says, with a subtest
// for each rule. It takes a few seconds of real time. A slow machine or store doesn't make
// it fail.
//
// Run calls newStore three times. Each call must return a separate client of the same
// store, as the replicas of a service have: so a client that relies on a mutex in its own
// process fails. Close clients with t.Cleanup. The store needn't be empty, because keys
// are random. What Run leaves in it expires within a year.
//
// Run can't test what needs control of the store's server: how a frozen or a restarted
// server behaves, and that expired entries take no space.
func Run(t *testing.T, newStore func(t *testing.T) tokenstore.Store) {
	t.Helper()
	var stores [3]tokenstore.Store
	for i := range stores {
		stores[i] = newStore(t)
	}
	// Run all of them at once: they mostly wait, and t.Parallel would run only as many at
	// a time as there are processors.
	var subtests sync.WaitGroup
	for _, r := range rules {
		subtests.Go(func() {
			t.Run(r.name, func(t *testing.T) { r.check(newCheck(t, t.Context(), stores)) })
		})
	}
	subtests.Wait()
}

const (
	short = 300 * time.Millisecond // for lifetimes whose end the test waits for
	long  = 10 * time.Minute       // for lifetimes that mustn't end during the test

	// slack allows for rounding by the store, and for how much the clocks of the store
	// and of the test may drift apart during short.
	slack = 50 * time.Millisecond

	pollInterval = 20 * time.Millisecond
	guard        = 30 * time.Second // for calls that hang
)

// reporter is what a check needs from a *testing.T. It is an interface so that our own
// tests can see which rules a broken store fails.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	FailNow()
}

// A check is a test of one rule with one store.
type check struct {
	reporter
	ctx   context.Context
	a, b  *replica
	probe *replica // looks at what is in the store
}

// A replica is a client of the store, with a name.
type replica struct {
	*check
	store tokenstore.Store
	owner string
}

func newCheck(r reporter, ctx context.Context, stores [3]tokenstore.Store) *check { //nolint:revive // The reporter is the main argument.
	t := &check{reporter: r, ctx: ctx}
	t.a = &replica{t, stores[0], "replica0A"}
	t.b = &replica{t, stores[1], "replica1B"}
	t.probe = &replica{t, stores[2], "replica2C"}
	return t
}

// replicas returns n replicas, which share the three clients.
func (t *check) replicas(n int) []*replica {
	replicas := make([]*replica, n)
	for i := range replicas {
		replicas[i] = []*replica{t.a, t.b, t.probe}[i%3].as(fmt.Sprintf("replica%d", i))
	}
	return replicas
}

// as returns a replica with the same client but another name.
func (r *replica) as(owner string) *replica { return &replica{r.check, r.store, owner} }

func (t *check) fatalf(format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	t.FailNow()
}

// newKey returns a key that was never used before.
func newKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// withOtherDigit returns a key that differs from key only in digit i.
func withOtherDigit(key string, i int) string {
	const digits = "0123456789abcdef"
	return key[:i] + string(digits[strings.IndexByte(digits, key[i])^1]) + key[i+1:]
}

// newRecord returns a record with a new version.
func newRecord(data string) tokenstore.Record {
	return tokenstore.Record{Version: rand.Text(), Data: []byte(data)}
}

// A span is the time that a call took. The store carried it out at an unknown moment in
// between.
type span struct{ start, end time.Time }

// The methods whose names begin with "try" are for goroutines, which mustn't call
// FailNow.

func (r *replica) tryAcquire(key, stale string, lease time.Duration) (tokenstore.Claim, error) {
	ctx, cancel := context.WithTimeout(r.ctx, guard)
	defer cancel()
	claim, err := r.store.Acquire(ctx, key, stale, r.owner, lease)
	switch {
	case err != nil:
		return claim, fmt.Errorf("Acquire(%s): %w", r.owner, err)
	case claim.TTL < 0:
		return claim, fmt.Errorf("Acquire(%s): the TTL is %v", r.owner, claim.TTL)
	}
	return claim, nil
}

func (r *replica) tryRenew(key string, lease time.Duration) error {
	ctx, cancel := context.WithTimeout(r.ctx, guard)
	defer cancel()
	if err := r.store.Renew(ctx, key, r.owner, lease); err != nil {
		return fmt.Errorf("Renew(%s): %w", r.owner, err)
	}
	return nil
}

func (r *replica) tryPublish(key string, record tokenstore.Record, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(r.ctx, guard)
	defer cancel()
	if err := r.store.Publish(ctx, key, r.owner, record, ttl); err != nil {
		return fmt.Errorf("Publish(%s): %w", r.owner, err)
	}
	return nil
}

func (r *replica) tryAbort(key, note string, cooldown time.Duration) error {
	ctx, cancel := context.WithTimeout(r.ctx, guard)
	defer cancel()
	if err := r.store.Abort(ctx, key, r.owner, []byte(note), cooldown); err != nil {
		return fmt.Errorf("Abort(%s): %w", r.owner, err)
	}
	return nil
}

func (r *replica) tryInvalidate(key, version string) error {
	ctx, cancel := context.WithTimeout(r.ctx, guard)
	defer cancel()
	if err := r.store.Invalidate(ctx, key, version); err != nil {
		return fmt.Errorf("Invalidate: %w", err)
	}
	return nil
}

// call runs f, ends the check if f fails, and returns how long it took.
func (t *check) call(f func() error) span {
	t.Helper()
	start := time.Now()
	err := f()
	end := time.Now()
	if err != nil {
		t.fatalf("%v", err)
	}
	return span{start, end}
}

func (r *replica) acquire(key, stale string, lease time.Duration) (claim tokenstore.Claim) {
	r.Helper()
	r.call(func() (err error) {
		claim, err = r.tryAcquire(key, stale, lease)
		return err
	})
	return claim
}

// lead acquires the lease, and ends the check if it doesn't get it.
func (r *replica) lead(key, stale string, lease time.Duration) span {
	r.Helper()
	var claim tokenstore.Claim
	s := r.call(func() (err error) {
		claim, err = r.tryAcquire(key, stale, lease)
		return err
	})
	if claim.State != tokenstore.ClaimLead {
		r.fatalf("Acquire(%s): %v; want lead", r.owner, claim.State)
	}
	r.checkTTL(claim.TTL, s, s, lease)
	return s
}

// renew renews the lease, which r must hold.
func (r *replica) renew(key string, lease time.Duration) span {
	r.Helper()
	return r.call(func() error { return r.tryRenew(key, lease) })
}

// publish publishes a record under the lease, which r must hold.
func (r *replica) publish(key string, record tokenstore.Record, ttl time.Duration) span {
	r.Helper()
	return r.call(func() error { return r.tryPublish(key, record, ttl) })
}

// put acquires the lease and publishes a record.
func (r *replica) put(key, stale string, record tokenstore.Record, ttl time.Duration) span {
	r.Helper()
	r.lead(key, stale, long)
	return r.publish(key, record, ttl)
}

// refused tries to renew and to publish without the lease, and ends the check unless the
// store refuses both.
func (r *replica) refused(key string) {
	r.Helper()
	if err := r.tryRenew(key, long); !errors.Is(err, tokenstore.ErrLeaseLost) {
		r.fatalf("Renew(%s) without the lease: the error is %v; want ErrLeaseLost", r.owner, err)
	}
	if err := r.tryPublish(key, newRecord("refused"), long); !errors.Is(err, tokenstore.ErrLeaseLost) {
		r.fatalf("Publish(%s) without the lease: the error is %v; want ErrLeaseLost", r.owner, err)
	}
}

func (r *replica) abort(key, note string, cooldown time.Duration) span {
	r.Helper()
	return r.call(func() error { return r.tryAbort(key, note, cooldown) })
}

func (r *replica) invalidate(key, version string) {
	r.Helper()
	r.call(func() error { return r.tryInvalidate(key, version) })
}

// state is everything under a key, except how long it will last.
type state struct {
	version, data string
	owner         string
	cooling       bool
	note          string
}

func (s state) String() string {
	var parts []string
	if s.version != "" || s.data != "" {
		parts = append(parts, fmt.Sprintf("a record %s with %s", s.version, abbreviated(s.data)))
	}
	if s.owner != "" {
		parts = append(parts, "a lease of "+s.owner)
	}
	if s.cooling {
		parts = append(parts, "a cooldown with "+abbreviated(s.note))
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func abbreviated(text string) string {
	if len(text) > 40 {
		return fmt.Sprintf("%.40q... (%d bytes)", text, len(text))
	}
	return fmt.Sprintf("%q", text)
}

// with returns the state with a record added.
func (s state) with(r tokenstore.Record) state {
	s.version, s.data = r.Version, string(r.Data)
	return s
}

// want ends the check unless the state under key is want.
func (t *check) want(key, when string, want state) {
	t.Helper()
	if got := t.look(key); got != want {
		t.fatalf("%s, the store has %v; want %v", when, got, want)
	}
}

// look returns what is under key, and leaves it as it is.
func (t *check) look(key string) state {
	t.Helper()
	s := t.glance(key)
	for { // Look twice: a call whose context is done may still be carried out, but once.
		again := t.glance(key)
		if again == s {
			return s
		}
		s = again
	}
}

func (t *check) glance(key string) (s state) {
	t.Helper()
	claim := t.probe.acquire(key, "", long)
	if claim.State == tokenstore.ClaimHit {
		s = s.with(claim.Record)
		claim = t.probe.acquire(key, claim.Record.Version, long)
	}
	switch claim.State {
	case tokenstore.ClaimLead:
		t.probe.abort(key, "", 0)
	case tokenstore.ClaimWait:
		s.owner = claim.Owner
	case tokenstore.ClaimCooling:
		s.cooling, s.note = true, string(claim.Note)
	case tokenstore.ClaimHit: // The record has just been replaced.
		s = s.with(claim.Record)
	default:
		t.fatalf("Acquire returned the unknown state %v", claim.State)
	}
	return s
}

// lasts calls ask again and again, and ends the check unless the state lasts for d from
// began on, and no longer.
func (t *check) lasts(began span, d time.Duration, want tokenstore.ClaimState, ask func() tokenstore.Claim) {
	t.Helper()
	for {
		var claim tokenstore.Claim
		asked := t.call(func() error {
			claim = ask()
			return nil
		})
		if claim.State != want {
			if asked.end.Before(began.start.Add(d - slack)) {
				t.fatalf("the state is %v already %v after the start; want %v for %v", claim.State, asked.end.Sub(began.start), want, d)
			}
			return
		}
		if asked.start.After(began.end.Add(d + slack)) {
			t.fatalf("the state is still %v, %v after its end; want that for %v", claim.State, asked.start.Sub(began.end), d)
		}
		t.checkTTL(claim.TTL, asked, began, d)
		time.Sleep(pollInterval)
	}
}

// checkTTL checks a TTL that the call asked has returned, of something that lasts for d
// from began on.
func (t *check) checkTTL(ttl time.Duration, asked, began span, d time.Duration) {
	t.Helper()
	least := began.start.Add(d).Sub(asked.end) - slack
	most := min(max(d, time.Millisecond), began.end.Add(d).Sub(asked.start)+slack)
	if ttl < least || ttl > most {
		t.fatalf("the TTL is %v; want %v to %v", ttl, max(0, least), most)
	}
}

// past waits until something that lasts for d from began on is over.
func past(began span, d time.Duration) { time.Sleep(time.Until(began.end.Add(d + slack))) }

// together calls f n times at once, and ends the check if one of the calls fails.
func (t *check) together(n int, f func(i int) error) {
	t.Helper()
	start := make(chan struct{})
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.fatalf("%v", err)
	}
}

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// By the clock of the machine, as an adapter's test does it.
func TestRun(t *testing.T) {
	var store Store
	if os.Getenv("STORETEST_UNAVAILABLE") != "" { // set by TestRunFails
		Run(t, func(*testing.T) tokenstore.Store {
			s, fault := store.Connect(), Unavailable()
			s.SetFault(&fault)
			return s
		})
		return
	}
	Run(t, func(*testing.T) tokenstore.Store { return store.Connect() })
}

// What fails in a check fails in a subtest with the name of the rule.
func TestRunFails(t *testing.T) {
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestRun$")
	cmd.Env = append(os.Environ(), "STORETEST_UNAVAILABLE=1")
	output, err := cmd.CombinedOutput()
	require.Error(t, err)
	for _, r := range rules {
		require.Contains(t, string(output), "--- FAIL: TestRun/"+strings.ReplaceAll(r.name, " ", "_")+" (")
	}
	require.Contains(t, string(output), "connection refused")
}

// recorder is the reporter of a check that may fail.
type recorder struct {
	mu     sync.Mutex
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) FailNow() { runtime.Goexit() }

// failures returns what the suite says of a store, by rule.
func failures(t *testing.T, stores func() [3]tokenstore.Store) map[string][]string {
	failed := make(map[string][]string)
	synctest.Test(t, func(t *testing.T) {
		recorders := make([]recorder, len(rules))
		clients := stores()
		var wg sync.WaitGroup
		for i, r := range rules {
			wg.Go(func() { r.check(newCheck(&recorders[i], t.Context(), clients)) })
		}
		wg.Wait()
		time.Sleep(2 * time.Hour) // for calls that hang
		for i, r := range rules {
			if errs := recorders[i].errors; errs != nil {
				failed[r.name] = errs
			}
		}
	})
	return failed
}

// A mutant is a store that breaks a rule: any function that is set takes the place of
// what is right.
type mutant struct {
	contents

	acquire    func(e *entry, c *call) tokenstore.Claim
	renew      func(e *entry, c *call) error
	publish    func(e *entry, c *call) error
	abort      func(e *entry, c *call) error
	invalidate func(e *entry, c *call) error

	claim  func(*tokenstore.Claim)                                      // changes the answer
	keyed  func(key string) string                                      // what is taken for the key
	before func(ctx context.Context) error                              // happens first
	after  func(e *entry, c *call)                                      // happens last, also to what is right
	update func(key string, f func(*entry, *call) error, c *call) error // in place of an atomic one

	memory map[string]string // for functions, under contents.mu
}

// call is a call with all that it may have been given.
type call struct {
	ctx            context.Context
	now            time.Time
	operation, key string
	stale, owner   string
	record         tokenstore.Record
	note           []byte
	d              time.Duration
}

func (m *mutant) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	var claim tokenstore.Claim
	err := m.do(&call{ctx: ctx, operation: "acquire", key: key, stale: stale, owner: owner, d: lease}, func(e *entry, c *call) error {
		if m.acquire != nil {
			claim = m.acquire(e, c)
		} else {
			claim = rightAcquire(e, c)
		}
		return nil
	})
	if err == nil && m.claim != nil {
		m.claim(&claim)
	}
	return claim, err
}

func (m *mutant) Renew(ctx context.Context, key, owner string, lease time.Duration) error {
	f := m.renew
	if f == nil {
		f = rightRenew
	}
	return m.do(&call{ctx: ctx, operation: "renew", key: key, owner: owner, d: lease}, f)
}

func (m *mutant) Publish(ctx context.Context, key, owner string, record tokenstore.Record, ttl time.Duration) error {
	f := m.publish
	if f == nil {
		f = rightPublish
	}
	return m.do(&call{ctx: ctx, operation: "publish", key: key, owner: owner, record: record, d: ttl}, f)
}

func (m *mutant) Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error {
	f := m.abort
	if f == nil {
		f = rightAbort
	}
	return m.do(&call{ctx: ctx, operation: "abort", key: key, owner: owner, note: note, d: cooldown}, f)
}

func (m *mutant) Invalidate(ctx context.Context, key, version string) error {
	f := m.invalidate
	if f == nil {
		f = rightInvalidate
	}
	return m.do(&call{ctx: ctx, operation: "invalidate", key: key, record: tokenstore.Record{Version: version}}, f)
}

func (m *mutant) do(c *call, f func(*entry, *call) error) error {
	if m.before != nil {
		if err := m.before(c.ctx); err != nil {
			return err
		}
	}
	key := c.key
	if m.keyed != nil {
		key = m.keyed(key)
	}
	if m.update != nil {
		return m.update(key, f, c)
	}
	return m.contents.update(key, func(e *entry, now time.Time) error {
		c.now = now
		if m.memory == nil {
			m.memory = make(map[string]string)
		}
		err := f(e, c)
		if m.after != nil {
			m.after(e, c)
		}
		return err
	})
}

func rightAcquire(e *entry, c *call) tokenstore.Claim {
	return e.acquire(c.now, c.stale, c.owner, c.d)
}

func rightRenew(e *entry, c *call) error { return e.renew(c.now, c.owner, c.d) }

func rightPublish(e *entry, c *call) error { return e.publish(c.now, c.owner, c.record, c.d) }

func rightAbort(e *entry, c *call) error {
	e.abort(c.now, c.owner, c.note, c.d)
	return nil
}

func rightInvalidate(e *entry, c *call) error {
	e.invalidate(c.record.Version)
	return nil
}

// unatomic carries out the calls of these operations in two steps.
func unatomic(m *mutant, operations ...string) *mutant {
	m.update = func(key string, f func(*entry, *call) error, c *call) error {
		if !slices.Contains(operations, c.operation) {
			return m.contents.update(key, func(e *entry, now time.Time) error {
				c.now = now
				return f(e, c)
			})
		}
		var read entry
		_ = m.contents.update(key, func(e *entry, now time.Time) error {
			read, c.now = *e, now
			return nil
		})
		time.Sleep(1)
		err := f(&read, c)
		_ = m.contents.update(key, func(e *entry, _ time.Time) error {
			*e = read
			return nil
		})
		return err
	}
	return m
}

// same returns three clients that are one.
func same(s tokenstore.Store) [3]tokenstore.Store {
	return [3]tokenstore.Store{s, s, s}
}

const ever = 100 * 365 * 24 * time.Hour

var errOther = errors.New("other error")

// mutants are stores with one mistake each.
var mutants = map[string]func() *mutant{
	// Acquire
	"everybody leads": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if !e.hasRecord() {
				e.endLease()
			}
			return rightAcquire(e, c)
		}}
	},
	"the lease isn't known by its holder": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if owner := e.owner; e.heldBy(c.owner) {
				e.owner = "*"
				defer func() { e.owner = owner }()
			}
			return rightAcquire(e, c)
		}}
	},
	"the lease goes before the record": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if record, until := e.record, e.recordUntil; e.hasLease() {
				e.endRecord()
				defer func() { e.record, e.recordUntil = record, until }()
			}
			return rightAcquire(e, c)
		}}
	},
	"the cooldown goes before the record": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if record, until := e.record, e.recordUntil; e.hasCooldown() {
				e.endRecord()
				defer func() { e.record, e.recordUntil = record, until }()
			}
			return rightAcquire(e, c)
		}}
	},
	"stale is a prefix":       func() *mutant { return confuses(func(s, of string) bool { return strings.HasPrefix(of, s) }) },
	"stale has a prefix":      func() *mutant { return confuses(strings.HasPrefix) },
	"stale in any case":       func() *mutant { return confuses(strings.EqualFold) },
	"stale is a number":       func() *mutant { return confuses(sameNumber) },
	"stale is whatever it is": func() *mutant { return confuses(func(string, string) bool { return true }) },
	"stale is overlooked": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			return e.acquire(c.now, "", c.owner, c.d)
		}}
	},
	"a stale record is removed": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if e.record.Version == c.stale {
				e.endRecord()
			}
			return rightAcquire(e, c)
		}}
	},
	"no cooldown": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			c.d = 0
			return rightAbort(e, c)
		}}
	},
	"no cooldown for who has caused it": func() *mutant {
		m := new(mutant)
		m.abort = func(e *entry, c *call) error {
			if e.heldBy(c.owner) {
				m.memory[c.key] = c.owner
			}
			return rightAbort(e, c)
		}
		m.acquire = func(e *entry, c *call) tokenstore.Claim {
			if e.hasCooldown() && m.memory[c.key] == c.owner {
				e.endCooldown()
			}
			return rightAcquire(e, c)
		}
		return m
	},
	"who waits prolongs the lease": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if e.hasLease() {
				e.leaseUntil = c.now.Add(c.d)
			}
			return rightAcquire(e, c)
		}}
	},
	"a lease isn't renewed": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if until := e.leaseUntil; e.heldBy(c.owner) {
				defer func() { e.leaseUntil = until }()
			}
			return rightAcquire(e, c)
		}}
	},
	"a lease is only renewed for longer": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if e.heldBy(c.owner) {
				c.d = max(c.d, e.leaseUntil.Sub(c.now))
			}
			return rightAcquire(e, c)
		}}
	},
	"a lease is prolonged by renewing it": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if e.heldBy(c.owner) {
				c.d += e.leaseUntil.Sub(c.now)
			}
			return rightAcquire(e, c)
		}}
	},
	"a hit renews the lease": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if e.heldBy(c.owner) {
				e.leaseUntil = c.now.Add(c.d)
			}
			return rightAcquire(e, c)
		}}
	},
	"a hit ends the lease": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			claim := rightAcquire(e, c)
			if claim.State == hit && e.heldBy(c.owner) {
				e.endLease()
			}
			return claim
		}}
	},
	"a hit takes the lease": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if e.hasRecord() && !e.hasLease() {
				e.owner, e.leaseUntil = c.owner, c.now.Add(c.d)
			}
			return rightAcquire(e, c)
		}}
	},
	"the holder isn't told":  func() *mutant { return &mutant{claim: func(c *tokenstore.Claim) { c.Owner = "" }} },
	"the note isn't told":    func() *mutant { return &mutant{claim: func(c *tokenstore.Claim) { c.Note = nil }} },
	"the version isn't told": func() *mutant { return &mutant{claim: func(c *tokenstore.Claim) { c.Record.Version = "" }} },
	"no TTL":                 func() *mutant { return &mutant{claim: func(c *tokenstore.Claim) { c.TTL = 0 }} },
	"negative TTL":           func() *mutant { return &mutant{claim: func(c *tokenstore.Claim) { c.TTL -= time.Hour }} },
	"TTL in whole seconds": func() *mutant {
		return &mutant{claim: func(c *tokenstore.Claim) { c.TTL = c.TTL.Truncate(time.Second) }}
	},
	"TTL in seconds, rounded up": func() *mutant {
		return &mutant{claim: func(c *tokenstore.Claim) { c.TTL = (c.TTL + time.Second - 1).Truncate(time.Second) }}
	},
	"milliseconds taken for nanos": func() *mutant { return &mutant{claim: func(c *tokenstore.Claim) { c.TTL /= 1e6 }} },
	"unknown state": func() *mutant {
		return &mutant{claim: func(c *tokenstore.Claim) {
			if c.State == waiting {
				c.State = 0
			}
		}}
	},
	"TTL is the whole life": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			claim := rightAcquire(e, c)
			if claim.State == hit {
				claim.TTL = e.recordUntil.Sub(c.now) + 100*time.Millisecond
			}
			return claim
		}}
	},

	// Renew
	"Renew does nothing": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			if !e.heldBy(c.owner) {
				return tokenstore.ErrLeaseLost
			}
			return nil
		}}
	},
	"Renew begins a lease": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			if e.empty() {
				e.owner, e.leaseUntil = c.owner, c.now.Add(c.d)
			}
			return rightRenew(e, c)
		}}
	},
	"Renew begins a lease during a cooldown": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			if e.hasCooldown() {
				e.owner, e.leaseUntil = c.owner, c.now.Add(c.d)
			}
			return rightRenew(e, c)
		}}
	},
	"Renew begins a lease beside a record": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			if e.hasRecord() && !e.hasLease() {
				e.owner, e.leaseUntil = c.owner, c.now.Add(c.d)
			}
			return rightRenew(e, c)
		}}
	},
	"Renew takes the lease": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			if e.hasLease() {
				e.owner = c.owner
			}
			return rightRenew(e, c)
		}}
	},
	"Renew only makes longer": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			c.d = max(c.d, e.leaseUntil.Sub(c.now))
			return rightRenew(e, c)
		}}
	},
	"anybody renews": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			c.owner = e.owner
			return rightRenew(e, c)
		}}
	},
	"a refused Renew prolongs the lease": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			err := rightRenew(e, c)
			if e.hasLease() {
				e.leaseUntil = c.now.Add(c.d)
			}
			return err
		}}
	},
	"a refused Renew ends the lease": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			err := rightRenew(e, c)
			if err != nil {
				e.endLease()
			}
			return err
		}}
	},
	"a refused Renew is no error": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			_ = rightRenew(e, c)
			return nil
		}}
	},
	"Renew removes the record": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			e.endRecord()
			return rightRenew(e, c)
		}}
	},
	"Renew prolongs the record": func() *mutant {
		return &mutant{renew: func(e *entry, c *call) error {
			err := rightRenew(e, c)
			if err == nil && e.hasRecord() {
				e.recordUntil = c.now.Add(c.d)
			}
			return err
		}}
	},
	"Renew doesn't know the time": func() *mutant {
		return remembers(func(m *mutant, e *entry, c *call) {
			if c.operation == "renew" && !e.hasLease() && m.memory[c.key] == c.owner {
				e.owner, e.leaseUntil = c.owner, c.now.Add(c.d)
			}
		})
	},
	"Renew isn't atomic": func() *mutant { return unatomic(new(mutant), "renew") },

	// Publish
	"no fence": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			e.owner, e.leaseUntil = c.owner, c.now.Add(long)
			return rightPublish(e, c)
		}}
	},
	"a fence only against another holder": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			if !e.hasLease() {
				e.owner, e.leaseUntil = c.owner, c.now.Add(long)
			}
			return rightPublish(e, c)
		}}
	},
	"a fence that asks only for a lease": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			c.owner = e.owner
			return rightPublish(e, c)
		}}
	},
	"a fence that doesn't know the time": func() *mutant {
		return remembers(func(m *mutant, e *entry, c *call) {
			if c.operation == "publish" && !e.hasLease() && m.memory[c.key] == c.owner {
				e.owner, e.leaseUntil = c.owner, c.now.Add(long)
			}
		})
	},
	"a lease comes back": func() *mutant {
		return remembers(func(m *mutant, e *entry, c *call) {
			if c.operation == "publish" && m.memory[c.key+c.owner] == "led" {
				e.owner, e.leaseUntil = c.owner, c.now.Add(long)
			}
		})
	},
	"Publish keeps the lease": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			owner, until := e.owner, e.leaseUntil
			err := rightPublish(e, c)
			e.owner, e.leaseUntil = owner, until
			return err
		}}
	},
	"Publish doesn't replace": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			if e.heldBy(c.owner) && e.hasRecord() {
				e.endLease()
				return nil
			}
			return rightPublish(e, c)
		}}
	},
	"Publish appends": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			c.record.Data = append(bytes.Clone(e.record.Data), c.record.Data...)
			return rightPublish(e, c)
		}}
	},
	"a lost lease is no error": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			_ = rightPublish(e, c)
			return nil
		}}
	},
	"a lost lease is any error": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			if rightPublish(e, c) != nil {
				return errOther
			}
			return nil
		}}
	},
	"a refused Publish ends the lease": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			err := rightPublish(e, c)
			e.endLease()
			return err
		}}
	},
	"a refused Publish prolongs the lease": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			err := rightPublish(e, c)
			if e.hasLease() {
				e.leaseUntil = c.now.Add(c.d)
			}
			return err
		}}
	},
	"a refused Publish prolongs the record": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			err := rightPublish(e, c)
			if e.hasRecord() {
				e.recordUntil = c.now.Add(c.d)
			}
			return err
		}}
	},
	"a refused Publish removes the record": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			err := rightPublish(e, c)
			if err != nil {
				e.endRecord()
			}
			return err
		}}
	},
	"a refused Publish prolongs the cooldown": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			err := rightPublish(e, c)
			if e.hasCooldown() {
				e.cooldownUntil = c.now.Add(c.d)
			}
			return err
		}}
	},
	"a refused Publish ends the cooldown": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			e.endCooldown()
			return rightPublish(e, c)
		}}
	},

	// Abort
	"anybody aborts": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if e.hasLease() {
				c.owner = e.owner
			}
			return rightAbort(e, c)
		}}
	},
	"anybody aborts when nobody leads": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if e.empty() {
				e.owner, e.leaseUntil = c.owner, c.now.Add(long)
			}
			return rightAbort(e, c)
		}}
	},
	"Abort doesn't know the time": func() *mutant {
		return remembers(func(m *mutant, e *entry, c *call) {
			if c.operation == "abort" && !e.hasLease() && m.memory[c.key] == c.owner {
				e.owner, e.leaseUntil = c.owner, c.now.Add(long)
			}
		})
	},
	"Abort is an error for one that doesn't lead": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if !e.heldBy(c.owner) {
				return tokenstore.ErrLeaseLost
			}
			return rightAbort(e, c)
		}}
	},
	"Abort removes the record": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if e.heldBy(c.owner) {
				e.endRecord()
			}
			return rightAbort(e, c)
		}}
	},
	"Abort keeps the lease": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			owner, until := e.owner, e.leaseUntil
			err := rightAbort(e, c)
			e.owner, e.leaseUntil = owner, until
			return err
		}}
	},
	"Abort without a cooldown keeps the lease": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if c.d <= 0 {
				return nil
			}
			return rightAbort(e, c)
		}}
	},
	"a cooldown of 0 is for ever": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if c.d == 0 {
				c.d = ever
			}
			return rightAbort(e, c)
		}}
	},
	"a negative cooldown is for ever": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if c.d < 0 {
				c.d = ever
			}
			return rightAbort(e, c)
		}}
	},
	"the next Abort replaces the note": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if e.hasCooldown() {
				e.note = bytes.Clone(c.note)
			}
			return rightAbort(e, c)
		}}
	},
	"the next Abort prolongs the cooldown": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			if e.hasCooldown() {
				e.cooldownUntil = c.now.Add(c.d)
			}
			return rightAbort(e, c)
		}}
	},
	"the first note stays": func() *mutant {
		m := new(mutant)
		m.abort = func(e *entry, c *call) error {
			if first, ok := m.memory[c.key]; ok {
				c.note = []byte(first)
			} else if e.heldBy(c.owner) && c.d > 0 {
				m.memory[c.key] = string(c.note)
			}
			return rightAbort(e, c)
		}
		return m
	},

	// Invalidate
	"Invalidate does nothing": func() *mutant {
		return &mutant{invalidate: func(*entry, *call) error { return nil }}
	},
	"Invalidate removes any version": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			e.invalidate(e.record.Version)
			return nil
		}}
	},
	"Invalidate by prefix": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			if strings.HasPrefix(e.record.Version, c.record.Version) {
				e.invalidate(e.record.Version)
			}
			return nil
		}}
	},
	"Invalidate keeps the lease": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			owner, until := e.owner, e.leaseUntil
			e.invalidate(c.record.Version)
			e.owner, e.leaseUntil = owner, until
			return nil
		}}
	},
	"Invalidate always ends the lease": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			e.endLease()
			return rightInvalidate(e, c)
		}}
	},
	"Invalidate ends the lease when there is no record": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			if !e.hasRecord() {
				e.endLease()
			}
			return rightInvalidate(e, c)
		}}
	},
	"Invalidate removes everything": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			if e.hasRecord() && e.record.Version == c.record.Version {
				*e = entry{}
			}
			return nil
		}}
	},
	"Invalidate always removes the cooldown": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			e.endCooldown()
			return rightInvalidate(e, c)
		}}
	},
	"Invalidate is an error without a record": func() *mutant {
		return &mutant{invalidate: func(e *entry, c *call) error {
			if !e.hasRecord() {
				return errOther
			}
			return rightInvalidate(e, c)
		}}
	},
	"Invalidate doesn't know the time": func() *mutant {
		m := new(mutant)
		m.publish = func(e *entry, c *call) error {
			err := rightPublish(e, c)
			if err == nil {
				m.memory[c.key] = c.record.Version
			}
			return err
		}
		m.invalidate = func(e *entry, c *call) error {
			if !e.hasRecord() && m.memory[c.key] == c.record.Version {
				e.endLease()
			}
			return rightInvalidate(e, c)
		}
		return m
	},

	// Lifetimes
	"records for ever":   func() *mutant { return lives("publish", func(time.Duration) time.Duration { return ever }) },
	"leases for ever":    func() *mutant { return lives("acquire", func(time.Duration) time.Duration { return ever }) },
	"cooldowns for ever": func() *mutant { return lives("abort", positive(func(time.Duration) time.Duration { return ever })) },
	"records by the second": func() *mutant {
		return lives("publish", func(d time.Duration) time.Duration { return d.Truncate(time.Second) })
	},
	"records by the second, rounded up":        func() *mutant { return lives("publish", up) },
	"renewals by the second, rounded up":       func() *mutant { return lives("renew", up) },
	"a renewal of no millisecond is for ever":  func() *mutant { return lives("renew", zeroIsEver) },
	"leases by the second, rounded up":         func() *mutant { return lives("acquire", up) },
	"cooldowns by the second, rounded up":      func() *mutant { return lives("abort", positive(up)) },
	"records by 32 bits of milliseconds":       func() *mutant { return lives("publish", narrow) },
	"leases by 32 bits of milliseconds":        func() *mutant { return lives("acquire", narrow) },
	"cooldowns by 32 bits of milliseconds":     func() *mutant { return lives("abort", narrow) },
	"a record of no millisecond is for ever":   func() *mutant { return lives("publish", zeroIsEver) },
	"a lease of no millisecond is for ever":    func() *mutant { return lives("acquire", zeroIsEver) },
	"a cooldown of no millisecond is for ever": func() *mutant { return lives("abort", positive(zeroIsEver)) },
	"a record of no millisecond isn't published": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			if e.heldBy(c.owner) && c.d < time.Millisecond {
				e.endLease()
				return nil
			}
			return rightPublish(e, c)
		}}
	},
	"a record lives no shorter than the one before": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			c.d = max(c.d, e.recordUntil.Sub(c.now))
			return rightPublish(e, c)
		}}
	},
	"a record lives no longer than the one before": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			if e.hasRecord() {
				c.d = min(c.d, e.recordUntil.Sub(c.now))
			}
			return rightPublish(e, c)
		}}
	},
	"a record lives as the lease does": func() *mutant {
		return &mutant{after: func(e *entry, c *call) {
			if e.hasRecord() && e.hasLease() {
				e.recordUntil = e.leaseUntil
			}
		}}
	},
	"a record lives as the cooldown does": func() *mutant {
		return &mutant{after: func(e *entry, c *call) {
			if e.hasRecord() && e.hasCooldown() {
				e.recordUntil = e.cooldownUntil
			}
		}}
	},
	"a lease lives no longer than the record": func() *mutant {
		return &mutant{after: func(e *entry, c *call) {
			if e.hasRecord() && e.hasLease() && e.recordUntil.Before(e.leaseUntil) {
				e.leaseUntil = e.recordUntil
			}
		}}
	},
	"a cooldown lives no longer than the record": func() *mutant {
		return &mutant{after: func(e *entry, c *call) {
			if e.hasRecord() && e.hasCooldown() && e.recordUntil.Before(e.cooldownUntil) {
				e.cooldownUntil = e.recordUntil
			}
		}}
	},
	"a key lives as what was last put under it": func() *mutant {
		return &mutant{after: func(e *entry, c *call) {
			if c.d <= 0 || c.operation == "acquire" && !e.heldBy(c.owner) {
				return
			}
			for _, until := range []*time.Time{&e.recordUntil, &e.leaseUntil, &e.cooldownUntil} {
				if !until.IsZero() {
					*until = c.now.Add(c.d)
				}
			}
		}}
	},
	"a timer of an older record removes the newer": func() *mutant {
		return timers("publish", func(e *entry) { e.endRecord() })
	},
	"a timer of an older lease ends the newer": func() *mutant {
		return timers("acquire", func(e *entry) { e.endLease() })
	},
	"the second cooldown is as short as the first": func() *mutant {
		m := new(mutant)
		m.abort = func(e *entry, c *call) error {
			if d, err := time.ParseDuration(m.memory[c.key]); err == nil && e.heldBy(c.owner) {
				c.d = min(d, c.d)
			} else if e.heldBy(c.owner) && c.d > 0 {
				m.memory[c.key] = c.d.String()
			}
			return rightAbort(e, c)
		}
		return m
	},
	"a hit prolongs the record": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			claim := rightAcquire(e, c)
			if claim.State == hit {
				e.recordUntil = e.recordUntil.Add(200 * time.Millisecond)
			}
			return claim
		}}
	},
	"asking prolongs the cooldown": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if e.hasCooldown() {
				e.cooldownUntil = e.cooldownUntil.Add(pollInterval)
			}
			return rightAcquire(e, c)
		}}
	},

	// Keys
	"keys by their beginning": func() *mutant { return &mutant{keyed: func(key string) string { return key[:63] }} },
	"keys by their end":       func() *mutant { return &mutant{keyed: func(key string) string { return key[1:] }} },
	"keys by their halves":    func() *mutant { return &mutant{keyed: func(key string) string { return key[:31] + key[33:] }} },
	"one key":                 func() *mutant { return &mutant{keyed: func(string) string { return "" }} },

	// Data
	"data is text":                func() *mutant { return spoils(func(s string) string { return strings.ToValidUTF8(s, "?") }) },
	"data ends at a zero byte":    func() *mutant { return spoils(func(s string) string { s, _, _ = strings.Cut(s, "\x00"); return s }) },
	"data has no space around it": func() *mutant { return spoils(strings.TrimSpace) },
	"data of 64 KiB":              func() *mutant { return spoils(func(s string) string { return s[:min(len(s), 64<<10)] }) },
	"data is formatted":           func() *mutant { return spoils(func(s string) string { return strings.ReplaceAll(s, "%d", "0") }) },
	"data null is empty":          func() *mutant { return spoils(func(s string) string { return strings.TrimPrefix(s, "null") }) },
	"data is a number": func() *mutant {
		return spoils(func(s string) string {
			if strings.Trim(s, "0123456789") == "" {
				s = strings.TrimLeft(s, "0")
			}
			return s
		})
	},
	"empty data is no record": func() *mutant {
		return &mutant{after: func(e *entry, c *call) {
			if len(e.record.Data) == 0 {
				e.endRecord()
			}
		}}
	},
	"empty note is no cooldown": func() *mutant {
		return &mutant{after: func(e *entry, c *call) {
			if len(e.note) == 0 {
				e.endCooldown()
			}
		}}
	},
	"notes of 64 KiB": func() *mutant {
		return &mutant{claim: func(c *tokenstore.Claim) { c.Note = c.Note[:min(len(c.Note), 64<<10)] }}
	},
	"data of the caller": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			err := rightPublish(e, c)
			if err == nil {
				e.record.Data = c.record.Data
			}
			return err
		}}
	},
	"note of the caller": func() *mutant {
		return &mutant{abort: func(e *entry, c *call) error {
			_ = rightAbort(e, c)
			if e.hasCooldown() {
				e.note = c.note
			}
			return nil
		}}
	},
	"data for all callers": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			claim := rightAcquire(e, c)
			claim.Record.Data, claim.Note = e.record.Data, e.note
			if claim.State != hit {
				claim.Record = tokenstore.Record{}
			}
			return claim
		}}
	},
	"versions in lower case": func() *mutant {
		return &mutant{claim: func(c *tokenstore.Claim) { c.Record.Version = strings.ToLower(c.Record.Version) }}
	},
	"versions of 32 bytes": func() *mutant {
		return &mutant{claim: func(c *tokenstore.Claim) { c.Record.Version = c.Record.Version[:min(len(c.Record.Version), 32)] }}
	},
	"owners in lower case": func() *mutant {
		return &mutant{claim: func(c *tokenstore.Claim) { c.Owner = strings.ToLower(c.Owner) }}
	},
	"owners are compared in lower case": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			if strings.EqualFold(e.owner, c.owner) {
				c.owner = e.owner
			}
			return rightPublish(e, c)
		}}
	},
	"owners are numbers": func() *mutant {
		return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
			if sameNumber(e.owner, c.owner) {
				c.owner = e.owner
			}
			return rightAcquire(e, c)
		}}
	},

	// Concurrency
	"Acquire isn't atomic":    func() *mutant { return unatomic(new(mutant), "acquire") },
	"Publish isn't atomic":    func() *mutant { return unatomic(new(mutant), "publish") },
	"Abort isn't atomic":      func() *mutant { return unatomic(new(mutant), "abort") },
	"Invalidate isn't atomic": func() *mutant { return unatomic(new(mutant), "invalidate") },
	"nothing is atomic":       func() *mutant { return unatomic(new(mutant), "acquire", "renew", "publish", "abort", "invalidate") },

	// Context
	"a context that is done hangs": func() *mutant {
		return &mutant{before: func(ctx context.Context) error {
			if ctx.Err() != nil {
				time.Sleep(time.Hour)
			}
			return nil
		}}
	},
	"a context that is done is a lost lease": func() *mutant {
		return &mutant{before: func(ctx context.Context) error {
			if ctx.Err() != nil {
				return tokenstore.ErrLeaseLost
			}
			return nil
		}}
	},
	"a context that is done is no error": func() *mutant {
		m := new(mutant)
		m.update = func(key string, f func(*entry, *call) error, c *call) error {
			if c.ctx.Err() != nil {
				return nil
			}
			return m.contents.update(key, func(e *entry, now time.Time) error {
				c.now = now
				return f(e, c)
			})
		}
		return m
	},
	"a context that is done keeps the lease": func() *mutant {
		return &mutant{publish: func(e *entry, c *call) error {
			owner, until := e.owner, e.leaseUntil
			err := rightPublish(e, c)
			if c.ctx.Err() != nil {
				e.owner, e.leaseUntil = owner, until
				return c.ctx.Err()
			}
			return err
		}}
	},
}

// confuses returns a mutant that takes a record for stale if is says so.
func confuses(is func(stale, version string) bool) *mutant {
	return &mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
		if c.stale != "" && is(c.stale, e.record.Version) {
			c.stale = e.record.Version
		}
		return rightAcquire(e, c)
	}}
}

func sameNumber(a, b string) bool {
	var x, y float64
	n, _ := fmt.Sscan(a, &x)
	m, _ := fmt.Sscan(b, &y)
	return n == 1 && m == 1 && x == y && strings.Trim(a+b, "0123456789") == ""
}

// remembers returns a mutant that knows who led last, and does f before each call.
func remembers(f func(m *mutant, e *entry, c *call)) *mutant {
	m := new(mutant)
	m.acquire = func(e *entry, c *call) tokenstore.Claim {
		claim := rightAcquire(e, c)
		if claim.State == lead {
			m.memory[c.key] = c.owner
			m.memory[c.key+c.owner] = "led"
		}
		return claim
	}
	m.renew = func(e *entry, c *call) error {
		f(m, e, c)
		return rightRenew(e, c)
	}
	m.publish = func(e *entry, c *call) error {
		f(m, e, c)
		delete(m.memory, c.key)
		return rightPublish(e, c)
	}
	m.abort = func(e *entry, c *call) error {
		f(m, e, c)
		delete(m.memory, c.key)
		return rightAbort(e, c)
	}
	m.invalidate = func(e *entry, c *call) error {
		delete(m.memory, c.key)
		return rightInvalidate(e, c)
	}
	return m
}

// lives returns a mutant in which what operation begins has another duration. It tells
// the TTL that was asked for.
func lives(operation string, f func(time.Duration) time.Duration) *mutant {
	m := new(mutant)
	change := func(c *call) {
		if c.operation == operation {
			c.d = f(c.d)
		}
	}
	m.acquire = func(e *entry, c *call) tokenstore.Claim {
		asked := c.d
		change(c)
		claim := rightAcquire(e, c)
		if claim.TTL = max(0, claim.TTL); claim.State == lead {
			claim.TTL = asked.Truncate(time.Millisecond)
		}
		return claim
	}
	m.renew = func(e *entry, c *call) error {
		change(c)
		return rightRenew(e, c)
	}
	m.publish = func(e *entry, c *call) error {
		change(c)
		return rightPublish(e, c)
	}
	m.abort = func(e *entry, c *call) error {
		change(c)
		return rightAbort(e, c)
	}
	return m
}

func up(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }

func narrow(d time.Duration) time.Duration {
	return time.Duration(int32(d.Milliseconds())) * time.Millisecond
}

func zeroIsEver(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return ever
	}
	return d
}

func positive(f func(time.Duration) time.Duration) func(time.Duration) time.Duration {
	return func(d time.Duration) time.Duration {
		if d <= 0 {
			return d
		}
		return f(d)
	}
}

// timers returns a mutant in which the end of what operation begins is a timer that
// nobody stops when it is replaced.
func timers(operation string, end func(*entry)) *mutant {
	m := new(mutant)
	m.after = func(e *entry, c *call) {
		if c.operation == operation && c.d < time.Minute {
			time.AfterFunc(c.d, func() {
				_ = m.contents.update(c.key, func(e *entry, _ time.Time) error {
					end(e)
					return nil
				})
			})
		}
	}
	return m
}

// spoils returns a mutant that keeps other data.
func spoils(f func(string) string) *mutant {
	return &mutant{publish: func(e *entry, c *call) error {
		c.record.Data = []byte(f(string(c.record.Data)))
		return rightPublish(e, c)
	}}
}

// A caching client remembers records without asking again.
type caching struct {
	*Store
	mu    sync.Mutex
	cache map[string]tokenstore.Record
}

func (s *caching) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.cache[key]; ok && r.Version != stale {
		return tokenstore.Claim{State: hit, Record: clone(r), TTL: lease}, nil
	}
	claim, err := s.Store.Acquire(ctx, key, stale, owner, lease)
	if err == nil && claim.State == hit {
		s.cache[key] = clone(claim.Record)
	}
	return claim, err
}

// A late client does what it was told to after its context is done.
type late struct{ *Store }

func (s *late) do(ctx context.Context, call func(context.Context)) error {
	err := ctx.Err()
	if err == nil {
		call(ctx)
		return nil
	}
	go call(context.WithoutCancel(ctx))
	return err
}

func (s *late) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	if ctx.Err() == nil {
		return s.Store.Acquire(ctx, key, stale, owner, lease)
	}
	return tokenstore.Claim{}, s.do(ctx, func(ctx context.Context) { _, _ = s.Store.Acquire(ctx, key, stale, owner, lease) })
}

func (s *late) Publish(ctx context.Context, key, owner string, record tokenstore.Record, ttl time.Duration) error {
	if ctx.Err() == nil {
		return s.Store.Publish(ctx, key, owner, record, ttl)
	}
	return s.do(ctx, func(ctx context.Context) { _ = s.Store.Publish(ctx, key, owner, record, ttl) })
}

func (s *late) Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error {
	return s.do(ctx, func(ctx context.Context) { _ = s.Store.Abort(ctx, key, owner, note, cooldown) })
}

func (s *late) Invalidate(ctx context.Context, key, version string) error {
	return s.do(ctx, func(ctx context.Context) { _ = s.Store.Invalidate(ctx, key, version) })
}

// TestRunRejects shows of each mutant that the suite finds it out, and of each rule
// that it finds out one at least.
func TestRunRejects(t *testing.T) {
	useful := make(map[string][]string)
	reject := func(name string, stores func() [3]tokenstore.Store) {
		t.Run(name, func(t *testing.T) {
			failed := failures(t, stores)
			require.NotEmpty(t, failed, "the suite accepts it")
			for _, rule := range slices.Sorted(maps.Keys(failed)) {
				useful[rule] = append(useful[rule], name)
				t.Logf("%s: %s", rule, abbreviate(failed[rule][0]))
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(mutants)) {
		reject(name, func() [3]tokenstore.Store { return same(mutants[name]()) })
	}
	reject("each client has a store of its own", func() [3]tokenstore.Store {
		return [3]tokenstore.Store{new(Store), new(Store), new(Store)}
	})
	reject("each client keeps records", func() (clients [3]tokenstore.Store) {
		var store Store
		for i := range clients {
			clients[i] = &caching{Store: store.Connect(), cache: make(map[string]tokenstore.Record)}
		}
		return clients
	})
	reject("unavailable", func() [3]tokenstore.Store {
		store, fault := new(Store), Unavailable()
		store.SetFault(&fault)
		return same(store)
	})
	for _, r := range rules {
		if useful[r.name] == nil {
			t.Errorf("%s: no mutant breaks that rule", r.name)
		}
	}
}

func abbreviate(text string) string {
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	return text
}

// TestRunAccepts shows that the suite demands no more than the contract.
func TestRunAccepts(t *testing.T) {
	tests := map[string]func() [3]tokenstore.Store{
		"Store": func() [3]tokenstore.Store { return same(new(Store)) },
		"exact TTL": func() [3]tokenstore.Store {
			return same(&mutant{acquire: func(e *entry, c *call) tokenstore.Claim {
				claim := rightAcquire(e, c)
				switch claim.State {
				case hit:
					claim.TTL = e.recordUntil.Sub(c.now)
				case cooling:
					claim.TTL = e.cooldownUntil.Sub(c.now)
				default:
					claim.TTL = e.leaseUntil.Sub(c.now)
				}
				return claim
			}})
		},
		"lifetimes in milliseconds, no less than one": func() [3]tokenstore.Store {
			ms := func(d time.Duration) time.Duration { return max(d.Truncate(time.Millisecond), time.Millisecond) }
			return same(&mutant{
				acquire: func(e *entry, c *call) tokenstore.Claim {
					c.d = ms(c.d)
					return rightAcquire(e, c)
				},
				renew: func(e *entry, c *call) error {
					c.d = ms(c.d)
					return rightRenew(e, c)
				},
				publish: func(e *entry, c *call) error {
					c.d = ms(c.d)
					return rightPublish(e, c)
				},
				abort: func(e *entry, c *call) error {
					if c.d > 0 {
						c.d = ms(c.d)
					}
					return rightAbort(e, c)
				},
			})
		},
		"slow": func() [3]tokenstore.Store {
			return same(&mutant{before: func(context.Context) error {
				time.Sleep(700 * time.Millisecond)
				return nil
			}})
		},
		"slow replies": func() [3]tokenstore.Store {
			store := new(Store)
			store.SetFault(&Fault{Reply: true, Delay: 700 * time.Millisecond})
			return same(store)
		},
		"done after the context": func() [3]tokenstore.Store { return same(&late{new(Store)}) },
		"more in a claim than its state needs": func() [3]tokenstore.Store {
			return same(&mutant{claim: func(c *tokenstore.Claim) {
				if c.State != hit {
					c.Record = tokenstore.Record{Version: "x", Data: []byte("x")}
				}
				if c.State != waiting {
					c.Owner = "x"
				}
				if c.State != cooling {
					c.Note = []byte("x")
				}
			}})
		},
	}
	for name, stores := range tests {
		t.Run(name, func(t *testing.T) { require.Empty(t, failures(t, stores)) })
	}
}

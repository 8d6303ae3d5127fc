package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A mutant is a store in memory with a mistake. mutantWith makes one.
type mutant struct {
	contents contents

	around func(e *entry, c *call)   // carries out a call
	before func(ctx context.Context) // runs before the store is locked
	keyed  func(key string) string   // what the store takes for the key
	torn   []string                  // the operations that read and write in two steps
	late   bool                      // a call whose context is done is carried out after it has returned

	memory map[string]string // for around, which runs under contents.mu
}

// A call is a call of a mutant: what it was given, and what it returns.
type call struct {
	ctx            context.Context
	memory         map[string]string
	now            time.Time
	operation, key string
	version, owner string // version is the stale or the invalidated one
	record         tokenstore.Record
	note           []byte
	d              time.Duration

	claim tokenstore.Claim
	err   error
}

func (m *mutant) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	c := call{ctx: ctx, operation: "acquire", key: key, version: stale, owner: owner, d: lease}
	err := m.do(&c)
	return c.claim, err
}

func (m *mutant) Renew(ctx context.Context, key, owner string, lease time.Duration) error {
	return m.do(&call{ctx: ctx, operation: "renew", key: key, owner: owner, d: lease})
}

func (m *mutant) Publish(ctx context.Context, key, owner string, record tokenstore.Record, ttl time.Duration) error {
	return m.do(&call{ctx: ctx, operation: "publish", key: key, owner: owner, record: record, d: ttl})
}

func (m *mutant) Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error {
	return m.do(&call{ctx: ctx, operation: "abort", key: key, owner: owner, note: note, d: cooldown})
}

func (m *mutant) Invalidate(ctx context.Context, key, version string) error {
	return m.do(&call{ctx: ctx, operation: "invalidate", key: key, version: version})
}

func (m *mutant) do(c *call) error {
	if m.before != nil {
		m.before(c.ctx)
	}
	if m.late && c.ctx.Err() != nil {
		later := *c
		later.ctx = context.WithoutCancel(c.ctx)
		go func() { _ = m.do(&later) }()
		return c.ctx.Err()
	}
	key := c.key
	if m.keyed != nil {
		key = m.keyed(key)
	}
	if !slices.Contains(m.torn, c.operation) {
		return m.contents.update(key, func(e *entry, now time.Time) error { return m.carryOut(e, c, now) })
	}
	var read entry
	_ = m.contents.update(key, func(e *entry, now time.Time) error {
		read, c.now = *e, now
		return nil
	})
	time.Sleep(1)
	err := m.carryOut(&read, c, c.now)
	_ = m.contents.update(key, func(e *entry, _ time.Time) error {
		*e = read
		return nil
	})
	return err
}

func (m *mutant) carryOut(e *entry, c *call, now time.Time) error {
	c.memory, c.now = m.memory, now
	m.around(e, c)
	return c.err
}

// right carries out the call without a mistake.
func (c *call) right(e *entry) {
	switch c.operation {
	case "acquire":
		c.claim = e.acquire(c.now, c.version, c.owner, c.d)
	case "renew":
		c.err = e.renew(c.now, c.owner, c.d)
	case "publish":
		c.err = e.publish(c.now, c.owner, c.record, c.d)
	case "abort":
		e.abort(c.now, c.owner, c.note, c.d)
	case "invalidate":
		e.invalidate(c.version)
	}
}

// A mistake turns a correct store into a mutant. Most mistakes are made by the functions
// below, from a condition and a step. An empty operation stands for all operations.
type (
	mistake   func(*mutant)
	condition func(e *entry, c *call) bool
	step      func(e *entry, c *call)
)

// instead carries out calls of an operation with f.
func instead(operation string, f step) mistake {
	return func(m *mutant) {
		m.around = func(e *entry, c *call) {
			if operation != "" && c.operation != operation {
				c.right(e)
				return
			}
			f(e, c)
		}
	}
}

// skips runs f instead of the operation if a condition holds.
func skips(operation string, when condition, f step) mistake {
	return instead(operation, func(e *entry, c *call) {
		if when(e, c) {
			f(e, c)
		} else {
			c.right(e)
		}
	})
}

// before runs f before the operation if a condition holds.
func before(operation string, when condition, f step) mistake {
	return skips(operation, when, func(e *entry, c *call) { f(e, c); c.right(e) })
}

// after runs f after the operation if a condition holds by then.
func after(operation string, when condition, f step) mistake {
	return instead(operation, func(e *entry, c *call) {
		c.right(e)
		if when(e, c) {
			f(e, c)
		}
	})
}

// confuses makes Acquire treat a record as stale if is(stale, version) says so.
func confuses(is func(stale, version string) bool) mistake {
	return before("acquire", func(e *entry, c *call) bool {
		return c.version != "" && is(c.version, e.record.Version)
	}, anyVersion)
}

// remembers makes the operation accept the owner that led last, even if its lease has
// expired.
func remembers(operation string) mistake {
	return instead("", func(e *entry, c *call) {
		if c.operation == operation && !e.hasLease() && c.memory[c.key] == c.owner {
			grant(e, c)
		}
		if c.operation != "acquire" && c.operation != "renew" {
			delete(c.memory, c.key)
		}
		c.right(e)
		if c.claim.State == lead {
			c.memory[c.key] = c.owner
		}
	})
}

// lives changes the lifetime of what the operation begins. Acquire still returns the TTL
// that the caller has asked for.
func lives(operation string, f func(time.Duration) time.Duration) mistake {
	return instead(operation, func(e *entry, c *call) {
		asked := c.d
		c.d = f(c.d)
		c.right(e)
		if c.claim.State == lead {
			c.claim.TTL = asked.Truncate(time.Millisecond)
		}
	})
}

// spoils makes Publish change the data.
func spoils(f func(string) string) mistake {
	return before("publish", always, func(_ *entry, c *call) { c.record.Data = []byte(f(string(c.record.Data))) })
}

// answers makes Acquire change its answer.
func answers(f func(*tokenstore.Claim)) mistake {
	return after("acquire", always, func(_ *entry, c *call) { f(&c.claim) })
}

// keys makes the store use other keys.
func keys(f func(key string) string) mistake { return func(m *mutant) { m.keyed = f } }

// torn makes these operations read and write in two steps.
func torn(operations ...string) mistake { return func(m *mutant) { m.torn = operations } }

// Conditions

func always(*entry, *call) bool        { return true }
func hasRecord(e *entry, _ *call) bool { return e.hasRecord() }
func noRecord(e *entry, _ *call) bool  { return !e.hasRecord() }
func hasLease(e *entry, _ *call) bool  { return e.hasLease() }
func cools(e *entry, _ *call) bool     { return e.hasCooldown() }
func empty(e *entry, _ *call) bool     { return e.empty() }
func held(e *entry, c *call) bool      { return e.heldBy(c.owner) }
func named(e *entry, c *call) bool     { return e.record.Version == c.version }
func prefixed(e *entry, c *call) bool  { return strings.HasPrefix(e.record.Version, c.version) }
func refused(_ *entry, c *call) bool   { return c.err != nil }
func accepted(_ *entry, c *call) bool  { return c.err == nil }
func done(_ *entry, c *call) bool      { return c.ctx.Err() != nil }

func and(a, b condition) condition {
	return func(e *entry, c *call) bool { return a(e, c) && b(e, c) }
}

// Steps

func nothing(*entry, *call) {}

func keepLease(e *entry, c *call) {
	was := *e
	c.right(e)
	e.owner, e.leaseUntil = was.owner, was.leaseUntil
}

func overlookRecord(e *entry, c *call) {
	was := *e
	e.endRecord()
	c.right(e)
	e.record, e.recordUntil = was.record, was.recordUntil
}

func endRecord(e *entry, _ *call)       { e.endRecord() }
func endCooldown(e *entry, _ *call)     { e.endCooldown() }
func endLease(e *entry, _ *call)        { e.endLease() }
func prolongRecord(e *entry, c *call)   { e.recordUntil = c.now.Add(c.d) }
func prolongLease(e *entry, c *call)    { e.leaseUntil = c.now.Add(c.d) }
func prolongCooling(e *entry, c *call)  { e.cooldownUntil = c.now.Add(c.d) }
func grant(e *entry, c *call)           { e.owner, e.leaseUntil = c.owner, c.now.Add(long) }
func impersonate(e *entry, c *call)     { c.owner = e.owner }
func anyVersion(e *entry, c *call)      { c.version = e.record.Version }
func shortenLease(e *entry, _ *call)    { e.leaseUntil = earlier(e.leaseUntil, e.recordUntil) }
func shortenCooldown(e *entry, _ *call) { e.cooldownUntil = earlier(e.cooldownUntil, e.recordUntil) }
func longer(e *entry, c *call)          { c.d = max(c.d, e.leaseUntil.Sub(c.now)) }
func lastForever(_ *entry, c *call)     { c.d = forever }
func leaseLost(_ *entry, c *call)       { c.err = tokenstore.ErrLeaseLost }
func otherError(_ *entry, c *call)      { c.err = errOther }

const forever = 100 * 365 * 24 * time.Hour

var errOther = errors.New("other error")

// Lifetimes

func in32Bits(d time.Duration) time.Duration {
	return time.Duration(int32(d.Milliseconds())) * time.Millisecond
}

func zeroIsForever(d time.Duration) time.Duration {
	if 0 < d && d < time.Millisecond {
		return forever
	}
	return d
}

func earlier(a, b time.Time) time.Time { return slices.MinFunc([]time.Time{a, b}, time.Time.Compare) }

func sameNumber(a, b string) bool {
	var x, y float64
	n, _ := fmt.Sscan(a, &x)
	m, _ := fmt.Sscan(b, &y)
	return n == 1 && m == 1 && x == y && strings.Trim(a+b, "0123456789") == ""
}

// mistakes has the mistake of each mutant.
var mistakes = map[string]mistake{
	// Acquire
	"everybody leads": before("acquire", noRecord, endLease),
	"the lease takes precedence over the record":    skips("acquire", hasLease, overlookRecord),
	"the cooldown takes precedence over the record": skips("acquire", cools, overlookRecord),
	"stale is a prefix":                             confuses(func(s, of string) bool { return strings.HasPrefix(of, s) }),
	"stale has a prefix":                            confuses(strings.HasPrefix),
	"stale in any case":                             confuses(strings.EqualFold),
	"stale is a number":                             confuses(sameNumber),
	"no cooldown":                                   before("abort", always, func(_ *entry, c *call) { c.d = 0 }),
	"a lease isn't renewed":                         skips("acquire", held, keepLease),
	"a lease is only renewed for longer":            before("acquire", held, longer),
	"renewing adds to the lease":                    before("acquire", held, func(e *entry, c *call) { c.d += e.leaseUntil.Sub(c.now) }),
	"a hit renews the lease":                        before("acquire", held, prolongLease),
	"the holder isn't returned":                     answers(func(c *tokenstore.Claim) { c.Owner = "" }),
	"the note isn't returned":                       answers(func(c *tokenstore.Claim) { c.Note = nil }),
	"TTL in whole seconds":                          answers(func(c *tokenstore.Claim) { c.TTL = c.TTL.Truncate(time.Second) }),
	"TTL in seconds, rounded up":                    answers(func(c *tokenstore.Claim) { c.TTL = (c.TTL + time.Second - 1).Truncate(time.Second) }),
	"unknown state":                                 answers(func(c *tokenstore.Claim) { c.State = 0 }),

	// Renew
	"Renew does nothing":                 skips("renew", held, nothing),
	"Renew begins a lease":               before("renew", empty, grant),
	"Renew only makes longer":            before("renew", always, longer),
	"anybody renews":                     before("renew", always, impersonate),
	"a refused Renew prolongs the lease": after("renew", hasLease, prolongLease),
	"Renew removes the record":           before("renew", always, endRecord),
	"Renew prolongs the record":          after("renew", and(accepted, hasRecord), prolongRecord),
	"Renew revives an expired lease":     remembers("renew"),
	"Renew isn't atomic":                 torn("renew"),

	// Publish
	"Publish without a fence":                 before("publish", always, grant),
	"a fence that accepts any owner's lease":  before("publish", always, impersonate),
	"a fence that accepts an expired lease":   remembers("publish"),
	"Publish keeps the lease":                 skips("publish", always, keepLease),
	"Publish doesn't replace":                 skips("publish", and(held, hasRecord), endLease),
	"a lost lease is another error":           after("publish", refused, otherError),
	"a refused Publish prolongs the lease":    after("publish", hasLease, prolongLease),
	"a refused Publish prolongs the record":   after("publish", hasRecord, prolongRecord),
	"a refused Publish prolongs the cooldown": after("publish", cools, prolongCooling),

	// Abort
	"anybody aborts":                           before("abort", hasLease, impersonate),
	"Abort accepts an expired lease":           remembers("abort"),
	"Abort removes the record":                 before("abort", held, endRecord),
	"Abort without a cooldown keeps the lease": skips("abort", func(_ *entry, c *call) bool { return c.d <= 0 }, nothing),
	"a negative cooldown is forever":           before("abort", func(_ *entry, c *call) bool { return c.d < 0 }, lastForever),
	"the next Abort replaces the note":         before("abort", cools, func(e *entry, c *call) { e.note = bytes.Clone(c.note) }),

	// Invalidate
	"Invalidate does nothing":                           skips("invalidate", always, nothing),
	"Invalidate by prefix":                              before("invalidate", prefixed, anyVersion),
	"Invalidate keeps the lease":                        skips("invalidate", always, keepLease),
	"Invalidate ends the lease when there is no record": before("invalidate", noRecord, endLease),
	"Invalidate removes everything":                     before("invalidate", and(hasRecord, named), func(e *entry, _ *call) { *e = entry{} }),

	// Lifetimes
	"a renewal of less than a millisecond is forever":  lives("renew", zeroIsForever),
	"records in whole seconds":                         lives("publish", func(d time.Duration) time.Duration { return d.Truncate(time.Second) }),
	"records of at most 32 bits of milliseconds":       lives("publish", in32Bits),
	"leases of at most 32 bits of milliseconds":        lives("acquire", in32Bits),
	"cooldowns of at most 32 bits of milliseconds":     lives("abort", in32Bits),
	"a record of less than a millisecond is forever":   lives("publish", zeroIsForever),
	"a lease of less than a millisecond is forever":    lives("acquire", zeroIsForever),
	"a cooldown of less than a millisecond is forever": lives("abort", zeroIsForever),
	"a record isn't shortened":                         before("publish", always, func(e *entry, c *call) { c.d = max(c.d, e.recordUntil.Sub(c.now)) }),
	"a record isn't prolonged":                         before("publish", hasRecord, func(e *entry, c *call) { c.d = min(c.d, e.recordUntil.Sub(c.now)) }),
	"a record ends with the lease":                     after("", and(hasRecord, hasLease), func(e *entry, _ *call) { e.recordUntil = e.leaseUntil }),
	"a record ends with the cooldown":                  after("", and(hasRecord, cools), func(e *entry, _ *call) { e.recordUntil = e.cooldownUntil }),
	"a lease ends with the record":                     after("", and(hasRecord, hasLease), shortenLease),
	"a cooldown ends with the record":                  after("", and(hasRecord, cools), shortenCooldown),
	"the first note stays": before("abort", held, func(_ *entry, c *call) {
		c.memory[c.key] = cmp.Or(c.memory[c.key], string(c.note))
		c.note = []byte(c.memory[c.key])
	}),

	// Keys
	"keys without their last digit":    keys(func(key string) string { return key[:63] }),
	"keys without their first digit":   keys(func(key string) string { return key[1:] }),
	"keys without their middle digits": keys(func(key string) string { return key[:31] + key[33:] }),

	// Data
	"data is text":                spoils(func(s string) string { return strings.ToValidUTF8(s, "?") }),
	"data ends at a zero byte":    spoils(func(s string) string { s, _, _ = strings.Cut(s, "\x00"); return s }),
	"data has no space around it": spoils(strings.TrimSpace),
	"data of 64 KiB":              spoils(func(s string) string { return s[:min(len(s), 64<<10)] }),
	"empty data is no record":     after("", func(e *entry, _ *call) bool { return len(e.record.Data) == 0 }, endRecord),
	"empty note is no cooldown":   after("", func(e *entry, _ *call) bool { return len(e.note) == 0 }, endCooldown),
	"notes of 64 KiB":             answers(func(c *tokenstore.Claim) { c.Note = c.Note[:min(len(c.Note), 64<<10)] }),
	"data of the caller":          after("publish", accepted, func(e *entry, c *call) { e.record.Data = c.record.Data }),
	"data for all callers":        after("acquire", always, func(e *entry, c *call) { c.claim.Record.Data, c.claim.Note = e.record.Data, e.note }),
	"versions of 32 bytes":        answers(func(c *tokenstore.Claim) { c.Record.Version = c.Record.Version[:min(len(c.Record.Version), 32)] }),
	"owners in any case":          before("publish", func(e *entry, c *call) bool { return strings.EqualFold(e.owner, c.owner) }, impersonate),
	"owners are numbers":          before("acquire", func(e *entry, c *call) bool { return sameNumber(e.owner, c.owner) }, impersonate),

	// Concurrency
	"Acquire isn't atomic":    torn("acquire"),
	"Publish isn't atomic":    torn("publish"),
	"Abort isn't atomic":      torn("abort"),
	"Invalidate isn't atomic": torn("invalidate"),

	// Context
	"a done context hangs": func(m *mutant) {
		m.before = func(ctx context.Context) {
			if ctx.Err() != nil {
				time.Sleep(time.Hour)
			}
		}
	},
	"a done context is a lost lease": skips("", done, leaseLost),
	"a done context is no error":     skips("", done, nothing),
	"a done context keeps the lease": instead("publish", func(e *entry, c *call) {
		was := *e
		c.right(e)
		if err := c.ctx.Err(); err != nil {
			e.owner, e.leaseUntil, c.err = was.owner, was.leaseUntil, err
		}
	}),
}

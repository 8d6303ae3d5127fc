package storetest

import (
	"bytes"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// entry is what is under a key, with the rules of [tokenstore.Store] as methods. Call
// pass first: the methods expect that nothing in the entry has expired. A time is zero
// when there is no record, no lease or no cooldown.
type entry struct {
	record        tokenstore.Record
	recordUntil   time.Time
	owner         string
	leaseUntil    time.Time
	note          []byte
	cooldownUntil time.Time
}

func (e *entry) acquire(now time.Time, stale, owner string, lease time.Duration) tokenstore.Claim {
	switch {
	case e.hasRecord() && (stale == "" || e.record.Version != stale):
		return tokenstore.Claim{State: tokenstore.ClaimHit, TTL: left(e.recordUntil, now), Record: clone(e.record)}
	case e.hasLease() && e.owner != owner:
		return tokenstore.Claim{State: tokenstore.ClaimWait, TTL: left(e.leaseUntil, now), Owner: e.owner}
	case e.hasCooldown():
		return tokenstore.Claim{State: tokenstore.ClaimCooling, TTL: left(e.cooldownUntil, now), Note: bytes.Clone(e.note)}
	}
	e.owner, e.leaseUntil = owner, now.Add(lease)
	return tokenstore.Claim{State: tokenstore.ClaimLead, TTL: left(e.leaseUntil, now)}
}

func (e *entry) renew(now time.Time, owner string, lease time.Duration) error {
	if !e.heldBy(owner) {
		return tokenstore.ErrLeaseLost
	}
	e.leaseUntil = now.Add(lease)
	return nil
}

func (e *entry) publish(now time.Time, owner string, record tokenstore.Record, ttl time.Duration) error {
	if !e.heldBy(owner) {
		return tokenstore.ErrLeaseLost
	}
	*e = entry{record: clone(record), recordUntil: now.Add(ttl)}
	return nil
}

func (e *entry) abort(now time.Time, owner string, note []byte, cooldown time.Duration) {
	if e.heldBy(owner) {
		e.endLease()
		e.note, e.cooldownUntil = bytes.Clone(note), now.Add(cooldown)
	}
}

func (e *entry) invalidate(version string) {
	if e.hasRecord() && e.record.Version == version {
		e.endRecord()
		e.endLease()
	}
}

func (e *entry) hasRecord() bool   { return !e.recordUntil.IsZero() }
func (e *entry) hasLease() bool    { return !e.leaseUntil.IsZero() }
func (e *entry) hasCooldown() bool { return !e.cooldownUntil.IsZero() }
func (e *entry) empty() bool       { return !e.hasRecord() && !e.hasLease() && !e.hasCooldown() }

func (e *entry) heldBy(owner string) bool { return e.hasLease() && e.owner == owner }

func (e *entry) endRecord()   { e.record, e.recordUntil = tokenstore.Record{}, time.Time{} }
func (e *entry) endLease()    { e.owner, e.leaseUntil = "", time.Time{} }
func (e *entry) endCooldown() { e.note, e.cooldownUntil = nil, time.Time{} }

// pass removes what has expired at now.
func (e *entry) pass(now time.Time) {
	if !now.Before(e.recordUntil) {
		e.endRecord()
	}
	if !now.Before(e.leaseUntil) {
		e.endLease()
	}
	if !now.Before(e.cooldownUntil) {
		e.endCooldown()
	}
}

func clone(r tokenstore.Record) tokenstore.Record {
	return tokenstore.Record{Version: r.Version, Data: bytes.Clone(r.Data)}
}

func left(until, now time.Time) time.Duration {
	return max(0, until.Sub(now)).Truncate(time.Millisecond)
}

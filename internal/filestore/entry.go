package filestore

import (
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// An entry is what is under a key. Nil: there is no record, no lease or no cooldown.
type entry struct {
	Record   *record   `json:"record,omitempty"`
	Lease    *lease    `json:"lease,omitempty"`
	Cooldown *cooldown `json:"cooldown,omitempty"`
}

type record struct {
	span
	Version string `json:"version"`
	Data    []byte `json:"data"`
}

type lease struct {
	span
	Owner string `json:"owner"`
}

type cooldown struct {
	span
	Note []byte `json:"note"`
}

// A span says when something begins and ends, by the clock of the machine. If that clock is
// set back to before the beginning, the thing is over: otherwise a lease would last for as
// long as the clock was wrong.
type span struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

func from(now time.Time, d time.Duration) span { return span{now, now.Add(d)} }

func (s span) holds(now time.Time) bool { return !now.Before(s.From) && now.Before(s.Until) }

func (s span) left(now time.Time) time.Duration { return s.Until.Sub(now) }

// expire removes what doesn't hold at now. The other methods expect that it was called.
func (e *entry) expire(now time.Time) {
	if e.Record != nil && !e.Record.holds(now) {
		e.Record = nil
	}
	if e.Lease != nil && !e.Lease.holds(now) {
		e.Lease = nil
	}
	if e.Cooldown != nil && !e.Cooldown.holds(now) {
		e.Cooldown = nil
	}
}

// until returns when everything in e will be over, and false if e is empty.
func (e *entry) until() (last time.Time, ok bool) {
	if e.Record != nil {
		last = e.Record.Until
	}
	if e.Lease != nil && e.Lease.Until.After(last) {
		last = e.Lease.Until
	}
	if e.Cooldown != nil && e.Cooldown.Until.After(last) {
		last = e.Cooldown.Until
	}
	return last, !last.IsZero()
}

func (e *entry) isLeasedTo(owner string) bool { return e.Lease != nil && e.Lease.Owner == owner }

func (e *entry) grant(now time.Time, owner string, d time.Duration) {
	e.Lease = &lease{from(now, d), owner}
}

// acquire decides what owner does, and grants the lease if that is to lead.
func (e *entry) acquire(now time.Time, stale, owner string, d time.Duration) tokenstore.Claim {
	switch {
	case e.Record != nil && (stale == "" || e.Record.Version != stale):
		return tokenstore.Claim{
			State: tokenstore.ClaimHit, TTL: e.Record.left(now),
			Record: tokenstore.Record{Version: e.Record.Version, Data: e.Record.Data},
		}
	case e.Lease != nil && e.Lease.Owner != owner:
		return tokenstore.Claim{State: tokenstore.ClaimWait, TTL: e.Lease.left(now), Owner: e.Lease.Owner}
	case e.Cooldown != nil:
		return tokenstore.Claim{State: tokenstore.ClaimCooling, TTL: e.Cooldown.left(now), Note: e.Cooldown.Note}
	}
	e.grant(now, owner, d)
	return tokenstore.Claim{State: tokenstore.ClaimLead, TTL: e.Lease.left(now)}
}

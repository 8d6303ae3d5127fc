package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

const (
	lead    = tokenstore.ClaimLead
	hit     = tokenstore.ClaimHit
	waiting = tokenstore.ClaimWait
	cooling = tokenstore.ClaimCooling
)

// rules are the sentences of [tokenstore.Store], each with its check. A call without the
// lease is checked for Publish and Renew alike. No rule checks that Publish ends a
// cooldown, because nobody can hold the lease during one.
var rules = []struct {
	name  string
	check func(*check)
}{
	{"Acquire/the first leads, the others wait for it", func(t *check) {
		key := newKey()
		began := t.a.lead(key, "", long)
		start := time.Now()
		claim := t.b.acquire(key, "", long)
		if claim.State != waiting || claim.Owner != t.a.owner {
			t.fatalf("Acquire while %s leads: the state is %v, the owner %q", t.a.owner, claim.State, claim.Owner)
		}
		t.checkTTL(claim.TTL, span{start, time.Now()}, began, long)
		t.want(key, "after Acquire", state{owner: t.a.owner})
	}},
	{"Acquire/the holder of the lease keeps leading", func(t *check) {
		key := newKey()
		for range 3 {
			t.a.lead(key, "", long)
		}
		t.want(key, "after Acquire", state{owner: t.a.owner})
	}},
	{"Acquire/a record takes precedence over the lease", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		for _, r := range []*replica{t.a, t.b} {
			if claim := r.acquire(key, "", long); claim.State != hit || claim.Record.Version != v1.Version {
				t.fatalf("Acquire(%s): %v; want hit", r.owner, claim.State)
			}
		}
		t.want(key, "after Acquire with the stale version", state{owner: t.a.owner}.with(v1))
	}},
	{"Acquire/a record takes precedence over the cooldown", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		t.a.abort(key, "note", long)
		for _, r := range []*replica{t.a, t.b} {
			if claim := r.acquire(key, "", long); claim.State != hit {
				t.fatalf("Acquire(%s): %v; want hit", r.owner, claim.State)
			}
			if claim := r.acquire(key, v1.Version, long); claim.State != cooling {
				t.fatalf("Acquire(%s) with the stale version: %v; want cooling", r.owner, claim.State)
			}
		}
	}},
	{"Acquire/only a record of exactly that version is stale", func(t *check) {
		for _, record := range confusable() {
			key := newKey()
			t.a.put(key, "", record, long)
			for _, stale := range similar(record.Version) {
				if claim := t.b.acquire(key, stale, long); claim.State != hit {
					t.fatalf("Acquire with %q as the stale version and a record of version %q: the state is %v; want hit", stale, record.Version, claim.State)
				}
			}
			t.b.lead(key, record.Version, long)
		}
	}},

	{"Publish/ends the lease", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.want(key, "after Publish", state{}.with(v1))
		t.b.lead(key, v1.Version, long)
	}},
	{"Publish/replaces the record", func(t *check) {
		key, v1, v2 := newKey(), newRecord("data of the first"), newRecord("2")
		t.a.put(key, "", v1, long)
		t.b.put(key, v1.Version, v2, long)
		t.want(key, "after the second Publish", state{}.with(v2))
	}},
	{"Renew/keeps leading", func(t *check) {
		key, v1, v2 := newKey(), newRecord("1"), newRecord("2")
		t.a.lead(key, "", long)
		t.a.renew(key, long)
		t.want(key, "after Renew", state{owner: t.a.owner})
		t.a.publish(key, v1, long)
		t.a.lead(key, v1.Version, long)
		t.a.renew(key, long)
		t.want(key, "after Renew", state{owner: t.a.owner}.with(v1))
		t.a.publish(key, v2, long)
	}},
	{"Renew and Publish/are refused to a replica that never led", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.b.refused(key)
		t.want(key, "after a refused call", state{})
		t.a.put(key, "", v1, long)
		t.b.refused(key)
		t.want(key, "after a refused call", state{}.with(v1))
	}},
	{"Renew and Publish/are refused while another leads", func(t *check) {
		key, v1, v2 := newKey(), newRecord("1"), newRecord("2")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		t.b.acquire(key, v1.Version, long)
		t.b.refused(key)
		t.want(key, "after a refused call", state{owner: t.a.owner}.with(v1))
		t.a.publish(key, v2, long)
	}},
	{"Renew and Publish/are refused the second time", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.refused(key)
		t.want(key, "after a refused call", state{}.with(v1))
	}},
	{"Renew and Publish/are refused after Abort", func(t *check) {
		key := newKey()
		t.a.lead(key, "", long)
		t.a.abort(key, "", 0)
		t.a.refused(key)
		t.want(key, "after a refused call", state{})
		t.a.lead(key, "", long)
		t.a.abort(key, "note", long)
		t.a.refused(key)
		t.want(key, "after a refused call", state{cooling: true, note: "note"})
	}},
	{"Renew and Publish/are refused after Invalidate", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		t.b.invalidate(key, v1.Version)
		t.a.refused(key)
		t.want(key, "after a refused call", state{})
		t.b.lead(key, "", long)
		t.a.refused(key)
		t.want(key, "after a refused call", state{owner: t.b.owner})
	}},
	{"Renew and Publish/are refused after the end of the lease", func(t *check) {
		key := newKey()
		past(t.a.lead(key, "", short), short)
		t.a.refused(key)
		t.want(key, "after a refused call", state{})
		past(t.a.lead(key, "", short), short)
		t.b.lead(key, "", long)
		t.a.refused(key)
		t.want(key, "after a refused call", state{owner: t.b.owner})
	}},

	{"Abort/without a cooldown ends the lease", func(t *check) {
		for _, cooldown := range []time.Duration{0, -time.Second} {
			key, v1 := newKey(), newRecord("1")
			t.a.lead(key, "", long)
			t.a.abort(key, "note", cooldown)
			t.want(key, "after Abort", state{})
			t.b.put(key, "", v1, long)
			t.b.lead(key, v1.Version, long)
			t.b.abort(key, "note", cooldown)
			t.want(key, "after Abort", state{}.with(v1))
			t.a.lead(key, v1.Version, long)
		}
	}},
	{"Abort/with a cooldown grants nobody the lease", func(t *check) {
		key := newKey()
		t.a.lead(key, "", long)
		t.a.abort(key, "note", long)
		for _, r := range []*replica{t.a, t.b} {
			if claim := r.acquire(key, "", long); claim.State != cooling || string(claim.Note) != "note" {
				t.fatalf("Acquire(%s) after Abort: the state is %v, the note %q", r.owner, claim.State, claim.Note)
			}
		}
		t.want(key, "after Abort", state{cooling: true, note: "note"})
	}},
	{"Abort/keeps the record", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		t.a.abort(key, "note", long)
		t.want(key, "after Abort", state{cooling: true, note: "note"}.with(v1))
	}},
	{"Abort/does nothing for a replica that doesn't lead", func(t *check) {
		for _, cooldown := range []time.Duration{0, long} {
			key, v1 := newKey(), newRecord("1")
			t.b.abort(key, "other", cooldown)
			t.want(key, "after Abort under an empty key", state{})
			t.a.lead(key, "", long)
			t.b.abort(key, "other", cooldown)
			t.want(key, "after Abort by another", state{owner: t.a.owner})
			t.a.publish(key, v1, long)
			t.a.abort(key, "other", cooldown)
			t.want(key, "after Abort after Publish", state{}.with(v1))
			t.a.lead(key, v1.Version, long)
			t.b.abort(key, "other", cooldown)
			t.want(key, "after Abort by another", state{owner: t.a.owner}.with(v1))
			t.a.abort(key, "note", long)
			for _, r := range []*replica{t.a, t.b} {
				r.abort(key, "other", cooldown)
				t.want(key, "after Abort during a cooldown", state{cooling: true, note: "note"}.with(v1))
			}
		}
	}},
	{"Abort/does nothing after the end of the lease", func(t *check) {
		key := newKey()
		past(t.a.lead(key, "", short), short)
		t.a.abort(key, "note", long)
		t.want(key, "after Abort", state{})
		past(t.a.lead(key, "", short), short)
		t.b.lead(key, "", long)
		t.a.abort(key, "note", long)
		t.want(key, "after Abort", state{owner: t.b.owner})
	}},

	{"Invalidate/removes the record", func(t *check) {
		key, v1, v2 := newKey(), newRecord("1"), newRecord("2")
		t.a.put(key, "", v1, long)
		t.b.invalidate(key, v1.Version)
		t.want(key, "after Invalidate", state{})
		t.b.invalidate(key, v1.Version)
		t.want(key, "after the second Invalidate", state{})
		t.b.put(key, "", v2, long)
		t.a.invalidate(key, v1.Version)
		t.want(key, "after Invalidate of the version before", state{}.with(v2))
	}},
	{"Invalidate/removes the lease, whoever holds it", func(t *check) {
		for _, r := range []*replica{t.a, t.b} {
			key, v1 := newKey(), newRecord("1")
			t.a.put(key, "", v1, long)
			t.a.lead(key, v1.Version, long)
			r.invalidate(key, v1.Version)
			t.want(key, "after Invalidate", state{})
		}
	}},
	{"Invalidate/keeps the cooldown", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		t.a.abort(key, "note", long)
		t.a.invalidate(key, v1.Version)
		t.want(key, "after Invalidate", state{cooling: true, note: "note"})
	}},
	{"Invalidate/does nothing to another version", func(t *check) {
		for _, record := range confusable() {
			key := newKey()
			t.a.put(key, "", record, long)
			t.a.lead(key, record.Version, long)
			for _, version := range similar(record.Version) {
				t.b.invalidate(key, version)
				t.want(key, "after Invalidate of "+version, state{owner: t.a.owner}.with(record))
			}
		}
	}},
	{"Invalidate/does nothing without a record", func(t *check) {
		key, version := newKey(), newRecord("").Version
		t.a.invalidate(key, version)
		t.want(key, "after Invalidate", state{})
		t.a.lead(key, "", long)
		t.b.invalidate(key, version)
		t.want(key, "after Invalidate", state{owner: t.a.owner})
		t.a.abort(key, "note", long)
		t.b.invalidate(key, version)
		t.want(key, "after Invalidate", state{cooling: true, note: "note"})
	}},
	{"Invalidate/does nothing after the end of the record", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		began := t.a.put(key, "", v1, short)
		t.a.lead(key, v1.Version, long)
		past(began, short)
		t.b.invalidate(key, v1.Version)
		t.want(key, "after Invalidate", state{owner: t.a.owner})
	}},

	{"Lifetimes/of a record", func(t *check) {
		for _, d := range []time.Duration{short, 1} {
			key, v1 := newKey(), newRecord("1")
			began := t.a.put(key, "", v1, d)
			t.lasts(began, d, hit, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
			t.want(key, "after the end of the record", state{owner: t.b.owner})
		}
	}},
	{"Lifetimes/of a lease", func(t *check) {
		for _, d := range []time.Duration{short, 1} {
			key := newKey()
			began := t.a.lead(key, "", d)
			t.lasts(began, d, waiting, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
			t.want(key, "after the end of the lease", state{owner: t.b.owner})
		}
	}},
	{"Lifetimes/of a cooldown", func(t *check) {
		for _, d := range []time.Duration{short, 1} {
			key := newKey()
			t.a.lead(key, "", long)
			began := t.a.abort(key, "note", d)
			t.lasts(began, d, cooling, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
			t.want(key, "after the end of the cooldown", state{owner: t.b.owner})
		}
	}},
	{"Lifetimes/of a year", func(t *check) {
		const year = 365 * 24 * time.Hour
		key, v1 := newKey(), newRecord("1")
		ttl := func(want tokenstore.ClaimState, stale string, began span) {
			t.Helper()
			start := time.Now()
			claim := t.b.acquire(key, stale, year)
			if claim.State != want {
				t.fatalf("the state is %v; want %v", claim.State, want)
			}
			t.checkTTL(claim.TTL, span{start, time.Now()}, began, year)
		}
		began := t.a.lead(key, "", year)
		ttl(waiting, "", began)
		began = t.a.publish(key, v1, year)
		ttl(hit, "", began)
		t.a.lead(key, v1.Version, year)
		began = t.a.abort(key, "note", year)
		ttl(cooling, v1.Version, began)
	}},
	{"Lifetimes/renewing a lease makes it longer", func(t *check) {
		key := newKey()
		began := t.a.lead(key, "", short)
		t.a.lead(key, "", long)
		past(began, short)
		t.want(key, "after the end of the first lease", state{owner: t.a.owner})
	}},
	{"Lifetimes/renewing a lease makes it shorter", func(t *check) {
		key := newKey()
		t.a.lead(key, "", long)
		began := t.a.lead(key, "", short)
		t.lasts(began, short, waiting, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
	}},
	{"Lifetimes/Renew makes a lease longer", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		for d := short; ; d *= 2 { // A slow store can't renew a short lease in time.
			began := t.a.lead(key, v1.Version, d)
			err := t.a.tryRenew(key, long)
			if err == nil {
				past(began, d)
				break
			}
			if !errors.Is(err, tokenstore.ErrLeaseLost) || time.Since(began.start) < d-slack {
				t.fatalf("%v", err)
			}
		}
		t.want(key, "after the end of the first lease", state{owner: t.a.owner}.with(v1))
	}},
	{"Lifetimes/Renew makes a lease shorter", func(t *check) {
		for _, d := range []time.Duration{short, 1} {
			key := newKey()
			t.a.lead(key, "", long)
			began := t.a.renew(key, d)
			t.lasts(began, d, waiting, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
		}
	}},
	{"Lifetimes/a hit doesn't renew the lease", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		began := t.a.lead(key, v1.Version, short)
		t.lasts(began, short, waiting, func() tokenstore.Claim {
			if claim := t.a.acquire(key, "", long); claim.State != hit {
				t.fatalf("Acquire(%s): %v; want hit", t.a.owner, claim.State)
			}
			return t.b.acquire(key, v1.Version, long)
		})
	}},
	{"Lifetimes/a lease after another", func(t *check) {
		key := newKey()
		began := t.a.lead(key, "", short)
		t.a.abort(key, "", 0)
		t.b.lead(key, "", long)
		past(began, short)
		t.want(key, "after the time of the first lease", state{owner: t.b.owner})
		t.b.abort(key, "", 0)
		began = t.a.lead(key, "", short)
		t.lasts(began, short, waiting, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
	}},
	{"Lifetimes/a long record after a short one", func(t *check) {
		key, v1, v2 := newKey(), newRecord("1"), newRecord("2")
		began := t.a.put(key, "", v1, short)
		t.b.put(key, v1.Version, v2, long)
		past(began, short)
		t.want(key, "after the end of the first record", state{}.with(v2))
	}},
	{"Lifetimes/a short record after a long one", func(t *check) {
		for _, d := range []time.Duration{short, 1} {
			key, v1, v2 := newKey(), newRecord("1"), newRecord("2")
			t.a.put(key, "", v1, long)
			began := t.b.put(key, v1.Version, v2, d)
			past(began, d)
			t.want(key, "after the end of the second record", state{})
		}
	}},
	{"Lifetimes/a cooldown after another", func(t *check) {
		key := newKey()
		t.a.lead(key, "", long)
		began := t.a.abort(key, "first", short)
		t.lasts(began, short, cooling, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
		past(t.b.abort(key, "second", long), short)
		t.want(key, "after the time of the first cooldown", state{cooling: true, note: "second"})
	}},
	{"Lifetimes/a record after the lease", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		began := t.a.lead(key, v1.Version, short)
		t.lasts(began, short, waiting, func() tokenstore.Claim { return t.b.acquire(key, v1.Version, long) })
		t.want(key, "after the end of the lease", state{owner: t.b.owner}.with(v1))
	}},
	{"Lifetimes/a record after the cooldown", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		began := t.a.abort(key, "note", short)
		t.lasts(began, short, cooling, func() tokenstore.Claim { return t.b.acquire(key, v1.Version, long) })
		t.want(key, "after the end of the cooldown", state{owner: t.b.owner}.with(v1))
	}},
	{"Lifetimes/a lease after the record", func(t *check) {
		key, v1, v2 := newKey(), newRecord("1"), newRecord("2")
		began := t.a.put(key, "", v1, short)
		t.a.lead(key, v1.Version, long)
		t.lasts(began, short, hit, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
		t.want(key, "after the end of the record", state{owner: t.a.owner})
		t.a.publish(key, v2, long)
	}},
	{"Lifetimes/a cooldown after the record", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		began := t.a.put(key, "", v1, short)
		t.a.lead(key, v1.Version, long)
		t.a.abort(key, "note", long)
		t.lasts(began, short, hit, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
		t.want(key, "after the end of the record", state{cooling: true, note: "note"})
	}},
	{"Lifetimes/nothing prolongs a record", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		began := t.a.put(key, "", v1, short)
		t.a.lead(key, v1.Version, long)
		t.b.refused(key)
		t.b.abort(key, "other", long)
		t.b.invalidate(key, newRecord("").Version)
		t.a.lead(key, v1.Version, long)
		t.a.renew(key, long)
		t.a.abort(key, "note", long)
		t.lasts(began, short, hit, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
	}},
	{"Lifetimes/nothing prolongs a lease", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		began := t.a.lead(key, v1.Version, short)
		t.b.abort(key, "other", long)
		t.b.invalidate(key, newRecord("").Version)
		t.lasts(began, short, waiting, func() tokenstore.Claim {
			t.b.refused(key)
			return t.b.acquire(key, v1.Version, long)
		})
	}},
	{"Lifetimes/nothing prolongs a cooldown", func(t *check) {
		key, v1 := newKey(), newRecord("1")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		began := t.a.abort(key, "note", short)
		t.a.refused(key)
		t.a.abort(key, "other", long)
		t.b.invalidate(key, v1.Version)
		t.lasts(began, short, cooling, func() tokenstore.Claim { return t.b.acquire(key, "", long) })
	}},

	{"Keys/are independent", func(t *check) {
		key := newKey()
		keys := []string{key, withOtherDigit(key, 0), withOtherDigit(key, 32), withOtherDigit(key, 63)}
		v1, v2 := newRecord("1"), newRecord("2")
		t.a.put(keys[0], "", v1, long)
		t.a.lead(keys[1], "", long)
		t.b.lead(keys[2], "", long)
		t.b.abort(keys[2], "note", long)
		t.a.refused(keys[3])
		t.a.abort(keys[3], "other", long)
		t.b.invalidate(keys[3], v1.Version)
		t.want(keys[0], "under the first key", state{}.with(v1))
		t.want(keys[1], "under the second key", state{owner: t.a.owner})
		t.want(keys[2], "under the third key", state{cooling: true, note: "note"})
		t.want(keys[3], "under the fourth key", state{})
		t.a.publish(keys[1], v2, long)
		t.b.invalidate(keys[1], v2.Version)
		t.want(keys[0], "under the first key", state{}.with(v1))
	}},
	{"Data/any bytes come back", func(t *check) {
		for _, data := range texts() {
			key, v1 := newKey(), newRecord(data)
			t.a.put(key, "", v1, long)
			t.want(key, "after Publish", state{}.with(v1))
			t.a.lead(key, v1.Version, long)
			t.a.abort(key, data, long)
			t.want(key, "after Abort", state{cooling: true, note: data}.with(v1))
		}
	}},
	{"Data/is a copy", func(t *check) {
		key, v1, note := newKey(), newRecord("data"), []byte("note")
		t.a.put(key, "", v1, long)
		t.a.lead(key, v1.Version, long)
		t.call(func() error { return t.a.store.Abort(t.ctx, key, t.a.owner, note, long) })
		clear(v1.Data)
		clear(note)
		v1.Data = []byte("data")
		for range 2 {
			t.want(key, "after the caller has overwritten the bytes that it passed and got", state{cooling: true, note: "note"}.with(v1))
			for _, r := range []*replica{t.a, t.b, t.probe} {
				clear(r.acquire(key, "", long).Record.Data)
				clear(r.acquire(key, v1.Version, long).Note)
			}
		}
	}},
	{"Data/versions come back as they are", func(t *check) {
		for _, record := range confusable() {
			key := newKey()
			t.a.put(key, "", record, long)
			t.want(key, "after Publish", state{}.with(record))
		}
	}},
	{"Data/owners are told apart", func(t *check) {
		for _, record := range confusable() {
			key, a := newKey(), t.a.as(record.Version)
			a.lead(key, "", long)
			for _, owner := range similar(a.owner) {
				b := t.b.as(owner)
				if claim := b.acquire(key, "", long); claim.State != waiting || claim.Owner != a.owner {
					t.fatalf("Acquire(%s) while %s leads: the state is %v, the owner %q", b.owner, a.owner, claim.State, claim.Owner)
				}
				b.refused(key)
				b.abort(key, "other", long)
				t.want(key, "after calls by "+owner, state{owner: a.owner})
			}
		}
	}},

	{"Concurrency/one of many leads", func(t *check) {
		key := newKey()
		replicas := t.replicas(50)
		claims := make([]tokenstore.Claim, len(replicas))
		t.together(len(replicas), func(i int) (err error) {
			claims[i], err = replicas[i].tryAcquire(key, "", long)
			return err
		})
		leader := ""
		for i, claim := range claims {
			if claim.State == lead {
				if leader != "" {
					t.fatalf("both %s and %s lead", leader, replicas[i].owner)
				}
				leader = replicas[i].owner
			}
		}
		for i, claim := range claims {
			if claim.State != lead && (claim.State != waiting || claim.Owner != leader) {
				t.fatalf("Acquire(%s) while %q leads: the state is %v, the owner %q", replicas[i].owner, leader, claim.State, claim.Owner)
			}
		}
		t.want(key, "after Acquire", state{owner: leader})
	}},
	{"Concurrency/one of many publishes", func(t *check) {
		key := newKey()
		replicas := t.replicas(50)
		for i := range replicas {
			replicas[i].owner = t.a.owner
		}
		t.a.lead(key, "", long)
		records := make([]tokenstore.Record, len(replicas))
		published := make([]bool, len(replicas))
		t.together(len(replicas), func(i int) error {
			records[i] = newRecord(fmt.Sprint(i))
			err := replicas[i].tryPublish(key, records[i], long)
			if errors.Is(err, tokenstore.ErrLeaseLost) {
				return nil
			}
			published[i] = err == nil
			return err
		})
		winner := slices.Index(published, true)
		if winner < 0 || slices.Contains(published[winner+1:], true) {
			t.fatalf("50 replicas publish under one lease, and not exactly one succeeds: %v", published)
		}
		t.want(key, "after Publish", state{}.with(records[winner]))
	}},
	{"Concurrency/many invalidate one version", func(t *check) {
		key, v1, v2 := newKey(), newRecord("1"), newRecord("2")
		t.a.put(key, "", v1, long)
		replicas := t.replicas(50)
		var leaders atomic.Int32
		t.together(len(replicas), func(i int) error {
			r := replicas[i]
			if err := r.tryInvalidate(key, v1.Version); err != nil {
				return err
			}
			claim, err := r.tryAcquire(key, "", long)
			if err != nil || claim.State != lead {
				return err
			}
			leaders.Add(1)
			return r.tryPublish(key, v2, long)
		})
		if n := leaders.Load(); n != 1 {
			t.fatalf("%d replicas lead after many have invalidated one version; want 1", n)
		}
		t.want(key, "in the end", state{}.with(v2))
	}},
	{"Concurrency/one leads at a time", func(t *check) {
		key := newKey()
		replicas := t.replicas(8)
		t.together(len(replicas), func(i int) error {
			r, stale, changed := replicas[i], "", time.Now()
			for published := 0; published < 4; {
				claim, err := r.tryAcquire(key, stale, long)
				if err != nil {
					return err
				}
				switch claim.State {
				case hit:
					if claim.Record.Version == stale {
						return fmt.Errorf("Acquire(%s) returned a hit with the stale version %s", r.owner, stale)
					}
					stale, changed = claim.Record.Version, time.Now()
				case lead:
					if err := r.tryPublish(key, newRecord("data"), long); err != nil {
						return err
					}
					published, changed = published+1, time.Now()
				case waiting:
					if time.Since(changed) > guard {
						return fmt.Errorf("Acquire(%s) returned nothing but wait for %v", r.owner, guard)
					}
					time.Sleep(time.Millisecond)
				default:
					return fmt.Errorf("Acquire(%s): %v", r.owner, claim.State)
				}
			}
			return nil
		})
	}},
	{"Concurrency/calls one after another", func(t *check) {
		for seed := range uint64(30) {
			t.checkHistory(seed, 1, 40)
		}
	}},
	{"Concurrency/calls at the same time", func(t *check) {
		for seed := range uint64(20) {
			t.checkHistory(seed, 5, 8)
		}
	}},
	{"Context/a call that it cuts off does all of its work or nothing", func(t *check) {
		v1, v2 := newRecord("1"), newRecord("2")
		leading := func(key string) {
			t.a.put(key, "", v1, long)
			t.a.lead(key, v1.Version, long)
		}
		for _, test := range []struct {
			name          string
			prepare       func(key string)
			call          func(ctx context.Context, key string) error
			before, after state
		}{
			{"Acquire", func(string) {}, func(ctx context.Context, key string) error {
				_, err := t.a.store.Acquire(ctx, key, "", t.a.owner, long)
				return err
			}, state{}, state{owner: t.a.owner}},
			{"Renew", leading, func(ctx context.Context, key string) error {
				return t.a.store.Renew(ctx, key, t.a.owner, long)
			}, state{owner: t.a.owner}.with(v1), state{owner: t.a.owner}.with(v1)},
			{"Publish", leading, func(ctx context.Context, key string) error {
				return t.a.store.Publish(ctx, key, t.a.owner, v2, long)
			}, state{owner: t.a.owner}.with(v1), state{}.with(v2)},
			{"Abort", leading, func(ctx context.Context, key string) error {
				return t.a.store.Abort(ctx, key, t.a.owner, []byte("note"), long)
			}, state{owner: t.a.owner}.with(v1), state{cooling: true, note: "note"}.with(v1)},
			{"Invalidate", leading, func(ctx context.Context, key string) error {
				return t.a.store.Invalidate(ctx, key, v1.Version)
			}, state{owner: t.a.owner}.with(v1), state{}},
		} {
			// The first context is already done; the others end at different moments.
			for i := range 20 {
				key := newKey()
				test.prepare(key)
				ctx, cancel := context.WithTimeout(t.ctx, time.Duration(i)*50*time.Microsecond)
				returned := make(chan error, 1)
				go func() { returned <- test.call(ctx, key) }()
				var err error
				select {
				case err = <-returned:
				case <-time.After(guard):
					t.fatalf("%s with a context that is done hangs", test.name)
				}
				cancel()
				got := t.look(key)
				twice := got == test.after && got != test.before // the client has sent the call again
				switch {
				case errors.Is(err, tokenstore.ErrLeaseLost) && !twice:
					t.fatalf("%s with a context that is done: %v", test.name, err)
				case err == nil && got != test.after:
					t.fatalf("after %s without an error, the store has %v; want %v", test.name, got, test.after)
				case got != test.before && got != test.after:
					t.fatalf("after %s with the error %v, the store has %v; want %v or %v", test.name, err, got, test.before, test.after)
				}
			}
		}
	}},
}

// confusable returns records whose versions are easily confused with others.
func confusable() []tokenstore.Record {
	var records []tokenstore.Record
	for _, suffix := range []string{"", "Ab", "10", "1e1", strings.Repeat("x", 38)} {
		r := newRecord("data")
		r.Version += suffix
		records = append(records, r)
	}
	number := newRecord("data") // more digits than a float64 has
	number.Version = strings.Map(func(r rune) rune { return '0' + r%10 }, newKey()[:24])
	return append(records, number)
}

// similar returns texts that a careless comparison confuses with text: by prefix, by
// letter case, or as a number.
func similar(text string) []string {
	last := len(text) - 1
	variants := []string{text + "0", text[:last], "0" + text, text[1:], text + "e0", text[:last] + "0", text[:last] + "1"}
	variants = append(variants, strings.ToLower(text), strings.ToUpper(text))
	return slices.DeleteFunc(variants, func(variant string) bool { return variant == text })
}

// texts returns examples of data and notes that every store must keep.
func texts() []string {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return []string{
		"",
		string(every),
		strings.Repeat(string(every), 100<<10/len(every)),
		"\x00", "\r\n", " data ", "\xff\xfe", "\xed\xa0\x80",
		"0", "007", "1e3", "-1", "nil", "null", "false", `{"a":1}`, "%s%d", `"`, `\`, "$1", "-",
	}
}

package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// An operation is a call with its arguments.
type operation struct {
	name    string
	owner   string
	version string // stale, published or invalidated
	note    string // of abort
	pause   time.Duration
}

// call makes the call and returns its answer, also as text.
func (o operation) call(r *replica, key string) (answer string, claim tokenstore.Claim, err error) {
	switch o.name {
	case "acquire":
		claim, err = r.tryAcquire(key, o.version, long)
	case "renew":
		err = r.tryRenew(key, long)
	case "publish":
		err = r.tryPublish(key, tokenstore.Record{Version: o.version, Data: []byte(o.version)}, long)
	case "abort":
		err = r.tryAbort(key, o.note, o.pause)
	case "invalidate":
		err = r.tryInvalidate(key, o.version)
	}
	if errors.Is(err, tokenstore.ErrLeaseLost) {
		return "lost", claim, nil
	}
	return describe(claim), claim, err
}

// apply carries out the operation on e and returns the answer of a correct store.
func (o operation) apply(e *entry, now time.Time) string {
	switch o.name {
	case "acquire":
		return describe(e.acquire(now, o.version, o.owner, long))
	case "renew":
		if e.renew(now, o.owner, long) != nil {
			return "lost"
		}
	case "publish":
		if e.publish(now, o.owner, tokenstore.Record{Version: o.version, Data: []byte(o.version)}, long) != nil {
			return "lost"
		}
	case "abort":
		e.abort(now, o.owner, []byte(o.note), o.pause)
	case "invalidate":
		e.invalidate(o.version)
	}
	e.pass(now) // a cooldown of 0
	return describe(tokenstore.Claim{})
}

func describe(claim tokenstore.Claim) string {
	switch claim.State {
	case 0:
		return "done"
	case lead:
		return "lead"
	case hit:
		return fmt.Sprintf("hit %s %s", claim.Record.Version, claim.Record.Data)
	case waiting:
		return "wait " + claim.Owner
	case cooling:
		return "cooling " + string(claim.Note)
	}
	return claim.State.String()
}

// A callEvent is a call that was made, with its answer. began and ended are its places in
// the order of all beginnings and ends.
type callEvent struct {
	operation
	began, ended int
	answer       string
}

func (e callEvent) String() string {
	return fmt.Sprintf("%3d to %3d  %s by %s, version %q, note %q, %v: %s", e.began, e.ended, e.name, e.owner, e.version, e.note, e.pause, e.answer)
}

// checkHistory lets replicas make random calls at the same time, and ends the check
// unless the history is linearizable: the answers are those of a store that carries out
// one call after another, each at some moment between its beginning and its end.
func (t *check) checkHistory(seed uint64, replicas, calls int) {
	t.Helper()
	key, prefix := newKey(), newRecord("").Version
	var (
		mu      sync.Mutex // protects what follows
		clock   int
		history []callEvent
	)
	tick := func() int {
		mu.Lock()
		defer mu.Unlock()
		clock++
		return clock
	}
	all := t.replicas(max(replicas, 3))
	t.together(replicas, func(i int) error {
		random := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // The numbers are meant to be reproducible.
		seen := prefix + "none"
		for n := range calls {
			r := all[i]
			if replicas == 1 {
				r = all[random.IntN(len(all))]
			}
			o := operation{owner: r.owner}
			switch dice := random.IntN(100); {
			case dice < 45:
				o.name = "acquire"
				if random.IntN(2) == 0 {
					o.version = seen
				}
			case dice < 55:
				o.name = "renew"
			case dice < 75:
				o.name, o.version = "publish", fmt.Sprintf("%s%dx%d", prefix, i, n)
			case dice < 87:
				o.name = "abort"
				if random.IntN(8) == 0 {
					o.note, o.pause = fmt.Sprintf("note %d %d", i, n), long
				}
			default:
				o.name, o.version = "invalidate", seen
			}
			e := callEvent{operation: o, began: tick()}
			answer, claim, err := o.call(r, key)
			if err != nil {
				return err
			}
			e.ended, e.answer = tick(), answer
			if claim.State == hit {
				seen = claim.Record.Version
			} else if o.name == "publish" && answer == "done" {
				seen = o.version
			}
			mu.Lock()
			history = append(history, e)
			mu.Unlock()
		}
		return nil
	})
	if !linearizable(history) {
		slices.SortFunc(history, func(a, b callEvent) int { return a.began - b.began })
		var list strings.Builder
		for _, e := range history {
			fmt.Fprintf(&list, "\n%v", e)
		}
		t.fatalf("no order of these calls explains their answers:%s", list.String())
	}
}

// linearizable reports whether there is an order of at most 64 events in which a store
// that carries out one after another gives these answers. An event that ended before
// another one began comes before it in that order.
func linearizable(history []callEvent) bool {
	now := time.Now()
	type position struct {
		done  uint64 // a bit for each event that was carried out
		store string // what is in the store then
	}
	failed := make(map[position]bool)
	var search func(done uint64, e entry) bool
	search = func(done uint64, e entry) bool {
		firstEnd := -1
		for i, event := range history {
			if done&(1<<i) == 0 && (firstEnd < 0 || event.ended < firstEnd) {
				firstEnd = event.ended
			}
		}
		if firstEnd < 0 {
			return true
		}
		at := position{done, fmt.Sprint(e.record.Version, " ", e.owner, " ", e.hasCooldown(), string(e.note))}
		if failed[at] {
			return false
		}
		for i, event := range history {
			if done&(1<<i) != 0 || event.began > firstEnd {
				continue
			}
			next := e // A shallow copy will do: the bytes in it never change.
			if event.apply(&next, now) == event.answer && search(done|1<<i, next) {
				return true
			}
		}
		failed[at] = true
		return false
	}
	return search(0, entry{})
}

package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Store keeps tokens for all replicas of a service, so that they request one
// between them. It is what an adapter for an engine (Redis, NATS) implements; to
// use one, give it to Seal, and the result to Config.Store.
//
// For each key there is at most one record, at most one lease, and at most one
// cooldown. The lease says which replica requests the next record: while it holds, no
// other gets it. All times are durations, and pass by the store's clock: those of
// replicas disagree. What is over is as if it had never been.
//
// Each method is atomic for its key. A key is 64 hexadecimal digits and tells
// nothing of what it stands for; owners and versions are short texts of letters and
// digits; a record's data and a note are any bytes, up to 100 KiB.
//
// Methods must be safe for concurrent use, and should return soon after ctx is
// done: nobody waits for them then, and what they still do must be all or nothing.
// Any error but ErrLeaseLost means that the store can't be used at the moment, and
// that the replica goes on without it. Package storetest tests an adapter.
type Store interface {
	// Acquire finds out what the replica owner is to do for a token, in this order:
	//
	//   - ClaimHit: there is a record whose version isn't stale.
	//   - ClaimLead: owner holds the lease, or has it from now on, because nobody
	//     else does and there is no cooldown. Either way it holds for lease from
	//     now.
	//   - ClaimWait: another owner holds the lease.
	//   - ClaimCooling: there is a cooldown.
	//
	// stale is the version of a record that won't do anymore; empty: any will do. A
	// stale record stays for those who ask with another version.
	Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (Claim, error)

	// Renew has the lease hold for lease from now. If owner doesn't hold it, it changes
	// nothing and returns ErrLeaseLost: unlike Acquire it never begins one.
	Renew(ctx context.Context, key, owner string, lease time.Duration) error

	// Publish replaces the record, for ttl, and ends the lease and the cooldown.
	// If owner doesn't hold the lease it changes nothing and returns ErrLeaseLost.
	Publish(ctx context.Context, key, owner string, record Record, ttl time.Duration) error

	// Abort ends the lease without a record. If cooldown is greater than 0, nobody
	// gets another for so long, and Acquire returns note meanwhile. A record stays
	// as it is. If owner doesn't hold the lease it changes nothing, which is no
	// error.
	Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error

	// Invalidate removes the record if it is of that version, and with it the
	// lease, whoever holds it: what that brings may be as invalid. Otherwise it
	// changes nothing, which is no error.
	Invalidate(ctx context.Context, key, version string) error
}

// ErrLeaseLost is the error of Store.Publish and Store.Renew for an owner that doesn't
// hold the lease: it has run out, or was ended by Invalidate.
var ErrLeaseLost = errors.New("oauth2: the lease on the shared token is lost")

// A Record is what a Store keeps under a key.
type Record struct {
	Version string // names the record; no two that were ever published have the same
	Data    []byte
}

// A Claim is what Store.Acquire returns.
type Claim struct {
	State ClaimState

	// TTL is how long what State says will last: the record (ClaimHit), the lease
	// (ClaimLead, ClaimWait), the cooldown (ClaimCooling). Rounded down, to no less
	// than milliseconds.
	TTL time.Duration

	Record Record // ClaimHit: what was published
	Owner  string // ClaimWait: who holds the lease
	Note   []byte // ClaimCooling: what Abort has left
}

// ClaimState says what a replica is to do for a token.
type ClaimState int

const (
	// ClaimLead: request a token, then call Publish or Abort.
	ClaimLead ClaimState = iota + 1
	// ClaimHit: use the one that another replica has published.
	ClaimHit
	// ClaimWait: another replica is requesting one; ask again a little later.
	ClaimWait
	// ClaimCooling: the authorization server has told another replica to stay away.
	ClaimCooling
)

// String returns the state's name in lower case.
func (s ClaimState) String() string {
	switch s {
	case ClaimLead:
		return "lead"
	case ClaimHit:
		return "hit"
	case ClaimWait:
		return "wait"
	case ClaimCooling:
		return "cooling"
	}
	return fmt.Sprintf("ClaimState(%d)", int(s))
}

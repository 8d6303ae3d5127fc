// Package tokenstore is what an adapter implements so that all replicas of a service
// share their access tokens through an engine such as Redis or NATS.
//
// To use an existing adapter you don't need this package: set Config.Store to what
// redisstore.New or natsstore.New returns. To write one, implement [Store], test it
// with package storetest, and return what clientcredentials.Seal makes of it.
package tokenstore

import (
	"context"
	"fmt"
	"time"
)

// A Store keeps tokens for all replicas of a service, so that one of them requests a
// token and the others use it.
//
// For each key there is at most one record, at most one lease, and at most one
// cooldown. The lease says which replica requests the next record: while one replica
// holds it, no other gets it. All times are durations and are measured by the store's
// clock, because the clocks of replicas disagree. When its time is over, a record, a
// lease or a cooldown no longer exists.
//
// Each method is atomic for its key. A key is 64 hexadecimal digits and reveals
// nothing about the client or the token. Owners and versions are short texts of letters and
// digits. A record's data and a note are arbitrary bytes, up to 100 KiB.
//
// Methods must be safe for concurrent use, and should return soon after ctx is done:
// nobody waits for them after that. A call that is cut off must have done all of its
// work or nothing. Any error other than ErrLeaseLost means that the store can't be
// used at the moment, and the replica goes on without it. Package storetest tests an
// adapter.
type Store interface {
	// Acquire decides what the replica named owner does for a token, in this order:
	//
	//   - ClaimHit: there is a record, and its version isn't stale.
	//   - ClaimLead: owner holds the lease, or gets it now because there is neither
	//     another owner nor a cooldown. In both cases the lease lasts for the given
	//     time from now.
	//   - ClaimWait: another owner holds the lease.
	//   - ClaimCooling: there is a cooldown.
	//
	// stale is the version of a record that this replica can't use anymore. If it is
	// empty, any record will do. A stale record is kept for replicas that ask with
	// another version.
	Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (Claim, error)

	// Renew makes the lease last for the given time from now. If owner doesn't hold
	// the lease, Renew changes nothing and returns ErrLeaseLost: unlike Acquire, it
	// never grants one.
	Renew(ctx context.Context, key, owner string, lease time.Duration) error

	// Publish replaces the record, keeps it for ttl, and ends the lease and the
	// cooldown. If owner doesn't hold the lease, Publish changes nothing and returns
	// ErrLeaseLost.
	Publish(ctx context.Context, key, owner string, record Record, ttl time.Duration) error

	// Abort ends the lease without a record. If cooldown is greater than 0, nobody
	// gets a lease for that long, and Acquire returns note until then. The record
	// stays as it is. If owner doesn't hold the lease, Abort changes nothing; that is
	// not an error.
	Abort(ctx context.Context, key, owner string, note []byte, cooldown time.Duration) error

	// Invalidate removes the record if it has that version. It also ends the lease,
	// whoever holds it, because the token requested under it may be just as invalid.
	// If the record has another version, Invalidate changes nothing; that is not an
	// error.
	Invalidate(ctx context.Context, key, version string) error
}

// ErrLeaseLost is what Store.Publish and Store.Renew return for an owner that doesn't
// hold the lease: the lease has run out, or Invalidate has ended it.
var ErrLeaseLost error = leaseError("oauth2: the lease on the shared token is lost")

// A leaseError is the type of ErrLeaseLost. Unlike errors.New it costs nothing when a
// program starts.
type leaseError string

func (e leaseError) Error() string { return string(e) }

// A Record is what a Store keeps under a key.
type Record struct {
	Version string // unique among all records that were ever published
	Data    []byte
}

// A Claim is what Store.Acquire returns.
type Claim struct {
	State ClaimState

	// TTL is how long the state will last: the record (ClaimHit), the lease
	// (ClaimLead, ClaimWait), or the cooldown (ClaimCooling). It is rounded down, to
	// milliseconds or finer.
	TTL time.Duration

	Record Record // ClaimHit: the published record
	Owner  string // ClaimWait: the replica that holds the lease
	Note   []byte // ClaimCooling: the note given to Abort
}

// ClaimState says what a replica does for a token.
type ClaimState int

const (
	// ClaimLead: request a token, then call Publish or Abort.
	ClaimLead ClaimState = iota + 1
	// ClaimHit: use the token that another replica has published.
	ClaimHit
	// ClaimWait: another replica is requesting a token; ask again a little later.
	ClaimWait
	// ClaimCooling: the authorization server has asked another replica to pause.
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

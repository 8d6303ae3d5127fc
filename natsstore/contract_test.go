package natsstore

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// testContract tests all that clientcredentials.Store asks for. Each call of newStore
// returns another replica's.
func testContract(t *testing.T, newStore func(testing.TB) *Store) {
	t.Helper()
	storetest.Run(t, func(t *testing.T) tokenstore.Store { return warm(t, newStore(t)) })
}

// warm lets s ask for the time while little else goes on: it is as exact as the answer
// is fast.
func warm(tb testing.TB, s *Store) *Store {
	tb.Helper()
	eventually(tb, func(ctx context.Context) error { return s.Invalidate(ctx, testKey("w"), "none") })
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	server, _ := startStore(t)
	testContract(t, func(tb testing.TB) *Store { return newStore(tb, server.url()) })
}

// The same with data that never is in the entry.
func TestContractOfLargeRecords(t *testing.T) {
	t.Parallel()
	server, _ := startStore(t)
	storetest.Run(t, func(t *testing.T) tokenstore.Store {
		return padded{warm(t, newStore(t, server.url()))}
	})
}

// A padded Store makes each record a large one.
type padded struct{ tokenstore.Store }

var padding = make([]byte, maxInline+1)

func (p padded) Publish(ctx context.Context, key, owner string, r tokenstore.Record, ttl time.Duration) error {
	r.Data = append(bytes.Clone(padding), r.Data...)
	return p.Store.Publish(ctx, key, owner, r, ttl)
}

func (p padded) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	claim, err := p.Store.Acquire(ctx, key, stale, owner, lease)
	if claim.State == tokenstore.ClaimHit {
		claim.Record.Data = claim.Record.Data[len(padding):]
	}
	return claim, err
}

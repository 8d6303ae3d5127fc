package redisstore_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/redisstore"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A huge text that somebody else has put into the hash stays in Redis. It is an error for
// those who need it, and disturbs nobody else. It isn't parallel, because it measures
// allocations.
func TestS24_HugeTexts(t *testing.T) {
	client := startRedis(t).client(t)
	s := &redisstore.Store{Client: client}
	later := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli())
	const huge = 8 << 20
	for name, test := range map[string]struct {
		field  string
		others []any
	}{
		"data":    {"data", []any{"version", "v1", "expiry", later}},
		"version": {"version", []any{"data", "x", "expiry", later}},
		"owner":   {"owner", []any{"lease", later}},
		"note":    {"note", []any{"cooldown", later}},
	} {
		t.Run(name, func(t *testing.T) {
			put := func(t *testing.T, size int) (key string) {
				t.Helper()
				key = newKey()
				redisKey := redisstore.DefaultPrefix + key
				require.NoError(t, client.HSet(t.Context(), redisKey, test.others...).Err())
				// The script makes the text, so that it isn't in this process.
				require.NoError(t, client.Eval(t.Context(), `return redis.call('HSET', KEYS[1], ARGV[1], string.rep('x', ARGV[2]))`, []string{redisKey}, test.field, size).Err())
				return key
			}
			for _, size := range []int{128 << 10, 1 << 20, huge} {
				key := put(t, size)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				claim, err := s.Acquire(t.Context(), key, "", "owner", leaseTime)
				runtime.ReadMemStats(&after)
				if size == 128<<10 && (test.field == "owner" || test.field == "note") {
					require.NoError(t, err) // Exactly what is allowed.
					continue
				}
				require.ErrorContains(t, err, "redisstore: acquire: the hash at the key")
				require.ErrorContains(t, err, key)
				require.Less(t, len(err.Error()), 500)
				require.Zero(t, claim)
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
			}

			key := put(t, 100<<10) // What the contract allows.
			claim, err := s.Acquire(t.Context(), key, "", "owner", leaseTime)
			require.NoError(t, err)
			require.Equal(t, 100<<10, max(len(claim.Record.Data), len(claim.Record.Version), len(claim.Owner), len(claim.Note)))
		})
	}

	// Another replica doesn't need the record if its version is stale, and it can be
	// replaced.
	key := newKey()
	redisKey := redisstore.DefaultPrefix + key
	require.NoError(t, client.HSet(t.Context(), redisKey, "version", "v1", "expiry", later, "data", strings.Repeat("x", 1<<20)).Err())
	claim, err := s.Acquire(t.Context(), key, "v1", "owner", leaseTime)
	require.NoError(t, err)
	require.Equal(t, tokenstore.ClaimLead, claim.State)
	require.NoError(t, s.Publish(t.Context(), key, "owner", tokenstore.Record{Version: "v2", Data: []byte("data")}, leaseTime))
	claim, err = s.Acquire(t.Context(), key, "v1", "other", leaseTime)
	require.NoError(t, err)
	require.Equal(t, tokenstore.ClaimHit, claim.State)
}

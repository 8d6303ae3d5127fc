package natsstore

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A huge value that somebody else has put into the bucket isn't decoded, and it disturbs
// nobody else.
func TestS24_HugeValues(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.MaxPayload = 8 << 20 })
	store := newStore(t, s.url())
	bucket := createBucket(t, store.JetStream)
	end := time.Now().Add(time.Hour)
	for name, huge := range map[string]entry{
		"data":    {Format: entryFormat, Record: &record{Version: "v1", Data: bytes.Repeat([]byte("x"), 3<<20), End: end}},
		"version": {Format: entryFormat, Record: &record{Version: strings.Repeat("v", 3<<20), Data: []byte("x"), End: end}},
		"note":    {Format: entryFormat, Cooldown: &cooldown{Note: bytes.Repeat([]byte("x"), 3<<20), End: end}},
	} {
		value, err := json.Marshal(huge)
		require.NoError(t, err, name)
		_, err = bucket.Put(t.Context(), testKey("k"), value)
		require.NoError(t, err, name)
		for _, err := range errorsOf(withDeadline(t), store) {
			require.ErrorIs(t, err, errLarge, name)
		}
	}
	publish(t, store, testKey("x"), "", tokenstore.Record{Version: "v1", Data: []byte("data")})

	// The data of a large record is a value of its own.
	key := testKey("l")
	publish(t, store, key, "", tokenstore.Record{Version: "v1", Data: largeData})
	_, err := bucket.Put(t.Context(), key+".v1", bytes.Repeat([]byte("x"), 3<<20))
	require.NoError(t, err)
	_, err = store.Acquire(withDeadline(t), key, "", "b", time.Minute)
	require.ErrorIs(t, err, errLarge)
}

// The max-value-size in the package documentation allows the largest record and note, and
// refuses larger values.
func TestS24_MaxValueSize(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.MaxPayload = 8 << 20 })
	store := newStore(t, s.url())
	bucket := createBucket(t, store.JetStream, func(c *jetstream.KeyValueConfig) { c.MaxValueSize = 256 << 10 })
	_, err := bucket.Put(t.Context(), testKey("k"), make([]byte, 257<<10))
	require.Error(t, err)

	key := testKey("k")
	small := tokenstore.Record{Version: "v1", Data: largeData[:maxInline]}
	publish(t, store, key, "", small)
	lead(t, store, key, "v1", "a")
	require.NoError(t, store.Abort(withDeadline(t), key, "a", largeData, time.Hour))
	requireClaim(t, store, key, "", "b", hit(small))
	claim, err := store.Acquire(withDeadline(t), key, "v1", "b", time.Minute)
	require.NoError(t, err)
	require.Equal(t, largeData, claim.Note)
	large := tokenstore.Record{Version: "v2", Data: largeData}
	publish(t, store, testKey("l"), "", large)
	requireClaim(t, store, testKey("l"), "", "b", hit(large))
}

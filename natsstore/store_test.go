package natsstore

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

var largeData = bytes.Repeat([]byte("0123456789"), 10<<10) // 100 KiB

// lead has owner acquire a lease that lasts as long as the test.
func lead(tb testing.TB, s *Store, key, stale, owner string) {
	tb.Helper()
	requireClaim(tb, s, key, stale, owner, leads)
}

// publish has r published under key.
func publish(tb testing.TB, s *Store, key, stale string, r tokenstore.Record) {
	tb.Helper()
	lead(tb, s, key, stale, "publisher")
	require.NoError(tb, s.Publish(withDeadline(tb), key, "publisher", r, time.Hour))
}

// requireClaim checks what Acquire returns, with a lease of an hour.
func requireClaim(tb testing.TB, s *Store, key, stale, owner string, want tokenstore.Claim) {
	tb.Helper()
	claim, err := s.Acquire(withDeadline(tb), key, stale, owner, time.Hour)
	require.NoError(tb, err)
	require.Positive(tb, claim.TTL)
	require.LessOrEqual(tb, claim.TTL, time.Hour)
	claim.TTL = 0
	require.Equal(tb, want, claim)
}

func hit(r tokenstore.Record) tokenstore.Claim {
	return tokenstore.Claim{State: tokenstore.ClaimHit, Record: r}
}

func wait(owner string) tokenstore.Claim {
	return tokenstore.Claim{State: tokenstore.ClaimWait, Owner: owner}
}

var leads = tokenstore.Claim{State: tokenstore.ClaimLead}

// acquirable waits until Acquire succeeds.
func acquirable(tb testing.TB, s *Store, key, owner string) {
	tb.Helper()
	eventually(tb, func(ctx context.Context) error {
		_, err := s.Acquire(ctx, key, "", owner, time.Hour)
		return err
	})
}

// bucketOf returns the bucket of s.
func bucketOf(tb testing.TB, s *Store) jetstream.KeyValue {
	tb.Helper()
	bucket, err := s.JetStream.KeyValue(withDeadline(tb), testBucket)
	require.NoError(tb, err)
	return bucket
}

// A replica's own clocks don't matter.
func TestClocksOfReplicas(t *testing.T) {
	t.Parallel()
	server, exact := startStore(t)
	skewed := func(skew time.Duration) *Store {
		s := newStore(t, server.url())
		s.clock.local = func() instant {
			now := exact.clock.read()
			return instant{elapsed: now.elapsed + 17*skew, wall: now.wall.Add(skew)}
		}
		return s
	}
	writer, reader := skewed(5*time.Hour), skewed(-5*time.Hour)
	lead(t, writer, testKey("k"), "", "writer")
	requireClaim(t, reader, testKey("k"), "", "reader", wait("writer"))

	// After a change of the leader a clock may be behind for a while. The time of an entry
	// corrects it.
	late := *reader.clock.reading.Load()
	late.server = late.server.Add(-time.Minute)
	reader.clock.reading.Store(&late)
	requireClaim(t, reader, testKey("k"), "", "reader", wait("writer"))
}

// The package documentation promises these numbers of round trips.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	ctx := withDeadline(t)
	k, l := testKey("k"), testKey("l")
	acquire := func(key, stale, owner string) error {
		_, err := s.Acquire(ctx, key, stale, owner, time.Hour)
		return err
	}
	publish := func(key, version string, data []byte) error {
		return s.Publish(ctx, key, "a", tokenstore.Record{Version: version, Data: data}, time.Hour)
	}
	// The local clock stands still, so that the store doesn't ask for the time again.
	s.clock.local = func() instant { return instant{} }

	sent := s.JetStream.Conn().Stats().OutMsgs
	// trips checks how many messages the call took that has just returned.
	trips := func(what string, want uint64, err error) {
		t.Helper()
		require.NoError(t, err, what)
		before := sent
		sent = s.JetStream.Conn().Stats().OutMsgs
		require.Equal(t, want, sent-before, what)
	}
	trips("lead: time, read, write", 3, acquire(k, "", "a"))
	trips("wait", 1, acquire(k, "", "b"))
	trips("renew", 2, s.Renew(ctx, k, "a", time.Hour))
	trips("publish", 2, publish(k, "v1", nil))
	trips("hit", 1, acquire(k, "", "b"))
	trips("lead", 2, acquire(k, "v1", "a"))
	trips("abort", 2, s.Abort(ctx, k, "a", nil, time.Hour))
	trips("cooling", 1, acquire(k, "v1", "b"))
	trips("invalidate", 2, s.Invalidate(ctx, k, "v1"))
	trips("invalidate nothing", 1, s.Invalidate(ctx, k, "v1"))

	trips("lead", 2, acquire(l, "", "a"))
	trips("publish large data: read, data, entry", 3, publish(l, "v1", largeData))
	trips("hit of large data: entry, data", 2, acquire(l, "", "b"))
	trips("lead", 2, acquire(l, "v1", "a"))
	trips("wait with large data", 1, acquire(l, "v1", "b"))
	trips("replace large data: read, data, entry, removal of the old data", 4, publish(l, "v2", largeData))
	trips("invalidate large data: read, entry, removal of the data", 3, s.Invalidate(ctx, l, "v2"))

	// In the end there is one value for each credential.
	keys, err := bucketOf(t, s).Keys(ctx)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{k, l}, keys)
}

func TestRestart(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	s := newStore(t, server.url())
	createBucket(t, s.JetStream, inFiles)
	publish(t, s, testKey("k"), "", v1)
	lead(t, s, testKey("l"), "", "a")

	server.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	for _, err := range errorsOf(ctx, s) {
		require.Error(t, err)
		require.NotErrorIs(t, err, tokenstore.ErrLeaseLost)
	}

	server.start()
	acquirable(t, s, testKey("k"), "b")
	requireClaim(t, s, testKey("k"), "", "b", hit(v1))
	requireClaim(t, s, testKey("l"), "", "b", wait("a"))
	require.NoError(t, s.Publish(withDeadline(t), testKey("l"), "a", v1, time.Hour))
	requireClaim(t, s, testKey("l"), "", "b", hit(v1))
}

// errorsOf calls all methods of s, and returns their errors.
func errorsOf(ctx context.Context, s *Store) []error {
	_, err := s.Acquire(ctx, testKey("k"), "", "a", time.Hour)
	return []error{
		err,
		s.Renew(ctx, testKey("k"), "a", time.Hour),
		s.Publish(ctx, testKey("k"), "a", tokenstore.Record{Version: "v1"}, time.Hour),
		s.Abort(ctx, testKey("k"), "a", nil, 0),
		s.Invalidate(ctx, testKey("k"), "v1"),
	}
}

func TestBucketDeleted(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	key := testKey("k")
	lead(t, s, key, "", "a")
	require.NoError(t, s.JetStream.DeleteKeyValue(withDeadline(t), testBucket))
	withoutJetStream := startServer(t, func(o *server.Options) { o.JetStream = false })
	for _, s := range []*Store{s, newStore(t, withoutJetStream.url())} {
		for _, err := range errorsOf(withDeadline(t), s) {
			require.ErrorContains(t, err, `oauth2: natsstore: the bucket "tokens" doesn't exist`)
		}
	}

	createBucket(t, s.JetStream)
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "a", tokenstore.Record{Version: "v1"}, time.Hour), tokenstore.ErrLeaseLost)
	lead(t, s, key, "", "b")

	// An operator can delete or purge an entry.
	bucket := bucketOf(t, s)
	require.NoError(t, bucket.Delete(withDeadline(t), key))
	lead(t, s, key, "", "c")
	require.NoError(t, bucket.Purge(withDeadline(t), key))
	lead(t, s, key, "", "d")
}

func TestForeignValue(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	bucket := bucketOf(t, s)
	for _, value := range []string{"secret", `{"format":2}`, `{}`, `[]`, `{"format":1,"lease":"secret"}`} {
		_, err := bucket.Put(t.Context(), testKey("k"), []byte(value))
		require.NoError(t, err)
		for _, err := range errorsOf(withDeadline(t), s) {
			require.ErrorIs(t, err, errForeign)
			require.NotContains(t, err.Error(), "secret")
		}
		got, err := bucket.Get(t.Context(), testKey("k"))
		require.NoError(t, err)
		require.Equal(t, value, string(got.Value()))
	}
}

func TestUnusable(t *testing.T) {
	t.Parallel()
	_, store := startStore(t)
	js := store.JetStream
	for _, s := range []*Store{{}, {Bucket: testBucket}, {JetStream: js}, {JetStream: js, Bucket: "tokens.>"}} {
		for _, err := range errorsOf(t.Context(), s) {
			require.ErrorIs(t, err, errNoBucket)
		}
	}
	for _, err := range errorsOf(withDeadline(t), &Store{JetStream: timeless{js}, Bucket: testBucket}) {
		require.ErrorIs(t, err, errNoTime)
	}

	// Keys, and versions that become part of one, must not contain other characters.
	for _, key := range []string{"", "*", ">", "a b", "a\r\nPUB x 0\r\n\r\n"} {
		_, err := store.Acquire(t.Context(), key, "", "a", time.Hour)
		require.ErrorIs(t, err, errName)
	}
	lead(t, store, testKey("k"), "", "a")
	err := store.Publish(t.Context(), testKey("k"), "a", tokenstore.Record{Version: "a\r\nPUB x 0\r\n\r\n", Data: largeData}, time.Hour)
	require.ErrorIs(t, err, errName)
}

// A racing JetStream calls before ahead of "read 1", "write 1" and so on. get calls Conn
// once for each read.
type racing struct {
	jetstream.JetStream
	before        func(call string)
	reads, writes *atomic.Int32
}

func (r racing) Conn() *nats.Conn {
	r.before(fmt.Sprint("read ", r.reads.Add(1)))
	return r.JetStream.Conn()
}

func (r racing) PublishMsg(ctx context.Context, m *nats.Msg, options ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	r.before(fmt.Sprint("write ", r.writes.Add(1)))
	return r.JetStream.PublishMsg(ctx, m, options...)
}

// Another replica, whose Store is other, writes to the entry while s works on it.
func TestLostRaces(t *testing.T) {
	t.Parallel()
	_, other := startStore(t)
	// racer returns a Store that has race called before this read or write. Empty: before
	// each.
	racer := func(moment string, race func()) *Store {
		return &Store{Bucket: testBucket, JetStream: racing{other.JetStream, func(call string) {
			if moment == call || moment == "" {
				race()
			}
		}, new(atomic.Int32), new(atomic.Int32)}}
	}
	abort := func(key, owner string) { require.NoError(t, other.Abort(withDeadline(t), key, owner, nil, 0)) }
	large := tokenstore.Record{Version: "v2", Data: largeData}

	key := testKey("a")
	s := racer("write 1", func() { lead(t, other, key, "", "b") })
	requireClaim(t, s, key, "", "a", wait("b"))

	// Invalidate also ends the lease that another replica has just got.
	key = testKey("b")
	publish(t, other, key, "", v1)
	s = racer("write 1", func() { lead(t, other, key, "v1", "a") })
	require.NoError(t, s.Invalidate(withDeadline(t), key, "v1"))
	lead(t, other, key, "", "b")

	// The data of a large record, which is written first, is removed again.
	key = testKey("c")
	lead(t, other, key, "", "a")
	s = racer("write 2", func() { abort(key, "a") })
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "a", large, time.Hour), tokenstore.ErrLeaseLost)
	data, err := other.get(withDeadline(t), dataKey(key, "v2"))
	require.NoError(t, err)
	require.NotZero(t, data.Sequence, "it was written")
	require.Empty(t, data.Data)

	// The data of a large record is removed between the two reads, because there is a new
	// record. Acquire returns that one.
	key = testKey("d")
	publish(t, other, key, "", tokenstore.Record{Version: "v1", Data: largeData})
	require.NoError(t, bucketOf(t, other).Purge(t.Context(), key+".v1"))
	requireClaim(t, racer("read 3", func() { publish(t, other, key, "v1", large) }), key, "", "b", hit(large))

	// A record whose data is missing doesn't exist.
	require.NoError(t, bucketOf(t, other).Purge(t.Context(), key+".v2"))
	lead(t, other, key, "", "b")

	// A change that always comes too late is given up.
	key = testKey("e")
	s = racer("", func() {
		lead(t, other, key, "", "b")
		abort(key, "b")
	})
	_, err = s.Acquire(withDeadline(t), key, "", "a", time.Hour)
	require.ErrorIs(t, err, errBusy)
}

// A timeless JetStream doesn't report the server's time, like NATS before 2.10.
type timeless struct{ jetstream.JetStream }

func (j timeless) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := j.JetStream.Stream(ctx, name)
	if err == nil {
		stream.CachedInfo().TimeStamp = time.Time{}
	}
	return stream, err
}

package natsstore

import (
	"bytes"
	"context"
	"fmt"
	"sync"
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

// lead makes owner the holder of a lease that lasts as long as the test.
func lead(tb testing.TB, s *Store, key, stale, owner string) {
	tb.Helper()
	claim, err := s.Acquire(withDeadline(tb), key, stale, owner, time.Hour)
	require.NoError(tb, err)
	require.Equal(tb, tokenstore.ClaimLead, claim.State)
}

// publish makes a record the current one.
func publish(tb testing.TB, s *Store, key, stale string, r tokenstore.Record) {
	tb.Helper()
	lead(tb, s, key, stale, "publisher")
	require.NoError(tb, s.Publish(withDeadline(tb), key, "publisher", r, time.Hour))
}

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

func TestColdStart(t *testing.T) {
	t.Parallel()
	const replicas, connections = 200, 10
	server, first := startStore(t)
	stores := []*Store{first}
	for len(stores) < connections {
		stores = append(stores, newStore(t, server.url()))
	}
	var leaders, waiting atomic.Int32
	var together sync.WaitGroup
	start := make(chan struct{})
	for i := range replicas {
		together.Go(func() {
			<-start
			claim, err := stores[i%connections].Acquire(withDeadline(t), testKey("k"), "", fmt.Sprintf("owner%d", i), time.Hour)
			switch {
			case err != nil:
				t.Errorf("owner%d: %v", i, err)
			case claim.State == tokenstore.ClaimLead:
				leaders.Add(1)
			case claim.State == tokenstore.ClaimWait:
				waiting.Add(1)
			}
		})
	}
	close(start)
	together.Wait()
	require.Equal(t, int32(1), leaders.Load())
	require.Equal(t, int32(replicas-1), waiting.Load())
}

// What a replica's own clock says doesn't count, nor does it when that is set.
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
	ahead, behind := skewed(5*time.Minute), skewed(-5*time.Minute)
	for _, writer := range []*Store{ahead, behind} {
		for _, reader := range []*Store{ahead, behind} {
			key := fmt.Sprintf("%p%p", writer, reader)
			ctx := withDeadline(t)
			claim, err := writer.Acquire(ctx, key, "", "writer", time.Minute)
			require.NoError(t, err)
			require.Equal(t, tokenstore.ClaimLead, claim.State)

			claim, err = reader.Acquire(ctx, key, "", "reader", time.Minute)
			require.NoError(t, err)
			require.Equal(t, tokenstore.ClaimWait, claim.State)
			require.InDelta(t, time.Minute, claim.TTL, float64(patience))

			require.NoError(t, writer.Publish(ctx, key, "writer", tokenstore.Record{Version: "v1"}, time.Minute))
			claim, err = reader.Acquire(ctx, key, "", "reader", time.Minute)
			require.NoError(t, err)
			require.Equal(t, tokenstore.ClaimHit, claim.State)
			require.InDelta(t, time.Minute, claim.TTL, float64(patience))
		}
	}
}

// While the machine sleeps its monotonic clock may stand still.
func TestMachineSlept(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	publish(t, s, testKey("k"), "", tokenstore.Record{Version: "v1"})

	var slept time.Duration // By the wall clock, which has gone on.
	machine := new(clock)
	s.clock.local = func() instant {
		now := machine.read()
		return instant{elapsed: now.elapsed, wall: now.wall.Add(slept)}
	}
	r := *s.clock.reading.Load()
	r.server = r.server.Add(-time.Hour) // What the store would go on counting from.
	s.clock.reading.Store(&r)
	before, err := s.now(t.Context())
	require.NoError(t, err)

	slept = time.Hour
	after, err := s.now(t.Context())
	require.NoError(t, err)
	require.InDelta(t, time.Hour, after.Sub(before), float64(patience))
}

// After a change of the leader the clock may be late for a while. An entry corrects it.
func TestLateClock(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	lead(t, s, testKey("k"), "", "a")
	r := *s.clock.reading.Load()
	r.server = r.server.Add(-time.Minute)
	s.clock.reading.Store(&r)
	claim, err := s.Acquire(withDeadline(t), testKey("k"), "", "b", time.Hour)
	require.NoError(t, err)
	require.Equal(t, tokenstore.ClaimWait, claim.State)
	require.LessOrEqual(t, claim.TTL, time.Hour)
}

// The package's documentation promises these.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	bucket, err := s.JetStream.KeyValue(t.Context(), testBucket)
	require.NoError(t, err)
	ctx := withDeadline(t)
	requests := func(f func()) int {
		before := s.JetStream.Conn().Stats().OutMsgs
		f()
		return int(s.JetStream.Conn().Stats().OutMsgs - before)
	}
	acquire := func(key, stale, owner string, want tokenstore.ClaimState) func() {
		return func() {
			claim, err := s.Acquire(ctx, testKey(key), stale, owner, time.Hour)
			require.NoError(t, err)
			require.Equal(t, want, claim.State)
		}
	}
	published := func(key, version string, data []byte) func() {
		return func() {
			require.NoError(t, s.Publish(ctx, testKey(key), "a", tokenstore.Record{Version: version, Data: data}, time.Hour))
		}
	}
	// The clock stays young for as long as this test takes: it stands still.
	s.clock.local = func() instant { return instant{} }

	require.Equal(t, 3, requests(acquire("k", "", "a", tokenstore.ClaimLead)), "time, read, write")
	require.Equal(t, 1, requests(acquire("k", "", "b", tokenstore.ClaimWait)))
	require.Equal(t, 2, requests(func() { require.NoError(t, s.Renew(ctx, testKey("k"), "a", time.Hour)) }))
	require.Equal(t, 2, requests(published("k", "v1", nil)))
	require.Equal(t, 1, requests(acquire("k", "", "b", tokenstore.ClaimHit)))
	require.Equal(t, 2, requests(acquire("k", "v1", "a", tokenstore.ClaimLead)))
	require.Equal(t, 2, requests(func() { require.NoError(t, s.Abort(ctx, testKey("k"), "a", nil, time.Hour)) }))
	require.Equal(t, 1, requests(acquire("k", "v1", "b", tokenstore.ClaimCooling)))
	require.Equal(t, 2, requests(func() { require.NoError(t, s.Invalidate(ctx, testKey("k"), "v1")) }))
	require.Equal(t, 1, requests(func() { require.NoError(t, s.Invalidate(ctx, testKey("k"), "v1")) }))

	require.Equal(t, 2, requests(acquire("l", "", "a", tokenstore.ClaimLead)))
	require.Equal(t, 3, requests(published("l", "v1", largeData)), "read, data, entry")
	require.Equal(t, 2, requests(acquire("l", "", "b", tokenstore.ClaimHit)), "entry, data")
	require.Equal(t, 2, requests(acquire("l", "v1", "a", tokenstore.ClaimLead)))
	require.Equal(t, 4, requests(published("l", "v2", largeData)), "read, data, entry, removal of the data before")
	require.Equal(t, 3, requests(func() { require.NoError(t, s.Invalidate(ctx, testKey("l"), "v2")) }), "read, entry, removal of the data")

	// After all that there is one value for each credential.
	keys, err := bucket.Keys(ctx)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{testKey("k"), testKey("l")}, keys)
}

func TestLargeRecord(t *testing.T) {
	t.Parallel()
	server, s := startStore(t)
	key := testKey("k")
	v1 := tokenstore.Record{Version: "v1", Data: largeData}
	publish(t, s, key, "", v1)
	other := newStore(t, server.url())
	requireClaim(t, other, key, "", "b", hit(v1))

	// Who waits for its successor doesn't move it again and again.
	lead(t, s, key, "v1", "a")
	before := other.JetStream.Conn().Stats().InBytes
	for range 10 {
		requireClaim(t, other, key, "v1", "b", wait("a"))
	}
	require.Less(t, other.JetStream.Conn().Stats().InBytes-before, uint64(10<<10))
	requireClaim(t, other, key, "", "b", hit(v1))

	// Its successor replaces it in the bucket too.
	v2 := tokenstore.Record{Version: "v2", Data: append([]byte("2"), largeData...)}
	require.NoError(t, s.Publish(withDeadline(t), key, "a", v2, time.Hour))
	requireClaim(t, other, key, "v1", "b", hit(v2))
	bucket, err := s.JetStream.KeyValue(t.Context(), testBucket)
	require.NoError(t, err)
	keys, err := bucket.Keys(withDeadline(t))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{key, key + ".v2"}, keys)

	// A publisher that has lost its lease leaves it alone, and leaves nothing behind.
	lead(t, s, key, "v2", "late")
	require.NoError(t, other.Invalidate(withDeadline(t), key, "v2"))
	lead(t, other, key, "v2", "c")
	v3 := tokenstore.Record{Version: "v3", Data: append([]byte("3"), largeData...)}
	require.NoError(t, other.Publish(withDeadline(t), key, "c", v3, time.Hour))
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "late", tokenstore.Record{Version: "v4", Data: largeData}, time.Hour), tokenstore.ErrLeaseLost)
	requireClaim(t, other, key, "v2", "b", hit(v3))
	keys, err = bucket.Keys(withDeadline(t))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{key, key + ".v3"}, keys)

	// Without its data a record is none.
	require.NoError(t, bucket.Delete(withDeadline(t), key+".v3"))
	requireClaim(t, other, key, "", "d", leads)
}

func TestRestart(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	s := newStore(t, server.url())
	createBucket(t, s.JetStream, inFiles)
	v1 := tokenstore.Record{Version: "v1", Data: []byte("1")}
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
	eventually(t, func(ctx context.Context) error {
		_, err := s.Acquire(ctx, testKey("k"), "", "b", time.Hour)
		return err
	})
	requireClaim(t, s, testKey("k"), "", "b", hit(v1))
	requireClaim(t, s, testKey("l"), "", "b", wait("a"))
	require.NoError(t, s.Publish(withDeadline(t), testKey("l"), "a", v1, time.Hour))
	requireClaim(t, s, testKey("l"), "", "b", hit(v1))
}

// errorsOf returns the errors of all methods.
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

// A service must start while NATS is down.
func TestServerDownAtFirst(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	createBucket(t, connect(t, server.url()), inFiles)
	server.stop()

	s := newStore(t, server.url())
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	_, err := s.Acquire(ctx, testKey("k"), "", "a", time.Hour)
	require.Error(t, err)

	server.start()
	eventually(t, func(ctx context.Context) error {
		_, err := s.Acquire(ctx, testKey("k"), "", "a", time.Hour)
		return err
	})
}

// A context that ends while the server says nothing ends the call.
func TestContext(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range errorsOf(ctx, s) {
		require.ErrorIs(t, err, context.Canceled)
	}
}

func TestBucketDeleted(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	key := testKey("k")
	lead(t, s, key, "", "a")
	require.NoError(t, s.JetStream.DeleteKeyValue(withDeadline(t), testBucket))
	for _, err := range errorsOf(withDeadline(t), s) {
		require.ErrorContains(t, err, `oauth2: natsstore: the bucket "tokens" isn't there`)
	}

	bucket := createBucket(t, s.JetStream)
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "a", tokenstore.Record{Version: "v1"}, time.Hour), tokenstore.ErrLeaseLost)
	lead(t, s, key, "", "b")

	// What an operator deletes in the bucket is gone.
	require.NoError(t, bucket.Delete(withDeadline(t), key))
	lead(t, s, key, "", "c")
	require.NoError(t, bucket.Purge(withDeadline(t), key))
	lead(t, s, key, "", "d")
}

func TestJetStreamOff(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *server.Options) { o.JetStream = false })
	for _, err := range errorsOf(withDeadline(t), newStore(t, server.url())) {
		require.ErrorContains(t, err, `oauth2: natsstore: the bucket "tokens" isn't there`)
	}
}

func TestForeignValue(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	bucket, err := s.JetStream.KeyValue(t.Context(), testBucket)
	require.NoError(t, err)
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

func TestMisuse(t *testing.T) {
	t.Parallel()
	_, store := startStore(t)
	js := store.JetStream
	for _, s := range []*Store{{}, {Bucket: testBucket}, {JetStream: js}, {JetStream: js, Bucket: "tokens.>"}} {
		for _, err := range errorsOf(t.Context(), s) {
			require.ErrorIs(t, err, errNoBucket)
		}
	}

	// A key that isn't one gets nowhere, nor does a version that becomes a part of one.
	for _, key := range []string{"", "*", ">", "a b", "a\r\nPUB x 0\r\n\r\n"} {
		_, err := store.Acquire(t.Context(), key, "", "a", time.Hour)
		require.ErrorIs(t, err, errName)
	}
	lead(t, store, testKey("k"), "", "a")
	err := store.Publish(t.Context(), testKey("k"), "a", tokenstore.Record{Version: "a\r\nPUB x 0\r\n\r\n", Data: largeData}, time.Hour)
	require.ErrorIs(t, err, errName)
}

// A racing JetStream has something done before each write.
type racing struct {
	jetstream.JetStream
	before func()
}

func (r racing) PublishMsg(ctx context.Context, m *nats.Msg, options ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	r.before()
	return r.JetStream.PublishMsg(ctx, m, options...)
}

func TestLostRaces(t *testing.T) {
	t.Parallel()
	_, other := startStore(t)
	v1 := tokenstore.Record{Version: "v1", Data: []byte("1")}
	once := func(f func()) *Store {
		return &Store{JetStream: racing{other.JetStream, sync.OnceFunc(f)}, Bucket: testBucket}
	}

	key := testKey("a")
	s := once(func() { lead(t, other, key, "", "b") })
	requireClaim(t, s, key, "", "a", wait("b"))

	key = testKey("b")
	s = once(func() { publish(t, other, key, "", v1) })
	requireClaim(t, s, key, "", "a", hit(v1))

	key = testKey("c")
	publish(t, other, key, "", v1)
	lead(t, other, key, "v1", "a")
	s = once(func() { require.NoError(t, other.Invalidate(withDeadline(t), key, "v1")) })
	err := s.Publish(withDeadline(t), key, "a", tokenstore.Record{Version: "v2", Data: []byte("2")}, time.Hour)
	require.ErrorIs(t, err, tokenstore.ErrLeaseLost)
	requireClaim(t, other, key, "", "a", leads)

	// Nor does the data of a large record stay.
	key = testKey("f")
	lead(t, other, key, "", "a")
	writes := 0
	s = &Store{JetStream: racing{other.JetStream, func() {
		if writes++; writes == 2 { // of the entry, after the data
			require.NoError(t, other.Abort(withDeadline(t), key, "a", nil, 0))
		}
	}}, Bucket: testBucket}
	err = s.Publish(withDeadline(t), key, "a", tokenstore.Record{Version: "v2", Data: largeData}, time.Hour)
	require.ErrorIs(t, err, tokenstore.ErrLeaseLost)
	data, err := other.get(withDeadline(t), dataKey(key, "v2"))
	require.NoError(t, err)
	require.NotZero(t, data.Sequence, "it was written")
	require.Empty(t, data.Data)

	// Another change isn't taken back by one's own.
	key = testKey("d")
	lead(t, other, key, "", "a")
	require.NoError(t, other.Publish(withDeadline(t), key, "a", v1, time.Hour))
	s = once(func() { lead(t, other, key, "v1", "a") })
	require.NoError(t, s.Invalidate(withDeadline(t), key, "v1"))
	requireClaim(t, other, key, "", "b", leads)

	// There is an end to it.
	key = testKey("e")
	s = &Store{JetStream: racing{other.JetStream, func() {
		lead(t, other, key, "", "b")
		require.NoError(t, other.Abort(withDeadline(t), key, "b", nil, 0))
	}}, Bucket: testBucket}
	_, err = s.Acquire(withDeadline(t), key, "", "a", time.Hour)
	require.ErrorIs(t, err, errBusy)
}

// The data of a large record may go between the two reads: there is another record then.
func TestDataReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	_, other := startStore(t)
	key := testKey("k")
	v2 := tokenstore.Record{Version: "v2", Data: largeData}
	publish(t, other, key, "", tokenstore.Record{Version: "v1", Data: largeData})
	bucket, err := other.JetStream.KeyValue(t.Context(), testBucket)
	require.NoError(t, err)
	require.NoError(t, bucket.Purge(t.Context(), key+".v1"))
	s := &Store{JetStream: readMeanwhile{other.JetStream, new(atomic.Int32), func() { publish(t, other, key, "v1", v2) }}, Bucket: testBucket}
	requireClaim(t, s, key, "", "b", hit(v2))
}

// readMeanwhile has something done before the third read: get takes Conn once for each.
type readMeanwhile struct {
	jetstream.JetStream
	reads *atomic.Int32
	third func()
}

func (r readMeanwhile) Conn() *nats.Conn {
	if r.reads.Add(1) == 3 {
		r.third()
	}
	return r.JetStream.Conn()
}

// A timeless JetStream is that of NATS before 2.10.
type timeless struct{ jetstream.JetStream }

func (j timeless) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := j.JetStream.Stream(ctx, name)
	if err == nil {
		stream.CachedInfo().TimeStamp = time.Time{}
	}
	return stream, err
}

func TestServerWithoutTime(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	s.JetStream = timeless{s.JetStream}
	for _, err := range errorsOf(withDeadline(t), s) {
		require.ErrorIs(t, err, errNoTime)
	}
}

package natsstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/stretchr/testify/require"
)

var largeData = bytes.Repeat([]byte("0123456789"), 10<<10) // 100 KiB

// lead makes owner the holder of a lease that lasts as long as the test.
func lead(tb testing.TB, s *Store, key, stale, owner string) {
	tb.Helper()
	claim, err := s.Acquire(withDeadline(tb), key, stale, owner, time.Hour)
	require.NoError(tb, err)
	require.Equal(tb, clientcredentials.ClaimLead, claim.State)
}

// publish makes a record the current one.
func publish(tb testing.TB, s *Store, key, stale string, r clientcredentials.Record) {
	tb.Helper()
	lead(tb, s, key, stale, "publisher")
	require.NoError(tb, s.Publish(withDeadline(tb), key, "publisher", r, time.Hour))
}

func requireClaim(tb testing.TB, s *Store, key, stale, owner string, want clientcredentials.Claim) {
	tb.Helper()
	claim, err := s.Acquire(withDeadline(tb), key, stale, owner, time.Hour)
	require.NoError(tb, err)
	require.Positive(tb, claim.TTL)
	require.LessOrEqual(tb, claim.TTL, time.Hour+time.Minute)
	claim.TTL = 0
	require.Equal(tb, want, claim)
}

func hit(r clientcredentials.Record) clientcredentials.Claim {
	return clientcredentials.Claim{State: clientcredentials.ClaimHit, Record: r}
}

func wait(owner string) clientcredentials.Claim {
	return clientcredentials.Claim{State: clientcredentials.ClaimWait, Owner: owner}
}

var leads = clientcredentials.Claim{State: clientcredentials.ClaimLead}

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
			case claim.State == clientcredentials.ClaimLead:
				leaders.Add(1)
			case claim.State == clientcredentials.ClaimWait:
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
			require.Equal(t, clientcredentials.ClaimLead, claim.State)

			claim, err = reader.Acquire(ctx, key, "", "reader", time.Minute)
			require.NoError(t, err)
			require.Equal(t, clientcredentials.ClaimWait, claim.State)
			require.InDelta(t, time.Minute, claim.TTL, float64(patience))

			require.NoError(t, writer.Publish(ctx, key, "writer", clientcredentials.Record{Version: "v1"}, time.Minute))
			claim, err = reader.Acquire(ctx, key, "", "reader", time.Minute)
			require.NoError(t, err)
			require.Equal(t, clientcredentials.ClaimHit, claim.State)
			require.InDelta(t, time.Minute, claim.TTL, float64(patience))
		}
	}
}

// While the machine sleeps its monotonic clock may stand still.
func TestMachineSlept(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	publish(t, s, testKey("k"), "", clientcredentials.Record{Version: "v1"})
	b, err := s.open(t.Context())
	require.NoError(t, err)

	var slept time.Duration // By the wall clock, which has gone on.
	real := new(clock)
	s.clock.local = func() instant {
		now := real.read()
		return instant{elapsed: now.elapsed, wall: now.wall.Add(slept)}
	}
	r := *s.clock.reading.Load()
	r.server = r.server.Add(-time.Hour) // What the store would go on counting from.
	s.clock.reading.Store(&r)
	before, err := s.now(t.Context(), b)
	require.NoError(t, err)

	slept = time.Hour
	after, err := s.now(t.Context(), b)
	require.NoError(t, err)
	require.InDelta(t, time.Hour, after.Sub(before), float64(patience))
}

// The package's documentation promises these.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	ctx := withDeadline(t)
	requests := func(f func()) int {
		before := s.JetStream.Conn().Stats().OutMsgs
		f()
		return int(s.JetStream.Conn().Stats().OutMsgs - before)
	}
	acquire := func(key, stale, owner string, want clientcredentials.ClaimState) func() {
		return func() {
			claim, err := s.Acquire(ctx, testKey(key), stale, owner, time.Hour)
			require.NoError(t, err)
			require.Equal(t, want, claim.State)
		}
	}
	published := func(key, version string, data []byte) func() {
		return func() {
			require.NoError(t, s.Publish(ctx, testKey(key), "a", clientcredentials.Record{Version: version, Data: data}, time.Hour))
		}
	}
	// The clock stays young for as long as this test takes: it stands still.
	s.clock.local = func() instant { return instant{} }

	require.Equal(t, 4, requests(acquire("k", "", "a", clientcredentials.ClaimLead)), "bucket, time, read, write")
	require.Equal(t, 1, requests(acquire("k", "", "b", clientcredentials.ClaimWait)))
	require.Equal(t, 1, requests(func() { require.NoError(t, s.Renew(ctx, testKey("k"), "a", time.Hour)) }))
	require.Equal(t, 1, requests(published("k", "v1", nil)))
	require.Equal(t, 1, requests(acquire("k", "", "b", clientcredentials.ClaimHit)))
	require.Equal(t, 2, requests(acquire("k", "v1", "a", clientcredentials.ClaimLead)))
	require.Equal(t, 1, requests(func() { require.NoError(t, s.Abort(ctx, testKey("k"), "a", nil, time.Hour)) }))
	require.Equal(t, 1, requests(acquire("k", "v1", "b", clientcredentials.ClaimCooling)))
	require.Equal(t, 2, requests(func() { require.NoError(t, s.Invalidate(ctx, testKey("k"), "v1")) }))
	require.Equal(t, 1, requests(func() { require.NoError(t, s.Invalidate(ctx, testKey("k"), "v1")) }))

	require.Equal(t, 2, requests(acquire("l", "", "a", clientcredentials.ClaimLead)))
	require.Equal(t, 2, requests(published("l", "v1", largeData)), "data, entry")
	require.Equal(t, 2, requests(acquire("l", "", "b", clientcredentials.ClaimHit)), "entry, data")
	require.Equal(t, 2, requests(acquire("l", "v1", "a", clientcredentials.ClaimLead)))
	require.Equal(t, 3, requests(published("l", "v2", largeData)), "data, entry, removal of the data before")
}

func TestLargeRecord(t *testing.T) {
	t.Parallel()
	server, s := startStore(t)
	key := testKey("k")
	v1 := clientcredentials.Record{Version: "v1", Data: largeData}
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
	v2 := clientcredentials.Record{Version: "v2", Data: append([]byte("2"), largeData...)}
	require.NoError(t, s.Publish(withDeadline(t), key, "a", v2, time.Hour))
	requireClaim(t, other, key, "v1", "b", hit(v2))
	bucket, err := s.open(t.Context())
	require.NoError(t, err)
	keys, err := bucket.Keys(withDeadline(t))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{key, key + ".v2"}, keys)

	// A publisher that has lost its lease leaves it alone, and leaves nothing behind.
	lead(t, s, key, "v2", "late")
	require.NoError(t, other.Invalidate(withDeadline(t), key, "v2"))
	lead(t, other, key, "v2", "c")
	v3 := clientcredentials.Record{Version: "v3", Data: append([]byte("3"), largeData...)}
	require.NoError(t, other.Publish(withDeadline(t), key, "c", v3, time.Hour))
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "late", clientcredentials.Record{Version: "v4", Data: largeData}, time.Hour), clientcredentials.ErrLeaseLost)
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
	v1 := clientcredentials.Record{Version: "v1", Data: []byte("1")}
	publish(t, s, testKey("k"), "", v1)
	lead(t, s, testKey("l"), "", "a")

	server.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	for _, err := range errorsOf(ctx, s) {
		require.Error(t, err)
		require.NotErrorIs(t, err, clientcredentials.ErrLeaseLost)
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
		s.Publish(ctx, testKey("k"), "a", clientcredentials.Record{Version: "v1"}, time.Hour),
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
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "a", clientcredentials.Record{Version: "v1"}, time.Hour), clientcredentials.ErrLeaseLost)
	lead(t, s, key, "", "b")

	// What an operator deletes in the bucket is gone.
	require.NoError(t, bucket.Delete(withDeadline(t), key))
	lead(t, s, key, "", "c")
	require.NoError(t, bucket.Purge(withDeadline(t), key))
	lead(t, s, key, "", "d")
}

// Servers read from the leader alone, if the stream is set so.
func TestDirectReadsSwitchedOff(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	v1 := clientcredentials.Record{Version: "v1", Data: []byte("1")}
	publish(t, s, testKey("k"), "", v1)
	stream, err := s.JetStream.Stream(withDeadline(t), "KV_"+testBucket)
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	config.AllowDirect = false
	_, err = s.JetStream.UpdateStream(withDeadline(t), config)
	require.NoError(t, err)

	_, err = s.Acquire(withDeadline(t), testKey("k"), "", "b", time.Hour)
	require.Error(t, err)
	requireClaim(t, s, testKey("k"), "", "b", hit(v1))
}

func TestForeignValue(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	bucket, err := s.open(t.Context())
	require.NoError(t, err)
	for _, value := range []string{"", "secret", `{"format":2}`, `{}`, `[]`, `{"format":1,"lease":"secret"}`} {
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
	for _, s := range []*Store{{}, {Bucket: testBucket}, {JetStream: connect(t, "nats://127.0.0.1:1")}} {
		for _, err := range errorsOf(t.Context(), s) {
			require.ErrorContains(t, err, "the Store needs a JetStream and the name of a Bucket")
		}
	}
}

// A fakeJetStream has a bucket that is changed.
type fakeJetStream struct {
	jetstream.JetStream
	bucket jetstream.KeyValue
}

func (f fakeJetStream) KeyValue(context.Context, string) (jetstream.KeyValue, error) {
	return f.bucket, nil
}

// A laggingBucket reads what was there when it was told to lag, as a server of a
// cluster that hasn't heard of the last writes.
type laggingBucket struct {
	jetstream.KeyValue
	lag   func() bool
	reads atomic.Int32
}

func (b *laggingBucket) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	b.reads.Add(1)
	if b.lag() {
		return nil, jetstream.ErrKeyNotFound
	}
	return b.KeyValue.Get(ctx, key)
}

func TestOutdatedReads(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	key := testKey("k")
	v1 := clientcredentials.Record{Version: "v1", Data: []byte("1")}
	bucket, err := s.open(t.Context())
	require.NoError(t, err)
	lagging := func(lag func(reads int32) bool) *Store {
		b := &laggingBucket{KeyValue: bucket}
		b.lag = func() bool { return lag(b.reads.Load()) }
		return &Store{JetStream: fakeJetStream{bucket: b}, Bucket: testBucket}
	}

	// The holder of a lease is never denied it.
	always := lagging(func(int32) bool { return true })
	lead(t, always, key, "", "a")
	require.NoError(t, always.Renew(withDeadline(t), key, "a", time.Hour))
	require.NoError(t, always.Publish(withDeadline(t), key, "a", v1, time.Hour))
	requireClaim(t, s, key, "", "b", hit(v1))
	aborting := lagging(func(reads int32) bool { return reads > 1 })
	lead(t, aborting, key, "v1", "a")
	require.NoError(t, aborting.Abort(withDeadline(t), key, "a", []byte("note"), time.Hour))
	requireClaim(t, s, key, "v1", "b", clientcredentials.Claim{State: clientcredentials.ClaimCooling, Note: []byte("note")})
	requireClaim(t, s, key, "", "b", hit(v1))

	// Nobody gets a lease for what isn't there anymore.
	requireClaim(t, lagging(func(reads int32) bool { return reads < 4 }), key, "", "b", hit(v1))
	_, err = always.Acquire(withDeadline(t), key, "", "a", time.Hour)
	require.ErrorIs(t, err, errBusy)

	// The data of a large record may be there later than what refers to it.
	publish(t, s, testKey("l"), "", clientcredentials.Record{Version: "v1", Data: largeData})
	requireClaim(t, lagging(func(reads int32) bool { return reads%2 == 0 && reads < 6 }), testKey("l"), "", "b", hit(clientcredentials.Record{Version: "v1", Data: largeData}))
}

// Leases of many credentials are forgotten when they are over.
func TestRememberedLeases(t *testing.T) {
	t.Parallel()
	s := new(Store)
	now := time.Now()
	s.clock.local = func() instant { return instant{} }
	s.clock.set(instant{}, now)
	for i := range 2 * maxLeases {
		s.remember(fmt.Sprint("over", i), entry{Lease: &lease{Owner: "a", End: now}})
	}
	require.LessOrEqual(t, len(s.leases), maxLeases)
	for i := range 2 * maxLeases {
		s.remember(fmt.Sprint("held", i), entry{Lease: &lease{Owner: "a", End: now.Add(time.Hour)}})
	}
	require.LessOrEqual(t, len(s.leases), maxLeases)
	e, ok := s.recall("held0", "b")
	require.False(t, ok, e)
	_, ok = s.recall("held0", "a")
	require.True(t, ok)
	_, ok = s.recall("held0", "a")
	require.False(t, ok)
}

// Both codes of a lost race, as the client wraps them.
func TestRaceLost(t *testing.T) {
	t.Parallel()
	for _, code := range []jetstream.ErrorCode{jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant} {
		require.True(t, isRaceLost(fmt.Errorf("nats: %w", &jetstream.APIError{ErrorCode: code})))
	}
	for _, err := range []error{nats.ErrTimeout, errors.New("x"), &jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamNotFound}} {
		require.False(t, isRaceLost(err))
	}
}

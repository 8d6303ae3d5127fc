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

// requireKeys checks which keys in the bucket have a value.
func requireKeys(tb testing.TB, s *Store, want ...string) {
	tb.Helper()
	keys, err := bucketOf(tb, s).Keys(withDeadline(tb))
	require.NoError(tb, err)
	require.ElementsMatch(tb, want, keys)
}

// setBack sets back the clock of s by d, as if the clock of the server had been behind.
func setBack(s *Store, d time.Duration) {
	r := *s.clock.reading.Load()
	r.server = r.server.Add(-d)
	s.clock.reading.Store(&r)
}

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

// A replica's own clock doesn't matter, and setting it changes nothing.
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
			acquire := func(s *Store, owner string, want tokenstore.ClaimState) {
				t.Helper()
				claim, err := s.Acquire(withDeadline(t), key, "", owner, time.Minute)
				require.NoError(t, err)
				require.Equal(t, want, claim.State)
				require.InDelta(t, time.Minute, claim.TTL, float64(patience))
			}
			acquire(writer, "writer", tokenstore.ClaimLead)
			acquire(reader, "reader", tokenstore.ClaimWait)
			require.NoError(t, writer.Publish(withDeadline(t), key, "writer", tokenstore.Record{Version: "v1"}, time.Minute))
			acquire(reader, "reader", tokenstore.ClaimHit)
		}
	}
}

// While the machine sleeps, its monotonic clock may stand still. The store then asks the
// server for the time.
func TestMachineSlept(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	publish(t, s, testKey("k"), "", tokenstore.Record{Version: "v1"})

	var slept time.Duration // by the wall clock, which has gone on
	machine := new(clock)
	s.clock.local = func() instant {
		now := machine.read()
		return instant{elapsed: now.elapsed, wall: now.wall.Add(slept)}
	}
	setBack(s, time.Hour) // The store would go on from this time if it didn't ask.
	before, err := s.now(t.Context())
	require.NoError(t, err)

	slept = time.Hour
	after, err := s.now(t.Context())
	require.NoError(t, err)
	require.InDelta(t, time.Hour, after.Sub(before), float64(patience))
}

// After a change of the leader the clock may be behind for a while. The time of an entry
// corrects it.
func TestLateClock(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	lead(t, s, testKey("k"), "", "a")
	setBack(s, time.Minute)
	requireClaim(t, s, testKey("k"), "", "b", wait("a"))
}

// The package documentation promises these numbers of round trips.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	_, s := startStore(t)
	ctx := withDeadline(t)
	k, l := testKey("k"), testKey("l")
	acquire := func(key, stale, owner string, want tokenstore.ClaimState) func() error {
		return func() error {
			claim, err := s.Acquire(ctx, key, stale, owner, time.Hour)
			if err == nil {
				require.Equal(t, want, claim.State)
			}
			return err
		}
	}
	publish := func(key, version string, data []byte) func() error {
		return func() error {
			return s.Publish(ctx, key, "a", tokenstore.Record{Version: version, Data: data}, time.Hour)
		}
	}
	invalidate := func(key, version string) func() error {
		return func() error { return s.Invalidate(ctx, key, version) }
	}
	// The local clock stands still, so that the store doesn't ask for the time again.
	s.clock.local = func() instant { return instant{} }

	for _, step := range []struct {
		what string
		call func() error
		want int
	}{
		{"lead: time, read, write", acquire(k, "", "a", tokenstore.ClaimLead), 3},
		{"wait", acquire(k, "", "b", tokenstore.ClaimWait), 1},
		{"renew", func() error { return s.Renew(ctx, k, "a", time.Hour) }, 2},
		{"publish", publish(k, "v1", nil), 2},
		{"hit", acquire(k, "", "b", tokenstore.ClaimHit), 1},
		{"lead", acquire(k, "v1", "a", tokenstore.ClaimLead), 2},
		{"abort", func() error { return s.Abort(ctx, k, "a", nil, time.Hour) }, 2},
		{"cooling", acquire(k, "v1", "b", tokenstore.ClaimCooling), 1},
		{"invalidate", invalidate(k, "v1"), 2},
		{"invalidate nothing", invalidate(k, "v1"), 1},

		{"lead", acquire(l, "", "a", tokenstore.ClaimLead), 2},
		{"publish large data: read, data, entry", publish(l, "v1", largeData), 3},
		{"hit of large data: entry, data", acquire(l, "", "b", tokenstore.ClaimHit), 2},
		{"lead", acquire(l, "v1", "a", tokenstore.ClaimLead), 2},
		{"replace large data: read, data, entry, removal of the old data", publish(l, "v2", largeData), 4},
		{"invalidate large data: read, entry, removal of the data", invalidate(l, "v2"), 3},
	} {
		before := s.JetStream.Conn().Stats().OutMsgs
		require.NoError(t, step.call(), step.what)
		require.Equal(t, step.want, int(s.JetStream.Conn().Stats().OutMsgs-before), step.what)
	}

	// In the end there is one value for each credential.
	requireKeys(t, s, k, l)
}

func TestLargeRecord(t *testing.T) {
	t.Parallel()
	server, s := startStore(t)
	key := testKey("k")
	large := func(version string) tokenstore.Record {
		return tokenstore.Record{Version: version, Data: append([]byte(version), largeData...)}
	}
	publish(t, s, key, "", large("v1"))
	other := newStore(t, server.url())
	requireClaim(t, other, key, "", "b", hit(large("v1")))

	// While a replica waits for the next token, it doesn't read this one again and again.
	lead(t, s, key, "v1", "a")
	before := other.JetStream.Conn().Stats().InBytes
	for range 10 {
		requireClaim(t, other, key, "v1", "b", wait("a"))
	}
	require.Less(t, other.JetStream.Conn().Stats().InBytes-before, uint64(10<<10))
	requireClaim(t, other, key, "", "b", hit(large("v1")))

	// The next record replaces it, and its data is removed from the bucket.
	require.NoError(t, s.Publish(withDeadline(t), key, "a", large("v2"), time.Hour))
	requireClaim(t, other, key, "v1", "b", hit(large("v2")))
	requireKeys(t, s, key, key+".v2")

	// A publisher that has lost its lease changes nothing, and leaves nothing behind.
	lead(t, s, key, "v2", "late")
	require.NoError(t, other.Invalidate(withDeadline(t), key, "v2"))
	publish(t, other, key, "v2", large("v3"))
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "late", large("v4"), time.Hour), tokenstore.ErrLeaseLost)
	requireClaim(t, other, key, "v2", "b", hit(large("v3")))
	requireKeys(t, s, key, key+".v3")

	// A record whose data is missing doesn't exist.
	require.NoError(t, bucketOf(t, s).Delete(withDeadline(t), key+".v3"))
	requireClaim(t, other, key, "", "d", leads)
}

func TestRestart(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	s := newStore(t, server.url())
	createBucket(t, s.JetStream, inFiles)
	publish(t, s, testKey("k"), "", v1)
	lead(t, s, testKey("l"), "", "a")

	server.stop()
	for _, err := range errorsOf(soon(t), s) {
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

// A service must be able to start while NATS is down.
func TestServerDownAtFirst(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	createBucket(t, connect(t, server.url()), inFiles)
	server.stop()

	s := newStore(t, server.url())
	_, err := s.Acquire(soon(t), testKey("k"), "", "a", time.Hour)
	require.Error(t, err)

	server.start()
	acquirable(t, s, testKey("k"), "a")
}

// A context that is done ends every call.
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
		require.ErrorContains(t, err, `oauth2: natsstore: the bucket "tokens" doesn't exist`)
	}

	bucket := createBucket(t, s.JetStream)
	require.ErrorIs(t, s.Publish(withDeadline(t), key, "a", tokenstore.Record{Version: "v1"}, time.Hour), tokenstore.ErrLeaseLost)
	lead(t, s, key, "", "b")

	// An operator can delete or purge an entry.
	require.NoError(t, bucket.Delete(withDeadline(t), key))
	lead(t, s, key, "", "c")
	require.NoError(t, bucket.Purge(withDeadline(t), key))
	lead(t, s, key, "", "d")
}

func TestJetStreamOff(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *server.Options) { o.JetStream = false })
	for _, err := range errorsOf(withDeadline(t), newStore(t, server.url())) {
		require.ErrorContains(t, err, `oauth2: natsstore: the bucket "tokens" doesn't exist`)
	}
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

func TestMisuse(t *testing.T) {
	t.Parallel()
	_, store := startStore(t)
	js := store.JetStream
	for _, s := range []*Store{{}, {Bucket: testBucket}, {JetStream: js}, {JetStream: js, Bucket: "tokens.>"}} {
		for _, err := range errorsOf(t.Context(), s) {
			require.ErrorIs(t, err, errNoBucket)
		}
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

// A racing JetStream calls before ahead of each write.
type racing struct {
	jetstream.JetStream
	before func()
}

func (r racing) PublishMsg(ctx context.Context, m *nats.Msg, options ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	r.before()
	return r.JetStream.PublishMsg(ctx, m, options...)
}

// Another replica, whose Store is other, writes to the entry just before s does.
func TestLostRaces(t *testing.T) {
	t.Parallel()
	_, other := startStore(t)
	// racer returns a Store that has race called before each write, with the number of
	// writes so far.
	racer := func(race func(writes int)) *Store {
		writes := 0
		return &Store{JetStream: racing{other.JetStream, func() { race(writes); writes++ }}, Bucket: testBucket}
	}
	once := func(race func()) *Store {
		return racer(func(writes int) {
			if writes == 0 {
				race()
			}
		})
	}
	abort := func(key, owner string) { require.NoError(t, other.Abort(withDeadline(t), key, owner, nil, 0)) }
	requireLost := func(s *Store, key string, data []byte) {
		t.Helper()
		err := s.Publish(withDeadline(t), key, "a", tokenstore.Record{Version: "v2", Data: data}, time.Hour)
		require.ErrorIs(t, err, tokenstore.ErrLeaseLost)
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
	requireLost(once(func() { require.NoError(t, other.Invalidate(withDeadline(t), key, "v1")) }), key, []byte("2"))
	requireClaim(t, other, key, "", "a", leads)

	// The data of a large record, which is written first, is removed again.
	key = testKey("f")
	lead(t, other, key, "", "a")
	requireLost(racer(func(writes int) {
		if writes == 1 {
			abort(key, "a")
		}
	}), key, largeData)
	data, err := other.get(withDeadline(t), dataKey(key, "v2"))
	require.NoError(t, err)
	require.NotZero(t, data.Sequence, "it was written")
	require.Empty(t, data.Data)

	// Invalidate also ends the lease that another replica has just got.
	key = testKey("d")
	publish(t, other, key, "", v1)
	s = once(func() { lead(t, other, key, "v1", "a") })
	require.NoError(t, s.Invalidate(withDeadline(t), key, "v1"))
	requireClaim(t, other, key, "", "b", leads)

	// A change that always comes too late is given up.
	key = testKey("e")
	s = racer(func(int) {
		lead(t, other, key, "", "b")
		abort(key, "b")
	})
	_, err = s.Acquire(withDeadline(t), key, "", "a", time.Hour)
	require.ErrorIs(t, err, errBusy)
}

// The data of a large record may be removed between the two reads, because there is a new
// record. Acquire then returns that one.
func TestDataReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	_, other := startStore(t)
	key := testKey("k")
	v2 := tokenstore.Record{Version: "v2", Data: largeData}
	publish(t, other, key, "", tokenstore.Record{Version: "v1", Data: largeData})
	require.NoError(t, bucketOf(t, other).Purge(t.Context(), key+".v1"))
	s := &Store{JetStream: readMeanwhile{other.JetStream, new(atomic.Int32), func() { publish(t, other, key, "v1", v2) }}, Bucket: testBucket}
	requireClaim(t, s, key, "", "b", hit(v2))
}

// readMeanwhile calls third before the third read. get calls Conn once for each read.
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

// A timeless JetStream doesn't report the server's time, like NATS before 2.10.
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

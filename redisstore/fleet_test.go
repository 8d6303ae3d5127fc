package redisstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// These tests are of replicas that share tokens through a real Redis while something
// goes wrong. The replicas are processes where one of them is to be killed or frozen;
// otherwise they are in this process, and each has connections of its own.

const (
	clientID     = "fleet-client"
	clientSecret = "fleet-secret"

	// leaderLease is for how long a leader that has died is waited for.
	leaderLease = 5 * time.Second
)

// A fleet is an authorization server, and what its replicas have in common.
type fleet struct {
	*authority
	spec spec
}

func newFleet(t *testing.T, addrs ...string) *fleet {
	t.Helper()
	a := startAuthority(t, clientcredentialstest.Client{ID: clientID, Secret: clientSecret})
	return &fleet{a, spec{
		Redis:    redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true},
		Addrs:    addrs,
		Keys:     [][]byte{newSealingKey()},
		TokenURL: a.url,
		ID:       clientID,
		Secret:   clientSecret,
		// Only what a test does is to end an attempt.
		Retry: clientcredentials.RetryPolicy{AttemptTimeout: 2 * patience, TotalTimeout: 4 * patience},
	}}
}

func newSealingKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return key
}

// replica returns a new one, that is connected to Redis if there is one.
func (f *fleet) replica(t *testing.T, changes ...func(*spec)) *replica {
	t.Helper()
	s := f.spec
	for _, change := range changes {
		change(&s)
	}
	r, err := newReplica(s)
	require.NoError(t, err)
	t.Cleanup(r.close)
	_ = r.client.Ping(t.Context())
	return r
}

func (f *fleet) replicas(t *testing.T, n int, changes ...func(*spec)) []*replica {
	t.Helper()
	var replicas []*replica
	for range n {
		replicas = append(replicas, f.replica(t, changes...))
	}
	return replicas
}

// undisturbed runs a scenario in which every call of the store has to be in time. When
// one is not, for this machine was busy with something else, it tries again, with
// everything new. Each attempt is a subtest, so that nothing is left of it.
func undisturbed(t *testing.T, scenario func(t *testing.T) (seen []observed, check func())) {
	t.Helper()
	for range 50 {
		done := false
		passed := t.Run("attempt", func(t *testing.T) {
			defer func() {
				switch v := recover(); v {
				case nil:
				case disturbance{}:
					t.Log("a call of the store was slow")
				default:
					panic(v)
				}
			}()
			seen, check := scenario(t)
			if slices.ContainsFunc(seen, observed.slow) {
				panic(disturbance{})
			}
			done = true
			check()
		})
		if done || !passed {
			return
		}
	}
	require.FailNow(t, "the store is always slow")
}

// A disturbance is what a scenario panics with when there is no point in going on.
type disturbance struct{}

// calm ends a scenario in which a call of one of the replicas was slow.
func calm(replicas ...*replica) {
	if slices.ContainsFunc(observedBy(replicas...), observed.slow) {
		panic(disturbance{})
	}
}

// await waits until ok is true, in a scenario.
func await(t *testing.T, ok func() bool, what string, replicas ...*replica) {
	t.Helper()
	eventually(t, func() bool { return ok() || slices.ContainsFunc(observedBy(replicas...), observed.slow) }, what)
	calm(replicas...)
}

// observedBy returns what replicas have observed.
func observedBy(replicas ...*replica) []observed {
	var seen []observed
	for _, r := range replicas {
		seen = append(seen, r.observed())
	}
	return seen
}

// getting has a caller of r ask for a token, and returns where its result comes from.
func getting(ctx context.Context, r *replica) <-chan result {
	c := make(chan result, 1)
	go func() { c <- r.get(ctx) }()
	return c
}

func receive(t *testing.T, c <-chan result) result {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(2 * patience):
		require.FailNow(t, "a caller waits for ever")
		return result{}
	}
}

// waiting waits until r has been told that another replica leads.
func waiting(t *testing.T, replicas ...*replica) {
	t.Helper()
	for _, r := range replicas {
		await(t, func() bool { return r.observed().claims(tokenstore.ClaimWait) > 0 }, "a replica waits", replicas...)
	}
}

// aborted waits until r has told the store that it has failed.
func aborted(t *testing.T, r *replica) {
	t.Helper()
	await(t, func() bool { return r.observed().succeeded("abort") > 0 }, "a replica has ended its lease", r)
}

// onlyKey returns the one key in Redis.
func onlyKey(t *testing.T, admin redis.UniversalClient) string {
	t.Helper()
	keys, err := admin.Keys(t.Context(), "clientcredentials:*").Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	return keys[0]
}

// version returns that of the record under the one key in Redis; empty: there is none.
func version(t *testing.T, admin redis.UniversalClient) string {
	t.Helper()
	version, err := admin.HGet(t.Context(), onlyKey(t, admin), "version").Result()
	if !errors.Is(err, redis.Nil) {
		require.NoError(t, err)
	}
	return version
}

// startWorkers starts processes that are ready to be replicas.
func startWorkers(t *testing.T, n int) []*worker {
	t.Helper()
	var workers []*worker
	for range n {
		workers = append(workers, startWorker(t))
	}
	return workers
}

// startAll makes workers replicas of f.
func (f *fleet) startAll(t *testing.T, workers ...*worker) {
	t.Helper()
	var replies []<-chan reply
	for _, w := range workers {
		replies = append(replies, w.send(t, command{Start: &f.spec}))
	}
	for i, w := range workers {
		w.receive(t, replies[i])
	}
}

// A cold start of all replicas takes one token request.
func TestS01_ColdStart(t *testing.T) {
	t.Parallel()
	t.Run("20 processes", func(t *testing.T) {
		t.Parallel()
		redis := startRedis(t)
		workers := startWorkers(t, 20)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, redis.addr)
			f.startAll(t, workers...)
			f.hold(1)
			var replies []<-chan reply
			for _, w := range workers {
				replies = append(replies, w.get(t, 10))
			}
			f.next(t).release()
			var results []result
			var seen []observed
			for i, w := range workers {
				r := w.receive(t, replies[i])
				results, seen = append(results, r.Results...), append(seen, r.Seen)
			}
			return seen, func() {
				require.Len(t, results, 200)
				requireOneToken(t, results...)
				f.requireRequests(t, 1)
			}
		})
		for _, w := range workers {
			w.quit(t)
		}
	})
	t.Run("200 goroutines", func(t *testing.T) {
		t.Parallel()
		redis := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, redis.addr)
			replicas := f.replicas(t, 1)
			for range 199 {
				replicas = append(replicas, replicas[0].sibling())
			}
			results := getAll(t.Context(), 1, replicas...)
			return observedBy(replicas...), func() {
				requireOneToken(t, results...)
				f.requireRequests(t, 1)
			}
		})
	})
}

// A program in FIPS 140-only mode, where SHA-1 panics, takes part.
func TestFIPS(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	w := startWorker(t, "GODEBUG=fips140=only")
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		f := newFleet(t, server.addr)
		f.startAll(t, w)
		r := w.receive(t, w.get(t, 1))
		return []observed{r.Seen}, func() {
			requireOneToken(t, r.Results...)
			eventually(t, func() bool { return w.observed(t).succeeded("publish") == 1 }, "the token is shared")
		}
	})
	w.quit(t)
}

// A leader that is killed is replaced when its lease has run out, once.
func TestS02_LeaderKilled(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		f := newFleet(t, server.addr)
		leader := startWorker(t)
		f.startAll(t, leader)
		followers := f.replicas(t, 5)
		f.hold(1)
		leader.get(t, 10)
		answer := f.next(t)
		var results []<-chan result
		for _, r := range followers {
			results = append(results, getting(t.Context(), r))
		}
		waiting(t, followers...)
		leader.kill()
		<-answer.left
		var got []result
		for _, result := range results {
			got = append(got, receive(t, result))
		}
		seen := observedBy(followers...)
		return seen, func() {
			requireOneToken(t, got...)
			f.requireRequests(t, 2)
			leads := 0
			for i, o := range seen {
				leads += min(o.claims(tokenstore.ClaimLead), 1)
				// The lease, the longest pause between two questions, and as much
				// again for a machine that is busy.
				require.Less(t, got[i].Waited, 2*(leaderLease+1250*time.Millisecond))
			}
			require.Equal(t, 1, leads)
		}
	})
}

// A leader that was frozen for longer than its lease doesn't overwrite the token that
// was published meanwhile, and uses it itself.
func TestS03_LeaderFrozen(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	admin := server.client(t)
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		require.NoError(t, admin.FlushAll(t.Context()).Err())
		f := newFleet(t, server.addr)
		leader := startWorker(t)
		f.startAll(t, leader)
		follower := f.replica(t)
		f.hold(1)
		reply := leader.get(t, 10)
		answer := f.next(t)
		leader.freeze(t)
		newer := follower.get(t.Context())
		calm(follower)
		before := version(t, admin)
		answer.release()
		leader.thaw(t)
		older := leader.receive(t, reply)
		leaderSeen := leader.observed(t)
		after := version(t, admin)
		leader.quit(t)
		return []observed{leaderSeen, follower.observed()}, func() {
			require.Equal(t, 1, leaderSeen.lost())
			require.Equal(t, before, after)
			require.Equal(t, requireOneToken(t, newer), requireOneToken(t, older.Results...))
			f.requireRequests(t, 2)
		}
	})
}

// When Redis goes away while replicas wait for a leader, they go on without it.
func TestS04_RedisGoesAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		goAway   func(t *testing.T, server *server, admin *redis.Client)
		requests int // 0: one for each replica
	}{
		{"killed", func(t *testing.T, server *server, _ *redis.Client) { server.kill() }, 0},
		{"connections reset", func(t *testing.T, _ *server, admin *redis.Client) {
			require.NoError(t, admin.ClientKillByFilter(t.Context(), "type", "normal", "skipme", "yes").Err())
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			undisturbed(t, func(t *testing.T) ([]observed, func()) {
				server := startRedis(t)
				f := newFleet(t, server.addr)
				replicas := f.replicas(t, 10)
				f.hold(1)
				results := []<-chan result{getting(t.Context(), replicas[0])}
				answer := f.next(t)
				for _, r := range replicas[1:] {
					results = append(results, getting(t.Context(), r))
				}
				waiting(t, replicas[1:]...)
				c.goAway(t, server, server.client(t))
				if c.requests == 0 {
					for _, result := range results[1:] {
						requireTokens(t, receive(t, result))
					}
				} else {
					for _, r := range replicas[1:] { // They ask again.
						asked := r.observed().claims(tokenstore.ClaimWait)
						await(t, func() bool { return r.observed().claims(tokenstore.ClaimWait) > asked }, "a replica still waits", replicas...)
					}
				}
				answer.release()
				got := []result{receive(t, results[0])}
				if c.requests == 0 {
					return nil, func() {
						requireTokens(t, got...)
						f.requireRequests(t, len(replicas))
					}
				}
				for _, result := range results[1:] {
					got = append(got, receive(t, result))
				}
				return observedBy(replicas...), func() {
					requireOneToken(t, got...)
					f.requireRequests(t, c.requests)
				}
			})
		})
	}
}

// A frozen Redis is given up after the budget, also by a client that is deaf to its
// context, and calls don't pile up.
func TestS05_RedisFrozen(t *testing.T) {
	t.Parallel()
	const callers = 300
	for _, c := range []struct {
		name   string
		change func(*spec)
	}{
		{"client obeys its context", func(*spec) {}},
		{"client is deaf", func(s *spec) {
			s.Redis.ContextTimeoutEnabled = false
			s.Redis.ReadTimeout = 10 * patience
			// To get a connection isn't what it is deaf in: each call has one.
			s.Redis.PoolSize, s.Redis.MinIdleConns = callers, callers
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t)
			f := newFleet(t, server.addr)
			first := f.replica(t, c.change)
			replicas := []*replica{first}
			for range callers - 1 {
				replicas = append(replicas, first.sibling())
			}
			eventually(t, func() bool { return int(first.client.PoolStats().IdleConns) >= first.spec.Redis.MinIdleConns }, "the connections are there")
			server.freeze(t)
			results := getAll(t.Context(), 1, replicas...)
			stats := first.client.PoolStats()
			server.thaw(t) // What was started ends.

			requireTokens(t, results...)
			f.requireRequests(t, len(replicas))
			for _, result := range results {
				require.Less(t, result.Waited, patience)
			}
			require.LessOrEqual(t, int(stats.TotalConns-stats.IdleConns), 100, "calls that are under way")
			for _, o := range observedBy(replicas...) {
				require.LessOrEqual(t, len(o.Operations), 1) // And then they leave it alone.
			}
		})
	}
}

// Replicas that start without Redis share tokens as soon as it is there.
func TestS06_RedisComesLater(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	server.kill()
	f := newFleet(t, server.addr)
	first, second := f.replica(t), f.replica(t)
	require.Len(t, requireTokens(t, getAll(t.Context(), 10, first, second)...), 2)
	f.requireRequests(t, 2)

	server.restart(t)
	requireShared(t, first, second)
}

// A Redis that is just slower than the budget costs something a few times, and then
// hardly anything.
func TestS07_RedisSlow(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	f := newFleet(t, startSlowProxy(t, server.addr, 400*time.Millisecond))
	first := f.replica(t, func(s *spec) { s.Redis.ContextTimeoutEnabled = false })
	var replicas []*replica
	start := time.Now()
	for range 100 {
		r := first.sibling()
		requireTokens(t, r.get(t.Context()))
		replicas = append(replicas, r)
	}
	elapsed := time.Since(start)
	f.requireRequests(t, len(replicas))
	calls := 0
	for _, o := range observedBy(replicas...) {
		calls += len(o.Operations)
	}
	// Three failures, and what begins while the third is being noted; then one call for
	// each pause, which is no shorter than 0.75 s.
	require.LessOrEqual(t, calls, 4+int(elapsed/(750*time.Millisecond)))
	require.GreaterOrEqual(t, calls, 3)
}

// startSlowProxy returns the address of a proxy that holds up what the server says.
func startSlowProxy(t *testing.T, addr string, delay time.Duration) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // It ends after the test's.
	var connections sync.WaitGroup
	serve := func(client net.Conn) {
		defer client.Close()
		server, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer server.Close()
		defer context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })()
		connections.Go(func() {
			_, _ = io.Copy(server, client)
			_ = server.Close()
		})
		for buffer := make([]byte, 64<<10); ; {
			n, err := server.Read(buffer)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			if _, failed := client.Write(buffer[:n]); err != nil || failed != nil {
				return
			}
		}
	}
	connections.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { serve(client) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		connections.Wait()
	})
	return listener.Addr().String()
}

// Whatever Redis refuses or loses, nobody is without a token, and sharing goes on when
// it can.
func TestS08_RedisRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		breaks, fix func(t *testing.T, admin *redis.Client)
	}{
		{"OOM", setting("maxmemory", "1"), setting("maxmemory", "0")},
		{"READONLY", doing("replicaof", "127.0.0.1", 1), doing("replicaof", "no", "one")},
		{"NOREPLICAS", setting("min-replicas-to-write", "1"), setting("min-replicas-to-write", "0")},
		{"NOPERM", doing("acl", "setuser", "default", "-evalsha"), doing("acl", "setuser", "default", "+evalsha")},
		{"no connections", func(t *testing.T, admin *redis.Client) {
			setting("maxclients", "1")(t, admin)
			require.NoError(t, admin.ClientKillByFilter(t.Context(), "type", "normal", "skipme", "yes").Err())
		}, setting("maxclients", "1000")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t)
			admin := server.client(t)
			f := newFleet(t, server.addr)
			replicas := f.replicas(t, 5)
			c.breaks(t, admin)
			require.Len(t, requireTokens(t, getAll(t.Context(), 10, replicas...)...), 5)
			f.requireRequests(t, 5)
			c.fix(t, admin)
			requireShared(t, replicas...)
		})
	}
	t.Run("FLUSHALL", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		admin := server.client(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			replicas := f.replicas(t, 4)
			f.hold(1)
			result := getting(t.Context(), replicas[0])
			answer := f.next(t)
			require.NoError(t, admin.FlushAll(t.Context()).Err()) // The lease is gone.
			answer.release()
			first := receive(t, result)
			second := replicas[1].get(t.Context())
			require.NoError(t, admin.FlushAll(t.Context()).Err())
			third, fourth := replicas[2].get(t.Context()), replicas[3].get(t.Context())
			again := replicas[0].get(t.Context()) // What it has is still good.
			return observedBy(replicas...), func() {
				requireOneToken(t, first, second, again)
				requireOneToken(t, third, fourth)
				f.requireRequests(t, 3) // The leader can't know why it has lost the lease.
			}
		})
	})
	t.Run("eviction", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t, "maxmemory-policy allkeys-random")
		admin := server.client(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			setting("maxmemory", "0")(t, admin)
			require.NoError(t, admin.FlushAll(t.Context()).Err())
			f := newFleet(t, server.addr)
			replicas := f.replicas(t, 3)
			first := replicas[0].get(t.Context())
			calm(replicas[0])
			key := onlyKey(t, admin)
			setting("maxmemory", "4mb")(t, admin)
			for i := 0; admin.Exists(t.Context(), key).Val() == 1; i++ {
				require.Less(t, i, 1_000_000)
				require.NoError(t, admin.Set(t.Context(), fmt.Sprint("junk", i), make([]byte, 10_000), 0).Err())
			}
			setting("maxmemory", "0")(t, admin)
			second, third := replicas[1].get(t.Context()), replicas[2].get(t.Context())
			return observedBy(replicas...), func() {
				require.NotEqual(t, requireOneToken(t, first), requireOneToken(t, second, third))
				f.requireRequests(t, 2)
			}
		})
	})
	t.Run("NOSCRIPT after a restart", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			replicas := f.replicas(t, 3)
			first := replicas[0].get(t.Context())
			server.kill()
			server.restart(t)
			for _, r := range replicas {
				eventually(t, func() bool { return r.client.Ping(t.Context()).Err() == nil }, "a replica is connected")
			}
			second, third := replicas[1].get(t.Context()), replicas[2].get(t.Context())
			return observedBy(replicas...), func() {
				require.NotEqual(t, requireOneToken(t, first), requireOneToken(t, second, third))
				f.requireRequests(t, 2)
			}
		})
	})
	t.Run("a failover that loses the last write", func(t *testing.T) {
		t.Parallel()
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			p := startWatchedPair(t, "user replica on >replica ~* &* +@all", "masteruser replica", "masterauth replica")
			admin := p.master.client(t)
			f := newFleet(t, p.sentinel.addr)
			f.spec.Redis.MasterName = masterName
			replicas := f.replicas(t, 3)
			require.NoError(t, admin.Do(t.Context(), "acl", "deluser", "replica").Err()) // Nothing is replicated from now on.
			first := replicas[0].get(t.Context())
			p.master.kill()
			var second, third result
			eventually(t, func() bool {
				return replicas[1].client.Set(t.Context(), "x", "x", 0).Err() == nil && replicas[2].client.Set(t.Context(), "x", "x", 0).Err() == nil
			}, "the replica has become the master")
			second, third = replicas[1].get(t.Context()), replicas[2].get(t.Context())
			return observedBy(replicas...), func() {
				require.NotEqual(t, requireOneToken(t, first), requireOneToken(t, second, third))
				f.requireRequests(t, 2)
			}
		})
	})
	t.Run("MOVED", func(t *testing.T) {
		t.Parallel()
		c := startCluster(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			require.NoError(t, c.client(t).ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
				return node.FlushAll(ctx).Err()
			}))
			f := newFleet(t, c.addrs()...)
			replicas := f.replicas(t, 5)
			f.hold(1)
			results := []<-chan result{getting(t.Context(), replicas[0])}
			answer := f.next(t)
			for _, r := range replicas[1:] {
				results = append(results, getting(t.Context(), r))
			}
			waiting(t, replicas[1:]...)
			c.move(t, c.onlyKey(t), func() {})
			answer.release()
			var got []result
			for _, result := range results {
				got = append(got, receive(t, result))
			}
			seen := observedBy(replicas...)
			return seen, func() {
				requireOneToken(t, got...)
				f.requireRequests(t, 1)
			}
		})
	})
}

// setting returns a function that changes the configuration of a Redis.
func setting(parameter, value string) func(*testing.T, *redis.Client) {
	return func(t *testing.T, admin *redis.Client) {
		t.Helper()
		require.NoError(t, admin.ConfigSet(t.Context(), parameter, value).Err())
	}
}

// doing returns a function that runs a command.
func doing(command ...any) func(*testing.T, *redis.Client) {
	return func(t *testing.T, admin *redis.Client) {
		t.Helper()
		require.NoError(t, admin.Do(t.Context(), command...).Err())
	}
}

// requireShared waits until siblings of the replicas, which have no token yet, share
// one.
func requireShared(t *testing.T, replicas ...*replica) {
	t.Helper()
	eventually(t, func() bool {
		var siblings []*replica
		for _, r := range replicas {
			siblings = append(siblings, r.sibling())
		}
		return len(requireTokens(t, getAll(t.Context(), 1, siblings...)...)) == 1
	}, "replicas share a token again")
}

// However many replicas report a token, one new one is requested, and a report that
// comes late leaves that alone.
func TestS09_Invalidate(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	admin := server.client(t)
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		require.NoError(t, admin.FlushAll(t.Context()).Err())
		f := newFleet(t, server.addr)
		replicas := f.replicas(t, 10)
		for i := range 191 {
			replicas = append(replicas, replicas[i%10].sibling())
		}
		first := getAll(t.Context(), 1, replicas...)
		late, others := replicas[200], replicas[:200]
		refused, err := late.source.Token()
		require.NoError(t, err)

		var reports sync.WaitGroup
		for _, r := range others {
			reports.Go(func() { r.source.Invalidate(refused) })
		}
		reports.Wait()
		second := getAll(t.Context(), 1, others...)
		calm(replicas...)
		before := version(t, admin)
		late.source.Invalidate(refused)
		third := late.get(t.Context())
		after := version(t, admin)
		return observedBy(replicas...), func() {
			require.Equal(t, refused.AccessToken, requireOneToken(t, first...))
			require.NotEqual(t, refused.AccessToken, requireOneToken(t, append(second, third)...))
			require.Equal(t, before, after)
			f.requireRequests(t, 2)
		}
	})
}

// What a leader has requested before an invalidation isn't published after it: it may
// be as invalid. The leader acquires the lease once more.
func TestS10_InvalidateDuringFlight(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	admin := server.client(t)
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		require.NoError(t, admin.FlushAll(t.Context()).Err())
		f := newFleet(t, server.addr)
		f.TokenLifetime = 20 * time.Second
		leader := f.replica(t, func(s *spec) { s.Early = time.Hour }) // After half of its life.
		other := f.replica(t)
		first := []result{leader.get(t.Context()), other.get(t.Context())}
		f.hold(1)
		await(t, func() bool { // It refreshes in the background.
			requireTokens(t, leader.get(t.Context()))
			return len(f.requests()) == 2
		}, "the token is replaced early", leader, other)
		answer := f.next(t)
		refused, err := other.source.Token()
		require.NoError(t, err)
		other.source.Invalidate(refused)
		await(t, func() bool { return other.observed().succeeded("invalidate") == 1 }, "the record is removed", leader, other)
		answer.release()
		await(t, func() bool { return leader.observed().succeeded("publish") == 2 }, "the leader has published", leader, other)
		await(t, func() bool { return leader.get(t.Context()).Token != refused.AccessToken }, "the leader has the new token", leader, other)
		second := getAll(t.Context(), 1, leader, other)
		leaderSeen := leader.observed()
		return observedBy(leader, other), func() {
			require.Equal(t, refused.AccessToken, requireOneToken(t, first...))
			requireOneToken(t, second...)
			require.Equal(t, 1, leaderSeen.lost())
			f.requireRequests(t, 3)
		}
	})
}

// A token that was invalidated while Redis was down, and is back with it, isn't used
// again by who knows, and replaced for all.
func TestS11_InvalidateWhileDown(t *testing.T) {
	t.Parallel()
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		server := startRedis(t)
		admin := server.client(t)
		f := newFleet(t, server.addr)
		knows, other := f.replica(t), f.replica(t)
		first := knows.get(t.Context())
		calm(knows)
		require.NoError(t, admin.Save(t.Context()).Err())
		server.kill()
		refused, err := knows.source.Token()
		require.NoError(t, err)
		knows.source.Invalidate(refused)
		eventually(t, func() bool {
			return knows.observed().count(func(op operation) bool { return op.Name == "invalidate" && op.Err != "" }) == 1
		}, "the invalidation has failed")
		server.restart(t)
		eventually(t, func() bool { return knows.client.Ping(t.Context()).Err() == nil }, "the replica is connected")
		require.NotEmpty(t, version(t, admin)) // It is back.
		second := knows.get(t.Context())
		third := other.get(t.Context())
		return observedBy(other), func() { // What knows has seen includes a failure.
			require.Equal(t, refused.AccessToken, requireOneToken(t, first))
			require.NotEqual(t, refused.AccessToken, requireOneToken(t, second, third))
			f.requireRequests(t, 2)
		}
	})
}

// A server that asks to be left alone is: by all.
func TestS12_Cooldown(t *testing.T) {
	t.Parallel()
	const pause = 2 * time.Second
	for _, fault := range []clientcredentialstest.Fault{
		clientcredentialstest.TooManyRequests(pause),
		{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"2"}}},
	} {
		t.Run(http.StatusText(fault.Status), func(t *testing.T) {
			t.Parallel()
			server := startRedis(t)
			undisturbed(t, func(t *testing.T) ([]observed, func()) {
				f := newFleet(t, server.addr)
				f.spec.Retry.MaxAttempts = 1
				f.SetFault(&fault)
				f.Latency = 300 * time.Millisecond // Time to see who leads.
				replicas := f.replicas(t, 20)
				for f.TokenRequests() < 4 {
					for _, result := range getAll(t.Context(), 1, replicas...) {
						require.Contains(t, result.Err, "temporarily_unavailable")
					}
				}
				f.SetFault(nil)
				var got []result
				failed := func(r result) bool { return r.Err != "" }
				for got = getAll(t.Context(), 1, replicas...); slices.ContainsFunc(got, failed); {
					got = getAll(t.Context(), 1, replicas...)
				}
				return observedBy(replicas...), func() {
					arrivals := f.requests()
					for i := range arrivals[1:] {
						require.Greater(t, arrivals[i+1].Sub(arrivals[i]), pause-50*time.Millisecond)
					}
					requireOneToken(t, got...)
				}
			})
		})
	}
	t.Run("with a valid token", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			f.TokenLifetime = 12 * time.Second
			f.spec.Early = time.Hour // After half of its life.
			replicas := f.replicas(t, 10)
			first := getAll(t.Context(), 1, replicas...)
			expiry := time.Now().Add(first[0].Left)
			fault := clientcredentialstest.TooManyRequests(pause)
			f.SetFault(&fault)
			var got []result
			for time.Until(expiry) > 2*time.Second {
				got = append(got, getAll(t.Context(), 1, replicas...)...)
				<-time.After(50 * time.Millisecond)
			}
			return observedBy(replicas...), func() {
				token := requireOneToken(t, first...)
				for _, result := range got {
					if result.Left > 0 {
						require.Equal(t, token, requireOneToken(t, result))
					}
				}
				arrivals := f.requests()
				require.Greater(t, len(arrivals), 1) // It was tried.
				for i := range arrivals[2:] {
					require.Greater(t, arrivals[i+2].Sub(arrivals[i+1]), pause-50*time.Millisecond)
				}
			}
		})
	})
}

// The others wait for a leader whose server is slow, and not for one that hangs.
func TestS13_SlowServer(t *testing.T) {
	t.Parallel()
	t.Run("slower than the lease", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			replicas := f.replicas(t, 5)
			f.hold(1)
			results := []<-chan result{getting(t.Context(), replicas[0])}
			answer := f.next(t)
			for _, r := range replicas[1:] {
				results = append(results, getting(t.Context(), r))
			}
			// The first lease is over.
			await(t, func() bool { return replicas[0].observed().succeeded("renew") >= 4 }, "the lease is renewed", replicas...)
			answer.release()
			var got []result
			for _, result := range results {
				got = append(got, receive(t, result))
			}
			return observedBy(replicas...), func() {
				requireOneToken(t, got...)
				f.requireRequests(t, 1)
			}
		})
	})
	t.Run("hanging", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		f := newFleet(t, server.addr)
		f.spec.Retry = clientcredentials.RetryPolicy{MaxAttempts: 1, AttemptTimeout: time.Second, TotalTimeout: 10 * time.Second}
		replicas := f.replicas(t, 5)
		f.hold(1000)
		for _, result := range getAll(t.Context(), 10, replicas...) {
			require.NotEmpty(t, result.Err)
			require.Less(t, result.Waited, patience)
		}
		require.LessOrEqual(t, len(f.requests()), len(replicas)) // Each one's single attempt.
		f.hold(0)
		requireShared(t, replicas...)
	})
	t.Run("the leading caller leaves", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			leader, follower := f.replica(t), f.replica(t)
			f.hold(1)
			ctx, leave := context.WithCancel(t.Context())
			left := getting(ctx, leader)
			answer := f.next(t)
			result := getting(t.Context(), follower)
			waiting(t, follower)
			leave()
			gone := receive(t, left)
			answer.release()
			got := receive(t, result)
			return observedBy(leader, follower), func() {
				require.Contains(t, gone.Err, context.Canceled.Error())
				requireOneToken(t, got, leader.get(t.Context()))
				f.requireRequests(t, 1)
			}
		})
	})
}

// A token is replaced before it expires: with one request for all, while nobody waits,
// and not by all at the same moment.
func TestS14_EarlyRefresh(t *testing.T) {
	t.Parallel()
	const life, early = 10 * time.Second, 4 * time.Second
	server := startRedis(t)
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		f := newFleet(t, server.addr)
		f.TokenLifetime = life
		f.spec.Early = early
		served := make(chan event.TokenFrom, 100_000)
		f.spec.configure = func(conf *clientcredentials.Config) {
			conf.Observer = clientcredentials.JoinObservers(conf.Observer, &clientcredentials.Observer{
				TokenServed: func(info event.TokenServed) { served <- info.From },
			})
		}
		replicas := f.replicas(t, 20)
		first := getAll(t.Context(), 1, replicas...)
		for range first {
			<-served // They waited.
		}
		var begins []time.Duration // of the refresh, before the expiry
		for _, r := range replicas {
			status := r.source.Status()
			begins = append(begins, status.Expiry.Sub(status.NextRefresh))
		}
		var got []result
		tokens := make(map[string]bool)
		for len(tokens) < 3 {
			for _, result := range getAll(t.Context(), 1, replicas...) {
				got = append(got, result)
				tokens[result.Token] = true
			}
			<-time.After(20 * time.Millisecond)
		}
		close(served)
		return observedBy(replicas...), func() {
			requireOneToken(t, first...)
			requireTokens(t, got...)
			for from := range served {
				require.Equal(t, event.FromMemory, from)
			}
			f.requireRequests(t, len(tokens))
			for i, arrivals := 1, f.requests(); i < len(arrivals); i++ {
				require.Greater(t, arrivals[i].Sub(arrivals[i-1]), life-early-time.Second)
			}
			// Between three quarters of early and the whole, and nearly all of that.
			require.GreaterOrEqual(t, slices.Min(begins), early*3/4)
			require.LessOrEqual(t, slices.Max(begins), early)
			require.Greater(t, slices.Max(begins)-slices.Min(begins), early/4/4)
		}
	})
}

// Each kind of expiry is shared as it is, by replicas whose clocks tell anything.
func TestS15_Expiry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		expiresIn string // as it is in JSON; empty: missing
		shared    bool
		left      time.Duration // at most; 0: for ever
	}{
		{"missing", "", true, 0},
		{"zero", "0", true, 0},
		{"null", "null", true, 0},
		{"negative", "-1", false, 0},
		{"tiny", "1", false, time.Second}, // Shared or not: it is hardly worth it.
		{"an hour", "3600", true, time.Hour},
		{"huge", "99999999999", true, 1<<63 - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t)
			admin := server.client(t)
			undisturbed(t, func(t *testing.T) ([]observed, func()) {
				require.NoError(t, admin.FlushAll(t.Context()).Err())
				f := newFleet(t, server.addr)
				for i := range 2 {
					body := fmt.Sprintf(`{"access_token":"token%d","token_type":"Bearer"`, i)
					if c.expiresIn != "" {
						body += `,"expires_in":` + c.expiresIn
					}
					f.Script(clientcredentialstest.Fault{Body: body + "}"})
				}
				replicas := f.replicas(t, 2)
				first := replicas[0].get(t.Context())
				second := replicas[1].get(t.Context())
				calm(replicas...)
				ttl := time.Duration(-1)
				if c.shared {
					var err error
					ttl, err = admin.PTTL(t.Context(), onlyKey(t, admin)).Result()
					require.NoError(t, err)
				}
				return observedBy(replicas...), func() {
					requireTokens(t, first, second)
					if !c.shared {
						return
					}
					requireOneToken(t, first, second)
					require.LessOrEqual(t, ttl, 24*time.Hour) // For who may never come back.
					require.Positive(t, ttl)
					for _, result := range []result{first, second} {
						require.LessOrEqual(t, result.Left, c.left)
						require.Equal(t, c.left == 0, result.Left == 0)
					}
					// Who gets it later gets no more of its life.
					require.LessOrEqual(t, second.Left, first.Left)
				}
			})
		})
	}

	// Only Redis' clock counts. In a bubble of synctest it is the year 2000.
	t.Run("clocks", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			f.TokenLifetime = 10 * time.Minute
			first := f.replica(t)
			requireTokens(t, first.get(t.Context()))
			var seen observed
			var second, third result
			synctest.Test(t, func(t *testing.T) {
				wrong, err := newReplica(f.spec)
				require.NoError(t, err)
				second = wrong.get(t.Context())
				time.Sleep(5 * time.Minute) // Of its clock, and no other.
				sibling := wrong.sibling()
				third = sibling.get(t.Context())
				seen = wrong.observed()
				sibling.stop()
				wrong.close()
			})
			return []observed{first.observed(), seen}, func() {
				requireOneToken(t, first.get(t.Context()), second, third)
				f.requireRequests(t, 1)
				for _, result := range []result{second, third} {
					require.LessOrEqual(t, result.Left, 10*time.Minute)
					require.Greater(t, result.Left, 8*time.Minute)
				}
			}
		})
	})
}

// What can't be read is left alone: others may be able to.
func TestS16_Unreadable(t *testing.T) {
	t.Parallel()
	setData := func(change func(data []byte) []byte) func(t *testing.T, f *fleet, admin *redis.Client, key string) *replica {
		return func(t *testing.T, f *fleet, admin *redis.Client, key string) *replica {
			data, err := admin.HGet(t.Context(), key, "data").Bytes()
			require.NoError(t, err)
			require.NoError(t, admin.HSet(t.Context(), key, "data", change(data)).Err())
			return f.replica(t)
		}
	}
	for _, c := range []struct {
		name string
		// spoil returns a replica that can't read what is under key.
		spoil func(t *testing.T, f *fleet, admin *redis.Client, key string) *replica
	}{
		{"corrupted", setData(func(data []byte) []byte {
			data[len(data)/2] ^= 1
			return data
		})},
		{"truncated", setData(func(data []byte) []byte { return data[:len(data)-1] })},
		{"nearly empty", setData(func(data []byte) []byte { return data[:3] })},
		{"empty", setData(func([]byte) []byte { return nil })},
		{"a later format", setData(func(data []byte) []byte {
			data[0] = 2
			return data
		})},
		{"an unknown key's id", setData(func(data []byte) []byte {
			data[1] ^= 1
			return data
		})},
		{"another version", func(t *testing.T, f *fleet, admin *redis.Client, key string) *replica {
			require.NoError(t, admin.HSet(t.Context(), key, "version", "another").Err())
			return f.replica(t)
		}},
		{"another key", func(t *testing.T, f *fleet, admin *redis.Client, key string) *replica {
			other := f.replica(t, func(s *spec) { s.Scopes = []string{"write"} })
			requireTokens(t, other.get(t.Context()))
			calm(other)
			keys, err := admin.Keys(t.Context(), "*").Result()
			require.NoError(t, err)
			require.Len(t, keys, 2)
			from := keys[0]
			if from == key {
				from = keys[1]
			}
			require.NoError(t, admin.Copy(t.Context(), from, key, 0, true).Err())
			return f.replica(t)
		}},
		{"disjoint keyrings", func(t *testing.T, f *fleet, _ *redis.Client, _ string) *replica {
			return f.replica(t, func(s *spec) { s.Keys = [][]byte{newSealingKey()} })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t)
			admin := server.client(t)
			undisturbed(t, func(t *testing.T) ([]observed, func()) {
				require.NoError(t, admin.FlushAll(t.Context()).Err())
				f := newFleet(t, server.addr)
				first := f.replica(t)
				good := first.get(t.Context())
				calm(first)
				key := onlyKey(t, admin)
				reader := c.spoil(t, f, admin, key)
				before, err := admin.HGetAll(t.Context(), key).Result()
				require.NoError(t, err)
				requests := len(f.requests())
				own := reader.get(t.Context())
				after, err := admin.HGetAll(t.Context(), key).Result()
				require.NoError(t, err)
				return observedBy(first, reader), func() {
					require.NotEqual(t, requireOneToken(t, good), requireOneToken(t, own))
					require.Equal(t, before, after)
					f.requireRequests(t, requests+1)
					eventually(t, func() bool { return reader.observed().claims(tokenstore.ClaimHit) == 1 }, "the record was found")
				}
			})
		})
	}
	t.Run("a key is replaced", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		// Each deployment shares tokens with the one before, whichever of them leads.
		former, latter := newSealingKey(), newSealingKey()
		deployments := [][][]byte{{former}, {former, latter}, {latter, former}, {latter}}
		for i := range deployments[1:] {
			for _, order := range [][2]int{{i, i + 1}, {i + 1, i}} {
				undisturbed(t, func(t *testing.T) ([]observed, func()) {
					f := newFleet(t, server.addr)
					first := f.replica(t, func(s *spec) { s.Keys = deployments[order[0]] })
					second := f.replica(t, func(s *spec) { s.Keys = deployments[order[1]] })
					got := []result{first.get(t.Context()), second.get(t.Context())}
					return observedBy(first, second), func() {
						requireOneToken(t, got...)
						f.requireRequests(t, 1)
					}
				})
			}
		}
	})
}

// Redis learns nothing: not from what it is told, and not from what it keeps.
func TestS17_NothingToRead(t *testing.T) {
	t.Parallel()
	t.Run("sealed", func(t *testing.T) {
		t.Parallel()
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f, seen, places := listen(t, func(*spec) {})
			return seen, func() {
				hidden := []string{clientID, clientSecret, "confidential", f.url}
				for _, text := range append(hidden, f.tokens...) {
					for place, content := range places {
						require.False(t, contains(content, text), "%s in %s", text, place)
					}
				}
			}
		})
	})
	// In plaintext it is found, or the search would prove nothing.
	t.Run("in plaintext", func(t *testing.T) {
		t.Parallel()
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f, seen, places := listen(t, func(s *spec) { s.Keys = nil })
			return seen, func() {
				for _, token := range f.tokens {
					require.True(t, contains(places["MONITOR"], token))
				}
				require.True(t, contains(places["dump.rdb"], f.tokens[1]))
				require.True(t, contains(places["dump.rdb"], "confidential reason"))
			}
		})
	})
}

// A heardFleet is one whose Redis was listened to.
type heardFleet struct {
	*fleet
	tokens []string // that it had, one after the other
}

// listen runs a fleet, and returns what Redis was told, and what it keeps.
func listen(t *testing.T, change func(*spec)) (f heardFleet, seen []observed, places map[string]string) {
	t.Helper()
	server := startRedis(t, "rdbcompression no")
	admin := server.client(t)
	f.fleet = newFleet(t, server.addr)
	f.Register(clientcredentialstest.Client{ID: clientID, Secret: clientSecret, Scopes: []string{"confidential.scope"}})
	f.spec.Scopes = []string{"confidential.scope"}
	f.spec.Params = url.Values{"audience": {"https://confidential.example"}}
	change(&f.spec)
	told := startMonitor(t, server.addr)

	replicas := f.replicas(t, 3)
	f.tokens = append(f.tokens, requireTokens(t, getAll(t.Context(), 1, replicas...)...)...)
	calm(replicas...)
	token, err := replicas[0].source.Token()
	require.NoError(t, err)
	for _, r := range replicas {
		r.source.Invalidate(token)
	}
	f.tokens = append(f.tokens, requireTokens(t, getAll(t.Context(), 1, replicas...)...)...)
	// A refusal is shared, too.
	f.SetFault(&clientcredentialstest.Fault{Status: http.StatusServiceUnavailable, Body: `{"error":"temporarily_unavailable","error_description":"confidential reason"}`})
	refused := f.replica(t, func(s *spec) {
		s.Params = url.Values{"audience": {"https://other.example"}}
		s.Retry.MaxAttempts = 1
	})
	require.NotEmpty(t, refused.get(t.Context()).Err)
	aborted(t, refused)

	keys, err := admin.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.NoError(t, admin.Save(t.Context()).Err())
	dump, err := os.ReadFile(filepath.Join(server.dir, "dump.rdb"))
	require.NoError(t, err)
	require.NoError(t, admin.Echo(t.Context(), "the end").Err())
	return f, observedBy(append(replicas, refused)...), map[string]string{
		"MONITOR": told("the end"), "KEYS": strings.Join(keys, "\n"), "dump.rdb": string(dump),
	}
}

// contains reports whether text is in content, in any form.
func contains(content, text string) bool {
	return slices.ContainsFunc([]string{
		text, strings.ToLower(text), url.QueryEscape(text), hex.EncodeToString([]byte(text)),
		inBase64(text, 0), inBase64(text, 1), inBase64(text, 2),
	}, func(form string) bool { return strings.Contains(content, form) })
}

// inBase64 returns what text looks like in the base64 of a longer text in which it
// begins so many bytes after a multiple of three.
func inBase64(text string, offset int) string {
	encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), text...))
	from := (offset*8 + 5) / 6         // The characters before are of what comes before, too,
	to := (offset + len(text)) * 8 / 6 // and the last may be of what comes after.
	return encoded[from:to]
}

// startMonitor returns a function that returns all that the server has been told until
// then, which is when a word comes.
func startMonitor(t *testing.T, addr string) func(until string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, "MONITOR\r\n")
	require.NoError(t, err)
	ok := make([]byte, len("+OK\r\n"))
	_, err = io.ReadFull(conn, ok)
	require.NoError(t, err)
	return func(until string) string {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		var log bytes.Buffer
		for buffer := make([]byte, 64<<10); !strings.Contains(log.String(), until); {
			n, err := conn.Read(buffer)
			require.NoError(t, err)
			log.Write(buffer[:n])
		}
		return log.String()
	}
}

// What makes a token another one keeps replicas from sharing it.
func TestS18_Identity(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	admin := server.client(t)
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		require.NoError(t, admin.FlushAll(t.Context()).Err())
		f := newFleet(t, server.addr)
		f.Register(clientcredentialstest.Client{ID: "other", Secret: clientSecret})
		scopes := func(scopes ...string) func(*spec) { return func(s *spec) { s.Scopes = scopes } }
		params := func(name string, values ...string) func(*spec) {
			return func(s *spec) { s.Params = url.Values{name: values} }
		}
		dpop := newSigner(t)
		different := f.replicas(t, 1)
		for _, change := range []func(*spec){
			scopes("read"), scopes("read", "write"), scopes("read write more"),
			params("audience", "a"), params("audience", "b"), params("resource", "https://a.example"),
			params("resource", "https://a.example", "https://b.example"),
			func(s *spec) { s.ID = "other" },
			func(s *spec) { s.TokenURL += "?tenant=other" },
			func(s *spec) { s.configure = func(c *clientcredentials.Config) { c.DPoP = dpop } },
			func(s *spec) { s.configure = func(c *clientcredentials.Config) { c.DPoP = newSigner(t) } },
		} {
			different = append(different, f.replica(t, change))
		}
		results := getAll(t.Context(), 1, different...)
		same := f.replicas(t, 1, scopes("write", "read"))
		same = append(same,
			f.replica(t, scopes("write read")),
			f.replica(t, func(s *spec) { s.Secret = "of no interest" }),
			f.replica(t, func(s *spec) { s.configure = func(c *clientcredentials.Config) { c.DPoP = dpop } }))
		again := getAll(t.Context(), 1, same...)
		keys, err := admin.Keys(t.Context(), "*").Result()
		require.NoError(t, err)
		return observedBy(append(different, same...)...), func() {
			require.Len(t, requireTokens(t, results...), len(different))
			require.Len(t, keys, len(different))
			f.requireRequests(t, len(different))
			require.Equal(t, results[2].Token, requireOneToken(t, again[0], again[1]))
			require.Equal(t, results[0].Token, requireOneToken(t, again[2]))
			require.Equal(t, results[10].Token, requireOneToken(t, again[3]))
		}
	})
}

// A token that is bound to a certificate is shared by those who have that.
func TestS18_Certificates(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	undisturbed(t, func(t *testing.T) ([]observed, func()) {
		one, two := newCertificate(t), newCertificate(t)
		auth := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
			ID: clientID, Certificates: []*x509.Certificate{one.Leaf, two.Leaf}, CertificateBound: true,
		})
		defer auth.Close()
		f := newFleet(t, server.addr)
		f.spec.TokenURL = auth.TokenURL
		with := func(certificate *tls.Certificate) *replica {
			return f.replica(t, func(s *spec) {
				s.configure = func(c *clientcredentials.Config) {
					c.ClientSecret = ""
					c.ClientAuth = &clientauth.SelfSignedTLSClientAuth{Source: func(context.Context) (*tls.Certificate, error) { return certificate, nil }}
					transport := auth.Client().Transport.(*http.Transport).Clone()
					transport.DisableKeepAlives = true
					c.HTTPClient = &http.Client{Transport: transport}
				}
			})
		}
		replicas := []*replica{with(one), with(two), with(one), with(two)}
		var got []result
		for _, r := range replicas {
			got = append(got, r.get(t.Context()))
		}
		return observedBy(replicas...), func() {
			require.Len(t, requireTokens(t, got...), 2)
			require.Equal(t, got[0].Token, got[2].Token)
			require.Equal(t, got[1].Token, got[3].Token)
			require.Equal(t, 2, auth.Auth.TokenRequests())
		}
	})
}

// Releases of this library that write records differently can be in use at once.
func TestS19_Formats(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data string
		read       bool
	}{
		{"with more members", `{"media_type":"application/json","body":"%s","age":0,"ttl":%d,"later":{"a":[1]}}`, true},
		{"without members", `{}`, false},
		{"no JSON", "\x02later", false},
		{"a list", `[1,2]`, false},
		{"another body", `{"media_type":"application/json","body":"AAAA","age":0,"ttl":3600000000000}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t)
			admin := server.client(t)
			undisturbed(t, func(t *testing.T) ([]observed, func()) {
				require.NoError(t, admin.FlushAll(t.Context()).Err())
				f := newFleet(t, server.addr)
				f.spec.Keys = nil
				first := f.replica(t)
				requireTokens(t, first.get(t.Context()))
				calm(first)
				key := onlyKey(t, admin)
				data := c.data
				if c.read {
					body := base64.StdEncoding.EncodeToString([]byte(`{"access_token":"later","token_type":"Bearer","expires_in":3600}`))
					data = fmt.Sprintf(data, body, time.Hour)
				}
				require.NoError(t, admin.HSet(t.Context(), key, "data", data).Err())
				before, err := admin.HGetAll(t.Context(), key).Result()
				require.NoError(t, err)
				reader := f.replica(t)
				got := reader.get(t.Context())
				after, err := admin.HGetAll(t.Context(), key).Result()
				require.NoError(t, err)
				return observedBy(first, reader), func() {
					require.Equal(t, c.read, requireOneToken(t, got) == "later")
					require.Equal(t, before, after)
				}
			})
		})
	}
}

// A secret that is replaced while the fleet runs, and replicas that come and go, cost
// nobody a token.
func TestS20_Changes(t *testing.T) {
	t.Parallel()
	t.Run("secret", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			f.Register(clientcredentialstest.Client{ID: clientID, Secret: "the new one"})
			old := f.replica(t) // Doesn't know it yet.
			refused := old.get(t.Context())
			current := f.replica(t, func(s *spec) { s.Secret = "the new one" })
			first := current.get(t.Context())
			second := old.get(t.Context()) // Its own secret wouldn't do.
			return observedBy(old, current), func() {
				require.Contains(t, refused.Err, "invalid_client")
				requireOneToken(t, first, second)
				f.requireRequests(t, 2)
			}
		})
	})
	t.Run("shutdown", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		undisturbed(t, func(t *testing.T) ([]observed, func()) {
			f := newFleet(t, server.addr)
			leaving, staying := f.replica(t), f.replica(t)
			f.hold(1)
			left := getting(t.Context(), leaving)
			answer := f.next(t)
			leaving.stop()
			<-answer.left
			gone := receive(t, left)
			aborted(t, leaving)
			got := staying.get(t.Context())
			seen := staying.observed()
			return []observed{leaving.observed(), seen}, func() {
				require.Contains(t, gone.Err, context.Canceled.Error())
				requireOneToken(t, got)
				f.requireRequests(t, 2)
				require.Zero(t, seen.claims(tokenstore.ClaimWait)) // The lease was free.
			}
		})
	})
}

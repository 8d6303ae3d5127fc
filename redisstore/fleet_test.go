package redisstore_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// These are tests of replicas that share tokens through a real Redis while something
// goes wrong. A replica that is to be killed or frozen is a process of its own, a worker.
// The others are in this process, and each has connections of its own.
//
// Each test is a row of the table in docs/fleet.md, except S17, which is in
// secrecy_test.go. What they share is in scenario_test.go.

// leaderLease is how long other replicas wait for a leader that has died.
const leaderLease = 5 * time.Second

// resetConnections is the command that closes all connections to Redis but the caller's.
const resetConnections = "client kill type normal skipme yes"

// A cold start of all replicas takes one token request.
func TestS01_ColdStart(t *testing.T) {
	t.Parallel()
	t.Run("20 processes", func(t *testing.T) {
		t.Parallel()
		var workers []*worker
		for range 20 {
			workers = append(workers, startWorker(t))
		}
		scenario(t, func(t *testing.T, f *fleet) {
			f.startAll(t, workers...)
			f.hold(1)
			for _, w := range workers {
				w.get(t, 10)
			}
			f.next(t).release()
			var seen observed
			var results []result
			for _, w := range workers {
				r := w.receive(t)
				results = append(results, r.Results...)
				seen = append(seen, r.Seen...)
			}
			seen.calm()
			require.Len(t, results, 200)
			f.requireOneToken(t, 1, results...)
		})
		for _, w := range workers {
			w.quit(t)
		}
	})
	subscenario(t, "200 goroutines", func(t *testing.T, f *fleet) {
		replicas := f.replica(t).withSiblings(199)
		results := getAll(t.Context(), 1, replicas...)
		calm(replicas...)
		f.requireOneToken(t, 1, results...)
	})
}

// A program in FIPS 140-only mode, where SHA-1 panics, shares tokens too.
func TestFIPS(t *testing.T) {
	t.Parallel()
	w := startWorker(t, "GODEBUG=fips140=only")
	scenario(t, func(t *testing.T, f *fleet) {
		f.startAll(t, w)
		w.get(t, 1)
		r := w.receive(t)
		r.Seen.calm()
		requireOneToken(t, r.Results...)
		eventually(t, func() bool { return w.observed(t).succeeded("publish") == 1 }, "the token is shared")
	})
	w.quit(t)
}

// When the leader is killed, one other replica takes its place as soon as its lease has
// run out.
func TestS02_LeaderKilled(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *testing.T, f *fleet) {
		leader, followers := startWorker(t), f.replicas(t, 5)
		f.startAll(t, leader)
		f.hold(1)
		leader.get(t, 10)
		answer := f.next(t)
		following := follow(t, followers...)
		leader.kill()
		<-answer.left
		results := following.results(t)
		calm(followers...)
		f.requireOneToken(t, 2, results...)
		leads := 0
		for i, r := range followers {
			leads += min(r.observed().claims(tokenstore.ClaimLead), 1)
			// The lease and the longest pause between two polls, and as much again for a
			// machine that is busy.
			require.Less(t, results[i].Waited, 2*(leaderLease+1250*time.Millisecond))
		}
		require.Equal(t, 1, leads)
	})
}

// A leader that was frozen for longer than its lease doesn't overwrite the token that
// another replica has published since, and uses that token itself.
func TestS03_LeaderFrozen(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *testing.T, f *fleet) {
		leader, follower := startWorker(t), f.replica(t)
		f.startAll(t, leader)
		f.hold(1)
		leader.get(t, 10)
		answer := f.next(t)
		leader.freeze(t)
		newer := follower.get(t.Context())
		calm(follower)
		before := f.version(t)
		answer.release()
		leader.thaw(t)
		older := leader.receive(t).Results
		seen := leader.observed(t)
		after := f.version(t)
		leader.quit(t)
		seen.calm()
		calm(follower)
		require.Equal(t, 1, seen.lost())
		require.Equal(t, before, after)
		f.requireOneToken(t, 2, append(older, newer)...)
	})
}

// When Redis goes away while replicas wait for a leader, they go on without it. When it
// comes back at once, they go on waiting.
func TestS04_RedisGoesAway(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, f *fleet) (replicas []*replica, leading, following pending, answer *heldAnswer) {
		t.Helper()
		replicas = f.replicas(t, 10)
		leading, answer = f.lead(t.Context(), t, replicas[0])
		return replicas, leading, follow(t, replicas[1:]...), answer
	}
	subscenario(t, "killed", func(t *testing.T, f *fleet) {
		replicas, leading, following, answer := start(t, f)
		f.redis.kill()
		requireTokens(t, following.results(t)...) // Calls of the store may be slow now.
		answer.release()
		requireTokens(t, leading.results(t)...)
		f.requireRequests(t, len(replicas))
	})
	subscenario(t, "connections reset", func(t *testing.T, f *fleet) {
		replicas, leading, following, answer := start(t, f)
		do(t, f.admin, resetConnections)
		for _, r := range replicas[1:] {
			asked := r.observed().claims(tokenstore.ClaimWait)
			await(t, func() bool { return r.observed().claims(tokenstore.ClaimWait) > asked }, "a replica polls again", replicas...)
		}
		answer.release()
		results := append(leading.results(t), following.results(t)...)
		calm(replicas...)
		f.requireOneToken(t, 1, results...)
	})
}

// Replicas stop waiting for a frozen Redis after the budget, even if their client doesn't
// obey its context, and calls don't pile up.
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
			// Even this client gives up waiting for a connection: each call has one.
			s.Redis.PoolSize, s.Redis.MinIdleConns = callers, callers
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t)
			replicas := f.replica(t, c.change).withSiblings(callers - 1)
			pool, idle := replicas[0].client, replicas[0].spec.Redis.MinIdleConns
			eventually(t, func() bool { return int(pool.PoolStats().IdleConns) >= idle }, "the connections are there")
			f.redis.freeze(t)
			results := getAll(t.Context(), 1, replicas...)
			stats := pool.PoolStats()
			f.redis.thaw(t) // So that the calls end.

			requireTokens(t, results...)
			f.requireRequests(t, len(replicas))
			require.LessOrEqual(t, int(stats.TotalConns-stats.IdleConns), 100, "calls that are under way")
			for i, r := range replicas {
				require.Less(t, results[i].Waited, patience)
				require.LessOrEqual(t, len(r.observed()), 1, "after a failure they leave Redis alone")
			}
		})
	}
}

// Replicas that start without Redis share tokens as soon as it is there.
func TestS06_RedisComesLater(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.redis.kill()
	replicas := f.replicas(t, 2)
	require.Len(t, requireTokens(t, getAll(t.Context(), 10, replicas...)...), 2)
	f.requireRequests(t, 2)

	f.redis.restart(t)
	requireShared(t, replicas...)
}

// A Redis that is just slower than the budget makes a few token requests slower, and
// hardly any after that.
func TestS07_RedisSlow(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.spec.Redis.ContextTimeoutEnabled = false
	f.spec.Redis.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return slowConn{conn}, err
	}
	replicas := f.replica(t).withSiblings(99)
	start, calls := time.Now(), 0
	for _, r := range replicas {
		requireTokens(t, r.get(t.Context()))
	}
	elapsed := time.Since(start)
	f.requireRequests(t, len(replicas))
	for _, r := range replicas {
		calls += len(r.observed())
	}
	// Three failures, and a call that begins while the third is being noted. Then one call
	// for each pause, and a pause is no shorter than 0.75 s.
	require.LessOrEqual(t, calls, 4+int(elapsed/(750*time.Millisecond)))
	require.GreaterOrEqual(t, calls, 3)
}

// A slowConn is a connection on which each answer of Redis takes 400 milliseconds more.
type slowConn struct{ net.Conn }

func (c slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	time.Sleep(400 * time.Millisecond)
	return n, err
}

// Whatever Redis refuses or loses, every caller gets a token, and replicas share tokens
// again as soon as they can.
func TestS08_RedisRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		breaks, fix string // commands
		resets      bool   // whether the replicas lose their connections
	}{
		{"OOM", "config set maxmemory 1", "config set maxmemory 0", false},
		{"READONLY", "replicaof 127.0.0.1 1", "replicaof no one", false},
		{"NOREPLICAS", "config set min-replicas-to-write 1", "config set min-replicas-to-write 0", false},
		{"NOPERM", "acl setuser default -evalsha", "acl setuser default +evalsha", false},
		{"no connections", "config set maxclients 1", "config set maxclients 1000", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t)
			replicas := f.replicas(t, 5)
			do(t, f.admin, c.breaks)
			if c.resets {
				do(t, f.admin, resetConnections)
			}
			require.Len(t, requireTokens(t, getAll(t.Context(), 10, replicas...)...), 5)
			f.requireRequests(t, 5)
			do(t, f.admin, c.fix)
			requireShared(t, replicas...)
		})
	}
	subscenario(t, "FLUSHALL", func(t *testing.T, f *fleet) {
		replicas := f.replicas(t, 4)
		leading, answer := f.lead(t.Context(), t, replicas[0])
		do(t, f.admin, "flushall") // The lease is gone.
		answer.release()
		first := leading.results(t)[0]
		second := replicas[1].get(t.Context())
		do(t, f.admin, "flushall")
		third, fourth := replicas[2].get(t.Context()), replicas[3].get(t.Context())
		again := replicas[0].get(t.Context()) // What it has is still good.
		calm(replicas...)
		requireOneToken(t, first, second, again)
		requireOneToken(t, third, fourth)
		f.requireRequests(t, 3) // The leader requests a second token: it can't know why it lost the lease.
	})
	t.Run("MOVED", func(t *testing.T) {
		t.Parallel()
		c := startCluster(t)
		undisturbed(t, func(t *testing.T) {
			for _, admin := range c.admins() {
				do(t, admin, "flushall")
			}
			f := newFleet(t, c.addrs()...)
			replicas := f.replicas(t, 5)
			leading, answer := f.lead(t.Context(), t, replicas[0])
			following := follow(t, replicas[1:]...)
			c.move(t, c.onlyKey(t), func() {})
			answer.release()
			results := append(leading.results(t), following.results(t)...)
			calm(replicas...)
			f.requireOneToken(t, 1, results...)
		})
	})

	// In these cases Redis loses the record. The next replica requests a token, and the one
	// after it shares that token.
	for _, c := range []struct {
		name  string
		start func(t *testing.T) *fleet
		// loses has Redis lose the record, and waits until the replicas can use it again.
		loses func(t *testing.T, f *fleet, replicas []*replica)
	}{
		{"eviction", func(t *testing.T) *fleet { return startFleet(t, "maxmemory-policy allkeys-random") }, evict},
		{"NOSCRIPT after a restart", func(t *testing.T) *fleet { return startFleet(t) }, func(t *testing.T, f *fleet, replicas []*replica) {
			f.redis.kill()
			f.redis.restart(t)
			for _, r := range replicas {
				connected(t, r)
			}
		}},
		{"a failover that loses the last write", func(t *testing.T) *fleet {
			p := startWatchedPair(t, "user replica on >replica ~* &* +@all", "masteruser replica", "masterauth replica")
			f := newFleet(t, p.sentinel.addr)
			f.spec.Redis.MasterName = masterName
			f.redis = p.master
			do(t, p.master.client(t), "acl deluser replica") // Nothing is replicated from now on.
			return f
		}, func(t *testing.T, f *fleet, replicas []*replica) {
			f.redis.kill()
			eventually(t, func() bool {
				return replicas[1].client.Set(t.Context(), "x", "x", 0).Err() == nil && replicas[2].client.Set(t.Context(), "x", "x", 0).Err() == nil
			}, "the replica has become the master")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			undisturbed(t, func(t *testing.T) {
				f := c.start(t)
				replicas := f.replicas(t, 3)
				first := replicas[0].get(t.Context())
				calm(replicas[0])
				c.loses(t, f, replicas)
				second, third := replicas[1].get(t.Context()), replicas[2].get(t.Context())
				calm(replicas...)
				require.NotEqual(t, requireOneToken(t, first), requireOneToken(t, second, third))
				f.requireRequests(t, 2)
			})
		})
	}
}

// evict writes to Redis until it has evicted the record.
func evict(t *testing.T, f *fleet, _ []*replica) {
	t.Helper()
	key := f.onlyKey(t)
	do(t, f.admin, "config set maxmemory 4mb")
	for i := 0; f.admin.Exists(t.Context(), key).Val() == 1; i++ {
		require.Less(t, i, 1_000_000)
		require.NoError(t, f.admin.Set(t.Context(), fmt.Sprint("junk", i), make([]byte, 10_000), 0).Err())
	}
	do(t, f.admin, "config set maxmemory 0")
}

// connected waits until r is connected to Redis again.
func connected(t *testing.T, r *replica) {
	t.Helper()
	eventually(t, func() bool { return r.client.Ping(t.Context()).Err() == nil }, "a replica is connected")
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

// However many replicas report a token, one new token is requested, and a report that
// comes late does no harm to it.
func TestS09_Invalidate(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *testing.T, f *fleet) {
		late := f.replica(t)
		var others []*replica
		for _, r := range f.replicas(t, 10) {
			others = append(others, r.withSiblings(19)...)
		}
		replicas := slices.Concat(others, []*replica{late})
		first := getAll(t.Context(), 1, replicas...)
		refused := late.token(t)
		report(refused, others...)
		second := getAll(t.Context(), 1, others...)
		calm(replicas...)
		before := f.version(t)
		report(refused, late)
		third := late.get(t.Context())
		after := f.version(t)
		calm(replicas...)
		require.Equal(t, refused.AccessToken, requireOneToken(t, first...))
		require.NotEqual(t, refused.AccessToken, requireOneToken(t, append(second, third)...))
		require.Equal(t, before, after)
		f.requireRequests(t, 2)
	})
}

// A leader doesn't publish a token that it requested before an invalidation: that token
// may be invalid too. The leader acquires the lease once more.
func TestS10_InvalidateDuringFlight(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *testing.T, f *fleet) {
		f.TokenLifetime = 20 * time.Second
		leader := f.replica(t, func(s *spec) { s.Early = time.Hour }) // after half of the token's life
		other := f.replica(t)
		awaitBoth := func(ok func() bool, what string) { await(t, ok, what, leader, other) }
		first := []result{leader.get(t.Context()), other.get(t.Context())}
		f.hold(1)
		awaitBoth(func() bool { // It refreshes in the background.
			requireTokens(t, leader.get(t.Context()))
			return len(f.requests()) == 2
		}, "the token is replaced early")
		answer := f.next(t)
		refused := other.token(t)
		report(refused, other)
		awaitBoth(func() bool { return other.observed().succeeded("invalidate") == 1 }, "the record is removed")
		answer.release()
		awaitBoth(func() bool { return leader.observed().succeeded("publish") == 2 }, "the leader has published")
		awaitBoth(func() bool { return leader.get(t.Context()).Token != refused.AccessToken }, "the leader has the new token")
		second := getAll(t.Context(), 1, leader, other)
		calm(leader, other)
		require.Equal(t, refused.AccessToken, requireOneToken(t, first...))
		require.Equal(t, 1, leader.observed().lost())
		f.requireOneToken(t, 3, second...)
	})
}

// A token that was invalidated while Redis was down comes back with Redis. The replica
// that has invalidated it doesn't use it again, and replaces it for all.
func TestS11_InvalidateWhileDown(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *testing.T, f *fleet) {
		knows, other := f.replica(t), f.replica(t)
		first := knows.get(t.Context())
		calm(knows)
		require.NoError(t, f.admin.Save(t.Context()).Err())
		f.redis.kill()
		refused := knows.token(t)
		report(refused, knows)
		eventually(t, func() bool {
			return knows.observed().count(func(op operation) bool { return op.Name == "invalidate" && op.Err != "" }) == 1
		}, "the invalidation has failed")
		f.redis.restart(t)
		connected(t, knows)
		require.NotEmpty(t, f.version(t), "the record is back")
		second, third := knows.get(t.Context()), other.get(t.Context())
		calm(other) // A call of knows has failed, as it should.
		require.Equal(t, refused.AccessToken, requireOneToken(t, first))
		require.NotEqual(t, refused.AccessToken, requireOneToken(t, second, third))
		f.requireRequests(t, 2)
	})
}

// When the authorization server asks to be left alone, all replicas leave it alone.
func TestS12_Cooldown(t *testing.T) {
	t.Parallel()
	const pause = 2 * time.Second
	for _, fault := range []clientcredentialstest.Fault{
		clientcredentialstest.TooManyRequests(pause),
		{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"2"}}},
	} {
		subscenario(t, http.StatusText(fault.Status), func(t *testing.T, f *fleet) {
			f.spec.Retry.MaxAttempts = 1
			f.SetFault(&fault)
			f.Latency = 300 * time.Millisecond // Gives the others time to see that one leads.
			replicas := f.replicas(t, 20)
			for f.TokenRequests() < 4 {
				for _, result := range getAll(t.Context(), 1, replicas...) {
					require.Contains(t, result.Err, "temporarily_unavailable")
				}
			}
			f.SetFault(nil)
			failed := func(r result) bool { return r.Err != "" }
			results := getAll(t.Context(), 1, replicas...)
			for slices.ContainsFunc(results, failed) {
				results = getAll(t.Context(), 1, replicas...)
			}
			calm(replicas...)
			requireApart(t, f.requests(), pause-50*time.Millisecond)
			requireOneToken(t, results...)
		})
	}
	subscenario(t, "with a valid token", func(t *testing.T, f *fleet) {
		f.TokenLifetime = 12 * time.Second
		f.spec.Early = time.Hour // after half of the token's life
		replicas := f.replicas(t, 10)
		first := getAll(t.Context(), 1, replicas...)
		expiry := time.Now().Add(first[0].Left)
		fault := clientcredentialstest.TooManyRequests(pause)
		f.SetFault(&fault)
		var results []result
		for time.Until(expiry) > 2*time.Second {
			results = append(results, getAll(t.Context(), 1, replicas...)...)
			<-time.After(50 * time.Millisecond)
		}
		calm(replicas...)
		token := requireOneToken(t, first...)
		for _, result := range results {
			if result.Left > 0 {
				require.Equal(t, token, requireOneToken(t, result))
			}
		}
		arrivals := f.requests()
		require.Greater(t, len(arrivals), 1, "a replica has tried to refresh the token")
		requireApart(t, arrivals[1:], pause-50*time.Millisecond)
	})
}

// requireApart checks that more than this time lies between a token request and the next.
func requireApart(t *testing.T, arrivals []time.Time, least time.Duration) {
	t.Helper()
	for i := range arrivals[1:] {
		require.Greater(t, arrivals[i+1].Sub(arrivals[i]), least)
	}
}

// The others wait for a leader whose authorization server is slow, but not for one whose
// server hangs.
func TestS13_SlowServer(t *testing.T) {
	t.Parallel()
	subscenario(t, "slower than the lease", func(t *testing.T, f *fleet) {
		replicas := f.replicas(t, 5)
		leading, answer := f.lead(t.Context(), t, replicas[0])
		following := ask(t.Context(), replicas[1:]...)
		// By then the first lease has run out.
		await(t, func() bool { return replicas[0].observed().succeeded("renew") >= 4 }, "the lease is renewed", replicas...)
		answer.release()
		results := append(leading.results(t), following.results(t)...)
		calm(replicas...)
		f.requireOneToken(t, 1, results...)
	})
	t.Run("hanging", func(t *testing.T) {
		t.Parallel()
		f := startFleet(t)
		f.spec.Retry = clientcredentials.RetryPolicy{MaxAttempts: 1, AttemptTimeout: time.Second, TotalTimeout: 10 * time.Second}
		replicas := f.replicas(t, 5)
		f.hold(1000)
		for _, result := range getAll(t.Context(), 10, replicas...) {
			require.NotEmpty(t, result.Err)
			require.Less(t, result.Waited, patience)
		}
		require.LessOrEqual(t, len(f.requests()), len(replicas), "each replica makes one attempt")
		f.hold(0)
		requireShared(t, replicas...)
	})
	subscenario(t, "the leading caller leaves", func(t *testing.T, f *fleet) {
		leader, follower := f.replica(t), f.replica(t)
		ctx, leave := context.WithCancel(t.Context())
		leading, answer := f.lead(ctx, t, leader)
		following := follow(t, follower)
		leave()
		gone := leading.results(t)[0]
		answer.release()
		got := following.results(t)[0]
		calm(leader, follower)
		require.Contains(t, gone.Err, context.Canceled.Error())
		f.requireOneToken(t, 1, got, leader.get(t.Context()))
	})
}

// A token is replaced before it expires: with one request for all replicas, while nobody
// waits, and not by all of them at the same moment.
func TestS14_EarlyRefresh(t *testing.T) {
	t.Parallel()
	const life, early = 10 * time.Second, 4 * time.Second
	scenario(t, func(t *testing.T, f *fleet) {
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
		var results []result
		tokens := make(map[string]bool)
		for len(tokens) < 3 {
			for _, result := range getAll(t.Context(), 1, replicas...) {
				results = append(results, result)
				tokens[result.Token] = true
			}
			<-time.After(20 * time.Millisecond)
		}
		close(served)
		calm(replicas...)
		requireOneToken(t, first...)
		requireTokens(t, results...)
		for from := range served {
			require.Equal(t, event.FromMemory, from)
		}
		f.requireRequests(t, len(tokens))
		requireApart(t, f.requests(), life-early-time.Second)
		// Between three quarters of early and all of it, spread over nearly that range.
		require.GreaterOrEqual(t, slices.Min(begins), early*3/4)
		require.LessOrEqual(t, slices.Max(begins), early)
		require.Greater(t, slices.Max(begins)-slices.Min(begins), early/4/4)
	})
}

// Each kind of expiry is shared as it is, whatever the clocks of the replicas say.
func TestS15_Expiry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		expiresIn string // as it is in JSON; empty: missing
		shared    bool
		left      time.Duration // at most; 0: forever
	}{
		{"missing", "", true, 0},
		{"zero", "0", true, 0},
		{"null", "null", true, 0},
		{"negative", "-1", false, 0},
		{"tiny", "1", false, time.Second}, // It may be shared or not: it is hardly worth it.
		{"an hour", "3600", true, time.Hour},
		{"huge", "99999999999", true, 1<<63 - 1},
	} {
		subscenario(t, c.name, func(t *testing.T, f *fleet) {
			for i := range 2 {
				body := fmt.Sprintf(`{"access_token":"token%d","token_type":"Bearer"`, i)
				if c.expiresIn != "" {
					body += `,"expires_in":` + c.expiresIn
				}
				f.Script(clientcredentialstest.Fault{Body: body + "}"})
			}
			replicas := f.replicas(t, 2)
			first, second := replicas[0].get(t.Context()), replicas[1].get(t.Context())
			calm(replicas...)
			requireTokens(t, first, second)
			if !c.shared {
				return
			}
			requireOneToken(t, first, second)
			ttl, err := f.admin.PTTL(t.Context(), f.onlyKey(t)).Result()
			require.NoError(t, err)
			require.LessOrEqual(t, ttl, 24*time.Hour, "the service may never come back")
			require.Positive(t, ttl)
			for _, result := range []result{first, second} {
				require.LessOrEqual(t, result.Left, c.left)
				require.Equal(t, c.left == 0, result.Left == 0)
			}
			require.LessOrEqual(t, second.Left, first.Left, "the token has aged")
		})
	}

	// Only Redis' clock matters. In a bubble of synctest it is the year 2000.
	subscenario(t, "clocks", func(t *testing.T, f *fleet) {
		f.TokenLifetime = 10 * time.Minute
		first := f.replica(t)
		requireTokens(t, first.get(t.Context()))
		var seen observed
		var second, third result
		synctest.Test(t, func(t *testing.T) {
			wrong, err := newReplica(f.spec)
			require.NoError(t, err)
			second = wrong.get(t.Context())
			time.Sleep(5 * time.Minute) // by this replica's clock, and no other
			sibling := wrong.sibling()
			third = sibling.get(t.Context())
			seen = wrong.observed()
			sibling.stop()
			wrong.close()
		})
		calm(first)
		seen.calm()
		f.requireOneToken(t, 1, first.get(t.Context()), second, third)
		for _, result := range []result{second, third} {
			require.LessOrEqual(t, result.Left, 10*time.Minute)
			require.Greater(t, result.Left, 8*time.Minute)
		}
	})
}

// What a replica can't read, it leaves alone: others may be able to read it.
func TestS16_Unreadable(t *testing.T) {
	t.Parallel()
	setData := func(change func(data []byte) []byte) func(*testing.T, *fleet, string) *replica {
		return func(t *testing.T, f *fleet, key string) *replica {
			data, err := f.admin.HGet(t.Context(), key, "data").Bytes()
			require.NoError(t, err)
			require.NoError(t, f.admin.HSet(t.Context(), key, "data", change(data)).Err())
			return f.replica(t)
		}
	}
	flip := func(at func(data []byte) int) func(*testing.T, *fleet, string) *replica {
		return setData(func(data []byte) []byte {
			data[at(data)] ^= 1
			return data
		})
	}
	for _, c := range []struct {
		name string
		// spoil returns a replica that can't read the record under key.
		spoil func(t *testing.T, f *fleet, key string) *replica
	}{
		{"corrupted", flip(func(data []byte) int { return len(data) / 2 })},
		{"truncated", setData(func(data []byte) []byte { return data[:len(data)-1] })},
		{"nearly empty", setData(func(data []byte) []byte { return data[:3] })},
		{"empty", setData(func([]byte) []byte { return nil })},
		{"a later format", setData(func(data []byte) []byte { return append([]byte{2}, data[1:]...) })},
		{"an unknown key's id", flip(func([]byte) int { return 1 })},
		{"another version", func(t *testing.T, f *fleet, key string) *replica {
			require.NoError(t, f.admin.HSet(t.Context(), key, "version", "another").Err())
			return f.replica(t)
		}},
		{"another key", func(t *testing.T, f *fleet, key string) *replica {
			other := f.replica(t, func(s *spec) { s.Scopes = []string{"write"} })
			requireTokens(t, other.get(t.Context()))
			calm(other)
			keys := slices.DeleteFunc(f.keys(t), func(k string) bool { return k == key })
			require.Len(t, keys, 1)
			require.NoError(t, f.admin.Copy(t.Context(), keys[0], key, 0, true).Err())
			return f.replica(t)
		}},
		{"disjoint keyrings", func(t *testing.T, f *fleet, _ string) *replica {
			return f.replica(t, func(s *spec) { s.Keys = [][]byte{randomKey()} })
		}},
	} {
		subscenario(t, c.name, func(t *testing.T, f *fleet) {
			var reader *replica
			requests := 0
			published, got := readChanged(t, f, func(key string) *replica {
				reader = c.spoil(t, f, key)
				requests = len(f.requests())
				return reader
			})
			require.NotEqual(t, published, got)
			f.requireRequests(t, requests+1)
			eventually(t, func() bool { return reader.observed().claims(tokenstore.ClaimHit) == 1 }, "the record was found")
		})
	}
	t.Run("a key is replaced", func(t *testing.T) {
		t.Parallel()
		// Each deployment shares tokens with the one before it, whichever of them leads.
		former, latter := randomKey(), randomKey()
		deployments := [][][]byte{{former}, {former, latter}, {latter, former}, {latter}}
		for i := range deployments[1:] {
			for _, order := range [][2]int{{i, i + 1}, {i + 1, i}} {
				scenario(t, func(t *testing.T, f *fleet) {
					var replicas []*replica
					var results []result
					for i, deployment := range order {
						replicas = append(replicas, f.replica(t, func(s *spec) { s.Keys = deployments[deployment] }))
						results = append(results, replicas[i].get(t.Context()))
					}
					calm(replicas...)
					f.requireOneToken(t, 1, results...)
				})
			}
		}
	})
}

// readChanged has one replica publish a token, then calls change with the token's key,
// and has the replica that change returns ask for a token. It returns the tokens that the
// two have got, and checks that the second replica left the changed record as it was.
func readChanged(t *testing.T, f *fleet, change func(key string) (reader *replica)) (published, got string) {
	t.Helper()
	first := f.replica(t)
	published = requireOneToken(t, first.get(t.Context()))
	calm(first)
	key := f.onlyKey(t)
	read := func() map[string]string {
		fields, err := f.admin.HGetAll(t.Context(), key).Result()
		require.NoError(t, err)
		return fields
	}
	reader := change(key)
	before := read()
	result := reader.get(t.Context())
	after := read()
	calm(first, reader)
	require.Equal(t, before, after)
	return published, requireOneToken(t, result)
}

// Replicas don't share a token if anything that makes it a different token differs.
func TestS18_Identity(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *testing.T, f *fleet) {
		f.Register(clientcredentialstest.Client{ID: "other", Secret: clientSecret})
		scopes := func(scopes ...string) func(*spec) { return func(s *spec) { s.Scopes = scopes } }
		params := func(name string, values ...string) func(*spec) {
			return func(s *spec) { s.Params = url.Values{name: values} }
		}
		key := newSigner(t)
		dpop := func(s *spec) { s.configure = func(c *clientcredentials.Config) { c.DPoP = key } }
		different := f.replicas(t, 1)
		for _, change := range []func(*spec){
			scopes("read"), scopes("read", "write"), scopes("read write more"),
			params("audience", "a"), params("audience", "b"), params("resource", "https://a.example"),
			params("resource", "https://a.example", "https://b.example"),
			func(s *spec) { s.ID = "other" },
			func(s *spec) { s.TokenURL += "?tenant=other" },
			dpop,
			func(s *spec) { s.configure = func(c *clientcredentials.Config) { c.DPoP = newSigner(t) } },
		} {
			different = append(different, f.replica(t, change))
		}
		results := getAll(t.Context(), 1, different...)
		same := []*replica{
			f.replica(t, scopes("write", "read")),
			f.replica(t, scopes("write read")),
			f.replica(t, func(s *spec) { s.Secret = "of no interest" }),
			f.replica(t, dpop),
		}
		again := getAll(t.Context(), 1, same...)
		calm(append(different, same...)...)
		require.Len(t, requireTokens(t, results...), len(different))
		require.Len(t, f.keys(t), len(different))
		f.requireRequests(t, len(different))
		require.Equal(t, results[2].Token, requireOneToken(t, again[0], again[1]))
		require.Equal(t, results[0].Token, requireOneToken(t, again[2]))
		require.Equal(t, results[10].Token, requireOneToken(t, again[3]))
	})
}

// Replicas share a token that is bound to a certificate if they have that certificate.
func TestS18_Certificates(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *testing.T, f *fleet) {
		one, two := newCertificate(t), newCertificate(t)
		auth := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
			ID: clientID, Certificates: []*x509.Certificate{one.Leaf, two.Leaf}, CertificateBound: true,
		})
		defer auth.Close()
		f.spec.TokenURL = auth.TokenURL
		var replicas []*replica
		var got []result
		for i, certificate := range []*tls.Certificate{one, two, one, two} {
			replicas = append(replicas, f.replica(t, func(s *spec) {
				s.configure = func(c *clientcredentials.Config) {
					c.ClientSecret = ""
					c.ClientAuth = &clientauth.SelfSignedTLSClientAuth{Source: func(context.Context) (*tls.Certificate, error) { return certificate, nil }}
					transport := auth.Client().Transport.(*http.Transport).Clone()
					transport.DisableKeepAlives = true
					c.HTTPClient = &http.Client{Transport: transport}
				}
			}))
			got = append(got, replicas[i].get(t.Context()))
		}
		calm(replicas...)
		require.Len(t, requireTokens(t, got...), 2)
		require.Equal(t, got[0].Token, got[2].Token)
		require.Equal(t, got[1].Token, got[3].Token)
		require.Equal(t, 2, auth.Auth.TokenRequests())
	})
}

// Releases of this library that write records differently can be in use at once.
func TestS19_Formats(t *testing.T) {
	t.Parallel()
	body := base64.StdEncoding.EncodeToString([]byte(`{"access_token":"later","token_type":"Bearer","expires_in":3600}`))
	for _, c := range []struct {
		name, data string
		read       bool
	}{
		{"with more members", fmt.Sprintf(`{"media_type":"application/json","body":"%s","age":0,"ttl":%d,"later":{"a":[1]}}`, body, time.Hour), true},
		{"without members", `{}`, false},
		{"no JSON", "\x02later", false},
		{"a list", `[1,2]`, false},
		{"another body", `{"media_type":"application/json","body":"AAAA","age":0,"ttl":3600000000000}`, false},
	} {
		subscenario(t, c.name, func(t *testing.T, f *fleet) {
			f.spec.Keys = nil
			_, got := readChanged(t, f, func(key string) *replica {
				require.NoError(t, f.admin.HSet(t.Context(), key, "data", c.data).Err())
				return f.replica(t)
			})
			require.Equal(t, c.read, got == "later")
		})
	}
}

// Callers get tokens while the secret is being replaced, and while replicas come and go.
func TestS20_Changes(t *testing.T) {
	t.Parallel()
	subscenario(t, "secret", func(t *testing.T, f *fleet) {
		f.Register(clientcredentialstest.Client{ID: clientID, Secret: "the new one"})
		old := f.replica(t) // It doesn't know the new secret yet.
		refused := old.get(t.Context())
		current := f.replica(t, func(s *spec) { s.Secret = "the new one" })
		first := current.get(t.Context())
		second := old.get(t.Context()) // With its own secret it wouldn't get a token.
		calm(old, current)
		require.Contains(t, refused.Err, "invalid_client")
		f.requireOneToken(t, 2, first, second)
	})
	subscenario(t, "shutdown", func(t *testing.T, f *fleet) {
		leaving, staying := f.replica(t), f.replica(t)
		leading, answer := f.lead(t.Context(), t, leaving)
		leaving.stop()
		<-answer.left
		gone := leading.results(t)[0]
		aborted(t, leaving)
		got := staying.get(t.Context())
		calm(leaving, staying)
		require.Contains(t, gone.Err, context.Canceled.Error())
		f.requireOneToken(t, 2, got)
		require.Zero(t, staying.observed().claims(tokenstore.ClaimWait), "the lease was free")
	})
}

package redisstore_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// These are tests of replicas that share tokens through a real Redis while something goes
// wrong. A replica that is killed or frozen is a process of its own, a worker. The others
// are in this process, and each has connections of its own.
//
// fleet_test.go of the parent module tests the same cases in all their variants, with a
// store in memory. What the tests here share is in scenario_test.go. S17 is in
// secrecy_test.go.

// leaderLease is how long other replicas wait for a leader that has died.
const leaderLease = 5 * time.Second

// resetConnections is the command that closes all connections to Redis but the caller's.
const resetConnections = "client kill type normal skipme yes"

// scoped has a replica ask for a token with these scopes.
func scoped(scopes ...string) func(*clientcredentials.Config) {
	return func(c *clientcredentials.Config) { c.Scopes = scopes }
}

// refreshing has a replica replace its tokens as early as possible: after half of their
// life.
func refreshing(c *clientcredentials.Config) { c.EarlyRefresh = time.Hour }

// A cold start of 20 processes takes one token request.
func TestS01_ColdStart(t *testing.T) {
	t.Parallel()
	var workers []*worker
	for range 20 {
		workers = append(workers, startWorker(t))
	}
	scenario(t, func(t *trial, f *fleet) {
		f.startAll(t, workers...)
		f.holdNext()
		for _, w := range workers {
			w.get(t, 10)
		}
		f.next(t)()
		var results []result
		for _, w := range workers {
			results = append(results, w.receive(t).Results...)
		}
		f.requireOneToken(t, 1, results...)
	})
	for _, w := range workers {
		w.quit(t)
	}
}

// When the leader is killed, one other replica takes its place as soon as its lease has
// run out.
func TestS02_LeaderKilled(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		leader, followers := startWorker(t), f.replicas(t, 5)
		f.startAll(t, leader)
		f.holdNext()
		leader.get(t, 10)
		f.next(t)
		start, following := time.Now(), f.follow(t, followers...)
		leader.kill()
		f.requireOneToken(t, 2, following.results(t)...)
		// The lease and the longest pause between two polls, and as much again for a machine
		// that is busy.
		require.Less(t, time.Since(start), 2*(leaderLease+1250*time.Millisecond))
	})
}

// A leader that was frozen for longer than its lease doesn't overwrite the token that
// another replica has published since, and uses that token itself.
func TestS03_LeaderFrozen(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		leader, follower := startWorker(t), f.replica(t)
		f.startAll(t, leader)
		f.holdNext()
		leader.get(t, 10)
		release := f.next(t)
		leader.freeze(t)
		newer := follower.get(t.Context())
		before := f.version(t)
		release()
		leader.thaw(t)
		older := leader.receive(t)
		leader.awaitSeen(t, func(seen observed) bool { return seen.lost() == 1 }, "its record is refused")
		require.Equal(t, before, f.version(t))
		f.requireOneToken(t, 2, append(older.Results, newer)...)
		leader.quit(t)
	})
}

// When Redis goes away while replicas wait for a leader, they go on without it. When it
// comes back at once, they go on waiting.
func TestS04_RedisGoesAway(t *testing.T) {
	t.Parallel()
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t *trial, f *fleet) {
			replicas := f.replicas(t, 10)
			leading, release := f.lead(t, replicas[0])
			following := f.follow(t, replicas[1:]...)
			f.redis.kill()
			requireTokens(t, following.results(t)...)
			release()
			requireTokens(t, leading.results(t)...)
			f.requireRequests(t, len(replicas))
		})
	})
	t.Run("connections reset", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t *trial, f *fleet) {
			replicas := f.replicas(t, 10)
			leading, release := f.lead(t, replicas[0])
			following := f.follow(t, replicas[1:]...)
			do(t, f.admin, resetConnections)
			for _, r := range replicas[1:] {
				asked := r.observed().waits()
				f.await(t, func() bool { return r.observed().waits() > asked }, "a replica polls again")
			}
			release()
			f.requireOneToken(t, 1, append(leading.results(t), following.results(t)...)...)
		})
	})
}

// Callers get tokens while Redis is frozen, without waiting for it.
func TestS05_RedisFrozen(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	replicas := f.replicas(t, 5)
	f.redis.freeze(t)
	start := time.Now()
	requireTokens(t, getAll(t.Context(), 50, replicas...)...)
	require.Less(t, time.Since(start), patience)
	f.requireRequests(t, len(replicas))
}

// Replicas that start without Redis share tokens as soon as it is there.
func TestS06_RedisComesLater(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.redis.kill()
	replicas := f.replicas(t, 2)
	require.Len(t, requireTokens(t, getAll(t.Context(), 10, replicas...)...), 2)
	f.redis.restart(t)
	requireShared(t, replicas...)
}

// requireShared waits until siblings of the replicas, which have no token yet, share one.
func requireShared(t testing.TB, replicas ...*replica) {
	t.Helper()
	eventually(t, func() bool {
		var siblings []*replica
		for _, r := range replicas {
			siblings = append(siblings, r.sibling())
		}
		return len(requireTokens(t, getAll(t.Context(), 1, siblings...)...)) == 1
	}, "replicas share a token again")
}

// A Redis that is just slower than the budget makes a few token requests slower, and
// hardly any after that.
func TestS07_RedisSlow(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.spec.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return slowConn{conn}, err
	}
	r, start := f.replica(t), time.Now()
	for range 100 {
		requireTokens(t, r.sibling().get(t.Context()))
	}
	f.requireRequests(t, 100)
	// Three failures, and a call that begins while the third is being noted. Then one call
	// for each pause, and a pause is no shorter than 0.75 s.
	require.LessOrEqual(t, len(r.observed()), 4+int(time.Since(start)/(750*time.Millisecond)))
	require.GreaterOrEqual(t, len(r.observed()), 3)
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
	// Redis loses the record. The next replica requests a token, and the one after it shares
	// that token.
	t.Run("eviction", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t *trial, f *fleet) {
			first := f.replica(t).get(t.Context())
			key := f.onlyKey(t)
			do(t, f.admin, "config set maxmemory 4mb")
			for i := 0; f.admin.Exists(t.Context(), key).Val() == 1; i++ {
				require.Less(t, i, 1_000_000)
				require.NoError(t, f.admin.Set(t.Context(), fmt.Sprint("junk", i), make([]byte, 10_000), 0).Err())
			}
			do(t, f.admin, "config set maxmemory 0")
			second, third := f.replica(t).get(t.Context()), f.replica(t).get(t.Context())
			require.NotEqual(t, requireOneToken(t, first), requireOneToken(t, second, third))
		}, "maxmemory-policy allkeys-random")
	})
}

// However many replicas report a token, one new token is requested, and a report that
// comes late does no harm to it.
func TestS09_Invalidate(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		late, others := f.replica(t), f.replicas(t, 10)
		first := getAll(t.Context(), 1, append(others, late)...)
		refused := late.token(t)
		report(refused, others...)
		second := getAll(t.Context(), 1, others...)
		before := f.version(t)
		report(refused, late)
		f.requireOneToken(t, 2, append(second, late.get(t.Context()))...)
		require.Equal(t, refused.AccessToken, requireOneToken(t, first...))
		require.Equal(t, before, f.version(t))
	})
}

// A leader doesn't publish a token that it requested before an invalidation: that token
// may be invalid too. The leader acquires the lease once more.
func TestS10_InvalidateDuringFlight(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		f.TokenLifetime = 20 * time.Second
		leader, other := f.replica(t, refreshing), f.replica(t)
		requireOneToken(t, leader.get(t.Context()), other.get(t.Context()))
		refused := other.token(t)
		f.holdNext()
		f.await(t, func() bool {
			leader.token(t) // It refreshes in the background.
			return f.arrivals.Load() == 2
		}, "the token is replaced early")
		release := f.next(t)
		report(refused, other)
		f.await(t, func() bool { return other.observed().succeeded("invalidate") == 1 }, "the record is removed")
		release()
		f.await(t, func() bool { return leader.token(t).AccessToken != refused.AccessToken }, "the leader has the new token")
		require.Equal(t, 1, leader.observed().lost())
		f.requireOneToken(t, 3, leader.get(t.Context()), other.get(t.Context()))
	})
}

// A token that was invalidated while Redis was down comes back with Redis. The replica
// that has invalidated it doesn't use it again, and replaces it for all.
func TestS11_InvalidateWhileDown(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		knows, other := f.replica(t), f.replica(t)
		refused := knows.token(t)
		require.NoError(t, f.admin.Save(t.Context()).Err())
		f.redis.kill()
		report(refused, knows)
		eventually(t, func() bool {
			return knows.observed().count(func(op operation) bool { return op.Name == "invalidate" && op.Err != "" }) == 1
		}, "the invalidation has failed")
		f.redis.restart(t)
		eventually(t, func() bool { return knows.client.Ping(t.Context()).Err() == nil }, "a replica is connected")
		require.NotEmpty(t, f.version(t), "the record is back")
		got := requireOneToken(t, knows.get(t.Context()), other.get(t.Context()))
		require.NotEqual(t, refused.AccessToken, got)
		f.requireRequests(t, 2)
	})
}

// When the authorization server asks to be left alone, all replicas leave it alone.
func TestS12_Cooldown(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		const pause = 5 * time.Second
		f.Latency = 300 * time.Millisecond // Gives the others time to see that one leads.
		f.Script(clientcredentialstest.TooManyRequests(pause))
		replicas := f.replicas(t, 20, func(c *clientcredentials.Config) { c.Retry.MaxAttempts = 1 })
		start := time.Now()
		for _, result := range getAll(t.Context(), 1, replicas...) {
			require.Contains(t, result.Err, "temporarily_unavailable")
		}
		f.await(t, func() bool { return replicas[0].get(t.Context()).Err == "" }, "the pause ends")
		require.Greater(t, time.Since(start), pause-50*time.Millisecond)
		f.requireOneToken(t, 2, getAll(t.Context(), 1, replicas...)...)
	})
}

// The others wait for a leader whose authorization server is slower than the first lease.
func TestS13_SlowServer(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		replicas := f.replicas(t, 5)
		leading, release := f.lead(t, replicas[0])
		following := ask(t.Context(), replicas[1:]...)
		// By then the first lease has run out.
		f.await(t, func() bool { return replicas[0].observed().succeeded("renew") >= 4 }, "the lease is renewed")
		release()
		f.requireOneToken(t, 1, append(leading.results(t), following.results(t)...)...)
	})
}

// A token is replaced before it expires, with one request for all replicas.
func TestS14_EarlyRefresh(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		f.TokenLifetime = 10 * time.Second
		replicas := f.replicas(t, 20, refreshing)
		tokens := make(map[string]bool)
		for len(tokens) < 3 {
			for _, token := range requireTokens(t, getAll(t.Context(), 1, replicas...)...) {
				tokens[token] = true
			}
			<-time.After(20 * time.Millisecond)
		}
		f.requireRequests(t, len(tokens))
	})
}

// A shared token ends in time, whatever the clocks of the replicas say. Redis doesn't keep a
// token forever that never expires.
func TestS15_Expiry(t *testing.T) {
	t.Parallel()
	t.Run("clocks", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t *trial, f *fleet) {
			f.TokenLifetime = 10 * time.Minute
			results := []result{f.replica(t).get(t.Context())}
			synctest.Test(t.T, func(*testing.T) { // In a bubble it is the year 2000.
				wrong, err := newReplica(f.spec)
				require.NoError(t, err)
				results = append(results, wrong.get(t.Context()))
				time.Sleep(5 * time.Minute) // by this replica's clock, and no other
				sibling := wrong.sibling()
				results = append(results, sibling.get(t.Context()))
				sibling.stop()
				wrong.close()
			})
			f.requireOneToken(t, 1, results...)
			for _, result := range results {
				require.LessOrEqual(t, result.Left, 10*time.Minute)
				require.Greater(t, result.Left, 8*time.Minute)
			}
		})
	})
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t *trial, f *fleet) {
			f.Script(clientcredentialstest.Fault{Body: `{"access_token":"token","token_type":"Bearer"}`})
			for range 2 {
				got := f.replica(t).get(t.Context())
				require.Equal(t, "token", requireOneToken(t, got))
				require.Zero(t, got.Left)
			}
			ttl, err := f.admin.PTTL(t.Context(), f.onlyKey(t)).Result()
			require.NoError(t, err)
			require.Positive(t, ttl)
			require.LessOrEqual(t, ttl, 24*time.Hour, "the service may never come back")
		})
	})
}

// readChanged has one replica publish a token, and replaces the data of the record. It then
// has another replica ask for a token, and checks that this one left the record as it was.
func (f *fleet) readChanged(t testing.TB, change func(data []byte) []byte) (published, got string) {
	t.Helper()
	published = requireOneToken(t, f.replica(t).get(t.Context()))
	key := f.onlyKey(t)
	read := func() map[string]string {
		fields, err := f.admin.HGetAll(t.Context(), key).Result()
		require.NoError(t, err)
		return fields
	}
	require.NoError(t, f.admin.HSet(t.Context(), key, "data", change([]byte(read()["data"]))).Err())
	before := read()
	got = requireOneToken(t, f.replica(t).get(t.Context()))
	require.Equal(t, before, read())
	return published, got
}

// What a replica can't read, it leaves alone: others may be able to read it.
func TestS16_Unreadable(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		published, got := f.readChanged(t, func(data []byte) []byte {
			data[len(data)/2] ^= 1
			return data
		})
		require.NotEqual(t, published, got)
		f.requireRequests(t, 2)
	})
}

// Replicas share a token only if it is for the same scopes, in whatever order.
func TestS18_Identity(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		var results []result
		for _, scopes := range [][]string{{"read"}, {"read", "write"}, {"write", "read"}} {
			results = append(results, f.replica(t, scoped(scopes...)).get(t.Context()))
		}
		require.NotEqual(t, results[0].Token, requireOneToken(t, results[1:]...))
		require.Len(t, f.keys(t), 2)
		f.requireRequests(t, 2)
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
		{"with more members", `{"media_type":"application/json","body":"` + body + `","age":0,"ttl":3600000000000,"later":{"a":[1]}}`, true},
		{"without members", `{}`, false},
		{"no JSON", "\x02later", false},
		{"another body", `{"media_type":"application/json","body":"AAAA","age":0,"ttl":3600000000000}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			scenario(t, func(t *trial, f *fleet) {
				f.spec.Keys = nil
				_, got := f.readChanged(t, func([]byte) []byte { return []byte(c.data) })
				require.Equal(t, c.read, got == "later")
			})
		})
	}
}

// A replica that shuts down while it leads gives its lease back.
func TestS20_Changes(t *testing.T) {
	t.Parallel()
	scenario(t, func(t *trial, f *fleet) {
		leaving, staying := f.replica(t), f.replica(t)
		leading, _ := f.lead(t, leaving)
		leaving.stop()
		require.Contains(t, leading.results(t)[0].Err, context.Canceled.Error())
		f.awaitAbort(t, leaving)
		f.requireOneToken(t, 2, staying.get(t.Context()))
		require.Zero(t, staying.observed().waits(), "the lease was free")
	})
}

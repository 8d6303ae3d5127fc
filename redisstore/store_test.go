package redisstore_test

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/redisstore"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A connect returns a new client of the same Redis each time.
type connect func(t *testing.T) redis.UniversalClient

// connectTo connects to a single server.
func connectTo(options redis.Options) connect {
	return func(t *testing.T) redis.UniversalClient { return closed(t, redis.NewClient(&options)) }
}

// asUser returns the options of the user that permit is about.
func asUser(addr string) redis.Options {
	return redis.Options{Addr: addr, Username: userName, Password: userPassword}
}

// A Store does what tokenstore.Store says, however Redis is deployed.
func TestStore(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) connect{
		"single": func(t *testing.T) connect { return connectTo(redis.Options{Addr: startRedis(t).addr}) },
		"RESP2":  func(t *testing.T) connect { return connectTo(redis.Options{Addr: startRedis(t).addr, Protocol: 2}) },
		"permissions": func(t *testing.T) connect {
			s := startRedis(t)
			permit(t, s.client(t), documentedPermissions(t)[0])
			return connectTo(asUser(s.addr))
		},
		"TLS":      startTLSRedis,
		"cluster":  func(t *testing.T) connect { return startCluster(t).connect("", "") },
		"sentinel": func(t *testing.T) connect { return startWatchedPair(t).client },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connect := start(t)
			storetest.Run(t, func(t *testing.T) tokenstore.Store { return &redisstore.Store{Client: connect(t)} })
		})
	}
}

const (
	userName     = "clientcredentials"
	userPassword = "of-the-user"
)

// documentedPermissions returns the rules of the two ACL SETUSER commands in doc.go: those
// that every user needs, and those that a user of a Redis Cluster needs as well.
func documentedPermissions(t *testing.T) [2][]string {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	found := regexp.MustCompile(`ACL SETUSER `+userName+` (.*)`).FindAllStringSubmatch(string(doc), -1)
	require.Len(t, found, 2)
	return [2][]string{strings.Fields(found[0][1]), strings.Fields(found[1][1])}
}

// permit gives the user these rules, and no others.
func permit(t *testing.T, admin *redis.Client, rules []string) {
	t.Helper()
	do(t, admin, "acl setuser "+userName+" reset "+strings.Replace(strings.Join(rules, " "), ">PASSWORD", ">"+userPassword, 1))
}

// startTLSRedis starts a server that speaks only TLS, with a certificate of httptest.
func startTLSRedis(t *testing.T) connect {
	web := httptest.NewTLSServer(nil)
	web.Close()
	pair := web.TLS.Certificates[0]
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "redis.pem")
	text := append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	require.NoError(t, os.WriteFile(path, text, 0o600))
	s := startServer(t, nil, []string{
		"port 0", "tls-port PORT", "tls-auth-clients no", "tls-cert-file " + path, "tls-key-file " + path, "tls-ca-cert-file " + path,
	})
	return connectTo(redis.Options{Addr: s.addr, TLSConfig: web.Client().Transport.(*http.Transport).TLSClientConfig})
}

// newKey returns a key like those that the core makes.
func newKey() string { return hex.EncodeToString(randomKey()) }

const (
	leaseTime  = 10 * time.Second
	recordTime = time.Hour
)

var record = tokenstore.Record{Version: "version1", Data: []byte("data\x00\r\n\xff")}

// lead has owner acquire the lease on key.
func lead(t *testing.T, s *redisstore.Store, key, owner string) {
	t.Helper()
	claim, err := s.Acquire(t.Context(), key, "", owner, leaseTime)
	require.NoError(t, err)
	require.Equal(t, tokenstore.Claim{State: tokenstore.ClaimLead, TTL: leaseTime}, claim)
}

// requireHit checks that Acquire finds record under key.
func requireHit(t *testing.T, s *redisstore.Store, key string) {
	t.Helper()
	claim, err := s.Acquire(t.Context(), key, "", "reader", leaseTime)
	require.NoError(t, err)
	require.LessOrEqual(t, claim.TTL, recordTime)
	require.Greater(t, claim.TTL, recordTime-time.Minute)
	claim.TTL = 0
	require.Equal(t, tokenstore.Claim{State: tokenstore.ClaimHit, Record: record}, claim)
}

// useAll runs every script on key, and leaves record under it.
func useAll(t *testing.T, s *redisstore.Store, key string) {
	t.Helper()
	ctx := t.Context()
	lead(t, s, key, "first")
	require.NoError(t, s.Abort(ctx, key, "first", nil, 0))
	lead(t, s, key, "second")
	require.NoError(t, s.Renew(ctx, key, "second", leaseTime))
	require.NoError(t, s.Publish(ctx, key, "second", record, recordTime))
	require.NoError(t, s.Invalidate(ctx, key, record.Version))
	lead(t, s, key, "third")
	require.NoError(t, s.Publish(ctx, key, "third", record, recordTime))
	requireHit(t, s, key)
}

// The documented permissions are enough, each of them is needed, and they permit nothing
// else.
func TestPermissions(t *testing.T) {
	t.Parallel()
	documented := documentedPermissions(t)
	t.Run("single", func(t *testing.T) {
		t.Parallel()
		s := startRedis(t)
		testPermissions(t, documented[0], []*redis.Client{s.client(t)}, connectTo(asUser(s.addr)))
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		c := startCluster(t)
		testPermissions(t, slices.Concat(documented[0], documented[1]), c.admins, c.connect(userName, userPassword))
	})
}

func testPermissions(t *testing.T, rules []string, admins []*redis.Client, connect connect) {
	permitAll := func(rules []string) *redisstore.Store {
		for _, admin := range admins {
			do(t, admin, "script flush")
			permit(t, admin, rules)
		}
		return &redisstore.Store{Client: connect(t)}
	}
	s := permitAll(rules)
	for range 10 { // So that each node of a cluster gets some of the keys.
		useAll(t, s, newKey())
	}
	const key = "clientcredentials:x"
	for _, command := range []string{"get " + key, "del " + key, "hgetall " + key, "keys *", "flushall", "script flush", "monitor"} {
		require.ErrorContains(t, s.Client.Do(t.Context(), words(command)...).Err(), "NOPERM", command)
	}
	other := &redisstore.Store{Client: s.Client, Prefix: "other:"}
	_, err := other.Acquire(t.Context(), newKey(), "", "owner", leaseTime)
	require.ErrorContains(t, err, "permission")

	for i, rule := range rules {
		if !strings.HasPrefix(rule, "+") || rule == "+asking" {
			continue // TestCluster shows that asking is needed.
		}
		s := permitAll(slices.Delete(slices.Clone(rules), i, i+1))
		_, err := s.Acquire(t.Context(), newKey(), "", "owner", leaseTime)
		if err == nil {
			err = s.Publish(t.Context(), newKey(), "owner", record, recordTime)
		}
		require.Error(t, err, "without %s", rule)
		require.NotErrorIs(t, err, tokenstore.ErrLeaseLost, "without %s", rule)
	}
}

// A server that has forgotten the scripts gets them again.
func TestScriptsForgotten(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	admin := server.client(t)
	s := &redisstore.Store{Client: server.client(t)}
	useAll(t, s, newKey())
	do(t, admin, "script flush")
	useAll(t, s, newKey())

	// A server that knows them doesn't.
	do(t, admin, "config resetstat")
	useAll(t, s, newKey())
	stats, err := admin.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	require.Contains(t, stats, "cmdstat_evalsha:")
	require.NotContains(t, stats, "cmdstat_eval:")

	server.kill()
	server.restart(t)
	useAll(t, s, newKey())
}

// A key expires when the last of its record, lease and cooldown does.
func TestExpiry(t *testing.T) {
	t.Parallel()
	client := startRedis(t).client(t)
	s := &redisstore.Store{Client: client}
	ctx, key := t.Context(), newKey()
	acquire := func(stale string, lease time.Duration) error {
		claim, err := s.Acquire(ctx, key, stale, "owner", lease)
		require.Equal(t, tokenstore.ClaimLead, claim.State)
		return err
	}
	renew := func(lease time.Duration) error { return s.Renew(ctx, key, "owner", lease) }
	publish := func(ttl time.Duration) error { return s.Publish(ctx, key, "owner", record, ttl) }
	abort := func(cooldown time.Duration) error { return s.Abort(ctx, key, "owner", nil, cooldown) }
	invalidate := func() error { return s.Invalidate(ctx, key, record.Version) }
	requireTTL := func(minutes int, err error) { // 0: there is no key
		t.Helper()
		require.NoError(t, err)
		ttl, err := client.PTTL(ctx, redisstore.DefaultPrefix+key).Result()
		require.NoError(t, err)
		want := time.Duration(minutes) * time.Minute
		require.LessOrEqual(t, ttl, want)
		require.Greater(t, ttl, want-patience)
		require.Equal(t, want == 0, ttl == -2) // Redis' answer for a key that doesn't exist.
	}

	requireTTL(1, acquire("", time.Minute))
	requireTTL(10, publish(10*time.Minute))
	requireTTL(10, acquire(record.Version, time.Minute)) // The record stays.
	requireTTL(20, renew(20*time.Minute))
	requireTTL(10, renew(time.Minute))
	requireTTL(20, acquire(record.Version, 20*time.Minute))
	requireTTL(10, abort(0))
	requireTTL(10, acquire(record.Version, time.Minute))
	requireTTL(30, abort(30*time.Minute))
	requireTTL(30, invalidate()) // The cooldown stays.
	data, err := client.HGet(ctx, redisstore.DefaultPrefix+key, "data").Result()
	require.NoError(t, err)
	require.Empty(t, data)

	key = newKey()
	requireTTL(1, acquire("", time.Minute))
	requireTTL(0, abort(0))
	requireTTL(1, acquire("", time.Minute))
	requireTTL(1, publish(time.Minute))
	requireTTL(0, invalidate())
	requireTTL(1, acquire("", time.Minute))
	requireTTL(0, publish(0))

	// A token may never expire. Nothing overflows.
	const forever = 1<<63 - 1
	require.NoError(t, acquire("", time.Minute))
	require.NoError(t, publish(forever))
	claim, err := s.Acquire(ctx, key, "", "owner", time.Minute)
	require.NoError(t, err)
	require.Equal(t, tokenstore.ClaimHit, claim.State)
	require.Greater(t, claim.TTL, forever-time.Hour)
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	client := startRedis(t).client(t)
	key := newKey()
	lead(t, &redisstore.Store{Client: client}, key, "one")
	lead(t, &redisstore.Store{Client: client, Prefix: "staging:"}, key, "another")
	keys, err := client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"clientcredentials:" + key, "staging:" + key}, keys)
}

// Whatever is wrong with Redis, the error names the operation, and reveals nothing of what
// was to be kept.
func TestErrors(t *testing.T) {
	t.Parallel()
	key := newKey()
	// on returns a Store on a Redis that was prepared by do.
	on := func(do func(s *server, client *redis.Client) error, config ...string) func(*testing.T) *redisstore.Store {
		return func(t *testing.T) *redisstore.Store {
			s := startRedis(t, config...)
			require.NoError(t, do(s, s.client(t)))
			return &redisstore.Store{Client: connectTo(redis.Options{Addr: s.addr})(t), Prefix: "x"}
		}
	}
	ctx := t.Context()
	for _, c := range []struct {
		name  string
		store func(t *testing.T) *redisstore.Store // that fails
		want  string
	}{
		{"no Client", func(*testing.T) *redisstore.Store { return new(redisstore.Store) }, "has no Client"},
		{"a nil Client", func(*testing.T) *redisstore.Store { return &redisstore.Store{Client: (*redis.Client)(nil)} }, "has no Client"},
		{"no Store", func(*testing.T) *redisstore.Store { return nil }, "has no Client"},
		{"down", on(func(s *server, _ *redis.Client) error { s.kill(); return nil }), "connect"},
		{"another type", on(func(_ *server, client *redis.Client) error { return client.Set(ctx, "x"+key, "text", 0).Err() }), "WRONGTYPE"},
		{"a hash of others", on(func(_ *server, client *redis.Client) error {
			return client.HSet(ctx, "x"+key, "expiry", time.Now().Add(time.Hour).UnixMilli(), "lease", "x").Err()
		}), "reply"},
		{"wrong password", func(t *testing.T) *redisstore.Store {
			return &redisstore.Store{Client: connectTo(asUser(startRedis(t).addr))(t)}
		}, "WRONGPASS"},
		// Redis quotes the arguments of a command that it doesn't know.
		{"no scripts", on(func(*server, *redis.Client) error { return nil }, `rename-command EVALSHA ""`), "unknown command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.store(t)
			check := func(operation string, err error) {
				t.Helper()
				require.ErrorContains(t, err, "oauth2: ")
				require.ErrorContains(t, err, c.want)
				require.NotErrorIs(t, err, tokenstore.ErrLeaseLost)
				if c.want != "has no Client" {
					require.ErrorContains(t, err, "redisstore: "+operation+": ")
				}
				require.NotRegexp(t, "DATA|"+userPassword, fmt.Sprintf("%v %+v %#v", err, err, err))
			}
			data := []byte(strings.Repeat("DATA", 100))
			claim, err := s.Acquire(ctx, key, "version", "owner", leaseTime)
			check("acquire", err)
			require.Zero(t, claim)
			if c.want == "reply" {
				return
			}
			check("renew", s.Renew(ctx, key, "owner", leaseTime))
			check("publish", s.Publish(ctx, key, "owner", tokenstore.Record{Version: "version", Data: data}, time.Hour))
			check("abort", s.Abort(ctx, key, "owner", data, time.Hour))
			check("invalidate", s.Invalidate(ctx, key, "version"))
		})
	}
}

// A reply that none of the scripts makes is an error.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, reply := range []any{
		int64(2),
		[]any{"lead", int64(1), "", "", ""},
		[]any{"other", int64(1), "", ""},
		[]any{"hit", int64(1), "1", nil},
		[]any{"wait", int64(1), nil, ""},
		[]any{"lead", "1", "", ""},
	} {
		ctx, s := t.Context(), &redisstore.Store{Client: answering{reply: reply}}
		claim, err := s.Acquire(ctx, newKey(), "", "owner", leaseTime)
		require.Zero(t, claim)
		for operation, err := range map[string]error{
			"acquire": err,
			"renew":   s.Renew(ctx, newKey(), "owner", leaseTime),
			"publish": s.Publish(ctx, newKey(), "owner", record, leaseTime),
		} {
			require.ErrorContains(t, err, "redisstore: "+operation+": a reply of type", "%v", reply)
		}
	}
}

// answering is a client that always gets the same reply from Redis or a proxy.
type answering struct {
	redis.UniversalClient
	reply any
}

func (a answering) EvalSha(context.Context, string, []string, ...any) *redis.Cmd {
	return redis.NewCmdResult(a.reply, nil)
}

// A Redis that is full or read-only changes nothing, and still returns what it has.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		refuse, allow string // commands
		want          string
	}{
		{"full", "config set maxmemory 1", "config set maxmemory 0", "OOM"},
		{"read-only", "replicaof 127.0.0.1 1", "replicaof no one", "READONLY"},
		{"without replicas", "config set min-replicas-to-write 1", "config set min-replicas-to-write 0", "NOREPLICAS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := startRedis(t).client(t)
			s := &redisstore.Store{Client: client}
			ctx := t.Context()
			published, leased := newKey(), newKey()
			useAll(t, s, published)
			lead(t, s, leased, "owner")
			contents := func(key string) map[string]string {
				fields, err := client.HGetAll(ctx, redisstore.DefaultPrefix+key).Result()
				require.NoError(t, err)
				return fields
			}
			before := []map[string]string{contents(published), contents(leased)}

			do(t, client, c.refuse)
			requireHit(t, s, published)
			claim, err := s.Acquire(ctx, leased, "", "another", leaseTime)
			require.NoError(t, err)
			require.Equal(t, tokenstore.ClaimWait, claim.State)
			_, err = s.Acquire(ctx, published, record.Version, "owner", leaseTime)
			refused := []error{
				err, s.Renew(ctx, leased, "owner", leaseTime), s.Publish(ctx, leased, "owner", record, recordTime),
				s.Abort(ctx, leased, "owner", nil, time.Hour), s.Abort(ctx, leased, "owner", nil, 0),
			}
			if c.want != "OOM" { // A token can be removed from a Redis that is full.
				refused = append(refused, s.Invalidate(ctx, published, record.Version))
			}
			for _, err := range refused {
				require.ErrorContains(t, err, c.want)
			}
			require.Equal(t, before[0], contents(published))
			require.Equal(t, before[1], contents(leased))
			if c.want == "OOM" {
				require.NoError(t, s.Invalidate(ctx, published, record.Version))
				require.Empty(t, contents(published))
			}

			do(t, client, c.allow)
			require.NoError(t, s.Publish(ctx, leased, "owner", record, recordTime))
			requireHit(t, s, leased)
		})
	}
}

// A cluster has keys on all of its nodes, and works while they move. The documented
// permissions are enough for that.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	documented := documentedPermissions(t)
	for _, admin := range c.admins {
		permit(t, admin, slices.Concat(documented[0], documented[1]))
	}
	s := &redisstore.Store{Client: c.connect(userName, userPassword)(t)}
	ctx := t.Context()
	seen := make(map[int]bool)
	for i := 0; len(seen) < len(c.servers); i++ {
		require.Less(t, i, 1000)
		key := newKey()
		useAll(t, s, key)
		seen[c.find(t, redisstore.DefaultPrefix+key)] = true
	}

	key := newKey()
	lead(t, s, key, "owner")
	c.move(t, redisstore.DefaultPrefix+key, func() {
		claim, err := s.Acquire(ctx, key, "", "another", leaseTime)
		require.NoError(t, err)
		require.Equal(t, tokenstore.ClaimWait, claim.State)
		require.Equal(t, "owner", claim.Owner)
	})
	require.NoError(t, s.Publish(ctx, key, "owner", record, recordTime))
	requireHit(t, s, key)
	require.NoError(t, s.Invalidate(ctx, key, record.Version))
}

// When the master is gone, its replica takes over with the records that it has. The last
// write may be lost.
func TestSentinel(t *testing.T) {
	t.Parallel()
	p := startWatchedPair(t, "user replica on >replica ~* &* +@all", "masteruser replica", "masterauth replica")
	s := &redisstore.Store{Client: p.client(t)}
	kept, lost := newKey(), newKey()
	useAll(t, s, kept)
	master := p.master.client(t)
	eventually(t, func() bool { return master.Wait(t.Context(), 1, time.Second).Val() == 1 }, "the replica has it")
	do(t, master, "acl deluser replica") // Nothing is replicated from now on.
	useAll(t, s, lost)

	p.master.kill()
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Acquire(ctx, newKey(), "", "owner", leaseTime)
		return err == nil
	}, "the replica takes writes")
	requireHit(t, s, kept)
	useAll(t, s, lost)
}

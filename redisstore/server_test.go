package redisstore_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A server is a redis-server.
type server struct {
	*process
	t    *testing.T // the server ends with this test, however often it is started
	port int
	addr string
	dir  string
	args []string
}

// startRedis starts a redis-server with more lines of configuration.
func startRedis(t *testing.T, config ...string) *server {
	t.Helper()
	return startServer(t, nil, append([]string{
		"port PORT", `save ""`, "appendonly no", "repl-diskless-sync-delay 0",
	}, config...))
}

// startServer starts a redis-server with arguments and a configuration, in which PORT
// stands for the server's port, and BUS for another port. Without redis-server it
// skips the test, or fails it if servers are required.
func startServer(t *testing.T, args, config []string) *server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		const why = "redis-server isn't here; run `make setup`"
		if os.Getenv("CLIENTCREDENTIALS_REQUIRE_SERVERS") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	s := &server{t: t, dir: t.TempDir()}
	path := filepath.Join(s.dir, "redis.conf")
	s.args = append([]string{program, path}, args...)
	config = append(config, "bind 127.0.0.1", "dir "+s.dir)
	for range 10 { // Another program may have one of the ports.
		bus := randomPort()
		s.port = randomPort()
		s.addr = fmt.Sprintf("127.0.0.1:%d", s.port)
		text := strings.NewReplacer("PORT", strconv.Itoa(s.port), "BUS", strconv.Itoa(bus)).Replace(strings.Join(config, "\n"))
		require.NoError(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
		if s.run() {
			return s
		}
		s.kill()
	}
	require.FailNow(t, "redis-server doesn't start", s.output())
	return nil
}

// run starts s at its port, and reports whether it has started.
func (s *server) run() bool {
	s.t.Helper()
	started := make(chan bool, 1)
	s.process = start(s.t, nil, func(line string) {
		has := func(text string) bool { return strings.Contains(line, text) }
		ok := has("Ready to accept connections") || has("Sentinel ID is")
		if ok || has("Failed listening on port") || has("FATAL CONFIG") {
			select {
			case started <- ok:
			default: // An earlier line has said so.
			}
		}
	}, s.args[0], s.args[1:]...)
	select {
	case ok := <-started:
		return ok
	case <-time.After(patience):
		return false
	}
}

// restart starts s again after kill, at the same port. What it had in memory is lost.
func (s *server) restart(t testing.TB) {
	t.Helper()
	require.True(t, s.run(), "redis-server doesn't start again: %v", s.output())
}

// client returns a client of s that may run every command.
func (s *server) client(t testing.TB) *redis.Client {
	t.Helper()
	return closed(t, redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true}))
}

// do runs a command, whose arguments have no spaces in them.
func do(t testing.TB, admin *redis.Client, command string) {
	t.Helper()
	require.NoError(t, admin.Do(t.Context(), words(command)...).Err())
}

func words(command string) (arguments []any) {
	for word := range strings.FieldsSeq(command) {
		arguments = append(arguments, word)
	}
	return arguments
}

// closed closes client at the end of the test.
func closed[C redis.UniversalClient](t testing.TB, client C) C {
	t.Helper()
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// eventually waits until ok returns true.
func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), what)
	}
}

// A cluster is a Redis Cluster of three masters.
type cluster struct {
	servers []*server
	admins  []*redis.Client // of the servers
}

// clusterSlots is the number of slots that keys are spread over.
const clusterSlots = 16_384

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := new(cluster)
	for i := range 3 {
		s := startRedis(t, "cluster-enabled yes", "cluster-port BUS", "cluster-node-timeout 5000")
		admin := s.client(t)
		c.servers, c.admins = append(c.servers, s), append(c.admins, admin)
		require.NoError(t, admin.ClusterAddSlotsRange(t.Context(), i*clusterSlots/3, (i+1)*clusterSlots/3-1).Err())
		do(t, admin, fmt.Sprint("cluster set-config-epoch ", i+1))
		config, err := admin.ConfigGet(t.Context(), "cluster-port").Result()
		require.NoError(t, err)
		do(t, c.admins[0], fmt.Sprint("cluster meet 127.0.0.1 ", s.port, " ", config["cluster-port"]))
	}
	for _, admin := range c.admins {
		eventually(t, func() bool {
			info, err := admin.ClusterInfo(t.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		}, "the cluster is ready")
	}
	return c
}

// connect returns how to connect to the cluster as this user. Empty: as the default user.
func (c *cluster) connect(user, password string) connect {
	options := redis.ClusterOptions{Username: user, Password: password, ContextTimeoutEnabled: true}
	for _, s := range c.servers {
		options.Addrs = append(options.Addrs, s.addr)
	}
	return func(t *testing.T) redis.UniversalClient { return closed(t, redis.NewClusterClient(&options)) }
}

// find returns the index of the node that has key, or -1.
func (c *cluster) find(t testing.TB, key string) int {
	t.Helper()
	for i, admin := range c.admins {
		if keys, err := admin.Keys(t.Context(), key).Result(); err == nil && slices.Contains(keys, key) {
			return i
		}
	}
	return -1
}

// move moves key, with its slot, to another node. It calls step after each step of that.
func (c *cluster) move(t testing.TB, key string, step func()) {
	t.Helper()
	ctx := t.Context()
	from := c.find(t, key)
	require.NotEqual(t, -1, from)
	to := (from + 1) % len(c.admins)
	slot, err := c.admins[0].ClusterKeySlot(ctx, key).Result()
	require.NoError(t, err)
	ids := make([]string, len(c.admins))
	for i, admin := range c.admins {
		ids[i], err = admin.Do(ctx, "cluster", "myid").Text()
		require.NoError(t, err)
	}
	setSlot := func(node int, state string) {
		t.Helper()
		do(t, c.admins[node], fmt.Sprintf("cluster setslot %d %s", slot, state))
	}
	setSlot(to, "importing "+ids[from])
	setSlot(from, "migrating "+ids[to])
	step() // The key is still on the old node.
	require.NoError(t, c.admins[from].Migrate(ctx, "127.0.0.1", strconv.Itoa(c.servers[to].port), key, 0, patience).Err())
	require.Equal(t, to, c.find(t, key))
	step()                    // The old node answers ASK.
	for i := range c.admins { // The new node first.
		setSlot((to+i)%len(c.admins), "node "+ids[to])
	}
	step() // The old node answers MOVED.
}

// A watchedPair is a master that has a replica and is watched by a Sentinel.
type watchedPair struct{ master, sentinel *server }

const masterName = "tokens"

func startWatchedPair(t *testing.T, config ...string) *watchedPair {
	t.Helper()
	p := &watchedPair{master: startRedis(t, config...)}
	startRedis(t, append(config, fmt.Sprintf("replicaof 127.0.0.1 %d", p.master.port))...)
	p.sentinel = startServer(t, []string{"--sentinel"}, []string{
		"port PORT",
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 1", masterName, p.master.port),
		"sentinel down-after-milliseconds " + masterName + " 1000",
		"sentinel failover-timeout " + masterName + " 3000",
	})
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: p.sentinel.addr})
	defer sentinel.Close()
	eventually(t, func() bool {
		replicas, err := sentinel.Replicas(t.Context(), masterName).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	}, "the Sentinel knows the replica")
	return p
}

func (p *watchedPair) client(t *testing.T) redis.UniversalClient {
	t.Helper()
	return closed(t, redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: masterName, SentinelAddrs: []string{p.sentinel.addr}, ContextTimeoutEnabled: true,
	}))
}

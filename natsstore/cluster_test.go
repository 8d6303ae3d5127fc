package natsstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"

	"github.com/stretchr/testify/require"
)

// startCluster returns three servers that form a cluster, and their addresses for
// clients.
func startCluster(tb testing.TB) (servers []*testServer, urls string) {
	tb.Helper()
	ports := freePorts(tb, 3)
	var routes []*url.URL
	for _, port := range ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	var clients []string
	for i, port := range ports {
		s := startServer(tb, func(o *server.Options) {
			o.ServerName = fmt.Sprintf("n%d", i+1)
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}
			o.Routes = routes
		})
		servers = append(servers, s)
		clients = append(clients, s.url())
	}
	return servers, strings.Join(clients, ",")
}

// stopLeader stops the server that leads the bucket, and returns it.
func stopLeader(tb testing.TB, servers []*testServer, js jetstream.JetStream) *testServer {
	tb.Helper()
	var leader *testServer
	eventually(tb, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, "KV_"+testBucket)
		if err != nil {
			return err
		}
		for _, s := range servers {
			if cluster := stream.CachedInfo().Cluster; cluster != nil && cluster.Leader == s.options.ServerName {
				leader = s
				return nil
			}
		}
		return errors.New("no leader")
	})
	leader.stop()
	return leader
}

func TestCluster(t *testing.T) {
	servers, urls := startCluster(t)
	s, other := newStore(t, urls), newStore(t, urls)
	createBucket(t, s.JetStream, func(c *jetstream.KeyValueConfig) { c.Replicas = 3 })
	t.Run("contract", func(t *testing.T) { testContract(t, func(tb testing.TB) *Store { return newStore(tb, urls) }) })

	// Whoever leads, what was written remains: a record, and who holds a lease.
	k, l := testKey("k"), testKey("l")
	v1 := tokenstore.Record{Version: "v1", Data: []byte("1")}
	eventually(t, func(ctx context.Context) error {
		_, err := s.Acquire(ctx, k, "", "a", time.Hour)
		return err
	})
	require.NoError(t, s.Publish(withDeadline(t), k, "a", v1, time.Hour))
	lead(t, s, l, "", "a")
	stopped := stopLeader(t, servers, s.JetStream)

	// While there is no leader calls fail, in time.
	for _, store := range []*Store{s, other} {
		eventually(t, func(ctx context.Context) error {
			_, err := store.Acquire(ctx, testKey("m"), "", "c", time.Hour)
			return err
		})
		requireClaim(t, store, k, "", "b", hit(v1))
		requireClaim(t, store, l, "", "b", wait("a"))
	}
	require.NoError(t, s.Publish(withDeadline(t), l, "a", v1, time.Hour))

	stopped.start()
	for _, store := range []*Store{s, other} {
		eventually(t, func(ctx context.Context) error {
			claim, err := store.Acquire(ctx, l, "", "b", time.Hour)
			if err == nil && claim.State != tokenstore.ClaimHit {
				return fmt.Errorf("the state is %v", claim.State) // The server has to catch up first.
			}
			return err
		})
	}
}

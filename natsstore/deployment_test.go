package natsstore

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

var v1 = tokenstore.Record{Version: "v1", Data: []byte("1")}

// warm has a new Store ask for the time while the machine is not busy: its clock is as
// exact as the answer is fast.
func warm(tb testing.TB, s *Store) *Store {
	tb.Helper()
	eventually(tb, func(ctx context.Context) error { return s.Invalidate(ctx, testKey("w"), "none") })
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	server, _ := startStore(t)
	storetest.Run(t, func(t *testing.T) tokenstore.Store { return warm(t, newStore(t, server.url())) })
}

// The documented permissions are enough, also for data that never fits into the entry.
func TestPermissions(t *testing.T) {
	t.Parallel()
	guarded := startGuarded(t, "")
	storetest.Run(t, func(t *testing.T) tokenstore.Store { return padded{warm(t, guarded(t))} })
}

// A padded Store makes each record a large one.
type padded struct{ tokenstore.Store }

var padding = make([]byte, maxInline+1)

func (p padded) Publish(ctx context.Context, key, owner string, r tokenstore.Record, ttl time.Duration) error {
	r.Data = append(bytes.Clone(padding), r.Data...)
	return p.Store.Publish(ctx, key, owner, r, ttl)
}

func (p padded) Acquire(ctx context.Context, key, stale, owner string, lease time.Duration) (tokenstore.Claim, error) {
	claim, err := p.Store.Acquire(ctx, key, stale, owner, lease)
	if claim.State == tokenstore.ClaimHit {
		claim.Record.Data = claim.Record.Data[len(padding):]
	}
	return claim, err
}

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

func TestCluster(t *testing.T) {
	servers, urls := startCluster(t)
	s, other := newStore(t, urls), newStore(t, urls)
	createBucket(t, s.JetStream, func(c *jetstream.KeyValueConfig) { c.Replicas = 3 })
	t.Run("contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) tokenstore.Store { return warm(t, newStore(t, urls)) })
	})

	// A record and a lease survive a change of the leader.
	k, l := testKey("k"), testKey("l")
	acquirable(t, s, k, "a")
	require.NoError(t, s.Publish(withDeadline(t), k, "a", v1, time.Hour))
	lead(t, s, l, "", "a")
	leader := slices.IndexFunc(servers, func(s *testServer) bool { return s.running.JetStreamIsStreamLeader("$G", "KV_"+testBucket) })
	require.GreaterOrEqual(t, leader, 0)
	servers[leader].stop()

	// While there is no leader, calls fail in time.
	for _, store := range []*Store{s, other} {
		acquirable(t, store, testKey("m"), "c")
		requireClaim(t, store, k, "", "b", hit(v1))
		requireClaim(t, store, l, "", "b", wait("a"))
	}
	require.NoError(t, s.Publish(withDeadline(t), l, "a", v1, time.Hour))
}

// A leaf node has a JetStream of its own. The JetStream of the hub is reached by its domain,
// or by the prefix of its API.
func TestDomain(t *testing.T) {
	t.Parallel()
	port := freePorts(t, 1)[0]
	hub := startServer(t, func(o *server.Options) {
		o.JetStreamDomain = "hub"
		o.LeafNode = server.LeafNodeOpts{Host: "127.0.0.1", Port: port}
	})
	leaf := startServer(t, func(o *server.Options) {
		o.ServerName = "n2"
		o.JetStreamDomain = "leaf"
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats-leaf", Host: fmt.Sprintf("127.0.0.1:%d", port)}}}}
	})
	direct := newStore(t, hub.url())
	createBucket(t, direct.JetStream)
	connection := connect(t, leaf.url()).Conn()
	byDomain, err := jetstream.NewWithDomain(connection, "hub")
	require.NoError(t, err)
	byPrefix, err := jetstream.NewWithAPIPrefix(connection, "$JS.hub.API")
	require.NoError(t, err)
	for i, js := range []jetstream.JetStream{byDomain, byPrefix} {
		s := warm(t, &Store{JetStream: js, Bucket: testBucket})
		key := testKey(fmt.Sprint(i))
		publish(t, s, key, "", v1)
		requireClaim(t, direct, key, "", "b", hit(v1))
	}
}

// documented are the permissions in the package documentation, to publish and to subscribe.
var documented = []string{"$JS.API.STREAM.INFO.KV_tokens", "$JS.API.STREAM.MSG.GET.KV_tokens", "$KV.tokens.>", "_INBOX_tokens.>"}

// startGuarded returns a function that returns a new Store of a user with the documented
// permissions but one.
func startGuarded(t *testing.T, missing string) func(t *testing.T) *Store {
	t.Helper()
	allowed := slices.Clone(documented)
	if i := slices.Index(allowed, missing); i >= 0 {
		allowed[i] = "nothing"
	}
	s := startServer(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "admin"},
			{Username: "service", Password: "service", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: allowed[:3]},
				Subscribe: &server.SubjectPermission{Allow: allowed[3:]},
			}},
		}
	})
	createBucket(t, connect(t, s.url(), nats.UserInfo("admin", "admin")))
	return func(t *testing.T) *Store {
		return newStore(t, s.url(), nats.UserInfo("service", "service"), nats.CustomInboxPrefix("_INBOX_tokens"))
	}
}

// Each permission is needed. Without it the server doesn't answer, and the call ends with
// the timeout of the JetStream.
func TestPermissionsMissing(t *testing.T) {
	t.Parallel()
	for _, missing := range documented {
		store := startGuarded(t, missing)(t)
		js, err := jetstream.New(store.JetStream.Conn(), jetstream.WithDefaultTimeout(250*time.Millisecond))
		require.NoError(t, err)
		store.JetStream = js
		_, err = store.Acquire(t.Context(), testKey("k"), "", "a", time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded, missing)
	}
}

package natsstore

import (
	"context"
	"fmt"
	"net/url"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A leaf node has a JetStream of its own. What is in that of the hub is reached by its
// domain, or by the prefix of its API.
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
		s := &Store{JetStream: js, Bucket: testBucket}
		key := testKey(fmt.Sprint(i))
		eventually(t, func(ctx context.Context) error { return s.Invalidate(ctx, key, "none") })
		v1 := tokenstore.Record{Version: "v1", Data: []byte("1")}
		publish(t, s, key, "", v1)
		requireClaim(t, direct, key, "", "b", hit(v1))
	}
}

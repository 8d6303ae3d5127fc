package natsstore

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// The permissions in the package's documentation.
var (
	publishSubjects = []string{
		"$JS.API.STREAM.INFO.KV_tokens",
		"$JS.API.STREAM.MSG.GET.KV_tokens",
		"$KV.tokens.>",
	}
	subscribeSubjects = []string{"_INBOX_tokens.>"}
)

// startGuarded returns a server with a bucket, and a user of these permissions.
func startGuarded(t *testing.T, publish, subscribe []string) *testServer {
	t.Helper()
	s := startServer(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "admin"},
			{Username: "service", Password: "service", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: publish},
				Subscribe: &server.SubjectPermission{Allow: subscribe},
			}},
		}
	})
	createBucket(t, connect(t, s.url(), nats.UserInfo("admin", "admin")))
	return s
}

func asService(tb testing.TB, s *testServer) *Store {
	tb.Helper()
	return newStore(tb, s.url(), nats.UserInfo("service", "service"), nats.CustomInboxPrefix("_INBOX_tokens"))
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	store := asService(t, startGuarded(t, publishSubjects, subscribeSubjects))
	key := testKey("k")
	v1 := tokenstore.Record{Version: "v1", Data: largeData}
	lead(t, store, key, "", "a")
	require.NoError(t, store.Renew(withDeadline(t), key, "a", time.Hour))
	require.NoError(t, store.Publish(withDeadline(t), key, "a", v1, time.Hour))
	requireClaim(t, store, key, "", "b", hit(v1))
	publish(t, store, key, "v1", tokenstore.Record{Version: "v2"})
	data, err := store.get(withDeadline(t), dataKey(key, "v1"))
	require.NoError(t, err)
	require.Empty(t, data.Data, "the data of the first record was to be removed")
	require.NoError(t, store.Invalidate(withDeadline(t), key, "v2"))
	lead(t, store, key, "", "c")
	require.NoError(t, store.Abort(withDeadline(t), key, "c", nil, time.Hour))
}

// Each of them is needed. Without one the server doesn't answer: what ends the call is its
// context, or else the timeout of the JetStream.
func TestPermissionsMissing(t *testing.T) {
	t.Parallel()
	for i, subject := range publishSubjects {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			requireNoAnswer(t, slices.Delete(slices.Clone(publishSubjects), i, i+1), subscribeSubjects)
		})
	}
	t.Run("subscribe", func(t *testing.T) {
		t.Parallel()
		requireNoAnswer(t, publishSubjects, []string{"nothing"})
	})
}

func requireNoAnswer(t *testing.T, publish, subscribe []string) {
	t.Helper()
	store := asService(t, startGuarded(t, publish, subscribe))
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	_, err := store.Acquire(ctx, testKey("k"), "", "a", time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	store.JetStream, err = jetstream.New(store.JetStream.Conn(), jetstream.WithDefaultTimeout(250*time.Millisecond))
	require.NoError(t, err)
	_, err = store.Acquire(t.Context(), testKey("k"), "", "a", time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

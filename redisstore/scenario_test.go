package redisstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

const (
	clientID     = "fleet-client"
	clientSecret = "fleet-secret"
)

// A fleet is an authorization server, a Redis, and what the replicas that use them have
// in common.
type fleet struct {
	*authority
	spec spec

	// A Redis Cluster and a watchedPair have neither of these.
	redis *server
	admin *redis.Client
}

// startFleet returns a fleet with a Redis of its own.
func startFleet(t *testing.T, config ...string) *fleet {
	t.Helper()
	server := startRedis(t, config...)
	f := newFleet(t, server.addr)
	f.redis, f.admin = server, server.client(t)
	return f
}

// newFleet returns a fleet that uses the Redis at these addresses.
func newFleet(t *testing.T, addrs ...string) *fleet {
	t.Helper()
	a := startAuthority(t, clientcredentialstest.Client{ID: clientID, Secret: clientSecret})
	return &fleet{authority: a, spec: spec{
		Redis:    redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true},
		Addrs:    addrs,
		Keys:     [][]byte{randomKey()},
		TokenURL: a.url,
		ID:       clientID,
		Secret:   clientSecret,
		// Long enough that no attempt ends by itself.
		Retry: clientcredentials.RetryPolicy{AttemptTimeout: 2 * patience, TotalTimeout: 4 * patience},
	}}
}

func randomKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
}

// replica returns a new replica, which is connected to Redis if that is up.
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
	replicas := make([]*replica, n)
	for i := range replicas {
		replicas[i] = f.replica(t, changes...)
	}
	return replicas
}

// startAll makes workers replicas of f.
func (f *fleet) startAll(t *testing.T, workers ...*worker) {
	t.Helper()
	for _, w := range workers {
		w.send(t, command{Start: &f.spec})
	}
	for _, w := range workers {
		w.receive(t)
	}
}

// requireOneToken checks that all callers got the same token, and that there were this
// many token requests.
func (f *fleet) requireOneToken(t *testing.T, requests int, results ...result) {
	t.Helper()
	requireOneToken(t, results...)
	f.requireRequests(t, requests)
}

// onlyKey returns the one key in Redis.
func (f *fleet) onlyKey(t *testing.T) string {
	t.Helper()
	keys := f.keys(t)
	require.Len(t, keys, 1)
	return keys[0]
}

func (f *fleet) keys(t *testing.T) []string {
	t.Helper()
	keys, err := f.admin.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	return keys
}

// version returns the version of the record under the one key in Redis, or "" if there
// is none.
func (f *fleet) version(t *testing.T) string {
	t.Helper()
	version, err := f.admin.HGet(t.Context(), f.onlyKey(t), "version").Result()
	if !errors.Is(err, redis.Nil) {
		require.NoError(t, err)
	}
	return version
}

// scenario runs a test of a fleet with a Redis of its own. See undisturbed.
func scenario(t *testing.T, run func(t *testing.T, f *fleet), config ...string) {
	t.Helper()
	undisturbed(t, func(t *testing.T) { run(t, startFleet(t, config...)) })
}

// subscenario runs a scenario as a subtest, in parallel with others.
func subscenario(t *testing.T, name string, run func(t *testing.T, f *fleet)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		scenario(t, run)
	})
}

// undisturbed runs a test in which every call of the store has to be in time: replicas
// go on without a store that is slow. The test calls calm when it has done what it does,
// before it checks the outcome. If a call was slow because this machine was busy, the
// test runs again. Each attempt is a subtest, and cleans up after itself.
func undisturbed(t *testing.T, attempt func(t *testing.T)) {
	t.Helper()
	for range 50 {
		slow := false
		passed := t.Run("attempt", func(t *testing.T) {
			defer func() {
				switch v := recover(); v {
				case nil:
				case disturbance{}:
					slow = true
					t.Log("a call of the store was slow")
				default:
					panic(v)
				}
			}()
			attempt(t)
		})
		if !slow || !passed {
			return
		}
	}
	require.FailNow(t, "in every attempt a call of the store was slow")
}

// A disturbance is the value that an attempt panics with when a call was slow.
type disturbance struct{}

// calm ends the attempt if a call of the store was slow.
func (o observed) calm() {
	if o.slow() {
		panic(disturbance{})
	}
}

// calm ends the attempt if a call of the store by one of the replicas was slow.
func calm(replicas ...*replica) {
	for _, r := range replicas {
		r.observed().calm()
	}
}

// await waits until ok returns true. It ends the attempt if a call of the store by one
// of the replicas was slow.
func await(t *testing.T, ok func() bool, what string, replicas ...*replica) {
	t.Helper()
	slow := func(r *replica) bool { return r.observed().slow() }
	eventually(t, func() bool { return ok() || slices.ContainsFunc(replicas, slow) }, what)
	calm(replicas...)
}

// A pending is what callers, one of each replica, are waiting for.
type pending []<-chan result

// ask has one caller of each replica ask for a token.
func ask(ctx context.Context, replicas ...*replica) pending {
	var p pending
	for _, r := range replicas {
		c := make(chan result, 1)
		go func() { c <- r.get(ctx) }()
		p = append(p, c)
	}
	return p
}

// results waits for the results of all callers.
func (p pending) results(t *testing.T) []result {
	t.Helper()
	results := make([]result, len(p))
	for i, c := range p {
		select {
		case results[i] = <-c:
		case <-time.After(2 * patience):
			require.FailNow(t, "a caller waits forever")
		}
	}
	return results
}

// lead has a caller of r ask for a token, and returns the answer that the authorization
// server holds back from it.
func (f *fleet) lead(ctx context.Context, t *testing.T, r *replica) (pending, *heldAnswer) {
	t.Helper()
	f.hold(1)
	leading := ask(ctx, r)
	return leading, f.next(t)
}

// follow has one caller of each replica ask for a token while another replica leads. It
// returns when all of them wait for that one.
func follow(t *testing.T, replicas ...*replica) pending {
	t.Helper()
	following := ask(t.Context(), replicas...)
	for _, r := range replicas {
		await(t, func() bool { return r.observed().claims(tokenstore.ClaimWait) > 0 }, "a replica waits", replicas...)
	}
	return following
}

// aborted waits until r has told the store that its token request has failed.
func aborted(t *testing.T, r *replica) {
	t.Helper()
	await(t, func() bool { return r.observed().succeeded("abort") > 0 }, "a replica has ended its lease", r)
}

// token returns the token that r has.
func (r *replica) token(t *testing.T) *oauth2.Token {
	t.Helper()
	token, err := r.source.Token()
	require.NoError(t, err)
	return token
}

// report has each replica report, all at once, that the token was refused.
func report(token *oauth2.Token, replicas ...*replica) {
	var reports sync.WaitGroup
	for _, r := range replicas {
		reports.Go(func() { r.source.Invalidate(token) })
	}
	reports.Wait()
}

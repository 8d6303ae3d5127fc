package redisstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

const (
	clientID     = "fleet-client"
	clientSecret = "fleet-secret"
)

// A fleet is an authorization server, a Redis, and the replicas that use them.
type fleet struct {
	*authority
	spec    spec
	redis   *server
	admin   *redis.Client
	members []*replica
	workers []*worker
}

func startFleet(t *testing.T, config ...string) *fleet {
	t.Helper()
	s, a := startRedis(t, config...), startAuthority(t)
	return &fleet{
		authority: a, redis: s, admin: s.client(t),
		spec: spec{Addr: s.addr, Keys: [][]byte{randomKey()}, TokenURL: a.url},
	}
}

func randomKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
}

// replica returns a new replica, which is connected to Redis if that is up.
func (f *fleet) replica(t testing.TB, changes ...func(*clientcredentials.Config)) *replica {
	t.Helper()
	r, err := newReplica(f.spec, changes...)
	require.NoError(t, err)
	t.Cleanup(r.close)
	f.members = append(f.members, r)
	_ = r.client.Ping(t.Context())
	return r
}

func (f *fleet) replicas(t testing.TB, n int, changes ...func(*clientcredentials.Config)) []*replica {
	t.Helper()
	replicas := make([]*replica, n)
	for i := range replicas {
		replicas[i] = f.replica(t, changes...)
	}
	return replicas
}

// startAll makes workers replicas of f.
func (f *fleet) startAll(t testing.TB, workers ...*worker) {
	t.Helper()
	for _, w := range workers {
		w.send(t, command{Start: &f.spec})
	}
	for _, w := range workers {
		w.receive(t)
	}
	f.workers = append(f.workers, workers...)
}

// disturbed reports whether a call of the store was slow.
func (f *fleet) disturbed() bool {
	return slices.ContainsFunc(f.members, func(r *replica) bool { return r.observed().slow() }) ||
		slices.ContainsFunc(f.workers, func(w *worker) bool { return w.seen.slow() })
}

// disturbedSoon is disturbed, but first gives Observers that got no processor some time.
func (f *fleet) disturbedSoon() bool {
	for range 20 {
		if f.disturbed() {
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

// requireOneToken checks that all callers got the same token, and that there were this
// many token requests.
func (f *fleet) requireOneToken(t testing.TB, requests int, results ...result) {
	t.Helper()
	requireOneToken(t, results...)
	f.requireRequests(t, requests)
}

// keys returns the keys in Redis.
func (f *fleet) keys(t testing.TB) []string {
	t.Helper()
	keys, err := f.admin.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	return keys
}

// onlyKey returns the one key in Redis.
func (f *fleet) onlyKey(t testing.TB) string {
	t.Helper()
	keys := f.keys(t)
	require.Len(t, keys, 1)
	return keys[0]
}

// version returns the version of the record under the one key in Redis, or "" if there
// is none.
func (f *fleet) version(t testing.TB) string {
	t.Helper()
	version, err := f.admin.HGet(t.Context(), f.onlyKey(t), "version").Result()
	if !errors.Is(err, redis.Nil) {
		require.NoError(t, err)
	}
	return version
}

// scenario runs a test of a fleet in which every call of the store has to be in time:
// replicas go on without a store that is slow. If the test fails and a call was slow because
// this machine was busy, the test runs again with another fleet.
func scenario(t *testing.T, run func(t *trial, f *fleet), config ...string) {
	t.Helper()
	for range 50 {
		again := false
		t.Run("trial", func(t *testing.T) {
			f, trial, done := startFleet(t, config...), &trial{T: t}, make(chan struct{})
			go func() {
				defer close(done)
				run(trial, f)
			}()
			<-done
			switch {
			case trial.failure == "":
			case f.disturbedSoon():
				again = true
				t.Log("a call of the store was slow")
			default:
				t.Error(trial.failure)
			}
		})
		if !again {
			return
		}
	}
	require.FailNow(t, "in every trial a call of the store was slow")
}

// A trial is a test in a goroutine of its own. Its failure isn't the failure of T yet.
type trial struct {
	*testing.T
	failure string
}

// Errorf implements require.TestingT.
func (t *trial) Errorf(format string, args ...any) { t.failure += fmt.Sprintf(format, args...) }

// FailNow implements require.TestingT.
func (t *trial) FailNow() { runtime.Goexit() }

// await waits until ok returns true. It fails at once if a call of the store was slow.
func (f *fleet) await(t testing.TB, ok func() bool, what string) {
	t.Helper()
	eventually(t, func() bool { return ok() || f.disturbed() }, what)
	require.True(t, ok(), what)
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
func (p pending) results(t testing.TB) []result {
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

// lead has a caller of r ask for a token. It returns a function that sends the answer of the
// authorization server, which is held back.
func (f *fleet) lead(t testing.TB, r *replica) (leading pending, release func()) {
	t.Helper()
	f.holdNext()
	leading = ask(t.Context(), r)
	return leading, f.next(t)
}

// follow has one caller of each replica ask for a token while another replica leads. It
// returns when all of them wait for that one.
func (f *fleet) follow(t testing.TB, replicas ...*replica) pending {
	t.Helper()
	following := ask(t.Context(), replicas...)
	for _, r := range replicas {
		f.await(t, func() bool { return r.observed().waits() > 0 }, "a replica waits")
	}
	return following
}

// awaitAbort waits until r has told the store that its token request has failed.
func (f *fleet) awaitAbort(t testing.TB, r *replica) {
	t.Helper()
	f.await(t, func() bool { return r.observed().succeeded("abort") > 0 }, "a replica has ended its lease")
}

// token returns the token that r has.
func (r *replica) token(t testing.TB) *oauth2.Token {
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

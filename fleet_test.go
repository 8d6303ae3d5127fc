package clientcredentials_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A fleet is a service with many replicas, its authorization server, its API and its
// store, without sockets.
type fleet struct {
	auth    *clientcredentialstest.AuthorizationServer
	network http.RoundTripper // leads to the authorization server and to the API
	store   *storetest.Store
	keyring *clientcredentials.Keyring
	ctx     context.Context
	every   []*replica
}

// A replica is one instance of the service, with its own connection to the store.
type replica struct {
	*clientcredentials.Source
	conf       *clientcredentials.Config
	store      *storetest.Store
	mu         sync.Mutex             // protects operations
	operations []event.StoreOperation // what the Observer was told
}

// fleetBubble tests a fleet, with tokens of the given lifetime, in a synctest bubble.
func fleetBubble(t *testing.T, lifetime time.Duration, test func(t *testing.T, f *fleet)) {
	t.Helper()
	testkit.Synctest(t, func(t *testing.T) {
		auth := &clientcredentialstest.AuthorizationServer{
			Clients:       []clientcredentialstest.Client{{ID: "id", Secret: "secret"}},
			TokenLifetime: lifetime,
			Latency:       300 * time.Millisecond,
		}
		mux := http.NewServeMux()
		mux.Handle("auth.example/", auth)
		mux.Handle("api.example/", &clientcredentialstest.ResourceServer{Issuer: auth})
		f := &fleet{auth: auth, network: clientcredentialstest.HandlerTransport(mux), store: new(storetest.Store), keyring: keyring(t, 1)}
		f.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: f.network})
		defer f.repairStores() // Calls that hang would keep the bubble open.
		test(t, f)
		time.Sleep(250 * time.Millisecond) // Calls of the store may go on for that long in the background.
		synctest.Wait()
		require.Empty(t, auth.Violations())
	})
}

// fleetCase is fleetBubble for one row of a table, with tokens that live an hour.
func fleetCase(t *testing.T, name string, test func(t *testing.T, f *fleet)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { fleetBubble(t, time.Hour, test) })
}

// keyring returns a keyring with the keys of these numbers.
func keyring(t *testing.T, numbers ...byte) *clientcredentials.Keyring {
	t.Helper()
	var keys [][]byte
	for _, n := range numbers {
		keys = append(keys, append(bytes.Repeat([]byte{n}, 31), n+1))
	}
	ring, err := clientcredentials.NewKeyring(keys...)
	require.NoError(t, err)
	return ring
}

// replica adds a replica to the fleet.
func (f *fleet) replica(change ...func(*clientcredentials.Config)) *replica {
	r := &replica{store: f.store.Connect()}
	r.conf = &clientcredentials.Config{
		ClientID:     "id",
		ClientSecret: "secret",
		TokenURL:     "https://auth.example/token",
		AuthStyle:    oauth2.AuthStyleInHeader,
		Store:        clientcredentials.Seal(r.store, f.keyring),
		Observer: &clientcredentials.Observer{StoreOperation: func(info event.StoreOperation) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.operations = append(r.operations, info)
		}},
	}
	for _, c := range change {
		c(r.conf)
	}
	r.Source = r.conf.Source(f.ctx)
	f.every = append(f.every, r)
	return r
}

func (f *fleet) replicas(n int, change ...func(*clientcredentials.Config)) []*replica {
	replicas := make([]*replica, n)
	for i := range replicas {
		replicas[i] = f.replica(change...)
	}
	return replicas
}

// stoppable adds a replica to the fleet, and returns it with a function that shuts it down.
func (f *fleet) stoppable() (*replica, context.CancelFunc) {
	ctx, stop := context.WithCancel(f.ctx)
	r := f.replica()
	r.Source = r.conf.Source(ctx)
	return r, stop
}

// once is for a replica that tries each token request once.
func once(c *clientcredentials.Config) { c.Retry.MaxAttempts = 1 }

// rotated is for a replica that has a new secret.
func rotated(c *clientcredentials.Config) { c.ClientSecret = "rotated" }

// scoped is for a replica that wants a token with these scopes.
func scoped(scopes ...string) func(*clientcredentials.Config) {
	return func(c *clientcredentials.Config) { c.Scopes = scopes }
}

// breakStores gives the connections of these replicas to the store a fault.
func breakStores(fault storetest.Fault, replicas ...*replica) {
	for _, r := range replicas {
		r.store.SetFault(&fault)
	}
}

// repairStores ends what breakStores began, for the whole fleet.
func (f *fleet) repairStores() {
	for _, r := range f.every {
		r.store.SetFault(nil)
	}
}

// refuse gives the authorization server a fault that stays.
func (f *fleet) refuse(fault clientcredentialstest.Fault) { f.auth.SetFault(&fault) }

// get returns the replica's token and how long that took.
func (r *replica) get(t *testing.T) (string, time.Duration) {
	t.Helper()
	start := time.Now()
	token := r.token(t)
	return token.AccessToken, time.Since(start)
}

func (r *replica) token(t *testing.T) *oauth2.Token {
	t.Helper()
	token, err := r.Token()
	require.NoError(t, err)
	return token
}

// fail requires that the replica gets an error that contains text. It returns when the store
// knows of the failure.
func (r *replica) fail(t *testing.T, text string) {
	t.Helper()
	_, err := r.Token()
	require.ErrorContains(t, err, text)
	synctest.Wait()
}

// failures returns the errors of the store that the replica has seen.
func (r *replica) failures() (errs []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, info := range r.operations {
		if info.Err != nil {
			errs = append(errs, info.Err)
		}
	}
	return errs
}

// firstKey returns the key of the replica's first call of the store.
func firstKey(r *replica) string { return r.store.Calls()[0].Key }

// all has several callers of each replica get a token at the same time. It returns the
// different tokens and errors that they got, and the longest wait.
func all(replicas []*replica, callers int) (results []string, longest time.Duration) {
	var (
		mu   sync.Mutex // protects seen and longest
		wg   sync.WaitGroup
		seen = make(map[string]bool)
	)
	for _, r := range replicas {
		for range callers {
			wg.Go(func() {
				start := time.Now()
				token, err := r.Token()
				took := time.Since(start)
				mu.Lock()
				defer mu.Unlock()
				longest = max(longest, took)
				if err != nil {
					seen["error: "+err.Error()] = true
				} else {
					seen[token.AccessToken] = true
				}
			})
		}
	}
	wg.Wait()
	return slices.Collect(maps.Keys(seen)), longest
}

// allShare is all, and requires that everybody gets the same token.
func allShare(t *testing.T, replicas []*replica, callers int) (string, time.Duration) {
	t.Helper()
	results, longest := all(replicas, callers)
	require.Len(t, results, 1)
	require.NotContains(t, results[0], "error")
	return results[0], longest
}

// allFail is all, and requires that everybody gets an error that contains text.
func allFail(t *testing.T, replicas []*replica, callers int, text string) time.Duration {
	t.Helper()
	results, longest := all(replicas, callers)
	for _, result := range results {
		require.Contains(t, result, "error: ")
		require.Contains(t, result, text)
	}
	return longest
}

// ask sends a request with the replica's token to the API, and returns the status. A nil
// base is the fleet's network.
func (f *fleet) ask(t *testing.T, r *replica, base http.RoundTripper) int {
	t.Helper()
	if base == nil {
		base = f.network
	}
	resp, err := (&http.Client{Transport: &clientcredentials.Transport{Source: r.Source, Base: base}}).Get("https://api.example/")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// key returns the key under which the fleet's token is kept.
func (f *fleet) key(t *testing.T) string {
	t.Helper()
	keys := f.store.Keys()
	require.Len(t, keys, 1)
	return keys[0]
}

func TestS01_ColdFleetMakesOneRequest(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		first, longest := allShare(t, f.replicas(50), 10)
		require.Equal(t, 1, f.auth.TokenRequests())
		require.LessOrEqual(t, longest, 450*time.Millisecond, "polling adds a quarter of the wait, and jitter")

		token, took := f.replica().get(t)
		require.Zero(t, took, "a later replica finds the token in the store")
		require.Equal(t, first, token)
		require.Equal(t, 1, f.auth.TokenRequests())
	})
}

func TestS01_TheTokenIsTheSameInAllRespects(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 0
		f.auth.Script(clientcredentialstest.Fault{Body: `{"access_token":"a","token_type":"beaReR","expires_in":3600,"refresh_token":"r","scope":"x","n":1}`})
		first := f.replica().token(t)
		time.Sleep(time.Minute)
		second := f.replica().token(t)
		require.False(t, second.Expiry.After(first.Expiry))
		require.WithinDuration(t, first.Expiry, second.Expiry, 5*time.Second, "the record may reach the store as late as the end of the lease")
		second.Expiry = first.Expiry
		require.Equal(t, first, second)
		require.Equal(t, "x", second.Extra("scope"))
		require.InDelta(t, 1, second.Extra("n"), 0)
	})
}

func TestS02_DeadLeader(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		// The leader dies while it holds the lease.
		leader, die := f.stoppable()
		f.auth.Script(clientcredentialstest.Fault{Delay: time.Minute})
		go func() { _, _ = leader.Token() }()
		time.Sleep(100 * time.Millisecond)
		breakStores(storetest.Unavailable(), leader)
		die()

		_, longest := allShare(t, f.replicas(20), 3)
		require.Equal(t, 2, f.auth.TokenRequests())
		require.LessOrEqual(t, longest, 7*time.Second, "the lease, a quarter of the wait, the request")
	})
}

func TestS03_LateLeader(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Script(clientcredentialstest.Fault{Delay: 9 * time.Second})
		late := f.replica(func(c *clientcredentials.Config) { c.Retry.AttemptTimeout = 20 * time.Second })
		var got string
		var wg sync.WaitGroup
		wg.Go(func() { got, _ = late.get(t) })
		time.Sleep(time.Second)
		f.store.Flush() // The lease is gone, and the leader doesn't notice for a while.
		token, _ := f.replica().get(t)
		wg.Wait()
		require.Equal(t, token, got, "the late leader uses the newer token")
		require.Equal(t, 2, f.auth.TokenRequests())
		again, _ := f.replica().get(t)
		require.Equal(t, token, again, "the newer token stays in the store")
		require.Contains(t, late.failures(), tokenstore.ErrLeaseLost)
	})
}

// The store fails in each way at each moment. Nobody gets an error, and nobody waits
// longer than without a store by more than the budget.
func TestS04_S05_StoreFailsAtAnyMoment(t *testing.T) {
	for name, fault := range map[string]storetest.Fault{
		"refused": storetest.Unavailable(),
		"reset":   storetest.ReplyLost(),
		"frozen":  {Hang: true},
		"slow":    {Delay: time.Minute},
	} {
		for _, after := range []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, 299 * time.Millisecond, 310 * time.Millisecond} {
			fleetCase(t, fmt.Sprintf("%s/%v", name, after), func(t *testing.T, f *fleet) {
				replicas := f.replicas(10)
				if after == 0 {
					breakStores(fault, replicas...)
				} else {
					time.AfterFunc(after, func() { breakStores(fault, replicas...) })
				}
				start := time.Now()
				results, longest := all(replicas, 3)
				require.NotContains(t, strings.Join(results, " "), "error")
				if after == 0 {
					require.LessOrEqual(t, longest, 550*time.Millisecond)
				}
				// A replica that has waited for another one must now request a token itself.
				require.LessOrEqual(t, longest, after+250*time.Millisecond+300*time.Millisecond+150*time.Millisecond)
				require.LessOrEqual(t, f.auth.TokenRequests(), len(replicas))

				time.Sleep(time.Minute - time.Since(start))
				before := f.auth.TokenRequests()
				_, longest = all(replicas, 3)
				require.Zero(t, longest, "a replica that has a token doesn't notice")
				require.Equal(t, before, f.auth.TokenRequests())

				f.repairStores()
				time.Sleep(57*time.Minute - 30*time.Second)
				all(replicas, 1) // Stale: replaced in the background.
				time.Sleep(10 * time.Second)
				_, longest = allShare(t, replicas, 1)
				require.Zero(t, longest)
				require.Equal(t, before+1, f.auth.TokenRequests())
			})
		}
	}
}

// The reply to Acquire is lost: nobody waits for the lease that was granted.
func TestS04_AcquiredWithoutReply(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		r.store.Script(storetest.Fault{Operation: "acquire", Reply: true, Err: errors.New("reset")})
		r.get(t)
		_, took := f.replica().get(t)
		require.Equal(t, 300*time.Millisecond, took)
	})
}

// One lost renewal doesn't end the sharing.
func TestS04_LostRenewal(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 4 * time.Second
		leader := f.replica()
		leader.store.Script(storetest.Fault{Operation: "renew", Err: errors.New("reset")})
		token, _ := leader.get(t)
		other, _ := f.replica().get(t)
		require.Equal(t, token, other)
	})
}

// A service with many tenants has a store whose client ignores its context. The number of
// goroutines stays bounded.
func TestS05_NoPileUpOnAFrozenStore(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		store := f.store.Connect()
		store.SetFault(&storetest.Fault{Hang: true})
		shared := clientcredentials.Seal(store, f.keyring)
		before := runtime.NumGoroutine()
		for i := range 300 {
			_, took := f.replica(scoped(fmt.Sprint(i)), func(c *clientcredentials.Config) { c.Store = shared }).get(t)
			require.LessOrEqual(t, took, 550*time.Millisecond)
		}
		require.LessOrEqual(t, runtime.NumGoroutine()-before, 110)
		require.Less(t, len(store.Calls()), 60, "the store is left alone most of the time")
		store.SetFault(nil)
	})
}

// All calls of a slow store that somebody waits for share one budget.
func TestS07_OneBudget(t *testing.T) {
	slow := func(operation event.Operation, milliseconds int) storetest.Fault {
		return storetest.Fault{Operation: operation, Delay: time.Duration(milliseconds) * time.Millisecond}
	}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, f *fleet, r *replica)
		shared  bool // the record reaches the store, even if nobody waits for that anymore
	}{
		"acquire and publish": {func(_ *testing.T, _ *fleet, r *replica) {
			r.store.Script(slow("acquire", 240), slow("publish", 240))
		}, true},
		"acquire and renew": {func(_ *testing.T, f *fleet, r *replica) {
			f.auth.Latency = 1700 * time.Millisecond
			r.store.Script(slow("acquire", 200), slow("renew", 240))
		}, true},
		"invalidate": {func(t *testing.T, _ *fleet, r *replica) {
			token := r.token(t)
			time.Sleep(time.Minute)
			breakStores(slow("", 200), r)
			r.Invalidate(token)
		}, false},
		"old records": {func(t *testing.T, f *fleet, r *replica) {
			f.replica().get(t)
			time.Sleep(time.Hour - 9*time.Second)
			breakStores(slow("", 200), r)
		}, false},
	} {
		fleetCase(t, name, func(t *testing.T, f *fleet) {
			r := f.replica()
			test.prepare(t, f, r)
			token, took := r.get(t)
			require.LessOrEqual(t, took, f.auth.Latency+250*time.Millisecond)
			time.Sleep(time.Minute)
			if test.shared {
				other, _ := f.replica().get(t)
				require.Equal(t, token, other)
			}
		})
	}
}

// A slow store doesn't end the wait for another replica, because its calls cost nothing
// during that wait.
func TestS07_SlowWhileWaiting(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 3 * time.Second
		replicas := f.replicas(5)
		breakStores(storetest.Fault{Delay: 100 * time.Millisecond}, replicas...)
		allShare(t, replicas, 1)
		require.Equal(t, 1, f.auth.TokenRequests())
	})
}

func TestS08_StoreForgets(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(10)
		first, _ := allShare(t, replicas, 1)
		f.store.Flush()
		second, longest := allShare(t, replicas, 1)
		require.Zero(t, longest)
		require.Equal(t, first, second)
		allShare(t, f.replicas(10), 1)
		require.Equal(t, 2, f.auth.TokenRequests())
		time.Sleep(56 * time.Minute)
		for range 5 {
			all(replicas, 1)
			time.Sleep(time.Minute)
		}
		allShare(t, replicas, 1)
		require.Equal(t, 3, f.auth.TokenRequests())
	})
}

func TestS08_StoreRefuses(t *testing.T) {
	for _, operation := range []event.Operation{event.Acquire, event.Publish, event.Abort, event.Invalidate} {
		fleetCase(t, string(operation), func(t *testing.T, f *fleet) {
			replicas := f.replicas(3)
			breakStores(storetest.Fault{Operation: operation, Err: errors.New("NOPERM, READONLY, OOM")}, replicas...)
			f.auth.Script(clientcredentialstest.Fault{Status: http.StatusBadRequest})
			_, err := replicas[0].Token()
			require.Error(t, err)
			results, _ := all(replicas, 1)
			require.NotContains(t, strings.Join(results, " "), "error")
			for _, r := range replicas {
				r.Invalidate(r.token(t))
				r.get(t)
			}
			require.LessOrEqual(t, f.auth.TokenRequests(), 7)
		})
	}
}

// A store grants leases and refuses records. Replicas don't wait one after the other for
// leaders that can't share their token.
func TestS08_OnlyRecordsAreRefused(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(20)
		breakStores(storetest.Fault{Operation: "publish", Err: errors.New("too large")}, replicas...)
		_, longest := all(replicas, 1)
		require.LessOrEqual(t, longest, 2*time.Second)
	})
}

func TestS09_Invalidation(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(20)
		all(replicas, 1)
		var old []*oauth2.Token
		for _, r := range replicas {
			old = append(old, r.token(t))
		}
		f.auth.RevokeAll()
		var wg sync.WaitGroup
		for i, r := range replicas {
			for range 10 {
				wg.Go(func() {
					r.Invalidate(old[i])
					r.get(t)
				})
			}
		}
		wg.Wait()
		token, _ := allShare(t, replicas, 1)
		require.NotEqual(t, old[0].AccessToken, token)
		require.Equal(t, 2, f.auth.TokenRequests())

		for i, r := range replicas {
			r.Invalidate(old[i]) // Too late.
		}
		again, longest := allShare(t, slices.Concat(replicas, f.replicas(3)), 1)
		require.Equal(t, token, again)
		require.Zero(t, longest)
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// A token that an API has refused is removed from the store, so that a replica that starts
// later doesn't get it.
func TestS09_RefusedTokenLeavesTheStore(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		require.True(t, r.Reject(r.token(t)))
		synctest.Wait()
		require.Empty(t, f.store.Keys())
	})
}

// The leader gets no reply to Publish, or gets it too late. It knows that the token may
// be in the store, and doesn't use it again once it is invalid.
func TestS11_PublishedWithoutReply(t *testing.T) {
	for name, test := range map[string]struct {
		fault storetest.Fault
		after time.Duration // until the token is invalidated
	}{
		"lost":         {storetest.Fault{Operation: "publish", Reply: true, Err: errors.New("reset")}, time.Minute},
		"late":         {storetest.Fault{Operation: "publish", Reply: true, Delay: time.Second}, time.Minute},
		"not yet here": {storetest.Fault{Operation: "publish", Reply: true, Delay: 200 * time.Millisecond}, 0},
	} {
		fleetCase(t, name, func(t *testing.T, f *fleet) {
			r := f.replica()
			// The leader has waited for Acquire too, so that little of its budget is left.
			r.store.Script(storetest.Fault{Operation: "acquire", Delay: 200 * time.Millisecond}, test.fault)
			old := r.token(t)
			shared, _ := f.replica().get(t)
			require.Equal(t, old.AccessToken, shared)
			time.Sleep(test.after)
			f.auth.RevokeAll()
			r.Invalidate(old)
			fresh, _ := r.get(t)
			require.NotEqual(t, old.AccessToken, fresh)
			other, _ := f.replica().get(t)
			require.Equal(t, fresh, other)
			require.Equal(t, 2, f.auth.TokenRequests())
		})
	}
}

// All tokens are revoked while two replicas have different ones. The second replica sees one
// 401 at most, instead of all that come within half a minute.
func TestS09_RevokedTokensOfTwoAges(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		early := f.replica(func(c *clientcredentials.Config) { c.EarlyRefresh = 30 * time.Minute })
		late := f.replica()
		all([]*replica{early, late}, 1)
		time.Sleep(40 * time.Minute)
		early.get(t) // Starts the refresh.
		time.Sleep(time.Minute)
		f.auth.RevokeAll()
		failures := 0
		for range 10 {
			if f.ask(t, late, nil) != http.StatusOK {
				failures++
			}
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, failures, 1)
		require.Equal(t, 3, f.auth.TokenRequests())
	})
}

// stale has the replicas get a token, and returns it when it is so old that the next call
// starts a refresh. Token requests take as long as latency from then on.
func (f *fleet) stale(t *testing.T, latency time.Duration, replicas ...*replica) *oauth2.Token {
	t.Helper()
	all(replicas, 1)
	token := replicas[0].token(t)
	time.Sleep(57 * time.Minute)
	f.auth.Latency = latency
	return token
}

func TestS10_InvalidationDuringTheFlight(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		leader, other := f.replica(), f.replica()
		old := f.stale(t, 3*time.Second, leader, other)
		leader.get(t) // Starts the refresh.
		time.Sleep(time.Second)
		other.Invalidate(old)
		time.Sleep(3 * time.Second)
		require.Equal(t, 3, f.auth.TokenRequests(), "the leader doesn't publish the token, and requests another")
		current, _ := leader.get(t)
		require.Equal(t, old.AccessToken, current, "that request is still under way")
		time.Sleep(3 * time.Second)
		fresh, _ := leader.get(t)
		require.NotEqual(t, old.AccessToken, fresh)
		got, _ := other.get(t)
		require.Equal(t, fresh, got)
		require.Equal(t, 3, f.auth.TokenRequests())
	})
}

// A replica drops its own token, which it couldn't share, while it requests the next one. It
// doesn't take that one for good because it is in the store.
func TestS10_LocalInvalidationDuringTheFlight(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		r.store.Script(storetest.Unavailable())
		old := f.stale(t, f.auth.Latency, r)
		r.get(t) // Starts the refresh.
		time.Sleep(100 * time.Millisecond)
		r.Invalidate(old)
		requested := f.auth.TokenRequests()
		got, _ := r.get(t)
		require.Equal(t, requested+1, f.auth.TokenRequests())
		shared, _ := f.replica().get(t)
		require.Equal(t, got, shared)
	})
}

// An invalidation by the replica itself costs one more token request, as it does without
// a store.
func TestS10_OwnInvalidationDuringTheFlight(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		old := f.stale(t, 3*time.Second, r)
		r.get(t) // Starts the refresh.
		time.Sleep(time.Second)
		r.Invalidate(old)
		_, took := r.get(t)
		time.Sleep(10 * time.Second)
		require.Equal(t, 3, f.auth.TokenRequests())
		require.LessOrEqual(t, took, 5*time.Second+250*time.Millisecond)
	})
}

// Another replica has requested a token since the invalidation. That token is used, and
// stays in the store.
func TestS10_OvertakenAfterTheInvalidation(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		slow, quick := f.replica(), f.replica()
		old := f.stale(t, f.auth.Latency, slow, quick)
		f.auth.Script(clientcredentialstest.Fault{Delay: 3 * time.Second})
		slow.get(t) // Starts the refresh.
		time.Sleep(time.Second)
		slow.Invalidate(old)
		quick.Invalidate(old)
		fresh, _ := quick.get(t)
		again, _ := slow.get(t)
		require.Equal(t, fresh, again)
		require.Equal(t, 3, f.auth.TokenRequests())
		joined, _ := f.replica().get(t)
		require.Equal(t, fresh, joined)
	})
}

// A replica invalidates the token while it waits for a leader, and leads afterwards. Its
// request is younger than the invalidation, so one request is enough.
func TestS10_InvalidationWhileWaiting(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		leader, follower := f.replica(), f.replica()
		old := f.stale(t, 3*time.Second, leader, follower)
		leader.get(t)
		time.Sleep(100 * time.Millisecond)
		follower.get(t)
		time.Sleep(time.Second)
		follower.Invalidate(old)
		fresh, _ := follower.get(t)
		time.Sleep(10 * time.Second)
		again, _ := leader.get(t)
		require.Equal(t, fresh, again)
		require.Equal(t, 3, f.auth.TokenRequests())
	})
}

func TestS11_InvalidatedTokenReappears(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		first := r.token(t)
		breakStores(storetest.Unavailable(), r)
		r.Invalidate(first)
		second := r.token(t)
		require.NotEqual(t, first.AccessToken, second.AccessToken)
		f.repairStores()
		record, _ := f.store.Record(f.key(t))
		require.NotEmpty(t, record.Version, "the first token is still in the store")
		time.Sleep(10 * time.Second)
		r.Invalidate(second)
		third, _ := r.get(t)
		require.NotEqual(t, first.AccessToken, third)
		shared, _ := f.replica().get(t)
		require.Equal(t, third, shared)
	})
}

// The store doesn't learn that the first token was dropped, and its successor doesn't get
// there. The first token isn't used again.
func TestS11_NeverPublished(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		first := r.token(t)
		r.store.Script(storetest.Fault{Operation: "invalidate", Err: errors.New("down")}, storetest.Fault{Operation: "publish", Err: errors.New("down")})
		r.Invalidate(first)
		synctest.Wait()
		second := r.token(t)
		require.NotEqual(t, first.AccessToken, second.AccessToken)
		r.Invalidate(second)
		third, _ := r.get(t)
		require.NotEqual(t, first.AccessToken, third)
	})
}

func TestS12_SharedCooldown(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 0
		replicas := f.replicas(50)
		f.refuse(clientcredentialstest.TooManyRequests(time.Minute))
		for start := time.Now(); time.Since(start) < 5*time.Minute; time.Sleep(time.Second) {
			require.LessOrEqual(t, allFail(t, replicas, 2, "temporarily_unavailable"), time.Second)
		}
		require.LessOrEqual(t, f.auth.TokenRequests(), 6)
		require.GreaterOrEqual(t, f.auth.TokenRequests(), 4)
		_, err := replicas[7].Token()
		refusal, ok := err.(*oauth2.RetrieveError)
		require.True(t, ok)
		require.Equal(t, http.StatusTooManyRequests, refusal.Response.StatusCode)
		require.NotEmpty(t, refusal.Response.Header.Get("Retry-After"))
		require.Equal(t, "https://auth.example/token", refusal.Response.Request.URL.String())

		f.auth.SetFault(nil)
		time.Sleep(time.Minute)
		allShare(t, replicas, 2)
	})
}

// Waves of replicas start during an outage. Nobody waits longer for the error than without a
// store: all replicas that have waited for a leader share its error. Replicas that start
// during a cooldown wait for its end and for one more leader, but for no other cooldown.
func TestS12_FailureIsSharedByAllWhoWaited(t *testing.T) {
	type wave struct {
		replicas, callers int
		fails             string // the error; empty: they share a token
		longest           time.Duration
		requests          int // by all waves so far
	}
	const failure = "temporarily_unavailable"
	for name, test := range map[string]struct {
		failures, attempts int
		latency            time.Duration
		waves              []wave
	}{
		"several attempts":    {99, 3, 300 * time.Millisecond, []wave{{50, 2, failure, 4 * time.Second, 3}, {50, 2, failure, 6 * time.Second, 6}}},
		"one attempt":         {99, 1, 0, []wave{{1, 1, failure, 0, 1}, {20, 1, failure, 1500 * time.Millisecond, 2}}},
		"a slow server":       {99, 1, 6 * time.Second, []wave{{100, 1, failure, 7 * time.Second, 1}}}, // The replicas poll rarely in the end.
		"the server recovers": {3, 3, 300 * time.Millisecond, []wave{{1, 1, failure, 4 * time.Second, 3}, {10, 1, "", 2500 * time.Millisecond, 4}}},
	} {
		fleetCase(t, name, func(t *testing.T, f *fleet) {
			f.auth.Latency = test.latency
			f.auth.Script(slices.Repeat([]clientcredentialstest.Fault{clientcredentialstest.Unavailable()}, test.failures)...)
			for _, wave := range test.waves {
				replicas := f.replicas(wave.replicas, func(c *clientcredentials.Config) { c.Retry.MaxAttempts = test.attempts })
				var longest time.Duration
				if wave.fails != "" {
					longest = allFail(t, replicas, wave.callers, wave.fails)
				} else {
					_, longest = allShare(t, replicas, wave.callers)
				}
				synctest.Wait()
				require.LessOrEqual(t, longest, wave.longest)
				require.Equal(t, wave.requests, f.auth.TokenRequests())
			}
		})
	}
}

// A refusal may be due to one replica alone. It keeps the others away for a minute at most,
// and then the refused replica shares their token.
func TestS12_LongRetryAfterOfOneReplica(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Script(clientcredentialstest.TooManyRequests(time.Hour))
		refused, other := f.replica(), f.replica()
		refused.fail(t, "temporarily_unavailable")
		other.fail(t, "temporarily_unavailable")
		time.Sleep(time.Minute)
		want, _ := other.get(t)
		got, _ := refused.get(t)
		require.Equal(t, want, got)
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// The second refusal is believed.
func TestS12_LongRetryAfterOfAll(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.refuse(clientcredentialstest.TooManyRequests(time.Hour))
		replicas := f.replicas(20)
		for range 50 {
			allFail(t, replicas, 1, "temporarily_unavailable")
			time.Sleep(time.Minute)
		}
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// A failure that may be due to one replica alone isn't shared.
func TestS12_OwnFailuresAreNotShared(t *testing.T) {
	for name, fault := range map[string]clientcredentialstest.Fault{
		"invalid_client": clientcredentialstest.InvalidClient(),
		"reset":          clientcredentialstest.ConnectionReset(),
	} {
		fleetCase(t, name, func(t *testing.T, f *fleet) {
			f.auth.Script(fault)
			f.replica(once).fail(t, name)
			_, took := f.replica().get(t)
			require.Equal(t, 300*time.Millisecond, took)
		})
	}
}

// Replicas don't wait for a hundred leaders that fail one after the other.
func TestS12_EveryReplicaIsRefused(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.refuse(clientcredentialstest.InvalidClient())
		require.LessOrEqual(t, allFail(t, f.replicas(100), 2, "invalid_client"), 2*time.Second)
		require.LessOrEqual(t, f.auth.TokenRequests(), 100)
	})
}

// A store reports a cooldown that ended long ago. It isn't asked again and again without a
// pause.
func TestS12_NegativeCooldown(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Script(clientcredentialstest.TooManyRequests(time.Hour))
		f.replica().fail(t, "temporarily_unavailable")
		r := f.replica()
		breakStores(storetest.Fault{Operation: "acquire", Claim: func(c *tokenstore.Claim) { c.TTL = -time.Hour }}, r)
		r.get(t) // The server is asked.
		require.Less(t, len(r.store.Calls()), 500)
	})
}

func TestS13_ServerSlowerThanTheLease(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 9 * time.Second
		_, longest := allShare(t, f.replicas(20), 2)
		require.LessOrEqual(t, longest, 11*time.Second)
		require.Equal(t, 1, f.auth.TokenRequests(), "the lease is renewed")
	})
}

func TestS13_ServerHangs(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.refuse(clientcredentialstest.Fault{Delay: time.Hour})
		require.LessOrEqual(t, allFail(t, f.replicas(10), 2, ""), 30*time.Second, "no longer than without a store")
	})
}

func TestS13_LeadingCallerLeaves(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 3 * time.Second
		ctx, cancel := context.WithTimeout(f.ctx, 100*time.Millisecond)
		defer cancel()
		_, err := f.replica().TokenContext(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		allShare(t, f.replicas(5), 1)
		require.Equal(t, 1, f.auth.TokenRequests())
	})
}

func TestS15_Lifetimes(t *testing.T) {
	for expiresIn, requests := range map[string]int{ // at most
		`null`: 1, `0`: 1, `-5`: 5*10 + 5, `1`: 5*10 + 5, `2`: 5 * 10, `5`: 8, `11`: 2, `60`: 1, `3600`: 1, `2147483647`: 1, `1e12`: 1,
	} {
		fleetCase(t, expiresIn, func(t *testing.T, f *fleet) {
			f.auth.Latency = 0
			for n := range 1000 {
				f.auth.Script(clientcredentialstest.Fault{Body: fmt.Sprintf(`{"access_token":"t%d","expires_in":%s}`, n, expiresIn)})
			}
			replicas := f.replicas(5)
			for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(50 * time.Millisecond) {
				all(replicas, 1)
			}
			require.Positive(t, f.auth.TokenRequests())
			require.LessOrEqual(t, f.auth.TokenRequests(), requests, "no worse than without a store")
		})
	}
}

// A replica doesn't start with a token that is about to expire, because it would have to
// wait for the next one at once.
func TestS15_RecordThatIsAboutToExpire(t *testing.T) {
	fleetBubble(t, 10*time.Minute, func(t *testing.T, f *fleet) {
		old, _ := f.replica().get(t)
		time.Sleep(9*time.Minute + 52*time.Second)
		record, _ := f.store.Record(f.key(t))
		require.NotEmpty(t, record.Version, "the token is still in the store")
		token, took := f.replica().get(t)
		require.NotEqual(t, old, token)
		require.Equal(t, 300*time.Millisecond, took)
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// No replica uses a token longer than the replica that has requested it. Clocks play no
// part.
func TestS15_SharedTokenExpiresInTime(t *testing.T) {
	fleetBubble(t, 10*time.Minute, func(t *testing.T, f *fleet) {
		first, _ := f.replica().get(t)
		start := time.Now()
		f.refuse(clientcredentialstest.Fault{Status: http.StatusServiceUnavailable})
		for range 20 {
			if token, err := f.replica().Token(); err == nil {
				require.Equal(t, first, token.AccessToken)
				require.Less(t, time.Since(start), 10*time.Minute)
				require.True(t, token.Expiry.Before(start.Add(10*time.Minute)))
			} else {
				require.Greater(t, time.Since(start), 9*time.Minute+45*time.Second)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestS16_UnreadableRecord(t *testing.T) {
	changed := func(change func(*tokenstore.Record)) func(*testing.T, *fleet, *replica) {
		return func(t *testing.T, f *fleet, _ *replica) {
			record, ttl := f.store.Record(f.key(t))
			change(&record)
			f.store.SetRecord(f.key(t), record, ttl)
		}
	}
	for name, spoil := range map[string]func(t *testing.T, f *fleet, r *replica){
		"bit":           func(_ *testing.T, _ *fleet, r *replica) { breakStores(storetest.Corrupted(), r) },
		"empty":         changed(func(record *tokenstore.Record) { record.Data = nil }),
		"other version": changed(func(record *tokenstore.Record) { record.Version += "x" }),
		"in plaintext":  changed(func(record *tokenstore.Record) { record.Data = []byte(`{"body":"e30="}`) }),
		"no common key": func(t *testing.T, _ *fleet, r *replica) {
			r.conf.Store = clientcredentials.Seal(r.store, keyring(t, 9))
		},
		"plaintext here": func(_ *testing.T, _ *fleet, r *replica) {
			r.conf.Store = clientcredentials.DangerouslyShareInPlaintext(r.store)
		},
		"longer than put": func(t *testing.T, f *fleet, _ *replica) {
			record, _ := f.store.Record(f.key(t))
			f.store.SetRecord(f.key(t), record, 2*time.Hour)
		},
	} {
		fleetCase(t, name, func(t *testing.T, f *fleet) {
			first, _ := f.replica().get(t)
			r := f.replica()
			spoil(t, f, r)
			before, _ := f.store.Record(f.key(t))
			token, took := r.get(t)
			require.NotEqual(t, first, token)
			require.Equal(t, 300*time.Millisecond, took, "it requests a token at once")
			after, _ := f.store.Record(f.key(t))
			require.Equal(t, before, after, "it overwrites nothing")
			require.Len(t, r.failures(), 1, "the Observer is told")
		})
	}
}

// A record that was moved to another key isn't used as another client's token.
func TestS16_MovedRecord(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		first, _ := f.replica().get(t)
		record, ttl := f.store.Record(f.key(t))
		f.store.Flush()
		f.replica(scoped("admin")).get(t)
		f.store.SetRecord(f.key(t), record, ttl)
		token, _ := f.replica(scoped("admin")).get(t)
		require.NotEqual(t, first, token)
	})
}

func TestS16_UnreadableNote(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Script(clientcredentialstest.TooManyRequests(time.Hour))
		f.replica().fail(t, "temporarily_unavailable")
		r := f.replica()
		r.conf.Store = clientcredentials.Seal(r.store, keyring(t, 9))
		r.conf.Observer = clientcredentials.JoinObservers(r.conf.Observer, &clientcredentials.Observer{
			StoreOperation: func(event.StoreOperation) { panic("here") },
		})
		_, took := r.get(t)
		require.Equal(t, 300*time.Millisecond, took)
		require.Len(t, r.failures(), 1, "the Observer is told, and does no harm")
	})
}

func TestS16_KeyRotationInThreeDeploys(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		with := func(numbers []byte) *replica {
			f.keyring = keyring(t, numbers...)
			return f.replica()
		}
		deploys := [][]byte{{1}, {1, 2}, {2, 1}, {2}}
		token, _ := with(deploys[0]).get(t)
		for i := 1; i < len(deploys); i++ {
			// Old and new replicas run side by side, and each has its turn to request.
			for range 2 {
				for _, keys := range deploys[i-1 : i+1] {
					got, took := with(keys).get(t)
					require.Equal(t, token, got, "deploy %d", i)
					require.Zero(t, took)
				}
				f.store.Flush()
				token, _ = with(deploys[i]).get(t)
			}
		}
		require.Equal(t, 7, f.auth.TokenRequests())
	})
}

func TestS17_NothingSecretInTheStore(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		token, _ := r.get(t)
		f.auth.Script(clientcredentialstest.TooManyRequests(time.Minute))
		refused := f.replica(scoped("scope"))
		refused.fail(t, "temporarily_unavailable")
		require.NotEmpty(t, r.store.Calls("publish"))
		require.NotEmpty(t, refused.store.Calls("abort"))
		for _, call := range append(r.store.Calls(), refused.store.Calls()...) {
			for _, part := range []string{call.Key, call.Owner, call.Version, string(call.Data)} {
				for _, secret := range []string{token, "secret", "Bearer", "auth.example", "access_token"} {
					require.NotContains(t, part, secret)
				}
			}
		}
	})
}

func TestS18_OthersNeverShare(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Register(clientcredentialstest.Client{ID: "other", Secret: "secret"})
		key := func() func(*clientcredentials.Config) {
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			return func(c *clientcredentials.Config) { c.DPoP = k }
		}
		ours := key()
		seen := make(map[string]string)
		for name, change := range map[string]func(*clientcredentials.Config){
			"none":      func(*clientcredentials.Config) {},
			"client":    func(c *clientcredentials.Config) { c.ClientID = "other" },
			"scope":     scoped("a"),
			"scopes":    scoped("a", "b"),
			"audience":  func(c *clientcredentials.Config) { c.EndpointParams = url.Values{"audience": {"x"}} },
			"DPoP":      ours,
			"DPoP2":     key(),
			"token URL": func(c *clientcredentials.Config) { c.TokenURL += "?x" },
		} {
			token, _ := f.replica(change).get(t)
			require.NotContains(t, seen, token, name)
			seen[token] = name
		}
		require.Equal(t, len(seen), f.auth.TokenRequests())
		for name, same := range map[string]func(*clientcredentials.Config){
			"scopes": scoped("b", "a"),
			"DPoP":   ours,
			"none":   rotated,
			"none ":  func(c *clientcredentials.Config) { c.AuthStyle = oauth2.AuthStyleAutoDetect },
		} {
			token, took := f.replica(same).get(t)
			require.Equal(t, strings.TrimSpace(name), seen[token])
			require.Zero(t, took)
		}
	})
}

// A certificateAuth authenticates the client with a certificate that can change.
type certificateAuth struct {
	certificate func() string
}

func (certificateAuth) Method() string { return "tls_client_auth" }

func (certificateAuth) Authenticate(_ context.Context, attempt *clientcredentials.Attempt) error {
	attempt.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("id:secret")))
	return nil
}

func (a certificateAuth) Certificate(context.Context) (*tls.Certificate, error) {
	return &tls.Certificate{Certificate: [][]byte{[]byte(a.certificate())}}, nil
}

// The certificate is replaced while a replica looks for its token. A token from the store is
// bound to the certificate that it was looked for with.
func TestS18_CertificateReplacedMeanwhile(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		with := func(certificate func() string) *replica {
			return f.replica(func(c *clientcredentials.Config) { c.ClientAuth = certificateAuth{certificate} })
		}
		old, _ := with(func() string { return "old" }).get(t)
		var asked atomic.Bool
		r := with(func() string {
			if asked.Swap(true) {
				return "new"
			}
			return "old"
		})
		token, _ := r.get(t)
		require.Equal(t, old, token)
		token, _ = r.get(t)
		require.NotEqual(t, old, token)
		record, _ := f.store.Record(firstKey(r))
		require.NotEmpty(t, record.Version, "other replicas may still have the old certificate")
	})
}

// The client identifier comes from a source, and is part of the key in the store.
func TestK8_IdentifierInTheStore(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Register(clientcredentialstest.Client{ID: "new", Secret: "secret"})
		with := func(id func() string) *replica {
			return f.replica(func(c *clientcredentials.Config) {
				c.ClientID, c.ClientSecret = "", ""
				c.ClientAuth = clientauth.WithCredentials(func(context.Context) (clientauth.Credentials, error) {
					id := id()
					if id == "" {
						return clientauth.Credentials{}, errors.New("the file is gone")
					}
					return clientauth.Credentials{ClientID: id, ClientSecret: "secret"}, nil
				}, nil)
			})
		}
		constant := func(id string) func() string { return func() string { return id } }
		one := with(constant("id"))
		token, _ := one.get(t)
		shared, _ := with(constant("id")).get(t)
		require.Equal(t, token, shared)
		other, _ := with(constant("new")).get(t)
		require.NotEqual(t, token, other)
		require.NotEqual(t, firstKey(one), firstKey(f.every[2]))
		_, err := with(constant("")).TokenContext(t.Context())
		require.ErrorContains(t, err, "the file is gone")

		// It is replaced after the store has been asked, and before the token request.
		f.store.Flush()
		var asked atomic.Bool
		late := with(func() string {
			if asked.Swap(true) {
				return "new"
			}
			return "id"
		})
		token, _ = late.get(t)
		require.Equal(t, "new", f.clientOf(token))
		key := firstKey(one)
		record, _ := f.store.Record(key)
		require.Empty(t, record.Version, "the token of another client is under the key")
		shared, took := with(constant("id")).get(t)
		require.Equal(t, "id", f.clientOf(shared))
		require.Less(t, took, time.Second, "the lease is still held")
	})
}

// clientOf returns the client that a token was issued to.
func (f *fleet) clientOf(token string) string {
	issued, _ := f.auth.Introspect(token)
	return issued.ClientID
}

func TestS20_SecretRotatedMidFleet(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		old := f.replicas(5)
		all(old, 1)
		f.auth.Clients = nil
		f.auth.Register(clientcredentialstest.Client{ID: "id", Secret: "rotated"})
		time.Sleep(57 * time.Minute)
		for range 10 { // The replicas with the old secret fail, and use the token that they have.
			_, longest := allShare(t, old, 1)
			require.Zero(t, longest)
			time.Sleep(time.Second)
		}
		_, took := f.replica(rotated).get(t)
		require.Zero(t, took, "the token outlives the secret")
		renewed := f.replica(rotated)
		for range 40 {
			renewed.get(t)
			all(old, 1)
			time.Sleep(time.Second)
		}
		allShare(t, append(old, renewed), 1) // The replica with the new secret gets a token for all.
	})
}

type panickingTransport struct{}

func (panickingTransport) RoundTrip(*http.Request) (*http.Response, error) { panic("here") }

// However a leader ends, its lease ends with it.
func TestS20_LeaseIsReleased(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, f *fleet) *replica{
		"shutdown": func(_ *testing.T, f *fleet) *replica {
			f.auth.Latency = 3 * time.Second
			r, stop := f.stoppable()
			go func() { _, _ = r.Token() }()
			time.Sleep(time.Second)
			stop()
			synctest.Wait()
			return r
		},
		"shutdown when Acquire has just succeeded": func(t *testing.T, f *fleet) *replica {
			r, stop := f.stoppable()
			r.store.Script(storetest.Fault{Operation: "acquire", Reply: true, Claim: func(*tokenstore.Claim) { stop() }})
			r.fail(t, "context canceled")
			return r
		},
		"panic": func(t *testing.T, f *fleet) *replica {
			r := f.replica(func(c *clientcredentials.Config) { c.HTTPClient = &http.Client{Transport: panickingTransport{}} })
			r.fail(t, "panicked")
			return r
		},
	} {
		fleetCase(t, name, func(t *testing.T, f *fleet) {
			_, ttl := f.store.Lease(firstKey(end(t, f)))
			require.Zero(t, ttl)
			_, took := f.replica().get(t)
			require.Equal(t, f.auth.Latency, took)
		})
	}
}

// A badStore panics, except in Acquire.
type badStore struct {
	tokenstore.Store
	acquire func() (tokenstore.Claim, error)
}

func (s badStore) Acquire(context.Context, string, string, string, time.Duration) (tokenstore.Claim, error) {
	return s.acquire()
}

// A store that panics, or whose answers make no sense, is treated as one that fails.
func TestStoreThatMisbehaves(t *testing.T) {
	answer := func(claim tokenstore.Claim) func() (tokenstore.Claim, error) {
		return func() (tokenstore.Claim, error) { return claim, nil }
	}
	for name, acquire := range map[string]func() (tokenstore.Claim, error){
		"panics":  func() (tokenstore.Claim, error) { panic("here") },
		"exits":   func() (tokenstore.Claim, error) { runtime.Goexit(); return tokenstore.Claim{}, nil },
		"nothing": answer(tokenstore.Claim{}),
		"unknown": answer(tokenstore.Claim{State: 17}),
		"no hit":  answer(tokenstore.Claim{State: tokenstore.ClaimHit}),
		"no note": answer(tokenstore.Claim{State: tokenstore.ClaimCooling, TTL: math.MaxInt64}),
		"negative": func() (tokenstore.Claim, error) {
			return tokenstore.Claim{State: tokenstore.ClaimWait, TTL: -1, Owner: time.Now().String()}, nil
		},
		"forever": answer(tokenstore.Claim{State: tokenstore.ClaimWait, TTL: math.MaxInt64, Owner: "x"}),
		"leads":   answer(tokenstore.Claim{State: tokenstore.ClaimLead}),
	} {
		for _, sealed := range []bool{true, false} {
			fleetCase(t, fmt.Sprintf("%s/sealed=%t", name, sealed), func(t *testing.T, f *fleet) {
				shared := clientcredentials.DangerouslyShareInPlaintext(badStore{acquire: acquire})
				if sealed {
					shared = clientcredentials.Seal(badStore{acquire: acquire}, f.keyring)
				}
				_, took := f.replica(func(c *clientcredentials.Config) { c.Store = shared }).get(t)
				require.LessOrEqual(t, took, 13*time.Second)
			})
		}
	}
}

// TestFleetSimulation runs fleets through random faults. As long as the authorization server
// answers, these rules hold:
//
//   - Every call gets a token.
//   - The token has not expired, and this replica has not dropped it before.
//   - Nobody waits longer than allowed.
func TestFleetSimulation(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			fleetBubble(t, 10*time.Minute, func(t *testing.T, f *fleet) { simulateFleet(t, f, mathrand.New(mathrand.NewPCG(uint64(seed), 1))) })
		})
	}
}

func simulateFleet(t *testing.T, f *fleet, random *mathrand.Rand) {
	type drop struct {
		by    *replica
		token string
	}
	dropped := make(map[drop]bool)
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	replicas := f.replicas(8)
	var records []tokenstore.Record // that were ever in the store
	for range 300 {
		r := replicas[random.IntN(len(replicas))]
		faults := []storetest.Fault{{Hang: true}, storetest.Unavailable(), storetest.ReplyLost(), {Delay: upTo(400 * time.Millisecond)}, storetest.Corrupted()}
		if len(records) > 0 {
			old := records[random.IntN(len(records))] // Somebody puts it back there again and again.
			faults = append(faults, storetest.Fault{Operation: event.Acquire, Reply: true, Claim: func(c *tokenstore.Claim) {
				*c = tokenstore.Claim{State: tokenstore.ClaimHit, Record: old, TTL: 9 * time.Minute}
			}})
		}
		switch n := random.IntN(13); n {
		case 0, 1, 2, 3, 4, 12:
			breakStores(faults[min(n, len(faults)-1)], r)
		case 5, 6:
			f.repairStores()
		case 7:
			f.store.Flush()
		case 8:
			f.refuse(clientcredentialstest.Fault{Delay: upTo(3 * time.Second)})
		case 9:
			if token, err := r.Token(); err == nil {
				f.auth.Revoke(token.AccessToken)
				r.Invalidate(token)
				dropped[drop{r, token.AccessToken}] = true
			}
		case 10:
			replicas[random.IntN(len(replicas))] = f.replica() // A restart.
		default:
			time.Sleep(upTo(5 * time.Minute))
		}
		called := replicas[random.IntN(len(replicas))]
		start := time.Now()
		token := called.token(t)
		require.LessOrEqual(t, time.Since(start), 17*time.Second)
		require.True(t, token.Expiry.After(time.Now()), "the token has expired")
		require.False(t, dropped[drop{called, token.AccessToken}], "the replica has dropped this token before")
		for _, key := range f.store.Keys() {
			if record, ttl := f.store.Record(key); ttl > 0 {
				records = append(records, record)
			}
		}
		time.Sleep(upTo(2 * time.Second))
	}
}

func TestStoreOperationsAreObserved(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		var mu sync.Mutex // protects from and done
		var from []event.TokenFrom
		var done []event.RefreshDone
		watch := func(c *clientcredentials.Config) {
			c.Observer = clientcredentials.JoinObservers(c.Observer, &clientcredentials.Observer{
				TokenServed: func(info event.TokenServed) {
					mu.Lock()
					defer mu.Unlock()
					from = append(from, info.From)
				},
				RefreshDone: func(info event.RefreshDone) {
					mu.Lock()
					defer mu.Unlock()
					done = append(done, info)
				},
			})
		}
		f.auth.Latency = 4 * time.Second
		leader, follower := f.replica(watch), f.replica(watch)
		var wg sync.WaitGroup
		wg.Go(func() { leader.get(t) })
		time.Sleep(time.Second)
		follower.get(t)
		wg.Wait()
		leader.Invalidate(leader.token(t))
		f.auth.Script(clientcredentialstest.InvalidClient())
		leader.fail(t, "invalid_client")

		require.Equal(t, []event.TokenFrom{event.FromServer, event.FromStore, event.FromMemory}, from)
		require.Len(t, done, 2)
		require.Equal(t, event.FromServer, done[0].From)
		require.Equal(t, 1, done[0].Attempts)
		require.Zero(t, done[0].LeaseWait)
		require.Equal(t, event.FromStore, done[1].From)
		require.Zero(t, done[1].Attempts)
		require.Equal(t, done[1].Duration, done[1].LeaseWait)
		require.Equal(t, time.Hour, done[1].Life)

		names := func(r *replica) (names []string) {
			for _, info := range r.operations {
				require.NoError(t, info.Err)
				name := string(info.Operation)
				if info.State != 0 {
					name += " " + info.State.String()
				}
				names = append(names, name)
			}
			slices.Sort(names) // Events are in no particular order.
			return slices.Compact(names)
		}
		require.Equal(t, []string{"abort", "acquire lead", "invalidate", "publish", "renew"}, names(leader))
		require.Equal(t, []string{"acquire hit", "acquire wait"}, names(follower))
	})
}

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
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A fleet is a service with many replicas, its authorization server, its API and its
// store, without sockets.
type fleet struct {
	auth    *clientcredentialstest.AuthorizationServer
	api     *clientcredentialstest.ResourceServer
	store   *storetest.Store
	keyring *clientcredentials.Keyring
	ctx     context.Context
	every   []*replica
}

// transport carries the requests of replicas to the servers.
func (f *fleet) transport() http.RoundTripper {
	return f.ctx.Value(oauth2.HTTPClient).(*http.Client).Transport
}

// A replica is one of them, with a connection of its own to the store.
type replica struct {
	*clientcredentials.Source
	conf  *clientcredentials.Config
	store *storetest.Store
	mu    sync.Mutex // protects operations
	// operations are the infos that the Observer gets of its store.
	operations []event.StoreOperation
}

// fleetBubble runs a test of a fleet with tokens of that lifetime under synctest.
func fleetBubble(t *testing.T, lifetime time.Duration, test func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		auth := &clientcredentialstest.AuthorizationServer{
			Clients:       []clientcredentialstest.Client{{ID: "id", Secret: "secret"}},
			TokenLifetime: lifetime,
			Latency:       300 * time.Millisecond,
		}
		f := &fleet{auth: auth, api: &clientcredentialstest.ResourceServer{Issuer: auth}, store: new(storetest.Store), keyring: keyring(t, 1)}
		mux := http.NewServeMux()
		mux.Handle("auth.example/", auth)
		mux.Handle("api.example/", f.api)
		f.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)})
		defer func() {
			for _, r := range f.every {
				r.store.SetFault(nil) // Calls that hang keep the bubble open.
			}
		}()
		test(t, f)
		time.Sleep(250 * time.Millisecond) // For calls of the store that nobody waits for.
		synctest.Wait()
		require.Empty(t, auth.Violations())
	})
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

// get returns the replica's token and how long that took.
func (r *replica) get(t *testing.T) (string, time.Duration) {
	t.Helper()
	start := time.Now()
	token, err := r.Token()
	require.NoError(t, err)
	return token.AccessToken, time.Since(start)
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

// all has each of the replicas get a token at the same time, by several callers, and
// returns which ones they got, and the longest wait.
func all(t *testing.T, replicas []*replica, callers int) (tokens []string, longest time.Duration) {
	t.Helper()
	var (
		mu   sync.Mutex
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
	for token := range seen {
		tokens = append(tokens, token)
	}
	return tokens, longest
}

// key returns the key under which the fleet's token is.
func (f *fleet) key(t *testing.T) string {
	t.Helper()
	keys := f.store.Keys()
	require.Len(t, keys, 1)
	return keys[0]
}

func TestS01_ColdFleetMakesOneRequest(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		tokens, longest := all(t, f.replicas(50), 10)
		require.Len(t, tokens, 1)
		require.Equal(t, 1, f.auth.TokenRequests())
		require.LessOrEqual(t, longest, 450*time.Millisecond, "a quarter of the wait is lost at the most, and jitter")

		start := time.Now()
		token, _ := f.replica().get(t)
		require.Zero(t, time.Since(start), "who comes later finds it there")
		require.Equal(t, tokens[0], token)
		require.Equal(t, 1, f.auth.TokenRequests())
	})
}

func TestS01_TheTokenIsTheSameInAllRespects(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 0
		f.auth.Script(clientcredentialstest.Fault{Body: `{"access_token":"a","token_type":"beaReR","expires_in":3600,"refresh_token":"r","scope":"x","n":1}`})
		first, err := f.replica().Token()
		require.NoError(t, err)
		time.Sleep(time.Minute)
		second, err := f.replica().Token()
		require.NoError(t, err)
		require.Equal(t, first.AccessToken, second.AccessToken)
		require.Equal(t, first.TokenType, second.TokenType)
		require.Equal(t, first.RefreshToken, second.RefreshToken)
		require.Equal(t, first.ExpiresIn, second.ExpiresIn)
		require.Equal(t, first.Extra("scope"), second.Extra("scope"))
		require.Equal(t, first.Extra("n"), second.Extra("n"))
		require.False(t, second.Expiry.After(first.Expiry))
		require.WithinDuration(t, first.Expiry, second.Expiry, 5*time.Second, "a record may arrive late, while the lease holds")
	})
}

func TestS02_DeadLeader(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		// It dies with its lease, which is all that is left of it.
		ctx, die := context.WithCancel(f.ctx)
		leader := f.replica()
		leader.Source = leader.conf.Source(ctx)
		f.auth.Script(clientcredentialstest.Fault{Delay: time.Minute})
		go func() { _, _ = leader.Token() }()
		time.Sleep(100 * time.Millisecond)
		leader.store.SetFault(&storetest.Fault{Err: errors.New("dead")})
		die()

		tokens, longest := all(t, f.replicas(20), 3)
		require.Len(t, tokens, 1)
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
		f.store.Flush() // Its lease is over, and it knows nothing of it for a while.
		token, _ := f.replica().get(t)
		wg.Wait()
		require.Equal(t, token, got, "what is newer counts")
		require.Equal(t, 2, f.auth.TokenRequests())
		again, _ := f.replica().get(t)
		require.Equal(t, token, again, "and stays")
		require.Contains(t, late.failures(), tokenstore.ErrLeaseLost)
	})
}

// The store fails in each way at each moment: nobody gets an error, and nobody waits
// longer than without a store by more than the budget.
func TestS04_S05_StoreFailsAtAnyMoment(t *testing.T) {
	faults := map[string]storetest.Fault{
		"refused": storetest.Unavailable(),
		"reset":   storetest.ReplyLost(),
		"frozen":  {Hang: true},
		"slow":    {Delay: time.Minute},
	}
	for name, fault := range faults {
		for _, after := range []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, 299 * time.Millisecond, 310 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", name, after), func(t *testing.T) {
				fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
					replicas := f.replicas(10)
					breakAll := func(fault *storetest.Fault) {
						for _, r := range replicas {
							r.store.SetFault(fault)
						}
					}
					if after == 0 {
						breakAll(&fault)
					} else {
						time.AfterFunc(after, func() { breakAll(&fault) })
					}
					start := time.Now()
					tokens, longest := all(t, replicas, 3)
					require.NotContains(t, strings.Join(tokens, " "), "error")
					if after == 0 {
						require.LessOrEqual(t, longest, 550*time.Millisecond)
					}
					// Who waited for another replica has to ask by itself then.
					require.LessOrEqual(t, longest, after+250*time.Millisecond+300*time.Millisecond+150*time.Millisecond)
					require.LessOrEqual(t, f.auth.TokenRequests(), len(replicas))

					time.Sleep(time.Minute - time.Since(start))
					before := f.auth.TokenRequests()
					_, longest = all(t, replicas, 3)
					require.Zero(t, longest, "who has a token isn't touched")
					require.Equal(t, before, f.auth.TokenRequests())

					breakAll(nil)
					time.Sleep(57*time.Minute - 30*time.Second)
					all(t, replicas, 1) // Stale: replaced in the background.
					time.Sleep(10 * time.Second)
					tokens, longest = all(t, replicas, 1)
					require.Zero(t, longest)
					require.Len(t, tokens, 1, "they share again")
					require.Equal(t, before+1, f.auth.TokenRequests())
				})
			})
		}
	}
}

// The reply to Acquire is lost: nobody waits for the lease that was given.
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
		tokens, _ := all(t, []*replica{leader}, 1)
		other, _ := f.replica().get(t)
		require.Equal(t, tokens[0], other)
	})
}

// A client of the store that is deaf to its context: its goroutines are bounded.
func TestS05_NoPileUpOnAFrozenStore(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		store := f.store.Connect()
		store.SetFault(&storetest.Fault{Hang: true})
		shared := clientcredentials.Seal(store, f.keyring)
		before := runtime.NumGoroutine()
		for i := range 300 { // A service with many tenants.
			r := f.replica(func(c *clientcredentials.Config) {
				c.Store = shared
				c.Scopes = []string{fmt.Sprint(i)}
			})
			_, took := r.get(t)
			require.LessOrEqual(t, took, 550*time.Millisecond)
		}
		require.LessOrEqual(t, runtime.NumGoroutine()-before, 110)
		require.Less(t, len(store.Calls()), 60, "it is left alone most of the time")
		store.SetFault(nil)
	})
}

func TestS06_StoreDownAtConstruction(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(5)
		down := storetest.Unavailable()
		for _, r := range replicas {
			r.store.SetFault(&down)
		}
		tokens, longest := all(t, replicas, 2)
		require.Len(t, tokens, 5)
		require.Equal(t, 300*time.Millisecond, longest, "an error costs nothing")
		for _, r := range replicas {
			r.store.SetFault(nil)
		}
		time.Sleep(56 * time.Minute)
		for range 5 {
			all(t, replicas, 2)
			time.Sleep(time.Minute)
		}
		tokens, _ = all(t, replicas, 2)
		require.Len(t, tokens, 1, "sharing begins by itself")
		require.Equal(t, 6, f.auth.TokenRequests())
	})
}

func TestS07_StoreSlowerThanTheBudget(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		store := f.store.Connect()
		store.SetFault(&storetest.Fault{Delay: 260 * time.Millisecond})
		shared := clientcredentials.Seal(store, f.keyring)
		f.auth.Latency = 0
		var waited time.Duration
		const calls = 1000
		for i := range calls {
			r := f.replica(func(c *clientcredentials.Config) {
				c.Store = shared
				c.Scopes = []string{fmt.Sprint(i)}
			})
			_, took := r.get(t)
			require.LessOrEqual(t, took, 250*time.Millisecond)
			waited += took
			time.Sleep(100 * time.Millisecond)
		}
		require.Less(t, waited/calls, 20*time.Millisecond, "the pause caps what it costs")
	})
}

func TestS07_StoreSlowerForAWhile(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		r.store.Script(storetest.Fault{Delay: 240 * time.Millisecond}, storetest.Fault{Operation: "publish", Delay: 240 * time.Millisecond})
		_, took := r.get(t)
		require.LessOrEqual(t, took, 300*time.Millisecond+250*time.Millisecond+25*time.Millisecond, "the budget is for all calls together")
		synctest.Wait()
	})
}

// All calls that somebody waits for share one budget.
func TestS07_OneBudget(t *testing.T) {
	t.Run("invalidate", func(t *testing.T) {
		fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
			r := f.replica()
			r.get(t)
			token, _ := r.Token()
			time.Sleep(time.Minute)
			r.store.SetFault(&storetest.Fault{Delay: 200 * time.Millisecond})
			r.Invalidate(token)
			_, took := r.get(t)
			require.LessOrEqual(t, took, 550*time.Millisecond)
			time.Sleep(time.Minute)
		})
	})
	t.Run("renew", func(t *testing.T) {
		fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
			r := f.replica()
			f.auth.Latency = 1700 * time.Millisecond
			r.store.Script(storetest.Fault{Delay: 200 * time.Millisecond}, storetest.Fault{Operation: "renew", Delay: 240 * time.Millisecond})
			_, took := r.get(t)
			require.LessOrEqual(t, took, f.auth.Latency+250*time.Millisecond)
			time.Sleep(time.Minute)
		})
	})
	t.Run("old records", func(t *testing.T) {
		fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
			f.replica().get(t)
			time.Sleep(time.Hour - 9*time.Second)
			r := f.replica()
			r.store.SetFault(&storetest.Fault{Delay: 200 * time.Millisecond})
			_, took := r.get(t)
			require.LessOrEqual(t, took, 550*time.Millisecond)
			time.Sleep(time.Minute)
		})
	})
}

// A slow store doesn't end the wait for another replica: its calls cost nothing then.
func TestS07_SlowWhileWaiting(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 3 * time.Second
		replicas := f.replicas(5)
		for _, r := range replicas {
			r.store.SetFault(&storetest.Fault{Delay: 100 * time.Millisecond})
		}
		tokens, _ := all(t, replicas, 1)
		require.Len(t, tokens, 1)
		require.Equal(t, 1, f.auth.TokenRequests())
	})
}

// Slow, and within the budget: the record gets there when nobody waits for it anymore.
func TestS07_SlowlyPublished(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		r.store.Script(storetest.Fault{Operation: "acquire", Delay: 200 * time.Millisecond}, storetest.Fault{Operation: "publish", Delay: 200 * time.Millisecond})
		token, took := r.get(t)
		require.LessOrEqual(t, took, 550*time.Millisecond)
		time.Sleep(time.Second)
		other, _ := f.replica().get(t)
		require.Equal(t, token, other)
	})
}

func TestS08_StoreForgets(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(10)
		first, _ := all(t, replicas, 1)
		f.store.Flush()
		second, longest := all(t, replicas, 1)
		require.Zero(t, longest)
		require.Equal(t, first, second)
		joined, _ := all(t, f.replicas(10), 1)
		require.Len(t, joined, 1)
		require.Equal(t, 2, f.auth.TokenRequests())
		time.Sleep(56 * time.Minute)
		for range 5 {
			all(t, replicas, 1)
			time.Sleep(time.Minute)
		}
		last, _ := all(t, replicas, 1)
		require.Len(t, last, 1)
		require.Equal(t, 3, f.auth.TokenRequests())
	})
}

func TestS08_StoreRefuses(t *testing.T) {
	for _, operation := range []event.Operation{"acquire", "publish", "abort", "invalidate"} {
		fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
			replicas := f.replicas(3)
			for _, r := range replicas {
				r.store.SetFault(&storetest.Fault{Operation: operation, Err: errors.New("NOPERM, READONLY, OOM")})
			}
			f.auth.Script(clientcredentialstest.Fault{Status: http.StatusBadRequest})
			_, err := replicas[0].Token()
			require.Error(t, err)
			tokens, _ := all(t, replicas, 1)
			require.NotContains(t, strings.Join(tokens, " "), "error", operation)
			for _, r := range replicas {
				token, err := r.Token()
				require.NoError(t, err)
				r.Invalidate(token)
				_, _ = r.get(t)
			}
			require.LessOrEqual(t, f.auth.TokenRequests(), 7)
		})
	}
}

// A store that takes leases and refuses records doesn't make replicas wait for leases that nobody uses.
func TestS08_OnlyRecordsAreRefused(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(20)
		for _, r := range replicas {
			r.store.SetFault(&storetest.Fault{Operation: "publish", Err: errors.New("too large")})
		}
		_, longest := all(t, replicas, 1)
		require.LessOrEqual(t, longest, 2*time.Second)
	})
}

func TestS09_Invalidation(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(20)
		all(t, replicas, 1)
		var old []*oauth2.Token
		for _, r := range replicas {
			token, err := r.Token()
			require.NoError(t, err)
			old = append(old, token)
		}
		f.auth.RevokeAll()
		var wg sync.WaitGroup
		for i, r := range replicas {
			for range 10 {
				wg.Go(func() {
					r.Invalidate(old[i])
					_, _ = r.get(t)
				})
			}
		}
		wg.Wait()
		tokens, _ := all(t, replicas, 1)
		require.Len(t, tokens, 1)
		require.NotEqual(t, old[0].AccessToken, tokens[0])
		require.Equal(t, 2, f.auth.TokenRequests())

		for i, r := range replicas {
			r.Invalidate(old[i]) // Late.
		}
		again, longest := all(t, slices.Concat(replicas, f.replicas(3)), 1)
		require.Equal(t, tokens, again)
		require.Zero(t, longest)
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

func TestS09_Unauthorized(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(10)
		all(t, replicas, 1)
		f.auth.RevokeAll()
		var wg sync.WaitGroup
		for _, r := range replicas {
			wg.Go(func() {
				base := f.ctx.Value(oauth2.HTTPClient).(*http.Client).Transport
				resp, err := (&http.Client{Transport: &clientcredentials.Transport{Source: r.Source, Base: base}}).Get("https://api.example/")
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Error(resp.Status)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// A token that an API has refused is gone for those, too, who start afterwards.
func TestS09_RefusedTokenLeavesTheStore(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		r.get(t)
		token, err := r.Token()
		require.NoError(t, err)
		require.True(t, r.Reject(token))
		synctest.Wait()
		require.Empty(t, f.store.Keys())
	})
}

// A token that was published though no reply came, or came too late, is known to be in
// the store: once it is invalid it doesn't come back from there.
func TestS09_InvalidationOfWhatMayBePublished(t *testing.T) {
	for name, fault := range map[string]storetest.Fault{
		"lost": storetest.ReplyLost(),
		"late": {Reply: true, Delay: 200 * time.Millisecond}, // The leader has waited for Acquire, too.
	} {
		t.Run(name, func(t *testing.T) {
			fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
				r, other := f.replica(), f.replica()
				fault.Operation = "publish"
				r.store.Script(storetest.Fault{Operation: "acquire", Delay: 200 * time.Millisecond}, fault)
				old, _ := r.get(t)
				token, err := r.Token()
				require.NoError(t, err)
				shared, _ := other.get(t)
				require.Equal(t, old, shared)
				f.auth.RevokeAll()
				r.Invalidate(token)
				fresh, _ := r.get(t)
				require.NotEqual(t, old, fresh)
				require.Equal(t, 2, f.auth.TokenRequests())
			})
		})
	}
}

// All tokens are revoked while replicas have different ones: one 401 is seen at most,
// and not all that come within half a minute.
func TestS09_RevokedTokensOfTwoAges(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		early := f.replica(func(c *clientcredentials.Config) { c.EarlyRefresh = 30 * time.Minute })
		late := f.replica()
		all(t, []*replica{early, late}, 1)
		time.Sleep(40 * time.Minute)
		early.get(t) // Starts the refresh.
		time.Sleep(time.Minute)
		f.auth.RevokeAll()
		client := &http.Client{Transport: &clientcredentials.Transport{Source: late.Source, Base: f.ctx.Value(oauth2.HTTPClient).(*http.Client).Transport}}
		failures := 0
		for range 10 {
			resp, err := client.Get("https://api.example/")
			require.NoError(t, err)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				failures++
			}
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, failures, 1)
		require.Equal(t, 3, f.auth.TokenRequests())
	})
}

// An API that refuses every token costs no more token requests than without a store.
func TestS09_APIRefusesEveryToken(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(10)
		refusing := clientcredentialstest.HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		for range 60 {
			for _, r := range replicas {
				resp, err := (&http.Client{Transport: &clientcredentials.Transport{Source: r.Source, Base: refusing}}).Get("https://api.example/")
				require.NoError(t, err)
				resp.Body.Close()
				time.Sleep(500 * time.Millisecond)
			}
		}
		require.LessOrEqual(t, f.auth.TokenRequests(), 2*10, "one in half a minute, and another when replicas are out of step")
	})
}

func TestS10_InvalidationDuringTheFlight(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		leader, other := f.replica(), f.replica()
		old, _ := leader.get(t)
		other.get(t)
		token, err := other.Token()
		require.NoError(t, err)
		time.Sleep(57 * time.Minute)
		f.auth.Latency = 3 * time.Second
		leader.get(t) // Starts the refresh.
		time.Sleep(time.Second)
		other.Invalidate(token)
		time.Sleep(3 * time.Second)
		require.Equal(t, 3, f.auth.TokenRequests(), "what came of the first wasn't published, and the leader asks once more")
		current, _ := leader.get(t)
		require.Equal(t, old, current, "which is still under way")
		time.Sleep(3 * time.Second)
		fresh, _ := leader.get(t)
		require.NotEqual(t, old, fresh)
		got, _ := other.get(t)
		require.Equal(t, fresh, got)
		require.Equal(t, 3, f.auth.TokenRequests())
	})
}

// A replica whose own token, which it didn't share, is dropped while it requests the
// next doesn't take that for good because it is in the store.
func TestS10_LocalInvalidationDuringTheFlight(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		r.store.Script(storetest.Unavailable())
		r.get(t)
		token, err := r.Token()
		require.NoError(t, err)
		time.Sleep(57 * time.Minute)
		r.get(t)
		time.Sleep(100 * time.Millisecond)
		r.Invalidate(token)
		requested := f.auth.TokenRequests()
		got, _ := r.get(t)
		require.Equal(t, requested+1, f.auth.TokenRequests())
		shared, _ := f.replica().get(t)
		require.Equal(t, got, shared)
	})
}

// An invalidation by the replica itself costs one token request more, as it does without
// a store.
func TestS10_OwnInvalidationDuringTheFlight(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		r.get(t)
		token, err := r.Token()
		require.NoError(t, err)
		time.Sleep(57 * time.Minute)
		f.auth.Latency = 3 * time.Second
		r.get(t) // Starts the refresh.
		time.Sleep(time.Second)
		r.Invalidate(token)
		_, took := r.get(t)
		time.Sleep(10 * time.Second)
		require.Equal(t, 3, f.auth.TokenRequests())
		require.LessOrEqual(t, took, 5*time.Second+250*time.Millisecond)
	})
}

// What another replica has requested since the invalidation is taken, and stays.
func TestS10_OvertakenAfterTheInvalidation(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		slow, quick := f.replica(), f.replica()
		all(t, []*replica{slow, quick}, 1)
		token, err := slow.Token()
		require.NoError(t, err)
		time.Sleep(57 * time.Minute)
		f.auth.Script(clientcredentialstest.Fault{Delay: 3 * time.Second})
		slow.get(t)
		time.Sleep(time.Second)
		slow.Invalidate(token)
		quick.Invalidate(token)
		fresh, _ := quick.get(t)
		again, _ := slow.get(t)
		require.Equal(t, fresh, again)
		require.Equal(t, 3, f.auth.TokenRequests())
		joined, _ := f.replica().get(t)
		require.Equal(t, fresh, joined)
	})
}

// Nor does an invalidation cost another one when the replica waits for a leader, and
// leads then: its request is the younger.
func TestS10_InvalidationWhileWaiting(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		leader, follower := f.replica(), f.replica()
		all(t, []*replica{leader, follower}, 1)
		token, err := follower.Token()
		require.NoError(t, err)
		time.Sleep(57 * time.Minute)
		f.auth.Latency = 3 * time.Second
		leader.get(t)
		time.Sleep(100 * time.Millisecond)
		follower.get(t)
		time.Sleep(time.Second)
		follower.Invalidate(token)
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
		old, _ := r.get(t)
		token, err := r.Token()
		require.NoError(t, err)
		down := storetest.Unavailable()
		r.store.SetFault(&down)
		r.Invalidate(token)
		second, _ := r.get(t)
		require.NotEqual(t, old, second)
		r.store.SetFault(nil)
		record, _ := f.store.Record(f.key(t))
		require.NotEmpty(t, record.Version, "the old one is there")
		token, err = r.Token()
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		r.Invalidate(token)
		third, _ := r.get(t)
		require.NotEqual(t, old, third)
		shared, _ := f.replica().get(t)
		require.Equal(t, third, shared)
	})
}

// The reply to Publish is lost: the token is in the store all the same, and isn't
// taken from there after it was dropped.
func TestS11_PublishedWithoutReply(t *testing.T) {
	for name, fault := range map[string]storetest.Fault{
		"lost": {Operation: "publish", Reply: true, Err: errors.New("reset")},
		"late": {Operation: "publish", Reply: true, Delay: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
				r := f.replica()
				r.store.Script(fault)
				token, err := r.Token()
				require.NoError(t, err)
				time.Sleep(time.Minute)
				f.auth.RevokeAll()
				r.Invalidate(token)
				again, _ := r.get(t)
				require.NotEqual(t, token.AccessToken, again)
				other, _ := f.replica().get(t)
				require.Equal(t, again, other)
			})
		})
	}
}

// Nor is one that was dropped before, because its successor hasn't got there.
func TestS11_NeverPublished(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		first, err := r.Token()
		require.NoError(t, err)
		r.store.Script(storetest.Fault{Operation: "invalidate", Err: errors.New("down")}, storetest.Fault{Operation: "publish", Err: errors.New("down")})
		r.Invalidate(first)
		synctest.Wait()
		second, err := r.Token()
		require.NoError(t, err)
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
		fault := clientcredentialstest.TooManyRequests(time.Minute)
		f.auth.SetFault(&fault)
		start := time.Now()
		for time.Since(start) < 5*time.Minute {
			tokens, longest := all(t, replicas, 2)
			for _, text := range tokens {
				require.Contains(t, text, "error")
				require.Contains(t, text, "temporarily_unavailable")
			}
			require.LessOrEqual(t, longest, time.Second)
			time.Sleep(time.Second)
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
		tokens, _ := all(t, replicas, 2)
		require.Len(t, tokens, 1)
		require.NotContains(t, tokens[0], "error")
	})
}

func TestS12_ValidTokenDuringTheCooldown(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(20)
		all(t, replicas, 1)
		time.Sleep(57 * time.Minute)
		before := f.auth.TokenRequests()
		fault := clientcredentialstest.TooManyRequests(30 * time.Second)
		f.auth.SetFault(&fault)
		for range 120 {
			tokens, longest := all(t, replicas, 1)
			require.Len(t, tokens, 1)
			require.NotContains(t, tokens[0], "error")
			require.Zero(t, longest)
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, f.auth.TokenRequests()-before, 5)
	})
}

// A 503 passes: who comes during a short cooldown waits for its end.
func TestS12_ShortCooldownIsWaitedOut(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Script(clientcredentialstest.Unavailable(), clientcredentialstest.Unavailable(), clientcredentialstest.Unavailable())
		_, err := f.replica().Token()
		require.Error(t, err)
		synctest.Wait()
		tokens, longest := all(t, f.replicas(10), 1)
		require.Len(t, tokens, 1)
		require.NotContains(t, tokens[0], "error")
		require.LessOrEqual(t, longest, 2500*time.Millisecond, "the cooldown, the request, and polls")
		require.Equal(t, 4, f.auth.TokenRequests())
	})
}

// In an outage nobody waits longer for the error than without a store: all who have
// waited for a leader share it, and who comes during the cooldown waits for one more.
func TestS12_FailureIsSharedByAllWhoWaited(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		fault := clientcredentialstest.Unavailable()
		f.auth.SetFault(&fault)
		replicas := f.replicas(50)
		tokens, longest := all(t, replicas, 2)
		for _, text := range tokens {
			require.Contains(t, text, "temporarily_unavailable")
		}
		require.LessOrEqual(t, longest, 4*time.Second, "three attempts, and polls")
		require.Equal(t, 3, f.auth.TokenRequests())

		tokens, longest = all(t, f.replicas(50), 2)
		for _, text := range tokens {
			require.Contains(t, text, "temporarily_unavailable")
		}
		require.LessOrEqual(t, longest, 6*time.Second)
		require.LessOrEqual(t, f.auth.TokenRequests(), 6)
	})
}

// Who has waited for the end of a cooldown doesn't wait for that of the next.
func TestS12_CooldownIsWaitedOutOnce(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 0
		fault := clientcredentialstest.Unavailable()
		f.auth.SetFault(&fault)
		once := func(c *clientcredentials.Config) { c.Retry.MaxAttempts = 1 }
		_, err := f.replica(once).Token()
		require.Error(t, err)
		synctest.Wait()
		tokens, longest := all(t, f.replicas(20, once), 1)
		for _, text := range tokens {
			require.Contains(t, text, "temporarily_unavailable")
		}
		require.LessOrEqual(t, longest, 1500*time.Millisecond)
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// One replica's refusal, which it may have earned alone, keeps the others away for a minute
// at most, and then it shares what they have got.
func TestS12_LongRetryAfterOfOneReplica(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Script(clientcredentialstest.TooManyRequests(time.Hour))
		refused, other := f.replica(), f.replica()
		for _, r := range []*replica{refused, other} {
			_, err := r.Token()
			require.ErrorContains(t, err, "temporarily_unavailable")
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		want, _ := other.get(t)
		got, _ := refused.get(t)
		require.Equal(t, want, got)
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// The second refusal is taken at its word.
func TestS12_LongRetryAfterOfAll(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		fault := clientcredentialstest.TooManyRequests(time.Hour)
		f.auth.SetFault(&fault)
		replicas := f.replicas(20)
		for range 50 {
			tokens, _ := all(t, replicas, 1)
			for _, text := range tokens {
				require.Contains(t, text, "temporarily_unavailable")
			}
			time.Sleep(time.Minute)
		}
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// What is due to one replica alone is its own.
func TestS12_OwnFailuresAreNotShared(t *testing.T) {
	for name, fault := range map[string]clientcredentialstest.Fault{
		"invalid_client": clientcredentialstest.InvalidClient(),
		"reset":          clientcredentialstest.ConnectionReset(),
	} {
		t.Run(name, func(t *testing.T) {
			fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
				f.auth.Script(fault)
				failing := f.replica(func(c *clientcredentials.Config) { c.Retry.MaxAttempts = 1 })
				_, err := failing.Token()
				require.Error(t, err)
				synctest.Wait()
				_, took := f.replica().get(t)
				require.Equal(t, 300*time.Millisecond, took)
			})
		})
	}
}

// Who waits gives up following when those in front all fail.
func TestS12_EveryReplicaIsRefused(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		fault := clientcredentialstest.InvalidClient()
		f.auth.SetFault(&fault)
		tokens, longest := all(t, f.replicas(100), 2)
		for _, text := range tokens {
			require.Contains(t, text, "invalid_client")
		}
		require.LessOrEqual(t, longest, 2*time.Second, "nobody waits in line for a hundred refusals")
		require.LessOrEqual(t, f.auth.TokenRequests(), 100)
	})
}

// A store that says a cooldown has been over for long isn't asked without a pause.
func TestS12_NegativeCooldown(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Script(clientcredentialstest.TooManyRequests(time.Hour))
		_, err := f.replica().Token()
		require.Error(t, err)
		synctest.Wait()
		r := f.replica()
		r.store.SetFault(&storetest.Fault{Operation: "acquire", Claim: func(c *tokenstore.Claim) { c.TTL = -time.Hour }})
		_, err = r.Token()
		require.NoError(t, err, "the server is asked")
		require.Less(t, len(r.store.Calls()), 500)
	})
}

func TestS13_ServerSlowerThanTheLease(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 9 * time.Second
		tokens, longest := all(t, f.replicas(20), 2)
		require.Len(t, tokens, 1)
		require.LessOrEqual(t, longest, 11*time.Second)
		require.Equal(t, 1, f.auth.TokenRequests(), "the lease is renewed")
	})
}

func TestS13_ServerHangs(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		fault := clientcredentialstest.Fault{Delay: time.Hour}
		f.auth.SetFault(&fault)
		tokens, longest := all(t, f.replicas(10), 2)
		for _, text := range tokens {
			require.Contains(t, text, "error")
		}
		require.LessOrEqual(t, longest, 30*time.Second, "no longer than without a store")
	})
}

func TestS13_LeadingCallerLeaves(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 3 * time.Second
		ctx, cancel := context.WithTimeout(f.ctx, 100*time.Millisecond)
		defer cancel()
		_, err := f.replica().TokenContext(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		tokens, _ := all(t, f.replicas(5), 1)
		require.Len(t, tokens, 1)
		require.Equal(t, 1, f.auth.TokenRequests())
	})
}

// A day of a fleet: one request per life, nobody waits, and the moments at which the
// replicas look for a new token are spread.
func TestS14_EarlyRefresh(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(50)
		all(t, replicas, 1)
		// Each replica makes calls of its own, so that they aren't in step.
		day, cancel := context.WithTimeout(f.ctx, 24*time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		for _, r := range replicas {
			wg.Go(func() {
				for day.Err() == nil {
					if _, took := r.get(t); took != 0 {
						t.Error("waited", took)
					}
					time.Sleep(time.Duration(mathrand.Int64N(int64(5 * time.Second))))
				}
			})
		}
		wg.Wait()
		// A life is 3600 s, of which the first of the fleet leaves 300 s or a little less.
		require.InDelta(t, 86400/3300, f.auth.TokenRequests(), 1)
		var looked []time.Duration // after the moment of the request
		requests := f.auth.Requests()
		for _, r := range replicas {
			calls := r.store.Calls("acquire")
			require.Less(t, len(calls), 4*len(requests), "a replica asks the store about once per life")
			for _, call := range calls[len(calls)/2:] {
				for _, request := range slices.Backward(requests) {
					if !request.Time.After(call.Time) {
						looked = append(looked, call.Time.Sub(request.Time))
						break
					}
				}
			}
		}
		slices.Sort(looked)
		require.Less(t, looked[len(looked)/10], 25*time.Second)
		require.Greater(t, looked[len(looked)*8/10], 40*time.Second, "the others follow over a quarter of the early window")
	})
}

func TestS15_Lifetimes(t *testing.T) {
	for _, expiresIn := range []string{`null`, `0`, `-5`, `1`, `2`, `5`, `11`, `60`, `3600`, `2147483647`, `1e12`} {
		t.Run(expiresIn, func(t *testing.T) {
			fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
				n := 0
				f.auth.Latency = 0
				answer := func() {
					n++
					f.auth.Script(clientcredentialstest.Fault{Body: fmt.Sprintf(`{"access_token":"t%d","expires_in":%s}`, n, expiresIn)})
				}
				for range 1000 {
					answer()
				}
				replicas := f.replicas(5)
				start := time.Now()
				for time.Since(start) < 10*time.Second {
					all(t, replicas, 1)
					time.Sleep(50 * time.Millisecond)
				}
				switch expiresIn {
				case `-5`, `1`:
					require.LessOrEqual(t, f.auth.TokenRequests(), 5*10+5, "no worse than without a store")
				case `2`:
					require.LessOrEqual(t, f.auth.TokenRequests(), 5*10)
				case `5`:
					require.LessOrEqual(t, f.auth.TokenRequests(), 8)
				case `11`:
					require.LessOrEqual(t, f.auth.TokenRequests(), 2)
				default:
					require.Equal(t, 1, f.auth.TokenRequests())
				}
			})
		})
	}
}

// A token that is about to expire isn't begun with: its replacement would be waited for at
// once.
func TestS15_RecordThatIsAboutToExpire(t *testing.T) {
	fleetBubble(t, 10*time.Minute, func(t *testing.T, f *fleet) {
		old, _ := f.replica().get(t)
		time.Sleep(9*time.Minute + 52*time.Second)
		record, _ := f.store.Record(f.key(t))
		require.NotEmpty(t, record.Version, "it is still there")
		token, took := f.replica().get(t)
		require.NotEqual(t, old, token)
		require.Equal(t, 300*time.Millisecond, took)
		require.Equal(t, 2, f.auth.TokenRequests())
	})
}

// No replica serves a token longer than the one that has requested it, however it got
// it, and clocks play no part.
func TestS15_SharedTokenExpiresInTime(t *testing.T) {
	fleetBubble(t, 10*time.Minute, func(t *testing.T, f *fleet) {
		first, _ := f.replica().get(t)
		start := time.Now()
		down := clientcredentialstest.Fault{Status: http.StatusServiceUnavailable}
		f.auth.SetFault(&down)
		for range 20 {
			r := f.replica()
			if token, err := r.Token(); err == nil {
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
	for name, spoil := range map[string]func(t *testing.T, f *fleet, r *replica){
		"bit":            func(_ *testing.T, _ *fleet, r *replica) { c := storetest.Corrupted(); r.store.SetFault(&c) },
		"cut":            changeRecord(func(record *tokenstore.Record) { record.Data = record.Data[:len(record.Data)-1] }),
		"short":          changeRecord(func(record *tokenstore.Record) { record.Data = record.Data[:3] }),
		"empty":          changeRecord(func(record *tokenstore.Record) { record.Data = nil }),
		"other version":  changeRecord(func(record *tokenstore.Record) { record.Version += "x" }),
		"unknown format": changeRecord(func(record *tokenstore.Record) { record.Data[0]++ }),
		"unknown key":    changeRecord(func(record *tokenstore.Record) { record.Data[1]++ }),
		"in plaintext":   changeRecord(func(record *tokenstore.Record) { record.Data = []byte(`{"body":"e30="}`) }),
		"disjoint": func(t *testing.T, _ *fleet, r *replica) {
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
		t.Run(name, func(t *testing.T) {
			fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
				first, _ := f.replica().get(t)
				r := f.replica()
				spoil(t, f, r)
				before, _ := f.store.Record(f.key(t))
				token, took := r.get(t)
				require.NotEqual(t, first, token)
				require.Equal(t, 300*time.Millisecond, took, "it fetches directly")
				after, _ := f.store.Record(f.key(t))
				require.Equal(t, before, after, "and overwrites nothing")
				require.Len(t, r.failures(), 1, "the Observer is told")
			})
		})
	}
}

// changeRecord changes what is in the store.
func changeRecord(change func(*tokenstore.Record)) func(*testing.T, *fleet, *replica) {
	return func(t *testing.T, f *fleet, _ *replica) {
		record, ttl := f.store.Record(f.key(t))
		change(&record)
		f.store.SetRecord(f.key(t), record, ttl)
	}
}

// A record that is moved to another key isn't taken for another client's token.
func TestS16_MovedRecord(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		first, _ := f.replica().get(t)
		record, ttl := f.store.Record(f.key(t))
		f.store.Flush()
		other := func(c *clientcredentials.Config) { c.Scopes = []string{"admin"} }
		f.replica(other).get(t)
		f.store.SetRecord(f.key(t), record, ttl)
		token, _ := f.replica(other).get(t)
		require.NotEqual(t, first, token)
	})
}

func TestS16_UnreadableNote(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		fault := clientcredentialstest.TooManyRequests(time.Hour)
		f.auth.Script(fault)
		_, err := f.replica().Token()
		require.Error(t, err)
		synctest.Wait()
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
		with := func(numbers ...byte) *replica {
			f.keyring = keyring(t, numbers...)
			return f.replica()
		}
		deploys := [][]byte{{1}, {1, 2}, {2, 1}, {2}}
		token, _ := with(deploys[0]...).get(t)
		for i := 1; i < len(deploys); i++ {
			// Old and new replicas run side by side, and each has its turn to request.
			for range 2 {
				for _, keys := range [][]byte{deploys[i-1], deploys[i]} {
					got, took := with(keys...).get(t)
					require.Equal(t, token, got, "deploy %d", i)
					require.Zero(t, took)
				}
				f.store.Flush()
				token, _ = with(deploys[i]...).get(t)
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
		_, err := f.replica(func(c *clientcredentials.Config) { c.Scopes = []string{"scope"} }).Token()
		require.Error(t, err)
		synctest.Wait()
		calls := f.store.Calls()
		require.Empty(t, calls, "each replica has a connection of its own")
		calls = r.store.Calls()
		require.NotEmpty(t, calls)
		for _, call := range calls {
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
		f.auth.Clients = append(f.auth.Clients, clientcredentialstest.Client{ID: "other", Secret: "secret"})
		key := func() *ecdsa.PrivateKey {
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			return k
		}
		ours := key()
		seen := make(map[string]string)
		for name, change := range map[string]func(*clientcredentials.Config){
			"none":      func(*clientcredentials.Config) {},
			"client":    func(c *clientcredentials.Config) { c.ClientID = "other" },
			"scope":     func(c *clientcredentials.Config) { c.Scopes = []string{"a", "b"} },
			"scopes":    func(c *clientcredentials.Config) { c.Scopes = []string{"a"} },
			"audience":  func(c *clientcredentials.Config) { c.EndpointParams = url.Values{"audience": {"x"}} },
			"DPoP":      func(c *clientcredentials.Config) { c.DPoP = ours },
			"DPoP2":     func(c *clientcredentials.Config) { c.DPoP = key() },
			"token URL": func(c *clientcredentials.Config) { c.TokenURL += "?x" },
		} {
			token, _ := f.replica(change).get(t)
			require.NotContains(t, seen, token, name)
			seen[token] = name
		}
		require.Equal(t, len(seen), f.auth.TokenRequests())
		for _, same := range []func(*clientcredentials.Config){
			func(c *clientcredentials.Config) { c.Scopes = []string{"b", "a"} },
			func(c *clientcredentials.Config) { c.DPoP = ours },
			func(c *clientcredentials.Config) { c.ClientSecret = "rotated" },
			func(c *clientcredentials.Config) { c.AuthStyle = oauth2.AuthStyleAutoDetect },
		} {
			token, took := f.replica(same).get(t)
			require.Contains(t, seen, token)
			require.Zero(t, took)
		}
	})
}

// A certificateAuth is a client whose certificate changes.
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

// A token from the store is bound to the certificate that it was looked for with,
// though that is replaced at this very moment.
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
		require.NotEmpty(t, record.Version, "others may have the old one still")
	})
}

func TestS20_SecretRotatedMidFleet(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		old := f.replicas(5)
		all(t, old, 1)
		f.auth.Clients = nil
		f.auth.Register(clientcredentialstest.Client{ID: "id", Secret: "rotated"})
		time.Sleep(57 * time.Minute)
		for range 10 { // Those with the old secret fail, and serve what they have.
			tokens, longest := all(t, old, 1)
			require.Len(t, tokens, 1)
			require.NotContains(t, tokens[0], "error")
			require.Zero(t, longest)
			time.Sleep(time.Second)
		}
		_, took := f.replica(func(c *clientcredentials.Config) { c.ClientSecret = "rotated" }).get(t)
		require.Zero(t, took, "the token outlives the secret")
		rotated := f.replica(func(c *clientcredentials.Config) { c.ClientSecret = "rotated" })
		for range 40 {
			rotated.get(t)
			all(t, old, 1)
			time.Sleep(time.Second)
		}
		tokens, _ := all(t, append(old, rotated), 1)
		require.Len(t, tokens, 1, "who has the new secret gets a token for all")
	})
}

func TestS20_ShutdownReleasesTheLease(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		f.auth.Latency = 3 * time.Second
		ctx, stop := context.WithCancel(f.ctx)
		r := f.replica()
		r.Source = r.conf.Source(ctx)
		go func() { _, _ = r.Token() }()
		time.Sleep(time.Second)
		stop()
		synctest.Wait()
		_, ttl := f.store.Lease(firstKey(r))
		require.Zero(t, ttl)
	})
}

func firstKey(r *replica) string { return r.store.Calls()[0].Key }

func TestS20_LeaseIsReleasedAfterAPanic(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica(func(c *clientcredentials.Config) {
			c.HTTPClient = &http.Client{Transport: panickingTransport{}}
		})
		_, err := r.Token()
		require.Error(t, err)
		synctest.Wait()
		_, ttl := f.store.Lease(firstKey(r))
		require.Zero(t, ttl)
		_, took := f.replica().get(t)
		require.Equal(t, 300*time.Millisecond, took)
	})
}

// ctx ends when Acquire has just succeeded.
func TestS20_ShutdownWhileAcquiring(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		ctx, stop := context.WithCancel(f.ctx)
		r := f.replica()
		r.Source = r.conf.Source(ctx)
		r.store.Script(storetest.Fault{Operation: "acquire", Reply: true, Claim: func(*tokenstore.Claim) { stop() }})
		_, err := r.Token()
		require.Error(t, err)
		synctest.Wait()
		_, ttl := f.store.Lease(firstKey(r))
		require.Zero(t, ttl)
	})
}

type panickingTransport struct{}

func (panickingTransport) RoundTrip(*http.Request) (*http.Response, error) { panic("here") }

// A store that panics, or answers nonsense, is one that fails.
func TestStoreThatMisbehaves(t *testing.T) {
	for name, store := range map[string]tokenstore.Store{
		"panics":  badStore{func() (tokenstore.Claim, error) { panic("here") }},
		"exits":   badStore{func() (tokenstore.Claim, error) { runtime.Goexit(); return tokenstore.Claim{}, nil }},
		"nothing": badStore{func() (tokenstore.Claim, error) { return tokenstore.Claim{}, nil }},
		"unknown": badStore{func() (tokenstore.Claim, error) { return tokenstore.Claim{State: 17}, nil }},
		"no hit": badStore{func() (tokenstore.Claim, error) {
			return tokenstore.Claim{State: tokenstore.ClaimHit}, nil
		}},
		"no note": badStore{func() (tokenstore.Claim, error) {
			return tokenstore.Claim{State: tokenstore.ClaimCooling, TTL: math.MaxInt64}, nil
		}},
		"negative": badStore{func() (tokenstore.Claim, error) {
			return tokenstore.Claim{State: tokenstore.ClaimWait, TTL: -1, Owner: time.Now().String()}, nil
		}},
		"for ever": badStore{func() (tokenstore.Claim, error) {
			return tokenstore.Claim{State: tokenstore.ClaimWait, TTL: math.MaxInt64, Owner: "x"}, nil
		}},
	} {
		for kind, shared := range map[string]*clientcredentials.SharedStore{"sealed": clientcredentials.Seal(store, keyring(t, 1)), "plaintext": clientcredentials.DangerouslyShareInPlaintext(store)} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
					// The channel of a SharedStore belongs to the bubble that it is made in.
					shared := shared
					if kind == "sealed" {
						shared = clientcredentials.Seal(store, f.keyring)
					} else {
						shared = clientcredentials.DangerouslyShareInPlaintext(store)
					}
					r := f.replica(func(c *clientcredentials.Config) { c.Store = shared })
					_, took := r.get(t)
					require.LessOrEqual(t, took, 13*time.Second)
				})
			})
		}
	}
}

type badStore struct {
	acquire func() (tokenstore.Claim, error)
}

func (s badStore) Acquire(context.Context, string, string, string, time.Duration) (tokenstore.Claim, error) {
	return s.acquire()
}

func (badStore) Renew(context.Context, string, string, time.Duration) error { panic("here") }

func (badStore) Publish(context.Context, string, string, tokenstore.Record, time.Duration) error {
	panic("here")
}

func (badStore) Abort(context.Context, string, string, []byte, time.Duration) error { panic("here") }

func (badStore) Invalidate(context.Context, string, string) error { panic("here") }

// TestFleetSimulation runs fleets through random faults of everything. While the
// authorization server answers, every call gets a token; none is served that has
// expired, or been dropped by the replica before the call; and nobody waits longer than
// allowed.
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
	replicas := f.replicas(8)
	dropped := make(map[*replica]map[string]bool)
	for range 300 {
		r := replicas[random.IntN(len(replicas))]
		switch random.IntN(12) {
		case 0:
			r.store.SetFault(&storetest.Fault{Hang: true})
		case 1:
			down := storetest.Unavailable()
			r.store.SetFault(&down)
		case 2:
			lost := storetest.ReplyLost()
			r.store.SetFault(&lost)
		case 3:
			r.store.SetFault(&storetest.Fault{Delay: time.Duration(random.Int64N(int64(400 * time.Millisecond)))})
		case 4:
			bit := storetest.Corrupted()
			r.store.SetFault(&bit)
		case 5, 6:
			for _, r := range replicas {
				r.store.SetFault(nil)
			}
		case 7:
			f.store.Flush()
		case 8:
			f.auth.SetFault(&clientcredentialstest.Fault{Delay: time.Duration(random.Int64N(int64(3 * time.Second)))})
		case 9:
			if token, err := r.Token(); err == nil {
				f.auth.Revoke(token.AccessToken)
				r.Invalidate(token)
				if dropped[r] == nil {
					dropped[r] = make(map[string]bool)
				}
				dropped[r][token.AccessToken] = true
			}
		case 10:
			replicas[random.IntN(len(replicas))] = f.replica() // A restart.
		default:
			time.Sleep(time.Duration(random.Int64N(int64(5 * time.Minute))))
		}
		called := replicas[random.IntN(len(replicas))]
		start := time.Now()
		token, err := called.Token()
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start), 17*time.Second)
		require.True(t, token.Expiry.After(time.Now()), "an expired token is served")
		require.False(t, dropped[called][token.AccessToken], "a token is served again that was dropped")
		time.Sleep(time.Duration(random.Int64N(int64(2 * time.Second))))
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
		token, err := leader.Token()
		require.NoError(t, err)
		leader.Invalidate(token)
		f.auth.Script(clientcredentialstest.InvalidClient())
		_, err = leader.Token()
		require.Error(t, err)
		synctest.Wait()

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
			return slices.Compact(names)
		}
		require.Equal(t, []string{"acquire lead", "renew", "publish", "invalidate", "acquire lead", "renew", "abort"}, names(leader))
		require.Equal(t, []string{"acquire wait", "acquire hit"}, names(follower))
	})
}

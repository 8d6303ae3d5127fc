package clientcredentials_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// The tests in this file play somebody who can write to the store, but has no key of the
// keyring: everything sealed that ever was in the store can be put back there, with any TTL.

// hours is how long an attack goes on.
const hours = 4

// call makes one call to the API, and reports whether it succeeded.
func (r *replica) call(t *testing.T, f *fleet) bool {
	t.Helper()
	client := &http.Client{Transport: &clientcredentials.Transport{Source: r.Source, Base: f.network}}
	resp, err := client.Get("https://api.example/")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// withstand has r call the API every few seconds for hours, and requires that at most one
// call in a minute fails, and that none fails after the first minutes.
func (f *fleet) withstand(t *testing.T, r *replica) {
	t.Helper()
	var failed []time.Duration
	start := time.Now()
	for time.Since(start) < hours*time.Hour {
		if !r.call(t, f) {
			failed = append(failed, time.Since(start))
		}
		time.Sleep(7 * time.Second)
	}
	for i, at := range failed {
		if i > 0 {
			require.Greater(t, at-failed[i-1], time.Minute, "calls failed at %v", failed)
		}
	}
	require.LessOrEqual(t, len(failed), 3, "calls failed at %v", failed)
	require.LessOrEqual(t, f.auth.TokenRequests(), 40+4*hours, "the attack causes no storm")
}

// sealed collects what replicas put into the store.
func (f *fleet) sealed(t *testing.T, n int, between time.Duration) (records []tokenstore.Record) {
	t.Helper()
	for range n {
		f.replica().get(t)
		record, _ := f.store.Record(f.key(t))
		records = append(records, record)
		f.auth.RevokeAll()
		f.store.Flush()
		time.Sleep(between)
	}
	return records
}

func TestS21_ReplayedRecords(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		records int
		between time.Duration
		ttl     time.Duration
	}{
		"five in turn":              {5, time.Minute, 50 * time.Minute},
		"five of the last minute":   {5, 10 * time.Second, 50 * time.Minute},
		"one again and again":       {1, time.Minute, 50 * time.Minute},
		"many, of hours":            {40, 5 * time.Minute, 50 * time.Minute},
		"with hardly any life left": {5, time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
				records := f.sealed(t, test.records, test.between)
				next := 0
				replay := &storetest.Fault{Operation: event.Acquire, Reply: true, Claim: func(c *tokenstore.Claim) {
					*c = tokenstore.Claim{State: tokenstore.ClaimHit, Record: records[next%len(records)], TTL: test.ttl}
					next++
				}}
				r := f.replica()
				r.store.SetFault(replay)
				f.withstand(t, r)
			})
		})
	}
}

// A record that is replayed in the last half of the fleet's life must not keep a revoked
// token alive either.
func TestS21_RevokedTokenComesBack(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		require.True(t, r.call(t, f))
		record, _ := f.store.Record(f.key(t))
		f.auth.RevokeAll()
		r.store.SetFault(&storetest.Fault{Operation: event.Acquire, Reply: true, Claim: func(c *tokenstore.Claim) {
			*c = tokenstore.Claim{State: tokenstore.ClaimHit, Record: record, TTL: 50 * time.Minute}
		}})
		f.withstand(t, r)
	})
}

// A record that is older than the token that was dropped is no better than that.
func TestS21_RecordBeforeTheInvalidation(t *testing.T) {
	fleetBubble(t, 24*time.Hour, func(t *testing.T, f *fleet) {
		old := f.sealed(t, 1, time.Hour)[0]
		r := f.replica()
		invalidated := r.token(t)
		r.store.SetFault(&storetest.Fault{Operation: event.Acquire, Reply: true, Claim: func(c *tokenstore.Claim) {
			*c = tokenstore.Claim{State: tokenstore.ClaimHit, Record: old, TTL: 20 * time.Hour}
		}})
		r.Invalidate(invalidated)
		r.get(t)
		require.Equal(t, 3, f.auth.TokenRequests(), "one for each token")
	})
}

func TestS22_ReplayedNotes(t *testing.T) {
	for name, retryAfter := range map[string]time.Duration{"short": 45 * time.Second, "a minute": time.Minute, "an hour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
				f.auth.Script(clientcredentialstest.TooManyRequests(retryAfter))
				_, err := f.replica().Token()
				require.Error(t, err)
				synctest.Wait()
				note, _ := f.store.Cooldown(f.key(t))
				require.NotEmpty(t, note)
				time.Sleep(2 * time.Minute)
				r := f.replica()
				r.store.SetFault(&storetest.Fault{Operation: event.Acquire, Reply: true, Claim: func(c *tokenstore.Claim) {
					*c = tokenstore.Claim{State: tokenstore.ClaimCooling, Note: note, TTL: time.Hour}
				}})
				for start := time.Now(); !r.call(t, f); time.Sleep(7 * time.Second) {
					require.Less(t, time.Since(start), 2*time.Minute, "it holds once: the first one for a minute at most")
				}
				f.withstand(t, r)
			})
		})
	}
}

// The store names another lease owner each time, while the server is healthy.
func TestS23_AnotherLeaderEachTime(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		r := f.replica()
		owner := 0
		r.store.SetFault(&storetest.Fault{Operation: event.Acquire, Reply: true, Claim: func(c *tokenstore.Claim) {
			owner++
			*c = tokenstore.Claim{State: tokenstore.ClaimWait, Owner: fmt.Sprint(owner), TTL: 5 * time.Second}
		}})
		f.withstand(t, r)
	})
}

// An API always answers 401. The whole fleet makes two token requests in 30 seconds.
func TestS25_RejectionsOfTheFleet(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		replicas := f.replicas(200)
		mux := http.NewServeMux()
		mux.Handle("api.example/", &clientcredentialstest.ResourceServer{Issuer: new(clientcredentialstest.AuthorizationServer)}) // It knows none of the tokens.
		f.network = clientcredentialstest.HandlerTransport(mux)
		start := time.Now()
		for round := range 3 {
			for _, r := range replicas {
				require.False(t, r.call(t, f))
				time.Sleep(100 * time.Millisecond)
			}
			elapsed := time.Since(start)
			require.LessOrEqual(t, f.auth.TokenRequests(), 2+2*int(elapsed/(30*time.Second)), "round %d, after %v", round, elapsed)
		}
	})
}

// S26: whoever has the store, the keyring and the client id gets the fleet's token,
// whatever the secret. Tenants of one process are kept apart by SharedStore.For.
func TestS26_TenantsWithTheSameClientID(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		of := func(tenant, secret string) func(*clientcredentials.Config) {
			return func(c *clientcredentials.Config) {
				c.ClientSecret = secret
				if tenant != "" {
					c.Store = c.Store.For(tenant)
				}
			}
		}
		all, _ := f.replica().get(t)
		without, _ := f.replica(of("", "wrong")).get(t)
		require.Equal(t, all, without)

		a, _ := f.replica(of("a", "secret")).get(t)
		b, _ := f.replica(of("b", "secret")).get(t)
		again, _ := f.replica(of("a", "secret")).get(t)
		require.Equal(t, a, again)
		require.Len(t, map[string]bool{all: true, a: true, b: true}, 3)
		f.replica(of("c", "wrong")).fail(t, "invalid_client")
		require.Nil(t, (*clientcredentials.SharedStore)(nil).For("a"))
	})
}

// A token from the store passes the same checks as one from the server.
func TestTokenFromTheStoreIsChecked(t *testing.T) {
	fleetBubble(t, time.Hour, func(t *testing.T, f *fleet) {
		strangely := func(c *clientcredentials.Config) {
			c.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				body := `{"access_token":"strange","token_type":"Strange","expires_in":3600}`
				return &http.Response{
					StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
					Body: io.NopCloser(strings.NewReader(body)), Request: req,
				}, nil
			})}
		}
		strange, _ := f.replica(strangely).get(t)
		require.Equal(t, "strange", strange)
		tolerant, _ := f.replica().get(t)
		require.Equal(t, strange, tolerant)
		strict, _ := f.replica(func(c *clientcredentials.Config) { c.Strict = true }).get(t)
		require.NotEqual(t, strange, strict, "Strict refuses the type, wherever the token comes from")
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

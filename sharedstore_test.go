package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A functionStore is a Store of which only Acquire is called.
type functionStore struct {
	tokenstore.Store
	acquire func(context.Context) error
}

func (s functionStore) Acquire(ctx context.Context, _, _, _ string, _ time.Duration) (tokenstore.Claim, error) {
	return tokenstore.Claim{State: tokenstore.ClaimWait}, s.acquire(ctx)
}

// A breakerTest is a SharedStore whose calls end as its fields say.
type breakerTest struct {
	*SharedStore
	calls   atomic.Int32
	failure error       // what calls return
	hang    atomic.Bool // they wait for the end of their context instead
}

// breakerBubble runs a test of a SharedStore in a synctest bubble.
func breakerBubble(t *testing.T, failure error, test func(t *testing.T, s *breakerTest)) {
	t.Helper()
	testkit.Synctest(t, func(t *testing.T) {
		s := &breakerTest{failure: failure}
		s.SharedStore = DangerouslyShareInPlaintext(functionStore{acquire: func(ctx context.Context) error {
			s.calls.Add(1)
			if s.hang.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return s.failure
		}})
		test(t, s)
	})
}

// try makes a call and waits for its end.
func (s *SharedStore) try(ctx context.Context, observer *Observer) error {
	_, err := s.call(ctx, observer, event.Acquire, func(ctx context.Context) (tokenstore.ClaimState, error) {
		_, err := s.store.Acquire(ctx, "", "", "", 0)
		return 0, err
	}).Wait(ctx)
	return err
}

// fail makes calls, and requires that each ends with want.
func (s *breakerTest) fail(t *testing.T, calls int, want error) {
	t.Helper()
	for range calls {
		require.ErrorIs(t, s.try(t.Context(), &noObserver), want)
	}
}

func TestStoreIsLeftAloneAfterFailures(t *testing.T) {
	breakerBubble(t, errors.New("down"), func(t *testing.T, s *breakerTest) {
		s.fail(t, storeFailuresFree, s.failure)
		for pause := minStorePause; pause <= maxStorePause; pause *= 2 {
			before := s.calls.Load()
			start := time.Now()
			for s.calls.Load() == before {
				if err := s.try(t.Context(), &noObserver); s.calls.Load() == before {
					require.ErrorIs(t, err, errStoreSkipped)
				}
				time.Sleep(10 * time.Millisecond)
			}
			took := time.Since(start)
			require.GreaterOrEqual(t, took, pause*3/4)
			require.LessOrEqual(t, took, pause+20*time.Millisecond)
			require.Equal(t, before+1, s.calls.Load())
		}
		s.failure = nil
		time.Sleep(maxStorePause)
		require.NoError(t, s.try(t.Context(), &noObserver), "a success clears all failures")
		s.failure = errors.New("down again")
		s.fail(t, storeFailuresFree, s.failure)
		s.fail(t, 1, errStoreSkipped)
		time.Sleep(minStorePause) // The pauses begin anew.
		s.fail(t, 1, s.failure)
	})
}

func TestStoreLostLeaseIsNoFailure(t *testing.T) {
	breakerBubble(t, fmt.Errorf("wrapped: %w", tokenstore.ErrLeaseLost), func(t *testing.T, s *breakerTest) {
		s.fail(t, 10, tokenstore.ErrLeaseLost)
	})
}

// After a pause one call finds out whether the store is back, and the others don't wait.
func TestStoreIsProbedByOne(t *testing.T) {
	breakerBubble(t, nil, func(t *testing.T, s *breakerTest) {
		s.hang.Store(true)
		start := time.Now()
		s.fail(t, storeFailuresFree, slowStoreError{})
		require.Equal(t, storeFailuresFree*storeBudget, time.Since(start))
		for range 3 {
			time.Sleep(maxStorePause)
			before := s.calls.Load()
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { _ = s.try(t.Context(), &noObserver) })
			}
			wg.Wait()
			require.Equal(t, before+1, s.calls.Load())
		}
	})
}

// A call that its caller gives up says nothing about the store. The next call may probe it.
func TestStoreCallGivenUp(t *testing.T) {
	breakerBubble(t, errors.New("down"), func(t *testing.T, s *breakerTest) {
		giveUp := func(calls int) {
			s.hang.Store(true)
			defer s.hang.Store(false)
			for range calls {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				require.ErrorIs(t, s.try(ctx, &noObserver), context.DeadlineExceeded)
				cancel()
				synctest.Wait()
			}
		}
		giveUp(10)
		s.fail(t, storeFailuresFree, s.failure)
		time.Sleep(maxStorePause)
		giveUp(1)
		s.fail(t, 1, s.failure)
	})
}

// Calls of a store that ignores its context are bounded, and each is given up in time.
func TestStoreCallsAreBounded(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		release := make(chan struct{})
		var inside atomic.Int32
		s := DangerouslyShareInPlaintext(functionStore{acquire: func(context.Context) error {
			inside.Add(1)
			<-release
			return nil
		}})
		var wg sync.WaitGroup
		for range 3 * maxStoreCalls {
			wg.Go(func() {
				start := time.Now()
				if err := s.try(t.Context(), &noObserver); !errors.Is(err, slowStoreError{}) {
					t.Error(err)
				}
				if took := time.Since(start); took != storeBudget {
					t.Error(took)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(maxStoreCalls), inside.Load())
		close(release)
	})
}

func TestStoreMistakes(t *testing.T) {
	good := Seal(functionStore{acquire: func(context.Context) error { return nil }}, testKeyring(t, 1))
	for _, test := range []struct {
		want, id string
		conf     Config
	}{
		{"has no Keyring", "id", Config{Store: Seal(functionStore{}, nil)}},
		{"has no Keyring", "id", Config{Store: Seal(functionStore{}, new(Keyring))}},
		{"there is no Store", "id", Config{Store: Seal(nil, testKeyring(t, 1))}},
		{"there is no Store", "id", Config{Store: DangerouslyShareInPlaintext(nil)}},
		{"ClientID is empty", "", Config{Store: good, ClientSecret: "secret"}},
		{"EndpointParams contains password", "id", Config{Store: good, EndpointParams: url.Values{"password": {"x"}}}},
		{"EndpointParams contains client_assertion", "id", Config{Store: good, EndpointParams: url.Values{"client_assertion": {"x"}}}},
	} {
		c := &test.conf
		c.TokenURL, c.ClientID = "https://auth.example/token", test.id
		ctx, requests := answering(t.Context(), `{"access_token":"t"}`)
		_, err := c.Source(ctx).Token()
		require.ErrorContains(t, err, test.want)
		require.ErrorContains(t, err, "oauth2: ")
		_, err = c.Token(ctx)
		require.ErrorContains(t, err, test.want)
		require.Zero(t, requests.Load(), "nothing is sent")
	}
}

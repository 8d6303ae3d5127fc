package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// A functionStore is a Store of which only Acquire is ever called.
type functionStore struct {
	tokenstore.Store
	acquire func(context.Context) error
}

func (s functionStore) Acquire(ctx context.Context, _, _, _ string, _ time.Duration) (tokenstore.Claim, error) {
	return tokenstore.Claim{State: tokenstore.ClaimWait}, s.acquire(ctx)
}

// try makes a call and waits for its end.
func (s *SharedStore) try(ctx context.Context) error {
	return s.tryWith(ctx, &noObserver)
}

func (s *SharedStore) tryWith(ctx context.Context, observer *Observer) error {
	_, err := s.call(ctx, observer, event.Acquire, func(ctx context.Context) (tokenstore.ClaimState, error) {
		_, err := s.store.Acquire(ctx, "", "", "", 0)
		return 0, err
	}).Wait(ctx)
	return err
}

func TestStoreIsLeftAloneAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("down")
		var calls int
		s := DangerouslyShareInPlaintext(functionStore{acquire: func(context.Context) error {
			calls++
			return failure
		}})
		for range storeFailuresFree {
			require.ErrorIs(t, s.try(t.Context()), failure)
		}
		for pause := minStorePause; pause <= maxStorePause; pause *= 2 {
			before := calls
			start := time.Now()
			for calls == before {
				if err := s.try(t.Context()); calls == before {
					require.ErrorIs(t, err, errStoreSkipped)
				}
				time.Sleep(10 * time.Millisecond)
			}
			took := time.Since(start)
			require.GreaterOrEqual(t, took, pause*3/4)
			require.LessOrEqual(t, took, pause+20*time.Millisecond)
			require.Equal(t, before+1, calls)
		}
		failure = nil
		time.Sleep(maxStorePause)
		require.NoError(t, s.try(t.Context()))
		failure = errors.New("down again")
		for range storeFailuresFree {
			require.ErrorIs(t, s.try(t.Context()), failure, "a success clears all")
		}
		require.ErrorIs(t, s.try(t.Context()), errStoreSkipped)
		time.Sleep(minStorePause)
		require.ErrorIs(t, s.try(t.Context()), failure, "and the pauses begin anew")
	})
}

func TestStoreLostLeaseIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := DangerouslyShareInPlaintext(functionStore{acquire: func(context.Context) error { return fmt.Errorf("wrapped: %w", tokenstore.ErrLeaseLost) }})
		for range 10 {
			require.ErrorIs(t, s.try(t.Context()), tokenstore.ErrLeaseLost)
		}
	})
}

// After a pause one call finds out whether the store is back, and no other pays for it.
func TestStoreIsProbedByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		s := DangerouslyShareInPlaintext(functionStore{acquire: func(ctx context.Context) error {
			calls.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}})
		for range storeFailuresFree {
			start := time.Now()
			require.ErrorIs(t, s.try(t.Context()), errStoreSlow{})
			require.Equal(t, storeBudget, time.Since(start))
		}
		for range 3 {
			time.Sleep(maxStorePause)
			before := calls.Load()
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { _ = s.try(t.Context()) })
			}
			wg.Wait()
			require.Equal(t, before+1, calls.Load())
		}
	})
}

// Who gives up says nothing of the store, and frees the way for the next probe.
func TestStoreCallGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("down")
		var hang atomic.Bool
		s := DangerouslyShareInPlaintext(functionStore{acquire: func(ctx context.Context) error {
			if hang.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return failure
		}})
		giveUp := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, s.try(ctx), context.DeadlineExceeded)
			synctest.Wait()
		}
		hang.Store(true)
		for range 10 {
			giveUp()
		}
		hang.Store(false)
		for range storeFailuresFree {
			require.ErrorIs(t, s.try(t.Context()), failure)
		}
		time.Sleep(maxStorePause)
		hang.Store(true)
		giveUp()
		hang.Store(false)
		require.ErrorIs(t, s.try(t.Context()), failure, "that was no answer")
	})
}

// Calls of a store that is deaf to its context are bounded, and each is given up in time.
func TestStoreCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
				if err := s.try(t.Context()); !errors.Is(err, errStoreSlow{}) {
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

func TestStoreObserverMayPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := DangerouslyShareInPlaintext(functionStore{acquire: func(context.Context) error { return nil }})
		require.NoError(t, s.tryWith(t.Context(), &Observer{StoreOperation: func(event.StoreOperation) { panic("here") }}))
	})
}

func TestStoreMistakes(t *testing.T) {
	good := Seal(functionStore{acquire: func(context.Context) error { return nil }}, testKeyring(t, 1))
	for text, c := range map[string]*Config{
		"has no Keyring":                 {Store: Seal(functionStore{}, nil)},
		"has no Keyring ":                {Store: Seal(functionStore{}, new(Keyring))},
		"there is no Store":              {Store: Seal(nil, testKeyring(t, 1))},
		"there is no Store ":             {Store: DangerouslyShareInPlaintext(nil)},
		"ClientID is empty ":             {Store: good, ClientSecret: "secret"},
		"EndpointParams contains passwo": {Store: good, EndpointParams: url.Values{"password": {"x"}}},
		"EndpointParams contains client": {Store: good, EndpointParams: url.Values{"client_assertion": {"x"}}},
	} {
		c.TokenURL = "https://auth.example/token"
		if !strings.HasPrefix(text, "ClientID") {
			c.ClientID = "id"
		}
		ctx, requests := answering(t.Context(), `{"access_token":"t"}`)
		_, err := c.Source(ctx).Token()
		require.ErrorContains(t, err, text[:len(text)-1])
		require.ErrorContains(t, err, "oauth2: ")
		_, err = c.Token(ctx)
		require.ErrorContains(t, err, text[:len(text)-1])
		require.Zero(t, requests.Load(), "nothing is sent")
	}
}

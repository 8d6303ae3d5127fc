package storetest_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

var record = tokenstore.Record{Version: "v1", Data: []byte("data")}

// lead acquires the lease on "key" for an hour.
func lead(t *testing.T, s *storetest.Store, owner string) {
	t.Helper()
	claim, err := s.Acquire(t.Context(), "key", "", owner, time.Hour)
	require.NoError(t, err)
	require.Equal(t, tokenstore.Claim{State: tokenstore.ClaimLead, TTL: time.Hour}, claim)
}

// Lifetimes end exactly on time, and TTLs are rounded down to milliseconds.
func TestStoreByTheClock(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		var s storetest.Store
		acquire := func(owner string) tokenstore.Claim {
			t.Helper()
			claim, err := s.Acquire(t.Context(), "key", "", owner, time.Hour)
			require.NoError(t, err)
			return claim
		}
		lead(t, &s, "a")
		time.Sleep(time.Hour - 1)
		require.Equal(t, tokenstore.Claim{State: tokenstore.ClaimWait, Owner: "a"}, acquire("b"))
		owner, ttl := s.Lease("key")
		require.Equal(t, "a", owner)
		require.EqualValues(t, 1, ttl)
		time.Sleep(1)
		require.Empty(t, s.Keys())
		require.ErrorIs(t, s.Publish(t.Context(), "key", "a", record, time.Hour), tokenstore.ErrLeaseLost)
		lead(t, &s, "b")

		require.NoError(t, s.Abort(t.Context(), "key", "b", []byte("note"), time.Second))
		time.Sleep(time.Second - 1)
		require.Equal(t, tokenstore.Claim{State: tokenstore.ClaimCooling, Note: []byte("note")}, acquire("a"))
		note, ttl := s.Cooldown("key")
		require.Equal(t, "note", string(note))
		require.EqualValues(t, 1, ttl)
		time.Sleep(1)
		lead(t, &s, "a")

		require.NoError(t, s.Publish(t.Context(), "key", "a", record, time.Second+1))
		require.Equal(t, tokenstore.Claim{State: tokenstore.ClaimHit, TTL: time.Second, Record: record}, acquire("b"))
		kept, ttl := s.Record("key")
		require.Equal(t, record, kept)
		require.Equal(t, time.Second+1, ttl)
		require.Equal(t, []string{"key"}, s.Keys())
		time.Sleep(time.Second + 1)
		lead(t, &s, "b")
		require.NoError(t, s.Publish(t.Context(), "key", "b", record, 0))
		require.Empty(t, s.Keys())
	})
}

func TestFault(t *testing.T) {
	failure := errors.New("failure")
	tests := []struct {
		name  string
		fault storetest.Fault
		err   error
		after time.Duration
		done  bool // the call has been carried out
	}{
		{"none", storetest.Fault{}, nil, 0, true},
		{"Err", storetest.Fault{Err: failure}, failure, 0, false},
		{"Delay", storetest.Fault{Delay: time.Second}, nil, time.Second, true},
		{"Delay beyond the context", storetest.Fault{Delay: time.Hour}, context.DeadlineExceeded, time.Minute, false},
		{"Reply and Err", storetest.Fault{Reply: true, Err: failure}, failure, 0, true},
		{"Reply and Delay beyond the context", storetest.Fault{Reply: true, Delay: time.Hour}, context.DeadlineExceeded, time.Minute, true},
		{"Hang and Err", storetest.Fault{Hang: true, Err: failure}, failure, 90 * time.Second, false},
		{"Hang and Reply", storetest.Fault{Hang: true, Reply: true}, nil, 90 * time.Second, true},
		{"of another operation", storetest.Fault{Operation: event.Acquire, Err: failure}, nil, 0, true},
		{"of this operation", storetest.Fault{Operation: event.Publish, Err: failure}, failure, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				var s storetest.Store
				lead(t, &s, "a")
				s.Script(test.fault)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				time.AfterFunc(90*time.Second, func() { s.SetFault(nil) })
				start := time.Now()
				err := s.Publish(ctx, "key", "a", record, 24*time.Hour)
				require.Equal(t, test.after, time.Since(start))
				require.ErrorIs(t, err, test.err)
				_, ttl := s.Record("key")
				require.Equal(t, test.done, ttl > 0)
				call := s.Calls(event.Publish)[0]
				require.Equal(t, err, call.Err)
				require.False(t, call.Pending)
				time.Sleep(time.Hour) // until SetFault has run
			})
		})
	}
}

func TestFaultsInOrder(t *testing.T) {
	failure := errors.New("failure")
	var s storetest.Store
	acquire := func() error {
		_, err := s.Acquire(t.Context(), "key", "", "a", time.Minute)
		return err
	}
	s.SetFault(&storetest.Fault{Operation: event.Acquire, Err: failure})
	s.Script(storetest.ReplyLost(), storetest.Fault{Operation: event.Abort, Err: failure}, storetest.Fault{})
	require.ErrorContains(t, acquire(), "reset")
	require.NoError(t, acquire(), "the fault of another operation waits for that operation")
	require.ErrorIs(t, acquire(), failure)
	require.ErrorIs(t, s.Abort(t.Context(), "key", "a", nil, 0), failure)
	require.NoError(t, s.Abort(t.Context(), "key", "a", nil, 0))
	unavailable := storetest.Unavailable()
	s.SetFault(&unavailable)
	unavailable.Err = nil
	require.ErrorContains(t, s.Invalidate(t.Context(), "key", "v1"), "refused")
	s.SetFault(nil)
	require.NoError(t, acquire())
}

func TestCorrupted(t *testing.T) {
	var s storetest.Store
	lead(t, &s, "a")
	require.NoError(t, s.Abort(t.Context(), "key", "a", []byte("note"), time.Hour))
	s.SetRecord("key", record, time.Hour)
	s.SetRecord("empty", tokenstore.Record{Version: "v1"}, time.Hour)
	acquire := func(key, stale string) tokenstore.Claim {
		claim, err := s.Acquire(t.Context(), key, stale, "a", time.Hour)
		require.NoError(t, err)
		return claim
	}
	fault := storetest.Corrupted()
	s.SetFault(&fault)
	require.Equal(t, "da\x75a", string(acquire("key", "").Record.Data))
	require.Equal(t, "no\x75e", string(acquire("key", "v1").Note))
	require.Empty(t, acquire("empty", "").Record.Data)
	s.SetFault(nil)
	require.Equal(t, record, acquire("key", "").Record)
	require.Equal(t, "note", string(acquire("key", "v1").Note))
}

// Clients share what is in the store, and nothing else.
func TestConnect(t *testing.T) {
	var a storetest.Store
	b := a.Connect()
	unavailable := storetest.Unavailable()
	b.SetFault(&unavailable)
	lead(t, &a, "a")
	_, err := b.Acquire(t.Context(), "key", "", "b", time.Minute)
	require.Error(t, err)
	for _, s := range []*storetest.Store{&a, b, b.Connect()} {
		require.LessOrEqual(t, len(s.Calls()), 1)
		owner, _ := s.Lease("key")
		require.Equal(t, "a", owner)
	}
}

func TestFlush(t *testing.T) {
	var s storetest.Store
	for _, key := range []string{"3", "1", "2"} {
		s.SetRecord(key, record, time.Hour)
	}
	s.Flush("1", "4")
	require.Equal(t, []string{"2", "3"}, s.Keys())
	s.Flush()
	require.Empty(t, s.Keys())
}

func TestCalls(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		var s storetest.Store
		start := time.Now()
		lead(t, &s, "a")
		require.NoError(t, s.Publish(t.Context(), "key", "a", record, time.Minute))
		require.ErrorIs(t, s.Publish(t.Context(), "key", "b", record, time.Second), tokenstore.ErrLeaseLost)
		time.Sleep(1)
		require.NoError(t, s.Abort(t.Context(), "key", "a", []byte("note"), 0))
		done, cancel := context.WithCancel(t.Context())
		cancel()
		s.Script(storetest.Fault{Hang: true})
		require.ErrorIs(t, s.Invalidate(done, "key", "v1"), context.Canceled, "a call whose context is done takes no fault")
		_, ttl := s.Record("key")
		require.NotZero(t, ttl, "a call whose context is done does nothing")
		go func() { _ = s.Invalidate(t.Context(), "other", "v1") }()
		synctest.Wait()
		require.Equal(t, []storetest.Call{
			{Time: start, Operation: event.Acquire, Key: "key", Owner: "a", Duration: time.Hour, State: tokenstore.ClaimLead},
			{Time: start, Operation: event.Publish, Key: "key", Owner: "a", Version: "v1", Data: record.Data, Duration: time.Minute},
			{Time: start, Operation: event.Publish, Key: "key", Owner: "b", Version: "v1", Data: record.Data, Duration: time.Second, Err: tokenstore.ErrLeaseLost},
			{Time: start.Add(1), Operation: event.Abort, Key: "key", Owner: "a", Data: []byte("note")},
			{Time: start.Add(1), Operation: event.Invalidate, Key: "key", Version: "v1", Err: context.Canceled},
			{Time: start.Add(1), Operation: event.Invalidate, Key: "other", Version: "v1", Pending: true},
		}, s.Calls())
		require.Len(t, s.Calls(event.Abort, event.Acquire), 2)
		s.SetFault(nil)
		synctest.Wait()
		require.False(t, s.Calls()[5].Pending)
	})
}

// Expired entries and old calls don't stay in memory forever.
func TestStoreIsBounded(t *testing.T) {
	const many = 25_000
	testkit.Bubble(t, func(t *testing.T) {
		var s storetest.Store
		for i := range many {
			_, err := s.Acquire(t.Context(), strconv.Itoa(i), "", "a", time.Millisecond)
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
		}
		require.Less(t, storetest.Held(&s), many/2)
		require.Len(t, s.Calls(), 10_000)
		require.Equal(t, strconv.Itoa(many-1), s.Calls()[9_999].Key)
	})
}

func TestStoreConcurrently(t *testing.T) {
	var s storetest.Store
	var wg sync.WaitGroup
	for i := range 20 {
		owner := strconv.Itoa(i)
		wg.Go(func() {
			for range 50 {
				_, _ = s.Acquire(t.Context(), "key", "", owner, time.Hour)
				_ = s.Abort(t.Context(), "key", owner, nil, 0)
				s.Script(storetest.Corrupted())
				s.SetFault(nil)
				s.Calls()
				s.Keys()
				s.Record("key")
				s.Lease("key")
				s.Cooldown("key")
				s.SetRecord("key", record, time.Hour)
				s.Connect().Flush()
			}
		})
	}
	wg.Wait()
}

package bounded

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDo(t *testing.T) {
	for name, test := range map[string]struct {
		f    func() (int, error)
		want int
		err  string
	}{
		"value":            {func() (int, error) { return 1, nil }, 1, ""},
		"error":            {func() (int, error) { return 0, io.EOF }, 0, "EOF"},
		"panic":            {func() (int, error) { panic("secret") }, 0, "panicked with a value of type string"},
		"panic with error": {func() (int, error) { panic(errors.New("secret")) }, 0, "panicked with a value of type *errors.errorString"},
		"runtime error":    {func() (int, error) { return make([]int, 0)[0], nil }, 0, "panicked: runtime error: index out of range [0] with length 0"},
		"Goexit":           {func() (int, error) { runtime.Goexit(); return 0, nil }, 0, "ended its goroutine"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Do(t.Context(), func(context.Context) (int, error) { return test.f() })
			require.Equal(t, test.want, got)
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.err)
			var fault runtime.Error
			require.Equal(t, name == "runtime error", errors.As(err, &fault))
		})
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	reason := errors.New("reason")
	for name, f := range map[string]func(context.Context) (int, error){
		"obeys its context":   func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, context.Cause(ctx) },
		"ignores its context": func(context.Context) (int, error) { time.Sleep(time.Minute); return 1, nil },
		"panics late":         func(context.Context) (int, error) { time.Sleep(time.Minute); panic("late") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
				defer cancel()
				start := time.Now()
				got, err := Do(ctx, f)
				require.Equal(t, time.Second, time.Since(start))
				require.Zero(t, got)
				require.Equal(t, reason, err)
				time.Sleep(2 * time.Minute) // Until f has ended.
			})
		})
	}
}

// A call ends once, before anybody gets its result.
func TestStartEndsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, takes := range []time.Duration{0, time.Second, time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var order []string
			call := Start(ctx, func(context.Context) (string, error) {
				time.Sleep(takes)
				return "value", nil
			}, func(string, error) func() {
				order = append(order, "ended")
				return func() { order = append(order, "then") }
			})
			require.False(t, call.HasEnded())
			_, _ = call.Wait(t.Context())
			require.True(t, call.HasEnded())
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			require.Equal(t, []string{"ended", "then"}, order)
			cancel()
		}
	})
}

func TestWait(t *testing.T) {
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(io.EOF)
	release := make(chan struct{})
	call := Start(t.Context(), func(context.Context) (int, error) { <-release; return 1, nil }, nil)
	_, err := call.Wait(gone)
	require.ErrorIs(t, err, io.EOF)
	close(release)
	got, err := call.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, got)
	for range 1000 { // A select would choose at random.
		_, err = call.Wait(gone)
		require.NoError(t, err, "the call has ended")
	}
	_, err = Ended[int](io.ErrUnexpectedEOF).Wait(gone)
	require.Equal(t, io.ErrUnexpectedEOF, err)
}

func TestTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []int
		start := time.Now()
		Tell(nil, 1)
		Tell(func(n int) { told = append(told, n); panic("here") }, 2)
		Tell(func(n int) { told = append(told, n); runtime.Goexit() }, 3)
		Quietly(func() { told = append(told, 4); panic("here") })
		require.Equal(t, []int{2, 3, 4}, told)
		require.Zero(t, time.Since(start))
		require.Zero(t, late.Load())

		// Nobody waits long for a function that blocks, and there are not many of them.
		release := make(chan struct{})
		var blocked atomic.Int32
		for range 3 * maxLate {
			Tell(func(int) { blocked.Add(1); <-release }, 5)
		}
		require.EqualValues(t, maxLate, blocked.Load())
		require.Equal(t, maxLate*patience, time.Since(start))
		close(release)
		synctest.Wait()
		Tell(func(n int) { told = append(told, n) }, 6)
		require.Equal(t, []int{2, 3, 4, 6}, told)
	})
}

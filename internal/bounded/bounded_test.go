package bounded

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDo(t *testing.T) {
	reason := errors.New("reason")
	for name, test := range map[string]struct {
		f    func(context.Context) (int, error)
		want int
		err  string
		took time.Duration
	}{
		"value":            {f: func(context.Context) (int, error) { return 1, nil }, want: 1},
		"error":            {f: func(context.Context) (int, error) { return 0, io.EOF }, err: "EOF"},
		"panic":            {f: func(context.Context) (int, error) { panic("secret") }, err: "panicked with a value of type string"},
		"panic with error": {f: func(context.Context) (int, error) { panic(reason) }, err: "panicked with a value of type *errors.errorString"},
		"runtime error":    {f: func(context.Context) (int, error) { return []int(nil)[0], nil }, err: "panicked: runtime error: index out of range [0] with length 0"},
		"Goexit":           {f: func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }, err: "ended its goroutine"},
		"obeys its context": {f: func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() },
			err: "reason", took: time.Second},
		"ignores its context": {f: func(context.Context) (int, error) { time.Sleep(time.Minute); return 1, nil },
			err: "reason", took: time.Second},
		"panics late": {f: func(context.Context) (int, error) { time.Sleep(time.Minute); panic("late") },
			err: "reason", took: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
				defer cancel()
				start := time.Now()
				got, err := Do(ctx, test.f)
				require.Equal(t, test.took, time.Since(start))
				require.Equal(t, test.want, got)
				if test.err == "" {
					require.NoError(t, err)
				} else if test.took == 0 || name != "obeys its context" {
					require.EqualError(t, err, test.err)
				}
				time.Sleep(2 * time.Minute) // Until everything is over.
				var failure *Failure
				if errors.As(err, &failure) {
					var fault runtime.Error
					require.Equal(t, name == "runtime error", errors.As(err, &fault))
				}
			})
		})
	}
}

// Whatever happens first, a call ends once, before anybody gets its result.
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
	for range 1000 { // select would choose at random.
		_, err = call.Wait(gone)
		require.NoError(t, err, "the result is there")
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
		blocked := 0
		for range 3 * maxLate {
			Tell(func(int) { blocked++; <-release }, 5)
		}
		require.Equal(t, maxLate, blocked)
		require.Equal(t, maxLate*patience, time.Since(start))
		close(release)
		synctest.Wait()
		Tell(func(n int) { told = append(told, n) }, 6)
		require.Equal(t, []int{2, 3, 4, 6}, told)
	})
}

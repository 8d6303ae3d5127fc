// Package bounded calls code that may never return.
//
// A program supplies a RoundTripper, a signer, a store, an Observer. Any of them may ignore
// its context, panic, or end its goroutine. Whatever it does, a call through this package
// ends exactly once, and at the latest when its context does.
package bounded

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Go calls f in a goroutine of its own, and then calls ended, exactly once:
//
//   - with what f returns,
//   - with a *FailureError if f panics or ends its goroutine,
//   - with the cause of ctx as soon as ctx is done. f may still be running then; its
//     result is dropped.
//
// ended runs in a goroutine of its own or in that of f.
func Go[T any](ctx context.Context, f func(context.Context) (T, error), ended func(T, error)) {
	var once sync.Once
	end := func(value T, err error) { once.Do(func() { ended(value, err) }) }
	stop := context.AfterFunc(ctx, func() {
		var none T
		end(none, context.Cause(ctx))
	})
	go run(ctx, f, func(value T, err error) {
		stop()
		end(value, err)
	})
}

// run calls f, and then ended, also if f panics or ends its goroutine.
func run[T any](ctx context.Context, f func(context.Context) (T, error), ended func(T, error)) {
	var value T
	err := error(errGoexit) // Until f returns.
	defer func() {
		if v := recover(); v != nil {
			err = newFailure(v)
		}
		ended(value, err)
	}()
	value, err = f(ctx)
}

// A Call is a call of f that others can wait for.
type Call[T any] struct {
	done  chan struct{} // closed at the end
	value T             // written before done is closed
	err   error
}

// Start calls f as Go does. If ended isn't nil, it runs before anybody who waits for the
// call gets the result. If ended returns a function, that runs afterwards.
func Start[T any](ctx context.Context, f func(context.Context) (T, error), ended func(T, error) (then func())) *Call[T] {
	c := &Call[T]{done: make(chan struct{})}
	Go(ctx, f, func(value T, err error) {
		c.value, c.err = value, err
		var then func()
		if ended != nil {
			then = ended(value, err)
		}
		close(c.done)
		if then != nil {
			then()
		}
	})
	return c
}

// Ended returns a call that has ended with that error.
func Ended[T any](err error) *Call[T] {
	c := &Call[T]{done: make(chan struct{}), err: err}
	close(c.done)
	return c
}

// HasEnded reports whether the call has ended.
func (c *Call[T]) HasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Wait returns the result of the call, or the cause of ctx if that is done first. If both
// happen at once, the result wins.
func (c *Call[T]) Wait(ctx context.Context) (T, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		if !c.HasEnded() {
			var none T
			return none, context.Cause(ctx)
		}
	}
	return c.value, c.err
}

// Do calls f and waits for the end of the call, which comes at the latest when ctx is done.
func Do[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	c := &Call[T]{done: make(chan struct{})}
	go run(ctx, f, func(value T, err error) {
		c.value, c.err = value, err
		close(c.done)
	})
	return c.Wait(ctx)
}

// Quietly calls f in the caller's goroutine, and drops a panic. It is for code whose
// failure must not change anything, such as an Observer.
func Quietly(f func()) {
	defer func() { _ = recover() }()
	f()
}

// A FailureError is the error for a function that didn't return. Its text continues a
// sentence: "the signer panicked with a value of type string".
type FailureError struct {
	text  string
	fault runtime.Error // what f panicked with, if that is an error of the runtime
}

var errGoexit = &FailureError{text: "ended its goroutine"}

// newFailure quotes only errors of the runtime, and keeps nothing else: whatever a program
// panics with may hold a secret.
func newFailure(v any) *FailureError {
	if fault, ok := v.(runtime.Error); ok {
		return &FailureError{fmt.Sprintf("panicked: %v", fault), fault} // fmt survives an Error method that panics.
	}
	return &FailureError{text: fmt.Sprintf("panicked with a value of type %T", v)}
}

func (e *FailureError) Error() string { return e.text }

// Unwrap returns the error of the runtime, if there is one.
func (e *FailureError) Unwrap() error {
	if e.fault == nil {
		return nil
	}
	return e.fault
}

const (
	// patience is how long Tell waits for a function. One that keeps to the rules takes
	// microseconds.
	patience = 5 * time.Millisecond

	// maxLate bounds the calls that Tell no longer waits for, in the whole process.
	maxLate = 1000
)

// late counts the calls of Tell that have not returned.
var late atomic.Int32

// Tell calls a function of an Observer, unless that is nil, and drops a panic. It waits
// for the function no longer than 5 milliseconds. If a thousand functions in the process
// are still running after that, f isn't called.
func Tell[T any](f func(T), event T) {
	if f != nil {
		tell(func() { f(event) }) // Kept apart, so that Tell is inlined and costs nothing without an Observer.
	}
}

func tell(f func()) {
	if late.Add(1) > maxLate {
		late.Add(-1)
		return
	}
	done := make(chan struct{})
	go func() {
		defer func() {
			_ = recover()
			late.Add(-1)
			close(done)
		}()
		f()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

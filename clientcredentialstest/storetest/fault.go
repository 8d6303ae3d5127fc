package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// Fault says what goes wrong with one call of a [Store]. Its fields can be combined. A
// fault without Err and Claim only delays the call.
type Fault struct {
	// Operation limits the fault to calls of one method. Empty: any method.
	Operation event.Operation

	// Reply makes the fault happen to the reply: the call is carried out, and its
	// reply is late or lost. Otherwise the fault happens before the call is carried
	// out, and a call that fails has changed nothing.
	Reply bool

	// Hang makes the call wait until the next [Store.SetFault], even if its context
	// is done, like a client whose server has frozen.
	Hang bool

	// Delay is how long the call waits. If its context is done before that, the call
	// fails with the error of the context.
	Delay time.Duration

	// Err is what the call returns.
	Err error

	// Claim changes what Acquire returns.
	Claim func(*tokenstore.Claim)
}

// Unavailable fails a call at once: nothing listens at the address of the store.
func Unavailable() Fault { return Fault{Err: errUnavailable} }

// ReplyLost fails a call after it has been carried out: the connection broke before the
// reply arrived.
func ReplyLost() Fault { return Fault{Reply: true, Err: errReplyLost} }

// Corrupted flips a bit in the data or the note that Acquire returns.
func Corrupted() Fault {
	return Fault{Operation: event.Acquire, Claim: func(c *tokenstore.Claim) {
		for _, b := range [][]byte{c.Record.Data, c.Note} {
			if len(b) > 0 {
				b[len(b)/2] ^= 1
			}
		}
	}}
}

var (
	errUnavailable = errors.New("storetest: connection refused")
	errReplyLost   = errors.New("storetest: connection reset before the reply")
)

// concerns reports whether the fault may happen to call.
func (f *Fault) concerns(call *Call) bool {
	return f.Operation == "" || f.Operation == call.Operation
}

// happen waits as long as the fault says and returns its error.
func (f *Fault) happen(ctx context.Context, hang <-chan struct{}) error {
	if f.Hang {
		<-hang
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.Err
}

package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// Fault says what goes wrong with one call of a [Store]. Its fields combine; one that
// sets neither Err nor Claim only takes time.
type Fault struct {
	// Operation is the only one that the fault concerns: "acquire", "renew",
	// "publish", "abort" or "invalidate". Empty: any.
	Operation string

	// Reply is when the fault happens: the call has been carried out, and its reply
	// is late or lost. Otherwise it happens before, and a call that fails has
	// changed nothing.
	Reply bool

	// Hang makes the call wait for the next [Store.SetFault], deaf to its context, as
	// that of a client whose server has frozen.
	Hang bool

	// Delay passes, or the call fails with the error of its context.
	Delay time.Duration

	// Err is what the call returns.
	Err error

	// Claim changes what Acquire returns.
	Claim func(*tokenstore.Claim)
}

// Unavailable is an error at once: nothing listens where the store should be.
func Unavailable() Fault { return Fault{Err: errUnavailable} }

// ReplyLost is an error after the call has been carried out: the connection broke
// before the reply came.
func ReplyLost() Fault { return Fault{Reply: true, Err: errReplyLost} }

// Corrupted changes a bit of the record's data, or of the note, that Acquire returns.
func Corrupted() Fault {
	return Fault{Operation: "acquire", Claim: func(c *tokenstore.Claim) {
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

func (f *Fault) concerns(call *Call) bool {
	return f.Operation == "" || f.Operation == call.Operation
}

// happen takes the fault's time and returns its error.
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

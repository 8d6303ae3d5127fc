// Package event has the types that an Observer is called with: one for each thing that
// happens to a token.
//
//	conf.Observer = &clientcredentials.Observer{
//		RefreshFailed: func(e event.RefreshFailed) { failures.Add(1) },
//	}
//
// None of them contains a token, a secret or a scope, except where the authorization
// server names one in the text of an error.
package event

import (
	"fmt"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// TokenServed says that a caller got a token.
type TokenServed struct {
	Target string // clientcredentials.Target.ID of what the token is for; empty: what the Config says
	From   TokenFrom
	Waited time.Duration // how long the caller waited
	Stale  bool          // the token is due to be replaced
}

// TokenFrom says where a token came from.
type TokenFrom int

const (
	// FromMemory: the Source had it.
	FromMemory TokenFrom = iota
	// FromStore: another replica had put it into Config.Store.
	FromStore
	// FromServer: the authorization server has just issued it.
	FromServer
)

// String returns "memory", "store" or "server".
func (f TokenFrom) String() string {
	switch f {
	case FromMemory:
		return "memory"
	case FromStore:
		return "store"
	case FromServer:
		return "server"
	}
	return fmt.Sprintf("TokenFrom(%d)", int(f))
}

// TokenFailed says that a caller got no token.
type TokenFailed struct {
	Target string        // clientcredentials.Target.ID of what the token is for; empty: what the Config says
	Waited time.Duration // how long the caller waited
	Err    error         // what the caller got
}

// RefreshStarted says that a token request begins.
type RefreshStarted struct {
	Target     string // clientcredentials.Target.ID of what the token is for; empty: what the Config says
	Background bool   // there is a valid token, and callers use it
}

// RefreshDone says that there is a new token.
type RefreshDone struct {
	Target    string        // clientcredentials.Target.ID of what the token is for; empty: what the Config says
	Duration  time.Duration // since the start, with retries
	Attempts  int           // without the one that found out the auth style; 0: another replica made them
	Life      time.Duration // of the new token; 0: it doesn't expire
	From      TokenFrom     // FromStore or FromServer
	LeaseWait time.Duration // how long another replica was waited for
}

// RefreshFailed says that the token request has failed, in spite of retries.
type RefreshFailed struct {
	Target   string        // clientcredentials.Target.ID of what the token is for; empty: what the Config says
	Duration time.Duration // since the start, with retries
	Err      error
}

// Retry says that an attempt at a token failed, and that another one follows.
type Retry struct {
	Attempt int // the one that failed; the first is 1
	Delay   time.Duration
	Err     error
}

// Cooldown says that there is a pause before the next token request, after a failure.
type Cooldown struct {
	Target   string    // clientcredentials.Target.ID of what the token is for; empty: what the Config says
	Failures int       // in a row
	Until    time.Time // when a call can request a token again
}

// Invalidated says that a token was dropped before it expired.
type Invalidated struct {
	Target string // clientcredentials.Target.ID of what the token is for; empty: what the Config says
	Reason InvalidationReason
}

// InvalidationReason says why a token was dropped.
type InvalidationReason int

const (
	// Revoked: the program called Source.Invalidate.
	Revoked InvalidationReason = iota
	// Rejected: an API answered 401, or the program called Source.Reject.
	Rejected
	// CertificateReplaced: the client has another certificate now, and the token may
	// be bound to the old one.
	CertificateReplaced
)

// String returns "revoked", "rejected" or "certificate_replaced".
func (r InvalidationReason) String() string {
	switch r {
	case Revoked:
		return "revoked"
	case Rejected:
		return "rejected"
	case CertificateReplaced:
		return "certificate_replaced"
	}
	return fmt.Sprintf("InvalidationReason(%d)", int(r))
}

// StoreOperation says that Config.Store was called, or that what it returned can't be used.
type StoreOperation struct {
	Operation Operation
	State     tokenstore.ClaimState // the result of Acquire; 0: it failed, or this is another operation
	Duration  time.Duration         // at most 250 milliseconds: nobody waits longer
	Err       error                 // tokenstore.ErrLeaseLost is not a failure of the store; a long text is cut, and has no control characters
}

// Operation names what was done with Config.Store.
type Operation string

// The operations. All but Unseal are methods of tokenstore.Store.
const (
	Acquire    Operation = "acquire"
	Renew      Operation = "renew"
	Publish    Operation = "publish"
	Abort      Operation = "abort"
	Invalidate Operation = "invalidate"
	// Unseal: what the store returned can't be read. It is reported only as a failure.
	Unseal Operation = "unseal"
)

// OriginRefused says that an origin didn't get the token.
type OriginRefused struct {
	Origin  string // scheme, host and port
	Outcome OriginOutcome
}

// OriginOutcome says what happened to the request that would have taken a token to
// another origin.
type OriginOutcome int

const (
	// RequestRefused: nothing was sent, and the caller got an error.
	RequestRefused OriginOutcome = iota
	// SentWithoutToken: it was a redirect, and was followed without the token.
	SentWithoutToken
)

// String returns "request_refused" or "sent_without_token".
func (o OriginOutcome) String() string {
	switch o {
	case RequestRefused:
		return "request_refused"
	case SentWithoutToken:
		return "sent_without_token"
	}
	return fmt.Sprintf("OriginOutcome(%d)", int(o))
}

// Insecure says that credentials or tokens travel over http to a host that isn't this one.
type Insecure struct {
	Origin string // scheme, host and port
}

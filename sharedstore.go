package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

const (
	// storeBudget bounds each call of a Store. It also bounds what the store costs a caller
	// who waits for a token while the store hangs.
	storeBudget = 250 * time.Millisecond

	// maxStoreCalls bounds the calls that are under way, including those that nobody
	// waits for anymore because the store ignores their context.
	maxStoreCalls = 100

	storeFailuresFree = 3               // failures in a row before the store is left alone,
	minStorePause     = time.Second     // for that long,
	maxStorePause     = 5 * time.Second // to this, doubling
)

// A SharedStore shares tokens through a Store, and protects the service from it. Nobody
// waits longer than 250 milliseconds for the store. After three failures in a row the
// store is left alone for 1 second, then 2, up to 5, and tokens are requested as if there
// were no store.
//
// Get one from Seal, or from an adapter. Any number of Configs can use the same one. It
// is safe for concurrent use.
type SharedStore struct {
	store   tokenstore.Store
	keyring *Keyring // nil: nothing is encrypted
	fault   error    // why it can't be used; nil: it can
	tenant  string   // see For
	calls   chan struct{}

	breaker *breaker
}

// A breaker keeps calls away from a store that fails. Safe for concurrent use.
type breaker struct {
	mu       sync.Mutex // protects what follows
	failures int        // in a row
	pause    time.Duration
	resume   clock.Deadline // when calls are allowed again
	probing  bool           // the first call after the pause is under way
}

// Seal returns a SharedStore that encrypts what it puts into store, with AES-256-GCM.
// Somebody who reads the store learns neither tokens nor clients, and somebody who writes to
// it can't forge a token. The first call that needs a token reports what is missing.
func Seal(store tokenstore.Store, keyring *Keyring) *SharedStore {
	s := newSharedStore(store)
	s.keyring = keyring
	if s.fault == nil && (keyring == nil || len(keyring.keys) == 0) {
		s.fault = errors.New("oauth2: the Store has no Keyring; get one from NewKeyring")
	}
	return s
}

// DangerouslyShareInPlaintext returns a SharedStore that encrypts nothing. Anyone who can
// read the store, its backups or its traffic gets the tokens. Anyone who can write to it
// chooses which tokens the service uses. Prefer Seal.
func DangerouslyShareInPlaintext(store tokenstore.Store) *SharedStore { return newSharedStore(store) }

func newSharedStore(store tokenstore.Store) *SharedStore {
	s := &SharedStore{store: store, calls: make(chan struct{}, maxStoreCalls), breaker: new(breaker)}
	if store == nil {
		s.fault = errors.New("oauth2: there is no Store in the SharedStore")
	}
	return s
}

// For returns a SharedStore for the tokens of that tenant alone, over the same store.
//
// Whoever has access to the store and the Keyring, and knows the client id, gets the
// token that is shared, also with a wrong secret or none: the secret isn't part of what
// distinguishes tokens, so that they outlive its rotation. If one process acts for
// tenants that must not get each other's tokens although their client ids may be the
// same, give each Config the store of its tenant.
func (s *SharedStore) For(tenant string) *SharedStore {
	if s == nil {
		return nil
	}
	of := *s
	of.tenant = fmt.Sprintf("%d:%s,%s", len(tenant), tenant, s.tenant)
	return &of
}

// isReady reports whether s was made by this package.
func (s *SharedStore) isReady() bool { return s.calls != nil }

// String returns a description of s without its keys.
func (s *SharedStore) String() string {
	switch {
	case s == nil:
		return "clientcredentials.SharedStore(nil)"
	case s.keyring == nil:
		return fmt.Sprintf("clientcredentials.SharedStore(%T, in plaintext)", s.store)
	}
	return fmt.Sprintf("clientcredentials.SharedStore(%T, %d keys)", s.store, len(s.keyring.keys))
}

// Format prints what String returns, whatever the verb.
func (s *SharedStore) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String does, for log/slog.
func (s *SharedStore) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String does, for encodings.
func (s *SharedStore) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// GobEncode returns nothing: a store can't be sent elsewhere. It lets a Config be encoded
// with encoding/gob.
func (s *SharedStore) GobEncode() ([]byte, error) { return nil, nil }

// GobDecode does nothing. A SharedStore that a decoder makes is as good as nil.
func (s *SharedStore) GobDecode([]byte) error { return nil }

// seal prepares text, a record's data or a note, for the store.
func (s *SharedStore) seal(key, version string, text []byte) ([]byte, error) {
	if s.keyring == nil {
		return text, nil
	}
	return s.keyring.encrypt(key, version, text)
}

// unseal undoes seal.
func (s *SharedStore) unseal(key, version string, sealed []byte) ([]byte, error) {
	if s.keyring == nil {
		return sealed, nil
	}
	return s.keyring.decrypt(key, version, sealed)
}

const errStoreSkipped = constantError("oauth2: the store of shared tokens has failed, and is left alone for a while")

// slowStoreError is the error for a call of a store that took too long. It is a timeout.
type slowStoreError struct{}

func (slowStoreError) Error() string {
	return fmt.Sprintf("oauth2: the store of shared tokens took longer than %v: %v", storeBudget, context.DeadlineExceeded)
}

func (slowStoreError) Unwrap() error { return context.DeadlineExceeded }

// A storeCall is one call of a Store.
type storeCall = bounded.Call[struct{}]

// call starts a call of the store, unless the store is to be left alone. It tells the
// Observer how a call that was made has ended.
func (s *SharedStore) call(ctx context.Context, observer *Observer, operation event.Operation, f func(context.Context) (tokenstore.ClaimState, error)) *storeCall {
	start := time.Now()
	probe, ok := s.breaker.admit(start)
	if !ok {
		return bounded.Ended[struct{}](errStoreSkipped)
	}
	limited, cancel := context.WithTimeoutCause(ctx, storeBudget, slowStoreError{})
	var state tokenstore.ClaimState // Read only after success: a late call may still write to it.
	return bounded.Start(limited, func(ctx context.Context) (_ struct{}, err error) {
		select {
		case s.calls <- struct{}{}:
			defer func() { <-s.calls }()
			state, err = f(ctx)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil && !errors.Is(err, tokenstore.ErrLeaseLost) && ctx.Err() != nil {
			err = context.Cause(ctx) // Whatever error the store returns for it.
		}
		return struct{}{}, err
	}, func(_ struct{}, err error) func() {
		cancel()
		s.breaker.settle(probe, err, ctx.Err() != nil)
		e := event.StoreOperation{Operation: operation, Duration: time.Since(start), Err: observedStoreError(err)}
		if err == nil {
			e.State = state
		}
		return func() { bounded.Tell(observer.StoreOperation, e) }
	})
}

// observedStoreError returns err for an Observer, or nil if err is nil. It says that it
// was the store that panicked or ended its goroutine, if that is what err stands for. The
// text of a store's error may be long, and hold what a peer of the store has sent.
func observedStoreError(err error) (observed error) {
	if err == nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			observed = errUnprintable
		}
	}()
	var failure *bounded.FailureError
	if errors.As(err, &failure) {
		err = fmt.Errorf("oauth2: the store of shared tokens %w", err)
	}
	return harmless(err, IsTemporary(err), new(redact.Masker))
}

// errUnprintable is for an error of a store whose methods panic.
const errUnprintable = constantError("oauth2: the store of shared tokens failed with an error that can't be printed")

// admit reports whether a call may be made now, and whether it is the first after a pause.
// There is no other call until the first one has succeeded.
func (b *breaker) admit(now time.Time) (probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < storeFailuresFree {
		return false, true
	}
	if b.probing || !b.resume.Passed(now) {
		return false, false
	}
	b.probing = true
	return true, true
}

// settle notes how a call has ended. A call that its caller has given up says nothing about
// the store.
func (b *breaker) settle(probe bool, err error, givenUp bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch {
	case err == nil || errors.Is(err, tokenstore.ErrLeaseLost):
		b.failures, b.pause = 0, 0
	case givenUp:
	default:
		b.failures++
		if b.failures == storeFailuresFree || probe {
			b.pause = min(max(2*b.pause, minStorePause), maxStorePause)
			b.resume = clock.In(time.Now(), jittered(b.pause, rand.Float64()))
		}
	}
}

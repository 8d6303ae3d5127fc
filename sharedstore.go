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

	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

const (
	// storeBudget bounds each call of a Store, and what one costs those who wait for a
	// token while the store hangs.
	storeBudget = 250 * time.Millisecond

	// maxStoreCalls bounds the calls that are under way, also those that nobody
	// waits for anymore because the store is deaf to its context.
	maxStoreCalls = 100

	storeFailuresFree = 3               // failures in a row before the store is left alone,
	minStorePause     = time.Second     // for so long,
	maxStorePause     = 5 * time.Second // to this, doubling
)

// A SharedStore is a Store that tokens may be kept in, with what protects the service
// from it: its calls are waited for 250 milliseconds at most, and after three
// failures in a row the store is left alone for 1 second, then 2, up to 5, while
// tokens are requested as if there were none. Get one from Seal, or from an adapter.
// It is for any number of Configs, and safe for concurrent use.
type SharedStore struct {
	store   tokenstore.Store
	keyring *Keyring // nil: nothing is encrypted
	fault   error    // for which it can't be used
	calls   chan struct{}

	mu       sync.Mutex // protects what follows
	failures int        // in a row
	pause    time.Duration
	resume   time.Time // when there may be calls again
	probing  bool      // the first of them is under way
}

// Seal returns a SharedStore that encrypts what it puts into store, with AES-256-GCM:
// who reads the store learns neither tokens nor clients, and who writes to it can't
// forge any. What is missing is reported by the first call that needs a token.
func Seal(store tokenstore.Store, keyring *Keyring) *SharedStore {
	s := newSharedStore(store)
	s.keyring = keyring
	if s.fault == nil && (keyring == nil || len(keyring.keys) == 0) {
		s.fault = errors.New("oauth2: the Store has no Keyring; get one from NewKeyring")
	}
	return s
}

// DangerouslyShareInPlaintext returns a SharedStore that encrypts nothing: whoever can read the
// store, its backups or its traffic gets the tokens, and whoever can write to it
// chooses which tokens the service uses. Prefer Seal.
func DangerouslyShareInPlaintext(store tokenstore.Store) *SharedStore { return newSharedStore(store) }

func newSharedStore(store tokenstore.Store) *SharedStore {
	s := &SharedStore{store: store, calls: make(chan struct{}, maxStoreCalls)}
	if store == nil {
		s.fault = errors.New("oauth2: there is no Store in the SharedStore")
	}
	return s
}

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

// seal prepares text, a record's data or a note, for the store.
func (s *SharedStore) seal(key, version string, text []byte) ([]byte, error) {
	if s.keyring == nil {
		return text, nil
	}
	return s.keyring.seal(key, version, text)
}

// open undoes seal.
func (s *SharedStore) open(key, version string, sealed []byte) ([]byte, error) {
	if s.keyring == nil {
		return sealed, nil
	}
	return s.keyring.open(key, version, sealed)
}

var (
	errStoreSkipped = errors.New("oauth2: the store of shared tokens has failed, and is left alone for a while")
	errStoreSlow    = fmt.Errorf("oauth2: the store of shared tokens took longer than %v: %w", storeBudget, context.DeadlineExceeded)
)

// A storeCall is one call of a Store, in a goroutine of its own. It ends once, at the
// latest when its time is up, though the Store may be deaf to that.
type storeCall struct {
	done chan struct{} // closed at the end
	err  error         // written before done is closed
}

// start starts a call of the store, unless that is to be left alone. ended is told how
// a call that is made has ended.
func (s *SharedStore) start(ctx context.Context, f func(context.Context) error, ended func(time.Duration, error)) *storeCall {
	start := time.Now()
	call := &storeCall{done: make(chan struct{})}
	probe, ok := s.admit(start)
	if !ok {
		call.err = errStoreSkipped
		close(call.done)
		return call
	}
	limited, cancel := context.WithTimeout(ctx, storeBudget)
	var once sync.Once
	end := func(err error) {
		once.Do(func() {
			if err != nil && !errors.Is(err, tokenstore.ErrLeaseLost) && limited.Err() != nil && ctx.Err() == nil {
				err = errStoreSlow
			}
			s.judge(probe, err, ctx.Err() != nil)
			call.err = err
			close(call.done)
			defer func() { _ = recover() }() // What the Observer does harms nobody.
			ended(time.Since(start), err)
		})
	}
	stop := context.AfterFunc(limited, func() { end(limited.Err()) })
	go func() {
		err := errors.New("oauth2: the store of shared tokens ended its goroutine") // by runtime.Goexit
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("oauth2: the store of shared tokens panicked with a value of type %T", v)
			}
			end(err)
			stop()
			cancel()
		}()
		select {
		case s.calls <- struct{}{}:
			defer func() { <-s.calls }()
			err = f(limited)
		case <-limited.Done():
			err = limited.Err()
		}
	}()
	return call
}

func (c *storeCall) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of the call, no longer than limit, nor than ctx allows.
func (c *storeCall) wait(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
		if c.ended() {
			return c.err // It was this process that was slow: select draws lots.
		}
		return errStoreSlow
	case <-ctx.Done():
		return ctx.Err()
	}
}

// admit reports whether a call may be made now, and whether it is the first after a
// pause: until that has succeeded there is no other.
func (s *SharedStore) admit(now time.Time) (probe, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures < storeFailuresFree {
		return false, true
	}
	if s.probing || now.Before(s.resume) {
		return false, false
	}
	s.probing = true
	return true, true
}

// judge notes how a call has ended. One that was given up says nothing of the store.
func (s *SharedStore) judge(probe bool, err error, givenUp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if probe {
		s.probing = false
	}
	switch {
	case err == nil || errors.Is(err, tokenstore.ErrLeaseLost):
		s.failures, s.pause = 0, 0
	case givenUp:
	default:
		s.failures++
		if s.failures == storeFailuresFree || probe {
			s.pause = min(max(2*s.pause, minStorePause), maxStorePause)
			s.resume = time.Now().Add(jittered(s.pause, rand.Float64()))
		}
	}
}

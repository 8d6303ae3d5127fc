package clientcredentials

import (
	"context"
	"errors"
	"log/slog"
	"net/url"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// Observer is called when something happens to a token, for logs and metrics: set it in
// Config.Observer. Functions that are nil are skipped. Package event has the types that they
// are called with.
//
// Each call has its own goroutine, and the goroutine that does the work waits until it
// returns; see Inline for the exception. Two calls may run at the same time, and then they are
// in no particular order. No lock of this package is held during a call, but oauth2 holds its
// lock while a TokenSource asks for a token.
//
// One rule holds for a function that misbehaves: whatever it does, nothing else changes.
// If it panics, or ends its goroutine, everything goes on as if it had returned. If it
// blocks, nobody waits for it longer than 5 milliseconds. While a thousand calls in the
// process are blocked, further events are dropped. TraceRefresh is waited for as long as
// the token request may take, because the request needs its context.
//
// Config.Token calls Retry only.
type Observer struct {
	// TokenServed: a caller got a token. It is called each time a Source is asked:
	// for every request of a Client or Transport. A TokenSource asks when the token
	// that it keeps is due to be replaced.
	TokenServed func(event.TokenServed)

	// TokenFailed: a caller got no token, for whatever reason: its context ended, the
	// token request failed, or there is a pause after failures.
	TokenFailed func(event.TokenFailed)

	// RefreshStarted: a token is being requested. RefreshDone or RefreshFailed
	// follows.
	RefreshStarted func(event.RefreshStarted)

	// RefreshDone: there is a new token.
	RefreshDone func(event.RefreshDone)

	// RefreshFailed: there is no new token, in spite of retries.
	RefreshFailed func(event.RefreshFailed)

	// TraceRefresh: a token is about to be requested. It is called before
	// RefreshStarted. The request goes on with the values of the context that it returns, so
	// that a span in there is the parent of the spans of Config.HTTPClient. The function
	// that it returns, unless that is nil, is called at the end with nil or with the
	// reason why there is no token.
	TraceRefresh func(context.Context) (context.Context, func(error))

	// Retry: an attempt at a token failed, and another one follows.
	Retry func(event.Retry)

	// Cooldown: after a failure no token is requested for a while.
	Cooldown func(event.Cooldown)

	// Invalidated: a token was dropped before it expired.
	Invalidated func(event.Invalidated)

	// StoreOperation: Config.Store was called, or what it returned can't be used.
	StoreOperation func(event.StoreOperation)

	// OriginRefused: a redirect led to an origin that must not get the token, and was
	// followed without it; or a request to such an origin was refused.
	OriginRefused func(event.OriginRefused)

	// Insecure: credentials or tokens travel over http to a host that isn't
	// this one. It is called once per Source for the token endpoint, and once for the
	// API.
	Insecure func(event.Insecure)

	// Inline: if a token comes from memory, TokenServed is called in the goroutine of the
	// caller, which saves some microseconds for each request. Set it only if TokenServed
	// then returns at once, like a counter. The rule above doesn't hold for these calls,
	// except that a panic is dropped: TokenServed must not block, end its goroutine, or ask
	// the Source for a token. SlogObserver and otelclientcredentials set it.
	Inline bool
}

// GobEncode returns nothing: functions can't be sent elsewhere. It lets a Config be
// encoded with encoding/gob.
func (o *Observer) GobEncode() ([]byte, error) { return nil, nil }

// GobDecode does nothing.
func (o *Observer) GobDecode([]byte) error { return nil }

// noObserver stands for a Config without an Observer. Nobody writes to it.
var noObserver Observer

// observer returns the Observer of c, which is never nil.
func (c *Config) observer() *Observer {
	if c == nil || c.Observer == nil {
		return &noObserver
	}
	return c.Observer
}

// tokenServed tells o that a caller got a token.
func (o *Observer) tokenServed(e event.TokenServed) {
	if o.TokenServed != nil {
		o.tellServed(e) // Kept apart, so that tokenServed is inlined and costs nothing without an Observer.
	}
}

func (o *Observer) tellServed(e event.TokenServed) {
	if o.Inline && e.From == event.FromMemory {
		bounded.Quietly(func() { o.TokenServed(e) })
		return
	}
	bounded.Tell(o.TokenServed, e)
}

// traceRefresh returns the context to request a token with, and the function to call at the
// end, which may be nil.
func (o *Observer) traceRefresh(ctx context.Context) (traced context.Context, ended func(error)) {
	if o.TraceRefresh == nil {
		return ctx, nil
	}
	traced = ctx
	bounded.Quietly(func() {
		var newCtx context.Context
		newCtx, ended = o.TraceRefresh(ctx)
		if newCtx != nil {
			traced = newCtx
		}
	})
	return traced, ended
}

// cleartextTo says where something goes that others could read on the way.
type cleartextTo int

const (
	toTokenEndpoint cleartextTo = iota
	toAPI
)

// warnOfCleartext tells the observer, once for each place, that what is sent to u can be
// read on the way.
func (s *Source) warnOfCleartext(observer *Observer, to cleartextTo, u *url.URL) {
	if observer.Insecure != nil && origin.IsCleartext(u) && s.root().rarely().warned[to].CompareAndSwap(false, true) {
		bounded.Tell(observer.Insecure, event.Insecure{Origin: origin.Of(u).String()})
	}
}

// JoinObservers returns an Observer that calls each of the given ones, in that order. It
// skips those that are nil. A function that none of them has stays nil. Inline is set if every
// Observer that has TokenServed sets it.
func JoinObservers(observers ...*Observer) *Observer {
	joined := Observer{Inline: true}
	for _, o := range observers {
		if o == nil {
			continue
		}
		joined.Inline = joined.Inline && (o.Inline || o.TokenServed == nil)
		joined.TokenServed = join(joined.TokenServed, o.TokenServed)
		joined.TokenFailed = join(joined.TokenFailed, o.TokenFailed)
		joined.RefreshStarted = join(joined.RefreshStarted, o.RefreshStarted)
		joined.RefreshDone = join(joined.RefreshDone, o.RefreshDone)
		joined.RefreshFailed = join(joined.RefreshFailed, o.RefreshFailed)
		joined.TraceRefresh = joinTraces(joined.TraceRefresh, o.TraceRefresh)
		joined.Retry = join(joined.Retry, o.Retry)
		joined.Cooldown = join(joined.Cooldown, o.Cooldown)
		joined.Invalidated = join(joined.Invalidated, o.Invalidated)
		joined.StoreOperation = join(joined.StoreOperation, o.StoreOperation)
		joined.OriginRefused = join(joined.OriginRefused, o.OriginRefused)
		joined.Insecure = join(joined.Insecure, o.Insecure)
	}
	joined.Inline = joined.Inline && joined.TokenServed != nil
	return &joined
}

func join[T any](first, second func(T)) func(T) {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(e T) {
		bounded.Quietly(func() { first(e) })
		second(e)
	}
}

// joinTraces nests the second in the first, so that their spans are parent and child.
func joinTraces(first, second func(context.Context) (context.Context, func(error))) func(context.Context) (context.Context, func(error)) {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(ctx context.Context) (context.Context, func(error)) {
		ctx, endFirst := (&Observer{TraceRefresh: first}).traceRefresh(ctx)
		ctx, endSecond := (&Observer{TraceRefresh: second}).traceRefresh(ctx)
		return ctx, func(err error) {
			for _, end := range []func(error){endSecond, endFirst} {
				if end != nil {
					bounded.Quietly(func() { end(err) })
				}
			}
		}
	}
}

// SlogObserver returns an Observer that logs to logger. It logs at level Warn what needs
// attention, at level Info what explains such warnings, and at level Debug the ordinary life
// of tokens. It doesn't log tokens that come from memory.
func SlogObserver(logger *slog.Logger) *Observer {
	log := func(level slog.Level, message string, attrs ...slog.Attr) {
		logger.LogAttrs(context.Background(), level, "oauth2: "+message, attrs...)
	}
	// of is log for what is about one target.
	of := func(target string, level slog.Level, message string, attrs ...slog.Attr) {
		if target != "" {
			attrs = append(attrs, slog.String("target", target))
		}
		log(level, message, attrs...)
	}
	return &Observer{
		Inline: true,
		TokenServed: func(e event.TokenServed) {
			if e.From != event.FromMemory {
				of(e.Target, slog.LevelDebug, "waited for a token", slog.String("from", e.From.String()), slog.Duration("waited", e.Waited))
			}
		},
		TokenFailed: func(e event.TokenFailed) {
			of(e.Target, slog.LevelDebug, "a caller got no token", slog.Duration("waited", e.Waited), slog.String("error", e.Err.Error()))
		},
		RefreshStarted: func(e event.RefreshStarted) {
			of(e.Target, slog.LevelDebug, "requesting a token", slog.Bool("background", e.Background))
		},
		RefreshDone: func(e event.RefreshDone) {
			of(e.Target, slog.LevelDebug, "got a token", slog.Duration("duration", e.Duration), slog.String("from", e.From.String()), slog.Int("attempts", e.Attempts), slog.Duration("life", e.Life))
		},
		RefreshFailed: func(e event.RefreshFailed) {
			of(e.Target, slog.LevelWarn, "got no token", slog.Duration("duration", e.Duration), slog.String("error", e.Err.Error()))
		},
		Retry: func(e event.Retry) {
			log(slog.LevelInfo, "trying again to get a token", slog.Int("attempt", e.Attempt), slog.Duration("delay", e.Delay), slog.String("error", e.Err.Error()))
		},
		Cooldown: func(e event.Cooldown) {
			of(e.Target, slog.LevelInfo, "requesting no token for a while", slog.Int("failures", e.Failures), slog.Time("until", e.Until))
		},
		Invalidated: func(e event.Invalidated) {
			of(e.Target, slog.LevelInfo, "dropped a token", slog.String("reason", e.Reason.String()))
		},
		StoreOperation: func(e event.StoreOperation) {
			attrs := []slog.Attr{slog.String("operation", string(e.Operation)), slog.Duration("duration", e.Duration)}
			if e.Err != nil && !errors.Is(e.Err, tokenstore.ErrLeaseLost) && !errors.Is(e.Err, context.Canceled) {
				log(slog.LevelWarn, "the store of shared tokens failed; going on without it", append(attrs, slog.String("error", e.Err.Error()))...)
				return
			}
			if e.State != 0 {
				attrs = append(attrs, slog.String("state", e.State.String()))
			}
			log(slog.LevelDebug, "called the store of shared tokens", attrs...)
		},
		OriginRefused: func(e event.OriginRefused) {
			log(slog.LevelWarn, "kept the token from an origin", slog.String("origin", e.Origin), slog.String("outcome", e.Outcome.String()))
		},
		Insecure: func(e event.Insecure) {
			log(slog.LevelWarn, "credentials travel in cleartext; use https", slog.String("origin", e.Origin))
		},
	}
}

package clientcredentials

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// Observer is told what happens to tokens, for logs and metrics: set it in
// Config.Observer. Nil functions are skipped.
//
// The functions are called from the goroutines that do the work, also
// concurrently and in no particular order where two do, and never while a lock of
// this package is held; that of oauth2 is while a TokenSource asks. They must return
// quickly. A panic in TraceRefresh, RefreshStarted, Insecure or Retry fails the token
// request, and one in StoreOperation or in what follows the request is ignored.
// Config.Token tells of retries only. What they get contains no token, no secret, and
// no scope, unless a server names one in the text of an error.
type Observer struct {
	// TokenServed: a caller got a token. It is called each time a Source is asked:
	// for every request of a Client or Transport. A TokenSource asks when the token
	// that it keeps is due.
	TokenServed func(event.TokenServed)

	// TokenFailed: a caller got none, for whatever reason: there was no waiting any
	// longer, the token request failed, or there was none in a pause after failures.
	TokenFailed func(event.TokenFailed)

	// RefreshStarted: a token is being requested. RefreshDone or RefreshFailed
	// follows, when this has returned.
	RefreshStarted func(event.RefreshStarted)

	// RefreshDone: there is a new token.
	RefreshDone func(event.RefreshDone)

	// RefreshFailed: there isn't, in spite of retries.
	RefreshFailed func(event.RefreshFailed)

	// TraceRefresh: a token is about to be requested, before RefreshStarted. The
	// request goes on with the context that is returned, so that a span in it is the
	// parent of those of Config.HTTPClient. The function that is returned, if not
	// nil, is called at the end, with nil or why there is no token.
	TraceRefresh func(context.Context) (context.Context, func(error))

	// Retry: an attempt at a token failed, and another one follows.
	Retry func(event.Retry)

	// Cooldown: after a failure no token is requested for a while.
	Cooldown func(event.Cooldown)

	// Invalidated: a token was dropped before it expired.
	Invalidated func(event.Invalidated)

	// StoreOperation: Config.Store was called, or what it returned can't be used.
	StoreOperation func(event.StoreOperation)

	// OriginRefused: a redirect led away from where the token may go, and was
	// followed without it; or a request went there and was refused.
	OriginRefused func(event.OriginRefused)

	// Insecure: credentials or tokens travel over http to a host that isn't
	// this one. Called once per Source for the token endpoint, and once for the
	// API.
	Insecure func(event.Insecure)
}

func (o *Observer) tokenServed(info event.TokenServed) {
	if o != nil && o.TokenServed != nil {
		o.TokenServed(info)
	}
}

func (o *Observer) tokenFailed(info event.TokenFailed) {
	if o != nil && o.TokenFailed != nil {
		o.TokenFailed(info)
	}
}

func (o *Observer) refreshStarted(info event.RefreshStarted) {
	if o != nil && o.RefreshStarted != nil {
		o.RefreshStarted(info)
	}
}

func (o *Observer) refreshDone(info event.RefreshDone) {
	if o != nil && o.RefreshDone != nil {
		o.RefreshDone(info)
	}
}

func (o *Observer) refreshFailed(info event.RefreshFailed) {
	if o != nil && o.RefreshFailed != nil {
		o.RefreshFailed(info)
	}
}

// traceRefresh returns the context to request a token with, and what to call at the end.
func (o *Observer) traceRefresh(ctx context.Context) (context.Context, func(error)) {
	end := func(error) {}
	if o == nil || o.TraceRefresh == nil {
		return ctx, end
	}
	traced, ended := o.TraceRefresh(ctx)
	if ended != nil {
		end = ended
	}
	if traced == nil {
		traced = ctx
	}
	return traced, end
}

func (o *Observer) storeOperation(info event.StoreOperation) {
	if o != nil && o.StoreOperation != nil {
		o.StoreOperation(info)
	}
}

func (o *Observer) retry(info event.Retry) {
	if o != nil && o.Retry != nil {
		o.Retry(info)
	}
}

func (o *Observer) cooldown(info event.Cooldown) {
	if o != nil && o.Cooldown != nil {
		o.Cooldown(info)
	}
}

func (o *Observer) invalidated(info event.Invalidated) {
	if o != nil && o.Invalidated != nil {
		o.Invalidated(info)
	}
}

func (o *Observer) originRefused(info event.OriginRefused) {
	if o != nil && o.OriginRefused != nil {
		o.OriginRefused(info)
	}
}

// insecureOnce tells, if told is false, that what is sent to u can be read on the way.
func (o *Observer) insecureOnce(told *atomic.Bool, u *url.URL) {
	if o != nil && o.Insecure != nil && told.CompareAndSwap(false, true) {
		o.Insecure(event.Insecure{Origin: originOf(u).String()})
	}
}

// JoinObservers returns an Observer that tells each of them, in that order. Those that
// are nil are skipped. A function that none has stays nil.
func JoinObservers(observers ...*Observer) *Observer {
	var joined Observer
	for _, o := range observers {
		if o == nil {
			continue
		}
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
	return &joined
}

func join[T any](first, second func(T)) func(T) {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(info T) {
		first(info)
		second(info)
	}
}

// joinTraces nests the second in the first: their spans are parent and child.
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
			endSecond(err)
			endFirst(err)
		}
	}
}

// SlogObserver returns an Observer that logs to logger: what needs attention as
// warnings, what explains them as information, the ordinary life of tokens for
// debugging. It doesn't log tokens that come from memory.
func SlogObserver(logger *slog.Logger) *Observer {
	log := func(level slog.Level, message string, attrs ...slog.Attr) {
		logger.LogAttrs(context.Background(), level, "oauth2: "+message, attrs...)
	}
	return &Observer{
		TokenServed: func(info event.TokenServed) {
			if info.From != event.FromMemory {
				log(slog.LevelDebug, "waited for a token", slog.String("from", info.From.String()), slog.Duration("waited", info.Waited))
			}
		},
		TokenFailed: func(info event.TokenFailed) {
			log(slog.LevelDebug, "a caller got no token", slog.Duration("waited", info.Waited), slog.String("error", info.Err.Error()))
		},
		RefreshStarted: func(info event.RefreshStarted) {
			log(slog.LevelDebug, "requesting a token", slog.Bool("background", info.Background))
		},
		RefreshDone: func(info event.RefreshDone) {
			log(slog.LevelDebug, "got a token", slog.Duration("duration", info.Duration), slog.String("from", info.From.String()), slog.Int("attempts", info.Attempts), slog.Duration("life", info.Life))
		},
		RefreshFailed: func(info event.RefreshFailed) {
			log(slog.LevelWarn, "got no token", slog.Duration("duration", info.Duration), slog.String("error", info.Err.Error()))
		},
		Retry: func(info event.Retry) {
			log(slog.LevelInfo, "trying again to get a token", slog.Int("attempt", info.Attempt), slog.Duration("delay", info.Delay), slog.String("error", info.Err.Error()))
		},
		Cooldown: func(info event.Cooldown) {
			log(slog.LevelInfo, "requesting no token for a while", slog.Int("failures", info.Failures), slog.Time("until", info.Until))
		},
		Invalidated: func(info event.Invalidated) {
			log(slog.LevelInfo, "dropped a token", slog.String("reason", info.Reason.String()))
		},
		StoreOperation: func(info event.StoreOperation) {
			attrs := []slog.Attr{slog.String("operation", string(info.Operation)), slog.Duration("duration", info.Duration)}
			if info.Err != nil && !errors.Is(info.Err, tokenstore.ErrLeaseLost) && !errors.Is(info.Err, context.Canceled) {
				log(slog.LevelWarn, "the store of shared tokens failed; going on without it", append(attrs, slog.String("error", info.Err.Error()))...)
				return
			}
			if info.State != 0 {
				attrs = append(attrs, slog.String("state", info.State.String()))
			}
			log(slog.LevelDebug, "called the store of shared tokens", attrs...)
		},
		OriginRefused: func(info event.OriginRefused) {
			log(slog.LevelWarn, "kept the token from an origin", slog.String("origin", info.Origin), slog.String("outcome", info.Outcome.String()))
		},
		Insecure: func(info event.Insecure) {
			log(slog.LevelWarn, "credentials travel in cleartext; use https", slog.String("origin", info.Origin))
		},
	}
}

// isCleartext reports whether what is sent to u can be read on the way.
func isCleartext(u *url.URL) bool {
	if !strings.EqualFold(u.Scheme, "http") {
		return false
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	return !strings.EqualFold(host, "localhost") && (ip == nil || !ip.IsLoopback())
}

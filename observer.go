package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
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
	TokenServed func(TokenServedInfo)

	// TokenFailed: a caller got none, for whatever reason: there was no waiting any
	// longer, the token request failed, or there was none in a pause after failures.
	TokenFailed func(TokenFailedInfo)

	// RefreshStarted: a token is being requested. RefreshDone or RefreshFailed
	// follows, when this has returned.
	RefreshStarted func(RefreshStartedInfo)

	// RefreshDone: there is a new token.
	RefreshDone func(RefreshDoneInfo)

	// RefreshFailed: there isn't, in spite of retries.
	RefreshFailed func(RefreshFailedInfo)

	// TraceRefresh: a token is about to be requested, before RefreshStarted. The
	// request goes on with the context that is returned, so that a span in it is the
	// parent of those of Config.HTTPClient. The function that is returned, if not
	// nil, is called at the end, with nil or why there is no token.
	TraceRefresh func(context.Context) (context.Context, func(error))

	// Retry: an attempt at a token failed, and another one follows.
	Retry func(RetryInfo)

	// Cooldown: after a failure no token is requested for a while.
	Cooldown func(CooldownInfo)

	// Invalidated: a token was dropped before it expired.
	Invalidated func(InvalidatedInfo)

	// StoreOperation: Config.Store was called, or what it returned can't be used.
	StoreOperation func(StoreOperationInfo)

	// OriginRefused: a redirect led away from where the token may go, and was
	// followed without it; or a request went there and was refused.
	OriginRefused func(OriginRefusedInfo)

	// Insecure: credentials or tokens travel over http to a host that isn't
	// this one. Called once per Source for the token endpoint, and once for the
	// API.
	Insecure func(InsecureInfo)
}

// TokenServedInfo tells of a token that a caller got.
type TokenServedInfo struct {
	From   TokenFrom
	Waited time.Duration // how long the caller did
	State  State         // Fresh or Stale
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

// TokenFailedInfo tells of a caller who got no token.
type TokenFailedInfo struct {
	Waited time.Duration // how long the caller did
	Err    error         // that it got
}

// RefreshStartedInfo tells of the start of a token request.
type RefreshStartedInfo struct {
	Background bool // there is a valid token meanwhile
}

// RefreshDoneInfo tells of a new token.
type RefreshDoneInfo struct {
	Duration  time.Duration // since the start, with retries
	Attempts  int           // without the one that found out the auth style; 0: another replica made them
	Life      time.Duration // of the new token; 0: it doesn't expire
	From      TokenFrom     // FromStore or FromServer
	LeaseWait time.Duration // for another replica that was requesting a token
}

// RefreshFailedInfo tells of a failure to get a token.
type RefreshFailedInfo struct {
	Duration time.Duration // since the start, with retries
	Err      error
}

// RetryInfo tells of a failed attempt that isn't the last.
type RetryInfo struct {
	Attempt int // that failed; the first is 1
	Delay   time.Duration
	Err     error
}

// CooldownInfo tells of a pause after a failure.
type CooldownInfo struct {
	Failures int       // in a row
	Until    time.Time // when a call can request a token again
}

// InvalidatedInfo tells of a token that was dropped.
type InvalidatedInfo struct {
	Rejected            bool // an API answered 401
	CertificateReplaced bool // the client has another certificate; neither: by Source.Invalidate
}

// StoreOperationInfo tells of a call of Config.Store.
type StoreOperationInfo struct {
	Operation string        // "acquire", "renew", "publish", "abort" or "invalidate"; "open" if what is there can't be read
	State     ClaimState    // what acquire has found out; 0: nothing, or another operation
	Duration  time.Duration // no more than 250 milliseconds: it isn't waited for longer
	Err       error         // ErrLeaseLost is no failure of the store
}

// OriginRefusedInfo tells of an origin that didn't get the token.
type OriginRefusedInfo struct {
	Origin string // scheme, host and port
}

// InsecureInfo tells of cleartext.
type InsecureInfo struct {
	Origin string // scheme, host and port
}

func (o *Observer) tokenServed(info TokenServedInfo) {
	if o != nil && o.TokenServed != nil {
		o.TokenServed(info)
	}
}

func (o *Observer) tokenFailed(info TokenFailedInfo) {
	if o != nil && o.TokenFailed != nil {
		o.TokenFailed(info)
	}
}

func (o *Observer) refreshStarted(info RefreshStartedInfo) {
	if o != nil && o.RefreshStarted != nil {
		o.RefreshStarted(info)
	}
}

func (o *Observer) refreshDone(info RefreshDoneInfo) {
	if o != nil && o.RefreshDone != nil {
		o.RefreshDone(info)
	}
}

func (o *Observer) refreshFailed(info RefreshFailedInfo) {
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

func (o *Observer) storeOperation(info StoreOperationInfo) {
	if o != nil && o.StoreOperation != nil {
		o.StoreOperation(info)
	}
}

func (o *Observer) retry(info RetryInfo) {
	if o != nil && o.Retry != nil {
		o.Retry(info)
	}
}

func (o *Observer) cooldown(info CooldownInfo) {
	if o != nil && o.Cooldown != nil {
		o.Cooldown(info)
	}
}

func (o *Observer) invalidated(info InvalidatedInfo) {
	if o != nil && o.Invalidated != nil {
		o.Invalidated(info)
	}
}

func (o *Observer) originRefused(info OriginRefusedInfo) {
	if o != nil && o.OriginRefused != nil {
		o.OriginRefused(info)
	}
}

// insecureOnce tells, if told is false, that what is sent to u can be read on the way.
func (o *Observer) insecureOnce(told *atomic.Bool, u *url.URL) {
	if o != nil && o.Insecure != nil && told.CompareAndSwap(false, true) {
		o.Insecure(InsecureInfo{Origin: originOf(u).String()})
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
		TokenServed: func(info TokenServedInfo) {
			if info.From != FromMemory {
				log(slog.LevelDebug, "waited for a token", slog.String("from", info.From.String()), slog.Duration("waited", info.Waited))
			}
		},
		TokenFailed: func(info TokenFailedInfo) {
			log(slog.LevelDebug, "a caller got no token", slog.Duration("waited", info.Waited), slog.String("error", info.Err.Error()))
		},
		RefreshStarted: func(info RefreshStartedInfo) {
			log(slog.LevelDebug, "requesting a token", slog.Bool("background", info.Background))
		},
		RefreshDone: func(info RefreshDoneInfo) {
			log(slog.LevelDebug, "got a token", slog.Duration("duration", info.Duration), slog.String("from", info.From.String()), slog.Int("attempts", info.Attempts), slog.Duration("life", info.Life))
		},
		RefreshFailed: func(info RefreshFailedInfo) {
			log(slog.LevelWarn, "got no token", slog.Duration("duration", info.Duration), slog.String("error", info.Err.Error()))
		},
		Retry: func(info RetryInfo) {
			log(slog.LevelInfo, "trying again to get a token", slog.Int("attempt", info.Attempt), slog.Duration("delay", info.Delay), slog.String("error", info.Err.Error()))
		},
		Cooldown: func(info CooldownInfo) {
			log(slog.LevelInfo, "requesting no token for a while", slog.Int("failures", info.Failures), slog.Time("until", info.Until))
		},
		Invalidated: func(info InvalidatedInfo) {
			log(slog.LevelInfo, "dropped a token", slog.Bool("rejected", info.Rejected))
		},
		StoreOperation: func(info StoreOperationInfo) {
			attrs := []slog.Attr{slog.String("operation", info.Operation), slog.Duration("duration", info.Duration)}
			if info.Err != nil && !errors.Is(info.Err, ErrLeaseLost) && !errors.Is(info.Err, context.Canceled) {
				log(slog.LevelWarn, "the store of shared tokens failed; going on without it", append(attrs, slog.String("error", info.Err.Error()))...)
				return
			}
			if info.State != 0 {
				attrs = append(attrs, slog.String("state", info.State.String()))
			}
			log(slog.LevelDebug, "called the store of shared tokens", attrs...)
		},
		OriginRefused: func(info OriginRefusedInfo) {
			log(slog.LevelWarn, "kept the token from an origin", slog.String("origin", info.Origin))
		},
		Insecure: func(info InsecureInfo) {
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

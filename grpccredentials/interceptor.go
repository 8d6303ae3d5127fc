package grpccredentials

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A call passes the token that was sent to an interceptor. The interceptor puts a call
// into the context. grpc later calls GetRequestMetadata with that context or one of its
// children, and GetRequestMetadata stores the token in the call. The interceptor can't
// get the token first and pass it down: a call may wait for a connection longer than a
// token lives, and Credentials must also work without interceptors.
//
// grpc makes its attempts at an RPC one after the other, and returns the error of the
// last. Another interceptor may make several attempts at once with one context. Then the
// token may not be the one that was refused. That costs a token request, and
// Source.Reject limits how many.
type call struct {
	token  atomic.Pointer[oauth2.Token] // of the latest attempt; nil: it sent none
	header metadata.MD                  // sent by the server before the status; nil: none
}

// callKey is the key of a *call in a context. It contains the Credentials, because an
// interceptor may use the same context for another ClientConn.
type callKey struct{ credentials *Credentials }

// watch returns a new call, and ctx with it.
func (c *Credentials) watch(ctx context.Context) (context.Context, *call) {
	watched := new(call)
	return context.WithValue(ctx, callKey{c}, watched), watched
}

// callOf returns the call that an interceptor has put into ctx, or nil.
func (c *Credentials) callOf(ctx context.Context) *call {
	watched, _ := ctx.Value(callKey{c}).(*call)
	return watched
}

// sends stores the token that an attempt is about to send. Nil means none. On a nil call
// it does nothing.
func (w *call) sends(token *oauth2.Token) {
	if w != nil {
		w.token.Store(token)
	}
}

// refused returns the token that the server has refused with err. It returns nil for any
// other error, and for an error of this package that came before a token was sent.
func (w *call) refused(err error) *oauth2.Token {
	if err == nil || status.Code(err) != codes.Unauthenticated {
		return nil
	}
	return w.token.Load()
}

// UnaryClientInterceptor is a grpc.UnaryClientInterceptor. When the server answers
// Unauthenticated, it drops the token, at most one in 30 seconds. Then it replays the call
// if it can get another token, and if the server has sent no headers before the status
// (gRFC A6 has the same rule for retries) or ReplayIf allows it. Without another token,
// the caller gets the server's error. Callbacks of grpc.OnFinish are called once, with the
// last result.
func (c *Credentials) UnaryClientInterceptor(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, watched := c.watch(ctx)
	finish, opts := holdFinish(opts)
	defer finish.release()
	err := invoker(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.Header(&watched.header))...)
	token := watched.refused(err)
	if token == nil || !c.source.Reject(token) || !c.mayReplay(method, err, watched) {
		return err
	}
	if next, failure := c.source.TokenContext(ctx); failure != nil || next.AccessToken == token.AccessToken {
		return err // It is more useful to the caller than failure.
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

// A finish calls the OnFinish callbacks of a call that may be made twice. grpc calls them at
// the end of each RPC, so until release a finish only stores what grpc reports.
type finish struct {
	callbacks []func(error)

	mu       sync.Mutex // protects what follows
	reported bool       // an RPC has ended
	err      error      // of the last RPC that ended
	released bool
}

// holdFinish returns opts with a finish in place of the OnFinish callbacks. Without such
// callbacks, the finish is nil.
func holdFinish(opts []grpc.CallOption) (*finish, []grpc.CallOption) {
	if !slices.ContainsFunc(opts, isOnFinish) {
		return nil, opts
	}
	f := new(finish)
	others := []grpc.CallOption{grpc.OnFinish(f.report)}
	for _, opt := range opts {
		if onFinish, ok := opt.(grpc.OnFinishCallOption); ok {
			f.callbacks = append(f.callbacks, onFinish.OnFinish)
		} else {
			others = append(others, opt)
		}
	}
	return f, others
}

func isOnFinish(opt grpc.CallOption) bool {
	_, ok := opt.(grpc.OnFinishCallOption)
	return ok
}

// report is the OnFinish callback that grpc calls. After release, it passes the first report
// on at once: an interceptor may leave an RPC running.
func (f *finish) report(err error) {
	f.mu.Lock()
	late := f.released && !f.reported
	f.reported, f.err = true, err
	f.mu.Unlock()
	if late {
		f.call(err)
	}
}

// release calls the callbacks if an RPC has ended. On a nil finish it does nothing.
func (f *finish) release() {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.released = true
	reported, err := f.reported, f.err
	f.mu.Unlock()
	if reported {
		f.call(err)
	}
}

func (f *finish) call(err error) {
	for _, callback := range f.callbacks {
		callback(err)
	}
}

// mayReplay reports whether a unary call that the server has refused with err may be
// made again. It may if its handler hasn't run. Unauthenticated normally means that, but
// a handler can return it, too.
func (c *Credentials) mayReplay(method string, err error, refused *call) bool {
	if c.replayIf != nil {
		return c.replayIf(method, err)
	}
	return refused.header == nil
}

// StreamClientInterceptor is a grpc.StreamClientInterceptor. When a stream ends with
// Unauthenticated, it drops the stream's token, at most one in 30 seconds. It never
// replays a stream: only the program knows how far the stream got.
func (c *Credentials) StreamClientInterceptor(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, watched := c.watch(ctx)
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		c.source.Reject(watched.refused(err))
		return nil, err
	}
	return &stream{ClientStream: s, credentials: c, call: watched}, nil
}

// A stream is a ClientStream that drops its token when the server refuses it. RecvMsg
// always gets the status, even if another method has failed before.
type stream struct {
	grpc.ClientStream
	credentials *Credentials
	call        *call
}

func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.credentials.source.Reject(s.call.refused(err)) // From the second time on, this does nothing.
	return err
}

package grpccredentials

import (
	"context"
	"slices"
	"sync/atomic"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A call is how an interceptor learns which token went out: it puts a call into the
// context, and GetRequestMetadata, which grpc calls far below with that context or one
// of its children, notes the token there. The interceptor can't fetch the token itself
// and hand it down: a call may wait for a connection for longer than a token lives,
// and Credentials must do without interceptors.
//
// grpc makes its attempts at an RPC one after the other, and the error that the
// interceptor gets is that of the last. Another interceptor may make several at a time
// with one context; then the token may not be the one that was refused, which costs a
// token request, and Source.Reject bounds how many.
type call struct {
	token  atomic.Pointer[oauth2.Token] // of the latest attempt; nil: none has been sent
	header metadata.MD                  // that the server sent ahead of the status; nil: none
}

// callKey is the key of the *call in a context, for these Credentials: an interceptor
// may use the context for another ClientConn.
type callKey struct{ credentials *Credentials }

// watch returns a new call, and ctx with it.
func (c *Credentials) watch(ctx context.Context) (context.Context, *call) {
	watched := new(call)
	return context.WithValue(ctx, callKey{c}, watched), watched
}

// callOf returns the call that an interceptor watches with ctx, or nil.
func (c *Credentials) callOf(ctx context.Context) *call {
	watched, _ := ctx.Value(callKey{c}).(*call)
	return watched
}

// sends notes which token an attempt goes out with; nil: with none. Nothing is noted
// in a nil call.
func (w *call) sends(token *oauth2.Token) {
	if w != nil {
		w.token.Store(token)
	}
}

// refused returns the token that the server has refused with err, or nil: err may also
// be one of our own, and then no token has been sent.
func (w *call) refused(err error) *oauth2.Token {
	if err == nil || status.Code(err) != codes.Unauthenticated {
		return nil
	}
	return w.token.Load()
}

// UnaryClientInterceptor is a grpc.UnaryClientInterceptor. When the server answers
// Unauthenticated it drops the token, at most every 30 seconds, and makes the call a
// second time, if there is another token, and if the server has sent no headers ahead of
// its status, by the rule of gRFC A6 for retries, or ReplayIf allows it. When no other
// token is to be had, the server's answer stands.
func (c *Credentials) UnaryClientInterceptor(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, watched := c.watch(ctx)
	err := invoker(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.Header(&watched.header))...)
	token := watched.refused(err)
	if token == nil || !c.source.Reject(token) || !c.mayReplay(method, err, watched) {
		return err
	}
	if next, failure := c.source.TokenContext(ctx); failure != nil || next.AccessToken == token.AccessToken {
		return err // It tells more than failure.
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

// mayReplay reports whether a unary call that the server has refused with err may be made
// again: if its handler hasn't run. That it has not is what Unauthenticated means, but
// handlers can answer so, too.
func (c *Credentials) mayReplay(method string, err error, refused *call) bool {
	if c.replayIf != nil {
		return c.replayIf(method, err)
	}
	return refused.header == nil
}

// StreamClientInterceptor is a grpc.StreamClientInterceptor. When a stream ends with
// Unauthenticated it drops the stream's token, at most every 30 seconds. A stream is
// never replayed: that takes a program that knows how far it got.
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
// is where the status arrives, whatever else has failed before.
type stream struct {
	grpc.ClientStream
	credentials *Credentials
	call        *call
}

func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.credentials.source.Reject(s.call.refused(err)) // After the first time there is nothing to drop.
	return err
}

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

// begin returns a new call, and ctx with it.
func (c *Credentials) begin(ctx context.Context) (context.Context, *call) {
	begun := new(call)
	return context.WithValue(ctx, callKey{c}, begun), begun
}

// callOf returns the call of an interceptor in ctx, or nil.
func (c *Credentials) callOf(ctx context.Context) *call {
	begun, _ := ctx.Value(callKey{c}).(*call)
	return begun
}

// sends notes which token an attempt goes out with; nil: with none. Nothing is noted
// in a nil call.
func (l *call) sends(token *oauth2.Token) {
	if l != nil {
		l.token.Store(token)
	}
}

// refused returns the token that the server has refused with err, or nil: err may also
// be one of our own, and then no token has been sent.
func (l *call) refused(err error) *oauth2.Token {
	if err == nil || status.Code(err) != codes.Unauthenticated {
		return nil
	}
	return l.token.Load()
}

// UnaryClientInterceptor is a grpc.UnaryClientInterceptor. When the server answers
// Unauthenticated it drops the token, at most every 30 seconds, and makes the call a
// second time if there is another token, the server hadn't begun its response (by the
// rule of gRFC A6 for retries), and ReplayIf allows it. When no other token is to be
// had, the server's answer stands.
func (c *Credentials) UnaryClientInterceptor(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	callCtx, begun := c.begin(ctx)
	err := invoker(callCtx, method, req, reply, cc, append(slices.Clip(opts), grpc.Header(&begun.header))...)
	token := begun.refused(err)
	if token == nil || !c.source.Reject(token) || begun.header != nil {
		return err
	}
	if c.replayIf != nil && !c.replayIf(method, err) {
		return err
	}
	if next, failure := c.source.TokenContext(ctx); failure != nil || next.AccessToken == token.AccessToken {
		return err // It tells more than failure.
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

// StreamClientInterceptor is a grpc.StreamClientInterceptor. When a stream ends with
// Unauthenticated it drops the stream's token, at most every 30 seconds. A stream is
// never replayed: that takes a program that knows how far it got.
func (c *Credentials) StreamClientInterceptor(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	callCtx, begun := c.begin(ctx)
	s, err := streamer(callCtx, desc, cc, method, opts...)
	if err != nil {
		c.source.Reject(begun.refused(err))
		return nil, err
	}
	return &stream{ClientStream: s, credentials: c, call: begun}, nil
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

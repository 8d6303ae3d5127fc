package protocols

import (
	"context"
	"maps"
	"net/http"
	"net/url"

	"connectrpc.com/connect"

	"github.com/seed-5bfa0880/clientcredentials"
)

// ConnectTokens is an interceptor that adds a token to each call, for clients of Connect that
// share an HTTP client with other services. Otherwise give Config.Client to the client: then
// the calls need no interceptor, and a call is repeated if the service has refused its token.
type ConnectTokens struct {
	Source *clientcredentials.Source
}

// WrapUnary adds a token to calls with one request and one response.
func (c *ConnectTokens) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := c.authorize(ctx, req.Header()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient adds a token to streams. It is checked when the stream begins.
func (c *ConnectTokens) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		header := make(http.Header)
		if err := c.authorize(ctx, header); err != nil {
			ctx, cancel := context.WithCancel(ctx)
			cancel() // So nothing is sent.
			return &failedStream{next(ctx, spec), err}
		}
		conn := next(ctx, spec)
		maps.Copy(conn.RequestHeader(), header)
		return conn
	}
}

// WrapStreamingHandler does nothing, because the interceptor is for clients.
func (c *ConnectTokens) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// authorize adds a token to the header of a call, with the scheme that the Config asks for.
func (c *ConnectTokens) authorize(ctx context.Context, header http.Header) error {
	req := (&http.Request{URL: new(url.URL), Header: header}).WithContext(ctx)
	if err := c.Source.Authorize(req); err != nil {
		return connect.NewError(connect.CodeUnauthenticated, err)
	}
	return nil
}

// A failedStream is a stream that didn't begin, because there is no token.
type failedStream struct {
	connect.StreamingClientConn
	err error
}

// Send returns the reason.
func (f *failedStream) Send(any) error { return f.err }

// Receive returns the reason.
func (f *failedStream) Receive(any) error { return f.err }

package clientcredentialstest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
)

// HandlerTransport returns a RoundTripper that hands every request to h, whatever its
// host. It uses no sockets. To simulate several servers, use an [http.ServeMux] with hosts in
// its patterns. The client and the server of net/http speak HTTP/1.1 to each other, so
// contexts, streaming, trailers and hijacking work as on a network. Requests for https
// travel in the clear: neither side sees TLS.
//
// No goroutine is left once a response body is read or closed, so it may be used in a
// bubble of [testing/synctest]. A connection serves one request. The RoundTripper is
// safe for concurrent use.
func HandlerTransport(h http.Handler) http.RoundTripper {
	server := &http.Server{Handler: h}
	dial := func(context.Context, string, string) (net.Conn, error) {
		broken := new(atomic.Bool)
		client, accepted := net.Pipe()
		// Serve starts the goroutine of the connection. It returns because the
		// listener has no other connection.
		if err := server.Serve(&oneConn{conn: &pipeConn{accepted, broken}}); !errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		return &pipeConn{client, broken}, nil
	}
	return handlerTransport{&http.Transport{
		DialContext:    dial,
		DialTLSContext: dial,
		// Keep no idle connections: they have goroutines at both ends, and a bubble
		// could not end. DisableKeepAlives would add a header to every request.
		MaxIdleConnsPerHost: -1,
	}}
}

// A handlerTransport isn't an *http.Transport to others: they might look for TLS in it.
type handlerTransport struct{ *http.Transport }

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn net.Conn
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}

func (l *oneConn) Close() error { return nil }

func (l *oneConn) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// pipeConn is an end of a net.Pipe that can be reset like a TCP connection.
type pipeConn struct {
	net.Conn
	broken *atomic.Bool // shared by both ends
}

// SetLinger with 0 makes Close reset the connection, as for a net.TCPConn.
func (c *pipeConn) SetLinger(sec int) error {
	c.broken.Store(sec == 0)
	return nil
}

func (c *pipeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) && c.broken.Load() {
		err = &net.OpError{Op: "read", Net: "pipe", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	return n, err
}

// Package hostile has servers for tests. They record every byte that they receive, and
// answer as no honest server would. With them, a test shows what a client gave away and
// what it kept. A [BlackHole] is a proxy that loses what is sent through it.
//
// A test that finds no secret proves only as much as its search: [Forms] has everything
// that is searched for.
package hostile

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A Server is a server on the loopback interface. It speaks HTTP/1.1, with or without
// TLS, or HTTP/2 over TLS. Its methods are safe for concurrent use.
//
// It records the bytes of each connection before anything interprets them. With TLS it
// records the decrypted bytes, but also the raw ones: a client may send cleartext to such
// a port, and the server reads it until the handshake fails. HTTP/2 compresses header
// fields, so that a secret in them wouldn't be found in those bytes. So the server also
// records HTTP/2 requests as its handler sees them.
type Server struct {
	URL   string // its origin, with the host 127.0.0.1
	Other string // another origin with the same port: the host is localhost; works with Client

	mu          sync.Mutex // protects what follows
	answers     []http.Handler
	streams     []*bytes.Buffer // one for each connection, so that their bytes don't mix
	connections int
	requests    []Request
}

// A Request is a complete request that a Server received.
type Request struct {
	Method, Host, URI string
	Header            http.Header
	Body              string
}

// Start starts a server without TLS, which ends with the test. It gives these answers in
// turn, and then repeats the last one.
func Start(tb testing.TB, answers ...http.Handler) *Server {
	tb.Helper()
	return start(tb, "", answers)
}

// StartTLS is Start with HTTP/1.1 over TLS.
func StartTLS(tb testing.TB, answers ...http.Handler) *Server {
	tb.Helper()
	return start(tb, "http/1.1", answers)
}

// StartHTTP2 is Start with HTTP/2 over TLS.
func StartHTTP2(tb testing.TB, answers ...http.Handler) *Server {
	tb.Helper()
	return start(tb, "h2", answers)
}

func start(tb testing.TB, protocol string, answers []http.Handler) *Server {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	scheme := "http"
	s := &Server{answers: answers}
	listener = &recorder{listener, s}
	if protocol != "" {
		scheme = "https"
		listener = &recorder{tls.NewListener(listener, &tls.Config{
			Certificates: []tls.Certificate{*certificate()},
			NextProtos:   []string{protocol},
			MinVersion:   tls.VersionTLS12,
		}), s}
	}
	s.URL, s.Other = scheme+"://127.0.0.1:"+port, scheme+"://localhost:"+port

	// The listener decrypts the connections, so net/http sees unencrypted HTTP/2.
	server := &http.Server{Handler: s, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	server.Protocols.SetHTTP1(protocol != "h2")
	server.Protocols.SetUnencryptedHTTP2(protocol == "h2")
	server.ErrorLog = nowhere
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	tb.Cleanup(func() {
		server.Close()
		<-done
	})
	return s
}

// Script replaces the answers, as given to Start.
func (s *Server) Script(answers ...http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = answers
}

// Received returns every byte received, one connection after the other.
func (s *Server) Received() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []byte
	for _, stream := range s.streams {
		all = append(append(all, stream.Bytes()...), '\n')
	}
	return all
}

// Find looks for secret in everything received, like the function [Find].
func (s *Server) Find(secret string) (form string) { return Find(string(s.Received()), secret) }

// Connections returns the number of connections so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// Requests returns the complete requests so far, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// ServeHTTP reads the whole request, records it, and gives the next answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	s.requests = append(s.requests, Request{req.Method, req.Host, req.RequestURI, req.Header.Clone(), string(body)})
	if req.ProtoMajor >= 2 {
		s.streams = append(s.streams, bytes.NewBufferString(Dump(req)))
	}
	answer := http.NotFoundHandler()
	if len(s.answers) > 0 {
		answer = s.answers[0]
	}
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	s.mu.Unlock()
	answer.ServeHTTP(w, req)
}

// A recorder is a listener whose connections record what is read from them.
type recorder struct {
	net.Listener
	server *Server
}

func (r *recorder) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	stream := new(bytes.Buffer)
	r.server.streams = append(r.server.streams, stream)
	if _, ok := conn.(*tls.Conn); !ok { // The raw connection below a tls.Conn has already been counted.
		r.server.connections++
	}
	return &recordedConn{conn, r.server, stream}, nil
}

type recordedConn struct {
	net.Conn
	server *Server
	stream *bytes.Buffer // protected by server.mu
}

func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.stream.Write(p[:n])
	return n, err
}

// Client returns a client that trusts every Server and reaches it by both of its hosts.
// Each request gets a connection of its own.
func Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: testkit.Roots(certificate()), MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			// Don't ask a resolver: it may know several addresses of localhost, or none.
			return new(net.Dialer).DialContext(ctx, network, strings.Replace(addr, "localhost:", "127.0.0.1:", 1))
		},
	}}
}

// certificate returns the certificate of all servers.
var certificate = sync.OnceValue(testkit.ServerCertificate)

// Package hostile has servers for tests that record every byte they are sent, and
// answer as a server must not. With them a test shows what a client gave away, and
// what it didn't.
//
// A proof that a secret is nowhere is worth no more than the search for it: what
// is searched for is in Forms.
package hostile

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Server is a server on the loopback interface, of HTTP/1.1, or of HTTP/2 over
// TLS. Its methods are safe for concurrent use.
//
// It records what it reads from each connection before anything interprets it:
// with TLS what comes out of it, and also what went in, because a client may send
// cleartext to such a port, which is read until TLS gives up. HTTP/2 compresses header fields, so that a secret in
// them isn't seen in those bytes: of its requests what the handler gets to see is
// recorded as well.
type Server struct {
	URL   string // its origin, with the host 127.0.0.1
	Other string // another origin on the same port, with the host localhost; for Client

	mu          sync.Mutex // protects what follows
	answers     []http.Handler
	streams     []*bytes.Buffer // each of one connection, so that none cuts another's bytes
	connections int
	requests    []Request
}

// A Request is one that a Server got, whole.
type Request struct {
	Method, Host, URI string
	Header            http.Header
	Body              string
}

// Start starts a server without TLS, which ends with the test. It gives these
// answers in turn, and the last one ever after.
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
			Certificates: []tls.Certificate{identity().certificate},
			NextProtos:   []string{protocol},
			MinVersion:   tls.VersionTLS12,
		}), s}
	}
	s.URL, s.Other = scheme+"://127.0.0.1:"+port, scheme+"://localhost:"+port

	// The connections come decrypted. So HTTP/2 is what net/http calls unencrypted.
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

// Received returns every byte that came, one connection after the other.
func (s *Server) Received() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []byte
	for _, stream := range s.streams {
		all = append(append(all, stream.Bytes()...), '\n')
	}
	return all
}

// Find is Find in what was received.
func (s *Server) Find(secret string) (form string) { return Find(string(s.Received()), secret) }

// Connections returns how many there were.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// Requests returns those that came whole, in their order.
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
	if _, ok := conn.(*tls.Conn); !ok { // Or it has been counted.
		r.server.connections++
	}
	return &recordedConn{conn, r.server, stream}, nil
}

type recordedConn struct {
	net.Conn
	server *Server
	stream *bytes.Buffer // guarded by the server's mu
}

func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.stream.Write(p[:n])
	return n, err
}

// Client returns a client that trusts every Server and finds both of its hosts. It
// keeps no connection, so that each server sees the whole of what is sent to it.
func Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: identity().roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			// No resolver is asked: it may know several addresses, or none.
			return new(net.Dialer).DialContext(ctx, network, strings.Replace(addr, "localhost:", "127.0.0.1:", 1))
		},
	}}
}

// identity returns the certificate of all servers.
var identity = sync.OnceValue(func() (id struct {
	certificate tls.Certificate
	roots       *x509.CertPool
},
) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("hostile: %v", err))
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(fmt.Sprintf("hostile: %v", err))
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("hostile: %v", err))
	}
	id.certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	id.roots = x509.NewCertPool()
	id.roots.AddCert(leaf)
	return id
})

package clientcredentialstest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
)

// ClientID and ClientSecret belong to the client that is registered when a
// [Server] is started without clients.
const (
	ClientID     = "client"
	ClientSecret = "secret"
)

// Server runs an authorization server and an API on two ports of the loopback
// interface. Its methods are safe for concurrent use.
type Server struct {
	Auth *AuthorizationServer
	API  *ResourceServer

	TokenURL string
	APIURL   string // the root of the API, which answers at every path below it

	tls bool
	api *running

	mu   sync.Mutex // protects auth
	auth *running   // nil while stopped
	addr string     // of auth; also known while it is stopped
}

// NewServer starts a server with these clients, or with the default client if there
// are none. It panics if it can't listen. Call Close when you no longer need it.
func NewServer(clients ...Client) *Server {
	return newServer(false, clients)
}

// NewTLSServer is [NewServer] with https. [Server.Client] trusts its certificate.
// Both servers ask for a client certificate but don't require one.
func NewTLSServer(clients ...Client) *Server {
	return newServer(true, clients)
}

// TB is what [Start] needs from a [testing.TB].
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
}

// Start is [NewServer] for a test. At the end of the test it closes the server and
// reports each violation as an error.
func Start(tb TB, clients ...Client) *Server {
	tb.Helper()
	s := NewServer(clients...)
	tb.Cleanup(func() {
		tb.Helper()
		s.Close()
		for _, err := range append(s.Auth.Violations(), s.API.Violations()...) {
			tb.Errorf("%v", err)
		}
	})
	return s
}

func newServer(secure bool, clients []Client) *Server {
	if len(clients) == 0 {
		clients = []Client{{ID: ClientID, Secret: ClientSecret}}
	}
	auth := &AuthorizationServer{Clients: clients}
	s := &Server{Auth: auth, API: &ResourceServer{Issuer: auth}, tls: secure}
	var err error
	if s.api, err = run("127.0.0.1:0", s.API, secure); err != nil {
		panic(fmt.Sprintf("clientcredentialstest: %v", err))
	}
	if s.auth, err = run("127.0.0.1:0", s.Auth, secure); err != nil {
		panic(fmt.Sprintf("clientcredentialstest: %v", err))
	}
	s.addr = s.auth.Listener.Addr().String()
	s.TokenURL = s.auth.URL + "/token"
	s.APIURL = s.api.URL + "/"
	return s
}

// Client returns a client that trusts the certificate of a TLS server. It sends no
// token: that is the job of the code under test.
func (s *Server) Client() *http.Client {
	return s.api.Client()
}

// Stop takes the authorization server down as a crash would: it cuts all
// connections, even during a request, and refuses new ones. The server keeps its
// tokens.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.auth != nil {
		s.auth.stop()
		s.auth = nil
	}
}

// Restart brings the authorization server back after [Server.Stop], at the same
// address. It fails if another process took the port in the meantime.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.auth != nil {
		return nil
	}
	auth, err := run(s.addr, s.Auth, s.tls)
	if err != nil {
		return fmt.Errorf("clientcredentialstest: %w", err)
	}
	s.auth = auth
	return nil
}

// Close stops both servers and cuts their connections. It may be called more
// than once.
func (s *Server) Close() {
	s.Stop()
	s.api.stop()
}

// running is a started server.
type running struct {
	*httptest.Server
	cancel context.CancelFunc // ends the context of every request
}

func run(addr string, h http.Handler, secure bool) (*running, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &httptest.Server{
		Listener: l,
		Config: &http.Server{
			Handler:     h,
			BaseContext: func(net.Listener) context.Context { return ctx },
		},
	}
	if secure {
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
	} else {
		s.Start()
	}
	return &running{s, cancel}, nil
}

// stop cancels answers that are held back instead of waiting for them.
func (r *running) stop() {
	r.cancel()
	r.CloseClientConnections()
	r.Close()
}

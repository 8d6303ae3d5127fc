package grpccredentials_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// plaintext is for connections in memory.
var plaintext = grpccredentials.DangerouslySendTokensInPlaintext()

// A world is an authorization server, a gRPC service that accepts its tokens, and a
// Config for both, all in memory.
type world struct {
	auth    *cct.AuthorizationServer
	api     *service
	conf    *clientcredentials.Config
	ended   bool         // the context of the Source
	dropped atomic.Int32 // tokens that were dropped because the service refused them
}

func newWorld(t testing.TB) *world {
	w := &world{auth: &cct.AuthorizationServer{Clients: []cct.Client{{ID: "client", Secret: "secret"}}}}
	w.api = &service{auth: w.auth}
	w.conf = &clientcredentials.Config{
		ClientID:     "client",
		ClientSecret: "secret",
		TokenURL:     "https://auth.example/token",
		HTTPClient:   &http.Client{Transport: cct.HandlerTransport(w.auth)},
		Observer: &clientcredentials.Observer{Invalidated: func(info event.Invalidated) {
			if info.Reason == event.Rejected {
				w.dropped.Add(1)
			}
		}},
	}
	t.Cleanup(func() {
		for _, violation := range w.auth.Violations() {
			t.Error(violation)
		}
	})
	return w
}

// bubble runs a test of a world under synctest.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	testkit.World(t, func(t *testing.T) *world { return newWorld(t) }, test)
}

func (w *world) source(t testing.TB) *clientcredentials.Source {
	ctx, cancel := context.WithCancel(t.Context())
	if w.ended {
		cancel()
	}
	t.Cleanup(cancel)
	return w.conf.Source(ctx)
}

// client returns a client of the service over a connection in memory.
func (w *world) client(t testing.TB, opts ...grpc.DialOption) testpb.TestServiceClient {
	return testpb.NewTestServiceClient(w.dial(t, opts...))
}

// withTokens returns a client with DialOptions, and with opts after them.
func (w *world) withTokens(t testing.TB, opts ...grpc.DialOption) testpb.TestServiceClient {
	return w.client(t, append(grpccredentials.DialOptions(w.source(t), plaintext), opts...)...)
}

// counts is what has happened in a world.
type counts struct {
	tokenRequests int
	arrived       int // RPCs at the service
	handled       int // RPCs that the service accepted
	dropped       int // tokens
}

func (w *world) requireCounts(t testing.TB, want counts) {
	t.Helper()
	w.awaitDropped(t, want.dropped)
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	require.Equal(t, want, counts{w.auth.TokenRequests(), len(w.api.arrived), w.api.handled, int(w.dropped.Load())})
}

// awaitDropped waits for the Observer, for which nobody else waits on a busy machine.
func (w *world) awaitDropped(t testing.TB, want int) {
	t.Helper()
	require.Eventually(t, func() bool { return int(w.dropped.Load()) >= want }, time.Minute, time.Millisecond)
}

// interceptor returns an interceptor that runs f for each unary call. f makes the call by
// calling invoke, as often as it likes.
func interceptor(f func(ctx context.Context, opts []grpc.CallOption, invoke func(...grpc.CallOption) error) error) grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, _ any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return f(ctx, opts, func(opts ...grpc.CallOption) error { return invoker(ctx, method, req, new(testpb.Empty), cc, opts...) })
	})
}

func (w *world) dial(t testing.TB, opts ...grpc.DialOption) *grpc.ClientConn {
	listener := bufconn.Listen(1 << 16)
	serve(t, w.api, listener)
	return dial(t, "passthrough:///memory", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	}, opts...)...)
}

// dialTLS returns a connection to the service over TLS on the loopback interface.
func (w *world) dialTLS(t testing.TB, opts ...grpc.DialOption) *grpc.ClientConn {
	certificate := testkit.ServerCertificate()
	listener := listen()
	serve(t, w.api, listener, grpc.Creds(credentials.NewServerTLSFromCert(certificate)))
	return dial(t, listener.Addr().String(), append(opts,
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(testkit.Roots(certificate), "")))...)
}

func listen() net.Listener {
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return listener
}

func serve(t testing.TB, api *service, listener net.Listener, opts ...grpc.ServerOption) {
	server := api.server(opts...)
	var served sync.WaitGroup
	served.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
	})
}

func dial(t testing.TB, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	conn, err := grpc.NewClient(target, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// A service is a gRPC service that wants a token of auth with each RPC.
type service struct {
	testpb.UnimplementedTestServiceServer
	auth *cct.AuthorizationServer

	// judge, if set, decides instead of auth. The first RPC is number 1.
	judge func(ctx context.Context, rpc int) error

	// begin, if set, runs in the handler of a stream after each message.
	begin func(message int) error

	mu      sync.Mutex // protects what follows
	arrived []string   // for each RPC, the values of authorization, joined by |
	handled int        // RPCs that reached a handler
}

func (s *service) server(opts ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append(opts,
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := s.admit(ctx); err != nil {
				return nil, err
			}
			return handler(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := s.admit(stream.Context()); err != nil {
				return err
			}
			return handler(srv, stream)
		}),
	)...)
	testpb.RegisterTestServiceServer(server, s)
	return server
}

// admit records an RPC, and returns an error if it is refused.
func (s *service) admit(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	s.mu.Lock()
	s.arrived = append(s.arrived, strings.Join(values, "|"))
	rpc := len(s.arrived)
	s.mu.Unlock()
	judge := s.judge
	if judge == nil {
		judge = func(context.Context, int) error { return s.check(values) }
	}
	err := judge(ctx, rpc)
	if err == nil {
		s.mu.Lock()
		s.handled++
		s.mu.Unlock()
	}
	return err
}

// check returns an error unless the only value is a token of auth.
func (s *service) check(values []string) error {
	if len(values) != 1 {
		return status.Errorf(codes.InvalidArgument, "%d values of authorization", len(values))
	}
	token, isBearer := strings.CutPrefix(values[0], "Bearer ")
	if _, active := s.auth.Introspect(token); !isBearer || !active {
		return errUnauthenticated
	}
	return nil
}

var errUnauthenticated = status.Error(codes.Unauthenticated, "the service knows no such token")

// refuse returns a judge that refuses the RPCs from first to last.
func refuse(first, last int) func(context.Context, int) error {
	return func(_ context.Context, rpc int) error {
		if first <= rpc && rpc <= last {
			return errUnauthenticated
		}
		return nil
	}
}

// refuseAll is a judge.
func refuseAll(context.Context, int) error { return errUnauthenticated }

func (s *service) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return new(testpb.Empty), nil
}

func (s *service) FullDuplexCall(stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for message := 1; ; message++ {
		_, err := stream.Recv()
		if err == nil {
			err = stream.Send(new(testpb.StreamingOutputCallResponse))
		}
		if err == nil && s.begin != nil {
			err = s.begin(message)
		}
		if err != nil {
			return withoutEOF(err)
		}
	}
}

// A procedure makes an RPC, and returns the error that it ends with.
type procedure func(ctx context.Context, client testpb.TestServiceClient) error

// unary makes a unary call.
func unary(ctx context.Context, client testpb.TestServiceClient) error { return call(ctx, client) }

// call makes a unary call.
func call(ctx context.Context, client testpb.TestServiceClient, opts ...grpc.CallOption) error {
	_, err := client.EmptyCall(ctx, new(testpb.Empty), opts...)
	return err
}

// bothWays makes a stream with one message in each direction. An error of Send is left to
// Recv, which returns the status.
func bothWays(ctx context.Context, client testpb.TestServiceClient) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(new(testpb.StreamingOutputCallRequest))
	_ = stream.CloseSend()
	for err == nil {
		_, err = stream.Recv()
	}
	return withoutEOF(err)
}

// withoutEOF returns err, or nil if it is the end of a stream.
func withoutEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

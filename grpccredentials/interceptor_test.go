package grpccredentials_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
)

func TestRevokedTokenIsReplaced(t *testing.T) {
	w := newWorld(t)
	client := w.withTokens(t)
	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	var header metadata.MD
	require.NoError(t, call(t.Context(), client, grpc.Header(&header)))
	require.Contains(t, header, "content-type", "the caller's own option counts, too")
	require.NoError(t, call(t.Context(), client))
	require.Equal(t, 2, w.auth.TokenRequests())
	require.Equal(t, 3, w.api.handlings())
	require.Len(t, w.api.arrivals(), 4)
}

func TestManyCallsWithARevokedToken(t *testing.T) {
	w := newWorld(t)
	var together sync.WaitGroup // All are refused before one learns of it.
	together.Add(100)
	w.api.judge = func(ctx context.Context, rpc int) error {
		if 1 < rpc && rpc <= 101 {
			together.Done()
			together.Wait()
			return errUnauthenticated
		}
		return nil
	}
	client := w.withTokens(t)
	require.NoError(t, call(t.Context(), client))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := call(t.Context(), client); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 2, w.auth.TokenRequests())
	require.EqualValues(t, 1, w.dropped.Load())
}

// A service that accepts no token costs one token request in 30 seconds.
func TestServiceThatRefusesEveryToken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.api.judge = func(context.Context, int) error { return errUnauthenticated }
		client := w.withTokens(t)
		const calls = 1000
		for n := range calls {
			rpc := streams["both ways"]
			if n%2 == 0 {
				rpc = func(ctx context.Context, client testpb.TestServiceClient) error { return call(ctx, client) }
			}
			err := rpc(t.Context(), client)
			requireCode(t, codes.Unauthenticated, err)
			require.Equal(t, "the service knows no such token", status.Convert(err).Message())
			time.Sleep(300 * time.Millisecond)
		}
		require.LessOrEqual(t, w.auth.TokenRequests(), 1+calls*3/10/30+1)
		require.GreaterOrEqual(t, w.auth.TokenRequests(), 10)
		require.LessOrEqual(t, len(w.api.arrivals()), calls+w.auth.TokenRequests(), "few calls are replayed")
	})
}

// When no other token is in sight, the Source isn't asked for one.
func TestRefusalThatChangesNothing(t *testing.T) {
	w := newWorld(t)
	served := 0
	w.conf.Observer.TokenServed = func(event.TokenServed) { served++ }
	w.api.judge = func(context.Context, int) error { return errUnauthenticated }
	client := w.withTokens(t)
	requireCode(t, codes.Unauthenticated, call(t.Context(), client))
	require.Equal(t, 3, served, "to the call, to see whether a replay is worth it, and to that")
	requireCode(t, codes.Unauthenticated, call(t.Context(), client))
	require.Equal(t, 4, served)
}

func TestStreamDropsItsToken(t *testing.T) {
	for name, rpc := range streams {
		w := newWorld(t)
		client := w.withTokens(t)
		require.NoError(t, rpc(t.Context(), client), name)
		w.auth.RevokeAll()
		requireCode(t, codes.Unauthenticated, rpc(t.Context(), client))
		require.Len(t, w.api.arrivals(), 2, "%s: no replay", name)
		require.NoError(t, rpc(t.Context(), client), name)
		require.Equal(t, 2, w.auth.TokenRequests(), name)
	}
}

// A server may end a stream when its token expires, or is revoked. By then the client
// may have another one, and keeps it.
func TestStreamThatEndsForItsToken(t *testing.T) {
	w := newWorld(t)
	revoked := make(chan struct{})
	w.api.begin = func(int) error {
		<-revoked
		return errUnauthenticated
	}
	client := w.withTokens(t)
	old, err := client.FullDuplexCall(t.Context())
	require.NoError(t, err)
	require.NoError(t, old.Send(new(testpb.StreamingOutputCallRequest)))
	_, err = old.Recv()
	require.NoError(t, err)
	w.auth.RevokeAll()
	require.NoError(t, call(t.Context(), client))
	require.EqualValues(t, 1, w.dropped.Load())

	close(revoked)
	for range 3 {
		_, err = old.Recv()
		requireCode(t, codes.Unauthenticated, err)
	}
	require.NoError(t, call(t.Context(), client))
	require.EqualValues(t, 1, w.dropped.Load())
	require.Equal(t, 2, w.auth.TokenRequests())
}

// headerFirst refuses the first RPC as servers do that send headers with every answer.
func headerFirst(ctx context.Context, rpc int) error {
	if rpc > 1 {
		return nil
	}
	if err := grpc.SendHeader(ctx, metadata.Pairs("x", "y")); err != nil {
		return err
	}
	return errUnauthenticated
}

// Of a call that the server has begun to answer nobody knows what it has done.
func TestBegunResponseIsNotReplayed(t *testing.T) {
	w := newWorld(t)
	w.api.judge = headerFirst
	client := w.withTokens(t)
	requireCode(t, codes.Unauthenticated, call(t.Context(), client))
	require.Len(t, w.api.arrivals(), 1)
	require.EqualValues(t, 1, w.dropped.Load())
	require.NoError(t, call(t.Context(), client))
	require.Equal(t, 2, w.auth.TokenRequests())
}

func TestReplayIf(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		for name, judge := range map[string]func(context.Context, int) error{
			"headers": headerFirst,
			"none": func(_ context.Context, rpc int) error {
				if rpc == 1 {
					return errUnauthenticated
				}
				return nil
			},
		} {
			w := newWorld(t)
			w.api.judge = judge
			client := w.withTokens(t, grpccredentials.ReplayIf(func(method string, err error) bool {
				if method != testpb.TestService_EmptyCall_FullMethodName || !errors.Is(err, errUnauthenticated) {
					t.Errorf("%s: %v", method, err)
				}
				return allowed
			}))
			err := call(t.Context(), client)
			require.Equal(t, allowed, err == nil, "%s: %v", name, err)
			require.EqualValues(t, 1, w.dropped.Load(), name)
			require.NoError(t, call(t.Context(), client))
			require.Equal(t, 2, w.auth.TokenRequests())
		}
	}
}

// Without another token the service's answer stands.
func TestNoOtherTokenIsToBeHad(t *testing.T) {
	w := newWorld(t)
	client := w.withTokens(t)
	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	invalid := cct.InvalidClient()
	w.auth.SetFault(&invalid)
	err := call(t.Context(), client)
	requireCode(t, codes.Unauthenticated, err)
	require.Equal(t, "the service knows no such token", status.Convert(err).Message())
	require.Len(t, w.api.arrivals(), 2)
}

// A server that always issues the same token has no other.
func TestSameTokenIsNotTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.auth.SetFault(&cct.Fault{Status: http.StatusOK, Body: `{"access_token":"always-the-same","token_type":"Bearer"}`})
	w.api.judge = func(context.Context, int) error { return errUnauthenticated }
	requireCode(t, codes.Unauthenticated, call(t.Context(), w.withTokens(t)))
	require.Len(t, w.api.arrivals(), 1)
	require.Equal(t, 2, w.auth.TokenRequests())
}

// retryUnavailable lets grpc itself try a call again.
const retryUnavailable = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// grpc makes the second attempt with the second token: that is the one that is refused.
func TestRefusedAtTheSecondAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		source := w.source(t)
		w.api.judge = func(ctx context.Context, rpc int) error {
			switch rpc {
			case 1:
				token, err := source.Token()
				if err != nil {
					return err
				}
				source.Invalidate(token)
				return status.Error(codes.Unavailable, "for a moment")
			case 2:
				return errUnauthenticated
			}
			return nil
		}
		client := w.client(t, append(grpccredentials.DialOptions(source, cleartext), grpc.WithDefaultServiceConfig(retryUnavailable))...)
		require.NoError(t, call(t.Context(), client))
		require.Len(t, w.api.arrivals(), 3)
		require.EqualValues(t, 1, w.dropped.Load())
		require.Equal(t, 3, w.auth.TokenRequests())
	})
}

// When there is no token for the second attempt, the first one's has not been refused.
func TestFailureAtTheSecondAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.TokenLifetime = 10 * time.Second
		invalid := cct.InvalidClient()
		w.api.judge = func(context.Context, int) error {
			time.Sleep(time.Minute)
			w.auth.SetFault(&invalid)
			return status.Error(codes.Unavailable, "for a moment")
		}
		client := w.client(t, append(grpccredentials.DialOptions(w.source(t), cleartext), grpc.WithDefaultServiceConfig(retryUnavailable))...)
		err := call(t.Context(), client)
		requireCode(t, codes.Unauthenticated, err)
		require.ErrorContains(t, err, "invalid_client")
		require.Len(t, w.api.arrivals(), 1)
		require.Zero(t, w.dropped.Load())
	})
}

// Interceptors may call other services, with other tokens, in the context of an RPC.
func TestTokensOfTwoSources(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	otherClient := other.client(t, grpc.WithPerRPCCredentials(grpccredentials.New(other.source(t), cleartext)))
	client := w.client(t, append(grpccredentials.DialOptions(w.source(t), cleartext), grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoker(ctx, method, req, reply, cc, opts...)
			if err := call(ctx, otherClient); err != nil {
				t.Error(err)
			}
			return err
		}))...)
	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	require.NoError(t, call(t.Context(), client))
	require.Equal(t, 2, w.auth.TokenRequests())
	require.Equal(t, 1, other.auth.TokenRequests())
	require.Zero(t, other.dropped.Load())
}

// An interceptor may make several attempts at a time with one context.
func TestHedgedCalls(t *testing.T) {
	w := newWorld(t)
	w.api.judge = func(_ context.Context, rpc int) error {
		if rpc <= 10 {
			return errUnauthenticated
		}
		return nil
	}
	client := w.client(t, append(grpccredentials.DialOptions(w.source(t), cleartext), grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, _ any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			errs := make(chan error, 10)
			for range cap(errs) {
				go func() { errs <- invoker(ctx, method, req, new(testpb.Empty), cc) }()
			}
			var err error
			for range cap(errs) {
				err = <-errs
			}
			return err
		}))...)
	require.NoError(t, call(t.Context(), client))
	require.EqualValues(t, 1, w.dropped.Load())
	require.Equal(t, 2, w.auth.TokenRequests())
}

// Options may be shared by calls: they are not appended to.
func TestSharedOptions(t *testing.T) {
	w := newWorld(t)
	opts := make([]grpc.CallOption, 0, 1)
	client := w.client(t, append([]grpc.DialOption{grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			return invoker(ctx, method, req, reply, cc, opts...)
		})}, grpccredentials.DialOptions(w.source(t), cleartext)...)...)
	require.NoError(t, call(t.Context(), client))
	require.Nil(t, opts[:1][0])
}

// Interceptors of a connection without Credentials see to nothing.
func TestInterceptorsWithoutCredentials(t *testing.T) {
	w := newWorld(t)
	w.api.judge = func(context.Context, int) error { return errUnauthenticated }
	c := grpccredentials.New(w.source(t), cleartext)
	client := w.client(t, grpc.WithUnaryInterceptor(c.UnaryClientInterceptor), grpc.WithStreamInterceptor(c.StreamClientInterceptor))
	requireCode(t, codes.Unauthenticated, call(t.Context(), client))
	requireCode(t, codes.Unauthenticated, streams["both ways"](t.Context(), client))
	require.Len(t, w.api.arrivals(), 2)
	require.Zero(t, w.auth.TokenRequests())
}

// A proxy that speaks HTTP and not gRPC answers 401.
func TestUnauthorizedByAProxy(t *testing.T) {
	w := newWorld(t)
	inner := w.api.server()
	t.Cleanup(inner.Stop)
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, active := w.auth.Introspect(token); !active {
			rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			rw.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(rw, "no")
			return
		}
		inner.ServeHTTP(rw, r)
	}))
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	_, roots := newCertificate()
	roots.AddCert(proxy.Certificate())
	conn := dial(t, proxy.Listener.Addr().String(), append(grpccredentials.DialOptions(w.source(t)),
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")))...)
	client := testpb.NewTestServiceClient(conn)

	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	require.NoError(t, call(t.Context(), client))
	require.Equal(t, 2, w.auth.TokenRequests())
	require.Equal(t, 2, w.api.handlings())
}

// A replay waits for its token no longer than the call has.
func TestDeadlineBoundsTheReplay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		client := w.withTokens(t)
		require.NoError(t, call(t.Context(), client))
		w.auth.RevokeAll()
		w.auth.Script(cct.Fault{Delay: 5 * time.Second})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		requireCode(t, codes.Unauthenticated, call(ctx, client))
		require.Equal(t, time.Second, time.Since(start))
		require.NoError(t, call(t.Context(), client))
		require.Equal(t, 2, w.auth.TokenRequests())
		synctest.Wait()
	})
}

// Retries of an interceptor around ours are calls of their own.
func TestRetryingInterceptor(t *testing.T) {
	w := newWorld(t)
	w.api.judge = func(context.Context, int) error { return errUnauthenticated }
	source := w.source(t)
	client := w.client(t, append([]grpc.DialOption{grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) (err error) {
			for range 5 {
				err = invoker(ctx, method, req, reply, cc, opts...)
			}
			return err
		})}, grpccredentials.DialOptions(source, cleartext)...)...)
	requireCode(t, codes.Unauthenticated, call(t.Context(), client))
	require.Len(t, w.api.arrivals(), 6)
	require.Equal(t, 2, w.auth.TokenRequests())
	require.Equal(t, clientcredentials.Fresh, source.Status().State)
}

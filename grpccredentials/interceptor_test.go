package grpccredentials_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
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

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

func TestRevokedTokenIsReplaced(t *testing.T) {
	w := newWorld(t)
	client := w.withTokens(t)
	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	var header metadata.MD
	require.NoError(t, call(t.Context(), client, grpc.Header(&header)))
	require.Contains(t, header, "content-type", "the caller's own option must work, too")
	require.NoError(t, call(t.Context(), client))
	w.requireCounts(t, counts{tokenRequests: 2, arrived: 4, handled: 3, dropped: 1})
}

// If the token can't be dropped now, the Source isn't asked for another one.
func TestRefusalThatChangesNothing(t *testing.T) {
	w := newWorld(t)
	served := make(chan event.TokenServed, 10) // On a busy machine nobody waits for the Observer.
	w.conf.Observer.TokenServed = func(info event.TokenServed) { served <- info }
	w.api.judge = refuseAll
	client := w.withTokens(t)
	requireCode(t, codes.Unauthenticated, call(t.Context(), client))
	for range 3 { // For the call, to see whether there is another token, and for the replay.
		<-served
	}
	require.Empty(t, served)
	requireCode(t, codes.Unauthenticated, call(t.Context(), client))
	<-served
	require.Empty(t, served)
}

func TestStreamDropsItsToken(t *testing.T) {
	w := newWorld(t)
	client := w.withTokens(t)
	require.NoError(t, bothWays(t.Context(), client))
	w.auth.RevokeAll()
	requireCode(t, codes.Unauthenticated, bothWays(t.Context(), client))
	w.requireCounts(t, counts{tokenRequests: 1, arrived: 2, handled: 1, dropped: 1})
	require.NoError(t, bothWays(t.Context(), client))
	w.requireCounts(t, counts{tokenRequests: 2, arrived: 3, handled: 2, dropped: 1})
}

// A server may end a stream when its token expires or is revoked. If the client has
// another token by then, it keeps that one.
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
	w.requireCounts(t, counts{tokenRequests: 2, arrived: 3, handled: 2, dropped: 1})

	close(revoked)
	for range 3 {
		_, err = old.Recv()
		requireCode(t, codes.Unauthenticated, err)
	}
	require.NoError(t, call(t.Context(), client))
	w.requireCounts(t, counts{tokenRequests: 2, arrived: 4, handled: 3, dropped: 1})
}

// headersFirst refuses the first RPC in the way of servers that always send headers
// before the status.
func headersFirst(ctx context.Context, rpc int) error {
	if rpc > 1 {
		return nil
	}
	if err := grpc.SendHeader(ctx, metadata.Pairs("x", "y")); err != nil {
		return err
	}
	return errUnauthenticated
}

func TestReplay(t *testing.T) {
	never := func(string, error) bool { return false }
	always := func(string, error) bool { return true }
	for name, test := range map[string]struct {
		judge    func(context.Context, int) error
		replayIf func(string, error) bool
		replayed bool
	}{
		"no headers":                  {refuse(1, 1), nil, true},
		"headers":                     {headersFirst, nil, false}, // The server may have done something already.
		"no headers, but not allowed": {refuse(1, 1), never, false},
		"headers, but allowed":        {headersFirst, always, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.api.judge = test.judge
			opts := []grpccredentials.Option{plaintext}
			if test.replayIf != nil {
				opts = append(opts, grpccredentials.ReplayIf(func(method string, err error) bool {
					if method != testpb.TestService_EmptyCall_FullMethodName || !errors.Is(err, errUnauthenticated) {
						t.Errorf("%s: %v", method, err)
					}
					return test.replayIf(method, err)
				}))
			}
			client := w.client(t, grpccredentials.DialOptions(w.source(t), opts...)...)
			err := call(t.Context(), client)
			if test.replayed {
				require.NoError(t, err)
				w.requireCounts(t, counts{tokenRequests: 2, arrived: 2, handled: 1, dropped: 1})
			} else {
				requireCode(t, codes.Unauthenticated, err)
				w.requireCounts(t, counts{tokenRequests: 1, arrived: 1, dropped: 1})
			}
			require.NoError(t, call(t.Context(), client))
			require.Equal(t, 2, w.auth.TokenRequests())
		})
	}
}

// Without another token, the caller gets the service's error.
func TestNoOtherToken(t *testing.T) {
	w := newWorld(t)
	client := w.withTokens(t)
	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	invalid := cct.InvalidClient()
	w.auth.SetFault(&invalid)
	err := call(t.Context(), client)
	requireCode(t, codes.Unauthenticated, err)
	require.Equal(t, "the service knows no such token", status.Convert(err).Message())
	require.Len(t, w.api.arrived, 2)
}

// A server that always issues the same token has no other one.
func TestSameTokenIsNotTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.auth.SetFault(&cct.Fault{Status: http.StatusOK, Body: `{"access_token":"always-the-same","token_type":"Bearer"}`})
	w.api.judge = refuseAll
	requireCode(t, codes.Unauthenticated, call(t.Context(), w.withTokens(t)))
	w.requireCounts(t, counts{tokenRequests: 2, arrived: 1, dropped: 1})
}

// retryUnavailable makes grpc itself retry a call.
var retryUnavailable = grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`)

// grpc makes the second attempt with the second token. That one is refused.
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
		client := w.client(t, append(grpccredentials.DialOptions(source, plaintext), retryUnavailable)...)
		require.NoError(t, call(t.Context(), client))
		w.requireCounts(t, counts{tokenRequests: 3, arrived: 3, handled: 1, dropped: 1})
	})
}

// If there is no token for the second attempt, the token of the first one wasn't refused.
func TestFailureAtTheSecondAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.TokenLifetime = 10 * time.Second
		invalid := cct.InvalidClient()
		w.api.judge = func(context.Context, int) error {
			time.Sleep(time.Minute)
			w.auth.SetFault(&invalid)
			return status.Error(codes.Unavailable, "for a moment")
		}
		err := call(t.Context(), w.withTokens(t, retryUnavailable))
		requireCode(t, codes.Unauthenticated, err)
		require.ErrorContains(t, err, "invalid_client")
		w.requireCounts(t, counts{tokenRequests: w.auth.TokenRequests(), arrived: 1})
	})
}

// Interceptors may call other services, with other tokens, in the context of an RPC.
func TestTokensOfTwoSources(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	otherClient := other.client(t, grpc.WithPerRPCCredentials(grpccredentials.New(other.source(t), plaintext)))
	client := w.withTokens(t, interceptor(func(ctx context.Context, opts []grpc.CallOption, invoke func(...grpc.CallOption) error) error {
		err := invoke(opts...)
		if err := call(ctx, otherClient); err != nil {
			t.Error(err)
		}
		return err
	}))
	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	require.NoError(t, call(t.Context(), client))
	w.requireCounts(t, counts{tokenRequests: 2, arrived: 3, handled: 2, dropped: 1})
	other.requireCounts(t, counts{tokenRequests: 1, arrived: 3, handled: 3})
}

// An interceptor may make several attempts at once with one context.
func TestHedgedCalls(t *testing.T) {
	w := newWorld(t)
	w.api.judge = refuse(1, 10)
	client := w.withTokens(t, interceptor(func(_ context.Context, _ []grpc.CallOption, invoke func(...grpc.CallOption) error) error {
		errs := make(chan error, 10)
		for range cap(errs) {
			go func() { errs <- invoke() }()
		}
		var err error
		for range cap(errs) {
			err = <-errs
		}
		return err
	}))
	require.NoError(t, call(t.Context(), client))
	w.awaitDropped(t, 1)
	require.EqualValues(t, 1, w.dropped.Load())
	require.Equal(t, 2, w.auth.TokenRequests())
}

// Calls may share their options, so the interceptor must not append to them.
func TestSharedOptions(t *testing.T) {
	w := newWorld(t)
	shared := make([]grpc.CallOption, 0, 1)
	share := interceptor(func(_ context.Context, _ []grpc.CallOption, invoke func(...grpc.CallOption) error) error {
		return invoke(shared...)
	})
	client := w.client(t, append([]grpc.DialOption{share}, grpccredentials.DialOptions(w.source(t), plaintext)...)...)
	require.NoError(t, call(t.Context(), client))
	require.Nil(t, shared[:1][0])
}

// On a connection without Credentials, the interceptors do nothing.
func TestInterceptorsWithoutCredentials(t *testing.T) {
	w := newWorld(t)
	w.api.judge = refuseAll
	c := grpccredentials.New(w.source(t), plaintext)
	client := w.client(t, grpc.WithUnaryInterceptor(c.UnaryClientInterceptor), grpc.WithStreamInterceptor(c.StreamClientInterceptor))
	for _, rpc := range []procedure{unary, bothWays} {
		requireCode(t, codes.Unauthenticated, rpc(t.Context(), client))
	}
	w.requireCounts(t, counts{arrived: 2})
}

// A proxy that doesn't know gRPC answers 401, as for any HTTP request.
func TestUnauthorizedByAProxy(t *testing.T) {
	w := newWorld(t)
	inner := w.api.server()
	t.Cleanup(inner.Stop)
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, active := w.auth.Introspect(token); !active {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(rw, r)
	}))
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	roots := testkit.Roots(&tls.Certificate{Leaf: proxy.Certificate()})
	conn := dial(t, proxy.Listener.Addr().String(), append(grpccredentials.DialOptions(w.source(t)),
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")))...)
	client := testpb.NewTestServiceClient(conn)

	require.NoError(t, call(t.Context(), client))
	w.auth.RevokeAll()
	require.NoError(t, call(t.Context(), client))
	w.requireCounts(t, counts{tokenRequests: 2, arrived: 2, handled: 2, dropped: 1})
}

// A replay waits for its token no longer than the call's context allows.
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
		w.requireCounts(t, counts{tokenRequests: 2, arrived: 3, handled: 2, dropped: 1})
		synctest.Wait()
	})
}

package grpccredentials_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// requireCode checks the status code of err.
func requireCode(t testing.TB, code codes.Code, err error) {
	t.Helper()
	require.Equal(t, code.String(), status.Code(err).String(), "%v", err)
}

// This uses real connections: TLS to the service, and HTTP to the authorization server.
func TestTokenArrivesOverTLS(t *testing.T) {
	servers := cct.Start(t)
	w := newWorld(t)
	w.api.auth = servers.Auth
	w.conf.TokenURL, w.conf.HTTPClient = servers.TokenURL, servers.Client()
	client := testpb.NewTestServiceClient(w.dialTLS(t, grpccredentials.DialOptions(w.source(t))...))
	require.NoError(t, call(t.Context(), client))
	require.NoError(t, bothWays(t.Context(), client))
	require.Equal(t, 1, servers.Auth.TokenRequests())
	w.requireCounts(t, counts{arrived: 2, handled: 2})
	for _, value := range w.api.arrived {
		require.Regexp(t, "^Bearer [^| ]+$", value)
	}
}

// Credentials can also be set for one call, on a connection that has none.
func TestCredentialsOfOneCall(t *testing.T) {
	w := newWorld(t)
	c := grpccredentials.New(w.source(t))
	requireCode(t, codes.Unauthenticated, call(t.Context(), w.client(t), grpc.PerRPCCredentials(c)))
	w.requireCounts(t, counts{})
	secure := testpb.NewTestServiceClient(w.dialTLS(t))
	require.NoError(t, call(t.Context(), secure, grpc.PerRPCCredentials(c)))
	requireCode(t, codes.InvalidArgument, call(t.Context(), secure))
}

func TestDeadlineBoundsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Script(cct.Fault{Delay: 5 * time.Second})
		client := w.withTokens(t)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := call(ctx, client)
		requireCode(t, codes.DeadlineExceeded, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err = bothWays(ctx, client)
		requireCode(t, codes.Canceled, err)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 2*time.Second, time.Since(start))

		require.NoError(t, call(t.Context(), client), "the token request goes on")
		require.Equal(t, 5*time.Second, time.Since(start))
		w.requireCounts(t, counts{tokenRequests: 1, arrived: 1, handled: 1})
	})
}

func TestPlaintextIsRefused(t *testing.T) {
	w := newWorld(t)
	source := w.source(t)
	_, err := grpc.NewClient("passthrough:///memory", append(grpccredentials.DialOptions(source), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.ErrorContains(t, err, "transport level security")

	require.True(t, grpccredentials.New(source).RequireTransportSecurity())
	require.False(t, grpccredentials.New(source, plaintext).RequireTransportSecurity())

	// A wrapper may claim that the Credentials don't need TLS. It gets no token.
	err = call(t.Context(), w.client(t, grpc.WithPerRPCCredentials(carefree{grpccredentials.New(source)})))
	requireCode(t, codes.Unauthenticated, err)
	require.ErrorContains(t, err, "isn't encrypted")
	w.requireCounts(t, counts{})
}

type carefree struct{ credentials.PerRPCCredentials }

func (carefree) RequireTransportSecurity() bool { return false }

func TestDPoPIsRefused(t *testing.T) {
	w := newWorld(t)
	w.conf.DPoP = testkit.NewKey("ES256")
	err := call(t.Context(), w.withTokens(t))
	requireCode(t, codes.Unauthenticated, err)
	require.ErrorContains(t, err, "use a Config without DPoP")
	w.requireCounts(t, counts{tokenRequests: 1})
}

func TestP7_AuthScheme(t *testing.T) {
	w := newWorld(t)
	w.conf.AuthScheme = "ApiToken"
	metadata, err := grpccredentials.New(w.source(t), plaintext).GetRequestMetadata(t.Context())
	require.NoError(t, err)
	require.Regexp(t, "^ApiToken .", metadata["authorization"])
}

// An RPC's context says which target its token is for, and a token that is refused is
// replaced there.
func TestT1_Target(t *testing.T) {
	w := newWorld(t)
	w.conf.Scopes = []string{"read"}
	source := w.source(t)
	c := grpccredentials.New(source, plaintext)
	target := clientcredentials.Target{Scopes: []string{"write"}}
	scopes := func(ctx context.Context) []string {
		metadata, err := c.GetRequestMetadata(ctx)
		require.NoError(t, err)
		token, ok := w.auth.Introspect(strings.TrimPrefix(metadata["authorization"], "Bearer "))
		require.True(t, ok)
		return token.Scopes
	}
	require.Equal(t, []string{"write"}, scopes(clientcredentials.WithTarget(t.Context(), target)))
	require.Equal(t, []string{"read"}, scopes(t.Context()))

	w.auth.RevokeAll()
	require.NoError(t, call(clientcredentials.WithTarget(t.Context(), target), w.client(t, grpccredentials.DialOptions(source, plaintext)...)))
	require.Equal(t, []string{"write"}, scopes(clientcredentials.WithTarget(t.Context(), target)))
}

func TestNoSource(t *testing.T) {
	w := newWorld(t)
	c := grpccredentials.New(nil, plaintext)
	err := call(t.Context(), w.client(t, grpc.WithPerRPCCredentials(c), grpc.WithUnaryInterceptor(c.UnaryClientInterceptor)))
	requireCode(t, codes.Unauthenticated, err)
	require.ErrorContains(t, err, "get one from Config.Source")
	w.requireCounts(t, counts{})
}

// The value of authorization, 1 kB here, is made for each RPC. That is one of these
// allocations. All of them together take about 1 µs. An RPC in memory without a token
// takes 30 µs and 150 allocations, so the value isn't worth a cache of its own.
func TestGetRequestMetadataAllocations(t *testing.T) {
	w := newWorld(t)
	w.auth.SetFault(&cct.Fault{Status: 200, Body: `{"access_token":"` + strings.Repeat("x", 1000) + `","token_type":"Bearer"}`})
	c := grpccredentials.New(w.source(t), plaintext)
	allocations := testing.AllocsPerRun(1000, func() {
		if _, err := c.GetRequestMetadata(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	require.LessOrEqual(t, allocations, 6.0) // two each for the request, its header and the map
}

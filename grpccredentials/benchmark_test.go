package grpccredentials_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
)

// tlsContext returns a context like the one that grpc gives to GetRequestMetadata on a
// connection with TLS.
func tlsContext(t testing.TB) context.Context {
	info := credentials.TLSInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	return credentials.NewContextWithRequestInfo(t.Context(), credentials.RequestInfo{AuthInfo: info})
}

// newLongTokenWorld returns a world whose tokens are as long as a JWT.
func newLongTokenWorld(t testing.TB) *world {
	w := newWorld(t)
	w.auth.SetFault(&cct.Fault{Status: 200, Body: `{"access_token":"` + strings.Repeat("x", 1000) + `","token_type":"Bearer"}`})
	return w
}

// The value of authorization, 1 kB here, is made for each RPC. That is one of these
// allocations. All of them together take about 1 µs. An RPC in memory without a token
// takes 30 µs and 150 allocations, so the value isn't worth a cache of its own.
func TestGetRequestMetadataAllocations(t *testing.T) {
	c := grpccredentials.New(newLongTokenWorld(t).source(t))
	ctx := tlsContext(t)
	allocations := testing.AllocsPerRun(1000, func() {
		if _, err := c.GetRequestMetadata(ctx); err != nil {
			t.Fatal(err)
		}
	})
	require.LessOrEqual(t, allocations, 4.0) // the token's copy, the value, and 2 for the map
}

func BenchmarkGetRequestMetadata(b *testing.B) {
	c := grpccredentials.New(newLongTokenWorld(b).source(b))
	ctx := tlsContext(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.GetRequestMetadata(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	w := newLongTokenWorld(b)
	w.api.judge = func(context.Context, int) error { return nil }
	for name, opts := range map[string][]grpc.DialOption{
		"without":         nil,
		"credentials":     {grpc.WithPerRPCCredentials(grpccredentials.New(w.source(b), plaintext))},
		"and interceptor": grpccredentials.DialOptions(w.source(b), plaintext),
	} {
		b.Run(name, func(b *testing.B) {
			client := testpb.NewTestServiceClient(w.dial(b, opts...))
			b.ReportAllocs()
			for b.Loop() {
				if err := call(b.Context(), client); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

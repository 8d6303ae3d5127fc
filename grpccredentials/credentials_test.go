package grpccredentials_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
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
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	w.conf.TokenURL, w.conf.HTTPClient = servers.TokenURL, &http.Client{Transport: transport}
	client := testpb.NewTestServiceClient(w.dialTLS(t, grpccredentials.DialOptions(w.source(t))...))

	require.NoError(t, call(t.Context(), client))
	for name, rpc := range streams {
		require.NoError(t, rpc(t.Context(), client), name)
	}
	require.Equal(t, 1, servers.Auth.TokenRequests())

	servers.Auth.RevokeAll()
	require.NoError(t, call(t.Context(), client))
	require.Equal(t, 2, servers.Auth.TokenRequests())
	w.requireCounts(t, counts{tokenRequests: 0, arrived: 6, handled: 5, dropped: 1})
}

func TestTokenArrivesInMemory(t *testing.T) {
	w := newWorld(t)
	client := w.withTokens(t)
	require.NoError(t, call(t.Context(), client))
	for name, rpc := range streams {
		require.NoError(t, rpc(t.Context(), client), name)
	}
	w.requireCounts(t, counts{tokenRequests: 1, arrived: 4, handled: 4})
	for _, value := range w.api.arrived {
		require.Regexp(t, "^Bearer [^| ]+$", value)
	}
}

// Credentials can also be set for one call, on a connection that has none.
func TestCredentialsOfOneCall(t *testing.T) {
	w := newWorld(t)
	source := w.source(t)
	secure := testpb.NewTestServiceClient(w.dialTLS(t))
	require.NoError(t, call(t.Context(), secure, grpc.PerRPCCredentials(grpccredentials.New(source))))
	requireCode(t, codes.InvalidArgument, call(t.Context(), secure))

	requests := w.auth.TokenRequests()
	source = w.source(t) // It has no token yet.
	requireCode(t, codes.Unauthenticated, call(t.Context(), w.client(t), grpc.PerRPCCredentials(grpccredentials.New(source))))
	require.Equal(t, requests, w.auth.TokenRequests())
}

func TestColdStart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.auth.Script(cct.Fault{Delay: time.Second})
		client := w.withTokens(t)
		callAll(t, client, 100)
		w.requireCounts(t, counts{tokenRequests: 1, arrived: 100, handled: 100})
	})
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	w.conf.DPoP = key
	client := w.withTokens(t)
	for range 3 {
		err = call(t.Context(), client)
		requireCode(t, codes.Unauthenticated, err)
		require.ErrorContains(t, err, "use a Config without DPoP")
	}
	w.requireCounts(t, counts{tokenRequests: 1})
}

func TestMisuse(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]*grpccredentials.Credentials{
		"no source":    grpccredentials.New(nil, plaintext),
		"empty source": grpccredentials.New(new(clientcredentials.Source), plaintext),
	} {
		err := call(t.Context(), w.client(t, grpc.WithPerRPCCredentials(c), grpc.WithUnaryInterceptor(c.UnaryClientInterceptor)))
		requireCode(t, codes.Unauthenticated, err)
		require.ErrorContains(t, err, "get one from Config.Source", name)
	}
	w.requireCounts(t, counts{})
}

// A token that is bound to a certificate works on a ClientConn that presents it.
func TestCertificateBoundTokens(t *testing.T) {
	mine, _ := newCertificate()
	another, _ := newCertificate()
	leaf, err := x509.ParseCertificate(mine.Certificate[0])
	require.NoError(t, err)
	servers := cct.NewTLSServer(cct.Client{ID: "client", Certificates: []*x509.Certificate{leaf}, CertificateBound: true})
	t.Cleanup(servers.Close)
	httpClient := servers.Client()
	t.Cleanup(httpClient.CloseIdleConnections)
	w := newWorld(t)
	w.conf.TokenURL, w.conf.HTTPClient, w.conf.ClientSecret = servers.TokenURL, httpClient, ""
	certificate := func(c *tls.Certificate) clientauth.CertificateSource {
		return func(context.Context) (*tls.Certificate, error) { return c, nil }
	}
	w.conf.ClientAuth = &clientauth.SelfSignedTLSClientAuth{Source: certificate(mine)}
	w.api.judge = func(ctx context.Context, _ int) error {
		md, _ := metadata.FromIncomingContext(ctx)
		token, _ := servers.Auth.Introspect(strings.TrimPrefix(md.Get("authorization")[0], "Bearer "))
		p, _ := peer.FromContext(ctx)
		sum := sha256.Sum256(p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].Raw)
		if token.X5TS256 != base64.RawURLEncoding.EncodeToString(sum[:]) {
			return errUnauthenticated
		}
		return nil
	}
	serverCertificate, roots := newCertificate()
	listener := listen()
	serve(t, w.api, listener, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{*serverCertificate},
		ClientAuth:   tls.RequireAnyClientCert,
	})))
	for presented, want := range map[*tls.Certificate]codes.Code{mine: codes.OK, another: codes.Unauthenticated} {
		conn := dial(t, listener.Addr().String(), append(grpccredentials.DialOptions(w.source(t)),
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, GetClientCertificate: certificate(presented).GetClientCertificate})))...)
		requireCode(t, want, call(t.Context(), testpb.NewTestServiceClient(conn)))
	}
}

package grpccredentials_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/grpccredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// Many calls use the same token. When it is revoked, the first call that is refused is
// replayed with a new one.
func Example() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	address, roots, stop := startService(server.Auth)
	defer stop()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
	}
	source := conf.Source(context.Background())
	conn, err := grpc.NewClient(address, append(
		grpccredentials.DialOptions(source),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
	)...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	client := healthpb.NewHealthClient(conn)
	for i := range 4 {
		if i == 2 {
			server.Auth.RevokeAll()
		}
		resp, err := client.Check(context.Background(), new(healthpb.HealthCheckRequest))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(resp.GetStatus(), "after", server.Auth.TokenRequests(), "token requests")
	}
	// Output:
	// SERVING after 1 token requests
	// SERVING after 1 token requests
	// SERVING after 2 token requests
	// SERVING after 2 token requests
}

// startService starts a gRPC service that accepts the tokens of auth. Its certificate
// can be verified with roots.
func startService(auth *clientcredentialstest.AuthorizationServer) (address string, roots *x509.CertPool, stop func()) {
	certificate := testkit.ServerCertificate()
	server := (&service{auth: auth}).server(grpc.Creds(credentials.NewServerTLSFromCert(certificate)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener := listen()
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), testkit.Roots(certificate), server.Stop
}

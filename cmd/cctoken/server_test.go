package main

import (
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A testServer is an authorization server that knows one client.
type testServer struct{ *clientcredentialstest.Server }

// startServer starts one, for a client with canarySecret if none is given.
func startServer(t *testing.T, clients ...clientcredentialstest.Client) testServer {
	t.Helper()
	if clients == nil {
		clients = []clientcredentialstest.Client{{ID: canaryID, Secret: canarySecret, Scopes: []string{"read", "write"}}}
	}
	srv := clientcredentialstest.NewServer(clients...)
	t.Cleanup(srv.Close)
	return testServer{srv}
}

// env returns the environment of the client.
func (s testServer) env() environment {
	return environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": s.TokenURL}
}

// writeAuthority returns a file with the certificate that a TLS server's is trusted by.
func writeAuthority(t *testing.T, srv *clientcredentialstest.Server) string {
	t.Helper()
	resp, err := srv.Client().Get(srv.APIURL)
	require.NoError(t, err)
	defer resp.Body.Close()
	srv.Client().CloseIdleConnections()
	chain := resp.TLS.PeerCertificates
	return writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[len(chain)-1].Raw})))
}

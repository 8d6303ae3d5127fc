package tlsalert

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIs(t *testing.T) {
	require.True(t, Is(fmt.Errorf("wrapped: %w", tls.AlertError(42))))
	require.True(t, Is(&net.OpError{Op: "local error", Err: io.EOF}))
	require.False(t, Is(&net.OpError{Op: "read", Err: io.EOF}))
	require.False(t, Is(io.EOF))
	require.False(t, Is(nil))

	// A real alert: the server asks for a certificate, and the client has none.
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = nil
	server.StartTLS()
	defer server.Close()
	_, err := server.Client().Get(server.URL)
	require.Error(t, err)
	require.True(t, Is(err), "%v", err)
}

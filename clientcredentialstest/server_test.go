package clientcredentialstest_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// getToken sends a token request of the default client.
func getToken(srv *cct.Server) error {
	form := strings.NewReader(grant + "&client_id=client&client_secret=secret")
	resp, err := srv.Client().Post(srv.TokenURL, "application/x-www-form-urlencoded", form)
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

func TestServer(t *testing.T) {
	srv := cct.NewTLSServer()
	t.Cleanup(srv.Close)
	require.True(t, strings.HasPrefix(srv.TokenURL, "https://127.0.0.1:"))
	require.NoError(t, getToken(srv))
	resp, err := srv.Client().Get(srv.APIURL + "path")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, 1, srv.API.Rejected())

	srv.Stop()
	srv.Stop()
	srv.Client().CloseIdleConnections() // net/http may not have noticed yet that they are cut.
	require.ErrorIs(t, getToken(srv), syscall.ECONNREFUSED)
	require.NoError(t, srv.Restart())
	require.NoError(t, srv.Restart())
	require.NoError(t, getToken(srv))
	require.Equal(t, 2, srv.Auth.TokensIssued())
	srv.Close()
}

func TestRestartFailsWhenPortIsTaken(t *testing.T) {
	srv := cct.Start(t)
	srv.Stop()
	address, _ := strings.CutSuffix(strings.TrimPrefix(srv.TokenURL, "http://"), "/token")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer l.Close()
	require.ErrorIs(t, srv.Restart(), syscall.EADDRINUSE)
}

func TestStopCutsAnswersHeldBack(t *testing.T) {
	srv := cct.Start(t)
	srv.Auth.Script(cct.Fault{Delay: time.Hour})
	failed := make(chan error)
	go func() { failed <- getToken(srv) }()
	require.Eventually(t, func() bool { return srv.Auth.TokenRequests() == 1 }, time.Minute, time.Millisecond)
	srv.Stop()
	require.Error(t, <-failed)
}

// fakeTB records what Start does with a test.
type fakeTB struct {
	cleanups []func()
	errors   []string
}

func (*fakeTB) Helper()             {}
func (tb *fakeTB) Cleanup(f func()) { tb.cleanups = append(tb.cleanups, f) }
func (tb *fakeTB) Errorf(format string, args ...any) {
	tb.errors = append(tb.errors, fmt.Sprintf(format, args...))
}

func TestStart(t *testing.T) {
	var _ cct.TB = t
	tb := new(fakeTB)
	srv := cct.Start(tb, cct.Client{ID: "id", Secret: "secret"})
	for _, u := range []string{srv.TokenURL, srv.APIURL + "?access_token=x"} {
		resp, err := http.Get(u)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.Empty(t, tb.errors)
	require.Len(t, tb.cleanups, 1)
	tb.cleanups[0]()
	require.Equal(t, []string{
		"token request 1: RFC 6749, Section 3.2: the method is not POST",
		"API request 1: RFC 6750, Section 2.3: the token is in the URL",
	}, tb.errors)
	_, err := http.Get(srv.APIURL)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

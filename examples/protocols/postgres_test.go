package protocols

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// startPostgres starts a server that authenticates clients as PostgreSQL 18 does: with
// OAUTHBEARER, or with a password in plaintext.
func (w *world) startPostgres(t *testing.T, method string) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := w.pipes.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				w.servePostgres(conn, method)
			})
		}
	})
	t.Cleanup(func() {
		w.pipes.Close()
		wg.Wait()
	})
}

// servePostgres serves a connection until the client is gone.
func (w *world) servePostgres(conn net.Conn, method string) {
	server := pgproto3.NewBackend(conn, conn)
	if _, err := server.ReceiveStartupMessage(); err != nil {
		return
	}
	var question pgproto3.BackendMessage = &pgproto3.AuthenticationCleartextPassword{}
	kind := uint32(pgproto3.AuthTypeCleartextPassword)
	if method == "oauth" {
		question = &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}}
		kind = pgproto3.AuthTypeSASL
	}
	server.Send(question)
	if server.Flush() != nil || server.SetAuthType(kind) != nil {
		return
	}
	answer, err := server.Receive()
	if err != nil {
		return
	}
	var token string
	switch m := answer.(type) {
	case *pgproto3.SASLInitialResponse:
		token, _ = strings.CutPrefix(strings.TrimSuffix(string(m.Data), "\x01\x01"), "n,,\x01auth=Bearer ")
	case *pgproto3.PasswordMessage:
		token = m.Password
	}
	if w.arrives(token) == 0 {
		server.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: "the token is refused"})
		_ = server.Flush()
		return
	}
	server.Send(&pgproto3.AuthenticationOk{})
	for err == nil {
		server.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if server.Flush() != nil {
			return
		}
		_, err = server.Receive()
		server.Send(&pgproto3.EmptyQueryResponse{}) // A pool checks a connection with an empty query.
	}
}

func TestPostgres(t *testing.T) {
	for name, method := range map[string]struct {
		auth string
		use  func(*pgxpool.Config, *world)
	}{
		"OAUTHBEARER": {"oauth", func(conf *pgxpool.Config, w *world) { UseOAuth(conf, w.source) }},
		"password":    {"password", func(conf *pgxpool.Config, w *world) { UseTokenAsPassword(conf, w.source) }},
	} {
		// connect returns a function that opens another connection of a pool.
		connect := func(t *testing.T, w *world) func(context.Context) error {
			w.startPostgres(t, method.auth)
			conf, err := pgxpool.ParseConfig("host=127.0.0.1 user=reports sslmode=disable require_auth=" + method.auth)
			require.NoError(t, err)
			conf.ConnConfig.DialFunc = w.pipes.DialContext
			method.use(conf, w)
			pool, err := pgxpool.NewWithConfig(t.Context(), conf)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			return func(ctx context.Context) error {
				pool.Reset()
				conn, err := pool.Acquire(ctx)
				if err == nil {
					conn.Release()
				}
				return err
			}
		}
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) { w.requireRefresh(t, 5*time.Second, connect(t, w)) })
			bubble(t, func(t *testing.T, w *world) { w.requireWait(t, connect(t, w)) })
			bubble(t, func(t *testing.T, w *world) { w.requireRefusal(t, connect(t, w)) })
		})
	}
}

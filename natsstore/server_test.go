package natsstore

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// NATS 2.11 has a clock that it never stops.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.getAccessTime.func1.1"))
}

const testBucket = "tokens"

// patience bounds how long a test waits for something that has to happen.
const patience = time.Minute

// A testServer is a NATS server in this process, on a port that it keeps.
type testServer struct {
	tb      testing.TB
	options server.Options
	running *server.Server
}

func startServer(tb testing.TB, configure ...func(*server.Options)) *testServer {
	tb.Helper()
	s := &testServer{tb: tb, options: server.Options{
		ServerName: "n1",
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		JetStream:  true,
		StoreDir:   tb.TempDir(),
		NoLog:      true,
		NoSigs:     true,
	}}
	for _, f := range configure {
		f(&s.options)
	}
	s.start()
	s.options.Port = s.running.Addr().(*net.TCPAddr).Port
	tb.Cleanup(s.stop)
	return s
}

func (s *testServer) start() {
	s.tb.Helper()
	options := s.options
	running, err := server.NewServer(&options)
	require.NoError(s.tb, err)
	running.Start()
	s.running = running
	require.True(s.tb, running.ReadyForConnections(patience))
}

// stop stops the server. What is in files remains.
func (s *testServer) stop() {
	s.running.Shutdown()
	s.running.WaitForShutdown()
}

func (s *testServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.options.Port) }

// connect returns a new connection, which reconnects by itself.
func connect(tb testing.TB, url string, options ...nats.Option) jetstream.JetStream {
	tb.Helper()
	connection, err := nats.Connect(url, append([]nats.Option{
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.ReconnectWait(20 * time.Millisecond),
		nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, options...)...)
	require.NoError(tb, err)
	tb.Cleanup(connection.Close)
	js, err := jetstream.New(connection)
	require.NoError(tb, err)
	return js
}

// createBucket creates and returns the bucket of the tests.
func createBucket(tb testing.TB, js jetstream.JetStream, configure ...func(*jetstream.KeyValueConfig)) (bucket jetstream.KeyValue) {
	tb.Helper()
	config := jetstream.KeyValueConfig{Bucket: testBucket, TTL: time.Hour, Storage: jetstream.MemoryStorage}
	for _, f := range configure {
		f(&config)
	}
	eventually(tb, func(ctx context.Context) (err error) {
		bucket, err = js.CreateKeyValue(ctx, config)
		return err
	})
	return bucket
}

func inFiles(config *jetstream.KeyValueConfig) { config.Storage = jetstream.FileStorage }

// newStore returns a Store with a connection of its own: another replica.
func newStore(tb testing.TB, url string, options ...nats.Option) *Store {
	tb.Helper()
	return &Store{JetStream: connect(tb, url, options...), Bucket: testBucket}
}

// startStore returns a server with a bucket, and a Store that uses it.
func startStore(tb testing.TB) (*testServer, *Store) {
	tb.Helper()
	s := startServer(tb)
	store := newStore(tb, s.url())
	createBucket(tb, store.JetStream)
	return s, store
}

// eventually calls f until it returns no error.
func eventually(tb testing.TB, f func(context.Context) error) {
	tb.Helper()
	deadline, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for {
		ctx, cancelAttempt := context.WithTimeout(deadline, 2*time.Second)
		err := f(ctx)
		cancelAttempt()
		if err == nil {
			return
		}
		select {
		case <-deadline.Done():
			require.NoError(tb, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// withDeadline returns a context for calls that should not take long.
func withDeadline(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// testKey returns a key like those that the library makes.
func testKey(name string) string { return strings.Repeat(fmt.Sprintf("%02x", name[0]), 32) }

// freePorts returns ports on which nothing listens, for servers that have to know each
// other's ports.
func freePorts(tb testing.TB, n int) []int {
	tb.Helper()
	if n == 0 {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer l.Close() // Only when all ports are known, so that they are different.
	return append(freePorts(tb, n-1), l.Addr().(*net.TCPAddr).Port)
}

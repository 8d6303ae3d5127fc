package natsstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A fleet is a service with many replicas, over real sockets.
type fleet struct {
	auth     *clientcredentialstest.Server
	nats     *testServer
	keyring  *clientcredentials.Keyring
	failures atomic.Int32 // of the store, as all replicas together see it
}

const replicas = 20

func startFleet(t *testing.T) *fleet {
	t.Helper()
	keyring, err := clientcredentials.NewKeyring(append(bytes.Repeat([]byte{1}, 31), 2))
	require.NoError(t, err)
	f := &fleet{auth: clientcredentialstest.Start(t), nats: startServer(t), keyring: keyring}
	createBucket(t, connect(t, f.nats.url()), inFiles)
	return f
}

// replicas returns the sources of n replicas, each with a connection of its own.
func (f *fleet) replicas(t *testing.T, n int, scope string) []*clientcredentials.Source {
	t.Helper()
	sources := make([]*clientcredentials.Source, n)
	for i := range sources {
		conf := &clientcredentials.Config{
			ClientID:     clientcredentialstest.ClientID,
			ClientSecret: clientcredentialstest.ClientSecret,
			TokenURL:     f.auth.TokenURL,
			AuthStyle:    oauth2.AuthStyleInHeader,
			Scopes:       []string{scope},
			EarlyRefresh: time.Hour, // as early as is possible: after half of the life
			Store:        New(connect(t, f.nats.url()), testBucket, f.keyring),
			Observer: &clientcredentials.Observer{StoreOperation: func(info clientcredentials.StoreOperationInfo) {
				if info.Err != nil && !errors.Is(info.Err, clientcredentials.ErrLeaseLost) {
					f.failures.Add(1)
				}
			}},
		}
		sources[i] = conf.Source(t.Context())
	}
	return sources
}

// tokens returns what all get at the same time.
func tokens(t *testing.T, sources []*clientcredentials.Source) []string {
	t.Helper()
	tokens := make([]string, len(sources))
	var together sync.WaitGroup
	for i, s := range sources {
		together.Go(func() {
			token, err := s.TokenContext(withDeadline(t))
			if err != nil {
				t.Errorf("replica %d: %v", i, err)
				return
			}
			tokens[i] = token.AccessToken
		})
	}
	together.Wait()
	return tokens
}

// requireRequests checks that there were no more than n token requests, but for those
// of replicas that couldn't use the store: on a slow machine a call may take longer
// than it is waited for.
func (f *fleet) requireRequests(t *testing.T, n int) {
	t.Helper()
	require.LessOrEqual(t, f.auth.Auth.TokenRequests(), n+int(f.failures.Load()))
}

func TestFleet(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.auth.Auth.TokenLifetime = 10 * time.Second
	f.auth.Auth.Latency = 100 * time.Millisecond
	sources := f.replicas(t, replicas, "a")

	// Cold, they make one request.
	seen := make(map[string]bool)
	had := make([]map[string]bool, replicas)
	look := func() (done bool) {
		done = true
		for i, token := range tokens(t, sources) {
			if had[i] == nil {
				had[i] = make(map[string]bool)
			}
			seen[token], had[i][token] = true, true
			done = done && len(had[i]) > 1
		}
		return done
	}
	look()
	f.requireRequests(t, 1)

	// Then one for each life of a token.
	eventually(t, func(context.Context) error {
		if look() || t.Failed() {
			return nil
		}
		return errors.New("somebody has the first token still")
	})
	f.requireRequests(t, len(seen))
}

func TestFleetWithoutNATS(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.nats.stop()
	sources := f.replicas(t, replicas, "a")
	tokens(t, sources)
	require.Equal(t, replicas, f.auth.Auth.TokenRequests())

	// Once it is there they share.
	f.nats.start()
	attempt := 0
	eventually(t, func(context.Context) error {
		attempt++
		before := f.auth.Auth.TokenRequests()
		got := tokens(t, f.replicas(t, 2, fmt.Sprint("b", attempt)))
		if f.auth.Auth.TokenRequests()-before > 1 && !t.Failed() {
			return errors.New("they don't share")
		}
		require.Equal(t, got[0], got[1])
		return nil
	})

	// And while they share, NATS may go.
	before := tokens(t, sources)
	f.nats.stop()
	require.Equal(t, before, tokens(t, sources))
	tokens(t, f.replicas(t, replicas, "c"))
}

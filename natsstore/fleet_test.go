package natsstore

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A fleet is a service with many replicas, over real sockets. Its replicas wait for the
// store no longer than in production. On a machine that is busy, some of them go on without
// it. So these tests repeat what replicas do with the store until it has worked once.
// Package storetest tests that the store always works.
type fleet struct {
	auth    *clientcredentialstest.Server
	nats    *testServer
	keyring *clientcredentials.Keyring
	starts  int
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

// replicas returns the Sources of n replicas, each with a connection of its own. Each call
// of replicas is about another token.
func (f *fleet) replicas(t *testing.T, n int) []*clientcredentials.Source {
	t.Helper()
	f.starts++
	scope := fmt.Sprint("scope", f.starts)
	sources := make([]*clientcredentials.Source, n)
	for i := range sources {
		conf := &clientcredentials.Config{
			ClientID:     clientcredentialstest.ClientID,
			ClientSecret: clientcredentialstest.ClientSecret,
			TokenURL:     f.auth.TokenURL,
			AuthStyle:    oauth2.AuthStyleInHeader,
			Scopes:       []string{scope},
			EarlyRefresh: time.Hour, // as early as possible: after half of the token's life
			Store:        New(connect(t, f.nats.url()), testBucket, f.keyring),
		}
		sources[i] = conf.Source(t.Context())
	}
	return sources
}

// tokens has all sources asked for a token at the same time, and returns the tokens.
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

// requests returns how many token requests there are during run.
func (f *fleet) requests(run func()) int {
	before := f.auth.Auth.TokenRequests()
	run()
	return f.auth.Auth.TokenRequests() - before
}

func TestFleet(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.auth.Auth.TokenLifetime = 10 * time.Second
	f.auth.Auth.Latency = 100 * time.Millisecond

	// At a cold start there is one request.
	var sources []*clientcredentials.Source
	eventually(t, func(context.Context) error {
		sources = f.replicas(t, replicas)
		if n := f.requests(func() { tokens(t, sources) }); n > 1 {
			return fmt.Errorf("%d token requests by replicas that start together", n)
		}
		return nil
	})

	// After that there is one for each life of a token.
	eventually(t, func(context.Context) error {
		before := tokens(t, sources)
		n := f.requests(func() {
			eventually(t, func(context.Context) error {
				for i, token := range tokens(t, sources) {
					if token == before[i] {
						return fmt.Errorf("replica %d still has the same token", i)
					}
				}
				return nil
			})
		})
		if n > 1 {
			return fmt.Errorf("%d token requests in the life of a token", n)
		}
		return nil
	})
}

func TestFleetWithoutNATS(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.nats.stop()
	sources := f.replicas(t, replicas)
	require.Equal(t, replicas, f.requests(func() { tokens(t, sources) }))

	// Once NATS is up, they share.
	f.nats.start()
	eventually(t, func(context.Context) error {
		var got []string
		if n := f.requests(func() { got = tokens(t, f.replicas(t, 2)) }); n > 1 {
			return fmt.Errorf("%d token requests by replicas that can share", n)
		}
		require.Equal(t, got[0], got[1])
		return nil
	})

	// While NATS is down again, replicas keep their token, and new ones request their own.
	before := tokens(t, sources)
	f.nats.stop()
	require.Equal(t, before, tokens(t, sources))
	require.Equal(t, replicas, f.requests(func() { tokens(t, f.replicas(t, replicas)) }))
}

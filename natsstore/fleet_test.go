package natsstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// Replicas of a service share a token while NATS is up, and get tokens while it is down.
// They wait for the store no longer than in production. On a machine that is busy, some
// of them go on without it, so this test repeats what they do until it has worked once.
// Package storetest tests that the store always works.
func TestFleet(t *testing.T) {
	t.Parallel()
	const replicas = 20
	auth, server := clientcredentialstest.Start(t), startServer(t)
	keyring, err := clientcredentials.NewKeyring(append(bytes.Repeat([]byte{1}, 31), 2))
	require.NoError(t, err)
	createBucket(t, connect(t, server.url()), inFiles)
	starts := 0
	// start returns new replicas, each with a connection of its own. Each call is about
	// another token.
	start := func() []*clientcredentials.Source {
		starts++
		sources := make([]*clientcredentials.Source, replicas)
		for i := range sources {
			sources[i] = (&clientcredentials.Config{
				ClientID:     clientcredentialstest.ClientID,
				ClientSecret: clientcredentialstest.ClientSecret,
				TokenURL:     auth.TokenURL,
				AuthStyle:    oauth2.AuthStyleInHeader,
				Scopes:       []string{fmt.Sprint("scope", starts)},
				Store:        New(connect(t, server.url()), testBucket, keyring),
			}).Source(t.Context())
		}
		return sources
	}
	// get has all sources asked for a token at the same time. It returns the tokens and the
	// number of token requests.
	get := func(sources []*clientcredentials.Source) (tokens []string, requests int) {
		before := auth.Auth.TokenRequests()
		tokens = make([]string, len(sources))
		var together sync.WaitGroup
		for i, s := range sources {
			together.Go(func() {
				if token, err := s.TokenContext(withDeadline(t)); err != nil {
					t.Errorf("replica %d: %v", i, err)
				} else {
					tokens[i] = token.AccessToken
				}
			})
		}
		together.Wait()
		return tokens, auth.Auth.TokenRequests() - before
	}

	server.stop()
	sources := start()
	own, requests := get(sources)
	require.Equal(t, replicas, requests)

	server.start()
	eventually(t, func(context.Context) error {
		tokens, requests := get(start())
		if requests > 1 {
			return fmt.Errorf("%d token requests by replicas that can share", requests)
		}
		require.Len(t, slices.Compact(tokens), 1)
		return nil
	})

	// While NATS is down again, replicas keep their tokens, and new ones request their own.
	server.stop()
	tokens, _ := get(sources)
	require.Equal(t, own, tokens)
	_, requests = get(start())
	require.Equal(t, replicas, requests)
}

package clientcredentials_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
)

// Three replicas of a service share one token. In production, the store is one like that of
// package redisstore, and all replicas get the same key of 32 random bytes, like any other
// secret. Without a key there is only [clientcredentials.DangerouslyShareInPlaintext].
//
// To replace a key, call [clientcredentials.NewKeyring] with the new key in second place, so
// that all replicas can decrypt with it. Then deploy it in first place, where it encrypts, and
// at last alone. Replicas of two consecutive deployments share their tokens.
func ExampleSeal() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	store := new(storetest.Store)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	keyring, err := clientcredentials.NewKeyring(key)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for range 3 {
		replica := exampleConfig(server)
		replica.Store = clientcredentials.Seal(store, keyring)
		resp, err := replica.Client(ctx).Get(server.APIURL)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	fmt.Println("token requests:", server.Auth.TokenRequests())
	// Output:
	// 200 OK
	// 200 OK
	// 200 OK
	// token requests: 1
}

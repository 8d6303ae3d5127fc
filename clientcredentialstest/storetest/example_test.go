package storetest_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
)

// Three replicas share a token. A fourth can't reach the store and requests its own.
func Example() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	var store storetest.Store
	start := func(client *storetest.Store) {
		conf := &clientcredentials.Config{
			ClientID:     clientcredentialstest.ClientID,
			ClientSecret: clientcredentialstest.ClientSecret,
			TokenURL:     srv.TokenURL,
			Store:        clientcredentials.DangerouslyShareInPlaintext(client),
		}
		if _, err := conf.Source(context.Background()).Token(); err != nil {
			log.Fatal(err)
		}
		fmt.Println("token requests:", srv.Auth.TokenRequests())
	}

	for range 3 {
		start(store.Connect())
	}
	cut, fault := store.Connect(), storetest.Unavailable()
	cut.SetFault(&fault)
	start(cut)
	// Output:
	// token requests: 1
	// token requests: 1
	// token requests: 1
	// token requests: 2
}

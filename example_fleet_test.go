package clientcredentials_test

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
)

// Three replicas of a service need one token request between them. In earnest the
// store is that of a module like redisstore, and the key, 32 random bytes, is given to
// all replicas like any other secret.
func ExampleSeal() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	store := new(storetest.Store)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	keyring, err := clientcredentials.NewKeyring(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for range 3 {
		replica := &clientcredentials.Config{
			ClientID:     clientcredentialstest.ClientID,
			ClientSecret: clientcredentialstest.ClientSecret,
			TokenURL:     server.TokenURL,
			Store:        clientcredentials.Seal(store, keyring),
		}
		resp, err := replica.Client(ctx).Get(server.APIURL)
		if err != nil {
			fmt.Println(err)
			return
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

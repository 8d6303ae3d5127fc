package redisstore_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/redisstore"
)

// All replicas have the same key of 32 or more random bytes.
var sealingKey = []byte("c2VjcmV0IHNlYWxpbmcga2V5IG9mIGV4YW1wbGVz")

// The example of the package shows how to make a Keyring, and handles the error.
var keyring, _ = clientcredentials.NewKeyring(sealingKey)

func Example() {
	rdb := redis.NewClient(&redis.Options{
		Addr:                  "redis.example.com:6379",
		Username:              "clientcredentials",
		Password:              os.Getenv("REDIS_PASSWORD"),
		TLSConfig:             &tls.Config{MinVersion: tls.VersionTLS12},
		ContextTimeoutEnabled: true,
	})
	defer func() { _ = rdb.Close() }()
	keyring, err := clientcredentials.NewKeyring(sealingKey)
	if err != nil {
		log.Panic(err)
	}
	conf := &clientcredentials.Config{
		ClientID:     "reports",
		ClientSecret: os.Getenv("CLIENT_SECRET"),
		TokenURL:     "https://login.example.com/oauth2/token",
		Store:        redisstore.New(rdb, keyring),
	}
	client := conf.Client(context.Background())
	_ = client // Its requests carry the token that all replicas share.
	fmt.Println(conf.Store)
	// Output: clientcredentials.SharedStore(*redisstore.Store, 1 keys)
}

func ExampleNew_cluster() {
	rdb := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 []string{"redis-1.example.com:6379", "redis-2.example.com:6379"},
		ContextTimeoutEnabled: true,
	})
	defer func() { _ = rdb.Close() }()
	fmt.Println(redisstore.New(rdb, keyring))
	// Output: clientcredentials.SharedStore(*redisstore.Store, 1 keys)
}

func ExampleNew_sentinel() {
	rdb := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName:            "tokens",
		SentinelAddrs:         []string{"sentinel-1.example.com:26379", "sentinel-2.example.com:26379"},
		ContextTimeoutEnabled: true,
	})
	defer func() { _ = rdb.Close() }()
	fmt.Println(redisstore.New(rdb, keyring))
	// Output: clientcredentials.SharedStore(*redisstore.Store, 1 keys)
}

// Services that use the same Redis don't share tokens if their prefixes differ.
func ExampleStore() {
	rdb := redis.NewClient(&redis.Options{Addr: "redis.example.com:6379", ContextTimeoutEnabled: true})
	defer func() { _ = rdb.Close() }()
	fmt.Println(clientcredentials.Seal(&redisstore.Store{Client: rdb, Prefix: "reports:tokens:"}, keyring))
	// Output: clientcredentials.SharedStore(*redisstore.Store, 1 keys)
}

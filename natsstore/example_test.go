package natsstore_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/natsstore"
)

// Three replicas of a service share one token.
func Example() {
	servers, stop := startServers()
	defer stop()

	connection, err := nats.Connect(servers,
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	js, err := jetstream.New(connection)
	if err != nil {
		log.Fatal(err)
	}
	// Create the bucket once, not in each replica, which would need more permissions.
	_, err = js.CreateOrUpdateKeyValue(context.Background(), jetstream.KeyValueConfig{
		Bucket:       "tokens",
		TTL:          25 * time.Hour,
		Storage:      jetstream.MemoryStorage,
		MaxValueSize: 256 << 10,
	})
	if err != nil {
		log.Fatal(err)
	}

	key := []byte("32 random bytes from a secret...") // make them with: openssl rand 32
	keyring, err := clientcredentials.NewKeyring(key)
	if err != nil {
		log.Fatal(err)
	}
	srv := clientcredentialstest.NewServer()
	defer srv.Close()
	for range 3 {
		replica := clientcredentials.Config{
			ClientID:     clientcredentialstest.ClientID,
			ClientSecret: clientcredentialstest.ClientSecret,
			TokenURL:     srv.TokenURL,
			Store:        natsstore.New(js, "tokens", keyring),
		}
		if _, err := replica.Source(context.Background()).Token(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("token requests:", srv.Auth.TokenRequests())
	// Output: token requests: 1
}

// startServers starts a NATS server in this process.
func startServers() (url string, stop func()) {
	directory, err := os.MkdirTemp("", "natsstore")
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: directory, NoLog: true, NoSigs: true})
	if err != nil {
		log.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		log.Fatal("the server doesn't start")
	}
	return strings.Replace(s.ClientURL(), "localhost", "127.0.0.1", 1), func() {
		s.Shutdown()
		s.WaitForShutdown()
		_ = os.RemoveAll(directory)
	}
}

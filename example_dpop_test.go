package clientcredentials_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// The tokens are bound to a key that never leaves the program, so a stolen token is useless.
// This server requires that of its client.
func ExampleConfig_dPoP() {
	server := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID:          "reports",
		Secret:      "s3cret",
		RequireDPoP: true,
	})
	defer server.Close()

	// Any crypto.Signer works. The program may make a new key at each start, because it
	// requests new tokens then too.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	conf := &clientcredentials.Config{
		ClientID:     "reports",
		ClientSecret: "s3cret",
		TokenURL:     server.TokenURL,
		DPoP:         key,
	}
	resp, err := conf.Client(context.Background()).Get(server.APIURL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	fmt.Println("proofs:", len(server.API.Requests()[0].Header.Values("DPoP")))
	// Output:
	// 200 OK
	// proofs: 1
}

// A program that sends its requests itself adds the token and the proof with Authorize, and
// passes each answer to [clientcredentials.Source.AdoptNonce]. This API wants a nonce in the
// proofs, and sends it with its first answer.
func ExampleSource_Authorize() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	server.API.DPoPNonce = "n-0S6_WzA2Mj"

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	conf := exampleConfig(server)
	conf.DPoP = key
	ctx := context.Background()
	source := conf.Source(ctx)
	client := &http.Client{Timeout: 10 * time.Second}

	for range 2 { // A server that refuses every nonce gets no third request.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.APIURL, http.NoBody)
		if err != nil {
			log.Fatal(err)
		}
		if err := source.Authorize(req); err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		if !source.AdoptNonce(resp) {
			break
		}
	}
	// Output:
	// 401 Unauthorized
	// 200 OK
}

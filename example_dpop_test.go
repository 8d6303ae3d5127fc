package clientcredentials_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// Tokens are bound to a key that stays with the program: whoever else gets hold of
// one can't use it. The server here accepts nothing less from its client.
func ExampleConfig_dPoP() {
	server := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID:          "reports",
		Secret:      "s3cret",
		RequireDPoP: true,
	})
	defer server.Close()

	// Any crypto.Signer will do. A new key at each start is fine: the tokens are
	// requested anew, too.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	conf := &clientcredentials.Config{
		ClientID:     "reports",
		ClientSecret: "s3cret",
		TokenURL:     server.TokenURL,
		DPoP:         key,
	}
	resp, err := conf.Client(context.Background()).Get(server.APIURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)

	received := server.API.Requests()[0]
	scheme, _, _ := strings.Cut(received.Header.Get("Authorization"), " ")
	fmt.Println("scheme:", scheme)
	fmt.Println("proofs:", len(received.Header.Values("DPoP")))
	// Output:
	// 200 OK
	// scheme: DPoP
	// proofs: 1
}

// A program that sends its requests by itself adds token and proof with Authorize,
// and shows each answer to AdoptNonce. This API wants a nonce in its proofs, which
// the first answer tells.
func ExampleSource_Authorize() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	server.API.DPoPNonce = "n-0S6_WzA2Mj"

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		DPoP:         key,
	}
	ctx := context.Background()
	source := conf.Source(ctx)
	client := &http.Client{Timeout: 10 * time.Second}

	for range 2 { // A server that is never content gets no third request.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.APIURL, http.NoBody)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := source.Authorize(req); err != nil {
			fmt.Println(err)
			return
		}
		resp, err := client.Do(req)
		if err != nil {
			fmt.Println(err)
			return
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

package clientauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// A secret manager issues a client identifier and a secret in pairs, and a new pair takes the
// place of the old one. The program has no identifier of its own.
func ExampleWithCredentials() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports-2", Secret: "n3w"})
	defer srv.Close()

	pair := clientauth.Credentials{ClientID: "reports-1", ClientSecret: "0ld"}
	vault := func(context.Context) (clientauth.Credentials, error) { return pair, nil }

	conf := &clientcredentials.Config{
		TokenURL:   srv.TokenURL,
		ClientAuth: clientauth.WithCredentials(vault, &clientauth.ClientSecretPost{}),
	}
	_, err := conf.Token(context.Background())
	fmt.Println(err)

	pair = clientauth.Credentials{ClientID: "reports-2", ClientSecret: "n3w"}
	_, err = conf.Token(context.Background())
	fmt.Println(err)
	fmt.Println(pair)
	// Output:
	// oauth2: "invalid_client" "client authentication failed"
	// <nil>
	// clientauth.Credentials{ClientID: "reports-2"}
}

// Kubernetes mounts a Secret as a volume with two files, and replaces both at once.
func ExampleCredentialsFiles() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports", Secret: "s3cret"})
	defer srv.Close()

	conf := &clientcredentials.Config{
		TokenURL: srv.TokenURL,
		ClientAuth: clientauth.WithCredentials(
			clientauth.CredentialsFiles("testdata/client_id", "testdata/secret"),
			&clientauth.ClientSecretBasic{},
		),
	}
	printMethod(srv, conf)
	// Output: client_secret_basic
}

// A job that registers the client anew writes the server's answer to a file.
func ExampleCredentialsFile() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports", Secret: "s3cret"})
	defer srv.Close()

	conf := &clientcredentials.Config{
		TokenURL:   srv.TokenURL,
		ClientAuth: clientauth.WithCredentials(clientauth.CredentialsFile("testdata/client.json"), nil),
	}
	printMethod(srv, conf)
	// Output: client_secret_basic
}

// A client is rotated that has a key and no secret.
func ExampleClientIDFile() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{load("testdata/issued.pem").Leaf.PublicKey},
	})
	defer srv.Close()

	conf := &clientcredentials.Config{
		TokenURL: srv.TokenURL,
		ClientAuth: clientauth.WithCredentials(
			clientauth.ClientIDFile("testdata/client_id"),
			&clientauth.PrivateKeyJWT{Key: clientauth.KeyFile("testdata/key.pem")},
		),
	}
	printMethod(srv, conf)
	// Output: private_key_jwt
}

// Assertions name the key, so that the server needn't try all that the client has.
func ExampleThumbprintKeyID() {
	key := clientauth.ThumbprintKeyID(clientauth.KeyFile("testdata/key.pem"))
	signing, err := key(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(signing.KeyID)

	set, err := clientauth.JWKS(key).JSON(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(set), `"kid":"`+signing.KeyID+`"`))
	// Output:
	// 6YzrQgImtBKZhnAmJsLQHp5clZEA88MyBB3lLCBWZzo
	// true
}

// A key is replaced. At each step the client signs with a key that it has published for long
// enough, and the key that it has signed with before is still published.
func ExampleJWKS() {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	previous, current, next := filepath.Join(dir, "previous.pem"), filepath.Join(dir, "current.pem"), filepath.Join(dir, "next.pem")
	makeKey(current)

	signing := clientauth.ThumbprintKeyID(clientauth.KeyFile(current)) // the Key of a PrivateKeyJWT
	step := func(what string) {
		set := clientauth.JWKS(signing, clientauth.KeyFile(next), clientauth.KeyFile(previous))
		published, err := set.JSON(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		key, err := signing(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d published, among them the one that signs: %v\n",
			what, strings.Count(string(published), `"kid"`), strings.Contains(string(published), key.KeyID))
	}

	step("before")
	makeKey(next)
	step("publish the next key")
	// Wait here, for an hour perhaps, until the server has read the keys again.
	if err := errors.Join(os.Link(current, previous), os.Rename(next, current)); err != nil {
		log.Fatal(err)
	}
	step("sign with it")
	// Wait here for a minute, until the last assertion by the old key has expired.
	if err := os.Remove(previous); err != nil {
		log.Fatal(err)
	}
	step("after")
	// Output:
	// before: 1 published, among them the one that signs: true
	// publish the next key: 2 published, among them the one that signs: true
	// sign with it: 2 published, among them the one that signs: true
	// after: 1 published, among them the one that signs: true
}

// The service publishes its keys at an address that is registered as its jwks_uri.
func ExampleJWKSet() {
	mux := http.NewServeMux()
	mux.Handle("/jwks.json", clientauth.JWKS(clientauth.KeyFile("testdata/key.pem")))
	service := httptest.NewServer(mux)
	defer service.Close()

	resp, err := service.Client().Get(service.URL + "/jwks.json")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get("Content-Type"))
	// Output: 200 OK application/jwk-set+json
}

// A server that reads no jwks_uri wants the keys in the registration of the client.
func ExampleJWKSet_JSON() {
	set := clientauth.JWKS(clientauth.KeyFile("testdata/key.pem"))
	keys, err := set.JSON(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	registration, err := json.Marshal(map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks": keys})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.HasPrefix(string(registration), `{"jwks":{"keys":[{"alg":"ES256",`))
	// Output: true
}

// makeKey writes a new private key, as cctoken key does.
func makeKey(path string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		log.Fatal(err)
	}
}

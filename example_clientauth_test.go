package clientcredentials_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// gatewayAuth adds a header field that an API gateway in front of the token endpoint wants.
type gatewayAuth struct {
	key func(context.Context) (string, error) // is called for each attempt: the key may be rotated
}

func (gatewayAuth) Method() string { return "client_secret_post" }

func (a gatewayAuth) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	key, err := a.key(ctx)
	if err != nil {
		return fmt.Errorf("the gateway's key: %w", err)
	}
	attempt.Header.Set("X-Api-Key", key)
	attempt.Form.Set("client_id", attempt.ClientID)
	attempt.Form.Set("client_secret", attempt.ClientSecret)
	return nil
}

// If a server wants something that no RFC describes, write a ClientAuth that adds it to each
// [clientcredentials.Attempt]. Package clientauth has the methods that RFCs describe; those
// with a client certificate are a [clientcredentials.CertificateAuth].
func ExampleClientAuth() {
	server := clientcredentialstest.NewServer()
	defer server.Close()
	conf := exampleConfig(server)
	conf.ClientAuth = gatewayAuth{func(context.Context) (string, error) { return "k3y", nil }}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	received := server.Auth.Requests()[0]
	fmt.Println(received.AuthMethod)
	fmt.Println(received.Header.Get("X-Api-Key"))
	// Output:
	// client_secret_post
	// k3y
}

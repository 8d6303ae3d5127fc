package clientcredentials_test

import (
	"context"
	"fmt"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// gatewayAuth authenticates in a way of its own: with a header field that an API
// gateway in front of the token endpoint wants. See package clientauth for those
// that RFCs describe.
type gatewayAuth struct {
	key func(context.Context) (string, error) // Called for each attempt: it may be rotated.
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

// A server wants something that no RFC describes: a ClientAuth of one's own adds it.
func ExampleClientAuth() {
	server := clientcredentialstest.NewServer()
	defer server.Close()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     server.TokenURL,
		ClientAuth:   gatewayAuth{func(context.Context) (string, error) { return "k3y", nil }},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	received := server.Auth.Requests()[0]
	fmt.Println(received.AuthMethod)
	fmt.Println(received.Header.Get("X-Api-Key"))
	// Output:
	// client_secret_post
	// k3y
}

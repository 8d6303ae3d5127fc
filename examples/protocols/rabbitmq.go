package protocols

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// DialRabbitMQ connects to a server with the plugin rabbitmq_auth_backend_oauth2. Use the
// scheme amqps in the URL, and no user and no password: the token takes their place.
//
// When the token has expired, the server refuses whatever the connection is used for. So run
// RefreshRabbitMQ as long as the connection is open.
func DialRabbitMQ(ctx context.Context, url string, conf amqp.Config, source *clientcredentials.Source) (*amqp.Connection, *oauth2.Token, error) {
	token, err := source.TokenContext(ctx)
	if err != nil {
		return nil, nil, err
	}
	conf.SASL = []amqp.Authentication{&amqp.PlainAuth{Password: token.AccessToken}}
	conn, err := amqp.DialConfig(url, conf)
	return conn, token, err
}

// RefreshRabbitMQ sends the server a new token whenever the old one has a quarter of its life
// left. token is the one that the server has got last. It returns nil when the program
// closes the connection, and an error if the connection breaks, or if there is no new token
// before the old one expires.
func RefreshRabbitMQ(ctx context.Context, conn *amqp.Connection, token *oauth2.Token, source *clientcredentials.Source) error {
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	for !token.Expiry.IsZero() {
		left := time.Until(token.Expiry)
		select {
		case <-time.After(max(left*3/4, time.Second)):
		case reason, broken := <-closed:
			if broken {
				return reason
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		next, err := source.TokenFor(ctx, left/2) // The old token lives for another left/4.
		switch {
		case err == nil:
			if err := conn.UpdateSecret(next.AccessToken, "the token is about to expire"); err != nil {
				return err
			}
			token = next
		case time.Now().After(token.Expiry):
			return err
		}
	}
	return nil
}

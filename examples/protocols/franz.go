package protocols

import (
	"context"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/seed-5bfa0880/clientcredentials"
)

// FranzMechanism authenticates the connections of franz-go with OAUTHBEARER. Give it to
// kgo.SASL.
//
// A broker ends a session when its token expires. Before that, franz-go authenticates again
// on the same connection, and gets the next token.
func FranzMechanism(source *clientcredentials.Source) sasl.Mechanism {
	return oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		token, err := source.AccessToken(ctx)
		return oauth.Auth{Token: token}, err
	})
}

package protocols

import (
	"context"

	"cloud.google.com/go/auth"

	"github.com/seed-5bfa0880/clientcredentials"
)

// GoogleTokens is an auth.TokenProvider, for the clients of Google Cloud.
type GoogleTokens struct {
	Source *clientcredentials.Source
}

// Token returns the token with its expiry.
func (g *GoogleTokens) Token(ctx context.Context) (*auth.Token, error) {
	token, err := g.Source.TokenContext(ctx)
	if err != nil {
		return nil, err
	}
	return &auth.Token{Value: token.AccessToken, Type: token.Type(), Expiry: token.Expiry}, nil
}

// GoogleCredentials returns credentials for option.WithAuthCredentials. They need no
// auth.NewCachedTokenProvider: the Source is a cache.
func GoogleCredentials(source *clientcredentials.Source) *auth.Credentials {
	return auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: &GoogleTokens{Source: source}})
}

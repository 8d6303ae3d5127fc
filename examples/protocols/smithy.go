package protocols

import (
	"context"

	"github.com/aws/smithy-go/auth/bearer"

	"github.com/seed-5bfa0880/clientcredentials"
)

// SmithyTokens returns a bearer.TokenProvider, for aws.Config.BearerAuthTokenProvider and for
// other clients that Smithy has generated. It needs no bearer.TokenCache: the Source is one.
func SmithyTokens(source *clientcredentials.Source) bearer.TokenProvider {
	return bearer.TokenProviderFunc(func(ctx context.Context) (bearer.Token, error) {
		token, err := source.TokenContext(ctx)
		if err != nil {
			return bearer.Token{}, err
		}
		return bearer.Token{Value: token.AccessToken, CanExpire: !token.Expiry.IsZero(), Expires: token.Expiry}, nil
	})
}

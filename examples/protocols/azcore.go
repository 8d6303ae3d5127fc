package protocols

import (
	"context"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/seed-5bfa0880/clientcredentials"
)

// AzureCredential is an azcore.TokenCredential, for the clients of the Azure SDK.
//
// Each client asks for the scopes of its service, and gets a token for them. If a service
// revokes a token and asks for other claims (continuous access evaluation), the next token is
// requested with these claims. The tenant is always that of Config.TokenURL.
type AzureCredential struct {
	Source *clientcredentials.Source
}

// GetToken returns a token for the scopes and the claims that a client asks for.
func (c *AzureCredential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	target := clientcredentials.Target{Scopes: options.Scopes}
	if options.Claims != "" {
		target.Params = url.Values{"claims": {options.Claims}}
	}
	token, err := c.Source.For(target).TokenContext(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return azcore.AccessToken{Token: token.AccessToken, ExpiresOn: token.Expiry}, nil
}

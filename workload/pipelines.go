package workload

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// AzurePipelines returns a source of the token of a service connection in Azure Pipelines.
// serviceConnectionID is the connection's ID, the GUID after resourceId= in the address of
// its page. The subject names the connection, and the audience is always
// api://AzureADTokenExchange: the token is for Microsoft Entra ID.
//
// The agent sets SYSTEM_OIDCREQUESTURI. The step must pass on the job's access token:
//
//	env:
//	  SYSTEM_ACCESSTOKEN: $(System.AccessToken)
//
// The address must be https, unless it is on this host. If the environment names a proxy for
// https, the request goes through it.
func AzurePipelines(serviceConnectionID string) clientauth.SecretSource {
	return network{}.azurePipelines(serviceConnectionID)
}

func (n network) azurePipelines(serviceConnectionID string) clientauth.SecretSource {
	c := &cache{platform: "Azure Pipelines", limit: totalTimeout, fetch: func(ctx context.Context) (string, error) {
		if serviceConnectionID == "" {
			return "", errors.New("the ID of the service connection is empty; set it")
		}
		value, err := variable("SYSTEM_OIDCREQUESTURI", "run this in a job of Azure Pipelines")
		if err != nil {
			return "", err
		}
		secret, err := variable("SYSTEM_ACCESSTOKEN", "set it to $(System.AccessToken) under env of the step")
		if err != nil {
			return "", err
		}
		u, err := address("SYSTEM_OIDCREQUESTURI", value, isThisHost)
		if err != nil {
			return "", err
		}
		body, err := n.send(ctx, &request{
			method: http.MethodPost,
			url:    withQuery(u, url.Values{"api-version": {"7.1"}, "serviceConnectionId": {serviceConnectionID}}),
			header: http.Header{
				"Authorization": {"Bearer " + secret},
				"Content-Type":  {"application/json"},
				// Without it, a token that isn't accepted leads to a page for signing in.
				"X-Tfs-Fedauthredirect": {"Suppress"},
			},
			secrets:     []string{secret},
			proxied:     true,
			isTemporary: isOverloaded,
			advice: func(status int) string {
				switch status {
				case http.StatusUnauthorized, http.StatusFound, http.StatusNonAuthoritativeInfo:
					return "set SYSTEM_ACCESSTOKEN to $(System.AccessToken) under env of the step"
				case http.StatusNotFound:
					return "check the ID of the service connection, and that the pipeline may use it"
				}
				return ""
			},
		})
		if err != nil {
			return "", err
		}
		return member(body, "oidcToken")
	}}
	return c.get
}

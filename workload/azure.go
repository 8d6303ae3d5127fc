package workload

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// An AzureIdentity says which managed identity to use, if a workload has several. Set one of
// the fields at most. The zero value is the identity that Azure has assigned to the
// workload's own resource.
type AzureIdentity struct {
	ClientID   string // the client ID of a user-assigned identity
	ObjectID   string // its object ID, which is also called principal ID
	ResourceID string // its resource ID, which begins with /subscriptions/
}

// AzureManagedIdentity returns a source of the token of a managed identity, for an audience
// that Azure calls a resource. To use it as the credential of an application in Microsoft
// Entra ID, which must have a federated credential for the identity, the audience is
// api://AzureADTokenExchange. The issuer is the identity's tenant, and the subject is its
// object ID.
//
// The token comes from IDENTITY_ENDPOINT if that is set, as in App Service, Functions and
// Container Apps, and else from the Instance Metadata Service (IMDS) of virtual machines and
// AKS. AZURE_POD_IDENTITY_AUTHORITY_HOST replaces its address. Azure Arc and Service Fabric
// aren't supported. No request is sent through a proxy.
//
// IMDS may answer 410 for up to 70 seconds while it is being updated. A token request doesn't
// wait that long.
func AzureManagedIdentity(audience string, identity AzureIdentity) clientauth.SecretSource {
	return network{}.azureManagedIdentity(audience, identity)
}

func (n network) azureManagedIdentity(audience string, identity AzureIdentity) clientauth.SecretSource {
	c := &cache{platform: "the managed identity of Azure", limit: totalTimeout, fetch: func(ctx context.Context) (string, error) {
		if audience == "" {
			return "", errNoAudience
		}
		ask := metadataService
		if os.Getenv("IDENTITY_ENDPOINT") != "" {
			ask = identityEndpoint
		}
		r, err := ask(audience, identity)
		if err != nil {
			return "", err
		}
		body, err := n.send(ctx, r)
		if err != nil {
			return "", err
		}
		return member(body, "access_token")
	}}
	return c.get
}

// metadataService returns the request to IMDS.
func metadataService(audience string, identity AzureIdentity) (*request, error) {
	const host = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
	// The request has no credential, so any host may be named.
	u, err := address(host, cmp.Or(strings.TrimSpace(os.Getenv(host)), "http://169.254.169.254"), func(*url.URL) bool { return true })
	if err != nil {
		return nil, err
	}
	query, err := identity.query("2018-02-01", audience, "msi_res_id")
	if err != nil {
		return nil, err
	}
	return &request{
		method: http.MethodGet,
		url:    withQuery(u.JoinPath("metadata/identity/oauth2/token"), query),
		header: http.Header{"Metadata": {"true"}},
		isTemporary: func(status int) bool {
			// IMDS answers 404 and 410 while it is being updated.
			return status == http.StatusNotFound || status == http.StatusGone || isOverloaded(status)
		},
		advice: func(status int) string {
			switch status {
			case 0:
				return "this source works on Azure only"
			case http.StatusBadRequest:
				return "assign the managed identity to this resource, and check the AzureIdentity and the audience"
			case http.StatusGone:
				return "the service is being updated; try again in a minute"
			}
			return ""
		},
	}, nil
}

// identityEndpoint returns the request to the endpoint of App Service and its relatives.
func identityEndpoint(audience string, identity AzureIdentity) (*request, error) {
	if os.Getenv("IDENTITY_SERVER_THUMBPRINT") != "" {
		return nil, errors.New("the environment is that of Service Fabric, which is not supported")
	}
	secret, err := variable("IDENTITY_HEADER", "IDENTITY_ENDPOINT alone is set on Azure Arc, which is not supported")
	if err != nil {
		return nil, err
	}
	u, err := address("IDENTITY_ENDPOINT", strings.TrimSpace(os.Getenv("IDENTITY_ENDPOINT")), isNear)
	if err != nil {
		return nil, err
	}
	query, err := identity.query("2019-08-01", audience, "mi_res_id")
	if err != nil {
		return nil, err
	}
	return &request{
		method:      http.MethodGet,
		url:         withQuery(u, query),
		header:      http.Header{"X-Identity-Header": {secret}},
		secrets:     []string{secret},
		isTemporary: isOverloaded,
		advice: func(status int) string {
			if status == http.StatusBadRequest {
				return "assign the managed identity to this app, and check the AzureIdentity and the audience"
			}
			return ""
		},
	}, nil
}

// query returns the parameters of a request. The two services have different names for the
// resource ID.
func (i AzureIdentity) query(version, audience, resourceID string) (url.Values, error) {
	query := url.Values{"api-version": {version}, "resource": {audience}}
	for name, value := range map[string]string{"client_id": i.ClientID, "object_id": i.ObjectID, resourceID: i.ResourceID} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if len(query) > 3 {
		return nil, errors.New("the AzureIdentity has more than one ID; set one of them")
	}
	return query, nil
}

// isNear reports whether a host is this one or next to it. App Service has its endpoint at a
// link-local address or in a private network of the machine.
func isNear(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return isThisHost(u) || ip.IsLinkLocalUnicast() || ip.IsPrivate()
}

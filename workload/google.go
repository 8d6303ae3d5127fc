package workload

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// GoogleMetadata returns a source of the ID token of the service account that a workload on
// Google Cloud runs as: on Compute Engine, GKE, Cloud Run and other services with a metadata
// server. The issuer is https://accounts.google.com, and the subject is the number of the
// service account.
//
// GCE_METADATA_HOST, a host with or without a port, replaces metadata.google.internal.
// The request is never sent through a proxy.
func GoogleMetadata(audience string) clientauth.SecretSource {
	return network{}.googleMetadata(audience)
}

func (n network) googleMetadata(audience string) clientauth.SecretSource {
	c := &cache{platform: "the metadata server of Google Cloud", limit: totalTimeout, fetch: func(ctx context.Context) (string, error) {
		if audience == "" {
			return "", errNoAudience
		}
		host := cmp.Or(strings.TrimSpace(os.Getenv("GCE_METADATA_HOST")), "metadata.google.internal")
		if strings.ContainsAny(host, "/?#@") {
			return "", errors.New("the environment variable GCE_METADATA_HOST is not a host; set it to a name or an address, with or without a port")
		}
		body, err := n.send(ctx, &request{
			method: http.MethodGet,
			url: &url.URL{
				Scheme: "http", Host: host, Path: "/computeMetadata/v1/instance/service-accounts/default/identity",
				RawQuery: url.Values{"audience": {audience}, "format": {"full"}}.Encode(),
			},
			header:      http.Header{"Metadata-Flavor": {"Google"}},
			isTemporary: isOverloaded,
			check: func(header http.Header) error {
				if header.Get("Metadata-Flavor") != "Google" {
					return errors.New("the answer is not from a metadata server of Google: Metadata-Flavor is missing")
				}
				return nil
			},
			advice: func(status int) string {
				switch status {
				case 0:
					return "this source works on Google Cloud only"
				case http.StatusNotFound:
					return "attach a service account to the workload"
				}
				return ""
			},
		})
		if err != nil {
			return "", err
		}
		return checkJWT(strings.TrimSpace(string(body)))
	}}
	return c.get
}

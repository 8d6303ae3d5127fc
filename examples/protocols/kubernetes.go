package protocols

import (
	"net/http"

	"k8s.io/client-go/rest"

	"github.com/seed-5bfa0880/clientcredentials"
)

// UseForKubernetes has the clients of client-go call an API server with tokens. The API server
// must trust their issuer: see --oidc-issuer-url, and AuthenticationConfiguration.
//
// The Transport waits as the context of the call allows, and replaces a token that the API
// server refuses.
func UseForKubernetes(conf *rest.Config, source *clientcredentials.Source) {
	conf.Wrap(func(base http.RoundTripper) http.RoundTripper {
		return &clientcredentials.Transport{Source: source, Base: base}
	})
}

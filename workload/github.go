package workload

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// errNoAudience is the error for a source without an audience.
var errNoAudience = errors.New("the audience is empty; set it to what the authorization server expects in aud")

// GitHubActions returns a source of the token that says which workflow a job of GitHub
// Actions belongs to. Its issuer is https://token.actions.githubusercontent.com, and its
// subject names the repository and the branch, tag or environment. Forgejo has the same
// interface, with an issuer of its own.
//
// The job needs the permission "id-token: write". The runner then sets
// ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN. The address must be
// https, unless it is on this host. If the environment names a proxy for https, the request
// goes through it.
//
// A token lives for a few minutes, and has a jti. So each token request gets its own.
func GitHubActions(audience string) clientauth.SecretSource { return network{}.gitHubActions(audience) }

func (n network) gitHubActions(audience string) clientauth.SecretSource {
	const advice = `give the job the permission "id-token: write", and run this within a job`
	c := &cache{platform: "GitHub Actions", limit: totalTimeout, fetch: func(ctx context.Context) (string, error) {
		if audience == "" {
			return "", errNoAudience
		}
		value, err := variable("ACTIONS_ID_TOKEN_REQUEST_URL", advice)
		if err != nil {
			return "", err
		}
		secret, err := variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN", advice)
		if err != nil {
			return "", err
		}
		u, err := address("ACTIONS_ID_TOKEN_REQUEST_URL", value, isThisHost)
		if err != nil {
			return "", err
		}
		body, err := n.send(ctx, &request{
			method:  http.MethodGet,
			url:     withQuery(u, url.Values{"audience": {audience}}),
			header:  http.Header{"Authorization": {"Bearer " + secret}, "Accept": {"application/json"}},
			secrets: []string{secret},
			proxied: true,
			isTemporary: func(status int) bool {
				// GitHub answers 403 to a job that it believes not to have started yet.
				return status == http.StatusForbidden || isOverloaded(status)
			},
		})
		if err != nil {
			return "", err
		}
		return member(body, "value")
	}}
	return c.get
}

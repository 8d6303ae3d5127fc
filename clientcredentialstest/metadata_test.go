package clientcredentialstest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

func TestResourceMetadata(t *testing.T) {
	const location = "https://api.example/.well-known/oauth-protected-resource"
	for _, test := range []struct {
		resource, method, url string
		found                 bool
	}{
		{"https://api.example", "GET", location, true},
		{"https://api.example/", "GET", location, true},
		{"https://api.example/a%2Fb", "GET", location + "/a%2Fb", true},
		{"https://api.example/a/", "GET", location + "/a/", true},
		{"https://api.example/a?b=c", "GET", location + "/a?b=c", true},

		{"", "GET", location, false},
		{"https://api.example/a", "GET", location, false},
		{"https://api.example/a", "GET", location + "/a/", false},
		{"https://api.example/a", "GET", location + "/a?b=c", false},
		{"https://api.example/a", "GET", "https://api.example/a" + location[len("https://api.example"):], false},
		{"https://api.example/a", "POST", location + "/a", false},
		{"https://other.example/a", "GET", location + "/a", false},
	} {
		api := &cct.ResourceServer{
			Issuer:               newAuth(),
			Scope:                "read write",
			Resource:             test.resource,
			AuthorizationServers: []string{"https://login.example"},
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest(test.method, test.url, nil))
		if !test.found {
			require.Equal(t, http.StatusUnauthorized, w.Code, test)
			require.Len(t, api.Requests(), 1)
			continue
		}
		require.Equal(t, http.StatusOK, w.Code, test)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.JSONEq(t, `{
			"resource": "`+test.resource+`",
			"authorization_servers": ["https://login.example"],
			"scopes_supported": ["read", "write"],
			"bearer_methods_supported": ["header"],
			"dpop_signing_alg_values_supported": ["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"]
		}`, w.Body.String())
		require.Empty(t, api.Requests())
	}
}

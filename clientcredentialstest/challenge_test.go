package clientcredentialstest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// TestChallenges: an API that wants another token says which, and accepts that one.
func TestChallenges(t *testing.T) {
	const (
		realm  = `Bearer realm="clientcredentialstest"`
		poor   = realm + `, error="insufficient_scope", error_description="the token lacks a scope", scope=`
		weak   = realm + `, error="insufficient_user_authentication", error_description="the token was requested without acr_values or max_age"`
		other  = realm + `, error="invalid_token", error_description="the token is for another audience"`
		never  = realm + `, error="invalid_token", error_description="no token is good enough"`
		claims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
		step   = `Bearer realm="", authorization_uri="https://auth.example/authorize", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ=="`
	)
	type api = cct.ResourceServer
	byPath := map[string]string{"/": "read", "/things/": "read write", "DELETE /things/{id}": "delete", "/free/": ""}
	for _, test := range []struct {
		name      string
		api       *api
		token     string // parameters of the token request
		request   string
		challenge string // empty: the request is accepted
	}{
		{"any token", &api{}, "&resource=urn:x&claims={}", "GET /", ""},

		{"resource", &api{Audience: "urn:a"}, "&resource=urn:b&resource=urn:a", "GET /", ""},
		{"audience", &api{Audience: "urn:a"}, "&audience=urn:a", "GET /", ""},
		{"another resource", &api{Audience: "urn:a"}, "&resource=urn:b", "GET /", other},
		{"a longer resource", &api{Audience: "https://a"}, "&resource=https://a/", "GET /", other},
		{"no audience", &api{Audience: "urn:a"}, "&scope=urn:a", "GET /", other},
		{"the audience comes first", &api{Audience: "urn:a", Scope: "s", Claims: claims, MaxAge: "0"}, "", "GET /", other},

		{"scope", &api{ScopeByPath: byPath}, "&scope=read", "GET /other", ""},
		{"scope of a path", &api{ScopeByPath: byPath}, "&scope=read", "GET /things/1", poor + `"read write"`},
		{"scope of a path without its slash", &api{ScopeByPath: byPath}, "&scope=read", "GET /things", poor + `"read write"`},
		{"scope of a path in other words", &api{ScopeByPath: byPath}, "&scope=read", "GET /other/..//things/1", poor + `"read write"`},
		{"scopes of a path", &api{ScopeByPath: byPath}, "&scope=write+read", "GET /things/1", ""},
		{"scope of a method", &api{ScopeByPath: byPath}, "&scope=write+read", "DELETE /things/1", poor + `"delete"`},
		{"no scope", &api{ScopeByPath: byPath}, "", "GET /free/1", ""},
		{"scope of all and of a path", &api{Scope: "all read", ScopeByPath: byPath}, "&scope=read+write", "PUT /things/1", poor + `"all read write"`},
		{"no path fits", &api{ScopeByPath: map[string]string{"/a": "s"}}, "", "GET /b", ""},
		{"odd scope", &api{Scope: `a"b\c`}, "", "GET /", poor + `"a\"b\\c"`},

		{"claims", &api{Claims: claims}, "&claims=" + claims, "GET /", ""},
		{"no claims", &api{Claims: claims, AuthorizationURI: "https://auth.example/authorize"}, "", "GET /", step},
		{"other claims", &api{Claims: claims, AuthorizationURI: "https://auth.example/authorize"}, "&claims={}", "GET /", step},
		{"more claims", &api{Claims: `{"a":{"b":1}}`}, `&claims={"a":+{"b":1,"c":2},"d":3}`, "GET /", ""},
		{"other values", &api{Claims: `{"a":{"b":1}}`, AuthorizationURI: "u"}, `&claims={"a":{"b":2}}`, "GET /", `Bearer realm="", authorization_uri="u", error="insufficient_claims", claims="eyJhIjp7ImIiOjF9fQ=="`},

		{"acr_values", &api{ACRValues: "a b"}, "&acr_values=a+b", "GET /", ""},
		{"max_age", &api{MaxAge: "0"}, "&max_age=0", "GET /", ""},
		{"no acr_values", &api{ACRValues: "a b"}, "&max_age=0", "GET /", weak + `, acr_values="a b"`},
		{"no max_age", &api{MaxAge: "0"}, "&acr_values=a", "GET /", weak + `, max_age="0"`},
		{"one of two", &api{ACRValues: "a", MaxAge: "5"}, "&acr_values=a", "GET /", weak + `, acr_values="a", max_age="5"`},

		{"always", &api{AlwaysChallenge: true}, "", "GET /", never},
		{"always for an audience", &api{AlwaysChallenge: true, Audience: "urn:a"}, "&audience=urn:a", "GET /", never},
		{"always for a scope", &api{AlwaysChallenge: true, Scope: "s"}, "&scope=s", "GET /", poor + `"s"`},
		{"always for acr_values", &api{AlwaysChallenge: true, ACRValues: "a", Scope: "s"}, "&acr_values=a", "GET /", weak + `, acr_values="a"`},
		{"always for claims", &api{AlwaysChallenge: true, Claims: claims, AuthorizationURI: "https://auth.example/authorize", ACRValues: "a"}, "&claims=" + claims, "GET /", step},
	} {
		t.Run(test.name, func(t *testing.T) {
			auth := newAuth()
			test.api.Issuer = auth
			w := callWith(t, test.api, requestToken(t, auth, test.token), test.request)
			require.Equal(t, test.challenge, w.Header().Get("WWW-Authenticate"))
			want := http.StatusUnauthorized
			switch {
			case test.challenge == "":
				want = http.StatusOK
			case strings.Contains(test.challenge, "insufficient_scope"):
				want = http.StatusForbidden
			}
			require.Equal(t, want, w.Code)
			require.Equal(t, want == http.StatusOK, test.api.Accepted() == 1)
			require.Empty(t, append(auth.Violations(), test.api.Violations()...))
		})
	}
}

// requestToken returns a token that was requested with these parameters.
func requestToken(t *testing.T, auth *cct.AuthorizationServer, parameters string) string {
	t.Helper()
	token := send(t, auth, post(t, "id", "secret", grant+parameters)).AccessToken
	require.NotEmpty(t, token)
	return token
}

// callWith sends a request with a bearer token. The request has a method and a path.
func callWith(t *testing.T, api *cct.ResourceServer, token, request string) *httptest.ResponseRecorder {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, path, http.NoBody)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return w
}

// TestSetClaims: the claims that an API wants can change at any time.
func TestSetClaims(t *testing.T) {
	auth := newAuth()
	api := &cct.ResourceServer{Issuer: auth}
	token := requestToken(t, auth, `&claims={"a":1}`)
	for _, step := range []struct {
		claims string
		status int
	}{{`{"b":1}`, 401}, {`{"a":1}`, 200}, {`{"a":2}`, 401}, {"", 200}} {
		api.SetClaims(step.claims)
		require.Equal(t, step.status, callWith(t, api, token, "GET /").Code, step.claims)
	}

	// The race detector watches this.
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() { api.SetClaims("{}") })
		group.Go(func() { callWith(t, api, token, "GET /") })
	}
	group.Wait()
}

// TestChallengesForDPoP: a challenge is in the scheme of the request.
func TestChallengesForDPoP(t *testing.T) {
	_, api, _, prover := newServers(t)
	api.Claims = "{}"
	w := call(api, "DPoP token", prover.proof(t, nil, nil))
	require.Equal(t, http.StatusUnauthorized, w.Code)
	require.Equal(t, []string{
		`DPoP realm="", authorization_uri="", error="insufficient_claims", claims="e30="`,
		`Bearer realm="clientcredentialstest"`,
	}, w.Header().Values("WWW-Authenticate"))
}

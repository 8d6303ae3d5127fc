package clientcredentialstest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

func TestResourceServer(t *testing.T) {
	auth := newAuth()
	api := &cct.ResourceServer{Issuer: auth, Scope: "read write", Handler: http.NotFoundHandler()}
	token := func(scope string) string {
		return send(t, auth, post(t, "id", "secret", grant+"&scope="+scope)).AccessToken
	}
	good, poor, revoked := token("write+read+more"), token("read"), token("write+read")
	auth.Revoke(revoked)

	const realm = `Bearer realm="clientcredentialstest"`
	fault := func(code, text string) string {
		return realm + `, error="` + code + `", error_description="` + text + `"`
	}
	inactive := fault("invalid_token", "the token is unknown, expired or revoked")
	tests := []struct {
		name      string
		url       string
		header    []string
		status    int
		challenge string
		violation string
	}{
		{"good", "/", []string{"Bearer " + good}, 404, "", ""},
		{"lower case", "/x?y=z", []string{"bearer " + good}, 404, "", ""},
		{"none", "/", nil, 401, realm, ""},
		{"revoked", "/", []string{"Bearer " + revoked}, 401, inactive, ""},
		{"scope", "/", []string{"Bearer " + poor}, 403, fault("insufficient_scope", "the token lacks a scope") + `, scope="read write"`, ""},
		{"two headers", "/", []string{"Bearer x", "Bearer x"}, 400, fault("invalid_request", "more than one Authorization header"), "RFC 6750, Section 2:"},
		{"in the URL", "/?access_token=" + good, nil, 400, fault("invalid_request", "the token is in the URL"), "RFC 6750, Section 2.3:"},
		{"grammar", "/", []string{"Bearer a b"}, 400, fault("invalid_request", "the token breaks the grammar"), "RFC 6750, Section 2.1:"},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, test.url, nil)
			r.Header["Authorization"] = test.header
			violations := len(api.Violations())
			api.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code)
			require.Equal(t, test.challenge, w.Header().Get("WWW-Authenticate"))
			added := fmt.Sprint(api.Violations()[violations:])
			require.Contains(t, added, test.violation)
			require.Equal(t, test.violation == "", added == "[]")
			require.NotContains(t, added, good)
			require.Equal(t, test.url, api.Requests()[i].URL)
		})
	}
	require.Equal(t, 2, api.Accepted())
	require.Equal(t, len(tests)-2, api.Rejected())
	require.Equal(t, good, api.Requests()[1].AccessToken)
}

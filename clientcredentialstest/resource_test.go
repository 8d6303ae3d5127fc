package clientcredentialstest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

func TestResourceServer(t *testing.T) {
	auth := newAuth()
	api := &cct.ResourceServer{Issuer: auth, Scope: "read write"}
	token := func(scope string) string {
		return send(t, auth, post(t, "id", "secret", grant+"&scope="+scope)).AccessToken
	}
	good, poor, revoked := token("write+read+more"), token("read"), token("write+read")
	auth.Revoke(revoked)

	const realm = `Bearer realm="clientcredentialstest"`
	tests := []struct {
		name      string
		url       string
		header    []string
		status    int
		challenge string
		violation string
	}{
		{"good", "/", []string{"Bearer " + good}, 200, "", ""},
		{"lower case", "/x?y=z", []string{"bearer " + good}, 200, "", ""},
		{"none", "/", nil, 401, realm, ""},
		{"other scheme", "/", []string{"Basic eDp5"}, 401, realm, ""},
		{"unknown", "/", []string{"Bearer abc"}, 401, realm + `, error="invalid_token", error_description="the token is unknown, expired or revoked"`, ""},
		{"revoked", "/", []string{"Bearer " + revoked}, 401, realm + `, error="invalid_token", error_description="the token is unknown, expired or revoked"`, ""},
		{"scope", "/", []string{"Bearer " + poor}, 403, realm + `, error="insufficient_scope", error_description="the token lacks a scope", scope="read write"`, ""},
		{"two headers", "/", []string{"Bearer " + good, "Bearer " + good}, 400, realm + `, error="invalid_request", error_description="more than one Authorization header"`, "RFC 6750, Section 2:"},
		{"in the URL", "/?access_token=" + good, nil, 400, realm + `, error="invalid_request", error_description="the token is in the URL"`, "RFC 6750, Section 2.3:"},
		{"grammar", "/", []string{"Bearer a b"}, 400, realm + `, error="invalid_request", error_description="the token breaks the grammar"`, "RFC 6750, Section 2.1:"},
	}
	violations := 0
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, test.url, nil)
			r.Header["Authorization"] = test.header
			api.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code)
			require.Equal(t, test.challenge, w.Header().Get("WWW-Authenticate"))
			if test.violation != "" {
				violations++
				got := api.Violations()
				require.Len(t, got, violations)
				require.ErrorContains(t, got[violations-1], test.violation)
				require.NotContains(t, got[violations-1].Error(), good)
			}
		})
	}
	require.Equal(t, 2, api.Accepted())
	require.Equal(t, len(tests)-2, api.Rejected())
	require.Len(t, api.Violations(), violations)
	require.Len(t, api.Requests(), len(tests))
	require.Equal(t, good, api.Requests()[1].AccessToken)
	require.Equal(t, "/x?y=z", api.Requests()[1].URL)
}

func TestResourceServerExpiry(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		auth := newAuth()
		api := &cct.ResourceServer{Issuer: auth, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
		})}
		token := send(t, auth, post(t, "id", "secret", grant)).AccessToken
		w := call(api, "Bearer "+token)
		require.Equal(t, 200, w.Code)
		require.Equal(t, "hello", w.Body.String())
		time.Sleep(time.Hour)
		require.Equal(t, 401, call(api, "Bearer "+token).Code)
	})
}

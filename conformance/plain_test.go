package conformance

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests of the servers themselves don't use the library. They show what a server
// refuses: the acceptance of a server that takes anything would prove nothing.

// A reply is a server's answer to a plain request.
type reply struct {
	status int
	header http.Header

	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ClientID    string `json:"client_id"`
	Error       string `json:"error"`
}

// plainRequest returns a token request without client authentication.
func plainRequest(t *testing.T, at endpoints, form url.Values) *http.Request {
	t.Helper()
	if form == nil {
		form = url.Values{}
	}
	form.Set("grant_type", "client_credentials")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.token, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// plainBasic returns a token request with HTTP Basic.
func plainBasic(t *testing.T, at endpoints, c registration) *http.Request {
	t.Helper()
	r := plainRequest(t, at, nil)
	r.SetBasicAuth(c.id, c.secret)
	return r
}

// plainCall returns a call of the API with a token.
func plainCall(t *testing.T, at endpoints, scheme, token string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.api, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", scheme+" "+token)
	return r
}

// send sends a request to the token endpoint or the API, as a client that presents a
// certificate, if any.
func send(t *testing.T, r *http.Request, presented ...tls.Certificate) (got reply) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   testPKI().config(presented...),
	}}
	resp, err := client.Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	got.status, got.header = resp.StatusCode, resp.Header
	return got
}

// requireToken requires that got has a bearer token, and that the API accepts it as a
// token of the client.
func requireToken(t *testing.T, at endpoints, id string, got reply, presented ...tls.Certificate) {
	t.Helper()
	require.Equal(t, http.StatusOK, got.status, "%+v", got)
	require.Equal(t, "bearer", strings.ToLower(got.TokenType))
	api := send(t, plainCall(t, at, "Bearer", got.AccessToken), presented...)
	require.Equal(t, http.StatusOK, api.status)
	require.Equal(t, id, api.ClientID)
}

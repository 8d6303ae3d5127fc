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

// What the servers take and refuse is found out here without the library: a
// server that takes anything would prove nothing about it.

// A reply is what a server answered to a plain request.
type reply struct {
	status int
	header http.Header

	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ClientID    string `json:"client_id"`
	Error       string `json:"error"`
}

// plainRequest returns a token request that is yet to be authenticated.
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

// plainCall returns a call of the API with a token.
func plainCall(t *testing.T, at endpoints, scheme, token string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.api, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", scheme+" "+token)
	return r
}

// send sends a request as a client that shows these certificates.
func send(t *testing.T, r *http.Request, shows ...tls.Certificate) reply {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   testPKI().config(shows...),
	}}
	resp, err := client.Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	got := reply{status: resp.StatusCode, header: resp.Header}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	return got
}

// requireToken requires a bearer token, and that the API takes it for the client's.
func requireToken(t *testing.T, at endpoints, id string, got reply, shows ...tls.Certificate) {
	t.Helper()
	require.Equal(t, http.StatusOK, got.status, "%+v", got)
	require.Equal(t, "Bearer", got.TokenType)
	api := send(t, plainCall(t, at, "Bearer", got.AccessToken), shows...)
	require.Equal(t, http.StatusOK, api.status)
	require.Equal(t, id, api.ClientID)
}

// fetch gets a JSON document.
func fetch(t *testing.T, url string, into any) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: testPKI().config()}}
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
}

package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

const wrongSecret = "not-the-secret"

// A method is how a client authenticates, and how the server expects it to.
type method struct {
	name       string
	style      oauth2.AuthStyle
	registered string
}

var authMethods = []method{
	{"basic", oauth2.AuthStyleInHeader, secretBasic},
	{"post", oauth2.AuthStyleInParams, secretPost},
	{"auto_basic", oauth2.AuthStyleAutoDetect, secretBasic},
	{"auto_post", oauth2.AuthStyleAutoDetect, secretPost},
}

// refused returns the methods that a client tries, in order, when the server
// refuses them all.
func (m method) refused() []string {
	switch m.style {
	case oauth2.AuthStyleInHeader:
		return []string{secretBasic}
	case oauth2.AuthStyleInParams:
		return []string{secretPost}
	default:
		return []string{secretBasic, secretPost}
	}
}

// accepted returns the methods that a client with the right secret tries, in
// order, until s has authenticated it.
func (m method) accepted(s authServer) []string {
	if m.registered == secretBasic || m.style == oauth2.AuthStyleAutoDetect && s.lenient {
		return []string{secretBasic}
	}
	return m.refused()
}

// A fixture is a client of a server that expects the method.
type fixture struct {
	server authServer
	method method
	// day's tokens last longer than the test, short's for shortLife.
	day, short registration
	dayAt      endpoints
	shortAt    endpoints
}

// config returns a Config for day.
func (f fixture) config() *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:     f.day.id,
		ClientSecret: f.day.secret,
		TokenURL:     f.dayAt.token,
		Scopes:       []string{scopeRead},
		AuthStyle:    f.method.style,
	}
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	outcomes := []struct {
		name string
		test func(*testing.T, fixture)
		// chosen outcomes are those of a style that was chosen.
		chosen bool
		// heavy outcomes load the server.
		heavy bool
	}{
		{name: "token_works", test: testTokenWorks},
		{name: "wrong_secret", test: testWrongSecret},
		{name: "refused_scope", test: testRefusedScope},
		{name: "other_method", test: testOtherMethod, chosen: true},
		{name: "ten_lifetimes", test: testTenLifetimes, heavy: true},
	}

	for _, s := range authServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			day := 24 * time.Hour
			clients := []registration{
				{id: "basic-day", secret: "secret-of-basic-day", method: secretBasic, ttl: day},
				{id: "post-day", secret: "secret-of-post-day", method: secretPost, ttl: day},
				{id: "basic-short", secret: "secret-of-basic-short", method: secretBasic, ttl: shortLife},
				{id: "post-short", secret: "secret-of-post-short", method: secretPost, ttl: shortLife},
			}
			at := s.start(t, clients...)
			for _, m := range authMethods {
				f := fixture{server: s, method: m, day: clients[0], short: clients[2], dayAt: at[0], shortAt: at[2]}
				if m.registered == secretPost {
					f.day, f.short, f.dayAt, f.shortAt = clients[1], clients[3], at[1], at[3]
				}
				t.Run(m.name, func(t *testing.T) {
					t.Parallel()
					for _, o := range outcomes {
						if o.chosen && m.style == oauth2.AuthStyleAutoDetect || o.heavy && s.slow && m.name != "auto_post" {
							continue
						}
						t.Run(o.name, func(t *testing.T) {
							t.Parallel()
							o.test(t, f)
						})
					}
				})
			}
		})
	}
}

// testTokenWorks: the API takes the token and knows whose it is, and the way
// in that was found is remembered.
func testTokenWorks(t *testing.T, f fixture) {
	w := newWire(t, f.dayAt.token)
	ctx := w.context(t)
	conf := f.config()
	client := conf.Client(ctx)

	for range 3 {
		got, err := get(client, f.dayAt.api)
		require.NoError(t, err)
		require.Equal(t, answer{http.StatusOK, f.day.id, scopeRead}, got)
	}
	assert.Equal(t, f.method.accepted(f.server), methods(w.tokenRequests()), "three calls, one token")

	token, err := conf.Token(ctx)
	require.NoError(t, err)
	assert.Equal(t, "Bearer", token.Type())
	assert.Equal(t, scopeRead, token.Extra("scope"))
	assert.WithinDuration(t, time.Now().Add(f.day.ttl), token.Expiry, time.Minute)
	last := f.method.accepted(f.server)
	assert.Equal(t, last[len(last)-1:], methods(w.tokenRequests()), "Token asks again, with the style that worked")

	cached, err := conf.TokenSource(ctx).Token()
	require.NoError(t, err)
	assert.True(t, cached.Valid(), "a token of a TokenSource says that it is valid")
}

// testWrongSecret: the error, what it costs, and that it isn't for ever.
func testWrongSecret(t *testing.T, f fixture) {
	w := newWire(t, f.dayAt.token)
	ctx := w.context(t)
	conf := f.config()
	conf.ClientSecret = wrongSecret

	_, err := conf.Token(ctx)
	requireRefusal(t, f.server, err, "invalid_client", http.StatusUnauthorized)
	assert.Equal(t, f.method.refused(), methods(w.tokenRequests()))

	_, err = get(conf.Client(ctx), f.dayAt.api)
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, "invalid_client", refusal.ErrorCode)
	assert.Equal(t, f.method.refused(), methods(w.tokenRequests()))

	// Secrets are rotated by assigning the field.
	source := conf.TokenSource(ctx)
	_, err = source.Token()
	requireRefusal(t, f.server, err, "invalid_client", http.StatusUnauthorized)
	assert.Equal(t, f.method.refused(), methods(w.tokenRequests()))
	conf.ClientSecret = f.day.secret
	token, err := source.Token()
	require.NoError(t, err)
	assert.NotEmpty(t, token.AccessToken)
	assert.Equal(t, f.method.accepted(f.server), methods(w.tokenRequests()))
}

// testRefusedScope: the server authenticated the client, so there is nothing
// to detect any more.
func testRefusedScope(t *testing.T, f fixture) {
	w := newWire(t, f.dayAt.token)
	ctx := w.context(t)
	conf := f.config()
	conf.Scopes = []string{scopeRead, scopeAdmin}

	_, err := conf.Token(ctx)
	requireRefusal(t, f.server, err, "invalid_scope", http.StatusBadRequest)
	assert.Equal(t, f.method.accepted(f.server), methods(w.tokenRequests()))
}

// testOtherMethod: the client insists on the method that the server doesn't
// expect of it. The secret must not go out in the other one.
func testOtherMethod(t *testing.T, f fixture) {
	w := newWire(t, f.dayAt.token)
	ctx := w.context(t)
	conf := f.config()
	other := secretPost
	conf.AuthStyle = oauth2.AuthStyleInParams
	if f.method.style == oauth2.AuthStyleInParams {
		other = secretBasic
		conf.AuthStyle = oauth2.AuthStyleInHeader
	}

	token, err := conf.Token(ctx)
	if f.server.lenient {
		require.NoError(t, err)
		assert.True(t, token.Valid())
	} else {
		requireRefusal(t, f.server, err, "invalid_client", http.StatusUnauthorized)
	}
	assert.Equal(t, []string{other}, methods(w.tokenRequests()))
}

// requireRefusal requires a bare *oauth2.RetrieveError, which is what programs
// assert, that tells the server's answer and no secret.
func requireRefusal(t *testing.T, s authServer, err error, code string, status int) {
	t.Helper()
	require.Error(t, err)
	refusal, ok := err.(*oauth2.RetrieveError)
	require.Truef(t, ok, "a bare *oauth2.RetrieveError, not %T: %v", err, err)
	assert.Equal(t, code, refusal.ErrorCode)
	require.NotNil(t, refusal.Response)
	assert.Equal(t, status, refusal.Response.StatusCode)
	if !s.terse {
		assert.NotEmpty(t, refusal.ErrorDescription)
	}
	assert.NotContains(t, err.Error(), wrongSecret)
	assert.False(t, errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}

// An answer is what the API says.
type answer struct {
	status   int
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

// get calls the API.
func get(client *http.Client, url string) (answer, error) {
	resp, err := client.Get(url)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	got := answer{status: resp.StatusCode}
	return got, json.NewDecoder(resp.Body).Decode(&got)
}

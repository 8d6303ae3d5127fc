package clientcredentialstest_test

import (
	"crypto"
	"crypto/ed25519"
	"maps"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	bearerGrant   = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessToken   = "urn:ietf:params:oauth:token-type:access_token"
	jwtToken      = "urn:ietf:params:oauth:token-type:jwt"
)

// trusting returns a server that trusts key as "issuer" for the subjects "a" and "b".
func trusting(key crypto.Signer) *cct.AuthorizationServer {
	auth := newAuth()
	auth.TrustedIssuers = []cct.TrustedIssuer{{Issuer: "issuer", PublicKeys: []crypto.PublicKey{key.Public()}, Subjects: []string{"a", "b"}}}
	return auth
}

// grantForm returns a token request with these parameters.
func grantForm(pairs ...string) string {
	form := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form.Encode()
}

func TestG14_FakeJWTBearer(t *testing.T) {
	key, stranger := testkit.NewKey("ES256"), testkit.NewKey("ES256")
	now := time.Now().Unix()
	for name, test := range map[string]struct {
		key     crypto.Signer
		changes map[string]any
		want    string // the error, or the subject of the token
		rule    string // of the violation
	}{
		"good":             {key, nil, "a", ""},
		"another subject":  {key, map[string]any{"sub": "b"}, "b", ""},
		"a list":           {key, map[string]any{"aud": []string{"x", tokenURL}}, "a", ""},
		"no jti":           {key, map[string]any{"jti": nil}, "a", ""},
		"a strange key":    {stranger, nil, "invalid_grant", ""},
		"a strange issuer": {key, map[string]any{"iss": "other"}, "invalid_grant", ""},
		"not its subject":  {key, map[string]any{"sub": "c"}, "invalid_grant", ""},
		"no subject":       {key, map[string]any{"sub": nil}, "invalid_grant", ""},
		"another server's": {key, map[string]any{"aud": "x"}, "invalid_grant", "aud is not this server"},
		"no aud":           {key, map[string]any{"aud": nil}, "invalid_grant", "aud is neither a string nor a list of strings"},
		"an odd aud":       {key, map[string]any{"aud": 1}, "invalid_grant", "aud is neither a string nor a list of strings"},
		"expired":          {key, map[string]any{"exp": now - 1}, "invalid_grant", "the assertion has expired"},
		"no exp":           {key, map[string]any{"exp": nil}, "invalid_grant", "exp is missing"},
		"lives too long":   {key, map[string]any{"exp": now + 72*3600}, "invalid_grant", "exp is more than two days away"},
		"lives for a day":  {key, map[string]any{"exp": now + 24*3600}, "a", ""},
		"not yet":          {key, map[string]any{"nbf": now + 60}, "invalid_grant", "nbf is in the future"},
	} {
		auth := trusting(key)
		changes := map[string]any{"iss": "issuer", "sub": "a"}
		maps.Copy(changes, test.changes)
		text := signed(t, test.key, "", claims(changes))
		got := send(t, auth, post(t, "", "", grantForm("grant_type", bearerGrant, "assertion", text)))
		token, _ := auth.Introspect(got.AccessToken)
		require.Equal(t, test.want, got.Error+token.Subject, name)
		require.Empty(t, token.ClientID)
		if test.rule != "" {
			require.Len(t, auth.Violations(), 1, name)
			require.ErrorContains(t, auth.Violations()[0], "RFC 7523, Section 3: "+test.rule, name)
		} else {
			require.Empty(t, auth.Violations(), name)
		}
	}

	auth := trusting(key)
	assert := func(scope string) string {
		return signed(t, key, "", claims(map[string]any{"iss": "issuer", "sub": "a", "scope": scope}))
	}
	got := send(t, auth, post(t, "", "", grantForm("grant_type", bearerGrant, "assertion", assert("x"))))
	require.Equal(t, "x", got.Scope, "the scope of the assertion")
	got = send(t, auth, post(t, "", "", grantForm("grant_type", bearerGrant, "assertion", assert("x"), "scope", "y")))
	require.Equal(t, "y", got.Scope)
	replayed := assert("x")
	for _, want := range []string{"", "invalid_grant"} {
		got = send(t, auth, post(t, "id", "secret", grantForm("grant_type", bearerGrant, "assertion", replayed)))
		require.Equal(t, want, got.Error)
	}
	for form, want := range map[string]string{
		grantForm("grant_type", bearerGrant):                                              "invalid_request",
		grantForm("grant_type", bearerGrant, "assertion", "x"):                            "invalid_grant",
		grantForm("grant_type", bearerGrant, "assertion", assert("x"), "client_id", "xx"): "invalid_client",
		grantForm("grant_type", "urn:x"):                                                  "invalid_client",
		grantForm("grant_type", "client_credentials"):                                     "invalid_client",
	} {
		require.Equal(t, want, send(t, auth, post(t, "", "", form)).Error, form)
	}
}

func TestG14_FakeTokenExchange(t *testing.T) {
	key := testkit.NewKey("ES256")
	_, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	auth := trusting(key)
	auth.Issuer, auth.SigningKey = "https://auth.example", private
	own := send(t, auth, post(t, "id", "secret", grant)).AccessToken
	foreign := signed(t, key, "", claims(map[string]any{"iss": "issuer", "sub": "a", "aud": "anybody"}))
	expired := signed(t, key, "", claims(map[string]any{"iss": "issuer", "sub": "a", "exp": 1}))
	for name, test := range map[string]struct {
		params []string
		want   string // the error, or subject and actor
	}{
		"its own":             {[]string{"subject_token", own, "subject_token_type", accessToken}, "id/"},
		"a JWT":               {[]string{"subject_token", foreign, "subject_token_type", jwtToken}, "a/"},
		"an actor":            {[]string{"subject_token", foreign, "subject_token_type", jwtToken, "actor_token", own, "actor_token_type", accessToken}, "a/id"},
		"a requested type":    {[]string{"subject_token", own, "subject_token_type", accessToken, "requested_token_type", accessToken}, "id/"},
		"no token":            {[]string{"subject_token_type", accessToken}, "invalid_request"},
		"no type":             {[]string{"subject_token", own}, "invalid_request"},
		"no actor":            {[]string{"subject_token", own, "subject_token_type", accessToken, "actor_token_type", accessToken}, "invalid_request"},
		"no actor's type":     {[]string{"subject_token", own, "subject_token_type", accessToken, "actor_token", own}, "invalid_request"},
		"unknown":             {[]string{"subject_token", "x", "subject_token_type", accessToken}, "invalid_request"},
		"an unknown actor":    {[]string{"subject_token", own, "subject_token_type", accessToken, "actor_token", "x", "actor_token_type", accessToken}, "invalid_request"},
		"its own, but no JWT": {[]string{"subject_token", own, "subject_token_type", jwtToken}, "invalid_request"},
		"another kind":        {[]string{"subject_token", foreign, "subject_token_type", "urn:x"}, "invalid_request"},
		"expired":             {[]string{"subject_token", expired, "subject_token_type", jwtToken}, "invalid_request"},
		"another kind wanted": {[]string{"subject_token", own, "subject_token_type", accessToken, "requested_token_type", "urn:x"}, "invalid_request"},
	} {
		got := send(t, auth, post(t, "id", "secret", grantForm(append(test.params, "grant_type", exchangeGrant)...)))
		token, ok := auth.Introspect(got.AccessToken)
		if ok {
			got.Error = token.Subject + "/" + token.Actor
			require.Equal(t, "Bearer", got.TokenType)
		}
		require.Equal(t, test.want, got.Error, name)
	}

	params := grantForm("grant_type", exchangeGrant, "subject_token", own, "subject_token_type", accessToken, "requested_token_type", jwtToken, "audience", "https://away.example")
	got := send(t, auth, post(t, "", "", params))
	require.Equal(t, "N_A", got.TokenType)
	_, active := auth.Introspect(got.AccessToken)
	require.False(t, active, "it isn't an access token")
	away := new(cct.AuthorizationServer)
	away.Issuer, away.TrustedIssuers = "https://away.example", []cct.TrustedIssuer{{Issuer: "https://auth.example", PublicKeys: []crypto.PublicKey{private.Public()}}}
	got = send(t, away, post(t, "", "", grantForm("grant_type", bearerGrant, "assertion", got.AccessToken)))
	token, active := away.Introspect(got.AccessToken)
	require.True(t, active)
	require.Equal(t, "id", token.Subject)

	auth.SigningKey = nil
	require.Equal(t, "invalid_request", send(t, auth, post(t, "", "", params)).Error)
}

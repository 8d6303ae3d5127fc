package grant_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/grant"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const canary = "CanaryAssertion-5Kf9w2Z1"

// jwt returns an unsigned JWT with these claims.
func jwt(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"ES256"}`)) + "." + part([]byte(claims)) + "." + part([]byte(canary))
}

// fixed returns a source of a text that never changes.
func fixed(text string) clientauth.SecretSource {
	return func(context.Context) (string, error) { return text, nil }
}

// newAttempt returns an attempt as a Grant gets it.
func newAttempt() *clientcredentials.Attempt {
	return &clientcredentials.Attempt{TokenURL: "https://auth.example/token", Form: map[string][]string{}, Header: http.Header{}}
}

// server returns a server that trusts key as "issuer", and a SignedJWT by that.
func server(t *testing.T, clients ...cct.Client) (*cct.Server, grant.SignedJWT) {
	t.Helper()
	srv := cct.Start(t, clients...)
	key := testkit.NewKey("ES256")
	srv.Auth.TrustedIssuers = []cct.TrustedIssuer{{Issuer: "issuer", PublicKeys: []crypto.PublicKey{key.Public()}}}
	return srv, grant.SignedJWT{Key: clientauth.SignerKey(key), Issuer: "issuer", Subject: "a", Audience: srv.TokenURL}
}

func TestG9_JWTBearer(t *testing.T) {
	future := time.Now().Add(time.Hour).Unix()
	ago := time.Now().Add(-time.Minute).Unix()
	for name, test := range map[string]struct {
		source clientauth.SecretSource
		name   string // of the assertion in errors
		err    string
	}{
		"good":          {fixed(jwt(fmt.Sprintf(`{"iss":"i","sub":"s","exp":%d}`, future))), `the assertion of subject "s" from issuer "i"`, ""},
		"no sub":        {fixed(jwt(`{"iss":"i"}`)), `the assertion from issuer "i"`, ""},
		"odd names":     {fixed(jwt(`{"iss":"i\n\u001b","sub":"` + strings.Repeat("x", 300) + `"}`)), `the assertion of subject "` + strings.Repeat("x", 199) + ` from issuer "i\n\x1b"`, ""},
		"encrypted":     {fixed("a.b.c.d.e"), "the assertion", ""},
		"no source":     {nil, "", "there is no assertion; set Assertion in the Grant"},
		"error":         {func(context.Context) (string, error) { return "", errors.New("gone") }, "", "gone"},
		"empty":         {fixed(""), "", "the assertion is empty; check where Assertion gets it from"},
		"line break":    {fixed(jwt(`{"iss":"i"}`) + "\n"), "", "the assertion contains a control character; check where Assertion gets it from"},
		"no JWT":        {fixed(canary), "", "the assertion can't be used: it is not a JWT, which has three parts with dots between them; check where Assertion gets it from"},
		"two parts":     {fixed("a." + canary), "", "the assertion can't be used: it is not a JWT, which has three parts"},
		"no base64":     {fixed("a." + canary + "!.c"), "", "the assertion can't be used: it is not a JWT, whose parts are base64url"},
		"no object":     {fixed(jwt(`["` + canary + `"]`)), "", "the assertion can't be used: it is not a JWT with iss"},
		"odd encrypted": {fixed("a.b.c.d.ä"), "", "the assertion can't be used: it is not a JWT"},
		"no iss":        {fixed(jwt(`{"sub":"s"}`)), "", "the assertion has no iss, which RFC 7523, Section 3, requires"},
		"expired":       {fixed(jwt(fmt.Sprintf(`{"iss":"i","sub":"s","exp":%d}`, ago))), "", `the assertion of subject "s" from issuer "i" expired 1m`},
		"exp is a text": {fixed(jwt(`{"iss":"i","exp":"` + canary + `"}`)), "", "the assertion can't be used: it is not a JWT with iss"},
	} {
		attempt := newAttempt()
		subject, err := (&grant.JWTBearer{Assertion: test.source}).Authorize(t.Context(), attempt)
		if test.err != "" {
			require.ErrorContains(t, err, test.err, name)
			require.NotContains(t, err.Error(), canary, name)
			require.Empty(t, attempt.Form, name)
			continue
		}
		require.NoError(t, err, name)
		require.NotEmpty(t, subject, name)
		require.Equal(t, test.name, attempt.GrantName, name)
		want, _ := test.source(t.Context())
		require.Equal(t, map[string][]string{"assertion": {want}}, map[string][]string(attempt.Form), name)
	}
}

func TestG9_TokenExchange(t *testing.T) {
	valid := jwt(`{"iss":"i","sub":"s"}`)
	expired := jwt(`{"iss":"i","sub":"s","exp":1000000000}`)
	for name, test := range map[string]struct {
		exchange grant.TokenExchange
		form     string // as a query, with S for the subject token and A for the actor token
		err      string
	}{
		"opaque":              {grant.TokenExchange{Subject: fixed("S")}, "subject_token=S&subject_token_type=access_token", ""},
		"a JWT":               {grant.TokenExchange{Subject: fixed(valid), SubjectTokenType: grant.TypeJWT}, "subject_token=" + valid + "&subject_token_type=jwt", ""},
		"encrypted":           {grant.TokenExchange{Subject: fixed("a.b.c.d.e"), SubjectTokenType: grant.TypeIDToken}, "subject_token=a.b.c.d.e&subject_token_type=id_token", ""},
		"all":                 {grant.TokenExchange{Subject: fixed("S"), SubjectTokenType: grant.TypeSAML2, Actor: fixed("A"), RequestedTokenType: grant.TypeJWT}, "actor_token=A&actor_token_type=access_token&requested_token_type=jwt&subject_token=S&subject_token_type=saml2", ""},
		"actor's type":        {grant.TokenExchange{Subject: fixed("S"), Actor: fixed("A"), ActorTokenType: grant.TypeSAML1}, "actor_token=A&actor_token_type=saml1&subject_token=S&subject_token_type=access_token", ""},
		"no source":           {grant.TokenExchange{}, "", "there is no subject token; set Subject in the Grant"},
		"only a type":         {grant.TokenExchange{Subject: fixed("S"), ActorTokenType: grant.TypeJWT}, "", "ActorTokenType is set, but Actor is not"},
		"empty subject":       {grant.TokenExchange{Subject: fixed("")}, "", "the subject token is empty; check where Subject gets it from"},
		"empty actor":         {grant.TokenExchange{Subject: fixed("S"), Actor: fixed("")}, "", "the actor token is empty; check where Actor gets it from"},
		"not a JWT":           {grant.TokenExchange{Subject: fixed(canary), SubjectTokenType: grant.TypeJWT}, "", "the subject token can't be used: it is not a JWT"},
		"not an id_token":     {grant.TokenExchange{Subject: fixed(canary), SubjectTokenType: grant.TypeIDToken}, "", "the subject token can't be used: it is not a JWT"},
		"not an actor's JWT":  {grant.TokenExchange{Subject: fixed("S"), Actor: fixed(canary), ActorTokenType: grant.TypeJWT}, "", "the actor token can't be used: it is not a JWT"},
		"expired":             {grant.TokenExchange{Subject: fixed(expired)}, "", `the subject token of subject "s" from issuer "i" expired`},
		"expired actor":       {grant.TokenExchange{Subject: fixed("S"), Actor: fixed(expired)}, "", `the actor token of subject "s" from issuer "i" expired`},
		"a control character": {grant.TokenExchange{Subject: fixed(canary + "\x00")}, "", "the subject token contains a control character"},
	} {
		attempt := newAttempt()
		subject, err := test.exchange.Authorize(t.Context(), attempt)
		if test.err != "" {
			require.ErrorContains(t, err, test.err, name)
			require.NotContains(t, err.Error(), canary, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, test.form, strings.ReplaceAll(attempt.Form.Encode(), "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A", ""), name)
		require.NotContains(t, subject+attempt.CredentialID+attempt.GrantName, valid)
		require.NotEmpty(t, subject)
	}
}

// Each attempt has a new assertion, which the server accepts once. The same assertion again is
// refused, and the error says whose it was.
func TestG9_AssertionIsSentOnce(t *testing.T) {
	srv, signed := server(t)
	conf := &clientcredentials.Config{TokenURL: srv.TokenURL, Grant: &grant.JWTBearer{Assertion: signed.Source()}}
	srv.Auth.Script(cct.Unavailable())
	for range 3 {
		token, err := conf.Token(t.Context())
		require.NoError(t, err)
		known, _ := srv.Auth.Introspect(token.AccessToken)
		require.Equal(t, []string{"", "a"}, []string{known.ClientID, known.Subject})
	}

	auth := &cct.AuthorizationServer{TrustedIssuers: srv.Auth.TrustedIssuers, Issuer: "https://auth.example"}
	signed.Audience = auth.Issuer
	once, err := signed.Source()(t.Context())
	require.NoError(t, err)
	conf = &clientcredentials.Config{
		TokenURL: "https://auth.example/token", Grant: &grant.JWTBearer{Assertion: fixed(once)},
		HTTPClient: &http.Client{Transport: cct.HandlerTransport(auth)},
	}
	_, err = conf.Token(t.Context())
	require.NoError(t, err)
	_, err = conf.Token(t.Context())
	require.ErrorContains(t, err, `the server has refused the assertion of subject "a" from issuer "issuer"`)
	require.NotContains(t, err.Error(), once)
	require.Len(t, auth.Requests(), 2, "the same assertion isn't sent again")
	require.Len(t, auth.Violations(), 1)
	require.ErrorContains(t, auth.Violations()[0], "the assertion has been used before")
}

// The file with the assertion is replaced while the request is on its way. A key that is
// refused is refused whatever else is in the assertion.
func TestG3_RotatedAssertion(t *testing.T) {
	srv, signed := server(t)
	path := filepath.Join(t.TempDir(), "assertion")
	write := func(a grant.SignedJWT) {
		assertion, err := a.Source()(t.Context())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, []byte(assertion), 0o600))
	}
	stranger := signed
	stranger.Issuer = "stranger"
	write(stranger)
	base := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(req)
		write(signed)
		return resp, err
	})}
	conf := &clientcredentials.Config{TokenURL: srv.TokenURL, HTTPClient: base, Grant: &grant.JWTBearer{Assertion: clientauth.SecretFile(path)}}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, srv.Auth.TokenRequests())

	conf = &clientcredentials.Config{TokenURL: srv.TokenURL, Grant: &grant.JWTBearer{Assertion: stranger.Source()}}
	_, err = conf.Token(t.Context())
	require.Error(t, err)
	require.Equal(t, 3, srv.Auth.TokenRequests(), "the next assertion would be signed with the same key")
	base.CloseIdleConnections()
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A server that has refused an assertion may accept another one by the same key, if the key has
// another name or a renewed certificate now.
func TestA6_CredentialOfASignedJWT(t *testing.T) {
	key := testkit.NewKey("ES256")
	seen := map[string]bool{}
	for _, signing := range []clientauth.SigningKey{
		{Signer: key},
		{Signer: key, KeyID: "k"},
		{Signer: key, Certificate: &x509.Certificate{Raw: []byte("old"), PublicKey: key.Public()}},
		{Signer: key, Certificate: &x509.Certificate{Raw: []byte("new"), PublicKey: key.Public()}},
		{Signer: testkit.NewKey("ES256")},
	} {
		g := &grant.JWTBearer{Assertion: grant.SignedJWT{
			Key: func(context.Context) (*clientauth.SigningKey, error) { return &signing, nil }, Issuer: "i", Audience: "https://auth.example",
		}.Source()}
		var ids []string
		for range 2 {
			attempt := &clientcredentials.Attempt{Header: http.Header{}, Form: url.Values{}}
			_, err := g.Authorize(t.Context(), attempt)
			require.NoError(t, err)
			ids = append(ids, attempt.CredentialID)
		}
		require.Equal(t, ids[0], ids[1])
		require.False(t, seen[ids[0]], ids[0])
		seen[ids[0]] = true
	}
}

func TestG10_SignedJWT(t *testing.T) {
	key := testkit.NewKey("ES256").(*ecdsa.PrivateKey)
	good := grant.SignedJWT{Key: clientauth.SignerKey(key), Issuer: "i", Audience: "https://auth.example"}
	for name, test := range map[string]struct {
		change func(a *grant.SignedJWT)
		header string // without alg
		claims string // without jti, iat and exp
		err    string
	}{
		"minimal":      {func(*grant.SignedJWT) {}, `{"typ":"JWT"}`, `{"aud":"https://auth.example","iss":"i"}`, ""},
		"with subject": {func(a *grant.SignedJWT) { a.Subject = "s" }, `{"typ":"JWT"}`, `{"aud":"https://auth.example","iss":"i","sub":"s"}`, ""},
		"with claims": {
			func(a *grant.SignedJWT) { a.Claims = map[string]any{"scope": "x", "n": 1, "nbf": 1} }, `{"typ":"JWT"}`,
			`{"aud":"https://auth.example","iss":"i","scope":"x","n":1,"nbf":1}`, "",
		},
		"with names": {func(a *grant.SignedJWT) { a.KeyID, a.Type = "k", "at+jwt" }, `{"kid":"k","typ":"at+jwt"}`, `{"aud":"https://auth.example","iss":"i"}`, ""},
		"names of the key": {func(a *grant.SignedJWT) {
			a.Key = func(context.Context) (*clientauth.SigningKey, error) {
				return &clientauth.SigningKey{Signer: key, KeyID: "own", Algorithm: "ES256", Certificate: &x509.Certificate{Raw: []byte("c"), PublicKey: key.Public()}}, nil
			}
		}, `{"kid":"own","typ":"JWT","x5t#S256":"Ln0sA6lQeuJl7PW1NWiFpTOTogKdJBOUmXJloaJa78Y"}`, `{"aud":"https://auth.example","iss":"i"}`, ""},
		"no key": {func(a *grant.SignedJWT) { a.Key = nil }, "", "", "there is no key; set Key in the SignedJWT"},
		"no key returned": {func(a *grant.SignedJWT) {
			a.Key = func(context.Context) (*clientauth.SigningKey, error) { return nil, nil }
		}, "", "", "the Key of the SignedJWT returned no key"},
		"a key's error":   {func(a *grant.SignedJWT) { a.Key = clientauth.KeyFile("missing") }, "", "", "missing"},
		"no issuer":       {func(a *grant.SignedJWT) { a.Issuer = "" }, "", "", "the Issuer of the SignedJWT is empty; set it"},
		"no audience":     {func(a *grant.SignedJWT) { a.Audience = "" }, "", "", "the Audience of the SignedJWT is empty; set it"},
		"a short life":    {func(a *grant.SignedJWT) { a.Lifetime = 1 }, "", "", "the Lifetime is less than a second; set it to zero for a minute"},
		"another key's":   {func(a *grant.SignedJWT) { a.Algorithm = "RS256" }, "", "", "RS256 doesn't fit a P-256 key"},
		"a claim of ours": {func(a *grant.SignedJWT) { a.Claims = map[string]any{"exp": 1} }, "", "", "the Claims of the SignedJWT contain \"exp\", which the library sets; remove it"},
		"a claim sub":     {func(a *grant.SignedJWT) { a.Claims = map[string]any{"sub": 1} }, "", "", "the Claims of the SignedJWT contain \"sub\", which"},
		"unwritable":      {func(a *grant.SignedJWT) { a.Claims = map[string]any{"x": func() {}} }, "", "", `"x" in the Claims of the SignedJWT can't be written as JSON`},
	} {
		a := good
		test.change(&a)
		text, err := a.Source()(t.Context())
		if test.err != "" {
			require.ErrorContains(t, err, test.err, name)
			continue
		}
		require.NoError(t, err, name)
		var parts []map[string]any
		for _, part := range strings.Split(text, ".")[:2] {
			data, err := base64.RawURLEncoding.DecodeString(part)
			require.NoError(t, err)
			var members map[string]any
			require.NoError(t, json.Unmarshal(data, &members))
			parts = append(parts, members)
		}
		require.Equal(t, "ES256", parts[0]["alg"])
		require.InDelta(t, float64(time.Now().Unix()), parts[1]["iat"], 60)
		require.InDelta(t, 60, parts[1]["exp"].(float64)-parts[1]["iat"].(float64), 1)
		require.Len(t, parts[1]["jti"], 26)
		delete(parts[0], "alg")
		for _, name := range []string{"jti", "iat", "exp"} {
			delete(parts[1], name)
		}
		for i, want := range []string{test.header, test.claims} {
			got, _ := json.Marshal(parts[i])
			require.JSONEq(t, want, string(got), name)
		}
	}
}

// A token of one authorization server becomes the assertion for another one:
// draft-ietf-oauth-identity-chaining.
func TestG11_Chaining(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	home := cct.Start(t)
	home.Auth.Issuer, home.Auth.SigningKey = "https://home.example", private
	away, _ := server(t)
	away.Auth.TrustedIssuers = []cct.TrustedIssuer{{Issuer: home.Auth.Issuer, PublicKeys: []crypto.PublicKey{private.Public()}}}

	own := &clientcredentials.Config{TokenURL: home.TokenURL, ClientID: cct.ClientID, ClientSecret: cct.ClientSecret}
	exchange := *own
	exchange.Strict = true
	exchange.EndpointParams = map[string][]string{"audience": {away.TokenURL}}
	exchange.Grant = &grant.TokenExchange{Subject: own.Source(t.Context()).AccessToken, RequestedTokenType: grant.TypeJWT}
	exchanged := exchange.Source(t.Context())
	conf := &clientcredentials.Config{TokenURL: away.TokenURL, Grant: &grant.JWTBearer{Assertion: exchanged.AccessToken}}
	resp, err := conf.Client(t.Context()).Get(away.APIURL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	requests := away.API.Requests()
	known, _ := away.Auth.Introspect(requests[0].AccessToken)
	require.Equal(t, cct.ClientID, known.Subject)

	_, err = (&http.Client{Transport: &clientcredentials.Transport{Source: exchanged}}).Get(home.APIURL)
	require.ErrorContains(t, err, "the server has issued a token that is not an access token")
	require.Empty(t, home.API.Requests())
}

// Whatever else the library does with tokens works with a grant.
func TestG12_WithEverythingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := testkit.NewKey("ES256")
		auth := &cct.AuthorizationServer{
			TrustedIssuers: []cct.TrustedIssuer{{Issuer: "issuer", PublicKeys: []crypto.PublicKey{key.Public()}}},
			DPoPNonce:      "nonce",
		}
		mux := http.NewServeMux()
		mux.Handle("auth.example/", auth)
		mux.Handle("api.example/", &cct.ResourceServer{Issuer: auth})
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: cct.HandlerTransport(mux)})
		signed := grant.SignedJWT{Key: clientauth.SignerKey(key), Issuer: "issuer", Subject: "a", Audience: "https://auth.example/token"}
		conf := &clientcredentials.Config{
			TokenURL: "https://auth.example/token",
			Grant:    &grant.JWTBearer{Assertion: signed.Source()},
			DPoP:     testkit.NewKey("ES256"),
		}
		client := conf.Client(ctx)
		get := func(ctx context.Context) {
			t.Helper()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/", nil)
			require.NoError(t, err)
			resp, err := client.Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
		}
		get(ctx)
		require.Equal(t, 2, auth.TokenRequests(), "one more for the nonce")
		get(clientcredentials.WithTarget(ctx, clientcredentials.Target{Audience: "other"}))
		require.Equal(t, 3, auth.TokenRequests(), "another target, another token")
		time.Sleep(57 * time.Minute)
		get(ctx)
		synctest.Wait()
		require.Equal(t, 4, auth.TokenRequests(), "a refresh in the background")
		auth.RevokeAll()
		get(ctx)
		require.Equal(t, 5, auth.TokenRequests(), "another token in place of a revoked one")
		require.Empty(t, auth.Violations())
	})
}

func TestG13_Printed(t *testing.T) {
	source := fixed(canary)
	for name, v := range map[string]any{
		grant.TypeJWTBearer:     grant.JWTBearer{Assertion: source},
		grant.TypeTokenExchange: &grant.TokenExchange{Subject: source, SubjectTokenType: canary},
		"grant.SignedJWT":       grant.SignedJWT{Issuer: canary},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			require.Equal(t, name, fmt.Sprintf(verb, v))
		}
		text, err := json.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, `"`+name+`"`, string(text))
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		require.Contains(t, log.String(), name)
		require.NotContains(t, log.String(), canary)
	}
}

// What a token exchange calls its subject differs as soon as any of the tokens or types does.
func TestG4_ExchangeSubjects(t *testing.T) {
	one, forged := jwt(`{"iss":"i","sub":"s"}`), jwt(`{"iss":"i","sub":"s"}`)+"x"
	seen := map[string]bool{}
	for _, exchange := range []grant.TokenExchange{
		{Subject: fixed(one)},
		{Subject: fixed(forged)},
		{Subject: fixed("S")},
		{Subject: fixed("S"), SubjectTokenType: grant.TypeSAML2},
		{Subject: fixed("S"), Actor: fixed("A")},
		{Subject: fixed("S"), Actor: fixed("B")},
		{Subject: fixed("S"), Actor: fixed("A"), ActorTokenType: grant.TypeSAML2},
		{Subject: fixed("S"), RequestedTokenType: grant.TypeJWT},
		{Subject: fixed("S"), RequestedTokenType: grant.TypeAccessToken},
	} {
		subject, err := exchange.Authorize(t.Context(), newAttempt())
		require.NoError(t, err)
		require.False(t, seen[subject])
		seen[subject] = true
		again, err := exchange.Authorize(t.Context(), newAttempt())
		require.NoError(t, err)
		require.Equal(t, subject, again)
	}
}

package main

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

const (
	testTokenURL = "https://login.example/token"
	testIssuer   = "https://login.example"
)

// asserted returns an exchange in which the client sent an assertion.
func asserted(header, claims string) exchange {
	return exchange{sent: time.Unix(1_800_000_000, 0), assertion: parseToken(unsigned(header, claims))}
}

// clockAhead returns an edit that makes the server's clock differ.
func clockAhead(by time.Duration) func(*situation) {
	return func(s *situation) {
		x := &s.sent[0]
		x.answered, x.date = x.sent, x.sent.Add(by).UTC().Format(http.TimeFormat)
	}
}

// TestC1_C2_C3_C4_Diagnosis judges answers as servers in the wild give them.
func TestC1_C2_C3_C4_Diagnosis(t *testing.T) {
	const (
		inTime = `{"aud":"` + testIssuer + `","exp":1800000060}`
		es256  = `{"alg":"ES256","kid":"k1"}`
	)
	bySecret, byKey := exchange{}, asserted(es256, inTime)
	for _, tt := range []struct {
		code, said    string
		status        int
		sent          exchange
		edit          func(*situation) // nil: no change
		subject, want string
	}{
		// The words of some servers about what the client may do.
		{"invalid_scope", "The requested scope is invalid, unknown, or malformed. The client may not request scope 'x'.", 400, bySecret, nil, "scope", "change -scopes, or have"},
		{"access_denied", "Client may not use scope admin.", 403, bySecret, nil, "scope", "change -scopes"},
		{"invalid_request", "The request body must contain the following parameter: 'scope'.", 400, bySecret, func(s *situation) { s.Scopes = "" }, "scope", "give -scopes"},
		{"invalid_scope", "", 400, bySecret, func(s *situation) {
			s.metadata = &clientcredentials.ServerMetadata{ScopesSupported: []string{"read"}}
		}, "scope", "the metadata doesn't list write"},
		{"access_denied", "Service not found: https://api.example", 403, bySecret, nil, "audience", "as in -params audience="},
		{"access_denied", `Client is not authorized to access "https://api.example". You might need a "client-grant" for this API.`, 403, bySecret, nil, "audience", "name the API"},
		{"invalid_request", "Requested audience 'https://api.example' has not been whitelisted by the client.", 400, bySecret, func(s *situation) { s.Form.Set("audience", "x") }, "audience", "change audience or resource in -params"},
		{"invalid_resource", "The resource principal named https://api.example was not found in the tenant.", 400, bySecret, nil, "audience", "name the API"},
		{"unauthorized_client", "Grant type 'client_credentials' not allowed for the client.", 403, bySecret, nil, "grant", "have the server's operator allow"},
		{"unauthorized_client", "Client not enabled to retrieve service account", 401, bySecret, nil, "grant", "have the server's operator allow"},
		{"unauthorized_client", "The client is not authorized to request a token using this method.", 400, bySecret, nil, "grant", "have the server's operator allow"},
		{"invalid_grant", "The provided authorization grant is invalid, expired, or revoked", 400, bySecret, func(s *situation) { s.Form.Set("grant_type", "urn:x") }, "grant", "change grant_type in -params"},
		{"invalid_request", "AADSTS90002: Tenant 'x' not found. Check to make sure you have the correct tenant ID.", 400, bySecret, nil, "tenant", "change the tenant in -token-url"},
		{"access_denied", "The client has insufficient permissions.", 403, bySecret, nil, "permission", "have the server's operator allow"},
		{"access_denied", "The resource owner or authorization server denied the request.", 403, bySecret, nil, "credentials", "check -client-id"},
		{"invalid_request", "The request repeats a parameter (other than grant type), includes multiple credentials, utilizes more than one mechanism for authenticating the client, or is otherwise malformed.", 400, bySecret, nil, "request", "check -params"},

		// About what tokens are bound to.
		{"invalid_dpop_proof", "", 400, bySecret, nil, "dpop", "give -dpop-key-file"},
		{"invalid_request", "The DPoP proof JWT header is missing.", 400, bySecret, nil, "dpop", "give -dpop-key-file"},
		{"invalid_dpop_proof", "", 400, exchange{proof: parseToken(unsigned(`{"alg":"RS256"}`, `{}`))}, func(s *situation) {
			s.DPoP, _ = newKeyFile(t)
			s.metadata = &clientcredentials.ServerMetadata{DPoPSigningAlgValuesSupported: []string{"ES256"}}
		}, "dpop", "change -dpop-key-file to a key for one of the algorithms that the metadata lists: ES256"},
		{"use_dpop_nonce", "", 400, bySecret, func(s *situation) { s.DPoP, _ = newKeyFile(t) }, "dpop", "change -dpop-key-file: the client"},
		{"invalid_grant", "grant request is invalid", 400, bySecret, nil, "binding", "give -dpop-key-file or -cert-file"},
		{"invalid_grant", "grant request is invalid", 400, bySecret, func(s *situation) {
			s.metadata = &clientcredentials.ServerMetadata{TLSClientCertificateBoundAccessTokens: true}
		}, "binding", "give -cert-file and -key-file"},
		{"invalid_grant", "", 400, bySecret, func(s *situation) {
			s.metadata = &clientcredentials.ServerMetadata{DPoPSigningAlgValuesSupported: []string{"ES256"}}
		}, "binding", "give -dpop-key-file: the server"},
		{"invalid_grant", "", 400, bySecret, func(s *situation) {
			s.metadata = &clientcredentials.ServerMetadata{DPoPSigningAlgValuesSupported: []string{"ES256"}, TLSClientCertificateBoundAccessTokens: true}
		}, "binding", "give -dpop-key-file or -cert-file"},
		{"invalid_dpop_proof", "iat is too old", 400, bySecret, func(s *situation) {
			s.DPoP, _ = newKeyFile(t)
			clockAhead(time.Hour)(s)
		}, "dpop", "correct the clock"},
		{"invalid_request", "client certificate is required", 400, bySecret, nil, "certificate", "give -cert-file and -key-file"},
		{"invalid_client", "", 401, exchange{presents: true, asked: true}, func(s *situation) { s.CertFile = "c" }, "certificate", "change -cert-file"},
		{"invalid_client", "", 401, exchange{presents: true}, func(s *situation) { s.CertFile = "c" }, "certificate", "change -token-url: at this address"},

		// About a secret. What has no other meaning is about the credentials.
		{"invalid_client", "The provided client secret keys for app 'x' are expired. Create new keys, or consider certificate credentials.", 401, bySecret, nil, "credentials", "set CLIENT_SECRET to a new secret"},
		{"invalid_client", "Invalid client secret provided. Ensure the secret being sent is the value, not the ID.", 401, bySecret, nil, "credentials", "check -client-id and CLIENT_SECRET"},
		{"invalid_client", "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method).", 401, bySecret, nil, "credentials", "check -client-id and CLIENT_SECRET"},
		{"invalid_client", "Client authentication failed due to unknown client, no client authentication included, or unsupported authentication method.", 401, bySecret, nil, "credentials", "check -client-id and CLIENT_SECRET"},
		{"unauthorized_client", "Invalid client or Invalid client credentials", 401, bySecret, nil, "credentials", "check -client-id"},
		{"access_denied", "Unauthorized", 401, bySecret, nil, "credentials", "check -client-id"},
		{"", "", 401, bySecret, func(s *situation) { s.SecretFile = "f" }, "credentials", "check -client-id and -secret-file"},
		{"invalid_client", strings.Repeat("Client authentication failed. ", 9) + "The client supports the client authentication method 'client_secret_basic', but 'client_secret_post' was requested.", 401, bySecret, nil, "method", "change -auth-method"},
		{"invalid_client", "", 401, bySecret, func(s *situation) {
			s.listsNone, s.metadata = true, &clientcredentials.ServerMetadata{TokenEndpointAuthMethodsSupported: []string{"private_key_jwt"}}
		}, "method", "give the credentials for a method that the metadata lists: private_key_jwt"},
		{"invalid_client", "", 401, byKey, func(s *situation) {
			s.AuthMethod = privateKeyJWT
			s.listsNone, s.metadata = true, &clientcredentials.ServerMetadata{TokenEndpointAuthMethodsSupported: []string{"client_secret_post"}}
		}, "method", "change -auth-method to one that the metadata lists: client_secret_post"},
		{"unauthorized_client", "Application with identifier 'x' was not found in the directory", 400, bySecret, nil, "client", "check -client-id, and that"},
		{"invalid_client", "client is disabled", 401, bySecret, nil, "client", "check -client-id, and that"},
		// A client can be called anything, and addresses have no meaning.
		{"invalid_client", "scope-grant-dpop is wrong", 401, bySecret, func(s *situation) { s.ClientID = "Scope-Grant-DPoP" }, "credentials", "check"},
		{"invalid_client", "see https://login.example/scope?grant=dpop", 401, bySecret, nil, "credentials", "check"},

		// About an assertion, in words.
		{"invalid_client", "The audience claim for client_assertion must be the endpoint invoked for the request.", 401, byKey, nil, "audience", "change -assertion-audience, or give -issuer: the server may not accept the aud of the assertion, " + testIssuer},
		{"invalid_client", "Client assertion is not within its valid time range.", 401, byKey, nil, "clock", "correct the clock"},
		{"invalid_client", "The client_assertion token has expired.", 401, byKey, nil, "clock", "correct the clock"},
		{"invalid_client", "The client secret that signed the assertion is expired", 401, byKey, nil, "credentials", "set CLIENT_SECRET to a new secret"},
		{"invalid_client", "The JWT uses signing key with kid 'k1', which could not be found.", 401, byKey, nil, "key id", "change -key-id"},
		{"invalid_client", "The certificate used to sign the assertion is not registered. Reason: the key was not found.", 401, byKey, nil, "key id", "change -key-id"},
		{"invalid_client", "The certificate of the assertion is not registered.", 401, byKey, nil, "key", "have the public key"},
		{"invalid_client", "the assertion uses signing algorithm 'ES256' but the client enforces another one", 401, byKey, nil, "algorithm", "change -algorithm"},
		{"invalid_client", "The client_assertion signature is invalid.", 401, byKey, nil, "key", "have the public key"},

		// About an assertion, without words.
		{"invalid_client", "", 401, byKey, nil, "key", "have the public key"},
		{"invalid_client", "", 401, asserted(`{"alg":"ES256"}`, inTime), nil, "key id", "give -key-id"},
		{"invalid_client", "", 401, asserted(`{"alg":"ES256","x5t#S256":"x"}`, inTime), nil, "key", "have the public key"},
		{"invalid_client", "", 401, asserted(`{"alg":"RS256","kid":"k1"}`, inTime), nil, "algorithm", "for another one than RS256"},
		{"invalid_client", "", 401, byKey, func(s *situation) {
			s.metadata = &clientcredentials.ServerMetadata{TokenEndpointAuthSigningAlgValuesSupported: []string{"PS256"}}
		}, "algorithm", "change -algorithm to one that the metadata lists: PS256"},
		{"invalid_client", "", 401, asserted(`{"alg":"HS256"}`, inTime), nil, "credentials", "check -client-id and CLIENT_SECRET"},
		{"invalid_client", "", 401, asserted(`{"alg":"HS512"}`, inTime), func(s *situation) { s.Algorithm = "HS512" }, "algorithm", "for another one than HS512"},
		{"invalid_client", "", 401, asserted(es256, `{"aud":"https://wrong.example"}`), nil, "audience", "the aud of the assertion, https://wrong.example"},
		{"invalid_client", "", 401, asserted(es256, `{"aud":"https://wrong.example"}`), func(s *situation) { s.AssertionFile = "a" }, "audience", "have the assertion in -assertion-file made for this server"},
		{"invalid_client", "", 401, asserted(es256, `{"aud":"`+testIssuer+`","exp":1799999999}`), func(s *situation) { s.AssertionFile = "a" }, "credentials", "put a new assertion into -assertion-file"},
		{"invalid_client", "", 401, byKey, clockAhead(time.Hour), "clock", "the server's is 1h ahead of"},
		{"invalid_client", "", 401, byKey, clockAhead(-20 * time.Second), "clock", "the server's is 20s behind"},
		{"invalid_client", "", 401, byKey, clockAhead(20 * time.Second), "key", "have the public key"}, // The assertion lives longer.
		{"invalid_client", "", 401, bySecret, clockAhead(time.Hour), "credentials", "check -client-id"},

		// About the endpoint.
		{"", "", 404, bySecret, nil, "endpoint", "change -token-url: it isn't"},
		{"invalid_request", "unrecognized route", 404, bySecret, func(s *situation) {
			s.metadata = &clientcredentials.ServerMetadata{TokenEndpoint: "https://login.example/oauth2/token"}
		}, "endpoint", "the token endpoint in the metadata: https://login.example/oauth2/token"},
		{"invalid_client", "", 404, bySecret, nil, "credentials", "check"}, // Some servers answer this to an unknown client.
		{"server_error", "", 500, bySecret, nil, "server", "try again later"},
		{"temporarily_unavailable", "", 503, bySecret, nil, "server", "try again later"},
		{"invalid_request", "malformed", 400, bySecret, nil, "request", "check -params and -scopes"},
	} {
		t.Run(fmt.Sprint(tt.code, " ", tt.said), func(t *testing.T) {
			s := &situation{
				settings: &settings{clientsettings.Settings{ClientID: "reports", Secret: "s", Issuer: testIssuer, Scopes: "write", Form: url.Values{}}},
				server:   server{endpoint: testTokenURL},
				sent:     []exchange{tt.sent},
			}
			if tt.edit != nil {
				tt.edit(s)
			}
			got := s.diagnose(&oauth2.RetrieveError{Response: &http.Response{StatusCode: tt.status}, ErrorCode: tt.code, ErrorDescription: tt.said})
			assert.Equal(t, tt.subject, got.subject)
			assert.Contains(t, got.change, tt.want)
			assert.Contains(t, got.said, strings.Trim(strconv.Quote(tt.said), `"`), "it was cut")
		})
	}
}

// TestC2_MostTellingRefusal checks which of several refusals the report ends with.
func TestC2_MostTellingRefusal(t *testing.T) {
	const bare = `{"error":"invalid_client"}`
	for _, tt := range []struct{ name, basic, post, last string }{
		{"a wrong secret", bare, bare, `fail  credentials`},
		{"the scope in the second", bare, `{"error":"invalid_scope"}`, `fail  scope`},
		{"the form in the second", `{"error":"invalid_client","error_description":"the secret has expired"}`, `{"error":"invalid_request","error_description":"malformed"}`, `fail  credentials +.*expired`},
		{"the form in the first", `{"error":"invalid_request","error_description":"client_id is missing"}`, bare, `fail  credentials`},
		{"the method in the second", bare, `{"error":"invalid_client","error_description":"the client's token_endpoint_auth_method is client_secret_basic, so this authentication method is wrong"}`, `fail  credentials`},
		{"the audience in the first", `{"error":"access_denied","error_description":"unknown audience"}`, `{}`, `fail  audience`},
		{"words at the end", `{"error":"invalid_client","error_description":"` + strings.Repeat("x ", 200) + ` is a disabled client"}`, bare, `fail  client .* is a disabled client"; check -client-id`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := hostile.Start(t, hostile.JSON(401, bare), hostile.JSON(400, tt.basic), hostile.JSON(400, tt.post))
			r := doctored(t, clientOf(s.URL+"/token").with("CLIENT_SECRET", plainSecret), nil, statusRefused, `(?m)^`+tt.last+`.*\n\z`)
			_, change, _ := strings.Cut(r.stdout, "; ")
			assert.NotEmpty(t, change)
			assert.Contains(t, r.stderr, "no token: ")
		})
	}
}

// TestC2_OddSettings checks that doctor names what the library finds odd in the settings.
func TestC2_OddSettings(t *testing.T) {
	for _, tt := range []struct{ id, secret, body, last string }{
		{canaryID, plainSecret + "\n", `{"error":"invalid_client"}`, `fail  credentials +.*; CLIENT_SECRET contains a line break \(U\+000A\); remove it where CLIENT_SECRET is read$`},
		{canaryID, `"` + plainSecret + `"`, `{"error":"invalid_client"}`, `fail  credentials +.*; CLIENT_SECRET is in quotation marks; remove them where CLIENT_SECRET is read$`},
		{"'" + canaryID + "'", plainSecret, `{"error":"unauthorized_client","error_description":"unknown client"}`, `fail  client +.*; -client-id is in quotation marks; remove them where -client-id is read$`},
		{canaryID, plainSecret + " ", `{"error":"invalid_scope"}`, `fail  scope +.*; give -scopes`},
		{canaryID, plainSecret, `{"error":"invalid_client"}`, `fail  credentials +.*; check -client-id and CLIENT_SECRET`},
	} {
		s := hostile.Start(t, hostile.JSON(401, tt.body))
		doctored(t, clientOf(s.URL+"/token").with("CLIENT_ID", tt.id, "CLIENT_SECRET", tt.secret), nil, statusRefused, `(?m)^`+tt.last)
	}
}

// TestP9_DoctorShowsWords checks what doctor and token make of refusals whose reason isn't in
// the members of OAuth.
func TestP9_DoctorShowsWords(t *testing.T) {
	const nothing = `{"error":"invalid_client"}`
	for _, tt := range []struct {
		name           string
		status         int
		none, answered string // without credentials, and with them
		exit           int
		last           string
	}{
		{"200", 200, nothing, `{"ret":7,"reason":"app disabled"}`, statusRefused, `fail  client +the server answered 200 without an OAuth error: it says reason: app disabled, ret: 7; check -client-id, and that`},
		{"200 from the start", 200, `{"ret":1,"msg":"no appid"}`, `{"ret":7,"msg":"no such app"}`, statusRefused, `fail  client +.*: it says msg: no such app, ret: 7`},
		{"400", 400, nothing, `{"ret":7,"reason":"the scope isn't granted"}`, statusRefused, `fail  scope +the server answered 400 without an OAuth error: it says reason: the scope isn't granted, ret: 7; give -scopes`},
		{"an object", 400, nothing, `{"error":{"code":"E7","message":"wrong app secret"}}`, statusRefused, `fail  credentials +.*: it says error.code: E7, error.message: wrong app secret; check -client-id`},
		{"a list", 403, nothing, `{"errors":[{"title":"no permission"}]}`, statusRefused, `fail  permission +.*: it says errors.title: no permission; have the server's operator`},
		{"beside a code", 401, nothing, `{"error":"unauthorized","message":"grant type is off"}`, statusRefused, `fail  grant +the server refused with unauthorized \(status 401\): it says message: grant type is off; have`},
		{"form-encoded text", 400, nothing, "message=unknown+audience", statusRefused, `fail  request +the server answered 400 without an OAuth error; check`},
		{"names", 200, nothing, `{"ok":false}`, statusUnusable, `fail  client_secret_basic +.*it has "ok"`},
		{"names from the start", 200, `{"ok":false}`, nothing, statusUnusable, `fail  endpoint +.*it has "ok"`},
		{"the secret", 400, nothing, `{"message":"` + plainSecret + ` is a wrong secret"}`, statusRefused, `fail  credentials +.*: it says message: \[redacted\] is a wrong secret; check`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := 401
			if tt.none != nothing {
				first = 200
			}
			s := hostile.Start(t, hostile.JSON(first, tt.none), hostile.JSON(tt.status, tt.answered))
			env := clientOf(s.URL+"/token").with("CLIENT_SECRET", plainSecret)
			r := doctored(t, env, nil, tt.exit, `(?m)^`+tt.last+`.*\n\z`)
			assert.NotContains(t, r.stdout+r.stderr, plainSecret)
			if tt.none == nothing {
				r := cctoken(t, env, "", "token")
				assert.Equal(t, tt.exit, r.status, r.stderr)
			}
		})
	}
}

// TestC6_Params checks that -params allows what EndpointParams allow.
func TestC6_Params(t *testing.T) {
	for _, params := range []string{"grant_type=urn:x:grant", "grant_type=password&username=u", "scope=a", "client_id=x"} {
		t.Run(params, func(t *testing.T) {
			s := hostile.Start(t, hostile.JSON(200, `{"access_token":"x","token_type":"Bearer"}`))
			r := cctoken(t, clientOf(s.URL+"/token"), "", "token", "-params", params)
			assert.Zero(t, r.status, r.stderr)
			assert.Contains(t, s.Requests()[0].Body, url.QueryEscape(strings.SplitN(params, "&", 2)[0][strings.Index(params, "=")+1:]))
		})
	}
	srv := startServer(t)
	doctored(t, srv.env(), []string{"-params", "scope=read"}, 0, lines(`ok    scope +granted as requested: read`, `.*"scope": {"read"},`))
	doctored(t, srv.env(), []string{"-params", "grant_type=urn:x"}, statusRefused, `(?m)^fail  grant +.*change grant_type in -params`)
}

// TestC5_Raw checks when doctor suggests Raw: only if the body doesn't take any secret.
func TestC5_Raw(t *testing.T) {
	for _, tt := range []struct {
		secret  string
		methods []string
		want    string
	}{
		{plainSecret, nil, "oauth2.AuthStyleInParams"},
		{canarySecret, nil, "oauth2.AuthStyleInParams"},
		{plainSecret, []string{secretBasic}, "Raw: true"},
		{canarySecret, []string{secretBasic}, "Raw: true"},
	} {
		srv := startServer(t, clientcredentialstest.Client{ID: canaryID, Secret: tt.secret, RawBasic: true, AuthMethods: tt.methods})
		r := doctored(t, srv.env().with("CLIENT_SECRET", tt.secret), nil, 0, "The Config for it")
		assert.Contains(t, r.stdout, tt.want)
		assert.Equal(t, tt.methods != nil, strings.Contains(r.stdout, "Raw"))
	}
}

// TestC3_Certificate checks what doctor says about a refused certificate: the server may
// not even have asked for it.
func TestC3_Certificate(t *testing.T) {
	own, known := newCertificate(t, nil, time.Hour), newCertificate(t, nil, time.Hour)
	asking := startTLSServer(t, clientcredentialstest.Client{ID: canaryID, Certificates: []*x509.Certificate{known.Leaf}})
	deaf := httptest.NewTLSServer(asking.Auth)
	t.Cleanup(deaf.Close)
	env := environment{"CLIENT_ID": canaryID, "AUTH_METHOD": selfSignedTLS}
	for _, tt := range []struct{ tokenURL, authority, want string }{
		{asking.TokenURL, asking.authority(t), `change -cert-file to the certificate`},
		{deaf.URL + "/token", authorityFile(t, deaf.Certificate()), `change -token-url: at this address the server doesn't ask`},
	} {
		doctored(t, env.with("TOKEN_URL", tt.tokenURL, "CA_FILE", tt.authority), own.flags(), statusRefused, `(?m)^fail  certificate +.*; `+tt.want)
	}
}

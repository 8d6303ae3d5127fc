package clientcredentials

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const goodMetadata = `{"issuer":"ISSUER","token_endpoint":"ISSUER/token"}`

// A metadataSite is a server on the loopback interface that gives its answers in order, and
// then answers 500.
type metadataSite struct {
	issuer  string // the server's address, which replaces ISSUER in the answers
	ctx     context.Context
	answers []metadataAnswer

	mu       sync.Mutex // protects requests
	requests []string   // their methods and paths, and their cookies or credentials
}

type metadataAnswer struct {
	status  int // 0: 200
	header  http.Header
	body    string
	instead http.HandlerFunc // answers, if it is set
}

func says200(body string) metadataAnswer { return metadataAnswer{body: body} }
func says404() metadataAnswer            { return metadataAnswer{status: http.StatusNotFound} }

func newMetadataSite(t *testing.T, start func(http.Handler) *httptest.Server, path string, answers ...metadataAnswer) *metadataSite {
	site := &metadataSite{answers: answers}
	server := start(site)
	t.Cleanup(server.Close)
	site.issuer = server.URL + path
	site.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, server.Client())
	return site
}

func (s *metadataSite) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, req.Method+" "+req.RequestURI+" "+req.Header.Get("Cookie")+req.Header.Get("Authorization"))
	s.mu.Unlock()
	a := metadataAnswer{status: http.StatusInternalServerError}
	if n < len(s.answers) {
		a = s.answers[n]
	}
	if a.instead != nil {
		a.instead(w, req)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(cmp.Or(a.status, http.StatusOK))
	_, _ = io.WriteString(w, strings.ReplaceAll(a.body, "ISSUER", s.issuer))
}

func (s *metadataSite) received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func TestDiscoverAsks(t *testing.T) {
	t.Parallel()
	for path, locations := range map[string][]string{
		"":           {"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"},
		"/a/b":       {"/.well-known/oauth-authorization-server/a/b", "/a/b/.well-known/openid-configuration", "/.well-known/openid-configuration/a/b"},
		"/a/":        {"/.well-known/oauth-authorization-server/a", "/a/.well-known/openid-configuration", "/.well-known/openid-configuration/a"},
		"/a%2Fb%20c": {"/.well-known/oauth-authorization-server/a%2Fb%20c", "/a%2Fb%20c/.well-known/openid-configuration", "/.well-known/openid-configuration/a%2Fb%20c"},
	} {
		t.Run("path "+path, func(t *testing.T) {
			t.Parallel()
			var want []string
			for i, location := range locations {
				want = append(want, "GET "+location+" ")
				answers := append(slices.Repeat([]metadataAnswer{says404()}, i), says200(goodMetadata))
				site := newMetadataSite(t, httptest.NewTLSServer, path, answers...)
				m, err := Discover(site.ctx, site.issuer)
				require.NoError(t, err)
				require.Equal(t, &ServerMetadata{Issuer: site.issuer, TokenEndpoint: site.issuer + "/token"}, m)
				require.Equal(t, want, site.received())
			}
			site := newMetadataSite(t, httptest.NewTLSServer, path, says404(), says404(), says404())
			_, err := Discover(site.ctx, site.issuer)
			for _, location := range locations {
				require.ErrorContains(t, err, location+" answered 404")
			}
			require.Equal(t, want, site.received())
		})
	}
}

// wholeMetadata has every member of ServerMetadata, and others.
const wholeMetadata = `{
	"issuer": "ISSUER",
	"authorization_endpoint": "http://elsewhere.example/authorize#x",
	"token_endpoint": "https://tokens.example/token?tenant=1",
	"token_endpoint_auth_methods_supported": ["private_key_jwt", "tls_client_auth"],
	"token_endpoint_auth_signing_alg_values_supported": ["ES256"],
	"scopes_supported": ["read", "write"],
	"grant_types_supported": ["client_credentials"],
	"dpop_signing_alg_values_supported": ["EdDSA"],
	"mtls_endpoint_aliases": {"token_endpoint": "https://mtls.example/token", "jwks_uri": 1},
	"tls_client_certificate_bound_access_tokens": true,
	"jwks_uri": "https://keys.example/",
	"revocation_endpoint": "https://auth.example/revoke",
	"introspection_endpoint": "https://auth.example/introspect",
	"Token_Endpoint": "https://other.example/",
	"unknown": {"issuer": [1e999, null]}, "unknown": 2
}`

func TestDiscoverReadsAll(t *testing.T) {
	site := newMetadataSite(t, httptest.NewTLSServer, "", says200("\xef\xbb\xbf"+wholeMetadata))
	m, err := Discover(site.ctx, site.issuer)
	require.NoError(t, err)
	require.Equal(t, &ServerMetadata{
		Issuer:                            site.issuer,
		TokenEndpoint:                     "https://tokens.example/token?tenant=1",
		TokenEndpointAuthMethodsSupported: []string{"private_key_jwt", "tls_client_auth"},
		TokenEndpointAuthSigningAlgValuesSupported: []string{"ES256"},
		ScopesSupported:                       []string{"read", "write"},
		GrantTypesSupported:                   []string{"client_credentials"},
		DPoPSigningAlgValuesSupported:         []string{"EdDSA"},
		MTLSEndpointAliases:                   MTLSEndpointAliases{TokenEndpoint: "https://mtls.example/token"},
		TLSClientCertificateBoundAccessTokens: true,
		JWKSURI:                               "https://keys.example/",
		RevocationEndpoint:                    "https://auth.example/revoke",
		IntrospectionEndpoint:                 "https://auth.example/introspect",
	}, m)
	for i := range reflect.ValueOf(*m).NumField() {
		require.False(t, reflect.ValueOf(*m).Field(i).IsZero(), "the test covers every field")
	}

	kept, err := json.Marshal(m)
	require.NoError(t, err)
	again := new(ServerMetadata)
	require.NoError(t, json.Unmarshal(kept, again))
	require.Equal(t, m, again)
	kept, err = json.Marshal(ServerMetadata{Issuer: "https://a.example"})
	require.NoError(t, err)
	require.JSONEq(t, `{"issuer":"https://a.example"}`, string(kept))
}

// long is longer than what an error may quote.
var long = strings.Repeat("Z", 5000)

func TestDiscoverHostileAnswers(t *testing.T) {
	t.Parallel()
	redirect := func(target string) metadataAnswer {
		return metadataAnswer{status: 302, header: http.Header{"Location": {target}}}
	}
	html := metadataAnswer{header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, body: "<!DOCTYPE html><p>" + long}
	with := func(members string) metadataAnswer {
		return says200(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token",` + members + "}")
	}
	issuer := func(name string) metadataAnswer { return says200(`{"issuer":"` + name + `"}`) }
	good := says200(goodMetadata)
	type testCase struct {
		name     string
		answers  []metadataAnswer
		requests int    // how many of the two locations are asked
		err      string // empty: none
	}
	tests := []testCase{
		// The metadata isn't here: the next location is asked.
		{"400 with a page", []metadataAnswer{{status: 400, body: long}, good}, 2, ""},
		{"206", []metadataAnswer{{status: 206, body: goodMetadata}, says404()}, 2, "answered 206"},
		{"HTML only", []metadataAnswer{html, html}, 2, `answered with something else than a JSON object (media type "text/html")`},
		{"HTML as JSON", []metadataAnswer{says200("<p>"), says404()}, 2, `answered with something else than a JSON object (media type "application/json")`},
		{"JSON without media type", []metadataAnswer{{header: http.Header{"Content-Type": nil}, body: goodMetadata}}, 1, ""},
		{"long media type", []metadataAnswer{{header: http.Header{"Content-Type": {"a/" + long}}}, says404()}, 2, "something else than a JSON object"},

		// Redirects are not followed.
		{"redirect to the next location", []metadataAnswer{redirect("/.well-known/openid-configuration"), says404()}, 2, "answered 302, a redirect to \"https://127.0.0.1:"},
		{"redirect elsewhere", []metadataAnswer{{status: 308, header: http.Header{"Location": {"https://user:s3cr3t@evil.example/x?token=s3cr3t"}}}, says404()}, 2, `answered 308, a redirect to "https://evil.example:443", which is not followed (if the issuer has moved there, use its final identifier);`},
		{"Location that can't be parsed", []metadataAnswer{redirect("https://[" + long), good}, 1, "failed to parse Location header"},

		// Load and faults: the next location isn't asked.
		{"no answer", []metadataAnswer{{instead: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}, good}, 1, "EOF"},
		{"not HTTP", []metadataAnswer{{instead: hijacked(long + "\r\n\r\n")}, good}, 1, "malformed HTTP"},
		{"half an answer", []metadataAnswer{{instead: hijacked("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")}, good}, 1, "ended early: unexpected EOF"},
		{"huge", []metadataAnswer{with(`"x":"` + strings.Repeat("x", maxResponseBody) + `"`), good}, 1, "is larger than 1 MiB"},

		// Metadata that is refused: the next location isn't asked.
		{"another issuer", []metadataAnswer{issuer("https://evil.example"), good}, 1, `it is that of the issuer "https://evil.example"; if that is the server you mean, use exactly this identifier`},
		{"the issuer with a slash", []metadataAnswer{issuer("ISSUER/"), good}, 1, `/"; if that is`},
		{"the issuer in other case", []metadataAnswer{issuer("HTTPS://127.0.0.1")}, 1, `it is that of the issuer "HTTPS://`},
		{"long issuer", []metadataAnswer{issuer(long), good}, 1, `it is that of the issuer "ZZZ`},
		{"hostile issuer", []metadataAnswer{issuer(`a\u001b[2J\r\nb\u202ec\u0000d` + "\xff"), good}, 1, `it is that of the issuer "a\x1b[2J\r\nb\u202ec\x00d`},
		{"repeated member", []metadataAnswer{with(`"\u0074oken_endpoint":"https://evil.example"`), good}, 1, "token_endpoint appears more than once"},
		{"repeated alias", []metadataAnswer{with(`"mtls_endpoint_aliases":{"token_endpoint":"https://a.example","token_endpoint":"https://b.example"}`), good}, 1, "mtls_endpoint_aliases: token_endpoint appears more than once"},
		{"other letter case", []metadataAnswer{with(`"Token_Endpoint":"https://evil.example","ISSUE\u0052":"x"`)}, 1, ""},
		{"wrong type", []metadataAnswer{with(`"scopes_supported":"` + long + `"`), good}, 1, "scopes_supported is not a list of strings"},

		// Addresses.
		{"no token endpoint", []metadataAnswer{issuer("ISSUER")}, 1, ""},
		{"alias", []metadataAnswer{with(`"mtls_endpoint_aliases":{"token_endpoint":"http://a.example"}`), good}, 1, "token_endpoint in mtls_endpoint_aliases is not https"},
	}
	for _, status := range []int{204, 401, 403, 404, 405, 410} {
		tests = append(tests, testCase{fmt.Sprint(status), []metadataAnswer{{status: status}, good}, 2, ""})
	}
	for _, status := range []int{408, 429, 500, 503} {
		tests = append(tests, testCase{fmt.Sprint(status), []metadataAnswer{{status: status, body: long}, good}, 1, fmt.Sprintf("answered %d; try again later", status)})
	}
	for _, name := range []string{"jwks_uri", "revocation_endpoint", "introspection_endpoint"} {
		tests = append(tests, testCase{name, []metadataAnswer{with(`"` + name + `":"http://a.example"`), good}, 1, name + " is not https"})
	}
	for want, addresses := range map[string][]string{
		"is not a whole URL":                 {"javascript:alert(1)", "/token", "https:///token", `https://a.example/\r\n`},
		"is not https":                       {"javascript://a.example/%0aalert(1)", "http://a.example/token", "http://127.0.0.1/token"},
		"contains a user name or a fragment": {"https://user@a.example/", "https://a.example/#"},
	} {
		for _, address := range addresses {
			tests = append(tests, testCase{address, []metadataAnswer{says200(`{"issuer":"ISSUER","token_endpoint":"` + address + `"}`), good}, 1, "token_endpoint " + want})
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			site := newMetadataSite(t, httptest.NewTLSServer, "", test.answers...)
			m, err := Discover(site.ctx, site.issuer)
			require.Len(t, site.received(), test.requests)
			if test.err == "" {
				require.NoError(t, err)
				require.Equal(t, site.issuer, m.Issuer)
				return
			}
			require.ErrorContains(t, err, test.err)
			require.Nil(t, m)
			requireModest(t, err, "oauth2: ")
		})
	}
}

// requireModest checks that an error quotes little of what a server says, and no secret.
func requireModest(t *testing.T, err error, prefix string) {
	t.Helper()
	require.Regexp(t, "^"+prefix, err.Error())
	requireHarmless(t, err.Error())
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "s3cr3t")
	require.LessOrEqual(t, len(err.Error()), 1200) // 1 KiB of a network error, and our words.
}

// hijacked writes an answer that the server of net/http wouldn't write.
func hijacked(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer)
		conn.Close()
	}
}

func TestDiscoverOverHTTP(t *testing.T) {
	for endpoint, good := range map[string]bool{
		"ISSUER/token":                     true,
		"http://localhost:1234/token":      true,
		"http://a.example/token":           false,
		"http://127.0.0.1.a.example/token": false,
	} {
		site := newMetadataSite(t, httptest.NewServer, "/tenant", says200(strings.Replace(goodMetadata, "ISSUER/token", endpoint, 1)))
		_, err := Discover(site.ctx, site.issuer)
		require.Equal(t, good, err == nil, endpoint)
		require.True(t, good || strings.Contains(err.Error(), "token_endpoint is not https"), "%v", err)
	}
}

func TestDiscoverRefusesIssuer(t *testing.T) {
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
		t.Error("a request was sent")
		return nil, errors.New("no")
	})})
	for want, issuers := range map[string][]string{
		"is empty":                         {""},
		"is not a whole URL":               {"s3cr3t", "//s3cr3t.example", "https:s3cr3t.example", "https://", "https://:443", "ftp://127.0.0.1"},
		"cannot be parsed":                 {"https://a.example\n", "https://a.example/\x1b", "https://[s3cr3t"},
		"is http":                          {"http://a.example", "HTTP://a.example", "http://10.0.0.1"},
		"contains a user name or password": {"https://user:s3cr3t@a.b", "https://@a.example"},
		"contains a query or a fragment":   {"https://a.example?s3cr3t", "https://a.example/?", "https://a.example/x#s3cr3t", "https://a.example/x#"},
	} {
		for _, issuer := range issuers {
			_, err := Discover(ctx, issuer)
			requireModest(t, err, "oauth2: cannot discover: the issuer "+want)
		}
	}
}

func TestDiscoverContext(t *testing.T) {
	_, err := Discover(nil, "https://a.example") //nolint:staticcheck // That nil is what is tested.
	require.EqualError(t, err, "oauth2: the context is nil; pass context.Background() if there is no other")
	_, err = Discover(context.WithValue(t.Context(), oauth2.HTTPClient, (*http.Client)(nil)), "https://a.example")
	require.EqualError(t, err, "oauth2: the *http.Client in the context under oauth2.HTTPClient is nil")

	site := newMetadataSite(t, httptest.NewTLSServer, "")
	ctx, cancel := context.WithCancel(site.ctx)
	cancel()
	_, err = Discover(ctx, site.issuer)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, site.received())
}

func TestDiscoverTakesTenSeconds(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		requests := 0
		client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			requests++
			select { // The limit applies to all locations together.
			case <-time.After(6 * time.Second):
				return reply{status: 404}.response(req), nil
			case <-req.Context().Done():
				return nil, context.Cause(req.Context())
			}
		})}
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, client)
		start := time.Now()
		_, err := Discover(ctx, "https://a.example/x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "it took longer than 10s")
		require.Equal(t, 10*time.Second, time.Since(start))
		require.Equal(t, 2, requests)
	})
}

// The Transport and Timeout of the client in the context are used, but not its Jar. The
// client isn't changed.
func TestDiscoverClient(t *testing.T) {
	site := newMetadataSite(t, httptest.NewTLSServer, "", metadataAnswer{
		status: 302,
		header: http.Header{"Location": {"/"}, "Set-Cookie": {"b=2"}},
	}, says200(goodMetadata))
	client := site.ctx.Value(oauth2.HTTPClient).(*http.Client)
	u, err := url.Parse(site.issuer)
	require.NoError(t, err)
	client.Jar, err = cookiejar.New(nil)
	require.NoError(t, err)
	cookies := []*http.Cookie{{Name: "a", Value: "1"}}
	client.Jar.SetCookies(u, cookies)
	_, err = Discover(site.ctx, site.issuer)
	require.NoError(t, err)
	require.Equal(t, []string{"GET /.well-known/oauth-authorization-server ", "GET /.well-known/openid-configuration "}, site.received())
	require.Len(t, client.Jar.Cookies(u), 1)
	require.Nil(t, client.CheckRedirect)

	client.Timeout = 1
	_, err = Discover(site.ctx, site.issuer)
	var timeout interface{ Timeout() bool }
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

// A namedAuth is a ClientAuth that has only a name.
type namedAuth struct{ method, note string }

func (a *namedAuth) Method() string                               { return a.method }
func (a *namedAuth) Authenticate(context.Context, *Attempt) error { return nil }

// A namedCertificate is a CertificateAuth that has only a name.
type namedCertificate struct {
	CertificateAuth
	method string
}

func (a namedCertificate) Method() string { return a.method }

func TestServerMetadataConfig(t *testing.T) {
	const alias = "https://mtls.example/token"
	auth := func(method string) ClientAuth { return &namedAuth{method, ""} }
	var (
		key, otherKey    = &namedAuth{"private_key_jwt", "1"}, &namedAuth{"private_key_jwt", "2"}
		mac              = auth("client_secret_jwt")
		basic            = auth("client_secret_basic")
		post             = auth("client_secret_post")
		attest           = auth("attest_jwt_client_auth")
		certificate      = namedCertificate{method: "tls_client_auth"}
		keyOnCertificate = namedCertificate{method: "private_key_jwt"}
	)
	everything := []string{"client_secret_post", "client_secret_basic", "client_secret_jwt", "private_key_jwt", "tls_client_auth", "attest_jwt_client_auth"}
	for _, test := range []struct {
		name    string
		change  func(*ServerMetadata)
		accepts []string
		methods []ClientAuth
		want    Config // without the fields that every Config has
		err     string
	}{
		{"a secret, no list", nil, nil, nil, Config{AuthStyle: oauth2.AuthStyleInHeader}, ""},
		{"a secret, both", nil, everything, nil, Config{AuthStyle: oauth2.AuthStyleInHeader}, ""},
		{"a secret, post", nil, []string{"none", "client_secret_post"}, nil, Config{AuthStyle: oauth2.AuthStyleInParams}, ""},
		{"a secret, neither", nil, []string{"none", "private_key_jwt"}, nil, Config{}, `clients authenticate to the server by ["none" "private_key_jwt"], and not with a ClientSecret alone; give a ClientAuth for one of these`},

		{"no list", nil, nil, []ClientAuth{key, basic}, Config{ClientAuth: basic}, ""},
		{"no list, none in common", nil, nil, []ClientAuth{key}, Config{}, `clients authenticate to the server by ["client_secret_basic"], and none of ["private_key_jwt"] is among them`},
		{"none in common", nil, []string{"private_key_jwt", "Client_Secret_Post"}, []ClientAuth{mac, post}, Config{}, `by ["private_key_jwt" "Client_Secret_Post"], and none of ["client_secret_jwt" "client_secret_post"] is among them; give one that is, or set ClientAuth without metadata`},
		{"nil", nil, everything, []ClientAuth{post, nil}, Config{}, "one of the given methods is nil; leave it out"},

		{"all", nil, everything, []ClientAuth{post, basic, mac, key}, Config{ClientAuth: key}, ""},
		{"all but keys", nil, everything[:3], []ClientAuth{post, basic, mac, key}, Config{ClientAuth: mac}, ""},
		{"all that send the secret", nil, everything[:2], []ClientAuth{post, basic, mac, key}, Config{ClientAuth: basic}, ""},
		{"post", nil, everything[:1], []ClientAuth{post, basic, mac, key}, Config{ClientAuth: post}, ""},
		{"two with the same name", nil, everything, []ClientAuth{post, otherKey, key}, Config{ClientAuth: otherKey}, ""},
		{"a certificate or a key", nil, everything, []ClientAuth{certificate, key}, Config{ClientAuth: certificate, TokenURL: alias}, ""},
		{"a key or a certificate", nil, everything, []ClientAuth{key, certificate}, Config{ClientAuth: key}, ""},
		{"an unknown method and the weakest", nil, everything, []ClientAuth{attest, post}, Config{ClientAuth: post}, ""},

		{"a key in the handshake", nil, everything, []ClientAuth{keyOnCertificate}, Config{ClientAuth: keyOnCertificate, TokenURL: alias}, ""},
		{"no alias", func(m *ServerMetadata) { m.MTLSEndpointAliases.TokenEndpoint = "" }, everything, []ClientAuth{certificate}, Config{ClientAuth: certificate}, ""},
		{"an alias only", func(m *ServerMetadata) { m.TokenEndpoint = "" }, everything, []ClientAuth{certificate}, Config{ClientAuth: certificate, TokenURL: alias}, ""},
		{"no token endpoint", func(m *ServerMetadata) { m.TokenEndpoint = "" }, nil, nil, Config{}, "it has no token_endpoint"},

		{"the grant is missing", func(m *ServerMetadata) { m.GrantTypesSupported = []string{"authorization_code", long} }, nil, nil, Config{}, `the server doesn't grant client_credentials, only ["authorization_code" "ZZZ`},

		// Metadata may come from a file.
		{"a token endpoint on http", func(m *ServerMetadata) { m.TokenEndpoint = "http://a.example" }, nil, nil, Config{}, "token_endpoint is not https"},
		{"no issuer", func(m *ServerMetadata) { m.Issuer = "" }, nil, nil, Config{}, "the issuer is empty"},
		{"an alias on http", func(m *ServerMetadata) { m.MTLSEndpointAliases.TokenEndpoint = "http://a.example" }, everything, []ClientAuth{certificate}, Config{}, "token_endpoint in mtls_endpoint_aliases is not https"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &ServerMetadata{
				Issuer:                            "https://issuer.example/x",
				TokenEndpoint:                     "https://tokens.example/token",
				TokenEndpointAuthMethodsSupported: test.accepts,
				MTLSEndpointAliases:               MTLSEndpointAliases{TokenEndpoint: alias},
			}
			if test.change != nil {
				test.change(m)
			}
			conf, err := m.Config("id", test.methods...)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				require.Nil(t, conf)
				requireModest(t, err, "oauth2: ")
				return
			}
			require.NoError(t, err)
			test.want.ClientID, test.want.Issuer = "id", m.Issuer
			if test.want.TokenURL == "" {
				test.want.TokenURL = m.TokenEndpoint
			}
			require.Equal(t, &test.want, conf)
		})
	}
}

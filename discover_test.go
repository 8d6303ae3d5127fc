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
	"sync/atomic"
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
	server.Client().Transport.(*http.Transport).DisableKeepAlives = true // net/http would repeat requests that a used connection loses.
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

func TestD5_Locations(t *testing.T) {
	t.Parallel()
	for issuer, path := range map[string]string{"": "", "/": "", "/a/b": "/a/b", "/a/": "/a", "/a%2Fb%20c": "/a%2Fb%20c"} {
		t.Run("issuer "+issuer, func(t *testing.T) {
			t.Parallel()
			locations := []string{"/.well-known/oauth-authorization-server" + path, "/.well-known/openid-configuration" + path}
			if path != "" {
				locations = append(locations, path+"/.well-known/openid-configuration", path+"/.well-known/oauth-authorization-server")
			}
			var want []string
			for i, location := range locations {
				want = append(want, "GET "+location+" ")
				answers := append(slices.Repeat([]metadataAnswer{says404()}, i), says200(goodMetadata))
				site := newMetadataSite(t, httptest.NewTLSServer, issuer, answers...)
				m, err := Discover(site.ctx, site.issuer)
				require.NoError(t, err)
				require.Equal(t, &ServerMetadata{Issuer: site.issuer, TokenEndpoint: site.issuer + "/token"}, m)
				require.Equal(t, want, site.received())
			}
			site := newMetadataSite(t, httptest.NewTLSServer, issuer, slices.Repeat([]metadataAnswer{says404()}, len(locations))...)
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
	requireWhole(t, m)
	kept, err := json.Marshal(ServerMetadata{Issuer: "https://a.example"})
	require.NoError(t, err)
	require.JSONEq(t, `{"issuer":"https://a.example"}`, string(kept))
}

// requireWhole requires that the test covers every field of m, and that m survives as JSON.
func requireWhole[T any](t *testing.T, m *T) {
	t.Helper()
	for i := range reflect.ValueOf(*m).NumField() {
		require.False(t, reflect.ValueOf(*m).Field(i).IsZero(), "the test covers every field")
	}
	kept, err := json.Marshal(m)
	require.NoError(t, err)
	again := new(T)
	require.NoError(t, json.Unmarshal(kept, again))
	require.Equal(t, m, again)
}

// long is longer than what an error may quote.
var long = strings.Repeat("Z", 5000)

func redirects(status int, target string) metadataAnswer {
	return metadataAnswer{status: status, header: http.Header{"Location": {target}}}
}

// An outcome is what an answer of a location leads to if the other location has nothing.
type outcome struct {
	name   string
	answer metadataAnswer
	err    string
}

// requireOutcomes checks that after each of these answers Discover finds good metadata at the
// next location, and if there is none, what it says.
func requireOutcomes(t *testing.T, temporary bool, outcomes ...outcome) {
	t.Helper()
	for _, o := range outcomes {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			site := newMetadataSite(t, httptest.NewTLSServer, "", o.answer, says200(goodMetadata))
			m, err := Discover(site.ctx, site.issuer)
			require.NoError(t, err)
			require.Equal(t, site.issuer, m.Issuer)
			require.Len(t, site.received(), 2)

			for _, answers := range [][]metadataAnswer{{o.answer, says404()}, {says404(), o.answer}, {o.answer, o.answer}} {
				site := newMetadataSite(t, httptest.NewTLSServer, "", answers...)
				m, err := Discover(site.ctx, site.issuer)
				require.Nil(t, m)
				require.ErrorContains(t, err, o.err)
				require.Equal(t, temporary, IsTemporary(err))
				advice := map[bool]string{true: "try again later", false: "check the issuer"}[temporary]
				require.Regexp(t, "; "+advice+", or set TokenURL instead$", err.Error())
				requireModest(t, err, "oauth2: cannot discover ")
				require.Len(t, site.received(), 2)
			}
		})
	}
}

func TestD1_FailuresThatPass(t *testing.T) {
	t.Parallel()
	var outcomes []outcome
	for _, status := range []int{408, 429, 500, 502, 503, 504} {
		answer := metadataAnswer{status: status, body: long, header: http.Header{"Retry-After": {"120"}}}
		outcomes = append(outcomes, outcome{fmt.Sprint(status), answer, fmt.Sprintf("answered %d", status)})
	}
	requireOutcomes(t, true, append(outcomes,
		outcome{"closed", metadataAnswer{instead: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}, "EOF"},
		outcome{"half an answer", metadataAnswer{instead: hijacked("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")}, "ended early: unexpected EOF"},
		outcome{"half a chunk", metadataAnswer{instead: hijacked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}")}, "ended early: unexpected EOF"},
		outcome{"not HTTP", metadataAnswer{instead: hijacked(long + "\r\n\r\n")}, "malformed HTTP"},
		outcome{"Location that can't be parsed", redirects(302, "https://["+long), "failed to parse Location header"},
		outcome{"not gzip", metadataAnswer{header: http.Header{"Content-Encoding": {"gzip"}}, body: goodMetadata}, "ended early: gzip: invalid header"},
	)...)
}

// The answer that may pass decides, and a program can read how long to wait.
func TestD1_AnswerIsWrapped(t *testing.T) {
	site := newMetadataSite(t, httptest.NewTLSServer, "/a", redirects(302, "/"), metadataAnswer{status: 503, body: long, header: http.Header{"Retry-After": {"120"}}}, says200("{}"), says404())
	_, err := Discover(site.ctx, site.issuer)
	var answer *oauth2.RetrieveError
	require.ErrorAs(t, err, &answer)
	require.Equal(t, 503, answer.Response.StatusCode)
	require.Equal(t, "120", answer.Response.Header.Get("Retry-After"))
	require.Empty(t, answer.Body)
	require.Regexp(t, "answered 302, .*; .* answered 503; .* has no issuer .*; .* answered 404; try again later, or set", err.Error())

	site = newMetadataSite(t, httptest.NewTLSServer, "", says404(), says404())
	_, err = Discover(site.ctx, site.issuer)
	require.NotErrorAs(t, err, &answer, "a 404 isn't a refusal of the client")
}

func TestD1_OtherFailures(t *testing.T) {
	t.Parallel()
	outcomes := []outcome{
		{"400 with a page", metadataAnswer{status: 400, body: long}, "answered 400"},
		{"206", metadataAnswer{status: 206, body: goodMetadata}, "answered 206"},
		{"switching protocols", metadataAnswer{instead: hijacked("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")}, "answered 101"},
		{"huge", says200(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token","x":"` + strings.Repeat("x", maxResponseBody) + `"}`), "is larger than 1 MiB"},

		// Redirects are not followed.
		{"redirect to the next location", redirects(302, "/.well-known/openid-configuration"), "answered 302, a redirect to \"https://127.0.0.1:"},
		{"redirect elsewhere", redirects(308, "https://user:s3cr3t@evil.example/x?token=s3cr3t"), `answered 308, a redirect to "https://evil.example:443", which is not followed (if the issuer has moved there, use its final identifier);`},
	}
	for _, status := range []int{204, 401, 403, 404, 405, 410, 501} {
		outcomes = append(outcomes, outcome{fmt.Sprint(status), metadataAnswer{status: status}, fmt.Sprintf("answered %d", status)})
	}
	requireOutcomes(t, false, outcomes...)
}

func TestD2_NoMetadata(t *testing.T) {
	t.Parallel()
	requireOutcomes(t, false,
		outcome{"HTML", metadataAnswer{header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, body: "<!DOCTYPE html><p>" + long}, `answered with something else than a JSON object (media type "text/html")`},
		outcome{"HTML as JSON", says200("<p>"), `answered with something else than a JSON object (media type "application/json")`},
		outcome{"a long media type", metadataAnswer{header: http.Header{"Content-Type": {"a/" + long}}}, "something else than a JSON object"},
		outcome{"a list", says200("[" + goodMetadata + "]"), "something else than a JSON object"},
		outcome{"null", says200("null"), "something else than a JSON object"},
		outcome{"an empty object", says200("{}"), "it has no issuer and no token_endpoint"},
		outcome{"an error", says200(`{"error":"not_found","status":404}`), "it has no issuer and no token_endpoint"},
		outcome{"null members", says200(`{"issuer":null,"token_endpoint":null}`), "it has no issuer and no token_endpoint"},
		outcome{"members in other letter case", says200(`{"Issuer":"ISSUER","Token_Endpoint":"ISSUER/token"}`), "it has no issuer and no token_endpoint"},
		outcome{"an issuer only", says200(`{"issuer":"ISSUER"}`), "it has no token_endpoint"},
		outcome{"an empty token endpoint", says200(`{"issuer":"ISSUER","token_endpoint":"","mtls_endpoint_aliases":{}}`), "it has no token_endpoint"},
		outcome{"the configuration of something else", says200(`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`), "it has no token_endpoint"},
	)
	site := newMetadataSite(t, httptest.NewTLSServer, "", says200(`{"issuer":"ISSUER","mtls_endpoint_aliases":{"token_endpoint":"ISSUER/m"}}`))
	m, err := Discover(site.ctx, site.issuer)
	require.NoError(t, err, "a token endpoint for certificates is enough")
	require.Equal(t, site.issuer+"/m", m.MTLSEndpointAliases.TokenEndpoint)
}

func TestD3_WhatIsUsedIsStrict(t *testing.T) {
	t.Parallel()
	with := func(members string) metadataAnswer {
		return says200(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token",` + members + "}")
	}
	outcomes := []outcome{
		{"repeated issuer", with(`"issuer":"ISSUER"`), "issuer appears more than once"},
		{"repeated token endpoint", with(`"\u0074oken_endpoint":"https://evil.example"`), "token_endpoint appears more than once"},
		{"nothing but an alias on http", says200(`{"issuer":"ISSUER","mtls_endpoint_aliases":{"token_endpoint":"http://a.example"}}`), "it has no token_endpoint"},
		{"methods of another type", with(`"token_endpoint_auth_methods_supported":"` + long + `"`), "token_endpoint_auth_methods_supported is not a list of strings"},
		{"issuer of another type", says200(`{"issuer":["ISSUER"],"token_endpoint":"ISSUER/token"}`), "issuer is not a string"},
	}
	for want, addresses := range map[string][]string{
		"is not a whole URL":                 {"javascript:alert(1)", "/token", "https:///token", `https://a.example/\r\n`},
		"is not https":                       {"javascript://a.example/%0aalert(1)", "http://a.example/token", "http://127.0.0.1/token"},
		"contains a user name or a fragment": {"https://user@a.example/", "https://a.example/#"},
		"is a template":                      {"https://a.example/{tenantid}/token", "https://{tenant}.a.example/token", "https://a.example/%7btenant%7D/token", "https://a.example/<tenant>/token", "https://a.example/token?p={policy}"},
	} {
		for _, address := range addresses {
			outcomes = append(outcomes, outcome{address, says200(`{"issuer":"ISSUER","token_endpoint":"` + address + `"}`), "token_endpoint " + want})
		}
	}
	requireOutcomes(t, false, outcomes...)
}

// Members that a client credentials client doesn't need may be wrong in any way, and then
// their fields are zero.
func TestD3_WhatIsNotUsed(t *testing.T) {
	t.Parallel()
	var members []string
	for _, name := range []string{"jwks_uri", "revocation_endpoint", "introspection_endpoint"} {
		for _, value := range []string{`"http://a.example"`, `"/keys"`, `"https://a.example/{tenant}"`, `"https://u@a.example"`, `""`, `["https://a.example"]`, "5", "null", "{}"} {
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		}
		members = append(members, fmt.Sprintf(`%[1]q:"https://a.example",%[1]q:"https://b.example"`, name))
	}
	for _, name := range []string{"scopes_supported", "grant_types_supported", "token_endpoint_auth_signing_alg_values_supported", "dpop_signing_alg_values_supported"} {
		for _, value := range []string{`"read write"`, `{"read":true}`, `["read",5]`, "false", "null", `["read"],"` + name + `":["write"]`} {
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		}
	}
	members = append(members, `"tls_client_certificate_bound_access_tokens":"true"`, `"tls_client_certificate_bound_access_tokens":1`,
		`"tls_client_certificate_bound_access_tokens":true,"tls_client_certificate_bound_access_tokens":true`,
		`"Token_Endpoint":"https://evil.example","ISSUE\u0052":"x"`, `"userinfo_endpoint":5,"userinfo_endpoint":"http://a.example"`,
		`"mtls_endpoint_aliases":{"revocation_endpoint":"http://a.example","jwks_uri":1}`, `"mtls_endpoint_aliases":null`,
		`"mtls_endpoint_aliases":[]`, `"mtls_endpoint_aliases":""`, `"mtls_endpoint_aliases":{"token_endpoint":"http://a.example"}`, `"mtls_endpoint_aliases":{"token_endpoint":5}`,
		`"mtls_endpoint_aliases":{"token_endpoint":"https://a.example","token_endpoint":"https://b.example"}`, `"token_endpoint_auth_methods_supported":null`)
	for _, wrong := range members {
		m, err := parseMetadata([]byte(`{"issuer":"https://a.example","token_endpoint":"https://a.example/token",`+wrong+"}"), "https://a.example")
		require.NoError(t, err, wrong)
		require.Equal(t, &ServerMetadata{Issuer: "https://a.example", TokenEndpoint: "https://a.example/token"}, m, wrong)
	}
	site := newMetadataSite(t, httptest.NewTLSServer, "", metadataAnswer{header: http.Header{"Content-Type": nil}, body: goodMetadata})
	_, err := Discover(site.ctx, site.issuer)
	require.NoError(t, err, "the media type doesn't matter")
}

func TestD4_AnotherIssuer(t *testing.T) {
	t.Parallel()
	issuer := func(name string) metadataAnswer {
		return says200(`{"issuer":"` + name + `","token_endpoint":"https://evil.example/token"}`)
	}
	requireOutcomes(t, false,
		outcome{"another issuer", issuer("https://evil.example"), `it is that of the issuer "https://evil.example"; if that is the server you mean, use exactly this identifier`},
		outcome{"another issuer without token endpoint", says200(`{"issuer":"https://evil.example"}`), `it is that of the issuer "https://evil.example"; if`},
		outcome{"the issuer with a slash", issuer("ISSUER/"), `/"; if that is`},
		outcome{"the issuer in other letter case", issuer("HTTPS://127.0.0.1"), `it is that of the issuer "HTTPS://`},
		outcome{"long issuer", issuer(long), `it is that of the issuer "ZZZ`},
		outcome{"hostile issuer", issuer(`a\u001b[2J\r\nb\u202ec\u0000d` + "\xff"), `it is that of the issuer "a\x1b[2J\r\nb\u202ec\x00d`},
		outcome{"no issuer", says200(`{"token_endpoint":"ISSUER/token"}`), "it has no issuer, so nobody can tell whose it is; "},
		outcome{"null", says200(`{"issuer":null,"token_endpoint":"ISSUER/token"}`), "it has no issuer, so nobody can tell whose it is; "},
		outcome{"empty issuer", issuer(""), "it has no issuer, so nobody can tell whose it is; "},
		outcome{"tenantid", issuer("https://a.example/{tenantid}/v2.0"), `its issuer is the template "https://a.example/{tenantid}/v2.0"; use the issuer of your tenant; `},
		outcome{"tenant", issuer("https://{tenant}.example"), `its issuer is the template "https://{tenant}.example"; use the issuer of your tenant; `},
		outcome{"shell", issuer("ISSUER/${TENANT}"), "its issuer is the template "},
		outcome{"encoded", issuer("ISSUER/%7Btenant%7D"), "its issuer is the template "},
		outcome{"angle brackets", issuer("ISSUER/<tenant>"), "its issuer is the template "},
	)
}

// requireModest checks that an error quotes little of what a server says, and no secret.
func requireModest(t *testing.T, err error, prefix string) {
	t.Helper()
	require.Regexp(t, "^"+prefix, err.Error())
	requireHarmless(t, err.Error())
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "s3cr3t")
	require.LessOrEqual(t, len(err.Error()), 2400) // Twice 1 KiB of a network error, and our words.
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
		"is a template":                    {"https://a.example/{tenant}", "https://{s3cr3t}.example", "https://a.example/%7Btenantid%7D/v2.0", "https://a.example/<tenant>"},
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
	require.False(t, IsTemporary(err))
	require.Empty(t, site.received())

	// What earlier locations have answered doesn't matter to a caller who gives up.
	ctx, cancel = context.WithCancel(site.ctx)
	site.answers = []metadataAnswer{{status: 503}, {instead: func(_ http.ResponseWriter, req *http.Request) {
		cancel()
		<-req.Context().Done()
	}}}
	_, err = Discover(ctx, site.issuer+"/x")
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, IsTemporary(err))
	require.Len(t, site.received(), 2)
}

// A location that hangs leaves time for the others, and the limit applies to all together.
func TestD1_LocationsThatHang(t *testing.T) {
	for _, test := range []struct {
		hanging int           // how many locations hang; the next one is good
		caller  time.Duration // the caller's own limit; 0: none
		want    time.Duration // how long Discover takes
	}{
		{0, 0, 0},
		{1, 0, 5 * time.Second},
		{2, 0, 7500 * time.Millisecond},
		{3, 0, 8750 * time.Millisecond},
		{4, 0, 10 * time.Second},
		{1, time.Second, 500 * time.Millisecond},
		{4, time.Minute, 10 * time.Second},
	} {
		testkit.Synctest(t, func(t *testing.T) {
			var requests atomic.Int32
			client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if int(requests.Add(1)) > test.hanging {
					return reply{body: strings.ReplaceAll(goodMetadata, "ISSUER", "https://a.example/x")}.response(req), nil
				}
				<-req.Context().Done()
				return nil, context.Cause(req.Context())
			})}
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, client)
			if test.caller != 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, test.caller)
				defer cancel()
			}
			start := time.Now()
			_, err := Discover(ctx, "https://a.example/x")
			require.Equal(t, test.want, time.Since(start))
			require.EqualValues(t, min(test.hanging+1, 4), requests.Load())
			if test.hanging < 4 {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.True(t, IsTemporary(err))
			require.ErrorContains(t, err, "https://a.example/x/.well-known/openid-configuration took too long: context deadline exceeded; ")
		})
	}
}

// If the host can't be reached, the other locations can't either: they are on the same host.
func TestD1_NoConnection(t *testing.T) {
	ctx := func(transport http.RoundTripper) (context.Context, *int) {
		requests := new(int)
		return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			*requests++
			return transport.RoundTrip(req)
		})}), requests
	}
	untrusted := newMetadataSite(t, httptest.NewTLSServer, "", says200(goodMetadata))
	plain := newMetadataSite(t, httptest.NewServer, "", says200(goodMetadata))
	closed := httptest.NewTLSServer(nil)
	closed.Close()
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	for issuer, temporary := range map[string]bool{
		untrusted.issuer: false,
		strings.Replace(plain.issuer, "http:", "https:", 1): false,
		closed.URL: true,
	} {
		with, requests := ctx(transport)
		_, err := Discover(with, issuer)
		require.Error(t, err)
		require.Equal(t, 1, *requests, "%v", err)
		require.Equal(t, temporary, IsTemporary(err), "%v", err)
	}
	require.Empty(t, untrusted.received())

	// A RoundTripper that isn't net/http's doesn't say whether there was a connection.
	with, requests := ctx(roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, io.EOF }))
	_, err := Discover(with, "https://a.example/x")
	require.ErrorContains(t, err, "EOF")
	require.Equal(t, 4, *requests)
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

func TestD6_ServerMetadataConfig(t *testing.T) {
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

		{"no list", nil, nil, []ClientAuth{key, basic}, Config{ClientAuth: basic}, ""},
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

		// D6: the server may accept more than it lists.
		{"a secret, neither", nil, []string{"none", "private_key_jwt"}, nil, Config{AuthStyle: oauth2.AuthStyleAutoDetect}, ""},
		{"a secret, none", nil, []string{"none"}, nil, Config{AuthStyle: oauth2.AuthStyleAutoDetect}, ""},
		{"no list, none in common", nil, nil, []ClientAuth{key}, Config{ClientAuth: key}, ""},
		{"none in common", nil, []string{"private_key_jwt", "Client_Secret_Post"}, []ClientAuth{post, mac}, Config{ClientAuth: mac}, ""},
		{"none, and an unknown method", nil, []string{"none"}, []ClientAuth{attest}, Config{ClientAuth: attest}, ""},
		{"none, and a certificate", nil, []string{"none"}, []ClientAuth{basic, certificate}, Config{ClientAuth: certificate, TokenURL: alias}, ""},
		{"a weak method that is listed", nil, everything[:1], []ClientAuth{certificate, key, post}, Config{ClientAuth: post}, ""},
		{"an unknown method that is listed", nil, everything[5:], []ClientAuth{certificate, key, attest}, Config{ClientAuth: attest}, ""},
		{"the grant is missing", func(m *ServerMetadata) { m.GrantTypesSupported = []string{"authorization_code", long} }, nil, nil, Config{AuthStyle: oauth2.AuthStyleInHeader}, ""},

		// Metadata may come from a file.
		{"a token endpoint on http", func(m *ServerMetadata) { m.TokenEndpoint = "http://a.example" }, nil, nil, Config{}, "token_endpoint is not https"},
		{"no issuer", func(m *ServerMetadata) { m.Issuer = "" }, nil, nil, Config{}, "the issuer is empty"},
		{"a token endpoint that is a template", func(m *ServerMetadata) { m.TokenEndpoint = "https://a.example/{tenant}" }, nil, nil, Config{}, "token_endpoint is a template"},
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
			test.want.authStyles() // Complete makes a copy.
			require.Equal(t, &test.want, conf)
		})
	}
}

// Complete keeps what the program has set, and changes a copy only.
func TestD6_ServerMetadataComplete(t *testing.T) {
	m := &ServerMetadata{Issuer: "https://issuer.example", TokenEndpoint: "https://issuer.example/token"}
	given := &Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://other.example", AuthStyle: oauth2.AuthStyleInParams, Scopes: []string{"a"}, Grant: new(scriptedGrant), Strict: true}
	given.authStyles() // The copy shares it.
	before := *given
	completed, err := m.Complete(given)
	require.NoError(t, err)
	require.Equal(t, before, *given)
	before.TokenURL, before.Issuer = m.TokenEndpoint, m.Issuer
	require.Equal(t, &before, completed)
	_, err = m.Complete(nil)
	require.ErrorContains(t, err, "the Config is nil")

	given = &Config{Scopes: []string{"a"}, Origins: []string{"https://a.example"}, EndpointParams: url.Values{"a": {"b"}}, Issuer: m.Issuer}
	completed, err = m.Complete(given)
	require.NoError(t, err)
	completed.Scopes[0], completed.Origins[0], completed.EndpointParams["a"][0] = "x", "x", "x"
	completed.EndpointParams.Set("x", "x")
	require.Equal(t, []string{"a", "https://a.example", "b"}, slices.Concat(given.Scopes, given.Origins, given.EndpointParams["a"]))
	require.Len(t, given.EndpointParams, 1)
}

// A secret is for the Issuer that the program names. Metadata of another server, whoever mixes
// them up, doesn't lead it there.
func TestD6_CompleteForAnotherIssuer(t *testing.T) {
	for _, issuer := range []string{"https://evil.example", "https://issuer.example/", "https://issuer.example/tenant", "https://issuer.example."} {
		m := &ServerMetadata{Issuer: issuer, TokenEndpoint: issuer + "/token"}
		conf, err := m.Complete(&Config{ClientID: "id", ClientSecret: "secret", Issuer: "https://issuer.example"})
		require.Nil(t, conf)
		require.ErrorContains(t, err, "it is that of the issuer")
		requireModest(t, err, "oauth2: ")
	}
}

// A client without a secret is only named, whether or not its Config comes from metadata.
func TestD6_CompleteWithGrantAlone(t *testing.T) {
	for _, methods := range [][]string{nil, {"client_secret_basic"}, {"client_secret_post"}, {"none", "client_secret_basic"}} {
		var sent *http.Request
		client := &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			require.NoError(t, r.ParseForm())
			sent = r
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"access_token":"t"}`))}, nil
		})}
		m := &ServerMetadata{Issuer: "https://issuer.example", TokenEndpoint: "https://issuer.example/token", TokenEndpointAuthMethodsSupported: methods}
		conf, err := m.Complete(&Config{ClientID: "id", Grant: newGrant(), HTTPClient: client})
		require.NoError(t, err)
		_, err = conf.Token(t.Context())
		require.NoError(t, err)
		require.Empty(t, sent.Header.Get("Authorization"))
		require.Equal(t, "id", sent.PostForm.Get("client_id"))
	}
}

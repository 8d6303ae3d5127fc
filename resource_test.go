package clientcredentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	trustedServer = "https://login.example"

	// ISSUER stands for the resource: see metadataSite.
	goodResource = `{"resource":"ISSUER","authorization_servers":["https://login.example"]}`
)

func TestV1_Locations(t *testing.T) {
	t.Parallel()
	const root = "/.well-known/oauth-protected-resource"
	for resource, want := range map[string][]string{
		"":            {""},
		"/":           {""},
		"?":           {""},
		"/a/b":        {"/a/b", ""},
		"/a/":         {"/a/", "/a", ""},
		"//a":         {"//a", ""},
		"/a%2Fb%20c":  {"/a%2Fb%20c", ""},
		"?s3cr3t=1":   {"?s3cr3t=1", ""},
		"/?s3cr3t=/":  {"?s3cr3t=/", ""},
		"/a/?s3cr3t/": {"/a/?s3cr3t/", ""},
	} {
		t.Run("resource "+resource, func(t *testing.T) {
			t.Parallel()
			var requests []string
			for i, location := range want {
				requests = append(requests, "GET "+root+location+" ")
				answers := append(slices.Repeat([]metadataAnswer{says404()}, i), says200(goodResource))
				site := newMetadataSite(t, httptest.NewTLSServer, resource, answers...)
				m, err := DiscoverResource(site.ctx, site.issuer, trustedServer)
				require.NoError(t, err)
				require.Equal(t, &ResourceMetadata{Resource: site.issuer, AuthorizationServers: []string{trustedServer}}, m)
				require.Equal(t, requests, site.received())
			}
			for _, answer := range []metadataAnswer{says404(), says200("[]"), says200("{}"), says200(`{"resource":"ISSUER&x"}`), {status: 302}, {instead: hijacked("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")}, {instead: hijacked("")}} {
				site := newMetadataSite(t, httptest.NewTLSServer, resource, slices.Repeat([]metadataAnswer{answer}, len(want))...)
				_, err := DiscoverResource(site.ctx, site.issuer, trustedServer)
				requireModest(t, err, "oauth2: cannot discover ")
				require.Equal(t, requests, site.received())
			}
		})
	}
}

func TestV2_AnotherResource(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"https://evil.example/api":        `it is that of the resource "https://evil.example/api"; if that is the API you mean, use exactly this identifier`,
		"https://127.0.0.1:1/api":         `it is that of the resource "https://127.0.0.1:1/api"; if`,
		"http://127.0.0.1/api":            `it is that of the resource "http://127.0.0.1/api"; if`,
		"ORIGIN":                          `it is that of the resource "https://127.0.0.1:`,
		"ORIGIN/":                         `/"; if that is the API you mean`,
		"ORIGIN/ap":                       `/ap"; if that is the API you mean`,
		"ORIGIN/api/":                     `/api/"; if that is the API you mean`,
		"ORIGIN/api/v1":                   `/api/v1"; if that is the API you mean`,
		"ORIGIN/API":                      `/API"; if that is the API you mean`,
		"ORIGIN/api?x=s3cr3t":             `/api?…"; if that is the API you mean`,
		"ORIGIN/api#x":                    `/api#x"; if that is the API you mean`,
		"ORIGIN/%61pi":                    `/%61pi"; if that is the API you mean`,
		"ORIGIN/./api":                    `/./api"; if that is the API you mean`,
		" ORIGIN/api":                     `" https://127.0.0.1:`,
		"HTTPS://127.0.0.1/api":           `"HTTPS://127.0.0.1/api"; if`,
		"ORIGIN/{tenant}":                 `/{tenant}"; use the resource of your tenant`,
		"https://{tenant}.a.example":      `its resource is the template "https://{tenant}.a.example"`,
		"ORIGIN/%7Btenant%7D/api":         "its resource is the template ",
		"ORIGIN/<tenant>":                 "its resource is the template ",
		long:                              `it is that of the resource "ZZZ`,
		`a\u001b[2J\r\nb\u202ec` + "\xff": `it is that of the resource "a\x1b[2J\r\nb\u202ec`,
		"":                                "it has no resource, so nobody can tell whose it is",
	} {
		// Neither location may speak for another resource.
		requireNoResource(t, want, false, says200(strings.Replace(goodResource, "ISSUER", strings.ReplaceAll(name, "ORIGIN/api", "ISSUER"), 1)))
	}
}

// requireNoResource checks that DiscoverResource doesn't use such an answer: it finds good
// metadata at the other location, and if that has none, too, it is an error.
func requireNoResource(t *testing.T, want string, temporary bool, answer metadataAnswer) {
	t.Helper()
	t.Run(want, func(t *testing.T) {
		t.Parallel()
		start := func(answers ...metadataAnswer) *metadataSite {
			site := newMetadataSite(t, httptest.NewTLSServer, "/api", answers...)
			origin := strings.TrimSuffix(site.issuer, "/api")
			for i := range site.answers {
				site.answers[i].body = strings.ReplaceAll(site.answers[i].body, "ORIGIN", origin)
			}
			return site
		}
		site := start(answer, says200(goodResource))
		m, err := DiscoverResource(site.ctx, site.issuer, trustedServer)
		require.NoError(t, err)
		require.Equal(t, site.issuer, m.Resource)

		for _, answers := range [][]metadataAnswer{{answer, says404()}, {says404(), answer}, {answer, answer}} {
			site := start(answers...)
			m, err := DiscoverResource(site.ctx, site.issuer, trustedServer)
			require.Nil(t, m)
			require.ErrorContains(t, err, want)
			require.Equal(t, temporary, IsTemporary(err))
			advice := map[bool]string{true: "try again later", false: "check the resource"}[temporary]
			require.Regexp(t, "; "+advice+", or call Discover with the issuer that you trust$", err.Error())
			requireModest(t, err, "oauth2: cannot discover ")
			require.Len(t, site.received(), 2)
		}
	})
}

// Only an authorization server that both the program and the API list is in the result.
func TestV3_AuthorizationServers(t *testing.T) {
	t.Parallel()
	const a, b, c = "https://a.example", "https://b.example/tenant", "http://127.0.0.1:1"
	for _, test := range []struct {
		name    string
		listed  string // by the API, in JSON
		trusted []string
		want    []string // nil: an error
	}{
		{"one", `["https://a.example"]`, []string{a}, []string{a}},
		{"one of the API's", `["https://evil.example","https://a.example"]`, []string{a, b}, []string{a}},
		{"the program's order", `["https://a.example","http://127.0.0.1:1","https://b.example/tenant"]`, []string{b, c, a}, []string{b, c, a}},
		{"each once", `["https://a.example","https://a.example"]`, []string{a, b, a}, []string{a}},
		{"null among them", `[null,"https://a.example",""]`, []string{a}, []string{a}},

		{"another", `["https://evil.example"]`, []string{a, b, c}, nil},
		{"several others", `["https://evil.example","https://a.example.evil.example","https://evil.example/https://a.example"]`, []string{a, b, c}, nil},
		{"the program lists none", `["https://a.example"]`, nil, nil},
		{"a slash", `["https://a.example/","https://b.example/tenant/"]`, []string{a, b}, nil},
		{"no slash", `["https://a.example"]`, []string{a + "/"}, nil},
		{"letter case", `["https://A.example","HTTPS://a.example","https://b.example/Tenant"]`, []string{a, b}, nil},
		{"http", `["http://a.example","http://b.example/tenant"]`, []string{a, b}, nil},
		{"a prefix", `["https://b.example","https://b.example/tenan"]`, []string{a, b}, nil},
		{"another port", `["https://a.example:443","https://a.example:8443"]`, []string{a, b}, nil},
		{"a query, a fragment, a user", `["https://a.example?","https://a.example#","https://x@a.example"]`, []string{a, b}, nil},
		{"letters that Unicode folds", `["https://\u0430.example"]`, []string{a, b}, nil},
		{"a space", `["https://a.example "," https://a.example","https://a.example https://b.example/tenant"]`, []string{a, b}, nil},
		{"a template", `["https://b.example/{tenant}"]`, []string{a, b}, nil},
		{"escapes", `["https://b.example/%74enant"]`, []string{a, b}, nil},
		{"hostile", `["\u001b[2J\r\n\u202e","` + long + `"]`, []string{a}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			site := newMetadataSite(t, httptest.NewTLSServer, "", says200(`{"resource":"ISSUER","authorization_servers":`+test.listed+"}"))
			m, err := DiscoverResource(site.ctx, site.issuer, test.trusted...)
			if test.want != nil {
				require.NoError(t, err)
				require.Equal(t, test.want, m.AuthorizationServers)
				return
			}
			require.Nil(t, m)
			requireModest(t, err, "oauth2: cannot discover ")
			require.ErrorContains(t, err, ", and your program trusts none of them; if you do, pass exactly such an identifier; ")
			if test.name != "hostile" {
				var listed []string
				require.NoError(t, json.Unmarshal([]byte(test.listed), &listed))
				require.ErrorContains(t, err, "it lists the authorization servers "+quote(listed))
			}
		})
	}
	for _, none := range []string{"", `,"authorization_servers":[]`, `,"authorization_servers":null`, `,"Authorization_Servers":["https://login.example"]`} {
		requireNoResource(t, "it lists no authorization_servers", false, says200(`{"resource":"ISSUER"`+none+"}"))
	}
}

// The list belongs to the caller, who may change it as soon as DiscoverResource has returned. A
// request that was given up still reads it: only the race detector notices.
func TestV3_ListIsCopied(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		resume := make(chan struct{})
		ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			cancel()
			<-resume
			return reply{body: strings.ReplaceAll(goodResource, "ISSUER", "https://a.example")}.response(req), nil
		})})
		list := []string{trustedServer}
		_, err := DiscoverResource(ctx, "https://a.example", list...)
		require.ErrorIs(t, err, context.Canceled)
		close(resume)
		list[0] = "https://evil.example"
	})
}

func TestV4_WhatIsUsedIsStrict(t *testing.T) {
	t.Parallel()
	for want, body := range map[string]string{
		"resource appears more than once":                  `{"resource":"ISSUER","authorization_servers":["https://login.example"],"\u0072esource":"ISSUER"}`,
		"authorization_servers appears more than once":     `{"resource":"ISSUER","authorization_servers":["https://login.example"],"authorization_servers":["https://evil.example"]}`,
		"resource is not a string":                         `{"resource":["ISSUER"],"authorization_servers":["https://login.example"]}`,
		"authorization_servers is not a list of strings":   `{"resource":"ISSUER","authorization_servers":"https://login.example"}`,
		"it has no resource and no authorization_servers":  `{"Resource":"ISSUER","AUTHORIZATION_SERVERS":["https://login.example"]}`,
		"it has no resource, so nobody can tell whose it ": `{"RESOURCE":"ISSUER","authorization_servers":["https://login.example"]}`,
	} {
		requireNoResource(t, want, false, says200(body))
	}
	for _, list := range []string{`[["https://login.example"]]`, `["https://login.example",5]`, `{"https://login.example":1}`, "true", `[{"issuer":"https://login.example"}]`} {
		requireNoResource(t, "authorization_servers is not a list of strings", false, says200(`{"resource":"ISSUER","authorization_servers":`+list+"}"))
	}
}

// Whatever else is wrong in the metadata is left out.
func TestV4_WhatIsNotUsed(t *testing.T) {
	t.Parallel()
	members := []string{
		`"resource_name":["x"]`, `"resource_name":"x","resource_name":"y"`, `"Resource_Name":"x"`, `"resource_name#fr":"x"`,
		`"jwks_uri":5,"jwks_uri":"http://a.example"`, `"signed_metadata":"x.y.z"`, `"unknown":{"resource":[1e999,null]}`,
	}
	for _, name := range []string{"scopes_supported", "bearer_methods_supported", "authorization_details_types_supported", "dpop_signing_alg_values_supported"} {
		for _, value := range []string{`"read write"`, `{"read":true}`, `["read",5]`, "false", "null", `["read"],"` + name + `":["write"]`} {
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		}
	}
	for _, name := range []string{"dpop_bound_access_tokens_required", "tls_client_certificate_bound_access_tokens"} {
		for _, value := range []string{`"true"`, "1", "[true]", "null", `true,"` + name + `":true`} {
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		}
	}
	for _, wrong := range members {
		m, err := parseResourceMetadata([]byte(`{"resource":"https://a.example","authorization_servers":["https://login.example"],`+wrong+"}"), "https://a.example", []string{trustedServer})
		require.NoError(t, err, wrong)
		require.Equal(t, &ResourceMetadata{Resource: "https://a.example", AuthorizationServers: []string{trustedServer}}, m, wrong)
	}
}

func TestDiscoverResourceReadsAll(t *testing.T) {
	site := newMetadataSite(t, httptest.NewTLSServer, "/api", says200("\xef\xbb\xbf"+`{
		"resource": "ISSUER",
		"authorization_servers": ["https://other.example", "https://login.example"],
		"scopes_supported": ["read", "write"],
		"bearer_methods_supported": ["header"],
		"resource_name": "Reports",
		"resource_name#de": "Berichte",
		"authorization_details_types_supported": ["report"],
		"dpop_signing_alg_values_supported": ["ES256"],
		"dpop_bound_access_tokens_required": true,
		"tls_client_certificate_bound_access_tokens": true
	}`))
	m, err := DiscoverResource(site.ctx, site.issuer, trustedServer)
	require.NoError(t, err)
	require.Equal(t, &ResourceMetadata{
		Resource:                              site.issuer,
		AuthorizationServers:                  []string{trustedServer},
		ScopesSupported:                       []string{"read", "write"},
		BearerMethodsSupported:                []string{"header"},
		ResourceName:                          "Reports",
		AuthorizationDetailsTypesSupported:    []string{"report"},
		DPoPSigningAlgValuesSupported:         []string{"ES256"},
		DPoPBoundAccessTokensRequired:         true,
		TLSClientCertificateBoundAccessTokens: true,
	}, m)
	requireWhole(t, m)
}

// The search is that of Discover, whose tests have more of these.
func TestV5_HostileAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		want   string
		answer metadataAnswer
	}{
		{"answered 404", says404()},
		{"answered 401", metadataAnswer{status: 401, body: long, header: http.Header{"WWW-Authenticate": {"Bearer s3cr3t"}}}},
		{"answered 206", metadataAnswer{status: 206, body: goodResource}},
		{"answered 302, a redirect to \"https://127.0.0.1:", redirects(302, "/.well-known/oauth-protected-resource")},
		{`answered 308, a redirect to "https://evil.example:443", which is not followed (if the resource has moved there, use its final identifier);`, redirects(308, "https://user:s3cr3t@evil.example/x?token=s3cr3t")},
		{"answered 307, a redirect to \"http://127.0.0.1:80\"", redirects(307, "http://127.0.0.1/")},
		{"is larger than 1 MiB", says200(strings.TrimSuffix(goodResource, "}") + `,"x":"` + strings.Repeat("x", maxResponseBody) + `"}`)},
		{`answered with something else than a JSON object (media type "text/html")`, metadataAnswer{header: http.Header{"Content-Type": {"text/html"}}, body: "<!DOCTYPE html><p>" + long}},
		{"answered with something else than a JSON object", says200("[" + goodResource + "]")},
		{"answered with something else than a JSON object", says200(goodResource + goodResource)},
		{"it has no resource and no authorization_servers", says200(`{"error":"not_found","status":404}`)},
		{"it has no resource and no authorization_servers", says200(goodMetadata)},
	} {
		requireNoResource(t, test.want, false, test.answer)
	}
	for want, answer := range map[string]metadataAnswer{
		"answered 503":                {status: 503, body: long},
		"EOF":                         {instead: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"ended early: unexpected EOF": {instead: hijacked("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")},
		"malformed HTTP":              {instead: hijacked(long + "\r\n\r\n")},
	} {
		requireNoResource(t, want, true, answer)
	}
}

func TestV5_LocationsThatHang(t *testing.T) {
	for hanging, want := range []time.Duration{0, 5 * time.Second, 10 * time.Second} {
		testkit.Synctest(t, func(t *testing.T) {
			var requests atomic.Int32
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if int(requests.Add(1)) > hanging {
					return reply{body: strings.ReplaceAll(goodResource, "ISSUER", "https://a.example/x?s3cr3t")}.response(req), nil
				}
				<-req.Context().Done()
				return nil, context.Cause(req.Context())
			})})
			start := time.Now()
			_, err := DiscoverResource(ctx, "https://a.example/x?s3cr3t", trustedServer)
			require.Equal(t, want, time.Since(start))
			if hanging == 2 {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "/oauth-protected-resource/x?… took too long")
				requireModest(t, err, "oauth2: cannot discover ")
				return
			}
			require.NoError(t, err)
		})
	}
}

// Before anything is sent, it is clear that the program names what can be discovered.
func TestV6_WhatTheProgramNames(t *testing.T) {
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
		t.Error("a request was sent")
		return nil, errors.New("no")
	})})
	for want, resources := range map[string][]string{
		"is empty; set it to the resource identifier of the API":    {""},
		"is not a whole URL; write it like https://api.example.com": {"s3cr3t", "//s3cr3t.example", "https:s3cr3t.example", "https://", "urn:s3cr3t", "ftp://127.0.0.1", "/api"},
		"is a template":                    {"https://a.example/{tenant}", "https://{s3cr3t}.example", "https://a.example/%7Btenantid%7D", "https://a.example/<tenant>", "https://a.example/?t={tenant}"},
		"cannot be parsed":                 {"https://a.example\n", "https://[s3cr3t", "https://a.example/x?a b", "https://a.example/x?ä"},
		"is http":                          {"http://a.example", "HTTP://a.example", "http://10.0.0.1", "http://127.0.0.1.a.example"},
		"contains a user name or password": {"https://user:s3cr3t@a.b", "https://@a.example"},
		"contains a query or a fragment":   {"https://a.example/x#s3cr3t", "https://a.example/x#", "https://a.example/?x#y"},
	} {
		for _, resource := range resources {
			_, err := DiscoverResource(ctx, resource, trustedServer)
			requireModest(t, err, "oauth2: cannot discover: the resource "+want)
		}
	}
	for want, issuer := range map[string]string{
		"is empty":                       "",
		"is http":                        "http://login.example",
		"is not a whole URL":             "login.example",
		"contains a query or a fragment": "https://login.example?s3cr3t",
		"contains a user name":           "https://user:s3cr3t@login.example",
		"is a template":                  "https://login.example/{tenant}",
	} {
		_, err := DiscoverResource(ctx, "https://a.example", trustedServer, issuer)
		requireModest(t, err, "oauth2: cannot discover: number 2 of the authorization servers: the issuer "+want)
	}

	_, err := DiscoverResource(nil, "https://a.example", trustedServer) //nolint:staticcheck // That nil is what is tested.
	require.EqualError(t, err, "oauth2: the context is nil; pass context.Background() if there is no other")
	_, err = DiscoverResource(context.WithValue(t.Context(), oauth2.HTTPClient, (*http.Client)(nil)), "https://a.example", trustedServer)
	require.EqualError(t, err, "oauth2: the *http.Client in the context under oauth2.HTTPClient is nil")

	// On this host, http will do.
	site := newMetadataSite(t, httptest.NewServer, "/api", says200(goodResource))
	_, err = DiscoverResource(site.ctx, site.issuer, trustedServer)
	require.NoError(t, err)
}

// An API that says where its metadata is can't send the program to another origin, and can't
// make its metadata that of another resource.
func TestV7_LocationThatTheAPINames(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]string{ // Empty: it is used.
		"ORIGIN/meta/data":                         "",
		"ORIGIN/meta/data#fragment":                "",
		"ORIGIN/meta/data?":                        "",
		"ORIGIN/m\u202e":                           "%E2%80%AE answered 404",
		"ORIGIN/else":                              "/else answered 404",
		"https://evil.example/meta/data":           "no URL with the origin of the resource",
		"http://HOST/meta/data":                    "no URL with the origin of the resource",
		"https://127.0.0.1/meta/data":              "no URL with the origin of the resource",
		"https://user@HOST/meta/data":              "no URL with the origin of the resource",
		"https://HOST.evil.example/meta/data":      "no URL with the origin of the resource",
		"https://169.254.169.254/latest/meta-data": "no URL with the origin of the resource",
		"/meta/data":                               "no URL with the origin of the resource",
		"//HOST/meta/data":                         "no URL with the origin of the resource",
		"https:HOST/meta/data":                     "no URL with the origin of the resource",
		"file:///etc/hosts":                        "no URL with the origin of the resource",
		"":                                         "no URL with the origin of the resource",
		"ORIGIN/\x00":                              "no URL with the origin of the resource",
		"ORIGIN/" + long:                           "no URL with the origin of the resource",
	} {
		t.Run(location, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			var resource string
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.URL.Path != "/meta/data" {
					http.NotFound(w, r)
					return
				}
				fmt.Fprint(w, strings.ReplaceAll(goodResource, "ISSUER", resource))
			}))
			defer server.Close()
			resource = server.URL + "/api"
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, server.Client())
			location := strings.NewReplacer("ORIGIN", server.URL, "HOST", strings.TrimPrefix(server.URL, "https://")).Replace(location)
			m, err := DiscoverResourceAt(ctx, location, resource, trustedServer)
			if want == "" {
				require.NoError(t, err)
				require.Equal(t, resource, m.Resource)
				_, err = DiscoverResourceAt(ctx, location, resource+"/v1", trustedServer)
				require.ErrorContains(t, err, "it is that of the resource")
				_, err = DiscoverResourceAt(ctx, location, resource, "https://other.example")
				require.ErrorContains(t, err, "your program trusts none of them")
				return
			}
			requireModest(t, err, "oauth2: cannot discover")
			require.ErrorContains(t, err, want)
			require.Equal(t, strings.HasSuffix(want, "404"), asked.Load() == 1)
		})
	}
	_, err := DiscoverResourceAt(t.Context(), "https://a.example/", "http://a.example", trustedServer)
	require.ErrorContains(t, err, "the resource is http")
}

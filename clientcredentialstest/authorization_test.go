package clientcredentialstest_test

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const tokenURL = "https://auth.example/token"

// answer is a response of the token endpoint.
type answer struct {
	status      int
	header      http.Header
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   *int   `json:"expires_in"`
	Scope       string
	Error       string
}

// newAuth returns a server with these clients, or with one whose id is "id" and whose
// secret is "secret".
func newAuth(clients ...cct.Client) *cct.AuthorizationServer {
	if clients == nil {
		clients = []cct.Client{{ID: "id", Secret: "secret"}}
	}
	return &cct.AuthorizationServer{Clients: clients}
}

// send sends a request and decodes its answer.
func send(t *testing.T, h http.Handler, req *http.Request) answer {
	t.Helper()
	resp, err := cct.HandlerTransport(h).RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&a))
	return a
}

// post returns a token request with that body. If id isn't empty, it has a Basic header.
func post(t *testing.T, id, secret, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tokenURL, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		req.SetBasicAuth(id, secret)
	}
	return req
}

const grant = "grant_type=client_credentials"

func TestToken(t *testing.T) {
	auth := &cct.AuthorizationServer{Clients: []cct.Client{
		{ID: "any", Secret: "s&cret:1"},
		{ID: "some", Secret: "s", Scopes: []string{"read", "write"}},
		{ID: "basic", Secret: "s", AuthMethods: []string{"client_secret_basic"}},
		{ID: "post", Secret: "s", AuthMethods: []string{"client_secret_post"}},
		{ID: "raw+%", Secret: "a+b%", RawBasic: true},
		{ID: "bare"},
		{ID: "key", PublicKeys: []crypto.PublicKey{testkit.NewKey("ES256").Public()}},
		{ID: "certificate", Certificates: []*x509.Certificate{testkit.ClientCertificate("id").Leaf}},
	}}
	tests := []struct {
		name             string
		id, secret, body string
		scope, err       string
	}{
		{"basic", "any", "s%26cret%3A1", grant, "", ""},
		{"post", "", "", grant + "&client_id=any&client_secret=s%26cret:1", "", ""},
		{"scope by default", "some", "s", grant, "read write", ""},
		{"unknown scope", "some", "s", grant + "&scope=admin", "", "invalid_scope"},
		{"two resources", "any", "s%26cret%3A1", grant + "&resource=https://a.example&resource=https://b.example&audience=c", "", ""},
		{"empty parameter is absent", "any", "s%26cret%3A1", grant + "&scope=&client_secret=", "", ""},
		{"wrong secret", "any", "wrong", grant, "", "invalid_client"},
		{"no credentials", "", "", grant, "", "invalid_client"},
		{"assertion", "", "", grant + "&client_id=bare&client_assertion=x", "", "invalid_client"},
		{"empty secret", "", "", grant + "&client_id=bare", "", ""},
		{"a key is required", "", "", grant + "&client_id=key", "", "invalid_client"},
		{"a certificate is required", "", "", grant + "&client_id=certificate", "", "invalid_client"},
		{"post by a client of basic", "", "", grant + "&client_id=basic&client_secret=s", "", "invalid_client"},
		{"basic by a client of post", "post", "s", grant, "", "invalid_client"},
		{"raw", "raw+%", "a+b%", grant, "", ""},
		{"encoded by a client of raw", "raw%2B%25", "a%2Bb%25", grant, "", "invalid_client"},
	}
	statuses := map[string]int{"": 200, "invalid_client": 401, "invalid_scope": 400}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := send(t, auth, post(t, test.id, test.secret, test.body))
			require.Equal(t, test.err, got.Error)
			require.Equal(t, statuses[test.err], got.status)
			require.Equal(t, test.err == "invalid_client", got.header.Get("WWW-Authenticate") != "")
			require.Equal(t, "no-store", got.header.Get("Cache-Control"))
			require.Equal(t, test.err == "", got.AccessToken != "")
			if test.err != "" {
				return
			}
			require.Equal(t, "Bearer", got.TokenType)
			require.Equal(t, 3600, *got.ExpiresIn)
			require.Equal(t, test.scope, got.Scope)
			token, ok := auth.Introspect(got.AccessToken)
			require.True(t, ok)
			require.Equal(t, strings.Fields(test.scope), append([]string{}, token.Scopes...))
			require.Equal(t, time.Hour, token.Expiry.Sub(token.IssuedAt))
		})
	}
	require.Empty(t, auth.Violations())
	require.Equal(t, len(tests), auth.TokenRequests())

	req := post(t, "", "", grant)
	req.Header.Set("Authorization", "Bearer x")
	require.Equal(t, http.StatusUnauthorized, send(t, auth, req).status)
	require.Empty(t, auth.Violations(), "another scheme breaks no rule")
}

func TestViolations(t *testing.T) {
	with := func(key string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[key] = values }
	}
	tests := []struct {
		name string
		body string
		edit func(*http.Request)
		err  string
		want string
	}{
		{"GET", grant, func(r *http.Request) { r.Method = http.MethodGet }, "invalid_request", "Section 3.2"},
		{"JSON", "{}", with("Content-Type", "application/json"), "invalid_request", "Section 4.4.2"},
		{"semicolon", grant + ";a=b", nil, "invalid_request", "Appendix B"},
		{"not UTF-8", grant + "&a=%ff", nil, "invalid_request", "Appendix B"},
		{"too large", grant + "&a=" + strings.Repeat("a", 1<<20), nil, "invalid_request", "larger than 1 MiB"},
		{"repeated", grant + "&scope=a&scope=b", nil, "invalid_request", "Section 3.2: parameter sent more than once: scope"},
		{"repeated, odd name", grant + "&%22%0a=a&%22%0a=b", nil, "invalid_request", "more than once: ??"},
		{"secret in the URL", grant, func(r *http.Request) { r.URL.RawQuery = "client_secret=secret" }, "invalid_request", "Section 2.3.1"},
		{"two methods", grant + "&client_secret=secret", nil, "invalid_request", "Section 2.3:"},
		{"two headers", grant, with("Authorization", "Basic eDp5", "Basic eDp5"), "invalid_request", "Section 2.3:"},
		{"other client_id", grant + "&client_id=other", nil, "invalid_request", "Section 2.3:"},
		{"malformed Basic", grant, with("Authorization", "Basic !"), "invalid_request", "RFC 7617, Section 2"},
		{"raw Basic", grant, func(r *http.Request) { r.SetBasicAuth("id", "100%secret") }, "invalid_request", "Section 2.3.1"},
		{"no grant_type", "scope=a", nil, "invalid_request", "Section 4.4.2"},
		{"other grant_type", "grant_type=password", nil, "unsupported_grant_type", "Section 4.4.2"},
		{"scope with two spaces", grant + "&scope=a++b", nil, "invalid_scope", "Section 3.3"},
		{"resource without a scheme", grant + "&resource=api.example/x", nil, "invalid_target", "RFC 8707, Section 2"},
		{"resource with a fragment", grant + "&resource=https://api.example/%23x", nil, "invalid_target", "RFC 8707, Section 2"},
		{"resource with an empty fragment", grant + "&resource=https://api.example/%23", nil, "invalid_target", "RFC 8707, Section 2"},
		{"resource with a space", grant + "&resource=https://api.example/a+b", nil, "invalid_target", "RFC 8707, Section 2"},
		{"resource with a bare percent sign", grant + "&resource=https://api.example/%25", nil, "invalid_target", "RFC 8707, Section 2"},
		{"resource beyond ASCII", grant + "&resource=https://api.example/%C3%A9", nil, "invalid_target", "RFC 8707, Section 2"},
		{"resource is a path", grant + "&resource=/x", nil, "invalid_target", "RFC 8707, Section 2"},
		{"second resource", grant + "&resource=urn:x&resource=y", nil, "invalid_target", "RFC 8707, Section 2"},
		{"claims in base64", grant + "&claims=e30=", nil, "invalid_request", "OpenID Connect Core 1.0, Section 5.5"},
		{"claims are a list", grant + "&claims=[]", nil, "invalid_request", "OpenID Connect Core 1.0, Section 5.5"},
		{"claims are null", grant + "&claims=null", nil, "invalid_request", "OpenID Connect Core 1.0, Section 5.5"},
		{"claims with more behind", grant + "&claims={}{}", nil, "invalid_request", "OpenID Connect Core 1.0, Section 5.5"},
		{"two claims", grant + "&claims={}&claims={}", nil, "invalid_request", "Section 3.2: parameter sent more than once: claims"},
		{"scope beyond ASCII", grant + "&scope=%C3%A9", nil, "invalid_scope", "Section 3.3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			auth := newAuth()
			req := post(t, "id", "secret", test.body)
			if test.edit != nil {
				test.edit(req)
			}
			requireRefused(t, auth, req, test.err, test.want)
			require.NotContains(t, auth.Violations()[0].Error(), "secret=")
		})
	}
}

// TestWhatATokenIsRequestedWith: the server remembers it for each token.
func TestWhatATokenIsRequestedWith(t *testing.T) {
	for body, want := range map[string]cct.Token{
		"":                                    {},
		"&resource=urn:x":                     {Audience: []string{"urn:x"}},
		"&audience=a b":                       {Audience: []string{"a b"}},
		"&resource=&audience=":                {},
		"&claims=&acr_values=":                {},
		"&resource=api://1-2/%252F?b=[c]%26d": {Audience: []string{"api://1-2/%2F?b=[c]&d"}},
		"&audience=c&resource=https://b&resource=https://a": {Audience: []string{"https://b", "https://a", "c"}},
		`&claims={"access_token": {"nbf": null}}`:           {Claims: `{"access_token": {"nbf": null}}`},
		"&acr_values=a+b&max_age=0&scope=s+t":               {ACRValues: "a b", MaxAge: "0", Scopes: []string{"s", "t"}},
	} {
		t.Run(body, func(t *testing.T) {
			auth := newAuth()
			got, active := auth.Introspect(send(t, auth, post(t, "id", "secret", grant+body)).AccessToken)
			require.True(t, active)
			want.ClientID, want.IssuedAt, want.Expiry = "id", got.IssuedAt, got.Expiry
			require.Equal(t, want, got)
			require.Empty(t, auth.Violations())
		})
	}
}

func TestRequests(t *testing.T) {
	auth := &cct.AuthorizationServer{}
	send(t, auth, post(t, "a%20b", "secret", grant+"&audience=x"))
	send(t, auth, post(t, "", "", grant+"&client_id=c&client_secret=d"))

	got := auth.Requests()
	require.Len(t, got, 2)
	first := got[0]
	require.Equal(t, []string{"a b", "client_secret_basic"}, []string{first.ClientID, first.AuthMethod})
	require.Equal(t, []string{http.MethodPost, "auth.example", "/token"}, []string{first.Method, first.Host, first.URL})
	require.Equal(t, grant+"&audience=x", first.Body)
	require.Equal(t, url.Values{"grant_type": {"client_credentials"}, "audience": {"x"}}, first.Form)
	require.NotContains(t, first.Header, "Connection", "the transport adds nothing of its own")
	require.Equal(t, []string{"c", "client_secret_post"}, []string{got[1].ClientID, got[1].AuthMethod})
}

func TestRequestsAreBounded(t *testing.T) {
	auth := &cct.AuthorizationServer{}
	const n = 10_010
	for range n {
		auth.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/token", nil))
	}
	require.Equal(t, n, auth.TokenRequests())
	require.Len(t, auth.Requests(), 10_000)
	require.Len(t, auth.Violations(), 10_000)
	require.ErrorContains(t, auth.Violations()[0], "token request 11: ")
}

// TestNoTokenRequest: a request for another path and one whose body is cut short are not
// token requests.
func TestNoTokenRequest(t *testing.T) {
	auth := &cct.AuthorizationServer{}
	w := httptest.NewRecorder()
	auth.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/authorize", nil))
	require.Equal(t, http.StatusNotFound, w.Code)
	body := io.MultiReader(strings.NewReader("grant_"), iotest.ErrReader(io.ErrClosedPipe))
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		auth.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/token", body))
	})
	require.Zero(t, auth.TokenRequests())
}

func TestLifeOfAToken(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		auth := newAuth()
		auth.TokenLifetime = 90*time.Second + 500*time.Millisecond
		auth.Latency = 30 * time.Second
		active := func(got answer) bool {
			_, ok := auth.Introspect(got.AccessToken)
			return ok
		}
		start := time.Now()
		got := send(t, auth, post(t, "id", "secret", grant))
		require.Equal(t, 30*time.Second, time.Since(start))
		require.Equal(t, 90, *got.ExpiresIn)

		// Part of the token's life was over when it arrived.
		time.Sleep(60*time.Second + 500*time.Millisecond - time.Nanosecond)
		token, ok := auth.Introspect(got.AccessToken)
		require.True(t, ok)
		require.Equal(t, start, token.IssuedAt)
		time.Sleep(time.Nanosecond)
		require.False(t, active(got))

		got, other := send(t, auth, post(t, "id", "secret", grant)), send(t, auth, post(t, "id", "secret", grant))
		auth.Revoke(got.AccessToken)
		require.False(t, active(got))
		require.True(t, active(other))
		auth.RevokeAll()
		require.False(t, active(other))

		auth.TokenLifetime = -1
		got = send(t, auth, post(t, "id", "secret", grant))
		require.Nil(t, got.ExpiresIn)
		token, ok = auth.Introspect(got.AccessToken)
		require.True(t, ok)
		require.Zero(t, token.Expiry)
	})
}

func TestExpiredTokensAreForgotten(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		auth := newAuth()
		for range 10_002 {
			time.Sleep(time.Second)
			auth.ServeHTTP(httptest.NewRecorder(), post(t, "id", "secret", grant))
		}
		require.Equal(t, 10_002, auth.TokensIssued())
		require.Equal(t, 3_601, auth.TokensHeld())
	})
}

func TestRegister(t *testing.T) {
	clients := []cct.Client{{ID: "id", Secret: "old"}, {ID: "other", Secret: "s"}}
	auth := &cct.AuthorizationServer{Clients: clients}
	auth.Register(cct.Client{ID: "id", Secret: "new"})
	auth.Register(cct.Client{ID: "third", Secret: "s"})
	for secret, want := range map[string]int{"id old": 401, "id new": 200, "other s": 200, "third s": 200} {
		id, secret, _ := strings.Cut(secret, " ")
		require.Equal(t, want, send(t, auth, post(t, id, secret, grant)).status, id+" "+secret)
	}
	require.Equal(t, "old", clients[0].Secret, "the slice of the caller doesn't change")
}

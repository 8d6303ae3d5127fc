package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	bearerType   = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	exchangeType = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// A scriptedGrant is a Grant whose assertion is another one at each call. The test replaces
// what identifies it.
type scriptedGrant struct {
	mu         sync.Mutex // protects what follows
	grantType  string
	subject    string
	credential string
	name       string
	more       url.Values // further parameters
	err        error
	calls      int
	during     func(ctx context.Context)
}

func newGrant() *scriptedGrant { return &scriptedGrant{grantType: bearerType, subject: "a"} }

func (g *scriptedGrant) Type() string { return g.grantType }

func (g *scriptedGrant) Authorize(ctx context.Context, attempt *Attempt) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls++
	if g.during != nil {
		g.during(ctx)
	}
	attempt.Form.Set("assertion", "assertion-"+strconv.Itoa(g.calls))
	for name := range g.more {
		attempt.Form.Set(name, g.more.Get(name))
	}
	attempt.CredentialID, attempt.GrantName = g.credential, g.name
	return g.subject, g.err
}

func (g *scriptedGrant) rotate(credential string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.credential = credential
}

func TestG1_GrantOnTheWire(t *testing.T) {
	basic := "Basic aWQ6czNjcjN0LUNhbmFyeSUyRiUyQiUyNiUzRH4="
	for name, test := range map[string]struct {
		change        func(c *Config)
		form          url.Values // besides the grant's parameters
		authorization []string
	}{
		"nobody authenticates": {func(c *Config) { c.ClientID, c.ClientSecret = "", "" }, nil, nil},
		"nobody, header asked for": {func(c *Config) {
			c.ClientID, c.ClientSecret, c.AuthStyle = "", "", oauth2.AuthStyleInHeader
		}, nil, nil},
		"a public client": {func(c *Config) { c.ClientSecret = "" }, url.Values{"client_id": {"id"}}, nil},
		"a secret":        {func(c *Config) { c.AuthStyle = oauth2.AuthStyleInHeader }, nil, []string{basic}},
		"a ClientAuth": {
			func(c *Config) { c.ClientAuth = &scriptedAuth{credential: "key"} },
			url.Values{"client_id": {"id"}, "client_assertion": {"key-assertion-1"}},
			nil,
		},
		"strict":        {func(c *Config) { c.ClientID, c.ClientSecret, c.Strict = "", "", true }, nil, nil},
		"with a scope":  {func(c *Config) { c.ClientID, c.ClientSecret, c.Scopes = "", "", []string{"x", "y"} }, url.Values{"scope": {"x y"}}, nil},
		"with audience": {func(c *Config) { c.ClientID, c.ClientSecret, c.EndpointParams = "", "", url.Values{"audience": {"x"}} }, url.Values{"audience": {"x"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Synctest(t, func(t *testing.T) {
				endpoint := newTokenEndpoint(reply{status: http.StatusServiceUnavailable}, goodReply)
				conf := endpoint.config()
				conf.TokenURL = "https://auth.example/token"
				conf.AuthStyle, conf.Retry = oauth2.AuthStyleAutoDetect, RetryPolicy{}
				conf.Grant = newGrant()
				test.change(conf)
				rewindable := false
				inner := conf.HTTPClient.Transport
				conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					rewindable = rewindable || req.GetBody != nil
					return inner.RoundTrip(req)
				})}
				_, err := conf.Token(t.Context())
				require.NoError(t, err)
				require.False(t, rewindable, "net/http mustn't send an assertion again by itself")
				received := endpoint.received()
				require.Len(t, received, 2)
				for i, r := range received {
					want := url.Values{"grant_type": {bearerType}, "assertion": {fmt.Sprintf("assertion-%d", i+1)}}
					maps.Copy(want, test.form)
					if conf.ClientAuth != nil {
						want.Set("client_assertion", fmt.Sprintf("key-assertion-%d", i+1))
					}
					require.Equal(t, want, r.form, "each attempt has its own assertion")
					require.Equal(t, test.authorization, r.header["Authorization"])
				}
			})
		})
	}
}

func TestG2_GrantAndOtherFields(t *testing.T) {
	const prefix = "oauth2: cannot fetch token: " + bearerType + ": "
	params := func(name string) func(c *Config, g *scriptedGrant) {
		return func(c *Config, g *scriptedGrant) {
			g.more = url.Values{name: {"by the grant"}}
			c.EndpointParams = url.Values{name: {"by the Config"}}
		}
	}
	both := func(name string) string {
		return prefix + `it sets the parameter "` + name + `", which the Config or the Target sets too; remove it there`
	}
	for name, test := range map[string]struct {
		change func(c *Config, g *scriptedGrant)
		want   string
	}{
		"grant_type":      {func(c *Config, _ *scriptedGrant) { c.EndpointParams = url.Values{"grant_type": {"x"}} }, "oauth2: EndpointParams contains grant_type, which is for Grant to set; remove it there"},
		"assertion":       {params("assertion"), both("assertion")},
		"subject_token":   {params("subject_token"), both("subject_token")},
		"scope in params": {params("scope"), both("scope")},
		"scope": {func(c *Config, g *scriptedGrant) {
			c.Scopes, g.more = []string{"x"}, url.Values{"scope": {"x y"}}
		}, both("scope")},
		"its own type": {func(_ *Config, g *scriptedGrant) { g.more = url.Values{"grant_type": {"password"}} }, both("grant_type")},
		"no subject":   {func(_ *Config, g *scriptedGrant) { g.subject = "" }, prefix + "it doesn't say whose token it asks for; return a subject from Authorize"},
		"no type":      {func(_ *Config, g *scriptedGrant) { g.grantType = "" }, "oauth2: cannot fetch token: the Grant: its Type is empty; return a grant_type"},
		"an error":     {func(_ *Config, g *scriptedGrant) { g.err = errors.New("the file is gone") }, prefix + "the file is gone"},
	} {
		endpoint := newTokenEndpoint(goodReply)
		conf, grant := endpoint.config(), newGrant()
		conf.Grant, conf.Retry = grant, RetryPolicy{}
		test.change(conf, grant)
		_, err := conf.Token(t.Context())
		require.EqualError(t, err, test.want, name)
		require.Empty(t, endpoint.received(), name)
		require.LessOrEqual(t, grant.calls, 1, name)
		require.False(t, IsTemporary(err), name)
	}

	// A Target's parameters are the same to the grant.
	endpoint := newTokenEndpoint(goodReply)
	conf := endpoint.config()
	conf.Grant = newGrant()
	_, err := conf.Source(t.Context()).For(Target{Params: url.Values{"assertion": {"x"}}}).Token()
	require.EqualError(t, err, both("assertion"))
	_, err = conf.Source(t.Context()).For(Target{Params: url.Values{"grant_type": {"x"}}}).Token()
	require.ErrorContains(t, err, "EndpointParams contains grant_type")
	require.Empty(t, endpoint.received())
}

// The server refuses the assertion. That is neither the client's fault nor that of the form of
// its credentials.
func TestG3_GrantRefused(t *testing.T) {
	refusal := func(code string) reply { return reply{status: 400, body: `{"error":"` + code + `"}`} }
	for name, test := range map[string]struct {
		rotated  string // the credential after the first answer
		first    reply
		requests int
		works    bool
	}{
		"not rotated":                {"old", refusal("invalid_grant"), 1, false},
		"rotated":                    {"new", refusal("invalid_grant"), 2, true},
		"a subject token, RFC 8693":  {"new", refusal("invalid_request"), 2, true},
		"with 401":                   {"new", reply{status: 401, body: `{"error":"invalid_grant"}`}, 2, true},
		"with 200":                   {"new", reply{body: `{"error":"invalid_grant"}`}, 2, true},
		"refused for another reason": {"new", refusal("invalid_scope"), 1, false},
		"the client is refused":      {"new", refusal("unauthorized_client"), 1, false},
		"it doesn't say which":       {"", refusal("invalid_grant"), 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := newTokenEndpoint(test.first, goodReply)
			grant := newGrant()
			grant.credential = "old"
			if test.rotated == "" {
				grant.credential = ""
			}
			conf := endpoint.config()
			conf.Grant, conf.AuthStyle, conf.ClientSecret = grant, oauth2.AuthStyleAutoDetect, ""
			conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp, err := endpoint.RoundTrip(req)
				grant.rotate(test.rotated)
				return resp, err
			})}
			_, err := conf.Token(t.Context())
			require.Equal(t, test.works, err == nil, "%v", err)
			require.Len(t, endpoint.received(), test.requests)
		})
	}

	// No second form of the secret, and the pause is this target's alone.
	bubble(t, time.Hour, func(t *testing.T, _ *world) {
		for _, test := range []struct {
			answer reply
			others bool // other targets pause too
		}{
			{refusal("invalid_grant"), false},
			{reply{status: 401, body: `{"error":"invalid_grant"}`}, false},
			{refusal("invalid_client"), true},
		} {
			endpoint := newTokenEndpoint(test.answer)
			conf := endpoint.config()
			conf.Grant = newGrant()
			if !test.others {
				conf.AuthStyle = oauth2.AuthStyleAutoDetect
			}
			s := conf.Source(t.Context())
			for range 2 * cooldownFree {
				_, err := s.For(Target{Audience: "a"}).Token()
				require.Error(t, err)
			}
			require.Len(t, endpoint.received(), cooldownFree)
			_, err := s.For(Target{Audience: "b"}).Token()
			require.Error(t, err)
			require.Equal(t, !test.others, len(endpoint.received()) > cooldownFree)
		}
	})
}

func TestG3_ErrorSaysWhoseAssertion(t *testing.T) {
	const hint = "; check that it knows the issuer and the subject, and what audience and life it demands"
	for _, test := range []struct{ name, code, want string }{
		{`the assertion of subject "a"`, "invalid_grant", "\noauth2: the server has refused the assertion of subject \"a\"" + hint},
		{"", "invalid_grant", "\noauth2: the server has refused the grant" + hint},
		{"x\x1b[31m" + memorySecret, "invalid_grant", "\noauth2: the server has refused x\uFFFD[31m[redacted]" + hint},
		{`the assertion of subject "a"`, "invalid_scope", ""},
	} {
		conf := newTokenEndpoint(reply{status: 400, body: `{"error":"` + test.code + `"}`}).config()
		upstream, err := conf.Token(t.Context())
		require.Nil(t, upstream)
		text := err.Error()
		grant := newGrant()
		grant.name = test.name
		conf.Grant = grant
		_, err = conf.Token(t.Context())
		require.EqualError(t, err, text+test.want)
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
	}
}

// What a grant has sent is masked where the server repeats it, but for the types.
func TestG3_EchoIsMasked(t *testing.T) {
	grant := newGrant()
	grant.more = url.Values{"ticketed": {"CanaryTicket-7761"}, "subject_token_type": {"urn:x:subject"}}
	conf := newTokenEndpoint(reply{status: 400, body: `{"error":"invalid_grant","error_description":"assertion-1 CanaryTicket-7761 urn:x:subject ` + bearerType + `"}`}).config()
	conf.Grant = grant
	_, err := conf.Token(t.Context())
	require.ErrorContains(t, err, "[redacted] [redacted] urn:x:subject "+bearerType)
}

// A grant that asks another server may fail with that server's refusal.
func TestG6_RefusalOfAnotherServer(t *testing.T) {
	refused := func(status int, code string) error {
		return fmt.Errorf("the other server: %w", refusalFor(t, reply{status: status, body: `{"error":"` + code + `"}`}))
	}
	for name, test := range map[string]struct {
		err       error
		temporary bool
	}{
		"a refused client": {refused(401, "invalid_client"), false},
		"a refused grant":  {refused(400, "invalid_grant"), false},
		"it is down":       {refused(503, "temporarily_unavailable"), true},
		"a network error":  {&url.Error{Op: "Post", Err: context.DeadlineExceeded}, true},
		"another error":    {errors.New("no"), false},
	} {
		endpoint := newTokenEndpoint(goodReply)
		grant := newGrant()
		grant.credential, grant.err = "key", test.err
		conf := endpoint.config()
		conf.Grant, conf.Retry, conf.AuthStyle = grant, RetryPolicy{}, oauth2.AuthStyleAutoDetect
		s := conf.Source(t.Context())
		_, err := s.Token()
		require.ErrorIs(t, err, test.err, name)
		require.Equal(t, test.temporary, IsTemporary(err), name)
		require.Equal(t, 1, grant.calls, "%s: that server was asked hard enough", name)
		require.Empty(t, endpoint.received(), name)
		request, checked := newTokenRequest(t.Context(), conf, "", nil)
		require.NoError(t, checked)
		require.False(t, request.concernsClient(err), name)
	}
}

// A Source that a grant asks doesn't obey the target of the token that the grant is for.
func TestG7_TargetIsNotInherited(t *testing.T) {
	endpoint := newTokenEndpoint(goodReply)
	inner := newTokenEndpoint(reply{body: `{"access_token":"inner"}`})
	source := inner.config().Source(t.Context())
	grant, conf := newGrant(), endpoint.config()
	conf.Grant = grant
	auth := &scriptedAuth{credential: "key"}
	conf.ClientAuth = auth
	ask := func(ctx context.Context) {
		_, err := source.AccessToken(ctx)
		require.NoError(t, err)
	}
	grant.during, auth.during = ask, ask
	_, err := conf.Token(WithTarget(t.Context(), Target{Scopes: []string{"outer"}}))
	require.NoError(t, err)
	require.Equal(t, "outer", endpoint.received()[0].form.Get("scope"))
	require.Len(t, inner.received(), 1)
	require.NotContains(t, inner.received()[0].form, "scope")
}

func TestG5_ExchangeAnswers(t *testing.T) {
	const issued = `"issued_token_type":"urn:ietf:params:oauth:token-type:access_token"`
	for name, test := range map[string]struct {
		grantType, requested, answer, scheme string
		strict                               string // the error in strict mode
		usable                               bool   // an API accepts the token
	}{
		"access token":       {exchangeType, "", `"token_type":"Bearer",` + issued, "", "", true},
		"as requested":       {exchangeType, "urn:ietf:params:oauth:token-type:access_token", `"token_type":"Bearer",` + issued, "", "", true},
		"no type":            {exchangeType, "", `"token_type":"Bearer"`, "", "issued_token_type is missing", true},
		"odd type":           {exchangeType, "", `"token_type":"Bearer","issued_token_type":7`, "", "issued_token_type is missing", true},
		"another type":       {exchangeType, "urn:x", `"token_type":"Bearer",` + issued, "", "issued_token_type is not the requested_token_type", true},
		"not an API's":       {exchangeType, "", `"token_type":"N_A",` + issued, "", "", false},
		"in lower case":      {exchangeType, "", `"token_type":"n_a",` + issued, "", "", false},
		"the program's word": {exchangeType, "", `"token_type":"N_A",` + issued, "Token", "", true},
		"another grant":      {bearerType, "", `"token_type":"N_A"`, "", "token_type is not Bearer", true},
	} {
		modes(t, func(t *testing.T, strict bool) {
			conf := newTokenEndpoint(reply{body: `{"access_token":"t",` + test.answer + `}`}).config()
			grant := newGrant()
			grant.grantType = test.grantType
			if test.requested != "" {
				grant.more = url.Values{"requested_token_type": {test.requested}}
			}
			conf.TokenURL, conf.Grant, conf.Strict, conf.AuthScheme = "https://auth.example/token", grant, strict, test.scheme
			s := conf.Source(t.Context())
			token, err := s.AccessToken(t.Context())
			if strict && test.strict != "" {
				require.ErrorContains(t, err, test.strict, name)
				return
			}
			require.NoError(t, err, name)
			require.Equal(t, "t", token)

			var sent []string
			base := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sent = append(sent, req.Header.Get("Authorization"))
				return reply{}.response(req), nil
			})}
			client := conf.Client(context.WithValue(t.Context(), oauth2.HTTPClient, base))
			for range 2 { // The second time the token is there already.
				for _, client := range []*http.Client{client, {Transport: &Transport{Source: s, Base: base.Transport}}} {
					_, err = client.Get("https://api.example")
					require.Equal(t, test.usable, err == nil, "%s: %v", name, err)
					require.Equal(t, !test.usable, errors.Is(err, errNotAccessToken), name)
				}
			}
			require.Equal(t, test.usable, len(sent) > 0, name)
			req, _ := http.NewRequest(http.MethodGet, "https://api.example", nil)
			require.Equal(t, test.usable, s.Authorize(req) == nil, name)
		})
	}
}

// A request without client authentication needs no ClientID to be shared: the subject says
// whose token it is.
func TestG8_StoreWithoutClient(t *testing.T) {
	for name, test := range map[string]struct {
		change func(c *Config)
		works  bool
	}{
		"only a grant":       {func(*Config) {}, true},
		"no grant":           {func(c *Config) { c.Grant = nil }, false},
		"a secret":           {func(c *Config) { c.ClientSecret = "s" }, false},
		"a ClientAuth":       {func(c *Config) { c.ClientAuth = &scriptedAuth{} }, false},
		"with the client id": {func(c *Config) { c.ClientID, c.ClientSecret = "id", "s" }, true},
	} {
		conf := &Config{TokenURL: memoryTokenURL, Grant: newGrant(), Store: Seal(new(leakyStore), testKeyring(t, 1))}
		test.change(conf)
		_, _, err := conf.check()
		require.Equal(t, test.works, err == nil, "%s: %v", name, err)
	}
}

// A cooldown ends when the Grant is replaced, as with a ClientAuth.
func TestG3_CooldownEndsWithAnotherGrant(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, _ *world) {
		endpoint := newTokenEndpoint(reply{status: 400, body: `{"error":"invalid_grant"}`})
		conf := endpoint.config()
		conf.Grant = newGrant()
		s := conf.Source(t.Context())
		for range 2 * cooldownFree {
			_, err := s.Token()
			require.Error(t, err)
		}
		require.Len(t, endpoint.received(), cooldownFree)
		conf.Grant = newGrant()
		_, err := s.Token()
		require.Error(t, err)
		require.Len(t, endpoint.received(), cooldownFree+1)
	})
}

package clientcredentials

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A speller is an authorization server and an API. Its tokens spell out what was asked for,
// and how often it was asked for that. refuse may answer a token request instead.
type speller struct {
	refuse func(form url.Values) (*http.Response, error)
	api    func(req *http.Request) *http.Response // nil: it always answers 200

	mu       sync.Mutex // protects what follows
	requests map[string]int
	sent     []string // the tokens that the API got
}

// asked is what a token request of form asks for.
func asked(form url.Values) string {
	var words []string
	for _, name := range []string{"scope", "resource", "audience", "x"} {
		values := slices.Clone(form[name])
		for i, value := range values {
			scopes := strings.Fields(value)
			slices.Sort(scopes)
			values[i] = strings.Join(scopes, "+")
		}
		slices.Sort(values)
		if len(values) > 0 {
			words = append(words, name+"="+strings.Join(values, ","))
		}
	}
	return strings.Join(words, "&")
}

func (s *speller) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == "api.example" && s.api != nil {
		return s.api(req), nil
	}
	if req.URL.Host == "api.example" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sent = append(s.sent, strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "))
		return reply{body: "{}"}.response(req), nil
	}
	form, err := formOf(req)
	if err != nil {
		return nil, err
	}
	what := asked(form)
	s.mu.Lock()
	if s.requests == nil {
		s.requests = make(map[string]int)
	}
	s.requests[what]++
	n := s.requests[what]
	s.mu.Unlock()
	if s.refuse != nil {
		if resp, err := s.refuse(form); resp != nil || err != nil {
			return resp, err
		}
	}
	return reply{body: fmt.Sprintf(`{"access_token":"%s#%d","token_type":"Bearer","expires_in":3600}`, what, n)}.response(req), nil
}

// total returns the number of token requests.
func (s *speller) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, requests := range s.requests {
		n += requests
	}
	return n
}

// config returns a Config for s, whose own token has scope=read.
func (s *speller) config() *Config {
	return &Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token", AuthStyle: oauth2.AuthStyleInHeader, Scopes: []string{"read"}, HTTPClient: &http.Client{Transport: s}}
}

func TestT1_EachTargetHasItsOwnToken(t *testing.T) {
	rows := []struct {
		target Target
		want   string
	}{
		{Target{}, "scope=read"},
		{Target{Scopes: []string{"write", "admin"}}, "scope=admin+write"},
		{Target{Scopes: []string{"admin", "write"}}, "scope=admin+write"},
		{Target{Scopes: []string{}}, ""},
		{Target{Resources: []string{"https://b.example", "https://a.example"}}, "scope=read&resource=https://a.example,https://b.example"},
		{Target{Audience: "a"}, "scope=read&audience=a"},
		{Target{Scopes: []string{"write"}, Audience: "a", Params: url.Values{"x": {"1", "2"}}}, "scope=write&audience=a&x=1,2"},
		{Target{Params: url.Values{"x": {"1"}}}, "scope=read&x=1"},
	}
	testkit.Synctest(t, func(t *testing.T) {
		for name, send := range map[string]func(c *Config, ctx context.Context) func(target Target) error{
			"Client": func(c *Config, ctx context.Context) func(Target) error { return sender(t, c.Client(ctx)) },
			"Transport": func(c *Config, ctx context.Context) func(Target) error {
				return sender(t, &http.Client{Transport: c.Transport(ctx)})
			},
			"Source.Authorize": func(c *Config, ctx context.Context) func(Target) error {
				source := c.Source(ctx)
				return func(target Target) error {
					req, err := http.NewRequestWithContext(WithTarget(t.Context(), target), http.MethodGet, worldAPI, nil)
					require.NoError(t, err)
					require.NoError(t, source.Authorize(req))
					_, err = c.HTTPClient.Transport.RoundTrip(req)
					return err
				}
			},
			"Source.TokenContext": func(c *Config, ctx context.Context) func(Target) error {
				source := c.Source(ctx)
				return func(target Target) error {
					token, err := source.TokenContext(WithTarget(t.Context(), target))
					require.NoError(t, err)
					text, err := source.AccessToken(WithTarget(t.Context(), target))
					require.NoError(t, err)
					require.Equal(t, token.AccessToken, text)
					longer, err := source.TokenFor(WithTarget(t.Context(), target), time.Minute)
					require.NoError(t, err)
					require.Equal(t, token.AccessToken, longer.AccessToken)
					req := httptest.NewRequest(http.MethodGet, worldAPI, nil)
					req.Header.Set("Authorization", "Bearer "+text)
					_, err = c.HTTPClient.Transport.RoundTrip(req)
					return err
				}
			},
		} {
			server := new(speller)
			conf := server.config()
			ask := send(conf, context.WithValue(t.Context(), oauth2.HTTPClient, conf.HTTPClient))
			for range 3 {
				for _, row := range rows {
					require.NoError(t, ask(row.target), name)
					require.Equal(t, row.want+"#1", server.sent[len(server.sent)-1], name)
				}
			}
			require.Equal(t, len(rows)-1, server.total(), "%s: equal targets share, and tokens are cached", name)
		}
	})
}

// sender returns a function that sends a request for a target.
func sender(t *testing.T, client *http.Client) func(target Target) error {
	return func(target Target) error {
		req, err := http.NewRequestWithContext(WithTarget(t.Context(), target), http.MethodGet, worldAPI, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
}

// A target is for one Source. The token request may go through the client of another one, or
// need a token for a key in a KMS.
func TestT1_NotForOtherSources(t *testing.T) {
	target := Target{Scopes: []string{"admin"}}
	for name, request := range map[string]func(ctx context.Context, conf *Config) error{
		"Token": func(ctx context.Context, conf *Config) error {
			_, err := conf.Token(WithTarget(ctx, target))
			return err
		},
		"Source": func(ctx context.Context, conf *Config) error {
			_, err := conf.Source(WithTarget(ctx, target)).Token()
			return err
		},
		"caller": func(ctx context.Context, conf *Config) error {
			_, err := conf.Source(ctx).TokenContext(WithTarget(ctx, target))
			return err
		},
	} {
		endpoint := newTokenEndpoint(reply{body: `{"access_token":"a","expires_in":3600}`})
		gateway, conf, signer := endpoint.config(), endpoint.config(), endpoint.config()
		gateway.Scopes, conf.Scopes, signer.Scopes = []string{"gateway"}, []string{"read"}, []string{"sign"}
		conf.HTTPClient = gateway.Client(context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: endpoint}))
		conf.ClientAuth = &scriptedAuth{during: func(ctx context.Context) {
			_, err := signer.Source(t.Context()).TokenContext(ctx)
			require.NoError(t, err)
		}}
		require.NoError(t, request(t.Context(), conf), name)
		var scopes []string
		for _, r := range endpoint.received() {
			scopes = append(scopes, r.form.Get("scope"))
		}
		require.Equal(t, []string{"sign", "gateway", "admin"}, scopes, name)
	}
}

func TestT1_For(t *testing.T) {
	server := new(speller)
	conf := server.config()
	source := conf.Source(t.Context())
	a, b := Target{Audience: "a"}, Target{Audience: "b"}
	require.Same(t, source, source.For(Target{}))
	require.Same(t, source.For(a), source.For(Target{Audience: "a", Params: url.Values{}}))
	require.NotSame(t, source.For(a), source.For(b))
	require.Same(t, source.For(b), source.For(a).For(b))
	require.Same(t, source, source.For(a).For(Target{}))
	require.Nil(t, (*Source)(nil).For(a))
	require.Equal(t, Expired, source.For(a).Status().State)
	token, err := source.For(a).Token()
	require.NoError(t, err)
	require.Equal(t, "scope=read&audience=a#1", token.AccessToken)
	require.Equal(t, Fresh, source.For(a).Status().State)
	require.Equal(t, Expired, source.Status().State)

	// The target of a request wins over that of the Source, and a context for the
	// construction has one for all requests.
	transport := &Transport{Source: source.For(a), Base: server}
	require.NoError(t, sender(t, &http.Client{Transport: transport})(b))
	require.Equal(t, "scope=read&audience=b#1", server.sent[0])
	fixed, err := conf.Source(WithTarget(t.Context(), b)).Token()
	require.NoError(t, err)
	require.Equal(t, "scope=read&audience=b#2", fixed.AccessToken)
	once, err := conf.Token(WithTarget(t.Context(), b))
	require.NoError(t, err)
	require.Equal(t, "scope=read&audience=b#3", once.AccessToken)

	// Parameters of the target take the place of the Config's, or remove them.
	conf.EndpointParams = url.Values{"x": {"0"}, "resource": {"https://r.example"}}
	for want, target := range map[string]Target{
		"scope=read&resource=https://r.example&audience=c&x=0": {Audience: "c"},
		"scope=read&resource=https://r.example&x=1":            {Params: url.Values{"x": {"1"}}},
		"scope=read&resource=https://r.example":                {Params: url.Values{"x": {}}},
		"scope=read&x=0":                                       {Resources: []string{}},
	} {
		token, err := source.For(target).Token()
		require.NoError(t, err)
		require.Equal(t, want+"#1", token.AccessToken)
	}
	conf.EndpointParams = nil

	// Rotating the Config's own scopes changes only what the target leaves to it.
	conf.Scopes = []string{"write"}
	source.For(a).Invalidate(token)
	token, err = source.For(a).Token()
	require.NoError(t, err)
	require.Equal(t, "scope=write&audience=a#1", token.AccessToken)

	// A token can be reported without saying which target it is for.
	for _, report := range []func(*oauth2.Token){source.Invalidate, func(t *oauth2.Token) { source.Reject(t) }, source.For(b).Invalidate} {
		token, err := source.For(a).Token()
		require.NoError(t, err)
		report(token)
		next, err := source.For(a).Token()
		require.NoError(t, err)
		require.NotEqual(t, token.AccessToken, next.AccessToken)
	}

	// What makes no sense is an error, and nothing is sent.
	before := server.total()
	_, err = source.For(Target{Params: url.Values{"scope": {"x"}}}).Token()
	require.ErrorContains(t, err, `cannot overwrite parameter "scope"`)
	foreign := &Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "x"}), Base: server}
	require.ErrorContains(t, sender(t, &http.Client{Transport: foreign})(a), "knows none; use a *Source")
	require.Equal(t, before, server.total())
}

// A target changes only what it names, however the Config says it.
func TestT1_ParametersOfTheConfig(t *testing.T) {
	const grantType = "grant_type=client_credentials"
	for _, test := range []struct {
		params url.Values
		target Target
		want   string
	}{
		{url.Values{"scope": {"read"}}, Target{Scopes: []string{"write"}}, grantType + "&scope=write"},
		{url.Values{"scope": {"read"}}, Target{Scopes: []string{}}, grantType},
		{url.Values{"scope": {"read"}}, Target{Audience: "a"}, "audience=a&" + grantType + "&scope=read"},
		{url.Values{"scope": {"read"}}, Target{Params: url.Values{"scope": {"write"}}}, grantType + "&scope=write"},
		{url.Values{"grant_type": nil, "x": {"1"}}, Target{Audience: "a"}, "audience=a&x=1"},
		{url.Values{"grant_type": nil, "x": {"1"}}, Target{Params: url.Values{"x": {}}}, ""},
		{url.Values{"grant_type": {"other"}}, Target{Resources: []string{}}, "grant_type=other"},
	} {
		conf := new(speller).config()
		conf.Scopes, conf.EndpointParams = nil, test.params
		request, err := newTokenRequest(t.Context(), conf, test.target.encode(), nil)
		require.NoError(t, err)
		require.Equal(t, test.want, request.form().Encode())
	}
}

// A target that hangs, or is refused for a reason of its own, delays no other.
func TestT2_TargetsDontDelayEachOther(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		over := make(chan struct{})
		server := &speller{refuse: func(form url.Values) (*http.Response, error) {
			switch form.Get("audience") {
			case "hangs":
				<-over
				return nil, errors.New("over")
			case "refused":
				return reply{status: 400, body: `{"error":"invalid_target"}`}.response(nil), nil
			case "down":
				return reply{status: 503, header: http.Header{"Retry-After": {"3000"}}}.response(nil), nil
			}
			return nil, nil
		}}
		source := server.config().Source(t.Context())
		go func() { _, _ = source.For(Target{Audience: "hangs"}).Token() }()
		for range 10 {
			for _, audience := range []string{"refused", "down"} {
				_, err := source.For(Target{Audience: audience}).Token()
				require.Error(t, err)
			}
		}
		start := time.Now()
		for _, s := range []*Source{source, source.For(Target{Audience: "fine"})} {
			_, err := s.Token()
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(start))
		close(over)
		time.Sleep(time.Minute)
	})
}

// What the server has against the client pauses all targets, also those that have not asked.
func TestT3_FailuresOfTheClientAreShared(t *testing.T) {
	for name, answer := range map[string]reply{
		"certificate":             {err: &url.Error{Op: "Post", Err: tls.AlertError(42)}},
		"invalid_client":          {status: 401, body: `{"error":"invalid_client"}`},
		"invalid_client with 400": {status: 400, body: `{"error":"invalid_client"}`},
		"429":                     {status: 429, header: http.Header{"Retry-After": {"60"}}},
	} {
		testkit.Synctest(t, func(t *testing.T) {
			refusing := true
			server := &speller{}
			server.refuse = func(url.Values) (*http.Response, error) {
				switch {
				case refusing && answer.err != nil:
					return nil, answer.err
				case refusing:
					return answer.response(nil), nil
				}
				return nil, nil
			}
			conf := server.config()
			conf.Retry.MaxAttempts = 1
			source := conf.Source(t.Context())
			for i := range 20 {
				_, err := source.For(Target{Audience: fmt.Sprint(i)}).Token()
				require.Error(t, err)
			}
			_, err := source.Token()
			require.Error(t, err, name)
			require.LessOrEqual(t, server.total(), 5, name)

			// Another secret is another client, and success ends the pause for all.
			refusing = false
			conf.ClientSecret = "rotated"
			_, err = source.For(Target{Audience: "1"}).Token()
			require.NoError(t, err, name)
			_, err = source.For(Target{Audience: "new"}).Token()
			require.NoError(t, err, name)
		})
	}
}

// The number of targets is bounded, and eviction drops no caller who waits.
func TestT4_Eviction(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		over := make(chan struct{})
		server := &speller{refuse: func(form url.Values) (*http.Response, error) {
			if form.Get("audience") == "slow" {
				<-over
			}
			return nil, nil
		}}
		source := server.config().Source(t.Context())
		slow := make(chan error, 1)
		go func() {
			_, err := source.For(Target{Audience: "slow"}).Token()
			slow <- err
		}()
		synctest.Wait()
		kept := source.For(Target{Audience: "kept"})
		for i := range 3 * maxTargets {
			_, err := source.For(Target{Audience: fmt.Sprint(i)}).Token()
			require.NoError(t, err)
			require.Same(t, kept, source.For(Target{Audience: "kept"}), "it is used all the time")
			require.LessOrEqual(t, len(source.relatives().members), maxTargets)
		}
		second := make(chan error, 1)
		go func() {
			_, err := source.For(Target{Audience: "slow"}).Token()
			second <- err
		}()
		synctest.Wait()
		close(over)
		require.NoError(t, <-slow)
		require.NoError(t, <-second)
		require.Equal(t, 1, server.requests["scope=read&audience=slow"])
	})
}

// Targets are shared through the store, each by itself, and events say which it was.
func TestT5_StoreAndEvents(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		server, store := new(speller), new(storetest.Store)
		a, b := Target{Audience: "a"}, Target{Audience: "b"}
		var mu sync.Mutex
		done := make(map[string]int)
		for range 2 {
			conf := server.config()
			conf.Store = DangerouslyShareInPlaintext(store)
			conf.Observer = &Observer{RefreshDone: func(e event.RefreshDone) {
				mu.Lock()
				defer mu.Unlock()
				done[e.Target]++
			}}
			source := conf.Source(t.Context())
			for _, s := range []*Source{source, source.For(a), source.For(b)} {
				_, err := s.Token()
				require.NoError(t, err)
			}
		}
		require.Equal(t, 3, server.total())
		require.Len(t, store.Keys(), 3)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, map[string]int{"": 2, a.ID(): 2, b.ID(): 2}, done)
		require.Regexp(t, "^[0-9a-f]{16}$", a.ID())
	})
}

// Callers of many targets against a server and an API with random faults, challenges,
// invalidations and evictions: no target ever gets another target's token, no scope that the
// program hasn't listed is asked for, and the number of token requests is bounded.
func TestT6_TargetSimulation(t *testing.T) {
	t.Parallel()
	seeds := uint64(40)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			testkit.Synctest(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1)) // Used by one goroutine at a time: the test's, or with server.mu.
				var faults sync.Mutex
				draw := func(n int) int {
					faults.Lock()
					defer faults.Unlock()
					return random.IntN(n)
				}
				server := &speller{refuse: func(form url.Values) (*http.Response, error) {
					switch draw(20) {
					case 0:
						return reply{status: 503}.response(nil), nil
					case 1:
						return reply{status: 400, body: `{"error":"invalid_target"}`}.response(nil), nil
					case 2:
						return nil, io.ErrUnexpectedEOF
					case 3:
						time.Sleep(time.Duration(draw(20_000)) * time.Millisecond)
					}
					return nil, nil
				}}
				conf := server.config()
				conf.Challenged = ScopeChallenge("extra")
				source := conf.Source(t.Context())
				client := &http.Client{Transport: &Transport{Source: source, Base: server}}
				server.api = func(req *http.Request) *http.Response {
					token := req.Header.Get("Authorization")
					require.Contains(t, token, "&audience="+req.URL.Path[1:]+"#")
					require.Regexp(t, "^Bearer scope=(extra[+])?read&", token)
					switch n := draw(30); {
					case n == 0:
						return unauthorized(invalidToken, http.NoBody)
					case n < 4:
						resp := unauthorized(`Bearer error="insufficient_scope", scope="extra admin"`, http.NoBody)
						resp.StatusCode = http.StatusForbidden
						return resp
					}
					return reply{body: "{}"}.response(req)
				}
				var callers sync.WaitGroup
				const calls = 400
				for range 5 {
					callers.Go(func() {
						for range calls {
							target := Target{Audience: fmt.Sprint(draw(1 + draw(150)))}
							s := source.For(target)
							if draw(2) == 0 {
								req, err := http.NewRequestWithContext(WithTarget(t.Context(), target), http.MethodGet, worldAPI+target.Audience, nil)
								require.NoError(t, err)
								if resp, err := client.Do(req); err == nil {
									resp.Body.Close()
								}
							} else if token, err := s.Token(); err == nil {
								require.Contains(t, token.AccessToken, "&audience="+target.Audience+"#")
								if draw(20) == 0 {
									s.Invalidate(token)
								}
							}
							time.Sleep(time.Duration(draw(60_000)) * time.Millisecond)
						}
					})
				}
				callers.Wait()
				require.LessOrEqual(t, len(source.relatives().members), maxTargets)
				require.LessOrEqual(t, server.total(), 5*calls*3)
				time.Sleep(time.Minute)
			})
		})
	}
}

// FuzzTarget checks that two targets are encoded alike only if they are equal but for the
// order of scopes and resources, and that nothing is lost.
func FuzzTarget(f *testing.F) {
	f.Add("a b", "", "", "", "a", "b", "", "", true)
	f.Add("a", "b", "aud", "x=1", "b", "a", "aud", "x=1", false)
	f.Add("\xff", "", "", "", "\ufffd", "", "", "", false)
	f.Add("", "", "", "x", "", "", "", "y=&x", true)
	f.Fuzz(func(t *testing.T, scopes1, resources1, audience1, params1, scopes2, resources2, audience2, params2 string, nils bool) {
		build := func(scopes, resources, audience, params string) Target {
			target := Target{Scopes: strings.Split(scopes, "|"), Resources: strings.Split(resources, "|"), Audience: audience}
			if nils && scopes == "" {
				target.Scopes = nil
			}
			if resources == "" {
				target.Resources = nil
			}
			if values, err := url.ParseQuery(params); err == nil && len(values) > 0 {
				target.Params = values
			}
			return target
		}
		normal := func(t Target) Target {
			t.Scopes, t.Resources = slices.Clone(t.Scopes), slices.Clone(t.Resources)
			slices.Sort(t.Scopes)
			slices.Sort(t.Resources)
			return t
		}
		a, b := build(scopes1, resources1, audience1, params1), build(scopes2, resources2, audience2, params2)
		require.Equal(t, normal(a), decodeTarget(a.encode()))
		require.Equal(t, fmt.Sprintf("%#v", normal(a)) == fmt.Sprintf("%#v", normal(b)), a.encode() == b.encode(), "%#v %#v", a, b)
		slices.Reverse(a.Scopes)
		slices.Reverse(a.Resources)
		require.Equal(t, normal(a), decodeTarget(a.encode()))
	})
}

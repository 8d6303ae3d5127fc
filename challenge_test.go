package clientcredentials

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const someClaims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`

// challengedWorld is a world whose API wants the scope write, and a client for it.
func challengedWorld(t *testing.T, kind string, prepare func(w *world), test func(t *testing.T, w *world, client *http.Client)) {
	t.Helper()
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.conf.Scopes = []string{"read"}
		prepare(w)
		test(t, w, w.clients()[kind])
	})
}

func TestT7_TheAPIGetsTheTokenThatItAsksFor(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"scope": func(w *world) {
			w.api.ScopeByPath = map[string]string{"/": "write read"}
			w.conf.Challenged = ScopeChallenge("write", "admin")
		},
		"scope, which a parameter says": func(w *world) {
			w.conf.Scopes, w.conf.EndpointParams = nil, url.Values{"scope": {"read"}}
			w.api.ScopeByPath = map[string]string{"/": "write read"}
			w.conf.Challenged = ScopeChallenge("write")
		},
		"claims": func(w *world) {
			w.api.Claims = someClaims
			w.conf.Challenged = ClaimsChallenge
		},
		"claims, beside the program's": func(w *world) {
			const own = `{"access_token":{"xms_cc":{"values":["cp1"]}}}`
			w.conf.EndpointParams = url.Values{"claims": {own}}
			w.api.Claims = mergeClaims(own, someClaims)
			w.conf.Challenged = func(ctx context.Context, c *Challenge) (*Target, error) {
				c.Claims = base64.StdEncoding.EncodeToString([]byte(someClaims))
				return ClaimsChallenge(ctx, c)
			}
		},
		"audience": func(w *world) {
			w.api.AlwaysChallenge = false
			w.api.ScopeByPath = map[string]string{"/": "write"}
			w.conf.Challenged = func(_ context.Context, c *Challenge) (*Target, error) {
				c.Target.Scopes = []string{"write"}
				return &c.Target, nil
			}
		},
	} {
		for _, kind := range kinds {
			challengedWorld(t, kind, prepare, func(t *testing.T, w *world, client *http.Client) {
				require.Equal(t, http.StatusOK, w.status(t, client), name)
				require.Equal(t, 1, w.api.Rejected(), name)
				for range 5 {
					require.Equal(t, http.StatusOK, w.status(t, client), name)
				}
				require.Equal(t, 1, w.api.Rejected(), "%s: the new target serves from then on", name)
				require.Equal(t, 2, w.auth.TokenRequests(), name)
				time.Sleep(50 * time.Minute) // It is refreshed like any other.
				require.Equal(t, http.StatusOK, w.status(t, client), name)
				time.Sleep(20 * time.Minute)
				require.Equal(t, http.StatusOK, w.status(t, client), name)
				require.Equal(t, 1, w.api.Rejected(), name)
			})
		}
	}
}

// Whatever an API wants, the caller gets its answer if the program doesn't want that.
func TestT7_NotWanted(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(w *world)
		status  int
		err     string
	}{
		"no function": {func(w *world) { w.api.ScopeByPath = map[string]string{"/": "write"} }, 403, ""},
		"scope not listed": {func(w *world) {
			w.api.ScopeByPath = map[string]string{"/": "admin"}
			w.conf.Challenged = ScopeChallenge("write")
		}, 403, ""},
		"scope it has": {func(w *world) {
			w.api.ScopeByPath = map[string]string{"/": "read"}
			w.api.AlwaysChallenge = true
			w.conf.Challenged = ScopeChallenge("read")
		}, 403, ""},
		"RFC 9470": {func(w *world) { w.api.ACRValues = "mfa"; w.conf.Challenged = bothChallenges("write") }, 401, ""},
		"nothing": {func(w *world) {
			w.api.Claims = someClaims
			w.conf.Challenged = func(context.Context, *Challenge) (*Target, error) { return nil, nil }
		}, 401, ""},
		"the same": {func(w *world) {
			w.api.Claims = someClaims
			w.conf.Challenged = func(_ context.Context, c *Challenge) (*Target, error) { return &c.Target, nil }
		}, 401, ""},
		"an error": {func(w *world) {
			w.api.Claims = someClaims
			w.conf.Challenged = func(context.Context, *Challenge) (*Target, error) { return nil, errors.New("no") }
		}, 0, "oauth2: Config.Challenged: no"},
		"a panic": {func(w *world) {
			w.api.Claims = someClaims
			w.conf.Challenged = func(context.Context, *Challenge) (*Target, error) { panic("x") }
		}, 0, "oauth2: Config.Challenged: "},
		"Goexit": {func(w *world) {
			w.api.Claims = someClaims
			w.conf.Challenged = func(context.Context, *Challenge) (*Target, error) { runtime.Goexit(); return nil, nil }
		}, 0, "oauth2: Config.Challenged: "},
		"refused by the server": {func(w *world) {
			w.auth.Clients[0].Scopes = []string{"read"}
			w.api.ScopeByPath = map[string]string{"/": "write"}
			w.conf.Challenged = ScopeChallenge("write")
		}, 403, ""},
	} {
		for _, kind := range kinds {
			challengedWorld(t, kind, test.prepare, func(t *testing.T, w *world, client *http.Client) {
				before := 0
				for i := range 10 {
					resp, err := w.get(t, client)
					if test.err != "" {
						require.ErrorContains(t, err, test.err, name)
						continue
					}
					require.NoError(t, err, name)
					require.Equal(t, test.status, resp.StatusCode, name)
					if i == 0 {
						before = w.auth.TokenRequests()
					}
				}
				if test.err == "" {
					require.Equal(t, before, w.auth.TokenRequests(), "%s: no further token request in 30 seconds", name)
				}
			})
		}
	}
}

func bothChallenges(scopes ...string) func(context.Context, *Challenge) (*Target, error) {
	scope := ScopeChallenge(scopes...)
	return func(ctx context.Context, c *Challenge) (*Target, error) {
		if target, err := scope(ctx, c); target != nil || err != nil {
			return target, err
		}
		return ClaimsChallenge(ctx, c)
	}
}

// An API that wants something else each time causes one token request in 30 seconds, as one
// that answers 401 does, and one replay for each call.
func TestT8_ChallengesWithoutEnd(t *testing.T) {
	for _, kind := range kinds {
		challengedWorld(t, kind, func(w *world) { w.conf.Challenged = ClaimsChallenge }, func(t *testing.T, w *world, _ *http.Client) {
			n, requests := 0, 0
			client := w.through(t, kind, roundTripFunc(func(*http.Request) (*http.Response, error) {
				n++
				claims := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"n":%d}`, n))
				return unauthorized(`Bearer error="insufficient_claims", claims="`+claims+`"`, http.NoBody), nil
			}))
			start := time.Now()
			for ; time.Since(start) < 2*time.Hour; requests++ {
				require.Equal(t, http.StatusUnauthorized, w.status(t, client))
				time.Sleep(time.Second)
			}
			require.LessOrEqual(t, w.auth.TokenRequests(), 2*60*2+10)
			require.LessOrEqual(t, n, requests+w.auth.TokenRequests())
		})
	}
	// If an API repeats one challenge, there are no more token requests for it.
	challengedWorld(t, "Client", func(w *world) {
		w.api.Claims, w.api.AlwaysChallenge, w.conf.Challenged = someClaims, true, ClaimsChallenge
	}, func(t *testing.T, w *world, client *http.Client) {
		for range 1000 {
			require.Equal(t, http.StatusUnauthorized, w.status(t, client))
			time.Sleep(time.Second)
		}
		require.Equal(t, 2, w.auth.TokenRequests())
	})
}

func TestT9_ChallengesOfManyRequestsAndTargets(t *testing.T) {
	for _, kind := range kinds {
		challengedWorld(t, kind, func(w *world) {
			w.api.ScopeByPath = map[string]string{"/": "write"}
			w.conf.Challenged = ScopeChallenge("write")
			w.auth.Latency = time.Second
		}, func(t *testing.T, w *world, client *http.Client) {
			var calls sync.WaitGroup
			for range 50 {
				calls.Go(func() {
					require.Equal(t, http.StatusOK, w.status(t, client))
				})
			}
			calls.Wait()
			require.Equal(t, 2, w.auth.TokenRequests(), "they share the new token as they shared the old one")

			// Each target steps up by itself.
			for _, audience := range []string{"a", "b"} {
				require.NoError(t, sender(t, client)(Target{Audience: audience}))
				require.NoError(t, sender(t, client)(Target{Audience: audience}))
			}
			require.Equal(t, 6, w.auth.TokenRequests())

			// Without a second body the caller gets the answer, and the next request the token.
			w.api.ScopeByPath = map[string]string{"/": "write"}
			target := Target{Audience: "c"}
			post := func() int {
				req, err := http.NewRequestWithContext(WithTarget(t.Context(), target), http.MethodPost, worldAPI, io.MultiReader(strings.NewReader("x")))
				require.NoError(t, err)
				resp, err := client.Do(req)
				require.NoError(t, err)
				resp.Body.Close()
				return resp.StatusCode
			}
			require.Equal(t, http.StatusForbidden, post())
			require.Equal(t, http.StatusOK, post())
		})
	}
}

// A caller who gives up doesn't keep the others from the new token.
func TestT9_ACallerGivesUp(t *testing.T) {
	for _, kind := range kinds {
		challengedWorld(t, kind, func(w *world) {
			w.api.ScopeByPath = map[string]string{"/": "write"}
			w.conf.Challenged = ScopeChallenge("write")
			w.auth.Latency = 3 * time.Second
		}, func(t *testing.T, w *world, client *http.Client) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // During the second token request.
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, worldAPI, nil)
			require.NoError(t, err)
			resp, err := client.Do(req)
			if err == nil {
				resp.Body.Close()
				require.Equal(t, http.StatusForbidden, resp.StatusCode)
			}
			require.Equal(t, http.StatusOK, w.status(t, client))
			require.Equal(t, 2, w.auth.TokenRequests())
		})
	}
}

func TestT7_Functions(t *testing.T) {
	has := Target{Scopes: []string{"read"}, Params: url.Values{"x": {"1"}}}
	scope := func(c Challenge) *Target {
		c.Target = has
		target, err := ScopeChallenge("write", "admin")(t.Context(), &c)
		require.NoError(t, err)
		return target
	}
	require.Equal(t, []string{"read", "write"}, scope(Challenge{Error: "insufficient_scope", Scope: "write  delete read write"}).Scopes)
	require.Nil(t, scope(Challenge{Error: "insufficient_scope", Scope: "delete"}))
	require.Nil(t, scope(Challenge{Error: "insufficient_scope"}))
	require.Nil(t, scope(Challenge{Error: "invalid_token", Scope: "write"}))
	require.Equal(t, []string{"read"}, has.Scopes)

	for _, test := range []struct {
		conf         Config
		target, want Target
	}{
		{Config{Scopes: []string{"a"}}, Target{}, Target{Scopes: []string{"a"}}},
		{Config{EndpointParams: url.Values{"scope": {"a b"}}}, Target{}, Target{Scopes: []string{"a", "b"}}},
		{Config{EndpointParams: url.Values{"scope": {"a", "b"}}}, Target{}, Target{Scopes: []string{"a", "b"}}},
		{Config{Scopes: []string{}, EndpointParams: url.Values{"scope": {""}}}, Target{}, Target{}},
		{Config{EndpointParams: url.Values{"scope": {"a"}}}, Target{Scopes: []string{}}, Target{Scopes: []string{}}},
		{Config{EndpointParams: url.Values{"scope": {"a"}}}, Target{Params: url.Values{"scope": {"b"}, "x": {"1"}}}, Target{Scopes: []string{"b"}, Params: url.Values{"x": {"1"}}}},
	} {
		target := test.target
		target.fillScopes(&test.conf)
		require.Equal(t, test.want, target)
	}

	claims := func(text string) *Target {
		target, err := ClaimsChallenge(t.Context(), &Challenge{Error: "insufficient_claims", Claims: text, Target: has})
		require.NoError(t, err)
		return target
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		require.Equal(t, url.Values{"x": {"1"}, "claims": {`{"a":"??>>"}`}}, claims(encoding.EncodeToString([]byte(`{"a":"??>>"}`))).Params)
	}
	for _, bad := range []string{"", "%", base64.StdEncoding.EncodeToString([]byte(`[1]`)), base64.StdEncoding.EncodeToString([]byte(`{`)), base64.StdEncoding.EncodeToString([]byte(`{"a":"` + strings.Repeat("x", maxClaims) + `"}`))} {
		require.Nil(t, claims(bad), bad)
	}
	require.Equal(t, url.Values{"x": {"1"}}, has.Params)
	for own, want := range map[string]string{
		"":              someClaims,
		"not JSON":      someClaims,
		"null":          someClaims,
		`{"x":{"y":1}}`: `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}},"x":{"y":1}}`,
		`{"access_token":{"xms_cc":{"values":["cp1"]}}}`: `{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"xms_cc":{"values":["cp1"]}}}`,
		`{"access_token":{"nbf":{"value":"1"}}}`:         someClaims,
		`{"access_token":5}`:                             someClaims,
	} {
		require.Equal(t, want, mergeClaims(own, someClaims), own)
	}

	resp := func(values ...string) *http.Response {
		return &http.Response{StatusCode: 403, Header: http.Header{"Www-Authenticate": values}}
	}
	require.Equal(t, &Challenge{StatusCode: 403, Scheme: "Bearer", Error: "insufficient_scope", Scope: "a b", ResourceMetadata: "https://api.example/x"},
		newChallenge("Bearer t", resp("Basic", `Bearer error="insufficient_scope", SCOPE="a b", resource_metadata="https://api.example/x"`)))
	require.Equal(t, "DPoP", newChallenge("DPoP t", resp(`Bearer error="x"`, `DPoP error="y"`)).Scheme)
	require.Nil(t, newChallenge("Bearer t", resp(`Bearer error="invalid_token"`)))
	require.NotNil(t, newChallenge("Bearer t", resp(`Bearer error="invalid_token", claims="x"`)))
	require.Nil(t, newChallenge("Bearer t", resp("Basic")))
	require.Nil(t, newChallenge("Bearer t", resp()))
}

// An API's answer to the old token may come after another request has got the new one. Then
// that is used, and nothing is requested. It makes no difference if the old token isn't valid by
// then.
func TestT9_ChallengedLate(t *testing.T) {
	for i, kind := range slices.Repeat(kinds, 2) {
		challengedWorld(t, kind, func(w *world) {
			w.api.ScopeByPath = map[string]string{"/": "write"}
			w.conf.Challenged = ScopeChallenge("write")
		}, func(t *testing.T, w *world, _ *http.Client) {
			network, _ := contextClient(w.ctx)
			var slow atomic.Bool
			slow.Store(true)
			client := w.through(t, kind, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp, err := network.Transport.RoundTrip(req)
				if slow.Swap(false) {
					time.Sleep(time.Minute)
					if i >= len(kinds) {
						return unauthorized(invalidToken, resp.Body), nil
					}
				}
				return resp, err
			}))
			late := make(chan int, 1)
			go func() {
				resp, err := w.get(t, client)
				if err != nil {
					late <- 0
					return
				}
				late <- resp.StatusCode
			}()
			time.Sleep(time.Second)
			require.Equal(t, http.StatusOK, w.status(t, client))
			require.Equal(t, http.StatusOK, <-late)
			require.Equal(t, 2, w.auth.TokenRequests())
		})
	}
}

// Only the client's own tokens are replaced. A program may send another one through the same
// client, such as that of a user.
func TestT9_WhoseTokenWasChallenged(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		server := new(speller)
		conf := server.config()
		asked := 0
		conf.Challenged = func(ctx context.Context, c *Challenge) (*Target, error) {
			asked++
			return ScopeChallenge("write", "admin")(ctx, c)
		}
		s := conf.Source(t.Context())
		promptly(t, s)
		for _, test := range []struct{ token, wanted, got string }{
			{"users-own", "write", ""},
			{"scope=read#1", "write", "scope=read+write#1"},
			{"users-own", "write", ""},
			{"scope=read#1", "write", "scope=read+write#1"}, // It is late.
			{"scope=read+write#1", "admin", "scope=admin+read+write#1"},
			{"scope=read+write#1", "admin", "scope=admin+read+write#1"}, // These two are late.
			{"scope=read#1", "write", "scope=admin+read+write#1"},
			{"users-own", "admin", ""},
		} {
			time.Sleep(minChallenge)
			before := asked
			resp := unauthorized(`Bearer error="insufficient_scope", scope="`+test.wanted+`"`, http.NoBody)
			c, err := s.answerChallenge(httptest.NewRequest(http.MethodPost, worldAPI, nil), "Bearer "+test.token, resp)
			require.NoError(t, err)
			require.Equal(t, test.got != "", c != nil, "%+v", test)
			if c != nil {
				require.Equal(t, test.got, c.accessToken())
			} else {
				require.Equal(t, before, asked)
			}
		}
		require.Equal(t, 2, asked)
		require.Equal(t, 3, server.total())
	})

	// Upstream lets a program change the Source of its client.
	challengedWorld(t, "Client", func(w *world) { w.conf.Challenged = ScopeChallenge("write") }, func(t *testing.T, w *world, _ *http.Client) {
		var sent []string
		client := w.through(t, "Client", roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sent = append(sent, req.Header.Get("Authorization"))
			return unauthorized(`Bearer error="insufficient_scope", scope="write"`, http.NoBody), nil
		}))
		client.Transport.(*oauth2.Transport).Source = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "users-own"})
		require.Equal(t, http.StatusUnauthorized, w.status(t, client))
		require.Equal(t, []string{"Bearer users-own"}, sent)
		require.Zero(t, w.auth.TokenRequests())
	})
}

// After a challenge, what a program asks or reports is about the Source that serves. It is known
// for as long as the one whose callers it serves.
func TestT10_TheSourceThatServes(t *testing.T) {
	for name, test := range map[string]struct {
		target    Target
		forgotten bool
	}{
		"the Config's own":   {Target{}, false},
		"a target":           {Target{Audience: "a"}, false},
		"a forgotten target": {Target{Audience: "a"}, true},
	} {
		testkit.Synctest(t, func(t *testing.T) {
			conf := new(speller).config()
			conf.Challenged = ScopeChallenge("write")
			root := conf.Source(t.Context())
			s := root.For(test.target)
			promptly(t, s)
			resp := unauthorized(`Bearer error="insufficient_scope", scope="write"`, http.NoBody)
			c, err := s.answerChallenge(httptest.NewRequest(http.MethodGet, worldAPI, nil), "Bearer "+promptly(t, s).AccessToken, resp)
			require.NoError(t, err)
			require.Equal(t, c.accessToken(), promptly(t, s).AccessToken, name)
			for i := range 2 * maxTargets {
				promptly(t, root.For(Target{Audience: fmt.Sprint(i)}))
				if !test.forgotten {
					require.Same(t, s, root.For(test.target))
				}
			}
			require.Len(t, root.relatives().members, maxTargets)

			for range 2 {
				time.Sleep(59 * time.Minute)
				promptly(t, s) // It is replaced in the background.
				synctest.Wait()
			}
			require.Equal(t, Fresh, s.Status().State, name)
			require.Equal(t, promptly(t, s).Expiry, s.Status().Expiry, name)

			reporters := []*Source{s}
			if !test.forgotten {
				reporters = append(reporters, root, root.For(Target{Audience: "b"}))
			}
			for _, reporter := range reporters {
				token := promptly(t, s)
				reporter.Invalidate(token)
				next := promptly(t, s)
				require.NotEqual(t, token.AccessToken, next.AccessToken, name)
				time.Sleep(minChallenge)
				require.True(t, reporter.Reject(next), name)
				require.NotEqual(t, next.AccessToken, promptly(t, s).AccessToken, name)
			}
		})
	}
}

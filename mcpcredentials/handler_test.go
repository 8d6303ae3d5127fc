package mcpcredentials

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// requireCall calls a tool, which must succeed.
func requireCall(t *testing.T, session *mcp.ClientSession, tool string) {
	t.Helper()
	text, err := call(t.Context(), session, tool)
	require.NoError(t, err)
	require.Equal(t, tool+" done", text)
}

// A client of the SDK connects, lists tools and calls one, with one token.
func TestM1_Session(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		w := listen(t)
		session, err := connect(t, use(w, w.handler(t)))
		require.NoError(t, err)
		tools, err := session.ListTools(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, tools.Tools, 2)
		requireCall(t, session, "read")
		require.NoError(t, session.Close())

		require.Equal(t, 1, w.auth.TokenRequests())
		require.Equal(t, []string{w.endpoint}, w.auth.Requests()[0].Form["resource"])
		require.Equal(t, []string{"/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server"}, w.asked())
		for i, authorization := range w.received() {
			require.Equal(t, i > 0, authorization != "", "only the first request has no token")
		}
	})
}

// In a session of six hours, tokens that live for 10 minutes are replaced in the background: no
// request is refused, and no call waits for a token.
func TestM2_LongSession(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		testkit.Bubble(t, func(t *testing.T) {
			w := inMemory(t)
			w.auth.TokenLifetime = 10 * time.Minute
			w.auth.Latency = 2 * time.Second
			session, err := connect(t, use(w, w.handler(t)))
			require.NoError(t, err)
			connected := len(w.received())
			for range 6 * 60 {
				time.Sleep(time.Minute)
				before := time.Now()
				requireCall(t, session, "read")
				require.Less(t, time.Since(before), time.Second)
			}
			repeated := len(w.received()) - connected - 6*60
			require.Zero(t, repeated)
			require.InDelta(t, 6*60/8, w.auth.TokenRequests(), 8)
			for _, request := range w.auth.Requests() {
				require.Equal(t, []string{w.endpoint}, request.Form["resource"])
			}
			require.NoError(t, session.Close())
			time.Sleep(time.Minute) // A token request may be under way.
		})
	})
}

// A token that is revoked during a session is replaced, whatever the 401 says.
func TestM3_RevokedToken(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		for _, said := range []string{
			"", "Bearer", `Bearer error="invalid_token"`, `Bearer scope="files:read"`, `Basic realm="x", Bearer realm="y"`,
			`Bearer resource_metadata="https://evil.example/"`, `DPoP algs="ES256"`, `"=,,`,
		} {
			t.Run(said, func(t *testing.T) {
				t.Parallel()
				w := listen(t)
				w.challenge = func() string { return said }
				session, err := connect(t, use(w, w.handler(t)))
				require.NoError(t, err)
				requireCall(t, session, "read")
				w.auth.RevokeAll()
				requireCall(t, session, "read")
				require.Equal(t, 2, w.auth.TokenRequests())
			})
		}
	})
}

// A stream that the SDK opens again gets a new token, too. The SDK calls no OAuthHandler then.
func TestM3_RevokedTokenOfAStream(t *testing.T) {
	t.Parallel()
	w := listen(t)
	h := w.handler(t)
	client := h.Transport(w.network.Transport).HTTPClient
	get := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.endpoint, http.NoBody)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	w.refuse = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(http.StatusTeapot); return true }
	require.Equal(t, http.StatusTeapot, get(), "the token comes with the first request")
	w.auth.RevokeAll()
	require.Equal(t, http.StatusTeapot, get())
	require.Equal(t, 2, w.auth.TokenRequests())

	client.CloseIdleConnections()
}

// A body that can't be read again isn't sent again, and the next request has a token.
func TestM3_BodyThatCannotBeReadAgain(t *testing.T) {
	t.Parallel()
	w := listen(t)
	w.refuse = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(http.StatusTeapot); return true }
	client := w.handler(t).Transport(w.network.Transport).HTTPClient
	broken := func() (io.ReadCloser, error) { return nil, errors.New("it can't be read again") }
	for _, getBody := range []func() (io.ReadCloser, error){nil, broken} {
		for _, want := range []int{http.StatusUnauthorized, http.StatusTeapot} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.endpoint, struct{ io.Reader }{strings.NewReader("{}")})
			require.NoError(t, err)
			req.GetBody = getBody
			resp, err := client.Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, want, resp.StatusCode)
		}
		client = w.handler(t).Transport(w.network.Transport).HTTPClient
	}
	client.CloseIdleConnections()
}

// A RoundTripper that returns odd things causes an error and no panic.
func TestM3_OddRoundTrippers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(*http.Request) *http.Response{
		"nothing": func(*http.Request) *http.Response { return nil },
		"no request": func(*http.Request) *http.Response {
			return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}
		},
		"no body": func(r *http.Request) *http.Response {
			return &http.Response{StatusCode: http.StatusForbidden, Request: r}
		},
		"an empty answer": func(*http.Request) *http.Response { return new(http.Response) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := &clientcredentials.Config{Issuer: "https://login.example", HTTPClient: &http.Client{Transport: roundTrip(answer)}}
			h, err := New("https://mcp.example/mcp", conf)
			require.NoError(t, err)
			_, err = connect(t, h.Transport(roundTrip(answer)))
			require.Error(t, err)
		})
	}
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req), nil }

// refuseAll makes the MCP server refuse every request with that status, as long as refusing.
func (w *world) refuseAll(status int) (refusing *atomic.Bool) {
	refusing = new(atomic.Bool)
	refusing.Store(true)
	w.refuse = func(rw http.ResponseWriter, _ *http.Request) bool {
		if !refusing.Load() {
			return false
		}
		rw.WriteHeader(status)
		return true
	}
	return refusing
}

// An MCP server that refuses every token causes one new token in 30 seconds, and two requests
// for each call.
func TestM3_EveryTokenIsRefused(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{http.StatusUnauthorized: 1 + 100/30, http.StatusForbidden: 1} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T) {
				w := inMemory(t)
				refusing := w.refuseAll(status)
				refusing.Store(false)
				session, err := connect(t, ways["Transport"](w, w.handler(t)))
				require.NoError(t, err)
				refusing.Store(true)
				before := len(w.received())
				for range 100 {
					_, err := call(t.Context(), session, "read")
					require.ErrorContains(t, err, fmt.Sprintf("oauth2: the MCP server answered %d, and there is no other token for it; check", status))
					time.Sleep(time.Second)
				}
				require.InDelta(t, want, w.auth.TokenRequests(), 1)
				require.LessOrEqual(t, len(w.received())-before, 100+w.auth.TokenRequests())
				refusing.Store(false)
				requireCall(t, session, "read")
				require.NoError(t, session.Close())
			})
		})
	}
}

// A call that is refused for another reason than its token doesn't end the session.
func TestM3_Forbidden(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		w := listen(t)
		refusing := w.refuseAll(http.StatusForbidden)
		refusing.Store(false)
		session, err := connect(t, use(w, w.handler(t)))
		require.NoError(t, err)
		refusing.Store(true)
		_, err = call(t.Context(), session, "read")
		require.ErrorContains(t, err, "oauth2: the MCP server answered 403, and there is no other token for it; check")
		refusing.Store(false)
		requireCall(t, session, "read")
		require.Equal(t, 1, w.auth.TokenRequests())
	})
}

// The MCP server gets the scopes that it asks for if the program lists them, and no others. A
// refused call doesn't end the session.
func TestM4_StepUp(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		for _, test := range []struct {
			name    string
			allowed []string // nil: Config.Challenged is nil
			needed  string
			want    string // scope of the last token request; with ! the call fails
		}{
			{"listed", []string{"files:write"}, "files:write", "files:read files:write"},
			{"listed, with the old one", []string{"files:write"}, "files:read files:write", "files:read files:write"},
			{"more listed than asked for", []string{"admin", "files:write"}, "files:write", "files:read files:write"},
			{"only one of two listed", []string{"files:write"}, "files:write admin", "!files:read files:write"},
			{"not listed", []string{"files:read", "files:writ"}, "files:write", "!files:read"},
			{"an empty list", []string{}, "files:write", "!files:read"},
			{"no list", nil, "files:write", "!files:read"},
			{"letter case", []string{"Files:Write"}, "files:write", "!files:read"},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				w := listen(t)
				w.toolScopes = map[string]string{"write": test.needed}
				session, err := connect(t, use(w, w.handler(t, func(c *clientcredentials.Config) {
					c.Scopes = []string{"files:read"}
					if test.allowed != nil {
						c.Challenged = clientcredentials.ScopeChallenge(test.allowed...)
					}
				})))
				require.NoError(t, err)
				requireCall(t, session, "read")
				want, fails := strings.CutPrefix(test.want, "!")
				_, err = call(t.Context(), session, "write")
				requests := w.auth.Requests()
				require.Equal(t, want, requests[len(requests)-1].Form.Get("scope"))
				require.Equal(t, []string{w.endpoint}, requests[len(requests)-1].Form["resource"])
				require.LessOrEqual(t, len(requests), 2)
				if !fails {
					require.NoError(t, err)
					requireCall(t, session, "write")
					require.Len(t, w.auth.Requests(), 2, "the scopes stay")
					return
				}
				require.Error(t, err)
				if len(requests) == 1 {
					require.ErrorContains(t, err, `answered 403 "insufficient_scope" and wants the scopes "`+test.needed+`"; allow them with`)
					requireCall(t, session, "read")
				}
				require.Len(t, w.auth.Requests(), len(requests))
			})
		}
	})
}

// Many calls that need more scopes at once cause one token request.
func TestM4_ManyCallsStepUp(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		w := listen(t)
		w.toolScopes = map[string]string{"write": "files:write"}
		w.auth.Latency = 50 * time.Millisecond
		h := w.handler(t, func(c *clientcredentials.Config) { c.Challenged = clientcredentials.ScopeChallenge("files:write") })
		var sessions sync.WaitGroup
		for range 20 {
			sessions.Go(func() {
				session, err := connect(t, use(w, h))
				require.NoError(t, err)
				requireCall(t, session, "write")
			})
		}
		sessions.Wait()
		require.Equal(t, 2, w.auth.TokenRequests())
	})
}

// Scopes in the first 401, and in a 403 of the SDK's middleware, which has no error code, are
// treated in the same way.
func TestM4_ScopesOfThe401(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		w := listen(t)
		w.challenge = func() string { return `Bearer scope="files:write admin"` }
		w.toolScopes = map[string]string{"write": "files:write"}
		session, err := connect(t, use(w, w.handler(t, func(c *clientcredentials.Config) {
			c.Scopes = []string{"files:read"}
			c.Challenged = clientcredentials.ScopeChallenge("files:write", "files:delete")
		})))
		require.NoError(t, err)
		requireCall(t, session, "write")
		require.Len(t, w.auth.Requests(), 1)
		require.Equal(t, "files:read files:write", w.auth.Requests()[0].Form.Get("scope"))

		w.refuse = func(rw http.ResponseWriter, r *http.Request) bool {
			token, _ := w.auth.Introspect(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			lacks := !slices.Contains(token.Scopes, "files:delete")
			if lacks {
				rw.Header().Set("WWW-Authenticate", `Bearer scope="files:delete"`)
				rw.WriteHeader(http.StatusForbidden)
			}
			return lacks
		}
		requireCall(t, session, "read")
		require.Len(t, w.auth.Requests(), 2)
	})
}

// A program's own function may ask for anything but the token of another resource.
func TestM4_ResourceOfTheProgramsFunction(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]*clientcredentials.Target{
		"only scopes":         {Scopes: []string{"files:write"}},
		"another resource":    {Scopes: []string{"files:write"}, Resources: []string{"https://other.example"}},
		"no resource":         {Scopes: []string{"files:write"}, Resources: []string{}},
		"in Params":           {Scopes: []string{"files:write"}, Params: map[string][]string{"resource": {"https://other.example"}}},
		"removed from Params": {Scopes: []string{"files:write"}, Params: map[string][]string{"resource": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := listen(t)
			w.toolScopes = map[string]string{"write": "files:write"}
			session, err := connect(t, ways["Transport"](w, w.handler(t, func(c *clientcredentials.Config) {
				c.Challenged = func(context.Context, *clientcredentials.Challenge) (*clientcredentials.Target, error) {
					return target, nil
				}
			})))
			require.NoError(t, err)
			requireCall(t, session, "write")
			for _, request := range w.auth.Requests() {
				require.Equal(t, []string{w.endpoint}, request.Form["resource"])
			}
		})
	}
	w := listen(t)
	w.challenge = func() string { return `Bearer scope="x"` }
}

// An error of a program's own function is the error of the call, and the session goes on.
func TestM4_ErrorOfTheProgramsFunction(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		unwanted := errors.New("the program doesn't want that")
		asked := func(c *clientcredentials.Config) {
			c.Challenged = func(context.Context, *clientcredentials.Challenge) (*clientcredentials.Target, error) {
				return nil, unwanted
			}
		}
		w := listen(t)
		w.challenge = func() string { return `Bearer scope="x"` }
		_, err := connect(t, use(w, w.handler(t, asked)))
		require.ErrorIs(t, err, unwanted)
		require.ErrorContains(t, err, "oauth2: Config.Challenged: ")

		w = listen(t)
		w.toolScopes = map[string]string{"write": "files:write"}
		session, err := connect(t, use(w, w.handler(t, asked)))
		require.NoError(t, err)
		_, err = call(t.Context(), session, "write")
		require.ErrorIs(t, err, unwanted)
		requireCall(t, session, "read")
	})
}

// requireNoToken checks that a session fails for that reason, and that no credentials were sent.
func requireNoToken(t *testing.T, w *world, use way, want string, changes ...func(*clientcredentials.Config)) {
	t.Helper()
	_, err := connect(t, use(w, w.handler(t, changes...)))
	require.ErrorContains(t, err, want)
	require.NotContains(t, err.Error(), "s3cr3t")
	require.Zero(t, w.auth.TokenRequests())
	for _, authorization := range w.received() {
		require.Empty(t, authorization)
	}
}

// spy starts a server that must receive nothing.
func spy(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("it received %s %s", r.Method, r.URL)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// Only the program's issuer gets credentials, whatever the MCP server's metadata says.
func TestM5_Issuer(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		evil := spy(t)
		for name, listed := range map[string]func(issuer string) any{
			"another issuer":     func(string) any { return []string{evil} },
			"two others":         func(string) any { return []string{evil, evil + "/tenant"} },
			"a slash more":       func(issuer string) any { return []string{issuer + "/"} },
			"a path more":        func(issuer string) any { return []string{issuer + "/tenant"} },
			"another scheme":     func(issuer string) any { return []string{strings.Replace(issuer, "http", "https", 1)} },
			"letter case":        func(issuer string) any { return []string{strings.ToUpper(issuer)} },
			"a user name":        func(issuer string) any { return []string{strings.Replace(issuer, "//", "//x@", 1)} },
			"the name of a host": func(issuer string) any { return []string{strings.Replace(issuer, "127.0.0.1", "localhost", 1)} },
			"none":               func(string) any { return []string{} },
			"not a list":         func(issuer string) any { return issuer },
			"null":               func(string) any { return nil },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := listen(t)
				w.publishMember("authorization_servers", listed(w.issuer))
				requireNoToken(t, w, use, "oauth2: no token for the MCP server: oauth2: cannot discover "+fmt.Sprintf("%q", w.endpoint))
			})
		}
		t.Run("among others", func(t *testing.T) {
			t.Parallel()
			w := listen(t)
			w.lists(evil, w.issuer, evil)
			session, err := connect(t, use(w, w.handler(t)))
			require.NoError(t, err)
			requireCall(t, session, "read")
		})
	})
}

// The metadata of the authorization server must be that of the issuer. Without TokenURL it says
// where credentials go; with TokenURL it isn't asked.
func TestM5_ServerMetadata(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		evil := spy(t)
		for name, change := range map[string]func(*clientcredentials.ServerMetadata){
			"another issuer":         func(m *clientcredentials.ServerMetadata) { m.Issuer = evil; m.TokenEndpoint = evil + "/token" },
			"a slash more":           func(m *clientcredentials.ServerMetadata) { m.Issuer += "/" },
			"no issuer":              func(m *clientcredentials.ServerMetadata) { m.Issuer = "" },
			"no token endpoint":      func(m *clientcredentials.ServerMetadata) { m.TokenEndpoint = "" },
			"token endpoint on http": func(m *clientcredentials.ServerMetadata) { m.TokenEndpoint = "http://login.example/token" },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := listen(t)
				w.serverMetadata = change
				requireNoToken(t, w, use, "oauth2: no token for the MCP server: oauth2: cannot discover "+fmt.Sprintf("%q", w.issuer))
			})
		}
		t.Run("TokenURL", func(t *testing.T) {
			t.Parallel()
			w := listen(t)
			session, err := connect(t, use(w, w.handler(t, func(c *clientcredentials.Config) { c.TokenURL = w.issuer + "/token" })))
			require.NoError(t, err)
			requireCall(t, session, "read")
			require.Equal(t, []string{"/.well-known/oauth-protected-resource/mcp"}, w.asked())
		})
	})
}

// The metadata is looked for where the MCP server says, else at the usual places, and nowhere
// else.
func TestM6_LocationOfTheMetadata(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		evil := spy(t)
		const usual, root = "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"
		for _, test := range []struct {
			name, said string // ORIGIN stands for that of the MCP server
			path       string // where the metadata is
			want       []string
			err        string
		}{
			{"named", `Bearer resource_metadata="ORIGIN/meta"`, "/meta", []string{"/meta"}, ""},
			{"named, with a query", `Bearer resource_metadata="ORIGIN/meta?a=b"`, "/meta", []string{"/meta?a=b"}, ""},
			{"named, second challenge", `Basic realm="x", Bearer realm="y", resource_metadata="ORIGIN/meta"`, "/meta", []string{"/meta"}, ""},
			{"named, and not there", `Bearer resource_metadata="ORIGIN/meta"`, usual, []string{"/meta"}, "/meta answered 404"},
			{"not named", `Bearer realm="x"`, usual, []string{usual}, ""},
			{"no challenge", "", usual, []string{usual}, ""},
			{"root", "", root, []string{usual, root}, ""},
			{"nowhere", "", "/x", []string{usual, root}, "answered 404; check the resource"},
			{"another origin", `Bearer resource_metadata="` + evil + usual + `"`, usual, []string{usual}, ""},
			{"another origin only", `Bearer resource_metadata="` + evil + usual + `"`, "/x", []string{usual, root}, "has another origin and isn't used"},
			{"another scheme", `Bearer resource_metadata="https://HOST` + usual + `"`, usual, []string{usual}, ""},
			{"another host", `Bearer resource_metadata="http://HOST.evil.example/"`, usual, []string{usual}, ""},
			{"another protocol", `Bearer resource_metadata="file:///etc/hosts"`, usual, []string{usual}, ""},
			{"relative", `Bearer resource_metadata="/meta"`, usual, []string{usual}, ""},
			{"a user name", `Bearer resource_metadata="http://x@HOST/meta"`, "/meta", nil, "the location of the metadata is no URL with the origin of the resource"},
			{"for another scheme", `Basic resource_metadata="ORIGIN/meta"`, usual, []string{usual}, ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				w := listen(t)
				origin := strings.TrimSuffix(w.endpoint, "/mcp")
				said := strings.NewReplacer("ORIGIN", origin, "HOST", strings.TrimPrefix(origin, "http://")).Replace(test.said)
				w.challenge = func() string { return said }
				w.publishes(test.path)
				if test.err != "" {
					requireNoToken(t, w, use, test.err)
					require.Equal(t, test.want, w.asked())
					return
				}
				session, err := connect(t, use(w, w.handler(t)))
				require.NoError(t, err)
				requireCall(t, session, "read")
				require.Equal(t, append(test.want, "/.well-known/oauth-authorization-server"), w.asked())
			})
		}
	})
}

// The metadata must be that of the resource, character by character.
func TestM6_AnotherResource(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		for name, change := range map[string]func(endpoint string) any{
			"a slash more": func(s string) any { return s + "/" },
			"the root":     func(s string) any { return strings.TrimSuffix(s, "/mcp") },
			"a path more":  func(s string) any { return s + "/v1" },
			"another path": func(s string) any { return s + "2" },
			"letter case":  func(s string) any { return strings.Replace(s, "mcp", "MCP", 1) },
			"another host": func(string) any { return "https://mcp.evil.example/mcp" },
			"a fragment":   func(s string) any { return s + "#x" },
			"a query":      func(s string) any { return s + "?" },
			"none":         func(string) any { return nil },
			"a list":       func(s string) any { return []string{s} },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := listen(t)
				w.publishMember("resource", change(w.endpoint))
				requireNoToken(t, w, use, "oauth2: no token for the MCP server: oauth2: cannot discover ")
			})
		}
	})
}

// Many sessions that begin at once search for the metadata once, and request one token. One that
// gives up leaves the others alone.
func TestM7_OneFlightForAllSessions(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		testkit.Bubble(t, func(t *testing.T) {
			w := inMemory(t)
			w.auth.Latency = 3 * time.Second
			h := w.handler(t)
			impatient, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var sessions sync.WaitGroup
			sessions.Go(func() { // The first one, which begins the search and the token request.
				start := time.Now()
				_, err := connectContext(impatient, t, use(w, h))
				require.Error(t, err)
				require.Equal(t, time.Second, time.Since(start))
			})
			time.Sleep(time.Millisecond)
			for range 20 {
				sessions.Go(func() {
					session, err := connect(t, use(w, h))
					require.NoError(t, err)
					requireCall(t, session, "read")
					require.NoError(t, session.Close())
				})
			}
			sessions.Wait()
			require.Equal(t, 1, w.auth.TokenRequests())
			require.Len(t, w.asked(), 2)
		})
	})
}

// A session that begins while a search for metadata takes long waits for that one.
func TestM7_SlowMetadata(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		testkit.Bubble(t, func(t *testing.T) {
			w := inMemory(t)
			w.delay = discoveryPause + 3*time.Second
			h := w.handler(t)
			var sessions sync.WaitGroup
			for range 2 {
				sessions.Go(func() {
					requireSession(t, w, func(*world, *Handler) *mcp.StreamableClientTransport { return use(w, h) })
				})
				time.Sleep(discoveryPause + time.Second)
			}
			sessions.Wait()
			require.Len(t, w.asked(), 2)
			require.Equal(t, 1, w.auth.TokenRequests())
		})
	})
}

// With Transport, a call waits for a token by its own context, and delays no other call of its
// session. The token request goes on.
func TestM7_CallsWaitByTheirOwnContext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T) {
		w := inMemory(t)
		w.auth.TokenLifetime = 10 * time.Minute
		session, err := connect(t, ways["Transport"](w, w.handler(t)))
		require.NoError(t, err)
		time.Sleep(time.Hour) // The token has expired.
		w.auth.Script(clientcredentialstest.Fault{Delay: 5 * time.Second})
		start := time.Now()
		var calls sync.WaitGroup
		for i := range 4 {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Second)
				defer cancel()
				_, err := call(ctx, session, "read")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Duration(i+1)*time.Second, time.Since(start))
			})
		}
		calls.Wait()
		requireCall(t, session, "read")
		require.Equal(t, 5*time.Second, time.Since(start))
		require.Equal(t, 2, w.auth.TokenRequests())
		require.NoError(t, session.Close())
	})
}

// A search for metadata that has failed isn't repeated for 5 seconds, and then it is.
func TestM7_FailedDiscovery(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		testkit.Bubble(t, func(t *testing.T) {
			w := inMemory(t)
			path, metadata := w.resourceMetadata()
			broken := true
			w.resourceMetadata = func() (string, map[string]any) {
				if broken {
					return "/x", nil
				}
				return path, metadata
			}
			h := w.handler(t)
			for range 10 {
				_, err := connect(t, use(w, h))
				require.ErrorContains(t, err, "oauth2: no token for the MCP server: oauth2: cannot discover")
			}
			require.Len(t, w.asked(), 1)
			time.Sleep(discoveryPause - time.Millisecond)
			_, err := connect(t, use(w, h))
			require.Error(t, err)
			require.Len(t, w.asked(), 1)
			broken = false
			time.Sleep(time.Millisecond)
			session, err := connect(t, use(w, h))
			require.NoError(t, err)
			requireCall(t, session, "read")
			require.NoError(t, session.Close())
		})
	})
}

// After a token was revoked, the call ends with the error that says why there is no new one.
func TestM7_RevokedDuringAnOutage(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		testkit.Bubble(t, func(t *testing.T) {
			w := inMemory(t)
			session, err := connect(t, use(w, w.handler(t)))
			require.NoError(t, err)
			w.auth.RevokeAll()
			w.auth.SetFault(&clientcredentialstest.Fault{Status: http.StatusServiceUnavailable})
			_, err = call(t.Context(), session, "read")
			require.True(t, clientcredentials.IsTemporary(err), "%v", err)
			w.auth.SetFault(nil)
			time.Sleep(time.Minute)
			requireCall(t, session, "read")
			require.NoError(t, session.Close())
		})
	})
}

// A refusal by the authorization server is the error of the call, and the session goes on when
// that is over.
func TestM7_RefusedClient(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		testkit.Bubble(t, func(t *testing.T) {
			w := inMemory(t)
			w.auth.TokenLifetime = 10 * time.Minute
			session, err := connect(t, use(w, w.handler(t)))
			require.NoError(t, err)
			time.Sleep(time.Hour)
			w.auth.SetFault(&clientcredentialstest.Fault{Status: http.StatusUnauthorized, Body: `{"error":"invalid_client"}`})
			_, err = call(t.Context(), session, "read")
			var refusal *oauth2.RetrieveError
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, "invalid_client", refusal.ErrorCode)
			require.NotContains(t, err.Error(), "s3cr3t")
			w.auth.SetFault(nil)
			time.Sleep(time.Minute)
			requireCall(t, session, "read")
			require.NoError(t, session.Close())
		})
	})
}

// With Transport a token goes to the MCP server only, whatever Endpoint says and wherever the
// server redirects to.
func TestM8_TokenStaysWithItsServer(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, "Authorization: "+r.Header.Get("Authorization"))
	}))
	// stolen returns what the other server has seen since the last call.
	stolen := func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { seen = nil }()
		return seen
	}
	defer other.Close()
	w := listen(t)
	var target atomic.Value
	target.Store("")
	w.refuse = func(rw http.ResponseWriter, r *http.Request) bool {
		address := target.Load().(string)
		if address != "" {
			http.Redirect(rw, r, address, http.StatusTemporaryRedirect)
		}
		return address != ""
	}
	h := w.handler(t)
	for _, address := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)} {
		target.Store("")
		session, err := connect(t, ways["Transport"](w, h))
		require.NoError(t, err)
		requireCall(t, session, "read")
		target.Store(address + "/mcp")
		_, err = call(t.Context(), session, "read")
		require.Error(t, err)
		got := stolen()
		require.NotEmpty(t, got)
		for _, authorization := range got {
			require.Equal(t, "Authorization: ", authorization)
		}
	}
	target.Store("")

	origin := strings.TrimSuffix(w.endpoint, "/mcp")
	for _, endpoint := range []string{other.URL + "/mcp", origin, origin + "/", origin + "/mcp2", origin + "/MCP", origin + "/other/mcp", "https" + strings.TrimPrefix(w.endpoint, "http")} {
		transport := h.Transport(w.network.Transport)
		transport.Endpoint = endpoint
		_, err := connect(t, transport)
		require.ErrorContains(t, err, "make a Handler for each MCP server", endpoint)
		require.Empty(t, stolen())
	}
	require.Equal(t, 1, w.auth.TokenRequests())
}

// Below its resource identifier, a Handler serves every address.
func TestM8_Covers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		resource string
		covered  []string
		others   []string
	}{
		{"https://a.example", []string{"https://a.example", "https://a.example/", "https://A.example:443/mcp", "https://a.example/x?q"}, []string{"http://a.example", "https://a.example:8443/", "https://b.a.example/", "https://a.example.b/"}},
		{"https://a.example/", []string{"https://a.example/", "https://a.example/mcp"}, []string{"https://b.example/"}},
		{"https://a.example/mcp", []string{"https://a.example/mcp", "https://a.example/mcp/", "https://a.example/mcp/v1", "https://a.example/mcp?q"}, []string{"https://a.example", "https://a.example/", "https://a.example/mcp2", "https://a.example/%6dcp", "https://a.example/x/mcp"}},
		{"https://a.example/mcp?t=1", []string{"https://a.example/mcp?t=1", "https://a.example/mcp/v1?t=1"}, []string{"https://a.example/mcp", "https://a.example/mcp?t=2", "https://a.example/mcp?t=1&t=2"}},
	} {
		h, err := New(test.resource, &clientcredentials.Config{Issuer: "https://login.example"})
		require.NoError(t, err)
		for want, addresses := range map[bool][]string{true: test.covered, false: test.others} {
			for _, address := range addresses {
				require.Equal(t, want, h.covers(httptest.NewRequest(http.MethodGet, address, http.NoBody).URL), "%s: %s", test.resource, address)
			}
		}
	}
}

// A Target in the context of the program is for the program's own requests.
func TestM8_TargetInTheContext(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		w := listen(t)
		ctx := clientcredentials.WithTarget(t.Context(), clientcredentials.Target{Resources: []string{"https://other.example"}, Scopes: []string{"admin"}})
		session, err := connectContext(ctx, t, use(w, w.handler(t)))
		require.NoError(t, err)
		_, err = call(ctx, session, "read")
		require.NoError(t, err)
		require.Len(t, w.auth.Requests(), 1)
		require.Equal(t, []string{w.endpoint}, w.auth.Requests()[0].Form["resource"])
		require.Empty(t, w.auth.Requests()[0].Form["scope"])
	})
}

// A program can leave the parameter resource out, for a server that refuses it.
func TestM8_WithoutResource(t *testing.T) {
	eachWay(t, func(t *testing.T, use way) {
		w := listen(t)
		w.audience = []string{"files-api"}
		w.toolScopes = map[string]string{"write": "files:write"}
		session, err := connect(t, use(w, w.handler(t, func(c *clientcredentials.Config) {
			c.EndpointParams = url.Values{"resource": {}, "audience": {"files-api"}}
			c.Challenged = func(context.Context, *clientcredentials.Challenge) (*clientcredentials.Target, error) {
				return &clientcredentials.Target{Scopes: []string{"files:write"}, Resources: []string{"https://other.example"}}, nil
			}
		})))
		require.NoError(t, err)
		requireCall(t, session, "write")
		require.Len(t, w.auth.Requests(), 2)
		for _, request := range w.auth.Requests() {
			require.NotContains(t, request.Form, "resource")
		}
	})
}

// With an OAuthHandler the SDK sends the token by itself. It is no token for another server
// that asks for one, and for one to which the MCP server has redirected.
func TestM8_AuthorizeElsewhere(t *testing.T) {
	t.Parallel()
	w := listen(t)
	h := w.handler(t)
	for _, address := range []string{"https://evil.example/mcp", w.endpoint + "2", strings.TrimSuffix(w.endpoint, "mcp")} {
		for _, redirected := range []bool{false, true} {
			req := httptest.NewRequest(http.MethodPost, address, http.NoBody)
			resp := &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody, Request: req}
			if redirected {
				req = httptest.NewRequest(http.MethodPost, w.endpoint, http.NoBody)
			}
			require.ErrorContains(t, h.Authorize(t.Context(), req, resp), "make a Handler for each MCP server")
		}
	}
	require.Zero(t, w.auth.TokenRequests())
	require.Empty(t, w.asked())
}

// The client authenticates in any way that the library has.
func TestM9_ClientAuthentication(t *testing.T) {
	key := testkit.NewKey("ES256")
	eachWay(t, func(t *testing.T, use way) {
		for want, change := range map[string]func(*clientcredentials.Config){
			"client_secret_basic": func(c *clientcredentials.Config) {},
			"client_secret_post":  func(c *clientcredentials.Config) { c.AuthStyle = oauth2.AuthStyleInParams },
			"client_secret_jwt":   func(c *clientcredentials.Config) { c.ClientAuth = &clientauth.ClientSecretJWT{} },
			"private_key_jwt": func(c *clientcredentials.Config) {
				c.ClientSecret = ""
				c.ClientAuth = &clientauth.PrivateKeyJWT{Key: clientauth.SignerKey(key)}
			},
		} {
			t.Run(want, func(t *testing.T) {
				t.Parallel()
				w := listen(t, clientcredentialstest.Client{ID: "agent", Secret: "s3cr3t-of-the-agent-which-is-long-enough", PublicKeys: []crypto.PublicKey{key.Public()}})
				w.auth.Issuer = w.issuer
				w.serverMetadata = func(m *clientcredentials.ServerMetadata) {
					m.TokenEndpointAuthMethodsSupported = []string{"private_key_jwt", "client_secret_basic"}
					m.TokenEndpointAuthSigningAlgValuesSupported = []string{"HS256", "ES256"}
				}
				session, err := connect(t, use(w, w.handler(t, func(c *clientcredentials.Config) {
					c.ClientSecret = "s3cr3t-of-the-agent-which-is-long-enough"
					change(c)
				})))
				require.NoError(t, err)
				requireCall(t, session, "read")
				require.Len(t, w.auth.Requests(), 1)
				require.Equal(t, want, w.auth.Requests()[0].AuthMethod)
			})
		}
	})
}

// readOnly is an MCP server with the tool read.
func readOnly() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "files", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "read"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "read done"}}}, nil, nil
	})
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true})
}

// With Transport, the client's certificate is presented to both servers, and tokens can be bound
// to it.
func TestM9_Certificate(t *testing.T) {
	t.Parallel()
	certificate := testkit.ClientCertificate("agent")
	server := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{ID: "agent", Certificates: []*x509.Certificate{certificate.Leaf}, CertificateBound: true})
	defer server.Close()
	endpoint := server.APIURL + "mcp"
	server.API.Resource, server.API.Audience, server.API.AuthorizationServers = endpoint, endpoint, []string{"https://login.example"}
	server.API.Handler = readOnly()
	network := server.Client()
	h, err := New(endpoint, &clientcredentials.Config{
		ClientID: "agent", Issuer: "https://login.example", TokenURL: server.TokenURL, HTTPClient: network,
		ClientAuth: &clientauth.SelfSignedTLSClientAuth{Source: func(context.Context) (*tls.Certificate, error) { return certificate, nil }},
	})
	require.NoError(t, err)
	transport := h.Transport(network.Transport)
	defer transport.HTTPClient.CloseIdleConnections()
	session, err := connect(t, transport)
	require.NoError(t, err)
	requireCall(t, session, "read")
	server.Auth.RevokeAll()
	requireCall(t, session, "read")
	require.Equal(t, 2, server.Auth.TokenRequests())
	require.Equal(t, "self_signed_tls_client_auth", server.Auth.Requests()[0].AuthMethod)
	require.Empty(t, server.API.Violations())
	require.NoError(t, session.Close())
}

// Tokens that are bound to a key can be used with Transport. The SDK would send them as bearer
// tokens, so with an OAuthHandler they are an error.
func TestM9_DPoP(t *testing.T) {
	t.Parallel()
	w := listen(t)
	h := w.handler(t, func(c *clientcredentials.Config) { c.DPoP = testkit.NewKey("ES256") })
	api := &clientcredentialstest.ResourceServer{Issuer: w.auth, Audience: w.endpoint, Handler: readOnly()}
	w.instead = api
	session, err := connect(t, ways["Transport"](w, h))
	require.NoError(t, err)
	requireCall(t, session, "read")
	w.auth.RevokeAll()
	requireCall(t, session, "read")
	require.Empty(t, api.Violations())
	require.Equal(t, 2, w.auth.TokenRequests())

	_, err = h.TokenSource(t.Context())
	require.ErrorIs(t, err, errDPoP)
	_, err = connect(t, ways["OAuthHandler"](w, h))
	require.ErrorContains(t, err, "use the transport that Handler.Transport returns")
	req := httptest.NewRequest(http.MethodPost, w.endpoint, http.NoBody)
	err = h.Authorize(t.Context(), req, &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody})
	require.ErrorIs(t, err, errDPoP)
}

// What can't be meant is refused before anything is sent, and no error repeats it.
func TestM10_Mistakes(t *testing.T) {
	t.Parallel()
	const resource = "https://mcp.example/mcp"
	good := func() *clientcredentials.Config { return &clientcredentials.Config{Issuer: "https://login.example"} }
	for _, bad := range []string{"", "mcp.example", "/mcp", "https://", "https:///mcp", "http://mcp.example/mcp", "https://s3cr3t@mcp.example", "https://mcp.example/#s3cr3t", "https://mcp.example/%zz", "https://mcp.example/\x00"} {
		_, err := New(bad, good())
		require.ErrorContains(t, err, "oauth2: the resource of the MCP server can't be used; write it like https://mcp.example.com/mcp", bad)
		require.NotContains(t, err.Error(), "s3cr3t")
	}
	_, err := New(resource, nil)
	require.ErrorContains(t, err, "the Config for the MCP server is nil")
	_, err = New(resource, &clientcredentials.Config{TokenURL: "https://login.example/token"})
	require.ErrorContains(t, err, "Config.Issuer is empty")
	for _, params := range [][]string{{"https://other.example"}, {resource, resource}, {""}, {resource + "/"}} {
		conf := good()
		conf.EndpointParams = map[string][]string{"resource": params}
		_, err = New(resource, conf)
		require.ErrorContains(t, err, "EndpointParams has another resource")
	}
	conf := good()
	conf.EndpointParams = map[string][]string{"resource": {resource}, "audience": {"x"}}
	h, err := New(resource, conf)
	require.NoError(t, err)
	conf.EndpointParams.Set("audience", "y") // New has copied it.
	require.Equal(t, "x", h.conf.EndpointParams.Get("audience"))
	conf.EndpointParams, conf.Scopes, conf.Origins = nil, []string{"a"}, []string{"https://a.example"}
	copied, err := New(resource, conf)
	require.NoError(t, err)
	conf.Scopes[0], conf.Origins[0] = "b", "https://b.example"
	require.Equal(t, []string{"a"}, copied.conf.Scopes)
	require.Equal(t, []string{"https://a.example"}, copied.conf.Origins)
	require.Empty(t, conf.ClientID)
	for _, allowed := range []string{"http://127.0.0.1:1/mcp", "http://localhost/mcp", "https://mcp.example", "https://mcp.example/", "https://MCP.example/mcp?tenant=1"} {
		_, err := New(allowed, good())
		require.NoError(t, err, allowed)
	}
	require.Equal(t, resource, h.Transport(nil).Endpoint)
}

// What the MCP server says is quoted, cut, and never changes a terminal.
func TestM10_WordsOfTheServer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("z", 10_000)
	for said, want := range map[string]string{
		"Bearer error=\"x\x1b[2Jy\"":         `answered 403 "x\x1b[2Jy", and there is no other token`,
		"Bearer error=\"\u202ex\"":           `answered 403 "\u202ex", and`,
		`Bearer error="` + long + `"`:        `answered 403 "zzz`,
		`Bearer scope="` + long + `"`:        `wants the scopes "zzz`,
		`Bearer error=a, scope="b c"`:        `answered 403 "a" and wants the scopes "b c"; allow them`,
		`Basic error=a, scope="b c"`:         `answered 403, and there is no other token`,
		`Bearer error_description="s3cr3t"`:  `answered 403, and there is no other token`,
		``:                                   `answered 403, and there is no other token`,
		`Bearer error="a", Bearer error="b"`: `answered 403 "a", and`,
	} {
		err := refusal(&http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Www-Authenticate": {said}}})
		require.ErrorContains(t, err, want)
		require.Less(t, len(err.Error()), 500)
		require.NotContains(t, err.Error(), "s3cr3t")
	}
}

// A Handler that is printed shows no secret, and neither does its transport.
func TestM10_Printed(t *testing.T) {
	t.Parallel()
	w := listen(t)
	h := w.handler(t)
	requireSession(t, w, ways["Transport"])
	for _, value := range []any{h, *h.Transport(nil), h.Transport(nil), h.Transport(nil).HTTPClient, *h.Transport(nil).HTTPClient, h.Transport(nil).HTTPClient.Transport, h.Transport(nil).OAuthHandler} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			require.NotContains(t, fmt.Sprintf(verb, value), "s3cr3t", verb)
		}
	}
}

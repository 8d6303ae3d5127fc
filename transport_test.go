package clientcredentials

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// status returns the status of the API's answer to client.
func (w *world) status(t *testing.T, client *http.Client) int {
	t.Helper()
	resp, err := w.get(t, client)
	require.NoError(t, err)
	return resp.StatusCode
}

// noMarker fails the test if the API got anything but tokens of the server.
func (w *world) noMarker(t *testing.T) {
	t.Helper()
	require.Zero(t, w.api.Rejected())
	require.NotZero(t, w.api.Accepted())
}

// Only the guard may ever see the marker that represents a token.

func TestSourceTakenFromTheTransport(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		shared, _ := contextClient(w.ctx)
		base := shared.Transport
		require.NotContains(t, tokenFrom(t, w.conf.Client(w.ctx).Transport.(*oauth2.Transport).Source).AccessToken, "\x00")
		for name, use := range map[string]func(tr *oauth2.Transport) http.RoundTripper{
			"wrapped by NewClient": func(tr *oauth2.Transport) http.RoundTripper { return oauth2.NewClient(w.ctx, tr.Source).Transport },
			"in another Transport": func(tr *oauth2.Transport) http.RoundTripper { return &oauth2.Transport{Source: tr.Source, Base: base} },
			"in another Transport over the guard": func(tr *oauth2.Transport) http.RoundTripper {
				return &oauth2.Transport{Source: tr.Source, Base: tr.Base}
			},
			"in our Transport": func(tr *oauth2.Transport) http.RoundTripper { return &Transport{Source: tr.Source, Base: base} },
			"in a copy of the Transport": func(tr *oauth2.Transport) http.RoundTripper {
				another := *tr
				another.Base = base
				return &another
			},
			"Base replaced": func(tr *oauth2.Transport) http.RoundTripper { tr.Base = base; return tr },
			"Base wrapped": func(tr *oauth2.Transport) http.RoundTripper {
				inner := tr.Base
				tr.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					require.Contains(t, req.Header.Get("Authorization"), "Bearer ")
					require.NotContains(t, req.Header.Get("Authorization"), "\x00")
					return inner.RoundTrip(req)
				})
				return tr
			},
			"under a function of the same name": func(tr *oauth2.Transport) http.RoundTripper { return Impostor{tr.Source, base} },
		} {
			tr, ok := w.conf.Client(w.ctx).Transport.(*oauth2.Transport)
			require.True(t, ok)
			require.Equal(t, 200, w.status(t, &http.Client{Transport: use(tr)}), name)
		}
		w.noMarker(t)
	})
}

// Impostor has a method RoundTrip that asks for a token and uses it elsewhere.
type Impostor struct {
	source oauth2.TokenSource
	base   http.RoundTripper
}

func (i Impostor) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := i.source.Token()
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	token.SetAuthHeader(req)
	return i.base.RoundTrip(req)
}

func TestMarkerIsRefusedByNetHTTP(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		base, _ := contextClient(w.ctx)
		g := w.conf.Client(w.ctx).Transport.(*oauth2.Transport).Base.(*guard)
		req := httptest.NewRequest("GET", worldAPI, nil)
		req.RequestURI = ""
		(&oauth2.Token{AccessToken: g.marker}).SetAuthHeader(req)
		_, err := base.Transport.RoundTrip(req)
		require.ErrorContains(t, err, "invalid header field value")
		require.Empty(t, w.api.Requests())
	})
}

func TestMarkerIsUsedWhenCold(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		client := w.conf.Client(w.ctx)
		tr := client.Transport.(*oauth2.Transport)
		source := tr.Source
		tr.Source = tokenFunc(func() (*oauth2.Token, error) { return nil, errors.New("not this one") })
		_, err := client.Get(worldAPI)
		require.ErrorContains(t, err, "not this one")

		tr.Source = source
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", worldAPI, nil)
		require.NoError(t, err)
		_, err = tr.RoundTrip(req)
		require.ErrorIs(t, err, context.Canceled, "the stack trace didn't show the receiver")
		require.Zero(t, w.auth.TokenRequests())
	})
}

func TestF5_Transport(t *testing.T) {
	for name, test := range map[string]struct {
		transport *Transport
		want      string
	}{
		"nil Source":  {&Transport{}, "oauth2: Transport's Source is nil"},
		"nil *Source": {&Transport{Source: (*Source)(nil)}, "oauth2: the Source is nil"},
		"neither token nor error": {
			&Transport{Source: tokenFunc(func() (*oauth2.Token, error) { return nil, nil })},
			"oauth2: Transport's Source returned neither",
		},
		"error": {
			&Transport{Source: tokenFunc(func() (*oauth2.Token, error) { return nil, errors.New("as it is") })},
			"as it is",
		},
		"bad Origins": {
			&Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "x"}), Origins: []string{"api.example"}},
			`oauth2: "api.example" in Origins is not an origin`,
		},
	} {
		body := &closeCounter{Reader: strings.NewReader("x")}
		req := httptest.NewRequest("POST", worldAPI, body)
		req.Header = nil
		_, err := test.transport.RoundTrip(req)
		require.ErrorContains(t, err, test.want, name)
		require.EqualValues(t, 1, body.closed.Load(), "F6: %s", name)
	}
	for _, transport := range []http.RoundTripper{&Transport{}, &guard{}} {
		_, err := transport.RoundTrip(nil)
		require.ErrorContains(t, err, "no URL")
		body := &closeCounter{}
		_, err = transport.RoundTrip(&http.Request{Body: body})
		require.ErrorContains(t, err, "no URL")
		require.EqualValues(t, 1, body.closed.Load())
	}
}

func TestF6_BodyIsClosedAndTheRequestLeftAlone(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		for name, client := range w.clients() {
			w.auth.Script(clientcredentialstest.InvalidClient())
			for _, fails := range []bool{true, false} {
				body := &closeCounter{Reader: strings.NewReader("x")}
				req, err := http.NewRequestWithContext(t.Context(), "POST", worldAPI, body)
				require.NoError(t, err)
				req.Header = http.Header{"Authorization": {"the caller's"}, "X-List": {"a", "b"}}
				before := req.Clone(t.Context())
				resp, err := client.Transport.RoundTrip(req)
				require.Equal(t, fails, err != nil, name)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				synctest.Wait()
				require.Positive(t, body.closed.Load(), name)
				require.Equal(t, before.Header, req.Header, name)
				require.Equal(t, before.URL, req.URL, name)
			}
		}
		w.noMarker(t)
	})
}

// The base may write to the header field that Transport has set: the next request has its
// own. A header may be nil.
func TestTransportKeepsTheCacheFromTheBase(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		tr := w.conf.Transport(w.ctx)
		base := tr.Base
		tr.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			req.Header["Authorization"][0] = "REDACTED" // A careless logger does this.
			return resp, err
		})
		for range 2 {
			req := httptest.NewRequest("GET", worldAPI, nil)
			req.Header = nil
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Nil(t, req.Header)
		}
		require.Equal(t, 1, w.auth.TokenRequests())
		w.noMarker(t)
	})
}

// The Observer is told of each origin that gets no token.
func TestR1_TokenStaysOnItsOrigin(t *testing.T) {
	const a, b, c = "https://a.example", "https://b.example:8443", "https://user:secret@c.example"
	for _, test := range []struct {
		name    string
		chain   []string
		origins []string
		want    []bool // whether each hop gets the token
	}{
		{"no redirect", []string{a}, nil, []bool{true}},
		{"default port", []string{a, a + ":443", "https://A.example"}, nil, []bool{true, true, true}},
		{"R1 other host", []string{a, c + "?access_token=secret"}, nil, []bool{true, false}},
		{"R1 other port", []string{a, a + ":8443"}, nil, []bool{true, false}},
		{"R1 subdomain", []string{a, "https://x.a.example"}, nil, []bool{true, false}},
		{"R1 permitted", []string{a, b, a}, []string{a, b}, []bool{true, true, true}},
		{"R1 one permitted", []string{a, c, b}, []string{a, b}, []bool{true, false, false}},
		{"R2 downgrade though permitted", []string{a, "http://a.example"}, []string{a, "http://a.example"}, []bool{true, false}},
		{"R2 downgrade and back", []string{a, "http://a.example", a}, []string{a, "http://a.example"}, []bool{true, false, false}},
		{"upgrade", []string{"http://a.example", a}, nil, []bool{true, false}},
		{"upgrade permitted", []string{"http://a.example", a}, []string{"http://a.example", a}, []bool{true, true}},
		{"R5 there and on", []string{a, c, c, c}, nil, []bool{true, false, false, false}},
		{"R7 there and back", []string{a, b, a, a}, nil, []bool{true, false, false, false}},
	} {
		for r5, answered := range map[string]func(*http.Request) *http.Request{
			"the request": nil,
			"none":        func(*http.Request) *http.Request { return nil },
			"its own":     func(req *http.Request) *http.Request { return &http.Request{Method: req.Method, URL: req.URL} },
			"another redirect": func(req *http.Request) *http.Request {
				return &http.Request{URL: req.URL, Response: &http.Response{Request: &http.Request{URL: req.URL}}}
			},
		} {
			for _, kind := range kinds {
				name := fmt.Sprintf("%s/%s/R5: %s", test.name, kind, r5)
				network := &redirecting{answered: answered}
				conf, _ := answeringConfig(t, `{"access_token":"t"}`)
				conf.Origins = test.origins
				refused := make(chan event.OriginRefused, len(test.chain)) // On a busy machine nobody waits for the Observer.
				conf.Observer = &Observer{OriginRefused: func(info event.OriginRefused) { refused <- info }}
				client := &http.Client{Transport: &Transport{Source: conf.Source(t.Context()), Base: network, Origins: test.origins}}
				if kind == "Client" {
					client = conf.Client(context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: network}))
				}
				resp, err := client.Get(strings.Join(test.chain, "/"))
				require.NoError(t, err, name)
				resp.Body.Close()
				require.Len(t, network.hops, len(test.chain), name)
				var want, got []event.OriginRefused
				for i, permitted := range test.want {
					require.Equal(t, permitted, strings.HasSuffix(network.hops[i], " token"), "%s: hop %d: %v", name, i, network.hops)
					if !permitted {
						want = append(want, event.OriginRefused{Origin: origin.Of(network.trace[i].URL).String(), Outcome: event.SentWithoutToken})
						got = append(got, <-refused)
					}
				}
				require.ElementsMatch(t, want, got, name)
				require.Empty(t, refused, name)
			}
		}
	}
}

func TestOriginsBoundFirstRequests(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.conf.Origins = []string{"https://other.example"}
		r := w.record()
		for name, client := range w.clients() {
			_, err := client.Get(worldAPI)
			require.ErrorContains(t, err, "oauth2: https://api.example:443 is not among the Origins", name)
			r.expect(t, nil, event.OriginRefused{Origin: "https://api.example:443", Outcome: event.RequestRefused})
			resp, err := client.Get("https://other.example/")
			require.NoError(t, err)
			resp.Body.Close()
			r.take()
		}
		require.Len(t, w.api.Requests(), 2)
	})
}

// Host names that Unicode folds to the same text are different hosts. No token and no
// proof may cross from one to the other.
func TestR8_HostsThatUnicodeFolds(t *testing.T) {
	for _, test := range []struct{ first, other string }{
		{"https://api.example", "https://ap\u0130.example"},
		{"https://ap\u0130.example", "https://api\u0307.example"},
		{"https://stra\u00dfe.example", "https://stra\u1e9ee.example"},
		{"https://key.example", "https://\u212aey.example"},
		{"https://test.example", "https://te\u017ft.example"},
		{"https://\u03a9.example", "https://\u2126.example"},
	} {
		for _, origins := range [][]string{nil, {test.first}} {
			for _, key := range []crypto.Signer{nil, newProofSigner(t)} {
				kind := map[bool]string{false: "Bearer", true: "DPoP"}[key != nil]
				ctx, _ := answering(t.Context(), fmt.Sprintf(`{"access_token":"t","token_type":%q}`, kind))
				var hops []string
				base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					hops = append(hops, req.Header.Get("Authorization")+req.Header.Get("DPoP"))
					resp := &http.Response{StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {test.other}}, Body: http.NoBody, Request: req}
					if len(hops) > 1 {
						resp.StatusCode = http.StatusOK
					}
					return resp, nil
				})
				conf := &Config{TokenURL: "https://auth.example/token", Origins: origins, DPoP: key}
				transport := conf.Transport(ctx)
				transport.Base = base
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, test.first, http.NoBody)
				require.NoError(t, err)
				resp, err := (&http.Client{Transport: transport}).Do(req)
				require.NoError(t, err)
				resp.Body.Close()
				require.Len(t, hops, 2)
				require.Contains(t, hops[0], kind+" t")
				require.Empty(t, hops[1], "%s to %s", test.first, test.other)

				if origins != nil {
					_, err := transport.RoundTrip(httptest.NewRequest(http.MethodGet, test.other, http.NoBody))
					require.ErrorContains(t, err, "is not among the Origins")
				}
			}
		}
	}
}

// The list in the Config also binds a Transport that a program makes itself, unless the
// Transport has its own.
func TestR9_TransportObeysTheOriginsOfItsSource(t *testing.T) {
	const listed, other = "https://listed.example", "https://other.example"
	conf, _ := answeringConfig(t, `{"access_token":"t"}`)
	conf.Origins = []string{listed}
	for _, source := range []oauth2.TokenSource{conf.Source(t.Context()), conf.Client(t.Context()).Transport.(*oauth2.Transport).Source} {
		for name, test := range map[string]struct {
			origins []string
			allowed string
		}{
			"nil":       {nil, listed},
			"the same":  {[]string{listed}, listed},
			"its own":   {[]string{other}, other},
			"with port": {[]string{other + ":443"}, other},
		} {
			network := &redirecting{}
			transport := &Transport{Source: source, Base: network, Origins: test.origins}
			for _, url := range []string{listed, other} {
				resp, err := transport.RoundTrip(httptest.NewRequest(http.MethodGet, url, http.NoBody))
				if url != test.allowed {
					require.ErrorContains(t, err, "is not among the Origins", name)
					continue
				}
				require.NoError(t, err, name)
				resp.Body.Close()
			}
			require.Equal(t, []string{test.allowed + " token"}, network.hops, name)
		}
	}
}

// The API answers 401.

const invalidToken = `Bearer error="invalid_token"`

// unauthorized returns an answer of an API with that challenge.
func unauthorized(challenge string, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {challenge}}, Body: body}
}

// through returns a client of that kind whose API requests go to base, and whose token
// requests go to w's server.
func (w *world) through(t *testing.T, kind string, base http.RoundTripper) *http.Client {
	conf := *w.conf
	conf.HTTPClient, _ = contextClient(w.ctx)
	other := &world{conf: &conf, ctx: context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: base})}
	return other.clients()[kind]
}

// The scheme that a token is sent with is that of the Config, else that of the answer, else
// Bearer: with the first request, from the cache, and after a 401. The token says what the
// server said.
func TestP7_AuthScheme(t *testing.T) {
	for _, test := range []struct{ conf, tokenType, want string }{
		{"", "Bearer", "Bearer"},
		{"", "bearer", "Bearer"},
		{"", "", "Bearer"},
		{"", "Bearer ", "Bearer"},
		{"", "Access Token", "Bearer"},
		{"", "urn:x:token", "Bearer"},
		{"", "N_A", "N_A"},
		{"ApiToken", "Bearer", "ApiToken"},
		{"ApiToken", "Access Token", "ApiToken"},
		{"Bearer", "N_A", "Bearer"},
	} {
		for _, kind := range kinds {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				answer, err := json.Marshal(map[string]any{"access_token": "a b", "token_type": test.tokenType, "expires_in": 3600})
				require.NoError(t, err)
				w.auth.SetFault(&clientcredentialstest.Fault{Status: 200, Body: string(answer)})
				w.conf.AuthScheme = test.conf
				var sent []string
				client := w.through(t, kind, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					sent = append(sent, req.Header.Get("Authorization"))
					if len(sent) == 3 {
						return unauthorized(test.want+` error="invalid_token"`, http.NoBody), nil
					}
					return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
				}))
				for range 3 {
					w.status(t, client)
				}
				want := test.want + " a b"
				require.Equal(t, []string{want, want, want}, sent, "%+v by %s", test, kind)
				require.Equal(t, 2, w.auth.TokenRequests(), "the API's challenge has that scheme, too")

				source := w.conf.Source(w.ctx)
				token, err := source.Token()
				require.NoError(t, err)
				require.Equal(t, test.tokenType, token.TokenType)
				req := httptest.NewRequest(http.MethodGet, worldAPI, nil)
				require.NoError(t, source.Authorize(req))
				require.Equal(t, want, req.Header.Get("Authorization"))
			})
		}
	}
}

// The Base of Client's Transport sends no token at all if it is used by itself. It requests
// none either if it is asked for one.
func TestF11_RequestWithoutAToken(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		calls := 0
		client := w.through(t, "Client", roundTripFunc(func(req *http.Request) (*http.Response, error) {
			calls++
			require.Empty(t, req.Header.Get("Authorization"))
			return unauthorized(invalidToken, http.NoBody), nil
		}))
		w.status(t, &http.Client{Transport: client.Transport.(*oauth2.Transport).Base})
		require.Equal(t, 1, calls)
		require.Zero(t, w.auth.TokenRequests())
	})
}

func TestF11_UnauthorizedWithoutEnd(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		reader, writer := io.Pipe()
		defer writer.Close()
		calls := 0
		client := w.through(t, "Transport", roundTripFunc(func(*http.Request) (*http.Response, error) {
			if calls++; calls == 2 {
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}
			resp := unauthorized(invalidToken, reader)
			resp.ContentLength = -1
			return resp, nil
		}))
		require.Equal(t, 200, w.status(t, client))
		_, err := writer.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe, "the first answer is left open")
	})
}

func TestF11_Replay(t *testing.T) {
	for _, test := range []struct {
		name      string
		challenge string
		body      string // "", "GetBody", "stream", "gone"
		drops     bool   // the token
		replays   bool
	}{
		{"no body", invalidToken, "", true, true},
		{"GetBody", invalidToken, "GetBody", true, true},
		{"stream", invalidToken, "stream", true, false},
		{"GetBody fails", invalidToken, "gone", true, false},
		{"no code", `Bearer realm="x"`, "", true, false},
		{"no challenge", ``, "", true, false},
		{"another scheme", `Basic realm="x"`, "", true, false},
		{"F37: a code under another scheme", `OAuth2 error="invalid_token"`, "", true, true},
		{"F37: beside one for Bearer", `Bearer realm="x", Token error=Invalid_Token`, "", true, true},
		{"F37: without a scheme", `error="invalid_token", error_description="expired"`, "", true, true},
		{"F37: in single quotes", `JWT error='invalid_token'`, "", true, true},
		{"F37: another code under another scheme", `OAuth2 error="insufficient_scope"`, "", true, false},
		{"insufficient_scope", `Bearer error="insufficient_scope"`, "", false, false},
		{"invalid_request", `Bearer error="invalid_request"`, "", false, false},
	} {
		for _, kind := range kinds {
			t.Run(test.name+"/"+kind, func(t *testing.T) {
				bubble(t, time.Hour, func(t *testing.T, w *world) {
					var sent []string // body and Authorization of each request
					endless := new(zeros)
					refusal := &closeCounter{Reader: io.LimitReader(endless, 1<<30)}
					client := w.through(t, kind, roundTripFunc(func(req *http.Request) (*http.Response, error) {
						body := ""
						if req.Body != nil {
							data, _ := io.ReadAll(req.Body)
							req.Body.Close()
							body = string(data)
						}
						sent = append(sent, body+" "+req.Header.Get("Authorization"))
						if len(sent) == 1 {
							return unauthorized(test.challenge, refusal), nil // It says that its length is 0.
						}
						return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
					}))

					var body io.Reader
					switch test.body {
					case "GetBody", "gone":
						body = strings.NewReader("data")
					case "stream":
						body = io.MultiReader(strings.NewReader("data"))
					}
					req, err := http.NewRequestWithContext(t.Context(), "PUT", worldAPI, body)
					require.NoError(t, err)
					if test.body == "gone" {
						req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
					}
					resp, err := client.Do(req)
					require.NoError(t, err)
					defer resp.Body.Close()
					if test.replays {
						require.Equal(t, 200, resp.StatusCode)
						require.Len(t, sent, 2)
						require.NotEqual(t, sent[0], sent[1], "the same token")
						require.Equal(t, sent[0][:1], sent[1][:1], "another body")
						require.EqualValues(t, 1, refusal.closed.Load())
						require.Positive(t, endless.read)
						require.LessOrEqual(t, endless.read, 2*maxDrain)
						require.Equal(t, 2, w.auth.TokenRequests())
						return
					}
					require.Equal(t, 401, resp.StatusCode)
					require.Len(t, sent, 1)
					require.Zero(t, refusal.closed.Load(), "the caller hasn't read it yet")
					w.status(t, client)
					want := 1
					if test.drops {
						want++
					}
					require.Equal(t, want, w.auth.TokenRequests())
				})
			})
		}
	}
}

func TestF11_ServerThatKeepsIssuingTheSameToken(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		conf, requests := answeringConfig(t, `{"access_token":"same"}`)
		calls := 0
		tr := &Transport{Source: conf.Source(t.Context()), Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
			calls++
			return unauthorized(invalidToken, http.NoBody), nil
		})}
		resp, err := (&http.Client{Transport: tr}).Get(worldAPI)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 1, calls, "the API got a token that it had refused")
		require.EqualValues(t, 2, requests.Load())
	})
}

func TestF11_Always401(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.api.Handler = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", invalidToken)
			rw.WriteHeader(http.StatusUnauthorized)
		})
		client := w.conf.Client(w.ctx)
		every(500*time.Millisecond, 10*time.Minute, func() { require.Equal(t, 401, w.status(t, client)) })
		require.LessOrEqual(t, w.auth.TokenRequests(), 1+10*60/30)
	})
}

func TestF11_NoNewTokenToBeHad(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		for name, client := range w.clients() {
			w.status(t, client)
			w.auth.RevokeAll()
			w.auth.Script(clientcredentialstest.InvalidClient())
			resp, err := client.Get(worldAPI)
			require.NoError(t, err, name)
			require.Equal(t, 401, resp.StatusCode, name)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NotEmpty(t, body, "the caller must get the API's whole answer")
			resp.Body.Close()
		}
	})
}

func TestF11_TokenOfAnotherSource(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		client := w.conf.Client(w.ctx)
		client.Transport.(*oauth2.Transport).Source = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "another"})
		require.Equal(t, 401, w.status(t, client))
		require.Zero(t, w.auth.TokenRequests())
	})
}

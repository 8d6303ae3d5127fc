package clientcredentials

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// noMarker fails the test if anything but a token of the server got to the API.
func (w *world) noMarker(t *testing.T) {
	t.Helper()
	require.Zero(t, w.api.Rejected())
	require.NotZero(t, w.api.Accepted())
}

func TestClientAddsToken(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		for name, client := range w.clients() {
			for range 10 {
				resp, err := w.get(t, client)
				require.NoError(t, err, name)
				require.Equal(t, 200, resp.StatusCode, name)
			}
		}
		require.Equal(t, 2, w.auth.TokenRequests())
		w.noMarker(t)
	})
}

func TestRequestContextBoundsTheColdWait(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = 2 * time.Second
		for name, client := range w.clients() {
			start := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					defer cancel()
					body := &closeCounter{Reader: strings.NewReader("x")}
					req, err := http.NewRequestWithContext(ctx, "POST", worldAPI, body)
					require.NoError(t, err)
					_, err = client.Do(req)
					require.ErrorIs(t, err, context.DeadlineExceeded, name)
					require.Equal(t, 100*time.Millisecond, time.Since(start), name)
					require.Positive(t, body.closed.Load(), name)
				})
			}
			wg.Wait()
			time.Sleep(2 * time.Second)
			start = time.Now()
			_, err := w.get(t, client)
			require.NoError(t, err, name)
			require.Zero(t, time.Since(start), "the flight went on without the callers")
		}
		require.Len(t, w.api.Requests(), 2, "a request was sent without a token")
	})
}

func TestClientTimeoutBoundsTheColdWait(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.auth.Latency = 2 * time.Second
		for name, client := range w.clients() {
			client.Timeout = 100 * time.Millisecond
			_, err := w.get(t, client)
			var timeout interface{ Timeout() bool }
			require.ErrorAs(t, err, &timeout, name)
			require.True(t, timeout.Timeout(), name)
		}
		time.Sleep(2 * time.Second)
	})
}

// The marker: nobody but the guard may ever see one.

func TestSourceTakenFromTheTransport(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		base, _ := contextClient(w.ctx)
		for name, use := range map[string]func(t *oauth2.Transport) error{
			"asked": func(tr *oauth2.Transport) error {
				token, err := tr.Source.Token()
				if err == nil && strings.Contains(token.AccessToken, "\x00") {
					return errors.New("got a marker")
				}
				return err
			},
			"wrapped by NewClient": func(tr *oauth2.Transport) error {
				_, err := w.get(t, oauth2.NewClient(w.ctx, tr.Source))
				return err
			},
			"in another Transport": func(tr *oauth2.Transport) error {
				_, err := w.get(t, &http.Client{Transport: &oauth2.Transport{Source: tr.Source, Base: base.Transport}})
				return err
			},
			"in another Transport over the guard": func(tr *oauth2.Transport) error {
				_, err := w.get(t, &http.Client{Transport: &oauth2.Transport{Source: tr.Source, Base: tr.Base}})
				return err
			},
			"in our Transport": func(tr *oauth2.Transport) error {
				_, err := w.get(t, &http.Client{Transport: &Transport{Source: tr.Source, Base: base.Transport}})
				return err
			},
			"in a copy of the Transport": func(tr *oauth2.Transport) error {
				another := *tr
				another.Base = base.Transport
				_, err := w.get(t, &http.Client{Transport: &another})
				return err
			},
			"under a function of the same name": func(tr *oauth2.Transport) error {
				_, err := w.get(t, &http.Client{Transport: Impostor{tr.Source, base.Transport}})
				return err
			},
		} {
			tr, ok := w.conf.Client(w.ctx).Transport.(*oauth2.Transport)
			require.True(t, ok)
			require.NoError(t, use(tr), name)
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

func TestBaseReplacedOrWrapped(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		base, _ := contextClient(w.ctx)
		for name, change := range map[string]func(tr *oauth2.Transport, seen *string){
			"replaced": func(tr *oauth2.Transport, seen *string) {
				tr.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					*seen = req.Header.Get("Authorization")
					return base.Transport.RoundTrip(req)
				})
			},
			"wrapped": func(tr *oauth2.Transport, seen *string) {
				inner := tr.Base
				tr.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					*seen = req.Header.Get("Authorization")
					return inner.RoundTrip(req)
				})
			},
		} {
			client := w.conf.Client(w.ctx)
			var seen string
			change(client.Transport.(*oauth2.Transport), &seen)
			for range 2 {
				_, err := w.get(t, client)
				require.NoError(t, err, name)
				require.NotContains(t, seen, "\x00", name)
				require.NotEmpty(t, seen)
			}
		}
		w.noMarker(t)
	})
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
		source := tr.Source.(*clientSource)
		tr.Source = tokenFunc(func() (*oauth2.Token, error) {
			return nil, errors.New("not this one")
		})
		_, err := client.Get(worldAPI)
		require.ErrorContains(t, err, "not this one")

		tr.Source = source
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", worldAPI, nil)
		require.NoError(t, err)
		_, err = tr.RoundTrip(req)
		require.ErrorIs(t, err, context.Canceled, "the stack trace didn't tell the receiver")
		require.Zero(t, w.auth.TokenRequests())
	})
}

type tokenFunc func() (*oauth2.Token, error)

func (f tokenFunc) Token() (*oauth2.Token, error) { return f() }

func TestF5_Transport(t *testing.T) {
	for name, test := range map[string]struct {
		transport http.RoundTripper
		want      string
	}{
		"nil Source": {&Transport{}, "oauth2: Transport's Source is nil"},
		"nil *Source": {
			&Transport{Source: (*Source)(nil)},
			"oauth2: the Source is nil",
		},
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

func TestTransportAcceptsNilHeader(t *testing.T) {
	var got http.Header
	tr := &Transport{
		Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "x"}),
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			got = req.Header
			return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
		}),
	}
	req := httptest.NewRequest("GET", worldAPI, nil)
	req.Header = nil
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.Header{"Authorization": {"Bearer x"}}, got)
	require.Nil(t, req.Header)
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

func TestTransportKeepsTheCacheFromTheBase(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		tr := w.conf.Transport(w.ctx)
		base := tr.Base
		tr.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			req.Header["Authorization"][0] = "REDACTED" // As a careless logger does.
			return resp, err
		})
		for range 2 {
			_, err := w.get(t, &http.Client{Transport: tr})
			require.NoError(t, err)
		}
		w.noMarker(t)
	})
}

func TestR1_TokenStaysOnItsOrigin(t *testing.T) {
	const a, b, c = "https://a.example", "https://b.example", "https://c.example"
	for _, test := range []struct {
		name    string
		chain   []string
		origins []string
		want    []bool // whether each hop gets the token
	}{
		{"no redirect", []string{a}, nil, []bool{true}},
		{"same origin", []string{a, a, a}, nil, []bool{true, true, true}},
		{"default port", []string{a, a + ":443", "https://A.example"}, nil, []bool{true, true, true}},
		{"R1 other host", []string{a, b}, nil, []bool{true, false}},
		{"R1 other port", []string{a, a + ":8443"}, nil, []bool{true, false}},
		{"R1 subdomain", []string{a, "https://x.a.example"}, nil, []bool{true, false}},
		{"R1 permitted", []string{a, b, a}, []string{a, b}, []bool{true, true, true}},
		{"R1 one permitted", []string{a, c, b}, []string{a, b}, []bool{true, false, false}},
		{"R2 downgrade", []string{a, "http://a.example"}, nil, []bool{true, false}},
		{"R2 downgrade though permitted", []string{a, "http://a.example"}, []string{a, "http://a.example"}, []bool{true, false}},
		{"R2 downgrade and back", []string{a, "http://a.example", a}, []string{a, "http://a.example"}, []bool{true, false, false}},
		{"upgrade", []string{"http://a.example", a}, nil, []bool{true, false}},
		{"upgrade permitted", []string{"http://a.example", a}, []string{"http://a.example", a}, []bool{true, true}},
		{"R7 there and back", []string{a, b, a, a}, nil, []bool{true, false, false, false}},
	} {
		for _, noChain := range []bool{false, true} { // R5
			for kind := range newWorld(t, time.Hour).clients() {
				name := fmt.Sprintf("%s/%s/R5=%v", test.name, kind, noChain)
				network := &redirecting{noChain: noChain}
				ctx, _ := answering(t.Context(), `{"access_token":"t"}`)
				conf := &Config{TokenURL: "https://auth.example/token", Origins: test.origins}
				conf.HTTPClient, _ = contextClient(ctx)
				client := &http.Client{Transport: &Transport{Source: conf.Source(t.Context()), Base: network, Origins: test.origins}}
				if kind == "Client" {
					client = conf.Client(context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: network}))
				}
				resp, err := client.Get(strings.Join(test.chain, "/"))
				require.NoError(t, err, name)
				resp.Body.Close()
				require.Len(t, network.hops, len(test.chain), name)
				for i, permitted := range test.want {
					require.Equal(t, permitted, strings.HasSuffix(network.hops[i], " token"), "%s: hop %d: %v", name, i, network.hops)
				}
			}
		}
	}
}

func TestOriginsBoundFirstRequests(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		w.conf.Origins = []string{"https://other.example"}
		for name, client := range w.clients() {
			_, err := client.Get(worldAPI)
			require.ErrorContains(t, err, "oauth2: https://api.example:443 is not among the Origins", name)
			resp, err := client.Get("https://other.example/")
			require.NoError(t, err)
			resp.Body.Close()
		}
		require.Len(t, w.api.Requests(), 2)
	})
}

// Host names that Unicode folds to the same text are different hosts. No token and no proof may
// cross from one to the other.
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

// The list in the Config binds a Transport that a program makes itself, unless the Transport has
// its own.
func TestR9_TransportObeysTheOriginsOfItsSource(t *testing.T) {
	const listed, other = "https://listed.example", "https://other.example"
	ctx, _ := answering(t.Context(), `{"access_token":"t"}`)
	conf := &Config{TokenURL: "https://auth.example/token", Origins: []string{listed}}
	for _, source := range []oauth2.TokenSource{conf.Source(ctx), conf.Client(ctx).Transport.(*oauth2.Transport).Source} {
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

func TestClientCopiesTheContextsClient(t *testing.T) {
	var checked bool
	hardened := &http.Client{
		Transport:     &redirecting{},
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { checked = true; return http.ErrUseLastResponse },
	}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, hardened)
	tokens, _ := answering(t.Context(), `{"access_token":"t"}`)
	conf := &Config{TokenURL: "https://auth.example/token"}
	conf.HTTPClient, _ = contextClient(tokens)
	client := conf.Client(ctx)
	require.Equal(t, time.Minute, client.Timeout)
	resp, err := client.Get("https://a.example/https://b.example")
	require.NoError(t, err)
	resp.Body.Close()
	require.True(t, checked) // R6
	require.Equal(t, 307, resp.StatusCode)
	require.NotNil(t, hardened.CheckRedirect, "the context's client must be left alone")
	require.NotNil(t, (&Config{}).Client(context.WithValue(ctx, oauth2.HTTPClient, (*http.Client)(nil))))
}

package clientcredentials

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

// The tests in this file look at the bytes that servers receive. The servers redirect the
// client, in the hope that it takes its secret or its token along.

// A credentials is a way in which a Config sends its secret.
type credentials struct {
	name   string
	apply  func(c *Config)
	secret string
	inBody bool
}

const wireSecret = "W1reS3cret/+&=~ Canary"

var wireCredentials = []credentials{
	{"Basic", func(c *Config) {
		c.ClientSecret, c.AuthStyle = wireSecret, oauth2.AuthStyleInHeader
	}, wireSecret, false},
	{"auto-detect", func(c *Config) { c.ClientSecret = wireSecret }, wireSecret, false},
	{"post", func(c *Config) {
		c.ClientSecret, c.AuthStyle = wireSecret, oauth2.AuthStyleInParams
	}, wireSecret, true},
	{"assertion", func(c *Config) {
		c.AuthStyle = oauth2.AuthStyleInParams
		c.EndpointParams = url.Values{
			"client_assertion":      {"eyAssertionHeader.eyAssertionClaims.AssertionCanary"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		}
	}, "eyAssertionHeader.eyAssertionClaims.AssertionCanary", true},
}

// requireChosenForm checks that the secret is where the Config wants it, and nowhere else:
// one method per request, RFC 6749, Section 2.3.
func requireChosenForm(t *testing.T, req hostile.Request, creds credentials) {
	t.Helper()
	require.NotContains(t, req.URI, "?")
	header := fmt.Sprintf("%q", req.Header)
	if creds.inBody {
		require.NotEmpty(t, hostile.Find(req.Body, creds.secret))
		require.Empty(t, hostile.Find(header, creds.secret))
		require.NotContains(t, req.Header, "Authorization")
		return
	}
	require.Empty(t, hostile.Find(req.Body, creds.secret))
	require.NotContains(t, req.Body, "client_id")
	require.NotContains(t, req.Body, "client_secret")
	value := req.Header.Get("Authorization")
	require.Contains(t, value, "Basic ")
	require.Equal(t, 1, strings.Count(header, value))
	delete(req.Header, "Authorization")
	require.Empty(t, hostile.Find(fmt.Sprintf("%q", req.Header), creds.secret))
}

// places are the targets of a redirect by a token endpoint, first.
var places = []struct {
	name string
	tls  bool // of first
	to   func(first, other, otherTLS *hostile.Server) string
}{
	{"same origin", true, func(first, _, _ *hostile.Server) string { return first.URL }},
	{"other port", true, func(_, _, otherTLS *hostile.Server) string { return otherTLS.URL }},
	{"other host", true, func(first, _, _ *hostile.Server) string { return first.Other }},
	{"other host and port", true, func(_, _, otherTLS *hostile.Server) string { return otherTLS.Other }},
	{"upgrade", false, func(_, _, otherTLS *hostile.Server) string { return otherTLS.URL }},
	{"downgrade", true, func(_, other, _ *hostile.Server) string { return other.URL }},
	{"downgrade on the same port", true, func(first, _, _ *hostile.Server) string { return "http" + strings.TrimPrefix(first.URL, "https") }},
}

// tokenRedirects tries those redirects of a token endpoint that chosen selects. The target
// would issue a token.
func tokenRedirects(t *testing.T, chosen func(status int, downgrade, inBody bool) bool) {
	t.Parallel()
	tried := 0
	for _, status := range []int{300, 301, 302, 303, 304, 305, 306, 307, 308} {
		for _, place := range places {
			for _, creds := range wireCredentials {
				if !chosen(status, strings.HasPrefix(place.name, "downgrade"), creds.inBody) {
					continue
				}
				tried++
				t.Run(fmt.Sprintf("%d/%s/%s", status, place.name, creds.name), func(t *testing.T) {
					t.Parallel()
					good := hostile.JSON(200, `{"access_token":"`+hostile.StolenToken+`"}`)
					other, otherTLS := hostile.Start(t, good), hostile.StartTLS(t, good)
					start := hostile.Start
					if place.tls {
						start = hostile.StartTLS
					}
					api, first := hostile.Start(t, good), start(t)
					target := place.to(first, other, otherTLS)
					conf := &Config{ClientID: "id", TokenURL: first.URL + "/token"}
					creds.apply(conf)
					ctx := context.WithValue(t.Context(), oauth2.HTTPClient, hostile.Client())

					first.Script(hostile.Redirect(status, target+"/token?leak=LocationCanary"), good)
					token, err := conf.Token(ctx)
					require.Nil(t, token)
					require.ErrorContains(t, err, strconv.Itoa(status))
					require.ErrorContains(t, err, "a redirect to "+target+",")
					require.ErrorContains(t, err, "set TokenURL to")
					text := surfaces(err)
					require.Empty(t, hostile.Find(text, creds.secret))
					var refusal *oauth2.RetrieveError
					require.ErrorAs(t, err, &refusal)
					require.Equal(t, status, refusal.Response.StatusCode)

					first.Script(hostile.Redirect(status, target+"/token"), good)
					resp, err := conf.Client(ctx).Get(api.URL)
					require.Nil(t, resp)
					require.ErrorContains(t, err, "a redirect to "+target+",")
					require.Zero(t, api.Connections(), "the API was called")

					require.Len(t, first.Requests(), 2)
					require.Equal(t, 2, first.Connections())
					for _, req := range first.Requests() {
						require.Equal(t, "127.0.0.1", strings.Split(req.Host, ":")[0])
						require.Equal(t, "/token", req.URI)
						requireChosenForm(t, req, creds)
					}
					for _, s := range []*hostile.Server{other, otherTLS} {
						require.Zero(t, s.Connections())
						require.Empty(t, s.Received())
					}
				})
			}
		}
	}
	require.NotZero(t, tried)
}

// TestR3_SecretInTheBody: 307 and 308 ask for the same request again, with its body.
func TestR3_SecretInTheBody(t *testing.T) {
	tokenRedirects(t, func(status int, downgrade, inBody bool) bool { return status >= 307 && inBody && !downgrade })
}

func TestR3b_Basic(t *testing.T) {
	tokenRedirects(t, func(status int, downgrade, inBody bool) bool { return status >= 307 && !inBody && !downgrade })
}

// TestR3c_OtherStatuses: the other statuses turn the request into a GET, or mean something
// else.
func TestR3c_OtherStatuses(t *testing.T) {
	tokenRedirects(t, func(status int, downgrade, _ bool) bool { return status < 307 && !downgrade })
}

func TestR4_Downgrade(t *testing.T) {
	tokenRedirects(t, func(_ int, downgrade, _ bool) bool { return downgrade })
}

// The tests from here on are about redirects by the API.

const wireToken = "W1reT0ken.Canary_0123456789-"

// A chain is a chain of redirects.
type chain struct {
	name    string
	hops    []string // the origins that the chain visits
	origins []string // those in Config.Origins
	want    []bool   // whether each hop gets the token
}

// The origins: b has another port than a, and clear has no TLS.
const atA, atAHost, atB, atClear = "a", "a's other host", "b", "cleartext"

type startServer = func(testing.TB, ...http.Handler) *hostile.Server

// apiRedirects follows the chains with each kind of client and each status.
func apiRedirects(t *testing.T, chains []chain) {
	for name, startTLS := range map[string]startServer{"HTTP/1.1": hostile.StartTLS, "HTTP/2": hostile.StartHTTP2} {
		for _, chain := range chains {
			for _, status := range []int{301, 302, 303, 307, 308} {
				if name == "HTTP/2" && status != 307 {
					continue // The status makes no difference to HTTP/2.
				}
				for _, kind := range []string{"Client", "Transport"} {
					t.Run(fmt.Sprintf("%s/%s/%d/%s", name, chain.name, status, kind), func(t *testing.T) {
						t.Parallel()
						chain.follow(t, startTLS, status, kind)
					})
				}
			}
		}
	}
}

// follow sends requests along the chain, and counts how often each server receives the token.
func (c chain) follow(t *testing.T, startTLS startServer, status int, kind string) {
	var addresses []string // of all hops
	hop := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		i, err := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/"))
		if err == nil && i+1 < len(addresses) {
			hostile.Redirect(status, addresses[i+1]).ServeHTTP(w, req)
		}
	})
	servers := map[string]*hostile.Server{atA: startTLS(t, hop), atB: startTLS(t, hop), atClear: hostile.Start(t, hop)}
	servers[atAHost] = servers[atA]
	origin := func(name string) string {
		if name == atAHost {
			return servers[name].Other
		}
		return servers[name].URL
	}
	for i, name := range c.hops {
		addresses = append(addresses, fmt.Sprintf("%s/%d", origin(name), i))
	}
	auth := hostile.Start(t, hostile.JSON(200, `{"access_token":"`+wireToken+`","expires_in":3600}`))
	conf := &Config{ClientID: "id", ClientSecret: wireSecret, TokenURL: auth.URL, HTTPClient: hostile.Client()}
	for _, name := range c.origins {
		conf.Origins = append(conf.Origins, origin(name))
	}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, hostile.Client())
	client := conf.Client(ctx)
	if kind == "Transport" {
		client = &http.Client{Transport: conf.Transport(ctx)}
	}
	const rounds = 2 // The Source has no token yet, and then it has one.
	for range rounds {
		req, err := http.NewRequestWithContext(ctx, "POST", addresses[0], strings.NewReader("the caller's"))
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, addresses[len(addresses)-1], resp.Request.URL.String())
	}

	permitted := make(map[*hostile.Server]int) // hops with the token
	for i, want := range c.want {
		s := servers[c.hops[i]]
		got := 0
		for _, req := range s.Requests() {
			if req.URI != fmt.Sprintf("/%d", i) {
				continue
			}
			got++
			if want {
				permitted[s]++
				require.Equal(t, "Bearer "+wireToken, req.Header.Get("Authorization"), "hop %d", i)
			} else {
				require.NotContains(t, req.Header, "Authorization", "hop %d", i)
			}
		}
		require.Equal(t, rounds, got, "hop %d", i)
	}
	for name, s := range servers {
		require.Equal(t, permitted[s], strings.Count(string(s.Received()), wireToken), name)
		if permitted[s] == 0 {
			require.Empty(t, s.Find(wireToken), name)
		}
		require.Empty(t, s.Find(wireSecret), name)
	}
	require.Len(t, auth.Requests(), 1)
	require.Empty(t, auth.Find(wireToken))
}

func TestR1_OtherOriginsReceiveNoToken(t *testing.T) {
	t.Parallel()
	apiRedirects(t, []chain{
		{"same origin", []string{atA, atA, atA}, nil, []bool{true, true, true}},
		{"other port", []string{atA, atB}, nil, []bool{true, false}},
		{"other host", []string{atA, atAHost}, nil, []bool{true, false}},
		{"other port, not listed", []string{atA, atB}, []string{atA, atAHost}, []bool{true, false}},
		{"other port, listed", []string{atA, atB, atA}, []string{atA, atB}, []bool{true, true, true}},
		{"other host, listed", []string{atA, atAHost}, []string{atA, atAHost}, []bool{true, true}},
		{"upgrade", []string{atClear, atA}, nil, []bool{true, false}},
		{"upgrade, listed", []string{atClear, atA}, []string{atClear, atA}, []bool{true, true}},
	})
}

func TestR2_CleartextReceivesNoToken(t *testing.T) {
	t.Parallel()
	apiRedirects(t, []chain{
		{"downgrade", []string{atA, atClear}, nil, []bool{true, false}},
		{"downgrade, listed", []string{atA, atClear}, []string{atA, atClear}, []bool{true, false}},
		{"downgrade and back, listed", []string{atA, atClear, atA}, []string{atA, atClear}, []bool{true, false, false}},
		{"downgrade later, listed", []string{atA, atB, atClear}, []string{atA, atB, atClear}, []bool{true, true, false}},
	})
}

func TestR7_NoTokenAfterTheReturn(t *testing.T) {
	t.Parallel()
	apiRedirects(t, []chain{
		{"there and back", []string{atA, atB, atA, atA}, nil, []bool{true, false, false, false}},
		{"other host and back", []string{atA, atAHost, atA}, nil, []bool{true, false, false}},
		{"there and back, not listed", []string{atA, atB, atA}, []string{atA}, []bool{true, false, false}},
		{"by way of one that is not listed", []string{atA, atB, atAHost, atA}, []string{atA, atAHost}, []bool{true, false, false, false}},
	})
}

// TestR1_CallersOwnAuthorization: the token replaces an Authorization of the caller. On its
// own, net/http would send that to another port of the same host.
func TestR1_CallersOwnAuthorization(t *testing.T) {
	other := hostile.StartTLS(t, hostile.Text(200, "text/plain", ""))
	first := hostile.StartTLS(t, hostile.Redirect(307, other.URL))
	auth := hostile.Start(t, hostile.JSON(200, `{"access_token":"`+wireToken+`"}`))
	conf := &Config{ClientID: "id", ClientSecret: wireSecret, TokenURL: auth.URL, HTTPClient: hostile.Client()}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, hostile.Client())
	for _, client := range []*http.Client{conf.Client(ctx), {Transport: conf.Transport(ctx)}} {
		req, err := http.NewRequestWithContext(ctx, "GET", first.URL, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Basic CallersCanary")
		resp, err := client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
	}
	require.Empty(t, first.Find("CallersCanary"))
	require.Equal(t, 2, strings.Count(string(first.Received()), wireToken))
	require.Len(t, other.Requests(), 2)
	require.Empty(t, other.Find("CallersCanary"))
	require.Empty(t, other.Find(wireToken))
}

// TestR6_HardenedClient: the API client keeps the CheckRedirect and Timeout of the context's
// client. Token requests follow no redirect, whatever CheckRedirect permits.
func TestR6_HardenedClient(t *testing.T) {
	for _, inContext := range []bool{true, false} {
		other := hostile.Start(t, hostile.JSON(200, `{"access_token":"`+hostile.StolenToken+`"}`))
		auth := hostile.Start(t, hostile.Redirect(307, other.URL), hostile.JSON(200, `{"access_token":"`+wireToken+`"}`))
		api := hostile.Start(t, hostile.Redirect(307, other.URL))
		checked := 0
		shared := hostile.Client()
		shared.Timeout = time.Hour
		shared.CheckRedirect = func(*http.Request, []*http.Request) error { checked++; return nil }
		before := *shared
		conf := &Config{ClientID: "id", ClientSecret: wireSecret, TokenURL: auth.URL, HTTPClient: shared}
		ctx, want := t.Context(), 0 // HTTPClient is for token requests.
		if inContext {
			ctx, conf.HTTPClient, want = context.WithValue(ctx, oauth2.HTTPClient, shared), nil, 1
		}
		_, err := conf.Token(ctx)
		require.ErrorContains(t, err, "which is not followed")
		require.Zero(t, checked, "CheckRedirect was called for a token request")
		require.Zero(t, other.Connections())

		client := conf.Client(ctx)
		resp, err := client.Get(api.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Len(t, other.Requests(), 1)
		require.Empty(t, other.Find(wireToken))
		require.Equal(t, want, checked)
		require.Equal(t, time.Duration(want)*time.Hour, client.Timeout)
		require.Equal(t, before.Timeout, shared.Timeout)
		require.Same(t, before.Transport, shared.Transport)
		require.NoError(t, shared.CheckRedirect(nil, nil), "the program's client was changed")
	}
}

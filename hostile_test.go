package clientcredentials

import (
	"context"
	"fmt"
	"net/http"
	"slices"
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

const (
	wireSecret = "W1reS3cret/+&=~ Canary"
	wireToken  = "W1reT0ken.Canary_0123456789-"
)

// TestR3_R3b_R3c_R4_TokenRequestsFollowNoRedirect: 307 and 308 ask for the same request
// again, with its body. The other statuses turn it into a GET, or mean something else.
// The target would issue a token. The drop-in table has the texts of the errors.
func TestR3_R3b_R3c_R4_TokenRequestsFollowNoRedirect(t *testing.T) {
	t.Parallel()
	good := hostile.JSON(200, `{"access_token":"`+hostile.StolenToken+`"}`)
	api, other, otherTLS := hostile.Start(t, good), hostile.Start(t, good), hostile.StartTLS(t, good)
	for _, status := range []int{300, 301, 302, 303, 304, 305, 306, 307, 308} {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			first := hostile.StartTLS(t)
			sameOrigin, sameHost, samePort := first.URL, otherTLS.URL, first.Other
			for _, target := range []string{sameOrigin, sameHost, samePort, other.URL, "http" + strings.TrimPrefix(first.URL, "https")} {
				redirect := hostile.Redirect(status, target+"/token?leak=LocationCanary")
				first.Script(redirect, redirect)
				conf := &Config{ClientID: "id", ClientSecret: wireSecret, TokenURL: first.URL + "/token", AuthStyle: style}
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, hostile.Client())
				_, err := conf.Token(ctx)
				var refusal *oauth2.RetrieveError
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, status, refusal.Response.StatusCode)
				require.ErrorContains(t, err, "a redirect to "+target+",")
				require.Empty(t, hostile.Find(surfaces(err), wireSecret))
				_, err = conf.Client(ctx).Get(api.URL)
				require.ErrorContains(t, err, "a redirect to "+target+",")
			}
			require.Len(t, first.Requests(), 10)
			for _, req := range first.Requests() {
				require.Equal(t, "/token", req.URI)
				require.Equal(t, style == oauth2.AuthStyleInParams, hostile.Find(req.Body, wireSecret) != "")
				require.Equal(t, style != oauth2.AuthStyleInParams, strings.HasPrefix(req.Header.Get("Authorization"), "Basic "))
			}
		}
	}
	for _, s := range []*hostile.Server{api, other, otherTLS} {
		require.Zero(t, s.Connections())
	}
}

// A chain is a chain of redirects by the API. Package internal/origin decides which of its
// hops get the token, and TestR1_TokenStaysOnItsOrigin has more of them.
type chain struct {
	name    string
	hops    []string // the origins that the chain visits
	origins []string // those in Config.Origins
	want    []bool   // whether each hop gets the token
}

// The origins: b has another port than a, and clear has no TLS.
const atA, atAHost, atB, atClear = "a", "a's other host", "b", "cleartext"

type startServer = func(testing.TB, ...http.Handler) *hostile.Server

func TestR1_R2_R7_TokenOnTheWire(t *testing.T) {
	t.Parallel()
	for version, startTLS := range map[string]startServer{"HTTP/1.1": hostile.StartTLS, "HTTP/2": hostile.StartHTTP2} {
		for _, chain := range []chain{
			{"R1 other port", []string{atA, atB}, nil, []bool{true, false}},
			{"R1 other host", []string{atA, atAHost}, nil, []bool{true, false}},
			{"R1 listed", []string{atA, atB, atA}, []string{atA, atB}, []bool{true, true, true}},
			{"R2 downgrade and back, listed", []string{atA, atClear, atA}, []string{atA, atClear}, []bool{true, false, false}},
			{"R7 there and back", []string{atA, atB, atA, atA}, nil, []bool{true, false, false, false}},
		} {
			for _, status := range []int{302, 307} {
				for _, kind := range kinds {
					t.Run(fmt.Sprintf("%s/%s/%d/%s", version, chain.name, status, kind), func(t *testing.T) {
						t.Parallel()
						chain.follow(t, startTLS, status, kind)
					})
				}
			}
		}
	}
}

// follow sends requests along the chain, and counts how often each server receives the
// token.
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
	req, err := http.NewRequestWithContext(ctx, "POST", addresses[0], strings.NewReader("the caller's"))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Basic CallersCanary") // net/http would send it to another port of the same host.
	resp, err := client.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, addresses[len(addresses)-1], resp.Request.URL.String())

	permitted := make(map[*hostile.Server]int) // hops with the token
	for i, want := range c.want {
		s := servers[c.hops[i]]
		at := slices.IndexFunc(s.Requests(), func(req hostile.Request) bool { return req.URI == fmt.Sprintf("/%d", i) })
		require.GreaterOrEqual(t, at, 0)
		if want {
			permitted[s]++
			require.Equal(t, "Bearer "+wireToken, s.Requests()[at].Header.Get("Authorization"), "hop %d", i)
		}
	}
	for name, s := range servers {
		require.Equal(t, permitted[s], strings.Count(string(s.Received()), wireToken), name)
		require.True(t, permitted[s] > 0 || s.Find(wireToken) == "", name)
		require.Empty(t, s.Find(wireSecret)+s.Find("CallersCanary"), name)
	}
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

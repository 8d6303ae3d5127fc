package clientcredentials

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/clock"
)

func TestAccessToken(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		text, err := s.AccessToken(t.Context())
		require.NoError(t, err)
		require.Equal(t, promptly(t, s).AccessToken, text)
		_, err = (*Source)(nil).AccessToken(t.Context())
		require.Error(t, err)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = w.conf.Source(w.ctx).AccessToken(gone)
		require.ErrorIs(t, err, context.Canceled)
	})
	conf := newTokenEndpoint(reply{body: `{"access_token":"t","token_type":"DPoP"}`}).config()
	conf.DPoP = newProofSigner(t)
	_, err := conf.Source(t.Context()).AccessToken(t.Context())
	require.ErrorContains(t, err, "bound to a key")
}

func TestF38_TokenFor(t *testing.T) {
	for name, test := range map[string]struct {
		life, age, least time.Duration
		requests         int
		err              string
	}{
		"enough left":              {time.Hour, 10 * time.Minute, 10 * time.Minute, 1, ""},
		"less left":                {time.Hour, 55 * time.Minute, 10 * time.Minute, 2, ""},
		"far less, still fresh":    {time.Hour, 20 * time.Minute, 50 * time.Minute, 2, ""},
		"nothing asked":            {time.Hour, 10 * time.Minute, 0, 1, ""},
		"never so long":            {time.Hour, 10 * time.Minute, 2 * time.Hour, 1, "the server's tokens for 1h0m0s: less than the 2h0m0s"},
		"never so long, and young": {time.Minute, 0, time.Hour, 1, "less than the 1h0m0s"},
		"never so long, and short": {6 * time.Second, 3200 * time.Millisecond, time.Hour, 1, "less than the 1h0m0s"},
		"never so long, and old":   {time.Hour, 50 * time.Minute, 2 * time.Hour, 1, "less than the 2h0m0s"},
		"exactly the life":         {time.Hour, time.Minute, time.Hour, 1, "less than the 1h0m0s"},
		"nearly the life":          {time.Hour, time.Minute, time.Hour - time.Second/2, 1, "less than the 59m59.5s"},
		"the life, and no more":    {time.Hour, time.Minute, time.Hour - time.Second, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, test.life, func(t *testing.T, w *world) {
				w.auth.Latency = time.Second
				s := w.conf.Source(w.ctx)
				_, err := s.Token()
				require.NoError(t, err)
				time.Sleep(test.age)
				for range 20 { // However often it is asked, there is no storm.
					token, err := s.TokenFor(t.Context(), test.least)
					if test.err != "" {
						require.ErrorContains(t, err, test.err)
						continue
					}
					require.NoError(t, err)
					require.GreaterOrEqual(t, time.Until(token.Expiry), test.least)
				}
				synctest.Wait()
				require.LessOrEqual(t, w.auth.TokenRequests(), test.requests)
			})
		})
	}
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		s := w.conf.Source(w.ctx)
		promptly(t, s)
		time.Sleep(30 * time.Minute)
		w.auth.Latency = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.TokenFor(ctx, 50*time.Minute)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		synctest.Wait() // The server has read its Latency.
		w.auth.Latency = 0
		down := clientcredentialstest.Fault{Status: http.StatusServiceUnavailable}
		w.auth.SetFault(&down)
		time.Sleep(time.Minute)
		_, err = s.TokenFor(t.Context(), 50*time.Minute)
		require.Error(t, err, "the token that is there isn't what was asked for")
		promptly(t, s)
	})
	endless := newTokenEndpoint(reply{body: `{"access_token":"t"}`}).config().Source(t.Context())
	_, err := endless.TokenFor(t.Context(), 1000*time.Hour)
	require.NoError(t, err)
}

// A Source keeps the text of an answer. The whole token is made of it again after the garbage
// collector has taken it.
func TestTokenIsMadeAgain(t *testing.T) {
	for _, a := range []reply{
		{body: `{"access_token":"t","token_type":"bearer","expires_in":3600,"refresh_token":"r","scope":"s","n":1e21,"list":[1]}`},
		{body: `{"scope":"s t","access_token":"t"}`},
		{body: `{"access_token":"a\u0062c","ABC":"abc"}`},
		{body: "\xef\xbb\xbf {\"ACCESS_token\":\"t\",\"expires_in\":\"60\"}"},
		{body: "scope=a+b&access_token=a%2Fb&expires_in=90", mediaType: formType},
	} {
		conf := newTokenEndpoint(a).config()
		conf.EndpointParams = url.Values{"refresh_token": {"ours"}}
		s := conf.Source(t.Context())
		want, err := s.Token()
		require.NoError(t, err)
		runtime.GC()
		require.Nil(t, s.current.Load().handed.Load().Value(), "nobody needs it")
		got, err := s.Token()
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.NotEmpty(t, got.RefreshToken)
	}
}

// Each copy of a token has its own nested values.
func TestL11_NestedExtras(t *testing.T) {
	conf := newTokenEndpoint(reply{body: `{"access_token":"t","expires_in":3600,"nested":{"list":["a",{"b":1}]},"list":[1]}`}).config()
	s, client := conf.Source(t.Context()), conf.Client(t.Context())
	spoil := func(token *oauth2.Token) {
		nested := token.Extra("nested").(map[string]any)
		require.Equal(t, []any{"a", map[string]any{"b": 1.0}}, nested["list"])
		nested["list"].([]any)[1].(map[string]any)["b"] = "changed"
		nested["list"].([]any)[0] = "changed"
		nested["more"] = true
		token.Extra("list").([]any)[0] = "changed"
	}
	for range 3 {
		token, err := s.Token()
		require.NoError(t, err)
		spoil(token)
		token, err = s.TokenFor(t.Context(), time.Minute)
		require.NoError(t, err)
		spoil(token)
		token, err = client.Transport.(*oauth2.Transport).Source.Token()
		require.NoError(t, err)
		spoil(token)
	}
}

// A server that ends its short tokens a moment before their time causes no errors for long.
func TestF32_TokensThatEndEarly(t *testing.T) {
	for _, life := range []time.Duration{2 * time.Second, 5 * time.Second, 20 * time.Second, time.Minute} {
		bubble(t, life, func(t *testing.T, w *world) {
			w.auth.TokenLifetime = life - 500*time.Millisecond // What the API goes by.
			failed, calls := 0, 0
			lied := *w.conf
			base, _ := contextClient(w.ctx)
			lied.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return base.Transport.RoundTrip(req)
			})}
			client := lied.Client(w.ctx)
			for start := time.Now(); time.Since(start) < 5*time.Minute; time.Sleep(100 * time.Millisecond) {
				resp, err := w.get(t, client)
				require.NoError(t, err)
				calls++
				if resp.StatusCode != http.StatusOK {
					failed++
				}
			}
			require.LessOrEqual(t, failed, calls/1000, "tokens of %v", life)
			require.LessOrEqual(t, w.auth.TokenRequests(), int(5*time.Minute/time.Second))
		})
	}
	c := func(life, age time.Duration) *cachedToken {
		return &cachedToken{receivedToken: receivedToken{particulars: &nothingParticular, sent: clock.At(time.Now().Add(-age)), dead: life, soft: life, hard: life}}
	}
	for name, test := range map[string]struct {
		since time.Duration // the last rejection
		c     *cachedToken
		drop  bool
	}{
		"soon after another":           {10 * time.Second, c(time.Hour, 5*time.Second), false},
		"long after another":           {31 * time.Second, c(time.Hour, 5*time.Second), true},
		"after its life":               {11 * time.Second, c(10*time.Second, 5*time.Second), true},
		"within its life":              {9 * time.Second, c(10*time.Second, 5*time.Second), false},
		"in its last second":           {time.Second, c(10*time.Second, 9500*time.Millisecond), true},
		"in its last second but young": {time.Second, c(1500*time.Millisecond, 800*time.Millisecond), false},
		"without an end":               {time.Second, c(forever, time.Hour), false},
	} {
		r := rejections{last: clock.At(time.Now().Add(-test.since)), count: 1, final: true}
		drop, _ := r.admit(time.Now(), test.c)
		require.Equal(t, test.drop, drop, name)
	}
}

// A background flight that other replicas have kept from the server says nothing to callers.
func TestF31_FailuresOfOthers(t *testing.T) {
	request, err := newTokenRequest(t.Context(), &Config{TokenURL: "https://auth.example/token"}, "", nil)
	require.NoError(t, err)
	var c cooldown
	now := time.Now()
	for range 3 * cooldownFree {
		c.fail(now, request, errOthersFailed, 0.5)
	}
	require.True(t, c.end(false).Passed(now), "callers without a token wait for nothing")
	require.False(t, c.end(true).Passed(now))
	require.Zero(t, c.failures)
}

// Every pause is over when the machine wakes up late enough.
func TestF26_PausesSurviveASuspend(t *testing.T) {
	request, err := newTokenRequest(t.Context(), &Config{TokenURL: "https://auth.example/token"}, "", nil)
	require.NoError(t, err)
	refusal := refusalWith(http.StatusTooManyRequests, http.Header{"Retry-After": {"600"}})
	var c cooldown
	now := time.Now()
	c.fail(now, request, refusal, 0)
	for _, valid := range []bool{true, false} {
		require.False(t, c.end(valid).Passed(now.Add(time.Minute)))
		require.True(t, c.end(valid).MoveWallClock(10*time.Minute).Passed(now.Add(time.Second)))
	}
	r := rejections{last: clock.At(now), count: 1}
	require.True(t, r.isRecent(now))
	r.last = r.last.MoveWallClock(time.Minute)
	require.False(t, r.isRecent(now))
	conf, _ := answeringConfig(t, `{"access_token":"t","expires_in":3600}`)
	s := conf.Source(t.Context())
	tokenFrom(t, s)
	awake := s.current.Load()
	asleep := &cachedToken{receivedToken: awake.receivedToken}
	asleep.sent = awake.sent.MoveWallClock(time.Hour)
	s.current.Store(asleep)
	past, _ := s.recall(new(flight))
	require.False(t, past.until.After(time.Now()), "a token in the store that is still valid outlives it")
	b := &breaker{failures: storeFailuresFree, resume: clock.In(now, time.Minute)}
	_, ok := b.admit(now)
	require.False(t, ok)
	b.resume = b.resume.MoveWallClock(time.Minute)
	_, ok = b.admit(now)
	require.True(t, ok)
}

// The clocks of replicas may be some minutes apart. Then what another replica writes after this
// one has dropped a token, or failed, may seem older than the token.
func TestS09_S12_ClocksApart(t *testing.T) {
	now := time.Now()
	for _, skew := range []time.Duration{0, time.Second, 4 * time.Minute, 9 * time.Minute, -time.Second, -4 * time.Minute, -9 * time.Minute} {
		token := &cachedToken{}
		token.issued = now.Add(-time.Minute + max(skew, 0))
		written := now.Add(min(skew, 0))
		var m fleetMemory
		m.distrust(token, now)
		require.False(t, (&tokenResponse{issued: written}).isOld(m.least), skew)
		require.True(t, (&tokenResponse{issued: written.Add(-20 * time.Minute)}).isOld(m.least), skew)
		require.Equal(t, 30*time.Second, m.obey(written, 30*time.Second, token.issued, now), skew)
		require.Zero(t, m.obey(written.Add(-time.Second), 30*time.Second, token.issued, now), "it is older than the last one")
	}
}

func TestR10_OriginsAreCopied(t *testing.T) {
	ctx, _ := answering(t.Context(), `{"access_token":"t"}`)
	conf := &Config{TokenURL: "https://auth.example/token", Origins: []string{"https://api.example"}}
	conf.HTTPClient, _ = contextClient(ctx)
	network := &redirecting{}
	ctx = context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: network})
	clients := map[string]*http.Client{"Client": conf.Client(ctx), "Transport": {Transport: conf.Transport(ctx)}}
	conf.Origins[0] = "https://evil.example"
	for name, client := range clients {
		resp, err := client.Get("https://api.example")
		require.NoError(t, err, name)
		resp.Body.Close()
		_, err = client.Get("https://evil.example")
		require.ErrorContains(t, err, "is not among the Origins", name)
	}
	conf.Origins = []string{}
	for _, rt := range []http.RoundTripper{conf.Client(ctx).Transport, conf.Transport(ctx), &Transport{Source: conf.Source(ctx)}, &Transport{Origins: []string{}, Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t"})}} {
		_, err := rt.RoundTrip(httptest.NewRequest(http.MethodGet, "https://api.example", http.NoBody))
		require.ErrorContains(t, err, "Origins is empty but not nil")
	}
}

// The program's own Authorization, however it is spelt, crosses no border, and is
// replaced where there is a token.
func TestR11_AuthorizationInAnySpelling(t *testing.T) {
	for _, name := range []string{"authorization", "AUTHORIZATION", "aUTHORIZATION", "Authorization"} {
		var seen []http.Header
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			seen = append(seen, req.Header.Clone())
			resp := &http.Response{StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"https://api.example:8443/"}}, Body: http.NoBody, Request: req}
			if len(seen) > 1 {
				resp.StatusCode = http.StatusOK
			}
			return resp, nil
		})
		ctx, _ := answering(t.Context(), `{"access_token":"t"}`)
		transport := (&Config{TokenURL: "https://auth.example/token"}).Transport(ctx)
		transport.Base = base
		req := httptest.NewRequest(http.MethodGet, "https://api.example/", http.NoBody)
		req.RequestURI = ""
		req.Header[name] = []string{"Basic own"}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, []string{"Basic own"}, req.Header[name], "the request itself isn't changed")
		require.Len(t, seen, 2)
		for i, want := range []int{1, 0} {
			got := 0
			for field, values := range seen[i] {
				if len(field) == len(name) && http.CanonicalHeaderKey(field) == "Authorization" {
					got++
					require.Equal(t, []string{"Bearer t"}, values)
				}
			}
			require.Equal(t, want, got, "%s at hop %d", name, i)
		}
	}
}

type idleCloser struct {
	http.RoundTripper
	closed int
}

func (i *idleCloser) CloseIdleConnections() { i.closed++ }

func TestF35_CloseIdleConnections(t *testing.T) {
	base := &idleCloser{}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: base})
	conf := &Config{TokenURL: "https://auth.example/token"}
	(&http.Client{Transport: conf.Transport(ctx)}).CloseIdleConnections()
	require.Equal(t, 1, base.closed)
	conf.Client(ctx).Transport.(*oauth2.Transport).Base.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	require.Equal(t, 2, base.closed)
	new(Transport).CloseIdleConnections() // Nothing to close.
}

// What upstream ignores is an error: the secret would go through another client than the
// program means.
func TestF33_ContextWithoutAClient(t *testing.T) {
	for name, value := range map[string]any{
		"a client by value": http.Client{}, "a RoundTripper": http.DefaultTransport, "a string": "client", "a nil client": (*http.Client)(nil),
	} {
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, value)
		conf := &Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token"}
		_, err := conf.Token(ctx)
		require.ErrorContains(t, err, "in the context under oauth2.HTTPClient is", name)
		_, err = conf.Client(ctx).Get("https://api.example")
		require.ErrorContains(t, err, "in the context under oauth2.HTTPClient is", name)
		_, err = Discover(ctx, "https://auth.example")
		require.ErrorContains(t, err, "in the context under oauth2.HTTPClient is", name)
	}
}

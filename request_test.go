package clientcredentials

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// The grammar of token responses is tested in internal/tokenresponse. The tests in this
// file show that Config.Token obeys it, and what a program gets.

func TestP1c_Floor(t *testing.T) {
	sent := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, expiresIn := range []int64{-math.MaxInt32, -3600, -1, 1, 2, 3, 10, 11, 100, 3600, math.MaxInt32} {
		for _, took := range []time.Duration{0, 300 * time.Millisecond, 9 * time.Second} {
			for _, refreshIn := range []int64{0, 1, 5, 1800, -7, math.MaxInt32} {
				for _, early := range []time.Duration{0, time.Nanosecond, time.Minute, forever} {
					for _, draw := range []float64{0, 0.5, math.Nextafter(1, 0)} {
						response := &tokenResponse{
							Response: &tokenresponse.Response{AccessToken: "a", ExpiresIn: expiresIn, RefreshIn: refreshIn},
							sent:     sent,
							floor:    took + minReuse,
						}
						c := newCachedToken(response, "", early, draw)
						about := fmt.Sprintf("expires_in %d, refresh_in %d, received after %v, EarlyRefresh %v, draw %v: %v %v %v",
							expiresIn, refreshIn, took, early, draw, c.soft, c.hard, c.dead)
						floor := took + time.Second
						require.GreaterOrEqual(t, c.soft, floor, about)
						require.GreaterOrEqual(t, c.hard, c.soft, about)
						require.GreaterOrEqual(t, c.dead, c.hard, about)
						life := time.Duration(expiresIn) * time.Second
						require.Equal(t, max(life, floor), c.dead, about)
						require.GreaterOrEqual(t, c.soft, life/2, about)

						// The token is used for at least a second after it was received.
						last := sent.Add(response.floor - 1)
						require.Equal(t, Fresh, c.state(last), about)
						require.False(t, c.awaited(last, 0), about)
						require.False(t, c.usable(sent.Add(c.dead)), about)
					}
				}
			}
		}
	}
}

func TestP3a_OtherLetterCase(t *testing.T) {
	a := reply{body: `{"Access_Token":"a","Token_Type":"Bearer","EXPIRES_IN":"60","Refresh_Token":"r"}`}
	token, err := tokenOf(t, a, false)
	require.NoError(t, err)
	require.EqualValues(t, 60, token.ExpiresIn)
	require.Equal(t, "r", token.RefreshToken)
	_, err = tokenOf(t, a, true)
	require.ErrorContains(t, err, "access_token is written in other letter case")
	_, err = tokenOf(t, reply{status: http.StatusBadRequest, body: `{"Error":"invalid_client","Error_Description":"d"}`}, false)
	require.EqualError(t, err, `oauth2: "invalid_client" "d"`)
}

func TestP3d_TokenType(t *testing.T) {
	_, err := tokenOf(t, reply{body: `{"access_token":"a","token_type":"N_A"}`}, true)
	require.ErrorContains(t, err, "token_type is not Bearer")
}

func TestP3c_NeverCached(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		bad := reply{body: `{"access_token":"a\r\nX-Injected: 1","expires_in":3600}`}
		endpoint := newTokenEndpoint(bad, bad, reply{body: `{"access_token":"good","expires_in":3600}`})
		source := endpoint.config().Source(t.Context())
		for range 2 {
			_, err := source.TokenContext(t.Context())
			require.ErrorContains(t, err, "access_token contains a control character")
			require.Equal(t, Failed, source.Status().State)
			time.Sleep(time.Minute)
		}
		token, err := source.TokenContext(t.Context())
		require.NoError(t, err)
		require.Equal(t, "good", token.AccessToken)
		require.Len(t, endpoint.received(), 3)
	})
}

// The client makes no assumptions about sizes (RFC 6749, Section 5.1), up to a limit.
func TestP3g_P4_LargestBody(t *testing.T) {
	token := strings.Repeat("x", maxResponseBody-len(`{"access_token":""}`))
	body := `{"access_token":"` + token + `"}`
	got, err := tokenOf(t, reply{body: body}, true)
	require.NoError(t, err)
	require.Equal(t, token, got.AccessToken)
	a := reply{body: body + "\n"}
	_, err = tokenOf(t, a, true)
	requireFault(t, err, a, "oauth2: cannot fetch token: the answer is larger than 1 MiB")
}

// An error quotes the media type and the address in Location, and they are limited too.
func TestP3g_LargeWords(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	_, err := tokenOf(t, reply{mediaType: "application/" + long, body: "?"}, false)
	require.IsType(t, (*ResponseError)(nil), err)
	require.Less(t, len(err.Error()), 4<<10, "media type")

	_, err = tokenOf(t, reply{status: 307, header: http.Header{"Location": {"https://" + long + ".example/"}}}, false)
	require.Less(t, len(err.Error()), 4<<10, "target of a redirect")
}

func TestP3h_Status(t *testing.T) {
	const ok = `{"access_token":"cAnAry-cAnAry","token_type":"Bearer","expires_in":60}`
	for _, status := range []int{200, 201, 203, 205, 299} {
		token, err := tokenOf(t, reply{status: status, body: ok}, true)
		require.NoError(t, err, status)
		require.Equal(t, "cAnAry-cAnAry", token.AccessToken)
	}
	a := reply{status: http.StatusPartialContent, body: ok}
	_, err := tokenOf(t, a, false)
	requireFault(t, err, a, "oauth2: cannot fetch token: the answer is a part of something larger")
	for _, status := range []int{300, 304, 307, 400, 503, 599} {
		_, err := tokenOf(t, reply{status: status, body: ok}, false)
		require.IsType(t, (*oauth2.RetrieveError)(nil), err, status)
		require.NotContains(t, err.Error(), "cAnAry")
	}
	for _, a := range []reply{
		{body: `{"error":"invalid_client","error_description":"d","error_uri":"u","access_token":"cAnAry-cAnAry"}`},
		{status: http.StatusPartialContent, body: `{"error":"invalid_client","error_description":"d","error_uri":"u"}`},
		{mediaType: "text/plain", body: `access_token=cAnAry-cAnAry&error=invalid_client&error_description=d&error_uri=u`},
	} {
		refusal := refusalFor(t, a)
		require.EqualError(t, refusal, `oauth2: "invalid_client" "d" "u"`)
		require.Equal(t, strings.ReplaceAll(a.body, "cAnAry-cAnAry", "[redacted]"), string(refusal.Body))
	}
}

func TestP5_GzipBomb(t *testing.T) {
	// Each member has 16 MiB in 16 KiB: 1024 members make 16 GiB.
	member := gzipped(strings.Repeat(" ", 16<<20))
	const members = 1024

	done := make(chan int, 1)
	conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", jsonType)
		w.Header().Set("Content-Encoding", "gzip")
		sent := 0
		for sent < members {
			if _, err := io.WriteString(w, member); err != nil {
				break
			}
			sent++
		}
		done <- sent
	})

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := conf.Token(t.Context())
	runtime.ReadMemStats(&after)
	require.EqualError(t, err, "oauth2: cannot parse json: unexpected end of JSON input: the answer is larger than 1 MiB (status 200, application/json, 1048577 bytes)")
	var fault *ResponseError
	require.ErrorAs(t, err, &fault)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32<<20), "bytes allocated by client and server")
	conf.HTTPClient.CloseIdleConnections()
	require.Less(t, <-done, members, "the server could send everything")
}

func TestP5_LargeHeaders(t *testing.T) {
	conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		line := strings.Repeat("cAnAry", 1<<20/6)
		for i := range 12 {
			w.Header().Set(fmt.Sprintf("X-Large-%d", i), line)
		}
		_, _ = io.WriteString(w, `{"access_token":"a"}`)
	})
	_, err := conf.Token(t.Context())
	require.ErrorContains(t, err, "server response headers exceeded")
	require.NotContains(t, err.Error(), "cAnAry")
	require.Less(t, len(err.Error()), 1<<10)
}

func TestP6_FormWithoutFraming(t *testing.T) {
	const (
		form   = "token_type=Bearer&access_token=cAnA" // The token was cAnAry.
		object = `{"access_token":"cAnA"}`
		typed  = "Content-Type: application/x-www-form-urlencoded\r\n"
	)
	const cut = "oauth2: cannot fetch token: a form-encoded answer without Content-Length may have been cut (status 200, "
	for _, test := range []struct {
		name, answer string
		wantStrict   string // error; empty: none
	}{
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n" + typed + "\r\n" + form, cut + "application/x-www-form-urlencoded, 35 bytes)"},
		{"HTTP/1.1", "HTTP/1.1 200 OK\r\nConnection: close\r\n" + typed + "\r\n" + form, cut + "application/x-www-form-urlencoded, 35 bytes)"},
		{"text", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + form, cut + "text/plain, 35 bytes)"},
		{"Content-Length", "HTTP/1.0 200 OK\r\nContent-Length: 35\r\n" + typed + "\r\n" + form, ""},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + typed + "\r\n23\r\n" + form + "\r\n0\r\n\r\n", ""},
		{"gzip", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\n" + typed + "\r\n" + gzipped(form), ""},
		{"JSON", "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + object, ""},
		{"JSON as text", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + object, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				conf := serveRaw(t, test.answer)
				conf.Strict = strict
				token, err := conf.Token(t.Context())
				if strict && test.wantStrict != "" {
					require.EqualError(t, err, test.wantStrict)
					require.IsType(t, (*ResponseError)(nil), err)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "cAnA", token.AccessToken)
			})
		})
	}
}

func TestP6_FormOverHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", formType)
		_, _ = io.WriteString(w, "access_token=a")
		_ = http.NewResponseController(w).Flush() // Without it there would be a Content-Length.
		_, _ = io.WriteString(w, "&x="+req.Proto)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	conf := &Config{ClientID: memoryID, TokenURL: server.URL, HTTPClient: server.Client(), Strict: true}
	token, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, "HTTP/2.0", token.Extra("x"))
}

// What can't be the address of a token endpoint is an error at once. It is a *url.Error where
// upstream has one, and doesn't quote the address, which may be a misplaced secret.
func TestL3_P12_P14_TokenURL(t *testing.T) {
	const absolute = "TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host"
	for want, addresses := range map[string][]string{
		`Post "": unsupported protocol scheme "": TokenURL is empty; set it to the address of the token endpoint`: {""},
		`Post "": unsupported protocol scheme "": ` + absolute:                                                    {"auth.example/cAnAry", "/cAnAry", "//auth.example/cAnAry", "?a=cAnAry"},
		`Post "": http: no Host in request URL: ` + absolute:                                                      {"https:cAnAry", "https:///cAnAry", "http:///"},
		`parse "": oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint`:       {"https://auth.example:cAnAry/", "https://u:cAnAry%zz@auth.example/", "://cAnAry"},
		`parse "": oauth2: TokenURL contains a space (U+0020); remove it where TokenURL is read`:                  {" https://auth.example/cAnAry", "https://auth example/cAnAry"},
		`parse "": oauth2: TokenURL contains a line break (U+000A); remove it where TokenURL is read`:             {"https://auth.example/cAnAry\n", "\nhttps://auth.example/cAnAry"},
		`parse "": oauth2: TokenURL contains a byte order mark (U+FEFF); remove it where TokenURL is read`:        {"\ufeffhttps://auth.example/cAnAry"},
		`parse "": oauth2: TokenURL contains a no-break space (U+00A0); remove it where TokenURL is read`:         {"\u00a0https://auth.example/cAnAry"},
		`parse "": oauth2: TokenURL is in quotation marks; remove them where TokenURL is read`:                    {`"https://auth.example/cAnAry"`, "'https://auth.example/cAnAry'"},
		"oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret":                        {"https://id:cAnAry@auth.example/", "https://cAnAry@auth.example/", "https://@auth.example/cAnAry"},
		"oauth2: TokenURL contains client_secret in its query; use ClientSecret or EndpointParams":                {"https://auth.example/?client_secret=cAnAry"},
	} {
		for _, address := range addresses {
			_, err := (&Config{TokenURL: address}).Token(t.Context())
			require.EqualError(t, err, want, address)
			require.False(t, IsTemporary(err), address)
			_, isURLError := err.(*url.Error)
			require.Equal(t, !strings.HasPrefix(want, "oauth2"), isURLError, address)
		}
	}
	// A RoundTripper around net/http's lets it pass, and the error is the same.
	wrapped := &http.Client{Transport: wrapper{http.DefaultTransport}}
	_, err := (&Config{TokenURL: "cAnAry/x", HTTPClient: wrapped}).Token(t.Context())
	require.EqualError(t, err, `Post "": unsupported protocol scheme "": `+absolute)
	// A RoundTripper of the program may know what to do with any address.
	for _, address := range []string{"", "/token", "auth.example/token", "https:///token", "unix:/run/auth.sock", "https://auth.example/token#f", "HTTPS://AUTH.EXAMPLE/a%20b?a=%23"} {
		conf := newTokenEndpoint(goodReply).config()
		conf.TokenURL = address
		_, err := conf.Token(t.Context())
		require.NoError(t, err, address)
	}
}

// What upstream sends is sent. If the server refuses it, the error says what is hardly meant.
func TestP14_OddValues(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"TokenURL contains a space (U+0020)":              func(c *Config) { c.TokenURL += " " },
		"TokenURL contains a zero width space (U+200B)":   func(c *Config) { c.TokenURL += "\u200b" },
		"ClientID contains a line break (U+000A)":         func(c *Config) { c.ClientID = "cAnAry\n" },
		"ClientID contains a control character (U+0085)":  func(c *Config) { c.ClientID = "cAn\u0085Ary" },
		"ClientID contains a space (U+0020)":              func(c *Config) { c.ClientID = " cAnAry" },
		"ClientSecret contains a line break (U+000D)":     func(c *Config) { c.ClientSecret = "cAnAry\r\n" },
		"ClientSecret is in quotation marks; remove them": func(c *Config) { c.ClientSecret = `"cAnAry"` },
	} {
		endpoint := newTokenEndpoint(oauthError(401, "invalid_client"))
		conf := endpoint.config()
		conf.AuthStyle = oauth2.AuthStyleInHeader
		change(conf)
		_, err := conf.Token(t.Context())
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
		require.True(t, strings.HasPrefix(err.Error(), refusal.Error()+"\n"+want), "%v", err)
		require.NotContains(t, err.Error(), "cAnAry")
		require.Len(t, endpoint.received(), 1)
		conf.Strict = true
		_, err = conf.Token(t.Context())
		require.ErrorContains(t, err, "oauth2: "+want)
		require.Len(t, endpoint.received(), 1)
	}
	conf := newTokenEndpoint(oauthError(401, "invalid_client")).config()
	conf.AuthStyle, conf.ClientID, conf.ClientSecret = oauth2.AuthStyleInHeader, "a b", "a b'"
	_, err := conf.Token(t.Context())
	require.IsType(t, new(oauth2.RetrieveError), err)
}

// TestBadConfig: whichever call first needs a token reports what is wrong with the Config,
// before anything is sent.
func TestBadConfig(t *testing.T) {
	const negative = "oauth2: a field of Retry is negative; use zero for the default"
	rows := map[string]struct {
		change func(conf *Config)
		want   string
	}{
		"Strict and a fragment":     {func(c *Config) { c.TokenURL, c.Strict = "https://auth.example/#cAnAry", true }, "oauth2: TokenURL contains a fragment, which a token endpoint cannot have; remove the # and what follows"},
		"AuthScheme":                {func(c *Config) { c.AuthScheme = "cAnAry x" }, "oauth2: AuthScheme is not the name of an authentication scheme; use a single word such as Bearer"},
		"AuthScheme and DPoP":       {func(c *Config) { c.AuthScheme, c.DPoP = "x", testkit.NewKey("ES256") }, "oauth2: AuthScheme and DPoP are set; remove AuthScheme: RFC 9449 has its own scheme"},
		"scope twice":               {func(c *Config) { c.Scopes, c.EndpointParams = []string{"cAnAry"}, url.Values{"scope": {"cAnAry"}} }, `oauth2: cannot overwrite parameter "scope"`},
		"negative EarlyRefresh":     {func(c *Config) { c.EarlyRefresh = -1 }, "oauth2: EarlyRefresh is negative; use zero for the default"},
		"Strict and cleartext":      {func(c *Config) { c.TokenURL, c.Strict = "http://auth.example/cAnAry", true }, "oauth2: TokenURL is http, which Strict refuses; use https"},
		"negative MaxAttempts":      {func(c *Config) { c.Retry.MaxAttempts = -1 }, negative},
		"negative AttemptTimeout":   {func(c *Config) { c.Retry.AttemptTimeout = -1 }, negative},
		"negative TotalTimeout":     {func(c *Config) { c.Retry.TotalTimeout = -1 }, negative},
		"TokenURL":                  {func(c *Config) { c.TokenURL = "https://u:cAnAry@auth.example/" }, "oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret"},
		"Strict and no credentials": {func(c *Config) { c.ClientID, c.ClientSecret, c.Strict = "", "", true }, "oauth2: ClientID and ClientSecret are empty; set them"},
	}
	get := func(client *http.Client) error {
		resp, err := client.Get("https://api.example/")
		if err == nil {
			resp.Body.Close()
		}
		var wrapped *url.Error
		require.ErrorAs(t, err, &wrapped)
		return wrapped.Err
	}
	calls := map[string]func(c *Config, ctx context.Context) error{
		"Token": func(c *Config, ctx context.Context) error { _, err := c.Token(ctx); return err },
		"Source": func(c *Config, ctx context.Context) error {
			_, err := c.Source(ctx).TokenContext(t.Context())
			return err
		},
		"Client":    func(c *Config, ctx context.Context) error { return get(c.Client(ctx)) },
		"Transport": func(c *Config, ctx context.Context) error { return get(&http.Client{Transport: c.Transport(ctx)}) },
	}
	for call, do := range calls {
		t.Run(call, func(t *testing.T) {
			endpoint := newTokenEndpoint(goodReply)
			for name, row := range rows {
				conf := endpoint.config()
				row.change(conf)
				err := do(conf, context.WithValue(t.Context(), oauth2.HTTPClient, conf.HTTPClient))
				require.EqualError(t, err, row.want, name)
				require.NotContains(t, err.Error(), "cAnAry", name)
			}
			var none context.Context
			require.EqualError(t, do(endpoint.config(), none), "oauth2: the context is nil; pass context.Background() if there is no other")
			require.Empty(t, endpoint.received(), "nothing is sent")

			conf := endpoint.config()
			conf.HTTPClient = nil
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, (*http.Client)(nil))
			require.EqualError(t, do(conf, ctx), "oauth2: the *http.Client in the context under oauth2.HTTPClient is nil")
		})
	}
}

func TestF16_CleartextTokenURL(t *testing.T) {
	for address, strictly := range map[string]bool{
		"https://auth.example/token":   true,
		"http://auth.example/token":    false,
		"HTTP://auth.example/token":    false,
		"http://localhost.example/":    false,
		"http://127.0.0.1.example/":    false,
		"http://127.9.9.9/token":       true,
		"http://[::1]:8080/token":      true,
		"http://LocalHost:8080/token":  true,
		"http://[::ffff:7f00:1]/token": true,
	} {
		endpoint := newTokenEndpoint(goodReply)
		conf := endpoint.config()
		conf.TokenURL, conf.Strict = address, true
		_, err := conf.Token(t.Context())
		require.Equal(t, strictly, err == nil, address)
		require.Equal(t, strictly, len(endpoint.received()) == 1, address)
	}
}

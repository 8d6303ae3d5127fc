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
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// The grammar of token responses is tested in internal/tokenresponse. The tests in this
// file show that Config.Token obeys it, and what a program gets.

func TestP1_P1b_P1d_P2_Expiry(t *testing.T) {
	for body, want := range map[string]int64{
		`{"access_token":"a","expires_in":3600.5}`:   3600,
		`{"access_token":"a","expires_in":"3600"}`:   3600,
		`{"access_token":"a","expires_in":1e-400}`:   1,
		`{"access_token":"a","expires_in":-1}`:       -1,
		`{"access_token":"a","expires_in":"1e999"}`:  math.MaxInt32,
		`{"access_token":"a","expires_in":"-1e999"}`: -math.MaxInt32,
		`{"access_token":"a","expires_in":0}`:        0,
		`{"access_token":"a","expires_in":""}`:       0,
		`{"access_token":"a","expires_in":null}`:     0,
		`{"access_token":"a"}`:                       0,
		`access_token=a&expires_in=60.5`:             60,
		`access_token=a`:                             0,
	} {
		modes(t, func(t *testing.T, strict bool) {
			synctest.Test(t, func(t *testing.T) {
				token, err := tokenOf(t, reply{mediaType: "text/plain", body: body}, strict)
				require.NoError(t, err)
				require.Equal(t, want, token.ExpiresIn, body)
				if want == 0 {
					require.Zero(t, token.Expiry, body)
					require.True(t, token.Valid(), body)
					return
				}
				require.Equal(t, time.Duration(want)*time.Second, time.Until(token.Expiry), body)
			})
		})
	}
}

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
						c := newCachedToken(response, early, draw)
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

// A responseTest is an answer and what becomes of it: the token in it, or, if it begins
// with "oauth2: ", the text of a ResponseError.
type responseTest struct {
	reply      reply
	want       string // by default
	wantStrict string // with Config.Strict; empty: the same
}

func testResponses(t *testing.T, tests []responseTest) {
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.50s", test.reply.body), func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				want := test.want
				if strict && test.wantStrict != "" {
					want = test.wantStrict
				}
				token, err := tokenOf(t, test.reply, strict)
				if strings.HasPrefix(want, "oauth2: ") {
					requireFault(t, err, test.reply, want)
					return
				}
				require.NoError(t, err)
				require.Equal(t, want, token.AccessToken)
			})
		})
	}
}

// Duplicate, misspelt and malformed members.
func TestP3a_ExactNames(t *testing.T) {
	const missing = "oauth2: server response missing access_token"
	testResponses(t, []responseTest{
		{reply{body: `{"access_token":"a","scope":"1","scope":"2"}`}, "a", ""},
		{reply{body: `{"access_token":"a","access_token":"b"}`}, "oauth2: cannot parse json: access_token appears more than once", ""},
		{reply{body: `{"acceſſ_token":"b"}`}, missing, ""},
		{reply{body: `{"access_token":"a","acceſſ_token":"b"}`}, "a", ""},
		{reply{body: `{"Access_Token":"a"}`}, "a", "oauth2: cannot parse json: access_token is written in other letter case"},
		{reply{body: `{"access_token":["a"]}`}, "oauth2: cannot parse json: access_token is not a string", ""},
		{reply{body: `null`}, missing, ""},
		{reply{mediaType: formType, body: "access_token=a&expires_in=1&expires_in=1"}, "oauth2: cannot parse response: expires_in appears more than once", ""},
		{reply{mediaType: formType, body: "Access_Token=a"}, missing, ""},
		{reply{mediaType: formType}, missing, ""},
	})
}

func TestP3a_OtherLetterCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, err := tokenOf(t, reply{body: `{"Access_Token":"a","Token_Type":"Bearer","EXPIRES_IN":"60","Refresh_Token":"r"}`}, false)
		require.NoError(t, err)
		require.Equal(t, "a", token.AccessToken)
		require.Equal(t, "Bearer", token.TokenType)
		require.Equal(t, "r", token.RefreshToken)
		require.Equal(t, time.Minute, time.Until(token.Expiry))
	})
	_, err := tokenOf(t, reply{status: http.StatusBadRequest, body: `{"Error":"invalid_client","Error_Description":"d"}`}, false)
	require.EqualError(t, err, `oauth2: "invalid_client" "d"`)
}

func TestP3c_NeverCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := reply{body: `{"access_token":"a\r\nX-Injected: 1","expires_in":3600}`}
		endpoint := newTokenEndpoint(bad, bad, reply{body: `{"access_token":"good","expires_in":3600}`})
		source := endpoint.config().Source(t.Context())
		for range 2 {
			_, err := source.TokenContext(t.Context())
			require.ErrorContains(t, err, "access_token contains a character")
			require.Equal(t, Failed, source.Status().State)
			time.Sleep(time.Minute)
		}
		token, err := source.TokenContext(t.Context())
		require.NoError(t, err)
		require.Equal(t, "good", token.AccessToken)
		require.Len(t, endpoint.received(), 3)
	})
}

func TestP3d_TokenType(t *testing.T) {
	const notBearer, bad = "oauth2: cannot parse json: token_type is not Bearer", "oauth2: cannot parse json: token_type is not an authentication scheme's name"
	testResponses(t, []responseTest{
		{reply{body: `{"access_token":"a"}`}, "a", ""},
		{reply{body: `{"access_token":"a","token_type":"bearer"}`}, "a", ""},
		{reply{body: `{"access_token":"a","token_type":"N_A"}`}, "a", notBearer},
		{reply{body: `{"access_token":"a","token_type":"Bearer "}`}, bad, ""},
	})
	token, err := tokenOf(t, reply{body: `{"access_token":"a","token_type":"N_A"}`}, false)
	require.NoError(t, err)
	require.Equal(t, "N_A", token.TokenType)
}

func TestP3f_MediaType(t *testing.T) {
	const object, form = `{"access_token":"a","x":["y"]}`, "access_token=a&x=y"
	for _, a := range []reply{
		{mediaType: "none", body: object},
		{mediaType: "application/json; charset=utf-8", body: object},
		{mediaType: "text/plain; charset=utf-8", body: "\xef\xbb\xbf" + object},
		{mediaType: formType + "; charset=utf-8", body: form},
		{mediaType: "text/plain", body: form},
	} {
		modes(t, func(t *testing.T, strict bool) {
			token, err := tokenOf(t, a, strict)
			require.NoError(t, err)
			require.Equal(t, "a", token.AccessToken)
			want := any([]any{"y"})
			if a.body == form {
				want = "y"
			}
			require.Equal(t, want, token.Extra("x"), a.mediaType)
		})
	}
}

func TestP3g_NotATokenResponse(t *testing.T) {
	for _, test := range []struct {
		mediaType string
		status    int
		body      string
		size      int
		want      string
	}{
		{"text/html", 200, "<!DOCTYPE html><p>cAnAry", 24, "oauth2: cannot parse json: the body looks like HTML or XML; check that TokenURL is the token endpoint (status 200, text/html, 24 bytes)"},
		{"", 204, "", 0, "oauth2: cannot parse json: the body is empty (status 204, no media type, 0 bytes)"},
		{"text/plain", 200, "cAnAry", 6, "oauth2: server response missing access_token (status 200, text/plain, 6 bytes)"},
		{jsonType, 200, `{"access_token":"cAnAry"}` + strings.Repeat(" ", maxResponseBody), maxResponseBody + 1, "oauth2: cannot fetch token: the answer is larger than 1 MiB (status 200, application/json, 1048577 bytes)"},
		{formType, 201, `access_token=cAnAry&` + strings.Repeat("x", 3<<20), maxResponseBody + 1, "oauth2: cannot fetch token: the answer is larger than 1 MiB (status 201, application/x-www-form-urlencoded, 1048577 bytes)"},
	} {
		modes(t, func(t *testing.T, strict bool) {
			conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				if test.mediaType != "" {
					w.Header().Set("Content-Type", test.mediaType+"; charset=utf-8")
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			conf.Strict = strict
			_, err := conf.Token(t.Context())
			require.EqualError(t, err, test.want)
			fault, ok := err.(*ResponseError)
			require.True(t, ok, "%T", err)
			require.Equal(t, test.status, fault.StatusCode)
			require.Equal(t, test.size, fault.Size)
			require.Equal(t, test.mediaType, fault.MediaType)
		})
	}
}

func TestP3g_LargestBody(t *testing.T) {
	const head, tail = `{"access_token":"a","x":"`, `"}`
	body := head + strings.Repeat("x", maxResponseBody-len(head)-len(tail)) + tail
	testResponses(t, []responseTest{
		{reply{body: body}, "a", ""},
		{reply{body: body + "\n"}, "oauth2: cannot fetch token: the answer is larger than 1 MiB", ""},
	})
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
	modes(t, func(t *testing.T, strict bool) {
		for _, status := range []int{200, 201, 202, 203, 205, 207, 299} {
			token, err := tokenOf(t, reply{status: status, body: ok}, strict)
			require.NoError(t, err, status)
			require.Equal(t, "cAnAry-cAnAry", token.AccessToken)
		}

		a := reply{status: http.StatusPartialContent, body: ok}
		_, err := tokenOf(t, a, strict)
		requireFault(t, err, a, "oauth2: cannot fetch token: the answer is a part of something larger")

		for _, status := range []int{300, 304, 400, 401, 404, 500, 503, 599} {
			_, err := tokenOf(t, reply{status: status, body: ok}, strict)
			require.IsType(t, (*oauth2.RetrieveError)(nil), err, status)
			require.NotContains(t, err.Error(), "cAnAry")
		}

		for _, a := range []reply{
			{body: `{"error":"invalid_client","error_description":"d","error_uri":"u"}`},
			{body: `{"error":"invalid_client","error_description":"d","error_uri":"u","access_token":"cAnAry-cAnAry"}`},
			{status: http.StatusPartialContent, body: `{"error":"invalid_client","error_description":"d","error_uri":"u"}`},
			{mediaType: formType, body: `error=invalid_client&error_description=d&error_uri=u`},
			{mediaType: "text/plain", body: `access_token=cAnAry-cAnAry&error=invalid_client&error_description=d&error_uri=u`},
		} {
			refusal := refusalFor(t, a, func(conf *Config) { conf.Strict = strict })
			require.EqualError(t, refusal, `oauth2: "invalid_client" "d" "u"`)
			require.Equal(t, []string{"invalid_client", "d", "u"}, []string{refusal.ErrorCode, refusal.ErrorDescription, refusal.ErrorURI})
			require.Equal(t, strings.ReplaceAll(a.body, "cAnAry-cAnAry", "[redacted]"), string(refusal.Body))
		}
	})
}

// The same over a connection: net/http treats some statuses in a special way.
func TestP3h_StatusOnTheWire(t *testing.T) {
	const body = `{"access_token":"cAnAry","expires_in":60}`
	for status, want := range map[int]string{
		200: "", 201: "", 202: "", 203: "",
		206: "oauth2: cannot fetch token: the answer is a part of something larger (status 206, application/json, 41 bytes)",
		304: "oauth2: cannot fetch token: 304 Not Modified\nResponse: ",
		503: "oauth2: cannot fetch token: 503 Service Unavailable\nResponse: " + `{"access_token":"[redacted]","expires_in":60}`,
	} {
		conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", jsonType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		token, err := conf.Token(t.Context())
		if want == "" {
			require.NoError(t, err)
			require.Equal(t, "cAnAry", token.AccessToken)
			continue
		}
		require.EqualError(t, err, want)
	}
}

// RFC 6749, Section 5.1: the client makes no assumptions about sizes.
func TestP4_LargeToken(t *testing.T) {
	large := strings.Repeat("0123456789", 90_000)
	testResponses(t, []responseTest{
		{reply{body: `{"access_token":"` + large + `"}`}, large, ""},
		{reply{mediaType: formType, body: `access_token=` + large}, large, ""},
	})
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
	require.EqualError(t, err, "oauth2: cannot fetch token: the answer is larger than 1 MiB (status 200, application/json, 1048577 bytes)")
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
	const cut = "oauth2: cannot parse response: a form-encoded answer without Content-Length may have been cut (status 200, "
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

func TestParseTokenURL(t *testing.T) {
	for _, address := range []string{
		"https://auth.example/token", "https://auth.example", "http://127.0.0.1:8080/token?tenant=1",
		"https://[::1]:8443/oauth2/token", "HTTPS://AUTH.EXAMPLE/token?a=%23", "https://auth.example/a%20b",
	} {
		u, err := parseTokenURL(address)
		require.NoError(t, err, address)
		require.NotNil(t, u, address)
	}
	for address, want := range badTokenURLs {
		_, err := parseTokenURL(address)
		require.EqualError(t, err, want, address)
	}
}

const (
	cannotParse = "oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint"
	notAbsolute = "oauth2: TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host"
	hasUser     = "oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret"
	hasFragment = "oauth2: TokenURL contains a fragment, which a token endpoint cannot have; remove the # and what follows"
)

// badTokenURLs has values of TokenURL, and the errors for them.
var badTokenURLs = map[string]string{
	"":                                  "oauth2: TokenURL is empty; set it to the address of the token endpoint",
	"https://auth.example/cAnAry\n":     cannotParse,
	" https://auth.example/cAnAry":      cannotParse,
	"https://auth.example:cAnAry/":      cannotParse,
	"https://u:cAnAry%zz@auth.example/": cannotParse,
	"https://[::1/cAnAry":               cannotParse,
	"auth.example/cAnAry":               notAbsolute,
	"/cAnAry":                           notAbsolute,
	"//auth.example/cAnAry":             notAbsolute,
	"https:cAnAry":                      notAbsolute,
	"https:///cAnAry":                   notAbsolute,
	"https://id:cAnAry@auth.example/":   hasUser,
	"https://cAnAry@auth.example/":      hasUser,
	"https://@auth.example/cAnAry":      hasUser,
	"https://auth.example/#cAnAry":      hasFragment,
	"https://auth.example/cAnAry#":      hasFragment,
	"https://auth.example/?x=cAnAry#f":  hasFragment,
}

// TestBadConfig: whichever call first needs a token reports what is wrong with the Config,
// before anything is sent.
func TestBadConfig(t *testing.T) {
	const (
		controlCharacter = "oauth2: ClientID contains a control character; remove line breaks and the like from where it is read"
		negative         = "oauth2: a field of Retry is negative; use zero for the default"
	)
	type row struct {
		change func(conf *Config)
		want   string
	}
	rows := map[string]row{
		"line break in ClientID":    {func(c *Config) { c.ClientID = "cAnAry\n" }, controlCharacter},
		"NUL in ClientID":           {func(c *Config) { c.ClientID = "cAn\x00Ary" }, controlCharacter},
		"C1 in ClientID":            {func(c *Config) { c.ClientID = "cAn\u0085Ary" }, controlCharacter},
		"scope twice":               {func(c *Config) { c.Scopes, c.EndpointParams = []string{"cAnAry"}, url.Values{"scope": {"cAnAry"}} }, `oauth2: cannot overwrite parameter "scope"`},
		"negative EarlyRefresh":     {func(c *Config) { c.EarlyRefresh = -1 }, "oauth2: EarlyRefresh is negative; use zero for the default"},
		"Strict and cleartext":      {func(c *Config) { c.TokenURL, c.Strict = "http://auth.example/cAnAry", true }, "oauth2: TokenURL is http, which Strict refuses; use https"},
		"negative MaxAttempts":      {func(c *Config) { c.Retry.MaxAttempts = -1 }, negative},
		"negative AttemptTimeout":   {func(c *Config) { c.Retry.AttemptTimeout = -1 }, negative},
		"negative TotalTimeout":     {func(c *Config) { c.Retry.TotalTimeout = -1 }, negative},
		"Strict and no credentials": {func(c *Config) { c.ClientID, c.ClientSecret, c.Strict = "", "", true }, "oauth2: ClientID and ClientSecret are empty; set them"},
	}
	for address, want := range badTokenURLs {
		rows[fmt.Sprintf("TokenURL %q", address)] = row{func(c *Config) { c.TokenURL = address }, want}
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
		"Token":       func(c *Config, ctx context.Context) error { _, err := c.Token(ctx); return err },
		"TokenSource": func(c *Config, ctx context.Context) error { _, err := c.TokenSource(ctx).Token(); return err },
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
		"http://192.0.2.1/token":       false,
		"http://localhost.example/":    false,
		"http://127.0.0.1.example/":    false,
		"http://127.0.0.1:8080/token":  true,
		"http://127.9.9.9/token":       true,
		"http://[::1]:8080/token":      true,
		"http://localhost/token":       true,
		"http://LocalHost:8080/token":  true,
		"http://[::ffff:7f00:1]/token": true,
	} {
		modes(t, func(t *testing.T, strict bool) {
			endpoint := newTokenEndpoint(goodReply)
			conf := endpoint.config()
			conf.TokenURL, conf.Strict = address, strict
			_, err := conf.Token(t.Context())
			if strict && !strictly {
				require.EqualError(t, err, "oauth2: TokenURL is http, which Strict refuses; use https")
				require.Empty(t, endpoint.received())
				return
			}
			require.NoError(t, err, address)
		})
	}
}

// RFC 6749, Sections 3.2 and 4.4.2.
func TestTokenRequest(t *testing.T) {
	endpoint := newTokenEndpoint(goodReply)
	conf := endpoint.config()
	conf.Scopes = []string{"read", "write"}
	conf.EndpointParams = url.Values{"resource": {"https://a.example", "https://b.example"}, "audience": {"x y"}}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)

	conf.Scopes = nil
	conf.EndpointParams = url.Values{"grant_type": {"refresh_token"}, "scope": {"own"}, "refresh_token": {"kept"}}
	token, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, "kept", token.RefreshToken)

	received := endpoint.received()
	require.Len(t, received, 2)
	require.Equal(t, url.Values{
		"grant_type": {"client_credentials"},
		"scope":      {"read write"},
		"resource":   {"https://a.example", "https://b.example"},
		"audience":   {"x y"},
	}, received[0].form)
	require.Equal(t, formType, received[0].header.Get("Content-Type"))
	require.Equal(t, url.Values{"grant_type": {"refresh_token"}, "scope": {"own"}, "refresh_token": {"kept"}}, received[1].form)
}

// The credentials of one attempt are neither in the next attempt nor in the Config.
func TestTokenRequestIsACopy(t *testing.T) {
	endpoint := newTokenEndpoint(goodReply)
	conf := endpoint.config()
	conf.EndpointParams = url.Values{"resource": {"https://a.example"}}
	request, err := newTokenRequest(t.Context(), conf, nil)
	require.NoError(t, err)
	conf.EndpointParams["resource"][0] = "https://b.example"
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
		_, err = request.send(t.Context(), style)
		require.NoError(t, err)
	}
	require.Equal(t, url.Values{"resource": {"https://b.example"}}, conf.EndpointParams)
	received := endpoint.received()
	require.Equal(t, []string{"params", "header"}, authMethods(t, received))
	require.Equal(t, "https://a.example", received[1].form.Get("resource"))
}

package clientcredentials

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// rememberedStyle returns the style that conf has found out, or AutoDetect.
func rememberedStyle(conf *Config) oauth2.AuthStyle {
	style, ok := conf.authStyles().get(conf.TokenURL, conf.ClientID)
	if !ok {
		return oauth2.AuthStyleAutoDetect
	}
	return style
}

func oauthError(status int, code string) reply {
	return reply{status: status, body: `{"error":"` + code + `"}`}
}

func TestF8_Probe(t *testing.T) {
	location := http.Header{"Location": {"https://auth.example/elsewhere"}}
	type row struct {
		first reply
		probe bool
	}
	rows := map[string]row{
		// Rejections.
		"200 invalid_client":                 {oauthError(200, "invalid_client"), true},
		"201 invalid_client":                 {oauthError(201, "invalid_client"), true},
		"400 invalid_client":                 {oauthError(400, "invalid_client"), true},
		"400 invalid_request":                {oauthError(400, "invalid_request"), true},
		"400 unauthorized_client":            {oauthError(400, "unauthorized_client"), true},
		"400 invalid_grant":                  {oauthError(400, "invalid_grant"), true},
		"400 without a code":                 {reply{status: 400, mediaType: "text/html", body: "<p>"}, true},
		"400 without a body":                 {reply{status: 400}, true},
		"400 form":                           {reply{status: 400, mediaType: formType, body: "error=invalid_client"}, true},
		"401 invalid_client":                 {oauthError(401, "invalid_client"), true},
		"401 without a code":                 {reply{status: 401, mediaType: "text/plain", body: "no"}, true},
		"403":                                {reply{status: 403}, true},
		"404":                                {reply{status: 404}, true},
		"422":                                {reply{status: 422}, true},
		"500":                                {reply{status: 500, mediaType: "text/html", body: "<p>"}, true},
		"500 server_error":                   {oauthError(500, "server_error"), true},
		"401 with a large page":              {reply{status: 401, mediaType: "text/html", body: strings.Repeat("x", 2<<20)}, true},
		"200 invalid_scope":                  {oauthError(200, "invalid_scope"), false},
		"400 invalid_scope":                  {oauthError(400, "invalid_scope"), false},
		"400 invalid_scope in a form":        {reply{status: 400, mediaType: formType, body: "error=invalid_scope"}, false},
		"401 unsupported_grant_type":         {oauthError(401, "unsupported_grant_type"), false},
		"400 unsupported_grant_type":         {oauthError(400, "unsupported_grant_type"), false},
		"500 unsupported_grant_type, folded": {reply{status: 500, body: `{"Error":"unsupported_grant_type"}`}, false},

		// Answers that say nothing of the credentials.
		"200 HTML":       {reply{mediaType: "text/html", body: "<p>"}, false},
		"200 no token":   {reply{body: `{}`}, false},
		"200 empty":      {reply{}, false},
		"200 bad token":  {reply{body: `{"access_token":"a b"}`}, false},
		"204":            {reply{status: 204}, false},
		"206":            {reply{status: 206, body: goodReply.body}, false},
		"200 too large":  {reply{body: strings.Repeat(" ", 2<<20)}, false},
		"300":            {reply{status: 300}, false},
		"302":            {reply{status: 302, header: location}, false},
		"304":            {reply{status: 304}, false},
		"307":            {reply{status: 307, header: location}, false},
		"400 body cut":   {reply{status: 400, bodyErr: io.ErrUnexpectedEOF}, false},
		"401 body reset": {reply{status: 401, bodyErr: syscall.ECONNRESET}, false},

		// No answer.
		"reset":            {reply{err: syscall.ECONNRESET}, false},
		"refused":          {reply{err: syscall.ECONNREFUSED}, false},
		"EOF":              {reply{err: io.EOF}, false},
		"context canceled": {reply{err: context.Canceled}, false},
		"deadline":         {reply{err: context.DeadlineExceeded}, false},
		"certificate":      {reply{err: x509.UnknownAuthorityError{}}, false},
		"anything else":    {reply{err: errors.New("boom")}, false},
	}
	for _, status := range []int{402, 405, 406, 407, 408, 409, 410, 411, 413, 415, 418, 421, 423, 425, 428, 429, 431, 451, 501, 502, 503, 504, 505, 507, 508, 511, 520, 529, 599} {
		rows[fmt.Sprint(status)] = row{reply{status: status}, false}
		rows[fmt.Sprint(status, " invalid_client")] = row{oauthError(status, "invalid_client"), false}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			endpoint := newTokenEndpoint(row.first, goodReply)
			conf := endpoint.config()
			conf.AuthStyle = oauth2.AuthStyleAutoDetect
			require.Equal(t, oauth2.AuthStyleAutoDetect, rememberedStyle(conf))
			token, err := conf.Token(t.Context())
			if row.probe {
				require.NoError(t, err)
				require.Equal(t, "a", token.AccessToken)
				require.Equal(t, []string{"header", "params"}, authMethods(t, endpoint.received()))
				require.Equal(t, oauth2.AuthStyleInParams, rememberedStyle(conf))
				_, err = conf.Token(t.Context())
				require.NoError(t, err)
				require.Equal(t, []string{"header", "params", "params"}, authMethods(t, endpoint.received()))
				return
			}
			require.Error(t, err)
			require.Equal(t, []string{"header"}, authMethods(t, endpoint.received()))
			require.Equal(t, oauth2.AuthStyleAutoDetect, rememberedStyle(conf), "a failure teaches nothing")
			_, err = conf.Token(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"header", "header"}, authMethods(t, endpoint.received()))
			require.Equal(t, oauth2.AuthStyleInHeader, rememberedStyle(conf))
		})
	}
}

// The second failure is the one that is reported, as upstream does, and neither
// is remembered.
func TestF8_BothRejected(t *testing.T) {
	for _, second := range []reply{oauthError(401, "second"), oauthError(503, "second"), {err: errors.New("second")}, {mediaType: "text/html", body: "<p>"}} {
		endpoint := newTokenEndpoint(oauthError(401, "first"), second, goodReply)
		conf := endpoint.config()
		conf.AuthStyle = oauth2.AuthStyleAutoDetect
		_, err := conf.Token(t.Context())
		require.Error(t, err)
		require.NotContains(t, err.Error(), "first")
		require.Equal(t, oauth2.AuthStyleAutoDetect, rememberedStyle(conf))
		_, err = conf.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"header", "params", "header"}, authMethods(t, endpoint.received()))
		require.Equal(t, oauth2.AuthStyleInHeader, rememberedStyle(conf))
	}
}

// A style that has worked is not given up for a failure.
func TestF8_RememberedStyleStays(t *testing.T) {
	endpoint := newTokenEndpoint(oauthError(401, "x"), goodReply, oauthError(401, "x"), oauthError(401, "x"), goodReply)
	conf := endpoint.config()
	conf.AuthStyle = oauth2.AuthStyleAutoDetect
	for i := range 4 {
		_, err := conf.Token(t.Context())
		require.Equal(t, i == 1 || i == 2, err != nil, i)
	}
	require.Equal(t, []string{"header", "params", "params", "params", "params"}, authMethods(t, endpoint.received()))

	endpoint = newTokenEndpoint(goodReply, oauthError(401, "x"), goodReply)
	conf = endpoint.config()
	conf.AuthStyle = oauth2.AuthStyleAutoDetect
	for i := range 3 {
		_, err := conf.Token(t.Context())
		require.Equal(t, i == 1, err != nil, i)
	}
	require.Equal(t, []string{"header", "header", "header"}, authMethods(t, endpoint.received()))
}

func TestF8_FixedStyleIsNotProbed(t *testing.T) {
	for style, want := range map[oauth2.AuthStyle]string{oauth2.AuthStyleInHeader: "header", oauth2.AuthStyleInParams: "params"} {
		rejected := oauthError(401, "invalid_client")
		endpoint := newTokenEndpoint(rejected, rejected, goodReply)
		conf := endpoint.config()
		conf.AuthStyle = style
		for range 2 {
			_, err := conf.Token(t.Context())
			require.EqualError(t, err, `oauth2: "invalid_client"`)
		}
		_, err := conf.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{want, want, want}, authMethods(t, endpoint.received()))
		require.Equal(t, oauth2.AuthStyleAutoDetect, rememberedStyle(conf), "it was told, not found out")
	}
}

// The same over a wire, against a server that takes one style only and has a bad
// start.
func TestF8_BadStart(t *testing.T) {
	faults := map[string]clientcredentialstest.Fault{
		"503":     clientcredentialstest.Unavailable(),
		"429":     clientcredentialstest.TooManyRequests(1),
		"reset":   clientcredentialstest.ConnectionReset(),
		"504":     {Status: http.StatusGatewayTimeout},
		"cut":     {CloseAfter: 10},
		"no HTTP": {Status: http.StatusOK, Body: "<p>"},
	}
	for method, style := range map[string]oauth2.AuthStyle{
		"client_secret_basic": oauth2.AuthStyleInHeader,
		"client_secret_post":  oauth2.AuthStyleInParams,
	} {
		for name, fault := range faults {
			t.Run(method+"/"+name, func(t *testing.T) {
				server := clientcredentialstest.Start(t, clientcredentialstest.Client{ID: memoryID, Secret: memorySecret, AuthMethods: []string{method}})
				conf := &Config{ClientID: memoryID, ClientSecret: memorySecret, TokenURL: server.TokenURL, HTTPClient: server.Client(), Retry: RetryPolicy{MaxAttempts: 1}}
				server.Auth.Script(fault)
				_, err := conf.Token(t.Context())
				require.Error(t, err)
				require.Equal(t, oauth2.AuthStyleAutoDetect, rememberedStyle(conf))
				for _, req := range server.Auth.Requests() {
					require.Equal(t, "client_secret_basic", req.AuthMethod)
				}
				_, err = conf.Token(t.Context())
				require.NoError(t, err)
				require.Equal(t, style, rememberedStyle(conf))
			})
		}
	}
}

func TestF15_EmptyCredentials(t *testing.T) {
	for name, first := range map[string]reply{"accepted": goodReply, "rejected": oauthError(401, "invalid_client")} {
		t.Run(name, func(t *testing.T) {
			endpoint := newTokenEndpoint(first)
			conf := endpoint.config()
			conf.ClientID, conf.ClientSecret, conf.AuthStyle = "", "", oauth2.AuthStyleAutoDetect
			_, err := conf.Token(t.Context())
			require.Equal(t, name == "rejected", err != nil)
			require.Len(t, endpoint.received(), 1)
			require.Equal(t, "Basic Og==", endpoint.received()[0].header.Get("Authorization"))

			conf.Strict = true
			_, err = conf.Token(t.Context())
			require.EqualError(t, err, "oauth2: ClientID and ClientSecret are empty; set them")
			require.Len(t, endpoint.received(), 1, "nothing was sent")
		})
	}
	// One of the two is enough to try another form, and for Strict.
	for _, credentials := range [][2]string{{"id", ""}, {"", "secret"}} {
		endpoint := newTokenEndpoint(oauthError(401, "invalid_client"))
		conf := endpoint.config()
		conf.ClientID, conf.ClientSecret, conf.AuthStyle, conf.Strict = credentials[0], credentials[1], oauth2.AuthStyleAutoDetect, true
		_, err := conf.Token(t.Context())
		require.EqualError(t, err, `oauth2: "invalid_client"`)
		received := endpoint.received()
		require.Len(t, received, 2)
		require.Equal(t, credentials[0] != "", received[1].form.Has("client_id"))
		require.Equal(t, credentials[1] != "", received[1].form.Has("client_secret"))
	}
}

// RFC 6749, Section 2.3.1.
func TestAuthenticate(t *testing.T) {
	endpoint := newTokenEndpoint(goodReply)
	conf := endpoint.config()
	conf.ClientID, conf.ClientSecret = "i d:\u00e4", "s&c:%+"
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams, 7} {
		conf.AuthStyle = style
		_, err := conf.Token(t.Context())
		require.NoError(t, err)
	}
	received := endpoint.received()
	require.Equal(t, "Basic "+redact.BasicCredentials("i+d%3A%C3%A4", "s%26c%3A%25%2B"), received[0].header.Get("Authorization"))
	require.Equal(t, "i d:\u00e4", received[1].form.Get("client_id"))
	require.Equal(t, "s&c:%+", received[1].form.Get("client_secret"))
	require.Equal(t, []string{"header", "params", "none"}, authMethods(t, received))
}

func TestAuthStyleCacheBound(t *testing.T) {
	var cache authStyleCache
	for i := range 10 * maxAuthStyles {
		id := fmt.Sprint(i)
		cache.set(memoryTokenURL, id, oauth2.AuthStyleInParams)
		style, ok := cache.get(memoryTokenURL, id)
		require.True(t, ok, "the latest is always there")
		require.Equal(t, oauth2.AuthStyleInParams, style)
		require.LessOrEqual(t, len(cache.known), maxAuthStyles)
		require.Len(t, cache.known, i%maxAuthStyles+1, "up to the bound none is forgotten")
	}
}

// What worked for one client or endpoint says nothing of another.
func TestAuthStyleCacheKey(t *testing.T) {
	var cache authStyleCache
	cache.set("u", "i", oauth2.AuthStyleInParams)
	for _, key := range []knownStyle{{"u", "", 0}, {"", "i", 0}, {"i", "u", 0}, {"ui", "", 0}, {"", "ui", 0}} {
		_, ok := cache.get(key.tokenURL, key.clientID)
		require.False(t, ok, key)
	}

	endpoint := newTokenEndpoint(oauthError(401, "x"), goodReply)
	conf := endpoint.config()
	conf.AuthStyle = oauth2.AuthStyleAutoDetect
	for _, change := range []func(){
		func() {},
		func() { conf.ClientID = "other" },
		func() { conf.TokenURL += "2" },
		func() { conf.ClientID, conf.TokenURL = memoryID, memoryTokenURL },
	} {
		change()
		_, err := conf.Token(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, []string{"header", "params", "header", "header", "params"}, authMethods(t, endpoint.received()))
}

func TestCopiesShareTheAuthStyleCache(t *testing.T) {
	endpoint := newTokenEndpoint(oauthError(401, "x"), goodReply)
	conf := endpoint.config()
	conf.AuthStyle = oauth2.AuthStyleAutoDetect
	before := *conf
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	after := *conf
	require.Same(t, conf.authStyles(), after.authStyles())
	_, err = after.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"header", "params", "params"}, authMethods(t, endpoint.received()))

	require.NotSame(t, conf.authStyles(), before.authStyles())
	require.Equal(t, oauth2.AuthStyleAutoDetect, rememberedStyle(&before))

	// Both directions.
	after.ClientID = "other"
	_, err = after.Token(t.Context())
	require.NoError(t, err)
	conf.ClientID = "other"
	require.Equal(t, oauth2.AuthStyleInHeader, rememberedStyle(conf))
}

func TestAuthStylesConcurrently(t *testing.T) {
	conf := new(Config)
	first := make(chan *authStyleCache)
	for range 8 {
		go func() {
			cache := conf.authStyles()
			cache.set(memoryTokenURL, memoryID, oauth2.AuthStyleInParams)
			cache.get(memoryTokenURL, memoryID)
			first <- cache
		}()
	}
	for range 8 {
		require.Same(t, conf.authStyles(), <-first)
	}
}

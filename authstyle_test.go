package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// newProbing returns a token endpoint with those replies, and a Config that has to find out
// which style the endpoint accepts.
func newProbing(replies ...reply) (*tokenEndpoint, *Config) {
	endpoint := newTokenEndpoint(replies...)
	conf := endpoint.config()
	conf.AuthStyle = oauth2.AuthStyleAutoDetect
	return endpoint, conf
}

// rememberedStyle returns the style that conf has found out, or AuthStyleAutoDetect.
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
	for _, first := range []reply{
		oauthError(200, "invalid_client"), oauthError(400, "invalid_request"), oauthError(401, "invalid_client"), oauthError(500, "server_error"),
		{body: `{"ret":7}`},
		{body: `{"error":{"message":"unknown app"}}`},
		{mediaType: formType, body: "ret=7"},
		{status: 403},
		{status: 404},
		{status: 422},
		{status: 400, mediaType: formType, body: "error=invalid_client"},
		{status: 401, mediaType: "text/html", body: strings.Repeat("x", 2<<20)},
	} {
		endpoint, conf := newProbing(first, goodReply)
		for range 2 {
			_, err := conf.Token(t.Context())
			require.NoError(t, err)
			require.Equal(t, oauth2.AuthStyleInParams, rememberedStyle(conf))
		}
		require.Equal(t, []string{"header", "params", "params"}, authMethods(t, endpoint.received()))
	}

	location := http.Header{"Location": {"https://auth.example/elsewhere"}}
	others := []reply{
		// The credentials aren't the reason.
		oauthError(200, "invalid_scope"), oauthError(401, "unsupported_grant_type"),
		{status: 400, mediaType: formType, body: "error=invalid_scope"},
		{status: 500, body: `{"Error":"unsupported_grant_type"}`},

		// It isn't known what the server thinks of the credentials.
		{mediaType: "text/html", body: "<p>"},
		{body: `{"access_token":"a\u0000b"}`},
		{body: `{"error":{"message":"unknown audience"}}`},
		{status: 400, body: `{"error":"invalid_request","error_description":"The resource is unknown."}`},
		{status: 403, body: `{"message":"no permission for that scope"}`},
		{body: strings.Repeat(" ", 2<<20)},
		{status: 206, body: goodReply.body},
		{status: 300},
		{status: 307, header: location},
		{status: 401, bodyErr: syscall.ECONNRESET},

		// There is no answer.
		{err: syscall.ECONNREFUSED},
		{err: context.DeadlineExceeded},
		{err: errors.New("boom")},
	}
	for _, status := range []int{402, 405, 407, 408, 409, 418, 425, 429, 451, 501, 502, 503, 504, 511, 599} {
		others = append(others, reply{status: status}, oauthError(status, "invalid_client"))
	}
	for _, first := range others {
		endpoint, conf := newProbing(first, oauthError(401, "invalid_client"), goodReply)
		_, err := conf.Token(t.Context())
		require.Error(t, err)
		require.Equal(t, []string{"header"}, authMethods(t, endpoint.received()), "%+v", first)
		require.Equal(t, oauth2.AuthStyleAutoDetect, rememberedStyle(conf), "after a failure")
		_, err = conf.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"header", "header", "params"}, authMethods(t, endpoint.received()))
	}
}

// The race detector watches Sources that copy one Config at the same time.
func TestF8_SourcesOfOneConfig(t *testing.T) {
	for range 200 {
		conf := newTokenEndpoint(goodReply).config()
		var requests sync.WaitGroup
		for range 4 {
			requests.Go(func() {
				_, err := conf.Token(t.Context())
				require.NoError(t, err)
			})
		}
		requests.Wait()
	}
}

// Of two refusals the caller gets the one that says more about what the user can change, and
// of two that say as much the second, as upstream's.
func TestF30_TheRefusalThatSaysMost(t *testing.T) {
	bare, form := reply{status: 400}, reply{status: 400, body: `{"error":"invalid_request","error_description":"malformed"}`}
	client := reply{status: 401, body: `{"error":"invalid_client","error_description":"bad secret"}`}
	scope := reply{status: 400, body: `{"error":"invalid_scope","error_description":"no such scope"}`}
	words := reply{body: `{"ret":7,"reason":"app disabled"}`}
	for _, test := range []struct {
		first, second reply
		want          string
	}{
		{client, form, "bad secret"},
		{client, bare, "bad secret"},
		{form, bare, "malformed"},
		{form, client, "bad secret"},
		{bare, scope, "no such scope"},
		{client, scope, "no such scope"},
		{client, words, "bad secret"},
		{bare, words, "app disabled"},
		{client, reply{status: 401, body: `{"error":"invalid_client","error_description":"second"}`}, "second"},
		{client, oauthError(503, "overloaded"), "overloaded"},
		{words, client, "bad secret"},
	} {
		endpoint, conf := newProbing(test.first, test.second)
		conf.Retry.MaxAttempts = 1
		_, err := conf.Token(t.Context())
		require.ErrorContains(t, err, test.want, "%+v", test)
		require.Len(t, endpoint.received(), 2)
	}
	// Who has asked for the wrong thing won't get it with the secret in another place.
	for _, first := range []reply{scope, {status: 400, body: `{"error":"invalid_target"}`}, {status: 400, body: `{"error":"invalid_request","error_description":"unknown audience"}`}, {status: 403, body: `{"message":"no grant for this API"}`}} {
		endpoint, conf := newProbing(first, goodReply)
		_, err := conf.Token(t.Context())
		require.Error(t, err)
		require.Len(t, endpoint.received(), 1, "%+v", first)
	}
}

// The second failure is reported, as by upstream, and no style is remembered.
func TestF8_BothRejected(t *testing.T) {
	for _, second := range []reply{oauthError(401, "second"), oauthError(503, "second"), {err: errors.New("second")}, {mediaType: "text/html", body: "<p>"}} {
		endpoint, conf := newProbing(oauthError(401, "first"), second, goodReply)
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

// A failure doesn't make the client give up a style that has worked.
func TestF8_RememberedStyleStays(t *testing.T) {
	rejected := oauthError(401, "x")
	for _, test := range []struct {
		replies  []reply
		failures []bool // of the calls
		methods  []string
	}{
		{[]reply{rejected, goodReply, rejected, rejected, goodReply}, []bool{false, true, true, false}, []string{"header", "params", "params", "params", "params"}},
		{[]reply{goodReply, rejected, goodReply}, []bool{false, true, false}, []string{"header", "header", "header"}},
	} {
		endpoint, conf := newProbing(test.replies...)
		for i, failure := range test.failures {
			_, err := conf.Token(t.Context())
			require.Equal(t, failure, err != nil, i)
		}
		require.Equal(t, test.methods, authMethods(t, endpoint.received()))
	}
}

// With an id or a secret, the second style is tried, and Strict has no objection.
func TestF15_EmptyCredentials(t *testing.T) {
	for _, credentials := range [][2]string{{"", ""}, {"id", ""}, {"", "secret"}} {
		endpoint, conf := newProbing(oauthError(401, "invalid_client"))
		conf.ClientID, conf.ClientSecret = credentials[0], credentials[1]
		conf.Strict = credentials != [2]string{}
		_, err := conf.Token(t.Context())
		require.EqualError(t, err, `oauth2: "invalid_client"`)
		received := endpoint.received()
		if !conf.Strict {
			require.Len(t, received, 1)
			require.Equal(t, "Basic Og==", received[0].header.Get("Authorization"))
			continue
		}
		require.Len(t, received, 2)
		require.Equal(t, credentials[0] != "", received[1].form.Has("client_id"))
		require.Equal(t, credentials[1] != "", received[1].form.Has("client_secret"))
	}
}

func TestAuthStyleCacheBound(t *testing.T) {
	var cache authStyleCache
	for i := range 10 * maxAuthStyles {
		id := fmt.Sprint(i)
		cache.set(memoryTokenURL, id, oauth2.AuthStyleInParams)
		style, ok := cache.get(memoryTokenURL, id)
		require.True(t, ok, "the latest style is known")
		require.Equal(t, oauth2.AuthStyleInParams, style)
		require.LessOrEqual(t, len(cache.known), maxAuthStyles)
		require.Len(t, cache.known, i%maxAuthStyles+1, "below the limit no style is forgotten")
	}
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

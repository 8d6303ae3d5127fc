package clientcredentials

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

var someToken = reply{body: `{"access_token":"a"}`}

func TestClientAuthOnTheWire(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		endpoint := newTokenEndpoint(reply{status: http.StatusServiceUnavailable}, someToken)
		conf := endpoint.config()
		conf.Retry = RetryPolicy{}
		conf.ClientAuth = &scriptedAuth{credential: "key"}
		_, err := conf.Token(t.Context())
		require.NoError(t, err)
		received := endpoint.received()
		require.Len(t, received, 2)
		for i, r := range received {
			require.Equal(t, url.Values{
				"grant_type":       {"client_credentials"},
				"client_id":        {conf.ClientID},
				"client_assertion": {"key-assertion-" + strconv.Itoa(i+1)},
			}, r.form, "each attempt has its own assertion, and no secret")
			require.Empty(t, r.header.Values("Authorization"))
		}
	})
}

func TestClientAuthGetsTheConfig(t *testing.T) {
	conf := newTokenEndpoint(someToken).config()
	conf.Issuer = "https://issuer.example"
	var got Attempt
	conf.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
		got = *attempt
		return nil
	})
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{conf.TokenURL, conf.Issuer, conf.ClientID, conf.ClientSecret},
		[]string{got.TokenURL, got.Issuer, got.ClientID, got.ClientSecret})
}

func TestClientAuthRotatedDuringTheRequest(t *testing.T) {
	refusal, down := reply{status: http.StatusUnauthorized, body: `{"error":"invalid_client"}`}, reply{status: 503}
	for name, test := range map[string]struct {
		rotations []string // the credential after each answer
		replies   []reply
		requests  int
		works     bool
	}{
		"not rotated":                {[]string{"old"}, []reply{refusal, refusal}, 1, false},
		"rotated":                    {[]string{"new"}, []reply{refusal, someToken}, 2, true},
		"rotated and refused":        {[]string{"new", "newer"}, []reply{refusal, refusal, refusal}, 2, false},
		"rotated, then a failure":    {[]string{"new", "new"}, []reply{refusal, down, someToken}, 3, true},
		"rotated and back":           {[]string{"new", "old"}, []reply{refusal, down, someToken}, 2, false},
		"401 without invalid_client": {[]string{"new"}, []reply{{status: 401, body: "no"}, someToken}, 2, true},
		"invalid_request":            {[]string{"new"}, []reply{{status: 400, body: `{"error":"invalid_request"}`}, someToken}, 2, true},
		"refused for another reason": {[]string{"new"}, []reply{{status: 400, body: `{"error":"invalid_scope"}`}}, 1, false},
	} {
		run := func(t *testing.T) {
			endpoint := newTokenEndpoint(test.replies...)
			auth := &scriptedAuth{credential: "old"}
			conf := endpoint.config()
			conf.Retry = RetryPolicy{}
			conf.ClientAuth = auth
			answers := 0
			client := conf.HTTPClient.Transport
			conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp, err := client.RoundTrip(req)
				if answers < len(test.rotations) {
					auth.rotate(test.rotations[answers])
				}
				answers++
				return resp, err
			})}
			_, err := conf.Token(t.Context())
			require.Equal(t, test.works, err == nil, "%v", err)
			require.Len(t, endpoint.received(), test.requests)
			if err != nil {
				var refused *oauth2.RetrieveError
				require.ErrorAs(t, err, &refused)
			}
		}
		t.Run(name, func(t *testing.T) { testkit.Synctest(t, run) })
	}
}

func TestClientAuthFails(t *testing.T) {
	endpoint := newTokenEndpoint(someToken)
	conf := endpoint.config()
	broken := errors.New("the key file is gone")
	auth := &scriptedAuth{err: broken}
	conf.ClientAuth = auth
	_, err := conf.Token(t.Context())
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "oauth2: cannot fetch token: private_key_jwt: the key file is gone")
	require.Empty(t, endpoint.received())
	require.Equal(t, 1, auth.calls, "the attempt isn't repeated")
}

func TestClientAuthIsBoundedByTheAttempt(t *testing.T) {
	bubble(t, time.Hour, func(t *testing.T, w *world) {
		auth := &scriptedAuth{err: errors.New("late"), during: func(ctx context.Context) { <-ctx.Done() }}
		w.conf.ClientAuth = auth
		start := time.Now()
		_, err := w.conf.Token(w.ctx)
		require.ErrorContains(t, err, "late")
		require.Equal(t, defaultAttemptTimeout, time.Since(start))
	})
}

func TestClientAuthAndOtherFields(t *testing.T) {
	endpoint := newTokenEndpoint(someToken)
	conf := endpoint.config()
	conf.TokenURL = "https://auth.example/token"
	conf.ClientAuth = &scriptedAuth{credential: "key"}
	for _, name := range []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"} {
		conf.EndpointParams = url.Values{name: {"x"}}
		_, err := conf.Token(t.Context())
		require.ErrorContains(t, err, "oauth2: EndpointParams contains "+name+", which")
	}
	require.Empty(t, endpoint.received())

	// Strict wants a secret only if that is how the client authenticates.
	conf.Strict, conf.ClientID, conf.ClientSecret, conf.EndpointParams = true, "", "", nil
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
}

// A cooldown ends when the ClientAuth is replaced. It doesn't end merely because two of them
// can't be compared.
func TestClientAuthAndCooldown(t *testing.T) {
	post := authFunc(func(_ context.Context, attempt *Attempt) error {
		attempt.Form.Set("client_id", attempt.ClientID)
		attempt.Form.Set("client_secret", attempt.ClientSecret)
		return nil
	})
	nothing := authFunc(func(context.Context, *Attempt) error { return nil })
	for name, test := range map[string]struct {
		refused, replacement ClientAuth
		requests             int
	}{
		"another type":        {&scriptedAuth{}, post, cooldownFree + 1},
		"another of its type": {&scriptedAuth{}, &scriptedAuth{}, cooldownFree + 1},
		"the same":            {nothing, nil, cooldownFree},
		"not comparable":      {nothing, post, cooldownFree},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, time.Hour, func(t *testing.T, w *world) {
				w.conf.ClientAuth = test.refused
				s := w.conf.Source(w.ctx)
				for range 2 * cooldownFree {
					_, err := s.Token()
					require.Error(t, err)
				}
				require.Equal(t, cooldownFree, w.auth.TokenRequests())
				if test.replacement != nil {
					w.conf.ClientAuth = test.replacement
				}
				_, _ = s.Token()
				require.Equal(t, test.requests, w.auth.TokenRequests())
			})
		})
	}
}

// net/http repeats a request by itself if it can get the body again.
func TestF7_AssertionIsSentOnce(t *testing.T) {
	conf := newTokenEndpoint(someToken).config()
	inner := conf.HTTPClient.Transport
	rewindable := false
	conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		rewindable = req.GetBody != nil
		return inner.RoundTrip(req)
	})}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
	require.True(t, rewindable, "with a secret it may be repeated, as upstream")
	conf.ClientAuth = &scriptedAuth{credential: "key"}
	_, err = conf.Token(t.Context())
	require.NoError(t, err)
	require.False(t, rewindable)
}

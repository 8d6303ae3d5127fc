package clientcredentials_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest/storetest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A keeper is an authorization server that keeps one token for its client, and answers with
// the same token until that has expired. It is an API, too.
type keeper struct {
	life   time.Duration
	last   string // what expires_in says in the last second, as JSON; empty: there is none
	always bool   // it says so to every request but the first for a token
	slides bool   // each token request prolongs the life

	mu       sync.Mutex // protects what follows
	token    string
	expiry   time.Time
	requests int
}

// count returns the number of token requests.
func (k *keeper) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.requests
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Host == "api.example" {
		if r.Header.Get("Authorization") != "Bearer "+k.token || !time.Now().Before(k.expiry) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		return
	}
	k.requests++
	first := !time.Now().Before(k.expiry)
	if first {
		k.token = fmt.Sprintf("token-%d", k.requests)
	}
	if first || k.slides {
		k.expiry = time.Now().Add(k.life)
	}
	left := fmt.Sprint(int(time.Until(k.expiry).Seconds()))
	if left == "0" || k.always && !first {
		left = k.last
	}
	member := ""
	if left != "" {
		member = `,"expires_in":` + left
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer"%s}`, k.token, member)
}

// Some servers return the same token with less life each time. When they say 0 at last, or
// nothing, that must not make the token immortal.
func TestF27_TheSameTokenWithLessLife(t *testing.T) {
	t.Parallel()
	callers := map[string]func(ctx context.Context, c *clientcredentials.Config) *http.Client{
		"Client": func(ctx context.Context, c *clientcredentials.Config) *http.Client { return c.Client(ctx) },
		"Transport": func(ctx context.Context, c *clientcredentials.Config) *http.Client {
			return &http.Client{Transport: c.Transport(ctx)}
		},
		"Source": func(ctx context.Context, c *clientcredentials.Config) *http.Client {
			return &http.Client{Transport: &oauth2.Transport{Source: c.Source(ctx), Base: c.HTTPClient.Transport}}
		},
		"TokenSource": func(ctx context.Context, c *clientcredentials.Config) *http.Client {
			return oauth2.NewClient(ctx, c.TokenSource(ctx))
		},
		"Store": func(ctx context.Context, c *clientcredentials.Config) *http.Client {
			c.Store = clientcredentials.DangerouslyShareInPlaintext(new(storetest.Store))
			other := c.Client(ctx)
			return &http.Client{Transport: alternate{c.Client(ctx).Transport, other.Transport}}
		},
	}
	span := 2 * time.Hour
	if testing.Short() {
		span = 25 * time.Minute // Under GOOS=js the whole span takes a minute.
	}
	for name, kept := range map[string]*keeper{
		"0 in the last second":    {life: 10 * time.Minute, last: "0"},
		"nothing in the last":     {life: 10 * time.Minute},
		"null in the last":        {life: 90 * time.Second, last: "null"},
		`"" in the last`:          {life: 40 * time.Second, last: `""`},
		"0 to all but the first":  {life: 10 * time.Minute, last: "0", always: true},
		"sliding":                 {life: 10 * time.Minute, slides: true},
		"sliding, then no number": {life: time.Hour, slides: true, last: "0"},
	} {
		for caller, newClient := range callers {
			t.Run(name+"/"+caller, func(t *testing.T) {
				t.Parallel()
				testkit.Synctest(t, func(t *testing.T) {
					server := &keeper{life: kept.life, last: kept.last, always: kept.always, slides: kept.slides}
					base := clientcredentialstest.HandlerTransport(server)
					client := &http.Client{Transport: base}
					ctx := context.WithValue(t.Context(), oauth2.HTTPClient, client)
					c := newClient(ctx, &clientcredentials.Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token", AuthStyle: oauth2.AuthStyleInHeader, HTTPClient: client})
					var failed []string
					start, calls := time.Now(), 0
					for ; time.Since(start) < span; calls++ {
						resp, err := c.Get("https://api.example/")
						require.NoError(t, err)
						resp.Body.Close()
						if resp.StatusCode != http.StatusOK {
							failed = append(failed, time.Since(start).String())
						}
						time.Sleep(4700 * time.Millisecond)
					}
					require.Empty(t, failed)
					lives := int(span/server.life) + 1
					require.LessOrEqual(t, server.count(), 15*lives, "of %d calls", calls)
				})
			})
		}
	}
}

// alternate sends requests through one RoundTripper, then through the other.
type alternate [2]http.RoundTripper

func (a alternate) RoundTrip(req *http.Request) (*http.Response, error) {
	return a[time.Now().UnixMilli()/4700%2].RoundTrip(req)
}

// Some servers revoke the last token of a client when they issue the next one. Without a Store,
// two replicas keep invalidating each other's tokens; with one, both use the same token.
func TestF27_ServerWithOneTokenForAClient(t *testing.T) {
	for _, shared := range []bool{false, true} {
		testkit.Synctest(t, func(t *testing.T) {
			auth := &clientcredentialstest.AuthorizationServer{Clients: []clientcredentialstest.Client{{ID: "id", Secret: "secret"}}, TokenLifetime: 10 * time.Minute}
			api := &clientcredentialstest.ResourceServer{Issuer: auth}
			mux := http.NewServeMux()
			mux.Handle("api.example/", api)
			mux.HandleFunc("auth.example/", func(w http.ResponseWriter, r *http.Request) {
				auth.RevokeAll()
				auth.ServeHTTP(w, r)
			})
			conf := &clientcredentials.Config{
				ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token", AuthStyle: oauth2.AuthStyleInHeader,
				HTTPClient: &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)},
			}
			if shared {
				conf.Store = clientcredentials.DangerouslyShareInPlaintext(new(storetest.Store))
			}
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, conf.HTTPClient)
			replicas := []*http.Client{conf.Client(ctx), conf.Client(ctx)}
			const calls = 2000
			for i := range calls {
				resp, err := replicas[i%2].Get("https://api.example/")
				require.NoError(t, err)
				resp.Body.Close()
				time.Sleep(5 * time.Second)
			}
			t.Logf("shared=%v: the API refused %d of %d calls", shared, api.Rejected(), calls)
			if shared {
				// The other replica learns from a 401 that a token was replaced, once in its life.
				require.LessOrEqual(t, api.Rejected(), calls/40)
			} else {
				require.Greater(t, api.Rejected(), calls/10)
			}
		})
	}
}

// A replica that has just started learns from the store when such a token expires.
func TestF27_SharedLife(t *testing.T) {
	testkit.Synctest(t, func(t *testing.T) {
		server := &keeper{life: 10 * time.Minute, last: "0", always: true}
		conf := &clientcredentials.Config{
			ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token", AuthStyle: oauth2.AuthStyleInHeader,
			HTTPClient: &http.Client{Transport: clientcredentialstest.HandlerTransport(server)},
			Store:      clientcredentials.DangerouslyShareInPlaintext(new(storetest.Store)),
		}
		first := conf.Source(t.Context())
		token, err := first.Token()
		require.NoError(t, err)
		time.Sleep(9 * time.Minute)
		_, err = first.Token() // Replaces the token in the background, by the same one.
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Equal(t, 2, server.count())
		again, err := conf.Source(t.Context()).Token()
		require.NoError(t, err)
		require.Equal(t, 2, server.count())
		require.WithinDuration(t, token.Expiry, again.Expiry, 6*time.Second)
		require.False(t, again.Expiry.After(token.Expiry))
	})
}

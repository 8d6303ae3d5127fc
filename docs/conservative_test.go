package docs

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

func newConservativeClient(ctx context.Context, conf clientcredentials.Config) *http.Client {
	conf.AuthStyle = oauth2.AuthStyleInHeader // or InParams: nothing is found out by trial
	conf.Retry.MaxAttempts = 1                // a failed token request isn't repeated
	conf.EarlyRefresh = 10 * time.Second      // a token is replaced in its last 10 seconds

	// A Transport repeats a request, and drops a token after a 401, only if its Source is a
	// *clientcredentials.Source. The result of TokenSource isn't one.
	return &http.Client{Transport: &clientcredentials.Transport{Source: conf.TokenSource(ctx)}}
}

// TestConservativeClient shows that the client of migration.md makes no request that upstream
// wouldn't make, and that the same Config without its settings does.
func TestConservativeClient(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		client func(context.Context, clientcredentials.Config) *http.Client

		failed        bool // the first call, whose token request is answered with 503
		tokenRequests [4]int
		apiRequests   int // of the call whose token is revoked
	}{
		"conservative": {newConservativeClient, true, [4]int{1, 2, 2, 2}, 1},
		"default":      {func(ctx context.Context, conf clientcredentials.Config) *http.Client { return conf.Client(ctx) }, false, [4]int{2, 2, 3, 4}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				auth := &clientcredentialstest.AuthorizationServer{Clients: []clientcredentialstest.Client{{ID: "id", Secret: "secret"}}}
				api := &clientcredentialstest.ResourceServer{Issuer: auth}
				mux := http.NewServeMux()
				mux.Handle("auth.example/", auth)
				mux.Handle("api.example/", api)
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)})
				client := test.client(ctx, clientcredentials.Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://auth.example/token"})
				if transport, ok := client.Transport.(*clientcredentials.Transport); ok {
					transport.Base = clientcredentialstest.HandlerTransport(mux)
				}
				call := func(want int) error {
					t.Helper()
					resp, err := client.Get("https://api.example/")
					if err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
					synctest.Wait() // until a refresh in the background is done
					require.Equal(t, want, auth.TokenRequests())
					return err
				}

				auth.Script(clientcredentialstest.Unavailable())
				require.Equal(t, test.failed, call(test.tokenRequests[0]) != nil)
				require.NoError(t, call(test.tokenRequests[1]))

				time.Sleep(59 * time.Minute) // of the hour that the token is valid
				require.NoError(t, call(test.tokenRequests[2]), "early refresh")

				auth.RevokeAll()
				before := len(api.Requests())
				require.NoError(t, call(test.tokenRequests[3]))
				require.Len(t, api.Requests()[before:], test.apiRequests)
			})
		})
	}
}

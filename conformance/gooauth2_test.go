package conformance

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	"github.com/go-oauth2/oauth2/v4/store"
)

// startGoOAuth2 is the starter of go-oauth2. There, the authentication method and the
// lifetime of tokens are settings of the server, not of a client. So it starts a server for
// each client.
func startGoOAuth2(t *testing.T, clients ...registration) []endpoints {
	t.Helper()
	var all []endpoints
	for _, c := range clients {
		at := runGoOAuth2(t, c.method, c.ttl)
		at.register(t, c)
		all = append(all, at)
	}
	return all
}

// runGoOAuth2 starts a go-oauth2 server, with an API that asks it about tokens.
func runGoOAuth2(t *testing.T, method string, ttl time.Duration) endpoints {
	t.Helper()
	clients := store.NewClientStore()
	manager := manage.NewDefaultManager()
	manager.SetClientTokenCfg(&manage.Config{AccessTokenExp: ttl})
	manager.MapClientStorage(clients)
	manager.MustTokenStorage(store.NewMemoryTokenStore())

	srv := server.NewDefaultServer(manager)
	srv.SetAllowedGrantType(oauth2.ClientCredentials)
	// Without this hook, the server grants any scope.
	srv.SetClientScopeHandler(func(r *oauth2.TokenGenerateRequest) (bool, error) {
		for scope := range strings.FieldsSeq(r.Scope) {
			if scope != scopeRead {
				return false, nil
			}
		}
		return true, nil
	})
	srv.SetClientInfoHandler(server.ClientFormHandler)
	if method == secretBasic {
		srv.SetClientInfoHandler(server.ClientBasicHandler)
	}

	paths := http.NewServeMux()
	paths.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		_ = srv.HandleTokenRequest(w, r) // the error is in the answer
	})
	at := inProcess{
		path:  "/token",
		token: paths,
		find: func(r *http.Request) (answer, error) {
			token, err := srv.ValidationBearerToken(r)
			if err != nil {
				return answer{}, err
			}
			return answer{ClientID: token.GetClientID(), Scope: token.GetScope()}, nil
		},
		add: func(c knownClient) {
			_ = clients.Set(c.ID, &models.Client{ID: c.ID, Secret: c.Secret}) // never an error
		},
		revoke: func(r *http.Request, token string) error { return manager.RemoveAccessToken(r.Context(), token) },
	}.start(t, httptest.NewUnstartedServer(nil))
	at.issuer = "" // it publishes no metadata
	return at
}

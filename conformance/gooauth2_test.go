package conformance

import (
	"encoding/json"
	"io"
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

	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		_ = srv.HandleTokenRequest(w, r) // the error is in the answer
	})
	mux.HandleFunc("GET /api", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		token, err := srv.ValidationBearerToken(r)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid_token"}`))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"client_id": token.GetClientID(), "scope": token.GetScope()})
	})
	mux.HandleFunc("POST /clients", func(w http.ResponseWriter, r *http.Request) {
		var list []struct {
			ID     string `json:"client_id"`
			Secret string `json:"client_secret"`
		}
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		for _, c := range list {
			_ = clients.Set(c.ID, &models.Client{ID: c.ID, Secret: c.Secret}) // never an error
		}
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		token, _ := io.ReadAll(r.Body)
		if err := manager.RemoveAccessToken(r.Context(), string(token)); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return endpoints{token: s.URL + "/token", api: s.URL + "/api", admin: s.URL}
}

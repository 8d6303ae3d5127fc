package conformance

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A knownClient is a client in the form in which the tests register it.
type knownClient struct {
	ID         string   `json:"client_id"`
	Secret     string   `json:"client_secret"`
	Scope      string   `json:"scope"`
	GrantTypes []string `json:"grant_types"` // that it may use; nil: client_credentials
	TTL        int      `json:"ttl"`         // the life of its tokens, in seconds
}

// An inProcess is a server that runs in this process. It has what the programs have.
type inProcess struct {
	token http.Handler // everything but the other paths
	path  string       // of the token endpoint
	// find returns the client and the scope of a live token.
	find   func(r *http.Request) (answer, error)
	add    func(knownClient)
	revoke func(r *http.Request, token string) error
}

// start starts the server, which runs until the test ends. Its URL is the issuer.
func (s inProcess) start(t *testing.T, server *httptest.Server) endpoints {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", s.token)
	mux.HandleFunc("GET /api", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		found, err := s.find(r)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid_token"}`))
			return
		}
		_ = json.NewEncoder(w).Encode(found)
	})
	mux.HandleFunc("POST /clients", func(w http.ResponseWriter, r *http.Request) {
		var list []knownClient
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		for _, c := range list {
			s.add(c)
		}
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		token, _ := io.ReadAll(r.Body)
		if err := s.revoke(r, string(token)); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	server.Config.Handler = mux
	server.Start()
	t.Cleanup(server.Close)
	return endpoints{token: server.URL + s.path, api: server.URL + "/api", issuer: server.URL, admin: server.URL}
}

func (c knownClient) life() time.Duration { return time.Duration(c.TTL) * time.Second }

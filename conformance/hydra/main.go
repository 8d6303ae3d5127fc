// Ory Hydra and a protected resource, in one process, for the conformance tests.
//
//	hydra '{"scopes":["read"],"clockOffset":0}'
//
// It listens on free loopback ports, and keeps everything in memory. When it is ready, it
// prints its URLs as one line of JSON:
//
//	issuer   the issuer, with its metadata
//	token    the token endpoint
//	api      answers 200 with the client's id, and with the scope and the audience of the
//	         token, for a live token, else 401
//	admin    POST admin/clients   adds or replaces the clients in a JSON list, as in
//	                              RFC 7591; ttl is the lifetime of their tokens in seconds
//	         POST admin/revoke    revokes all tokens of the client that the token in the
//	                              body was issued to
//	         POST admin/trust     trusts {issuer, subject, jwk, scope}: an issuer of
//	                              assertions (RFC 7523)
//
// clockOffset is the number of seconds by which the clock is wrong that assertions are
// compared with.
//
// The process ends when its standard input is closed. So it can't outlive the test that
// started it, however that test ends.
//
// The module of this program is separate because Hydra selects old versions of modules that
// the tests use, too.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ory/fosite/token/jwt"
	"github.com/ory/hydra/v2/cmd"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal(`usage: hydra '{"scopes":["read"]}'`)
	}
	var config struct {
		Scopes      []string
		ClockOffset int
	}
	if err := json.Unmarshal([]byte(os.Args[1]), &config); err != nil {
		log.Fatal(err)
	}
	jwt.TimeFunc = func() time.Time { return time.Now().Add(time.Duration(config.ClockOffset) * time.Second) }
	dir, err := os.MkdirTemp("", "hydra")
	if err != nil {
		log.Fatal(err)
	}
	err = run(dir, config.Scopes)
	_ = os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// run serves until standard input ends. dir is a directory for Hydra's sockets and its
// configuration.
func run(dir string, scopes []string) error {
	// Hydra wants to know its ports before it listens. So it listens on Unix sockets
	// instead, and connections to a free port are passed on to one of them, byte by byte.
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer, origin := "http://"+public.Addr().String(), "http://"+own.Addr().String()
	publicSocket, adminSocket := filepath.Join(dir, "public"), filepath.Join(dir, "admin")
	settings, err := json.Marshal(map[string]any{
		"dsn": "memory",
		"log": map[string]any{"level": "error", "leak_sensitive_values": false},
		"oauth2": map[string]any{
			// The secrets are worth nothing. One iteration leaves the processor to the tests.
			"hashers": map[string]any{"algorithm": "pbkdf2", "pbkdf2": map[string]any{"iterations": 1}},
		},
		"secrets": map[string]any{"system": []string{rand.Text()}},
		"serve": map[string]any{
			"public": map[string]any{"host": "unix:" + publicSocket},
			"admin":  map[string]any{"host": "unix:" + adminSocket},
		},
		"urls":      map[string]any{"self": map[string]any{"issuer": issuer, "public": issuer}},
		"webfinger": map[string]any{"oidc_discovery": map[string]any{"supported_scope": scopes}},
	})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "hydra.json")
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		return err
	}
	// --dev allows http, and --sqa-opt-out turns telemetry off.
	os.Args = []string{"hydra", "serve", "all", "--dev", "--sqa-opt-out", "--config", file}
	go cmd.Execute() // exits if it fails

	hydra := &admin{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", adminSocket)
		},
		MaxIdleConnsPerHost: 32,
	}}}
	for hydra.ready() != nil {
		time.Sleep(50 * time.Millisecond)
	}
	go pass(public, publicSocket)
	go func() { log.Fatal(serve(own, hydra)) }()
	err = json.NewEncoder(os.Stdout).Encode(map[string]string{
		"issuer": issuer, "token": issuer + "/oauth2/token", "api": origin + "/api", "admin": origin,
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// pass passes the connections of a listener on to a Unix socket.
func pass(from net.Listener, to string) {
	for {
		client, err := from.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			server, err := net.Dial("unix", to)
			if err != nil {
				log.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				forward(server.(*net.UnixConn), client)
				close(done)
			}()
			forward(client.(*net.TCPConn), server)
			<-done
			_, _ = client.Close(), server.Close()
		}()
	}
}

// forward copies bytes until from has no more, and says so to the other side.
func forward(to interface {
	io.Writer
	CloseWrite() error
}, from net.Conn,
) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}

// serve serves the protected resource, and the administration by the tests.
func serve(l net.Listener, hydra *admin) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/api", func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		var found introspection
		if ok {
			var err error
			if found, err = hydra.introspect(token); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if !found.Active {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_token"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(found)
	})
	command := func(f func(body []byte) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = f(body)
			}
			if err != nil {
				log.Print(err)
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}
	mux.HandleFunc("POST /clients", command(hydra.register))
	mux.HandleFunc("POST /revoke", command(hydra.revoke))
	mux.HandleFunc("POST /trust", command(hydra.trust))
	return http.Serve(l, mux)
}

// An admin calls Hydra's administrative API.
type admin struct{ client *http.Client }

// An introspection is a part of what Hydra knows about a token (RFC 7662).
type introspection struct {
	Active   bool     `json:"active"`
	ClientID string   `json:"client_id"`
	Subject  string   `json:"sub,omitempty"`
	Scope    string   `json:"scope"`
	Audience []string `json:"aud,omitempty"`
}

func (a *admin) ready() error {
	_, _, err := a.call(http.MethodGet, "/health/ready", "", nil)
	return err
}

func (a *admin) introspect(token string) (found introspection, err error) {
	form := url.Values{"token": {token}}.Encode()
	_, body, err := a.call(http.MethodPost, "/admin/oauth2/introspect", "application/x-www-form-urlencoded", []byte(form))
	if err == nil {
		err = json.Unmarshal(body, &found)
	}
	return found, err
}

func (a *admin) register(body []byte) error {
	var clients []map[string]any
	if err := json.Unmarshal(body, &clients); err != nil {
		return err
	}
	for _, c := range clients {
		ttl := fmt.Sprint(c["ttl"])
		delete(c, "ttl")
		maps.Copy(c, map[string]any{
			// Hydra rounds the life that is left when it answers down to whole seconds. With
			// half a second more, that is ttl.
			"client_credentials_grant_access_token_lifespan": ttl + "s500ms",
		})
		if c["grant_types"] == nil {
			c["grant_types"] = []string{"client_credentials"}
		}
		body, err := json.Marshal(c)
		if err != nil {
			return err
		}
		status, _, err := a.call(http.MethodPost, "/admin/clients", "application/json", body)
		if status == http.StatusConflict {
			_, _, err = a.call(http.MethodPut, "/admin/clients/"+url.PathEscape(fmt.Sprint(c["client_id"])), "application/json", body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *admin) trust(body []byte) error {
	relationship := make(map[string]any)
	if err := json.Unmarshal(body, &relationship); err != nil {
		return err
	}
	relationship["expires_at"] = time.Now().Add(24 * time.Hour)
	body, err := json.Marshal(relationship)
	if err == nil {
		_, _, err = a.call(http.MethodPost, "/admin/trust/grants/jwt-bearer/issuers", "application/json", body)
	}
	return err
}

func (a *admin) revoke(token []byte) error {
	found, err := a.introspect(string(token))
	if err == nil {
		query := url.Values{"client_id": {found.ClientID}}.Encode()
		_, _, err = a.call(http.MethodDelete, "/admin/oauth2/tokens?"+query, "", nil)
	}
	return err
}

// call makes a request. An answer without status 2xx is an error.
func (a *admin) call(method, path, mediaType string, body []byte) (int, []byte, error) {
	r, err := http.NewRequest(method, "http://hydra"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", mediaType)
	resp, err := a.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return resp.StatusCode, answer, err
}

package conformance

import (
	"cmp"
	"errors"
	"flag"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// TestSecrets: ids and secrets with special characters arrive unchanged.
//
// A client form-encodes both before it puts them into the Basic header (RFC 6749, Section
// 2.3.1 and Appendix B), and the server decodes them. Two of the servers here do that. The
// other two compare the header with the secret itself. If the client does the one and the
// server the other, only characters that the encoding leaves alone arrive unchanged. In a
// POST body, the encoding is that of the form, and all servers decode it.
func TestSecrets(t *testing.T) {
	tests := []struct {
		name, id, secret string
		unprintable      bool // the secret isn't VSCHAR (RFC 6749, Appendix A.2)
	}{
		{name: "unreserved", id: "unreserved", secret: "Aa0-._~"},
		{name: "colon", id: "colon", secret: "a:b:c"},
		{name: "plus", id: "plus", secret: "a+b"},
		{name: "slash", id: "slash", secret: "a/b=="},
		{name: "percent", id: "percent", secret: "100%"},
		{name: "percent_encoded", id: "percent_encoded", secret: "a%2Bb%20c"},
		{name: "space", id: "space", secret: "a b  c"},
		{name: "delimiters", id: "delimiters", secret: "a&b=c?d#e;f,g"},
		{name: "quotes", id: "quotes", secret: `"a'b\c`},
		{name: "id", id: "https://client.example/a:b+c d%20", secret: "secret"},
		{name: "id_without_colon", id: "client/a+b c%20", secret: "secret"},
		{name: "unicode", id: "unicode", secret: "pässwörd-密碼-🔑", unprintable: true},
	}
	found := secretsTable{}
	asIs := func(s string) string { return s }
	ways := []struct {
		name   string
		method string
		encode func(string) string // how the client encodes both; nil: in the POST body
		auth   clientcredentials.ClientAuth
	}{
		{"basic", secretBasic, url.QueryEscape, new(clientauth.ClientSecretBasic)},
		{"raw_basic", secretBasic, asIs, &clientauth.ClientSecretBasic{Raw: true}},
		{"post", secretPost, nil, new(clientauth.ClientSecretPost)},
	}

	for _, s := range authServers {
		t.Run(s.name, func(t *testing.T) {
			var clients []registration
			for _, tt := range tests {
				for _, way := range ways {
					clients = append(clients, registration{id: tt.id + "-" + way.name, secret: tt.secret, method: way.method, ttl: time.Hour})
				}
			}
			at := s.start(t, clients...)
			for i, tt := range tests {
				for j, way := range ways {
					c, at := clients[len(ways)*i+j], at[len(ways)*i+j]
					understood := !s.printable || !tt.unprintable
					if way.encode != nil {
						decode := s.decode
						if decode == nil {
							decode = asIs
						}
						id, secret, _ := strings.Cut(way.encode(c.id)+":"+way.encode(c.secret), ":")
						understood = understood && decode(id) == c.id && decode(secret) == c.secret
					}
					t.Run(tt.name+"/"+way.name, func(t *testing.T) {
						got, refusal := getWith(t, way.auth, c, at)
						found.add(s.name, way.name, tt.name, refusal)
						if understood {
							assert.Empty(t, refusal)
							assert.Equal(t, http.StatusOK, got.status)
							assert.Equal(t, answer{ClientID: c.id}, got.answer)
							return
						}
						switch {
						case s.printable && tt.unprintable && way.encode == nil:
							assert.Equal(t, "invalid_client_metadata", refusal)
						case way.name == "raw_basic" && strings.Contains(tt.id, ":"):
							assert.Equal(t, "nothing sent", refusal)
						case s.name == "go-oauth2" && tt.id != tt.name:
							assert.Equal(t, "server_error", refusal, "it answers 500 for an unknown client")
						default:
							assert.Contains(t, []string{"invalid_client", "invalid_request"}, refusal)
						}
					})
				}
			}
		})
	}
	found.compare(t)
}

// getWith calls the API through the library. It returns the call, and the error code of
// the token endpoint, if any.
func getWith(t *testing.T, auth clientcredentials.ClientAuth, c registration, at endpoints) (call, string) {
	w := newWire(t, at.token)
	conf := &clientcredentials.Config{ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, ClientAuth: auth}
	got := do(t.Context(), conf.Client(w.context(t)), at.api, nil)
	requests := methods(w.tokenRequests())
	var refusal *oauth2.RetrieveError
	switch {
	case got.err == nil:
		assert.Equal(t, []string{c.method}, requests)
		return got, ""
	case errors.As(got.err, &refusal):
		for _, method := range requests {
			assert.Equal(t, c.method, method)
		}
		return got, refusal.ErrorCode
	default:
		require.ErrorContains(t, got.err, "ClientID contains a colon")
		assert.Empty(t, requests)
		return got, "nothing sent"
	}
}

// A secretsTable has the names of the refused secrets, by server and way.
type secretsTable map[string][]string

func (s secretsTable) add(server, way, name, refusal string) {
	row := s[server+"|"+way]
	if refusal != "" {
		row = append(row, strings.ReplaceAll(name, "_", " "))
	}
	s[server+"|"+way] = row
}

// compare compares the table with the one in the document, if it is complete.
func (s secretsTable) compare(t *testing.T) {
	t.Helper()
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return
	}
	var rows [][]string
	for _, server := range authServers {
		row := []string{server.name}
		for _, way := range []string{"basic", "raw_basic", "post"} {
			refused, ok := s[server.name+"|"+way]
			if !ok {
				return // the server isn't installed
			}
			row = append(row, cmp.Or(strings.Join(refused, ", "), "none"))
		}
		rows = append(rows, row)
	}
	var text strings.Builder
	writeTable(&text, []string{"server", "client_secret_basic", "client_secret_basic, raw", "client_secret_post"}, rows)
	compareSection(t, "secrets", text.String()+"\n")
}

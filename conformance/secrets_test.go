package conformance

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
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
// 2.3.1 and Appendix B), and the server decodes them. Four of the servers here do that. The
// other three compare the header with the secret itself. If the client does the one and the
// server the other, only characters that the encoding leaves alone arrive unchanged. In a
// POST body, the encoding is that of the form, and all servers decode it.
func TestSecrets(t *testing.T) {
	// Ory Hydra wants secrets of at least six characters.
	tests := []struct{ name, id, secret string }{
		{"unreserved", "unreserved", "Aa0-._~"},
		{"colon", "colon", "aa:bb:cc"},
		{"plus", "plus", "aaa+bbb"},
		{"slash", "slash", "aaa/bbb=="},
		{"percent", "percent", "percent%"},
		{"percent_encoded", "percent_encoded", "a%2Bb%20c"},
		{"space", "space", "aa bb  cc"},
		{"delimiters", "delimiters", "a&b=c?d#e;f,g"},
		{"quotes", "quotes", `"a'b\c`},
		{"id", "https://client.example/a:b+c d%20", "secret"},
		{"id_without_colon", "client/a+b c%20", "secret"},
		{"unicode", "unicode", "pässwörd-密碼-🔑"}, // not VSCHAR (RFC 6749, Appendix A.2)
	}
	ways := []struct {
		name   string // the head of its column in the document
		method string
		auth   clientcredentials.ClientAuth
	}{
		{"client_secret_basic", secretBasic, new(clientauth.ClientSecretBasic)},
		{"client_secret_basic, raw", secretBasic, &clientauth.ClientSecretBasic{Raw: true}},
		{"client_secret_post", secretPost, new(clientauth.ClientSecretPost)},
	}
	var rows [][]string
	for _, s := range authServers {
		row := []string{s.name}
		for i, way := range ways {
			t.Run(s.name+"/"+slug(way.name), func(t *testing.T) {
				var refused []string
				for _, tt := range tests {
					c := registration{id: fmt.Sprint(tt.id, "-", i), secret: tt.secret, method: way.method, ttl: time.Hour}
					at := s.start(t, c)[0]
					w := newWire(t, at.token)
					conf := &clientcredentials.Config{ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, ClientAuth: way.auth}
					got := do(t.Context(), conf.Client(w.context(t)), at.api, nil)
					for _, method := range methods(w.tokenRequests()) {
						assert.Equal(t, c.method, method, tt.name)
					}
					refusal := ""
					var refusalError *oauth2.RetrieveError
					switch {
					case errors.As(got.err, &refusalError):
						refusal = refusalError.ErrorCode
					case clientcredentials.IsTemporary(got.err):
						refusal = "no answer" // zitadel/oidc closes the connection if the encoding is wrong
					case got.err != nil:
						require.ErrorContains(t, got.err, "ClientID contains a colon")
						refusal = "nothing sent"
					}
					if refusal != "" {
						// go-oauth2 answers 500 for an unknown client.
						assert.Contains(t, []string{"invalid_client", "invalid_request", "invalid_client_metadata", "server_error", "no answer", "nothing sent"}, refusal)
						refused = append(refused, strings.ReplaceAll(tt.name, "_", " "))
						continue
					}
					assert.Equal(t, http.StatusOK, got.status, tt.name)
					assert.Equal(t, c.id, got.answer.ClientID)
				}
				row = append(row, cmp.Or(strings.Join(refused, ", "), "none"))
			})
		}
		rows = append(rows, row)
	}
	incomplete := func(row []string) bool { return len(row) <= len(ways) } // The server isn't installed.
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") || slices.ContainsFunc(rows, incomplete) {
		return
	}
	head := []string{"server"}
	for _, way := range ways {
		head = append(head, way.name)
	}
	var text strings.Builder
	writeTable(&text, head, rows)
	compareSection(t, "secrets", text.String()+"\n")
}

package conformance

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
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
	asIs := func(s string) string { return s }
	ways := []struct {
		name   string // the head of its column in the document
		method string
		encode func(string) string // how the client encodes both; nil: in the POST body
		auth   clientcredentials.ClientAuth
	}{
		{"client_secret_basic", secretBasic, url.QueryEscape, new(clientauth.ClientSecretBasic)},
		{"client_secret_basic, raw", secretBasic, asIs, &clientauth.ClientSecretBasic{Raw: true}},
		{"client_secret_post", secretPost, nil, new(clientauth.ClientSecretPost)},
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
					understood := !s.printable || !tt.unprintable
					if way.encode != nil {
						decode := s.decode
						if decode == nil {
							decode = asIs
						}
						id, secret, _ := strings.Cut(way.encode(c.id)+":"+way.encode(c.secret), ":")
						understood = understood && decode(id) == c.id && decode(secret) == c.secret
					}
					got, refusal := getWith(t, way.auth, c, at)
					if refusal != "" {
						refused = append(refused, strings.ReplaceAll(tt.name, "_", " "))
					}
					switch {
					case understood:
						assert.Empty(t, refusal, tt.name)
						assert.Equal(t, http.StatusOK, got.status, tt.name)
						assert.Equal(t, answer{ClientID: c.id}, got.answer)
					case s.printable && tt.unprintable && way.encode == nil:
						assert.Equal(t, "invalid_client_metadata", refusal, tt.name)
					case i == 1 && strings.Contains(tt.id, ":"):
						assert.Equal(t, "nothing sent", refusal, tt.name)
					case s.name == "go-oauth2" && tt.id != tt.name:
						assert.Equal(t, "server_error", refusal, "it answers 500 for an unknown client")
					default:
						assert.Contains(t, []string{"invalid_client", "invalid_request"}, refusal, tt.name)
					}
				}
				row = append(row, cmp.Or(strings.Join(refused, ", "), "none"))
			})
		}
		rows = append(rows, row)
	}
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") || slices.ContainsFunc(rows, func(row []string) bool { return len(row) <= len(ways) }) {
		return // The table isn't complete: a server isn't installed, or it isn't asked.
	}
	head := []string{"server"}
	for _, way := range ways {
		head = append(head, way.name)
	}
	var text strings.Builder
	writeTable(&text, head, rows)
	compareSection(t, "secrets", text.String()+"\n")
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

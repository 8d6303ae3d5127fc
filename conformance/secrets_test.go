package conformance

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// TestSecrets: ids and secrets arrive as they are.
//
// A client form-encodes both before it puts them into the Basic header (RFC
// 6749, Section 2.3.1 and Appendix B), and the server decodes them: oidc-provider
// does, and go-oauth2 compares what it got with the secret itself. So there
// HTTP Basic takes only those characters that the encoding leaves alone.
// In the POST body the encoding is the form's own, and both get it right.
func TestSecrets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, id, secret string
		// raw secrets look the same when encoded.
		raw bool
		// unicode secrets aren't VSCHAR (RFC 6749, Appendix A.2), and
		// oidc-provider won't have them.
		unicode bool
	}{
		{name: "unreserved", id: "unreserved", secret: "Aa0-._~", raw: true},
		{name: "colon", id: "colon", secret: "a:b:c"},
		{name: "plus", id: "plus", secret: "a+b"},
		{name: "slash", id: "slash", secret: "a/b=="},
		{name: "percent", id: "percent", secret: "100%"},
		{name: "percent_encoded", id: "percent_encoded", secret: "a%2Bb%20c"},
		{name: "space", id: "space", secret: "a b  c"},
		{name: "delimiters", id: "delimiters", secret: "a&b=c?d#e;f,g"},
		{name: "quotes", id: "quotes", secret: `"a'b\c`},
		{name: "id", id: "https://client.example/a:b+c d%20", secret: "secret"},
		{name: "unicode", id: "unicode", secret: "pässwörd-密碼-🔑", unicode: true},
	}
	ways := []struct {
		name   string
		style  oauth2.AuthStyle
		method string
	}{
		{"basic", oauth2.AuthStyleInHeader, secretBasic},
		{"post", oauth2.AuthStyleInParams, secretPost},
	}

	for _, s := range authServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			var clients []registration
			for _, tt := range tests {
				for _, way := range ways {
					clients = append(clients, registration{tt.id + "-" + way.name, tt.secret, way.method, time.Hour})
				}
			}
			at := s.start(t, clients...)
			for i, tt := range tests {
				for j, way := range ways {
					c, at := clients[len(ways)*i+j], at[len(ways)*i+j]
					t.Run(tt.name+"/"+way.name, func(t *testing.T) {
						w := newWire(t, at.token)
						conf := &clientcredentials.Config{
							ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, AuthStyle: way.style,
						}
						got, err := get(conf.Client(w.context(t)), at.api)
						requests := w.tokenRequests()
						for _, method := range methods(requests) {
							assert.Equal(t, way.method, method)
						}

						var refusal *oauth2.RetrieveError
						switch {
						case s.name == "oidc-provider" && tt.unicode && way.method == secretBasic:
							require.ErrorAs(t, err, &refusal)
							assert.Equal(t, "invalid_request", refusal.ErrorCode)
						case s.name == "oidc-provider" && tt.unicode:
							require.ErrorAs(t, err, &refusal)
							assert.Equal(t, "invalid_client_metadata", refusal.ErrorCode)
						case s.name == "go-oauth2" && tt.name == "id" && way.method == secretBasic:
							require.ErrorAs(t, err, &refusal)
							assert.Equal(t, "server_error", refusal.ErrorCode, "its 500 for an unknown client")
						case s.name == "go-oauth2" && !tt.raw && way.method == secretBasic:
							require.ErrorAs(t, err, &refusal)
							assert.Equal(t, "invalid_client", refusal.ErrorCode)
						default:
							require.NoError(t, err)
							assert.Equal(t, answer{http.StatusOK, c.id, ""}, got)
							assert.Len(t, requests, 1)
						}
					})
				}
			}
		})
	}
}

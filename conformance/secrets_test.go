package conformance

import (
	"net/http"
	"net/url"
	"strings"
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
// 6749, Section 2.3.1 and Appendix B), and the server decodes them. Of the
// servers here two do that and two compare what they got with the secret itself.
// So each takes only those characters in the other form of the header that the
// encoding leaves alone.
// In the POST body the encoding is the form's own, and all get it right.
func TestSecrets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, id, secret string
		// unprintable secrets aren't VSCHAR (RFC 6749, Appendix A.2).
		unprintable bool
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
		name   string
		method string
		// encode is what the client does to both; nil is for the POST body.
		encode func(string) string
		get    func(*testing.T, registration, endpoints) (answer, string)
	}{
		{"basic", secretBasic, url.QueryEscape, getWith(oauth2.AuthStyleInHeader)},
		{"raw_basic", secretBasic, asIs, getRaw},
		{"post", secretPost, nil, getWith(oauth2.AuthStyleInParams)},
	}

	for _, s := range authServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			var clients []registration
			for _, tt := range tests {
				for _, way := range ways {
					clients = append(clients, registration{
						id: tt.id + "-" + way.name, secret: tt.secret, method: way.method, ttl: time.Hour,
					})
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
						got, refusal := way.get(t, c, at)
						if understood {
							assert.Empty(t, refusal)
							assert.Equal(t, answer{http.StatusOK, c.id, ""}, got)
							return
						}
						switch {
						case s.printable && tt.unprintable && way.encode == nil:
							assert.Equal(t, "invalid_client_metadata", refusal)
						case s.name == "go-oauth2" && tt.id != tt.name:
							assert.Equal(t, "server_error", refusal, "its 500 for an unknown client")
						default:
							assert.Contains(t, []string{"invalid_client", "invalid_request"}, refusal)
						}
					})
				}
			}
		})
	}
}

// getWith returns a function that calls the API through the library, and
// returns what the API said, or the error code of the token endpoint.
func getWith(style oauth2.AuthStyle) func(*testing.T, registration, endpoints) (answer, string) {
	return func(t *testing.T, c registration, at endpoints) (answer, string) {
		w := newWire(t, at.token)
		conf := &clientcredentials.Config{
			ClientID: c.id, ClientSecret: c.secret, TokenURL: at.token, AuthStyle: style,
		}
		got, err := get(conf.Client(w.context(t)), at.api)
		requests := methods(w.tokenRequests())
		if err != nil {
			for _, method := range requests {
				assert.Equal(t, c.method, method)
			}
			var refusal *oauth2.RetrieveError
			require.ErrorAs(t, err, &refusal)
			return answer{}, refusal.ErrorCode
		}
		assert.Equal(t, []string{c.method}, requests)
		return got, ""
	}
}

// getRaw does the same with HTTP Basic of RFC 7617: nothing is encoded.
func getRaw(t *testing.T, c registration, at endpoints) (answer, string) {
	r := plainRequest(t, at, nil)
	r.SetBasicAuth(c.id, c.secret)
	got := send(t, r)
	if got.status != http.StatusOK {
		return answer{}, got.Error
	}
	api := send(t, plainCall(t, at, "Bearer", got.AccessToken))
	return answer{api.status, api.ClientID, ""}, ""
}

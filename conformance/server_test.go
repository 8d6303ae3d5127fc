package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The methods of client authentication, by their names in RFC 7591, Section 2, and RFC
// 8705, Section 2.
const (
	secretBasic   = "client_secret_basic"
	secretPost    = "client_secret_post"
	secretJWT     = "client_secret_jwt"
	privateKeyJWT = "private_key_jwt"
	tlsAuth       = "tls_client_auth"
	selfSignedTLS = "self_signed_tls_client_auth"
)

// The scopes that every server here knows. A client may request scopeRead, but not
// scopeAdmin.
const (
	scopeRead  = "read"
	scopeAdmin = "admin"
)

// A registration is a client as the authorization server knows it. The tests share the
// servers, so each test has its own names for its clients.
type registration struct {
	id, secret string
	method     string
	ttl        time.Duration // of its tokens
	// alg is the only algorithm for the client's assertions. If it is empty, any
	// algorithm of the method will do.
	alg string
	// keys are the client's public keys, or its certificates for selfSignedTLS.
	keys []jose.JSONWebKey
	// metadata are further members, of RFC 7591 or specific to a server.
	metadata map[string]any
}

// dpopBound is the metadata of a client that needs a DPoP proof for each token.
func dpopBound() map[string]any { return map[string]any{"dpop_bound_access_tokens": true} }

// secretClient returns a client with a secret, and tokens that live for an hour.
func secretClient(id, method string, metadata map[string]any) registration {
	return registration{id: id, secret: "secret", method: method, ttl: time.Hour, metadata: metadata}
}

// json returns the registration in the form that the programs expect.
func (r registration) json() map[string]any {
	c := map[string]any{
		"client_id":                  r.id,
		"token_endpoint_auth_method": r.method,
		"scope":                      scopeRead,
		"ttl":                        int(r.ttl / time.Second),
	}
	if r.secret != "" {
		c["client_secret"] = r.secret
	}
	if r.alg != "" {
		c["token_endpoint_auth_signing_alg"] = r.alg
	}
	if r.keys != nil {
		c["jwks"] = jose.JSONWebKeySet{Keys: r.keys}
	}
	maps.Copy(c, r.metadata)
	return c
}

// endpoints are the URLs of a server.
type endpoints struct {
	token  string
	api    string // accepts the tokens
	issuer string // "" if the server has none
	admin  string // for the tests
}

// A starter makes the clients known to a server, and returns the endpoints of each of
// them, in the order of the registrations. The server runs until the test ends, or
// longer.
type starter func(t *testing.T, clients ...registration) []endpoints

// register makes clients known to the server, or changes their registrations.
func (e endpoints) register(t *testing.T, clients ...registration) {
	t.Helper()
	list := make([]map[string]any, len(clients))
	for i, c := range clients {
		list[i] = c.json()
	}
	body, err := json.Marshal(list)
	require.NoError(t, err)
	e.administer(t, "/clients", string(body))
}

// revoke makes the server forget a token.
func (e endpoints) revoke(t *testing.T, token string) {
	t.Helper()
	e.administer(t, "/revoke", token)
}

// administer sends a command to the server's admin endpoint.
func (e endpoints) administer(t *testing.T, command, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(e.admin+command, "application/octet-stream", strings.NewReader(body))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, command)
}

// An authServer is a kind of authorization server, with its properties.
type authServer struct {
	name  string
	start starter
	// lenient servers accept client_secret_basic from a client that is registered for
	// client_secret_post, and the other way round.
	lenient bool
}

var authServers = []authServer{
	{name: "oidc-provider", start: oidcProvider.start, lenient: true},
	{name: "go-oauth2", start: startGoOAuth2},
	{name: "authlib", start: authlib.start},
	{name: "django-oauth-toolkit", start: django.start, lenient: true},
	{name: "Ory Hydra", start: hydra.start},
	{name: "node-oauth", start: nodeOAuth.start, lenient: true},
	{name: "zitadel", start: startZitadel, lenient: true},
}

func TestMain(m *testing.M) {
	// Tests that wait for tokens to expire need no processor. An option after this one wins.
	os.Args = slices.Insert(os.Args, 1, "-test.parallel=64")
	// The store of go-oauth2 can't be closed.
	goleak.VerifyTestMain(withPrograms{m}, goleak.IgnoreAnyFunction("github.com/tidwall/buntdb.(*DB).backgroundManager"))
}

// withPrograms runs tests and then ends the programs that they have started.
type withPrograms struct{ m *testing.M }

func (w withPrograms) Run() int {
	code := w.m.Run()
	_ = os.RemoveAll(cctokenTemporary)
	for _, p := range programs {
		if err := p.stop(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", p.name, err)
			code = max(code, 1)
		}
		if code != 0 && p.stderr.Len() > 0 {
			fmt.Fprintf(os.Stderr, "standard error of %s:\n%s", p.name, &p.stderr)
		}
	}
	return code
}

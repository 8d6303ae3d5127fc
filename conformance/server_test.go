package conformance

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The names of RFC 7591, Section 2, and of RFC 8705, Section 2, for the methods
// a client is registered with.
const (
	secretBasic   = "client_secret_basic"
	secretPost    = "client_secret_post"
	secretJWT     = "client_secret_jwt"
	privateKeyJWT = "private_key_jwt"
	tlsAuth       = "tls_client_auth"
	selfSignedTLS = "self_signed_tls_client_auth"
)

// The scopes that every server here knows of. A client may ask for scopeRead
// and is refused scopeAdmin.
const (
	scopeRead  = "read"
	scopeAdmin = "admin"
)

// A registration is a client as the authorization server knows it. One server
// serves all tests, so each of them has names of its own for its clients.
type registration struct {
	id, secret string
	method     string
	ttl        time.Duration // of its tokens
	// alg is the only algorithm for the client's assertions; "" is any that
	// goes with the method.
	alg string
	// keys are the client's public keys, or with selfSignedTLS its certificates.
	keys []jose.JSONWebKey
	// metadata are further members of RFC 7591, and what else a server knows.
	metadata map[string]any
}

// json returns the registration as the servers' programs take it.
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

// endpoints are where a client gets its token and where it spends it.
type endpoints struct {
	token, api string
	// issuer is "" if the server has none.
	issuer string
	// admin is the test's own door.
	admin string
}

// register makes clients known to the server, or changes what it knows of them.
func (e endpoints) register(t *testing.T, clients ...registration) {
	t.Helper()
	list := make([]map[string]any, len(clients))
	for i, c := range clients {
		list[i] = c.json()
	}
	body, err := json.Marshal(list)
	require.NoError(t, err)
	require.NoError(t, administer(e.admin+"/clients", bytes.NewReader(body)))
}

// revoke has the server forget a token.
func (e endpoints) revoke(t *testing.T, token string) {
	t.Helper()
	require.NoError(t, administer(e.admin+"/revoke", strings.NewReader(token)))
}

// administer sends a command to a server's admin endpoint.
func administer(command string, body io.Reader) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(command, "application/octet-stream", body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", command, resp.Status)
	}
	return nil
}

// An authServer is a kind of authorization server, with what we found out about it.
type authServer struct {
	name string
	// start makes the clients known to the server, and returns the endpoints of
	// each of them in the order of the registrations. The server runs until the
	// test ends, or longer.
	start func(t *testing.T, clients ...registration) []endpoints
	// lenient servers take the secret of a client registered for one of
	// client_secret_basic and client_secret_post by the other one too.
	lenient bool
	// terse servers give no error_description.
	terse bool
	// printable servers refuse secrets that aren't VSCHAR (RFC 6749, Appendix A.2).
	printable bool
	// slow servers take so much of the processor that under the load of several
	// clients nothing could be said of any.
	slow bool
	// decode is what the server does to the id and the secret in HTTP Basic, as
	// RFC 6749, Section 2.3.1 wants it. It is nil for the many that take them as
	// they are.
	decode func(string) string
}

var authServers = []authServer{
	{name: "oidc-provider", start: oidcProvider.start, lenient: true, printable: true, decode: formDecode},
	{name: "go-oauth2", start: startGoOAuth2},
	{name: "authlib", start: authlib.start, terse: true, slow: true},
	{name: "django-oauth-toolkit", start: django.start, lenient: true, terse: true, slow: true, decode: formDecodeAnyway},
}

// formDecode undoes application/x-www-form-urlencoded; what isn't that is nothing.
func formDecode(s string) string {
	decoded, err := url.QueryUnescape(s)
	if err != nil {
		return ""
	}
	return decoded
}

// formDecodeAnyway is Python's unquote_plus, to which "%" is a character too.
func formDecodeAnyway(s string) string {
	if decoded := formDecode(s); decoded != "" {
		return decoded
	}
	return s
}

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait for tokens to expire rather than compute: how many of
	// them run at a time has nothing to do with the number of processors.
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "64"); err != nil {
			panic(err)
		}
	}
	// The store of go-oauth2 has no way to be closed.
	goleak.VerifyTestMain(withPrograms{m}, goleak.IgnoreAnyFunction("github.com/tidwall/buntdb.(*DB).backgroundManager"))
}

// withPrograms ends the servers that the tests have started.
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
			fmt.Fprintf(os.Stderr, "%s's standard error:\n%s", p.name, &p.stderr)
		}
	}
	return code
}

package conformance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// A column is a test that runs with each server and method.
type column struct {
	name string
	// test returns the text of its cell in docs/providers.md, or "" if it doesn't apply.
	test func(*testing.T, *testClient) string
}

var columns = []column{
	{"token works", testTokenWorks},
	{"wrong credential", testWrongCredential},
	{"refused scope", testRefusedScope},
	{"revoked token", testRevokedToken},
	{"credential replaced", testReplacedCredential},
	{"sent again", testReplay},
	{"token alone", testTokenAlone},
	{"by the other of basic and post", testOtherMethod},
}

const lifetimesColumn = "ten lifetimes"

// A matrixServer is a server with the methods that it accepts.
type matrixServer struct {
	authServer
	methods  []clientMethod
	audience bool           // assertions are for its issuer
	nonces   bool           // DPoP proofs need a nonce
	metadata map[string]any // members that each client needs
	// unknownKey and replayed are the errors for an assertion with a key that the server
	// doesn't know, and for one that was used before. Empty: invalid_client.
	unknownKey, replayed string
	lasting              []string // the methods and algorithms in the test of ten lifetimes
}

func matrixServers() []matrixServer {
	provider, goOAuth2, authlib, django := authServers[0], authServers[1], authServers[2], authServers[3]
	hydra, nodeOAuth, zitadel := authServers[4], authServers[5], authServers[6]
	basic := []string{"client_secret_basic", "client_secret_post", "client_secret_basic, detected", "client_secret_post, detected"}
	variant := func(s authServer, name string, start starter) authServer {
		s.name, s.start = name, start
		return s
	}
	return []matrixServer{
		{
			authServer: provider, methods: slices.Concat(basicMethods, assertionMethods(), dpopMethods), audience: true,
			lasting: append(basic, "private_key_jwt ES256", "client_secret_basic, DPoP"),
		},
		{
			authServer: variant(provider, "oidc-provider, https", oidcProviderTLS.start), audience: true,
			methods: slices.Concat(certificateMethods, assertionMethods(), dpopMethods), lasting: []string{tlsAuth},
		},
		{
			authServer: variant(provider, "oidc-provider, nonces for DPoP", oidcProviderNonce.start), audience: true,
			methods: dpopMethods, nonces: true, lasting: []string{"client_secret_basic, DPoP"},
		},
		{authServer: goOAuth2, methods: basicMethods, lasting: basic},
		// These servers need so much of the processor that a load of several clients would
		// prove nothing.
		{authServer: authlib, methods: slices.Concat(basicMethods, assertionMethods()), lasting: basic[3:]},
		{authServer: variant(authlib, "authlib, by issuer", authlib.start), methods: assertionMethods(), audience: true, metadata: byIssuer()},
		{authServer: django, methods: basicMethods, lasting: basic[3:]},
		{
			authServer: hydra, methods: slices.Concat(basicMethods, hydraAssertionMethods()),
			unknownKey: "invalid_request", replayed: "jti_known",
			lasting: []string{basic[3], "private_key_jwt ES256"},
		},
		{authServer: nodeOAuth, methods: basicMethods, lasting: basic[2:3]},
		{authServer: zitadel, methods: basicMethods, lasting: basic[:1]},
	}
}

// hydraAssertionMethods returns the methods with an assertion that Hydra implements.
func hydraAssertionMethods() []clientMethod {
	return slices.DeleteFunc(assertionMethods(), func(m clientMethod) bool {
		return m.registered == secretJWT || m.alg == "EdDSA"
	})
}

// A testClient is a client of a server, for one test.
type testClient struct {
	server matrixServer
	method clientMethod
	at     endpoints
	known  registration
	wallet *wallet
	wire   *wire
	conf   *clientcredentials.Config
	ctx    context.Context // the library's
}

// newClient registers a client with its first credential, and gives it that credential.
func newClient(t *testing.T, s matrixServer, m clientMethod, ttl time.Duration) *testClient {
	t.Helper()
	c := &testClient{server: s, method: m, known: m.registration("client of "+t.Name(), ttl, first)}
	c.known.id = strings.NewReplacer(" ", "_", ",", "", "/", "-").Replace(c.known.id)
	maps.Copy(c.known.metadata, s.metadata)
	c.at = s.start(t, c.known)[0]
	c.wire = newWire(t, c.at.token)
	c.wallet = &wallet{t: t, dir: t.TempDir(), method: m, id: c.known.id, audience: c.at.token}
	c.conf = &clientcredentials.Config{
		ClientID: c.known.id, TokenURL: c.at.token, Scopes: []string{scopeRead}, AuthStyle: m.style,
	}
	if s.audience {
		c.conf.Issuer, c.wallet.audience = c.at.issuer, c.at.issuer
	}
	if m.auth != nil {
		c.conf.ClientAuth = m.auth(c.wallet)
	}
	if m.dpop {
		c.conf.DPoP = testKeys()["ES256"]
	}
	c.ctx = c.wire.context(t)
	if c.usesCertificate() {
		c.ctx = c.wire.certified(t)
	}
	c.put(first)
	return c
}

func (c *testClient) usesCertificate() bool {
	return c.method.registered == tlsAuth || c.method.registered == selfSignedTLS
}

// put gives the client the credential of a generation.
func (c *testClient) put(generation int) {
	c.wallet.put(generation)
	if c.method.auth == nil {
		c.conf.ClientSecret = secrets[generation]
	}
}

// replace replaces the credential that the server knows.
func (c *testClient) replace(t *testing.T, generation int) {
	t.Helper()
	known := c.method.registration(c.known.id, c.known.ttl, generation)
	maps.Copy(known.metadata, c.server.metadata)
	c.at.register(t, known)
}

// refusal returns the error for a wrong credential.
func (c *testClient) refusal() string {
	if c.method.registered == privateKeyJWT {
		return cmp.Or(c.server.unknownKey, "invalid_client")
	}
	return "invalid_client"
}

// refused returns the methods that the client tries, in order, if the server refuses all
// of them.
func (c *testClient) refused() []string {
	switch {
	case c.usesCertificate():
		return []string{tlsAuth} // the wire reports both methods like this
	case c.method.detects():
		return []string{secretBasic, secretPost}
	default:
		return []string{c.method.registered}
	}
}

// accepted returns the methods that the client tries with the right credential, in order,
// until the server has authenticated it.
func (c *testClient) accepted() []string {
	if c.method.detects() && (c.server.lenient || c.method.registered == secretBasic) {
		return c.refused()[:1]
	}
	return c.refused()
}

// granted returns the methods of the requests until the client has a token, including the
// one that brings the server's nonce.
func (c *testClient) granted() []string {
	if c.server.nonces {
		return append(c.accepted(), c.accepted()...) // first without a nonce, then with it
	}
	return c.accepted()
}

// grantedAgain is granted for a client that remembers the method that worked.
func (c *testClient) grantedAgain() []string {
	if !c.method.detects() {
		return c.granted()
	}
	return last(c.granted())
}

func last(methods []string) []string { return methods[len(methods)-1:] }

// requireGood requires that the API accepts the client's token, and knows whose it is.
func (c *testClient) requireGood(t *testing.T, client *http.Client) {
	t.Helper()
	got := requireOK(t, client, c.at.api).answer
	require.Equal(t, []string{c.known.id, scopeRead}, []string{got.ClientID, got.Scope})
}

// TestMatrix runs each column with each server and method, and compares the results with
// the matrix in docs/providers.md.
func TestMatrix(t *testing.T) {
	servers := matrixServers()
	found := newMatrix(servers)
	for _, s := range servers {
		t.Run(slug(s.name), func(t *testing.T) {
			for _, m := range s.methods {
				t.Run(slug(m.name+" "+m.alg), func(t *testing.T) {
					for _, column := range columns {
						t.Run(slug(column.name), func(t *testing.T) {
							c := newClient(t, s, m, 24*time.Hour)
							if cell := column.test(t, c); !t.Failed() {
								found.set(s, m, column.name, cell)
							}
						})
					}
				})
			}
		})
	}

	// The rest waits more than it computes. It runs in parallel, but only with tests that
	// wait, too.
	t.Parallel()
	t.Run("ten_lifetimes", func(t *testing.T) {
		for _, s := range servers {
			for _, m := range s.methods {
				if !slices.Contains(s.lasting, strings.TrimSpace(m.name+" "+m.alg)) {
					found.set(s, m, lifetimesColumn, "")
					continue
				}
				t.Run(slug(s.name+" "+m.name), func(t *testing.T) {
					t.Parallel()
					c := newClient(t, s, m, shortLife)
					if cell := testTenLifetimes(t, c); !t.Failed() {
						found.set(s, m, lifetimesColumn, cell)
					}
				})
			}
		}
	})
	found.compare(t)
}

// slug returns a name in a form for the name of a test.
func slug(name string) string {
	return strings.NewReplacer(", ", "-", " ", "_").Replace(strings.TrimSpace(name))
}

// testTokenWorks: the API accepts the token and knows whose it is, and the client
// remembers the method that worked.
func testTokenWorks(t *testing.T, c *testClient) string {
	client := c.conf.Client(c.ctx)
	for range 3 {
		c.requireGood(t, client)
	}
	assert.Equal(t, c.granted(), methods(c.wire.tokenRequests()), "three calls use one token")

	c.put(first) // because a ready-made assertion can't be used again
	token, err := c.conf.Token(c.ctx)
	require.NoError(t, err)
	assert.Equal(t, scopeRead, token.Extra("scope"))
	assert.WithinDuration(t, time.Now().Add(c.known.ttl), token.Expiry, time.Minute)
	assert.Equal(t, c.grantedAgain(), methods(c.wire.tokenRequests()), "Token makes another request, with the method that worked")

	assert.Equal(t, map[bool]string{false: "Bearer", true: "DPoP"}[c.method.dpop], token.Type())
	return "yes"
}

// testWrongCredential: a wrong credential leads to a certain error and to no needless
// requests, and the same token source works with the right one.
func testWrongCredential(t *testing.T, c *testClient) string {
	c.put(second)
	source := c.conf.TokenSource(c.ctx)
	_, err := source.Token()
	cell := requireRefusal(t, err, c.refusal())
	assert.Equal(t, c.refused(), methods(c.wire.tokenRequests()))
	c.put(first)
	token, err := source.Token()
	require.NoError(t, err)
	assert.NotEmpty(t, token.AccessToken)
	assert.Equal(t, c.granted(), methods(c.wire.tokenRequests()))
	return cell
}

// testRefusedScope: a server that refuses the scope has authenticated the client, so the
// client doesn't try another method.
func testRefusedScope(t *testing.T, c *testClient) string {
	c.conf.Scopes = []string{scopeRead, scopeAdmin}
	_, err := c.conf.Token(c.ctx)
	cell := requireRefusal(t, err, "invalid_scope")
	assert.Equal(t, c.granted(), methods(c.wire.tokenRequests()))
	return cell
}

// testRevokedToken: the server forgets a token long before it expires. The API answers
// 401 in its own way, and the client sends the call again with a new token.
func testRevokedToken(t *testing.T, c *testClient) string {
	client := c.conf.Client(c.ctx)
	before := requireOK(t, client, c.at.api)
	assert.Equal(t, c.granted(), methods(c.wire.tokenRequests()))
	c.at.revoke(t, before.token)
	c.put(first)

	after := requireOK(t, client, c.at.api)
	assert.Equal(t, before.token, after.token, "the client doesn't know yet that the token was revoked")
	if !c.server.nonces { // a nonce may be too old by now, which takes another hop
		assert.Equal(t, 2, after.hops)
	}
	assert.Equal(t, last(c.accepted()), methods(c.wire.tokenRequests()))

	assert.NotEqual(t, before.token, requireOK(t, client, c.at.api).token)
	return "new one, call repeated"
}

// testReplacedCredential: the server replaces the credential, and then the client does.
func testReplacedCredential(t *testing.T, c *testClient) string {
	client := c.conf.Client(c.ctx)
	c.requireGood(t, client)
	assert.Equal(t, c.granted(), methods(c.wire.tokenRequests()))
	c.replace(t, second)

	// The client doesn't have the new one yet, but it still has a token.
	c.put(first)
	_, err := c.conf.Token(c.ctx)
	requireRefusal(t, err, c.refusal())
	if !c.method.detects() { // a client that detects the method knows it by now
		assert.Equal(t, c.refused(), methods(c.wire.tokenRequests()))
	}
	c.requireGood(t, client)

	c.put(second)
	c.wire.tokenRequests()
	_, err = c.conf.Token(c.ctx)
	require.NoError(t, err)
	assert.Equal(t, c.grantedAgain(), methods(c.wire.tokenRequests()), "the next token request uses the new credential")
	if c.method.auth == nil {
		return "next request"
	}

	// The client gets the new one at the moment when the server refuses the old one.
	c.put(first)
	c.wire.during(func() { c.put(second) })
	_, err = c.conf.Token(c.ctx)
	require.NoError(t, err)
	assert.Equal(t, append(c.refused(), c.granted()...), methods(c.wire.tokenRequests()), "the new credential is used at once")
	return "at once"
}

// testReplay: nobody else can use what the client has sent, and each attempt of the
// client sends something new.
func testReplay(t *testing.T, c *testClient) string {
	if c.method.dpop {
		seen := requireOK(t, c.conf.Client(c.ctx), c.at.api)
		r := plainCall(t, c.at, "DPoP", seen.token)
		r.Header.Set("DPoP", seen.proof)
		got := send(t, r)
		assert.Equal(t, http.StatusUnauthorized, got.status)
		return fmt.Sprintf("%d %s", got.status, got.Error)
	}
	if c.method.registered != secretJWT && c.method.registered != privateKeyJWT {
		return ""
	}
	_, err := c.conf.Token(c.ctx)
	require.NoError(t, err)
	seen := c.wire.tokenRequests()
	got := askWithAssertion(t, c.at, seen[0].assertion)
	replayed := cmp.Or(c.server.replayed, "invalid_client")
	assert.Equal(t, replayed, got.Error)

	_, err = c.conf.Token(c.ctx)
	if c.method.readyMade {
		requireRefusal(t, err, replayed)
		assert.Len(t, c.wire.tokenRequests(), 1)
	} else {
		require.NoError(t, err)
	}
	return fmt.Sprintf("%d %s", got.status, got.Error)
}

// testTokenAlone: the API refuses a bound token without its key or certificate (RFC 8705,
// Section 3, and RFC 9449, Section 7.2).
func testTokenAlone(t *testing.T, c *testClient) string {
	if !c.method.dpop && !c.usesCertificate() {
		return ""
	}
	c.requireGood(t, c.conf.Client(c.ctx))
	token, err := c.conf.Token(c.ctx)
	require.NoError(t, err)
	got := send(t, plainCall(t, c.at, "Bearer", token.AccessToken))
	assert.Equal(t, http.StatusUnauthorized, got.status)
	return fmt.Sprintf("%d %s", got.status, got.Error)
}

// testOtherMethod: the client is set to a method that it isn't registered for. It must
// not send the secret by the other one.
func testOtherMethod(t *testing.T, c *testClient) string {
	if c.method.auth != nil || c.method.detects() || c.method.dpop {
		return ""
	}
	other := secretPost
	c.conf.AuthStyle = oauth2.AuthStyleInParams + oauth2.AuthStyleInHeader - c.method.style
	if c.conf.AuthStyle == oauth2.AuthStyleInHeader {
		other = secretBasic
	}
	cell := "works too"
	token, err := c.conf.Token(c.ctx)
	if c.server.lenient {
		require.NoError(t, err)
		assert.True(t, token.Valid())
	} else {
		cell = requireRefusal(t, err, "invalid_client")
	}
	assert.Equal(t, []string{other}, methods(c.wire.tokenRequests()))
	return cell
}

// requireRefusal requires a bare *oauth2.RetrieveError, because programs use a type
// assertion. It must contain the server's answer and no secret. It returns the text for
// the matrix.
func requireRefusal(t *testing.T, err error, code string) string {
	t.Helper()
	require.Error(t, err)
	refusal, ok := err.(*oauth2.RetrieveError)
	require.Truef(t, ok, "a bare *oauth2.RetrieveError, not %T: %v", err, err)
	assert.Equal(t, code, refusal.ErrorCode)
	require.NotNil(t, refusal.Response)
	for _, secret := range secrets {
		assert.NotContains(t, err.Error(), secret)
	}
	return fmt.Sprintf("%d %s", refusal.Response.StatusCode, refusal.ErrorCode)
}

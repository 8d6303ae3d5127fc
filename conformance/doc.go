// Package conformance runs clientcredentials against authorization servers that its
// authors did not write. It contains only tests, and is never released.
//
// The servers:
//
//   - oidc-provider, a certified OpenID provider for Node.js, as a separate process
//     (oidc-provider/server.mjs). Its API asks the provider's own model whether a token is
//     live, and checks DPoP proofs and client certificates. It runs in several
//     configurations: with http, with a nonce required in each DPoP proof, with https and
//     client certificates, and with a wrong clock. A client may be registered with claims
//     that its assertions must have.
//   - Ory Hydra, as a separate process (hydra/main.go), built by `make setup` from a module
//     of its own, and a second one whose clock is slow. A client has exactly one method.
//     Assertions are for its token endpoint. It answers invalid_request if it doesn't know
//     the key of an assertion, and status 500 if the assertion has expired.
//   - go-oauth2 (github.com/go-oauth2/oauth2/v4), in this process: one server that accepts
//     only HTTP Basic, and one that accepts only the POST body.
//   - zitadel/oidc (github.com/zitadel/oidc/v3), in this process. Its access tokens are JWTs.
//     It form-decodes HTTP Basic, and closes the connection if that fails.
//   - @node-oauth/oauth2-server, for Node.js, as a separate process (node-oauth/server.mjs).
//     It doesn't decode HTTP Basic. It answers a wrong secret in the POST body with 400
//     instead of 401.
//   - Authlib, for Python, as a separate process (authlib/server.py). It doesn't decode
//     HTTP Basic, and accepts assertions for a single audience: its token endpoint, or its
//     issuer for some clients.
//   - django-oauth-toolkit, for Python, as a separate process (django/server.py). It
//     form-decodes HTTP Basic.
//
// TestMatrix tries each server with each method of client authentication that it accepts
// (TestMatrix/server/method/outcome). docs/providers.md explains the outcomes and has the
// results. In short:
//
//   - The token works at the API.
//   - A wrong credential leads to a bare *oauth2.RetrieveError with invalid_client, or
//     invalid_request from Ory Hydra. The client makes no more requests than the detection of its method needs. With the
//     right credential, the same token source works.
//   - A refused scope leads to invalid_scope. The client doesn't try another method.
//   - A token that the server has forgotten is replaced during the call that was refused.
//   - A replaced credential is used from the next request on, or at once if the server has
//     just refused the old one. The valid token stays in use.
//   - Assertions and proofs can't be used again, and each attempt has new ones.
//   - A bound token is useless without its key or certificate.
//   - A chosen style is never replaced by the other one.
//   - During ten lifetimes of a three-second token, under concurrent load, no call fails,
//     calls go on during token requests, and the number of token requests stays close to
//     the number of lifetimes. Some of the methods are tested in this way.
//
// More tests of the library:
//
//   - TestSecrets: the characters that RFC 6749, Section 2.3.1 and Appendix B tell a client
//     to encode
//   - TestNonces: DPoP with a server whose clock is wrong
//   - TestDiscover: the way from an issuer to a token
//   - TestAudience: a parameter that says which API the token is for
//   - TestJWTBearer, TestTokenExchange and TestChaining: grants of package grant, with Ory Hydra
//     and oidc-provider. oidc-provider leaves these grants to server.mjs, which verifies
//     assertions with another library.
//   - TestVerifiers, TestDPoPVerifiers and TestA3_VerifiedByChain: other implementations
//     verify what the library signs.
//   - TestA1_ServerThatWantsMore, TestA4_ClockAhead and TestA5_ServersWithoutClientID: servers
//     that want other assertions than most
//
// TestCctoken runs the scripts in testdata/cctoken with cctoken, the command line tool, as
// it is installed. TestCctokenOnServers runs it against the servers. It also compiles the
// Config that cctoken doctor writes for each of them, which must lead to a token.
// TestC2_DoctorNamesTheCause makes ten kinds of mistakes at the servers, which cctoken
// doctor must name. TestC7_Renegotiation has a small server of its own
// (renegotiation/server.mjs).
//
// TestAssertions, TestDPoP and TestMutualTLS test the servers themselves: what they accept,
// and what they refuse. Without the refusals, it would mean little that the servers accept
// what the library sends.
//
// TestR14_Fetch runs a program in Node.js, where net/http uses the Fetch API, as in a
// browser. In the tests of P15 the common decoders of configuration fill a Config.
//
// Everything that keeps the processor busy runs first, one test at a time, so that it
// doesn't disturb the load.
//
// To run the tests, from the root of the repository:
//
//	make setup
//	cd conformance && go test -race ./...
//
// The load takes half a minute of real time, with all of its tests in parallel; -short
// leaves it out. The tests of a server that isn't installed are skipped. With
// CLIENTCREDENTIALS_REQUIRE_SERVERS=1 they fail instead.
package conformance

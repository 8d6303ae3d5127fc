// Package conformance runs clientcredentials against authorization servers
// that its authors did not write. It holds tests only, and is never released.
//
// The servers:
//
//   - oidc-provider, a certified OpenID provider for Node.js, as a process of
//     its own (oidc-provider/server.mjs). Its API asks the provider's own model
//     whether a token is live, and checks DPoP proofs and client certificates.
//     There is one by http, one that wants a nonce in each DPoP proof, one by
//     https that asks for client certificates, and one whose clock is wrong.
//   - go-oauth2 (github.com/go-oauth2/oauth2/v4), in this process: one server
//     that knows HTTP Basic only, and one that knows the POST body only.
//   - Authlib, for Python, as a process of its own (authlib/server.py). It takes
//     HTTP Basic as it is, and assertions for one audience only: its token
//     endpoint, or for some clients its issuer.
//   - django-oauth-toolkit, for Python, as a process of its own
//     (django/server.py). It form-decodes HTTP Basic.
//
// TestMatrix tries each of them with each method of client authentication that
// it takes (TestMatrix/server/method/outcome); docs/providers.md says what the
// outcomes are, and holds what came of them. In words:
//
//   - the token works at the API;
//   - a wrong credential is a bare *oauth2.RetrieveError with invalid_client, is
//     not tried more often than detection has to, and the right one heals the same
//     token source;
//   - a refused scope is invalid_scope, and is not taken for a question of
//     authentication;
//   - a token that the server has forgotten is replaced, in the call that was refused;
//   - a credential that is replaced counts from the next request on, and at once if
//     the old one has just been refused, while the valid token serves on;
//   - assertions and proofs can't be used again, and new attempts have new ones;
//   - a bound token is of no use without what it is bound to;
//   - a style that was chosen is not replaced by the other one;
//   - through ten lifetimes of a three-second token, under concurrent load, no
//     call fails, no call waits for a token request, and the number of token
//     requests stays near the number of lifetimes (for some of the methods).
//
// Besides, TestSecrets covers the characters that RFC 6749, Section 2.3.1 and
// Appendix B have a client encode, TestNonces DPoP where the server has its own idea
// of time, TestRenewedCertificate certificates in files, TestDiscover the way from an
// issuer to a token, and TestTokenThatDiesEarly a server whose tokens die up to a
// second before it said they would: the API's 401 brings a new token, and the call
// is made again. TestVerifiers and TestDPoPVerifiers have others verify what the
// library signs.
//
// TestCctoken runs cctoken, the command line tool, as it is installed, by the scripts in
// testdata/cctoken. TestCctokenOnServers does so on the servers, and compiles the Config
// that cctoken doctor writes about each: a token comes of it.
//
// TestAssertions, TestDPoP and TestMutualTLS are about the servers alone: what
// they take and, so that it means something when they take ours, what they refuse.
//
// TestR14_Fetch runs a program in Node.js, where net/http uses the Fetch API, as in a browser.
// The tests of P15 have the common decoders of configuration fill a Config.
//
// All that keeps the processor busy comes first, one test at a time, so that it is
// out of the way of the load.
//
// To run them, from the repository's root:
//
//	make setup
//	cd conformance && go test -race ./...
//
// The load takes half a minute of wall clock, all of it in parallel; -short
// leaves it out. The tests of a server that isn't installed are skipped, unless
// CLIENTCREDENTIALS_REQUIRE_SERVERS=1 makes that a failure.
package conformance

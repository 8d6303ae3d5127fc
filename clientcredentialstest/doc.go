// Package clientcredentialstest is a fake OAuth 2.0 authorization server and a
// fake API behind it, for tests, examples and demonstrations of clients that
// use the client credentials grant (RFC 6749, Section 4.4), or another grant that needs no
// user.
//
// The authorization server is strict: it refuses a request that breaks RFC 6749
// and lists it as a violation. It is also scriptable: a [Fault] makes it fail the
// way servers and networks fail. Clients authenticate with secrets, with assertions
// (RFC 7523) or with certificates (RFC 8705), as each [Client] is registered.
//
// # Use
//
// [Start] runs both servers on the loopback interface for the duration of a
// test, and fails the test if the client broke a rule:
//
//	func TestClient(t *testing.T) {
//		srv := clientcredentialstest.Start(t)
//		conf := clientcredentials.Config{
//			ClientID:     clientcredentialstest.ClientID,
//			ClientSecret: clientcredentialstest.ClientSecret,
//			TokenURL:     srv.TokenURL,
//		}
//		srv.Auth.Script(clientcredentialstest.Unavailable())
//		resp, err := conf.Client(t.Context()).Get(srv.APIURL)
//		// ...
//	}
//
// [NewServer] and [NewTLSServer] do the same for programs that are not tests.
//
// # With testing/synctest
//
// Sockets don't work with [testing/synctest]. [HandlerTransport] carries requests
// to the same handlers without sockets, so that an hour of a token's life passes in an
// instant:
//
//	synctest.Test(t, func(t *testing.T) {
//		auth := &clientcredentialstest.AuthorizationServer{
//			Clients: []clientcredentialstest.Client{{ID: "id", Secret: "secret"}},
//		}
//		mux := http.NewServeMux()
//		mux.Handle("auth.example/", auth)
//		mux.Handle("api.example/", &clientcredentialstest.ResourceServer{Issuer: auth})
//		client := &http.Client{Transport: clientcredentialstest.HandlerTransport(mux)}
//		// ... https://auth.example/token, https://api.example/
//	})
//
// Both servers read the time with [time.Now] and wait only on timers.
//
// # Tokens that are bound to a key or a certificate
//
// The answer to a token request with a proof of possession (DPoP, RFC 9449) is a
// token that is bound to the key of the proof. [Client].RequireDPoP makes proofs
// mandatory. Both servers check proofs as Section 4.3 says: their type, algorithm,
// public key, signature, method and URL, and the hash of the token. The time of a
// proof must not be more than 5 minutes off, and a proof can be used only once. If
// [AuthorizationServer.DPoPNonce] is set, proofs must contain that nonce.
// [AuthorizationServer.SetDPoPNonce] changes it, and the next proof is refused with
// use_dpop_nonce. A [ResourceServer] has the same:
//
//	srv.API.SetDPoPNonce("another")
//
// The tokens of a client with [Client.CertificateBound] are bound to the certificate that the
// client presents to a server of [NewTLSServer] (RFC 8705, Section 3). [Token] says
// what a token is bound to. The API refuses a token if the client doesn't have its key
// or certificate, and if a key-bound token is sent as a bearer token. It lists both as
// violations.
//
// # Assertions and token exchange
//
// With [AuthorizationServer.TrustedIssuers] the server also issues tokens for an assertion (RFC
// 7523), and in exchange for another token (RFC 8693). [Token] says for whom:
//
//	srv.Auth.TrustedIssuers = []clientcredentialstest.TrustedIssuer{{
//		Issuer:     "https://issuer.example.com",
//		PublicKeys: []crypto.PublicKey{key.Public()},
//	}}
//
// The assertion must be addressed to the server's [AuthorizationServer.Issuer] or to its token
// endpoint, and can be used only once if it has a jti. A server with an
// [AuthorizationServer.SigningKey] issues JWTs too, for another server that trusts it.
//
// # Several APIs, and APIs that ask for another token
//
// A token is for the resources (RFC 8707) and the audience that it was requested with, and
// [ResourceServer.Audience] is the one that an API accepts. To test a program that calls
// several APIs, start a [ResourceServer] for each, with the same [ResourceServer.Issuer].
//
// An API can also ask for another token than the one that it has received. It says in
// WWW-Authenticate what it needs, and accepts a token that was requested with it:
//
//   - [ResourceServer.Scope] and [ResourceServer.ScopeByPath]: insufficient_scope (RFC 6750,
//     Section 3.1)
//   - [ResourceServer.Claims]: insufficient_claims, the claims challenge of Microsoft Entra ID
//   - [ResourceServer.ACRValues] and [ResourceServer.MaxAge]:
//     insufficient_user_authentication (RFC 9470, Section 3)
//
// [ResourceServer.SetClaims] makes the next request fail, however new its token is:
//
//	srv.API.SetClaims(`{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`)
//
// With [ResourceServer.AlwaysChallenge] no token is good enough. A client must give up then.
//
// # Metadata of the API
//
// A server with a [ResourceServer.Resource] publishes its metadata (RFC 9728): its resource
// identifier, its [ResourceServer.AuthorizationServers] and its scopes.
//
// # Stores
//
// Package storetest has a store in memory for replicas that share tokens.
package clientcredentialstest

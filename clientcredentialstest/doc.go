// Package clientcredentialstest is a fake OAuth 2.0 authorization server and a
// fake API behind it, for tests, examples and demonstrations of clients that
// use the client credentials grant (RFC 6749, Section 4.4).
//
// The authorization server is strict: a request that breaks RFC 6749 is
// refused and remembered as a violation. It is also scriptable: a [Fault] makes
// it fail the way servers and networks fail. Clients authenticate by secrets, by
// assertions (RFC 7523) or by certificates (RFC 8705), as each [Client] is
// registered.
//
// # Tokens that are bound to a key or a certificate
//
// A token request with a proof of possession (DPoP, RFC 9449) gets a token that is
// bound to the key of the proof, and [Client].RequireDPoP insists on that. Both
// servers check proofs as Section 4.3 says: their type, algorithm, public key,
// signature, method and URL, the hash of the token, a time no more than 5 minutes
// off, and that none is used twice. They want a nonce in them where DPoPNonce is
// set; SetDPoPNonce changes it, and the next proof is refused with use_dpop_nonce:
//
//	srv.API.SetDPoPNonce("another")
//
// Tokens of a [Client] that is CertificateBound belong to the certificate that it
// presents to a server of [NewTLSServer] (RFC 8705, Section 3). [Token] tells what a
// token is bound to. The API refuses one whose key or certificate the sender hasn't,
// and a token that is bound to a key but is sent as a bearer token, both as
// violations.
//
// # Over sockets
//
// [Start] runs both servers on the loopback interface for the length of a
// test, and fails the test when the client broke a rule:
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
// [NewServer] and [NewTLSServer] do the same for programs that have no test.
//
// # In memory
//
// Sockets and [testing/synctest] don't go together. [HandlerTransport] carries
// requests to handlers without sockets, so that an hour of a token's life
// passes in an instant:
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
// Both servers read the time with [time.Now] and wait on timers, nothing else.
//
// Package storetest, below this one, has a store for replicas that share tokens.
package clientcredentialstest

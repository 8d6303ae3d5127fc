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
package clientcredentialstest

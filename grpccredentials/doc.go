// Package grpccredentials puts the tokens of a [clientcredentials.Source] into the
// metadata of gRPC calls, and sees to those that a server refuses.
//
// # Use
//
//	conf := &clientcredentials.Config{
//		ClientID:     "reports",
//		ClientSecret: os.Getenv("CLIENT_SECRET"),
//		TokenURL:     "https://login.example.com/oauth2/token",
//	}
//	source := conf.Source(context.Background())
//	conn, err := grpc.NewClient("reports.example.com:443", append(
//		grpccredentials.DialOptions(source),
//		grpc.WithTransportCredentials(credentials.NewTLS(nil)),
//	)...)
//
// [DialOptions] is all that most programs need. [New] returns the [Credentials] alone,
// for a credentials.Bundle or a single call, and its methods are the interceptors.
//
// # Failures
//
// An RPC waits for a token as long as its own context allows; the token request goes on
// for the RPCs that come after. When there is no token the RPC isn't sent, and ends with
// one of these codes:
//
//	DeadlineExceeded, Canceled   the RPC's context has ended
//	Unavailable                  the authorization server can't be reached, takes too
//	                             long, or answers 408, 429, 500, 502, 503 or 504
//	PermissionDenied             it answers 403, unauthorized_client, invalid_scope or
//	                             access_denied
//	Unauthenticated              anything else, which no repetition mends: credentials
//	                             that it refuses, a mistake in the Config, a certificate
//	                             that isn't trusted
//
// The error wraps that of the Source: errors.As finds a *oauth2.RetrieveError in it. The
// message contains no secret, and of the authorization server's answer no more than its
// status, error code and description: services tend to pass messages on to their callers.
//
// A retry policy of grpc for UNAVAILABLE works, and doesn't add up with the Source's own
// retries to many token requests: after some failures in a row the Source answers by
// itself for a while.
//
// # Refused tokens
//
// When the server answers Unauthenticated, the token is dropped: only if it is still the
// one in use, and one in 30 seconds at most, so that a server which refuses every token
// costs few token requests. A unary call is then made a second time with a new token,
// and its caller sees nothing of it.
//
// That is safe where servers check the token before they do anything, as interceptors
// do. A call isn't repeated when the server has sent headers ahead of its status: grpc's
// own retries stop there, too (gRFC A6). Some servers always do, such as those that run
// in an http.Server, and the caller gets the error then. Conversely, a handler that
// answers Unauthenticated after it has changed something, or passes on that status of
// another service, can't be told from a check. [ReplayIf] is for both.
//
// A stream is never repeated. Its token is dropped when it ends with Unauthenticated, be
// it after hours, and the next stream gets another.
//
// # Where a token goes
//
// Each RPC of the ClientConn carries the token, to whichever server the ClientConn has
// found and TLS has verified. Config.Origins, which bounds that for HTTP, doesn't count
// here. Use a Source for one service, or for services that may see each other's tokens.
//
// Without TLS, grpc.NewClient fails; [DangerouslySendTokensInPlaintext] is the way
// around that.
//
// # Bound tokens
//
// Tokens that are bound to a key (DPoP, RFC 9449) can't be used: a proof is made for one
// HTTP request, by its method and URL, and no specification says how for an RPC. The RPC
// fails before anything is sent to the server.
//
// Tokens that are bound to the client's certificate (RFC 8705, Section 3) can, if the
// ClientConn presents the same certificate:
//
//	certificate := clientauth.CertificateFiles("cert.pem", "key.pem")
//	conf.ClientAuth = &clientauth.TLSClientAuth{Source: certificate}
//	channel := credentials.NewTLS(&tls.Config{GetClientCertificate: certificate.GetClientCertificate})
//
// When the files are replaced, new tokens are bound to the new certificate, and a
// connection presents the one that it was made with until it ends: let the server limit
// the age of connections (keepalive.ServerParameters.MaxConnectionAge).
//
// # The oauth package of grpc
//
// google.golang.org/grpc/credentials/oauth has a TokenSource that takes any
// oauth2.TokenSource. With it an RPC waits for a token without regard to its deadline;
// every failure has the same code, an outage and a wrong secret alike, and a message that
// may quote the authorization server's whole answer; a token that has been revoked is sent
// until it expires; and one that is bound to a key is sent without proof. The cost of an
// RPC is the same.
package grpccredentials

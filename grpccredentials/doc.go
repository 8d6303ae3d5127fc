// Package grpccredentials adds the tokens of a [clientcredentials.Source] to gRPC calls,
// and replaces tokens that a server refuses.
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
// Most programs need only [DialOptions]. [New] returns the [Credentials] alone, for a
// [credentials.Bundle] or a single call. The interceptors are methods of [Credentials].
//
// # Failures
//
// An RPC waits for a token as long as its own context allows. If it gives up, the token
// request goes on for later RPCs. If there is no token, the RPC isn't sent, and ends with
// one of these codes:
//
//	DeadlineExceeded, Canceled   the RPC's context has ended
//	Unavailable                  there is no token for now: clientcredentials.IsTemporary
//	                             is true for the error
//	PermissionDenied             the authorization server answered 403,
//	                             unauthorized_client, invalid_scope or access_denied
//	Unauthenticated              anything else, which a retry can't fix: credentials that
//	                             the authorization server refuses, a mistake in the
//	                             Config, a certificate that isn't trusted
//
// The error wraps the error of the [clientcredentials.Source], so [errors.As] finds a
// *[oauth2.RetrieveError] in it. Services often pass messages on to their callers. So the message contains no
// secret, and quotes only the status, the error code and the description from an answer
// of the authorization server.
//
// A retry policy of grpc for UNAVAILABLE works. It doesn't multiply with the retries of
// the Source: after some failures in a row, the Source fails for a while without a token
// request.
//
// # Refused tokens
//
// When the server answers Unauthenticated, the token is dropped, as by
// [clientcredentials.Source.Reject]: only if it is still the current one, and at most one
// token in 30 seconds. So a server that refuses every token causes few token requests. A
// unary call is then replayed with a new token, and its caller doesn't notice.
//
// A replay is safe if the server checks the token before it does anything else, as
// interceptors do. A call isn't replayed if the server has sent headers before the
// status. The retries of grpc follow the same rule (gRFC A6). Some servers always send
// headers first, for example those that run in an http.Server. Their callers get the
// error. On the other hand, a handler may answer Unauthenticated after it has changed
// something, or pass on the status of another service. That looks the same as a refused
// token. Use [ReplayIf] in both cases.
//
// A stream is never replayed. If it ends with Unauthenticated, even after hours, its
// token is dropped, and the next stream gets a new one.
//
// # Where a token goes
//
// Each RPC of the ClientConn carries the token, to any server that the ClientConn
// connects to and TLS verifies. [clientcredentials.Config.Origins] limits where HTTP requests take a token.
// It has no effect here. Use one Source for each service, or for services that may see
// each other's tokens.
//
// Without TLS, [grpc.NewClient] fails, unless [DangerouslySendTokensInPlaintext] is set.
//
// # Bound tokens
//
// Tokens that are bound to a key (DPoP, RFC 9449) can't be used. A proof is for one HTTP
// request with its method and URL, and no specification defines one for an RPC. The RPC
// fails before anything is sent to the server.
//
// Tokens that are bound to the client's certificate (RFC 8705, Section 3) can be used if
// the ClientConn presents the same certificate:
//
//	certificate := clientauth.CertificateFiles("cert.pem", "key.pem")
//	conf.ClientAuth = &clientauth.TLSClientAuth{Source: certificate}
//	channel := credentials.NewTLS(&tls.Config{GetClientCertificate: certificate.GetClientCertificate})
//
// When the files are replaced, new tokens are bound to the new certificate, but a
// connection keeps the old one until it ends. So let the server limit the age of
// connections (MaxConnectionAge in [google.golang.org/grpc/keepalive.ServerParameters]).
//
// # The oauth package of grpc
//
// google.golang.org/grpc/credentials/oauth has a TokenSource that takes any
// [oauth2.TokenSource]. It costs the same per RPC, but has these disadvantages:
//
//   - An RPC waits for a token regardless of its deadline.
//   - Every failure has the same code, whether it is an outage or a wrong secret.
//   - The message may quote the whole answer of the authorization server.
//   - A revoked token is sent until it expires.
//   - A token that is bound to a key is sent without proof.
package grpccredentials

// Package grant has authorization grants that need no user: with one of them a client asks
// for a token in the name of somebody else, or with a proof of its own. Set one as
// [clientcredentials.Config.Grant]. Most programs need none.
//
// # Use
//
//	conf := &clientcredentials.Config{
//		TokenURL: "https://login.example.com/oauth2/token",
//		Grant: &grant.JWTBearer{
//			Assertion: grant.SignedJWT{
//				Key:      clientauth.KeyFile("/etc/reports/key.pem"),
//				Issuer:   "reports",
//				Subject:  "reports@example.com",
//				Audience: "https://login.example.com",
//			}.Source(),
//		},
//	}
//
// Everything else works as without a grant: tokens are cached, requested once for all
// callers, refreshed in the background by asking the grant again, bound to keys and
// certificates, requested for targets, and shared by replicas.
//
// # What to choose
//
// Choose [JWTBearer] (RFC 7523, Section 2.1) if the server trusts the issuer of an assertion
// that you have or can sign. Service accounts of cloud providers and government APIs often
// work like that.
//
// Choose [TokenExchange] (RFC 8693) if you have a token, and the server gives you another one
// for it: with other rights, for another audience, or of another issuer.
//
// To use a token of one authorization server at another one, combine them
// (draft-ietf-oauth-identity-chaining): the method [clientcredentials.Source.AccessToken] of a
// source with a [TokenExchange] is the [JWTBearer.Assertion].
//
// # Machine to machine
//
// The subject comes from a source that the program configures, never from a request that the
// program receives. A [clientcredentials.Source] has one token at a time. If the next token request finds another
// subject, the token for that subject takes the place of the old one.
//
// The library doesn't verify assertions: the server does. So with a
// [clientcredentials.Config.Store] an assertion must come from where nobody else can write.
// Otherwise somebody could supply one with the claims of another, and get the token that was
// issued for the other. With a [TokenExchange] that can't happen.
//
// # Client authentication
//
// For both grants it is optional (RFC 7521, Section 4.1). Without
// [clientcredentials.Config.ClientID], [clientcredentials.Config.ClientSecret] and
// [clientcredentials.Config.ClientAuth] only the grant is sent. The client identifier alone is
// sent in the body. If there is a secret, set [clientcredentials.Config.AuthStyle]: to find out
// the style by trial, an assertion may be sent twice, and some servers accept each only once.
//
// # Mistakes
//
// If a field is wrong, or an assertion isn't a JWT or has expired, the first call that needs a
// token returns an error, and nothing is sent. If the server answers invalid_grant, the error
// wraps the *oauth2.RetrieveError, and says whose assertion it was. Errors contain no
// assertion and no token. A grant that is printed shows only its type.
package grant

// Package clientauth has the methods by which a client authenticates to the token
// endpoint of an authorization server, RFC 6749, Section 2.3, for
// [clientcredentials.Config].ClientAuth.
//
// # Use
//
//	conf := &clientcredentials.Config{
//		ClientID: "reports",
//		TokenURL: "https://login.example.com/oauth2/token",
//		ClientAuth: &clientauth.PrivateKeyJWT{
//			Key: clientauth.KeyFile("/etc/reports/key.pem"),
//		},
//	}
//
// Without a ClientAuth, a Config uses ClientSecret as its AuthStyle says. That is
// all that a program with a fixed secret needs.
//
// # Methods
//
// The strongest first. The names are those of the IANA registry "OAuth Token
// Endpoint Authentication Methods", except for the one of a draft. A server lists
// what it takes in its metadata as token_endpoint_auth_methods_supported.
//
//	tls_client_auth              RFC 8705, Section 2.1     TLSClientAuth
//	self_signed_tls_client_auth  RFC 8705, Section 2.2     SelfSignedTLSClientAuth
//	private_key_jwt              RFC 7523, Section 2.2     PrivateKeyJWT, or a ready-made Assertion
//	spiffe_jwt                   a draft for SPIFFE        Assertion with TypeJWTSPIFFE
//	client_secret_jwt            RFC 7523, Section 2.2     ClientSecretJWT
//	client_secret_basic          RFC 6749, Section 2.3.1   ClientSecretBasic
//	client_secret_post           RFC 6749, Section 2.3.1   ClientSecretPost
//
// # What to choose
//
// Where the platform gives a workload its identity, as Kubernetes and SPIFFE do,
// and the server trusts the platform, choose [Assertion]: there is no key to keep.
//
// Otherwise choose [TLSClientAuth] or [PrivateKeyJWT], as RFC 9700, Section 2.5,
// recommends: the server knows a public key only, and nothing that is sent can be
// used by who reads it. With a certificate, tokens can be bound to it as well, so
// that a stolen one is of no use; but TLS must reach the server without a proxy
// that ends it.
//
// [ClientSecretJWT] doesn't send the secret, but the server has to keep it in
// clear. [ClientSecretBasic] and [ClientSecretPost] send it with each request.
//
// # Rotation
//
// Every secret, key, certificate and assertion comes from a function, which is
// called for each attempt at a token. Those that read files find what is new in
// them: nothing needs a restart, and there is no goroutine and no watcher. If the
// server answers invalid_client and the credential has been replaced meanwhile,
// the request is repeated at once with the new one.
//
// # Mistakes
//
// What is wrong with a field, a file or a key is an error of the first call that
// needs a token, before anything is sent. Errors name files and fields, and contain
// no secret. Printed by fmt, log/slog or encoding/json, a method shows its name only.
package clientauth

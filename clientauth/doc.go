// Package clientauth has the methods with which a client authenticates to the token
// endpoint of an authorization server, RFC 6749, Section 2.3. Set one of them as
// [clientcredentials.Config.ClientAuth].
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
// Most programs with a fixed secret need no method: without one, the
// [clientcredentials.Config.ClientSecret] is sent as
// [clientcredentials.Config.AuthStyle] says.
//
// # Methods
//
// The list begins with the strongest methods. Their names are those of the IANA registry
// "OAuth Token Endpoint Authentication Methods", and a server lists those that it accepts
// in its metadata as token_endpoint_auth_methods_supported. Only spiffe_jwt is from a
// draft.
//
//   - tls_client_auth (RFC 8705, Section 2.1): [TLSClientAuth]
//   - self_signed_tls_client_auth (RFC 8705, Section 2.2): [SelfSignedTLSClientAuth]
//   - private_key_jwt (RFC 7523, Section 2.2): [PrivateKeyJWT], or a ready-made [Assertion]
//   - spiffe_jwt: an [Assertion] with [TypeJWTSPIFFE]
//   - client_secret_jwt (RFC 7523, Section 2.2): [ClientSecretJWT]
//   - client_secret_basic (RFC 6749, Section 2.3.1): [ClientSecretBasic]
//   - client_secret_post (RFC 6749, Section 2.3.1): [ClientSecretPost]
//
// # What to choose
//
// Choose [Assertion] if the platform gives each workload an identity, as Kubernetes, CI
// systems and clouds do, and the server trusts the platform. Then there is no key to keep.
// Package workload gets the assertion.
//
// Otherwise choose [TLSClientAuth] or [PrivateKeyJWT], as RFC 9700, Section 2.5,
// recommends. Then the server has only a public key, and no request contains a secret. With a
// certificate, tokens can also be bound to it, so that a stolen token is useless. But no proxy
// may end TLS between client and server.
//
// [ClientSecretJWT] doesn't send the secret, but the server has to store it in
// plaintext. [ClientSecretBasic] and [ClientSecretPost] send it with each request.
//
// # Servers that want another assertion
//
// [PrivateKeyJWT] and [ClientSecretJWT] sign the claims that RFC 7523, Section 3, asks for, and
// that is enough for most servers. For others, set these fields:
//
//	a claim of its own                        Claims
//	an aud that is an array, another sub      Claims and Replace
//	the nbf that some profiles demand         Claims
//	another parameter in the header           Header
//	typ client-authentication+jwt             Type
//	x5c or x5t, to find the certificate       CertificateHeader
//	an assertion with a shorter life          Lifetime
//	no client_id beside the assertion         OmitClientID
//
// # Rotation
//
// Each secret, key, certificate and assertion comes from a function that is called
// for each attempt at a token. The functions that read files pick up new content
// without a restart, and without a goroutine or a file watcher. If the server answers
// invalid_client or invalid_request and the credential has changed since, the request is
// repeated at once with the new credential.
//
// If the client identifier changes together with the secret or the key, use
// [WithCredentials]. If the server has to know new public keys before they are used, publish
// them with [JWKS].
//
// # Mistakes
//
// If a field, a file or a key is wrong, the first call that needs a token returns an
// error, and nothing is sent. Errors name files and fields, and contain no secret. A
// method that is printed with fmt, log/slog or encoding/json shows only its name.
package clientauth

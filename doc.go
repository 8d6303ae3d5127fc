// Package clientcredentials gets, caches and refreshes access tokens with the
// client credentials grant of OAuth 2.0, and adds them to HTTP requests. It
// replaces golang.org/x/oauth2/clientcredentials by a change of the import line.
//
// # Use
//
//	conf := &clientcredentials.Config{
//		ClientID:     "reports",
//		ClientSecret: os.Getenv("CLIENT_SECRET"),
//		TokenURL:     "https://login.example.com/oauth2/token",
//		Scopes:       []string{"reports.read"},
//	}
//	client := conf.Client(context.Background())
//	resp, err := client.Get("https://api.example.com/reports")
//
// [Config.Client] is all that most programs need. Make a client once and keep it:
// each has a cache of its own. For what else there is:
//
//   - [Config.Transport]: for an http.Client that is set up otherwise.
//   - [Config.TokenSource]: for libraries that take an oauth2.TokenSource.
//   - [Config.Source]: for programs that want the token itself, or its [Status].
//   - [Config.Token]: a new token, always.
//
// Token requests and API requests go through the client in the context under
// oauth2.HTTPClient: set a proxy, certification authorities or timeouts there.
// [Config.HTTPClient] is for the token requests alone. The folder examples has
// programs for this and other tasks, and docs/cookbook.md leads to them.
//
// # Client authentication
//
// A client secret is sent as [Config.AuthStyle] says. For anything else there is
// [Config.ClientAuth], and package clientauth has the methods: keys, certificates,
// assertions from files, secrets that are rotated. [Config.DPoP] binds tokens to a
// key, so that a stolen one is of no use. [Discover] asks the server what it takes,
// and where:
//
//	metadata, err := clientcredentials.Discover(ctx, "https://login.example.com")
//	if err != nil {
//		return err
//	}
//	conf, err := metadata.Config("reports", &clientauth.PrivateKeyJWT{Key: clientauth.KeyFile("key.pem")})
//
// # Life of a token
//
// The first call that needs a token requests it; calls that come meanwhile wait
// for the same request, each no longer than its own context allows. Then the
// token is in one of four states:
//
//   - fresh: it is used.
//   - stale: it is used, and one of the calls that use it starts its replacement
//     in the background. That begins 5 minutes before the expiry, or when a
//     quarter of the token's life is left if that is less, and up to a quarter of
//     that time later, at random. [Config.EarlyRefresh] sets another time, and
//     the server can with refresh_in. When the request fails it is repeated after
//     1 second, then 2, up to 30. In the last 10 seconds before the expiry, or the
//     last tenth of the token's life if that is less, a call waits up to 1 second
//     for a replacement that has just been started, and no longer than half of what
//     is left.
//   - expired: calls wait for a new one.
//   - failed: there is no usable token, and the last request for one has failed.
//
// A token that is still valid is never withheld because its replacement failed.
// All of this is driven by use: an idle source has no goroutine and no timer.
//
// # Where a token goes
//
// To the origin (scheme, host and port) of the request that the program makes, and on
// redirects nowhere else, unless [Config.Origins] lists it. The client's secret goes to
// TokenURL: a redirect of the token endpoint is an error.
//
// # Failures
//
// A token request that somebody waits for is tried up to three times, within 30
// seconds: see [RetryPolicy]. Then all who waited get the same error. After five
// failures in a row the next request is made a second later, then two, up to 30,
// and callers get the last error at once meanwhile; a Retry-After is obeyed. Success
// ends that, and so does a change of the credentials.
//
// When an API answers 401, and gives no other reason than the token, that is dropped,
// at most every 30 seconds. If the answer says invalid_token and the request can be
// repeated, it is, with a new token: the caller sees nothing of it. A token is also
// dropped when the client's certificate is replaced: it may be bound to that.
//
// [Config.Observer] is told of all this, [SlogObserver] logs it, package
// otelclientcredentials, a module of its own, measures it for OpenTelemetry, and
// [Source.Status] says how things are.
//
// # Fleets
//
// Replicas of a service can share one token, through a store that they use anyway:
// set [Config.Store], for example to what redisstore.New returns. Then one of them
// requests a token, and the others wait for it, or find it there; before it expires
// one of them replaces it. What is kept in the store is encrypted: see [Seal] and
// [Keyring]. The store is never needed: when it is down, slow or refuses, each replica
// requests a token of its own, at most 250 milliseconds later than it would have
// without. docs/fleet.md tells when it is worth it, and what it costs.
//
// # Errors
//
// When the server refuses, the error is a bare *oauth2.RetrieveError, with the
// ErrorCode of RFC 6749, Section 5.2, and the status; when it answers with something
// that is no token response, a [ResponseError]; when nobody answers, what net/http
// returns. An error of a client's request wraps them: use errors.As. Where a caller's
// context has ended, errors.Is finds its error. [IsTemporary] tells what may pass by
// itself from what somebody has to mend. No error contains a secret or a token.
//
// # Testing
//
// Package clientcredentialstest is an authorization server and an API, that fail as
// they are told and list what was wrong with the requests they got. It also works in a
// bubble of testing/synctest, where a token's life passes in a moment.
//
// # Migration
//
// Replace the import path golang.org/x/oauth2/clientcredentials by
// github.com/seed-5bfa0880/clientcredentials. Types, errors and their texts stay
// those of golang.org/x/oauth2; docs/compatibility.md lists what is different, and
// why, and docs/migration.md says what a program may delete then.
//
// # Specifications
//
//   - RFC 6749: the grant (Section 4.4), client authentication (2.3), token
//     responses (5.1) and error responses (5.2).
//   - RFC 6750: bearer tokens in requests.
//   - RFC 7521 and 7523: assertions; RFC 7515 to 7518, 7638 and 8037: how they are
//     signed.
//   - RFC 8705: client certificates, and tokens bound to them.
//   - RFC 9449: DPoP, tokens bound to a key.
//   - RFC 8414 and OpenID Connect Discovery 1.0: metadata.
//   - RFC 6454: origins.
//   - RFC 9110: challenges (Section 11.6.1) and Retry-After (10.2.3).
//   - RFC 8707: resource indicators, through [Config.EndpointParams].
package clientcredentials

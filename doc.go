// Package clientcredentials gets, caches and refreshes access tokens with the
// client credentials grant of OAuth 2.0, and adds them to HTTP requests. It
// replaces golang.org/x/oauth2/clientcredentials: change the import line, and nothing else.
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
// Most programs should use [Config.Client]. Make a client once and keep it: each client has
// its own cache. There are four other ways to get a token:
//
//   - [Config.Transport]: for an [http.Client] that you set up yourself.
//   - [Config.TokenSource]: for libraries that take an [oauth2.TokenSource].
//   - [Config.Source]: for programs that need the token itself, or its [Status].
//   - [Config.Token]: always requests a new token.
//
// Token requests and API requests go through the client in the context under
// [oauth2.HTTPClient]: set a proxy, certification authorities or timeouts there.
// [Config.HTTPClient] is for the token requests alone. The module grpccredentials is for
// gRPC, and mcpcredentials for MCP servers. The folder examples has programs for this and
// other tasks, and docs/cookbook.md explains them.
//
// # Life of a token
//
// The first call that needs a token requests it. Other calls wait
// for the same request, each no longer than its own context allows. From then on the
// token is in one of four states:
//
//   - fresh: it is used.
//   - stale: it is used, and one of the calls that use it starts its replacement
//     in the background.
//   - expired: calls wait for a new token.
//   - failed: there is no usable token, and the last token request has failed.
//
// A token becomes stale 5 minutes before it expires, or when a quarter of its life is
// left if that is less, and up to a quarter of that time later, at random.
// [Config.EarlyRefresh] sets another time, and so can the server, with refresh_in. If the
// request for the replacement fails, it is repeated after 1 second, then 2, up to 30. In
// the last 10 seconds before the expiry, or the last tenth of the token's life if that is
// less, a call waits briefly for the replacement: up to 1 second after that was started,
// and never longer than half of the time that is left.
//
// A token that is still valid is never withheld because its replacement failed.
// All of this happens when tokens are used: an idle [Source] has no goroutine and no timer.
//
// # Where a token goes
//
// A token goes to the origin (scheme, host and port) of the request that the program
// makes. On redirects it goes to no other origin, unless [Config.Origins] lists it. The
// client's secret goes to [Config.TokenURL]: a redirect of the token endpoint is an error.
//
// # Failures
//
// A token request that somebody waits for is tried up to three times, within 30
// seconds: see [RetryPolicy]. If it fails, all who waited get the same error. After five
// failures in a row, the next request is made a second later, then two, up to 30.
// Until then callers get the last error at once. A Retry-After is obeyed. A success
// ends the pauses, and so does a change of the credentials.
//
// If an API answers 401, and gives no other reason than the token, the token is dropped,
// at most every 30 seconds. If the answer says invalid_token and the request can be
// repeated, it is sent again with a new token, and the caller doesn't notice. A token is
// also dropped when the client's certificate is replaced, because it may be bound to the
// old one.
//
// [Config.Observer] is told all of this. [SlogObserver] logs it, the module
// otelclientcredentials measures it for OpenTelemetry, and [Source.Status] shows the current
// state.
//
// # Errors
//
// If the server refuses, the error is a bare *[oauth2.RetrieveError] with the status and the
// ErrorCode of RFC 6749, Section 5.2. If it answers with something that isn't a token
// response, the error is a *[ResponseError]. If nobody answers, it is the error of net/http.
// An error of a client's request wraps these: use [errors.As]. If a caller's context has
// ended, [errors.Is] finds its error. [IsTemporary] distinguishes failures that may pass by
// themselves from those that somebody has to fix. No error contains a secret or a token.
//
// # Several APIs
//
// If each API wants another token, give the context of a request a [Target] with
// [WithTarget], or make a client for each API from [Source.For]. If an API asks for a token
// with other scopes or claims, [Config.Challenged] decides whether it gets one.
// docs/targets.md explains both.
//
// # Client authentication
//
// A client secret is sent as [Config.AuthStyle] says. For other methods set
// [Config.ClientAuth]. Package clientauth has keys, certificates, assertions from files,
// and secrets that are replaced while the program runs. [Config.DPoP] binds tokens to a
// key, so that a stolen token is useless. [Discover] asks the server which methods it
// accepts, and where its token endpoint is:
//
//	metadata, err := clientcredentials.Discover(ctx, "https://login.example.com")
//	if err != nil {
//		return err
//	}
//	conf, err := metadata.Config("reports", &clientauth.PrivateKeyJWT{Key: clientauth.KeyFile("key.pem")})
//
// If only the address of an API is known, [DiscoverResource] asks the API which of the
// authorization servers that the program trusts issues its tokens.
//
// # Other grants
//
// Some servers issue tokens for an assertion, or in exchange for another token, rather than to
// the client as such. Set [Config.Grant] for that: package grant has assertions (RFC 7523)
// and token exchange (RFC 8693). Everything else stays the same.
//
// # Fleets
//
// Replicas of a service can share one token through a store that they already use: set
// [Config.Store] to a store of package redisstore or natsstore. One replica requests a
// token, and the others find it in the store. What is kept there is encrypted: see [Seal]
// and [Keyring]. The service doesn't depend on the store: if it is down, slow or refuses,
// each replica requests its own token, at most 250 milliseconds later than without a store.
// docs/fleet.md explains when a store is worth it, and what it costs.
//
// # Testing
//
// Package clientcredentialstest has an authorization server and an API that fail as
// they are told, and list what was wrong with the requests they got. They also work in a
// bubble of testing/synctest, where a token's life passes in a moment.
//
// # Migration
//
// Replace the import path golang.org/x/oauth2/clientcredentials by
// github.com/seed-5bfa0880/clientcredentials. Types, errors and their texts stay
// those of golang.org/x/oauth2. docs/migration.md begins with what may surprise in
// production, and docs/compatibility.md lists every difference with its reason.
//
// # Specifications
//
//   - RFC 6749: the grant (Section 4.4), client authentication (2.3), token
//     responses (5.1) and error responses (5.2).
//   - RFC 6750: bearer tokens in requests, and APIs that ask for more scopes (Section 3.1).
//   - RFC 7521 and 7523: assertions; RFC 7515 to 7518, 7638 and 8037: how they are
//     signed.
//   - RFC 8705: client certificates, and tokens bound to them.
//   - RFC 9449: DPoP, tokens bound to a key.
//   - RFC 8414 and OpenID Connect Discovery 1.0: metadata of authorization servers.
//   - RFC 9728: metadata of APIs.
//   - RFC 6454: origins.
//   - RFC 9110: challenges (Section 11.6.1) and Retry-After (10.2.3).
//   - RFC 8707: resource indicators, through [Target] and [Config.EndpointParams].
package clientcredentials

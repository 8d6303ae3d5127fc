// Package mcpcredentials gets tokens for clients of MCP servers (Model Context Protocol) that
// act on their own behalf: agents and services without a user. It is for the official Go SDK,
// github.com/modelcontextprotocol/go-sdk, and was tested with its version 1.8.0.
//
// # Use
//
//	handler, err := mcpcredentials.New("https://mcp.example.com/mcp", &clientcredentials.Config{
//		ClientID:   "agent",
//		ClientAuth: &clientauth.PrivateKeyJWT{Key: clientauth.KeyFile("key.pem")},
//		Issuer:     "https://login.example.com",
//		Scopes:     []string{"files:read"},
//	})
//	if err != nil {
//		return err
//	}
//	client := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1.0.0"}, nil)
//	session, err := client.Connect(ctx, handler.Transport(nil), nil)
//
// Keep the [Handler], and call [Handler.Transport] for each session: all sessions then share one
// token, which is requested once and replaced in the background. The Handler needs no closing.
// The example below starts its own servers, so you can run it on your machine.
//
// The first request to the MCP server carries no token. When the server answers 401, the Handler
// asks for the server's metadata, for the metadata of the authorization server, and for a token.
// Metadata is read once for each Handler. If that fails, the next attempt comes 5 seconds later
// at the earliest.
//
// # Which authorization server
//
// An MCP server says in its metadata which authorization servers issue its tokens. The Handler
// uses only the one in Config.Issuer, and it is an error if the MCP server doesn't list that
// one. Otherwise an MCP server that is hostile or has been taken over could name a server of its
// own, and get the client's secret.
//
// The metadata must be that of the resource that New was called with, character by character,
// and is asked for only at the MCP server's own origin. If the MCP server names a location at
// another origin, the usual locations are tried instead.
//
// # Which settings for which server
//
//	your server                             set
//	its resource identifier is shorter      New("https://mcp.example.com", conf), and then
//	than its address                        transport.Endpoint = "https://mcp.example.com/mcp"
//	it asks for more scopes for some tools  Challenged: clientcredentials.ScopeChallenge("files:write")
//	it redirects                            the final address
//	it needs no tokens for some requests    nothing: it is asked without one until it answers 401
//	it has no metadata                      no Handler, but StreamableClientTransport.HTTPClient:
//	                                        conf.Client(ctx), with the TokenURL, and the resource
//	                                        in EndpointParams
//	it runs as a process (stdio)            nothing: MCP gives it credentials by its environment
//
//	your authorization server               set
//	it has a metadata document              Issuer
//	it has none                             Issuer and TokenURL
//	it ignores resource, such as Keycloak   nothing here: configure the audience there
//	it wants audience, such as Auth0        EndpointParams: url.Values{"audience": {"…"}}
//	it refuses resource, such as version 2  EndpointParams: url.Values{"resource": {}}, and
//	of Microsoft Entra ID                   Scopes: []string{"api://…/.default"}
//	it issues tokens that are bound to a    DPoP or a clientauth.TLSClientAuth, and use
//	key or a certificate                    Handler.Transport
//
// # Refused requests
//
// If the MCP server answers 401 although the request had a token, the token is dropped, and the
// request is repeated with a new one. That happens at most once in 30 seconds, so that a server
// that refuses everything causes few token requests.
//
// If it asks for more scopes, by 403 with insufficient_scope, Config.Challenged decides. With
// ScopeChallenge the Handler asks for those that the program allows, in addition to the old
// ones, and repeats the request. An MCP server can't get a token with any other scope. The
// middleware of the SDK names scopes without an error code, and so the Handler takes any 401 or
// 403 with scopes for such a challenge.
//
// In all other cases the call ends with an error that says why, and the session goes on. The
// error wraps that of the Source: errors.As finds a *oauth2.RetrieveError in it if the
// authorization server has refused the client.
//
// # The interface of the SDK
//
// A Handler is also an auth.OAuthHandler, for programs that must set HTTPClient themselves. The
// SDK then puts the token into the request and calls Authorize after a 401 or 403. This has
// limits that come from the SDK:
//
//   - The SDK asks for a token without the context of the call, and while other calls of the
//     session wait. If the token has expired and the authorization server hangs, a call takes as
//     long as Config.Retry allows, 30 seconds by default.
//   - It never calls Authorize for a stream that it opens again. There a revoked token ends the
//     session.
//   - It ends the session if the repeated request is refused, too.
//   - It knows only bearer tokens. With Config.DPoP every call is an error.
//   - Its HTTP client keeps the token on a redirect to another port, or to a subdomain.
//   - The Handler doesn't learn which server a request is for. Use it for one server only.
//
// # What the specification demands
//
// The tests have a table of the requirements of the authorization specification, 2026-07-28, for
// a client of this kind, and of its extension for the client credentials grant. These parts of
// the specification are for clients that act for a user, and don't apply:
//
//   - the authorization request and its response: PKCE, state, redirect URIs, the parameter iss;
//   - refresh tokens and the scope offline_access;
//   - dynamic registration and client ID metadata documents: the client is registered before.
//
// It deliberately differs from two recommendations. It doesn't request all of scopes_supported
// when the server names no scopes, because a client without a user should have no more rights
// than its program lists. For the same reason, it takes from a challenge only the scopes that
// the program allows.
//
// With DPoP, proofs are those of RFC 9449. The claim content_digest, which a draft of an
// extension for MCP demands, isn't supported.
//
// https://modelcontextprotocol.io/specification/2026-07-28/basic/authorization
package mcpcredentials

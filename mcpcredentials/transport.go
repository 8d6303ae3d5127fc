package mcpcredentials

import (
	"context"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// Transport returns a transport of the MCP SDK for one session with the MCP server. Its Endpoint
// is the resource that New was called with; change it if the server's address is below that. Its
// other fields may be set, too, except HTTPClient and OAuthHandler. base makes the requests;
// nil: http.DefaultTransport. A Target in the context of a call has no effect.
//
// Compared with a transport whose only field for authorization is an OAuthHandler,
//
//   - a call waits for a token no longer than its own context allows, and other calls of the
//     session don't wait for it;
//   - a stream that is opened again is authorized like a call, so that a revoked token doesn't
//     end the session;
//   - the token stays on its origin when the server redirects, also to another port or to a
//     subdomain, and Config.Origins is obeyed;
//   - a request to another server than the Handler's is an error, before anything is sent;
//   - tokens can be bound to a key (DPoP) or to the client's certificate, which is presented if
//     base is an *http.Transport or nil.
func (h *Handler) Transport(base http.RoundTripper) *mcp.StreamableClientTransport {
	if base == nil {
		base = http.DefaultTransport
	}
	return &mcp.StreamableClientTransport{
		Endpoint:     h.resource,
		HTTPClient:   &http.Client{Transport: &roundTripper{h, base}},
		OAuthHandler: &errorHandler{h},
	}
}

// A roundTripper adds tokens to the requests of the SDK.
type roundTripper struct {
	*Handler // so that it prints nothing secret
	base     http.RoundTripper
}

// RoundTrip sends req, and once more if the Handler has another token for it afterwards.
func (t *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Response == nil && !t.covers(req.URL) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, t.errElsewhere(req.URL)
	}
	resp, err := t.send(req)
	if err != nil || resp == nil || resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
		return resp, err
	}
	if err := t.answer(req.Context(), req.URL, sentWith(resp), resp); err != nil {
		return resp, nil //nolint:nilerr // The SDK asks the errorHandler for the error.
	}
	again := req.WithContext(req.Context())
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return resp, nil
		}
		if again.Body, err = req.GetBody(); err != nil {
			return resp, nil //nolint:nilerr // The answer says more.
		}
	}
	if resp.Body != nil { // A RoundTripper of the program's own may leave it out.
		resp.Body.Close()
	}
	return t.send(again)
}

// send sends req with a token. The first request goes without: the answer says where the
// metadata of the MCP server is.
func (t *roundTripper) send(req *http.Request) (*http.Response, error) {
	if t.source.Load() == nil {
		return t.base.RoundTrip(req)
	}
	return t.authorized().RoundTrip(req.WithContext(withoutTarget(req.Context())))
}

// authorized returns a RoundTripper that adds tokens, once the metadata is known.
func (t *roundTripper) authorized() *clientcredentials.Transport {
	return &clientcredentials.Transport{Source: t.source.Load(), Base: t.base}
}

// CloseIdleConnections closes the idle connections of base, and those that present the client's
// certificate, for http.Client.CloseIdleConnections.
func (t *roundTripper) CloseIdleConnections() { t.authorized().CloseIdleConnections() }

// sentWith returns the Authorization value of the request that resp answers.
func sentWith(resp *http.Response) string {
	if resp.Request == nil {
		return ""
	}
	return resp.Request.Header.Get("Authorization")
}

// An errorHandler is the OAuthHandler for a roundTripper, which has done what can be done.
// Without one, the SDK would end the session when an answer is 401 or 403.
type errorHandler struct{ *Handler }

// TokenSource returns nil: the roundTripper adds the tokens.
func (*errorHandler) TokenSource(context.Context) (oauth2.TokenSource, error) {
	return nil, nil // The SDK then sends no token.
}

// Authorize returns why the answer can't be changed. If that has changed a moment ago, the SDK
// repeats the request.
func (e *errorHandler) Authorize(ctx context.Context, req *http.Request, resp *http.Response) error {
	defer resp.Body.Close()
	return e.answer(ctx, req.URL, sentWith(resp), resp)
}

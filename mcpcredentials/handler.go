package mcpcredentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

const (
	// discoveryTimeout bounds the search for metadata: 10 seconds each for that of the MCP
	// server and that of the authorization server.
	discoveryTimeout = 20 * time.Second

	// discoveryPause is how long callers get the error of a search that has failed before
	// there is another one.
	discoveryPause = 5 * time.Second

	// maxQuoted bounds what an error quotes of the MCP server's words.
	maxQuoted = 200
)

// A Handler gets the tokens for one MCP server. All sessions with that server should use the
// same Handler: then they share one token.
//
// Call New to get a Handler, and then Transport for each session. All methods are safe for
// concurrent use.
//
// A Handler is also an auth.OAuthHandler, for programs that need an HTTPClient of their own in
// mcp.StreamableClientTransport. The SDK then puts the tokens into requests by itself, which
// has some disadvantages: see Transport.
type Handler struct {
	resource string                    // the resource identifier of the MCP server
	address  *url.URL                  // the same
	conf     *clientcredentials.Config // a copy; TokenURL may be empty: then it is discovered

	// asked is Config.Challenged of the program. nil: the MCP server has no say in what a
	// token is for.
	asked func(context.Context, *clientcredentials.Challenge) (*clientcredentials.Target, error)

	source atomic.Pointer[clientcredentials.Source] // nil: nothing has been discovered yet

	discovery struct {
		sync.Mutex
		call  *bounded.Call[*clientcredentials.Source] // the last one; nil: there was none
		began time.Time                                // when call began
	}
}

var _ auth.OAuthHandler = (*Handler)(nil)

// New returns a Handler for the MCP server with that resource identifier (RFC 9728, Section
// 1.2), which the specification of MCP calls its canonical URI. Usually this is the Endpoint
// of the transport: an https URL in lower case, without a fragment, and without a slash at its
// end. Write it exactly as the server's metadata does. If it is shorter than the Endpoint, as
// https://mcp.example.com is for https://mcp.example.com/mcp, its tokens may be good for
// everything below it.
//
// conf says who the client is. Its Issuer is required, and is the only authorization server
// that gets the client's credentials. If TokenURL is empty, Discover finds it with the first
// token. Any ClientAuth can be used. Scopes are requested at first. If the MCP server asks for
// more, Challenged decides:
//
//	conf.Challenged = clientcredentials.ScopeChallenge("files:read", "files:write")
//
// The parameter resource of token requests is the resource identifier. To leave it out, for an
// authorization server that refuses it, set it to an empty list:
//
//	conf.EndpointParams = url.Values{"resource": {}}
//
// New copies conf: later changes of its fields have no effect, but the secrets, keys and
// certificates of a ClientAuth can be rotated as usual. HTTPClient is used for token requests
// and for metadata.
//
// New sends nothing. It is an error if the resource can't be that of an MCP server, or if there
// is no Issuer. What else is wrong with conf is reported by the first call that needs a token.
func New(resource string, conf *clientcredentials.Config) (*Handler, error) {
	address, err := url.Parse(resource)
	switch {
	case conf == nil:
		return nil, errors.New("oauth2: the Config for the MCP server is nil; set at least ClientID, Issuer, and ClientSecret or ClientAuth")
	case conf.Issuer == "":
		return nil, errors.New("oauth2: Config.Issuer is empty; set it to the issuer identifier of the authorization server that has registered the client, so that an MCP server can't name another one")
	case err != nil || address.Host == "" || address.Fragment != "" || address.User != nil || origin.IsCleartext(address):
		// The rest is checked by DiscoverResource, before it sends anything.
		return nil, errors.New("oauth2: the resource of the MCP server can't be used; write it like https://mcp.example.com/mcp, without user name and fragment; http is for this host only")
	}
	private := *conf
	h := &Handler{resource: resource, address: address, conf: &private, asked: conf.Challenged}
	h.conf.Scopes, h.conf.Origins = slices.Clone(conf.Scopes), slices.Clone(conf.Origins)
	h.conf.EndpointParams = maps.Clone(conf.EndpointParams)
	if h.conf.EndpointParams == nil {
		h.conf.EndpointParams = make(url.Values)
	}
	switch given, found := h.conf.EndpointParams["resource"]; {
	case !found:
		// MCP 2026-07-28, Resource Parameter Implementation: in every token request.
		h.conf.EndpointParams.Set("resource", resource)
	case len(given) > 0 && !slices.Equal(given, []string{resource}):
		return nil, errors.New("oauth2: Config.EndpointParams has another resource than that of the MCP server; remove it, because New sets it")
	}
	if h.asked != nil {
		h.conf.Challenged = h.askProgram
	}
	return h, nil
}

// String returns the address of the MCP server without its query.
func (h *Handler) String() string {
	return "mcpcredentials.Handler(" + redact.Address(h.address) + ")"
}

// Format prints what String returns, whatever the verb: the fields hold secrets.
func (h *Handler) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, h.String()) }

// errDPoP is the error of the methods for the SDK, which would send a bound token as a bearer
// token.
var errDPoP = errors.New("oauth2: Config.DPoP is set, and an OAuthHandler of the MCP SDK can only supply bearer tokens; use the transport that Handler.Transport returns, or remove DPoP")

// TokenSource returns a source of the current token, or nil until Authorize has been called:
// the MCP server's answer to a request without a token says where its metadata is. The token
// source waits for a token until ctx is done, and requests nothing for a Target in ctx. It is an
// error if Config.DPoP is set.
func (h *Handler) TokenSource(ctx context.Context) (oauth2.TokenSource, error) {
	if h.conf.DPoP != nil {
		return nil, errDPoP
	}
	source := h.source.Load()
	if source == nil {
		return nil, nil // The SDK then sends no token.
	}
	return &tokens{withoutTarget(ctx), source}, nil
}

// tokens is a Source with a context to wait by.
type tokens struct {
	ctx    context.Context
	source *clientcredentials.Source
}

func (t *tokens) Token() (*oauth2.Token, error) { return t.source.TokenContext(t.ctx) }

// withoutTarget returns ctx without the Target that the program may have put into it for its
// own requests: that token would be for another server.
func withoutTarget(ctx context.Context) context.Context {
	return clientcredentials.WithTarget(ctx, clientcredentials.Target{})
}

// Authorize gets a token that may be accepted after resp, an answer with status 401 or 403 to
// req. Its error says why there is none. Then the caller of the SDK gets that error, and the
// session goes on.
//
//   - Without a token in req it asks for the metadata of the MCP server and of the authorization
//     server, unless that has been done before.
//   - If the token in req has been replaced since, there is nothing to do.
//   - If the MCP server asks for other scopes, Config.Challenged decides, as with Client: at
//     most once in 30 seconds. Scopes in a 401, or in a 403 without an error code, are taken
//     for insufficient_scope.
//   - Otherwise a 401 drops the token, as by Source.Reject: at most once in 30 seconds.
//
// It waits no longer than ctx allows. Discovery and token requests that it has begun go on
// for other callers. It is an error if Config.DPoP is set.
func (h *Handler) Authorize(ctx context.Context, req *http.Request, resp *http.Response) error {
	defer resp.Body.Close()
	if h.conf.DPoP != nil {
		return errDPoP
	}
	return h.answer(ctx, req.URL, req.Header.Get("Authorization"), resp)
}

// answer is Authorize for a request with that Authorization value. It leaves the body of resp
// alone.
func (h *Handler) answer(ctx context.Context, address *url.URL, authorization string, resp *http.Response) error {
	if err := h.check(address, resp); err != nil {
		return err
	}
	ctx = withoutTarget(ctx)
	source, err := h.discovered(ctx, resp)
	if err != nil {
		return err
	}
	_, refused, _ := strings.Cut(authorization, " ")
	token, err := source.TokenContext(ctx)
	if err != nil || token.AccessToken != refused {
		return err
	}
	if err := judge(ctx, source, address, resp); err != nil {
		return err
	}
	if token, err = source.TokenContext(ctx); err != nil {
		return err
	}
	if token.AccessToken == refused {
		return refusal(resp)
	}
	return nil
}

// check reports why a token can't be for the request: a Handler is for one MCP server, and its
// answer must not come from where that server redirects to.
func (h *Handler) check(address *url.URL, resp *http.Response) error {
	answered := address
	if resp.Request != nil && resp.Request.URL != nil {
		answered = resp.Request.URL
	}
	for _, u := range []*url.URL{address, answered} {
		if !h.covers(u) {
			return h.errElsewhere(u)
		}
	}
	return nil
}

func (h *Handler) errElsewhere(u *url.URL) error {
	return fmt.Errorf("oauth2: the request goes to %s, and the Handler is for %s; make a Handler for each MCP server, and if the server redirects, use the final address", redact.Quote(redact.Address(u), maxQuoted), redact.Quote(redact.Address(h.address), maxQuoted))
}

// covers reports whether u is the MCP server, or below its resource identifier.
func (h *Handler) covers(u *url.URL) bool {
	path, resource := u.EscapedPath(), strings.TrimSuffix(h.address.EscapedPath(), "/")
	below := path == resource || strings.HasPrefix(path, resource+"/")
	return origin.Of(u) == origin.Of(h.address) && below && (h.address.RawQuery == "" || u.RawQuery == h.address.RawQuery)
}

// judge lets the library deal with the answer to a request with the current token of source:
// it drops the token, or gets another one, by the same rules as for any other API.
func judge(ctx context.Context, source *clientcredentials.Source, address *url.URL, resp *http.Response) error {
	answer := *resp
	answer.Body = http.NoBody // The caller closes the body.
	transport := &clientcredentials.Transport{Source: source, Base: &verdict{&answer}}
	req := (&http.Request{Method: http.MethodGet, URL: address, Header: make(http.Header)}).WithContext(ctx)
	again, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	return again.Body.Close()
}

// A verdict answers the first request with an answer that there is already. If the library
// repeats the request, it would succeed.
type verdict struct{ resp *http.Response }

func (v *verdict) RoundTrip(*http.Request) (*http.Response, error) {
	resp := v.resp
	v.resp = &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}
	return resp, nil
}

// refusal returns the error for an answer that no other token can change.
func refusal(resp *http.Response) error {
	parameters := bearerChallenge(resp)
	said := ""
	if code := parameters["error"]; code != "" {
		said = " " + redact.Quote(code, maxQuoted)
	}
	if scope := parameters["scope"]; scope != "" {
		return fmt.Errorf("oauth2: the MCP server answered %d%s and wants the scopes %s; allow them with clientcredentials.ScopeChallenge in Config.Challenged, and have the authorization server grant them", resp.StatusCode, said, redact.Quote(scope, maxQuoted))
	}
	return fmt.Errorf("oauth2: the MCP server answered %d%s, and there is no other token for it; check that the client has the permissions that the server wants, and that the server accepts tokens of Config.Issuer", resp.StatusCode, said)
}

// bearerChallenge returns the parameters of the challenge for bearer tokens.
func bearerChallenge(resp *http.Response) map[string]string {
	parameters, _ := challenge.Parameters(resp.Header.Values("WWW-Authenticate"), "Bearer")
	return parameters
}

// askProgram asks the program what to request instead, and keeps the token for this MCP
// server. It is the Config.Challenged of the Source.
func (h *Handler) askProgram(ctx context.Context, c *clientcredentials.Challenge) (*clientcredentials.Target, error) {
	if c.Error == "" && c.Scope != "" {
		// The middleware of the MCP SDK sends no error code.
		c.Error = "insufficient_scope"
	}
	target, err := h.asked(ctx, c)
	if err != nil || target == nil {
		return nil, err
	}
	kept := *target
	if kept.Resources != nil {
		kept.Resources = slices.Clone(h.conf.EndpointParams["resource"])
	}
	if _, found := kept.Params["resource"]; found {
		kept.Params = maps.Clone(kept.Params)
		delete(kept.Params, "resource")
	}
	return &kept, nil
}

// discovered returns the Source of tokens. The first call searches for the metadata. All calls
// until then wait for the same search, each no longer than its own ctx allows.
func (h *Handler) discovered(ctx context.Context, resp *http.Response) (*clientcredentials.Source, error) {
	if source := h.source.Load(); source != nil {
		return source, nil
	}
	h.discovery.Lock()
	call := h.discovery.call
	if call == nil || call.HasEnded() && h.source.Load() == nil && time.Since(h.discovery.began) >= discoveryPause {
		background, cancel := context.WithTimeout(context.Background(), discoveryTimeout)
		said, status := bearerChallenge(resp), resp.StatusCode
		call = bounded.Start(background, func(ctx context.Context) (*clientcredentials.Source, error) {
			return h.discover(ctx, status, said)
		}, func(source *clientcredentials.Source, err error) func() {
			cancel()
			if err == nil {
				h.source.Store(source)
			}
			return nil
		})
		h.discovery.call, h.discovery.began = call, time.Now()
	}
	h.discovery.Unlock()
	source, err := call.Wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("oauth2: no token for the MCP server: %w", err)
	}
	return source, nil
}

// discover asks the MCP server which authorization servers it trusts, and then the one that
// the program trusts for its token endpoint. said is what the MCP server answered.
func (h *Handler) discover(ctx context.Context, status int, said map[string]string) (*clientcredentials.Source, error) {
	conf := *h.conf
	if conf.HTTPClient != nil {
		ctx = context.WithValue(ctx, oauth2.HTTPClient, conf.HTTPClient)
	}
	if err := h.discoverResource(ctx, said["resource_metadata"]); err != nil {
		return nil, err
	}
	if conf.TokenURL == "" {
		metadata, err := clientcredentials.Discover(ctx, conf.Issuer)
		if err != nil {
			return nil, err
		}
		found, err := metadata.Complete(&conf)
		if err != nil {
			return nil, err
		}
		conf = *found
	}
	if scope := said["scope"]; h.asked != nil && scope != "" {
		target, err := h.askProgram(ctx, &clientcredentials.Challenge{
			StatusCode: status, Scheme: "Bearer", Error: said["error"], Scope: scope, ResourceMetadata: said["resource_metadata"],
			Target: clientcredentials.Target{Scopes: slices.Clone(conf.Scopes)},
		})
		if err != nil {
			return nil, fmt.Errorf("oauth2: Config.Challenged: %w", err)
		}
		if target != nil && target.Scopes != nil {
			conf.Scopes = target.Scopes
		}
	}
	return conf.Source(context.Background()), nil
}

// discoverResource checks that the metadata of the MCP server is that of the resource, and
// lists the issuer. location is where the server says that its metadata is.
func (h *Handler) discoverResource(ctx context.Context, location string) error {
	address, err := url.Parse(location)
	if location != "" && err == nil && origin.Of(address) == origin.Of(h.address) {
		_, err := clientcredentials.DiscoverResourceAt(ctx, location, h.resource, h.conf.Issuer)
		return err
	}
	// A server behind a proxy often gets its own address wrong, so it may be at the usual
	// place. Nothing is sent to another origin (RFC 9728, Section 7.7).
	_, err = clientcredentials.DiscoverResource(ctx, h.resource, h.conf.Issuer)
	if err != nil && location != "" {
		return fmt.Errorf("%w (its resource_metadata %s has another origin and isn't used)", err, redact.Quote(location, maxQuoted))
	}
	return err
}

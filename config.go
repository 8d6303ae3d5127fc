package clientcredentials

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
	"github.com/seed-5bfa0880/clientcredentials/internal/dpop"
	"github.com/seed-5bfa0880/clientcredentials/internal/invisible"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// Config describes a client of an authorization server that asks for tokens on
// its own behalf, with the client credentials grant of RFC 6749, Section 4.4.
//
// The first six fields are those of golang.org/x/oauth2/clientcredentials, with
// the same types and meaning. The zero value of every other field is its
// documented default.
//
// The fields are read at the start of every token request, so you can rotate a secret by
// assigning the field. There are three exceptions: Origins is read once, by Client,
// Transport and Source; Strict, Observer and Challenged are also read by each API request.
// What is wrong with a field is reported by the first call that needs a token,
// before anything is sent.
//
// The methods are safe for concurrent use. If your program assigns fields, copies the
// Config or prints it while requests are under way, it must do its own locking.
//
// Printed by fmt or log/slog, a Config shows neither its secret nor its parameters, but for
// a number that says whether two Configs of one process have the same parameters.
// Encoded as JSON, YAML or TOML it looks like upstream's, secret included, because programs
// save their configuration that way. The common decoders of configuration see only the first
// six fields, too. Package encoding/gob knows no tags: it carries what it can of the other
// fields, and fails if one of them holds an interface, such as ClientAuth.
type Config struct {
	// ClientID is the client identifier, RFC 6749, Section 2.2. A ClientAuth that is a
	// ClientIdentifier, such as that of clientauth.WithCredentials, takes its place.
	ClientID string

	// ClientSecret is the client's password, RFC 6749, Section 2.3.1.
	ClientSecret string

	// TokenURL is the address of the authorization server's token endpoint,
	// RFC 6749, Section 3.2. A query in it is kept, a fragment isn't sent, and a user
	// name in it is an error. Redirects of the token endpoint are never followed.
	TokenURL string

	// Scopes are the permissions to ask for, RFC 6749, Section 3.3.
	// Empty: no scope parameter is sent and the server decides.
	Scopes []string

	// EndpointParams are further parameters for the token request, such as
	// audience or resource (RFC 8707). They may replace grant_type, for servers
	// that want another value, but not scope if Scopes is set.
	EndpointParams url.Values

	// AuthStyle says how ClientID and ClientSecret are sent: in the
	// Authorization header (client_secret_basic) or in the body
	// (client_secret_post). The zero value finds out which of the two the server
	// accepts: it tries the header first, and the body after an answer that rejects
	// the header. The Config remembers which one worked.
	AuthStyle oauth2.AuthStyle

	// ClientAuth is how the client authenticates to the token endpoint, RFC 6749,
	// Section 2.3: package clientauth has the methods. Nil: with ClientSecret, as
	// AuthStyle says. Otherwise AuthStyle is ignored, and the method may use
	// ClientSecret.
	ClientAuth ClientAuth `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Grant is what the client asks for a token with, if not as itself: package grant has
	// assertions (RFC 7523) and token exchange (RFC 8693). Nil: the client credentials
	// grant. A Grant sets grant_type and parameters of its own, which must not be in
	// EndpointParams. The server may accept a Grant without client credentials: then leave
	// ClientID and ClientSecret empty. With ClientID alone, it is sent in the body.
	Grant Grant `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Issuer is the issuer identifier of the authorization server, RFC 8414,
	// Section 2, if it is known: the audience of client assertions.
	Issuer string `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// HTTPClient sends the token requests. Nil: the client in the context under
	// oauth2.HTTPClient, else http.DefaultClient. The library uses a private copy of
	// it that follows no redirects. HTTPClient doesn't affect the requests made
	// through Client or Transport.
	HTTPClient *http.Client `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// AuthScheme is the authentication scheme that Client, Transport and Source.Authorize
	// send a token with, RFC 9110, Section 11.1, for an API or a gateway that has its own
	// word for Bearer. Empty: the token_type of the token response, or Bearer if that isn't
	// the name of a scheme. It can't be combined with DPoP, and token.Type doesn't know it.
	AuthScheme string `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// EarlyRefresh is how long before its expiry a token is replaced in the
	// background, while callers go on using it. Zero: 5 minutes or a quarter of
	// the token's life, whichever is less. The actual time is chosen at random for
	// each token, between three quarters of EarlyRefresh and the whole, so that
	// replicas don't all refresh at once. A token is never replaced in the first half
	// of its life, however large EarlyRefresh is. A refresh_in in the token response
	// takes precedence. Negative: an error.
	EarlyRefresh time.Duration `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Retry says how hard to try for a token that somebody waits for.
	Retry RetryPolicy `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Origins are the origins ("https://api.example.com:8443") that may receive the
	// token. Nil: the token goes to the origin of the request that the caller made, and a
	// redirect to any other origin is followed without the token. If set, a first request
	// to an origin that isn't listed is an error, before anything is sent, and so is
	// every request if the list is empty. Redirects among the listed origins keep the
	// token, except from https to http.
	Origins []string `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// DPoP is a private key that tokens are bound to, RFC 9449, so that nobody
	// without the key can use them: RSA of 2048 bits or more, ECDSA with P-256, P-384
	// or P-521, or Ed25519. It may be a signer for a key that stays in a KMS. Client
	// and Transport prove with each request that they have the key; for other requests
	// see Source.Authorize. A token that the server hasn't bound is refused. Nil:
	// bearer tokens.
	//
	// The proofs are signed with the first algorithm of the key that the server's
	// metadata lists, if the Config comes from a ServerMetadata.
	DPoP crypto.Signer `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Challenged says what to ask for instead when an API answers 401 or 403 and wants
	// another token: with other scopes, claims, or for another resource. ScopeChallenge and
	// ClaimsChallenge are such functions. Nil, and a nil Target: the caller gets the API's
	// answer. An error ends the request.
	//
	// Client and Transport then request a token for that Target, and send the request once
	// more. From then on the Target takes the place of the one that the API has
	// challenged. That happens at most once in 30 seconds for each Target, whatever the
	// API answers. It may be called by several goroutines at once, with the context of the
	// request.
	Challenged func(ctx context.Context, c *Challenge) (*Target, error) `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Store shares tokens among the replicas of a service, so that one of them
	// requests a token and the others use it. Replicas share if they ask for the same
	// token: TokenURL, ClientID, Scopes, EndpointParams, the method of ClientAuth, the
	// subject of the Grant and what the token is bound to are the same. ClientSecret may
	// differ. Packages redisstore and natsstore have stores.
	//
	// The service doesn't depend on the store: if it is down, slow or refuses, each
	// replica requests its own token. Config.Token doesn't use the store. A store
	// needs a ClientID, unless a Grant alone asks for the token, and EndpointParams without
	// credentials. The library can't see a certificate that HTTPClient presents by itself:
	// use a CertificateAuth if tokens are bound to it. Nil: each Source has its own tokens.
	Store *SharedStore `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Observer is called when something happens to a token. Nil: none.
	Observer *Observer `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// Strict refuses what the RFCs don't allow but existing servers do, and what is
	// therefore accepted by default:
	//
	//   - a member of a token response whose name is in other letter case,
	//   - a token type other than Bearer (RFC 6749, Section 7.1),
	//   - a bearer token with characters beyond those of RFC 6750, Section 2.1,
	//   - a form-encoded token response that may have been cut off,
	//   - a token request without client id and secret, unless there is a Grant,
	//   - an answer to a token exchange whose issued_token_type is missing, or isn't the
	//     requested_token_type (RFC 8693, Section 2.2.1),
	//   - a TokenURL with a fragment, and characters in TokenURL, ClientID and ClientSecret
	//     that people can't see,
	//   - http instead of https, except to this host.
	Strict bool `json:"-" yaml:"-" toml:"-" mapstructure:"-" kong:"-" ignored:"true"`

	// listed are the algorithms of the server's metadata, by what they are for.
	// ServerMetadata.Complete sets them. Empty: unknown.
	listed struct{ assertion, dpop []string }

	// styles holds a *authStyleCache. It is an atomic.Value because that may be copied
	// with the struct, unlike an atomic.Pointer.
	styles atomic.Value
}

// Token always requests a new token. Most programs should use Client, Source or
// TokenSource, which cache. Use Token to check that the configuration works, or to get a
// token that is certainly new.
//
// It waits no longer than ctx and Config.Retry allow, whatever the HTTP client, ClientAuth
// or signer does. The token request goes through Config.HTTPClient, else through the client
// in ctx under oauth2.HTTPClient.
// If the server refuses, the error is a *oauth2.RetrieveError; if it answers with something
// that isn't a token response, a *ResponseError.
func (c *Config) Token(ctx context.Context) (*oauth2.Token, error) {
	target, _ := targetIn(ctx)
	request, err := newTokenRequest(ctx, c, target, new(dpop.Nonces))
	if err != nil {
		return nil, err
	}
	ctx, cancel := timeout(withoutTarget(ctx), request.conf.Retry.TotalTimeout, "the token request")
	defer cancel()
	if ctx.Err() != nil {
		return nil, request.explain(ctx, context.Cause(ctx))
	}
	response, err := bounded.Do(ctx, func(ctx context.Context) (*tokenResponse, error) {
		return request.do(ctx, func() bool { return true })
	})
	if err != nil {
		return nil, request.explain(ctx, err)
	}
	return response.token(), nil
}

// Client returns an HTTP client that adds a token to each request. The token is cached
// and refreshed as necessary. The client's Transport is an *oauth2.Transport.
//
// The client in ctx under oauth2.HTTPClient, if any, lends its Transport,
// CheckRedirect, Jar and Timeout, and sends the token requests unless
// Config.HTTPClient is set. Once ctx is done no more tokens are requested; the
// cached one is used until it expires. A request waits for a token no longer
// than the request's own context allows.
//
// The token goes only to the origin of the request and to those in Origins; a
// redirect elsewhere is followed without it. The Transport's Base enforces this
// rule and makes requests wait by their own context: if you replace Base, both are lost.
//
// CloseIdleConnections of the client has no effect, as *oauth2.Transport doesn't pass it
// on. Use an http.Client with a [Transport] where that matters.
func (c *Config) Client(ctx context.Context) *http.Client {
	base, _ := contextClient(ctx) // The token request reports the error.
	return &http.Client{
		Transport:     newClientTransport(c.Source(ctx), base.Transport),
		CheckRedirect: base.CheckRedirect,
		Jar:           base.Jar,
		Timeout:       base.Timeout,
	}
}

// TokenSource returns a source of cached tokens for programs and libraries that
// want an oauth2.TokenSource. Its Token returns the cached token while that is valid, and
// refreshes it in the background; otherwise it waits for a new one. In the last seconds
// before the expiry it may wait briefly for a new token. The given context is used as in
// Client.
//
// The result has the type that oauth2.ReuseTokenSource returns, so that its callers share
// one pointer to a token, and wait in turn for a new one. After
// oauth2.ReuseTokenSourceWithExpiry(nil, source, early) it requests a new token
// that much before the expiry, and waits for it for at most half of that time.
//
// A Source can do more: it waits by a context and drops revoked tokens.
func (c *Config) TokenSource(ctx context.Context) oauth2.TokenSource {
	return newShelledSource(c.Source(ctx))
}

// Source returns a source of cached tokens. Each call returns a new one with its own
// cache. The given context is used as in Client. A Source needs neither a goroutine nor
// a timer while it is idle, and no closing.
func (c *Config) Source(ctx context.Context) *Source {
	s := &Source{conf: c, ctx: ctx}
	if c != nil { // The token request reports it otherwise.
		s.origins = origin.NewPolicy(c.Origins)
	}
	return s.forContext(ctx)
}

// Transport returns an http.RoundTripper that does what the Transport of Client
// does, at less cost per request. The given context is used as in Client, except for
// CheckRedirect, Jar and Timeout: set those in the http.Client that you put the Transport
// into.
func (c *Config) Transport(ctx context.Context) *Transport {
	base, _ := contextClient(ctx) // The token request reports the error.
	return &Transport{Source: c.Source(ctx), Base: base.Transport}
}

// String returns a description of c without anything secret. It distinguishes Configs whose
// EndpointParams differ, by a number that is another one in each process.
func (c Config) String() string {
	return fmt.Sprintf("clientcredentials.Config{ClientID: %q, TokenURL: %q, Scopes: %q%s}", c.ClientID, printableURL(c.TokenURL), c.Scopes, printableValues("EndpointParams", c.EndpointParams))
}

// printableValues returns the last field of a struct as it is printed, with a number that
// distinguishes its values from others in this process; nothing if there are none. Another
// process has another number, so that nobody can guess values that must not be shown.
func printableValues(name string, values url.Values) string {
	if len(values) == 0 {
		return ""
	}
	digestSeed.once.Do(func() { digestSeed.seed = maphash.MakeSeed() })
	return fmt.Sprintf(", %s: #%016x", name, maphash.String(digestSeed.seed, values.Encode()))
}

var digestSeed struct {
	once sync.Once
	seed maphash.Seed
}

// printableURL returns a token endpoint's address without its query.
func printableURL(address string) string {
	u, err := parseTokenURL(address)
	if err != nil || u.Host == "" {
		return "unusable"
	}
	return redact.Address(u)
}

// GoString returns what String does.
func (c Config) GoString() string { return c.String() }

// Format prints what String returns, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue returns what String does, for log/slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// check reports what is wrong with c. It returns what it has parsed on the way: the address
// of the token endpoint, and Retry without zero fields.
func (c *Config) check() (endpoint *url.URL, retry RetryPolicy, err error) {
	if endpoint, err = parseTokenURL(c.TokenURL); err != nil {
		return nil, retry, err
	}
	if retry, err = c.Retry.withDefaults(); err != nil {
		return nil, retry, err
	}
	switch {
	case c.Strict && (endpoint.Fragment != "" || strings.HasSuffix(c.TokenURL, "#")):
		// RFC 6749, Section 3.2.
		err = errors.New("oauth2: TokenURL contains a fragment, which a token endpoint cannot have; remove the # and what follows")
	case c.Strict && oddity(c.TokenURL, c.ClientID, c.ClientSecret) != "":
		err = errors.New("oauth2: " + oddity(c.TokenURL, c.ClientID, c.ClientSecret))
	case c.Strict && c.ClientID == "" && c.ClientSecret == "" && c.ClientAuth == nil && c.Grant == nil:
		err = errors.New("oauth2: ClientID and ClientSecret are empty; set them")
	case c.Strict && origin.IsCleartext(endpoint):
		err = errors.New("oauth2: TokenURL is http, which Strict refuses; use https")
	case c.AuthScheme != "" && !challenge.IsScheme(c.AuthScheme):
		err = errors.New("oauth2: AuthScheme is not the name of an authentication scheme; use a single word such as Bearer")
	case c.AuthScheme != "" && c.DPoP != nil:
		err = errors.New("oauth2: AuthScheme and DPoP are set; remove AuthScheme: RFC 9449 has its own scheme")
	case c.EarlyRefresh < 0:
		err = errors.New("oauth2: EarlyRefresh is negative; use zero for the default")
	case c.Grant != nil && c.EndpointParams.Has("grant_type"):
		err = errors.New("oauth2: EndpointParams contains grant_type, which is for Grant to set; remove it there")
	case len(c.Scopes) > 0 && c.EndpointParams.Has("scope"):
		err = fmt.Errorf("oauth2: cannot overwrite parameter %q", "scope")
	case c.ClientAuth != nil:
		err = c.checkClientAuth()
	}
	if err == nil && c.store() != nil {
		err = c.checkStore()
	}
	return endpoint, retry, err
}

// store returns c.Store, or nil if it is as good as nil: some decoders of configuration
// fill nil pointers with empty structs.
func (c *Config) store() *SharedStore {
	if c.Store == nil || !c.Store.isReady() {
		return nil
	}
	return c.Store
}

// checkStore reports why tokens can't be shared through c.Store.
func (c *Config) checkStore() error {
	anonymous := c.Grant != nil && c.ClientSecret == "" && c.ClientAuth == nil // The Grant's subject is the whole identity.
	if c.ClientID == "" && !identifies(c.ClientAuth) && c.EndpointParams.Get("client_id") == "" && !anonymous {
		// Then only the credentials say who the client is. They aren't part of the
		// store's key, so any two clients would share their tokens.
		return errors.New("oauth2: ClientID is empty: replicas can't tell whose token it is; set it, or remove Store")
	}
	for name := range c.EndpointParams {
		// Two clients that differ in it get different tokens, and a key made of it would
		// help to guess it.
		if redact.ForbidsSharing(name) {
			return fmt.Errorf("oauth2: EndpointParams contains %s, which looks like a credential: such tokens can't be shared; remove Store", name)
		}
	}
	return c.Store.fault
}

// parseTokenURL parses a token endpoint's address, or reports what is wrong with
// it. The error never quotes the address, which may contain a misplaced secret. As in
// upstream it is a *url.Error if the address can't be parsed.
func parseTokenURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		reason := oddityOf("TokenURL", address)
		if reason == "" {
			reason = "TokenURL cannot be parsed as a URL; set it to the address of the token endpoint"
		}
		return nil, &url.Error{Op: "parse", Err: errors.New("oauth2: " + reason)}
	}
	if u.User != nil {
		// RFC 6749, Section 2.3.1: credentials are never part of the URI.
		return nil, errors.New("oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret")
	}
	for name := range u.Query() {
		switch name {
		case "client_secret", "client_assertion", "password":
			return nil, fmt.Errorf("oauth2: TokenURL contains %s in its query; use ClientSecret or EndpointParams", name)
		}
	}
	return u, nil
}

// checkAddress reports why net/http can't send a request to an endpoint, in its words. Any
// other RoundTripper may know what to do with such an address.
func checkAddress(endpoint *url.URL, transport http.RoundTripper) error {
	if _, ok := transport.(*http.Transport); transport != nil && !ok {
		return nil
	}
	reason := `unsupported protocol scheme ""`
	switch {
	case endpoint.Scheme == "http" || endpoint.Scheme == "https":
		if endpoint.Host != "" {
			return nil
		}
		reason = "http: no Host in request URL"
	case endpoint.Scheme != "":
		return nil // It may be registered with the transport.
	}
	return adviseOnAddress(&url.Error{Op: "Post", Err: errors.New(reason)}, endpoint)
}

// adviseOnAddress completes an error of net/http, which can't send a request to endpoint. It
// takes the address out of the error, because that may be a misplaced secret.
func adviseOnAddress(err *url.Error, endpoint *url.URL) error {
	advice := "TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host"
	switch {
	case *endpoint == (url.URL{}):
		advice = "TokenURL is empty; set it to the address of the token endpoint"
	case endpoint.Scheme != "" && endpoint.Host != "":
		return err
	}
	return &url.Error{Op: err.Op, Err: fmt.Errorf("%w: %s", err.Err, advice)}
}

// oddity says what is hardly meant in the fields that say who the client is and where the
// server is; empty: nothing. It is a hint for a refusal: a server may have such a client.
func oddity(tokenURL, clientID, clientSecret string) string {
	for _, field := range [...]struct{ name, value string }{{"TokenURL", tokenURL}, {"ClientID", clientID}, {"ClientSecret", clientSecret}} {
		if found := oddityOf(field.name, field.value); found != "" {
			return found
		}
	}
	return ""
}

// oddityOf says what is hardly meant in the value of a field: characters that people can't
// see, spaces at its ends or in an address, and quotation marks around it.
func oddityOf(name, value string) string {
	isOdd := invisible.Is
	if name == "TokenURL" || value != strings.TrimSpace(value) {
		isOdd = func(r rune) bool { return r == ' ' || invisible.Is(r) }
	}
	if found := invisible.Find(value, isOdd); found != "" {
		return fmt.Sprintf("%s contains %s; remove it where %s is read", name, found, name)
	}
	if n := len(value); n > 1 && value[0] == value[n-1] && strings.IndexByte("\"'`", value[0]) >= 0 {
		return name + " is in quotation marks; remove them where " + name + " is read"
	}
	return ""
}

// contextClient returns the client in ctx under oauth2.HTTPClient, else
// http.DefaultClient, also with an error.
func contextClient(ctx context.Context) (*http.Client, error) {
	if ctx == nil {
		return http.DefaultClient, nil
	}
	switch client := ctx.Value(oauth2.HTTPClient).(type) {
	case nil:
		return http.DefaultClient, nil
	case *http.Client:
		if client == nil {
			return http.DefaultClient, errors.New("oauth2: the *http.Client in the context under oauth2.HTTPClient is nil")
		}
		return client, nil
	default:
		// To ignore it would send the secret through another client than the program means.
		return http.DefaultClient, fmt.Errorf("oauth2: the value in the context under oauth2.HTTPClient is a %T, not a *http.Client", client)
	}
}

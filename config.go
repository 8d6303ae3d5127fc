package clientcredentials

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// Config describes a client of an authorization server that asks for tokens on
// its own behalf, with the client credentials grant of RFC 6749, Section 4.4.
//
// The first six fields are those of golang.org/x/oauth2/clientcredentials, with
// the same types and meaning. The zero value of every other field is its
// documented default.
//
// A Config may be copied by value, also after first use, and its methods are
// safe for concurrent use, except that copying and printing it read all of it: not
// while its first token request begins. The fields are read at the start of every
// token request, so that a secret can be rotated by assigning the field, but for
// Origins, which Client and Transport copy, and Strict and Observer, which each API
// request reads too. A program that assigns fields while requests are under way
// must do its own locking.
// What is wrong with a field is reported by the first call that needs a token,
// before anything is sent.
//
// Printed by fmt or log/slog, a Config shows neither its secret nor its parameters.
// Encoded as JSON it looks as upstream's, secret included: programs keep their
// configuration so.
type Config struct {
	// ClientID is the client identifier, RFC 6749, Section 2.2.
	ClientID string

	// ClientSecret is the client's password, RFC 6749, Section 2.3.1.
	ClientSecret string

	// TokenURL is the address of the authorization server's token endpoint,
	// RFC 6749, Section 3.2. A query in it is kept; a fragment or a user name
	// in it is an error. Redirects of the token endpoint are never followed.
	TokenURL string

	// Scopes are the permissions to ask for, RFC 6749, Section 3.3.
	// Empty: no scope parameter is sent and the server decides.
	Scopes []string

	// EndpointParams are further parameters for the token request, such as
	// audience or resource (RFC 8707). They may replace grant_type, for servers
	// that want another, but not scope when Scopes is set.
	EndpointParams url.Values

	// AuthStyle says how ClientID and ClientSecret are sent: in the
	// Authorization header (client_secret_basic), in the body
	// (client_secret_post), or, for the zero value, in whichever of the two the
	// server turns out to accept: the header first, the body after an answer
	// that rejects it. The form that worked is remembered in the Config.
	AuthStyle oauth2.AuthStyle

	// ClientAuth is how the client authenticates to the token endpoint, RFC 6749,
	// Section 2.3: package clientauth has the methods. Nil: with ClientSecret, as
	// AuthStyle says. Otherwise AuthStyle doesn't count, and ClientSecret is for
	// the method to use.
	ClientAuth ClientAuth `json:"-" yaml:"-"`

	// Issuer is the issuer identifier of the authorization server, RFC 8414,
	// Section 2, if it is known: the audience of client assertions.
	Issuer string `json:"-" yaml:"-"`

	// HTTPClient sends the token requests. Nil: the client found in the context
	// under oauth2.HTTPClient, else http.DefaultClient. It is used through a
	// private copy that follows no redirect. It doesn't affect the requests
	// made through Client or Transport.
	HTTPClient *http.Client `json:"-" yaml:"-"`

	// EarlyRefresh is how long before its expiry a token is replaced in the
	// background, while callers go on using it. Zero: 5 minutes or a quarter of
	// the token's life, whichever is less. Each token draws its own moment,
	// between three quarters of EarlyRefresh and the whole, so that replicas
	// don't refresh in step. A token is never replaced in the first half of its
	// life, however large EarlyRefresh is. A refresh_in in the token response
	// wins. Negative: an error.
	EarlyRefresh time.Duration `json:"-" yaml:"-"`

	// Retry says how hard to try for a token that somebody waits for.
	Retry RetryPolicy `json:"-" yaml:"-"`

	// Origins are further origins ("https://api.example.com:8443") that may
	// receive the token. Nil: the token goes to the origin of the request that
	// the caller made, and a redirect to any other origin is followed without
	// it. When set, a first request to an origin that isn't listed is an error,
	// before anything is sent, and redirects among the listed origins keep the
	// token, except from https to http.
	Origins []string `json:"-" yaml:"-"`

	// DPoP is a private key that tokens are bound to, RFC 9449, so that nobody
	// without it can use them: RSA of 2048 bits or more, ECDSA with P-256, P-384
	// or P-521, or Ed25519, also one that only signs remotely. Client and Transport
	// prove its possession with each request; see Source.Authorize for others. A
	// token that the server has not bound is refused. Nil: bearer tokens.
	DPoP crypto.Signer `json:"-" yaml:"-"`

	// Store shares tokens with other replicas of the service, so that they request
	// one between them: with those whose Config is the same but for ClientSecret and
	// what only says how to ask. Packages redisstore and natsstore have one. It is
	// never needed to get a token: when it is down, slow or refuses, each replica
	// requests its own. Config.Token doesn't use it. It needs a ClientID, and
	// EndpointParams without credentials. A certificate that HTTPClient presents by
	// itself isn't seen: use a CertificateAuth if tokens are bound to it. Nil: each
	// Source has its own.
	Store *SharedStore `json:"-" yaml:"-"`

	// Observer is told what happens to tokens. Nil: nobody is.
	Observer *Observer `json:"-" yaml:"-"`

	// Strict refuses token responses, and ways of asking for them, that are
	// outside the RFCs and tolerated by default because servers in use need it:
	// a member name in other letter case, a token type that isn't known (RFC
	// 6749, Section 7.1), a form-encoded response whose end can't be told from
	// a cut connection, a token request without any client id or secret, and
	// http instead of https to any host but this one.
	Strict bool `json:"-" yaml:"-"`

	// styles holds a *authStyleCache. It is an atomic.Value, and not an
	// atomic.Pointer, because that may be copied with the struct.
	styles atomic.Value
}

// Token requests a new token, always: use Client, Source or TokenSource for one
// that is cached. People use it to force a fresh token or to check that the
// configuration works.
//
// It waits no longer than ctx, and than Config.Retry allows. The token request goes
// through Config.HTTPClient, else the client in ctx under oauth2.HTTPClient.
// When the server refuses, the error is a *oauth2.RetrieveError; when it answers
// with something that isn't a token response, a *ResponseError.
func (c *Config) Token(ctx context.Context) (*oauth2.Token, error) {
	request, err := c.tokenRequest(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := timeout(ctx, request.retry.TotalTimeout, "the token request")
	defer cancel()
	response, err := request.do(ctx, func() bool { return true })
	if err != nil {
		return nil, err
	}
	return response.token(), nil
}

// Client returns an HTTP client whose requests carry a token, which is cached
// and refreshed as necessary. The client's Transport is an *oauth2.Transport.
//
// The client in ctx under oauth2.HTTPClient, if any, lends its Transport,
// CheckRedirect, Jar and Timeout, and sends the token requests unless
// Config.HTTPClient is set. Once ctx is done no token is requested anymore: the
// cached one serves until it expires. A request waits for a token no longer
// than the request's own context allows.
//
// The token goes to the origin of the request only, and to those in Origins; a
// redirect elsewhere is followed without it. That rule, and the waiting by the
// request's context, are the work of the Transport's Base: keep it when you
// put another RoundTripper in its place.
func (c *Config) Client(ctx context.Context) *http.Client {
	base, err := contextClient(ctx)
	if err != nil {
		base = http.DefaultClient // The token request reports it.
	}
	return &http.Client{
		Transport:     newClientTransport(c.Source(ctx), base.Transport, c.origins()),
		CheckRedirect: base.CheckRedirect,
		Jar:           base.Jar,
		Timeout:       base.Timeout,
	}
}

// TokenSource returns a source of cached tokens for programs and libraries that
// want an oauth2.TokenSource. While a token is valid Token returns it, at once but
// for the last seconds, and refreshes it in the background; otherwise it waits for
// a new one. The given context is used as in Client.
//
// It is what oauth2.ReuseTokenSource returns, so that its callers share one
// pointer to a token, and wait in line for a new one. After
// oauth2.ReuseTokenSourceWithExpiry(nil, source, early) it requests a new token
// that much before the expiry, and waits for it for half of that time at most.
//
// A Source can do more: it waits by a context and drops revoked tokens.
func (c *Config) TokenSource(ctx context.Context) oauth2.TokenSource {
	return newShelledSource(c.Source(ctx))
}

// Source returns a source of cached tokens. Each call returns another, with a
// cache of its own. The given context is used as in Client. It costs neither a
// goroutine nor a timer, and needs no closing.
func (c *Config) Source(ctx context.Context) *Source {
	return &Source{conf: c, ctx: ctx}
}

// Transport returns an http.RoundTripper that does what the Transport of Client
// does, at less cost per request. The given context is used as in Client, except
// that CheckRedirect, Jar and Timeout are the business of the http.Client that
// the Transport is put into.
func (c *Config) Transport(ctx context.Context) *Transport {
	base, err := contextClient(ctx)
	if err != nil {
		base = http.DefaultClient // The token request reports it.
	}
	return &Transport{Source: c.Source(ctx), Base: base.Transport, Origins: c.origins()}
}

// origins returns c.Origins; a nil Config is reported by the token request.
func (c *Config) origins() []string {
	if c == nil {
		return nil
	}
	return c.Origins
}

// String returns a description of c without anything secret.
func (c Config) String() string {
	return fmt.Sprintf("clientcredentials.Config{ClientID: %q, TokenURL: %q, Scopes: %q}", c.ClientID, printableURL(c.TokenURL), c.Scopes)
}

// printableURL returns a token endpoint's address without its query.
func printableURL(address string) string {
	u, err := parseTokenURL(address)
	if err != nil {
		return "unusable"
	}
	u.RawQuery = ""
	return u.String()
}

// GoString returns what String does.
func (c Config) GoString() string { return c.String() }

// Format prints what String returns, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue returns what String does, for log/slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// tokenRequest checks c and copies what a token request needs from it.
func (c *Config) tokenRequest(ctx context.Context) (*tokenRequest, error) {
	if c == nil {
		return nil, errors.New("oauth2: the Config is nil")
	}
	if ctx == nil {
		return nil, errors.New("oauth2: the context is nil; pass context.Background() if there is no other")
	}
	client := c.HTTPClient
	if client == nil {
		var err error
		if client, err = contextClient(ctx); err != nil {
			return nil, err
		}
	}
	endpoint, err := parseTokenURL(c.TokenURL)
	if err != nil {
		return nil, err
	}
	// RFC 6749, Appendix A.1, allows printable ASCII. Only control characters
	// are certain to be a mistake: other servers take any UTF-8.
	if strings.ContainsFunc(c.ClientID, isControl) {
		return nil, errors.New("oauth2: ClientID contains a control character; remove line breaks and the like from where it is read")
	}
	if c.Strict && c.ClientID == "" && c.ClientSecret == "" && c.ClientAuth == nil {
		return nil, errors.New("oauth2: ClientID and ClientSecret are empty; set them")
	}
	if err := c.checkClientAuth(); err != nil {
		return nil, err
	}
	if c.Strict && isCleartext(endpoint) {
		return nil, errors.New("oauth2: TokenURL is http, which Strict refuses; use https")
	}
	if err := c.checkStore(); err != nil {
		return nil, err
	}
	retry, err := c.Retry.withDefaults()
	if err != nil {
		return nil, err
	}
	if c.EarlyRefresh < 0 {
		return nil, errors.New("oauth2: EarlyRefresh is negative; use zero for the default")
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(c.Scopes) > 0 {
		form.Set("scope", strings.Join(c.Scopes, " "))
	}
	for name, values := range c.EndpointParams {
		if _, ok := form[name]; ok && name != "grant_type" {
			return nil, fmt.Errorf("oauth2: cannot overwrite parameter %q", name)
		}
		form[name] = append([]string(nil), values...)
	}

	// RFC 6749, Section 10.1: the secret is for the configured endpoint alone,
	// so wherever a redirect points, it isn't followed.
	private := *client
	private.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	var styles *authStyleCache
	if c.AuthStyle == oauth2.AuthStyleAutoDetect && c.ClientAuth == nil {
		styles = c.authStyles()
	}
	return &tokenRequest{
		client:       &private,
		url:          c.TokenURL,
		endpoint:     endpoint,
		issuer:       c.Issuer,
		clientID:     c.ClientID,
		clientSecret: c.ClientSecret,
		clientAuth:   c.ClientAuth,
		dpop:         c.DPoP,
		nonces:       new(nonceCache),
		authStyle:    c.AuthStyle,
		styles:       styles,
		form:         form,
		scopes:       slices.Clone(c.Scopes),
		params:       cloneValues(c.EndpointParams),
		strict:       c.Strict,
		earlyRefresh: c.EarlyRefresh,
		retry:        retry,
		store:        c.Store,
		observer:     c.Observer,
	}, nil
}

// checkStore reports what doesn't go together with c.Store.
func (c *Config) checkStore() error {
	if c.Store == nil {
		return nil
	}
	if c.Store.calls == nil {
		return errors.New("oauth2: Config.Store is empty; get one from Seal, or from an adapter such as redisstore.New")
	}
	if c.ClientID == "" && c.EndpointParams.Get("client_id") == "" {
		// The assertion, the secret or something else says who it is, and isn't in the
		// key: any two clients would share.
		return errors.New("oauth2: ClientID is empty: replicas can't tell whose token it is; set it, or remove Store")
	}
	for name := range c.EndpointParams {
		// Two that differ in it have different tokens, and a key that is made of it
		// would help to guess it.
		if isSecretParameter(name) {
			return fmt.Errorf("oauth2: EndpointParams contains %s, which looks like a credential: such tokens can't be shared; remove Store", name)
		}
	}
	return c.Store.fault
}

// parseTokenURL parses a token endpoint's address, or reports what is wrong with
// it. It never quotes the address: a misplaced secret may be in it.
func parseTokenURL(address string) (*url.URL, error) {
	if address == "" {
		return nil, errors.New("oauth2: TokenURL is empty; set it to the address of the token endpoint")
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("oauth2: TokenURL cannot be parsed as a URL; set it to the address of the token endpoint")
	case u.Scheme == "" || u.Host == "":
		return nil, errors.New("oauth2: TokenURL is not absolute; set it to the whole address of the token endpoint, with scheme and host")
	case u.User != nil:
		// RFC 6749, Section 2.3.1: credentials are never part of the URI.
		return nil, errors.New("oauth2: TokenURL contains a user name or password; use ClientID and ClientSecret")
	case u.Fragment != "" || strings.HasSuffix(address, "#"):
		// RFC 6749, Section 3.2.
		return nil, errors.New("oauth2: TokenURL contains a fragment, which a token endpoint cannot have; remove the # and what follows")
	}
	for name := range u.Query() {
		switch name {
		case "client_secret", "client_assertion", "password":
			return nil, fmt.Errorf("oauth2: TokenURL contains %s in its query; use ClientSecret or EndpointParams", name)
		}
	}
	return u, nil
}

// contextClient returns the client in ctx under oauth2.HTTPClient, else
// http.DefaultClient.
func contextClient(ctx context.Context) (*http.Client, error) {
	if ctx != nil {
		if client, ok := ctx.Value(oauth2.HTTPClient).(*http.Client); ok {
			if client == nil {
				return nil, errors.New("oauth2: the *http.Client in the context under oauth2.HTTPClient is nil")
			}
			return client, nil
		}
	}
	return http.DefaultClient, nil
}

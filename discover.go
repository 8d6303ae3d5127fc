package clientcredentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

const (
	// discoverTimeout bounds a search for metadata as a whole.
	discoverTimeout = 10 * time.Second

	// maxQuoted bounds how much of the server's words an error quotes in one place. Of
	// each location it quotes one or two.
	maxQuoted = 200
)

// ServerMetadata is what an authorization server says about itself, RFC 8414,
// Section 2, as far as it matters for the client credentials grant. Fields that the server
// doesn't set are zero, and so are those that Discover leaves out. The names in JSON are those of the IANA registry
// "OAuth Authorization Server Metadata", so that a program can keep the metadata in a file.
type ServerMetadata struct {
	// Issuer is the server's issuer identifier, RFC 8414, Section 2.
	Issuer string `json:"issuer"`

	// TokenEndpoint is the address of the token endpoint, RFC 6749, Section 3.2.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// TokenEndpointAuthMethodsSupported names the ways to authenticate to the
	// token endpoint, as in the IANA registry "OAuth Token Endpoint Authentication
	// Methods". Empty: client_secret_basic, RFC 8414, Section 2.
	TokenEndpointAuthMethodsSupported []string `json:"token_endpoint_auth_methods_supported,omitempty"`

	// TokenEndpointAuthSigningAlgValuesSupported names the algorithms (RFC 7518,
	// Section 3.1) for private_key_jwt and client_secret_jwt, RFC 8414, Section 2.
	TokenEndpointAuthSigningAlgValuesSupported []string `json:"token_endpoint_auth_signing_alg_values_supported,omitempty"`

	// ScopesSupported are scopes that the server knows, RFC 8414, Section 2. It
	// may know others.
	ScopesSupported []string `json:"scopes_supported,omitempty"`

	// GrantTypesSupported names the server's grants, RFC 8414, Section 2. Empty:
	// it doesn't say. The RFC's default lacks client_credentials, but servers that leave
	// this out don't mean that.
	GrantTypesSupported []string `json:"grant_types_supported,omitempty"`

	// DPoPSigningAlgValuesSupported names the algorithms for DPoP proofs, RFC
	// 9449, Section 5.1.
	DPoPSigningAlgValuesSupported []string `json:"dpop_signing_alg_values_supported,omitempty"`

	// MTLSEndpointAliases are the endpoints for clients that present a
	// certificate, RFC 8705, Section 5.
	MTLSEndpointAliases MTLSEndpointAliases `json:"mtls_endpoint_aliases,omitzero"`

	// TLSClientCertificateBoundAccessTokens says whether the server can bind
	// tokens to the client's certificate, RFC 8705, Section 3.3.
	TLSClientCertificateBoundAccessTokens bool `json:"tls_client_certificate_bound_access_tokens,omitempty"`

	// JWKSURI is the address of the server's keys, RFC 8414, Section 2.
	JWKSURI string `json:"jwks_uri,omitempty"`

	// RevocationEndpoint is an address, RFC 7009, Section 2.
	RevocationEndpoint string `json:"revocation_endpoint,omitempty"`

	// IntrospectionEndpoint is an address, RFC 7662, Section 2.
	IntrospectionEndpoint string `json:"introspection_endpoint,omitempty"`
}

// MTLSEndpointAliases are the endpoints to use with a client certificate, RFC
// 8705, Section 5.
type MTLSEndpointAliases struct {
	// TokenEndpoint replaces the usual token endpoint. Empty: clients with a certificate
	// use the usual one.
	TokenEndpoint string `json:"token_endpoint,omitempty"`
}

// Discover asks the authorization server with that issuer identifier for its
// metadata. You must trust the issuer: its metadata decides where credentials go, and the
// token endpoint may have another origin. The issuer must be an https URL without query,
// fragment and user name; http is accepted for this host.
//
// Discover asks these locations, in this order, until one has metadata that can be used:
//
//   - https://host/.well-known/oauth-authorization-server/path, RFC 8414, Section 3;
//   - https://host/.well-known/openid-configuration/path, RFC 8414, Section 5;
//   - https://host/path/.well-known/openid-configuration, OpenID Connect Discovery
//     1.0, Section 4;
//   - https://host/path/.well-known/oauth-authorization-server, where some servers have it
//     although no specification says so.
//
// The authorization specification of the Model Context Protocol demands this order. An issuer
// without a path has only the first two. Whatever a location answers, and if it doesn't answer,
// Discover goes on to the next. It follows no redirects. It gives up early only if it can't
// connect to the host, or if ctx is done.
//
// Metadata can be used if
//
//   - its issuer is the same, character by character (RFC 8414, Section 3.3),
//   - it has a token endpoint,
//   - the address of its token endpoint is an https URL without fragment and user name,
//     except that http is accepted for this host if the issuer is http,
//   - issuer, token_endpoint and token_endpoint_auth_methods_supported have the right types,
//     and none of them appears twice.
//
// The other fields of ServerMetadata stay zero if their members have another type, appear
// twice, or are addresses that break the rule for the token endpoint. Members are recognised
// by their exact names. Signed metadata (RFC 8414, Section 2.1) is ignored.
//
// The error says what was wrong with each location. IsTemporary reports whether one of them
// failed in a way that may pass by itself. If that was an answer such as 503, errors.As
// finds it as a *oauth2.RetrieveError, with its status and header.
//
// The requests go through the client in ctx under oauth2.HTTPClient, without its
// Jar, else through http.DefaultClient. In total they take no longer than 10 seconds, and no
// longer than ctx allows. Each location gets half of the time that is left, and the last one
// all of it. Nothing is cached and nothing is tried twice: call Discover once, when a program
// starts. It is safe for concurrent use.
func Discover(ctx context.Context, issuer string) (*ServerMetadata, error) {
	return discover(ctx, issuers, issuer, func(body []byte) (*ServerMetadata, error) {
		return parseMetadata(body, issuer)
	})
}

// A publisher is a kind of server that publishes metadata about itself.
type publisher struct {
	what      string // what people call such a server
	name      string // of its identifier, and of the member of its metadata with it
	example   string // of an identifier
	mayQuery  bool   // whether the identifier may have a query
	otherwise string // what a program can do without metadata

	// locations returns where to look for the metadata of an identifier, the likeliest location
	// first. All are on the host of the identifier.
	locations func(identifier *url.URL) []string
}

// An authorization server has an issuer identifier, RFC 8414, Section 2.
var issuers = publisher{
	what:      "server",
	name:      "issuer",
	example:   "https://login.example.com",
	otherwise: "set TokenURL instead",
	locations: metadataLocations,
}

// discover searches for the metadata that is published under an identifier, at one location
// after the other. parse reads it from a JSON object, or says why it can't be used.
func discover[T any](ctx context.Context, by publisher, identifier string, parse func(body []byte) (*T, error)) (*T, error) {
	if ctx == nil {
		return nil, errors.New("oauth2: the context is nil; pass context.Background() if there is no other")
	}
	parsed, err := by.parse(identifier)
	if err != nil {
		return nil, fmt.Errorf("oauth2: cannot discover: %w", err)
	}
	client, err := contextClient(ctx)
	if err != nil {
		return nil, err
	}
	// A redirect would let another origin speak for this one.
	// Cookies are for what a user does.
	private := withoutRedirects(client)
	private.Jar = nil
	deadline := time.Now().Add(discoverTimeout)
	if callers, ok := ctx.Deadline(); ok && callers.Before(deadline) {
		deadline = callers
	}

	var (
		locations = by.locations(parsed)
		shown     = quote(withoutQuery(identifier))
		reasons   []string // what was wrong with each location
		temporary error    // the first reason that may pass by itself
	)
	for i, location := range locations {
		limit := time.Until(deadline)
		if i+1 < len(locations) {
			limit /= 2
		}
		m, connected, err := askLocation(ctx, limit, private, location, by, parse)
		switch {
		case err == nil:
			return m, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("oauth2: cannot discover %s: %w", shown, endOf(ctx))
		case !connected: // The other locations are on the same host.
			return nil, fmt.Errorf("oauth2: cannot discover %s: %w", shown, err)
		case temporary == nil && IsTemporary(err):
			temporary = err
		}
		reasons = append(reasons, err.Error())
	}
	advice := "check the " + by.name
	if temporary != nil {
		advice = "try again later"
	}
	return nil, &discoveryError{
		text:  fmt.Sprintf("oauth2: cannot discover %s: %s; %s, or %s", shown, strings.Join(reasons, "; "), advice, by.otherwise),
		cause: temporary,
	}
}

// A discoveryError doesn't show the text of what it wraps. That of a *oauth2.RetrieveError,
// for example, says that a token request has failed.
type discoveryError struct {
	text  string
	cause error // why IsTemporary is true of it; nil: it isn't
}

func (e *discoveryError) Error() string { return e.text }
func (e *discoveryError) Unwrap() error { return e.cause }

// parse parses an identifier, or reports what is wrong with it. The error never quotes it,
// because it may contain a misplaced secret.
func (p publisher) parse(identifier string) (*url.URL, error) {
	u, err := url.Parse(identifier)
	_, query, hasQuery := strings.Cut(identifier, "?")
	switch {
	case identifier == "":
		return nil, fmt.Errorf("the %[1]s is empty; set it to the %[1]s identifier of the %[2]s", p.name, p.what)
	case isTemplate(identifier):
		return nil, fmt.Errorf("the %s is a template; replace the braces and what is in them by your tenant", p.name)
	case err != nil || strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fmt.Errorf("the %s cannot be parsed as a URL", p.name)
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, fmt.Errorf("the %s is not a whole URL; write it like %s", p.name, p.example)
	case origin.IsCleartext(u):
		return nil, fmt.Errorf("the %s is http, which is for this host only; use https", p.name)
	case u.User != nil:
		return nil, fmt.Errorf("the %s contains a user name or password; remove it", p.name)
	case strings.Contains(identifier, "#") || hasQuery && !p.mayQuery:
		return nil, fmt.Errorf("the %[1]s contains a query or a fragment; remove it, and give the %[1]s itself and not the address of its metadata", p.name)
	}
	return u, nil
}

// compare reports why metadata with the identifier said isn't that of the identifier asked.
//
// RFC 8414, Section 3.3, and RFC 9728, Section 3.3. Otherwise anybody who can publish metadata
// could pretend to be another server, and receive what is meant for it.
func (p publisher) compare(said, asked string) error {
	switch {
	case said == "":
		return fmt.Errorf("it has no %s, so nobody can tell whose it is", p.name)
	case said == asked:
		return nil
	case isTemplate(said):
		return fmt.Errorf("its %[1]s is the template %[2]s; use the %[1]s of your tenant", p.name, quote(withoutQuery(said)))
	}
	return fmt.Errorf("it is that of the %s %s; if that is the %s you mean, use exactly this identifier", p.name, quote(withoutQuery(said)), p.what)
}

// withoutQuery replaces the query of an address, which may hold a secret, by an ellipsis.
func withoutQuery(address string) string {
	before, _, found := strings.Cut(address, "?")
	if found {
		before += "?…"
	}
	return before
}

// metadataLocations returns where to look for the metadata of an issuer, the likeliest
// location first: that of RFC 8414 is meant for clients like this one, which don't use
// OpenID Connect.
func metadataLocations(issuer *url.URL) []string {
	const oauth, openID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
	root := (&url.URL{Scheme: issuer.Scheme, Host: issuer.Host}).String()
	path := strings.TrimSuffix(issuer.EscapedPath(), "/") // RFC 8414, Section 3.1
	if path == "" {
		return []string{root + oauth, root + openID}
	}
	return []string{root + oauth + path, root + openID + path, root + path + openID, root + path + oauth}
}

// askLocation gets metadata from one location, within limit. connected is false if there is
// an error because no connection to the host could be made.
func askLocation[T any](ctx context.Context, limit time.Duration, client *http.Client, location string, by publisher, parse func([]byte) (*T, error)) (m *T, connected bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s took too long: %w", withoutQuery(location), context.DeadlineExceeded))
	defer cancel()
	var wanted, got atomic.Bool // a connection; a RoundTripper of the program's own may not say
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	m, err = bounded.Do(ctx, func(ctx context.Context) (*T, error) {
		body, err := fetchMetadata(ctx, client, location, by)
		if err != nil {
			return nil, err
		}
		m, err := parse(body)
		if err != nil {
			return nil, fmt.Errorf("the metadata at %s cannot be used: %w", withoutQuery(location), err)
		}
		return m, nil
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // Whatever the request was doing at that moment.
	}
	return m, got.Load() || !wanted.Load(), err
}

// noSecrets masks nothing: there are no secrets in a request for metadata.
var noSecrets redact.Masker

// fetchMetadata sends the request of askLocation, and returns the JSON object in the answer.
func fetchMetadata(ctx context.Context, client *http.Client, location string, by publisher) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, withoutSecrets(err, &noSecrets)
	}
	defer resp.Body.Close()

	shown := withoutQuery(location)
	if code := resp.StatusCode; code != http.StatusOK {
		text := fmt.Sprintf("%s answered %d", shown, code)
		if target, err := resp.Location(); err == nil && 300 <= code && code <= 399 {
			text += fmt.Sprintf(", a redirect to %s, which is not followed (if the %s has moved there, use its final identifier)", quote(origin.Of(target).String()), by.name)
		}
		return nil, &discoveryError{text, retrieveError(resp, nil, new(tokenresponse.Response), &noSecrets)}
	}
	body, err := readBody(resp)
	if err != nil {
		return nil, &discoveryError{fmt.Sprintf("the answer of %s ended early: %v", shown, withoutSecrets(err, &noSecrets)), endedEarly(err, &noSecrets)}
	}
	if len(body) > maxResponseBody {
		return nil, fmt.Errorf("the answer of %s is larger than 1 MiB", shown)
	}
	// The media type ought to be application/json, RFC 8414, Section 3.2. Servers
	// of static files send others.
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !strictjson.IsObject(body) {
		return nil, fmt.Errorf("%s answered with something else than a JSON object (media type %s)", shown, quote(tokenresponse.MediaType(resp)))
	}
	return body, nil
}

// parseMetadata reads the metadata of issuer from a JSON object.
func parseMetadata(body []byte, issuer string) (*ServerMetadata, error) {
	m := new(ServerMetadata)
	err := strictjson.Unmarshal(body, m, "issuer", "token_endpoint", "token_endpoint_auth_methods_supported")
	if err != nil {
		return nil, err
	}
	hasEndpoint := func() bool { return m.TokenEndpoint != "" || m.MTLSEndpointAliases.TokenEndpoint != "" }
	if m.Issuer == "" && !hasEndpoint() { // Some servers answer every request with some JSON.
		return nil, errors.New("it has no issuer and no token_endpoint")
	}
	if err := issuers.compare(m.Issuer, issuer); err != nil {
		return nil, err
	}
	parsed, err := issuers.parse(m.Issuer)
	if err != nil {
		return nil, err
	}
	for _, address := range []*string{&m.MTLSEndpointAliases.TokenEndpoint, &m.JWKSURI, &m.RevocationEndpoint, &m.IntrospectionEndpoint} {
		if checkEndpoint(*address, parsed) != nil {
			*address = ""
		}
	}
	if !hasEndpoint() {
		return nil, errors.New("it has no token_endpoint")
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// check reports what is wrong with the issuer, or with an address that credentials may go to.
func (m *ServerMetadata) check() error {
	issuer, err := issuers.parse(m.Issuer)
	if err != nil {
		return err
	}
	if err := checkEndpoint(m.TokenEndpoint, issuer); err != nil {
		return fmt.Errorf("token_endpoint %w", err)
	}
	if err := checkEndpoint(m.MTLSEndpointAliases.TokenEndpoint, issuer); err != nil {
		return fmt.Errorf("token_endpoint in mtls_endpoint_aliases %w", err)
	}
	return nil
}

// checkEndpoint reports what is wrong with the address of an endpoint of issuer, unless it is
// empty. The error never quotes it.
func checkEndpoint(address string, issuer *url.URL) error {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return nil
	case isTemplate(address):
		return errors.New("is a template, in which the name of your tenant is missing")
	case err != nil || u.Hostname() == "":
		return errors.New("is not a whole URL")
	case u.Scheme != "https" && (u.Scheme != "http" || issuer.Scheme != "http" || origin.IsCleartext(u)):
		return errors.New("is not https")
	case u.User != nil || strings.Contains(address, "#"):
		return errors.New("contains a user name or a fragment")
	}
	return nil
}

// isTemplate reports whether an address has a placeholder such as {tenantid}, perhaps
// percent-encoded. The name of a tenant belongs in its place.
func isTemplate(address string) bool {
	beforeQuery, _, _ := strings.Cut(address, "?")
	decoded, _ := url.PathUnescape(beforeQuery)
	return strings.ContainsAny(address+decoded, "{}<>")
}

// Config returns a Config for a client of this server. It calls Complete for a Config with the
// client identifier and the strongest of the given methods that the server lists. The caller
// sets the rest.
//
// The methods are ordered by strength as follows. Other methods come last. Among equally
// strong methods the first given one is chosen:
//
//   - tls_client_auth, self_signed_tls_client_auth, private_key_jwt
//   - client_secret_jwt
//   - client_secret_basic
//   - client_secret_post
//
// Servers often accept more than they list. If the server lists none of the given methods,
// the strongest of them is chosen, and it makes no difference whether the server lists the
// grant client_credentials: see TokenEndpointAuthMethodsSupported and GrantTypesSupported if
// that matters to you.
//
// It is an error if one of the methods is nil, or if Complete returns one.
func (m *ServerMetadata) Config(clientID string, methods ...ClientAuth) (*Config, error) {
	conf := &Config{ClientID: clientID}
	best := -1
	for _, method := range methods {
		if method == nil {
			return nil, m.useless(errors.New("one of the given methods is nil; leave it out"))
		}
		rank := strength(method.Method())
		if slices.Contains(m.methods(), method.Method()) {
			rank += maxStrength + 1 // Any of these is better than one that isn't listed.
		}
		if rank > best {
			conf.ClientAuth, best = method, rank
		}
	}
	return m.Complete(conf)
}

// Complete returns a copy of conf for a client of this server. TokenURL and Issuer are the
// server's. With a CertificateAuth, TokenURL is the server's endpoint for certificates, if it
// has one (RFC 8705, Section 5).
//
// Assertions are for the Issuer. Some servers, such as Ory Hydra, want them for their token
// endpoint instead, and their metadata doesn't say so. For these, set the Audience of the
// method, or set Issuer of the copy to "".
//
// If the server lists the algorithms that it accepts for assertions and for DPoP proofs, the
// result, and copies of it, use only those, except for an Algorithm that a method names.
//
// With neither ClientAuth nor AuthStyle, AuthStyle is oauth2.AuthStyleInHeader if the server
// lists client_secret_basic or no methods (RFC 8414, Section 2), and oauth2.AuthStyleInParams
// if it lists client_secret_post. A Config with a Grant and without a secret has nothing to
// authenticate with, and keeps its AuthStyle.
//
// It is an error if conf has another Issuer, so that a secret can't go to the wrong server; if
// the server has no token endpoint; or if an address in m is one that Discover would have
// refused.
func (m *ServerMetadata) Complete(conf *Config) (*Config, error) {
	if err := m.check(); err != nil {
		return nil, m.useless(err)
	}
	if conf == nil {
		return nil, errNilConfig
	}
	if conf.Issuer != "" {
		if err := issuers.compare(m.Issuer, conf.Issuer); err != nil {
			return nil, m.useless(err)
		}
	}
	conf, _ = conf.privateCopy()
	conf.Origins = slices.Clone(conf.Origins)
	conf.TokenURL, conf.Issuer = m.TokenEndpoint, m.Issuer
	conf.listed.assertion = slices.Clone(m.TokenEndpointAuthSigningAlgValuesSupported)
	conf.listed.dpop = slices.Clone(m.DPoPSigningAlgValuesSupported)
	_, certified := conf.ClientAuth.(CertificateAuth)
	switch {
	case certified && m.MTLSEndpointAliases.TokenEndpoint != "":
		conf.TokenURL = m.MTLSEndpointAliases.TokenEndpoint
	case conf.ClientAuth != nil, conf.AuthStyle != oauth2.AuthStyleAutoDetect, conf.isPublic():
	case slices.Contains(m.methods(), "client_secret_basic"):
		conf.AuthStyle = oauth2.AuthStyleInHeader
	case slices.Contains(m.methods(), "client_secret_post"):
		conf.AuthStyle = oauth2.AuthStyleInParams
	}
	if conf.TokenURL == "" {
		return nil, m.useless(errors.New("it has no token_endpoint; check that the issuer is an authorization server"))
	}
	return conf, nil
}

// methods returns the methods of client authentication that the server accepts.
func (m *ServerMetadata) methods() []string {
	if len(m.TokenEndpointAuthMethodsSupported) == 0 {
		return []string{"client_secret_basic"} // RFC 8414, Section 2.
	}
	return m.TokenEndpointAuthMethodsSupported
}

// useless returns the error for metadata that leads to no Config.
func (m *ServerMetadata) useless(err error) error {
	return fmt.Errorf("oauth2: the metadata of %s is of no use: %w", quote(m.Issuer), err)
}

const maxStrength = 4

// strength orders methods of client authentication.
//
// A private key stays with the client: an attacker who reads the request or breaks into
// the server learns nothing useful (RFC 9700, Section 2.5). Only the caller knows whether
// certificates or keys suit it better. A secret that signs is known to both sides, but isn't
// sent. A secret that is sent is safer in the header, which logs and proxies treat as
// confidential; RFC 6749, Section 2.3.1, advises against the body.
func strength(method string) int {
	switch method {
	case "tls_client_auth", "self_signed_tls_client_auth", "private_key_jwt":
		return maxStrength
	case "client_secret_jwt":
		return 3
	case "client_secret_basic":
		return 2
	case "client_secret_post":
		return 1
	}
	return 0
}

// quote returns a string or strings of the server as a Go literal, cut if it is long.
func quote(said any) string { return redact.Quote(said, maxQuoted) }

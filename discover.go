package clientcredentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/bounded"
	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

const (
	// discoverTimeout bounds Discover as a whole.
	discoverTimeout = 10 * time.Second

	// maxQuoted bounds how much of the server's words an error quotes in one place. No
	// error quotes more than three.
	maxQuoted = 200
)

// ServerMetadata is what an authorization server says about itself, RFC 8414,
// Section 2, as far as it matters for the client credentials grant. Fields that the server
// doesn't set are zero. The names in JSON are those of the IANA registry
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
// Discover tries three locations, in this order, until it finds metadata:
//
//   - https://host/.well-known/oauth-authorization-server/path, RFC 8414, Section 3;
//   - https://host/path/.well-known/openid-configuration, OpenID Connect Discovery
//     1.0, Section 4;
//   - https://host/.well-known/openid-configuration/path, RFC 8414, Section 5, if the
//     issuer has a path.
//
// A location has no metadata if it answers with a status such as 404, with a redirect
// (which isn't followed), or with something other than a JSON object: servers answer like
// this for addresses they don't know. Discover stops with an error after a network error,
// after a status that means load or a fault (408, 429, 5xx), and after metadata that
// can't be used.
//
// Metadata is refused as a whole if
//
//   - its issuer isn't the same, character by character (RFC 8414, Section 3.3),
//   - a member of ServerMetadata appears twice or has the wrong type,
//   - an address isn't an https URL without fragment and user name, except that http is
//     accepted for this host if the issuer is http.
//
// Members are recognised by their exact names. Signed metadata (Section 2.1) is ignored.
//
// The requests go through the client in ctx under oauth2.HTTPClient, without its
// Jar, else through http.DefaultClient. In total they take no longer than 10 seconds, and no
// longer than ctx allows. Nothing is cached and nothing is tried twice: call Discover once,
// when a program starts. It is safe for concurrent use.
func Discover(ctx context.Context, issuer string) (*ServerMetadata, error) {
	if ctx == nil {
		return nil, errors.New("oauth2: the context is nil; pass context.Background() if there is no other")
	}
	parsed, err := parseIssuer(issuer)
	if err != nil {
		return nil, fmt.Errorf("oauth2: cannot discover: %w", err)
	}
	client, err := contextClient(ctx)
	if err != nil {
		return nil, err
	}
	// A redirect would let the server of another origin speak for the issuer.
	// Cookies are for what a user does.
	private := withoutRedirects(client)
	private.Jar = nil
	ctx, cancel := context.WithTimeoutCause(ctx, discoverTimeout,
		fmt.Errorf("it took longer than %v: %w", discoverTimeout, context.DeadlineExceeded))
	defer cancel()

	var notFound []string
	for _, location := range metadataLocations(parsed) {
		m, err := bounded.Do(ctx, func(ctx context.Context) (*ServerMetadata, error) {
			return fetchMetadata(ctx, private, location, issuer)
		})
		var elsewhere notFoundError
		if errors.As(err, &elsewhere) {
			notFound = append(notFound, err.Error())
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("oauth2: cannot discover %s: %w", quote(issuer), err)
		}
		return m, nil
	}
	return nil, fmt.Errorf("oauth2: cannot discover %s: %s; check the issuer, or set TokenURL instead", quote(issuer), strings.Join(notFound, "; "))
}

// parseIssuer parses an issuer identifier, RFC 8414, Section 2, or reports what is
// wrong with it. The error never quotes it, because it may contain a misplaced secret.
func parseIssuer(issuer string) (*url.URL, error) {
	u, err := url.Parse(issuer)
	switch {
	case issuer == "":
		return nil, errors.New("the issuer is empty; set it to the issuer identifier of the authorization server")
	case err != nil:
		return nil, errors.New("the issuer cannot be parsed as a URL")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, errors.New("the issuer is not a whole URL; write it like https://login.example.com")
	case origin.IsCleartext(u):
		return nil, errors.New("the issuer is http, which is for this host only; use https")
	case u.User != nil:
		return nil, errors.New("the issuer contains a user name or password; remove it")
	case strings.ContainsAny(issuer, "?#"):
		return nil, errors.New("the issuer contains a query or a fragment; remove it, and give the issuer itself and not the address of its metadata")
	}
	return u, nil
}

// metadataLocations returns where to look for the metadata of an issuer.
//
// The location of RFC 8414 comes first, because it is meant for clients like this one,
// which don't use OpenID Connect. The last location, RFC 8414, Section 5, is rare.
func metadataLocations(issuer *url.URL) []string {
	root := (&url.URL{Scheme: issuer.Scheme, Host: issuer.Host}).String()
	path := strings.TrimSuffix(issuer.EscapedPath(), "/") // RFC 8414, Section 3.1
	locations := []string{
		root + "/.well-known/oauth-authorization-server" + path,
		root + path + "/.well-known/openid-configuration",
	}
	if path != "" {
		locations = append(locations, root+"/.well-known/openid-configuration"+path)
	}
	return locations
}

// A notFoundError says that there is no metadata at a location.
type notFoundError string

func (e notFoundError) Error() string { return string(e) }

// noSecrets masks nothing: there are no secrets in a request for metadata.
var noSecrets redact.Masker

// fetchMetadata gets the metadata of issuer from one location.
func fetchMetadata(ctx context.Context, client *http.Client, location, issuer string) (*ServerMetadata, error) {
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

	switch code := resp.StatusCode; {
	case code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code >= 500:
		return nil, fmt.Errorf("%s answered %d; try again later", location, code)
	case code != http.StatusOK:
		reason := fmt.Sprintf("%s answered %d", location, code)
		if target, err := resp.Location(); err == nil && 300 <= code && code <= 399 {
			reason += fmt.Sprintf(", a redirect to %s, which is not followed (if the issuer has moved there, use its final identifier)", quote(origin.Of(target).String()))
		}
		return nil, notFoundError(reason)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer of %s ended early: %w", location, withoutSecrets(err, &noSecrets))
	case len(body) > maxResponseBody:
		return nil, fmt.Errorf("the answer of %s is larger than 1 MiB", location)
	}
	// The media type ought to be application/json, RFC 8414, Section 3.2. Servers
	// of static files send others.
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !strictjson.IsObject(body) {
		return nil, notFoundError(fmt.Sprintf("%s answered with something else than a JSON object (media type %s)", location, quote(tokenresponse.MediaType(resp))))
	}
	m, err := parseMetadata(body, issuer)
	if err != nil {
		return nil, fmt.Errorf("the metadata at %s cannot be used: %w", location, err)
	}
	return m, nil
}

// parseMetadata reads the metadata of issuer from a JSON object.
func parseMetadata(body []byte, issuer string) (*ServerMetadata, error) {
	m := new(ServerMetadata)
	if err := strictjson.Unmarshal(body, m); err != nil {
		return nil, err
	}
	// RFC 8414, Section 3.3. Otherwise anybody who can publish metadata could pretend to be
	// another server, and receive the credentials that are meant for it (Section 6.2).
	if m.Issuer != issuer {
		return nil, fmt.Errorf("it is that of the issuer %s; if that is the server you mean, use exactly this identifier", quote(m.Issuer))
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// check reports what is wrong with the addresses in m.
func (m *ServerMetadata) check() error {
	issuer, err := parseIssuer(m.Issuer)
	if err != nil {
		return err
	}
	for _, endpoint := range []struct{ name, address string }{
		{"token_endpoint", m.TokenEndpoint},
		{"token_endpoint in mtls_endpoint_aliases", m.MTLSEndpointAliases.TokenEndpoint},
		{"jwks_uri", m.JWKSURI},
		{"revocation_endpoint", m.RevocationEndpoint},
		{"introspection_endpoint", m.IntrospectionEndpoint},
	} {
		if endpoint.address == "" {
			continue
		}
		u, err := url.Parse(endpoint.address)
		switch {
		case err != nil || u.Hostname() == "": // err quotes the address.
			return fmt.Errorf("%s is not a whole URL", endpoint.name)
		case u.Scheme != "https" && (u.Scheme != "http" || issuer.Scheme != "http" || origin.IsCleartext(u)):
			return fmt.Errorf("%s is not https", endpoint.name)
		case u.User != nil || strings.Contains(endpoint.address, "#"):
			return fmt.Errorf("%s contains a user name or a fragment", endpoint.name)
		}
	}
	return nil
}

// Config returns a Config for a client of this server. Its TokenURL and Issuer are the
// server's, and its ClientAuth is the strongest of the given methods that the server
// accepts. The caller sets the rest. With a CertificateAuth, TokenURL is the server's
// endpoint for certificates, if it has one (RFC 8705, Section 5).
//
// The methods are ordered by strength as follows. Other methods come last. Among equally
// strong methods the first given one is chosen:
//
//   - tls_client_auth, self_signed_tls_client_auth, private_key_jwt
//   - client_secret_jwt
//   - client_secret_basic
//   - client_secret_post
//
// If the server lists the algorithms that it accepts for assertions and for DPoP proofs, the
// Config and its copies use no others, except for an Algorithm that a method names.
//
// Without any method the Config is for a ClientSecret: its AuthStyle is
// oauth2.AuthStyleInHeader if the server accepts client_secret_basic or lists no
// methods (RFC 8414, Section 2), else oauth2.AuthStyleInParams.
//
// It is an error if the server has no token endpoint or accepts none of the methods, if it
// lists its grants without client_credentials, or if Discover would have refused m.
func (m *ServerMetadata) Config(clientID string, methods ...ClientAuth) (*Config, error) {
	conf := &Config{ClientID: clientID, TokenURL: m.TokenEndpoint, Issuer: m.Issuer}
	conf.listed.assertion = slices.Clone(m.TokenEndpointAuthSigningAlgValuesSupported)
	conf.listed.dpop = slices.Clone(m.DPoPSigningAlgValuesSupported)
	if err := m.configure(conf, methods); err != nil {
		return nil, fmt.Errorf("oauth2: the metadata of %s is of no use: %w", quote(m.Issuer), err)
	}
	return conf, nil
}

func (m *ServerMetadata) configure(conf *Config, methods []ClientAuth) error {
	if err := m.check(); err != nil {
		return err
	}
	if grants := m.GrantTypesSupported; len(grants) > 0 && !slices.Contains(grants, "client_credentials") {
		return fmt.Errorf("the server doesn't grant client_credentials, only %s; enable it there, or set TokenURL without metadata", quote(grants))
	}
	accepted := m.TokenEndpointAuthMethodsSupported
	if len(accepted) == 0 {
		accepted = []string{"client_secret_basic"}
	}
	var offered []string
	for _, method := range methods {
		if method == nil {
			return errors.New("one of the given methods is nil; leave it out")
		}
		name := method.Method()
		offered = append(offered, name)
		if slices.Contains(accepted, name) && (conf.ClientAuth == nil || strength(name) > strength(conf.ClientAuth.Method())) {
			conf.ClientAuth = method
		}
	}
	switch {
	case conf.ClientAuth != nil:
		if _, ok := conf.ClientAuth.(CertificateAuth); ok && m.MTLSEndpointAliases.TokenEndpoint != "" {
			conf.TokenURL = m.MTLSEndpointAliases.TokenEndpoint
		}
	case len(methods) > 0:
		return fmt.Errorf("clients authenticate to the server by %s, and none of %q is among them; give one that is, or set ClientAuth without metadata", quote(accepted), offered)
	case slices.Contains(accepted, "client_secret_basic"):
		conf.AuthStyle = oauth2.AuthStyleInHeader
	case slices.Contains(accepted, "client_secret_post"):
		conf.AuthStyle = oauth2.AuthStyleInParams
	default:
		return fmt.Errorf("clients authenticate to the server by %s, and not with a ClientSecret alone; give a ClientAuth for one of these", quote(accepted))
	}
	if conf.TokenURL == "" {
		return errors.New("it has no token_endpoint; check that the issuer is an authorization server")
	}
	return nil
}

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
		return 4
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

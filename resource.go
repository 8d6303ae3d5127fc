package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/origin"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

// ResourceMetadata is what an API says about itself, RFC 9728, Section 2, as far as it matters
// to a client without a user. Fields that the API doesn't set are zero, and so are those that
// DiscoverResource leaves out. The names in JSON are those of the IANA registry "OAuth
// Protected Resource Metadata", so that a program can keep the metadata in a file.
type ResourceMetadata struct {
	// Resource is the API's resource identifier, RFC 9728, Section 1.2. It is the value of the
	// parameter resource of a token request, RFC 8707, Section 2.
	Resource string `json:"resource"`

	// AuthorizationServers are issuer identifiers, for Discover. In the result of
	// DiscoverResource they are those that the program trusts, in the program's order.
	AuthorizationServers []string `json:"authorization_servers,omitempty"`

	// ScopesSupported are scopes for requests to the API, RFC 9728, Section 2. It may know
	// others. Request those that your program needs, and not simply all of these: the API would
	// get a token for whatever it lists.
	ScopesSupported []string `json:"scopes_supported,omitempty"`

	// BearerMethodsSupported names the ways to send a bearer token: header, body and query, RFC
	// 6750, Section 2. Client and Transport use the header. Empty: the API doesn't say.
	BearerMethodsSupported []string `json:"bearer_methods_supported,omitempty"`

	// ResourceName is the API's name for people. It is the API's own text and may contain
	// anything.
	ResourceName string `json:"resource_name,omitempty"`

	// AuthorizationDetailsTypesSupported are values of type for the parameter
	// authorization_details, RFC 9396, Section 2.
	AuthorizationDetailsTypesSupported []string `json:"authorization_details_types_supported,omitempty"`

	// DPoPSigningAlgValuesSupported names the algorithms that the API accepts for DPoP proofs,
	// RFC 9449.
	DPoPSigningAlgValuesSupported []string `json:"dpop_signing_alg_values_supported,omitempty"`

	// DPoPBoundAccessTokensRequired says whether the API accepts only tokens that are bound to
	// a key: set Config.DPoP.
	DPoPBoundAccessTokensRequired bool `json:"dpop_bound_access_tokens_required,omitempty"`

	// TLSClientCertificateBoundAccessTokens says whether the API supports tokens that are bound
	// to the client's certificate, RFC 8705, Section 3.
	TLSClientCertificateBoundAccessTokens bool `json:"tls_client_certificate_bound_access_tokens,omitempty"`
}

// DiscoverResource asks an API for its metadata, RFC 9728. It is for programs that know only
// the address of the API. The API then says which authorization servers issue its tokens, and
// Discover asks one of them for its token endpoint.
//
// authorizationServers are the issuer identifiers of the authorization servers that the program
// trusts, in the order of its preference. The program is going to send its credentials to one
// of them, so the choice can't be left to the API: an attacker who has taken it over would name
// a server of the attacker's (RFC 9728, Section 7.6). The result has at least one authorization
// server, and only such that both the program and the API list. They are compared character by
// character. If there is none, for example because the program passes none, the error says which
// the API lists.
//
// resource is the API's resource identifier, which often is its address: an https URL without
// fragment and user name; http is accepted for this host. DiscoverResource asks these
// locations, in this order, until one has metadata that can be used:
//
//   - https://host/.well-known/oauth-protected-resource/path?query, RFC 9728, Section 3.1;
//   - the same without the slash at its end, if the path has one and there is no query;
//   - https://host/.well-known/oauth-protected-resource, where the authorization specification
//     of the Model Context Protocol lets servers put it, too.
//
// A resource without path and query has only one. Wherever the metadata is, it can be used only
// if
//
//   - its resource is the same, character by character (RFC 9728, Section 3.3),
//   - its authorization_servers has one of the given issuers,
//   - resource and authorization_servers have the right types, and neither appears twice.
//
// The other fields of ResourceMetadata stay zero if their members have another type or appear
// twice. Signed metadata (RFC 9728, Section 2.2) is ignored.
//
// Redirects, errors, time limits, the client in ctx and concurrent use are as with Discover. No
// credentials and no token are sent.
func DiscoverResource(ctx context.Context, resource string, authorizationServers ...string) (*ResourceMetadata, error) {
	return discoverResource(ctx, resources, resource, authorizationServers)
}

// DiscoverResourceAt is DiscoverResource for an API that says where its metadata is, in the
// parameter resource_metadata of WWW-Authenticate (RFC 9728, Section 5.1). That is the location,
// and Challenge.ResourceMetadata has it. No other location is asked.
//
// The location must have the origin of the resource. Otherwise an API could make the program
// send requests to any other host, even one that only the program can reach (RFC 9728, Section
// 7.7). Everything else is as with DiscoverResource.
func DiscoverResourceAt(ctx context.Context, location, resource string, authorizationServers ...string) (*ResourceMetadata, error) {
	address, err := url.Parse(location)
	identifier, invalid := resources.parse(resource)
	if invalid == nil && (err != nil || address.User != nil || origin.Of(address) != origin.Of(identifier) || len(location) > maxLocation) {
		return nil, errors.New("oauth2: cannot discover: the location of the metadata is no URL with the origin of the resource; call DiscoverResource, which asks the usual locations")
	}
	by := resources
	by.locations = func(*url.URL) []string { return []string{address.String()} }
	return discoverResource(ctx, by, resource, authorizationServers)
}

// maxLocation bounds the location of metadata, because errors quote it.
const maxLocation = 1 << 10

func discoverResource(ctx context.Context, by publisher, resource string, authorizationServers []string) (*ResourceMetadata, error) {
	for i, issuer := range authorizationServers {
		if _, err := issuers.parse(issuer); err != nil {
			return nil, fmt.Errorf("oauth2: cannot discover: number %d of the authorization servers: %w", i+1, err)
		}
	}
	trusted := slices.Clone(authorizationServers) // A request that was given up may read it later.
	return discover(ctx, by, resource, func(body []byte) (*ResourceMetadata, error) {
		return parseResourceMetadata(body, resource, trusted)
	})
}

// An API has a resource identifier, RFC 9728, Section 1.2.
var resources = publisher{
	what:      "API",
	name:      "resource",
	example:   "https://api.example.com",
	mayQuery:  true,
	otherwise: "call Discover with the issuer that you trust",
	locations: resourceLocations,
}

// resourceLocations returns where to look for the metadata of a resource, the likeliest
// location first.
func resourceLocations(resource *url.URL) []string {
	root := (&url.URL{Scheme: resource.Scheme, Host: resource.Host}).String() + "/.well-known/oauth-protected-resource"
	path := resource.EscapedPath()
	if path == "/" { // RFC 9728, Section 3.1
		path = ""
	}
	rest := path
	if resource.RawQuery != "" {
		rest += "?" + resource.RawQuery
	}
	locations := []string{root + rest}
	// The RFC removes only the slash after the host, but RFC 8414 also that at the end.
	if short := strings.TrimSuffix(rest, "/"); short != rest && resource.RawQuery == "" {
		locations = append(locations, root+short)
	}
	if rest != "" {
		locations = append(locations, root)
	}
	return locations
}

// parseResourceMetadata reads the metadata of resource from a JSON object. It keeps only those
// of the authorization servers that are trusted.
func parseResourceMetadata(body []byte, resource string, trusted []string) (*ResourceMetadata, error) {
	m := new(ResourceMetadata)
	if err := strictjson.Unmarshal(body, m, "resource", "authorization_servers"); err != nil {
		return nil, err
	}
	listed := m.AuthorizationServers
	if m.Resource == "" && len(listed) == 0 { // Some servers answer every request with some JSON.
		return nil, errors.New("it has no resource and no authorization_servers")
	}
	if err := resources.compare(m.Resource, resource); err != nil {
		return nil, err
	}
	if len(listed) == 0 { // The member is optional, RFC 9728, Section 2.
		return nil, errors.New("it lists no authorization_servers")
	}
	m.AuthorizationServers = nil
	for _, issuer := range trusted {
		if slices.Contains(listed, issuer) && !slices.Contains(m.AuthorizationServers, issuer) {
			m.AuthorizationServers = append(m.AuthorizationServers, issuer)
		}
	}
	if m.AuthorizationServers == nil {
		return nil, fmt.Errorf("it lists the authorization servers %s, and your program trusts none of them; if you do, pass exactly such an identifier", quote(listed))
	}
	return m, nil
}

package clientcredentialstest

import (
	"net/http"
	"net/url"
	"strings"
)

// isMetadata reports whether r asks for the metadata of Resource.
func (s *ResourceServer) isMetadata(r *http.Request) bool {
	resource, err := url.Parse(s.Resource)
	if s.Resource == "" || err != nil || r.Method != http.MethodGet {
		return false
	}
	// RFC 9728, Section 3.1: the well-known path goes between host and path. A path that is only
	// the slash after the host is dropped.
	path := resource.EscapedPath()
	if path == "/" {
		path = ""
	}
	return r.Host == resource.Host && r.URL.RawQuery == resource.RawQuery &&
		r.URL.EscapedPath() == "/.well-known/oauth-protected-resource"+path
}

// serveMetadata answers with the metadata of Resource, RFC 9728, Sections 2 and 3.2.
func (s *ResourceServer) serveMetadata(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(encode(struct {
		Resource               string   `json:"resource"`
		AuthorizationServers   []string `json:"authorization_servers,omitempty"`
		ScopesSupported        []string `json:"scopes_supported,omitempty"`
		BearerMethodsSupported []string `json:"bearer_methods_supported"`
		DPoPSigningAlgValues   []string `json:"dpop_signing_alg_values_supported"`
	}{s.Resource, s.AuthorizationServers, strings.Fields(s.Scope), []string{"header"}, proofAlgorithms}))
}

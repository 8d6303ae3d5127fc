package main

import (
	"fmt"
	"go/format"
	"maps"
	"slices"
	"strings"
)

// code returns, as Go, the Config for what the examination has found.
func (e *examination) code() ([]byte, error) {
	s, m := e.s, e.method
	var code strings.Builder
	if s.dpopKeyFile != "" {
		fmt.Fprintf(&code, "key, err := clientauth.KeyFile(%q)(ctx)\nif err != nil {\nreturn err\n}\n", s.dpopKeyFile)
	}
	if s.caFile != "" {
		fmt.Fprintf(&code, "// Set HTTPClient to one that trusts the authorities in %s.\n", oneLine(s.caFile))
	}
	code.WriteString("conf := &clientcredentials.Config{\n")
	if s.clientID != "" {
		fmt.Fprintf(&code, "ClientID: %q,\n", s.clientID)
	}
	endpoint := e.endpoint
	if m.cert != nil {
		endpoint = e.certifiedEndpoint()
	}
	if strings.Contains(endpoint, "?") { // A query may hold what isn't for others.
		code.WriteString("TokenURL: os.Getenv(\"TOKEN_URL\"),\n")
	} else {
		fmt.Fprintf(&code, "TokenURL: %q,\n", endpoint)
	}
	if s.issuer != "" {
		fmt.Fprintf(&code, "Issuer: %q,\n", s.issuer)
	}
	if scopes := s.scopeList(); len(scopes) > 0 {
		fmt.Fprintf(&code, "Scopes: []string{%s},\n", quoted(scopes))
	}
	if len(s.form) > 0 {
		code.WriteString("EndpointParams: url.Values{\n")
		for _, name := range slices.Sorted(maps.Keys(s.form)) {
			fmt.Fprintf(&code, "%q: {%s},\n", name, quoted(s.form[name]))
		}
		code.WriteString("},\n")
	}
	if m.name == secretBasic && e.decodes == noDecoding { // The id is plain, too.
		code.WriteString("// The server takes the credentials as they are.\n")
		code.WriteString(s.secretCode("ClientSecretBasic", "Raw: true"))
	} else {
		code.WriteString(m.code)
	}
	if s.dpopKeyFile != "" {
		code.WriteString("DPoP: key.Signer,\n")
	}
	code.WriteString("}\n")
	return format.Source([]byte(code.String()))
}

func quoted(texts []string) string {
	var all []string
	for _, text := range texts {
		all = append(all, fmt.Sprintf("%q", text))
	}
	return strings.Join(all, ", ")
}

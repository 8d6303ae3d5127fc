package main

import (
	"fmt"
	"go/format"
	"maps"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// code returns the Config that worked, as Go code.
func (e *examination) code() ([]byte, error) {
	s, m := e.settings, e.method
	raw := m.Name == secretBasic && e.decoding == decodesNothing // Today's credentials look the same with and without encoding.
	if post := e.worked[secretPost]; raw && post != nil {
		m, raw = post, false
	}
	var code strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&code, format, args...) }
	if s.DPoPKeyFile != "" {
		add("key, err := clientauth.KeyFile(%q)(ctx)\nif err != nil {\nreturn err\n}\n", s.DPoPKeyFile)
	}
	if s.CAFile != "" {
		add("// Set HTTPClient to one that trusts the authorities in %s.\n", redact.OneLine(s.CAFile))
	}
	add("conf := &clientcredentials.Config{\n")
	if s.ClientID != "" {
		add("ClientID: %q,\n", s.ClientID)
	}
	if _, endpoint := e.route(m); strings.Contains(endpoint, "?") { // The query may contain a key.
		add("TokenURL: os.Getenv(\"TOKEN_URL\"),\n")
	} else {
		add("TokenURL: %q,\n", endpoint)
	}
	if s.Issuer != "" {
		add("Issuer: %q,\n", s.Issuer)
	}
	if scopes := s.ScopeList(); len(scopes) > 0 {
		add("Scopes: []string{%s},\n", quoted(scopes))
	}
	if len(s.Form) > 0 {
		add("EndpointParams: url.Values{\n")
		for _, name := range slices.Sorted(maps.Keys(s.Form)) {
			add("%q: {%s},\n", name, quoted(s.Form[name]))
		}
		add("},\n")
	}
	if raw {
		add("// The server doesn't decode the credentials.\n%s", s.SecretCode("ClientSecretBasic", "Raw: true"))
	} else {
		add("%s", m.Code)
	}
	if s.DPoPKeyFile != "" {
		add("DPoP: key.Signer,\n")
	}
	add("}\n")
	return format.Source([]byte(code.String()))
}

func quoted(texts []string) string {
	var all []string
	for _, text := range texts {
		all = append(all, fmt.Sprintf("%q", text))
	}
	return strings.Join(all, ", ")
}

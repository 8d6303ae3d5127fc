package redact

import (
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

// publicFields are the header fields of a request that hold no credentials. All other
// fields may, whatever their names: gateways have their own.
const publicFields = " accept accept-charset accept-encoding accept-language cache-control connection content-encoding content-language content-length content-type date expect host js.fetch:redirect pragma te traceparent tracestate transfer-encoding user-agent x-correlation-id x-request-id "

// IsPublicField reports whether a header field of a request, by its name, holds no
// credentials.
func IsPublicField(name string) bool { return isOneOf(publicFields)(ascii.Lower(name)) }

// HeaderSecrets returns the secrets in the header fields of a request that aren't
// public: each value as it is, and those of its parts that a server may show alone.
func HeaderSecrets(header http.Header) (secrets []string) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if IsPublicField(name) {
			continue
		}
		for _, value := range header[name] {
			secrets = append(secrets, fieldSecrets(ascii.Lower(name), value)...)
		}
	}
	return secrets
}

func fieldSecrets(name, value string) (secrets []string) {
	if name == "cookie" {
		for pair := range strings.SplitSeq(value, ";") {
			_, value, _ := strings.Cut(pair, "=")
			secrets = append(secrets, strings.Trim(value, ` "`))
		}
		return secrets
	}
	scheme, credentials, hasScheme := strings.Cut(value, " ")
	if !hasScheme || !strings.HasSuffix(name, "authorization") { // Otherwise the scheme is no secret.
		secrets = append(secrets, value)
	}
	if !hasScheme {
		credentials = value
	} else {
		secrets = append(secrets, credentials)
	}
	if ascii.EqualFold(scheme, "Basic") {
		secrets = append(secrets, basicSecrets(credentials)...)
	}
	for _, parameter := range strings.FieldsFunc(credentials, func(r rune) bool { return strings.ContainsRune(",; ", r) }) {
		if name, value, found := strings.Cut(parameter, "="); found && IsCredentialName(name) {
			secrets = append(secrets, strings.Trim(value, `"`))
		}
	}
	return secrets
}

// basicSecrets returns the secrets in what follows "Basic ". A server may show what it
// has decoded.
func basicSecrets(credentials string) []string {
	pair, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(credentials, "="))
	if err != nil {
		return nil
	}
	user, password, _ := strings.Cut(string(pair), ":")
	if password == "" {
		return nil
	}
	secrets := []string{string(pair), password}
	if decoded, err := url.QueryUnescape(password); err == nil && decoded != password {
		secrets = append(secrets, decoded)
		if user, err := url.QueryUnescape(user); err == nil {
			secrets = append(secrets, user+":"+decoded)
		}
	}
	return secrets
}

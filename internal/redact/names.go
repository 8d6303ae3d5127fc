package redact

import (
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

// IsCredentialName reports whether the value of a parameter of that name is hidden
// in texts because it is a credential, like client_secret, client_assertion or
// password.
func IsCredentialName(name string) bool {
	name = ascii.Lower(name)
	if strings.HasSuffix(name, "_type") {
		return false
	}
	for _, word := range [...]string{"secret", "password", "assertion", "token"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return strings.HasSuffix(name, "key") || name == "code" || name == "device_code"
}

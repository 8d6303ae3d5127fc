package tokenresponse

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestF30_About(t *testing.T) {
	for _, test := range []struct {
		code, description string
		want              About
	}{
		{"invalid_scope", "", AboutRequest},
		{"invalid_target", "unknown client", AboutRequest},
		{"unsupported_grant_type", "", AboutRequest},
		{"invalid_client", "the scope is unknown", AboutCredentials},
		{"unauthorized_client", "", AboutCredentials},
		{"unauthorized_client", "This client may not use the grant type.", AboutRequest},
		{"invalid_request", "The Audience is missing", AboutRequest},
		{"invalid_request", "AADSTS90002: Tenant 'x' not found", AboutRequest},
		{"invalid_request", "missing parameter client_id", AboutCredentials},
		{"invalid_request", "other than grant type, includes multiple credentials", AboutCredentials}, // the words of RFC 6749
		{"invalid_request", "malformed", AboutForm},
		{"access_denied", "", AboutCredentials},
		{"own_code", "no permission", AboutRequest},
		{"own_code", "", AboutNothing},
		{"", `{"error":{"message":"unknown resource"}}`, AboutRequest},
		{"", "", AboutNothing},
	} {
		require.Equal(t, test.want, AboutOf(test.code, test.description, ""), "%s %s", test.code, test.description)
	}
}

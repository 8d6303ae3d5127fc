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

// The texts are like those of servers. What has no meaning in them is left out.
func TestF30_TopicOfWords(t *testing.T) {
	for topic, texts := range map[Topic][]string{
		TopicNone: {
			"", "malformed", "The request is otherwise malformed.", "telescope", "x-scoped",
			"failed (e.g., unknown client, no client authentication included, or unsupported authentication method).",
			"failed due to unknown client, no client authentication included, or unsupported authentication method",
			"The request repeats a parameter (other than grant type), includes multiple credentials, utilizes more than one mechanism for authenticating the client, or is otherwise malformed.",
			"The resource owner or authorization server denied the request.",
			"see https://login.example/scope?grant=dpop", `"HTTP://login.example/scope"`, "urn:ietf:params:oauth:grant-type:jwt-bearer isn't supported",
			"scope_of_work is wrong", // the client id
		},
		TopicMethod:      {"The client's token_endpoint_auth_method is another one", "unsupported authentication method", "wrong Auth Method"},
		TopicCredentials: {"Bad clientSecret", "client_id is missing", "Client authentication failed", "invalid client", "Full authentication is required to access this resource", "Basic is not supported"},
		TopicClient:      {"app disabled", "unknown client", "The application 'x' was not found", "client scope_of_work does not exist", "no such app", "Client is SUSPENDED", "inactive client", "the client doesn't exist"},
		TopicKey:         {"invalid signature", "no jwks", "the public key is wrong"},
		TopicKeyID:       {"kid is missing", "Reason: The key was not found.", "no matching key", "key_id"},
		TopicAlgorithm:   {"alg RS256 is not allowed", "Unsupported algorithms"},
		TopicLife:        {"the secret has expired", "It will expire."},
		TopicClock:       {"iat is in the future", "assertion is not yet valid", "check your clock", "not within its valid time range"},
		TopicCertificate: {"client certificate is required", "mutual-TLS is required", "mTLS"},
		TopicDPoP:        {"DPoP proof is missing", "the dpop header has an iat in the future"},
		TopicTenant:      {"AADSTS90002: Tenant 'x' not found.", "wrong tenant_id"},
		TopicPermission:  {"no permission", "insufficient privileges"},
		TopicGrant:       {"Grant type 'client_credentials' not allowed", "grant_type is wrong", "This client has no service account"},
		TopicAudience:    {"unknown audience", "invalid_resource", "Service not found: x", "aud is wrong", "not authorized to access that"},
		TopicScope:       {"scope admin", "Unknown scopes: the client may not use them", `{"errors":[{"detail":"invalid_scope"}]}`},
	} {
		for _, text := range texts {
			require.Equal(t, topic, TopicOfWords(text, "Scope_of-Work"), text)
		}
	}
	require.Equal(t, AboutCredentials, AboutOf("", "The client credentials aren't for this resource", ""))
	require.Equal(t, AboutRequest, AboutOf("unauthorized_client", "Grant type 'client_credentials' not allowed", ""))
	require.Equal(t, AboutNothing, AboutOf("", "scope", "scope"))
}

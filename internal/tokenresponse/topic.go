package tokenresponse

import (
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

// A Topic is what a refusal speaks of, if its code or its words say.
type Topic int

// The topics. Those from TopicMethod to TopicCertificate are about who the client is and how
// it proves that; those after them are about what it asks for.
const (
	TopicNone        Topic = iota // the refusal doesn't say
	TopicMethod                   // the method of authentication
	TopicCredentials              // the credentials, without saying what is wrong with them
	TopicClient                   // a client that is unknown or disabled
	TopicKey                      // the key of an assertion
	TopicKeyID
	TopicAlgorithm
	TopicLife // credentials that have expired
	TopicClock
	TopicCertificate
	TopicDPoP
	TopicTenant     // which of the server's customers the client belongs to
	TopicPermission // what the client is allowed to do
	TopicGrant
	TopicAudience // for which API the token is, or to which server an assertion is addressed
	TopicScope
)

// About is what a refusal speaks of, in few words. A greater value says more about what the
// user can change.
type About int

const (
	// AboutNothing: the refusal doesn't say.
	AboutNothing About = iota
	// AboutForm: how the request was written, such as a parameter that is missing.
	AboutForm
	// AboutCredentials: who the client is, and how it proves that.
	AboutCredentials
	// AboutRequest: what was asked for: a scope, a resource, the grant, a proof. The server
	// has accepted the credentials, or would.
	AboutRequest
)

// AboutOf returns what a refusal with that code and description speaks of. clientID is the
// client's.
func AboutOf(code, description, clientID string) About {
	switch {
	case TopicOfCode(code) != TopicNone:
		return AboutRequest
	case code == "invalid_client":
		return AboutCredentials
	}
	text := words(description, clientID)
	switch topic := topicOf(text); {
	case topic >= TopicDPoP && topicOfCredentials(text) == TopicNone:
		return AboutRequest
	case topic != TopicNone:
		return AboutCredentials // In doubt, the server may accept them in another form.
	}
	switch code {
	case "unauthorized_client", "access_denied", "invalid_grant":
		return AboutCredentials // Some servers say so of a client that they don't know.
	case "invalid_request":
		return AboutForm
	}
	return AboutNothing
}

// TopicOfCode returns what a refusal with that error code speaks of, if the code leaves no
// doubt, or else TopicNone: RFC 6749, Section 5.2, RFC 8707, Section 2, RFC 9449, Sections 5
// and 8, and codes that servers have made up.
func TopicOfCode(code string) Topic {
	switch code {
	case "invalid_scope", "insufficient_scope":
		return TopicScope
	case "invalid_target", "invalid_resource", "invalid_audience":
		return TopicAudience
	case "unsupported_grant_type":
		return TopicGrant
	case "invalid_dpop_proof", "use_dpop_nonce":
		return TopicDPoP
	}
	return TopicNone
}

// TopicOfWords returns what a description speaks of, or TopicNone. The id of the client,
// which may be any word, has no meaning in it.
func TopicOfWords(description, clientID string) Topic { return topicOf(words(description, clientID)) }

// topicOf returns the topic of a text from words. If it mentions several, the first in this
// order says most.
func topicOf(text string) Topic {
	switch {
	case mentions(text, "dpop "):
		return TopicDPoP
	case mentions(text, "authentication required ", "authentication is required ", "requires authentication ", "requires http authentication "):
		return TopicCredentials // Such texts go on with the resource, which is the endpoint.
	case mentions(text, "iat ", "nbf ", "exp ", "in the future ", "not yet valid ", "valid time range ", "clock ", "clocks "):
		return TopicClock
	case mentions(text, "expire ", "expired "):
		return TopicLife
	case mentions(text, "kid ", "key id ", "key not found ", "key was not found ", "key could not be found ", "no key ", "no matching key ", "no suitable key "):
		return TopicKeyID
	case mentions(text, "alg ", "algs ", "algorithm"):
		return TopicAlgorithm
	case mentions(text, "scope ", "scopes "):
		return TopicScope
	case mentions(text, "aud ", "audience", "resource ", "resources ", "target ", "service not found ", "not authorized to access "):
		return TopicAudience
	case mentions(text, "grant", "service account"):
		return TopicGrant
	case mentions(text, "certificate ", "mutual tls ", "mtls "):
		return TopicCertificate
	case mentions(text, "auth method ", "authentication method "):
		return TopicMethod
	case isOfUnknownClient(text):
		return TopicClient
	case mentions(text, "tenant"):
		return TopicTenant
	case mentions(text, "permission", "privilege"):
		return TopicPermission
	case mentions(text, "signature ", "jwks ", "public key "):
		return TopicKey
	}
	return topicOfCredentials(text)
}

// topicOfCredentials returns TopicCredentials if a text from words mentions them.
func topicOfCredentials(text string) Topic {
	if mentions(text, "credential", "client id ", "clientid ", "secret", "clientsecret ", "password", "authenticat",
		"assertion", "authorization header ", "basic ", "unknown client ", "invalid client ") {
		return TopicCredentials
	}
	return TopicNone
}

// isOfUnknownClient reports whether a text from words says that the client is unknown or
// disabled.
func isOfUnknownClient(text string) bool {
	for _, client := range [...]string{"client ", "application ", "app "} {
		if mentions(text, "unknown "+client, "disabled "+client, "inactive "+client, "locked "+client, "no such "+client) {
			return true
		}
		if _, said, ok := strings.Cut(text, " "+client); ok && mentions(" "+said,
			"not found ", "not be found ", "not exist ", "doesn t exist ", "not active ", "not enabled ",
			"unknown ", "disabled ", "inactive ", "locked ", "suspended ") {
			return true
		}
	}
	return false
}

// mentions reports whether a text from words contains one of the phrases. A phrase that
// doesn't end with a space may be the beginning of a word.
func mentions(text string, phrases ...string) bool {
	return slices.ContainsFunc(phrases, func(phrase string) bool { return strings.Contains(text, " "+phrase) })
}

// words returns the words of a description in lower case, with a space before and after
// each. It leaves out what has no meaning.
func words(description, clientID string) string {
	text := ascii.Lower(description)
	// Examples of RFC 6749, Section 5.2, that many servers repeat.
	for _, filler := range [...]string{"(e.g., unknown client,", "(e.g. unknown client,", "due to unknown client,", "includes multiple credentials, utilizes"} {
		text = without(text, filler, ".)")
	}
	for _, name := range [...]string{"other than grant type", "resource owner", "client_credentials"} {
		text = strings.ReplaceAll(text, name, "")
	}
	for _, scheme := range [...]string{"https:", "http:", "urn:"} {
		text = without(text, scheme, " \t\r\n\"'")
	}
	text = spaced(text)
	if id := spaced(ascii.Lower(clientID)); id != " " {
		text = strings.ReplaceAll(text, id, " client ")
	}
	return text
}

// without returns text without what begins with start and goes on to one of the characters
// in end.
func without(text, start, end string) string {
	for {
		before, after, ok := strings.Cut(text, start)
		if !ok {
			return text
		}
		if i := strings.IndexAny(after, end); i >= 0 {
			before += " " + after[i:]
		}
		text = before
	}
}

// spaced returns text with one space in place of whatever is between two words, before the
// first and after the last.
func spaced(text string) string {
	spaced := make([]byte, 1, len(text)+2)
	spaced[0] = ' '
	for i := range len(text) {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c >= 0x80:
			spaced = append(spaced, c)
		case spaced[len(spaced)-1] != ' ':
			spaced = append(spaced, ' ')
		}
	}
	if spaced[len(spaced)-1] != ' ' {
		spaced = append(spaced, ' ')
	}
	return string(spaced)
}

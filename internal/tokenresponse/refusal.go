package tokenresponse

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// IsTemporary reports whether a server that gives that answer may give another one to the
// same request a little later. code is the error code of the answer; empty: it has none. The
// code counts more than the status, except that 429 and 503 are always about load.
func IsTemporary(status int, code string) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	}
	switch code {
	case "server_error", "temporarily_unavailable", "slow_down":
		return true // slow_down is from RFC 8628, Section 3.5.
	}
	if AboutOf(code, "", "") != AboutNothing {
		return false
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusVariantAlsoNegotiates,
		http.StatusLoopDetected, http.StatusNotExtended, http.StatusNetworkAuthenticationRequired,
		526: // A reverse proxy finds the certificate of the server behind it invalid.
		return false // Somebody has to change something.
	}
	// Reverse proxies and CDNs have numbers of their own beyond 511.
	return 500 <= status && status <= 599
}

// A RefusalError is the error for an answer without a token that isn't an error response of RFC
// 6749, Section 5.2, although its status says success.
type RefusalError struct {
	Err  error  // what else is wrong with the answer; may be nil
	Said string // Words, without secrets; empty: the answer doesn't say
}

func (r *RefusalError) Error() string {
	var parts []string
	if r.Err != nil {
		parts = append(parts, r.Err.Error())
	}
	if r.Said != "" {
		parts = append(parts, r.Said)
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns r.Err.
func (r *RefusalError) Unwrap() error { return r.Err }

// Explains reports whether the answer says why there is no token.
func (r *RefusalError) Explains() bool { return strings.HasPrefix(r.Said, says) }

// says is how Words begins if an answer explains itself.
const says = "it says "

// Explanation returns what a refusal says to people: its error_description, or Words of its
// body, which mustn't contain secrets.
func Explanation(refusal *oauth2.RetrieveError) string {
	if refusal.ErrorDescription != "" || refusal.Response == nil {
		return refusal.ErrorDescription
	}
	mediaType, text := MediaType(refusal.Response), strings.TrimSpace(string(refusal.Body))
	parsed, _ := Parse(refusal.Body, mediaType, false)
	switch {
	case parsed.Form && mediaType == "text/plain" && !strings.Contains(text, "=") && isSpeech(text):
		return says + redact.Quote(text, maxWord)
	case refusal.ErrorCode != "":
		return parsed.Words(refusal)
	}
	return parsed.Words(nil)
}

const (
	maxWords      = 8   // members of an answer that are shown
	maxWord       = 200 // bytes of the value of one
	maxWordsDepth = 3   // objects inside of objects that are looked into
	maxUnbroken   = 40  // a text without a space that is longer may be a token
)

// explains reports whether a member with that name explains why there is no token.
func explains(name string) bool {
	name = ascii.Lower(name)
	switch name {
	case "code", "ret", "status", "info", "text", "type", "title", "hint":
		return true
	}
	for _, part := range []string{"err", "message", "msg", "reason", "desc", "detail", "cause", "fault"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// isName reports whether a member's name is one that people chose. Others may be tokens.
func isName(name string) bool {
	return len(name) <= maxUnbroken && strings.Trim(ascii.Lower(name), "abcdefghijklmnopqrstuvwxyz_-. ") == ""
}

// isSpeech reports whether a text is for people, or a short code, rather than a token that
// somebody has put under an odd name.
func isSpeech(text string) bool {
	return text != "" && !slices.ContainsFunc(strings.Fields(text), func(word string) bool { return len(word) > maxUnbroken })
}

// Words returns what an answer without a token says in members that servers of all kinds
// use to explain a refusal, such as message or reason, for an error's text. If there are
// none, it returns the names of the members, unless err, which says what is wrong with the
// answer, is more telling. Values that may be credentials aren't shown. The caller masks
// what is secret in the rest.
func (r *Response) Words(err error) string {
	var said, names []string
	var look func(value any, path ...string)
	say := func(value any, path []string) {
		if explains(path[len(path)-1]) {
			said = append(said, fmt.Sprintf("%s: %v", strings.Join(path, "."), value))
		}
	}
	look = func(value any, path ...string) {
		switch value := value.(type) {
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(value)) {
				if len(path) < maxWordsDepth && isName(name) && (name == "code" || !redact.IsCredentialName(name)) {
					look(value[name], append(slices.Clip(path), name)...)
				}
			}
		case []any:
			for _, element := range value[:min(len(value), 1)] {
				look(element, path...)
			}
		case string:
			if len(path) > 0 && isSpeech(value) {
				say(value, path)
			}
		case float64, bool:
			if len(path) > 0 {
				say(value, path)
			}
		}
	}
	members, _ := r.Raw.(map[string]any)
	members = maps.Clone(members)
	if values, ok := r.Raw.(url.Values); ok {
		members = make(map[string]any, len(values))
		for name, list := range values {
			members[name] = list[0]
		}
	}
	if r.ErrorCode != "" {
		delete(members, "error") // The caller shows it by itself.
	}
	look(members)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if isName(name) {
			names = append(names, redact.Quote(name, maxWord))
		}
	}
	show := func(list []string) string {
		more := ""
		if len(list) > maxWords {
			list, more = list[:maxWords], ", …"
		}
		for i, text := range list {
			list[i] = redact.Clip(text, maxWord)
		}
		return strings.Join(list, ", ") + more
	}
	switch {
	case len(said) > 0:
		return says + show(said)
	case len(names) > 0 && err == nil:
		return "it has " + show(names)
	}
	return ""
}

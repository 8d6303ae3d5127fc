// Package challenge reads WWW-Authenticate, in which an API says what it has against a
// token.
package challenge

import (
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

// Error returns the error code of the challenge with that scheme among the values of
// WWW-Authenticate, RFC 6750, Section 3, and RFC 9449, Section 7.1. found reports whether
// there is such a challenge; it may come without a code. Malformed parts are skipped.
func Error(values []string, scheme string) (code string, found bool) {
	for _, value := range values {
		scanner := scanner{rest: value}
		inScheme := false
		for scanner.next() {
			switch {
			case scanner.name == "":
				inScheme = ascii.EqualFold(scanner.scheme, scheme)
				found = found || inScheme
			case inScheme && code == "" && ascii.EqualFold(scanner.name, "error"):
				code = scanner.value
			}
		}
	}
	return code, found
}

// Parameters returns the parameters of one challenge with that scheme, by their names in lower
// case: of the first that says what is wrong, with an error or claims, or else of the first.
// found reports whether there is a challenge with that scheme. If a parameter appears twice,
// the first one applies.
func Parameters(values []string, scheme string) (parameters map[string]string, found bool) {
	for _, value := range values {
		var current map[string]string // nil: the challenge has another scheme
		for scanner := (scanner{rest: value}); scanner.next(); {
			name := ascii.Lower(scanner.name)
			switch {
			case name == "" && ascii.EqualFold(scanner.scheme, scheme):
				current = make(map[string]string)
			case name == "":
				current = nil
			case current != nil && current[name] == "":
				current[name] = scanner.value
			}
			if parameters == nil || isReason(current) && !isReason(parameters) {
				parameters = current
			}
		}
	}
	return parameters, parameters != nil
}

// isReason reports whether a challenge with these parameters says what is wrong.
func isReason(parameters map[string]string) bool {
	return parameters["error"] != "" || parameters["claims"] != ""
}

// Says reports whether any of the challenges has that error code, under whatever scheme, or
// under none: some APIs have their own. A code in single quotes counts too.
func Says(values []string, code string) bool {
	for _, value := range values {
		for scanner := (scanner{rest: value}); scanner.next(); {
			if ascii.EqualFold(scanner.name, "error") && ascii.EqualFold(strings.Trim(scanner.value, "'"), code) {
				return true
			}
		}
	}
	return false
}

// A scanner splits a value of WWW-Authenticate, RFC 9110, Section 11.6.1, into schemes and
// parameters. Commas separate both, so that only the equals sign tells a parameter from
// the next scheme.
type scanner struct {
	rest   string
	scheme string // of the current challenge
	name   string // of the current parameter; empty at the start of a challenge
	value  string
}

// next moves on to the next scheme or parameter, if there is one.
func (s *scanner) next() bool {
	for {
		s.rest = strings.TrimLeft(s.rest, " \t,")
		if s.rest == "" {
			return false
		}
		word := s.token()
		if word == "" {
			s.rest = s.rest[1:] // Neither a scheme nor a parameter.
			continue
		}
		after := strings.TrimLeft(s.rest, " \t")
		if !strings.HasPrefix(after, "=") {
			s.scheme, s.name, s.value = word, "", ""
			return true
		}
		s.rest = strings.TrimLeft(after[1:], " \t")
		s.name, s.value = word, s.parameterValue()
		return true
	}
}

// token takes the token at the beginning of rest, if there is one.
func (s *scanner) token() string {
	n := 0
	for n < len(s.rest) && isTokenChar(s.rest[n]) {
		n++
	}
	token := s.rest[:n]
	s.rest = s.rest[n:]
	return token
}

// parameterValue takes a token or a quoted-string.
func (s *scanner) parameterValue() string {
	if !strings.HasPrefix(s.rest, `"`) {
		return s.token()
	}
	var value strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return value.String()
		case c == '\\' && i+1 < len(s.rest):
			i++
			value.WriteByte(s.rest[i])
		default:
			value.WriteByte(c)
		}
	}
	s.rest = "" // The string has no end, so nothing after it can be read.
	return ""
}

// IsScheme reports whether text can be the name of an authentication scheme: a token of RFC
// 9110, Section 5.6.2.
func IsScheme(text string) bool {
	for i := range len(text) {
		if !isTokenChar(text[i]) {
			return false
		}
	}
	return text != ""
}

func isTokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

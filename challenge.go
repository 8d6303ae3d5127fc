package clientcredentials

import "strings"

// challengeError returns the error code of the challenge of that scheme among the
// values of WWW-Authenticate, RFC 6750, Section 3, and RFC 9449, Section 7.1. found
// tells whether there is such a challenge; it may come without a code. What is
// malformed is passed over.
func challengeError(values []string, scheme string) (code string, found bool) {
	for _, value := range values {
		scanner := challengeScanner{rest: value}
		inScheme := false
		for scanner.next() {
			switch {
			case scanner.name == "":
				inScheme = strings.EqualFold(scanner.scheme, scheme)
				found = found || inScheme
			case inScheme && code == "" && strings.EqualFold(scanner.name, "error"):
				code = scanner.value
			}
		}
	}
	return code, found
}

// A challengeScanner splits a value of WWW-Authenticate, RFC 9110, Section 11.6.1:
// schemes and parameters, both separated by commas, so that only the equals sign
// tells a parameter from the next scheme.
type challengeScanner struct {
	rest   string
	scheme string // of the challenge that next has come to, or is in
	name   string // of the parameter; empty at the start of a challenge
	value  string
}

// next comes to the next scheme or parameter, if there is one.
func (s *challengeScanner) next() bool {
	for {
		s.rest = strings.TrimLeft(s.rest, " \t,")
		if s.rest == "" {
			return false
		}
		word := s.token()
		if word == "" {
			s.rest = s.rest[1:] // Neither scheme nor parameter.
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

// token takes the token that rest begins with, if it does.
func (s *challengeScanner) token() string {
	n := 0
	for n < len(s.rest) && isTokenChar(s.rest[n]) {
		n++
	}
	token := s.rest[:n]
	s.rest = s.rest[n:]
	return token
}

// parameterValue takes a token or a quoted-string.
func (s *challengeScanner) parameterValue() string {
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
	s.rest = "" // The end of the string is missing, and so is what it ends.
	return ""
}

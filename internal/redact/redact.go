// Package redact keeps out of texts what people must not see in them: secrets,
// and characters that could rewrite a terminal or a log line.
//
// Two questions about the name of a parameter look alike and are separate:
//
//   - Is its value hidden in texts? [IsCredentialName] answers that.
//   - Does it forbid sharing a token between replicas? [ForbidsSharing] does.
//
// The package does nothing when a program starts, and imports neither regexp nor
// html: they would make every program that uses this library 324 kB larger.
package redact

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Redacted replaces a secret.
const Redacted = "[redacted]"

const (
	// maxOddSecret is the length up to which a secret is looked for in every
	// encoding, if encodings change it. With a longer one, no text is shown.
	maxOddSecret = 4 << 10

	// maxOddToken is the same for values that a server chose, and for secrets that
	// encodings leave as they are. A longer one is looked for as it is.
	maxOddToken = 512

	// maxExpansion is how many bytes an encoding may make of one: &quot; and \u0022
	// take six, and there may be backslashes before them.
	maxExpansion = 8
)

// A Masker hides secrets in texts that a peer sent, also where the peer encoded
// them. The zero value hides nothing. A Masker doesn't change, and is safe for
// concurrent use.
type Masker struct {
	encoded  []string // looked for in every encoding
	literals []string // looked for as they are
	matcher  matcher  // finds encoded
	longest  int      // how long the longest of them can be in a text
	opaque   bool     // a secret is too long to look for: show nothing
}

// NewMasker returns a Masker for secrets. It skips empty ones. It finds each
// secret as it is, encoded for forms, URLs, JSON, HTML and Go, and in base64, with or
// without padding. It finds a secret of fewer than 8 characters, and the base64 of one,
// only as a whole word.
func NewMasker(secrets ...string) *Masker {
	m := new(Masker)
	for _, secret := range secrets {
		switch {
		case len(secret) <= maxOddToken, len(secret) <= maxOddSecret && !isAllPlain(secret):
			m.encoded = append(m.encoded, secret)
		case isAllPlain(secret):
			m.literals = append(m.literals, secret)
			m.literals = append(m.literals, inBase64(secret)...)
		default:
			m.opaque = true
		}
	}
	m.prepare()
	return m
}

// Literal returns a Masker that also hides values that the peer itself chose, like
// the tokens of its answer. It finds long ones only as they are.
func (m *Masker) Literal(values ...string) *Masker {
	clone := &Masker{encoded: slices.Clone(m.encoded), literals: slices.Clone(m.literals), opaque: m.opaque}
	for _, value := range values {
		if len(value) <= maxOddToken {
			clone.encoded = append(clone.encoded, value)
		} else {
			clone.literals = append(clone.literals, value)
		}
	}
	clone.prepare()
	return clone
}

// prepare computes the other fields from encoded and literals.
func (m *Masker) prepare() {
	for _, list := range []*[]string{&m.encoded, &m.literals} {
		slices.Sort(*list)
		*list = slices.DeleteFunc(slices.Compact(*list), func(s string) bool { return s == "" })
	}
	for _, secret := range m.encoded {
		m.longest = max(m.longest, maxExpansion*len(secret))
	}
	for _, literal := range m.literals {
		m.longest = max(m.longest, len(literal))
	}
	m.matcher = newMatcher(m.encoded)
}

// inBase64 returns the base64 of s in both alphabets, with and without padding.
func inBase64(s string) []string {
	return []string{
		base64.StdEncoding.EncodeToString([]byte(s)),
		base64.RawStdEncoding.EncodeToString([]byte(s)),
		base64.URLEncoding.EncodeToString([]byte(s)),
		base64.RawURLEncoding.EncodeToString([]byte(s)),
	}
}

// isAllPlain reports whether encodings leave s as it is.
func isAllPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !isPlain(r) })
}

// isPlain reports whether forms, URLs, JSON and HTML leave r as it is.
func isPlain(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_'
}

// Mask returns the first limit bytes of text with each secret replaced by
// Redacted, which may make the result longer than limit. A secret is hidden if it
// begins within these bytes, even if it ends after them. Mask reads little more of
// text than it returns, and its cost doesn't depend on what text says.
func (m *Masker) Mask(text string, limit int) string { return m.MaskExcept(text, limit, nil) }

// MaskExcept is Mask for a text that isn't only the peer's: words are what others wrote in
// it. The last occurrence of each stays as it is, unless it is only a part of a secret.
func (m *Masker) MaskExcept(text string, limit int, words []string) string {
	if m.opaque {
		if text == "" {
			return ""
		}
		return Redacted
	}
	limit = min(limit, len(text))
	head := text[:min(len(text), limit+m.longest)]
	found := m.matcher.find(head, limit)
	for _, literal := range m.literals {
		for at := 0; at < limit; {
			i := strings.Index(head[at:], literal)
			if i < 0 {
				break
			}
			found = append(found, span{at + i, at + i + len(literal)})
			at += i + len(literal)
		}
	}
	if len(found) > 0 {
		var kept []span // the last occurrence of each word
		for _, own := range words {
			if begin := strings.LastIndex(text, own); begin >= 0 {
				kept = append(kept, span{begin, begin + len(own)})
			}
		}
		found = slices.DeleteFunc(found, func(s span) bool {
			return slices.ContainsFunc(kept, func(k span) bool { return k.begin <= s.begin && s.end <= k.end })
		})
	}
	slices.SortFunc(found, func(a, b span) int { return a.begin - b.begin })

	var masked strings.Builder
	at := 0 // how much of text is dealt with
	for _, s := range found {
		if s.begin >= limit {
			break
		}
		if s.begin >= at {
			masked.WriteString(text[at:s.begin] + Redacted)
		}
		at = max(at, s.end)
	}
	if at < limit {
		masked.WriteString(Clip(text[at:], limit-at))
	}
	return masked.String()
}

// Clip returns s, cut between two characters if it is longer than limit bytes.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Neutralise returns s without the characters that could rewrite a terminal or a
// log line: U+FFFD replaces them. Line ends and tabs stay, because a program may
// parse the text.
func Neutralise(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// OneLine returns s as Neutralise does, but on one line: "; " stands for line ends.
func OneLine(s string) string {
	isEnd := func(r rune) bool { return r == '\n' || r == '\r' }
	return Neutralise(strings.Join(strings.FieldsFunc(s, isEnd), "; "))
}

// IsControl reports whether r is a control character.
func IsControl(r rune) bool { return unicode.IsControl(r) }

// Quote returns what a peer said, a string or several, as Go literals, in which no
// character can rewrite a terminal or a log line. It cuts them to limit bytes.
func Quote(said any, limit int) string { return Clip(fmt.Sprintf("%q", said), limit) }

// BasicCredentials returns what follows "Basic " in an Authorization header field
// (RFC 7617, Section 2).
func BasicCredentials(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// BareURL returns a copy of u without user information, query and fragment. For
// nil it returns nil.
func BareURL(u *url.URL) *url.URL {
	if u == nil {
		return nil
	}
	bare := *u
	bare.User, bare.RawQuery, bare.ForceQuery, bare.Fragment, bare.RawFragment = nil, "", false, "", ""
	return &bare
}

// Address returns u as text, without user information, query and fragment. For nil
// it returns "".
func Address(u *url.URL) string {
	if u == nil {
		return ""
	}
	return BareURL(u).String()
}

// AddressText does the same to an address that may not be possible to parse.
func AddressText(address string) string {
	if end := strings.IndexAny(address, "?#"); end >= 0 {
		address = address[:end]
	}
	scheme, rest, found := strings.Cut(address, "://")
	if !found {
		return address
	}
	authority, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + rest[strings.LastIndex(authority, "@")+1:]
}

// Package redact is a stand-in until merged.
package redact

import (
	"encoding/base64"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const Redacted = "[redacted]"

type Masker struct {
	secrets, tokens []string
}

func NewMasker(secrets ...string) *Masker { return &Masker{secrets: secrets} }
func (m *Masker) Literal(tokens ...string) *Masker {
	return &Masker{m.secrets, append(slices.Clone(m.tokens), tokens...)}
}
func (m *Masker) Mask(text string, limit int) string { return m.masker()(text, limit) }

func (m *Masker) masker() func(text string, limit int) string {
	secrets := slices.Clone(m.secrets)
	tokens := append(slices.Clone(m.tokens), "", "")

	for _, token := range tokens {
		if len(token) <= maxOddToken && !isAllPlain(token) {
			secrets = append(secrets, token)
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // One may begin another.
	var patterns []string
	longest := 0
	for _, t := range tokens {
		longest = max(longest, len(t))
	}
	absurd := func(text string, _ int) string {
		if text == "" {
			return ""
		}
		return Redacted
	}
	for _, secret := range secrets {
		if len(secret) > maxOddSecret && !isAllPlain(secret) {
			return absurd
		}
		if secret != "" {
			patterns = append(patterns, echoPattern(secret), regexp.QuoteMeta(base64.StdEncoding.EncodeToString([]byte(secret))))
			longest = max(longest, maxEncoding*len(secret))
		}
	}
	if longest == 0 {
		return Clip
	}
	echo, err := regexp.Compile(strings.Join(patterns, "|"))
	if err != nil {
		return absurd
	}
	return func(text string, limit int) string {
		head := text[:min(len(text), limit+longest)]
		var matches [][]int
		if patterns != nil {
			matches = echo.FindAllStringIndex(head, -1)
		}
		for _, token := range tokens {
			matches = append(matches, indexAll(head, token)...)
		}
		slices.SortFunc(matches, func(a, b []int) int { return a[0] - b[0] })

		var masked strings.Builder
		at := 0
		for _, match := range matches {
			if match[0] >= limit {
				break
			}
			if match[0] >= at {
				masked.WriteString(text[at:match[0]] + Redacted)
			}
			at = max(at, match[1])
		}
		if at < limit {
			masked.WriteString(Clip(text[at:], limit-at))
		}
		return masked.String()
	}
}

// maxOddToken is up to which length a token with characters that aren't plain is
// looked for in other encodings too.
const maxOddToken = 512

// maxOddSecret is the length up to which a secret with such characters makes a
// regular expression of reasonable size. Of the answer to a longer one nothing is
// shown.
const maxOddSecret = 4 << 10

func isAllPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !isPlain(r) })
}

// isPlain reports whether forms, URLs, JSON and HTML leave r as it is.
func isPlain(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_'
}

// maxEncoding is how many bytes an encoding makes of one, like &quot; and \u0022.
const maxEncoding = 8

// indexAll returns where token stands in text, as regexp does.
func indexAll(text, token string) (matches [][]int) {
	for at := 0; token != ""; {
		i := strings.Index(text[at:], token)
		if i < 0 {
			break
		}
		matches = append(matches, []int{at + i, at + i + len(token)})
		at += i + len(token)
	}
	return matches
}

// echoPattern returns a regular expression for what becomes of secret in forms,
// URLs, JSON and HTML. They differ in what they do to a character that isn't plain.
func echoPattern(secret string) string {
	var pattern strings.Builder
	for secret != "" {
		r, size := utf8.DecodeRuneInString(secret)
		raw := secret[:size]
		secret = secret[size:]
		if isPlain(r) {
			pattern.WriteString(regexp.QuoteMeta(raw))
			continue
		}
		var percent, escape strings.Builder
		for _, c := range []byte(raw) {
			fmt.Fprintf(&percent, "%%%02x", c)
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&escape, `\\u%04x`, unit)
		}
		alternatives := []string{
			regexp.QuoteMeta(string(r)), // U+FFFD, which also matches what isn't UTF-8, for that.
			"(?i:" + percent.String() + ")",
			"(?i:" + escape.String() + ")",
			fmt.Sprintf("(?i:&#0*%d;|&#x0*%x;)", r, r),
		}
		if r < 0x100 {
			alternatives = append(alternatives, fmt.Sprintf(`(?i:%%%02x|\\x%02x)`, r, r))
		}
		switch r {
		case ' ':
			alternatives = append(alternatives, `\+`)
		case '"':
			alternatives = append(alternatives, "&quot;")
		case '\'':
			alternatives = append(alternatives, "&apos;")
		case '&', '<', '>':
			alternatives = append(alternatives, html.EscapeString(string(r)))
		}
		// JSON puts a backslash before some characters, of which HTML makes more.
		pattern.WriteString(`\\*(?:` + strings.Join(alternatives, "|") + ")")
	}
	return pattern.String()
}

// IsCredentialName reports whether a parameter of that name is a credential,
// like client_secret, client_assertion or password.
func IsCredentialName(name string) bool {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, "_type") {
		return false
	}
	for _, word := range []string{"secret", "password", "assertion", "token"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return strings.HasSuffix(name, "key") || name == "code" || name == "device_code"
}

// HeaderSecrets returns what of the Authorization and DPoP header fields isn't for
// others to see: the credentials as they are, and a password in them.
func HeaderSecrets(header http.Header) []string {
	secrets := header.Values("DPoP")
	for _, value := range header.Values("Authorization") {
		scheme, credentials, _ := strings.Cut(value, " ")
		secrets = append(secrets, credentials)
		if !strings.EqualFold(scheme, "Basic") {
			continue
		}
		pair, _ := base64.StdEncoding.DecodeString(credentials)
		_, password, _ := strings.Cut(string(pair), ":")
		secrets = append(secrets, password)
		if decoded, err := url.QueryUnescape(password); err == nil {
			secrets = append(secrets, decoded)
		}
	}
	return secrets
}

// Clip returns s, cut between two runes if it is longer than limit bytes.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Neutralise returns s with characters replaced that could rewrite a terminal or
// a log line. Line ends and tabs stay: a program may parse the text.
func Neutralise(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func IsControl(r rune) bool { return unicode.IsControl(r) }

func Quote(said any, limit int) string { return Clip(fmt.Sprintf("%q", said), limit) }

func Address(u *url.URL) string {
	c := *u
	c.User, c.RawQuery, c.Fragment = nil, "", ""
	return c.String()
}

func BasicCredentials(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

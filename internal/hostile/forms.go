package hostile

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// A Form is a way to encode a secret: its name, and the encoded secret.
type Form struct{ Name, Text string }

// Find returns the name of the form in which text contains secret, or "" if it doesn't.
func Find(text, secret string) (form string) {
	for _, form := range Forms(secret) {
		if strings.Contains(text, form.Text) {
			return form.Name
		}
	}
	return ""
}

// minSecret is the length from which on a secret isn't found by accident in any form.
const minSecret = 8

// Forms returns the forms of secret that Find looks for: unchanged, and as it is written
// in forms, URLs, JSON, HTML and Go. The first kinds are also looked for in hexadecimal
// and decimal, as fmt prints bytes, and in base64. The base64 may be that of a longer
// text: Basic credentials are the base64 of the id, a colon and the secret. Forms panics
// if secret is so short that it could be found by accident.
func Forms(secret string) []Form {
	if len(secret) < minSecret {
		panic(fmt.Sprintf("hostile: a secret of %d bytes is too short to look for", len(secret)))
	}
	var forms []Form
	seen := make(map[string]bool)
	add := func(name, text string) {
		if !seen[text] {
			seen[text] = true
			forms = append(forms, Form{name, text})
		}
	}
	for _, text := range []Form{
		{"raw", secret},
		{"form-encoded", url.QueryEscape(secret)},
		{"form-encoded in lower case", lowerEscapes(url.QueryEscape(secret))},
		{"path segment", url.PathEscape(secret)},
		{"path segment in lower case", lowerEscapes(url.PathEscape(secret))},
		{"path", (&url.URL{Path: secret}).EscapedPath()},
		{"percent-encoded", percentEncode(secret, "%%%02X")},
		{"percent-encoded in lower case", percentEncode(secret, "%%%02x")},
	} {
		add(text.Name, text.Text)
		for at := range 3 {
			for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				inside := base64Inside(encoding, text.Text, at)
				name = fmt.Sprintf("%s, %s from byte %d", text.Name, name, at)
				add(name, inside)
				add(name+", form-encoded", url.QueryEscape(inside))
				add(name+", form-encoded in lower case", lowerEscapes(url.QueryEscape(inside)))
			}
		}
		add(text.Name+", hexadecimal", hex.EncodeToString([]byte(text.Text)))
		add(text.Name+", hexadecimal in upper case", strings.ToUpper(hex.EncodeToString([]byte(text.Text))))
		add(text.Name+", decimal", strings.Trim(fmt.Sprintf("%d", []byte(text.Text)), "[]"))
		bytes := fmt.Sprintf("%#v", []byte(text.Text))
		add(text.Name+", Go", bytes[strings.Index(bytes, "{")+1:len(bytes)-1])
	}
	quoted, _ := json.Marshal(secret) // A string can always be marshaled.
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&")
	add("JSON", inQuotes(string(quoted)))
	add("JSON, without escapes for HTML", plain.Replace(inQuotes(string(quoted))))
	add("quoted", inQuotes(strconv.Quote(secret)))
	add("quoted in ASCII", inQuotes(strconv.QuoteToASCII(secret)))
	add("quoted twice", inQuotes(strconv.Quote(inQuotes(strconv.Quote(secret)))))
	add("HTML", html.EscapeString(secret))
	return forms
}

// base64Inside returns the characters that the base64 of a longer text certainly
// contains if the text contains s. Base64 encodes groups of three bytes; at is the
// position of s in such a group. Characters at both ends that also depend on the bytes
// next to s are left out.
func base64Inside(encoding *base64.Encoding, s string, at int) string {
	const bits, char = 8, 6
	encoded := encoding.EncodeToString([]byte(strings.Repeat("?", at) + s))
	return encoded[(at*bits+char-1)/char : (at+len(s))*bits/char]
}

func percentEncode(s, format string) string {
	var encoded strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&encoded, format, c)
	}
	return encoded.String()
}

var escape = regexp.MustCompile(`%[0-9A-F]{2}`)

func lowerEscapes(s string) string { return escape.ReplaceAllStringFunc(s, strings.ToLower) }

func inQuotes(quoted string) string { return quoted[1 : len(quoted)-1] }

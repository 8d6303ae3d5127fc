package redact

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const (
	clientID    = "id"
	plainSecret = "S3cretCanary0123456789"
	oddSecret   = "S3cr/t Can+ry&<x>=\"y'z\\~*%41\u00e4!"
	binary      = "S3cr/t\xffCan\xfe\x80ary"

	bodyLimit = 8 << 10
)

// An encoding is a way in which a server may repeat a secret.
type encoding struct {
	name   string
	encode func(secret string) string
}

// encodings are what the standard library writes.
func encodings() []encoding {
	return []encoding{
		{"raw", func(s string) string { return s }},
		{"form", url.QueryEscape},
		{"form, lower case", func(s string) string { return lowerEscapes(url.QueryEscape(s)) }},
		{"path", url.PathEscape},
		{"path, lower case", func(s string) string { return lowerEscapes(url.PathEscape(s)) }},
		{"every byte", func(s string) string { return regexp.MustCompile("..").ReplaceAllString(fmt.Sprintf("%x", s), "%$0") }},
		{"base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
		{"base64 without padding", func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) }},
		{"base64url", func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) }},
		{"base64url without padding", func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }},
		{"JSON", func(s string) string { return jsonString(s, true) }},
		{"JSON without HTML", func(s string) string { return jsonString(s, false) }},
		{"HTML", html.EscapeString},
		{"Go", func(s string) string { return inQuotes(strconv.Quote(s)) }},
		{"Go in ASCII", func(s string) string { return inQuotes(strconv.QuoteToASCII(s)) }},
		{"HTML of JSON", func(s string) string { return html.EscapeString(jsonString(s, false)) }},
	}
}

// otherEncodings are what other languages write of oddSecret, and credentials.
func otherEncodings() []encoding {
	replace := func(encode func(string) string, pairs ...string) func(string) string {
		return func(s string) string { return strings.NewReplacer(pairs...).Replace(encode(s)) }
	}
	inJSON := func(s string) string { return jsonString(s, false) }
	basic := func(s string) string { return BasicCredentials(clientID, url.QueryEscape(s)) }
	return []encoding{
		{"JSON of PHP", replace(inJSON, "/", `\/`)},
		{"JSON in ASCII", replace(inJSON, "\u00e4", `\u00e4`)},
		{"JSON in JSON", replace(inJSON, `\`, `\\`)},
		{"HTML of PHP", replace(html.EscapeString, "&#34;", "&quot;")},
		{"HTML of Python", replace(html.EscapeString, "&#34;", "&quot;", "&#39;", "&#x27;")},
		{"HTML of html/template", replace(html.EscapeString, "+", "&#43;")},
		{"HTML with zeros", replace(html.EscapeString, "&#", "&#00")},
		{"XML", replace(html.EscapeString, "&#34;", "&quot;", "&#39;", "&apos;")},
		{"Latin-1 form", replace(url.QueryEscape, "%C3%A4", "%E4")},
		{"repr of Python", replace(inJSON, "\u00e4", `\xe4`)},
		{"bytes of Python", replace(inJSON, "\u00e4", `\xc3\xa4`)},
		{"encodeURIComponent", replace(url.QueryEscape, "+", "%20")},
		{"Basic", basic},
		{"Basic, not encoded", func(s string) string { return BasicCredentials(clientID, s) }},
		{"Basic as form", func(s string) string { return url.QueryEscape(basic(s)) }},
		{"Basic as JSON of PHP", replace(basic, "/", `\/`)},
	}
}

func lowerEscapes(s string) string {
	return regexp.MustCompile("%..").ReplaceAllStringFunc(s, strings.ToLower)
}

func jsonString(s string, forHTML bool) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(forHTML)
	_ = encoder.Encode(s) // A string can always be encoded.
	return inQuotes(strings.TrimSuffix(out.String(), "\n"))
}

func inQuotes(quoted string) string { return quoted[1 : len(quoted)-1] }

// whole masks all of text.
func whole(m *Masker, text string) string { return m.Mask(text, len(text)) }

func TestMaskHidesEncodings(t *testing.T) {
	for _, secret := range []string{plainSecret, oddSecret, binary, "\U0001f511 \n\t\x00\u2028=", `\\\`, "%25%2525"} {
		m := NewMasker("", secret, BasicCredentials(clientID, url.QueryEscape(secret)), BasicCredentials(clientID, secret))
		for _, encoding := range append(encodings(), otherEncodings()...) {
			text := encoding.encode(secret)
			require.Equal(t, "<p>[redacted]</p>", whole(m, "<p>"+text+"</p>"), "%q as %s: %q", secret, encoding.name, text)
			require.Equal(t, "x=[redacted] [redacted]&", whole(m, "x="+text+" "+text+"&"), "%q as %s: %q, twice", secret, encoding.name, text)
		}
	}
}

func TestMask(t *testing.T) {
	long := strings.Repeat("T0ken", 200)
	for _, test := range []struct {
		name            string
		secrets, tokens []string
		text, want      string
	}{
		{"no secrets", nil, nil, "a [b]", "a [b]"},
		{"empty secrets", []string{"", ""}, []string{""}, "a [b]", "a [b]"},
		{"other parameters", []string{plainSecret, ""}, nil, "grant_type=client_credentials&client_id=id&client_assertion_type=urn:x", "grant_type=client_credentials&client_id=id&client_assertion_type=urn:x"},
		{"prefixes", []string{"secret", "secret-long-Canary", "secret-long"}, nil, "got secret-long-Canary, secret-lon", "got [redacted], [redacted]-lon"},
		{"overlap", []string{"left-mid", "mid-right", "d-r"}, nil, "left-mid-right mid-left-mid", "[redacted] mid-[redacted]"},
		{"overlap with itself", []string{"aXa"}, nil, "aXaXaXaXXaXa", "[redacted]XX[redacted]"},
		{"token in secret", []string{"left-T0ken-right"}, []string{"T0ken"}, "left-T0ken-right T0ken", "[redacted] [redacted]"},
		{"secret in token", []string{"0ke"}, []string{"T0ken"}, "T0ken0ke", "[redacted][redacted]"},
		{"secret at the end of a token", []string{"0ken-x"}, []string{"T0ken"}, "T0ken-x", "[redacted]"},
		{"odd token", nil, []string{"T0ken+/", "R3fresh+/"}, `T0ken%2B%2F R3fresh%2b%2f T0ken+\/`, "[redacted] [redacted] [redacted]"},
		{"long token", []string{plainSecret}, []string{long}, long + plainSecret + long[1:], "[redacted][redacted]" + long[1:]},
		{"long odd token", nil, []string{long + "+"}, long + "+ " + long + "%2B", "[redacted] " + long + "%2B"},
		{"long secret", []string{long}, nil, long + base64.StdEncoding.EncodeToString([]byte(long)), "[redacted][redacted]"},
		{"longer secret", []string{long + "+" + long}, nil, long + `\u002b` + long, "[redacted]"},
		{"absurd secret", []string{"x", strings.Repeat("~", 200_000)}, []string{"y"}, "anything", Redacted},
		{"absurd secret, no text", []string{strings.Repeat("~", 200_000)}, nil, "", ""},
		{"absurd plain secret", []string{strings.Repeat("x", 200_000)}, nil, "anything", "anything"},
		{"escaped percent sign", []string{"%4"}, nil, "%254 %25%34 %4 %A4", "[redacted] [redacted] [redacted] %A4"},
		{"what an escape may end in", []string{"a%"}, nil, "a%25 a%", "[redacted] [redacted]"},
		{"backslash before a plain secret", []string{"name"}, nil, `C:\name`, `C:\[redacted]`},
		{"broken escapes", []string{"A~"}, nil, `%4 &#x;~ &#6;~ \x4 \u00 %41`, `%4 &#x;~ &#6;~ \x4 \u00 %41`},
		{"other characters", []string{"~"}, nil, `&#9999999999; \ud83d &tilde; \u00zz &`, `&#9999999999; \ud83d &tilde; \u00zz &`},
		{"replaced byte", []string{"a\xffb"}, nil, "a\ufffdb a\xfeb", "[redacted] a\xfeb"},
		{"part of a character", []string{"\xa4"}, nil, "\u00e4", "\xc3[redacted]"},
	} {
		require.Equal(t, test.want, whole(NewMasker(test.secrets...).Literal(test.tokens...), test.text), test.name)
	}
	require.Equal(t, "a b", whole(new(Masker), "a b"))
	m := NewMasker("a")
	m.Literal("b")
	require.Equal(t, "[redacted]b", whole(m, "ab"), "Literal doesn't change the Masker")
}

// A secret that begins before the limit is hidden, wherever it ends, and nothing
// after the limit is shown.
func TestMaskAtTheLimit(t *testing.T) {
	secret := "Canary" + strings.Repeat(`"<`, 50)
	token := "Canary" + strings.Repeat("T0ken", 2000)
	assertion := strings.Repeat("AssertionCanary+", 100)
	for _, test := range []struct {
		m    *Masker
		end  string
		step int
	}{
		{NewMasker(secret), html.EscapeString(secret), 1},
		{new(Masker).Literal(token), token, 1},
		{NewMasker(assertion), strings.Repeat(assertion, 10), 13},
	} {
		for before := 0; before < 130; before += test.step {
			filler := strings.Repeat("x", bodyLimit-before)
			masked := test.m.Mask(filler+test.end, bodyLimit)
			if want := filler + Redacted; before > 0 {
				require.Equal(t, want, masked[:len(want)])
			}
			require.NotContains(t, masked, "Canary")
			require.LessOrEqual(t, len(strings.ReplaceAll(masked, Redacted, "")), bodyLimit)
		}
	}
	for _, test := range []struct {
		limit int
		want  string
	}{
		{0, ""}, {1, "1"}, {2, "1 "}, {3, "1 [redacted]"}, {8, "1 [redacted]"}, {9, "1 [redacted]"}, {10, "1 [redacted]\u00e4"}, {1 << 62, "1 [redacted]\u00e4"},
	} {
		require.Equal(t, test.want, NewMasker("se-ret").Mask("1 se-ret\u00e4", test.limit), test.limit)
	}
}

// randomText returns up to n parts, of which each is a character or an escape.
func randomText(n int) string {
	parts := []string{
		"A", "b", "2", "5", "-", "_", ".", "~", " ", "+", "/", "=", "&", "#", ";", "<", ">", "'", `"`, `\`, "%", "\n", "\x00", "\u00e4", "\u00ad", "\u2028", "\U0001f511", "\xff", "\xc3",
		"%25", "%5c", "%C3%A4", "%e4", "&amp;", "&#38;", "&#x5c;", `\\`, `\"`, `\u0025`, `\ud83d\udd11`, `\xe4`, "amp;", "\ufffd",
	}
	var text strings.Builder
	for range n {
		text.WriteString(parts[rand.IntN(len(parts))])
	}
	return text.String()
}

// decodings returns what a reader may make of text.
func decodings(text string) []string {
	percent := regexp.MustCompile("%[0-9A-Fa-f]{2}").ReplaceAllStringFunc(text, func(s string) string {
		decoded, _ := url.PathUnescape(s)
		return decoded
	})
	escapes := regexp.MustCompile(`\\(u[0-9a-fA-F]{4}|U[0-9a-f]{8}|x[0-9a-f]{2}|.)`).ReplaceAllStringFunc(text, func(s string) string {
		if decoded, err := strconv.Unquote(`"` + s + `"`); err == nil {
			return decoded
		}
		return s[1:]
	})
	return []string{text, percent, strings.ReplaceAll(percent, "+", " "), escapes, html.UnescapeString(text)}
}

// TestMaskFindsWhatIsThere compares with the encoders and decoders of the standard
// library: an encoded secret is hidden, whatever surrounds it, and nothing else is.
func TestMaskFindsWhatIsThere(t *testing.T) {
	encodings := encodings()
	for range 2000 {
		secret := randomText(5+rand.IntN(10)) + "Z0" // no text without the secret has a Z
		encoding := encodings[rand.IntN(len(encodings))]
		encoded := encoding.encode(secret)
		before, after := randomText(rand.IntN(10)), randomText(rand.IntN(10))
		m := NewMasker(randomText(30)+"Y", secret).Literal(randomText(30) + "X")
		explain := fmt.Sprintf("%q as %s: %q between %q and %q", secret, encoding.name, encoded, before, after)

		require.Equal(t, before+after, whole(m, before+after), explain)
		require.Equal(t, before+"k"+Redacted+"k"+after, whole(m, before+"k"+encoded+"k"+after), explain)
		masked := whole(m, before+encoded+after)
		require.Contains(t, masked, Redacted, explain)
		for _, decoded := range decodings(masked) {
			require.NotContains(t, decoded, secret, explain)
		}
	}
}

// FuzzMask checks that what is shown is text, in its order and without the secret.
func FuzzMask(f *testing.F) {
	for _, secret := range []string{plainSecret, oddSecret, binary, "a", `\`, "%", "&amp;", "+", "\xa4", "\ufffd", "="} {
		for _, encoding := range append(encodings(), otherEncodings()...) {
			f.Add("<p>"+encoding.encode(secret)+`\`, secret, "T0ken", uint16(1000))
			f.Add(encoding.encode(secret)+"T0ken+/"+secret, "", secret, uint16(5))
		}
	}
	f.Fuzz(func(t *testing.T, text, secret, token string, limit uint16) {
		m := NewMasker(secret).Literal(token)
		masked := m.Mask(text, int(limit))
		if m.opaque {
			require.Contains(t, []string{"", Redacted}, masked)
			return
		}
		if strings.Contains(text, Redacted) {
			return
		}
		rest := text[:min(len(text), int(limit))]
		for _, shown := range strings.Split(masked, Redacted) {
			_, after, found := strings.Cut(rest, shown)
			require.True(t, found, "%q isn't in %q", shown, rest)
			rest = after
			for _, encoding := range encodings() {
				require.False(t, secret != "" && strings.Contains(shown, encoding.encode(secret)), "%q shows %q as %s", masked, secret, encoding.name)
			}
			require.False(t, token != "" && strings.Contains(shown, token), "%q shows %q", masked, token)
		}
	})
}

// hostileTexts are almost full of secrets. A search that goes back, or that keeps a
// list of what may follow, takes minutes for them.
func hostileTexts() map[string]struct{ secret, token, text string } {
	backslashes := strings.Repeat(`\`, 4000)
	return map[string]struct{ secret, token, text string }{
		"almost a long token":     {plainSecret, strings.Repeat("a", 10_000) + "b", strings.Repeat("a", 200_000)},
		"almost an odd token":     {plainSecret, strings.Repeat("~", 6_000) + "b", strings.Repeat("~", 10_000)},
		"almost the secret":       {strings.Repeat("~", 4000) + "b", "~", strings.Repeat("~", 1<<20)},
		"almost in hexadecimal":   {strings.Repeat("%", 4000) + "b", "%", strings.Repeat("%25", 1<<18)},
		"almost an escape":        {backslashes + "b", `\`, strings.Repeat(`\u005c`, 1<<18)},
		"backslashes":             {backslashes + "b", `\`, strings.Repeat(`\`, 1<<20)},
		"the secret, and again":   {backslashes, strings.Repeat(`\`, 500), strings.Repeat(`\`, 1<<20)},
		"almost an entity":        {strings.Repeat("&", 4000) + "b", "&", strings.Repeat("&#000000000000", 1<<18)},
		"the token at each place": {strings.Repeat("a+", 2000) + "b", "a", strings.Repeat("a", 1<<20)},
		"ordinary":                {strings.Repeat("S3cr/t+", 5), strings.Repeat("T0ken", 100), strings.Repeat("<p>The client could not be authenticated.</p>\n", 1000)},
	}
}

// TestMaskIsCheap has nothing to measure: the time limit of the tests ends it if the
// cost grows with what is almost a secret.
func TestMaskIsCheap(t *testing.T) {
	for name, test := range hostileTexts() {
		masked := NewMasker(test.secret).Literal(test.token).Mask(test.text, bodyLimit)
		require.NotEmpty(t, masked, name)
		require.NotContains(t, masked, test.secret, name)
	}
}

func BenchmarkMask(b *testing.B) {
	for name, test := range hostileTexts() {
		b.Run(name, func(b *testing.B) {
			m := NewMasker(test.secret).Literal(test.token)
			for b.Loop() {
				m.Mask(test.text, bodyLimit)
			}
		})
	}
	b.Run("NewMasker", func(b *testing.B) {
		for b.Loop() {
			NewMasker(oddSecret, BasicCredentials(clientID, oddSecret)).Literal(plainSecret)
		}
	})
}

func TestIsCredentialName(t *testing.T) {
	for name, want := range map[string]bool{
		"client_secret": true, "client_assertion": true, "assertion": true, "password": true, "Password": true, "code": true, "device_code": true, "key": true,
		"subject_token": true, "actor_token": true, "refresh_token": true, "api_key": true, "apikey": true, "apiKey": true, "API_KEY": true,
		"": false, "scope": false, "audience": false, "resource": false, "grant_type": false, "client_id": false, "username": false,
		"client_assertion_type": false, "subject_token_type": false, "country_code": false, "key_version": false,
	} {
		require.Equal(t, want, IsCredentialName(name), name)
	}
}

func TestHeaderSecrets(t *testing.T) {
	encoded, raw := BasicCredentials("id", "a%2Bb"), BasicCredentials("id", "50%:x")
	for _, test := range []struct {
		header http.Header
		want   []string
	}{
		{nil, nil},
		{http.Header{"Accept": {"x"}}, nil},
		{http.Header{"Dpop": {"proof"}, "Authorization": {"Bearer T0ken"}}, []string{"proof", "T0ken"}},
		{http.Header{"Authorization": {"Basic " + encoded}}, []string{encoded, "a%2Bb", "a+b"}},
		{http.Header{"Authorization": {"basic " + raw, "alone"}}, []string{raw, "50%:x", ""}},
		{http.Header{"Authorization": {"Basic !"}}, []string{"!", "", ""}},
	} {
		require.Equal(t, test.want, HeaderSecrets(test.header))
	}
	require.Equal(t, "aWQ6c2VjcmV0", BasicCredentials("id", "secret"))
}

func TestClip(t *testing.T) {
	for _, test := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 0, ""},
		{"abc", 3, "abc"},
		{"abc", 2, "ab"},
		{"abc", 0, ""},
		{"a\u00e9", 3, "a\u00e9"},
		{"a\u00e9", 2, "a"},
		{"\u00e9", 1, ""},
		{"\U0001f511x", 4, "\U0001f511"},
		{"\U0001f511", 3, ""},
		{"\U0001f511\U0001f511", 7, "\U0001f511"},
	} {
		require.Equal(t, test.want, Clip(test.in, test.limit), "%q %d", test.in, test.limit)
	}
}

func TestNeutralise(t *testing.T) {
	const hostile = "a\x00b\x07c\x08d\x1b[2J\x1b]0;title\x07e\rf\x7fg\u0085h\u009bi\u202ej\u2066k\u200bl\ufeffm\u00adn\xffo"
	text := Neutralise(hostile + "\r\nfake\n\tkept")
	require.True(t, utf8.ValidString(text))
	require.Equal(t, "abcd[2J]0;titleefghijklmno\nfake\n\tkept", strings.ReplaceAll(text, "\ufffd", ""))
	require.Equal(t, 16, strings.Count(text, "\ufffd"))
	for r := rune(0); r < unicode.MaxLatin1; r++ {
		require.Equal(t, r < ' ' || '\x7f' <= r && r < '\u00a0', IsControl(r), "%U", r)
	}
}

func TestQuote(t *testing.T) {
	require.Equal(t, `"a\x1b\u202e"`, Quote("a\x1b\u202e", 200))
	require.Equal(t, `["a" "b`, Quote([]string{"a", "b"}, 7))
}

func TestAddress(t *testing.T) {
	for address, want := range map[string]string{
		"https://user:UserCanary@auth.example/token?q=QueryCanary#x": "https://auth.example/token",
		"http://u@[::1]:8080/a%2Fb@c?":                               "http://[::1]:8080/a%2Fb@c",
		"https://auth.example#x?y@z":                                 "https://auth.example",
		"/token?x":                                                   "/token",
		"":                                                           "",
	} {
		u, err := url.Parse(address)
		require.NoError(t, err)
		require.Equal(t, want, Address(u))
		require.Equal(t, want, AddressText(address))
		require.Equal(t, want, BareURL(u).String())
		require.NotContains(t, fmt.Sprintf("%#v", BareURL(u)), "Canary")
		again, _ := url.Parse(address)
		require.Equal(t, again, u, "the argument stays as it is")
	}
	require.Equal(t, "https://[auth.example", AddressText("https://u:p@[auth.example?q"))
	require.Empty(t, Address(nil))
	require.Nil(t, BareURL(nil))
}

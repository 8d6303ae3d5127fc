package redact

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
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
		{"prefixes", []string{"the.secret", "the.secret-long-Canary", "the.secret-long"}, nil, "got the.secret-long-Canary, the.secret-lon", "got [redacted], [redacted]-lon"},
		{"overlap", []string{"left-mid", "mid-right", "ft-mid-r"}, nil, "left-mid-right mid-left-mid", "[redacted] mid-[redacted]"},
		{"overlap with itself", []string{"aXXXXXXa"}, nil, "aXXXXXXaXXXXXXaXaXXXXXXa", "[redacted]X[redacted]"},
		{"token in secret", []string{"left-T0ken-right"}, []string{"T0ken-ri"}, "left-T0ken-right T0ken-ri", "[redacted] [redacted]"},
		{"secret in token", []string{"0kenABCD"}, []string{"T0kenABCDx"}, "T0kenABCDx0kenABCD", "[redacted][redacted]"},
		{"secret at the end of a token", []string{"0ken0ken-x"}, []string{"T0ken0ken"}, "T0ken0ken-x", "[redacted]"},
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
		{"backslash before a plain secret", []string{"new-name"}, nil, `C:\new-name`, `C:\[redacted]`},
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
	require.Equal(t, "[redacted] b", whole(m, "a b"), "Literal doesn't change the Masker")
}

// TestL9_ShortSecrets: a secret of fewer than eight characters is hidden as a whole word
// only. A longer one is hidden everywhere.
func TestL9_ShortSecrets(t *testing.T) {
	for _, test := range []struct{ secret, text, want string }{
		{"x", "x expected: x, (x) axa x_ -x x2 \u00e4x \u0445x", "[redacted] expected: [redacted], ([redacted]) axa x_ -x x2 \u00e4x \u0445x"},
		{"x", "client_secret=x&scope=xy", "client_secret=[redacted]&scope=xy"},
		{"x", "client_secret%3Dx%26scope%3dxy", "client_secret%3D[redacted]%26scope%3dxy"},
		{"x", `{"secret":"x"} {\"secret\":\"x\"} \u0022x\u0022 &#34;x&#34; &quot;x&quot;`, `{"secret":"[redacted]"} {\"secret\":\"[redacted]\"} \u0022[redacted]\u0022 &#34;[redacted]&#34; &quot;[redacted]&quot;`},
		{"x", `\nx\n \tx +x+ a%20x%20b`, `\n[redacted]\n \t[redacted] +[redacted]+ a%20[redacted]%20b`},
		{"x", "eA== eA aeA== ZXhhbXBsZQ== eA%3D%3D", "[redacted] [redacted] aeA== ZXhhbXBsZQ== [redacted]"},
		{"x", "%78 &#120; \\x78 \\u0078", "[redacted] [redacted] [redacted] [redacted]"},
		{"test", "test tests contest test_id test-id this is a test.", "[redacted] tests contest test_id test-id this is a [redacted]."},
		{"test", "dGVzdA== dGVzdA dGVzdHM=", "[redacted] [redacted] dGVzdHM="},
		{"client", "client client_disabled invalid-client clients CLIENT Client client.id", "[redacted] client_disabled invalid-client clients CLIENT Client [redacted].id"},
		{"client", "client client", "[redacted] [redacted]"},
		{"7 chars", "17 chars 7 chars 7 charsx", "17 chars [redacted] 7 charsx"},
		{"8 chars.", "18 chars.x", "1[redacted]x"},
		{"1234567", "12345678 1234567", "12345678 [redacted]"},
		{"12345678", "0123456789", "0[redacted]9"},
		{"\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4", "x\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4 \u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4", "x\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4 [redacted]"},
		{"certificate", "certificates expired", "[redacted]s expired"},
		{"a.b", "xa.b.b a.b.b xa.b a.b", "xa.b.b [redacted].b xa.b [redacted]"},
		{"a.a", "xa.a.a", "xa.[redacted]"},
		{"~", "a~b ~", "a[redacted]b [redacted]"},
		{".x", "a.x a.xy", "a[redacted] a.xy"},
		{"x.", "ax. x.a", "ax. [redacted]a"},
		{"=", "a=b", "a[redacted]b"},
		{"===", "a===b==", "a[redacted]b=="},
	} {
		require.Equal(t, test.want, whole(NewMasker(test.secret), test.text), test.secret)
		require.Equal(t, test.want, whole(new(Masker).Literal(test.secret), test.text), "%s as a token", test.secret)
	}
}

// TestL10_MissingPadding: base64 may come without padding, and in the alphabet for URLs.
func TestL10_MissingPadding(t *testing.T) {
	for _, secret := range []string{"x", "xy", "test1", "S3cret-Canary", "S3cret-Canary1", "S3cret-Canary12", "\xfb\xff\xfe\xfb\xff\xfe\xfb\xff\xfe\xfb"} {
		for _, m := range []*Masker{
			NewMasker(secret, "id:"+secret),
			NewMasker(HeaderSecrets(http.Header{"Authorization": {"Basic " + BasicCredentials("id", secret)}, "X-Key": {secret}})...),
		} {
			for _, plain := range []string{secret, "id:" + secret} {
				for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
					encoded := encoding.EncodeToString([]byte(plain))
					for _, text := range []string{encoded, url.QueryEscape(encoded), jsonString(strings.ReplaceAll(encoded, "/", `\/`), false)} {
						require.Equal(t, "Basic [redacted].", whole(m, "Basic "+text+"."), "%q", text)
					}
				}
			}
		}
	}
	m := NewMasker("S3cret+Canary/==") // It is base64 itself.
	require.Equal(t, "[redacted] [redacted] [redacted] S3cret+Canary", whole(m, "S3cret+Canary/== S3cret+Canary/= S3cret%2BCanary%2F S3cret+Canary"))
}

func TestL9_MaskExcept(t *testing.T) {
	m := NewMasker("EOF", "connection", "refused: EOF twice")
	for _, test := range []struct{ text, words, want string }{
		{"connection refused", "connection refused", "connection refused"},
		{"connection: connection refused", "connection refused", "[redacted]: connection refused"},
		{"sent EOF: EOF", "EOF", "sent [redacted]: EOF"},
		{"refused: EOF twice", "EOF", "[redacted]"},
		{"a connection", "", "a [redacted]"},
		{"a connection", "b", "a [redacted]"},
	} {
		require.Equal(t, test.want, m.MaskExcept(test.text, len(test.text), []string{test.words}), test.text)
	}
}

// A listError is an error that can't be compared.
type listError []error

func (e listError) Error() string   { return "list" }
func (e listError) Unwrap() []error { return e }

func TestL9_Trustworthy(t *testing.T) {
	own := errors.New("our own")
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	unknown := x509.UnknownAuthorityError{}
	for _, test := range []struct {
		err  error
		want []error
	}{
		{nil, nil},
		{errors.New("connection refused"), nil},
		{own, []error{own}},
		{fmt.Errorf("%w: %w: %w", own, errors.New("x"), io.EOF), []error{own, io.EOF}},
		{refused, []error{refused}},
		{fmt.Errorf("x: %w", refused), []error{refused}},
		{&net.OpError{Op: "read", Err: errors.New("connection refused")}, []error{&net.OpError{Op: "read", Err: errors.New("connection refused")}}},
		{&net.OpError{Op: "read", Err: errors.New("sent S3cret")}, nil},
		{&net.OpError{Op: "read", Err: fmt.Errorf("sent S3cret: %w", io.EOF)}, []error{io.EOF}},
		{&net.DNSError{Err: "no such host", Name: "auth.example"}, []error{&net.DNSError{Err: "no such host", Name: "auth.example"}}},
		{&tls.CertificateVerificationError{Err: unknown}, []error{&tls.CertificateVerificationError{Err: unknown}}},
		{&tls.CertificateVerificationError{Err: errors.New("a callback's text")}, nil},
		{tls.AlertError(42), []error{tls.AlertError(42)}},
		{errors.New("tls: bad certificate"), []error{errors.New("tls: bad certificate")}},
		{errors.New("tls: client sent S3cret"), nil},
		{fmt.Errorf("x509: bad: %w", errors.New("x")), nil},
		{fmt.Errorf("tls: sent S3cret: %w", io.EOF), []error{io.EOF}},
		{errors.New("tls: sent\nsecret"), nil},
		{errors.New("tls: " + strings.Repeat("x", 200)), nil},
		{context.DeadlineExceeded, []error{context.DeadlineExceeded}},
		{context.Canceled, []error{context.Canceled}},
		{listError{context.Canceled, listError{}}, []error{context.Canceled}},
		{&url.Error{Op: "Post", Err: os.ErrDeadlineExceeded}, []error{os.ErrDeadlineExceeded}},
		{http.ErrSchemeMismatch, []error{http.ErrSchemeMismatch}},
	} {
		require.Equal(t, test.want, Trustworthy(test.err, own, nil, listError{}), "%v", test.err)
	}
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
		{0, ""}, {1, "1"}, {2, "1 "}, {3, "1 [redacted]"}, {12, "1 [redacted]"}, {13, "1 [redacted]"}, {14, "1 [redacted]\u00e4"}, {math.MaxInt, "1 [redacted]\u00e4"},
	} {
		require.Equal(t, test.want, NewMasker("the-secret").Mask("1 the-secret\u00e4", test.limit), test.limit)
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
		secret := randomText(6+rand.IntN(10)) + "Z0" // no text without the secret has a Z
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
		for shown := range strings.SplitSeq(masked, Redacted) {
			_, after, found := strings.Cut(rest, shown)
			require.True(t, found, "%q isn't in %q", shown, rest)
			rest = after
			for _, encoding := range encodings() {
				require.False(t, shows(shown, encoding.encode(secret), secret), "%q shows %q as %s", masked, secret, encoding.name)
			}
			require.False(t, shows(shown, token, token), "%q shows %q", masked, token)
		}
	})
}

// shows reports whether an encoded secret is in text where it has to be hidden. For a
// short one that is where it is a whole word. At the ends of text, which may be next to
// a hidden secret, a word may go on.
func shows(text, encoded, secret string) bool {
	if secret == "" {
		return false
	}
	if utf8.RuneCountInString(secret) >= 8 {
		return strings.Contains(text, encoded)
	}
	inWord := regexp.MustCompile(`[\pL\p{Nd}_-]`).MatchString
	first, size := utf8.DecodeRuneInString(encoded)
	last, _ := utf8.DecodeLastRuneInString(encoded)
	for at := 0; ; at += size {
		i := strings.Index(text[at:], encoded)
		if i < 0 {
			return false
		}
		at += i
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(encoded):])
		begins := !inWord(string(first)) || !inWord(string(before))
		ends := !inWord(string(last)) || !inWord(string(after))
		if at > 0 && at+len(encoded) < len(text) && begins && ends {
			return true
		}
	}
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

// TestL8_Names: which parameters are hidden in texts, and which forbid sharing a token.
func TestL8_Names(t *testing.T) {
	for _, test := range []struct {
		names          string // separated by spaces
		hidden, forbid bool
	}{
		{"client_secret clientSecret CLIENT-SECRET client.secret client_secret_2 secret1 secrets shared_secret secret_value clientsecret secret_id", true, true},
		{"password Password PASSWORD passWord pass_word user_password password_hash passwd pwd pw psw db.passwd user[pwd] pass user_pass", true, true},
		{"passphrase pass_phrase key_passphrase passcode pin PIN pin2 user_pin pin_code otp OTP totp hotp mfa_otp otp-value psk", true, true},
		{"client_assertion assertion Assertion user_assertion jwt JWT client_jwt jwt_bearer saml saml_response proof dpop_proof", true, true},
		{"code device_code deviceCode user_code authorization_code auth_code authcode verification_code sms_code one_time_code code_verifier codeVerifier pkce_code_verifier", true, true},
		{"token tokens access_token accessToken accesstoken subject_token actor_token refresh_token id_token id_token_hint session_token token_value requested_token", true, true},
		{"sig Sig signature request_signature hmac bearer credential credentials client_credential creds ticket session session_id sessionid cookie auth basic_auth authorization Proxy-Authorization", true, true},
		{"key api_key apikey apiKey API_KEY APIKey api-key x-api-key api_keys subscription-key Ocp-Apim-Subscription-Key subscriptionkey access_key secretKey private_key signing_key key2 oauth2Key", true, true},

		{"partition_key partitionKey sort_key routing-key cache_key primary_key idempotency_key shard_key row_key", true, false},
		{"monkey turkey", true, false}, // It's not worth a list of words.

		{" _ - 42 scope scopes audience resource grant_type client_id clientID username user tenant issuer nonce state response_mode", false, false},
		{"token_type requested_token_type subject_token_type client_assertion_type token_format token_lifetime tokenLifetime token_ttl token_lifetime_seconds token_expires_in", false, false},
		{"requested_token_use token_use token_endpoint tokenEndpoint token_endpoint_auth_method token_endpoint_auth_signing_alg token_url token_audience token_type_hint tokenType", false, false},
		{"key_id keyID key-id kid key_version api_key_id key_type key_name signing_key_id signature_algorithm sig_alg secret_name secret_version", false, false},
		{"password_policy passwordless pin_length otp_length code_challenge code_challenge_method country_code countryCode currency_code response_code error_code codec", false, false},
		{"auth_time auth_method auth_type authorization_details author pass_through bypass passport compass pinned shipping spin secretary tokenizer signatory significant desig", false, false},
		{"public_key publicKey keyboard keys_supported login_hint credential_type hotpot ticketing", false, false},
	} {
		for _, name := range append(strings.Split(test.names, " "), "") {
			if name == "" {
				require.False(t, IsCredentialName(name))
				require.False(t, ForbidsSharing(name))
				continue
			}
			require.Equal(t, test.hidden, IsCredentialName(name), "is %q hidden?", name)
			require.Equal(t, test.forbid, ForbidsSharing(name), "does %q forbid sharing?", name)
		}
	}
}

func TestHeaderSecrets(t *testing.T) {
	encoded, raw := BasicCredentials("i+d", "a%2Bb"), BasicCredentials("id", "50%:x")
	for _, test := range []struct {
		name, value string
		want        []string
	}{
		{"Accept", "x", nil},
		{"user-agent", "x/1.0", nil},
		{"Dpop", "proof", []string{"proof"}},
		{"Authorization", "Bearer T0ken", []string{"T0ken"}},
		{"Authorization", "alone", []string{"alone"}},
		{"Authorization", "Basic " + encoded, []string{encoded, "i+d:a%2Bb", "a%2Bb", "a+b", "i d:a+b"}},
		{"Authorization", "basic " + strings.TrimRight(raw, "="), []string{strings.TrimRight(raw, "="), "id:50%:x", "50%:x"}},
		{"Authorization", "Basic !", []string{"!"}},
		{"Authorization", "Basic " + BasicCredentials("", ""), []string{"Og=="}},
		{"Proxy-Authorization", "Basic " + raw, []string{raw, "id:50%:x", "50%:x"}},
		{"Authorization", `AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature="c"`, []string{`Credential=a/b, SignedHeaders=host, Signature="c"`, "a/b", "c"}},
		{"Ocp-Apim-Subscription-Key", "k3y", []string{"k3y"}},
		{"X-Gateway", "v w", []string{"v w", "w"}},
		{"Cookie", `a=b; c="d=e"; f`, []string{"b", "d=e", ""}},
	} {
		require.Equal(t, test.want, HeaderSecrets(http.Header{test.name: {test.value}}), "%s: %s", test.name, test.value)
	}
	require.Equal(t, []string{"1", "2", "3"}, HeaderSecrets(http.Header{"X-B": {"2", "3"}, "X-A": {"1"}, "Date": {"4"}}))
	require.Empty(t, HeaderSecrets(nil))
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
	require.Equal(t, "a\ufffd[2J; b; c\td", OneLine("\na\x1b[2J\r\nb\rc\td\n\n"))
	for r := range unicode.MaxLatin1 {
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

package clientcredentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	upstream "golang.org/x/oauth2/clientcredentials"

	"github.com/seed-5bfa0880/clientcredentials/internal/challenge"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

var (
	// The numbers that FuzzTokenResponse gets are places in these two lists.
	fuzzMediaTypes = []string{
		jsonType, formType, "text/plain", "none", "text/html; charset=utf-8", "application/json;charset=UTF-8", "Application/X-WWW-Form-Urlencoded", "text/plain; x",
	}
	fuzzStatuses = []int{200, 200, 200, 200, 201, 202, 204, 206, 300, 307, 400, 401, 403, 404, 429, 500, 503}

	knownNames = []string{"access_token", "token_type", "refresh_token", "error", "error_description", "error_uri", "expires_in", "refresh_in"}
)

// faultText matches the texts that a *ResponseError may have. Only numbers and the media
// type come from the server.
var faultText = func() *regexp.Regexp {
	names := "(" + strings.Join(knownNames, "|") + ")"
	reason := "(" + strings.Join([]string{
		names + " appears more than once",
		names + " is written in other letter case",
		names + " is not a string",
		"expires_in is not a number",
		"access_token contains a character that a token cannot have",
		"token_type is not an authentication scheme's name",
		"token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config\\.DPoP",
		"token_type is not Bearer",
		"the body is not form-encoded",
		"the body is empty",
		"the body is not an object",
		"the body looks like HTML or XML; check that TokenURL is the token endpoint",
		`syntax error at byte \d+`,
		"the answer is a part of something larger",
		"the answer is larger than 1 MiB",
	}, "|") + ")"
	return regexp.MustCompile(`^oauth2: (cannot fetch token|cannot parse json|cannot parse response|server response missing access_token)` +
		`(: ` + reason + `(; ` + reason + `)*)? \(status \d+, (no media type|[a-z]+/[a-z-]+), \d+ bytes\)$`)
}()

// FuzzTokenResponse gives the same answer to upstream and to this package.
func FuzzTokenResponse(f *testing.F) {
	add := func(body string, mediaType, status uint8) {
		f.Add([]byte(body), mediaType, status, false)
		f.Add([]byte(body), mediaType, status, true)
	}
	for _, value := range []string{`3600`, `3600.5`, `1e3`, `""`, `"3600"`, `0`, `-0`, `10`, `null`, `-1`, `2147483647`, `2147483648`, `-2147483648`, `-2147483649`, `99999999999`, `-9223372036854775808`, `1e999`, `true`, `{}`} {
		add("access_token=token-Canary&expires_in="+url.QueryEscape(value), 1, 0)
		add(`{"access_token":"token-Canary","token_type":"Bearer","expires_in":`+value+`,"refresh_token":"r","scope":"s"}`, 0, 0)
	}
	for _, body := range []string{
		`{"access_token":"a","access_token":"b"}`, `{"access_token":"a","acceſſ_token":"b"}`, `{"Access_Token":"a"}`, `{"access_to` + "\u212a" + `en":"b"}`,
		"{\"access_token\":\"\xff\"}", `{"access_token":"\ud800"}`, `{"access_token":"a\r\nb"}`, `{"access_token":"a","token_type":"N_A"}`, `{"access_token":"a","token_type":"DPoP"}`,
		"\xef\xbb\xbf{\"access_token\":\"a\"}", `{"access_token":{}}`, `null`, `[]`, ``, ` `, `<p>`, `{"x":1e999,"access_token":"a"}`, `{"access_token":"a","error":null}`,
		`{"error":"invalid_client","error_description":"s3cr3t-Canary/+&=~","access_token":"token-Canary"}`,
		"x\x1b[2J\u202e\r\n s3cr3t-Canary/+&=~ s3cr3t-Canary%2F%2B%26%3D~",
	} {
		for mediaType := range uint8(3) {
			add(body, mediaType, 0)
			add(body, mediaType, 11)
		}
	}
	for _, body := range []string{
		"access_token=token-Canary&token_type=Bearer&expires_in=3600&refresh_token=r", "access_token=a&access_token=b", "access_token=a&expires_in=abc",
		"access_token=a%0d%0a", "access_token=%zz", "access_token=a;b=c", "error=invalid_client&error_description=d", "{&access_token=a",
	} {
		add(body, 1, 0)
		add(body, 2, 7)
		add(body, 0, 11)
	}

	f.Fuzz(func(t *testing.T, body []byte, mediaTypeChoice, statusChoice uint8, strict bool) {
		if len(body) > maxResponseBody {
			t.Skip("upstream cuts such a body")
		}
		a := reply{
			status:    fuzzStatuses[int(statusChoice)%len(fuzzStatuses)],
			mediaType: fuzzMediaTypes[int(mediaTypeChoice)%len(fuzzMediaTypes)],
			body:      string(body),
		}
		endpoint := newTokenEndpoint(a)
		conf := endpoint.config()
		conf.Strict = strict
		theirConf := &upstream.Config{ClientID: conf.ClientID, ClientSecret: conf.ClientSecret, TokenURL: conf.TokenURL, AuthStyle: conf.AuthStyle}

		before := time.Now()
		ours, ourErr := conf.Token(t.Context())
		theirs, theirErr := theirConf.Token(context.WithValue(t.Context(), oauth2.HTTPClient, conf.HTTPClient))
		after := time.Now()
		require.Len(t, endpoint.received(), 2, "one request each")

		require.True(t, (ours == nil) != (ourErr == nil), "a token or an error")
		r := inspect(a)
		if ourErr != nil {
			checkError(t, ourErr, a, r)
		} else {
			checkToken(t, ours, a, r, strict)
		}
		switch {
		case ourErr == nil && theirErr == nil:
			compareTokens(t, ours, theirs, r, before, after)
		case ourErr == nil:
			require.True(t, r.sniffed || r.ambiguous || r.seconds != plainSeconds, "only upstream refuses the answer: %v", theirErr)
		case theirErr == nil:
			checkRefusal(t, ourErr, theirs, a, r, strict)
		default:
			compareErrors(t, ourErr, theirErr, r, strict)
		}
	})
}

// An inspection is what a second, simpler parser finds in an answer.
type inspection struct {
	form      bool
	sniffed   bool // upstream would take it for another format
	ambiguous bool // a known name appears twice, to a reader that ignores case by the rules of Unicode
	twice     bool // a known name appears twice, in ASCII
	otherCase bool // a known name appears in other letter case

	seconds secondsKind // of expires_in
	number  int64       // its value if plain
}

type secondsKind int

const (
	plainSeconds   secondsKind = iota // an integer that upstream reads too, or absent
	unusualSeconds                    // another number, or empty
	notSeconds
)

func inspect(a reply) inspection {
	var r inspection
	mediaType, _, _ := mime.ParseMediaType(a.mediaType)
	body := bytes.TrimPrefix([]byte(a.body), []byte("\xef\xbb\xbf"))
	r.sniffed = len(body) != len(a.body)
	if mediaType == formType || mediaType == "text/plain" {
		if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
			r.sniffed = true
		} else {
			r.form = true
		}
	}
	if r.form {
		values, err := url.ParseQuery(string(body))
		if err != nil {
			return r
		}
		for _, name := range knownNames {
			if len(values[name]) > 1 {
				r.twice, r.ambiguous = true, true
			}
		}
		r.kind(values.Get("expires_in"), !values.Has("expires_in"))
		return r
	}

	decoder := json.NewDecoder(bytes.NewReader(body))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return r
	}
	exact, folded, ascii := make(map[string]int), make(map[string]int), make(map[string]int)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return r
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return r
		}
		key, ok := token.(string)
		if !ok {
			return r
		}
		for _, name := range knownNames {
			if !strings.EqualFold(key, name) {
				continue
			}
			folded[name]++
			switch {
			case key == name:
				exact[name]++
				if name == "expires_in" {
					r.kindJSON(value)
				}
			case len(key) == len(name): // The long s and the Kelvin sign have more than one byte.
				ascii[name]++
				r.otherCase = true
				if name == "expires_in" && exact[name] == 0 {
					r.kindJSON(value)
				}
			}
		}
	}
	for _, name := range knownNames {
		r.twice = r.twice || exact[name] > 1 || exact[name] == 0 && ascii[name] > 1
		// Only upstream knows a name that isn't ASCII.
		r.ambiguous = r.ambiguous || folded[name] > 1 || folded[name] > exact[name]+ascii[name]
	}
	return r
}

func (r *inspection) kindJSON(value json.RawMessage) {
	text := string(value)
	if text == "null" {
		r.kind("", true)
		return
	}
	var number json.Number
	if json.Unmarshal(value, &number) == nil {
		if n, err := number.Int64(); err == nil {
			r.seconds, r.number = plainSeconds, n
			return
		}
	}
	if text[0] == '"' {
		_ = json.Unmarshal(value, &text)
	}
	r.kind(text, false)
	if r.seconds == plainSeconds {
		r.seconds = unusualSeconds // encoding/json doesn't read "01" as a number.
	}
}

func (r *inspection) kind(text string, absent bool) {
	r.seconds, r.number = notSeconds, 0
	switch {
	case absent:
		r.seconds = plainSeconds
	case text == "":
		r.seconds = unusualSeconds
	case decimal.MatchString(text):
		r.seconds = unusualSeconds
		if n, err := strconv.Atoi(text); err == nil {
			r.seconds, r.number = plainSeconds, int64(n)
		}
	}
}

var decimal = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

// checkToken checks what is true of every answer that is accepted.
func checkToken(t *testing.T, token *oauth2.Token, a reply, r inspection, strict bool) {
	require.Less(t, a.status, 300)
	require.NotEqual(t, http.StatusPartialContent, a.status)
	require.NotEmpty(t, token.AccessToken)
	for _, c := range []byte(token.AccessToken) {
		require.True(t, 0x21 <= c && c <= 0x7e, "byte %#x in the token", c)
	}
	require.Regexp(t, "^[!#$%&'*+.^_`|~0-9A-Za-z-]*$", token.TokenType)
	require.False(t, strings.EqualFold(token.TokenType, "dpop"))
	require.False(t, r.twice, "a known member appears twice")
	require.NotEqual(t, notSeconds, r.seconds)
	require.LessOrEqual(t, token.ExpiresIn, int64(math.MaxInt32))
	require.GreaterOrEqual(t, token.ExpiresIn, int64(-math.MaxInt32))
	require.Equal(t, token.ExpiresIn == 0, token.Expiry.IsZero())
	if strict {
		require.True(t, token.TokenType == "" || strings.EqualFold(token.TokenType, "bearer"))
	}
	// net/http sends the header field with the token.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example/", nil)
	require.NoError(t, err)
	token.SetAuthHeader(req)
	var wire bytes.Buffer
	require.NoError(t, req.Write(&wire))
	require.Contains(t, wire.String(), "\r\nAuthorization: "+token.Type()+" "+token.AccessToken+"\r\n")
}

// checkError checks what is true of every error.
func checkError(t *testing.T, err error, a reply, r inspection) {
	text := err.Error()
	require.NotContains(t, text, memorySecret)
	var fault *ResponseError
	var refusal *oauth2.RetrieveError
	switch {
	case errors.As(err, &fault):
		require.Less(t, a.status, 300)
		require.Equal(t, a.status, fault.StatusCode)
		require.Equal(t, len(a.body), fault.Size)
		require.Regexp(t, faultText, text)
	case errors.As(err, &refusal):
		require.IsType(t, refusal, err)
		require.NotNil(t, refusal.Response)
		require.Equal(t, a.status, refusal.Response.StatusCode)
		rest, err := io.ReadAll(refusal.Response.Body)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Empty(t, refusal.Response.Request.Header.Get("Authorization"))
		require.LessOrEqual(t, len(refusal.Body), maxErrorBody)
		require.Less(t, len(text), 16*maxErrorText)
		requireHarmless(t, text)
		requireHarmless(t, string(refusal.Body))
		for _, secret := range append(tokensIn(a.body, r), memorySecret, url.QueryEscape(memorySecret), redact.BasicCredentials(memoryID, url.QueryEscape(memorySecret))) {
			require.NotContains(t, text, secret)
			require.NotContains(t, string(refusal.Body), secret)
			require.NotContains(t, refusal.ErrorCode+"\n"+refusal.ErrorDescription+"\n"+refusal.ErrorURI, secret)
		}
	default:
		require.Fail(t, "unknown type", "%T %v", err, err)
	}
}

// tokensIn returns the access token in a well-formed body, unless the error may contain the
// same text for another reason.
func tokensIn(body string, r inspection) []string {
	var token string
	body = strings.TrimPrefix(body, "\xef\xbb\xbf")
	if r.form {
		values, err := url.ParseQuery(body)
		if err != nil {
			return nil
		}
		token = values.Get("access_token")
	} else {
		var object map[string]any
		_ = json.Unmarshal([]byte(body), &object)
		token, _ = object["access_token"].(string)
	}
	if r.ambiguous || len(token) < 8 || strings.ContainsAny(token, `[]"\`) {
		return nil
	}
	for _, fixed := range []string{redact.Redacted, "oauth2: cannot fetch token: \nResponse: ", "Internal Server Error", "Temporary Redirect", "Unauthorized", "Service Unavailable", "Too Many Requests", "Multiple Choices"} {
		if strings.Contains(fixed, token) {
			return nil
		}
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return nil
		}
	}
	return []string{token}
}

// compareTokens checks that both read the same from an answer that both accept.
func compareTokens(t *testing.T, ours, theirs *oauth2.Token, r inspection, before, after time.Time) {
	if r.ambiguous || r.sniffed {
		return // Only this package wants exact names, and reads JSON under any media type.
	}
	require.Equal(t, theirs.AccessToken, ours.AccessToken)
	require.Equal(t, theirs.TokenType, ours.TokenType)
	require.Equal(t, theirs.RefreshToken, ours.RefreshToken)
	for _, name := range append([]string{"scope", "id_token", "x", ""}, knownNames...) {
		require.Equal(t, theirs.Extra(name), ours.Extra(name), name)
	}
	if r.seconds != plainSeconds || r.number > math.MaxInt32 || r.number < -math.MaxInt32 {
		return // This package clamps numbers, and drops fractions.
	}
	require.Equal(t, r.number, ours.ExpiresIn)
	require.Equal(t, theirs.Expiry.IsZero(), ours.Expiry.IsZero())
	if r.number != 0 {
		life := time.Duration(r.number) * time.Second
		for _, expiry := range []time.Time{ours.Expiry, theirs.Expiry} {
			require.False(t, expiry.Before(before.Add(life)) || expiry.After(after.Add(life)))
		}
		require.False(t, ours.Expiry.After(theirs.Expiry), "the life starts before the request is sent")
	}
}

// checkRefusal checks that there is a reason to refuse an answer that upstream accepts.
func checkRefusal(t *testing.T, err error, theirs *oauth2.Token, a reply, r inspection, strict bool) {
	if r.sniffed {
		return
	}
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		require.True(t, r.ambiguous, "%v", err)
		return
	}
	for _, reason := range []struct {
		text  string
		holds bool
	}{
		{"appears more than once", r.twice},
		{"is written in other letter case", strict && r.otherCase},
		{"missing access_token", r.ambiguous},
		{"is not a string", r.ambiguous},
		{"access_token contains a character", r.ambiguous || strings.ContainsFunc(theirs.AccessToken, func(c rune) bool { return c <= ' ' || c > '~' })},
		{"not an authentication scheme's name", r.ambiguous || strings.ContainsFunc(theirs.TokenType, func(c rune) bool { return c > '~' || !challenge.IsTokenChar(byte(c)) })},
		{"token_type is DPoP", r.ambiguous || strings.EqualFold(theirs.TokenType, "DPoP")},
		{"token_type is not Bearer", strict && (r.ambiguous || !strings.EqualFold(theirs.TokenType, "Bearer"))},
		{"expires_in is not a number", r.seconds == notSeconds && (r.form || r.ambiguous)},
		{"a part of something larger", a.status == http.StatusPartialContent},
	} {
		if strings.Contains(err.Error(), reason.text) && reason.holds {
			return
		}
	}
	require.Fail(t, "refused without one of the reasons above", "%v", err)
}

// compareErrors checks that both return the server's refusal with the same code.
func compareErrors(t *testing.T, ourErr, theirErr error, r inspection, strict bool) {
	theirs, ok := theirErr.(*oauth2.RetrieveError)
	if !ok {
		return
	}
	if r.sniffed || r.ambiguous || strict && r.otherCase {
		return
	}
	ours, ok := ourErr.(*oauth2.RetrieveError)
	require.True(t, ok, "only upstream returns a *oauth2.RetrieveError: %v", ourErr)
	require.Equal(t, theirs.Response.StatusCode, ours.Response.StatusCode)
	for _, pair := range [][2]string{{theirs.ErrorCode, ours.ErrorCode}, {theirs.ErrorDescription, ours.ErrorDescription}, {theirs.ErrorURI, ours.ErrorURI}} {
		if pair[0] != "" && len(pair[0]) < maxErrorText && !strings.Contains(pair[1], redact.Redacted) {
			require.Equal(t, pair[0], pair[1])
		}
	}
}

// FuzzRetryAfter checks that a server can't make a client wait for longer than an hour.
func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"", "0", "60", " 60 ", "-1", "1.5", "99999999999999999999", "Fri, 02 Jan 2026 03:05:05 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(value, int64(1767323045))
	}
	f.Fuzz(func(t *testing.T, value string, unix int64) {
		delay := parseRetryAfter(value, time.Unix(unix, 0))
		require.GreaterOrEqual(t, delay, time.Duration(0))
		require.LessOrEqual(t, delay, maxRetryAfter)
		if seconds, err := strconv.ParseUint(value, 10, 16); err == nil {
			require.Equal(t, min(time.Duration(seconds)*time.Second, maxRetryAfter), delay)
		}
	})
}

package clientcredentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	upstream "golang.org/x/oauth2/clientcredentials"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

var (
	// The numbers that FuzzTokenResponse gets are places in these two lists.
	fuzzMediaTypes = []string{
		jsonType, formType, "text/plain", "none", "text/html; charset=utf-8", "application/json;charset=UTF-8", "Application/X-WWW-Form-Urlencoded", "text/plain; x",
	}
	fuzzStatuses = []int{200, 200, 200, 200, 201, 202, 204, 206, 300, 307, 400, 401, 403, 404, 429, 500, 503}

	knownNames = []string{"access_token", "token_type", "refresh_token", "error", "error_description", "error_uri", "expires_in", "refresh_in"}
)

// faultText matches what the text of a *ResponseError may have behind upstream's text.
var faultText = func() *regexp.Regexp {
	names := "(" + strings.Join(knownNames, "|") + ")"
	reason := "(" + strings.Join([]string{
		names + " appears more than once",
		names + " is written in other letter case",
		names + " is not a string",
		"expires_in is not a number",
		"(access_token|token_type) contains a control character, which no header field can hold",
		"access_token is not valid UTF-8",
		"access_token contains a character that RFC 6750, Section 2.1, doesn't allow",
		"token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config\\.DPoP",
		"token_type is not Bearer",
		"the body is not form-encoded",
		"the body is empty",
		"the body is not an object",
		"the body looks like HTML or XML; check that TokenURL is the token endpoint",
		`syntax error at byte \d+`,
		"the answer is a part of something larger",
		"the answer is larger than 1 MiB",
		"the answer is encoded as gzip, and the HTTP client doesn't decode it; don't set Accept-Encoding there",
		"the answer is encoded as zstd, and the HTTP client doesn't decode it; don't set Accept-Encoding there",
	}, "|") + ")"
	return regexp.MustCompile(`^(: ` + reason + `(; ` + reason + `)*)?(: it (says|has) .*)? \(status \d+, (no media type|[a-z]+/[a-z-]+), \d+ bytes\)$`)
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
		"access_token=a%0d%0a", "access_token=\x94", "access_token=%ff", "access_token=%zz", "access_token=a;b=c", "error=invalid_client&error_description=d", "{&access_token=a",
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

		ours, ourErr := conf.Token(t.Context())
		theirs, theirErr := theirConf.Token(context.WithValue(t.Context(), oauth2.HTTPClient, conf.HTTPClient))
		require.Len(t, endpoint.received(), 2, "one request each")
		require.True(t, (ours == nil) != (ourErr == nil), "a token or an error")
		mediaType, _, _ := mime.ParseMediaType(a.mediaType)
		parsed, err := tokenresponse.Parse(body, mediaType, strict)
		if ourErr != nil {
			checkError(t, ourErr, a)
		} else {
			checkToken(t, ours, a, parsed.Form, strict)
			require.NoError(t, err)
			require.Equal(t, parsed, parsed.Compact(body).Response(parsed.AccessToken))
		}
		switch {
		case !isPlain(a):
		case ourErr == nil:
			require.NoError(t, theirErr, "only upstream refuses the answer")
			compareTokens(t, ours, theirs)
		case theirErr == nil:
			require.True(t, a.status == http.StatusPartialContent || !canBeSent(theirs, parsed.Form, strict), "only upstream accepts the answer: %v", ourErr)
		default:
			compareErrors(t, ourErr, theirErr)
		}
	})
}

var b64token = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

var plainSeconds = regexp.MustCompile(`^("?-?(0|[1-9][0-9]{0,8})"?|null)$`)

// isPlain reports whether upstream and this package must read the same in an answer: it is
// JSON or a form, as its media type says, each known name appears at most once and in lower
// case, and expires_in is a small integer.
func isPlain(a reply) bool {
	plain, seen := true, make(map[string]bool)
	member := func(name, value string) {
		for _, known := range knownNames {
			if strings.EqualFold(name, known) {
				plain = plain && name == known && !seen[known]
				seen[known] = true
			}
		}
		plain = plain && (name != "expires_in" || plainSeconds.MatchString(value))
	}
	mediaType, _, _ := mime.ParseMediaType(a.mediaType)
	if mediaType != formType && mediaType != "text/plain" {
		for name, value := range strictjson.Members([]byte(a.body)) {
			member(name, string(value))
		}
		return plain && strictjson.IsObject([]byte(a.body))
	}
	values, err := url.ParseQuery(a.body)
	for name, values := range values {
		for _, value := range values {
			member(name, value)
		}
	}
	return plain && err == nil && !strings.ContainsAny(a.body, "{\ufeff") && !strings.ContainsAny(values.Get("expires_in"), `"n`)
}

// canBeSent reports whether token fits into the header field Authorization, and whether a
// client without a key accepts its type.
func canBeSent(token *oauth2.Token, form, strict bool) bool {
	isControl := func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
	return !strings.ContainsFunc(token.AccessToken, isControl) && !strings.ContainsFunc(token.TokenType, isControl) &&
		!strings.EqualFold(strings.TrimSpace(token.TokenType), "DPoP") && (form || !strings.ContainsRune(token.AccessToken, utf8.RuneError)) &&
		(!strict || b64token.MatchString(token.AccessToken) && (token.TokenType == "" || strings.EqualFold(token.TokenType, "Bearer")))
}

// checkToken checks what is true of every answer that is accepted.
func checkToken(t *testing.T, token *oauth2.Token, a reply, form, strict bool) {
	require.Less(t, a.status, 300)
	require.NotEqual(t, http.StatusPartialContent, a.status)
	require.NotEmpty(t, token.AccessToken)
	require.True(t, canBeSent(token, form, strict))
	require.LessOrEqual(t, max(token.ExpiresIn, -token.ExpiresIn), int64(math.MaxInt32))
	require.Equal(t, token.ExpiresIn == 0, token.Expiry.IsZero())
}

// checkError checks what is true of every error.
func checkError(t *testing.T, err error, a reply) {
	text := err.Error()
	var fault *ResponseError
	if errors.As(err, &fault) {
		require.Less(t, a.status, 300)
		require.Equal(t, a.status, fault.StatusCode)
		require.Equal(t, len(a.body), fault.Size)
		mediaType, _, _ := mime.ParseMediaType(a.mediaType)
		said := cmp.Or(tokenresponse.UpstreamError([]byte(a.body), mediaType), "oauth2: cannot fetch token")
		require.Regexp(t, faultText, strings.TrimPrefix(text, said))
		requireHarmless(t, text)
		return
	}
	require.IsType(t, (*oauth2.RetrieveError)(nil), err)
	refusal := err.(*oauth2.RetrieveError)
	require.Equal(t, a.status, refusal.Response.StatusCode)
	require.Empty(t, refusal.Response.Request.Header.Get("Authorization"))
	require.LessOrEqual(t, len(refusal.Body), maxErrorBody)
	require.Less(t, len(text), 16*maxErrorText)
	requireHarmless(t, text)
	requireHarmless(t, string(refusal.Body))
	text += fmt.Sprintf("\n%s\n%s\n%s\n%s", refusal.Body, refusal.ErrorCode, refusal.ErrorDescription, refusal.ErrorURI)
	for _, secret := range []string{memorySecret, url.QueryEscape(memorySecret), redact.BasicCredentials(memoryID, url.QueryEscape(memorySecret))} {
		require.NotContains(t, text, secret)
	}
}

// compareTokens checks that both read the same from an answer that both accept.
func compareTokens(t *testing.T, ours, theirs *oauth2.Token) {
	require.Equal(t, theirs.AccessToken, ours.AccessToken)
	require.Equal(t, theirs.TokenType, ours.TokenType)
	require.Equal(t, theirs.RefreshToken, ours.RefreshToken)
	for _, name := range append([]string{"scope", "id_token", "x", ""}, knownNames...) {
		require.Equal(t, theirs.Extra(name), ours.Extra(name), name)
	}
	require.WithinDuration(t, theirs.Expiry, ours.Expiry, time.Minute)
	require.False(t, ours.Expiry.After(theirs.Expiry), "the life starts before the request is sent")
}

// compareErrors checks that both return the server's refusal with the same code.
func compareErrors(t *testing.T, ourErr, theirErr error) {
	theirs, ok := theirErr.(*oauth2.RetrieveError)
	if !ok {
		if text := theirErr.Error(); !strings.Contains(text, "into Number") { // That quotes the value of expires_in.
			require.True(t, strings.HasPrefix(ourErr.Error(), text), "%v\n%v", ourErr, text)
		}
		return
	}
	ours, ok := ourErr.(*oauth2.RetrieveError)
	require.True(t, ok, "only upstream returns a *oauth2.RetrieveError: %v", ourErr)
	require.Equal(t, theirs.Response.StatusCode, ours.Response.StatusCode)
	if code := theirs.ErrorCode; code != "" && len(code) < maxErrorText && !strings.Contains(ours.ErrorCode, redact.Redacted) {
		require.Equal(t, code, ours.ErrorCode)
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

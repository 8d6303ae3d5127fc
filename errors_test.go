package clientcredentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/internal/tokenresponse"
)

// Package internal/redact tests how secrets are found in a text. The tests in this file show
// which secrets are masked, in which parts of an error, and what an error must keep.

// requireMasked checks that secret is nowhere in text, in whatever form.
func requireMasked(t *testing.T, text, secret string) {
	t.Helper()
	require.Empty(t, hostile.Find(text, secret), "the secret is in the text, in this form")
}

func withSecret(secret string) func(conf *Config) {
	return func(conf *Config) { conf.ClientSecret = secret }
}

func TestL1b_WhatIsMasked(t *testing.T) {
	const page = "grant_type=client_credentials&client_id=id&audience=api&client_assertion_type=urn:x"
	for _, test := range []struct {
		name, secret string
		params       url.Values
		body, want   string
	}{
		{"other parameters", memorySecret, url.Values{"audience": {"api"}, "client_assertion_type": {"urn:x"}, "password": {""}}, page, page},
		{"no secrets", "", nil, page, page},
		{"binary", "S3cr/t\xffCan\xfe\x80ary", nil, "<p>S3cr/t\xffCan\xfe\x80ary S3cr%2ft%ffCan%fe%80ary</p>", "<p>[redacted] [redacted]</p>"},
		{"secret in a token", "T0ken", nil, "access_token=T0kenCanary&sent=T0kenCanary&x=T0ken", "access_token=[redacted]&sent=[redacted]&x=[redacted]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			refusal := refusalFor(t, reply{status: 400, mediaType: formType, body: test.body},
				func(conf *Config) { conf.ClientSecret, conf.EndpointParams = test.secret, test.params })
			require.EqualError(t, refusal, "oauth2: cannot fetch token: 400 Bad Request\nResponse: "+test.want)
		})
	}
}

// TestL1b_EchoOnTheWire has answers that an http.Handler can't write, beside those of
// TestCanary.
func TestL1b_EchoOnTheWire(t *testing.T) {
	t.Parallel()
	basic := redact.BasicCredentials(memoryID, url.QueryEscape(plainSecret))
	host := strings.ToLower(plainSecret)
	for name, answer := range map[string]string{
		"trailer":         "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n1\r\nx\r\n0\r\nX-Echo: " + plainSecret + "\r\n\r\n",
		"bad length":      "HTTP/1.1 401 Unauthorized\r\nContent-Length: " + basic + "\r\n\r\n",
		"bad encoding":    "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: " + basic + "\r\n\r\n",
		"bad trailer":     "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n1\r\nx\r\n0\r\n" + basic + "\r\n\r\n",
		"media type":      "HTTP/1.1 200 OK\r\nContent-Type: application/" + host + "\r\nContent-Length: 1\r\n\r\nx",
		"Location's host": "HTTP/1.1 302 Found\r\nLocation: https://" + host + ".example/\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := serveRaw(t, answer)
			conf.ClientSecret = plainSecret
			if strings.Contains(answer, host) {
				conf.ClientSecret = host
			}
			_, err := conf.Token(t.Context())
			require.Error(t, err)
			requireMasked(t, surfaces(err), conf.ClientSecret)
		})
	}
}

func TestL1_RequestIsScrubbed(t *testing.T) {
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		type key struct{}
		conf := newTokenEndpoint(reply{status: 429, header: http.Header{"Retry-After": {"60"}}}).config()
		conf.TokenURL += "?key=QueryCanary"
		conf.AuthStyle = style
		conf.EndpointParams = url.Values{"client_assertion": {"AssertionCanary"}}
		_, err := conf.Token(context.WithValue(t.Context(), key{}, "ContextCanary"))
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, "60", refusal.Response.Header.Get("Retry-After"))
		req := refusal.Response.Request
		require.Equal(t, http.MethodPost, req.Method)
		require.Equal(t, memoryTokenURL, req.URL.String())
		require.Equal(t, http.Header{"Accept": {jsonType}, "Content-Type": {formType}}, req.Header)
		require.NoError(t, req.Context().Err())
		require.Nil(t, req.Context().Value(key{}))
		text := surfaces(err)
		requireMasked(t, text, memorySecret)
		require.NotRegexp(t, "QueryCanary|AssertionCanary|ContextCanary", text)
	}
}

// The copy has no credentials, and the request itself, which the transport holds, doesn't
// change.
func TestL1_WithoutCredentials(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://user:UserCanary@auth.example/token?q=QueryCanary", strings.NewReader("BodyCanary"))
	require.NoError(t, err)
	req.SetBasicAuth("id", plainSecret)
	req.Header.Set("Cookie", "CookieCanary")
	req.Header.Set("Accept", "x")
	clone := withoutCredentials(req, new(redact.Masker))
	require.Equal(t, "https://auth.example/token", clone.URL.String())
	require.Equal(t, http.Header{"Accept": {"x"}}, clone.Header)
	require.Nil(t, clone.Body)
	require.Nil(t, clone.GetBody)
	require.NotEmpty(t, req.Header.Get("Authorization"))
	require.NotEmpty(t, req.Header.Get("Cookie"))
	require.NotNil(t, req.URL.User)
	require.NotNil(t, req.Body)

	require.NotPanics(t, func() { withoutCredentials(&http.Request{}, new(redact.Masker)) })
}

// The program's RoundTripper may quote the request in its error. Another error takes the
// place of that one, and errors.Is finds the same causes in it.
func TestL1b_NetworkErrors(t *testing.T) {
	_, err := tokenOf(t, reply{err: errors.New(hostileText)}, false)
	requireHarmless(t, err.Error())
	for _, cause := range []error{io.ErrUnexpectedEOF, context.Canceled, context.DeadlineExceeded} {
		for _, a := range []reply{
			{err: fmt.Errorf("sending %s: %w", memorySecret, cause)},
			{bodyErr: fmt.Errorf("sent %s: %w", memorySecret, cause)},
		} {
			_, err := tokenOf(t, a, false)
			require.ErrorIs(t, err, cause)
			requireMasked(t, surfaces(err), memorySecret)
			var quoted *url.Error
			require.Equal(t, a.err != nil, errors.As(err, &quoted))
			if a.err != nil {
				require.Equal(t, errors.Is(cause, context.DeadlineExceeded), quoted.Timeout())
			}
		}
	}
}

// Some certificates have so many names that the text of the error is cut. It is still
// known as an error about a certificate, and the request isn't tried again.
func TestL4_LongNetworkError(t *testing.T) {
	names := make([]string, 90)
	for i := range names {
		names[i] = fmt.Sprintf("service-%d.region.cloud.example", i)
	}
	cause := x509.HostnameError{Certificate: &x509.Certificate{DNSNames: names}, Host: "auth.example"}
	require.Greater(t, len(cause.Error()), maxErrorText)
	endpoint := newTokenEndpoint(reply{err: &tls.CertificateVerificationError{Err: cause}})
	conf := endpoint.config()
	conf.Retry = RetryPolicy{}
	_, err := conf.Token(t.Context())
	var certificate *tls.CertificateVerificationError
	require.ErrorAs(t, err, &certificate)
	var hostname x509.HostnameError
	require.ErrorAs(t, err, &hostname)
	require.Less(t, len(err.Error()), 2*maxErrorText)
	require.Len(t, endpoint.received(), 1)
}

func TestL4_LargePage(t *testing.T) {
	for _, size := range []int{maxErrorBody, maxErrorBody + 1, maxResponseBody, maxResponseBody + 1, 3 << 20} {
		refusal := refusalFor(t, reply{status: 400, mediaType: "text/html", body: strings.Repeat("x", size)})
		require.Len(t, refusal.Body, maxErrorBody)
		require.Less(t, len(refusal.Error()), maxErrorBody+maxErrorText)
	}
}

func TestL4_LargeMembers(t *testing.T) {
	long := strings.Repeat("\u00e9", 100_000)
	refusal := refusalFor(t, reply{status: 400, body: `{"error":"x` + long + `","error_description":"` + long + `","error_uri":"` + long + `"}`})
	for _, text := range []string{refusal.ErrorCode, refusal.ErrorDescription, refusal.ErrorURI} {
		require.True(t, utf8.ValidString(text))
		require.InDelta(t, maxErrorText, len(text), 1)
	}
	require.Less(t, len(refusal.Error()), 4*maxErrorText)
}

// hostileText rewrites terminals and log lines.
const hostileText = "a\x00b\x07c\x08d\x1b[2J\x1b]0;title\x07e\rf\x7fg\u0085h\u009bi\u202ej\u2066k\u200bl\ufeffm\u00adn\xffo"

func TestL4_ControlCharacters(t *testing.T) {
	refusal := refusalFor(t, reply{status: 500, mediaType: "text/html", body: hostileText + "\r\nfake\n\tkept"})
	requireHarmless(t, refusal.Error())
	requireHarmless(t, string(refusal.Body))
	require.Contains(t, string(refusal.Body), "o\nfake\n\tkept")
	require.Contains(t, string(refusal.Body), "a\ufffdb\ufffdc")

	// The replacements are longer than the control characters.
	refusal = refusalFor(t, reply{status: 500, mediaType: "text/html", body: strings.Repeat("\x1b", maxErrorBody)})
	require.LessOrEqual(t, len(refusal.Body), maxErrorBody)

	// The members keep the text as the server sent it, because Error quotes them.
	member := inJSON(hostileText)
	refusal = refusalFor(t, reply{status: 400, body: `{"error":` + member + `,"error_description":` + member + `,"error_uri":` + member + `}`})
	requireHarmless(t, refusal.Error())
	require.NotContains(t, refusal.Error(), "\n")

	// net/http accepts almost any status text.
	conf := serveRaw(t, "HTTP/1.1 500 "+strings.ReplaceAll(hostileText, "\x00", "")+strings.Repeat("x", 10_000)+"\r\nContent-Length: 0\r\n\r\n")
	_, err := conf.Token(t.Context())
	require.IsType(t, (*oauth2.RetrieveError)(nil), err)
	requireHarmless(t, err.Error())
	require.Less(t, len(err.Error()), 2*maxErrorText)
}

// Package internal/tokenresponse tests the texts for all the rules that an answer can break.
func TestL5_FieldsAreNamedNotQuoted(t *testing.T) {
	for _, test := range []struct{ mediaType, body, want string }{
		{
			jsonType, `{"access_token":5,"token_type":{},"expires_in":"CANARY"}`,
			"cannot parse json: access_token is not a string; token_type is not a string; expires_in is not a number",
		},
		{jsonType, `{"access_token":"CANARY"`, "cannot parse json: unexpected end of JSON input: syntax error at byte 40"},
		{jsonType, `{"CANARY":1}`, "server response missing access_token"},
		{formType, `access_token=CANARY&access_token=CANARY`, "cannot fetch token: access_token appears more than once"},
		{formType, `access_token=CANARY%zz`, `cannot parse response: invalid URL escape "%zz": the body is not form-encoded`},
		{"text/html", `<p>CANARY`, "cannot parse json: invalid character '<' looking for beginning of value: the body looks like HTML or XML; check that TokenURL is the token endpoint"},
	} {
		const canary = "FieldCanary-0123456789"
		a := reply{mediaType: test.mediaType, body: strings.ReplaceAll(test.body, "CANARY", canary)}
		_, err := tokenOf(t, a, false)
		requireFault(t, err, a, "oauth2: "+test.want)
		for i := 0; i+8 <= len(canary); i++ {
			require.NotContains(t, surfaces(err), canary[i:i+8])
		}
	}
}

func TestResponseError(t *testing.T) {
	cause := errors.New("a\nb")
	err := &ResponseError{StatusCode: 200, MediaType: "text/html", Size: 7, Err: &tokenresponse.RefusalError{Err: cause, Said: "it says no"}, upstream: "oauth2: x"}
	require.EqualError(t, err, "oauth2: x: a; b: it says no (status 200, text/html, 7 bytes)")
	require.ErrorIs(t, err, cause)
	require.EqualError(t, &ResponseError{StatusCode: 204, upstream: "oauth2: x"}, "oauth2: x (status 204, no media type, 0 bytes)")
	require.NoError(t, errors.Unwrap(&ResponseError{}))
	require.NotEmpty(t, (&ResponseError{}).Error())
}

// An answer without a token is quoted in the server's words, without secrets.
func TestP9_ServersWords(t *testing.T) {
	for body, want := range map[string]string{
		`{"ret":7,"reason":"app disabled"}`:                            "oauth2: server response missing access_token: it says reason: app disabled, ret: 7 (status 200",
		`{"error":{"code":"E7","message":"bad ` + memorySecret + `"}}`: "oauth2: cannot parse json: json: cannot unmarshal object into Go struct field tokenJSON.error of type string: error is not a string: it says error.code: E7, error.message: bad [redacted] (status 200",
		`{"msg":"a\u001b[2Jb"}`:                                        "oauth2: server response missing access_token: it says msg: a",
		`{"data":{"access_token":"t0k3n"}}`:                            `oauth2: server response missing access_token: it has "data" (status 200`,
		"\x1f\x8b\x08\x00":                                             "oauth2: cannot parse json: invalid character '\\x1f' looking for beginning of value: the answer is encoded as gzip, and the HTTP client doesn't decode it",
		`{"message":"` + strings.Repeat("word ", 1000) + `"}`:          "oauth2: server response missing access_token: it says message: word word",
	} {
		_, err := tokenOf(t, reply{body: body}, false)
		require.ErrorContains(t, err, want)
		requireHarmless(t, err.Error())
		require.NotContains(t, err.Error(), memorySecret)
		require.Less(t, len(err.Error()), 2*maxErrorText)
	}
}

func TestP9_RefusalThatNobodyHasDecoded(t *testing.T) {
	_, err := tokenOf(t, reply{status: 400, body: "\x1f\x8b\x08\x00"}, false)
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	require.ErrorContains(t, err, "\nthe answer is encoded as gzip")
	_, err = tokenOf(t, reply{status: 400, header: http.Header{"Content-Encoding": {"gzip"}}, body: `{"error":"invalid_client"}`}, false)
	require.IsType(t, refusal, err)
}

func TestL6_BodyCut(t *testing.T) {
	t.Parallel()
	const body = `{"access_token":"BodyCanary"`
	zipped := gzipped(body)
	for name, answer := range map[string]string{
		"Content-Length": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n" + body,
		"chunked":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\n" + body,
		"gzip":           "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + zipped[:len(zipped)-6],
		"refusal":        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 60\r\n\r\n" + body,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := serveRaw(t, answer).Token(t.Context())
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.ErrorContains(t, err, "oauth2: cannot fetch token: ")
			text := surfaces(err)
			require.NotContains(t, text, "BodyCanary")
			requireMasked(t, text, memorySecret)
		})
	}
	cause := errors.New("boom")
	_, err := tokenOf(t, reply{body: body, bodyErr: cause}, false)
	require.ErrorIs(t, err, cause)
}

func TestL6_ResponseIsUsable(t *testing.T) {
	for _, a := range []reply{
		{status: 401, body: "x"},
		{status: 401},
		{status: 307, header: http.Header{"Location": {"https://other.example/"}}},
		{status: 300},
		{body: `{"error":"x"}`},
	} {
		_, err := tokenOf(t, a, false)
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
		require.NotNil(t, refusal.Response)
		body, err := io.ReadAll(refusal.Response.Body)
		require.NoError(t, err)
		require.Empty(t, body)
		require.NoError(t, refusal.Response.Body.Close())
		require.NotPanics(t, func() { _ = refusal.Error() })
	}
}

// TestCanary prints them in every way.
func TestL2_P17_PrintedConfigAndSource(t *testing.T) {
	conf := Config{ClientID: "the-id", ClientSecret: memorySecret, TokenURL: "https://auth.example/token?key=" + memorySecret, Scopes: []string{"read"}}
	require.Equal(t, `clientcredentials.Config{ClientID: "the-id", TokenURL: "https://auth.example/token", Scopes: ["read"]}`, conf.String())
	withParams := func(audience string) string {
		other := conf
		other.EndpointParams = url.Values{"audience": {audience}}
		return other.String()
	}
	first, again := withParams("a"), withParams("a")
	require.Equal(t, first, again, "programs use it as the key of a cache")
	require.NotEqual(t, first, withParams("b"))
	require.Regexp(t, `Scopes: \["read"\], EndpointParams: #[0-9a-f]{16}}$`, withParams("a"))
	require.Contains(t, (&Config{TokenURL: "https://user:" + memorySecret + "@auth.example"}).String(), `TokenURL: "unusable"`)
	require.Equal(t, "<nil>", fmt.Sprintf("%+v", (*Config)(nil)))
	source := newTokenEndpoint(goodReply).config().Source(t.Context())
	token, err := source.Token()
	require.NoError(t, err)
	source.Invalidate(token)
	require.Equal(t, "clientcredentials.Source(expired)", source.String())
}

// Masking doesn't change what programs and this package read: error codes and times.
func TestMaskingSparesWhatIsRead(t *testing.T) {
	refusal := refusalFor(t, reply{
		status: 429,
		header: http.Header{"Retry-After": {"120"}, "Date": {"Fri, 02 Jan 2026 03:04:05 GMT"}, "X-Echo": {"client 120"}},
		body:   `{"error":"invalid_client"}`,
	}, withSecret("client"), func(conf *Config) {
		conf.EndpointParams = url.Values{"api_key": {"120"}, "password": {"Jan"}, "country_code": {"in"}, "key_version": {"v"}}
	})
	require.Equal(t, "invalid_client", refusal.ErrorCode)
	require.Equal(t, "[redacted] [redacted]", refusal.Response.Header.Get("X-Echo"))
	require.Equal(t, 2*time.Minute, retryAfter(refusal, time.Now()))
	require.Equal(t, "Fri, 02 Jan 2026 03:04:05 GMT", refusal.Response.Header.Get("Date"))
}

func TestL3_QueryInNestedNetworkErrors(t *testing.T) {
	_, err := tokenOf(t, reply{err: &url.Error{Op: "Post", URL: "https://proxy.example/?key=NestedCanary", Err: errors.New("boom")}}, false)
	require.EqualError(t, err, `Post "https://auth.example/token": Post "https://proxy.example/": boom`)
}

package clientcredentials

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// surfaces returns everything that a program may print of err.
func surfaces(err error) string {
	var out strings.Builder
	show := func(v any) {
		fmt.Fprintf(&out, "%v\n%+v\n%#v\n%s\n%q\n", v, v, v, v, v)
		if text, err := json.Marshal(v); err == nil { // Not with a Response: it holds functions.
			fmt.Fprintf(&out, "%s\n", text)
		}
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		show(e)
		fmt.Fprintln(&out, e.Error())
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Error("failed", "err", err, slog.Group("g", "err", err))
	}

	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return out.String()
	}
	show(*refusal)
	show(refusal.ErrorCode)
	show(refusal.ErrorDescription)
	show(refusal.ErrorURI)
	out.Write(refusal.Body)
	if refusal.Response == nil {
		return out.String()
	}
	show(refusal.Response)
	show(*refusal.Response)
	show(refusal.Response.Header)
	show(refusal.Response.Trailer)
	if dump, err := httputil.DumpResponse(refusal.Response, true); err == nil {
		out.Write(dump)
	}
	if req := refusal.Response.Request; req != nil {
		show(req)
		show(*req)
		show(req.Header)
		show(req.URL)
		if dump, err := httputil.DumpRequest(req, true); err == nil {
			out.Write(dump)
		}
		if req.GetBody != nil {
			if body, err := req.GetBody(); err == nil {
				_, _ = io.Copy(&out, body)
			}
		}
		if req.Body != nil {
			_, _ = io.Copy(&out, req.Body)
		}
	}
	return out.String()
}

// A way in which a server's error page may repeat a secret.
type echo struct {
	name   string
	encode func(secret string) string
}

var echoes = []echo{
	{"raw", func(s string) string { return s }},
	{"form", url.QueryEscape},
	{"form, lower case", func(s string) string { return lowerEscapes(url.QueryEscape(s)) }},
	{"path", url.PathEscape},
	{"path, lower case", func(s string) string { return lowerEscapes(url.PathEscape(s)) }},
	{"base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
	{"JSON", func(s string) string { return jsonEscape(s, true) }},
	{"HTML", html.EscapeString},
	{"basic", basicOf},
	{"raw basic", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(memoryID + ":" + s)) }},

	// What others than Go write.
	{"JSON of most languages", func(s string) string { return jsonEscape(s, false) }},
	{"JSON of PHP", func(s string) string { return strings.ReplaceAll(jsonEscape(s, false), "/", `\/`) }},
	{"JSON in ASCII", jsonASCII},
	{"HTML of PHP", func(s string) string { return strings.ReplaceAll(html.EscapeString(s), "&#34;", "&quot;") }},
	{"HTML of Python", func(s string) string {
		return strings.NewReplacer("&#34;", "&quot;", "&#39;", "&#x27;").Replace(html.EscapeString(s))
	}},
	{"HTML of html/template", func(s string) string { return strings.ReplaceAll(html.EscapeString(s), "+", "&#43;") }},
	{"XML", func(s string) string {
		return strings.NewReplacer("&#34;", "&quot;", "&#39;", "&apos;").Replace(html.EscapeString(s))
	}},
	{"Latin-1 form", func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%C3%A4", "%E4") }},
	{"repr of Python", func(s string) string { return strings.ReplaceAll(jsonEscape(s, false), "\u00e4", `\xe4`) }},
	{"encodeURIComponent", func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }},
	{"basic as form", func(s string) string { return url.QueryEscape(basicOf(s)) }},
	{"basic as JSON of PHP", func(s string) string { return strings.ReplaceAll(basicOf(s), "/", `\/`) }},
}

func basicOf(secret string) string {
	return base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(memoryID) + ":" + url.QueryEscape(secret)))
}

func jsonEscape(s string, forHTML bool) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(forHTML)
	_ = encoder.Encode(s)
	quoted := strings.TrimSuffix(out.String(), "\n")
	return quoted[1 : len(quoted)-1]
}

func jsonASCII(s string) string {
	var out strings.Builder
	for _, r := range jsonEscape(s, false) {
		if r < utf8.RuneSelf {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// requireMasked checks that secret, longer than a few letters, is nowhere in
// text, however it is written.
func requireMasked(t *testing.T, text, secret string) {
	t.Helper()
	for _, echo := range echoes {
		require.NotContains(t, text, echo.encode(secret), echo.name)
	}
}

const (
	plainSecret = "S3cretCanary0123456789"
	oddSecret   = "S3cr/t Can+ry&<x>=\"y'z\\~*%41\u00e4!"
)

// TestL1b_Echo has a server repeat the secret in every way and every place.
func TestL1b_Echo(t *testing.T) {
	places := map[string]func(echoed string) reply{
		"page": func(echoed string) reply {
			return reply{status: 401, mediaType: "text/html", body: "<pre>client_secret=" + echoed + "</pre>"}
		},
		"text": func(echoed string) reply {
			return reply{status: 500, mediaType: "text/plain", body: "secret " + echoed + "."}
		},
		"broken JSON": func(echoed string) reply {
			return reply{status: 400, body: `{"error":"invalid_client","sent":"` + echoed}
		},
		"JSON": func(echoed string) reply {
			return reply{status: 400, body: `{"error":"invalid_client","error_description":"d","sent":"` + echoed + `"}`}
		},
		"header": func(echoed string) reply {
			return reply{status: 401, header: http.Header{
				"X-Echo":           {"1", "got " + echoed},
				"Www-Authenticate": {`Basic realm="` + echoed + `"`},
			}}
		},
	}
	for _, secret := range []string{plainSecret, oddSecret} {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			for place, answer := range places {
				for _, echo := range echoes {
					t.Run(fmt.Sprintf("%q/style %d/%s/%s", secret, style, place, echo.name), func(t *testing.T) {
						conf := newTokenEndpoint(answer(echo.encode(secret))).config()
						conf.ClientSecret = secret
						conf.AuthStyle = style
						_, err := conf.Token(t.Context())
						require.IsType(t, (*oauth2.RetrieveError)(nil), err)
						text := surfaces(err)
						requireMasked(t, text, secret)
						require.Contains(t, text, redact.Redacted)
					})
				}
			}
		}
	}
}

// TestL1b_Members has a server repeat the secret in the members that are kept
// apart.
func TestL1b_Members(t *testing.T) {
	for _, secret := range []string{plainSecret, oddSecret} {
		for _, echo := range echoes {
			t.Run(fmt.Sprintf("%q/%s", secret, echo.name), func(t *testing.T) {
				echoed := echo.encode(secret)
				object, err := json.Marshal(map[string]string{
					"error":             "bad " + echoed,
					"error_description": "Basic " + echoed + " is wrong",
					"error_uri":         "https://auth.example/?x=" + echoed,
				})
				require.NoError(t, err)
				form := url.Values{"error": {"bad " + echoed}, "error_description": {echoed}, "error_uri": {echoed}}.Encode()
				for _, a := range []reply{
					{status: 400, body: string(object)},
					{status: 200, body: string(object)},
					{status: 400, mediaType: formType, body: form},
				} {
					conf := newTokenEndpoint(a).config()
					conf.ClientSecret = secret
					_, err := conf.Token(t.Context())
					refusal, ok := err.(*oauth2.RetrieveError)
					require.True(t, ok, "bare")
					require.Equal(t, "bad "+redact.Redacted, refusal.ErrorCode)
					for _, text := range []string{refusal.ErrorDescription, refusal.ErrorURI, err.Error()} {
						require.Contains(t, text, redact.Redacted)
						requireMasked(t, text, secret)
					}
				}
			})
		}
	}
}

// TestL1b_Parameters: credentials in EndpointParams are as secret.
func TestL1b_Parameters(t *testing.T) {
	for _, name := range []string{
		"client_assertion", "assertion", "password", "client_secret", "subject_token", "actor_token", "refresh_token",
		"code", "api_key", "apikey", "apiKey", "API_KEY", "Password",
	} {
		for _, value := range []string{plainSecret, oddSecret} {
			for _, echo := range echoes[:8] {
				t.Run(fmt.Sprintf("%s/%q/%s", name, value, echo.name), func(t *testing.T) {
					conf := newTokenEndpoint(reply{status: 400, mediaType: "text/html", body: "<p>" + echo.encode(value)}).config()
					conf.ClientSecret = ""
					conf.EndpointParams = url.Values{
						name:                    {"other", value},
						"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
					}
					_, err := conf.Token(t.Context())
					requireMasked(t, surfaces(err), value)
				})
			}
		}
	}
}

func TestIsSecretParameter(t *testing.T) {
	for _, name := range []string{"client_secret", "client_assertion", "assertion", "password", "subject_token", "code", "key"} {
		require.True(t, redact.IsCredentialName(name), name)
	}
	for _, name := range []string{"", "scope", "audience", "resource", "grant_type", "client_id", "client_assertion_type", "subject_token_type"} {
		require.False(t, redact.IsCredentialName(name), name)
	}
}

// What isn't a secret stays readable.
func TestL1b_NothingElseIsMasked(t *testing.T) {
	const page = "grant_type=client_credentials&client_id=id&audience=api&client_assertion_type=urn:x"
	conf := newTokenEndpoint(reply{status: 400, mediaType: "text/html", body: page, header: http.Header{"X-Request-Id": {"42"}}}).config()
	conf.EndpointParams = url.Values{"audience": {"api"}, "client_assertion_type": {"urn:x"}, "password": {""}}
	_, err := conf.Token(t.Context())
	require.EqualError(t, err, "oauth2: cannot fetch token: 400 Bad Request\nResponse: "+page)
	require.Equal(t, "42", err.(*oauth2.RetrieveError).Response.Header.Get("X-Request-Id"))

	conf = newTokenEndpoint(reply{status: 400, mediaType: "text/html", body: page}).config()
	conf.ClientID, conf.ClientSecret = "", ""
	_, err = conf.Token(t.Context())
	require.EqualError(t, err, "oauth2: cannot fetch token: 400 Bad Request\nResponse: "+page)
}

// A secret that begins another must not leave the other's end.
func TestL1b_OneSecretInsideAnother(t *testing.T) {
	conf := newTokenEndpoint(reply{status: 400, mediaType: "text/html", body: "got secret-long-Canary"}).config()
	conf.ClientSecret = "secret"
	conf.EndpointParams = url.Values{"password": {"secret-long-Canary"}, "code": {"secret-long"}}
	_, err := conf.Token(t.Context())
	require.EqualError(t, err, "oauth2: cannot fetch token: 400 Bad Request\nResponse: got [redacted]")
}

// Neither does what is kept of a page end in a part of a secret.
func TestL1b_PageOfSecrets(t *testing.T) {
	assertion := strings.Repeat("AssertionCanary+", 100)
	for shift := range 40 {
		page := strings.Repeat("x", 50*shift) + strings.Repeat(assertion, 100)
		conf := newTokenEndpoint(reply{status: 400, mediaType: "text/html", body: page}).config()
		conf.EndpointParams = url.Values{"client_assertion": {assertion}}
		_, err := conf.Token(t.Context())
		require.Contains(t, err.Error(), redact.Redacted)
		require.NotContains(t, err.Error(), "Canary")
	}
}

// A secret or a token that begins before the limit is masked, wherever it ends.
func TestL1b_AtTheLimit(t *testing.T) {
	secret := "Canary" + strings.Repeat(`"<`, 50)
	token := "Canary" + strings.Repeat("T0ken", 2000)
	for before := range 120 {
		filler := strings.Repeat("x", maxErrorBody-before)
		for _, a := range []reply{
			{status: 400, mediaType: "text/html", body: filler + html.EscapeString(secret)},
			{status: 400, mediaType: formType, body: "x=" + filler + "&access_token=" + token},
		} {
			conf := newTokenEndpoint(a).config()
			conf.ClientSecret = secret
			_, err := conf.Token(t.Context())
			require.NotContains(t, err.Error(), "Canary", before)
			require.LessOrEqual(t, len(err.(*oauth2.RetrieveError).Body), maxErrorBody)
		}
	}
}

// A token and a secret in one text, apart and one inside the other.
func TestL1b_TokenAndSecret(t *testing.T) {
	const token = "T0kenCanary"
	for _, secret := range []string{plainSecret, oddSecret, "left-" + token + "-right", "T0ken", "Canary"} {
		body := url.Values{"access_token": {token}, "sent": {secret, token, secret}}.Encode()
		conf := newTokenEndpoint(reply{status: 400, mediaType: formType, body: body}).config()
		conf.ClientSecret = secret
		_, err := conf.Token(t.Context())
		require.EqualError(t, err, "oauth2: cannot fetch token: 400 Bad Request\nResponse: "+
			"access_token=[redacted]&sent=[redacted]&sent=[redacted]&sent=[redacted]", secret)
	}
}

// A token in a refusal is masked as well.
func TestL1b_Tokens(t *testing.T) {
	for _, a := range []reply{
		{status: 503, body: `{"access_token":"T0kenCanary+/","refresh_token":"R3freshCanary+/"}`},
		{body: `{"error":"x","error_description":"T0kenCanary+/ R3freshCanary%2B%2F","access_token":"T0kenCanary+/","refresh_token":"R3freshCanary+/"}`},
		{status: 400, mediaType: formType, body: `access_token=T0kenCanary%2B%2F&refresh_token=R3freshCanary%2b%2f`},
	} {
		_, err := tokenOf(t, a, false)
		require.IsType(t, (*oauth2.RetrieveError)(nil), err)
		text := surfaces(err)
		require.NotContains(t, text, "T0kenCanary")
		require.NotContains(t, text, "R3freshCanary")
	}
}

// Over a wire the secret can come back in places that no handler writes to.
func TestL1b_EchoOnTheWire(t *testing.T) {
	for _, secret := range []string{plainSecret, strings.ReplaceAll(oddSecret, "\u00e4", "")} {
		basic := redact.BasicCredentials(url.QueryEscape(memoryID), url.QueryEscape(secret))
		host := strings.ToLower(plainSecret)
		for name, answer := range map[string]string{
			"status text":         "HTTP/1.1 401 " + secret + "\r\nContent-Length: 0\r\n\r\n",
			"status text, basic":  "HTTP/1.1 401 Basic " + basic + "\r\nContent-Length: 0\r\n\r\n",
			"header":              "HTTP/1.1 401 Unauthorized\r\nX-Echo: " + secret + "\r\nContent-Length: 0\r\n\r\n",
			"trailer":             "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n1\r\nx\r\n0\r\nX-Echo: " + secret + "\r\n\r\n",
			"Location":            "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://other.example/?secret=" + url.QueryEscape(secret) + "\r\nContent-Length: 0\r\n\r\n",
			"Location, basic":     "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://other.example/" + basic + "\r\nContent-Length: 0\r\n\r\n",
			"Location's user":     "HTTP/1.1 302 Found\r\nLocation: https://id:" + url.QueryEscape(secret) + "@other.example/\r\nContent-Length: 0\r\n\r\n",
			"bad Location":        "HTTP/1.1 302 Found\r\nLocation: https://[other.example/?secret=" + secret + "\r\nContent-Length: 0\r\n\r\n",
			"bad Location, basic": "HTTP/1.1 302 Found\r\nLocation: https://other.example:" + basic + "/\r\nContent-Length: 0\r\n\r\n",
			"bad status line":     "HTTP/1.1 " + secret + "\r\n\r\n",
			"no HTTP":             secret + "\r\n\r\n",
			"no HTTP, basic":      "Authorization: Basic " + basic + "\r\n\r\n",
			"bad header":          "HTTP/1.1 401 Unauthorized\r\n" + basic + "\r\n\r\n",
			"bad length":          "HTTP/1.1 401 Unauthorized\r\nContent-Length: " + basic + "\r\n\r\n",
			"bad encoding":        "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: " + basic + "\r\n\r\n",
			"bad trailer":         "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n1\r\nx\r\n0\r\n" + basic + "\r\n\r\n",
			"media type":          "HTTP/1.1 200 OK\r\nContent-Type: application/" + host + "\r\nContent-Length: 1\r\n\r\nx",
			"Location's host":     "HTTP/1.1 302 Found\r\nLocation: https://" + host + ".example/\r\nContent-Length: 0\r\n\r\n",
		} {
			t.Run(fmt.Sprintf("%q/%s", secret, name), func(t *testing.T) {
				conf := serveRaw(t, answer)
				conf.ClientSecret = secret
				if strings.Contains(answer, host) {
					conf.ClientSecret = host
				}
				_, err := conf.Token(t.Context())
				require.Error(t, err)
				requireMasked(t, surfaces(err), conf.ClientSecret)
			})
		}
	}
}

func TestL1_RequestIsScrubbed(t *testing.T) {
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		for _, status := range []int{302, 400, 401, 429, 503} {
			t.Run(fmt.Sprintf("style %d/%d", style, status), func(t *testing.T) {
				conf := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", "https://other.example/")
					w.Header().Set("Retry-After", "60")
					w.WriteHeader(status)
				})
				conf.ClientSecret = plainSecret
				conf.TokenURL += "?key=QueryCanary"
				conf.AuthStyle = style
				conf.EndpointParams = url.Values{"client_assertion": {"AssertionCanary"}}
				type key struct{}
				_, err := conf.Token(context.WithValue(t.Context(), key{}, "ContextCanary"))

				var refusal *oauth2.RetrieveError
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, status, refusal.Response.StatusCode)
				require.Equal(t, "60", refusal.Response.Header.Get("Retry-After"))
				req := refusal.Response.Request
				require.NotNil(t, req)
				require.Equal(t, http.MethodPost, req.Method)
				require.Equal(t, strings.TrimSuffix(conf.TokenURL, "?key=QueryCanary"), req.URL.String())
				require.Equal(t, http.Header{"Content-Type": {formType}}, req.Header)
				require.Nil(t, req.Body)
				require.Nil(t, req.GetBody)
				require.Nil(t, req.Form)
				require.NoError(t, req.Context().Err())
				require.Nil(t, req.Context().Value(oauth2.HTTPClient))
				text := surfaces(err)
				requireMasked(t, text, plainSecret)
				for _, canary := range []string{"QueryCanary", "AssertionCanary", "ContextCanary"} {
					require.NotContains(t, text, canary)
				}
			})
		}
	}
}

// The request that the transport holds is left alone.
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

// L3 has its own row for TokenURL; here it is what net/http quotes of it.
func TestL3_QueryInNetworkErrors(t *testing.T) {
	for _, cause := range []error{errors.New("boom"), io.EOF, context.DeadlineExceeded} {
		conf := newTokenEndpoint(reply{err: cause}).config()
		conf.TokenURL += "?key=QueryCanary"
		_, err := conf.Token(t.Context())
		require.ErrorIs(t, err, cause)
		require.ErrorContains(t, err, memoryTokenURL)
		require.NotContains(t, surfaces(err), "QueryCanary")
		requireMasked(t, surfaces(err), memorySecret)
	}
}

// A RoundTripper of the program may quote what it has sent. The error is then
// another, but still of the same kind.
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

// Some certificates have so many names that the error's text is cut. That it is
// about a certificate must be known all the same: it isn't tried again.
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
	require.Len(t, endpoint.received(), 1)
}

// TestL1b_BinarySecret: a secret needn't be text.
func TestL1b_BinarySecret(t *testing.T) {
	const secret = "S3cr/t\xffCan\xfe\x80ary"
	for _, echo := range []func(string) string{
		func(s string) string { return s },
		url.QueryEscape,
		func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
		func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		basicOf,
	} {
		conf := newTokenEndpoint(reply{status: 400, mediaType: "text/html", body: "<p>" + echo(secret) + "</p>"}).config()
		conf.ClientSecret = secret
		_, err := conf.Token(t.Context())
		require.EqualError(t, err, "oauth2: cannot fetch token: 400 Bad Request\nResponse: <p>[redacted]</p>")
	}
}

// TestL1b_MaskingIsCheap: a hostile server can't keep a processor busy with pages
// that almost repeat a token or a secret.
// TestL1b_MaskingIsCheap has nothing to measure: a mask whose cost grows with what
// is almost a secret takes minutes here, and the time limit of the tests ends it.
func TestL1b_MaskingIsCheap(t *testing.T) {
	for name, test := range map[string]struct {
		secret string
		reply  reply
	}{
		"almost a long token":   {memorySecret, reply{status: 400, body: `{"access_token":"` + strings.Repeat("a", 10_000) + `b","x":"` + strings.Repeat("a", 200_000) + `"}`}},
		"almost an odd token":   {memorySecret, reply{status: 400, body: `{"access_token":"` + strings.Repeat("~", 6_000) + `b","x":"` + strings.Repeat("~", 10_000) + `"}`}},
		"almost the secret":     {strings.Repeat("~", 100) + "b", reply{status: 400, mediaType: "text/html", body: strings.Repeat("~", 1<<20)}},
		"almost in the headers": {strings.Repeat("~", 100) + "b", reply{status: 400, header: http.Header{"X-Echo": {strings.Repeat("~", 1<<20)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			conf := newTokenEndpoint(test.reply).config()
			conf.ClientSecret = test.secret
			_, err := conf.Token(t.Context())
			require.IsType(t, (*oauth2.RetrieveError)(nil), err)
		})
	}
}

func TestL4_LargePage(t *testing.T) {
	for _, status := range []int{400, 401, 403, 500, 503} {
		for _, size := range []int{maxErrorBody, maxErrorBody + 1, 900_000, maxResponseBody, maxResponseBody + 1, 3 << 20} {
			t.Run(fmt.Sprintf("%d/%d bytes", status, size), func(t *testing.T) {
				_, err := tokenOf(t, reply{status: status, mediaType: "text/html", body: "<p>" + strings.Repeat("x", size-3)}, false)
				refusal, ok := err.(*oauth2.RetrieveError)
				require.True(t, ok, "a *oauth2.RetrieveError, and bare: it is %T", err)
				require.Equal(t, status, refusal.Response.StatusCode)
				require.Len(t, refusal.Body, maxErrorBody)
				require.Less(t, len(err.Error()), maxErrorBody+maxErrorText)
			})
		}
	}
}

func TestL4_RuneBoundary(t *testing.T) {
	for shift := range 4 {
		page := strings.Repeat("x", shift) + strings.Repeat("\U0001f511", maxErrorBody)
		_, err := tokenOf(t, reply{status: 400, mediaType: "text/html", body: page}, false)
		body := err.(*oauth2.RetrieveError).Body
		require.True(t, utf8.Valid(body))
		require.LessOrEqual(t, len(body), maxErrorBody)
		require.Greater(t, len(body), maxErrorBody-utf8.UTFMax)
		require.True(t, strings.HasPrefix(page, string(body)))
	}
}

func TestL4_LargeMembers(t *testing.T) {
	object, err := json.Marshal(map[string]string{
		"error":             "x" + strings.Repeat("\u00e9", 100_000),
		"error_description": strings.Repeat("\u00e9", 100_000),
		"error_uri":         strings.Repeat("\u00e9", 100_000),
	})
	require.NoError(t, err)
	_, err = tokenOf(t, reply{status: 400, body: string(object)}, false)
	refusal := err.(*oauth2.RetrieveError)
	for _, text := range []string{refusal.ErrorCode, refusal.ErrorDescription, refusal.ErrorURI} {
		require.True(t, utf8.ValidString(text))
		require.InDelta(t, maxErrorText, len(text), 1)
	}
	require.Less(t, len(err.Error()), 4*maxErrorText)
}

// hostileText rewrites terminals and log lines.
const hostileText = "a\x00b\x07c\x08d\x1b[2J\x1b]0;title\x07e\rf\x7fg\u0085h\u009bi\u202ej\u2066k\u200bl\ufeffm\u00adn\xffo"

func requireHarmless(t *testing.T, text string) {
	t.Helper()
	require.True(t, utf8.ValidString(text))
	for _, r := range text {
		if r != '\n' && r != '\t' {
			require.False(t, unicode.IsControl(r) || unicode.Is(unicode.Cf, r), "%U in %q", r, text)
		}
	}
}

func TestL4_ControlCharacters(t *testing.T) {
	_, err := tokenOf(t, reply{status: 500, mediaType: "text/html", body: hostileText + "\r\nfake\n\tkept"}, false)
	refusal := err.(*oauth2.RetrieveError)
	requireHarmless(t, err.Error())
	requireHarmless(t, string(refusal.Body))
	require.Contains(t, string(refusal.Body), "o\nfake\n\tkept")
	require.Contains(t, string(refusal.Body), "a\ufffdb\ufffdc")

	// What takes their place is longer.
	_, err = tokenOf(t, reply{status: 500, mediaType: "text/html", body: strings.Repeat("\x1b", maxErrorBody)}, false)
	require.LessOrEqual(t, len(err.(*oauth2.RetrieveError).Body), maxErrorBody)

	// In the members the text stays as the server sent it: an Error() quotes them.
	object, err := json.Marshal(map[string]string{"error": "e" + hostileText, "error_description": hostileText, "error_uri": hostileText})
	require.NoError(t, err)
	_, err = tokenOf(t, reply{status: 400, body: string(object)}, false)
	requireHarmless(t, err.Error())
	require.NotContains(t, err.Error(), "\n")

	// A status text gets through net/http with much in it.
	conf := serveRaw(t, "HTTP/1.1 500 "+strings.ReplaceAll(hostileText, "\x00", "")+strings.Repeat("x", 10_000)+"\r\nContent-Length: 0\r\n\r\n")
	_, err = conf.Token(t.Context())
	require.IsType(t, (*oauth2.RetrieveError)(nil), err)
	requireHarmless(t, err.Error())
	require.Less(t, len(err.Error()), 2*maxErrorText)
}

// A server that doesn't speak HTTP, or tries to look as if, is quoted by net/http.
func TestL4_ControlCharactersInNetworkErrors(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":       hostileText + "\r\n\r\n",
		"bad header":    "HTTP/1.1 401 Unauthorized\r\n" + hostileText + "\r\n\r\n",
		"bad Location":  "HTTP/1.1 302 Found\r\nLocation: https://[" + strings.ReplaceAll(hostileText, "\x00", "") + "\r\nContent-Length: 0\r\n\r\n",
		"long":          strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"long header":   "HTTP/1.1 401 Unauthorized\r\n" + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"long Location": "HTTP/1.1 302 Found\r\nLocation: https://[" + strings.Repeat("x", 1<<20) + "\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := serveRaw(t, answer).Token(t.Context())
			require.Error(t, err)
			requireHarmless(t, err.Error())
			require.Less(t, len(err.Error()), maxErrorBody)
		})
	}
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
	} {
		require.Equal(t, test.want, redact.Clip(test.in, test.limit), "%q %d", test.in, test.limit)
	}
}

// lowerEscapes returns s with the digits of its %XX in lower case.
func lowerEscapes(s string) string {
	return regexp.MustCompile("%..").ReplaceAllStringFunc(s, strings.ToLower)
}

func TestL5_FieldsAreNamedNotQuoted(t *testing.T) {
	const canary = "FieldCanary-0123456789"
	for _, test := range []struct{ mediaType, body, names string }{
		{jsonType, `{"access_token":["` + canary + `"]}`, "access_token"},
		{jsonType, `{"access_token":{"` + canary + `":"` + canary + `"}}`, "access_token"},
		{jsonType, `{"access_token":"` + canary + `\r\n"}`, "access_token"},
		{jsonType, `{"access_token":"` + canary + `","access_token":"` + canary + `"}`, "access_token"},
		{jsonType, `{"access_token":"` + canary + `","token_type":"` + canary + ` x"}`, "token_type"},
		{jsonType, `{"access_token":"` + canary + `","token_type":["` + canary + `"]}`, "token_type"},
		{jsonType, `{"access_token":"` + canary + `","expires_in":"` + canary + `"}`, "expires_in"},
		{jsonType, `{"access_token":"` + canary + `","refresh_token":{"x":"` + canary + `"}}`, "refresh_token"},
		{jsonType, `{"access_token":"` + canary + `"`, "syntax error at byte"},
		{jsonType, `{"access_token":` + canary + `}`, "syntax error at byte"},
		{jsonType, canary, "syntax error at byte"},
		{jsonType, `"` + canary + `"`, "not an object"},
		{jsonType, `["` + canary + `"]`, "not an object"},
		{jsonType, `{"` + canary + `":1}`, "missing access_token"},
		{formType, `access_token=` + canary + `&expires_in=` + canary, "expires_in"},
		{formType, `access_token=` + canary + `&access_token=` + canary, "access_token"},
		{formType, `access_token=` + canary + `%0d%0a`, "access_token"},
		{formType, `access_token=` + canary + `%zz`, "not form-encoded"},
		{formType, canary + `=1`, "missing access_token"},
		{"text/html", "<p>" + canary, "HTML"},
		{"text/plain", canary, "missing access_token"},
	} {
		t.Run(test.body, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				_, err := tokenOf(t, reply{mediaType: test.mediaType, body: test.body}, strict)
				require.IsType(t, (*ResponseError)(nil), err)
				require.ErrorContains(t, err, test.names)
				text := surfaces(err)
				for i := 0; i+8 <= len(canary); i++ {
					require.NotContains(t, text, canary[i:i+8])
				}
			})
		})
	}
}

func TestResponseError(t *testing.T) {
	cause := errors.New("a\nb")
	err := &ResponseError{StatusCode: 200, MediaType: "text/html", Size: 7, Err: cause, prefix: "oauth2: x"}
	require.EqualError(t, err, "oauth2: x: a; b (status 200, text/html, 7 bytes)")
	require.ErrorIs(t, err, cause)
	require.EqualError(t, &ResponseError{StatusCode: 204, prefix: "oauth2: x"}, "oauth2: x (status 204, no media type, 0 bytes)")
	require.NoError(t, errors.Unwrap(&ResponseError{}))
	require.NotEmpty(t, (&ResponseError{}).Error())
}

func TestL6_BodyCut(t *testing.T) {
	const body = `{"access_token":"BodyCanary"`
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := io.WriteString(w, body)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for name, answer := range map[string]string{
		"Content-Length": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n" + body,
		"chunked":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\n" + body,
		"between chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n" + body + "\r\n",
		"gzip":           "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + zipped.String()[:zipped.Len()-6],
		"refusal":        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 60\r\n\r\n" + body,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := serveRaw(t, answer).Token(t.Context())
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.ErrorContains(t, err, "oauth2: cannot fetch token: ")
			text := surfaces(err)
			require.NotContains(t, text, "BodyCanary")
			requireMasked(t, text, memorySecret)
		})
	}
	cause := errors.New("boom")
	_, err = tokenOf(t, reply{body: body, bodyErr: cause}, false)
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

	// A RoundTripper that leaves out what it can.
	conf := newTokenEndpoint(reply{}).config()
	conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401}, nil
	})}
	_, err := conf.Token(t.Context())
	require.IsType(t, (*oauth2.RetrieveError)(nil), err)
	require.NotEmpty(t, surfaces(err))
	require.NotNil(t, err.(*oauth2.RetrieveError).Response.Body)
}

func TestRedirectErrors(t *testing.T) {
	for location, target := range map[string]string{
		"https://other.example/path?x=y": "https://other.example:443",
		"/elsewhere":                     "https://auth.example:443",
		"http://u:p@[::1]:8080/x":        "http://[::1]:8080",
	} {
		endpoint := newTokenEndpoint(reply{status: 307, header: http.Header{"Location": {location}}})
		_, err := endpoint.config().Token(t.Context())
		require.EqualError(t, err, "oauth2: cannot fetch token: the token endpoint answered 307, a redirect to "+target+
			", which is not followed; set TokenURL to the endpoint's final address: "+
			"oauth2: cannot fetch token: 307 Temporary Redirect\nResponse: ")
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
		require.Len(t, endpoint.received(), 1)
	}

	// net/http itself refuses these.
	for _, location := range []string{"https://[other.example", "https://other.example:port/", "%zz"} {
		endpoint := newTokenEndpoint(reply{status: 307, header: http.Header{"Location": {location}}})
		_, err := endpoint.config().Token(t.Context())
		require.Error(t, err)
		require.Len(t, endpoint.received(), 1)
	}
}

func TestL2_PrintedConfigAndSource(t *testing.T) {
	conf := Config{
		ClientID:       "the-id",
		ClientSecret:   memorySecret,
		TokenURL:       "https://auth.example/token?key=" + memorySecret,
		Scopes:         []string{"read"},
		EndpointParams: url.Values{"client_assertion": {memorySecret}},
	}
	endpoint := newTokenEndpoint(reply{body: `{"access_token":"` + memorySecret + `"}`})
	source := endpoint.config().Source(t.Context())
	token, err := source.Token()
	require.NoError(t, err)
	source.Invalidate(token)

	var out strings.Builder
	for _, v := range []any{conf, &conf, source, conf.Client(t.Context()), conf.Transport(t.Context()), source.Status()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
			fmt.Fprintf(&out, verb+"\n", []any{struct{ V any }{v}})
		}
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("message", "v", v)
		}
	}
	out.WriteString(conf.GoString() + source.String())
	requireMasked(t, out.String(), memorySecret)
	require.Contains(t, conf.String(), `ClientID: "the-id", TokenURL: "https://auth.example/token", Scopes: ["read"]`)
	require.Contains(t, (&Config{TokenURL: "https://user:" + memorySecret + "@auth.example"}).String(), `TokenURL: "unusable"`)
	require.Equal(t, "clientcredentials.Source(expired)", source.String())
	require.Equal(t, "<nil>", fmt.Sprintf("%+v", (*Config)(nil)))
}

func TestL1b_SecretOfAbsurdLength(t *testing.T) {
	conf := newTokenEndpoint(reply{status: 400, mediaType: "text/html", body: "anything"}).config()
	conf.ClientSecret = strings.Repeat("~", 200_000)
	_, err := conf.Token(t.Context())
	require.ErrorContains(t, err, "Response: [redacted]")
}

// TestMaskingSparesWhatIsRead: by programs, and by this package.
func TestMaskingSparesWhatIsRead(t *testing.T) {
	conf := newTokenEndpoint(reply{
		status: 429,
		header: http.Header{"Retry-After": {"120"}, "Date": {"Fri, 02 Jan 2026 03:04:05 GMT"}, "X-Echo": {"client 120"}},
		body:   `{"error":"invalid_client"}`,
	}).config()
	conf.ClientSecret = "client"
	conf.EndpointParams = url.Values{"api_key": {"120"}, "password": {"Jan"}, "country_code": {"in"}, "key_version": {"v"}}
	_, err := conf.Token(t.Context())
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "invalid_client", refusal.ErrorCode)
	require.Equal(t, "[redacted] [redacted]", refusal.Response.Header.Get("X-Echo"))
	require.Equal(t, 2*time.Minute, retryAfter(err, time.Now()))
	require.Equal(t, "Fri, 02 Jan 2026 03:04:05 GMT", refusal.Response.Header.Get("Date"))
}

func TestL3_QueryInNestedNetworkErrors(t *testing.T) {
	conf := newTokenEndpoint(reply{err: &url.Error{Op: "Post", URL: "https://proxy.example/?key=NestedCanary", Err: errors.New("boom")}}).config()
	_, err := conf.Token(t.Context())
	require.EqualError(t, err, `Post "https://auth.example/token": Post "https://proxy.example/": boom`)
}

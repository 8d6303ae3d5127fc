package clientcredentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"html"
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

// TestL1b_Echo has a server repeat the secret in several forms and in every place.
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
			return reply{status: 401, header: http.Header{"X-Echo": {"1", "got " + echoed}, "Www-Authenticate": {`Basic realm="` + echoed + `"`}}}
		},
	}
	for _, secret := range []string{plainSecret, oddSecret} {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			for place, answer := range places {
				for _, echo := range echoes {
					t.Run(fmt.Sprintf("%q/style %d/%s/%s", secret, style, place, echo.name), func(t *testing.T) {
						refusal := refusalFor(t, answer(echo.encode(secret)), func(conf *Config) { conf.ClientSecret, conf.AuthStyle = secret, style })
						text := surfaces(refusal)
						requireMasked(t, text, secret)
						require.Contains(t, text, redact.Redacted)
					})
				}
			}
		}
	}
}

// TestL1b_Members has a server repeat the secret in the members of an error response.
func TestL1b_Members(t *testing.T) {
	for _, secret := range []string{plainSecret, oddSecret} {
		for _, echo := range echoes {
			echoed := echo.encode(secret)
			object := `{"error":"bad ECHO","error_description":"Basic ECHO is wrong","error_uri":"https://auth.example/?x=ECHO"}`
			object = strings.ReplaceAll(object, "ECHO", jsonEscape(echoed, true))
			form := url.Values{"error": {"bad " + echoed}, "error_description": {echoed}, "error_uri": {echoed}}.Encode()
			for _, a := range []reply{{status: 400, body: object}, {status: 200, body: object}, {status: 400, mediaType: formType, body: form}} {
				refusal := refusalFor(t, a, withSecret(secret))
				require.Equal(t, "bad "+redact.Redacted, refusal.ErrorCode, echo.name)
				for _, text := range []string{refusal.ErrorDescription, refusal.ErrorURI, refusal.Error()} {
					require.Contains(t, text, redact.Redacted, echo.name)
					requireMasked(t, text, secret)
				}
			}
		}
	}
}

// Credentials in EndpointParams are masked like the client secret.
func TestL1b_Parameters(t *testing.T) {
	for _, name := range []string{
		"client_assertion", "assertion", "password", "client_secret", "subject_token", "actor_token", "refresh_token",
		"code", "api_key", "apikey", "apiKey", "API_KEY", "Password",
	} {
		for _, value := range []string{plainSecret, oddSecret} {
			for _, echo := range echoes[:5] { // The rest are of a client secret.
				refusal := refusalFor(t, reply{status: 400, mediaType: "text/html", body: "<p>" + echo.encode(value)}, withSecret(""), func(conf *Config) {
					conf.EndpointParams = url.Values{name: {"other", value}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
				})
				require.Empty(t, hostile.Find(refusal.Error(), value), "%s, %s", name, echo.name)
			}
		}
	}
}

func TestL1b_WhatIsMasked(t *testing.T) {
	const (
		page  = "grant_type=client_credentials&client_id=id&audience=api&client_assertion_type=urn:x"
		token = "T0kenCanary"
	)
	for _, test := range []struct {
		name, secret string
		params       url.Values
		body, want   string
	}{
		{"other parameters", memorySecret, url.Values{"audience": {"api"}, "client_assertion_type": {"urn:x"}, "password": {""}}, page, page},
		{"no secrets", "", nil, page, page},
		{"one secret begins another", "secret", url.Values{"password": {"secret-long-Canary"}, "code": {"secret-long"}}, "got secret-long-Canary", "got [redacted]"},
		{"binary", "S3cr/t\xffCan\xfe\x80ary", nil, "<p>S3cr/t\xffCan\xfe\x80ary S3cr%2ft%ffCan%fe%80ary</p>", "<p>[redacted] [redacted]</p>"},
		{"token", memorySecret, nil, "access_token=" + token + "&sent=" + token, "access_token=[redacted]&sent=[redacted]"},
		{"token in the secret", "left-" + token + "-right", nil, "access_token=" + token + "&sent=left-" + token + "-right&sent=" + token, "access_token=[redacted]&sent=[redacted]&sent=[redacted]"},
		{"secret in the token", "T0ken", nil, "access_token=" + token + "&sent=T0ken", "access_token=[redacted]&sent=[redacted]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			refusal := refusalFor(t, reply{status: 400, mediaType: formType, body: test.body, header: http.Header{"X-Request-Id": {"42"}}},
				func(conf *Config) { conf.ClientSecret, conf.EndpointParams = test.secret, test.params })
			require.EqualError(t, refusal, "oauth2: cannot fetch token: 400 Bad Request\nResponse: "+test.want)
			require.Equal(t, "42", refusal.Response.Header.Get("X-Request-Id"))
		})
	}
}

func TestL1b_SecretOfAbsurdLength(t *testing.T) {
	refusal := refusalFor(t, reply{status: 400, body: "anything"}, withSecret(strings.Repeat("~", 200_000)))
	require.ErrorContains(t, refusal, "Response: [redacted]")
}

// A secret or a token that begins before the limit is masked, wherever it ends.
func TestL1b_AtTheLimit(t *testing.T) {
	secret, token := "Canary"+strings.Repeat(`"<`, 50), "Canary"+strings.Repeat("T0ken", 2000)
	for before := range 120 {
		filler := strings.Repeat("x", maxErrorBody-before)
		for _, a := range []reply{
			{status: 400, mediaType: "text/html", body: filler + html.EscapeString(secret)},
			{status: 400, mediaType: formType, body: "x=" + filler + "&access_token=" + token},
		} {
			refusal := refusalFor(t, a, withSecret(secret))
			require.NotContains(t, refusal.Error(), "Canary", before)
			require.LessOrEqual(t, len(refusal.Body), maxErrorBody)
		}
	}
}

// TestL1b_MaskingIsCheap measures nothing: if the cost grew with the text that almost
// repeats a secret, the time limit of the tests would end it.
func TestL1b_MaskingIsCheap(t *testing.T) {
	almost := strings.Repeat("~", 1<<20)
	for _, a := range []reply{
		{status: 400, mediaType: "text/html", body: almost},
		{status: 400, header: http.Header{"X-Echo": {almost}}},
		{status: 400, body: `{"access_token":"` + almost[:6_000] + `b","x":"` + almost[:10_000] + `"}`},
	} {
		require.Error(t, refusalFor(t, a, withSecret(almost[:100]+"b")))
	}
}

// Tokens in an error response are masked too.
func TestL1b_Tokens(t *testing.T) {
	for _, a := range []reply{
		{status: 503, body: `{"access_token":"T0kenCanary+/","refresh_token":"R3freshCanary+/"}`},
		{body: `{"error":"x","error_description":"T0kenCanary+/ R3freshCanary%2B%2F","access_token":"T0kenCanary+/","refresh_token":"R3freshCanary+/"}`},
		{status: 400, mediaType: formType, body: `access_token=T0kenCanary%2B%2F&refresh_token=R3freshCanary%2b%2f`},
	} {
		text := surfaces(refusalFor(t, a))
		require.NotContains(t, text, "T0kenCanary")
		require.NotContains(t, text, "R3freshCanary")
	}
}

// TestL1b_EchoOnTheWire has answers that an http.Handler can't write.
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

// The copy has no credentials, and the request itself, which the transport holds, doesn't change.
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

// net/http quotes the token URL in its errors.
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
	require.Len(t, endpoint.received(), 1)
}

func TestL4_LargePage(t *testing.T) {
	for _, status := range []int{400, 401, 403, 500, 503} {
		for _, size := range []int{maxErrorBody, maxErrorBody + 1, 900_000, maxResponseBody, maxResponseBody + 1, 3 << 20} {
			refusal := refusalFor(t, reply{status: status, mediaType: "text/html", body: strings.Repeat("x", size)})
			require.Equal(t, status, refusal.Response.StatusCode)
			require.Len(t, refusal.Body, maxErrorBody)
			require.Less(t, len(refusal.Error()), maxErrorBody+maxErrorText)
		}
	}
}

func TestL4_RuneBoundary(t *testing.T) {
	for shift := range 4 {
		page := strings.Repeat("x", shift) + strings.Repeat("\U0001f511", maxErrorBody)
		body := refusalFor(t, reply{status: 400, mediaType: "text/html", body: page}).Body
		require.Equal(t, page[:maxErrorBody-(4-shift)%4], string(body))
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

// net/http quotes the answer of a server that doesn't speak HTTP correctly.
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

// TestL5_FieldsAreNamedNotQuoted has one case for each rule that an answer can break.
func TestL5_FieldsAreNamedNotQuoted(t *testing.T) {
	const (
		missing  = "oauth2: server response missing access_token"
		badToken = "access_token contains a character that a token cannot have"
	)
	for _, test := range []struct{ mediaType, body, want string }{
		{jsonType, `{"access_token":["CANARY"]}`, "json: access_token is not a string"},
		{jsonType, `{"access_token":{"CANARY":"CANARY"}}`, "json: access_token is not a string"},
		{jsonType, `{"access_token":"CANARY\r\n"}`, "json: " + badToken},
		{jsonType, "{\"access_token\":\"CANARY\xff\"}", "json: " + badToken},
		{jsonType, `{"access_token":"CANARY","access_token":"CANARY"}`, "json: access_token appears more than once"},
		{jsonType, `{"access_token":"CANARY","token_type":"CANARY x"}`, "json: token_type is not an authentication scheme's name"},
		{jsonType, `{"access_token":"CANARY","token_type":["CANARY"]}`, "json: token_type is not a string"},
		{jsonType, `{"access_token":"CANARY","token_type":"DPoP"}`, "json: token_type is DPoP: the server binds tokens to a key that this client doesn't have; set Config.DPoP"},
		{jsonType, `{"access_token":"CANARY","expires_in":"CANARY"}`, "json: expires_in is not a number"},
		{jsonType, `{"access_token":"CANARY","refresh_token":{"x":"CANARY"}}`, "json: refresh_token is not a string"},
		{jsonType, `{"access_token":5,"token_type":{},"expires_in":"CANARY"}`, "json: access_token is not a string; token_type is not a string; expires_in is not a number"},
		{jsonType, `{"access_token":"CANARY"`, "json: syntax error at byte 40"},
		{jsonType, `{"access_token":CANARY}`, "json: syntax error at byte 17"},
		{jsonType, `CANARY`, "json: syntax error at byte 1"},
		{jsonType, `"CANARY"`, "json: the body is not an object"},
		{jsonType, `["CANARY"]`, "json: the body is not an object"},
		{jsonType, `{"CANARY":1}`, missing},
		{formType, `access_token=CANARY&expires_in=CANARY`, "response: expires_in is not a number"},
		{formType, `access_token=CANARY&access_token=CANARY`, "response: access_token appears more than once"},
		{formType, `access_token=CANARY%0d%0a`, "response: " + badToken},
		{formType, `access_token=CANARY%zz`, "response: the body is not form-encoded"},
		{formType, `CANARY=1`, missing},
		{"text/html", `<p>CANARY`, "json: the body looks like HTML or XML; check that TokenURL is the token endpoint"},
		{"text/plain", `CANARY`, missing},
	} {
		t.Run(test.body, func(t *testing.T) {
			modes(t, func(t *testing.T, strict bool) {
				const canary = "FieldCanary-0123456789"
				a := reply{mediaType: test.mediaType, body: strings.ReplaceAll(test.body, "CANARY", canary)}
				_, err := tokenOf(t, a, strict)
				if test.want != missing {
					requireFault(t, err, a, "oauth2: cannot parse "+test.want)
				} else {
					requireFault(t, err, a, missing)
				}
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
	zipped := gzipped(body)
	for name, answer := range map[string]string{
		"Content-Length": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n" + body,
		"chunked":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\n" + body,
		"between chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n" + body + "\r\n",
		"gzip":           "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + zipped[:len(zipped)-6],
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

	// A RoundTripper may leave out almost everything.
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

		// net/http itself refuses these.
		"https://[other.example": "", "https://other.example:port/": "", "%zz": "",
	} {
		endpoint := newTokenEndpoint(reply{status: 307, header: http.Header{"Location": {location}}})
		_, err := endpoint.config().Token(t.Context())
		require.Error(t, err)
		require.Len(t, endpoint.received(), 1)
		if target != "" {
			require.EqualError(t, err, "oauth2: cannot fetch token: the token endpoint answered 307, a redirect to "+target+
				", which is not followed; set TokenURL to the endpoint's final address: "+
				"oauth2: cannot fetch token: 307 Temporary Redirect\nResponse: ")
			require.ErrorAs(t, err, new(*oauth2.RetrieveError))
		}
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

	p := newPrinter()
	for _, v := range []any{conf, &conf, source, conf.Client(t.Context()), conf.Transport(t.Context()), source.Status()} {
		p.print(v)
		p.log(v)
		p.callMethods(v)
	}
	requireMasked(t, p.out.String(), memorySecret)
	require.Contains(t, conf.String(), `ClientID: "the-id", TokenURL: "https://auth.example/token", Scopes: ["read"]`)
	require.Contains(t, (&Config{TokenURL: "https://user:" + memorySecret + "@auth.example"}).String(), `TokenURL: "unusable"`)
	require.Equal(t, "clientcredentials.Source(expired)", source.String())
	require.Equal(t, "<nil>", fmt.Sprintf("%+v", (*Config)(nil)))
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

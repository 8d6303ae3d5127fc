package clientcredentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/event"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
	"github.com/seed-5bfa0880/clientcredentials/tokenstore"
)

// repeatingAll answers each request with all that is in it, with its header values as in forms, and
// with their words in base64.
func repeatingAll(req *http.Request) *http.Response {
	dump := hostile.Dump(req)
	var words strings.Builder
	for _, values := range req.Header {
		for _, value := range values {
			fmt.Fprintln(&words, url.QueryEscape(value))
		}
		for _, value := range strings.FieldsFunc(strings.Join(values, " "), func(r rune) bool { return strings.ContainsRune(` ,;="`, r) }) {
			fmt.Fprintf(&words, "%s %s %s\n", url.QueryEscape(value), base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value)))
		}
	}
	return reply{status: 401, mediaType: "text/plain", body: req.URL.RawQuery + "\n" + dump + words.String()}.response(req)
}

// adding is a RoundTripper that changes a copy of the request and has it echoed.
func adding(change func(req *http.Request)) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		clone := req.Clone(req.Context())
		change(clone)
		return repeatingAll(clone), nil
	}
}

// TestL7_WhatAuthenticationAdds is kept out of the error: the field of the request, and the
// server's echo of it.
func TestL7_WhatAuthenticationAdds(t *testing.T) {
	const secret = "Gateway-S3cret/Canary+1"
	header := func(name, value string) func(http.Header) {
		return func(h http.Header) { h.Set(name, value) }
	}
	for name, set := range map[string]func(http.Header){
		"subscription key":      header("Ocp-Apim-Subscription-Key", secret),
		"Proxy-Authorization":   header("Proxy-Authorization", "Bearer "+secret),
		"proxy's Basic":         header("Proxy-Authorization", "Basic "+redact.BasicCredentials("proxy", secret)),
		"Basic":                 header("Authorization", "Basic "+redact.BasicCredentials("id", url.QueryEscape(secret))),
		"Authorization":         header("Authorization", "Custom "+secret),
		"without scheme":        header("Authorization", secret),
		"API key":               header("X-Api-Key", secret),
		"a name that says less": header("X-Gateway", secret),
		"a scheme of its own":   header("X-Auth", "ApiKey "+secret),
		"cookie":                header("Cookie", "other=1; session="+secret),
		"signature":             header("X-Signature", `keyId="k", signature="`+secret+`"`),
		"AWS":                   header("Authorization", "AWS4-HMAC-SHA256 Credential=id, SignedHeaders=host, Signature="+secret),
		"two values": func(h http.Header) {
			h.Add("X-Token", "other")
			h.Add("X-Token", secret)
		},
		"user agent": header("User-Agent", "service "+secret+" "+secret), // It is public, but the secret is known from elsewhere.
	} {
		configs := map[string]func(c *Config){
			"ClientAuth": func(c *Config) {
				c.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
					set(attempt.Header)
					return nil
				})
				c.HTTPClient = &http.Client{Transport: adding(func(*http.Request) {})}
			},
			"RoundTripper": func(c *Config) {
				c.HTTPClient = &http.Client{Transport: adding(func(req *http.Request) { set(req.Header) })}
			},
		}
		for by, configure := range configs {
			t.Run(name+"/"+by, func(t *testing.T) {
				conf := newTokenEndpoint(reply{}).config()
				if name == "user agent" {
					conf.EndpointParams = url.Values{"password": {secret}}
				}
				configure(conf)
				_, err := conf.Token(t.Context())
				var refusal *oauth2.RetrieveError
				require.ErrorAs(t, err, &refusal)
				text := surfaces(err)
				requireMasked(t, text, secret)
				requireMasked(t, text, strings.ReplaceAll(secret, "+", " "))
				require.NotContains(t, text, base64.RawURLEncoding.EncodeToString([]byte(secret)))
				require.Contains(t, text, redact.Redacted)
				for name := range refusal.Response.Request.Header {
					require.Contains(t, []string{"Content-Type", "User-Agent"}, name)
				}
				require.Equal(t, formType, refusal.Response.Request.Header.Get("Content-Type"))
			})
		}
	}
}

// The same for what isn't in the header.
func TestL7_ParametersOfAuthentication(t *testing.T) {
	const secret = "Parameter-S3cret/Canary+1"
	for name, configure := range map[string]func(c *Config){
		"a parameter with an odd name": func(c *Config) {
			c.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
				attempt.Form.Set("proprietary", secret)
				return nil
			})
		},
		"another value of a parameter": func(c *Config) {
			c.EndpointParams = url.Values{"audience": {"api"}}
			c.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
				attempt.Form.Add("audience", secret)
				return nil
			})
		},
		"a parameter with two values": func(c *Config) {
			c.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
				attempt.Form["x"] = []string{"other", secret}
				return nil
			})
		},
		"query by a RoundTripper": func(c *Config) {
			c.HTTPClient = &http.Client{Transport: adding(func(req *http.Request) { req.URL.RawQuery = url.Values{"id": {secret}}.Encode() })}
		},
		"user of the address by a RoundTripper": func(c *Config) {
			c.HTTPClient = &http.Client{Transport: adding(func(req *http.Request) {
				req.URL.User = url.UserPassword("u", secret)
				req.URL.RawQuery = req.URL.User.String()
			})}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conf := newTokenEndpoint(reply{}).config()
			conf.HTTPClient = &http.Client{Transport: adding(func(*http.Request) {})}
			configure(conf)
			_, err := conf.Token(t.Context())
			require.IsType(t, (*oauth2.RetrieveError)(nil), err)
			requireMasked(t, surfaces(err), secret)
			require.ErrorContains(t, err, redact.Redacted)
		})
	}

	conf := newTokenEndpoint(reply{}).config()
	conf.HTTPClient = &http.Client{Transport: adding(func(*http.Request) {})}
	conf.EndpointParams = url.Values{"audience": {"https://api.example"}}
	conf.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
		attempt.Form.Set("client_id", attempt.ClientID)
		attempt.Form.Set("client_assertion_type", "urn:type")
		attempt.Form.Set("client_assertion", "AssertionCanary")
		return nil
	})
	_, err := conf.Token(t.Context())
	require.ErrorContains(t, err, "audience=https%3A%2F%2Fapi.example&client_assertion=[redacted]&client_assertion_type=urn%3Atype&client_id=id&grant_type=client_credentials")
}

// What a program may want to know about the request stays.
func TestL7_PublicFieldsStay(t *testing.T) {
	public := http.Header{
		"Accept": {"application/json"}, "Content-Type": {formType}, "User-Agent": {"service/1.0"},
		"Traceparent": {"00-1-2-03"}, "X-Request-Id": {"42"}, "Accept-Language": {"de", "en"},
	}
	conf := newTokenEndpoint(reply{}).config()
	conf.HTTPClient = &http.Client{Transport: adding(func(req *http.Request) {
		req.Header = public.Clone()
		req.Header.Set("X-Key", "S3cretCanary")
	})}
	_, err := conf.Token(t.Context())
	var refusal *oauth2.RetrieveError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, public, refusal.Response.Request.Header)
	require.Contains(t, string(refusal.Body), "service/1.0")
}

// TestL8_Parameters: what is masked, and what keeps a token out of a store.
func TestL8_Parameters(t *testing.T) {
	for name, test := range map[string]struct{ masked, refused bool }{
		"passwd": {true, true}, "pwd": {true, true}, "pin": {true, true}, "otp": {true, true}, "jwt": {true, true}, "sig": {true, true},
		"code_verifier": {true, true}, "userPasscode": {true, true}, "subscription-key": {true, true}, "ApiKey": {true, true},
		"partition_key": {true, false},
		"token_type":    {false, false}, "requested_token_type": {false, false}, "token_format": {false, false}, "token_lifetime": {false, false},
		"requested_token_use": {false, false}, "key_id": {false, false}, "kid": {false, false}, "audience": {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			conf := newTokenEndpoint(reply{status: 400, mediaType: "text/plain", body: "you sent ParameterCanary"}).config()
			conf.EndpointParams = url.Values{name: {"ParameterCanary"}}
			_, err := conf.Token(t.Context())
			require.Equal(t, test.masked, !strings.Contains(surfaces(err), "ParameterCanary"))
			conf.Store = DangerouslyShareInPlaintext(functionStore{})
			_, _, err = conf.check()
			if !test.refused {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, "oauth2: EndpointParams contains "+name+", which looks like a credential: such tokens can't be shared; remove Store")
		})
	}
}

// ordinaryWords are bad secrets: they are in texts that have nothing to do with them.
var ordinaryWords = []string{"x", "s", "0", "-", "tcp", "dial", "EOF", "tls", "test", "oauth2", "cannot", "client", "token", "attempt", "context", "deadline", "certificate", "connection", "unknown", "authority", "refused", "response", "transport", "HTTP", "https", "Unauthorized", "400"}

// TestL9_OurOwnTexts: a secret that is an ordinary word changes no text that the server hasn't
// sent, no kind of an error, and not whether it is temporary.
func TestL9_OurOwnTexts(t *testing.T) {
	refusedDial := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	unknown := &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	cause := errors.New("the client has no more connection to the test")
	for name, test := range map[string]struct {
		err   error
		check func(t *testing.T, err error)
	}{
		"dial": {refusedDial, func(t *testing.T, err error) {
			var operation *net.OpError
			require.ErrorAs(t, err, &operation)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}},
		"name": {&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "test.client", IsNotFound: true}}, func(t *testing.T, err error) {
			var dns *net.DNSError
			require.ErrorAs(t, err, &dns)
			require.True(t, dns.IsNotFound)
		}},
		"constant of net": {&net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection refused by test")}, func(t *testing.T, err error) {
			var operation *net.OpError
			require.ErrorAs(t, err, &operation)
		}},
		"wrapped dial": {fmt.Errorf("%w", refusedDial), func(t *testing.T, err error) {
			var operation *net.OpError
			require.ErrorAs(t, err, &operation)
		}},
		"certificate": {unknown, func(t *testing.T, err error) {
			var certificate *tls.CertificateVerificationError
			require.ErrorAs(t, err, &certificate)
			var authority x509.UnknownAuthorityError
			require.ErrorAs(t, err, &authority)
		}},
		"alert":         {&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, func(*testing.T, error) {}},
		"text of tls":   {errors.New("tls: client certificate unknown"), func(*testing.T, error) {}},
		"not TLS":       {tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake from a client"}, func(*testing.T, error) {}},
		"EOF":           {io.ErrUnexpectedEOF, func(t *testing.T, err error) { require.ErrorIs(t, err, io.ErrUnexpectedEOF) }},
		"deadline":      {context.DeadlineExceeded, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		"I/O deadline":  {&net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}, func(t *testing.T, err error) { require.ErrorIs(t, err, os.ErrDeadlineExceeded) }},
		"canceled":      {context.Canceled, func(t *testing.T, err error) { require.ErrorIs(t, err, context.Canceled) }},
		"scheme":        {http.ErrSchemeMismatch, func(t *testing.T, err error) { require.ErrorIs(t, err, http.ErrSchemeMismatch) }},
		"of the caller": {cause, func(t *testing.T, err error) { require.ErrorIs(t, err, cause) }},
	} {
		for place, answer := range map[string]reply{"sending": {err: test.err}, "reading": {bodyErr: test.err}} {
			t.Run(name+"/"+place, func(t *testing.T) {
				request := func(secret string) error {
					conf := newTokenEndpoint(answer).config()
					conf.ClientSecret = secret
					ctx := t.Context()
					if test.err == cause { //nolint:errorlint // It's one of the cases above.
						canceled, cancel := context.WithCancelCause(ctx)
						defer cancel(nil)
						conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
							cancel(cause)
							return nil, cause
						})}
						ctx = canceled
					}
					_, err := conf.Token(ctx)
					return err
				}
				want := request("S3cretCanary")
				for _, secret := range ordinaryWords {
					err := request(secret)
					require.EqualError(t, err, want.Error(), secret)
					require.Equal(t, IsTemporary(want), IsTemporary(err), secret)
					var network, wanted net.Error
					require.Equal(t, errors.As(want, &wanted), errors.As(err, &network), secret)
					require.Equal(t, wanted != nil && wanted.Timeout(), network != nil && network.Timeout(), secret)
					test.check(t, err)
				}
			})
		}
	}
}

// TestL9_OnTheNetwork is the same with the errors that a network really has.
func TestL9_OnTheNetwork(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	closing := hostile.Start(t, hostile.Raw(func(*http.Request) string { return "" }))
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
	}))
	defer slow.Close()
	for name, test := range map[string]struct {
		address string
		retry   RetryPolicy
		client  *http.Client
	}{
		"refused":             {address: "http://127.0.0.1:1/token"},
		"unknown authority":   {address: secure.URL},
		"no TLS":              {address: strings.Replace(plain.URL, "http:", "https:", 1)},
		"closed":              {address: closing.URL},
		"an attempt is slow":  {address: slow.URL, retry: RetryPolicy{AttemptTimeout: time.Millisecond}},
		"all attempts are":    {address: slow.URL, retry: RetryPolicy{TotalTimeout: time.Millisecond}},
		"the client gives up": {address: slow.URL, client: &http.Client{Timeout: time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			request := func(secret string) (string, bool) {
				conf := &Config{ClientID: "id", ClientSecret: secret, TokenURL: test.address, AuthStyle: oauth2.AuthStyleInHeader, Retry: test.retry, HTTPClient: test.client}
				conf.Retry.MaxAttempts = 1
				_, err := conf.Token(t.Context())
				require.Error(t, err)
				return err.Error(), IsTemporary(err)
			}
			_, wantTemporary := request("S3cretCanary")
			for _, secret := range ordinaryWords {
				text, temporary := request(secret)
				require.NotContains(t, text, redact.Redacted, secret)
				require.Equal(t, wantTemporary, temporary, secret)
			}
		})
	}
}

// TestL9_JudgedBeforeMasked: a secret in the text of an error, whatever error it is, doesn't
// change whether it is temporary.
func TestL9_JudgedBeforeMasked(t *testing.T) {
	const secret = "S3cret-Canary-123"
	for name, kind := range map[string]error{
		"plain":       errors.New("x"),
		"network":     &net.OpError{Op: "dial", Err: errors.New("x")},
		"certificate": &tls.CertificateVerificationError{Err: errors.New("sent " + secret)},
		"alert":       &net.OpError{Op: "remote error", Err: errors.New("sent " + secret)},
		"not TLS":     tls.RecordHeaderError{Msg: "x"},
		"canceled":    context.Canceled,
		"deadline":    context.DeadlineExceeded,
		"refusal":     &oauth2.RetrieveError{Response: &http.Response{StatusCode: 503, Header: http.Header{}}, Body: []byte("x")},
		"refusal 400": &oauth2.RetrieveError{Response: &http.Response{StatusCode: 400, Header: http.Header{}}, Body: []byte("x")},
		"fault":       &ResponseError{StatusCode: 200},
		"another's":   &authError{"x", errors.New("x")},
	} {
		for place, answer := range map[string]func(err error) reply{
			"sending": func(err error) reply { return reply{err: err} },
			"reading": func(err error) reply { return reply{bodyErr: err} },
		} {
			t.Run(name+"/"+place, func(t *testing.T) {
				_, want := tokenOf(t, answer(fmt.Errorf("sent nothing: %w", kind)), false)
				for _, text := range []string{"sent " + secret + ": %w", "%w: sent " + secret, "sent \x1b: %w", strings.Repeat("long ", 1000) + "%w"} {
					conf := newTokenEndpoint(answer(fmt.Errorf(text, kind))).config()
					conf.ClientSecret = secret
					_, err := conf.Token(t.Context())
					require.Equal(t, IsTemporary(want), IsTemporary(err), text)
					requireMasked(t, surfaces(err), secret)
				}
			})
		}
	}
}

// TestL9_ShortSecretsInAnswers: what the server sends is masked, and only where it is the secret.
func TestL9_ShortSecretsInAnswers(t *testing.T) {
	for _, test := range []struct {
		secret, body string
		code, said   string
	}{
		{"client", `{"error":"client_disabled","error_description":"client client_secret=client, clients"}`, "client_disabled", "[redacted] client_secret=[redacted], clients"},
		{"client", `{"error":"invalid-client","error_description":"%63lient"}`, "invalid-client", "[redacted]"},
		{"token", `{"error":"unsupported_token_type","error_description":"token_type tokens token"}`, "unsupported_token_type", "token_type tokens [redacted]"},
		{"x", `{"error":"x_expired","error_description":"fox x"}`, "x_expired", "fox [redacted]"},
		{"grant", `{"error":"invalid_grant","error_description":"grants"}`, "invalid_grant", "grants"},
		{"test", `{"error":"test","error_description":"testing id:test aWQ6dGVzdA== aWQ6dGVzdA dGVzdA"}`, "[redacted]", "testing [redacted] [redacted] [redacted] [redacted]"},
		{"test", `{"error":"e","error_description":"client_id=id&client_secret=test client_id%3Did%26client_secret%3Dtest"}`, "e", "client_id=id&client_secret=[redacted] client_id%3Did%26client_secret%3D[redacted]"},
		{"p w", `{"error":"e","error_description":"p w p+w p%20w up wo"}`, "e", "[redacted] [redacted] [redacted] up wo"},
		{"invalid_target", `{"error":"invalid_target","error_description":"invalid_target"}`, "invalid_target", "[redacted]"},
		{"Bad Request", `{"error":"e","error_description":"Bad Request"}`, "e", "[redacted]"},
	} {
		_, err := func() (*oauth2.Token, error) {
			conf := newTokenEndpoint(reply{status: 400, body: test.body}).config()
			conf.ClientSecret = test.secret
			return conf.Token(t.Context())
		}()
		var refusal *oauth2.RetrieveError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, test.code, refusal.ErrorCode)
		require.Equal(t, test.said, refusal.ErrorDescription)
		require.Equal(t, "400 Bad Request", refusal.Response.Status)
		require.Equal(t, formType, refusal.Response.Request.Header.Get("Content-Type"))
	}
}

// TestL10_UnpaddedEcho has a server repeat credentials in base64 of all kinds.
func TestL10_UnpaddedEcho(t *testing.T) {
	for _, secret := range []string{"S3cretCanary", "S3cretCanary1", "S3cretCanary22", "S3/cret+Canary~", "test"} {
		for _, text := range []string{secret, memoryID + ":" + secret, memoryID + ":" + url.QueryEscape(secret)} {
			for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
				encoded := encoding.EncodeToString([]byte(text))
				for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
					conf := newTokenEndpoint(reply{status: 401, mediaType: "text/plain", body: "got " + encoded + " and " + url.QueryEscape(encoded) + "."}).config()
					conf.ClientSecret, conf.AuthStyle = secret, style
					_, err := conf.Token(t.Context())
					require.EqualError(t, err, "oauth2: cannot fetch token: 401 Unauthorized\nResponse: got [redacted] and [redacted].", "%q as %s", text, encoded)
				}
			}
		}
	}
}

// A storeError is an error of a store, with a kind and a text that may be hostile.
type storeError struct{ text string }

func (e *storeError) Error() string { return e.text }

// A brokenError has a method that panics.
type brokenError struct{}

func (*brokenError) Error() string { panic("here") }

// TestL12_StoreErrors: what an Observer gets of a store's error is short and can be printed.
func TestL12_StoreErrors(t *testing.T) {
	for name, text := range map[string]string{
		"plain":         "the store is down",
		"70 kB":         strings.Repeat("0123456789", 7_000),
		"70 kB of ESC":  strings.Repeat("\x1b[2J", 17_500),
		"a terminal":    "down\x1b]0;title\x07\r\u202e",
		"not UTF-8":     "down \xff\xfe",
		"cut character": strings.Repeat("\u20ac", 1_000),
		"empty":         "",
	} {
		for how, wrap := range map[string]func(err error) error{
			"bare":    func(err error) error { return err },
			"wrapped": func(err error) error { return fmt.Errorf("%w: acquire: %w", io.ErrUnexpectedEOF, err) },
			"lease":   func(err error) error { return fmt.Errorf("%w: %w", tokenstore.ErrLeaseLost, err) },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				cause := &storeError{text}
				got := make(chan error, 1)
				s := newSharedStore(functionStore{acquire: func(context.Context) error { return wrap(cause) }})
				require.ErrorIs(t, s.try(t.Context(), &Observer{StoreOperation: func(e event.StoreOperation) { got <- e.Err }}), cause)
				err := <-got
				require.ErrorIs(t, err, cause)
				var kind *storeError
				require.ErrorAs(t, err, &kind)
				require.Equal(t, how == "lease", errors.Is(err, tokenstore.ErrLeaseLost))
				require.Equal(t, how == "wrapped", errors.Is(err, io.ErrUnexpectedEOF))
				require.LessOrEqual(t, len(err.Error()), maxErrorText)
				requireHarmless(t, err.Error())
				if name == "plain" {
					require.Equal(t, wrap(cause), err)
				}
			})
		}
	}
	for name, failure := range map[string]error{"a panic": &brokenError{}, "a nil pointer": (*storeError)(nil)} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 1)
			s := newSharedStore(functionStore{acquire: func(context.Context) error { return failure }})
			require.Error(t, s.try(t.Context(), &Observer{StoreOperation: func(e event.StoreOperation) { got <- e.Err }}))
			require.EqualError(t, <-got, "oauth2: the store of shared tokens failed with an error that can't be printed")
		})
	}
}

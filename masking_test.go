package clientcredentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
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

// echoed returns the refusal of a server that answers with all that is in the request,
// with its header values as in forms, and with their words in base64. Before, auth adds
// to the request as a ClientAuth, and then trip as a RoundTripper. Both may be nil.
func echoed(t *testing.T, params url.Values, auth func(*Attempt), trip func(*http.Request)) *oauth2.RetrieveError {
	t.Helper()
	conf := newTokenEndpoint(reply{}).config()
	conf.EndpointParams = params
	if auth != nil {
		conf.ClientAuth = authFunc(func(_ context.Context, attempt *Attempt) error {
			auth(attempt)
			return nil
		})
	}
	conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		if trip != nil {
			trip(req)
		}
		var text strings.Builder
		text.WriteString(req.URL.RawQuery + "\n" + hostile.Dump(req))
		for _, values := range req.Header {
			for _, value := range values {
				text.WriteString(url.QueryEscape(value) + "\n")
			}
			for _, word := range strings.FieldsFunc(strings.Join(values, " "), func(r rune) bool { return strings.ContainsRune(` ,;="`, r) }) {
				text.WriteString(url.QueryEscape(word) + " " +
					base64.StdEncoding.EncodeToString([]byte(word)) + " " + base64.RawURLEncoding.EncodeToString([]byte(word)) + "\n")
			}
		}
		return reply{status: 401, mediaType: "text/plain", body: text.String()}.response(req), nil
	})}
	_, err := conf.Token(t.Context())
	return err.(*oauth2.RetrieveError)
}

// TestL7_WhatAuthenticationAdds is kept out of the error: the field of the request, and the
// server's echo of it.
func TestL7_WhatAuthenticationAdds(t *testing.T) {
	const secret = "Gateway-S3cret/Canary+1"
	header := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	for name, set := range map[string]func(http.Header){
		"proxy's Basic":         header("Proxy-Authorization", "Basic "+redact.BasicCredentials("proxy", secret)),
		"without scheme":        header("Authorization", secret),
		"a name that says less": header("X-Gateway", secret),
		"cookie":                header("Cookie", "other=1; session="+secret),
		"signature":             header("X-Signature", `keyId="k", signature="`+secret+`"`),
		"two values":            func(h http.Header) { h["X-Token"] = []string{"other", secret} },
		"user agent":            header("User-Agent", "service "+secret+" "+secret), // It is public, but the secret is known from elsewhere.
	} {
		var params url.Values
		if name == "user agent" {
			params = url.Values{"password": {secret}}
		}
		for by, err := range map[string]*oauth2.RetrieveError{
			"ClientAuth":   echoed(t, params, func(attempt *Attempt) { set(attempt.Header) }, nil),
			"RoundTripper": echoed(t, params, nil, func(req *http.Request) { set(req.Header) }),
		} {
			t.Run(name+"/"+by, func(t *testing.T) {
				text := surfaces(err)
				requireMasked(t, text, secret)
				requireMasked(t, text, strings.ReplaceAll(secret, "+", " "))
				require.NotContains(t, text, base64.RawURLEncoding.EncodeToString([]byte(secret)))
				require.Contains(t, text, redact.Redacted)
				for name := range err.Response.Request.Header {
					require.Contains(t, []string{"Accept", "Content-Type", "User-Agent"}, name)
				}
				require.Equal(t, formType, err.Response.Request.Header.Get("Content-Type"))
			})
		}
	}
}

// The same for what isn't in the header.
func TestL7_ParametersOfAuthentication(t *testing.T) {
	const secret = "Parameter-S3cret/Canary+1"
	const ours = "client_assertion=[redacted]&client_assertion_type=urn%3Atype&grant_type=client_credentials"
	for name, test := range map[string]struct {
		auth func(*Attempt)
		trip func(*http.Request)
		text string
	}{
		"a name that says nothing": {auth: func(a *Attempt) { a.Form.Set("proprietary", secret) }},
		"another value":            {auth: func(a *Attempt) { a.Form.Add("audience", secret) }},
		"two values":               {auth: func(a *Attempt) { a.Form["x"] = []string{"other", secret} }},
		"public ones": {text: "audience=api&" + ours, auth: func(a *Attempt) {
			a.Form.Set("client_assertion_type", "urn:type")
			a.Form.Set("client_assertion", secret)
		}},
		"query": {trip: func(req *http.Request) { req.URL.RawQuery = url.Values{"id": {secret}}.Encode() }},
		"user of the address": {trip: func(req *http.Request) {
			req.URL.User = url.UserPassword("u", secret)
			req.URL.RawQuery = req.URL.User.String()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			err := echoed(t, url.Values{"audience": {"api"}}, test.auth, test.trip)
			requireMasked(t, surfaces(err), secret)
			require.ErrorContains(t, err, redact.Redacted)
			require.ErrorContains(t, err, test.text)
		})
	}
}

// What a program may want to know about the request stays.
func TestL7_PublicFieldsStay(t *testing.T) {
	public := http.Header{
		"Accept": {"application/json"}, "Content-Type": {formType}, "User-Agent": {"service/1.0"},
		"Traceparent": {"00-1-2-03"}, "X-Request-Id": {"42"}, "Accept-Language": {"de", "en"},
	}
	refusal := echoed(t, nil, nil, func(req *http.Request) {
		req.Header = public.Clone()
		req.Header.Set("X-Key", "S3cretCanary")
	})
	require.Equal(t, public, refusal.Response.Request.Header)
	require.Contains(t, string(refusal.Body), "service/1.0")
}

// TestL8_Parameters: what is masked, and what keeps a token out of a store.
func TestL8_Parameters(t *testing.T) {
	for name, test := range map[string]struct{ masked, refused bool }{
		"ApiKey": {true, true}, "partition_key": {true, false}, "requested_token_type": {false, false}, "audience": {false, false},
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

// isA reports whether an error of type E is in the chain of err.
func isA[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}

// TestL9_OurOwnTexts: a secret that is an ordinary word changes no text that the server
// hasn't sent, no kind of an error, and not whether it is temporary.
func TestL9_OurOwnTexts(t *testing.T) {
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	cause := errors.New("the client has no more connection to the test")
	for name, failure := range map[string]error{
		"dial":          &net.OpError{Op: "dial", Net: "tcp", Err: refused},
		"name":          &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "test.client", IsNotFound: true}},
		"certificate":   &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"alert":         &net.OpError{Op: "remote error", Err: tls.AlertError(42)},
		"not TLS":       tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake from a client"},
		"EOF":           io.ErrUnexpectedEOF,
		"deadline":      context.DeadlineExceeded,
		"I/O deadline":  &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded},
		"canceled":      context.Canceled,
		"scheme":        http.ErrSchemeMismatch,
		"of the caller": cause,
	} {
		kinds := func(err error) []bool {
			var network net.Error
			found := []bool{
				IsTemporary(err), errors.As(err, &network), network != nil && network.Timeout(),
				isA[*net.OpError](err), isA[*net.DNSError](err), isA[*tls.CertificateVerificationError](err), isA[x509.UnknownAuthorityError](err),
			}
			for _, target := range []error{
				syscall.ECONNREFUSED, io.ErrUnexpectedEOF, context.DeadlineExceeded, os.ErrDeadlineExceeded, context.Canceled, http.ErrSchemeMismatch, cause,
			} {
				found = append(found, errors.Is(err, target))
			}
			return found
		}
		for place, answer := range map[string]reply{"sending": {err: failure}, "reading": {bodyErr: failure}} {
			t.Run(name+"/"+place, func(t *testing.T) {
				request := func(secret string) error {
					conf := newTokenEndpoint(answer).config()
					conf.ClientSecret = secret
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					if name == "of the caller" {
						conf.HTTPClient = &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
							cancel(cause)
							return nil, cause
						})}
					}
					_, err := conf.Token(ctx)
					return err
				}
				want := request("S3cretCanary")
				require.ErrorIs(t, want, failure)
				for _, secret := range ordinaryWords {
					err := request(secret)
					require.EqualError(t, err, want.Error(), secret)
					require.Equal(t, kinds(want), kinds(err), secret)
				}
			})
		}
	}
}

// TestL9_OnTheNetwork is the same with the errors that a network really has.
func TestL9_OnTheNetwork(t *testing.T) {
	closing := hostile.Start(t, hostile.Raw(func(*http.Request) string { return "" }))
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
	}))
	defer slow.Close()
	for name, conf := range map[string]Config{
		"refused":             {TokenURL: "http://127.0.0.1:1/token"},
		"no TLS":              {TokenURL: strings.Replace(slow.URL, "http:", "https:", 1)},
		"closed":              {TokenURL: closing.URL},
		"an attempt is slow":  {TokenURL: slow.URL, Retry: RetryPolicy{AttemptTimeout: time.Millisecond}},
		"the client gives up": {TokenURL: slow.URL, HTTPClient: &http.Client{Timeout: time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			conf.ClientID, conf.AuthStyle, conf.Retry.MaxAttempts = "id", oauth2.AuthStyleInHeader, 1
			conf.ClientSecret = "S3cretCanary"
			_, want := conf.Token(t.Context())
			require.Error(t, want)
			for _, conf.ClientSecret = range ordinaryWords {
				_, err := conf.Token(t.Context())
				require.NotContains(t, err.Error(), redact.Redacted, conf.ClientSecret)
				require.Equal(t, IsTemporary(want), IsTemporary(err), conf.ClientSecret)
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
		"deadline":    context.DeadlineExceeded,
		"refusal":     &oauth2.RetrieveError{Response: &http.Response{StatusCode: 503, Header: http.Header{}}, Body: []byte("x")},
		"fault":       &ResponseError{StatusCode: 200},
	} {
		answers := func(err error) []reply { return []reply{{err: err}, {bodyErr: err}} }
		for i, place := range []string{"sending", "reading"} {
			t.Run(name+"/"+place, func(t *testing.T) {
				_, want := tokenOf(t, answers(fmt.Errorf("sent nothing: %w", kind))[i], false)
				for _, text := range []string{"sent " + secret + ": %w", "%w: sent " + secret, "sent \x1b: %w", strings.Repeat("long ", 1000) + "%w"} {
					conf := newTokenEndpoint(answers(fmt.Errorf(text, kind))[i]).config()
					conf.ClientSecret = secret
					_, err := conf.Token(t.Context())
					require.Equal(t, IsTemporary(want), IsTemporary(err), text)
					requireMasked(t, surfaces(err), secret)
				}
			})
		}
	}
}

// TestL9_ShortSecretsInAnswers: what the server sends is masked, and only where it is the
// secret.
func TestL9_ShortSecretsInAnswers(t *testing.T) {
	for _, test := range []struct {
		secret, body string
		code, said   string
	}{
		{"client", `{"error":"client_disabled","error_description":"client client_secret=client, clients"}`, "client_disabled", "[redacted] client_secret=[redacted], clients"},
		{"client", `{"error":"invalid-client","error_description":"%63lient"}`, "invalid-client", "[redacted]"},
		{"test", `{"error":"test","error_description":"testing id:test aWQ6dGVzdA== aWQ6dGVzdA dGVzdA"}`, "[redacted]", "testing [redacted] [redacted] [redacted] [redacted]"},
		{"test", `{"error":"e","error_description":"client_id=id&client_secret=test client_id%3Did%26client_secret%3Dtest"}`, "e", "client_id=id&client_secret=[redacted] client_id%3Did%26client_secret%3D[redacted]"},
		{"invalid_target", `{"error":"invalid_target","error_description":"invalid_target"}`, "invalid_target", "[redacted]"},
		{"Bad Request", `{"error":"e","error_description":"Bad Request"}`, "e", "[redacted]"},
	} {
		conf := newTokenEndpoint(reply{status: 400, body: test.body}).config()
		conf.ClientSecret = test.secret
		_, err := conf.Token(t.Context())
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
	const secret = "S3/cret+Canary~"
	for _, text := range []string{secret, memoryID + ":" + secret, memoryID + ":" + url.QueryEscape(secret)} {
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			encoded := encoding.EncodeToString([]byte(text))
			conf := newTokenEndpoint(reply{status: 401, mediaType: "text/plain", body: "got " + encoded + " and " + url.QueryEscape(encoded) + "."}).config()
			conf.ClientSecret = secret
			_, err := conf.Token(t.Context())
			require.EqualError(t, err, "oauth2: cannot fetch token: 401 Unauthorized\nResponse: got [redacted] and [redacted].", "%q as %s", text, encoded)
		}
	}
}

// A storeError is an error of a store, with a kind and a text that may be hostile.
type storeError struct{ text string }

func (e *storeError) Error() string { return e.text }

// A brokenError has a method that panics.
type brokenError struct{}

func (*brokenError) Error() string { panic("here") }

// reported returns what an Observer gets of a store's failure.
func reported(t *testing.T, failure error) error {
	t.Helper()
	got := make(chan error, 1) // The Observer is called on another goroutine.
	s := newSharedStore(functionStore{acquire: func(context.Context) error { return failure }})
	require.Error(t, s.try(t.Context(), &Observer{StoreOperation: func(e event.StoreOperation) { got <- e.Err }}))
	return <-got
}

// TestL12_StoreErrors: what an Observer gets of a store's error is short and can be printed.
func TestL12_StoreErrors(t *testing.T) {
	for name, text := range map[string]string{
		"plain":         "the store is down",
		"70 kB of ESC":  strings.Repeat("\x1b[2J", 17_500),
		"cut character": strings.Repeat("\u20ac", 1_000),
	} {
		for how, wrap := range map[string]func(err error) error{
			"bare":    func(err error) error { return err },
			"wrapped": func(err error) error { return fmt.Errorf("%w: acquire: %w", io.ErrUnexpectedEOF, err) },
			"lease":   func(err error) error { return fmt.Errorf("%w: %w", tokenstore.ErrLeaseLost, err) },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				cause := &storeError{text}
				err := reported(t, wrap(cause))
				require.ErrorIs(t, err, cause)
				require.True(t, isA[*storeError](err))
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
	for _, failure := range []error{&brokenError{}, (*storeError)(nil)} {
		require.EqualError(t, reported(t, failure), "oauth2: the store of shared tokens failed with an error that can't be printed")
	}
}

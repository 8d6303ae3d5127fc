package clientcredentials

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A deed is what code of the program, or a server, does instead of what it should.
type deed struct {
	name string
	do   func()
}

var deeds = []deed{
	{"blocks", func() { time.Sleep(time.Hour) }},
	{"panics", func() { panic("secret") }},
	{"calls Goexit", runtime.Goexit},
	{"returns late", func() { time.Sleep(31 * time.Second) }},
}

// foreign is code of the program that the library calls.
var foreign = map[string]func(c *Config, do func()){
	"RoundTripper": func(c *Config, do func()) {
		c.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			do()
			return reply{body: `{"access_token":"t"}`}.response(req), nil
		})}
	},
	"body": func(c *Config, do func()) {
		c.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp := reply{}.response(req)
			resp.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { do(); return 0, io.EOF }))
			return resp, nil
		})}
	},
	"101 with a body": func(c *Config, do func()) {
		c.HTTPClient = &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp := reply{status: http.StatusSwitchingProtocols}.response(req)
			resp.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { do(); return 0, io.EOF }))
			return resp, nil
		})}
	},
	"ClientAuth": func(c *Config, do func()) {
		c.ClientAuth = authFunc(func(context.Context, *Attempt) error { do(); return nil })
	},
	"certificate": func(c *Config, do func()) { c.ClientAuth = misbehavingCertificate{do} },
	"Grant":       func(c *Config, do func()) { c.Grant = misbehavingGrant{do} },
	"Grant before the store": func(c *Config, do func()) {
		c.Grant = misbehavingGrant{do}
		c.Store = DangerouslyShareInPlaintext(functionStore{acquire: func(context.Context) error { return errors.New("down") }})
	},
	"signer": func(c *Config, do func()) {
		c.DPoP = signerFunc{canaryKey, do}
	},
	"store": func(c *Config, do func()) {
		c.Store = DangerouslyShareInPlaintext(functionStore{acquire: func(context.Context) error { do(); return errors.New("down") }})
	},
	"Observer": func(c *Config, do func()) {
		c.Observer = observe(func(any) { do() })
	},
	"TraceRefresh": func(c *Config, do func()) {
		c.Observer = &Observer{TraceRefresh: func(ctx context.Context) (context.Context, func(error)) { do(); return ctx, nil }}
	},
}

type misbehavingCertificate struct{ do func() }

func (misbehavingCertificate) Method() string                               { return "tls_client_auth" }
func (misbehavingCertificate) Authenticate(context.Context, *Attempt) error { return nil }
func (m misbehavingCertificate) Certificate(context.Context) (*tls.Certificate, error) {
	m.do()
	return &tls.Certificate{Certificate: [][]byte{{1}}}, nil
}

type misbehavingGrant struct{ do func() }

func (misbehavingGrant) Type() string { return "urn:x" }
func (g misbehavingGrant) Authorize(context.Context, *Attempt) (string, error) {
	g.do()
	return "a", nil
}

// A signerFunc is a signer that does something else first.
type signerFunc struct {
	crypto.Signer
	first func()
}

func (s signerFunc) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.first()
	return s.Signer.Sign(rand, digest, opts)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// F19 to F22: whatever the code of the program does, and at whichever door, no call
// outlives its context by more than a few milliseconds, nothing panics, and nothing is
// left behind once the code has returned.
func TestF19_NoCallOutlivesItsContext(t *testing.T) {
	const patience = 7 * time.Second
	doors := map[string]func(ctx context.Context, c *Config) error{
		"Config.Token": func(ctx context.Context, c *Config) error {
			_, err := c.Token(ctx)
			return err
		},
		"Source": func(ctx context.Context, c *Config) error {
			_, err := c.Source(context.WithoutCancel(ctx)).TokenContext(ctx)
			return err
		},
		"Client": func(ctx context.Context, c *Config) error { return get(ctx, c.Client(apiContext())) },
		"Transport": func(ctx context.Context, c *Config) error {
			return get(ctx, &http.Client{Transport: c.Transport(apiContext())})
		},
	}
	for who, misbehave := range foreign {
		for _, deed := range deeds {
			for door, call := range doors {
				t.Run(who+" "+deed.name+" under "+door, func(t *testing.T) {
					testkit.Synctest(t, func(t *testing.T) {
						c := &Config{ClientID: "id", TokenURL: "https://auth.example/token", HTTPClient: newTokenEndpoint(reply{body: `{"access_token":"t","token_type":"DPoP"}`}).client()}
						if who != "signer" {
							c.HTTPClient = newTokenEndpoint(reply{body: `{"access_token":"t"}`}).client()
						}
						misbehave(c, deed.do)
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						start := time.Now()
						err := call(ctx, c)
						require.LessOrEqual(t, time.Since(start), patience+50*time.Millisecond, "%v", err)
						if err != nil {
							require.NotContains(t, err.Error(), `"secret"`)
						}
						time.Sleep(5 * time.Hour) // Until the last late call has returned.
					})
				})
			}
		}
	}
}

// apiContext has a client for the API, which accepts everything.
func apiContext() context.Context {
	return context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusNoContent, Header: make(http.Header), Body: http.NoBody, Request: req}, nil
	})})
}

func get(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// F21: an API announces a body for its 401, and doesn't send it. F22: the signer hangs
// when a request is proved, though it has signed for the token.
func TestF21_APIRequestsAreBounded(t *testing.T) {
	unauthorized := func(req *http.Request) (*http.Response, error) {
		resp := reply{status: http.StatusUnauthorized, header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}}.response(req)
		resp.ContentLength = 100
		resp.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { time.Sleep(time.Hour); return 0, io.EOF }))
		return resp, nil
	}
	for name, test := range map[string]struct {
		base    roundTripFunc
		prepare func(c *Config)
		took    time.Duration
		err     error
	}{
		"stalled body of a 401": {unauthorized, func(*Config) {}, maxDrainTime, nil},
		"signer": {nil, func(c *Config) {
			signed := 0
			c.DPoP = signerFunc{canaryKey, func() {
				if signed++; signed > 1 {
					time.Sleep(time.Hour)
				}
			}}
			c.HTTPClient = newTokenEndpoint(reply{body: `{"access_token":"t","token_type":"DPoP"}`}).client()
		}, 3 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Synctest(t, func(t *testing.T) {
				tokens := newTokenEndpoint(reply{body: `{"access_token":"first"}`}, reply{body: `{"access_token":"second"}`})
				c := &Config{TokenURL: "https://auth.example/token", HTTPClient: tokens.client()}
				test.prepare(c)
				transport := c.Transport(t.Context())
				transport.Base = test.base
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				resp, err := transport.RoundTrip(httptest.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/", http.NoBody))
				require.Equal(t, test.took, time.Since(start))
				require.ErrorIs(t, err, test.err)
				if err == nil {
					require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
					go resp.Body.Close()
				}
				time.Sleep(3 * time.Hour)
			})
		})
	}
}

// F23: what a RoundTripper may return, and what an http.Client copes with.
func TestF23_OddRoundTrippers(t *testing.T) {
	odd := map[string]func(req *http.Request) (*http.Response, error){
		"nothing":              func(*http.Request) (*http.Response, error) { return nil, nil },
		"both":                 func(req *http.Request) (*http.Response, error) { return reply{}.response(req), io.ErrUnexpectedEOF },
		"no body":              func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 200}, nil },
		"401 without anything": func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 401}, nil },
		"401 without a header": func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Body: http.NoBody}, nil
		},
		"length without body": func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, ContentLength: 5}, nil
		},
		"status 0": func(*http.Request) (*http.Response, error) { return &http.Response{}, nil },
	}
	for name, answer := range odd {
		_, wantErr := (&http.Client{Transport: roundTripFunc(answer)}).Get("https://api.example/")
		for _, dpop := range []crypto.Signer{nil, canaryKey} {
			body := map[bool]string{true: `{"access_token":"t"}`, false: `{"access_token":"t","token_type":"DPoP"}`}[dpop == nil]
			c := &Config{TokenURL: "https://auth.example/token", DPoP: dpop, HTTPClient: newTokenEndpoint(reply{body: body}).client()}
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: roundTripFunc(answer)})
			for _, rt := range []http.RoundTripper{c.Transport(ctx), c.Client(ctx).Transport} {
				resp, err := rt.RoundTrip(httptest.NewRequest(http.MethodGet, "https://api.example/", http.NoBody))
				require.Equal(t, wantErr == nil, err == nil, "%s: %v", name, err)
				if err == nil {
					require.NotNil(t, resp.Body)
					require.NotNil(t, resp.Header)
					require.NoError(t, resp.Body.Close())
				}
			}
		}
		// And at the token endpoint.
		c := &Config{TokenURL: "https://auth.example/token", Retry: RetryPolicy{MaxAttempts: 1}, HTTPClient: &http.Client{Transport: roundTripFunc(answer)}}
		_, err := c.Token(t.Context())
		require.Error(t, err, name)
	}
}

// A RoundTripper may return one answer to several goroutines, so it must stay as it is.
func TestF23_SharedAnswer(t *testing.T) {
	answer := &http.Response{StatusCode: http.StatusOK}
	shared := roundTripFunc(func(*http.Request) (*http.Response, error) { return answer, nil })
	c := &Config{TokenURL: "https://auth.example/token", HTTPClient: newTokenEndpoint(reply{body: `{"access_token":"t"}`}).client()}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: shared})
	for _, rt := range []http.RoundTripper{c.Transport(ctx), c.Client(ctx).Transport} {
		resp, err := rt.RoundTrip(httptest.NewRequest(http.MethodGet, "https://api.example/", http.NoBody))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, &http.Response{StatusCode: http.StatusOK}, answer)
	}
}

// The error of a call that its context has ended is that of an http.Client that obeys its
// context, whatever was going on.
func TestF20_ErrorOfAnEndedContext(t *testing.T) {
	for who, misbehave := range foreign {
		if who == "store" || who == "Observer" || who == "TraceRefresh" || who == "101 with a body" {
			continue // Config.Token calls none of these, or ends at once.
		}
		testkit.Synctest(t, func(t *testing.T) {
			c := &Config{ClientID: "id", TokenURL: "https://auth.example/token", HTTPClient: newTokenEndpoint(reply{}).client()}
			misbehave(c, func() { time.Sleep(time.Hour) })
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			defer cancel()
			_, err := c.Token(ctx)
			require.EqualError(t, err, `Post "https://auth.example/token": context deadline exceeded`, who)
			var outer *url.Error
			require.ErrorAs(t, err, &outer)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			time.Sleep(5 * time.Hour)
		})
	}
}

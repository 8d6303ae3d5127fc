package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// maxSaid bounds what is kept of a text in a token response.
const maxSaid = 4 << 10

// A wire sends requests and records how each went, without its content. It is safe for
// concurrent use.
type wire struct {
	base     *http.Transport
	presents bool // a certificate

	mu        sync.Mutex // protects the rest
	exchanges []exchange
	asked     bool     // the server has asked for a certificate
	secrets   []string // the secret, and the credentials that were sent, to mask them where the server repeats them
	left      int      // how many more requests may be sent
}

// An exchange is one request and its answer.
type exchange struct {
	method, url    string // the address has no query
	status         int    // 0: no answer
	date           string // the Date field of the answer
	sent, answered time.Time
	reused         bool // whether the connection had been used before
	tls            *tls.ConnectionState
	proto          string

	// What the client has sent, without secrets.
	assertion, proof *token // nil: none
	presents, asked  bool   // whether the client has a certificate for the connection, and the server wants one
}

var errTooMany = errors.New("cctoken tried to send more requests than it announced; this is a bug in cctoken")

// newWire returns a wire for a number of requests. Its connections present cert if that
// isn't nil. The library presents a certificate only if its transport is an
// *http.Transport, and a wire isn't one.
func newWire(s *settings, cert *tls.Certificate, requests int) *wire {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{RootCAs: s.Roots}
	// A cached token may have an answer in it that repeats the secret.
	w := &wire{base: base, left: requests, presents: cert != nil, secrets: []string{s.Secret}}
	if cert != nil {
		base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked = true
			return cert, nil
		}
	}
	return w
}

func (w *wire) client() *http.Client { return &http.Client{Transport: w} }

func (w *wire) close() { w.base.CloseIdleConnections() }

// RoundTrip sends a request, unless there were too many.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.left--
	exceeded := w.left < 0
	w.mu.Unlock()
	if exceeded {
		return nil, errTooMany
	}
	e := exchange{method: req.Method, url: redact.AddressText(req.URL.String()), sent: time.Now()}
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { e.reused = info.Reused },
	})
	req = req.WithContext(ctx)
	form, err := formOf(req)
	if err != nil {
		return nil, err
	}
	if assertion := form.Get("client_assertion"); assertion != "" {
		e.assertion = parseToken(assertion)
	}
	if proof := req.Header.Get("DPoP"); proof != "" {
		e.proof = parseToken(proof)
	}
	w.mu.Lock()
	w.secrets = append(w.secrets, redact.HeaderSecrets(req.Header)...)
	for name, values := range form {
		if redact.IsCredentialName(name) {
			w.secrets = append(w.secrets, values...)
		}
	}
	w.mu.Unlock()
	resp, err := w.base.RoundTrip(req)
	e.answered = time.Now()
	if err == nil {
		e.status, e.date, e.tls, e.proto = resp.StatusCode, resp.Header.Get("Date"), resp.TLS, resp.Proto
	}
	w.mu.Lock()
	e.presents, e.asked = w.presents, w.asked
	w.exchanges = append(w.exchanges, e)
	w.mu.Unlock()
	return resp, err
}

// formOf returns the form in the body of a token request. It gives req a new body.
func formOf(req *http.Request) (url.Values, error) {
	if req.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(req.Body)
	req.Body.Close()
	req.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	form, _ := url.ParseQuery(string(body)) // It is the library's.
	return form, nil
}

// sent returns the exchanges so far, oldest first.
func (w *wire) sent() []exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.exchanges)
}

// token gets a token with conf, from the cache unless that is nil. Its error is a failure.
// The token's type and scope can be printed.
func (w *wire) token(ctx context.Context, conf *clientcredentials.Config, kept *cache) (*oauth2.Token, error) {
	before := len(w.sent())
	conf.HTTPClient = w.client()
	get := conf.Token
	if kept != nil {
		get = func(ctx context.Context) (*oauth2.Token, error) {
			return kept.token(ctx, conf, func() int { return len(w.sent()) })
		}
	}
	token, err := get(ctx)
	if err != nil {
		return nil, w.fail(before, err)
	}
	printable := w.printable(token, conf.Scopes...)
	if typ := token.Type(); typ != "Bearer" && typ != "DPoP" {
		token.TokenType = printable(typ)
	}
	if scope, ok := token.Extra("scope").(string); ok {
		token = token.WithExtra(map[string]any{"scope": printable(scope)})
	}
	return token, nil
}

// printable returns a function for the texts of the server in a token response. It masks
// the credentials and the tokens in a text, cuts it, and makes it one line without what
// could rewrite a terminal. Our own words stay, even if the secret is one of them.
func (w *wire) printable(token *oauth2.Token, own ...string) func(said string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	mask := redact.NewMasker(w.secrets...).Literal(token.AccessToken, token.RefreshToken)
	return func(said string) string {
		said = redact.Neutralise(mask.MaskExcept(said, maxSaid, own))
		return redact.Clip(strings.NewReplacer("\n", " ", "\t", " ").Replace(said), maxSaid)
	}
}

// maxLocations is how many requests Discover sends at most.
const maxLocations = 4

// discover requests the metadata of the issuer. Its error is a failure.
func (w *wire) discover(ctx context.Context, issuer string) (*clientcredentials.ServerMetadata, error) {
	before := len(w.sent())
	m, err := clientcredentials.Discover(context.WithValue(ctx, oauth2.HTTPClient, w.client()), issuer)
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) { // A status such as 503. For explain it would be a refusal of the client.
		return nil, &failure{statusTemporary, errors.New(err.Error())}
	}
	return m, w.fail(before, err)
}

// fail returns err with its exit status. before is the number of exchanges that came before
// the request that failed.
func (w *wire) fail(before int, err error) error {
	sent := w.sent()[before:]
	if err == nil {
		return nil
	}
	if len(sent) > 0 {
		return &failure{requestStatus(err, sent[len(sent)-1].status), err}
	}
	if refused, ok := refusalOf(err); ok { // Another process has left it in the cache.
		return &failure{requestStatus(err, refused.status), err}
	}
	return &failure{statusUsage, err}
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// A wire sends requests and records how each went, without its content. It is safe for
// concurrent use.
type wire struct {
	base *http.Transport

	mu        sync.Mutex // protects the rest
	exchanges []exchange
	left      int // how many more requests may be sent
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
}

var errTooMany = errors.New("cctoken tried to send more requests than it announced; this is a bug in cctoken")

// newWire returns a wire for a number of requests. Its connections present cert if that
// isn't nil. The library presents a certificate only if its transport is an
// *http.Transport, and a wire isn't one.
func newWire(s *settings, cert *tls.Certificate, requests int) *wire {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{RootCAs: s.roots}
	if cert != nil {
		base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return &wire{base: base, left: requests}
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
	resp, err := w.base.RoundTrip(req.WithContext(ctx))
	e.answered = time.Now()
	if err == nil {
		e.status, e.date, e.tls, e.proto = resp.StatusCode, resp.Header.Get("Date"), resp.TLS, resp.Proto
	}
	w.mu.Lock()
	w.exchanges = append(w.exchanges, e)
	w.mu.Unlock()
	return resp, err
}

// sent returns the exchanges so far, oldest first.
func (w *wire) sent() []exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.exchanges)
}

// token requests a token with conf. Its error is a failure.
func (w *wire) token(ctx context.Context, conf *clientcredentials.Config) (*oauth2.Token, error) {
	before := len(w.sent())
	conf.HTTPClient = w.client()
	token, err := conf.Token(ctx)
	return token, w.fail(before, err)
}

// discover requests the metadata of the issuer. Its error is a failure.
func (w *wire) discover(ctx context.Context, issuer string) (*clientcredentials.ServerMetadata, error) {
	before := len(w.sent())
	m, err := clientcredentials.Discover(context.WithValue(ctx, oauth2.HTTPClient, w.client()), issuer)
	return m, w.fail(before, err)
}

// fail returns err with its exit status. The first exchanges, as many as before says,
// have nothing to do with err.
func (w *wire) fail(before int, err error) error {
	sent := w.sent()[before:]
	switch {
	case err == nil:
		return nil
	case len(sent) == 0:
		return &failure{statusUsage, err}
	}
	return &failure{requestStatus(err, sent[len(sent)-1].status), err}
}

// config returns a Config for the token endpoint at tokenURL.
func (s *settings) config(tokenURL string, m *method) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:       s.clientID,
		ClientSecret:   s.secret,
		TokenURL:       tokenURL,
		Issuer:         s.issuer,
		Scopes:         s.scopeList(),
		EndpointParams: s.form,
		AuthStyle:      m.style,
		ClientAuth:     m.auth,
		DPoP:           s.dpop,
	}
}

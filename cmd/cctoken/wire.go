package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
)

// A wire carries requests, and remembers how each went, but nothing of what they
// held. It is safe for concurrent use.
type wire struct {
	base *http.Transport

	mu        sync.Mutex // protects the rest
	exchanges []exchange
	left      int // how many requests may still be sent
}

// An exchange is one request and its answer.
type exchange struct {
	method, url    string // without a query
	status         int    // 0: no answer
	date           string // the field Date of the answer
	sent, answered time.Time
	reused         bool // an older connection
	tls            *tls.ConnectionState
	proto          string
}

var errTooMany = errors.New("more requests than were announced; this is a mistake in cctoken")

// newWire returns a wire for so many requests, the connections of which present
// that certificate, if any.
//
// The library would have its transport present it, if that were an *http.Transport.
func newWire(s *settings, cert *tls.Certificate, requests int) *wire {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{RootCAs: s.roots}
	if cert != nil {
		base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return &wire{base: base, left: requests}
}

func (w *wire) client() *http.Client { return &http.Client{Transport: w} }

// close closes the connections.
func (w *wire) close() { w.base.CloseIdleConnections() }

// RoundTrip sends a request, unless there are too many.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.left--
	exceeded := w.left < 0
	w.mu.Unlock()
	if exceeded {
		return nil, errTooMany
	}
	e := exchange{method: req.Method, url: printableURL(req.URL.String()), sent: time.Now()}
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

// sent returns what was sent, oldest first.
func (w *wire) sent() []exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]exchange(nil), w.exchanges...)
}

// token requests a token by conf, through w. Its error has the exit status it stands for.
func (w *wire) token(ctx context.Context, conf *clientcredentials.Config) (*oauth2.Token, error) {
	before := len(w.sent())
	conf.HTTPClient = w.client()
	token, err := conf.Token(ctx)
	return token, w.fail(before, err)
}

// discover asks the issuer for its metadata. Its error is as that of token.
func (w *wire) discover(ctx context.Context, issuer string) (*clientcredentials.ServerMetadata, error) {
	before := len(w.sent())
	m, err := clientcredentials.Discover(context.WithValue(ctx, oauth2.HTTPClient, w.client()), issuer)
	return m, w.fail(before, err)
}

// fail returns err with the exit status it stands for, after what was sent since there
// were so many exchanges.
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

// config returns a Config for the token endpoint at that address.
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

package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
)

// A client is a client of an authorization server, and its connections to the upstreams.
type client struct {
	fingerprint [sha256.Size]byte
	source      *clientcredentials.Source
	base        *http.Transport // for requests to the upstreams
}

// clientFingerprint returns what distinguishes the options of a client from others. Secrets,
// other keys and certificates are read again when they are needed.
func clientFingerprint(options map[string]string) [sha256.Size]byte {
	return fingerprint(options, options["ca_file"], options["dpop_key_file"])
}

// fingerprint returns what distinguishes options from others, together with the files that are
// read only once.
func fingerprint(options any, files ...string) [sha256.Size]byte {
	parts := []any{options} // Maps are encoded in the order of their keys.
	for _, file := range files {
		data, _ := os.ReadFile(file) // Reading the options reports the error.
		parts = append(parts, data)
	}
	text, _ := json.Marshal(parts)
	return sha256.Sum256(text)
}

// newClient returns the client with these options. If they name an issuer but no token
// endpoint, it asks the issuer for its metadata.
func newClient(ctx context.Context, options map[string]string, shared *clientcredentials.SharedStore, observer *clientcredentials.Observer) (*client, error) {
	s := clientsettings.Settings{InFile: true}
	for _, o := range clientsettings.Options {
		*o.At(&s) = options[o.Member()]
	}
	if err := s.Complete(ctx); err != nil {
		return nil, err
	}
	m, err := s.Method(ctx)
	if err != nil {
		return nil, err
	}
	base := newTransport(&tls.Config{RootCAs: s.Roots, MinVersion: tls.VersionTLS12})
	tokens := &http.Client{Transport: base.Clone()} // Token requests don't wait for a connection of an upstream.
	conf := &clientcredentials.Config{TokenURL: s.TokenURL}
	if s.TokenURL == "" {
		metadata, err := clientcredentials.Discover(context.WithValue(ctx, oauth2.HTTPClient, tokens), s.Issuer)
		if err != nil {
			return nil, answered(err)
		}
		if conf, err = s.Discovered(m, metadata); err != nil {
			return nil, err
		}
		if m.Name == "" {
			m.Style = conf.AuthStyle
		}
	}
	// A secret can be replaced while the program runs, so it is read for each token request.
	// That needs one of the two forms.
	secret := clientauth.SecretFile(s.SecretFile)
	switch {
	case m.Auth != nil:
	case m.Style == oauth2.AuthStyleInParams:
		m.Auth = &clientauth.ClientSecretPost{Secret: secret}
	default:
		m.Auth = &clientauth.ClientSecretBasic{Secret: secret}
	}
	s.Fill(conf, m)
	conf.ClientSecret = ""
	conf.HTTPClient = tokens
	conf.Store = shared
	if shared != nil && conf.ClientID == "" && !conf.EndpointParams.Has("client_id") {
		return nil, errors.New("a client without a client id can't share its tokens, because nobody could tell whose they are; give client_id, and set omit_client_id to true if it mustn't be sent")
	}
	conf.Observer = observer
	return &client{
		fingerprint: clientFingerprint(options),
		source:      conf.Source(context.Background()),
		base:        base,
	}, nil
}

// newTransport returns a transport with connections for many requests to few upstreams.
func newTransport(config *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
		MaxIdleConnsPerHost:   1024,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // Bodies pass as they are.
	}
}

// failureText says why there is no token, without anything that a server has said but an
// error code of RFC 6749, Section 5.2.
func failureText(err error) string {
	var refusal *oauth2.RetrieveError
	switch {
	case err == nil:
		return ""
	case clientcredentials.IsTemporary(err):
		return "the authorization server doesn't answer, or is overloaded"
	case errors.As(err, &refusal):
		code := "see the log" // Any other code is a text of the server.
		switch refusal.ErrorCode {
		case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client",
			"unsupported_grant_type", "invalid_scope", "invalid_target", "invalid_dpop_proof":
			code = refusal.ErrorCode
		}
		return "the authorization server refuses to issue a token (" + code + ")"
	}
	return "no token can be requested, or the answer to the request can't be used"
}

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"os"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// A Network says how servers are reached that the public internet doesn't have.
type Network struct {
	// CAFile has the certificates, in PEM, of the authorities to trust instead of
	// those of the system.
	CAFile string

	// Proxy is where requests go through: http://proxy.example.com:3128. Nil: what
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
	Proxy *url.URL

	// Certificate is what the client presents when a server asks for one. Nil: none.
	Certificate clientauth.CertificateSource
}

// Transport returns a RoundTripper for that network. It has a pool of connections:
// make one and keep it.
func (n Network) Transport() (*http.Transport, error) {
	pem, err := os.ReadFile(n.CAFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + n.CAFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // Its timeouts and HTTP/2, too.
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if n.Proxy != nil {
		transport.Proxy = http.ProxyURL(n.Proxy)
	}
	if n.Certificate != nil {
		// It reads its files again when they have changed. Certificates, plural,
		// would stay what it was.
		transport.TLSClientConfig.GetClientCertificate = n.Certificate.GetClientCertificate
	}
	return transport, nil
}

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

// A Network describes how to reach servers that are not on the public internet.
type Network struct {
	// CAFile is a PEM file with the certificates of the authorities to trust, instead
	// of those of the system.
	CAFile string

	// Proxy is the proxy for all requests: http://proxy.example.com:3128. Nil: use
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
	Proxy *url.URL

	// Certificate is presented when a server asks for one. Nil: none.
	Certificate clientauth.CertificateSource
}

// Transport returns a transport for the network. It has a pool of connections, so make
// one and keep it.
func (n Network) Transport() (*http.Transport, error) {
	pem, err := os.ReadFile(n.CAFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + n.CAFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // Keeps its timeouts and HTTP/2.
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if n.Proxy != nil {
		transport.Proxy = http.ProxyURL(n.Proxy)
	}
	if n.Certificate != nil {
		// This function reads the files again when they have changed. The field
		// Certificates would keep the old certificate.
		transport.TLSClientConfig.GetClientCertificate = n.Certificate.GetClientCertificate
	}
	return transport, nil
}

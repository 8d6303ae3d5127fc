package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"time"
)

// A pki is a certificate authority, and the certificate it gave the servers.
type pki struct {
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	server tls.Certificate
}

// identityPEM is how a program takes a certificate, and whom to trust.
type identityPEM struct {
	Key  string `json:"key"`
	Cert string `json:"cert"`
	CA   string `json:"ca"`
}

// testPKI returns the certificate authority of all tests.
var testPKI = sync.OnceValue(func() *pki {
	ca := certificate(nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "conformance tests"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	})
	p := &pki{ca: ca.Leaf, key: ca.PrivateKey.(*ecdsa.PrivateKey)}
	p.server = certificate(p, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "authorization server"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return p
})

// client returns a certificate for a client, signed by p, or by itself if p is nil.
func (p *pki) client(template x509.Certificate) tls.Certificate {
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return certificate(p, &template)
}

// certificate completes the template and signs it with a new key's certificate
// authority, or with the new key itself.
func certificate(p *pki, template *x509.Certificate) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(time.Hour)
	issuer, signer := template, key
	if p != nil {
		issuer, signer = p.ca, p.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// config returns the TLS configuration of a client that trusts p's servers and
// shows a certificate, if any.
func (p *pki) config(shows ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(p.ca)
	config := &tls.Config{RootCAs: roots}
	if len(shows) > 0 {
		// From Certificates crypto/tls would choose only what is signed by one of
		// the authorities that the server names: never a self-signed one.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &shows[0], nil
		}
	}
	return config
}

func (p *pki) serverPEM() *identityPEM {
	key, err := x509.MarshalPKCS8PrivateKey(p.server.PrivateKey)
	if err != nil {
		panic(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return &identityPEM{
		Key:  block("PRIVATE KEY", key),
		Cert: block("CERTIFICATE", p.server.Certificate[0]),
		CA:   block("CERTIFICATE", p.ca.Raw),
	}
}

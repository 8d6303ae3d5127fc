package testkit

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// ClientCertificate returns a self-signed client certificate with that common name.
func ClientCertificate(name string) *tls.Certificate {
	return NewCertificate(x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, nil, nil)
}

// ServerCertificate returns a self-signed certificate for a server on the loopback
// interface: for 127.0.0.1 and localhost. Clients trust it through [Roots].
func ServerCertificate() *tls.Certificate {
	return NewCertificate(x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, nil, nil)
}

// CA returns the certificate of a new certification authority. Use it as the issuer of
// [NewCertificate].
func CA(name string) *tls.Certificate {
	return NewCertificate(x509.Certificate{
		Subject:  pkix.Name{CommonName: name},
		IsCA:     true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
}

// NewCertificate returns a certificate with the fields of template. If key is nil, it has a
// new key (P-256). If issuer is nil, it is self-signed.
//
// These fields have a default if they are empty in template: a random serial number, a
// random common name, a validity from an hour ago until 24 hours from now, and a key usage
// for signatures.
func NewCertificate(template x509.Certificate, issuer *tls.Certificate, key crypto.Signer) *tls.Certificate {
	if key == nil {
		key = NewKey("ES256")
	}
	if template.SerialNumber == nil {
		template.SerialNumber = must(rand.Int(rand.Reader, big.NewInt(1<<62)))
	}
	if template.Subject.String() == "" {
		template.Subject.CommonName = rand.Text()
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if template.KeyUsage == 0 {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	template.BasicConstraintsValid = template.BasicConstraintsValid || template.IsCA
	if issuer == nil {
		issuer = &tls.Certificate{Leaf: &template, PrivateKey: key}
	}
	der := must(x509.CreateCertificate(rand.Reader, &template, issuer.Leaf, key.Public(), issuer.PrivateKey))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: must(x509.ParseCertificate(der))}
}

// Roots returns a pool that trusts these certificates.
func Roots(certificates ...*tls.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c.Leaf)
	}
	return pool
}

// CertificatePEM returns the certificate as PEM, without its key.
func CertificatePEM(c *tls.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("testkit: %v", err))
	}
	return value
}

package clientauth_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// entra returns a Config for an application of Microsoft Entra ID that trusts the issuer and
// the subject of a certificate, so that each certificate that the issuer renews is accepted at
// once. tenant is https://login.microsoftonline.com/ with the tenant's id.
func entra(tenant, applicationID string, certificate clientauth.CertificateSource) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: applicationID,
		TokenURL: tenant + "/oauth2/v2.0/token",
		Scopes:   []string{"https://graph.microsoft.com/.default"},
		ClientAuth: &clientauth.PrivateKeyJWT{
			Key:               clientauth.CertificateKey(certificate),
			Algorithm:         "PS256",
			CertificateHeader: []string{"x5c", "x5t#S256"},
		},
	}
}

func ExamplePrivateKeyJWT_entra() {
	issuer, key := testkit.CA("issuer"), testkit.NewKey("PS256")
	certificate := testkit.NewCertificate(x509.Certificate{Subject: pkix.Name{CommonName: "reports"}}, issuer, key)
	certificate.Certificate = append(certificate.Certificate, issuer.Certificate...)
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "application", PublicKeys: []crypto.PublicKey{key.Public()},
	})
	defer srv.Close()

	tenant := strings.TrimSuffix(srv.TokenURL, "/token") + "/tenant"
	conf := entra(tenant, "application", func(context.Context) (*tls.Certificate, error) { return certificate, nil })
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	request := srv.Auth.Requests()[0]
	fmt.Println(request.URL, request.Assertion.Header["alg"], len(request.Assertion.Header["x5c"].([]any)))
	// Output: /tenant/oauth2/v2.0/token PS256 2
}

// smart returns a Config for a backend service of SMART App Launch, with which hospitals open
// their FHIR servers. The key is registered with its key id as a JWK Set, see clientauth.JWKS.
func smart(tokenURL, clientID string, key clientauth.KeySource) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: clientID,
		TokenURL: tokenURL,
		Scopes:   []string{"system/Patient.rs", "system/Observation.rs"},
		ClientAuth: &clientauth.PrivateKeyJWT{
			Key:       clientauth.ThumbprintKeyID(key),
			Algorithm: "ES384", // Servers must know ES384 or RS384.
			Audience:  tokenURL,
		},
	}
}

func ExamplePrivateKeyJWT_smart() {
	key := testkit.NewKey("ES384")
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{key.Public()},
	})
	defer srv.Close()

	conf := smart(srv.TokenURL, "reports", clientauth.SignerKey(key))
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	request := srv.Auth.Requests()[0]
	fmt.Println(request.Form.Get("scope"), request.Assertion.Header["alg"], request.Assertion.Header["kid"] != nil)
	// Output: system/Patient.rs system/Observation.rs ES384 true
}

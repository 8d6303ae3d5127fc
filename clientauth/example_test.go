package clientauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// The secret is in a file that is replaced from time to time.
func ExampleClientSecretBasic() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports", Secret: "s3cret"})
	defer srv.Close()
	dir, remove := files(map[string]string{"secret": "s3cret\n"})
	defer remove()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.ClientSecretBasic{Secret: clientauth.SecretFile(filepath.Join(dir, "secret"))},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: client_secret_basic
}

// The server compares the secret as it is sent, without the form encoding that
// RFC 6749 wants.
func ExampleClientSecretBasic_raw() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports", Secret: "100%=x", RawBasic: true})
	defer srv.Close()

	conf := &clientcredentials.Config{
		ClientID:     "reports",
		ClientSecret: "100%=x",
		TokenURL:     srv.TokenURL,
		ClientAuth:   &clientauth.ClientSecretBasic{Raw: true},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: client_secret_basic
}

// The secret comes from a secret manager.
func ExampleClientSecretPost() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports", Secret: "s3cret"})
	defer srv.Close()
	vault := func(ctx context.Context) (string, error) { return "s3cret", nil }

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.ClientSecretPost{Secret: vault},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: client_secret_post
}

func ExampleClientSecretJWT() {
	const secret = "a secret of 32 bytes or even more"
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports", Secret: secret})
	defer srv.Close()

	conf := &clientcredentials.Config{
		ClientID:     "reports",
		ClientSecret: secret,
		TokenURL:     srv.TokenURL,
		ClientAuth:   &clientauth.ClientSecretJWT{},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: client_secret_jwt
}

// The key is in a file; the server knows its public half.
func ExamplePrivateKeyJWT() {
	key, keyPEM := newKey()
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{key.Public()},
	})
	defer srv.Close()
	srv.Auth.Issuer = "https://login.example.com"
	dir, remove := files(map[string]string{"key.pem": keyPEM})
	defer remove()

	conf := &clientcredentials.Config{
		ClientID: "reports",
		TokenURL: srv.TokenURL,
		Issuer:   "https://login.example.com",
		ClientAuth: &clientauth.PrivateKeyJWT{
			Key:   clientauth.KeyFile(filepath.Join(dir, "key.pem")),
			KeyID: "2026-01",
		},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: private_key_jwt
}

// The key is in a hardware module, or with a key service: any crypto.Signer will do.
func ExampleSigner() {
	key, _ := newKey()
	var signer crypto.Signer = key
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{key.Public()},
	})
	defer srv.Close()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.PrivateKeyJWT{Key: clientauth.SignerKey(signer)},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: private_key_jwt
}

// A workload in Kubernetes authenticates with its service account token, which the
// kubelet replaces in the file.
func ExampleAssertion() {
	const token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YTpiIn0.c2lnbmF0dXJl"
	dir, remove := files(map[string]string{"token": token})
	defer remove()
	srv := clientcredentialstest.NewServer()
	defer srv.Close()

	conf := &clientcredentials.Config{
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.Assertion{Source: clientauth.SecretFile(filepath.Join(dir, "token"))},
	}
	// This server knows no cluster.
	_, err := conf.Token(context.Background())
	fmt.Println(err)
	fmt.Println(srv.Auth.Requests()[0].Form.Get("client_assertion") == token)
	// Output:
	// oauth2: "invalid_client" "client authentication failed"
	// true
}

// The certificate and its key are in files, which a certificate manager replaces.
func ExampleTLSClientAuth() {
	authority, authorityKey, _, _ := newCertificate(nil, nil)
	certificate, _, certPEM, keyPEM := newCertificate(authority, authorityKey)
	srv := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
		ID: "reports", Certificates: []*x509.Certificate{certificate},
	})
	defer srv.Close()
	dir, remove := files(map[string]string{"tls.crt": certPEM, "tls.key": keyPEM})
	defer remove()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		HTTPClient: srv.Client(), // Trusts the server.
		ClientAuth: &clientauth.TLSClientAuth{
			Source: clientauth.CertificateFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")),
		},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: tls_client_auth
}

func ExampleSelfSignedTLSClientAuth() {
	certificate, key, _, _ := newCertificate(nil, nil)
	srv := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
		ID: "reports", Certificates: []*x509.Certificate{certificate},
	})
	defer srv.Close()

	pair := &tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}
	source := func(context.Context) (*tls.Certificate, error) { return pair, nil }
	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		HTTPClient: srv.Client(), // Trusts the server.
		ClientAuth: &clientauth.SelfSignedTLSClientAuth{Source: source},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: self_signed_tls_client_auth
}

// The certificate is for more than tokens: any connection of the program presents it,
// and the one that replaces it in the files.
func ExampleCertificateSource_GetClientCertificate() {
	certificate, _, certPEM, keyPEM := newCertificate(nil, nil)
	srv := clientcredentialstest.NewTLSServer()
	defer srv.Close()
	dir, remove := files(map[string]string{"tls.crt": certPEM, "tls.key": keyPEM})
	defer remove()

	source := clientauth.CertificateFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	transport := srv.Client().Transport.(*http.Transport).Clone() // Trusts the server.
	transport.TLSClientConfig.GetClientCertificate = source.GetClientCertificate
	defer transport.CloseIdleConnections()

	conf := &clientcredentials.Config{
		ClientID:     clientcredentialstest.ClientID,
		ClientSecret: clientcredentialstest.ClientSecret,
		TokenURL:     srv.TokenURL,
		HTTPClient:   &http.Client{Transport: transport},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].Certificate.Equal(certificate))
	// Output: true
}

// A server knows the client by its certificate, and wants an assertion that is signed
// with the key of that and names it, instead of a TLS connection with it.
func ExampleCertificateKey() {
	certificate, _, certPEM, keyPEM := newCertificate(nil, nil)
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{certificate.PublicKey},
	})
	defer srv.Close()
	dir, remove := files(map[string]string{"tls.crt": certPEM, "tls.key": keyPEM})
	defer remove()

	source := clientauth.CertificateFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.PrivateKeyJWT{Key: clientauth.CertificateKey(source)},
	}
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
	// Output: private_key_jwt
}

// files writes files into a new directory, for the length of an example.
func files(contents map[string]string) (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "clientauth")
	check(err)
	for name, content := range contents {
		check(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir, func() { check(os.RemoveAll(dir)) }
}

func newKey() (key *ecdsa.PrivateKey, keyPEM string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// newCertificate returns a certificate that is issued by another, or by itself.
func newCertificate(issuer *x509.Certificate, issuerKey crypto.Signer) (certificate *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM string) {
	key, keyPEM = newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: rand.Text()},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	check(err)
	certificate, err = x509.ParseCertificate(der)
	check(err)
	return certificate, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), keyPEM
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

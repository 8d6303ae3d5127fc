package clientauth_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
)

// The secret is in a file that is replaced from time to time.
func ExampleClientSecretBasic() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{ID: "reports", Secret: "s3cret"})
	defer srv.Close()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.ClientSecretBasic{Secret: clientauth.SecretFile("testdata/secret")},
	}
	printMethod(srv, conf)
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
	printMethod(srv, conf)
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
	printMethod(srv, conf)
	// Output: client_secret_jwt
}

// The private key is in a file, and the server knows the public key.
func ExamplePrivateKeyJWT() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{load("testdata/issued.pem").Leaf.PublicKey},
	})
	defer srv.Close()
	srv.Auth.Issuer = "https://login.example.com"

	conf := &clientcredentials.Config{
		ClientID: "reports",
		TokenURL: srv.TokenURL,
		Issuer:   "https://login.example.com",
		ClientAuth: &clientauth.PrivateKeyJWT{
			Key:   clientauth.KeyFile("testdata/key.pem"),
			KeyID: "2026-01",
		},
	}
	printMethod(srv, conf)
	// Output: private_key_jwt
}

// The server wants a claim of its own, an array as audience, and no client_id beside the
// assertion.
func ExamplePrivateKeyJWT_claims() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()

	conf := &clientcredentials.Config{
		ClientID: "reports",
		TokenURL: srv.TokenURL,
		ClientAuth: &clientauth.PrivateKeyJWT{
			Key: clientauth.KeyFile("testdata/key.pem"),
			Claims: func(context.Context) (map[string]any, error) {
				return map[string]any{
					"tenant": "acme",
					"aud":    []string{"https://login.example.com", "https://login.example.com/token"},
				}, nil
			},
			Replace:      []string{"aud"},
			OmitClientID: true,
		},
	}
	// The fake server knows no client, so it refuses this one.
	_, err := conf.Token(context.Background())
	fmt.Println(err)
	request := srv.Auth.Requests()[0]
	fmt.Println(request.Assertion.Claims["tenant"], request.Assertion.Claims["aud"], request.Form.Has("client_id"))
	// Output:
	// oauth2: "invalid_client" "client authentication failed"
	// acme [https://login.example.com https://login.example.com/token] false
}

// Microsoft Entra ID can trust an issuer and a subject instead of one certificate. Then it
// wants the certificate with its chain in the header of the assertion.
func ExamplePrivateKeyJWT_certificateHeader() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{load("testdata/issued.pem").Leaf.PublicKey},
	})
	defer srv.Close()

	source := clientauth.CertificateFiles("testdata/issued.pem", "testdata/key.pem")
	conf := &clientcredentials.Config{
		ClientID: "reports",
		TokenURL: srv.TokenURL,
		ClientAuth: &clientauth.PrivateKeyJWT{
			Key:               clientauth.CertificateKey(source),
			CertificateHeader: []string{"x5c", "x5t#S256"},
		},
	}
	printMethod(srv, conf)
	header := srv.Auth.Requests()[0].Assertion.Header
	fmt.Println(len(header["x5c"].([]any)), header["x5t#S256"] != nil)
	// Output:
	// private_key_jwt
	// 1 true
}

// The key is in a hardware module or in a key service. Any crypto.Signer will do.
func ExampleSignerKey() {
	signer := load("testdata/issued.pem").PrivateKey.(crypto.Signer)
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{signer.Public()},
	})
	defer srv.Close()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.PrivateKeyJWT{Key: clientauth.SignerKey(signer)},
	}
	printMethod(srv, conf)
	// Output: private_key_jwt
}

// A workload in Kubernetes authenticates with its service account token. The kubelet
// replaces the token in the file.
func ExampleAssertion() {
	srv := clientcredentialstest.NewServer()
	defer srv.Close()

	conf := &clientcredentials.Config{
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.Assertion{Source: clientauth.SecretFile("testdata/token")},
	}
	// This server trusts no cluster.
	_, err := conf.Token(context.Background())
	fmt.Println(err)
	fmt.Println(srv.Auth.Requests()[0].Form.Get("client_assertion"))
	// Output:
	// oauth2: "invalid_client" "client authentication failed"
	// eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YTpiIn0.c2lnbmF0dXJl
}

// The certificate and its key are in files that a certificate manager replaces.
func ExampleTLSClientAuth() {
	srv := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
		ID: "reports", Certificates: []*x509.Certificate{load("testdata/issued.pem").Leaf},
	})
	defer srv.Close()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		HTTPClient: srv.Client(), // It trusts the server.
		ClientAuth: &clientauth.TLSClientAuth{
			Source: clientauth.CertificateFiles("testdata/issued.pem", "testdata/key.pem"),
		},
	}
	printMethod(srv, conf)
	// Output: tls_client_auth
}

// The program has the certificate in memory.
func ExampleSelfSignedTLSClientAuth() {
	certificate := load("testdata/selfsigned.pem")
	srv := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{
		ID: "reports", Certificates: []*x509.Certificate{certificate.Leaf},
	})
	defer srv.Close()

	source := func(context.Context) (*tls.Certificate, error) { return certificate, nil }
	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		HTTPClient: srv.Client(), // It trusts the server.
		ClientAuth: &clientauth.SelfSignedTLSClientAuth{Source: source},
	}
	printMethod(srv, conf)
	// Output: self_signed_tls_client_auth
}

// Every connection of the program presents the certificate, not only those for tokens,
// and picks up new files.
func ExampleCertificateSource_GetClientCertificate() {
	srv := clientcredentialstest.NewTLSServer()
	defer srv.Close()

	source := clientauth.CertificateFiles("testdata/selfsigned.pem", "testdata/key.pem")
	transport := srv.Client().Transport.(*http.Transport).Clone() // It trusts the server.
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
	fmt.Println(srv.Auth.Requests()[0].Certificate.Subject)
	// Output: CN=reports
}

// The server knows the client by its certificate, but doesn't expect it in the TLS
// handshake. It expects an assertion that is signed with the certificate's key.
func ExampleCertificateKey() {
	srv := clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{load("testdata/issued.pem").Leaf.PublicKey},
	})
	defer srv.Close()

	source := clientauth.CertificateFiles("testdata/issued.pem", "testdata/key.pem")
	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   srv.TokenURL,
		ClientAuth: &clientauth.PrivateKeyJWT{Key: clientauth.CertificateKey(source)},
	}
	printMethod(srv, conf)
	// Output: private_key_jwt
}

// load returns a certificate with its key. Both certificates in testdata have the same
// key and are valid until 2125.
func load(file string) *tls.Certificate {
	pair, err := tls.LoadX509KeyPair(file, "testdata/key.pem")
	if err != nil {
		log.Fatal(err)
	}
	return &pair
}

// printMethod requests a token and prints the method by which the client authenticated.
func printMethod(srv *clientcredentialstest.Server, conf *clientcredentials.Config) {
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Auth.Requests()[0].AuthMethod)
}

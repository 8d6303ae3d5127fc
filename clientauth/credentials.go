package clientauth

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

// Credentials are a client identifier and a client secret that belong together, RFC 6749,
// Sections 2.2 and 2.3.1. Neither fmt nor encoding/json shows the secret.
type Credentials struct {
	// ClientID is the client identifier. Required.
	ClientID string

	// ClientSecret is the client's password. It may be empty if the client has another
	// credential, such as a private key.
	ClientSecret string
}

// A CredentialsSource returns a client identifier together with its secret. It is called
// for each attempt at a token, and also before a token is looked for in a store. So it
// should return the same credentials until they are rotated.
//
// It must be safe for concurrent use. Its errors must not contain the secret, because
// callers see them.
type CredentialsSource func(ctx context.Context) (Credentials, error)

// CredentialsFiles returns a source that reads two files at each call: one with the client
// identifier, and one with the client secret. Each is read as SecretFile reads a secret.
//
// An identifier and a secret are never mixed if both files are replaced at once, as Kubernetes
// does in the volume of a Secret: it renames a symbolic link to their directory. The
// identifier is read before and after the secret. If it has changed, both are read again.
// A program that writes one file after the other should write one file for CredentialsFile.
func CredentialsFiles(idFile, secretFile string) CredentialsSource {
	return func(context.Context) (Credentials, error) { return readCredentials(idFile, secretFile, readValue) }
}

// readValue returns the value in a file.
func readValue(path string, v keyfile.ValueOf) (string, error) { return parseFile(path, v.Parse) }

// readCredentials reads two files with read until they belong together.
func readCredentials(idFile, secretFile string, read func(path string, v keyfile.ValueOf) (string, error)) (c Credentials, err error) {
	for range maxReadings {
		if c.ClientID, err = read(idFile, clientID); err != nil {
			return Credentials{}, err
		}
		if c.ClientSecret, err = read(secretFile, "secret"); err != nil {
			return Credentials{}, err
		}
		if again, err := read(idFile, clientID); err != nil {
			return Credentials{}, err
		} else if again == c.ClientID {
			return c, nil
		}
	}
	return Credentials{}, fmt.Errorf("the files %s and %s are replaced all the time; wait until that ends", idFile, secretFile)
}

const clientID keyfile.ValueOf = "client identifier"

// CredentialsFile returns a source that reads a JSON file at each call. The client
// identifier and the client secret are its members client_id and client_secret, as in the
// answer of an authorization server to a registration (RFC 7591, Section 3.2.1). The
// second may be missing, and other members are ignored. A program that replaces the
// file should write a new one and rename it.
//
// It is an error if SecretFile would refuse the file or one of the values.
func CredentialsFile(path string) CredentialsSource {
	return func(context.Context) (Credentials, error) { return parseFile(path, parseCredentials) }
}

// parseCredentials returns the credentials in the JSON in a file.
func parseCredentials(data []byte) (Credentials, error) {
	var c struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	}
	text := keyfile.Text(data)
	_, err := strictjson.Object(text)
	if err == nil {
		err = strictjson.Unmarshal(text, &c)
	}
	if err == nil {
		err = clientID.CheckVisible(c.ClientID)
	}
	if err == nil && c.ClientSecret != "" {
		err = keyfile.ValueOf("secret").CheckVisible(c.ClientSecret)
	}
	if err != nil {
		return Credentials{}, err
	}
	return Credentials(c), nil
}

// ClientIDFile returns a source that reads a file with a client identifier at each call, as
// SecretFile reads a secret. It is for a client that has no secret, but a private key.
func ClientIDFile(path string) CredentialsSource {
	return func(context.Context) (c Credentials, err error) {
		c.ClientID, err = readValue(path, clientID)
		return c, err
	}
}

// WithCredentials returns a method like the given one, for a client whose identifier is
// rotated together with its secret or key. Both come from source, instead of the ClientID
// and ClientSecret of the Config. A nil method is ClientSecretBasic.
//
// An identifier and a secret that don't belong together are never sent, unless source
// itself returns them. If the server refuses credentials that have been replaced since, the
// request is repeated at once with the new ones. Tokens outlive a rotation. Through a store,
// they are shared by replicas that have the same identifier.
//
// If source returns no secret, the method has the credential: a key, a certificate, or a
// secret of its own. Then the identifier is read before and after that credential, and both
// again if it has changed. An exception are certificates, which CertificateFiles reads at
// most once a second: for that long, a new identifier may be sent with the old certificate.
//
// The result is a [clientcredentials.ClientIdentifier], and a
// [clientcredentials.CertificateAuth] if the given method is one. It is safe for concurrent
// use if source and method are.
func WithCredentials(source CredentialsSource, method clientcredentials.ClientAuth) clientcredentials.ClientAuth {
	if method == nil {
		method = new(ClientSecretBasic)
	}
	auth := identified{source, method}
	if _, ok := method.(clientcredentials.CertificateAuth); ok {
		return &identifiedCertificate{auth}
	}
	return &auth
}

// An identified is a method whose client identifier comes from a source.
type identified struct {
	source CredentialsSource
	method clientcredentials.ClientAuth
}

// An identifiedCertificate is an identified whose method uses a certificate.
type identifiedCertificate struct{ identified }

// Certificate returns the certificate of the given method.
func (a *identifiedCertificate) Certificate(ctx context.Context) (*tls.Certificate, error) {
	return a.method.(clientcredentials.CertificateAuth).Certificate(ctx)
}

// Method returns the name of the given method.
func (a *identified) Method() string { return a.method.Method() }

// ClientID returns the client identifier that the source has now.
func (a *identified) ClientID(ctx context.Context) (string, error) {
	c, err := a.credentials(ctx)
	return c.ClientID, err
}

// credentials returns what the source has now.
func (a *identified) credentials(ctx context.Context) (Credentials, error) {
	if a.source == nil {
		return Credentials{}, errors.New("there are no credentials; give WithCredentials a source")
	}
	c, err := a.source(ctx)
	if err == nil {
		err = clientID.Check(c.ClientID)
	}
	return c, err
}

// Authenticate adds what the given method does, for the client that the source names.
func (a *identified) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	c, err := a.credentials(ctx)
	if err == nil && c.ClientSecret != "" && hasSecret(a.method) {
		err = errors.New("the secret comes from WithCredentials; don't set Secret in its method")
	}
	header, form := attempt.Header, http.Header(attempt.Form)
	for range maxReadings {
		if err != nil {
			return err
		}
		attempt.ClientID, attempt.ClientSecret = c.ClientID, c.ClientSecret // The Config's secret belongs to another identifier.
		attempt.Header, attempt.Form, attempt.CredentialID = header.Clone(), url.Values(form.Clone()), ""
		if err := a.method.Authenticate(ctx, attempt); err != nil {
			return err
		}
		attempt.CredentialID = c.ClientID + " " + attempt.CredentialID
		if c.ClientSecret != "" {
			return nil
		}
		if c, err = a.credentials(ctx); err == nil && c.ClientID == attempt.ClientID {
			return nil
		}
	}
	return cmp.Or(err, errors.New("the client identifier is replaced all the time; wait until that ends"))
}

// hasSecret reports whether method gets a secret from a source of its own.
func hasSecret(method clientcredentials.ClientAuth) bool {
	switch method := method.(type) {
	case *ClientSecretBasic:
		return method.Secret != nil
	case *ClientSecretPost:
		return method.Secret != nil
	case *ClientSecretJWT:
		return method.Secret != nil
	}
	return false
}

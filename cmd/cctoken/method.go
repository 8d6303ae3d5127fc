package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// The names of -auth-method: those of the IANA registry, and one for the Basic that
// RFC 6749 doesn't have.
const (
	secretBasic    = "client_secret_basic"
	secretBasicRaw = "client_secret_basic_raw"
	secretPost     = "client_secret_post"
	secretJWT      = "client_secret_jwt"
	privateKeyJWT  = "private_key_jwt"
	tlsAuth        = "tls_client_auth"
	selfSignedTLS  = "self_signed_tls_client_auth"
	spiffeJWT      = "spiffe_jwt"
)

var methodNames = []string{secretBasic, secretBasicRaw, secretPost, secretJWT, privateKeyJWT, tlsAuth, selfSignedTLS, spiffeJWT}

// A method is a way to authenticate, as the settings allow it.
type method struct {
	name     string
	auth     clientcredentials.ClientAuth // nil: by style
	style    oauth2.AuthStyle
	audience string           // of its assertions
	cert     *tls.Certificate // that the connection presents; nil: none
	code     string           // the fields of a Config for it, in Go
}

// registered returns the name by which servers know m.
func (m *method) registered() string { return strings.TrimSuffix(m.name, "_raw") }

// authMethodName returns the method that the settings ask for, or the one that goes
// with the credentials there are; "" is a secret in either form.
func (s *settings) authMethodName(ctx context.Context) (string, error) {
	switch {
	case s.authMethod != "":
		return s.authMethod, nil
	case s.assertionFile != "":
		return privateKeyJWT, nil
	case s.certFile != "":
		return s.certificateMethod(ctx)
	case s.keyFile != "":
		return privateKeyJWT, nil
	}
	return "", nil
}

// certificateMethod returns the method for the certificate: its issuer tells.
func (s *settings) certificateMethod(ctx context.Context) (string, error) {
	pair, err := clientauth.CertificateFiles(s.certFile, s.keyFile)(ctx)
	if err != nil {
		return "", usagef("-cert-file: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return "", usagef("-cert-file: %w", err)
	}
	if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
		return selfSignedTLS, nil
	}
	return tlsAuth, nil
}

// newMethod returns the method of that name; "" is a secret in either form. The files that it needs have been read
// once, so that what is wrong with them is known before anything is sent.
func (s *settings) newMethod(ctx context.Context, name string) (*method, error) {
	m := &method{name: name, audience: s.assertionAudience}
	var err error
	switch name {
	case "":
	case secretBasic:
		m.style, m.code = oauth2.AuthStyleInHeader, s.secretCode("ClientSecretBasic")
	case secretPost:
		m.style, m.code = oauth2.AuthStyleInParams, s.secretCode("ClientSecretPost")
	case secretBasicRaw:
		m.auth = &clientauth.ClientSecretBasic{Raw: true}
		m.code = s.secretCode("ClientSecretBasic", "Raw: true")
	case secretJWT:
		m.auth = &clientauth.ClientSecretJWT{Algorithm: s.algorithm, Audience: m.audience}
		m.code = s.secretCode("ClientSecretJWT", stringField("Algorithm", s.algorithm), stringField("Audience", m.audience))
	case privateKeyJWT:
		err = s.assertion(ctx, m)
	case spiffeJWT:
		if s.assertionFile == "" {
			return nil, usagef("%s needs -assertion-file", name)
		}
		m.auth = &clientauth.Assertion{Source: clientauth.SecretFile(s.assertionFile), Type: clientauth.TypeJWTSPIFFE}
		m.code = literal("Assertion", fmt.Sprintf("Source: clientauth.SecretFile(%q)", s.assertionFile), "Type: clientauth.TypeJWTSPIFFE")
	case tlsAuth, selfSignedTLS:
		err = s.certificate(ctx, m)
	default:
		return nil, usagef("-auth-method is none of %s", strings.Join(methodNames, ", "))
	}
	if err == nil && m.needsSecret() && s.secret == "" {
		err = usagef("%s needs a secret; set CLIENT_SECRET in the environment, or give -secret-file", cmp.Or(name, "the client"))
	}
	return m, err
}

func (m *method) needsSecret() bool {
	return m.name == "" || strings.HasPrefix(m.name, "client_secret_")
}

// assertion completes private_key_jwt, whose assertion is signed here or elsewhere.
func (s *settings) assertion(ctx context.Context, m *method) error {
	if s.assertionFile != "" {
		m.auth = &clientauth.Assertion{Source: clientauth.SecretFile(s.assertionFile)}
		m.code = literal("Assertion", fmt.Sprintf("Source: clientauth.SecretFile(%q)", s.assertionFile))
		return nil
	}
	if s.keyFile == "" {
		return usagef("%s needs -key-file or -assertion-file", m.name)
	}
	key, code := clientauth.KeyFile(s.keyFile), fmt.Sprintf("clientauth.KeyFile(%q)", s.keyFile)
	if s.certFile != "" {
		key = clientauth.CertificateKey(clientauth.CertificateFiles(s.certFile, s.keyFile))
		code = "clientauth.CertificateKey(" + s.certificateCode() + ")"
	}
	if _, err := key(ctx); err != nil {
		return usagef("-key-file: %w", err)
	}
	m.auth = &clientauth.PrivateKeyJWT{Key: key, Algorithm: s.algorithm, KeyID: s.keyID, Audience: m.audience}
	m.code = literal("PrivateKeyJWT", "Key: "+code, stringField("Algorithm", s.algorithm), stringField("KeyID", s.keyID), stringField("Audience", m.audience))
	return nil
}

// certificate completes a method with a certificate.
func (s *settings) certificate(ctx context.Context, m *method) error {
	if s.certFile == "" {
		return usagef("%s needs -cert-file and -key-file", m.name)
	}
	source := clientauth.CertificateFiles(s.certFile, s.keyFile)
	pair, err := source(ctx)
	if err != nil {
		return usagef("-cert-file: %w", err)
	}
	m.cert = pair
	if m.name == tlsAuth {
		m.auth = &clientauth.TLSClientAuth{Source: source}
		m.code = literal("TLSClientAuth", "Source: "+s.certificateCode())
	} else {
		m.auth = &clientauth.SelfSignedTLSClientAuth{Source: source}
		m.code = literal("SelfSignedTLSClientAuth", "Source: "+s.certificateCode())
	}
	return nil
}

func (s *settings) certificateCode() string {
	return fmt.Sprintf("clientauth.CertificateFiles(%q, %q)", s.certFile, s.keyFile)
}

// withAudience returns m with that audience in its assertions.
func (s *settings) withAudience(ctx context.Context, m *method, audience string) (*method, error) {
	other := *s
	other.assertionAudience = audience
	return other.newMethod(ctx, m.name)
}

// secretCode returns the fields for a secret that a type of clientauth sends, or
// that the Config does: a secret in a file is read again for each token.
func (s *settings) secretCode(typ string, fields ...string) string {
	const variable = "ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\n"
	if s.secretFile != "" {
		return literal(typ, append([]string{fmt.Sprintf("Secret: clientauth.SecretFile(%q)", s.secretFile)}, fields...)...)
	}
	switch {
	case typ == "ClientSecretBasic" && len(fields) == 0:
		return variable + "AuthStyle: oauth2.AuthStyleInHeader,\n"
	case typ == "ClientSecretPost":
		return variable + "AuthStyle: oauth2.AuthStyleInParams,\n"
	}
	return variable + literal(typ, fields...)
}

// literal returns the field ClientAuth with a value of that type. Empty fields are
// left out.
func literal(typ string, fields ...string) string {
	var lines string
	for _, field := range fields {
		if field != "" {
			lines += "\n" + field + ","
		}
	}
	if lines != "" {
		lines += "\n"
	}
	return fmt.Sprintf("ClientAuth: &clientauth.%s{%s},\n", typ, lines)
}

// stringField returns a field of a literal; nothing for the zero value.
func stringField(name, value string) string {
	if value == "" {
		return ""
	}
	return fmt.Sprintf("%s: %q", name, value)
}

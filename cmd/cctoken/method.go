package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// The values of -auth-method: the names in the IANA registry, and one for Basic without
// the encoding of RFC 6749.
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

// A method is a way to authenticate, with the credentials in the settings.
type method struct {
	name     string                       // empty: the secret in the header or in the body
	auth     clientcredentials.ClientAuth // nil: by style
	style    oauth2.AuthStyle
	audience string           // of its assertions; empty: the library's default
	cert     *tls.Certificate // for the connection; nil: none
	code     string           // the fields of a Config for it, in Go
}

// registered returns the name of the method in the IANA registry; empty: that depends on
// the style.
func (m *method) registered() string {
	if m.auth != nil {
		return m.auth.Method()
	}
	return m.name
}

func (m *method) needsSecret() bool {
	return m.name == "" || strings.HasPrefix(m.name, "client_secret_")
}

// authMethodName returns the name of the method that the settings ask for, or else of
// the one that their credentials suggest.
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

// certificateMethod returns the name of the method for the client certificate.
func (s *settings) certificateMethod(ctx context.Context) (string, error) {
	pair, err := s.certificate(ctx)
	if err != nil {
		return "", err
	}
	if bytes.Equal(pair.Leaf.RawIssuer, pair.Leaf.RawSubject) {
		return selfSignedTLS, nil
	}
	return tlsAuth, nil
}

// newMethod returns the method with this name. It reads the files that the method
// needs, so that an error in them is reported before anything is sent.
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
		m.auth = &clientauth.ClientSecretJWT{Algorithm: s.algorithm, Audience: m.audience, OmitClientID: s.omitsClientID()}
		m.code = s.secretCode("ClientSecretJWT", stringField("Algorithm", s.algorithm), stringField("Audience", m.audience), s.omitCode())
	case privateKeyJWT:
		err = s.signOrReadAssertion(ctx, m)
	case spiffeJWT:
		if s.assertionFile == "" {
			return nil, usagef("%s needs -assertion-file", name)
		}
		m.auth = &clientauth.Assertion{Source: clientauth.SecretFile(s.assertionFile), Type: clientauth.TypeJWTSPIFFE, OmitClientID: s.omitsClientID()}
		m.code = literal("Assertion", s.assertionCode(), "Type: clientauth.TypeJWTSPIFFE", s.omitCode())
	case tlsAuth, selfSignedTLS:
		err = s.presentCertificate(ctx, m)
	default:
		return nil, usagef("-auth-method must be one of %s", strings.Join(methodNames, ", "))
	}
	if err == nil && m.needsSecret() && s.secret == "" {
		err = usagef("%s needs a secret; set CLIENT_SECRET in the environment, or give -secret-file", cmp.Or(name, "the client"))
	}
	return m, err
}

// signOrReadAssertion completes m for private_key_jwt.
func (s *settings) signOrReadAssertion(ctx context.Context, m *method) error {
	if s.assertionFile != "" {
		m.auth = &clientauth.Assertion{Source: clientauth.SecretFile(s.assertionFile), OmitClientID: s.omitsClientID()}
		m.code = literal("Assertion", s.assertionCode(), s.omitCode())
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
	header := strings.Fields(s.certHeader)
	m.auth = &clientauth.PrivateKeyJWT{
		Key: key, Algorithm: s.algorithm, KeyID: s.keyID, Audience: m.audience,
		CertificateHeader: header, OmitClientID: s.omitsClientID(),
	}
	headerCode := ""
	if len(header) > 0 {
		headerCode = fmt.Sprintf("CertificateHeader: %#v", header)
	}
	m.code = literal("PrivateKeyJWT", "Key: "+code, stringField("Algorithm", s.algorithm), stringField("KeyID", s.keyID), stringField("Audience", m.audience), headerCode, s.omitCode())
	return nil
}

// presentCertificate completes m for one of the methods of RFC 8705.
func (s *settings) presentCertificate(ctx context.Context, m *method) (err error) {
	if s.certFile == "" {
		return usagef("%s needs -cert-file and -key-file", m.name)
	}
	if m.cert, err = s.certificate(ctx); err != nil {
		return err
	}
	source := clientauth.CertificateFiles(s.certFile, s.keyFile)
	if m.name == tlsAuth {
		m.auth = &clientauth.TLSClientAuth{Source: source}
		m.code = literal("TLSClientAuth", "Source: "+s.certificateCode())
	} else {
		m.auth = &clientauth.SelfSignedTLSClientAuth{Source: source}
		m.code = literal("SelfSignedTLSClientAuth", "Source: "+s.certificateCode())
	}
	return nil
}

// with returns m with this algorithm and audience in its assertions.
func (s *settings) with(ctx context.Context, m *method, algorithm, audience string) (*method, error) {
	other := *s
	other.algorithm, other.assertionAudience = algorithm, audience
	return other.newMethod(ctx, m.name)
}

func (s *settings) omitsClientID() bool { return s.omitClientID == "true" }

// omitCode returns the field of a literal that leaves out client_id, or nothing.
func (s *settings) omitCode() string {
	if !s.omitsClientID() {
		return ""
	}
	return "OmitClientID: true"
}

func (s *settings) certificateCode() string {
	return fmt.Sprintf("clientauth.CertificateFiles(%q, %q)", s.certFile, s.keyFile)
}

func (s *settings) assertionCode() string {
	return fmt.Sprintf("Source: clientauth.SecretFile(%q)", s.assertionFile)
}

// secretCode returns the fields of a Config that sends a secret as a type of clientauth
// does. For a secret from the environment, an AuthStyle may do the same.
func (s *settings) secretCode(typ string, fields ...string) string {
	const variable = "ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\n"
	switch {
	case s.secretFile != "":
		return literal(typ, append([]string{fmt.Sprintf("Secret: clientauth.SecretFile(%q)", s.secretFile)}, fields...)...)
	case typ == "ClientSecretBasic" && len(fields) == 0:
		return variable + "AuthStyle: oauth2.AuthStyleInHeader,\n"
	case typ == "ClientSecretPost":
		return variable + "AuthStyle: oauth2.AuthStyleInParams,\n"
	}
	return variable + literal(typ, fields...)
}

// literal returns the field ClientAuth with a value of a type of clientauth. It leaves
// out empty fields.
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

// stringField returns a field of a literal, or nothing if the value is empty.
func stringField(name, value string) string {
	if value == "" {
		return ""
	}
	return fmt.Sprintf("%s: %q", name, value)
}

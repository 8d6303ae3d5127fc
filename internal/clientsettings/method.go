package clientsettings

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
	SecretBasic    = "client_secret_basic"
	SecretBasicRaw = "client_secret_basic_raw"
	SecretPost     = "client_secret_post"
	SecretJWT      = "client_secret_jwt"
	PrivateKeyJWT  = "private_key_jwt"
	TLSAuth        = "tls_client_auth"
	SelfSignedTLS  = "self_signed_tls_client_auth"
	SpiffeJWT      = "spiffe_jwt"
)

var methodNames = []string{SecretBasic, SecretBasicRaw, SecretPost, SecretJWT, PrivateKeyJWT, TLSAuth, SelfSignedTLS, SpiffeJWT}

// A Method is a way to authenticate, with the credentials in the settings.
type Method struct {
	Name     string                       // empty: the secret in the header or in the body
	Auth     clientcredentials.ClientAuth // nil: by style
	Style    oauth2.AuthStyle
	Audience string           // of its assertions; empty: the library's default
	Cert     *tls.Certificate // for the connection; nil: none
	Code     string           // the fields of a Config for it, in Go
}

// Registered returns the name of the method in the IANA registry; empty: that depends on
// the style.
func (m *Method) Registered() string {
	if m.Auth != nil {
		return m.Auth.Method()
	}
	return m.Name
}

func (m *Method) needsSecret() bool {
	return m.Name == "" || strings.HasPrefix(m.Name, "client_secret_")
}

// Method returns the method that the settings ask for, or else the one that their credentials
// suggest. It reads the files that the method needs, as NewMethod does.
func (s *Settings) Method(ctx context.Context) (*Method, error) {
	name, err := s.methodName(ctx)
	if err != nil {
		return nil, err
	}
	return s.NewMethod(ctx, name)
}

func (s *Settings) methodName(ctx context.Context) (string, error) {
	switch {
	case s.AuthMethod != "":
		return s.AuthMethod, nil
	case s.AssertionFile != "":
		return PrivateKeyJWT, nil
	case s.CertFile != "":
		return s.CertificateMethod(ctx)
	case s.KeyFile != "":
		return PrivateKeyJWT, nil
	}
	return "", nil
}

// CertificateMethod returns the name of the method for the client certificate.
func (s *Settings) CertificateMethod(ctx context.Context) (string, error) {
	pair, err := s.Certificate(ctx)
	if err != nil {
		return "", err
	}
	if bytes.Equal(pair.Leaf.RawIssuer, pair.Leaf.RawSubject) {
		return SelfSignedTLS, nil
	}
	return TLSAuth, nil
}

// NewMethod returns the method with this name. It reads the files that the method
// needs, so that an error in them is reported before anything is sent.
func (s *Settings) NewMethod(ctx context.Context, name string) (*Method, error) {
	m := &Method{Name: name, Audience: s.AssertionAudience}
	var err error
	switch name {
	case "":
	case SecretBasic:
		m.Style, m.Code = oauth2.AuthStyleInHeader, s.SecretCode("ClientSecretBasic")
	case SecretPost:
		m.Style, m.Code = oauth2.AuthStyleInParams, s.SecretCode("ClientSecretPost")
	case SecretBasicRaw:
		m.Auth = &clientauth.ClientSecretBasic{Raw: true, Secret: s.secretSource()}
		m.Code = s.SecretCode("ClientSecretBasic", "Raw: true")
	case SecretJWT:
		m.Auth = &clientauth.ClientSecretJWT{Secret: s.secretSource(), Algorithm: s.Algorithm, Audience: m.Audience, OmitClientID: s.omitsClientID()}
		m.Code = s.SecretCode("ClientSecretJWT", stringField("Algorithm", s.Algorithm), stringField("Audience", m.Audience), s.omitCode())
	case PrivateKeyJWT:
		err = s.signOrReadAssertion(ctx, m)
	case SpiffeJWT:
		if s.AssertionFile == "" {
			return nil, fmt.Errorf("%s needs %s", name, s.named("assertion-file"))
		}
		m.Auth = &clientauth.Assertion{Source: clientauth.SecretFile(s.AssertionFile), Type: clientauth.TypeJWTSPIFFE, OmitClientID: s.omitsClientID()}
		m.Code = literal("Assertion", s.assertionCode(), "Type: clientauth.TypeJWTSPIFFE", s.omitCode())
	case TLSAuth, SelfSignedTLS:
		err = s.presentCertificate(ctx, m)
	default:
		return nil, fmt.Errorf("%s must be one of %s", s.named("auth-method"), strings.Join(methodNames, ", "))
	}
	if err == nil && m.needsSecret() && s.Secret == "" {
		err = fmt.Errorf("%s needs a secret; %s", cmp.Or(name, "the client"), s.giveSecret())
	}
	return m, err
}

// signOrReadAssertion completes m for private_key_jwt.
func (s *Settings) signOrReadAssertion(ctx context.Context, m *Method) error {
	if s.AssertionFile != "" {
		m.Auth = &clientauth.Assertion{Source: clientauth.SecretFile(s.AssertionFile), OmitClientID: s.omitsClientID()}
		m.Code = literal("Assertion", s.assertionCode(), s.omitCode())
		return nil
	}
	if s.KeyFile == "" {
		return fmt.Errorf("%s needs %s or %s", m.Name, s.named("key-file"), s.named("assertion-file"))
	}
	key, code := clientauth.KeyFile(s.KeyFile), fmt.Sprintf("clientauth.KeyFile(%q)", s.KeyFile)
	if s.CertFile != "" {
		key = clientauth.CertificateKey(clientauth.CertificateFiles(s.CertFile, s.KeyFile))
		code = "clientauth.CertificateKey(" + s.certificateCode() + ")"
	}
	if _, err := key(ctx); err != nil {
		return fmt.Errorf("%s: %w", s.named("key-file"), err)
	}
	header := strings.Fields(s.CertHeader)
	m.Auth = &clientauth.PrivateKeyJWT{
		Key: key, Algorithm: s.Algorithm, KeyID: s.KeyID, Audience: m.Audience,
		CertificateHeader: header, OmitClientID: s.omitsClientID(),
	}
	headerCode := ""
	if len(header) > 0 {
		headerCode = fmt.Sprintf("CertificateHeader: %#v", header)
	}
	m.Code = literal("PrivateKeyJWT", "Key: "+code, stringField("Algorithm", s.Algorithm), stringField("KeyID", s.KeyID), stringField("Audience", m.Audience), headerCode, s.omitCode())
	return nil
}

// presentCertificate completes m for one of the methods of RFC 8705.
func (s *Settings) presentCertificate(ctx context.Context, m *Method) (err error) {
	if s.CertFile == "" {
		return fmt.Errorf("%s needs %s and %s", m.Name, s.named("cert-file"), s.named("key-file"))
	}
	if m.Cert, err = s.Certificate(ctx); err != nil {
		return err
	}
	source := clientauth.CertificateFiles(s.CertFile, s.KeyFile)
	if m.Name == TLSAuth {
		m.Auth = &clientauth.TLSClientAuth{Source: source}
		m.Code = literal("TLSClientAuth", "Source: "+s.certificateCode())
	} else {
		m.Auth = &clientauth.SelfSignedTLSClientAuth{Source: source}
		m.Code = literal("SelfSignedTLSClientAuth", "Source: "+s.certificateCode())
	}
	return nil
}

// With returns m with this algorithm and audience in its assertions.
func (s *Settings) With(ctx context.Context, m *Method, algorithm, audience string) (*Method, error) {
	other := *s
	other.Algorithm, other.AssertionAudience = algorithm, audience
	return other.NewMethod(ctx, m.Name)
}

func (s *Settings) omitsClientID() bool { return s.OmitClientID == "true" }

// omitCode returns the field of a literal that leaves out client_id, or nothing.
func (s *Settings) omitCode() string {
	if !s.omitsClientID() {
		return ""
	}
	return "OmitClientID: true"
}

func (s *Settings) certificateCode() string {
	return fmt.Sprintf("clientauth.CertificateFiles(%q, %q)", s.CertFile, s.KeyFile)
}

func (s *Settings) assertionCode() string {
	return fmt.Sprintf("Source: clientauth.SecretFile(%q)", s.AssertionFile)
}

// SecretCode returns the fields of a Config that sends a secret as a type of clientauth
// does. For a secret from the environment, an AuthStyle may do the same.
func (s *Settings) SecretCode(typ string, fields ...string) string {
	const variable = "ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\n"
	switch {
	case s.SecretFile != "":
		return literal(typ, append([]string{fmt.Sprintf("Secret: clientauth.SecretFile(%q)", s.SecretFile)}, fields...)...)
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

// Fill sets the fields of conf that don't depend on the server, for m.
func (s *Settings) Fill(conf *clientcredentials.Config, m *Method) {
	conf.ClientID, conf.ClientSecret = s.ClientID, s.Secret
	conf.Issuer = s.Issuer
	conf.Scopes, conf.EndpointParams = s.ScopeList(), s.Form
	conf.AuthStyle, conf.ClientAuth = m.Style, m.Auth
	conf.DPoP = s.DPoP
}

// Discovered returns the Config for m that the metadata leads to.
func (s *Settings) Discovered(m *Method, metadata *clientcredentials.ServerMetadata) (*clientcredentials.Config, error) {
	return metadata.Complete(&clientcredentials.Config{ClientID: s.ClientID, ClientAuth: m.Auth})
}

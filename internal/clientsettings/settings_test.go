package clientsettings

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// folder returns a folder with the files that the tests name.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	self := testkit.NewCertificate(x509.Certificate{Subject: pkix.Name{CommonName: "c"}, NotAfter: time.Now().Add(time.Hour)}, nil, nil)
	issued := testkit.NewCertificate(x509.Certificate{Subject: pkix.Name{CommonName: "d"}, NotAfter: time.Now().Add(time.Hour)}, self, nil)
	for name, text := range map[string]string{
		"secret": "SecretCanary-SecretCanary-SecretCanary", "key": testkit.KeyPEM(self.PrivateKey), "cert": testkit.CertificatePEM(self),
		"issuedkey": testkit.KeyPEM(issued.PrivateKey), "issued": testkit.CertificatePEM(issued),
		"odd": "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// read returns the settings in a JSON object, and the method that they lead to.
func read(t *testing.T, text, dir string, inFile bool) (*Settings, *Method, error) {
	t.Helper()
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(text), &members))
	values, err := Values(members, dir)
	if err != nil {
		return nil, nil, err
	}
	s := &Settings{InFile: inFile}
	for _, o := range Options {
		*o.At(s) = values[o.Member()]
	}
	if err := s.Complete(t.Context()); err != nil {
		return nil, nil, err
	}
	m, err := s.Method(t.Context())
	return s, m, err
}

// TestX1_ErrorsNameTheSetting checks that errors name flags or members, whichever there are,
// and no secret.
func TestX1_ErrorsNameTheSetting(t *testing.T) {
	dir := folder(t)
	const client = `"client_id": "c", "token_url": "https://a.example", `
	for _, tt := range []struct{ text, flag, member string }{
		{`{}`, "give -client-id, or set CLIENT_ID", "give client_id"},
		{`{"client_id": "c"}`, "give -token-url or -issuer, or set TOKEN_URL or ISSUER", "give token_url or issuer"},
		{`{"client_id": "c", "token_url": "a"}`, "-token-url is not absolute", "token_url is not absolute"},
		{`{` + client + `"params": "%"}`, "-params is not form-encoded", "params is not form-encoded"},
		{`{` + client + `"params": "scope=a", "scopes": "b"}`, "there is also -scopes", "there is also scopes"},
		{`{` + client + `"params": "password=SecretCanary"}`, "the name of a secret; set CLIENT_SECRET", "the name of a secret; put it into a file"},
		{`{` + client + `"secret_file": "none"}`, "-secret-file: ", "secret_file: "},
		{`{` + client + `"ca_file": "none"}`, "-ca-file: ", "ca_file: "},
		{`{` + client + `"ca_file": "secret"}`, "-ca-file: the file ", "ca_file: the file "},
		{`{` + client + `"ca_file": "odd"}`, "has no certificate that can be read", "has no certificate that can be read"},
		{`{` + client + `"dpop_key_file": "secret"}`, "-dpop-key-file: ", "dpop_key_file: "},
		{`{` + client[:len(client)-2] + `}`, "give -secret-file, -key-file, -key-file and -cert-file, or -assertion-file", "secret_file, key_file, key_file and cert_file, or assertion_file"},
		{`{` + client + `"secret_file": "secret", "cert_file": "cert"}`, "-cert-file needs", "give it with key_file"},
		{`{` + client + `"secret_file": "secret", "cert_header": "x5c"}`, "-cert-header is about", "cert_header is about"},
		{`{` + client + `"secret_file": "secret", "omit_client_id": "yes"}`, "-omit-client-id must be", "omit_client_id must be"},
		{`{` + client + `"secret_file": "secret", "auth_method": "basic"}`, "-auth-method must be one of", "auth_method must be one of"},
		{`{` + client + `"secret_file": "secret", "auth_method": "private_key_jwt"}`, "needs -key-file or -assertion-file", "needs key_file or assertion_file"},
		{`{` + client + `"secret_file": "secret", "auth_method": "spiffe_jwt"}`, "needs -assertion-file", "needs assertion_file"},
		{`{` + client + `"secret_file": "secret", "auth_method": "tls_client_auth"}`, "needs -cert-file and -key-file", "needs cert_file and key_file"},
		{`{` + client + `"key_file": "key", "auth_method": "client_secret_post"}`, "set CLIENT_SECRET", "name that with secret_file"},
		{`{` + client + `"key_file": "secret"}`, "-key-file: ", "key_file: "},
		{`{` + client + `"key_file": "secret", "cert_file": "cert"}`, "-cert-file: ", "cert_file: "},
		{`{` + client + `"key_file": "secret", "cert_file": "cert", "auth_method": "tls_client_auth"}`, "-cert-file: ", "cert_file: "},
		{`{"client_secret": "SecretCanary"}`, "name that with secret_file", "name that with secret_file"},
		{`{"clientId": "SecretCanary"}`, "isn't a setting", "isn't a setting"},
		{`{"client_id": null}`, "is not a string", "is not a string"},
		{`{"client_id": ["SecretCanary"]}`, "is not a string", "is not a string"},
	} {
		for inFile, want := range map[bool]string{false: tt.flag, true: tt.member} {
			_, _, err := read(t, tt.text, dir, inFile)
			require.ErrorContains(t, err, want, tt.text)
			assert.NotContains(t, err.Error(), "Canary")
		}
	}
}

// TestMethods checks which method the settings lead to, the Go code for it, and the Config.
func TestMethods(t *testing.T) {
	dir := folder(t)
	for _, tt := range []struct{ text, name, code string }{
		{`"secret_file": "secret"`, "", ""},
		{`"secret_file": "secret", "auth_method": "client_secret_basic"`, "client_secret_basic", "Secret: clientauth.SecretFile("},
		{`"secret_file": "secret", "auth_method": "client_secret_post"`, "client_secret_post", "clientauth.ClientSecretPost{"},
		{`"secret_file": "secret", "auth_method": "client_secret_basic_raw"`, "client_secret_basic", "Raw: true"},
		{`"secret_file": "secret", "auth_method": "client_secret_jwt", "algorithm": "HS256"`, "client_secret_jwt", `Algorithm: "HS256"`},
		{`"key_file": "key", "omit_client_id": "true"`, "private_key_jwt", "OmitClientID: true"},
		{`"key_file": "key", "cert_file": "cert", "auth_method": "private_key_jwt", "cert_header": "x5c"`, "private_key_jwt", `CertificateHeader: []string{"x5c"}`},
		{`"key_file": "key", "cert_file": "cert"`, "self_signed_tls_client_auth", "clientauth.SelfSignedTLSClientAuth{"},
		{`"key_file": "issuedkey", "cert_file": "issued"`, "tls_client_auth", "clientauth.TLSClientAuth{"},
		{`"assertion_file": "secret"`, "private_key_jwt", "clientauth.Assertion{"},
		{`"assertion_file": "secret", "auth_method": "spiffe_jwt"`, "spiffe_jwt", "TypeJWTSPIFFE"},
	} {
		s, m, err := read(t, `{"client_id": "c", "token_url": "https://a.example", "scopes": "a b", "ca_file": "cert", "dpop_key_file": "key", `+tt.text+`}`, dir, true)
		require.NoError(t, err, tt.text)
		assert.Equal(t, tt.name, m.Registered(), tt.text)
		assert.Contains(t, m.Code, tt.code)
		assert.NotContains(t, m.Code, "Canary")
		conf, err := s.Discovered(m, &clientcredentials.ServerMetadata{Issuer: "https://a.example", TokenEndpoint: "https://a.example/token"})
		require.NoError(t, err)
		s.Fill(conf, m)
		assert.Equal(t, []string{"a", "b"}, conf.Scopes)
		assert.NotNil(t, conf.DPoP)
		assert.NotNil(t, s.Roots)
		assert.Equal(t, "a b", s.Requested())
		assert.Equal(t, m.Auth == nil, strings.HasPrefix(tt.name, "client_secret_") && conf.AuthStyle != oauth2.AuthStyleAutoDetect || tt.name == "")
		other, err := s.With(t.Context(), m, "ES256", "https://b.example")
		require.NoError(t, err)
		assert.Equal(t, "https://b.example", other.Audience)
	}
	s := &Settings{Secret: "SecretCanary"}
	assert.Equal(t, "ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\nAuthStyle: oauth2.AuthStyleInHeader,\n", s.SecretCode("ClientSecretBasic"))
	assert.Contains(t, s.SecretCode("ClientSecretPost"), "AuthStyleInParams")
	assert.Contains(t, s.SecretCode("ClientSecretJWT"), "ClientSecretJWT{}")
	assert.Equal(t, "KEY_FILE", Option{Flag: "key-file"}.Variable())
}

// Package clientsettings has the settings of a client as the commands of this project read
// them: which there are, what they mean together, and the method of authentication that they
// lead to. It also has what each command says of its version.
package clientsettings

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// Settings name a client, its credentials and the server. Complete checks them.
type Settings struct {
	// What the options set. All are texts, and empty if they aren't set.
	ClientID, TokenURL, Issuer, Scopes, Params string

	AuthMethod                          string
	SecretFile                          string
	KeyFile, CertFile, AssertionFile    string
	KeyID, Algorithm, AssertionAudience string
	CertHeader, OmitClientID            string
	DPoPKeyFile                         string
	CAFile                              string

	// InFile is true if the settings come from a file alone. Then errors name members of
	// that file instead of flags.
	InFile bool

	// Secret is the client secret, from the environment or from SecretFile.
	Secret string

	// These are set by Complete.
	Form  url.Values     // Params
	Roots *x509.CertPool // includes those in CAFile; nil: the system's
	DPoP  crypto.Signer  // from DPoPKeyFile; nil: none
}

// An Option is a setting, by the name of its flag.
type Option struct {
	Flag string
	At   func(*Settings) *string
}

// Options are all settings.
var Options = []Option{
	{"client-id", func(s *Settings) *string { return &s.ClientID }},
	{"token-url", func(s *Settings) *string { return &s.TokenURL }},
	{"issuer", func(s *Settings) *string { return &s.Issuer }},
	{"scopes", func(s *Settings) *string { return &s.Scopes }},
	{"params", func(s *Settings) *string { return &s.Params }},
	{"auth-method", func(s *Settings) *string { return &s.AuthMethod }},
	{"secret-file", func(s *Settings) *string { return &s.SecretFile }},
	{"key-file", func(s *Settings) *string { return &s.KeyFile }},
	{"key-id", func(s *Settings) *string { return &s.KeyID }},
	{"algorithm", func(s *Settings) *string { return &s.Algorithm }},
	{"assertion-audience", func(s *Settings) *string { return &s.AssertionAudience }},
	{"cert-file", func(s *Settings) *string { return &s.CertFile }},
	{"cert-header", func(s *Settings) *string { return &s.CertHeader }},
	{"assertion-file", func(s *Settings) *string { return &s.AssertionFile }},
	{"omit-client-id", func(s *Settings) *string { return &s.OmitClientID }},
	{"dpop-key-file", func(s *Settings) *string { return &s.DPoPKeyFile }},
	{"ca-file", func(s *Settings) *string { return &s.CAFile }},
}

// Member returns the option's name in a file.
func (o Option) Member() string { return strings.ReplaceAll(o.Flag, "-", "_") }

// Variable returns the option's name in the environment.
func (o Option) Variable() string { return strings.ToUpper(o.Member()) }

func (o Option) isFile() bool { return strings.HasSuffix(o.Flag, "-file") }

// named returns what errors call the option with this flag.
func (s *Settings) named(flag string) string {
	if s.InFile {
		return Option{Flag: flag}.Member()
	}
	return "-" + flag
}

// give says how to give one of these options.
func (s *Settings) give(flags ...string) string {
	names, variables := make([]string, len(flags)), make([]string, len(flags))
	for i, flag := range flags {
		names[i], variables[i] = s.named(flag), Option{Flag: flag}.Variable()
	}
	text := "give " + strings.Join(names, " or ")
	if !s.InFile {
		text += ", or set " + strings.Join(variables, " or ")
	}
	return text
}

// giveSecret says how to give the client secret.
func (s *Settings) giveSecret() string {
	if s.InFile {
		return "put it into a file, and name that with secret_file"
	}
	return "set CLIENT_SECRET in the environment, or give -secret-file"
}

// secretSource returns a source that reads SecretFile, or nil if there is no such file.
func (s *Settings) secretSource() clientauth.SecretSource {
	if s.SecretFile == "" {
		return nil
	}
	return clientauth.SecretFile(s.SecretFile)
}

// Values returns the settings among the members of a JSON object, by the names of their
// members. Paths are relative to dir. Errors call the object "it".
func Values(members map[string]json.RawMessage, dir string) (map[string]string, error) {
	values := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		i := slices.IndexFunc(Options, func(o Option) bool { return o.Member() == name })
		var value *string // null is not a string.
		switch {
		case name == "client_secret":
			return nil, errors.New("it contains client_secret, but such a file is easily shared by mistake; remove it, put the secret into a file of its own, and name that with secret_file")
		case i < 0:
			return nil, fmt.Errorf("it contains %.30q, which isn't a setting", name)
		case json.Unmarshal(members[name], &value) != nil || value == nil:
			return nil, fmt.Errorf("%s in it is not a string", name)
		case Options[i].isFile():
			*value = InFolder(dir, *value)
		}
		values[name] = *value
	}
	return values, nil
}

// InFolder returns a path that may be relative to dir. An empty one stays empty.
func InFolder(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// Complete checks the settings and reads the files that they name.
func (s *Settings) Complete(ctx context.Context) (err error) {
	if s.ClientID == "" && s.AssertionFile == "" {
		return fmt.Errorf("there is no client id; %s", s.give("client-id"))
	}
	if s.TokenURL == "" && s.Issuer == "" {
		return fmt.Errorf("there is no server; %s", s.give("token-url", "issuer"))
	}
	// The library leaves this to a RoundTripper of its caller, such as that of cctoken.
	if u, err := url.Parse(s.TokenURL); err == nil && s.TokenURL != "" && (u.Scheme == "" || u.Host == "") {
		return fmt.Errorf("%s is not absolute; give the whole address of the token endpoint, with scheme and host", s.named("token-url"))
	}
	if s.Form, err = url.ParseQuery(s.Params); err != nil {
		return fmt.Errorf("%s is not form-encoded; write it like audience=https://api.example.com&resource=https://api.example.com/v1", s.named("params"))
	}
	if s.Scopes != "" && s.Form.Has("scope") {
		return fmt.Errorf("%s contains scope, and there is also %s; leave one out", s.named("params"), s.named("scopes"))
	}
	for name := range s.Form {
		if redact.IsCredentialName(name) {
			return fmt.Errorf("%s contains a parameter with the name of a secret; %s", s.named("params"), s.giveSecret())
		}
	}
	if s.SecretFile != "" {
		if s.Secret, err = clientauth.SecretFile(s.SecretFile)(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.named("secret-file"), err)
		}
	}
	if s.CAFile != "" {
		if s.Roots, err = ReadRoots(s.CAFile); err != nil {
			return fmt.Errorf("%s: %w", s.named("ca-file"), err)
		}
	}
	if s.DPoPKeyFile != "" {
		key, err := clientauth.KeyFile(s.DPoPKeyFile)(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.named("dpop-key-file"), err)
		}
		s.DPoP = key.Signer
	}
	if s.Secret == "" && s.KeyFile == "" && s.AssertionFile == "" {
		return fmt.Errorf("there are no credentials; %s, %s, %s and %s, or %s", s.giveSecret(), s.named("key-file"), s.named("key-file"), s.named("cert-file"), s.named("assertion-file"))
	}
	if s.CertFile != "" && s.KeyFile == "" {
		return fmt.Errorf("%s needs the certificate's private key; give it with %s", s.named("cert-file"), s.named("key-file"))
	}
	if s.CertHeader != "" && s.CertFile == "" {
		return fmt.Errorf("%s is about a certificate; give it with %s", s.named("cert-header"), s.named("cert-file"))
	}
	if s.OmitClientID != "" && s.OmitClientID != "true" && s.OmitClientID != "false" {
		return fmt.Errorf("%s must be true or false", s.named("omit-client-id"))
	}
	return nil
}

// ReadRoots returns the system's certification authorities and those in a file.
func ReadRoots(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	certificates, err := keyfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("the file %s: %w", path, err)
	}
	found := false
	for _, der := range certificates { // Like crypto/x509, skip those of other kinds in a bundle.
		if certificate, err := x509.ParseCertificate(der); err == nil {
			roots.AddCert(certificate)
			found = true
		}
	}
	if !found {
		return nil, fmt.Errorf("the file %s has no certificate that can be read; openssl x509 -in FILE -text may say why", path)
	}
	return roots, nil
}

// Certificate reads the client certificate. Its Leaf is set.
func (s *Settings) Certificate(ctx context.Context) (*tls.Certificate, error) {
	pair, err := clientauth.CertificateFiles(s.CertFile, s.KeyFile)(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.named("cert-file"), err)
	}
	return pair, nil
}

// ScopeList returns the scopes.
func (s *Settings) ScopeList() []string { return strings.Fields(s.Scopes) }

// Requested returns the scopes that a token request contains.
func (s *Settings) Requested() string { return cmp.Or(s.Scopes, s.Form.Get("scope")) }

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
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

// settings name the client, its credentials and the server.
type settings struct {
	// The options.
	clientID, tokenURL, issuer, scopes, params string

	authMethod                          string
	secretFile                          string
	keyFile, certFile, assertionFile    string
	keyID, algorithm, assertionAudience string
	certHeader, omitClientID            string
	dpopKeyFile                         string
	caFile                              string

	// What the options name, and CLIENT_SECRET.
	secret string         // from CLIENT_SECRET or secretFile
	form   url.Values     // params
	roots  *x509.CertPool // includes those in caFile; nil: the system's
	dpop   crypto.Signer  // from dpopKeyFile; nil: none
}

// An option is a setting, by the name of its flag.
type option struct {
	flag string
	at   func(*settings) *string
}

var options = []option{
	{"client-id", func(s *settings) *string { return &s.clientID }},
	{"token-url", func(s *settings) *string { return &s.tokenURL }},
	{"issuer", func(s *settings) *string { return &s.issuer }},
	{"scopes", func(s *settings) *string { return &s.scopes }},
	{"params", func(s *settings) *string { return &s.params }},
	{"auth-method", func(s *settings) *string { return &s.authMethod }},
	{"secret-file", func(s *settings) *string { return &s.secretFile }},
	{"key-file", func(s *settings) *string { return &s.keyFile }},
	{"key-id", func(s *settings) *string { return &s.keyID }},
	{"algorithm", func(s *settings) *string { return &s.algorithm }},
	{"assertion-audience", func(s *settings) *string { return &s.assertionAudience }},
	{"cert-file", func(s *settings) *string { return &s.certFile }},
	{"cert-header", func(s *settings) *string { return &s.certHeader }},
	{"assertion-file", func(s *settings) *string { return &s.assertionFile }},
	{"omit-client-id", func(s *settings) *string { return &s.omitClientID }},
	{"dpop-key-file", func(s *settings) *string { return &s.dpopKeyFile }},
	{"ca-file", func(s *settings) *string { return &s.caFile }},
}

func (o option) member() string   { return strings.ReplaceAll(o.flag, "-", "_") } // of the file
func (o option) variable() string { return strings.ToUpper(o.member()) }          // of the environment
func (o option) isFile() bool     { return strings.HasSuffix(o.flag, "-file") }

// settings adds the flags for settings, parses c.args and returns the settings. A flag
// takes precedence over the environment, and the environment over the file.
func (c *call) settings(ctx context.Context) (*settings, error) {
	config := c.flags.String("config", "", "")
	given := make(map[string]*string)
	for _, o := range options {
		given[o.flag] = c.flags.String(o.flag, "", "")
	}
	if err := c.parse(); err != nil {
		return nil, err
	}
	file, err := readConfig(*config)
	if err != nil {
		return nil, err
	}
	s := settings{secret: c.env("CLIENT_SECRET")}
	byFlag := make(map[string]bool)
	c.flags.Visit(func(f *flag.Flag) { byFlag[f.Name] = true })
	for _, o := range options {
		if byFlag[o.flag] {
			*o.at(&s) = *given[o.flag]
		} else {
			*o.at(&s) = cmp.Or(c.env(o.variable()), file[o.member()])
		}
	}
	switch {
	case s.secret == "" || s.secretFile == "":
	case byFlag["secret-file"]:
		s.secret = ""
	case c.env("SECRET_FILE") != "":
		return nil, usagef("both CLIENT_SECRET and SECRET_FILE are set; unset one")
	default:
		s.secretFile = "" // The environment takes precedence over the file.
	}
	return &s, s.complete(ctx)
}

// readConfig returns the members of a file of settings. Paths in the file are relative
// to its directory.
func readConfig(path string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("-config: %w", err)
	}
	var members map[string]any
	decoder := json.NewDecoder(bytes.NewReader(keyfile.Text(data)))
	if err := decoder.Decode(&members); err != nil || decoder.More() {
		return nil, usagef("-config: %s must contain one JSON object", path) // err may quote a secret.
	}
	file := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		i := slices.IndexFunc(options, func(o option) bool { return o.member() == name })
		value, isText := members[name].(string)
		switch {
		case name == "client_secret":
			return nil, usagef("-config: %s contains client_secret, but such a file is easily shared by mistake; remove it, and set CLIENT_SECRET in the environment, or secret_file", path)
		case i < 0:
			return nil, usagef("-config: %s contains %.30q, which isn't a setting; see cctoken help", path, name)
		case !isText:
			return nil, usagef("-config: %s in %s is not a string", name, path)
		case options[i].isFile() && value != "" && !filepath.IsAbs(value):
			value = filepath.Join(filepath.Dir(path), value)
		}
		file[name] = value
	}
	return file, nil
}

// complete checks the settings and reads the files that they name.
func (s *settings) complete(ctx context.Context) (err error) {
	if s.clientID == "" && s.assertionFile == "" {
		return usagef("there is no client id; give -client-id, or set CLIENT_ID")
	}
	if s.tokenURL == "" && s.issuer == "" {
		return usagef("there is no server; give -token-url or -issuer, or set TOKEN_URL or ISSUER")
	}
	// The library leaves this to a RoundTripper of its caller, such as that of cctoken.
	if u, err := url.Parse(s.tokenURL); err == nil && s.tokenURL != "" && (u.Scheme == "" || u.Host == "") {
		return usagef("-token-url is not absolute; give the whole address of the token endpoint, with scheme and host")
	}
	if s.form, err = url.ParseQuery(s.params); err != nil {
		return usagef("-params is not form-encoded; write it like audience=https://api.example.com&resource=...")
	}
	if s.scopes != "" && s.form.Has("scope") {
		return usagef("-params contains scope, and there is also -scopes; leave one out")
	}
	for name := range s.form {
		if redact.IsCredentialName(name) {
			return usagef("-params contains a parameter with the name of a secret, and no flag takes a secret; see cctoken help")
		}
	}
	if s.secretFile != "" {
		if s.secret, err = clientauth.SecretFile(s.secretFile)(ctx); err != nil {
			return usagef("-secret-file: %w", err)
		}
	}
	if s.caFile != "" {
		if s.roots, err = readRoots(s.caFile); err != nil {
			return usagef("-ca-file: %w", err)
		}
	}
	if s.dpopKeyFile != "" {
		key, err := clientauth.KeyFile(s.dpopKeyFile)(ctx)
		if err != nil {
			return usagef("-dpop-key-file: %w", err)
		}
		s.dpop = key.Signer
	}
	if s.secret == "" && s.keyFile == "" && s.assertionFile == "" {
		return usagef("there are no credentials; set CLIENT_SECRET in the environment, or give -secret-file, -key-file, -key-file and -cert-file, or -assertion-file")
	}
	if s.certFile != "" && s.keyFile == "" {
		return usagef("-cert-file needs the certificate's private key; give it with -key-file")
	}
	if s.certHeader != "" && s.certFile == "" {
		return usagef("-cert-header is about a certificate; give it with -cert-file")
	}
	if s.omitClientID != "" && s.omitClientID != "true" && s.omitClientID != "false" {
		return usagef("-omit-client-id must be true or false")
	}
	return nil
}

// readRoots returns the system's certification authorities and those in a file.
func readRoots(path string) (*x509.CertPool, error) {
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

// certificate reads the client certificate. Its Leaf is set.
func (s *settings) certificate(ctx context.Context) (*tls.Certificate, error) {
	pair, err := clientauth.CertificateFiles(s.certFile, s.keyFile)(ctx)
	if err != nil {
		return nil, usagef("-cert-file: %w", err)
	}
	return pair, nil
}

func (s *settings) scopeList() []string { return strings.Fields(s.scopes) }

// requested returns the scopes that a token request contains.
func (s *settings) requested() string { return cmp.Or(s.scopes, s.form.Get("scope")) }

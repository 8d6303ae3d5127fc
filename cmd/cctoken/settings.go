package main

import (
	"cmp"
	"context"
	"flag"
	"os"
	"path/filepath"

	"github.com/seed-5bfa0880/clientcredentials/internal/clientsettings"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

// settings name the client, its credentials and the server.
type settings struct{ clientsettings.Settings }

// A method is a way to authenticate.
type method = clientsettings.Method

// The names of the methods.
const (
	secretBasic    = clientsettings.SecretBasic
	secretBasicRaw = clientsettings.SecretBasicRaw
	secretPost     = clientsettings.SecretPost
	secretJWT      = clientsettings.SecretJWT
	privateKeyJWT  = clientsettings.PrivateKeyJWT
	tlsAuth        = clientsettings.TLSAuth
	selfSignedTLS  = clientsettings.SelfSignedTLS
	spiffeJWT      = clientsettings.SpiffeJWT
)

// settings adds the flags for settings, parses c.args and returns the settings. A flag
// takes precedence over the environment, and the environment over the file.
func (c *call) settings(ctx context.Context) (*settings, error) {
	config := c.flags.String("config", "", "")
	given := make(map[string]*string)
	for _, o := range clientsettings.Options {
		given[o.Flag] = c.flags.String(o.Flag, "", "")
	}
	if err := c.parse(); err != nil {
		return nil, err
	}
	file, err := readConfig(*config)
	if err != nil {
		return nil, err
	}
	var s settings
	s.Secret = c.env("CLIENT_SECRET")
	byFlag := make(map[string]bool)
	c.flags.Visit(func(f *flag.Flag) { byFlag[f.Name] = true })
	for _, o := range clientsettings.Options {
		if byFlag[o.Flag] {
			*o.At(&s.Settings) = *given[o.Flag]
		} else {
			*o.At(&s.Settings) = cmp.Or(c.env(o.Variable()), file[o.Member()])
		}
	}
	switch {
	case s.Secret == "" || s.SecretFile == "":
	case byFlag["secret-file"]:
		s.Secret = ""
	case c.env("SECRET_FILE") != "":
		return nil, usagef("both CLIENT_SECRET and SECRET_FILE are set; unset one")
	default:
		s.SecretFile = "" // The environment takes precedence over the file.
	}
	return &s, s.Complete(ctx)
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
	members, err := strictjson.Object(keyfile.Text(data))
	if err != nil {
		return nil, usagef("-config: %s must contain one JSON object: %w", path, err)
	}
	values, err := clientsettings.Values(members, filepath.Dir(path))
	if err != nil {
		return nil, usagef("-config: %s can't be used: %w; see cctoken help", path, err)
	}
	return values, nil
}

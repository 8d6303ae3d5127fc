package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
)

// A registration is what a client with a key tells the authorization server about itself,
// RFC 7591, Section 2.
type registration struct {
	ClientName    string          `json:"client_name,omitempty"`
	GrantTypes    []string        `json:"grant_types"`
	ResponseTypes []string        `json:"response_types"` // Without it, servers assume code, which is for another grant.
	Scope         string          `json:"scope,omitempty"`
	AuthMethod    string          `json:"token_endpoint_auth_method"`
	Algorithm     string          `json:"token_endpoint_auth_signing_alg"`
	JWKS          json.RawMessage `json:"jwks"`
}

// makeKey is cctoken key.
func makeKey(ctx context.Context, c *call) error {
	out := c.flags.String("out", "", "")
	from := c.flags.String("from", "", "")
	algorithm := c.flags.String("algorithm", "", "")
	keyID := c.flags.String("key-id", "", "")
	onlyJWK := c.flags.Bool("jwk", false, "")
	name := c.flags.String("client-name", "", "")
	scopes := c.flags.String("scopes", "", "")
	if err := c.parse(); err != nil {
		return err
	}
	superfluous := false
	c.flags.Visit(func(f *flag.Flag) { superfluous = superfluous || f.Name != "out" && f.Name != "algorithm" })
	switch {
	case *out == "" && *from == "":
		return usagef("there is no file for the private key; give -out FILE for a new key, or -from FILE for the public part of one that exists")
	case *out != "" && *from != "":
		return usagef("-out is for a new key, and -from for one that exists; give one of them")
	case *out == "-" && superfluous:
		return usagef("-out - prints the private key alone; leave out the other flags, and use -from for the public part")
	}

	var private []byte // PEM; empty: the key exists
	source := clientauth.KeyFile(*from)
	if *from == "" {
		var err error
		if private, err = newPrivateKey(cmp.Or(*algorithm, "ES256")); err != nil {
			return usagef("-algorithm: %w", err)
		}
		source = clientauth.KeyBytes(private)
	}
	if *out == "-" {
		_, err := c.out.Write(private)
		return err
	}
	key, err := source(ctx)
	if err != nil {
		return usagef("-from: %w", err)
	}
	signing, err := jws.NewKey(key.Signer, cmp.Or(*algorithm, key.Algorithm))
	if err != nil {
		return usagef("-algorithm: %w", err)
	}
	key = &clientauth.SigningKey{Signer: key.Signer, KeyID: cmp.Or(*keyID, key.KeyID), Algorithm: signing.Algorithm()}
	set, err := clientauth.JWKS(func(context.Context) (*clientauth.SigningKey, error) { return key, nil }).JSON(ctx)
	if err != nil {
		return err
	}
	if private != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx) // Making an RSA key may take seconds.
		}
		if err := writePrivateKey(*out, private); err != nil {
			return err
		}
	}
	if *onlyJWK {
		var members struct{ Keys []json.RawMessage }
		if err := json.Unmarshal(set, &members); err != nil {
			return err
		}
		return writeJSON(c.out, members.Keys[0])
	}
	return writeJSON(c.out, registration{
		ClientName:    *name,
		GrantTypes:    []string{"client_credentials"},
		ResponseTypes: []string{},
		Scope:         strings.Join(strings.Fields(*scopes), " "),
		AuthMethod:    privateKeyJWT,
		Algorithm:     signing.Algorithm(),
		JWKS:          set,
	})
}

// newPrivateKey returns a new private key as PEM (PKCS #8).
func newPrivateKey(algorithm string) ([]byte, error) {
	signer, err := jws.GenerateKey(algorithm)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// writePrivateKey writes a private key into a file that doesn't exist yet, and that only its
// owner can read.
func writePrivateKey(path string, private []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return usagef("-out: %s exists already, and may be a key that is in use; give the name of a new file", path)
	case err != nil:
		return usagef("-out: %w", err)
	}
	_, err = file.Write(private)
	if err := cmp.Or(err, file.Sync(), file.Close()); err != nil {
		_ = os.Remove(path)
		return &failure{statusOutput, fmt.Errorf("the private key can't be written: %w", err)}
	}
	return nil
}

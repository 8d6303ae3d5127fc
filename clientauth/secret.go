package clientauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"unicode"

	"github.com/seed-5bfa0880/clientcredentials"
)

// maxFile bounds what is read of a file: a secret, a key, a chain of certificates.
const maxFile = 64 << 10

// A Secret returns a secret, such as a password from a secret manager, or a
// ready-made assertion. It is called for each attempt at a token, with the context
// of that: rotation needs nothing more. It must be safe for concurrent use, and its
// errors, which callers get to see, must not contain the secret.
type SecretSource func(ctx context.Context) (string, error)

// SecretFile returns a Secret that reads the file at each call: token requests are
// rare, and so a new secret counts from the next one on. A line break at the end of
// the file isn't part of the secret.
//
// A file that is missing, unreadable, empty, larger than 64 KiB or not a regular
// file is an error that names it, and so is a control character in it.
func SecretFile(path string) SecretSource {
	return func(context.Context) (string, error) {
		data, err := readFile(path)
		if err != nil {
			return "", err
		}
		secret := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
		if err := checkSecret(secret); err != nil {
			return "", fmt.Errorf("the file %s: %w", path, err)
		}
		return secret, nil
	}
}

// readFile returns the content of a small file.
func readFile(path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("the name of a file is empty; set it")
	}
	info, err := os.Stat(path) // To open a named pipe is to wait for its other end.
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("the file %s is larger than 64 KiB; check that it is the right one", path)
	}
	return data, err
}

// checkSecret reports what is certainly a mistake. RFC 6749, Appendix A.2, allows
// printable ASCII; servers take more.
func checkSecret(secret string) error {
	if secret == "" {
		return errors.New("the secret is empty")
	}
	if strings.ContainsFunc(secret, unicode.IsControl) {
		return errors.New("the secret contains a control character; remove line breaks and the like from where it is read")
	}
	return nil
}

// clientSecret returns what source does, or the secret of the Config if there is
// no source, and sets attempt.Credential.
func clientSecret(ctx context.Context, source SecretSource, attempt *clientcredentials.Attempt) (string, error) {
	if err := checkClientID(attempt); err != nil {
		return "", err
	}
	secret := attempt.ClientSecret
	if source != nil {
		var err error
		if secret, err = source(ctx); err != nil {
			return "", err
		}
	} else if secret == "" {
		return "", errors.New("there is no secret; set ClientSecret in the Config, or Secret in its ClientAuth")
	}
	if err := checkSecret(secret); err != nil {
		return "", err
	}
	attempt.CredentialID = fingerprint(secret)
	return secret, nil
}

func checkClientID(attempt *clientcredentials.Attempt) error {
	if attempt.ClientID == "" {
		return errors.New("ClientID is empty; set it in the Config")
	}
	return nil
}

// fingerprint tells one secret from another.
func fingerprint(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// ClientSecretBasic is client_secret_basic: the client's id and secret are sent in
// the Authorization header, RFC 6749, Section 2.3.1.
//
// A Config with AuthStyle does the same without it. It is for a secret that is
// rotated, and for servers that want Raw. It is safe for concurrent use.
type ClientSecretBasic struct {
	// Secret returns the secret. Nil: ClientSecret of the Config.
	Secret SecretSource

	// Raw sends the id and the secret as they are. RFC 6749 wants them
	// form-encoded first, and many servers don't: when those refuse a secret with
	// characters other than letters, digits and "-_.", try Raw. Then the id can't
	// have a colon (RFC 7617, Section 2): an error.
	Raw bool
}

// Method returns "client_secret_basic".
func (*ClientSecretBasic) Method() string { return "client_secret_basic" }

// Authenticate sets the Authorization header.
func (a *ClientSecretBasic) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	secret, err := clientSecret(ctx, a.Secret, attempt)
	if err != nil {
		return err
	}
	id := attempt.ClientID
	if !a.Raw {
		id, secret = url.QueryEscape(id), url.QueryEscape(secret)
	} else if strings.Contains(id, ":") {
		return errors.New("ClientID contains a colon, which ends it in a raw Authorization header; set Raw to false, or use ClientSecretPost")
	}
	attempt.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(id+":"+secret)))
	return nil
}

// ClientSecretPost is client_secret_post: the client's id and secret are sent in
// the body, RFC 6749, Section 2.3.1. It is safe for concurrent use.
type ClientSecretPost struct {
	// Secret returns the secret. Nil: ClientSecret of the Config.
	Secret SecretSource
}

// Method returns "client_secret_post".
func (*ClientSecretPost) Method() string { return "client_secret_post" }

// Authenticate sets client_id and client_secret.
func (a *ClientSecretPost) Authenticate(ctx context.Context, attempt *clientcredentials.Attempt) error {
	secret, err := clientSecret(ctx, a.Secret, attempt)
	if err != nil {
		return err
	}
	attempt.Form.Set("client_id", attempt.ClientID)
	attempt.Form.Set("client_secret", secret)
	return nil
}

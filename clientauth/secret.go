package clientauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/redact"
)

// A SecretSource returns a secret, such as a password from a secret manager, or a
// ready-made assertion. It is called for each attempt at a token, so that a rotated
// secret is used at once. The context is that of the attempt.
//
// It must be safe for concurrent use. Its errors must not contain the secret, because
// callers see them.
type SecretSource func(ctx context.Context) (string, error)

// SecretFile returns a source that reads the file at each call. Token requests are
// rare, and so a new secret is used from the next request on. A line break at the end
// of the file isn't part of the secret, nor is a byte order mark at its beginning. Text in
// UTF-16 with such a mark is read as well.
//
// It is an error if the file is missing, unreadable, empty, larger than 64 KiB or not
// a regular file, or if the secret contains a character that people can't see, such as a
// zero width space: it got there by mistake. The error names the file and the character. A
// SecretSource of your own may return such a secret, except for control characters.
func SecretFile(path string) SecretSource {
	return func(context.Context) (string, error) { return parseFile(path, keyfile.ValueOf("secret").Parse) }
}

// checkSecret reports mistakes that can't be meant.
func checkSecret(secret string) error { return keyfile.ValueOf("secret").Check(secret) }

// clientSecret returns the secret of source, or that of the Config if there is no
// source, and sets attempt.CredentialID.
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

// checkClientID reports a ClientID that is empty.
func checkClientID(attempt *clientcredentials.Attempt) error {
	if attempt.ClientID == "" {
		return errors.New("ClientID is empty; set it in the Config")
	}
	return nil
}

// fingerprint returns a CredentialID for a secret.
func fingerprint(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// ClientSecretBasic is client_secret_basic: the client sends its id and secret in the
// Authorization header, RFC 6749, Section 2.3.1. It is safe for concurrent use.
//
// A Config does the same with AuthStyle alone. Use ClientSecretBasic if the secret is
// rotated, or if the server needs Raw.
type ClientSecretBasic struct {
	// Secret returns the secret. Nil: ClientSecret of the Config.
	Secret SecretSource

	// Raw sends the id and the secret without form-encoding them first. RFC 6749
	// requires the encoding, but many servers don't expect it. Try Raw if a server
	// refuses a secret that has characters other than letters, digits and "-_.".
	// With Raw, an id that contains a colon is an error (RFC 7617, Section 2).
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
		return errors.New("ClientID contains a colon, but a raw Authorization header ends the id at the first colon; set Raw to false, or use ClientSecretPost")
	}
	attempt.Header.Set("Authorization", "Basic "+redact.BasicCredentials(id, secret))
	return nil
}

// ClientSecretPost is client_secret_post: the client sends its id and secret in the
// body, RFC 6749, Section 2.3.1. It is safe for concurrent use.
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

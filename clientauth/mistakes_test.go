package clientauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const canary = "canary-5d1f40b7c2e94a68-canary-0b96e1d3-canary"

// requireHidden fails if text contains a part of a secret.
func requireHidden(t *testing.T, text string, canaries ...string) {
	t.Helper()
	for _, canary := range canaries {
		canary = strings.Join(strings.Fields(canary), "")
		for i := 0; i+12 <= len(canary); i += 6 {
			require.NotContains(t, text, canary[i:i+12])
		}
	}
}

// keyCanaries returns the forms in which a private key could be printed.
func keyCanaries(key *ecdsa.PrivateKey, keyPEM string) []string {
	block, _ := pem.Decode([]byte(keyPEM))
	d := key.D.Bytes()
	return []string{
		base64.StdEncoding.EncodeToString(block.Bytes),
		base64.RawURLEncoding.EncodeToString(d),
		base64.StdEncoding.EncodeToString(d),
		fmt.Sprintf("%x", d),
		key.D.String(),
		strings.Trim(fmt.Sprintf("%d", d), "[]"),
	}
}

// Each mistake leads to a clear error before anything is sent, and the error contains no
// secret.
func TestMistakes(t *testing.T) {
	t.Parallel()
	key, keyText := newKey()
	good := newValidPair()
	expired := newPair(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	canaries := append(keyCanaries(key, keyText), canary)
	canaries = append(canaries, keyCanaries(good.PrivateKey.(*ecdsa.PrivateKey), good.key)...)
	broken := errors.New("the vault is sealed")
	failing := func(context.Context) (string, error) { return "", broken }
	noID := func(c *clientcredentials.Config) { c.ClientID = "" }
	inConfig := func(s string) func(*clientcredentials.Config) {
		return func(c *clientcredentials.Config) { c.ClientSecret = s }
	}

	for _, test := range []mistake{
		{"basic without an id", &ClientSecretBasic{Secret: secret(canary)}, noID, "ClientID is empty"},
		{"basic without a secret", &ClientSecretBasic{}, nil, "there is no secret; set ClientSecret"},
		{"basic with a line break in the Config", &ClientSecretBasic{}, inConfig(canary + "\n"), "the secret contains a line break (U+000A)"},
		{"raw with a colon", &ClientSecretBasic{Secret: secret(canary), Raw: true}, func(c *clientcredentials.Config) { c.ClientID = "a:b" }, "ClientID contains a colon"},
		{"post with an empty secret", &ClientSecretPost{Secret: secret("")}, nil, "the secret is empty"},
		{"secret JWT without a secret", &ClientSecretJWT{}, nil, "there is no secret; set ClientSecret"},
		{"secret JWT with a short secret", &ClientSecretJWT{Secret: secret(canary[:31])}, nil, "HS256 needs a secret of at least 32 bytes"},

		{"key JWT without an id", &PrivateKeyJWT{Key: SignerKey(key)}, noID, "ClientID is empty"},
		{"key JWT without a key", &PrivateKeyJWT{}, nil, "there is no key; set Key"},
		{"key JWT, Key returns nil", &PrivateKeyJWT{Key: func(context.Context) (*SigningKey, error) { return nil, nil }}, nil, "the Key of the ClientAuth returned no key"},
		{"key JWT, Key fails", &PrivateKeyJWT{Key: func(context.Context) (*SigningKey, error) { return nil, broken }}, nil, "private_key_jwt: the vault is sealed"},
		{"key JWT, wrong curve", &PrivateKeyJWT{Key: SignerKey(key), Algorithm: "ES384"}, nil, "ES384 doesn't fit a P-256 key; use ES256"},
		{"key JWT, not PEM", &PrivateKeyJWT{Key: KeyBytes([]byte(canary))}, nil, "neither PEM nor a JWK"},
		{"key JWT, bad file", &PrivateKeyJWT{Key: KeyFile(file(t, canary))}, nil, "neither PEM nor a JWK"},
		{"key JWT, the signer fails", &PrivateKeyJWT{Key: SignerKey(failingSigner{key})}, nil, "the signer failed: no session"},
		{"key JWT, short Lifetime", &PrivateKeyJWT{Key: SignerKey(key), Lifetime: time.Second - 1}, nil, "Lifetime is less than a second"},
		{"key JWT, expired certificate", &PrivateKeyJWT{Key: CertificateKey(certificate(expired.Certificate))}, nil, "the certificate expired at"},
		{"key JWT, certificate's key can't sign", &PrivateKeyJWT{Key: CertificateKey(certificate(&tls.Certificate{Certificate: good.Certificate.Certificate, PrivateKey: canary}))}, nil, "is not a crypto.Signer"},

		{"assertion without a source", &Assertion{}, nil, "there is no assertion; set Source"},
		{"assertion, Source fails", &Assertion{Source: failing}, nil, "the vault is sealed"},
		{"assertion, not a JWT", &Assertion{Source: secret(canary)}, nil, "the assertion is not a JWT"},
		{"assertion, not a JWT-SVID", &Assertion{Source: secret(canary), Type: TypeJWTSPIFFE}, nil, "the assertion is not a JWT"},
		{"assertion of another type, empty", &Assertion{Source: secret(""), Type: "urn:x"}, nil, "the secret is empty"},

		{"certificate without an id", &TLSClientAuth{Source: certificate(good.Certificate)}, noID, "ClientID is empty"},
		{"no certificate", &TLSClientAuth{}, nil, "there is no certificate; set Source"},
		{"certificate, Source fails", &TLSClientAuth{Source: func(context.Context) (*tls.Certificate, error) { return nil, broken }}, nil, "the vault is sealed"},
		{"certificate, Source returns nil", &TLSClientAuth{Source: certificate(nil)}, nil, "the certificate is empty"},
		{"certificate without content", &TLSClientAuth{Source: certificate(&tls.Certificate{PrivateKey: key})}, nil, "the certificate is empty"},
		{"certificate without a key", &TLSClientAuth{Source: certificate(&tls.Certificate{Certificate: good.Certificate.Certificate})}, nil, "or has no private key"},
		{"certificate, malformed", &TLSClientAuth{Source: certificate(&tls.Certificate{Certificate: [][]byte{{1}}, PrivateKey: key})}, nil, "x509: "},
		{"certificate, expired", &TLSClientAuth{Source: certificate(expired.Certificate)}, nil, "the certificate expired at"},
	} {
		test.run(t, broken, canaries...)
	}
}

// A mistake is one in the fields of a ClientAuth, or in what its functions return.
type mistake struct {
	name   string
	auth   clientcredentials.ClientAuth
	change func(*clientcredentials.Config)
	err    string
}

// run requires that the mistake leads to its error before anything is sent. If the error
// quotes that of a source, it wraps it.
func (m mistake) run(t *testing.T, source error, canaries ...string) {
	t.Run(m.name, func(t *testing.T) {
		t.Parallel()
		srv := cct.Start(t)
		conf := config(srv, m.auth)
		if m.change != nil {
			m.change(conf)
		}
		_, err := conf.Token(t.Context())
		require.ErrorContains(t, err, m.err)
		require.True(t, strings.HasPrefix(err.Error(), "oauth2: cannot fetch token: "+m.auth.Method()+": "), err)
		require.Zero(t, srv.Auth.TokenRequests())
		if strings.Contains(m.err, source.Error()) {
			require.ErrorIs(t, err, source)
		}
		requireHidden(t, surfaces(err), canaries...)
	})
}

type failingSigner struct{ crypto.Signer }

func (failingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no session")
}

// A method prints its name only, and the error for a refused credential has no secret.
func TestCanary(t *testing.T) {
	t.Parallel()
	key, keyText := newKey()
	own := newValidPair()
	canaries := append(keyCanaries(key, keyText), keyCanaries(own.PrivateKey.(*ecdsa.PrivateKey), own.key)...)
	assertion := jwt[:len(jwt)-10] + strings.ReplaceAll(canary, "-", "_")
	canaries = append(canaries, canary, assertion)
	for _, auth := range []clientcredentials.ClientAuth{
		&ClientSecretBasic{Secret: secret(canary)},
		&ClientSecretPost{Secret: secret(canary)},
		&ClientSecretJWT{Secret: secret(canary)},
		&PrivateKeyJWT{Key: SignerKey(key)},
		&Assertion{Source: secret(assertion)},
		&TLSClientAuth{Source: certificate(own.Certificate)},
		&SelfSignedTLSClientAuth{Source: certificate(own.Certificate)},
		WithCredentials(pairOf("id", canary), nil),
		WithCredentials(pairOf("id", ""), &TLSClientAuth{Source: certificate(own.Certificate)}),
	} {
		t.Run(auth.Method(), func(t *testing.T) {
			t.Parallel()
			name := auth.Method()
			for _, v := range []any{auth, reflect.ValueOf(auth).Elem().Interface()} {
				for _, verb := range verbs {
					require.Equal(t, name, fmt.Sprintf(verb, v), verb)
				}
				require.Equal(t, `"`+name+`"`, string(must(json.Marshal(v))))
				shown := surfaces(v)
				requireHidden(t, shown, canaries...)
				require.Contains(t, shown, "value="+name+"\n")
				require.Contains(t, shown, `"value":"`+name+`"`)
			}

			srv := cct.NewServer(cct.Client{ID: "id", Secret: "another"})
			t.Cleanup(srv.Close)
			conf := config(srv, auth)
			requireHidden(t, surfaces(conf), canaries...)
			_, err := conf.Token(t.Context())
			require.ErrorContains(t, err, "invalid_client")
			requireHidden(t, surfaces(err), append(slices.Clone(canaries), srv.Auth.Requests()[0].Form.Get("client_assertion"))...)
		})
	}
}

func TestSigningKeyIsHidden(t *testing.T) {
	t.Parallel()
	key, keyText := newKey()
	ed := testkit.NewKey("EdDSA").(ed25519.PrivateKey) // fmt would print it, because it is a slice of bytes.
	canaries := append(keyCanaries(key, keyText), fmt.Sprintf("%d", []byte(ed)), fmt.Sprintf("%x", []byte(ed)), base64.StdEncoding.EncodeToString(ed))
	for _, signing := range []SigningKey{{Signer: key, KeyID: "1"}, {Signer: ed}} {
		for _, v := range []any{signing, &signing, []SigningKey{signing}, struct{ Key *SigningKey }{&signing}} {
			requireHidden(t, surfaces(v), canaries...)
			require.Contains(t, surfaces(v), "[private key]")
		}
		for _, verb := range verbs {
			require.Equal(t, "[private key]", fmt.Sprintf(verb, signing), verb)
		}
	}
}

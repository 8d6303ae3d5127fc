package clientauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
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
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	public := encodePEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key.Public())))
	encrypted := encodePEM("ENCRYPTED PRIVATE KEY", []byte(canary))
	short := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}}
	missing := filepath.Join(t.TempDir(), "missing")
	broken := errors.New("the vault is sealed")
	failing := func(context.Context) (string, error) { return "", broken }
	noID := func(c *clientcredentials.Config) { c.ClientID = "" }
	inConfig := func(s string) func(*clientcredentials.Config) {
		return func(c *clientcredentials.Config) { c.ClientSecret = s }
	}

	for _, test := range []struct {
		name   string
		auth   clientcredentials.ClientAuth
		change func(*clientcredentials.Config)
		err    string
	}{
		{"basic without an id", &ClientSecretBasic{Secret: secret(canary)}, noID, "ClientID is empty"},
		{"basic without a secret", &ClientSecretBasic{}, nil, "there is no secret; set ClientSecret"},
		{"basic with an empty secret", &ClientSecretBasic{Secret: secret("")}, nil, "the secret is empty"},
		{"basic with a line break", &ClientSecretBasic{Secret: secret(canary + "\n")}, nil, "the secret contains a control character"},
		{"basic with a line break in the Config", &ClientSecretBasic{}, inConfig(canary + "\n"), "the secret contains a control character"},
		{"basic with a failing Secret", &ClientSecretBasic{Secret: failing}, nil, "client_secret_basic: the vault is sealed"},
		{"basic with a missing file", &ClientSecretBasic{Secret: SecretFile(missing)}, nil, missing},
		{"basic with a bad file", &ClientSecretBasic{Secret: SecretFile(file(t, canary+"\n\n"))}, nil, "the secret contains a control character"},
		{"raw with a colon", &ClientSecretBasic{Secret: secret(canary), Raw: true}, func(c *clientcredentials.Config) { c.ClientID = "a:b" }, "ClientID contains a colon"},
		{"raw with NUL", &ClientSecretBasic{Secret: secret(canary + "\x00"), Raw: true}, nil, "the secret contains a control character"},

		{"post without an id", &ClientSecretPost{Secret: secret(canary)}, noID, "ClientID is empty"},
		{"post without a secret", &ClientSecretPost{}, nil, "there is no secret; set ClientSecret"},
		{"post with an empty secret", &ClientSecretPost{Secret: secret("")}, nil, "the secret is empty"},

		{"secret JWT without an id", &ClientSecretJWT{Secret: secret(canary)}, noID, "ClientID is empty"},
		{"secret JWT without a secret", &ClientSecretJWT{}, nil, "there is no secret; set ClientSecret"},
		{"secret JWT with a short secret", &ClientSecretJWT{Secret: secret(canary[:31])}, nil, "HS256 needs a secret of at least 32 bytes"},
		{"secret JWT, HS512", &ClientSecretJWT{Algorithm: "HS512"}, inConfig(canary), "HS512 needs a secret of at least 64 bytes"},
		{"secret JWT, ES256", &ClientSecretJWT{Algorithm: "ES256"}, inConfig(canary), "ES256 doesn't fit a secret; use HS256"},
		{"secret JWT, unknown algorithm", &ClientSecretJWT{Algorithm: canary}, inConfig(canary), "the algorithm doesn't fit a secret; use HS256"},
		{"secret JWT, negative Lifetime", &ClientSecretJWT{Lifetime: -1}, inConfig(canary), "Lifetime is less than a second"},

		{"key JWT without an id", &PrivateKeyJWT{Key: SignerKey(key)}, noID, "ClientID is empty"},
		{"key JWT without a key", &PrivateKeyJWT{}, nil, "there is no key; set Key"},
		{"key JWT, Key returns nil", &PrivateKeyJWT{Key: func(context.Context) (*SigningKey, error) { return nil, nil }}, nil, "the Key of the ClientAuth returned no key"},
		{"key JWT, Key fails", &PrivateKeyJWT{Key: func(context.Context) (*SigningKey, error) { return nil, broken }}, nil, "private_key_jwt: the vault is sealed"},
		{"key JWT without a signer", &PrivateKeyJWT{Key: SignerKey(nil)}, nil, "there is no signer"},
		{"key JWT, nil key", &PrivateKeyJWT{Key: SignerKey((*ecdsa.PrivateKey)(nil))}, nil, "no public key"},
		{"key JWT, wrong curve", &PrivateKeyJWT{Key: SignerKey(key), Algorithm: "ES384"}, nil, "ES384 doesn't fit a P-256 key; use ES256"},
		{"key JWT, other kind of key", &PrivateKeyJWT{Key: SignerKey(key), Algorithm: "RS256"}, nil, "RS256 doesn't fit a P-256 key; use ES256"},
		{"key JWT, HS256 with a key", &PrivateKeyJWT{Key: SignerKey(key), Algorithm: "HS256"}, nil, "HS256 doesn't fit a P-256 key"},
		{"key JWT, alg none", &PrivateKeyJWT{Key: SignerKey(key), Algorithm: "none"}, nil, "doesn't fit a P-256 key; use ES256"},
		{"key JWT, P-224", &PrivateKeyJWT{Key: SignerKey(p224)}, nil, "curve must be P-256, P-384 or P-521"},
		{"key JWT, short RSA", &PrivateKeyJWT{Key: SignerKey(short)}, nil, "the RSA key has 1024 bits; use at least 2048"},
		{"key JWT, public key", &PrivateKeyJWT{Key: KeyBytes([]byte(public))}, nil, "public key"},
		{"key JWT, certificate only", &PrivateKeyJWT{Key: KeyBytes([]byte(good.cert))}, nil, "certificate"},
		{"key JWT, empty", &PrivateKeyJWT{Key: KeyBytes(nil)}, nil, "the data is empty"},
		{"key JWT, not PEM", &PrivateKeyJWT{Key: KeyBytes([]byte(canary))}, nil, "neither PEM nor a JWK"},
		{"key JWT, cut PEM", &PrivateKeyJWT{Key: KeyBytes([]byte(keyText[:len(keyText)/2]))}, nil, "private_key_jwt: "},
		{"key JWT, encrypted", &PrivateKeyJWT{Key: KeyBytes([]byte(encrypted))}, nil, "encrypted"},
		{"key JWT, bad JWK", &PrivateKeyJWT{Key: KeyBytes([]byte(`{"kty":"` + canary + `"}`))}, nil, "private_key_jwt: "},
		{"key JWT, missing file", &PrivateKeyJWT{Key: KeyFile(missing)}, nil, missing},
		{"key JWT, bad file", &PrivateKeyJWT{Key: KeyFile(file(t, canary))}, nil, "neither PEM nor a JWK"},
		{"key JWT, short Lifetime", &PrivateKeyJWT{Key: SignerKey(key), Lifetime: time.Second - 1}, nil, "Lifetime is less than a second"},
		{"key JWT, expired certificate", &PrivateKeyJWT{Key: CertificateKey(certificate(expired.Certificate))}, nil, "the certificate expired at"},
		{"key JWT, no certificate", &PrivateKeyJWT{Key: CertificateKey(nil)}, nil, "there is no certificate"},
		{"key JWT, another's signature", &PrivateKeyJWT{Key: SignerKey(mismatched{key, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))})}, nil, "the signer's public key doesn't verify its signature"},
		{"key JWT, certificate's key can't sign", &PrivateKeyJWT{Key: CertificateKey(certificate(&tls.Certificate{Certificate: good.Certificate.Certificate, PrivateKey: canary}))}, nil, "is not a crypto.Signer"},

		{"assertion without a source", &Assertion{}, nil, "there is no assertion; set Source"},
		{"assertion, Source fails", &Assertion{Source: failing}, nil, "the vault is sealed"},
		{"assertion, missing file", &Assertion{Source: SecretFile(missing)}, nil, missing},
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
		{"certificate, missing files", &TLSClientAuth{Source: CertificateFiles(missing, missing)}, nil, missing},
		{"certificate, key of another", &TLSClientAuth{Source: CertificateFiles(file(t, good.cert), file(t, keyText))}, nil, "does not match"},
		{"certificate, key and certificate swapped", &TLSClientAuth{Source: CertificateFiles(file(t, good.key), file(t, good.cert))}, nil, "tls: "},
		{"certificate, key is no PEM", &TLSClientAuth{Source: CertificateFiles(file(t, good.cert), file(t, canary))}, nil, "tls: "},
		{"self-signed, without an id", &SelfSignedTLSClientAuth{Source: certificate(good.Certificate)}, noID, "ClientID is empty"},
		{"self-signed, no certificate", &SelfSignedTLSClientAuth{}, nil, "there is no certificate; set Source"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := cct.Start(t)
			conf := config(srv, test.auth)
			if test.change != nil {
				test.change(conf)
			}
			_, err := conf.Token(t.Context())
			require.ErrorContains(t, err, test.err)
			require.True(t, strings.HasPrefix(err.Error(), "oauth2: cannot fetch token: "+test.auth.Method()+": "), err)
			require.Zero(t, srv.Auth.TokenRequests())
			if strings.Contains(test.err, broken.Error()) {
				require.ErrorIs(t, err, broken)
			}
			requireHidden(t, surfaces(err), canaries...)
		})
	}
}

// mismatched has the public key of another signer.
type mismatched struct {
	*ecdsa.PrivateKey
	other *ecdsa.PrivateKey
}

func (m mismatched) Public() crypto.PublicKey { return m.other.Public() }

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
		&ClientSecretBasic{Secret: secret(canary), Raw: true},
		&ClientSecretPost{Secret: secret(canary)},
		&ClientSecretJWT{Secret: secret(canary)},
		&PrivateKeyJWT{Key: SignerKey(key)},
		&Assertion{Source: secret(assertion)},
		&TLSClientAuth{Source: certificate(own.Certificate)},
		&SelfSignedTLSClientAuth{Source: certificate(own.Certificate)},
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
	_, ed, err := ed25519.GenerateKey(rand.Reader) // fmt would print it, because it is a slice of bytes.
	require.NoError(t, err)
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

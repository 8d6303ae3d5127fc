package conformance

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

// A clientMethod is a way for a client to authenticate.
type clientMethod struct {
	name       string // in the matrix
	registered string // the method that the client is registered for
	alg        string // of its assertions, if any
	// style is for a client without a ClientAuth: auth is nil.
	style oauth2.AuthStyle
	auth  func(*wallet) clientcredentials.ClientAuth
	// dpop binds tokens to a key.
	dpop bool
	// readyMade assertions are made by somebody else, and each can be used once.
	readyMade bool
}

// detects reports whether the client has to find out which of two methods is right.
func (m clientMethod) detects() bool {
	return m.auth == nil && m.style == oauth2.AuthStyleAutoDetect
}

var (
	basicMethods = []clientMethod{
		{name: "client_secret_basic", registered: secretBasic, style: oauth2.AuthStyleInHeader},
		{name: "client_secret_post", registered: secretPost, style: oauth2.AuthStyleInParams},
		{name: "client_secret_basic, detected", registered: secretBasic},
		{name: "client_secret_post, detected", registered: secretPost},
		{name: "client_secret_basic, from a file", registered: secretBasic, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.ClientSecretBasic{Secret: clientauth.SecretFile(w.path("secret"))}
		}},
		{name: "client_secret_basic, raw", registered: secretBasic, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.ClientSecretBasic{Secret: w.secret, Raw: true}
		}},
		{name: "client_secret_post, from a function", registered: secretPost, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.ClientSecretPost{Secret: w.secret}
		}},
	}
	certificateMethods = []clientMethod{
		{name: tlsAuth, registered: tlsAuth, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.TLSClientAuth{Source: w.certificate}
		}},
		{name: selfSignedTLS, registered: selfSignedTLS, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.SelfSignedTLSClientAuth{Source: w.certificate}
		}},
	}
	dpopMethods = []clientMethod{
		{name: "client_secret_basic, DPoP", registered: secretBasic, style: oauth2.AuthStyleInHeader, dpop: true},
		{name: "private_key_jwt, DPoP", registered: privateKeyJWT, alg: "ES256", auth: keyFileAuth, dpop: true},
	}
)

// assertionMethods returns a method for each algorithm, and one with ready-made
// assertions.
func assertionMethods() []clientMethod {
	var all []clientMethod
	for _, alg := range hmacAlgs {
		all = append(all, clientMethod{name: secretJWT, registered: secretJWT, alg: alg, auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.ClientSecretJWT{Secret: clientauth.SecretFile(w.path("secret")), Algorithm: alg}
		}})
	}
	for _, alg := range signatureAlgs {
		all = append(all, clientMethod{
			name: privateKeyJWT, registered: privateKeyJWT, alg: alg, auth: keyFileAuth,
		})
	}
	return append(all, clientMethod{
		name: "private_key_jwt, ready-made in a file", registered: privateKeyJWT, alg: "ES256", readyMade: true,
		auth: func(w *wallet) clientcredentials.ClientAuth {
			return &clientauth.Assertion{Source: clientauth.SecretFile(w.path("assertion"))}
		},
	})
}

// keyFileAuth returns private_key_jwt with a JWK, which contains its kid and alg.
func keyFileAuth(w *wallet) clientcredentials.ClientAuth {
	return &clientauth.PrivateKeyJWT{Key: clientauth.KeyFile(w.path("key.jwk"))}
}

// The generations of every client's credentials: the second replaces the first.
const (
	first = iota
	second
)

var secrets = [...]string{assertionSecret, "another-" + assertionSecret}

func signer(alg string, generation int) crypto.Signer {
	if generation == first {
		return testKeys()[alg]
	}
	return strangersKeys()[alg]
}

func keyID(alg string, generation int) string {
	return [...]string{alg, alg + "-next"}[generation]
}

// publicKey returns a client's public key as the client registers it.
func publicKey(alg string, generation int) jose.JSONWebKey {
	return jose.JSONWebKey{Key: signer(alg, generation).Public(), KeyID: keyID(alg, generation), Algorithm: alg, Use: "sig"}
}

// privateJWK returns a client's private key as a JWK.
func privateJWK(alg string, generation int) string {
	jwk, _ := jose.JSONWebKey{Key: signer(alg, generation), KeyID: keyID(alg, generation), Algorithm: alg}.MarshalJSON()
	return string(jwk)
}

// The certificates of both generations.
var (
	clientCertificates     = sync.OnceValue(func() *[2]tls.Certificate { return newCertificates(testPKI().ca) })
	selfSignedCertificates = sync.OnceValue(func() *[2]tls.Certificate { return newCertificates(nil) })
)

func newCertificates(issuer *tls.Certificate) *[2]tls.Certificate {
	var all [2]tls.Certificate
	for i := range all {
		all[i] = clientCertificate(issuer, x509.Certificate{Subject: pkix.Name{CommonName: fmt.Sprintf("client %d", i)}})
	}
	return &all
}

// registration returns a client with the credential of a generation.
func (m clientMethod) registration(id string, ttl time.Duration, generation int) registration {
	r := registration{id: id, method: m.registered, ttl: ttl, alg: m.alg, metadata: map[string]any{}}
	switch m.registered {
	case privateKeyJWT:
		r.keys = []jose.JSONWebKey{publicKey(m.alg, generation)}
	case tlsAuth:
		r.metadata["tls_client_auth_subject_dn"] = clientCertificates()[generation].Leaf.Subject.String()
		r.metadata["tls_client_certificate_bound_access_tokens"] = true
	case selfSignedTLS:
		r.keys = []jose.JSONWebKey{certificateKey(selfSignedCertificates()[generation])}
		r.metadata["tls_client_certificate_bound_access_tokens"] = true
	default:
		r.secret = secrets[generation]
	}
	if m.dpop {
		maps.Copy(r.metadata, dpopBound())
	}
	return r
}

// A wallet holds the credentials of a client, in files and behind functions.
type wallet struct {
	t        *testing.T
	dir      string
	method   clientMethod
	id       string // of the client
	audience string // of its ready-made assertions
	holds    atomic.Int32
}

func (w *wallet) path(name string) string { return filepath.Join(w.dir, name) }

// put replaces the credential with that of a generation.
func (w *wallet) put(generation int) {
	w.holds.Store(int32(generation))
	alg := w.method.alg
	switch {
	case w.method.readyMade:
		key := jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: signer(alg, generation)}
		kid := map[jose.HeaderKey]any{"kid": keyID(alg, generation)}
		w.write("assertion", sign(w.t, key, kid, assertionClaims(w.id, w.audience))+"\n")
	case w.method.registered == privateKeyJWT:
		w.write("key.jwk", privateJWK(alg, generation))
	default:
		w.write("secret", secrets[generation]+"\n")
	}
}

// write replaces a file atomically, as programs that rotate credentials do.
func (w *wallet) write(name, content string) {
	require.NoError(w.t, os.WriteFile(w.path("new"), []byte(content), 0o600))
	require.NoError(w.t, os.Rename(w.path("new"), w.path(name)))
}

func (w *wallet) secret(context.Context) (string, error) { return secrets[w.holds.Load()], nil }

func (w *wallet) certificate(context.Context) (*tls.Certificate, error) {
	if w.method.registered == selfSignedTLS {
		return &selfSignedCertificates()[w.holds.Load()], nil
	}
	return &clientCertificates()[w.holds.Load()], nil
}

// A jwsHead has the header parameters of a JWS that matter here.
type jwsHead struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Type      string          `json:"typ"`
	JWK       jose.JSONWebKey `json:"jwk"`
}

// jwsHeader returns the header of a JWS, or an empty one.
func jwsHeader(token string) (header jwsHead) {
	encoded, _, _ := strings.Cut(token, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	if err == nil {
		_ = json.Unmarshal(decoded, &header)
	}
	return header
}

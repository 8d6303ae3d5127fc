package conformance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A mistake is a kind of mistake in the settings of a client or in its registration. Each
// is made at all servers where it makes sense.
type mistake struct {
	name string
	last string // a pattern for the last line of the report of cctoken doctor
	at   []mistaken
}

// A mistaken client makes a mistake at a server.
type mistaken struct {
	server string
	start  starter
	known  registration // as the server knows the client
	// flags are those of cctoken. ISSUER and TOKEN stand for the addresses of the server,
	// and DIR for the directory with the files of mistakenFiles. The environment has the
	// client id and the secret.
	flags string
}

// mistakes are the eleven kinds that cctoken doctor must tell from each other, some of them
// in two forms, and two more: a wrong secret and a wrong key, for which it must not blame
// anything else. A server refuses each of them by itself: none needs a fake.
//
// For another server, add a line to each kind that makes sense there.
func mistakes() []mistake {
	const (
		issuer = "-issuer ISSUER "
		token  = "-token-url TOKEN "
		trust  = " -ca-file DIR/ca.pem"
	)
	post, basic := secretOf(secretPost), secretOf(secretBasic)
	bound := secretOf(secretPost, "dpop_bound_access_tokens", true)
	certified := secretOf(secretPost, "tls_client_certificate_bound_access_tokens", true)
	hmac := secretOf(secretJWT)
	expired := []any{"client_secret_expires_at", 1}
	return []mistake{
		{"scope", `^fail  scope .*; change -scopes`, []mistaken{
			{"oidc-provider", oidcProvider.start, post, issuer + "-scopes admin"},
			{"go-oauth2", startGoOAuth2, basic, token + "-scopes admin"},
			{"authlib", authlib.start, post, token + "-scopes admin"},
			{"django-oauth-toolkit", django.start, basic, token + "-scopes admin"},
			{"hydra", hydra.start, basic, issuer + "-scopes admin"},
			{"node-oauth", nodeOAuth.start, post, token + "-scopes admin"},
			{"zitadel", startZitadel, basic, issuer + "-scopes admin"},
		}},
		{"audience", `^fail  audience .*; change audience or resource in -params`, []mistaken{
			{"oidc-provider", oidcProvider.start, post, issuer + "-params resource=https://wrong.example"},
			{"hydra", hydra.start, post, issuer + "-params audience=https://wrong.example"},
		}},
		{"audience of the assertion", `^fail  audience .*; change -assertion-audience`, []mistaken{
			{"oidc-provider", oidcProvider.start, keyOf("ES256"), issuer + "-key-file DIR/ES256.jwk -assertion-audience https://wrong.example"},
			{"authlib", authlib.start, keyOf("ES256"), token + "-key-file DIR/ES256.jwk -assertion-audience https://wrong.example"},
			{"hydra", hydra.start, keyOf("ES256"), issuer + "-key-file DIR/ES256.jwk -assertion-audience https://wrong.example"},
		}},
		{"grant", `^fail  grant .*; have the server's operator allow the client the client_credentials grant`, []mistaken{
			{"oidc-provider", oidcProvider.start, secretOf(secretPost, "grant_types", []string{}), issuer},
			{"authlib", authlib.start, secretOf(secretPost, "grant_types", []string{}), token},
			{"django-oauth-toolkit", django.start, secretOf(secretBasic, "grant_types", []string{}), token},
			{"hydra", hydra.start, secretOf(secretPost, "grant_types", []string{"implicit"}), issuer},
			{"node-oauth", nodeOAuth.start, secretOf(secretPost, "grant_types", []string{}), token},
			{"zitadel", startZitadel, secretOf(secretBasic, "grant_types", []string{}), issuer},
		}},
		{"other grant", `^fail  grant .*; change grant_type in -params`, []mistaken{
			{"oidc-provider", oidcProvider.start, post, issuer + "-params grant_type=password"},
			{"go-oauth2", startGoOAuth2, basic, token + "-params grant_type=password"},
			{"authlib", authlib.start, post, token + "-params grant_type=password"},
			{"django-oauth-toolkit", django.start, basic, token + "-params grant_type=password"},
			{"hydra", hydra.start, post, issuer + "-params grant_type=password"},
			{"node-oauth", nodeOAuth.start, post, token + "-params grant_type=password"},
			{"zitadel", startZitadel, basic, issuer + "-params grant_type=password"},
		}},
		{"method", `^fail  method .*; change -auth-method`, []mistaken{
			{"hydra", hydra.start, basic, issuer + "-auth-method client_secret_post"},
			{"hydra, not listed", hydra.start, basic, issuer + "-auth-method client_secret_jwt"},
			{"zitadel, not listed", startZitadel, basic, issuer + "-auth-method client_secret_jwt"},
		}},
		{"credentials for another method", `^fail  method .*; give the credentials for a method that the metadata lists`, []mistaken{
			{"zitadel", startZitadel, keyOf("ES256"), issuer + "-key-file DIR/ES256.jwk"},
		}},
		{"key id", `^fail  key id .*; (give|change) -key-id`, []mistaken{
			// oidc-provider tries each key of the client, and so does Hydra without a kid.
			{"authlib", authlib.start, keyOf("ES256"), token + "-key-file DIR/ES256.pem"},
			{"authlib, by issuer", authlib.start, keyOf("ES256", "assertion_audience", "issuer"), token + issuer + "-key-file DIR/ES256.pem"},
			{"hydra", hydra.start, keyOf("ES256"), issuer + "-key-file DIR/ES256.pem -key-id wrong"},
		}},
		{"algorithm", `^fail  algorithm .*; change -algorithm`, []mistaken{
			{"oidc-provider", oidcProvider.start, keyOf("PS256"), issuer + "-key-file DIR/PS256.pem -key-id PS256"},
			{"oidc-provider, HMAC", oidcProvider.start, secretOf(secretJWT, "token_endpoint_auth_signing_alg", "HS256"), issuer + "-auth-method client_secret_jwt -algorithm HS512"},
			{"authlib", authlib.start, keyOf("PS256"), token + "-key-file DIR/PS256.pem -key-id PS256"},
			{"hydra", hydra.start, keyOf("PS256"), issuer + "-key-file DIR/PS256.pem -key-id PS256"},
		}},
		{"DPoP", `^fail  dpop .*; give -dpop-key-file`, []mistaken{
			{"oidc-provider", oidcProvider.start, bound, issuer},
			{"oidc-provider, without metadata", oidcProvider.start, bound, token},
			{"oidc-provider, nonces", oidcProviderNonce.start, bound, issuer},
			{"oidc-provider, https", oidcProviderTLS.start, bound, issuer + trust},
		}},
		{"certificate", `^fail  certificate .*; give -cert-file and -key-file`, []mistaken{
			{"oidc-provider, https", oidcProviderTLS.start, certified, issuer + trust},
			{"oidc-provider, https, without metadata", oidcProviderTLS.start, certified, token + trust},
		}},
		{"expired secret", `^fail  credentials .*; set CLIENT_SECRET to a new secret: this one has expired`, []mistaken{
			{"oidc-provider", oidcProvider.start, secretOf(secretPost, expired...), issuer},
			{"oidc-provider, HMAC", oidcProvider.start, secretOf(secretJWT, expired...), issuer + "-auth-method client_secret_jwt"},
		}},
		{"path", `^fail  endpoint .*; change -token-url`, []mistaken{
			{"oidc-provider", oidcProvider.start, post, "-token-url TOKEN/wrong"},
			{"oidc-provider, with metadata", oidcProvider.start, post, issuer + "-token-url TOKEN/wrong"},
			{"oidc-provider, https", oidcProviderTLS.start, post, "-token-url TOKEN/wrong" + trust},
			{"go-oauth2", startGoOAuth2, basic, "-token-url TOKEN/wrong"},
			{"authlib", authlib.start, post, "-token-url TOKEN/wrong"},
			{"django-oauth-toolkit", django.start, basic, "-token-url TOKEN/wrong"},
			{"hydra", hydra.start, post, "-token-url TOKEN/wrong"},
			{"hydra, with metadata", hydra.start, post, issuer + "-token-url TOKEN/wrong"},
			{"node-oauth", nodeOAuth.start, post, "-token-url TOKEN/wrong"},
			{"zitadel", startZitadel, basic, "-token-url TOKEN/wrong"},
		}},
		{"path of the issuer", `^fail  discovery .*check the issuer`, []mistaken{
			{"oidc-provider", oidcProvider.start, post, "-issuer ISSUER/wrong"},
			{"hydra", hydra.start, post, "-issuer ISSUER/wrong"},
			{"zitadel", startZitadel, basic, "-issuer ISSUER/wrong"},
		}},
		{"clock", `^fail  clock .*; correct the clock.* (1h|59m \d+s) ahead of`, []mistaken{
			{"oidc-provider, ahead", oidcProviderAhead.start, keyOf("ES256"), issuer + "-key-file DIR/ES256.jwk" + trust},
			{"oidc-provider, ahead, HMAC", oidcProviderAhead.start, hmac, issuer + "-auth-method client_secret_jwt" + trust},
		}},
		{"secret", `^fail  credentials .*; check -client-id and -secret-file`, []mistaken{
			{"oidc-provider", oidcProvider.start, basic, issuer + "-secret-file DIR/wrong"},
			{"oidc-provider, HMAC", oidcProvider.start, hmac, issuer + "-auth-method client_secret_jwt -secret-file DIR/wrong"},
			{"go-oauth2", startGoOAuth2, basic, token + "-secret-file DIR/wrong"},
			{"authlib", authlib.start, post, token + "-secret-file DIR/wrong"},
			{"django-oauth-toolkit", django.start, basic, token + "-secret-file DIR/wrong"},
			{"hydra", hydra.start, basic, issuer + "-secret-file DIR/wrong"},
			{"node-oauth", nodeOAuth.start, post, token + "-secret-file DIR/wrong"},
			{"zitadel", startZitadel, basic, issuer + "-secret-file DIR/wrong"},
		}},
		{"key", `^fail  key .*; have the public key of the assertion registered`, []mistaken{
			{"oidc-provider", oidcProvider.start, keyOf("ES256"), issuer + "-key-file DIR/wrong.jwk"},
			{"authlib", authlib.start, keyOf("ES256"), token + "-key-file DIR/wrong.jwk"},
			{"hydra", hydra.start, keyOf("ES256"), issuer + "-key-file DIR/wrong.jwk -key-id ES256"},
		}},
	}
}

// secretOf returns a client with a secret, and with more members of its metadata.
func secretOf(method string, members ...any) registration {
	return registration{secret: assertionSecret, method: method, ttl: time.Hour, metadata: membersOf(members)}
}

// keyOf returns a client with a key, and with more members of its metadata.
func keyOf(alg string, members ...any) registration {
	return registration{keys: []jose.JSONWebKey{publicKey(alg, first)}, alg: alg, method: privateKeyJWT, ttl: time.Hour, metadata: membersOf(members)}
}

func membersOf(namesAndValues []any) map[string]any {
	members := make(map[string]any)
	for i := 0; i < len(namesAndValues); i += 2 {
		members[namesAndValues[i].(string)] = namesAndValues[i+1]
	}
	return members
}

// mistakenFiles returns the files that the flags of mistaken clients name.
func mistakenFiles() map[string]string {
	files := map[string]string{
		"ca.pem": testPKI().serverPEM().CA,
		"wrong":  secrets[second], "wrong.jwk": privateJWK("ES256", second),
	}
	for _, alg := range []string{"ES256", "PS256"} {
		files[alg+".pem"], files[alg+".jwk"] = testkit.KeyPEM(signer(alg, first)), privateJWK(alg, first)
	}
	return files
}

// TestC2_DoctorNamesTheCause checks that the report of cctoken doctor ends with the mistake
// and with what to change, which is also its error.
func TestC2_DoctorNamesTheCause(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, writeFiles(dir, mistakenFiles()))
	for _, m := range mistakes() {
		for _, c := range m.at {
			t.Run(slug(m.name)+"/"+slug(c.server), func(t *testing.T) {
				c.known.id = fmt.Sprintf("doctor-%s-%s", slug(m.name), slug(c.server))
				at := c.start(t, c.known)[0]
				flags := strings.NewReplacer("DIR", dir, "ISSUER", at.issuer, "TOKEN", at.token).Replace(c.flags)
				report, failure := runDoctor(t, c.known, strings.Fields(flags)...)
				last := report[strings.LastIndex(report, "\n")+1:]
				assert.Regexp(t, m.last, last, report)
				said, change, _ := strings.Cut(failure, "no token: ")
				assert.Equal(t, "cctoken doctor: ", said)
				assert.Contains(t, last, strings.TrimSpace(change))
			})
		}
	}
}

// runDoctor returns the report and the error of cctoken doctor, which must fail.
func runDoctor(t *testing.T, c registration, flags ...string) (report, failure string) {
	t.Helper()
	bin, err := cctokenDir()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "cctoken"), append([]string{"doctor"}, flags...)...)
	cmd.Env = append(os.Environ(), "CLIENT_ID="+c.id, "CLIENT_SECRET="+c.secret)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", stdout)
	return strings.TrimSpace(string(stdout)), stderr.String()
}

// TestC7_Renegotiation checks what doctor says about a server that asks for the client
// certificate by renegotiation, and that the advice to programs is right.
func TestC7_Renegotiation(t *testing.T) {
	token := startRenegotiation(t)
	dir := t.TempDir()
	require.NoError(t, writeCredentials(dir))
	report, _ := runDoctor(t, registration{id: "client"}, strings.Fields(strings.ReplaceAll(
		"-token-url "+token+" -cert-file DIR/cert.pem -key-file DIR/key.pem -ca-file DIR/ca.pem", "DIR", dir))...)
	assert.Regexp(t, `\nfail  endpoint .*; change -token-url to an address that asks for the client certificate in the TLS handshake: .* Renegotiation .*$`, report)

	config := testPKI().config()
	config.Renegotiation = tls.RenegotiateOnceAsClient
	transport := &http.Transport{TLSClientConfig: config}
	conf := &clientcredentials.Config{
		ClientID: "client", TokenURL: token, HTTPClient: &http.Client{Transport: transport},
		ClientAuth: &clientauth.TLSClientAuth{Source: clientauth.CertificateFiles(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))},
	}
	_, err := conf.Token(t.Context())
	require.NoError(t, err)
}

// startRenegotiation starts renegotiation/server.mjs, and returns the address of its token
// endpoint.
func startRenegotiation(t *testing.T) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "install Node.js (Debian: nodejs)")
	}
	arg, err := json.Marshal(testPKI().serverPEM())
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("renegotiation", "server.mjs"), string(arg))
	_, err = cmd.StdinPipe() // It stays open until the test ends.
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // The context of the test has ended the process.
	address, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(address)
}

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
)

// lines returns a pattern for a report: lines of it, of which others may stand between.
func lines(lines ...string) string {
	return `(?ms)^` + strings.Join(lines, `.*^`)
}

// newCertificate returns a client certificate, its key, and files with both. It is issued
// by itself if by is nil.
func newCertificate(t *testing.T, by *x509.Certificate, byKey crypto.Signer, life time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	t.Helper()
	key, keyFile := newKeyFile(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "reports"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), IsCA: true, BasicConstraintsValid: true,
	}
	if by == nil {
		by, byKey = template, key
	} else {
		template.Subject.CommonName += " by an authority"
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), byKey)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return certificate, key, writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), keyFile
}

// withMetadata returns the issuer of srv.
func withMetadata(t *testing.T, srv *clientcredentialstest.Server, edit func(*clientcredentials.ServerMetadata)) string {
	t.Helper()
	var issuer *httptest.Server
	issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/openid-configuration" {
			http.NotFound(w, r)
			return
		}
		m := clientcredentials.ServerMetadata{Issuer: issuer.URL, TokenEndpoint: srv.TokenURL}
		edit(&m)
		_ = writeJSON(w, m)
	}))
	t.Cleanup(issuer.Close)
	return issuer.URL
}

// TestDoctorSecret: what is found out about a server with a secret, and what Config
// comes of it.
func TestDoctorSecret(t *testing.T) {
	tests := []struct {
		name   string
		client clientcredentialstest.Client
		args   []string
		status int
		report string
		code   string
	}{
		{"both forms, decoded", clientcredentialstest.Client{Secret: canarySecret}, nil, 0, lines(
			`ok    endpoint +without credentials it answers 401 invalid_client, and it doesn't redirect$`,
			`note  tls +none`,
			`ok    client_secret_basic works$`,
			`ok    encoding +the server form-decodes`,
			`note  client_secret_basic_raw not tried: the server decodes`,
			`ok    client_secret_post  works$`,
			`ok    dpop +the server binds tokens to a key`,
			`ok    token +it lives for 1h$`,
			`ok    token +type Bearer, opaque$`,
			`ok    scope +granted as asked: none$`,
			`ok    clock +the server's agrees`,
			`ok    latency +.*the median of token requests on open connections: \d$`,
		), "	ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\n	AuthStyle:    oauth2.AuthStyleInHeader,\n}\n"},
		{"not decoded", clientcredentialstest.Client{Secret: canarySecret, RawBasic: true, AuthMethods: []string{secretBasic}}, nil, 0, lines(
			`note  client_secret_basic refused: status 401 invalid_client`,
			`ok    client_secret_basic_raw works$`,
			`warn  encoding +the server takes Basic credentials as they are`,
			`note  client_secret_post  refused`,
		), "	ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\n	ClientAuth: &clientauth.ClientSecretBasic{\n		Raw: true,\n	},\n}\n"},
		{"a plain secret, decoded", clientcredentialstest.Client{Secret: plainSecret}, nil, 0, lines(
			`ok    client_secret_basic works$`,
			`ok    encoding +the server form-decodes .*any characters$`,
		), "AuthStyle:    oauth2.AuthStyleInHeader,\n}\n"},
		{"a plain secret, not decoded", clientcredentialstest.Client{Secret: plainSecret, RawBasic: true}, nil, 0, lines(
			`ok    client_secret_basic works$`,
			`warn  encoding +.* and the next secret may need it$`,
		), "	// The server takes the credentials as they are.\n	ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\n	ClientAuth: &clientauth.ClientSecretBasic{\n		Raw: true,\n	},\n}\n"},
		{"the body only", clientcredentialstest.Client{Secret: plainSecret, AuthMethods: []string{secretPost}}, nil, 0, lines(
			`note  client_secret_basic refused`,
			`ok    client_secret_post  works$`,
		), "AuthStyle:    oauth2.AuthStyleInParams,\n}\n"},
		{"one that is asked for", clientcredentialstest.Client{Secret: plainSecret}, []string{"-auth-method", secretJWT}, 0, lines(
			`ok    client_secret_jwt   works$`,
		), "	ClientAuth:   &clientauth.ClientSecretJWT{},\n}\n"},
		{"scopes and parameters", clientcredentialstest.Client{Secret: plainSecret, AuthMethods: []string{secretPost}}, []string{"-scopes", "a b", "-params", "resource=urn:x&resource=urn:y&audience=z"}, 0, lines(
			`ok    scope +granted as asked: a, b$`,
		), "	Scopes:   []string{\"a\", \"b\"},\n	EndpointParams: url.Values{\n		\"audience\": {\"z\"},\n		\"resource\": {\"urn:x\", \"urn:y\"},\n	},\n"},
		{"more scopes", clientcredentialstest.Client{Secret: plainSecret, Scopes: []string{"a"}}, nil, 0, lines(`note  scope +granted without being asked for: a$`), ""},
		{"a scope that is refused", clientcredentialstest.Client{Secret: plainSecret, Scopes: []string{"a"}}, []string{"-scopes", "b"}, statusRefused, lines(
			`fail  client_secret_basic the credentials are accepted, but the server refused with invalid_scope`,
			`note  stop`,
		), ""},
		{"bound tokens only", clientcredentialstest.Client{Secret: plainSecret, RequireDPoP: true}, nil, statusRefused, lines(
			`note  client_secret_basic refused: status 400 invalid_dpop_proof .*; check -dpop-key-file`,
			`fail  credentials`,
		), ""},
		{"another secret", clientcredentialstest.Client{Secret: "another"}, nil, statusRefused, lines(
			`note  client_secret_basic refused: status 401 invalid_client "client authentication failed"$`,
			`note  client_secret_post  refused`,
			`fail  credentials +they are not accepted in any`,
		), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.client.ID = canaryID
			srv := startServer(t, tt.client)
			env := srv.env()
			if tt.client.Secret != canarySecret {
				env["CLIENT_SECRET"] = plainSecret
			}
			r := cctoken(t, env, "", append([]string{"doctor"}, tt.args...)...)
			assert.Equal(t, tt.status, r.status, r.stderr)
			assert.Regexp(t, tt.report, r.stdout)
			assert.Contains(t, r.stdout, tt.code)
			assert.Equal(t, tt.status == 0, strings.Contains(r.stdout, "\nconf := &clientcredentials.Config{\n"))
			assert.LessOrEqual(t, srv.Auth.TokenRequests(), announced(t, r.stdout))
			assertTokensUnseen(t, srv.Auth, r.stdout)
		})
	}
}

// announced returns how many requests a report begins with.
func announced(t *testing.T, report string) int {
	t.Helper()
	match := regexp.MustCompile(`^At most (\d+) requests`).FindStringSubmatch(report)
	require.NotNil(t, match, report)
	n, err := strconv.Atoi(match[1])
	require.NoError(t, err)
	return n
}

// assertTokensUnseen: a report holds none of the tokens.
func assertTokensUnseen(t *testing.T, auth *clientcredentialstest.AuthorizationServer, report string) {
	t.Helper()
	for _, word := range regexp.MustCompile(`[A-Z2-7]{26}`).FindAllString(report, -1) {
		_, issued := auth.Introspect(word)
		assert.False(t, issued, "a token in the report")
	}
}

// TestDoctorKeys: private_key_jwt, certificates and DPoP, over TLS.
func TestDoctorKeys(t *testing.T) {
	key, keyFile := newKeyFile(t)
	selfSigned, _, selfSignedFile, selfSignedKeyFile := newCertificate(t, nil, nil, time.Hour)
	authority, authorityKey, _, _ := newCertificate(t, nil, nil, time.Hour)
	issued, _, issuedFile, issuedKeyFile := newCertificate(t, authority, authorityKey, 100*24*time.Hour)
	client := clientcredentialstest.Client{ID: canaryID}

	tests := []struct {
		name   string
		client clientcredentialstest.Client
		args   []string
		// issuer is what the server calls itself; empty: it has no metadata.
		metadata bool
		audience string // that the server wants: "issuer" or "token URL"
		report   string
		code     string
	}{
		{name: "private_key_jwt without metadata", client: clientcredentialstest.Client{PublicKeys: []crypto.PublicKey{key.Public()}}, args: []string{"-key-file", keyFile, "-key-id", "k1", "-algorithm", "ES256"}, report: lines(
			`ok    tls +TLS 1.3, HTTP/1.1; certificate "example.com, .*", valid for another \d+ days`,
			`ok    private_key_jwt +works$`,
			`note  clock +the server refuses an assertion from 30s ahead`,
		), code: fmt.Sprintf("	ClientAuth: &clientauth.PrivateKeyJWT{\n		Key:       clientauth.KeyFile(%q),\n		Algorithm: \"ES256\",\n		KeyID:     \"k1\",\n	},\n", keyFile)},
		{name: "private_key_jwt for the issuer", client: clientcredentialstest.Client{PublicKeys: []crypto.PublicKey{key.Public()}}, args: []string{"-key-file", keyFile}, metadata: true, audience: "issuer", report: lines(
			`note  discovery +.*/oauth-authorization-server: status 404$`,
			`note  discovery +.*/openid-configuration: status 200$`,
			`ok    discovery +token endpoint https://.*/token; methods `,
			`ok    private_key_jwt +works, the issuer as audience$`,
		), code: "	ClientAuth: &clientauth.PrivateKeyJWT{\n		Key: clientauth.KeyFile("},
		{name: "private_key_jwt for the token URL", client: clientcredentialstest.Client{PublicKeys: []crypto.PublicKey{key.Public()}}, args: []string{"-key-file", keyFile}, metadata: true, audience: "token URL", report: lines(
			`note  private_key_jwt +refused, the issuer as audience: status 401 invalid_client "aud is not this server"$`,
			`ok    private_key_jwt +works, the token URL as audience$`,
		), code: "		Audience: \"https://"},
		{name: "tls_client_auth", client: clientcredentialstest.Client{Certificates: []*x509.Certificate{issued}, AuthMethods: []string{tlsAuth}}, args: []string{"-cert-file", issuedFile, "-key-file", issuedKeyFile}, report: lines(
			`ok    certificate +the client's, "CN=reports by an authority", is valid for another 99 days$`,
			`ok    tls_client_auth +works$`,
			`note  private_key_jwt +refused`,
		), code: fmt.Sprintf("	ClientAuth: &clientauth.TLSClientAuth{\n		Source: clientauth.CertificateFiles(%q, %q),\n	},\n", issuedFile, issuedKeyFile)},
		{name: "self_signed_tls_client_auth", client: clientcredentialstest.Client{Certificates: []*x509.Certificate{selfSigned}}, args: []string{"-cert-file", selfSignedFile, "-key-file", selfSignedKeyFile}, metadata: true, report: lines(
			`warn  certificate +the client's, "CN=reports", is valid for another 0 days$`,
			`ok    self_signed_tls_client_auth works$`,
		), code: "	ClientAuth: &clientauth.SelfSignedTLSClientAuth{\n"},
		{name: "private_key_jwt with the key of a certificate", client: clientcredentialstest.Client{PublicKeys: []crypto.PublicKey{issued.PublicKey}}, args: []string{"-cert-file", issuedFile, "-key-file", issuedKeyFile, "-auth-method", privateKeyJWT}, report: lines(
			`ok    private_key_jwt +works$`,
			`note  clock +the server refuses an assertion from 30s ahead`,
		), code: "		Key: clientauth.CertificateKey(clientauth.CertificateFiles("},
		{name: "DPoP", client: clientcredentialstest.Client{PublicKeys: []crypto.PublicKey{key.Public()}, RequireDPoP: true}, args: []string{"-key-file", keyFile, "-dpop-key-file", keyFile}, report: lines(
			`ok    private_key_jwt +works$`,
			`ok    token +type DPoP, opaque$`,
		), code: fmt.Sprintf("key, err := clientauth.KeyFile(%q)(ctx)\nif err != nil {\n	return err\n}\n", keyFile)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.client.ID = client.ID
			srv := clientcredentialstest.NewTLSServer(tt.client)
			defer srv.Close()
			args := append([]string{"doctor", "-client-id", client.ID, "-ca-file", writeAuthority(t, srv)}, tt.args...)
			if tt.metadata {
				issuer := withMetadata(t, srv, func(m *clientcredentials.ServerMetadata) {
					m.TokenEndpointAuthMethodsSupported = []string{privateKeyJWT, selfSignedTLS}
				})
				if tt.audience == "issuer" {
					srv.Auth.Issuer = issuer
				}
				args = append(args, "-issuer", issuer)
			} else {
				args = append(args, "-token-url", srv.TokenURL)
			}
			r := cctoken(t, nil, "", args...)
			assert.Zero(t, r.status, r.stderr)
			assert.Regexp(t, tt.report, r.stdout)
			assert.Contains(t, r.stdout, tt.code)
			assert.LessOrEqual(t, srv.Auth.TokenRequests(), announced(t, r.stdout))
			assertTokensUnseen(t, srv.Auth, r.stdout)
		})
	}
}

// TestDoctorMutualTLSEndpoint: with a certificate, the alias in the metadata counts.
func TestDoctorMutualTLSEndpoint(t *testing.T) {
	certificate, _, certFile, keyFile := newCertificate(t, nil, nil, time.Hour)
	srv := clientcredentialstest.NewTLSServer(clientcredentialstest.Client{ID: canaryID, Certificates: []*x509.Certificate{certificate}})
	defer srv.Close()
	plain := startServer(t)
	issuer := withMetadata(t, srv, func(m *clientcredentials.ServerMetadata) {
		m.TokenEndpoint = plain.TokenURL
		m.MTLSEndpointAliases.TokenEndpoint = srv.TokenURL
		m.TokenEndpointAuthMethodsSupported = []string{selfSignedTLS}
	})
	r := cctoken(t, nil, "", "doctor", "-client-id", canaryID, "-ca-file", writeAuthority(t, srv), "-cert-file", certFile, "-key-file", keyFile, "-issuer", issuer)
	assert.Zero(t, r.status, r.stderr)
	assert.Contains(t, r.stdout, "TokenURL: \""+srv.TokenURL+`"`)
	assert.Equal(t, 1, plain.Auth.TokenRequests(), "the one without credentials")
}

// TestDoctorFaults: what a server does wrong.
func TestDoctorFaults(t *testing.T) {
	token := func(body string) http.Handler { return hostile.JSON(200, body) }
	refuse := hostile.JSON(401, `{"error":"invalid_client"}`)
	dated := func(by time.Duration, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
			next.ServeHTTP(w, req)
		})
	}
	const good = `{"access_token":"` + canaryToken + `","token_type":"Bearer","expires_in":600}`
	tests := []struct {
		name    string
		answers []http.Handler
		status  int
		report  string
		secret  bool // whether the secret may be sent at all
	}{
		{"a redirect", []http.Handler{hostile.Redirect(308, "https://login.example/token")}, statusUnusable, lines(
			`fail  endpoint +.*a redirect to https://login.example:443, which is not followed; set TokenURL to the endpoint's final address$`,
			`note  stop +no credentials are sent`,
		), false},
		{"no token endpoint", []http.Handler{hostile.Text(404, "text/html", "<h1>")}, statusUnusable, lines(`fail  endpoint +the server answered 404`, `note  stop`), false},
		{"a page", []http.Handler{hostile.Text(200, "text/html", "<h1>")}, statusUnusable, lines(`fail  endpoint +.*the body looks like HTML`, `note  stop`), false},
		{"down", []http.Handler{hostile.Text(503, "text/plain", "")}, statusTemporary, lines(`fail  endpoint +.*try again later`, `note  stop`), false},
		{"reset", []http.Handler{hostile.Reset()}, statusTemporary, lines(`fail  endpoint`, `note  stop`), false},
		{"a token for anybody", []http.Handler{token(good)}, statusUnusable, lines(`fail  endpoint +it gives a token to anybody`), true},
		{"no OAuth error", []http.Handler{hostile.Text(400, "text/plain", "no"), token(good)}, 0, lines(`warn  endpoint +without credentials it answers 400 and no OAuth error`, `ok    token +it lives for 10m`), true},
		{"overloaded after all", []http.Handler{refuse, hostile.JSON(429, `{}`)}, statusTemporary, lines(`fail  client_secret_basic the server answered 429`, `note  stop`), true},
		{"a redirect after all", []http.Handler{refuse, hostile.Redirect(302, "https://login.example/")}, statusUnusable, lines(`fail  client_secret_basic .*a redirect`, `note  stop`), true},
		{"gone after all", []http.Handler{refuse, hostile.Reset()}, statusTemporary, lines(`fail  client_secret_basic`, `note  stop`), true},
		{"500 for a form that it doesn't know", []http.Handler{refuse, hostile.JSON(500, `{}`), hostile.JSON(500, `{}`), token(good)}, 0, lines(`note  client_secret_basic refused: status 500`, `ok    client_secret_post  works$`), true},
		{"unauthorized_client", []http.Handler{refuse, hostile.JSON(400, `{"error":"unauthorized_client"}`)}, statusRefused, lines(`fail  client_secret_basic the credentials are accepted, but`, `note  stop`), true},
		{"a wrong secret by another name", []http.Handler{refuse, hostile.JSON(401, `{"error":"unauthorized_client"}`)}, statusRefused, lines(`note  client_secret_basic refused: status 401 unauthorized_client`, `note  client_secret_post  refused`), true},
		{"no expiry and no type", []http.Handler{refuse, token(`{"access_token":"` + canaryToken + `"}`)}, 0, lines(`warn  token +the server doesn't say when it expires`, `warn  token +it has no token_type`), true},
		{"a short life", []http.Handler{refuse, token(`{"access_token":"` + canaryToken + `","token_type":"Bearer","expires_in":10}`)}, 0, lines(`warn  token +it lives for 10s only`), true},
		{"fewer scopes", []http.Handler{refuse, token(`{"access_token":"` + canaryToken + `","token_type":"Bearer","expires_in":600,"scope":"read"}`)}, 0, lines(`warn  scope +asked for and not granted: write`), true},
		{"no DPoP", []http.Handler{refuse, token(good)}, 0, lines(`note  dpop +the server doesn't bind tokens to a key$`), true},
		{"DPoP refused", []http.Handler{refuse, token(good), token(good), token(good), hostile.JSON(400, `{"error":"invalid_request"}`)}, 0, lines(`note  dpop +the server doesn't take a DPoP proof: the server refused with invalid_request`), true},
		{"a clock that is fast", []http.Handler{dated(10*time.Minute, refuse), dated(10*time.Minute, token(good))}, 0, lines(`warn  clock +the server's is (9m( \d+s)?|10m) ahead of`), true},
		{"a clock that is slow", []http.Handler{dated(-time.Hour, refuse), dated(-time.Hour, token(good))}, 0, lines(`warn  clock +the server's is (59m( \d+s)?|1h) behind`), true},
		{"a JWT", []http.Handler{refuse, token(`{"access_token":"` + unsigned(`{"alg":"RS256"}`, `{"aud":"https://api.example"}`) + `","token_type":"Bearer","expires_in":600}`)}, 0, lines(`ok    token +type Bearer, a JWT; audience https://api.example; bound none`), true},
		{"an echo", []http.Handler{refuse, hostile.Echo(400)}, statusRefused, lines(`note  client_secret_basic refused: status 400`), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := hostile.Start(t, tt.answers...)
			env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": s.URL + "/token", "SCOPES": "read write"}
			if strings.Contains(tt.name, "DPoP") {
				env["CLIENT_SECRET"] = plainSecret
			}
			r := cctoken(t, env, "", "doctor")
			assert.Equal(t, tt.status, r.status, r.stderr)
			assert.Regexp(t, tt.report, r.stdout)
			assert.LessOrEqual(t, len(s.Requests()), announced(t, r.stdout))
			if !tt.secret {
				assert.Len(t, s.Requests(), 1)
				assert.Empty(t, s.Find(canarySecret), "the secret was sent")
			}
		})
	}
	t.Run("http", func(t *testing.T) {
		env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": "http://login.invalid/token"}
		r := cctoken(t, env, "", "doctor")
		assert.Equal(t, statusUnusable, r.status)
		assert.Regexp(t, lines(`fail  tls +the token URL is http`, `note  stop +no credentials are sent over http`), r.stdout)
	})
	t.Run("an unknown certificate", func(t *testing.T) {
		srv := clientcredentialstest.NewTLSServer()
		defer srv.Close()
		env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": srv.TokenURL}
		r := cctoken(t, env, "", "doctor")
		assert.Equal(t, statusUnusable, r.status)
		assert.Regexp(t, lines(`fail  endpoint .*-ca-file`, `note  stop`), r.stdout)
	})
	t.Run("no answer in time", func(t *testing.T) {
		srv := startServer(t)
		srv.Auth.Latency = time.Hour
		r := cctoken(t, srv.env(), "", "doctor", "-timeout", "50ms")
		assert.Equal(t, statusTemporary, r.status)
		assert.Contains(t, r.stderr, "it took longer than -timeout 50ms")
	})
}

// TestDoctorMetadata: what the metadata says, and what is wrong with it.
func TestDoctorMetadata(t *testing.T) {
	srv := startServer(t)
	tests := []struct {
		name   string
		edit   func(*clientcredentials.ServerMetadata)
		args   []string
		status int
		report string
	}{
		{"methods that aren't listed", func(m *clientcredentials.ServerMetadata) {
			m.TokenEndpointAuthMethodsSupported = []string{secretPost}
		}, nil, 0, lines(`note  client_secret_basic not tried: the metadata doesn't list it$`, `ok    client_secret_post  works$`, `note  dpop +not tried`)},
		{"no method that there is a credential for", func(m *clientcredentials.ServerMetadata) {
			m.TokenEndpointAuthMethodsSupported = []string{tlsAuth}
		}, nil, statusRefused, lines(`note  client_secret_post  not tried`, `fail  credentials`)},
		{"one that is asked for", func(m *clientcredentials.ServerMetadata) {
			m.TokenEndpointAuthMethodsSupported = []string{tlsAuth}
		}, []string{"-auth-method", secretPost}, 0, lines(`ok    client_secret_post  works$`)},
		{"grants", func(m *clientcredentials.ServerMetadata) { m.GrantTypesSupported = []string{"implicit"} }, nil, 0, lines(`warn  discovery +the metadata lists its grants, and client_credentials is not among them: implicit`)},
		{"another token URL", func(m *clientcredentials.ServerMetadata) { m.TokenEndpoint = "http://127.0.0.1:1/token" }, []string{"-token-url", srv.TokenURL}, 0, lines(`warn  discovery +-token-url is another than that in the metadata`, `ok    client_secret_basic works`)},
		{"none of this issuer", func(m *clientcredentials.ServerMetadata) { m.Issuer = "https://other.example" }, nil, statusUnusable, lines(`fail  discovery +.*it is that of the issuer`, `note  stop`)},
		{"none of this issuer, but a token URL", func(m *clientcredentials.ServerMetadata) { m.Issuer = "https://other.example" }, []string{"-token-url", srv.TokenURL}, 0, lines(`warn  discovery +.*it is that of the issuer`, `ok    client_secret_basic works`)},
		{"no token endpoint", func(m *clientcredentials.ServerMetadata) { m.TokenEndpoint = "" }, nil, statusUnusable, lines(`fail  discovery +the metadata has no token_endpoint`, `note  stop`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := srv.env()
			delete(env, "TOKEN_URL")
			env["ISSUER"] = withMetadata(t, srv.Server, tt.edit)
			r := cctoken(t, env, "", append([]string{"doctor"}, tt.args...)...)
			assert.Equal(t, tt.status, r.status, r.stderr)
			assert.Regexp(t, tt.report, r.stdout)
		})
	}
}

// TestDoctorIsPolite: a dry run sends nothing, and nobody is locked out.
func TestDoctorIsPolite(t *testing.T) {
	t.Run("dry run", func(t *testing.T) {
		s := hostile.Start(t, hostile.JSON(401, `{"error":"invalid_client"}`))
		env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "ISSUER": s.URL}
		dry := cctoken(t, env, "", "doctor", "-n")
		assert.Zero(t, dry.status, dry.stderr)
		assert.Empty(t, s.Received())
		assert.Equal(t, 11, announced(t, dry.stdout))
		assert.Contains(t, dry.stdout, "POST a token request by client_secret_basic_raw")

		wet := cctoken(t, env, "", "doctor")
		assert.True(t, strings.HasPrefix(wet.stdout, dry.stdout), "what is announced is something else")
	})
	for limit, requests := range map[string]int{"1": 2, "2": 3, "3": 4, "4": 4} {
		t.Run(limit+" refusals", func(t *testing.T) {
			s := hostile.Start(t, hostile.JSON(401, `{"error":"invalid_client"}`))
			env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": canarySecret, "TOKEN_URL": s.URL + "/token"}
			r := cctoken(t, env, "", "doctor", "-max-refusals", limit)
			assert.Equal(t, statusRefused, r.status)
			assert.Len(t, s.Requests(), requests)
		})
	}
	t.Run("refusals of what is only tried out", func(t *testing.T) {
		srv := startServer(t, clientcredentialstest.Client{ID: canaryID, Secret: plainSecret, RawBasic: true})
		env := srv.env()
		env["CLIENT_SECRET"] = plainSecret
		r := cctoken(t, env, "", "doctor", "-max-refusals", "1")
		assert.Zero(t, r.status, r.stderr)
		assert.Regexp(t, lines(`ok    client_secret_post  works`, `warn  encoding`, `note  stop +1 refusals so far`), r.stdout)
	})
	t.Run("one after the other", func(t *testing.T) {
		srv := startServer(t)
		r := cctoken(t, srv.env(), "", "doctor")
		require.Zero(t, r.status, r.stderr)
		seen := map[string]bool{}
		for _, req := range srv.Auth.Requests() {
			sent := req.Header.Get("Authorization") + req.Header.Get("DPoP") + req.Body
			assert.False(t, seen[sent], "a request that was sent twice")
			seen[sent] = true
		}
	})
}

// TestWireIsBounded: no mistake makes more requests than were announced.
func TestWireIsBounded(t *testing.T) {
	s := hostile.Start(t, hostile.Text(200, "text/plain", ""))
	w := newWire(new(settings), nil, 2)
	defer w.close()
	for i := range 4 {
		resp, err := w.client().Get(s.URL)
		if i >= 2 {
			require.ErrorIs(t, err, errTooMany)
			continue
		}
		require.NoError(t, err)
		_ = resp.Body.Close()
	}
	assert.Len(t, s.Requests(), 2)
}

func TestClockSkew(t *testing.T) {
	at := func(seconds float64) time.Time { return time.Unix(1_800_000_000, int64(seconds*1e9)) }
	tests := []struct {
		date           string
		sent, answered float64
		want           time.Duration
	}{
		{at(0).UTC().Format(http.TimeFormat), 0.2, 0.4, 0},
		{at(0).UTC().Format(http.TimeFormat), 0.9, 1.1, 0},
		{at(1).UTC().Format(http.TimeFormat), 0.9, 1.1, 0},
		{at(10).UTC().Format(http.TimeFormat), 0, 1, 9 * time.Second},
		{at(0).UTC().Format(http.TimeFormat), 10, 11, -10 * time.Second},
	}
	for _, tt := range tests {
		x := exchange{date: tt.date, sent: at(tt.sent), answered: at(tt.answered)}
		got, known := clockSkew([]exchange{x, {date: "x"}})
		assert.True(t, known)
		assert.Equal(t, tt.want, got)
	}
	_, known := clockSkew(nil)
	assert.False(t, known)
}

// TestDoctorKeepsTheQuery: nobody reads in the report what may be a key.
func TestDoctorKeepsTheQuery(t *testing.T) {
	srv := startServer(t)
	env := srv.env()
	env["TOKEN_URL"] += "?subscription=" + canaryToken
	r := cctoken(t, env, "", "doctor")
	assert.Zero(t, r.status, r.stderr)
	assert.Contains(t, r.stdout, "	TokenURL:     os.Getenv(\"TOKEN_URL\"),\n")
}

// TestDoctorNothingSent: what fails before anything is sent is no fault of the server.
func TestDoctorNothingSent(t *testing.T) {
	srv := startServer(t)
	env := srv.env()
	env["CLIENT_SECRET"] = "short "
	r := cctoken(t, env, "", "doctor", "-auth-method", secretJWT)
	assert.Equal(t, statusRefused, r.status)
	assert.Regexp(t, lines(`warn  secret +it begins or ends with white space`, `note  client_secret_jwt   not tried: client_secret_jwt: HS256 needs a secret`, `fail  credentials`), r.stdout)
	assert.Equal(t, 1, srv.Auth.TokenRequests())
}

// TestDoctorCertificateForAll: some servers want a certificate of everybody.
func TestDoctorCertificateForAll(t *testing.T) {
	certificate, _, certFile, keyFile := newCertificate(t, nil, nil, time.Hour)
	srv := httptest.NewUnstartedServer(&clientcredentialstest.AuthorizationServer{Clients: []clientcredentialstest.Client{
		{ID: canaryID, Certificates: []*x509.Certificate{certificate}},
	}})
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	defer srv.Close()
	authority := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	r := cctoken(t, nil, "", "doctor", "-client-id", canaryID, "-token-url", srv.URL+"/token", "-ca-file", authority,
		"-cert-file", certFile, "-key-file", keyFile, "-auth-method", selfSignedTLS)
	assert.Zero(t, r.status, r.stderr)
	assert.Regexp(t, lines(`ok    endpoint`, `ok    tls`, `ok    self_signed_tls_client_auth works`), r.stdout)
}

// TestDoctorProbes: what comes of the requests that only find out something.
func TestDoctorProbes(t *testing.T) {
	const good = `{"access_token":"` + canaryToken + `","token_type":"Bearer","expires_in":600}`
	refuse, grant := hostile.JSON(401, `{"error":"invalid_client"}`), hostile.JSON(200, good)
	_, keyFile := newKeyFile(t)
	tests := []struct {
		name    string
		args    []string
		answers []http.Handler
		status  int
		report  string
	}{
		{"a clock that is tolerated", []string{"-key-file", keyFile, "-auth-method", privateKeyJWT}, []http.Handler{refuse, grant}, 0, lines(`ok    private_key_jwt     works$`, `ok    clock +the server takes an assertion from 30s ahead$`)},
		{"one that isn't", []string{"-key-file", keyFile, "-auth-method", privateKeyJWT}, []http.Handler{refuse, grant, refuse, grant}, 0, lines(`note  clock +the server refuses an assertion from 30s ahead`)},
		{"overload", nil, []http.Handler{refuse, grant, grant, hostile.JSON(503, `{}`)}, statusTemporary, lines(`ok    client_secret_post  works$`, `fail  encoding +the server answered 503`, `note  stop`, `The Config for it:$`)},
		{"a broken connection", nil, []http.Handler{refuse, grant, grant, hostile.Reset()}, statusTemporary, lines(`fail  encoding`, `note  stop`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := hostile.Start(t, tt.answers...)
			env := environment{"CLIENT_ID": canaryID, "CLIENT_SECRET": plainSecret, "TOKEN_URL": s.URL + "/token"}
			r := cctoken(t, env, "", append([]string{"doctor"}, tt.args...)...)
			assert.Equal(t, tt.status, r.status, r.stderr)
			assert.Regexp(t, tt.report, r.stdout)
			assert.LessOrEqual(t, len(s.Requests()), announced(t, r.stdout))
		})
	}
}

package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// lines returns a pattern for a report with these lines in this order. Other lines may
// be between them.
func lines(lines ...string) string {
	return `(?ms)^` + strings.Join(lines, `.*^`)
}

// doctored runs cctoken doctor, and checks its exit status and its report.
func doctored(t *testing.T, env environment, args []string, status int, report string) result {
	t.Helper()
	r := cctoken(t, env, "", append([]string{"doctor"}, args...)...)
	assert.Equal(t, status, r.status, r.stderr)
	assert.Regexp(t, report, r.stdout)
	return r
}

// announced returns how many requests a report announces.
func announced(t *testing.T, report string) (n int) {
	t.Helper()
	_, err := fmt.Sscanf(report, "At most %d requests", &n)
	require.NoError(t, err, report)
	return n
}

// TestDoctor checks the report and the Config for clients of all kinds. Those without a
// secret use TLS.
func TestDoctor(t *testing.T) {
	const (
		fromEnvironment = "	ClientSecret: os.Getenv(\"CLIENT_SECRET\"),\n"
		raw             = fromEnvironment + "	ClientAuth: &clientauth.ClientSecretBasic{\n		Raw: true,\n	},\n}\n"
		inHeader        = "AuthStyle:    oauth2.AuthStyleInHeader,\n}\n"
	)
	key, keyFile := newKeyFile(t)
	selfSigned := newCertificate(t, nil, time.Hour)
	issued := newCertificate(t, selfSigned, 100*24*time.Hour)
	type client = clientcredentialstest.Client
	withKey := client{PublicKeys: []crypto.PublicKey{key.Public()}}
	tests := []struct {
		name   string
		client client
		args   []string
		issuer string // "": no metadata; "own": the server accepts it as an audience, too
		status int
		report string
		code   string
	}{
		{"both forms, decoded", client{Secret: canarySecret}, nil, "", 0, lines(
			`ok    endpoint +without credentials it answers 401 invalid_client, and it doesn't redirect$`, `note  tls +none`, `ok    client_secret_basic works$`,
			`ok    encoding +the server form-decodes`, `ok    client_secret_post  works$`, `note  client_secret_basic_raw not tried: the server decodes`,
			`ok    dpop +the server can bind tokens to a key`, `ok    token +it lives for 1h$`, `ok    token +type Bearer, opaque$`, `ok    scope +granted as requested: none$`,
			`ok    clock +the server's clock agrees`, `ok    latency +.*the median of token requests on open connections: \d$`,
		), fromEnvironment + "	" + inHeader},
		{"not decoded", client{Secret: canarySecret, RawBasic: true, AuthMethods: []string{secretBasic}}, nil, "", 0, lines(
			`note  client_secret_basic refused with invalid_client \(status 401\)`, `note  client_secret_post  refused`, `ok    client_secret_basic_raw works$`,
			`warn  encoding +the server doesn't decode Basic credentials`,
		), raw},
		{"a plain secret, not decoded", client{Secret: plainSecret, RawBasic: true, AuthMethods: []string{secretBasic}}, nil, "", 0, lines(`ok    client_secret_basic works$`, `warn  encoding +.* which the next secret may need$`), "	// The server doesn't decode the credentials.\n" + raw},
		{"the body only", client{Secret: plainSecret, AuthMethods: []string{secretPost}}, nil, "", 0, lines(`note  client_secret_basic refused`, `ok    client_secret_post  works$`), "AuthStyle:    oauth2.AuthStyleInParams,\n}\n"},
		{"scopes and parameters", client{Secret: plainSecret, AuthMethods: []string{secretPost}}, []string{"-scopes", "a b", "-params", "resource=urn:x&resource=urn:y&audience=z"}, "", 0, lines(
			`ok    scope +granted as requested: a, b$`,
		), "	Scopes:   []string{\"a\", \"b\"},\n	EndpointParams: url.Values{\n		\"audience\": {\"z\"},\n		\"resource\": {\"urn:x\", \"urn:y\"},\n	},\n"},
		{"a refused scope", client{Secret: plainSecret, Scopes: []string{"a"}}, []string{"-scopes", "b"}, "", statusRefused, lines(`note  client_secret_basic refused with invalid_scope`, `note  methods +no more are tried`, `fail  scope +the server refused with invalid_scope .*; change -scopes, or [^\n]*\n\z`), ""},
		{"bound tokens only", client{Secret: plainSecret, RequireDPoP: true}, nil, "", statusRefused, lines(`note  client_secret_basic refused with invalid_dpop_proof`, `fail  dpop +.*; give -dpop-key-file: [^\n]*\n\z`), ""},

		{"private_key_jwt without metadata", withKey, []string{"-key-file", keyFile, "-key-id", "k1", "-algorithm", "ES256"}, "", 0, lines(
			`ok    tls +TLS 1.3, HTTP/1.1; certificate "example.com, .*", valid for another \d+ days`, `ok    private_key_jwt +works$`,
			`note  clock +the server refuses an assertion from 30s in the future`,
		), fmt.Sprintf("	ClientAuth: &clientauth.PrivateKeyJWT{\n		Key:       clientauth.KeyFile(%q),\n		Algorithm: \"ES256\",\n		KeyID:     \"k1\",\n	},\n", keyFile)},
		{"private_key_jwt for the issuer", withKey, []string{"-key-file", keyFile}, "own", 0, lines(
			`note  discovery +.*/oauth-authorization-server: status 404$`, `note  discovery +.*/openid-configuration: status 200$`,
			`ok    discovery +token endpoint https://.*/token; methods `, `ok    private_key_jwt +works with the issuer as audience$`,
		), "	ClientAuth: &clientauth.PrivateKeyJWT{\n		Key: clientauth.KeyFile("},
		{"private_key_jwt for the token URL", withKey, []string{"-key-file", keyFile}, "other", 0, lines(
			`note  private_key_jwt +with the issuer as audience: refused with invalid_client \(status 401\), saying "aud is not this server"$`,
			`ok    private_key_jwt +works with the token URL as audience$`,
		), "		Audience: \"https://"},
		{"tls_client_auth", client{Certificates: []*x509.Certificate{issued.Leaf}, AuthMethods: []string{tlsAuth}}, issued.flags(), "", 0, lines(
			`ok    certificate +the client's certificate, "CN=reports by an authority", is valid for another 99 days$`, `ok    tls_client_auth +works$`, `note  private_key_jwt +refused`,
		), fmt.Sprintf("	ClientAuth: &clientauth.TLSClientAuth{\n		Source: clientauth.CertificateFiles(%q, %q),\n	},\n", issued.certFile, issued.keyFile)},
		{"self_signed_tls_client_auth", client{Certificates: []*x509.Certificate{selfSigned.Leaf}}, selfSigned.flags(), "other", 0, lines(
			`warn  certificate +the client's certificate, "CN=reports", is valid for another 0 days$`, `ok    self_signed_tls_client_auth works$`,
		), "	ClientAuth: &clientauth.SelfSignedTLSClientAuth{\n"},
		{"private_key_jwt with the key of a certificate", client{PublicKeys: []crypto.PublicKey{issued.Leaf.PublicKey}}, issued.flags("-auth-method", privateKeyJWT), "", 0, lines(
			`ok    private_key_jwt +works$`, `note  clock +the server refuses an assertion from 30s in the future`,
		), "		Key: clientauth.CertificateKey(clientauth.CertificateFiles("},
		{"DPoP", client{PublicKeys: withKey.PublicKeys, RequireDPoP: true}, []string{"-key-file", keyFile, "-dpop-key-file", keyFile}, "", 0, lines(
			`ok    private_key_jwt +works$`, `ok    token +type DPoP, opaque$`,
		), fmt.Sprintf("key, err := clientauth.KeyFile(%q)(ctx)\nif err != nil {\n	return err\n}\n", keyFile)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.client.ID = canaryID
			start := startServer
			if tt.client.Secret == "" {
				start = startTLSServer
			}
			srv := start(t, tt.client)
			env := srv.env().with("CLIENT_SECRET", tt.client.Secret)
			if tt.client.Secret == "" {
				env["CA_FILE"] = srv.authority(t)
			}
			if tt.issuer != "" {
				env["TOKEN_URL"] = ""
				env["ISSUER"] = srv.withMetadata(t, func(m *clientcredentials.ServerMetadata) {
					m.TokenEndpointAuthMethodsSupported = []string{privateKeyJWT, selfSignedTLS}
				})
			}
			if tt.issuer == "own" {
				srv.Auth.Issuer = env["ISSUER"]
			}
			r := doctored(t, env, tt.args, tt.status, tt.report)
			assert.Contains(t, r.stdout, tt.code)
			assert.Equal(t, tt.status == 0, strings.Contains(r.stdout, "\nconf := &clientcredentials.Config{\n"))
			assert.LessOrEqual(t, srv.Auth.TokenRequests(), announced(t, r.stdout))
			for _, word := range regexp.MustCompile(`[A-Z2-7]{26}`).FindAllString(r.stdout, -1) {
				_, issued := srv.Auth.Introspect(word)
				assert.False(t, issued, "a token in the report")
			}
		})
	}
}

// Settings say how an assertion names the certificate, and that client_id isn't beside it. The
// Config says the same.
func TestA8_SettingsOfAssertions(t *testing.T) {
	issued := newCertificate(t, newCertificate(t, nil, time.Hour), time.Hour)
	srv := startServer(t, clientcredentialstest.Client{ID: canaryID, Secret: canarySecret, PublicKeys: []crypto.PublicKey{issued.Leaf.PublicKey}})
	for _, tt := range []struct {
		args   []string
		header []string // of each assertion, besides alg and typ
		sent   bool     // client_id
		code   string
	}{
		{issued.flags("-auth-method", privateKeyJWT), []string{"x5t#S256"}, true, "CertificateFiles(\"" + issued.certFile + "\", \"" + issued.keyFile + "\")),\n	},\n"},
		{issued.flags("-auth-method", privateKeyJWT, "-cert-header", "x5c x5t#S256", "-omit-client-id", "true"), []string{"x5c", "x5t#S256"}, false, "		CertificateHeader: []string{\"x5c\", \"x5t#S256\"},\n		OmitClientID:      true,\n	},\n"},
		{issued.flags("-auth-method", privateKeyJWT, "-cert-header", "x5c", "-omit-client-id", "false"), []string{"x5c"}, true, "		CertificateHeader: []string{\"x5c\"},\n	},\n"},
		{[]string{"-auth-method", secretJWT, "-omit-client-id", "true"}, nil, false, "&clientauth.ClientSecretJWT{\n		OmitClientID: true,\n	},\n"},
	} {
		before := srv.Auth.TokenRequests()
		r := doctored(t, srv.env().with("CLIENT_SECRET", canarySecret), tt.args, 0, `_jwt +works`)
		assert.Contains(t, r.stdout, tt.code)
		for _, request := range srv.Auth.Requests()[before:] {
			if request.Assertion == nil {
				continue // It has no credentials.
			}
			assert.Equal(t, tt.sent, request.Form.Has("client_id"))
			names := slices.Sorted(maps.Keys(request.Assertion.Header))
			assert.Equal(t, slices.Sorted(slices.Values(append([]string{"alg", "typ"}, tt.header...))), names)
		}
	}
	for file, typ := range map[string]string{"a.b.c": privateKeyJWT, "d.e.f": spiffeJWT} {
		before := srv.Auth.TokenRequests()
		args := []string{"token", "-auth-method", typ, "-assertion-file", writeFile(t, "jwt", file), "-omit-client-id", "true"}
		assert.Equal(t, statusRefused, cctoken(t, srv.env(), "", args...).status)
		assert.False(t, srv.Auth.Requests()[before].Form.Has("client_id"))
	}
}

// TestDoctorMutualTLSEndpoint checks that a client with a certificate uses the alias in
// the metadata.
func TestDoctorMutualTLSEndpoint(t *testing.T) {
	own := newCertificate(t, nil, time.Hour)
	srv := startTLSServer(t, clientcredentialstest.Client{ID: canaryID, Certificates: []*x509.Certificate{own.Leaf}})
	plain := startServer(t)
	issuer := srv.withMetadata(t, func(m *clientcredentials.ServerMetadata) {
		m.TokenEndpoint = plain.TokenURL
		m.MTLSEndpointAliases.TokenEndpoint = srv.TokenURL
		m.TokenEndpointAuthMethodsSupported = []string{selfSignedTLS}
	})
	doctored(t, nil, own.flags("-client-id", canaryID, "-ca-file", srv.authority(t), "-issuer", issuer), 0, "TokenURL: \""+srv.TokenURL+`"`)
	assert.Equal(t, 1, plain.Auth.TokenRequests(), "the request without credentials")
}

func TestDoctorFaults(t *testing.T) {
	const (
		start = `{"access_token":"` + canaryToken + `"`
		good  = start + `,"token_type":"Bearer","expires_in":600}`
	)
	token := func(body string) http.Handler { return hostile.JSON(200, body) }
	refuse, grant := hostile.JSON(401, `{"error":"invalid_client"}`), token(good)
	dated := func(by time.Duration, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
			next.ServeHTTP(w, req)
		})
	}
	_, keyFile := newKeyFile(t)
	byKey := []string{"-key-file", keyFile, "-auth-method", privateKeyJWT}
	type answers = []http.Handler
	tests := []struct {
		name    string
		secret  string // empty: no secret may be sent
		args    []string
		answers answers
		status  int
		report  string
	}{
		{"a redirect", "", nil, answers{hostile.Redirect(308, "https://login.example/token")}, statusUnusable, lines(
			`note  stop +doctor sends credentials only to`,
			`fail  endpoint +.*a redirect to https://login.example:443, which is not followed; set TokenURL to the endpoint's final address$`,
		)},
		{"not found", "", nil, answers{hostile.Text(404, "text/html", "<h1>")}, statusUnusable, lines(`note  stop`, `fail  endpoint +the server answered 404`)},
		{"a page", "", nil, answers{hostile.Text(200, "text/html", "<h1>")}, statusUnusable, lines(`note  stop`, `fail  endpoint +.*the body looks like HTML`)},
		{"down", "", nil, answers{hostile.Text(503, "text/plain", "")}, statusTemporary, lines(`note  stop`, `fail  endpoint +.*try again later`)},

		{"a token for anybody", canarySecret, nil, answers{grant}, statusUnusable, lines(`fail  endpoint +it issues a token without credentials`)},
		{"no OAuth error", canarySecret, nil, answers{hostile.Text(400, "text/plain", "no"), grant}, 0, lines(`warn  endpoint +without credentials it answers 400 without an OAuth error`, `ok    token +it lives for 10m`)},
		{"overloaded later", canarySecret, nil, answers{refuse, hostile.JSON(429, `{}`)}, statusTemporary, lines(`note  stop`, `fail  client_secret_basic the server answered 429`)},
		{"a reset later", canarySecret, nil, answers{refuse, hostile.Reset()}, statusTemporary, lines(`note  stop`, `fail  client_secret_basic`)},
		{"500 for an unknown form", canarySecret, nil, answers{refuse, hostile.JSON(500, `{}`), grant}, 0, lines(`note  client_secret_basic answered 500`, `ok    client_secret_post  works$`)},
		{"unauthorized_client", canarySecret, nil, answers{refuse, hostile.JSON(400, `{"error":"unauthorized_client"}`)}, statusRefused, lines(`note  methods`, `fail  grant +.*client_credentials grant$`)},
		{"unauthorized_client for a wrong secret", canarySecret, nil, answers{refuse, hostile.JSON(401, `{"error":"unauthorized_client"}`)}, statusRefused, lines(`note  client_secret_basic refused with unauthorized_client`, `note  client_secret_post  refused`, `fail  credentials`)},

		{"no expiry and no type", canarySecret, nil, answers{refuse, token(start + `}`)}, 0, lines(`warn  token +the server doesn't say when it expires`, `warn  token +it has no token_type`)},
		{"a short life", canarySecret, nil, answers{refuse, token(start + `,"token_type":"Bearer","expires_in":10}`)}, 0, lines(`warn  token +it lives for only 10s`)},
		{"fewer scopes", canarySecret, nil, answers{refuse, token(start + `,"token_type":"Bearer","expires_in":600,"scope":"read"}`)}, 0, lines(`warn  scope +requested but not granted: write`)},
		{"a JWT", canarySecret, nil, answers{refuse, token(`{"access_token":"` + unsigned(`{"alg":"RS256"}`, `{"aud":"https://api.example"}`) + `","token_type":"Bearer","expires_in":600}`)}, 0, lines(
			`ok    token +type Bearer, a JWT; audience https://api.example; binding: none`,
		)},
		{"a clock that is fast", canarySecret, nil, answers{dated(10*time.Minute, refuse), dated(10*time.Minute, grant)}, 0, lines(`warn  clock +the server's clock is (9m( \d+s)?|10m) ahead of`)},

		{"DPoP refused", plainSecret, nil, answers{refuse, grant, grant, grant, hostile.JSON(400, `{"error":"invalid_request"}`)}, 0, lines(`note  dpop +the server doesn't accept a DPoP proof: the server refused with invalid_request`)},
		{"an assertion from the future accepted", plainSecret, byKey, answers{refuse, grant}, 0, lines(`ok    private_key_jwt     works$`, `ok    clock +the server accepts an assertion from 30s in the future$`)},
		{"a probe overloads", plainSecret, nil, answers{refuse, grant, grant, hostile.JSON(503, `{}`)}, statusTemporary, lines(`ok    client_secret_post  works$`, `note  stop`, `fail  encoding +the server answered 503`, `The Config for it:$`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := hostile.Start(t, tt.answers...)
			env := clientOf(s.URL+"/token").with("SCOPES", "read write")
			if tt.secret != "" {
				env["CLIENT_SECRET"] = tt.secret
			}
			r := doctored(t, env, tt.args, tt.status, tt.report)
			assert.LessOrEqual(t, len(s.Requests()), announced(t, r.stdout))
			assert.LessOrEqual(t, strings.Count(r.stdout, "\nfail "), 1, "the same twice")
			if tt.secret == "" {
				assert.Len(t, s.Requests(), 1)
				assert.Empty(t, s.Find(canarySecret), "the secret was sent")
			}
		})
	}
	t.Run("http", func(t *testing.T) {
		doctored(t, clientOf("http://login.invalid/token"), nil, statusUnusable, lines(`note  stop +doctor doesn't send credentials over http`, `fail  tls +the token URL is http`))
	})
}

func TestD6_DoctorMetadata(t *testing.T) {
	srv := startServer(t)
	type metadata = clientcredentials.ServerMetadata
	listing := func(method string) func(*metadata) {
		return func(m *metadata) { m.TokenEndpointAuthMethodsSupported = []string{method} }
	}
	ofOther := func(m *metadata) { m.Issuer = "https://other.example" }
	tests := []struct {
		name   string
		edit   func(*metadata)
		args   []string
		status int
		report string
	}{
		{"methods that aren't listed", listing(secretPost), nil, 0, lines(`note  client_secret_basic not tried: the metadata doesn't list it$`, `ok    client_secret_post  works$`, `note  dpop +not tried`)},
		{"grants", func(m *metadata) { m.GrantTypesSupported = []string{"implicit"} }, nil, 0, lines(`note  discovery +the metadata lists its grant types without client_credentials: implicit; doctor goes on`, `ok    client_secret_basic works`)},
		{"no method of the client", listing("none"), nil, 0, lines(`note  discovery +the metadata lists none of the methods that there are credentials for; doctor tries them`, `ok    client_secret_basic works`, `ok    client_secret_post  works`)},
		{"no method of the client, and a wrong secret", listing(privateKeyJWT), []string{"-secret-file", writeFile(t, "wrong", "x")}, statusRefused, lines(`note  discovery +the metadata lists none of the methods`, `note  client_secret_post  refused`, `fail  method +.*; give the credentials for a method that the metadata lists: private_key_jwt$`)},
		{"another method than the one asked for", listing(secretPost), []string{"-auth-method", secretBasic}, 0, lines(`note  discovery +the metadata lists none of the methods`, `ok    client_secret_basic works`)},
		{"an endpoint for certificates only", func(m *metadata) { m.MTLSEndpointAliases.TokenEndpoint, m.TokenEndpoint = m.TokenEndpoint, "" }, nil, 0, lines(`ok    discovery +token endpoint none`, `ok    client_secret_basic works`)},
		{"another token URL", func(m *metadata) { m.TokenEndpoint = "http://127.0.0.1:1/token" }, []string{"-token-url", srv.TokenURL}, 0, lines(`warn  discovery +-token-url is used, but the metadata has another token endpoint`, `ok    client_secret_basic works`)},
		{"another issuer, and a token URL", ofOther, []string{"-token-url", srv.TokenURL}, 0, lines(`warn  discovery +.*it is that of the issuer`, `ok    client_secret_basic works`)},
		{"no token endpoint", func(m *metadata) { m.TokenEndpoint = "" }, nil, statusUnusable, lines(`note  stop +the token endpoint is unknown without metadata; give -token-url$`, `fail  discovery +cannot discover .*: it has no token_endpoint; check the issuer, or set TokenURL instead$`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doctored(t, srv.env().with("TOKEN_URL", "", "ISSUER", srv.withMetadata(t, tt.edit)), tt.args, tt.status, tt.report)
		})
	}
	r := cctoken(t, srv.env().with("TOKEN_URL", "", "ISSUER", srv.withMetadata(t, listing(privateKeyJWT)), "CLIENT_SECRET", "wrong"), "", "token", "-auth-method", secretPost)
	assert.Contains(t, r.stderr, "change -auth-method to one that the metadata lists: private_key_jwt")
}

func TestDoctorIsPolite(t *testing.T) {
	refuse := hostile.JSON(401, `{"error":"invalid_client"}`)
	s := hostile.Start(t, refuse)
	env := clientOf("").with("ISSUER", s.URL)
	dry := doctored(t, env, []string{"-n"}, 0, "POST a token request with client_secret_basic_raw")
	assert.Empty(t, s.Received())
	assert.Equal(t, 11, announced(t, dry.stdout))
	wet := cctoken(t, env, "", "doctor")
	assert.True(t, strings.HasPrefix(wet.stdout, dry.stdout), "without -n, the announcement is another one")

	s = hostile.Start(t, refuse)
	doctored(t, clientOf(s.URL+"/token"), []string{"-max-refusals", "2"}, statusRefused, "")
	assert.Len(t, s.Requests(), 3)
	srv := startServer(t, clientcredentialstest.Client{ID: canaryID, Secret: plainSecret, RawBasic: true})
	doctored(t, srv.env().with("CLIENT_SECRET", plainSecret), []string{"-max-refusals", "1"}, 0, lines(`note  stop +1 refusals so far`))
}

// TestWireIsBounded checks that a wire sends no more requests than announced.
func TestWireIsBounded(t *testing.T) {
	s := hostile.Start(t, hostile.Text(200, "text/plain", ""))
	w := newWire(new(settings), nil, 2)
	defer w.close()
	for i := range 4 {
		resp, err := w.client().Get(s.URL)
		if err == nil {
			_ = resp.Body.Close()
		}
		assert.Equal(t, i >= 2, errors.Is(err, errTooMany), err)
	}
	assert.Len(t, s.Requests(), 2)
}

func TestClockSkew(t *testing.T) {
	at := func(seconds float64) time.Time { return time.Unix(1_800_000_000, int64(seconds*1e9)) }
	for _, tt := range [][4]float64{ // the time in the answer, when it was asked for and when it came, and the skew
		{0, 0.9, 1.1, 0},
		{1, 0.9, 1.1, 0},
		{10, 0, 1, 9},
		{0, 10, 11, -10},
	} {
		x := exchange{date: at(tt[0]).UTC().Format(http.TimeFormat), sent: at(tt[1]), answered: at(tt[2])}
		got, known := clockSkew([]exchange{x, {date: "x"}})
		assert.True(t, known)
		assert.InDelta(t, tt[3], got.Seconds(), 0)
	}
}

// TestDoctorHidesTheQuery checks that the query of the token URL, which may contain a
// key, isn't in the report.
func TestDoctorHidesTheQuery(t *testing.T) {
	env := startServer(t).env()
	env["TOKEN_URL"] += "?subscription=" + canaryToken
	doctored(t, env, nil, 0, `TokenURL:     os.Getenv\("TOKEN_URL"\),`)
}

// TestDoctorNothingSent checks that an error before the request isn't reported as a
// refusal.
func TestDoctorNothingSent(t *testing.T) {
	doctored(t, startServer(t).env().with("CLIENT_SECRET", "short "), []string{"-auth-method", secretJWT}, statusUsage, lines(
		`warn  secret +it begins or ends with white space`, `note  client_secret_jwt   not tried: client_secret_jwt: HS256 needs a secret`, `fail  client_secret_jwt +client_secret_jwt: HS256 needs a secret`,
	))
}

// TestDoctorCertificateForAll examines a server that requires a certificate of
// everybody.
func TestDoctorCertificateForAll(t *testing.T) {
	own := newCertificate(t, nil, time.Hour)
	client := clientcredentialstest.Client{ID: canaryID, Certificates: []*x509.Certificate{own.Leaf}}
	env := startCertificateServer(t, &clientcredentialstest.AuthorizationServer{Clients: []clientcredentialstest.Client{client}})
	doctored(t, env.with("CLIENT_SECRET", ""), own.flags("-auth-method", selfSignedTLS), 0,
		lines(`ok    endpoint`, `ok    tls`, `ok    self_signed_tls_client_auth works`))
}

// The library sends a secret of the environment as it is, and a secret of a file without its
// byte order mark. doctor warns of both.
func TestK4_InvisibleCharacters(t *testing.T) {
	for name, tt := range map[string]struct{ secret, file, report string }{
		"byte order mark":  {"\ufeff" + canarySecret, "", `warn  secret +it contains a byte order mark \(U\+FEFF\), which is sent as well`},
		"zero width space": {canarySecret + "\u200b", "", `warn  secret +it contains a zero width space \(U\+200B\)`},
		"no-break space":   {canarySecret[:4] + "\u00a0" + canarySecret[4:], "", `warn  secret +it contains a no-break space \(U\+00A0\)`},
		"line break":       {canarySecret + "\n", "", `warn  secret +it contains a line break \(U\+000A\)`},
		"file with a mark": {"", "\ufeff" + canarySecret + "\r\n", `warn  secret +its file begins with a byte order mark, which the library removes`},
	} {
		t.Run(name, func(t *testing.T) {
			client := clientcredentialstest.Client{ID: canaryID, Secret: tt.secret}
			var args []string
			if tt.file != "" {
				client.Secret = canarySecret
				args = []string{"-secret-file", writeFile(t, "secret", tt.file)}
			}
			r := doctored(t, startServer(t, client).env().with("CLIENT_SECRET", tt.secret), args, 0, lines(tt.report, `ok    client_secret_basic works$`))
			assert.NotContains(t, r.stdout, canarySecret)
		})
	}
	config := writeFile(t, "config.json", "\ufeff{}")
	assert.Equal(t, 0, cctoken(t, startServer(t).env(), "", "token", "-config", config).status)
	path := writeFile(t, "secret", canarySecret+"\u200b")
	r := cctoken(t, clientOf("http://127.0.0.1:1").with("CLIENT_SECRET", ""), "", "token", "-secret-file", path)
	assert.Equal(t, statusUsage, r.status)
	assert.Contains(t, r.stderr, "-secret-file: the file "+path+": the secret contains a zero width space (U+200B)")
}

// A server that takes PS256 only says so in its metadata. The Config that doctor prints
// doesn't read metadata, so it names the algorithm.
func TestK7_ListedAlgorithm(t *testing.T) {
	key := testkit.NewKey("PS256")
	keyFile := writeFile(t, "key.pem", testkit.KeyPEM(key))
	for _, tt := range []struct {
		name   string
		listed []string
		status int
		report string
	}{
		{"the default", []string{"PS256", "RS256"}, 0, lines(`ok    private_key_jwt +works`, `		Key: clientauth.KeyFile\(.*\),\n	},$`)},
		{"another", []string{"PS256"}, 0, lines(`ok    private_key_jwt +works`, `		Algorithm: "PS256",$`)},
		{"none", []string{"ES256"}, statusUsage, lines(`note  private_key_jwt +not tried with the issuer as audience: private_key_jwt: no algorithm of the key is listed .* lists \["ES256"\]; use another key, or set Algorithm`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := startTLSServer(t, clientcredentialstest.Client{ID: canaryID, PublicKeys: []crypto.PublicKey{key.Public()}})
			env := srv.env().with("TOKEN_URL", "", "CLIENT_SECRET", "", "CA_FILE", srv.authority(t), "ISSUER", srv.withMetadata(t, func(m *clientcredentials.ServerMetadata) {
				m.TokenEndpointAuthMethodsSupported = []string{privateKeyJWT}
				m.TokenEndpointAuthSigningAlgValuesSupported = tt.listed
			}))
			srv.Auth.Issuer = env["ISSUER"]
			doctored(t, env, []string{"-key-file", keyFile}, tt.status, tt.report)
			if tt.status == 0 {
				for _, req := range srv.Auth.Requests()[1:] {
					header := parseToken(req.Form.Get("client_assertion")).Header
					assert.Equal(t, tt.listed[len(tt.listed)-1], header["alg"])
				}
				r := cctoken(t, env, "", "token", "-key-file", keyFile)
				assert.Equal(t, 0, r.status, r.stderr)
				sent := srv.Auth.Requests()
				assert.Equal(t, tt.listed[len(tt.listed)-1], parseToken(sent[len(sent)-1].Form.Get("client_assertion")).Header["alg"])
			}
		})
	}
}

// -ca-file takes the formats of other files.
func TestK3_AuthorityFiles(t *testing.T) {
	srv := startTLSServer(t, clientcredentialstest.Client{ID: canaryID, Secret: canarySecret})
	authority, err := os.ReadFile(srv.authority(t))
	require.NoError(t, err)
	block, _ := pem.Decode(authority)
	bad := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("\x30\x03\x02\x01\x05")}))
	for name, tt := range map[string]struct{ data, err string }{
		"PEM":             {string(authority), ""},
		"byte order mark": {"\ufeff" + string(authority), ""},
		"DER":             {string(block.Bytes), ""},
		"a bundle":        {bad + string(authority), ""},
		"unusable":        {bad, "has no certificate that can be read"},
		"damaged":         {string(authority) + "-----BEGIN CERTIFICATE-----\n", "the PEM is damaged"},
		"text":            {"s3cr3t", "neither PEM nor a JWK"},
	} {
		r := cctoken(t, srv.env(), "", "token", "-ca-file", writeFile(t, "ca", tt.data))
		assert.Equal(t, tt.err == "", r.status == 0, "%s: %s", name, r.stderr)
		assert.Contains(t, r.stderr, tt.err, name)
	}
}

package workload

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/clientauth"
)

const (
	requestSecret = "canary-of-the-request-7c1e99d04b"
	audience      = "https://auth.example/token?x=1&y"
)

// jwt returns a JWT with these claims. Nobody verifies it.
func jwt(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + "." + encode([]byte("canary-of-the-signature"))
}

// lasting returns a JWT that expires after d.
func lasting(d time.Duration) string {
	return jwt(map[string]any{"sub": "canary-of-the-subject", "exp": time.Now().Add(d).Unix()})
}

// A platform is one of the sources that ask a server, and what its server expects.
type platform struct {
	name    string
	source  func(network) clientauth.SecretSource
	env     func(origin string) map[string]string // how to have the source ask another server
	request string                                // method and URI
	header  map[string]string
	answer  func(token string) (mediaType, body string)
	secret  bool // the request has requestSecret in it
	respond http.Header
}

func jsonAnswer(format string) func(string) (string, string) {
	return func(token string) (string, string) { return "application/json", fmt.Sprintf(format, token) }
}

var platforms = []platform{
	{
		name:   "GitHub Actions",
		source: func(n network) clientauth.SecretSource { return n.gitHubActions(audience) },
		env: func(origin string) map[string]string {
			return map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": origin + "/42/idtoken?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": requestSecret}
		},
		request: "GET /42/idtoken?api-version=2.0&audience=https%3A%2F%2Fauth.example%2Ftoken%3Fx%3D1%26y",
		header:  map[string]string{"Authorization": "Bearer " + requestSecret},
		answer:  jsonAnswer(`{"count":1,"value":%q}`),
		secret:  true,
	}, {
		name:   "Google",
		source: func(n network) clientauth.SecretSource { return n.googleMetadata(audience) },
		env: func(origin string) map[string]string {
			return map[string]string{"GCE_METADATA_HOST": strings.TrimPrefix(origin, "http://")}
		},
		request: "GET /computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Fauth.example%2Ftoken%3Fx%3D1%26y&format=full",
		header:  map[string]string{"Metadata-Flavor": "Google"},
		answer:  func(token string) (string, string) { return "text/html", token + "\n" },
		respond: http.Header{"Metadata-Flavor": {"Google"}},
	}, {
		name:   "Azure IMDS",
		source: func(n network) clientauth.SecretSource { return n.azureManagedIdentity(audience, AzureIdentity{}) },
		env: func(origin string) map[string]string {
			return map[string]string{"AZURE_POD_IDENTITY_AUTHORITY_HOST": origin}
		},
		request: "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fauth.example%2Ftoken%3Fx%3D1%26y",
		header:  map[string]string{"Metadata": "true"},
		answer:  jsonAnswer(`{"access_token":%q,"client_id":"x","expires_in":"86400","expires_on":"1506484173","resource":"x","token_type":"Bearer"}`),
	}, {
		name: "Azure App Service",
		source: func(n network) clientauth.SecretSource {
			return n.azureManagedIdentity(audience, AzureIdentity{ClientID: "c"})
		},
		env: func(origin string) map[string]string {
			return map[string]string{"IDENTITY_ENDPOINT": origin + "/msi/token", "IDENTITY_HEADER": requestSecret}
		},
		request: "GET /msi/token?api-version=2019-08-01&client_id=c&resource=https%3A%2F%2Fauth.example%2Ftoken%3Fx%3D1%26y",
		header:  map[string]string{"X-IDENTITY-HEADER": requestSecret},
		answer:  jsonAnswer(`{"access_token":%q,"expires_on":"1586984735","resource":"x","token_type":"Bearer","client_id":"c"}`),
		secret:  true,
	}, {
		name:   "Azure Pipelines",
		source: func(n network) clientauth.SecretSource { return n.azurePipelines("a b") },
		env: func(origin string) map[string]string {
			return map[string]string{"SYSTEM_OIDCREQUESTURI": origin + "/_apis/oidctoken", "SYSTEM_ACCESSTOKEN": requestSecret + "\n"}
		},
		request: "POST /_apis/oidctoken?api-version=7.1&serviceConnectionId=a+b",
		header:  map[string]string{"Authorization": "Bearer " + requestSecret, "Content-Type": "application/json", "X-TFS-FedAuthRedirect": "Suppress", "Content-Length": "0"},
		answer:  jsonAnswer(`{"oidcToken":%q}`),
		secret:  true,
	},
}

// variables are all that the sources read.
var variables = []string{
	"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GCE_METADATA_HOST", "AZURE_POD_IDENTITY_AUTHORITY_HOST",
	"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "SYSTEM_OIDCREQUESTURI", "SYSTEM_ACCESSTOKEN",
}

// setenv sets these variables, and clears the others.
func setenv(t *testing.T, values map[string]string) {
	t.Helper()
	for _, name := range variables {
		t.Setenv(name, values[name])
	}
}

// good answers with a token, and with what the platform adds to each answer.
func (p *platform) good(token string) http.Handler {
	mediaType, body := p.answer(token)
	return p.says(http.StatusOK, mediaType, body)
}

// says gives another answer of the platform's server.
func (p *platform) says(status int, mediaType, body string) http.Handler {
	return p.with(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
}

// with adds the header that all answers of the platform have.
func (p *platform) with(answer http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), p.respond)
		answer.ServeHTTP(w, r)
	})
}

// A memory is a network without sockets, for bubbles of synctest.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	server *http.Server
}

// inMemory returns a network in which handler is at each address, and a function that ends
// it.
func inMemory(handler http.Handler) (network, func()) {
	m := &memory{make(chan net.Conn), make(chan struct{}), &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.server.Serve(m)
	}()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		client, server := net.Pipe()
		select {
		case m.conns <- server:
			return client, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return network{dial: dial}, func() {
		_ = m.server.Close()
		<-done
		time.Sleep(2 * time.Second) // Until the handlers have noticed.
	}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	close(m.closed)
	return nil
}

func (*memory) Addr() net.Addr { return &net.TCPAddr{} }

// failing returns a network in which each connection fails with err. It counts them.
func failing(err error) (n network, dials *int) {
	dials = new(int)
	return network{dial: func(context.Context, string, string) (net.Conn, error) {
		*dials++
		return nil, err
	}}, dials
}

// surfaces returns v, and everything that an error wraps, in every form in which it could be
// printed.
func surfaces(v any) string {
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	encoded, err := json.Marshal(v)
	fmt.Fprintf(&b, "%s %v\n", encoded, err)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("json", "value", v)
	switch wrapper := v.(type) {
	case interface{ Unwrap() error }:
		if inner := wrapper.Unwrap(); inner != nil {
			b.WriteString(surfaces(inner))
		}
	case interface{ Unwrap() []error }:
		for _, inner := range wrapper.Unwrap() {
			b.WriteString(surfaces(inner))
		}
	}
	return b.String()
}

// requireNoQuery fails if an error shows the query of an address.
func requireNoQuery(t *testing.T, err error) {
	t.Helper()
	require.NotContains(t, err.Error(), url.QueryEscape(audience))
	require.NotContains(t, err.Error(), "api-version")
}

var (
	errGone = errors.New("the caller has gone")

	// errUnknown is the error for a host that isn't known. It isn't tried again.
	errUnknown = &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}
)

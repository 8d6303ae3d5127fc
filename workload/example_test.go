package workload_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
	"github.com/seed-5bfa0880/clientcredentials/workload"
)

// A job of GitHub Actions authenticates as the workflow that it belongs to.
func ExampleGitHubActions() {
	world := newWorld("ACTIONS_ID_TOKEN_REQUEST_URL=", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=job")
	defer world.close()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   world.auth.TokenURL,
		ClientAuth: &clientauth.Assertion{Source: workload.GitHubActions(world.auth.TokenURL)},
	}
	world.printMethod(conf)
	// Output: private_key_jwt
}

// A program on Google Cloud authenticates as its service account.
func ExampleGoogleMetadata() {
	world := newWorld("GCE_METADATA_HOST=")
	defer world.close()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   world.auth.TokenURL,
		ClientAuth: &clientauth.Assertion{Source: workload.GoogleMetadata(world.auth.TokenURL)},
	}
	world.printMethod(conf)
	// Output: private_key_jwt
}

// An application of Microsoft Entra ID has a federated credential for a managed identity.
func ExampleAzureManagedIdentity() {
	world := newWorld("AZURE_POD_IDENTITY_AUTHORITY_HOST=")
	defer world.close()

	identity := workload.AzureIdentity{ClientID: "00000000-0000-0000-0000-000000000000"}
	conf := &clientcredentials.Config{
		ClientID: "reports",
		TokenURL: world.auth.TokenURL,
		ClientAuth: &clientauth.Assertion{
			Source: workload.AzureManagedIdentity("api://AzureADTokenExchange", identity),
		},
	}
	world.printMethod(conf)
	// Output: private_key_jwt
}

// A job of Azure Pipelines authenticates as a service connection.
func ExampleAzurePipelines() {
	world := newWorld("SYSTEM_OIDCREQUESTURI=", "SYSTEM_ACCESSTOKEN=job")
	defer world.close()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   world.auth.TokenURL,
		ClientAuth: &clientauth.Assertion{Source: workload.AzurePipelines("11111111-1111-1111-1111-111111111111")},
	}
	world.printMethod(conf)
	// Output: private_key_jwt
}

// A pod authenticates with its service account token from a projected volume.
func ExampleKubernetesToken() {
	world := newWorld()
	defer world.close()
	path := world.tokenFile() // Such as /var/run/secrets/tokens/reports.

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   world.auth.TokenURL,
		ClientAuth: &clientauth.Assertion{Source: workload.KubernetesToken(path)},
	}
	world.printMethod(conf)
	// Output: private_key_jwt
}

// A program of the platform prints the token.
func ExampleCommand() {
	world := newWorld()
	defer world.close()
	path := world.tokenFile()

	conf := &clientcredentials.Config{
		ClientID:   "reports",
		TokenURL:   world.auth.TokenURL,
		ClientAuth: &clientauth.Assertion{Source: workload.Command("cat", path)},
	}
	world.printMethod(conf)
	// Output: private_key_jwt
}

// A world is an authorization server, and a platform whose tokens it trusts.
type world struct {
	auth     *clientcredentialstest.Server
	platform *httptest.Server
	key      *jws.Key
	dir      string
}

// newWorld sets variables. One that is empty is set to the address of the platform.
func newWorld(variables ...string) *world {
	signer := testkit.NewKey("ES256")
	key, err := jws.NewKey(signer, "ES256")
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "workload")
	if err != nil {
		log.Fatal(err)
	}
	w := &world{key: key, dir: dir, auth: clientcredentialstest.NewServer(clientcredentialstest.Client{
		ID: "reports", PublicKeys: []crypto.PublicKey{signer.Public()},
	})}
	w.platform = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Metadata-Flavor", "Google")
		if os.Getenv("GCE_METADATA_HOST") != "" {
			fmt.Fprint(rw, w.token())
			return
		}
		fmt.Fprintf(rw, `{"value":%[1]q,"access_token":%[1]q,"oidcToken":%[1]q}`, w.token())
	}))
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case value != "":
		case name == "GCE_METADATA_HOST":
			value = strings.TrimPrefix(w.platform.URL, "http://")
		default:
			value = w.platform.URL
		}
		if err := os.Setenv(name, value); err != nil {
			log.Fatal(err)
		}
	}
	return w
}

// token returns a token of the platform.
func (w *world) token() string {
	token, err := w.key.Sign(map[string]any{"typ": "JWT"}, map[string]any{
		"iss": "reports", "sub": "reports", "aud": w.auth.TokenURL, "jti": rand.Text(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		log.Fatal(err)
	}
	return token
}

// tokenFile writes a token to a file.
func (w *world) tokenFile() string {
	path := filepath.Join(w.dir, "token")
	if err := os.WriteFile(path, []byte(w.token()), 0o600); err != nil {
		log.Fatal(err)
	}
	return path
}

// printMethod requests a token and prints the method by which the client authenticated.
func (w *world) printMethod(conf *clientcredentials.Config) {
	if _, err := conf.Token(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(w.auth.Auth.Requests()[0].AuthMethod)
}

// close ends the world.
func (w *world) close() {
	w.auth.Close()
	w.platform.Close()
	os.RemoveAll(w.dir)
	for _, name := range []string{"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GCE_METADATA_HOST", "AZURE_POD_IDENTITY_AUTHORITY_HOST", "SYSTEM_OIDCREQUESTURI", "SYSTEM_ACCESSTOKEN"} {
		os.Unsetenv(name)
	}
}

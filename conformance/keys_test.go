package conformance

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials"
	"github.com/seed-5bfa0880/clientcredentials/clientauth"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// TestC8_Registration: a server accepts as a registration what cctoken key prints, and then
// issues tokens for the key in the file.
func TestC8_Registration(t *testing.T) {
	at := oidcProvider.start(t)
	require.Empty(t, at)
	issuer := oidcProvider.at.issuer
	for _, algorithm := range []string{"ES256", "PS256", "RS256", "ES512", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			bin, err := cctokenDir()
			require.NoError(t, err)
			dir := t.TempDir()
			run := func(args ...string) []byte {
				cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "cctoken"), args...)
				cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir}
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				require.NoError(t, err, stderr.String())
				return out
			}
			request := run("key", "-out", "key.pem", "-algorithm", algorithm, "-client-name", "Reports", "-scopes", scopeRead)
			resp, err := http.Post(issuer+"/reg", "application/json", bytes.NewReader(request))
			require.NoError(t, err)
			defer func() { _ = resp.Body.Close() }()
			var client struct {
				ID        string `json:"client_id"`
				Algorithm string `json:"token_endpoint_auth_signing_alg"`
				Scope     string
				Error     string `json:"error_description"`
			}
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&client))
			require.Equal(t, http.StatusCreated, resp.StatusCode, client.Error)
			assert.Equal(t, algorithm, client.Algorithm)
			assert.Equal(t, scopeRead, client.Scope)

			settings := []string{"-issuer", issuer, "-client-id", client.ID, "-key-file", "key.pem", "-algorithm", algorithm, "-scopes", scopeRead}
			assert.NotEmpty(t, run(append([]string{"token"}, settings...)...))
			assert.NotContains(t, string(run(append([]string{"doctor"}, settings...)...)), "\nfail")
		})
	}
}

// TestK9_PublishedKeys: servers read the keys of a client from its jwks_uri, and no token
// request fails during a rotation.
func TestK9_PublishedKeys(t *testing.T) {
	for _, s := range []authServer{
		{name: "oidc-provider", start: oidcProvider.start},
		{name: "Ory Hydra", start: hydra.start}, // It demands a kid.
	} {
		t.Run(slug(s.name), func(t *testing.T) {
			dir := t.TempDir()
			current, next := filepath.Join(dir, "current.pem"), filepath.Join(dir, "next.pem")
			put := func(path string) {
				require.NoError(t, os.WriteFile(path, []byte(testkit.KeyPEM(testkit.NewKey("ES256"))), 0o600))
			}
			key := clientauth.ThumbprintKeyID(clientauth.KeyFile(current))
			set := clientauth.JWKS(key, clientauth.KeyFile(next))
			asked := 0
			published := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				set.ServeHTTP(w, r)
			}))
			t.Cleanup(published.Close)
			put(current)
			put(next)

			c := registration{id: "publishes-" + slug(s.name), method: privateKeyJWT, alg: "ES256", ttl: time.Hour, metadata: map[string]any{"jwks_uri": published.URL + "/jwks.json"}}
			at := s.start(t, c)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{ClientID: c.id, TokenURL: at.token, ClientAuth: &clientauth.PrivateKeyJWT{Key: key}}
			kid := func() string {
				_, err := conf.Token(w.context(t))
				require.NoError(t, err)
				seen := w.tokenRequests()
				require.Len(t, seen, 1)
				return jwsHeader(seen[0].assertion).KeyID
			}
			before := kid()
			assert.Equal(t, before, kid())
			assert.Equal(t, 1, asked, "the server keeps the set for as long as Cache-Control says")
			require.NoError(t, os.Rename(next, current))
			after := kid()
			assert.Len(t, after, 43)
			assert.NotEqual(t, before, after)
		})
	}
}

// TestK8_RotatedClient: the identifier and the secret of a client are replaced, as secret
// managers do, and the server forgets the old client.
func TestK8_RotatedClient(t *testing.T) {
	for _, s := range []authServer{
		{name: "oidc-provider", start: oidcProvider.start},
		{name: "authlib", start: authlib.start},
		{name: "django-oauth-toolkit", start: django.start},
		{name: "Ory Hydra", start: hydra.start},
	} {
		t.Run(slug(s.name), func(t *testing.T) {
			clients := []registration{secretClient("rotated-1-"+slug(s.name), secretPost, nil), secretClient("rotated-2-"+slug(s.name), secretPost, nil)}
			for i := range clients {
				clients[i].secret += clients[i].id
			}
			path := filepath.Join(t.TempDir(), "client.json")
			put := func(c registration) {
				text, err := json.Marshal(map[string]string{"client_id": c.id, "client_secret": c.secret})
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(path+".new", text, 0o600))
				require.NoError(t, os.Rename(path+".new", path))
			}
			put(clients[0])
			at := s.start(t, clients...)[0]
			w := newWire(t, at.token)
			conf := &clientcredentials.Config{TokenURL: at.token, ClientAuth: clientauth.WithCredentials(clientauth.CredentialsFile(path), new(clientauth.ClientSecretPost))}
			for _, c := range clients {
				put(c)
				got := do(t.Context(), conf.Client(w.context(t)), at.api, nil)
				require.NoError(t, got.err)
				assert.Equal(t, http.StatusOK, got.status)
				assert.Equal(t, c.id, got.answer.ClientID)
			}
		})
	}
}

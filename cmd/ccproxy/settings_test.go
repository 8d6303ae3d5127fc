package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	goodClient = `{"client_id": "c", "token_url": "https://a.example/token", "secret_file": "s"}`
	goodRoute  = `{"path": "/a/", "upstream": "https://b.example", "client": "x"}`
)

// withRoute returns settings whose third line has a route.
func withRoute(route string) string {
	return "{\"clients\": {\"x\": " + goodClient + "},\n\"routes\": [\n" + route + "]}"
}

// withClient returns settings whose second line has a client.
func withClient(client string) string {
	return "{\"routes\": [" + goodRoute + "], \"clients\": {\n\"x\": " + client + "}}"
}

// withStore returns settings whose third line has a store.
func withStore(store string) string {
	return "{\"routes\": [" + goodRoute + "], \"clients\": {\"x\": " + goodClient + "},\n\"store\":\n" + store + "}"
}

// TestX1_Mistakes checks that mistakes in the settings are found, with their line.
func TestX1_Mistakes(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"good.json": goodClient, "bad.json": "{\n\"scope\": \"x\"}", "secret.json": "{\"client_secret\":\n\"SecretCanary\"}",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	for text, want := range map[string]string{
		``:                                  "line 1: it isn't valid JSON",
		"{\n\n,":                            "line 3: it isn't valid JSON",
		"[]":                                "line 1: it isn't a JSON object",
		"{}\n{}":                            "line 2: it isn't valid JSON",
		`{}`:                                "line 1: there is no clients",
		"{\"listen\": 1,\n\"listen\": 2}":   "one of its members appears more than once",
		"{\n\"listen\": 1}":                 "line 2: listen is neither a string nor an array of strings",
		"{\"listen\": [\n\"a\", null]}":     "line 1: listen is neither",
		"{\"routes\": {}, \"clients\": {}}": "line 1: routes must be an array with at least one object",
		withRoute(goodRoute + ",\n3"):       "line 4: it isn't a JSON object",
		withRoute("null"):                   "line 3: it isn't a JSON object",
		"{\n\"Listen\": \"a\"," + withRoute(goodRoute)[1:]: `line 2: "Listen" isn't a setting`,
		"{\n\"port\": 1," + withRoute(goodRoute)[1:]:       `line 2: "port" isn't a setting`,
		"{\n\"tls\": {}," + withRoute(goodRoute)[1:]:       `line 2: "tls" isn't a setting`,

		withRoute(goodRoute + ",\n" + goodRoute):                                                              "line 4: there is another route for the same host and path",
		withRoute(`{"upstream": "https://b.example", "client": "x"}`):                                         "line 3: there is neither host nor path",
		withRoute(`{"path": "/a", "upstream": "https://b.example", "client": "x"}`):                           "line 3: path must begin and end with /",
		withRoute(`{"path": "a/", "upstream": "https://b.example", "client": "x"}`):                           "line 3: path must begin and end with /",
		withRoute(`{"path": "/a/../", "upstream": "https://b.example", "client": "x"}`):                       "line 3: path must begin and end with /",
		withRoute(`{"path": "/%61/", "upstream": "https://b.example", "client": "x"}`):                        "line 3: path must begin and end with /",
		withRoute(`{"path": "//", "upstream": "https://b.example", "client": "x"}`):                           "line 3: path must begin and end with /",
		withRoute(`{"path": true, "upstream": "https://b.example", "client": "x"}`):                           "line 3: path is not a string",
		withRoute(`{"host": "b.example:80", "upstream": "https://b", "client": "x"}`):                         "line 3: host must be a host name without port",
		withRoute(`{"host": "LOCALHOST", "upstream": "https://b", "client": "x"}`):                            "line 3: host must be a host name",
		withRoute(`{"host": "127.0.0.9", "upstream": "https://b", "client": "x"}`):                            "line 3: host must be a host name",
		withRoute(`{"host": "::1", "upstream": "https://b", "client": "x"}`):                                  "line 3: host must be a host name",
		withRoute(`{"path": "/a/", "client": "x"}`):                                                           "line 3: upstream must be the address of an API",
		withRoute(`{"path": "/a/", "upstream": "b.example", "client": "x"}`):                                  "line 3: upstream must be the address of an API",
		withRoute(`{"path": "/a/", "upstream": "ftp://b.example", "client": "x"}`):                            "line 3: upstream must be the address of an API",
		withRoute(`{"path": "/a/", "upstream": "https://u:SecretCanary@b", "client": "x"}`):                   "line 3: upstream must be the address of an API",
		withRoute(`{"path": "/a/", "upstream": "https://b?q", "client": "x"}`):                                "line 3: upstream must be the address of an API",
		withRoute(`{"path": "/a/", "upstream": "https://b#f", "client": "x"}`):                                "line 3: upstream must be the address of an API",
		withRoute(`{"path": "/a/", "upstream": "http://b.example", "client": "x"}`):                           "set dangerously_allow_http to true",
		withRoute(`{"path": "/a/", "upstream": "http://localhost.b", "client": "x"}`):                         "set dangerously_allow_http to true",
		withRoute(`{"path": "/a/", "upstream": "HTTP://10.0.0.1", "client": "x"}`):                            "set dangerously_allow_http to true",
		withRoute(`{"path": "/a/", "upstream": "http://b", "dangerously_allow_http": "true", "client": "x"}`): "dangerously_allow_http must be true or false",
		withRoute(`{"path": "/a/", "upstream": "https://b", "client": "y"}`):                                  "line 3: client must be the name of one of the clients",
		withRoute(`{"path": "/a/", "upstream": "https://b"}`):                                                 "line 3: client must be the name",
		withRoute("{\"path\": \"/a/\", \"upstream\": \"https://b\", \"client\": \"x\",\n\"scope\": \"a\"}"):   `line 4: "scope" isn't a setting`,
		withRoute(`{"path": "/a/", "upstream": "https://b", "client": "x", "scopes": ["a"]}`):                 "scopes is not a string",
		withRoute(`{"path": "/a/", "upstream": "https://b", "client": "x", "resource": {}}`):                  "resource is neither a string nor an array",

		withStore(`"redis://a"`):                                                    "line 3: it isn't a JSON object",
		withStore(`{"key_files": "k"}`):                                             "line 3: redis must be an address without a password",
		withStore(`{"redis": "a:6379", "key_files": "k"}`):                          "line 3: redis must be an address",
		withStore(`{"redis": "http://a", "key_files": "k"}`):                        "line 3: redis must be an address",
		withStore(`{"redis": "redis://", "key_files": "k"}`):                        "line 3: redis must be an address",
		withStore(`{"redis": "redis://a:port", "key_files": "k"}`):                  "line 3: redis must be an address",
		withStore(`{"redis": "redis://a/b", "key_files": "k"}`):                     "line 3: redis must be an address",
		withStore(`{"redis": "redis://a/-1", "key_files": "k"}`):                    "line 3: redis must be an address",
		withStore(`{"redis": "redis://:Canary@a", "key_files": "k"}`):               "line 3: redis must be an address without a password",
		withStore(`{"redis": "rediss://u:Canary@a", "key_files": "k"}`):             "put the password into a file, and name that with password_file",
		withStore(`{"redis": "rediss://u:Canary%@a", "key_files": "k"}`):            "line 3: redis must be an address",
		withStore(`{"redis": "rediss://a?skip_verify=1", "key_files": "k"}`):        "line 3: redis must be an address",
		withStore(`{"redis": "unix://run/redis.sock", "key_files": "k"}`):           "line 3: redis must be an address",
		withStore(`{"redis": "unix:", "key_files": "k"}`):                           "line 3: redis must be an address",
		withStore(`{"redis": "redis://u@a", "key_files": "k"}`):                     "line 3: redis has a user name, but there is no password",
		withStore(`{"redis": "redis://a", "ca_file": "c", "key_files": "k"}`):       "line 3: ca_file is for TLS; begin the address in redis with rediss:",
		withStore(`{"redis": "redis://a"}`):                                         "line 3: there is no key to encrypt the tokens with; make one",
		withStore(`{"redis": "redis://a", "key_files": []}`):                        "line 3: there is no key to encrypt",
		withStore(`{"redis": "redis://a", "key_files": [null]}`):                    "line 3: key_files is neither",
		withStore(`{"redis": "redis://a", "key_files": "k", "password": "Canary"}`): `line 3: "password" isn't a setting`,
		withStore(`{"redis": "redis://a", "key_files": "k", "tls": true}`):          `line 3: "tls" isn't a setting`,

		withClient("{\n\"clientID\": \"c\"}"):                 `line 3: it contains "clientID", which isn't a setting`,
		withClient("{\n\"client_id\": 3}"):                    "line 3: client_id in it is not a string",
		withClient("{\n\"client_id\": null}"):                 "line 3: client_id in it is not a string",
		withClient("{\n\"client_secret\": \"SecretCanary\"}"): "name that with secret_file",
		withClient("3"):              "line 2: it isn't a JSON object",
		withClient(`"missing.json"`): "line 2: x can't be read",
		withClient(`"bad.json"`):     `bad.json: line 2: it contains "scope", which isn't a setting`,
		withClient(`"secret.json"`):  "secret.json: line 2: it contains client_secret",
	} {
		_, err := parseSettings([]byte(text), folder)
		if assert.ErrorContains(t, err, want, text) {
			assert.NotContains(t, err.Error(), "Canary")
		}
	}
	for _, text := range []string{
		withRoute(goodRoute), withClient(`"good.json"`), "\ufeff" + withRoute(goodRoute),
		withRoute(`{"path": "/a/", "upstream": "http://127.0.0.1:80/x", "client": "x"}`),
		withRoute(`{"path": "/a/", "upstream": "http://b", "dangerously_allow_http": true, "client": "x", "scopes": null}`),
		withRoute(`{"path": "/", "host": "api.localhost", "upstream": "https://b", "client": "x"}`),
		withStore("null"),
	} {
		s, err := parseSettings([]byte(text), folder)
		if assert.NoError(t, err, text) {
			assert.Equal(t, filepath.Join(folder, "s"), s.clients["x"]["secret_file"])
		}
	}
}

// TestX1_WrongClient checks that what is wrong with a client is reported before the start.
func TestX1_WrongClient(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "s"), []byte("SecretCanary"), 0o600))
	for client, want := range map[string]string{
		`{}`:                 `the client "x": there is no client id; give client_id`,
		`{"client_id": "c"}`: "there is no server; give token_url or issuer",
		`{"client_id": "c", "token_url": "https://a"}`:                                                  "there are no credentials; put it into a file, and name that with secret_file, key_file",
		`{"client_id": "c", "token_url": "https://a", "secret_file": "none"}`:                           "secret_file: ",
		`{"client_id": "c", "token_url": "https://a", "key_file": "s"}`:                                 "key_file: ",
		`{"client_id": "c", "token_url": "https://a", "secret_file": "s", "cert_file": "s"}`:            "cert_file needs the certificate's private key; give it with key_file",
		`{"client_id": "c", "token_url": "https://a", "secret_file": "s", "ca_file": "s"}`:              "ca_file: ",
		`{"client_id": "c", "token_url": "https://a", "secret_file": "s", "dpop_key_file": "s"}`:        "dpop_key_file: ",
		`{"client_id": "c", "token_url": "https://a", "secret_file": "s", "auth_method": "basic"}`:      "auth_method must be one of",
		`{"client_id": "c", "token_url": "https://a", "secret_file": "s", "params": "%zz"}`:             "params is not form-encoded",
		`{"client_id": "c", "token_url": "a", "secret_file": "s"}`:                                      "token_url is not absolute",
		`{"client_id": "c", "issuer": "http://a.example", "secret_file": "s"}`:                          "the issuer is http",
		`{"client_id": "c", "token_url": "https://a", "secret_file": "s", "params": "password=Canary"}`: "a parameter with the name of a secret; put it into a file",
	} {
		path := filepath.Join(folder, "ccproxy.json")
		require.NoError(t, os.WriteFile(path, []byte("{\"listen\": \"127.0.0.1:0\","+withClient(client)[1:]), 0o600))
		var out, log syncBuffer
		assert.Equal(t, statusUsage, run(t.Context(), []string{"-config", path, "-check"}, &out, &log), client)
		assert.Contains(t, log.String(), want)
		assert.Equal(t, 1, strings.Count(log.String(), "\n"))
		assert.NotContains(t, log.String(), "Canary")
	}
}

// TestX1_Example checks the example, and that the help page has all settings and flags.
func TestX1_Example(t *testing.T) {
	folder := t.TempDir()
	example, err := os.ReadFile("example.json")
	require.NoError(t, err)
	s, err := parseSettings(example, folder)
	require.NoError(t, err)
	assert.Len(t, s.routes, 3)
	assert.Equal(t, []string{"127.0.0.1:8080", "unix:" + filepath.Join(folder, "ccproxy.sock")}, s.listen)
	for address, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1", "unix:" + folder + "/s": "unix:" + folder + "/s", "unix:a/../s": "unix:" + filepath.Join(folder, "s"),
		"unix:": "unix:", "unix:@s": "unix:@s", "unix:\x00s": "unix:\x00s", "/s": "/s",
	} {
		assert.Equal(t, want, inFolder(folder, address))
	}
	fleet, err := os.ReadFile("example-fleet.json")
	require.NoError(t, err)
	s, err = parseSettings(fleet, folder)
	require.NoError(t, err)
	assert.NotNil(t, s.store)

	for _, name := range []string{"store", "redis", "key_files", "password_file", "ca_file", "listen", "admin", "hosts", "clients", "routes", "host", "path", "upstream", "client", "scopes", "resource", "audience", "dangerously_allow_http"} {
		assert.Contains(t, helpText, "\n  "+name)
	}
	document, err := os.ReadFile("../../docs/ccproxy.md")
	require.NoError(t, err)
	assert.Contains(t, string(document), strings.TrimSpace(string(example)))
}

// TestX1_Flags checks the flags.
func TestX1_Flags(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "there are no settings; name a file with -config",
		"-config":                   "the flags can't be parsed",
		"-secret SecretCanary":      "the flags can't be parsed",
		"-config a SecretCanary":    "there is an argument that isn't a flag",
		"-config a -drain -1s":      "must not be negative",
		"-config a -max-requests 0": "must be at least 1",
		"-config missing":           "the settings can't be used: open missing",
	} {
		var out, log syncBuffer
		assert.Equal(t, statusUsage, run(t.Context(), strings.Fields(text), &out, &log))
		assert.Contains(t, log.String(), want)
		assert.NotContains(t, log.String(), "Canary")
	}
	for text, want := range map[string]string{"-h": helpText, "-version": "ccproxy "} {
		var out, log syncBuffer
		assert.Zero(t, run(t.Context(), []string{text}, &out, &log))
		assert.Contains(t, out.String(), want)
	}
}

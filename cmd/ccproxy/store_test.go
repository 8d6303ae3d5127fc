package main

import (
	"maps"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestX14_Addresses checks which Redis an address leads to, and that TLS checks its name.
func TestX14_Addresses(t *testing.T) {
	for address, want := range map[string]struct {
		network, addr, user, serverName string
		database                        int
	}{
		"redis://127.0.0.1":                       {"tcp", "127.0.0.1:6379", "", "", 0},
		"redis://[::1]/":                          {"tcp", "[::1]:6379", "", "", 0},
		"REDISS://u%40a@redis.example:1/2":        {"tcp", "redis.example:1", "u@a", "redis.example", 2},
		"rediss://[::1]:1":                        {"tcp", "[::1]:1", "", "::1", 0},
		"unix:/run/redis/redis.sock":              {"unix", "/run/redis/redis.sock", "", "", 0},
		"unix:redis.sock":                         {"unix", "/etc/ccproxy/redis.sock", "", "", 0},
		"unix://ccproxy@/run/redis%20/redis.sock": {"unix", "/run/redis /redis.sock", "ccproxy", "", 0},
	} {
		options, ok := redisOptions(address, "/etc/ccproxy")
		require.True(t, ok, address)
		assert.Equal(t, []any{want.network, want.addr, want.user, want.database}, []any{options.Network, options.Addr, options.Username, options.DB}, address)
		assert.Equal(t, want.serverName != "", options.TLSConfig != nil, address)
		if options.TLSConfig != nil {
			assert.Equal(t, want.serverName, options.TLSConfig.ServerName)
			assert.False(t, options.TLSConfig.InsecureSkipVerify)
		}
	}
}

// TestX14_Files checks that what is wrong with the files of a store is reported before the start.
func TestX14_Files(t *testing.T) {
	w := &world{t: t, Server: newServer(t, nil), dir: t.TempDir()}
	w.write("secret.txt", canarySecret)
	w.write("short", "Canary")
	w.write("same", "CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC")
	w.write("key", canarySecret)
	for _, test := range []struct {
		store, client dict
		want          string
	}{
		{dict{"key_files": []string{"key", "missing"}}, nil, "the store: key_files: open "},
		{dict{"key_files": []string{"key", "short"}}, nil, "the store: key_files: oauth2: key 2 of the Keyring has 6 bytes"},
		{dict{"key_files": "same"}, nil, "is the same byte over and over"},
		{dict{"key_files": ""}, nil, "the store: key_files: open "},
		{dict{"password_file": "missing"}, nil, "the store: password_file: "},
		{dict{"redis": "rediss://127.0.0.1:1", "ca_file": "missing"}, nil, "the store: ca_file: open "},
		{dict{"redis": "rediss://127.0.0.1:1", "ca_file": "key"}, nil, "the store: ca_file: the file "},
		{nil, dict{"client_id": "", "assertion_file": "key", "auth_method": "private_key_jwt"}, "can't share its tokens, because nobody could tell whose they are"},
		{nil, dict{"client_id": "", "assertion_file": "key", "params": "client_id=client"}, ""},
		{nil, nil, ""}, // There is no Redis, but that is no reason not to start.
	} {
		s := w.settings()
		store := dict{"redis": "redis://127.0.0.1:1", "key_files": "key"}
		maps.Copy(store, test.store)
		maps.Copy(s["clients"].(dict)["test"].(dict), test.client)
		if test.client != nil {
			delete(s["clients"].(dict)["test"].(dict), "secret_file")
		}
		s["store"] = store
		w.writeSettings(s)
		var out, log syncBuffer
		status := run(t.Context(), []string{"-config", filepath.Join(w.dir, "ccproxy.json"), "-check"}, &out, &log)
		if test.want == "" {
			assert.Zero(t, status, log.String())
			continue
		}
		assert.Equal(t, statusUsage, status, test.want)
		assert.Contains(t, log.String(), test.want)
		assert.NotContains(t, log.String(), "Canary")
	}
}

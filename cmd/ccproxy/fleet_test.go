//go:build unix

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-5bfa0880/clientcredentials/internal/hostile"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

// A redisServer is a redis-server that listens on a unix socket only.
type redisServer struct {
	t     *testing.T
	path  string // of the socket
	admin *redis.Client
	kill  func()
}

// startRedis starts a redis-server. Without one it skips the test, or fails it if servers are
// required.
func startRedis(t *testing.T) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		const why = "redis-server isn't here; run `make setup`"
		if os.Getenv("CLIENTCREDENTIALS_REQUIRE_SERVERS") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	s := &redisServer{t: t, path: filepath.Join(t.TempDir(), "redis.sock")}
	s.start()
	s.admin = redis.NewClient(&redis.Options{Network: "unix", Addr: s.path})
	t.Cleanup(func() { _ = s.admin.Close() })
	return s
}

// start starts s, also after kill. What it had in memory is lost. A shell kills it when its
// standard input ends, so that it doesn't outlive this program.
func (s *redisServer) start() {
	s.t.Helper()
	cmd := exec.Command("sh", "-c", `"$@" & read -r _; kill -9 $!; wait`, "sh",
		"redis-server", "--port", "0", "--unixsocket", s.path, "--save", "", "--appendonly", "no", "--dir", filepath.Dir(s.path))
	output := new(syncBuffer)
	cmd.Stdout, cmd.Stderr = output, output
	stdin, err := cmd.StdinPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, cmd.Start())
	s.kill = sync.OnceFunc(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	s.t.Cleanup(s.kill)
	output.await(s.t, "(ready|Ready) to accept connections")
}

// do runs a command, whose arguments have no spaces in them.
func (s *redisServer) do(command string) any {
	s.t.Helper()
	var words []any
	for word := range strings.FieldsSeq(command) {
		words = append(words, word)
	}
	reply, err := s.admin.Do(s.t.Context(), words...).Result()
	require.NoError(s.t, err)
	return reply
}

// share makes the proxy of settings share its tokens through s.
func (s *redisServer) share(w *world, settings dict) {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	w.write("sealing.key", string(key))
	settings["store"] = dict{"redis": "unix:" + s.path, "key_files": "sealing.key"}
	settings["admin"] = "127.0.0.1:0"
}

// replica starts another proxy with the settings of w.
func (w *world) replica() *world {
	other := &world{t: w.t, Server: w.Server, dir: w.dir}
	other.start(true)
	return other
}

// scopedRoutes returns the routes /0/, /1/ and so on, each of which needs a token of its own.
func (w *world) scopedRoutes() (routes []dict) {
	for i := range 200 {
		route := w.route(fmt.Sprintf("/%d/", i))
		route["scopes"] = fmt.Sprintf("scope%d", i)
		routes = append(routes, route)
	}
	return routes
}

// awaitStore requests one of scopedRoutes after the other, so that each calls the store, until
// the health of the store is want. It returns the number of the next route.
func (w *world) awaitStore(want string, next int) int {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		require.Equal(w.t, 200, w.get(fmt.Sprintf("/%d/", next)).StatusCode)
		next++
		if _, h := w.health(); h.Store == want {
			return next
		}
		require.True(w.t, time.Now().Before(deadline), "the store isn't %s:\n%s", want, w.log)
	}
}

// isSealed checks that nothing in s shows a token or the secret.
func (s *redisServer) isSealed(w *world) {
	s.t.Helper()
	keys, err := s.admin.Keys(s.t.Context(), "*").Result()
	require.NoError(s.t, err)
	require.NotEmpty(s.t, keys)
	for _, key := range keys {
		values, err := s.admin.HGetAll(s.t.Context(), key).Result()
		require.NoError(s.t, err)
		for _, value := range values {
			for _, secret := range append(w.tokens(), canarySecret) {
				assert.Empty(s.t, hostile.Find(value, secret))
			}
		}
	}
}

// TestX14_OneToken checks that two proxies with one Redis make one token request, also after the
// API has rejected the token, and that no request fails if the Redis goes away.
func TestX14_OneToken(t *testing.T) {
	store := startRedis(t)
	first := newWorld(t, nil, func(w *world, s dict) {
		store.share(w, s)
		s["routes"] = append(w.scopedRoutes(), w.route("/api/"))
	})
	second := first.replica()
	both := func(path string) {
		t.Helper()
		for _, w := range []*world{first, second} {
			assert.Equal(t, 200, w.get(path).StatusCode)
		}
	}
	both("/api/")
	assert.Equal(t, 1, first.Auth.TokenRequests())
	first.Auth.RevokeAll()
	both("/api/")
	assert.Equal(t, 2, first.Auth.TokenRequests())
	for _, w := range []*world{first, second} {
		status, h := w.health()
		assert.Equal(t, 200, status)
		assert.Equal(t, "ok", h.Store)
	}
	store.isSealed(first)

	store.kill()
	both("/api/")
	assert.Equal(t, 2, first.Auth.TokenRequests())
	both("/0/")
	assert.Equal(t, 4, first.Auth.TokenRequests())
	for _, w := range []*world{first, second} {
		w.awaitStore("failing", 1)
		status, _ := w.health()
		assert.Equal(t, 200, status, "the requests succeed")
		w.log.await(t, `msg="oauth2: the store of shared tokens failed; going on without it" client=test`)
		w.proxy = w.admin
		assert.Regexp(t, `clientcredentials_store_operation_duration_seconds_count\{clientcredentials_name="test",clientcredentials_store_operation="acquire"`, w.get("/metrics").body)
	}
}

// TestX14_Credentials checks a Redis with TLS, and with a user that has the documented permissions
// and a password. A new password is read from its file.
func TestX14_Credentials(t *testing.T) {
	store := startRedis(t)
	const user, permissions = "acl setuser ccproxy reset on >", " ~clientcredentials:* -@all +evalsha +eval +time +hmget +hset +pexpire"
	store.do(user + "PasswordCanary1" + permissions)
	store.do("acl setuser default resetkeys nocommands +acl +client +keys +hgetall") // The proxy mustn't succeed as this user.
	store.do("acl setuser default ~*")
	certificate := testkit.ServerCertificate()
	address := tunnel(t, certificate, store.path)

	w := newWorld(t, nil, func(w *world, s dict) {
		store.share(w, s)
		w.write("ca.pem", testkit.CertificatePEM(certificate))
		w.write("password.txt", "PasswordCanary1\n")
		s["store"].(dict)["redis"] = "rediss://ccproxy@" + address
		s["store"].(dict)["ca_file"] = "ca.pem"
		s["store"].(dict)["password_file"] = "password.txt"
		s["routes"] = w.scopedRoutes()
	})
	used := w.awaitStore("ok", 0)
	store.isSealed(w)

	store.do(user + "PasswordCanary2" + permissions)
	store.do("client kill user ccproxy")
	used = w.awaitStore("failing", used)
	w.log.await(t, "WRONGPASS")
	w.write("password.txt", "PasswordCanary2\n")
	w.awaitStore("ok", used)
	assert.NotContains(t, w.log.String(), "PasswordCanary")

	// A server with another certificate doesn't get the password.
	w.write("ca.pem", testkit.CertificatePEM(testkit.ServerCertificate()))
	w.replica().awaitStore("failing", 0)
}

// tunnel listens with TLS, and connects each connection with a unix socket.
func tunnel(t *testing.T, certificate *tls.Certificate, path string) (address string) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS13})
	require.NoError(t, err)
	var connections sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	connections.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				defer in.Close()
				out, err := new(net.Dialer).DialContext(ctx, "unix", path)
				if err != nil {
					return
				}
				defer out.Close()
				defer context.AfterFunc(ctx, func() { in.Close(); out.Close() })()
				connections.Go(func() { _, _ = io.Copy(out, in); out.Close() })
				_, _ = io.Copy(in, out)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		cancel()
		connections.Wait()
	})
	return listener.Addr().String()
}

// TestX14_Reload checks what a change of the store keeps, and that a store that isn't needed
// anymore has no connection left.
func TestX14_Reload(t *testing.T) {
	store, another := startRedis(t), startRedis(t)
	w := &world{t: t, Server: newServer(t, nil), dir: t.TempDir()}
	w.write("secret.txt", canarySecret)
	s := w.settings()
	store.share(w, s)
	d := newDaemon(t, w, s)
	defer func() { d.proxy.routing.Load().retire(nil) }()
	token := func() string {
		t.Helper()
		token, err := d.proxy.routing.Load().routes[0].source.TokenContext(t.Context())
		require.NoError(t, err)
		return token.AccessToken
	}
	is := func(c *client, same bool) {
		t.Helper()
		assert.Equal(t, same, d.proxy.routing.Load().clients["test"] == c)
	}
	old := token()
	first := d.proxy.routing.Load()

	// The store and the client stay if another setting changes.
	s["routes"] = []dict{w.route("/api/"), w.route("/b/")}
	require.NoError(t, reload(t, d, s, w))
	assert.Same(t, first.store, d.proxy.routing.Load().store)
	is(first.clients["test"], true)

	// A mistake changes nothing, and closes nothing but what is new.
	seen := d.look()
	w.write("new.key", "short")
	s["store"].(dict)["key_files"] = []string{"new.key", "sealing.key"}
	require.ErrorContains(t, reload(t, d, s, w), "key 1 of the Keyring has 5 bytes")
	w.write("new.key", canarySecret)
	wrong := w.settings()
	wrong["store"], wrong["admin"] = s["store"], s["admin"]
	wrong["clients"].(dict)["test"].(dict)["client_id"] = "unknown"
	require.ErrorContains(t, reload(t, d, wrong, w), "there is no token for the route /api/")
	assert.Same(t, first.store, d.proxy.routing.Load().store)
	require.NoError(t, first.store.client.Ping(t.Context()).Err())
	assert.Equal(t, 1, store.connections())

	// With a new key, and the old one for what is there, the token is found in the store.
	requests := w.Auth.TokenRequests()
	require.NoError(t, reload(t, d, s, w))
	assert.NotEqual(t, seen, d.look())
	is(first.clients["test"], false)
	assert.Equal(t, old, token())
	assert.Equal(t, requests, w.Auth.TokenRequests())
	require.ErrorIs(t, first.store.client.Ping(t.Context()).Err(), redis.ErrClosed)
	assert.Equal(t, 1, store.connections())

	// The content of a file is noticed, too.
	seen = d.look()
	w.write("new.key", canarySecret+"2")
	assert.NotEqual(t, seen, d.look())

	// Another Redis, and then none.
	s["store"].(dict)["redis"] = "unix:" + another.path
	require.NoError(t, reload(t, d, s, w))
	assert.Equal(t, requests+1, w.Auth.TokenRequests())
	assert.Zero(t, store.connections())
	assert.Equal(t, 1, another.connections())
	delete(s, "store")
	require.NoError(t, reload(t, d, s, w))
	assert.Zero(t, another.connections())
	assert.Nil(t, d.proxy.routing.Load().store)
	h, _ := d.proxy.routing.Load().health()
	assert.Empty(t, h.Store)
}

// connections returns how many connections s has, without that of admin.
func (s *redisServer) connections() int {
	s.t.Helper()
	var others []string
	require.Eventually(s.t, func() bool { // Redis notices the end of a connection a moment later.
		clients := strings.Split(strings.TrimSpace(s.do("client list").(string)), "\n")
		others = slices.DeleteFunc(clients, func(line string) bool { return strings.Contains(line, "cmd=client|list") })
		return len(others) <= 1
	}, time.Minute, 10*time.Millisecond)
	return len(others)
}

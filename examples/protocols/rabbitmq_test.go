package protocols

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/seed-5bfa0880/clientcredentials"
	cct "github.com/seed-5bfa0880/clientcredentials/clientcredentialstest"
	"github.com/seed-5bfa0880/clientcredentials/internal/jws"
	"github.com/seed-5bfa0880/clientcredentials/internal/testkit"
)

const (
	rabbitMQ  = "/usr/lib/rabbitmq/bin/rabbitmq-server" // that of the PATH changes to another user
	queue     = "reports"
	tokenLife = 12 * time.Second
)

// The token that arrives first may only create the queue and write to it. The next one may only
// read. So the server has got it when the client can read.
func TestRabbitMQ(t *testing.T) {
	signer := testkit.NewKey("RS256")
	url := startRabbitMQ(t, signer.Public())
	var last *wire // that of the connection that was made last
	conf := amqp.Config{Dial: func(network, address string) (net.Conn, error) {
		conn, err := amqp.DefaultDial(time.Minute)(network, address)
		last = &wire{Conn: conn}
		return last, err
	}}
	dial := func() (*cct.AuthorizationServer, *amqp.Connection, *oauth2.Token, *clientcredentials.Source) {
		auth := &cct.AuthorizationServer{Clients: []cct.Client{{ID: cct.ClientID, Secret: cct.ClientSecret}}, TokenLifetime: tokenLife}
		server := httptest.NewServer(issueJWTs(t, auth, signer, "rabbitmq.configure:*/* rabbitmq.write:*/*", "rabbitmq.read:*/*"))
		t.Cleanup(server.Close)
		source := (&clientcredentials.Config{ClientID: cct.ClientID, ClientSecret: cct.ClientSecret, TokenURL: server.URL + "/token"}).Source(t.Context())
		conn, token, err := DialRabbitMQ(t.Context(), url, conf, source)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return auth, conn, token, source
	}
	ended, failed := make(chan error, 1), make(chan error, 1)
	auth, conn, token, source := dial()
	first := last
	go func() { ended <- RefreshRabbitMQ(t.Context(), conn, token, source) }()
	broken, expired, lastToken, brokenSource := dial()
	broken.SetFault(new(cct.Unavailable()))
	go func() { failed <- RefreshRabbitMQ(t.Context(), expired, lastToken, brokenSource) }()

	require.NoError(t, publish(t, conn))
	require.ErrorContains(t, read(t, conn), "ACCESS_REFUSED")
	require.NoError(t, publish(t, expired))

	require.ErrorContains(t, <-failed, "503")
	require.True(t, time.Now().After(lastToken.Expiry))
	require.ErrorContains(t, publish(t, expired), "expired")
	require.ErrorContains(t, publish(t, conn), "ACCESS_REFUSED")
	require.NoError(t, read(t, conn))
	require.GreaterOrEqual(t, auth.TokensIssued(), 2)
	require.LessOrEqual(t, int(first.updates.Load()), auth.TokensIssued()-1, "each token is sent once")

	require.NoError(t, first.Close())
	require.ErrorAs(t, <-ended, new(*amqp.Error))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, RefreshRabbitMQ(ctx, expired, &oauth2.Token{Expiry: time.Now().Add(time.Hour)}, source), context.Canceled)
	require.NoError(t, RefreshRabbitMQ(ctx, expired, &oauth2.Token{}, source), "such a token needs no refresh")
	require.NoError(t, expired.Close())
	require.NoError(t, RefreshRabbitMQ(t.Context(), expired, lastToken, source))
}

// A wire is a connection that counts the tokens which the client sends to replace others.
type wire struct {
	net.Conn
	updates atomic.Int32
}

func (w *wire) Write(b []byte) (int, error) {
	w.updates.Add(int32(bytes.Count(b, []byte("the token is about to expire"))))
	return w.Conn.Write(b)
}

// publish sends a message to the queue and waits until the server has confirmed it.
func publish(t *testing.T, conn *amqp.Connection) error {
	t.Helper()
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	defer channel.Close()
	if _, err := channel.QueueDeclare(queue, false, false, false, false, nil); err != nil {
		return err
	}
	if err := channel.Confirm(false); err != nil {
		return err
	}
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(t.Context(), "", queue, true, false, amqp.Publishing{Body: []byte("hello")})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	confirmed, err := confirmation.WaitContext(ctx)
	if err == nil && !confirmed {
		err = errors.New("the server has not taken the message")
	}
	return err
}

// read takes a message from the queue.
func read(t *testing.T, conn *amqp.Connection) error {
	t.Helper()
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	defer channel.Close()
	message, found, err := channel.Get(queue, true)
	if err == nil {
		require.True(t, found)
		require.Equal(t, "hello", string(message.Body))
	}
	return err
}

// issueJWTs returns an authorization server that issues JWTs instead of the tokens of auth. Each
// has the next of the scopes, and the last of them is repeated.
func issueJWTs(t *testing.T, auth *cct.AuthorizationServer, signer crypto.Signer, scopes ...string) http.Handler {
	t.Helper()
	key, err := jws.NewKey(signer, "")
	require.NoError(t, err)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		auth.ServeHTTP(recorder, r)
		answer := make(map[string]any)
		if recorder.Code != http.StatusOK || json.Unmarshal(recorder.Body.Bytes(), &answer) != nil {
			w.WriteHeader(recorder.Code)
			return
		}
		number := auth.TokensIssued()
		token, err := key.Sign(map[string]any{"kid": "key"}, map[string]any{
			"sub":   cct.ClientID,
			"aud":   "rabbitmq",
			"exp":   time.Now().Add(auth.TokenLifetime).Unix(),
			"jti":   number,
			"scope": scopes[min(number, len(scopes))-1],
		})
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answer["access_token"] = token
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
}

// leashed runs the name server of Erlang and RabbitMQ. It kills both when file 3 is closed, so
// that they end with the test, even if that is killed.
const leashed = `(read -r _ <&3; kill -9 -$$) & exec 3<&-; epmd -address 127.0.0.1 & exec "$0"`

// startRabbitMQ starts a server that accepts the JWTs of a key, and returns its URL.
func startRabbitMQ(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	if _, err := os.Stat(rabbitMQ); err != nil {
		const why = "rabbitmq-server isn't here; run `make setup`"
		if os.Getenv("CLIENTCREDENTIALS_REQUIRE_SERVERS") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	require.NoError(t, err)
	keyFile := file("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	var log []string
	for range 5 { // Another program may have one of the ports.
		port := 20_000 + rand.IntN(10_000)
		cmd := exec.Command("sh", "-c", leashed, rabbitMQ)
		cmd.Env = append(os.Environ(),
			"HOME="+dir,
			fmt.Sprint("ERL_EPMD_PORT=", port+2),
			"ERL_EPMD_ADDRESS=127.0.0.1",
			"RABBITMQ_NODENAME=test@localhost",
			fmt.Sprint("RABBITMQ_DIST_PORT=", port+1),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
			"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "data"),
			"RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"),
			"RABBITMQ_LOGS=-",
			"RABBITMQ_CONF_ENV_FILE="+file("env.conf", ""),
			"RABBITMQ_ENABLED_PLUGINS_FILE="+file("plugins", "[rabbitmq_auth_backend_oauth2]."),
			"RABBITMQ_CONFIG_FILE="+file("rabbitmq.conf", fmt.Sprintf(`
				listeners.tcp.1 = 127.0.0.1:%d
				auth_backends.1 = rabbit_auth_backend_oauth2
				auth_oauth2.resource_server_id = rabbitmq
				auth_oauth2.default_key = key
				auth_oauth2.signing_keys.key = %s
			`, port, keyFile)),
		)
		if log = startProcess(t, cmd, "Server startup complete"); log == nil {
			return fmt.Sprintf("amqp://127.0.0.1:%d/", port)
		}
	}
	require.FailNow(t, "rabbitmq-server doesn't start", "%s", strings.Join(log, "\n"))
	return ""
}

// startProcess starts a leashed process, which ends with the test. It returns nil when the
// process has written a line with the text started, and all lines if there is no such line.
func startProcess(t *testing.T, cmd *exec.Cmd, started string) (log []string) {
	t.Helper()
	held, leash, err := os.Pipe()
	require.NoError(t, err)
	output, written, err := os.Pipe()
	require.NoError(t, err)
	cmd.ExtraFiles = []*os.File{held}
	cmd.Stdout, cmd.Stderr = written, written
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // kill -$$ is for the whole group.
	require.NoError(t, cmd.Start())
	held.Close()
	written.Close()
	drained := make(chan struct{})
	t.Cleanup(func() {
		leash.Close()
		<-drained
		_ = cmd.Wait()
		output.Close()
	})
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		log = append(log, lines.Text())
		if strings.Contains(lines.Text(), started) {
			log = nil
			break
		}
	}
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, output)
	}()
	return log
}

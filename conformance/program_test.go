package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A program is an authorization server that runs as its own process. The first test
// that needs it starts it, all tests share it, and withPrograms ends it. The comment at
// the top of its source describes its argument and its output.
type program struct {
	name string
	// command returns the command that starts it with its argument, which is JSON. If
	// something isn't installed, it returns an errMissing.
	command func(arg string) (*exec.Cmd, error)
	// config returns the argument.
	config func() programConfig

	once   sync.Once
	err    error // from starting it
	at     endpoints
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	// drained is closed when the program has closed its standard output.
	drained chan struct{}
}

// programConfig is the argument of a program. All programs know Scopes, and only
// oidc-provider knows the rest.
type programConfig struct {
	Scopes []string `json:"scopes"`
	// ClockTolerance is the number of seconds for which an expired token is still
	// accepted: the provider rounds times down to whole seconds.
	ClockTolerance int `json:"clockTolerance"`
	// ClockOffset is the number of seconds by which the program's clock is wrong.
	ClockOffset int `json:"clockOffset,omitempty"`
	// RequireNonce demands a nonce in each DPoP proof.
	RequireNonce bool         `json:"requireNonce,omitempty"`
	TLS          *identityPEM `json:"tls,omitempty"`
}

// errMissing says how to install what a program needs.
var errMissing = errors.New("run `make setup`")

// start is the starter of the program. The first call starts it.
func (p *program) start(t *testing.T, clients ...registration) []endpoints {
	t.Helper()
	p.once.Do(func() { p.err = p.run() })
	if errors.Is(p.err, errMissing) {
		missing(t, p.err.Error())
	}
	require.NoError(t, p.err)

	p.at.register(t, clients...)
	return slices.Repeat([]endpoints{p.at}, len(clients))
}

// run starts the program and waits until it is ready.
func (p *program) run() error {
	arg, err := json.Marshal(p.config())
	if err != nil {
		return err
	}
	cmd, err := p.command(string(arg))
	if err != nil {
		return err
	}
	cmd.Stderr = &p.stderr
	stdin, err := cmd.StdinPipe() // stays open until the tests have ended: the program ends when it is closed
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.stdin, p.drained = cmd, stdin, make(chan struct{})

	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var at struct{ Issuer, Token, API, Admin string }
		// The server may print other lines before and after this one.
		if json.Unmarshal(lines.Bytes(), &at) == nil && at.Admin != "" {
			p.at = endpoints{issuer: at.Issuer, token: at.Token, api: at.API, admin: at.Admin}
			go func() {
				_, _ = io.Copy(io.Discard, stdout)
				close(p.drained)
			}()
			return nil
		}
	}
	close(p.drained)
	return fmt.Errorf("%s ended, or was killed after a minute, before it was ready", p.name)
}

// stop ends the program if it was started.
func (p *program) stop() error {
	if p.cmd == nil {
		return nil
	}
	_ = p.stdin.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	<-p.drained
	err := p.cmd.Wait()
	if !kill.Stop() {
		return errors.New("outlived its standard input and was killed")
	}
	return err
}

// missing skips a test whose server isn't installed, or fails it if
// CLIENTCREDENTIALS_REQUIRE_SERVERS is set.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CLIENTCREDENTIALS_REQUIRE_SERVERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

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

// A program is an authorization server that is a process of its own. It is
// started by the first test that needs it and serves all of them: withPrograms
// ends it. Its comment at the top of its source says what it is told and what it
// answers.
type program struct {
	name string
	// command returns how to start it with its argument, which is JSON, or says
	// what is missing here.
	command func(arg string) (*exec.Cmd, error)
	// config returns the argument.
	config func() programConfig

	once   sync.Once
	err    error // of the start
	at     endpoints
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	// drained is closed when the program has closed its standard output.
	drained chan struct{}
}

// programConfig is the argument of a program. Only oidc-provider knows more
// than Scopes.
type programConfig struct {
	Scopes []string `json:"scopes"`
	// ClockTolerance is for how many seconds past its expiry a token is still
	// honoured. The provider keeps time in whole seconds, rounded down: at 0 a
	// token of three seconds lives between two and three, at 1 between three
	// and four. (Its own default is 15.)
	ClockTolerance int `json:"clockTolerance"`
	// ClockOffset is by how many seconds the program's clock is wrong.
	ClockOffset int `json:"clockOffset,omitempty"`
	// RequireNonce says that each DPoP proof needs a nonce.
	RequireNonce bool         `json:"requireNonce,omitempty"`
	TLS          *identityPEM `json:"tls,omitempty"`
}

// errMissing is why a program can't be run here.
var errMissing = errors.New("run `make setup`")

// start makes the clients known to the program, which it starts if it has to.
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
	stdin, err := cmd.StdinPipe() // held open until the tests have ended: the program ends with it
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

	ready := make(chan endpoints, 1)
	go func() {
		defer close(p.drained)
		defer close(ready)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var at struct{ Issuer, Token, API, Admin string }
			// The server's own notices may come before and after.
			if json.Unmarshal(lines.Bytes(), &at) == nil && at.Admin != "" {
				ready <- endpoints{issuer: at.Issuer, token: at.Token, api: at.API, admin: at.Admin}
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
	}()
	select {
	case at, ok := <-ready:
		if !ok {
			return fmt.Errorf("%s ended without a word", p.name)
		}
		p.at = at
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("%s did not start", p.name)
	}
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

// missing ends a test whose server can't be run here.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CLIENTCREDENTIALS_REQUIRE_SERVERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

package redisstore_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is for what takes a moment: a test that waits so long has failed.
const patience = 30 * time.Second

// A process is a program that a test has started. It ends with the test, and with this
// program, however that ends.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	leash io.Closer // what the process can't outlive
	// drained is closed when everything that the process has written was read.
	drained chan struct{}
	ended   sync.Once

	mu  sync.Mutex // protects log
	log []string   // the last lines
}

// leashed runs a program with a shell beside it that kills it when file 3 ends. The
// shell holds the output open, so that who has read all of that knows it is gone, too.
const leashed = `(read -r _ <&3; kill -9 $$ 2>/dev/null) & exec 3<&-; exec "$@"`

// start starts a program, in an environment with more variables than this one's. Each
// line that it writes is shown to the function.
func start(t *testing.T, env []string, line func(string), program string, args ...string) *process {
	t.Helper()
	held, leash, err := os.Pipe()
	require.NoError(t, err)
	defer held.Close()
	output, written, err := os.Pipe()
	require.NoError(t, err)
	defer written.Close()

	p := &process{leash: leash, drained: make(chan struct{})}
	p.cmd = exec.Command("sh", append([]string{"-c", leashed, "sh", program}, args...)...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.ExtraFiles = []*os.File{held}
	p.cmd.Stdout, p.cmd.Stderr = written, written
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	if err := p.cmd.Start(); err != nil {
		_ = leash.Close()
		_ = output.Close()
		require.NoError(t, err)
	}
	t.Cleanup(p.kill)
	go func() {
		defer close(p.drained)
		defer output.Close()
		for lines := bufio.NewReader(output); ; {
			text, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			text = strings.TrimSuffix(text, "\n")
			p.mu.Lock()
			p.log = append(p.log[max(len(p.log)-50, 0):], text)
			p.mu.Unlock()
			line(text)
		}
	}()
	return p
}

// kill ends p with SIGKILL, if it hasn't ended.
func (p *process) kill() {
	p.ended.Do(func() {
		_ = p.leash.Close() // The shell kills it, and nothing else: it isn't waited for yet.
		_ = p.stdin.Close()
		<-p.drained
		_ = p.cmd.Wait()
	})
}

// signal sends a signal to p, which hasn't been killed.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(s))
}

// freeze stops p; thaw lets it go on.
func (p *process) freeze(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
}

func (p *process) thaw(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

// output returns the last lines that p has written.
func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// freePort returns a port on which nothing listened a moment ago. It is below where
// systems take the ports of outgoing connections from, so that a server that is
// started again finds its port as it left it.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		require.NoError(t, listener.Close())
		return port
	}
	require.FailNow(t, "there is no free port")
	return 0
}

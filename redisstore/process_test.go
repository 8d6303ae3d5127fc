package redisstore_test

import (
	"bufio"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds the wait for anything that should take only a moment.
const patience = 30 * time.Second

// A process is a program that a test has started. It ends with the test, and also when
// this test binary ends, even if that is killed.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	leash   io.Closer     // closing it kills the process
	drained chan struct{} // closed when all output of the process has been read
	ended   sync.Once

	mu  sync.Mutex // protects log
	log []string   // the last lines
}

// leashed runs a program, and beside it a shell that kills it when file 3 is closed. The
// shell holds the output open, so that at the end of the output the shell is gone, too.
const leashed = `(read -r _ <&3; kill -9 $$ 2>/dev/null) & exec 3<&-; exec "$@"`

// start starts a program with additional environment variables. It calls line with each
// line that the program writes.
func start(t testing.TB, env []string, line func(string), program string, args ...string) *process {
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
	require.NoError(t, p.cmd.Start())
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

// kill ends p with SIGKILL if it hasn't ended yet.
func (p *process) kill() {
	p.ended.Do(func() {
		_ = p.leash.Close() // The shell kills p, whose id is p's until Wait returns.
		_ = p.stdin.Close()
		<-p.drained
		_ = p.cmd.Wait()
	})
}

// freeze stops p until thaw is called.
func (p *process) freeze(t testing.TB) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
}

func (p *process) thaw(t testing.TB) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
}

// output returns the last lines that p has written.
func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// randomPort returns a port below those that systems use for outgoing connections, so that a
// server that is started again finds its port still free.
func randomPort() int { return 20_000 + rand.IntN(10_000) }
